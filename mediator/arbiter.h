/* SPDX-License-Identifier: MIT */
/*
 * The arbiter of one engine of one GPU: it decides which worker may submit work there, and when.
 * This is the mediator's side of the turn words; protocol/vgpu-worker.h has their states.
 *
 * Theory of operation
 * -------------------
 * One member at a time is `current`: it may submit work. While nobody else asks, it keeps the turn
 * and starts work without asking (VGPU_TURN_OPEN). When another member asks, its band decides:
 *
 *   a higher band   Current is stopped at once and the other one is granted. Work of current that
 *                   is on the engine already drains beside the new work. That is a window and one
 *                   piece of work, as predicted: flight.h keeps every worker to it.
 *   the same band   Current goes on for its slice. It says when the last of its work will end
 *                   (YIELD), and the next member is granted from that time on. The next one is
 *                   alerted a moment before, since a worker takes time to wake up.
 *   a lower band    The other one waits until current has nothing to do.
 *
 * The next member is taken from the highest band that waits. Each VM has an account there, with a
 * virtual time that grows by the time the VM uses, divided by the VM's weight. The first to ask is
 * the first served, unless its VM is ahead of the one that is furthest behind by more than a slice.
 * A VM that comes back after a pause starts at the band's virtual time: it has saved nothing. After
 * a short one it may be behind still: a pause counts as if it had used that time. The band's time
 * also goes on while nobody competes in the band, and so old debts are forgiven. Within
 * a VM the first to ask is the first served.
 *
 * A band that waits while a higher one is served earns credit, at its least share of that time.
 * With enough credit it is lent a turn of one piece of work, and pays for it with its credit.
 *
 * Time is charged by the mediator's own clock, only while a member waits or drains. All members
 * that may have work on the engine pay equal parts, as the GPU's own time slicing parts it. Mostly
 * that is one member: current, or one that has yielded and that the next one waits for.
 *
 * Work that is on the engine can be taken off it, in the middle of a kernel, where the worker has
 * said that it can do so (`can_off`). A member that drains is turned off when others need the
 * engine and its work is not about to end:
 *
 *   for a higher band   at once
 *   within its band     when its slice is over; who was granted beside it starts as soon as it is
 *                       off, and not when it had said
 *   in a pause          at once
 *
 * Work that is about to end, by the worker's word, is left to end: turning off and on again costs
 * the GPU about a millisecond. When the worker has said that it is off, the member waits like
 * others, from that moment on. A grant turns it on again. It may submit nothing then, and runs for
 * a slice if others of its band wait; it may be turned off any number of times. So nobody depends
 * on how long a kernel takes, nor on what was predicted. A member that is off pays for nothing. One
 * that does not obey goes on draining, and is treated as one that cannot be turned off:
 *
 * What a worker has at another engine may come behind a kernel of its own, a copy say. While the
 * kernel is off nobody waits for the copy, and it pays nothing. Nor does it count against the limit
 * below while a kernel that can be turned off is there: that has its share, and the copy no other
 * end.
 *
 * A member that does not end holds others up for `patience_ns` at most. Then the next one is
 * granted beside it, and the VM of the late one gets no further turn until it ends. When it has
 * held others up for `limit_ns` in all, the owner is told, and kills the worker.
 *
 * An example
 * ----------
 * VM A is medium with weight 300, VM B medium with 100, VM H high with 100. A slice is 5 ms,
 * patience 50 ms, the limit 30 s. A and B always have work, and ask again as soon as their turn is
 * over. vA and vB are the virtual times of A and B, in ms; t is in ms too.
 *
 *     t      what happens                                                        vA      vB
 *     0      A asks and is granted; its word is RUNNING. B asks and waits, so    0       0
 *            A's word becomes SHARED, until 5.
 *     4.75   B is alerted: it wakes up, and finds that it has to wait.
 *     5      A is done; its 5 ms count 5 * 100 / 300. B is granted, until 10.    1.67    0
 *    10      B is done. A is granted. It is 3.33 behind B, and it takes 10 ms    1.67    5
 *            to catch up at weight 300: A may submit until 20, not 15.
 *    20      A is done. B is granted, until 25.                                  5       5
 *    25      B is done. A is 5 behind, so it may submit until 40. From here on   5       10
 *            A would have 15 ms, then B 5 ms: shares of 75 % and 25 %.
 *    28      H asks. A's word becomes STOPPED, and H is granted at once. A has   6       10
 *            a kernel there that takes until 31.
 *    31      A is done, and asks again. Since 28 two had work there, so A pays   6.5     10
 *            for half of the 3 ms, and H for the other half.
 *    34      H is done. B has waited since 25, A since 31, and B is ahead by     6.5     10
 *            3.5, which is less than a slice. So B is granted, until 39.
 *    38.9    B submits its last kernel, which ends at 40. B yields from 39.95    6.5     14.9
 *            on: half a window before the end. A is granted now, and told to
 *            submit nothing before 39.95, so that no gap is left at 40.
 *    40      B is done. A may submit until 68.4: it gets back what H took,       6.51    15.98
 *            and B's millisecond beyond the slice.
 *    68.4    A is done. B is granted, until 73.4. Its kernel does not end.       15.98   15.98
 *   123.4    B has been due for 50 ms. Its word becomes STOPPED, and A is        15.98   70.98
 *            granted beside it. Both pay half of the time from now on.
 * 30073.4    B has held others up for 30 s: `expired` is called, and the owner kills its worker.
 *
 * VM L is low, beside A and B that never pause. Its band starts with a debt of 10 ms and pays it
 * off at 1 % of the time, so L waits for 1 s. Then current is stopped, and as soon as current's
 * work is about to end, L is granted one piece of work. One of 3 ms costs some 300 ms of waiting.
 *
 * If B can be turned off, the kernel of 73.4 is no matter: B is turned off at 73.4, which takes
 * until 74.1. A is granted then, and B waits. At 79.1 B is turned on and its kernel goes on, until
 * A, which waits again, is due.
 *
 * States of a member
 * ------------------
 *
 *   state      its word           the messages that it may send, and what they do
 *   IDLE       CLOSED             ASK: WAITING, unless a KEPT is owed. KEPT, if it is owed.
 *   WAITING    CLOSED             None. A grant makes it CURRENT.
 *   CURRENT    OPEN, RUNNING,     YIELD: DRAINING. DONE: IDLE. Both need the word CLOSED. KEPT, if
 *              WANTED, SHARED     it is owed. The worker may submit as the word says.
 *   DRAINING   STOPPED, CLOSED    YIELD, once, and DONE: IDLE. Both need the word CLOSED. KEPT, if
 *                                 it is owed. The worker may submit nothing.
 *   OFF        STOPPED, CLOSED    As DRAINING. A grant makes it CURRENT, `resumed`: the word stays,
 *                                 and it sends what it may as DRAINING.
 *
 * Any other message is -EPROTO. Each grant is answered once, by a KEPT or by the DONE of that turn.
 * A KEPT may be read when the mediator has taken the turn from OPEN already: so it is allowed in
 * IDLE too. Caveat: a worker closes its word before it sends its message, so CURRENT with the word
 * CLOSED means that a message is on its way, or never comes.
 *
 *   IDLE     -> WAITING    arbiter_ask()
 *   WAITING  -> CURRENT    arbiter_grant()
 *   WAITING  -> IDLE       arbiter_leave()
 *   CURRENT  -> DRAINING   arbiter_drain(): stopped, yielded, or silent with its word CLOSED
 *   CURRENT  -> IDLE       arbiter_retire(): done, left, or its word was OPEN
 *   DRAINING -> CURRENT    go_on(): nobody waits; it has not ended its turn, and is not late
 *   DRAINING -> IDLE       arbiter_retire(): done, or left
 *   DRAINING -> OFF        arbiter_off(): the worker says that it is
 *   OFF      -> CURRENT    arbiter_grant(), resumed
 *   OFF      -> IDLE       arbiter_done(): it had ended just before; arbiter_leave()
 *
 * An adopted worker begins in IDLE, CURRENT or DRAINING, as its word says; arbiter_resync() moves
 * it to where it says that it is.
 *
 * There is no I/O here but for the turn words: the clock is passed in, and callbacks tell workers.
 * A worker is not trusted. A word that it may not store, or a message out of turn, is -EPROTO, and
 * the caller ends the worker.
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

/* One turn that was asked for and is over. Turns that a worker took by itself are not recorded. */
struct turn_record {
    uint64_t sequence; /* 1, 2, ... in the order in which turns were granted */
    uint32_t vm_id;
    uint32_t engine;
    uint32_t gpu;
    enum vgpu_priority priority;
    uint64_t wait_ns; /* from asking until it might submit: a grant may name a later time */
    uint64_t run_ns;  /* from then to its end; 0 when it ended before */
};

