/* SPDX-License-Identifier: MIT */
/*
 * Between the mediator and its workers: inherited descriptors, messages, and the
 * turn page.
 *
 * Theory of operation
 * -------------------
 * A GPU has three engines: one computes (kernels, fills, copies on the device), one copies to the
 * device, one from it. A worker may submit work to an engine only on its turn there. Asking the
 * mediator for each turn would cost two wake-ups a request, so a turn is a standing grant: it
 * stays with the worker that had it last until somebody else asks. The grant is one word for each
 * engine, in a page that the worker shares with the mediator alone:
 *
 *   CLOSED   must ask                                         the mediator leaves it, by a grant
 *   OPEN     may start without asking                         worker: RUNNING; mediator: CLOSED
 *   RUNNING  in use, and nobody else asks                     worker, when its work is done: OPEN
 *   WANTED   in use; others ask, who wait until it is idle    worker, when its work is done: CLOSED
 *   SHARED   in use; others ask, who wait for its slice       worker, when that is over: CLOSED;
 *                                                             mediator: RUNNING, nobody asks
 *   STOPPED  in use; others come first: submits no more       worker: CLOSED; mediator: as granted
 *
 * A granted worker finds RUNNING, WANTED or SHARED: it has work, it asked. Nothing may be submitted
 * before `from_ns`, when the work of the one before is about to end. Then one piece of work may
 * be in any case, unless it finds STOPPED. In SHARED more may, until `until_ns`.
 *
 * Changes that race are compare-and-swap, so that a recall and a start cannot both win; a word
 * that only one side may leave (CLOSED the mediator) is stored. A worker returns a turn with a
 * message, after the word is CLOSED: YIELD while the last of its work still runs, with the time
 * from which the next worker may submit so that its work is there when that ends; then DONE. Or
 * only DONE, when nothing runs any more. A turn that it had asked for and that stays with it
 * (RUNNING to OPEN) ends with a KEPT. By the time that a KEPT is read, the mediator may have taken
 * the turn from OPEN.
 *
 * How much of its work may be on an engine at a time is in the same page: `window_ns`. That is what
 * others wait for when they come first.
 *
 * A worker counts as hostile once guest code ran beside it: the mediator believes
 * its messages and counters no further than this file says, and killing a worker is
 * always safe.
 */
#ifndef VGPU_PROTOCOL_VGPU_WORKER_H
#define VGPU_PROTOCOL_VGPU_WORKER_H

#include "vgpu-regs.h"

/*
 * Descriptors that a worker is started with. One for register mode gets that mode's doorbell
 * and interrupt, one for a queue the queue's.
 */
#define VGPU_WORKER_FD_LINK 3     /* SOCK_SEQPACKET to the mediator */
#define VGPU_WORKER_FD_MEMFD 4    /* the VM's memory and register page */
#define VGPU_WORKER_FD_DOORBELL 5 /* eventfd */
#define VGPU_WORKER_FD_IRQ 6      /* eventfd */
#define VGPU_WORKER_FD_TURN 7     /* memfd of the turn page */
#define VGPU_WORKER_FD_ACCOUNT 8  /* memfd of the VM's account page */

enum vgpu_engine {
    VGPU_ENGINE_COMPUTE = 0,
    VGPU_ENGINE_TO_DEVICE = 1,
    VGPU_ENGINE_FROM_DEVICE = 2,
};
#define VGPU_ENGINES 3u

enum vgpu_turn {
    VGPU_TURN_CLOSED = 0,
    VGPU_TURN_OPEN = 1,
    VGPU_TURN_RUNNING = 2,
    VGPU_TURN_WANTED = 3,
    VGPU_TURN_SHARED = 4,
    VGPU_TURN_STOPPED = 5,
};

/* A queue's worker that ends by itself ends with this and an enum vgpu_queue_end as its exit code.
 */
#define VGPU_WORKER_EXIT_END 64

