/* SPDX-License-Identifier: MIT */
/*
 * One engine of a GPU, the workers that use it, and the mediator's arbiter between them, with a
 * clock of its own: a discrete-event simulation.
 *
 * A worker has pieces of work whose length it knows before (or says that it knows), obeys its turn
 * word as protocol/vgpu-worker.h has it, and keeps no more than a window on the engine. Messages
 * take 5 to 300 us, a worker finds a changed word within 20 us. The engine runs what one worker has
 * there in order, and what several have in slices of 2 ms, as the driver does. Where the plan says
 * so, a worker takes its work off the engine when it is told to, and puts it back.
 *
 * Where the plan says so, the mediator ends at any moment, and after a while there is another one,
 * which knows nothing and adopts the workers. What they have said meanwhile it finds.
 *
 * What must hold at every moment is checked at every decision; sim_fail() ends the program with the
 * seed.
 */
#ifndef VGPU_TESTS_UNIT_SIM_MODEL_H
#define VGPU_TESTS_UNIT_SIM_MODEL_H

#include <stdint.h>
#include <stdio.h>

#include "mediator/arbiter.h"

#define SIM_VMS 64u
#define SIM_SAMPLES 65536u

#define US UINT64_C(1000)
#define MS UINT64_C(1000000)
#define SEC UINT64_C(1000000000)

enum sim_manner {
    SIM_HONEST,
    SIM_UNDERSTATES, /* its pieces take 100 times what it says */
    SIM_KEEPS,       /* never returns a turn, nor says anything */
    SIM_FLOODS,      /* any message, any word, at any time */
    SIM_LEAVES,      /* asks, leaves, comes back */
    SIM_DEAF,        /* is never off, and does not say so */
};

struct sim_vm {
    enum vgpu_priority priority;
    uint32_t weight;
    unsigned sessions;
    uint64_t shortest_ns, longest_ns; /* its pieces, log-uniform between them */
    unsigned burst;                   /* pieces; then it rests */
    uint64_t rest_ns;                 /* on average; 0: it never rests */
    uint64_t from_ns, until_ns;       /* when it is there; until 0: to the end */
    enum sim_manner manner;
};

struct sim_plan {
    uint64_t seed;
    uint64_t run_ns;
    uint64_t warm_ns; /* what is before that counts for no figure */
    struct arbiter_rules rules;
    uint64_t window_ns;
    uint64_t yield_ns; /* how long before a worker's end the next may submit */
    uint64_t off_shortest_ns, off_longest_ns; /* how long turning off or on takes; 0: none can */
    uint64_t
        death_ns; /* the mediator ends after so long, on average, and another adopts; 0: never */
    unsigned count;
    struct sim_vm vm[SIM_VMS];
    FILE *trace; /* lines "vm,band,start,end", who runs when, us; or NULL */
};

struct sim_result {
    uint64_t decisions;
    uint64_t idle_ns; /* nothing ran though somebody waited */
    struct {
        uint64_t gpu_ns;  /* had */
        uint64_t wait_ns; /* the longest wait for a grant */
        uint64_t grants;
    } vm[SIM_VMS];
    uint64_t starved_ns[VGPU_PRIORITIES]; /* the longest that a band waited for any turn */
    uint64_t ahead_ns; /* the most work of lower bands before a higher one, less one piece */
    uint64_t offs;     /* so often a worker was off */
    uint64_t deaths;   /* of the mediator */
    /* From asking to the first piece's start, of the highest band. */
    unsigned samples;
    uint64_t sample[SIM_SAMPLES];
};

void sim_run(const struct sim_plan *plan, struct sim_result *result);

_Noreturn void sim_fail(const struct sim_plan *plan, uint64_t now_ns, const char *what);

/* Pseudo-random numbers, xorshift64*. */
uint64_t sim_random(uint64_t *state, uint64_t below);

/* One of a log-uniform distribution. */
uint64_t sim_length(uint64_t *state, uint64_t shortest, uint64_t longest);

#endif