#define TURN_HISTORY 256u

/* The last turns of all arbiters of a pool, which share one count. */
struct turn_history {
    uint64_t sequence; /* of the last grant */
    uint64_t count;    /* records so far; the newest is at (count - 1) % TURN_HISTORY */
    struct turn_record record[TURN_HISTORY];
};

struct arbiter;

/*
 * A VM's use of one engine. It outlives the VM's workers, so that a VM keeps its debts when it
 * closes a session and opens another.
 */
struct arbiter_account {
    /* The owner's; changed by arbiter_set_account() while it has members. */
    enum vgpu_priority priority;
    uint32_t weight; /* 1 to ARBITER_WEIGHT_MAX; ARBITER_WEIGHT at first */
    bool paused;     /* its members get no turn; changed by arbiter_pause_account() */

    /* The arbiter's own, zero at first. */
    struct list_entry entry;   /* in its band, while members wait and it is not paused */
    struct list_entry waiting; /* the head of its members' ring; NULLs: not initialised */
    uint64_t virtual_ns;       /* grows by time * ARBITER_WEIGHT / weight; see the theory */
    unsigned active;           /* members that are current or draining */
    uint64_t left_ns;          /* since when it has none, and none that wait */
    unsigned late;             /* members that are late */
    uint64_t used_ns;          /* charged so far */
};

