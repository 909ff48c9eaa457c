/* SPDX-License-Identifier: MIT */
/*
 * A session's turns, one on each engine: when one is asked for, how long it is kept, when it ends.
 *
 *            turn_try()                                  its work is done
 *   NONE -----------------------------------> HELD --------------------------+
 *    |  ask                        TURN        ^ |                           |
 *    +-------------> ASKED --------------------+ | it may submit no more,    v
 *    ^                                           | its work is about to end  NONE
 *    +------------------ YIELDED <---------------+
 *       its work is done
 *
 *   NONE     Operations: none. Work that comes takes a standing turn, or asks for one.
 *   ASKED    Operations: wait. Caveat: the turn may have been granted already; the word in the turn
 *            page says so, and is looked at whenever somebody wants to know.
 *   HELD     Operations: submit, as long as the word allows it and `from_ns` has passed. Caveat:
 *            the word can change at any moment; a piece that is submitted just after it did is the
 *            one that the mediator's rules allow for.
 *   YIELDED  Operations: none but waiting for the work on the engine to end. The next session
 *            submits behind it already.
 *
 * A session keeps a turn while it has work on the engine. One that others wait for it keeps for a
 * moment more, if the next piece of work has lately followed the last one that soon. An example: a
 * program launches a kernel of 50 us, waits for it, and needs 20 us to launch the next. Its pauses
 * are some 20 us, so the turn is kept for up to 60 us without work, and the program is not
 * interrupted at each of its kernels.
 */
#ifndef VGPU_WORKER_TURNS_H
#define VGPU_WORKER_TURNS_H

#include <stdbool.h>
#include <stdint.h>

#include "worker/flight.h"
#include "worker/turn.h"

enum turns_state {
    TURNS_NONE,
    TURNS_ASKED,
    TURNS_HELD,
    TURNS_YIELDED,
};

struct turns_engine {
    struct turn turn;
    enum turns_state state;
    bool used;      /* work was submitted in this turn */
    uint64_t pause; /* between the end of work and the next piece, ns, of late */
};

struct turns {
    struct turns_engine engines[VGPU_ENGINES];
    struct flight *flight; /* the session's; not owned */
    struct vgpu_turn_page *page;
};

/* What waits to be submitted. */
struct turns_next {
    const struct flight_piece *piece; /* NULL: nothing */
    bool may;                         /* nothing but its turn holds it up */
};

/* `link` is the socket to the mediator. All that is passed outlives the turns. */
void turns_init(struct turns *turns, struct flight *flight, struct vgpu_turn_page *page, int link);

/*
 * Whether a piece of work may be submitted to an engine now; where its turn is not there, asks for
 * it. Returns 1, 0, or -errno when the mediator is lost.
 */
int turns_get(struct turns *turns, enum vgpu_engine engine, uint64_t now_ns);

static inline int turns_may_submit(struct turns *turns, enum vgpu_engine engine, uint64_t now_ns)
{
    const struct turns_engine *e = &turns->engines[engine];

    /* Mostly the turn is there, and nobody waits for it. */
    if (e->state == TURNS_HELD && turn_state(&e->turn) == VGPU_TURN_RUNNING &&
        now_ns >= shared_load64(&turns->page->turn[engine].from_ns)) {
        return 1;
    }
    return turns_get(turns, engine, now_ns);
}

/* It was: *piece is noted as the first of its turn, where it is. */
static inline void turns_note_submitted(struct turns *turns, struct flight_piece *piece)
{
    struct turns_engine *e = &turns->engines[piece->engine];

    piece->first = !e->used;
    e->used = true;
}

/* Work has come for an engine that has none of this session's: after which pause. */
void turns_note_pause(struct turns *turns, enum vgpu_engine engine);

/* Ends turns whose work is done, and yields those that are of no more use. Returns 0 or -errno. */
int turns_look(struct turns *turns, const struct turns_next *next);

/*
 * Before a command that is no work and may take long: turns without work are given back. Returns 0
 * or -errno.
 */
int turns_lend(struct turns *turns);

/* Whether there is no turn, asked for or held. */
bool turns_none(const struct turns *turns);

#endif
