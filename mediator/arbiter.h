/* SPDX-License-Identifier: MIT */
/*
 * Who may use an engine of a GPU now: the mediator's side of the turn words.
 *
 * Theory of operation
 * -------------------
 * One member at a time is `current`: it may submit work. While nobody else asks it keeps the turn
 * and starts work without asking (VGPU_TURN_OPEN). When somebody asks:
 *
 *   of a higher band   current is stopped at once, and the other granted. What current has on the
 *                      engine drains meanwhile; that is what the window bounds, for all lower
 *                      bands together, since but one of them was current, and one more at most
 *                      about to end: two windows and a piece of work.
 *   of the same band   current goes on for its slice. As soon as it knows when the last of its
 *                      work ends (YIELD) the next one is granted, from that time on; it is
 *                      alerted a moment before, since a worker takes time to wake up.
 *   of a lower band    it waits until current has nothing to do.
 *
 * Who is next: the highest band. Within it accounts, one for each VM, have a virtual time, which
 * grows by the time that they use, divided by their weight. First come is first served as long as
 * nobody is ahead of the one who is furthest behind by more than a slice; who is has to wait. A VM
 * that comes back after a pause starts at the band's time: it has saved nothing, and what it owes
 * is forgiven as time goes by without contention. Within a VM, first come is first served.
 *
 * A band that waits while higher ones are served earns credit, at its least share. When it has
 * some it is lent a turn, of one piece of work, and pays for that.
 *
 * Time is charged by the mediator's own clock, as long as it is contended, to all who may have work
 * on the engine, in equal parts, as the GPU's own time slicing has it. Mostly that is one: whoever
 * is current, or has yielded and holds the next one up.
 *
 * After `patience_ns` nobody is held up any more: the next is granted beside the one who does not
 * end, whose account gets no further turn meanwhile. After `limit_ns` its owner is told, who
 * ends it.
 *
 * Pure but for the turn words: the clock is passed in, and what has to be told to a worker goes
 * through callbacks. A worker is not trusted: a word that it may not store, or a message out of
 * turn, is reported as -EPROTO, and the caller ends it. protocol/vgpu-worker.h has the words.
 */
#ifndef VGPU_MEDIATOR_ARBITER_H
#define VGPU_MEDIATOR_ARBITER_H

#include <stdbool.h>
#include <stdint.h>

#include "mediator/list.h"
#include "protocol/vgpu-worker.h"

#define ARBITER_WEIGHT 100u        /* the customary one */
#define ARBITER_WEIGHT_MAX 10000u  /* at least 1 */
#define ARBITER_LEAST_ONE 1000000u /* a least share of all */

/* One turn that was asked for and is over. */
struct turn_record {
    uint64_t sequence; /* 1, 2, ... in the order in which turns were granted */
    uint32_t vm_id;
    uint32_t engine;
    uint32_t gpu;
    enum vgpu_priority priority;
    uint64_t wait_ns; /* from asking to the grant */
    uint64_t run_ns;  /* from the grant to its end */
};

#define TURN_HISTORY 256u

/* The last turns of several arbiters. */
struct turn_history {
    uint64_t sequence; /* of the last grant */
    uint64_t count;    /* records so far; the newest is at (count - 1) % TURN_HISTORY */
    struct turn_record record[TURN_HISTORY];
};

struct arbiter;

/* A VM's use of one engine. */
struct arbiter_account {
    /* The owner's; changed by arbiter_set_account() while it has members. */
    enum vgpu_priority priority;
    uint32_t weight; /* 1 to ARBITER_WEIGHT_MAX; ARBITER_WEIGHT at first */

    /* The arbiter's own, zero at first. */
    struct list_entry entry;   /* in its band, while members wait */
    struct list_entry waiting; /* the head of its members' ring; NULLs: not initialised */
    uint64_t virtual_ns;
    unsigned active;  /* members that are current or draining */
    unsigned late;    /* members that are late */
    uint64_t used_ns; /* charged so far */
};

enum arbiter_state {
    ARBITER_IDLE,     /* has no turn */
    ARBITER_WAITING,  /* has asked */
    ARBITER_CURRENT,  /* may submit, as its word says */
    ARBITER_DRAINING, /* has to end what it has on the engine */
};