enum arbiter_state {
    ARBITER_IDLE,     /* has no turn */
    ARBITER_WAITING,  /* has asked, and is in its account's ring */
    ARBITER_CURRENT,  /* may submit, as its word says; arbiter.current points to it */
    ARBITER_DRAINING, /* has to end its work on the engine; is in arbiter.draining */
    ARBITER_OFF,      /* its work is off the engine; it is in its account's ring */
};

/* A worker's place at an engine. The table at the top says what each state allows. */
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
    /*
     * Take its work off the engine, or put it back; may not call back. NULL: the worker cannot.
     * When it is off, by the latest call, the owner calls arbiter_off().
     */
    void (*turn_off)(struct arbiter_member *member, bool off);
    /*
     * The same worker's at the engine that computes, where this is another engine: what is here may
     * come behind a kernel there. NULL: nothing does.
     */
    const struct arbiter_member *behind;

    /* The arbiter's own. */
    struct list_entry entry; /* in its account while it waits, among the draining */
    struct arbiter *arbiter; /* NULL when in none */
    enum arbiter_state state;
    bool asked;          /* was granted a turn that it asked for, whose KEPT or DONE is owed */
    bool lent;           /* its turn was lent, by its band's least share: one piece of work */
    bool yielded;        /* while draining: it has said that its work is about to end */
    uint64_t held_up_ns; /* for how long it has been in the way of others, past its due_ns */
    bool told;           /* the owner was told that it holds others up: once is enough */
    bool late;           /* while draining: patience is over, others are served beside it */
    bool off_asked;      /* it was told to be off, and not to be on since */
    bool resumed;        /* while current: it was off, and may submit nothing */
    bool off_fast;       /* while draining: it is in the way of a higher band, or of a pause */
    uint64_t off_ns;     /* while draining: when it is to be turned off. When off: since when */
    uint64_t sequence;
    uint64_t asked_ns;
    uint64_t queued_ns;  /* since when it waits: since it asked, or since it is off */
    uint64_t first_ns;   /* from when it might submit in the turn that it asked for */
    uint64_t granted_ns; /* the same, or when it was put on again */
    uint64_t from_ns;    /* when it may submit; while draining: when the next may */
    bool alerted_next;   /* the next was told that this turn is about to end */
    uint64_t due_ns;     /* when it has to return the turn, or had to; 0: nobody waits for that */
};