/* An engine's turn; a cache line. */
struct vgpu_turn_word {
    uint32_t state; /* enum vgpu_turn */
    uint32_t reserved;
    uint64_t from_ns;  /* mediator, at any time: CLOCK_MONOTONIC; nothing is submitted before */
    uint64_t until_ns; /* mediator, at any time: CLOCK_MONOTONIC; till then SHARED may submit */
    uint8_t unused[40];
};
static_assert(sizeof(struct vgpu_turn_word) == 64, "ABI");

/* What a worker has to keep to; the mediator may change it at any time. 0: no limit. */
struct vgpu_terms {
    uint64_t window_ns;  /* work on an engine at a time, as predicted, beside one piece more */
    uint64_t kernel_ns;  /* the longest piece of work; past it the worker ends, with TIMEOUT */
    uint32_t commands;   /* pieces of work submitted and not done */
    uint32_t doorbells;  /* that are heard in a second */
    uint32_t interrupts; /* that are sent in a second */
    uint32_t reserved[9];
};
static_assert(sizeof(struct vgpu_terms) == 64, "ABI");

/* The worker's counters since its start. It counts as hostile: they are for display. */
struct vgpu_counters {
    uint64_t requests;             /* answered with success or error; of a queue: commands taken */
    uint64_t errors;               /* of those, with error */
    uint64_t elements;             /* results computed in register mode */
    uint64_t gpu_ns[VGPU_ENGINES]; /* while its work was on the engine, as its end was seen */
    uint64_t turns[VGPU_ENGINES];  /* taken, with and without asking */
    uint64_t memory;               /* bytes of device memory allocated now */
    uint64_t in_flight;            /* pieces of work submitted and not done now */
    uint64_t doorbells;            /* heard */
    uint64_t interrupts;           /* sent */
    uint64_t faults;               /* errors that lost the GPU's context */
    uint64_t reserved[2];
};
static_assert(sizeof(struct vgpu_counters) == 128, "ABI");

/* One page of memory. */
struct vgpu_turn_page {
    struct vgpu_turn_word turn[VGPU_ENGINES];
    struct vgpu_terms terms;
    struct vgpu_counters counters;
};
#define VGPU_TURN_PAGE_SIZE 4096u
static_assert(sizeof(struct vgpu_turn_page) == 384, "ABI");

/*
 * One page of memory that the workers of a VM share with the mediator: its device memory. Who
 * allocates first adds to `used`, where that stays within `limit`, then to its own claim, then
 * asks the GPU; who frees goes the other way. A worker's end is made good by the mediator.
 */
struct vgpu_account_page {
    uint64_t limit; /* bytes; mediator; 0: none */
    uint64_t used;  /* bytes; compare-and-swap */
};
#define VGPU_ACCOUNT_PAGE_SIZE 4096u
static_assert(sizeof(struct vgpu_account_page) == 16, "ABI");

enum vgpu_link_type {
    VGPU_LINK_READY = 1, /* worker: start-up finished, what was owed is taken over */
    VGPU_LINK_ASK = 2,   /* worker: wants the engine's turn */
    VGPU_LINK_DONE = 3,  /* worker: the word is CLOSED and nothing runs */
    VGPU_LINK_TURN =
        4, /* mediator: look at the engine's word, which is, or soon will be, changed */
    VGPU_LINK_FINISH = 5, /* mediator: finish what runs, then exit */
    VGPU_LINK_YIELD = 6,  /* worker: the word is CLOSED, what runs will be over; DONE follows */
    VGPU_LINK_KEPT = 7,   /* worker: a turn that was asked for is over, and still its own */
};

struct vgpu_link_msg {
    uint32_t type;   /* enum vgpu_link_type */
    uint32_t value;  /* READY: VGPU_FEATURE_BACKEND_*, else 0 */
    uint32_t engine; /* ASK, DONE, TURN, YIELD, KEPT: enum vgpu_engine, else 0 */
    uint32_t reserved;
    uint64_t from_ns; /* YIELD: when the next may submit, CLOCK_MONOTONIC, else 0 */
    char text[104];   /* READY: device name; NUL-terminated */
};
static_assert(sizeof(struct vgpu_link_msg) == 128, "ABI");

#endif