/* A worker's place at an engine. */
struct arbiter_member {
    /* Set by the owner before arbiter_join(). */
    struct vgpu_turn_word *word;
    struct arbiter_account *account;
    uint32_t vm_id;
    void (*granted)(struct arbiter_member *member); /* tell the worker; may not call back */
    /* Its turn will be soon, or may start sooner than it was told: wake it. May not call back. */
    void (*alerted)(struct arbiter_member *member);
    /* It holds others up for longer than the limit; may not call back. */
    void (*expired)(struct arbiter_member *member);

    /* The arbiter's own. */
    struct list_entry entry; /* in its account while it waits, among the draining */
    struct arbiter *arbiter; /* NULL when in none */
    enum arbiter_state state;
    bool asked;          /* was granted a turn that it asked for; the end of that is to come */
    bool lent;           /* by its band's least share */
    bool yielded;        /* while draining: it has said that its work is about to end */
    uint64_t held_up_ns; /* for how long it has been in others' way, in this turn */
    bool told;           /* its owner, that it holds others up */
    bool late;           /* while draining: for longer than anybody has patience */
    uint64_t sequence;
    uint64_t asked_ns;
    uint64_t granted_ns;
    uint64_t from_ns;  /* when it may submit; while draining: when the next may */
    bool alerted_next; /* the next was told that this turn is about to end */
    uint64_t due_ns;   /* since when it should have returned the turn; 0: not at all */
};

struct arbiter_rules {
    uint64_t slice_ns;
    uint64_t patience_ns;
    uint64_t limit_ns;    /* 0: none */
    uint32_t least_share; /* of each band but the highest, in ARBITER_LEAST_ONEths */
};

struct arbiter {
    struct arbiter_rules rules; /* may be changed at any time */
    uint32_t gpu, engine;
    struct turn_history *history;
    bool paused;

    struct arbiter_band {
        struct list_entry accounts; /* a ring's head, in the order of virtual times */
        uint64_t virtual_ns;
        int64_t credit; /* what its least share has earned and not used, ns * ARBITER_LEAST_ONE */
    } band[VGPU_PRIORITIES];
    struct arbiter_member *current; /* NULL: nobody */
    struct list_entry draining;     /* a ring's head */
    bool lending;                   /* the next turn goes to a band by its credit: */
    enum vgpu_priority lend_to;
    unsigned members;
    uint64_t charged_ns; /* up to when time is charged */
};

void arbiter_init(struct arbiter *arbiter, uint32_t gpu, uint32_t engine,
                  struct turn_history *history, const struct arbiter_rules *rules);

/* Adds a worker without a turn. */
void arbiter_join(struct arbiter *arbiter, struct arbiter_member *member);

/* Takes a worker out that has ended, whatever it held; nothing happens when in none. */
void arbiter_leave(struct arbiter_member *member, uint64_t now_ns);

/* The worker asks for a turn. This and the next three return 0 or -EPROTO. */
int arbiter_ask(struct arbiter_member *member, uint64_t now_ns);

/* The worker submits no more; when the next may, since what it has on the engine ends then. */
int arbiter_yield(struct arbiter_member *member, uint64_t from_ns, uint64_t now_ns);

/* It has nothing left there, and has closed its word. */
int arbiter_done(struct arbiter_member *member, uint64_t now_ns);

/* A turn that it had asked for is over, and was still its own when it said so. */
int arbiter_kept(struct arbiter_member *member, uint64_t now_ns);

/* Changes an account's priority and weight, whatever its members do. */
void arbiter_set_account(struct arbiter *arbiter, struct arbiter_account *account,
                         enum vgpu_priority priority, uint32_t weight, uint64_t now_ns);

/* Stops granting and what is current; what is on the engine goes on. */
void arbiter_pause(struct arbiter *arbiter, uint64_t now_ns);
void arbiter_resume(struct arbiter *arbiter, uint64_t now_ns);

/* When arbiter_tick() is to be called next, if nothing else is before; 0: not at all. */
uint64_t arbiter_deadline(const struct arbiter *arbiter);
void arbiter_tick(struct arbiter *arbiter, uint64_t now_ns);

/* Whether the worker waits for a turn or is using one. */
bool arbiter_busy(const struct arbiter_member *member);

#endif