struct arbiter_rules {
    uint64_t slice_ns;    /* of a turn that others of the band wait for */
    uint64_t patience_ns; /* how long others wait for a turn that is due */
    uint64_t limit_ns;    /* how long a member may hold others up; 0: for ever */
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
        /* Earned by its least share and not used, in ns * ARBITER_LEAST_ONE; mostly below 0. */
        int64_t credit;
    } band[VGPU_PRIORITIES];
    struct arbiter_member *current; /* NULL: nobody */
    struct list_entry draining;     /* a ring's head */
    bool lending;                   /* current was stopped to lend the next turn to: */
    enum vgpu_priority lend_to;
    unsigned members;
    uint64_t charged_ns; /* up to when all accounts are settled */
};

void arbiter_init(struct arbiter *arbiter, uint32_t gpu, uint32_t engine,
                  struct turn_history *history, const struct arbiter_rules *rules);

/* Adds a worker without a turn. */
void arbiter_join(struct arbiter *arbiter, struct arbiter_member *member);

/*
 * Adds a worker that another mediator has left behind, with the turn that its word says: the first
 * one keeps it. To be called while the arbiter is held. From then on until arbiter_resync() its
 * messages about turns are not passed on.
 */
void arbiter_adopt(struct arbiter *arbiter, struct arbiter_member *member, uint64_t now_ns);

/*
 * It has said how it stands, as an element of vgpu_link_state.turn. Returns 0, or -EPROTO when that
 * cannot be.
 */
int arbiter_resync(struct arbiter_member *member, uint32_t told, uint64_t now_ns);

/* It has not said so in time: it keeps no turn. */
void arbiter_doubt(struct arbiter_member *member, uint64_t now_ns);

/* Grants nothing until arbiter_resume(), and leaves everybody what they have. */
void arbiter_hold(struct arbiter *arbiter, uint64_t now_ns);

/* Takes a worker out that has ended, in any state; does nothing to a member of no arbiter. */
void arbiter_leave(struct arbiter_member *member, uint64_t now_ns);

/* The worker asks for a turn (ASK). This, the next two and arbiter_kept() return 0 or -EPROTO. */
int arbiter_ask(struct arbiter_member *member, uint64_t now_ns);

/*
 * The worker submits no more (YIELD). Its work will end a little after `from_ns`, and from then on
 * the next may submit. A time further ahead than a second is taken for a second.
 */
int arbiter_yield(struct arbiter_member *member, uint64_t from_ns, uint64_t now_ns);

/* The worker has nothing left on the engine, and has closed its word (DONE). */
int arbiter_done(struct arbiter_member *member, uint64_t now_ns);

/*
 * The member's work is off the engine, as it was last told to be. False, and nothing is done, when
 * that is not so any more.
 */
bool arbiter_off(struct arbiter_member *member, uint64_t now_ns);

/* A turn that it had asked for is over, and stayed its own: its word was left OPEN (KEPT). */
int arbiter_kept(struct arbiter_member *member, uint64_t now_ns);

/*
 * Changes an account's priority and weight; its members may be in any state. In another band it
 * starts at that band's virtual time: times of two bands cannot be compared.
 */
void arbiter_set_account(struct arbiter *arbiter, struct arbiter_account *account,
                         enum vgpu_priority priority, uint32_t weight, uint64_t now_ns);

/*
 * Its members get no turn until it goes on; who has one is stopped at once, and taken off where
 * that can be. Others are not held up. It has saved nothing when it goes on.
 */
void arbiter_pause_account(struct arbiter *arbiter, struct arbiter_account *account, bool paused,
                           uint64_t now_ns);

/*
 * Grants nothing more, and stops current; work that is on the engine is turned off, or goes on
 * where it cannot be. While paused nobody is charged, and nothing counts against the limit;
 * arbiter_resume() starts patience anew.
 */
void arbiter_pause(struct arbiter *arbiter, uint64_t now_ns);
void arbiter_resume(struct arbiter *arbiter, uint64_t now_ns);

/* When arbiter_tick() has to be called, unless another call comes before; 0: not at all. */
uint64_t arbiter_deadline(const struct arbiter *arbiter);
void arbiter_tick(struct arbiter *arbiter, uint64_t now_ns);

/* Whether the worker waits for a turn or is using one, rather than holding it OPEN. */
bool arbiter_busy(const struct arbiter_member *member);

#endif
