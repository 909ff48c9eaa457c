/* SPDX-License-Identifier: MIT */
/*
 * A session's turns, see turns.h. What is shared with the mediator, and how the words change, is in
 * turn.c; here is when to do what. Nothing here waits.
 */
#include "worker/turns.h"

#include <assert.h>

#include "common/clock.h"
#include "common/shared.h"

/* How long a turn that others wait for is kept without work, where work has followed that soon. */
#define LINGER_NS (60 * NS_PER_US)
/* The longest pause that is told from others, and how many of them make an average. */
#define PAUSE_MAX_NS (2 * NS_PER_MS)
#define PAUSES 2u
/* The next worker may submit when so much of a window is left of this one's work. */
#define LEAD_PART 2u

void turns_init(struct turns *turns, struct flight *flight, struct vgpu_turn_page *page, int link)
{
    *turns = (struct turns){.flight = flight, .page = page};
    for (unsigned i = 0; i < VGPU_ENGINES; i++) {
        turns->engines[i].turn = (struct turn){
            .page = page,
            .link = link,
            .engine = (enum vgpu_engine)i,
        };
        turns->engines[i].pause = PAUSE_MAX_NS;
    }
}

/* Changes a turn's state along one of the edges that turns.h draws. */
static void set_turns_state(struct turns_engine *e, enum turns_state state)
{
    static const unsigned from[] = {
        [TURNS_NONE] = 1u << TURNS_HELD | 1u << TURNS_YIELDED,
        [TURNS_ASKED] = 1u << TURNS_NONE,
        [TURNS_HELD] = 1u << TURNS_NONE | 1u << TURNS_ASKED,
        [TURNS_YIELDED] = 1u << TURNS_HELD,
    };

    assert(from[state] & 1u << e->state);
    e->state = state;
    if (state == TURNS_HELD) {
        e->used = false;
    }
}

/* Whether the turn is held; one that was asked for may have been granted since. */
static bool turn_held(struct turns_engine *e)
{
    if (e->state == TURNS_ASKED && turn_granted(&e->turn)) {
        set_turns_state(e, TURNS_HELD);
    }
    return e->state == TURNS_HELD;
}

static uint64_t turn_slice_end(const struct turns_engine *e)
{
    return shared_load64(&e->turn.page->turn[e->turn.engine].until_ns);
}

/*
 * Whether the turn, which is held, allows another piece of work. In a slice of its own a session
 * may always submit the first one: a turn that came late is not lost for that.
 */
static bool turn_allows(const struct turns_engine *e, uint64_t now)
{
    if (now < shared_load64(&e->turn.page->turn[e->turn.engine].from_ns)) {
        return false;
    }
    switch (turn_state(&e->turn)) {
    case VGPU_TURN_RUNNING:
    case VGPU_TURN_WANTED:
        return true;
    case VGPU_TURN_SHARED:
        return !e->used || now < turn_slice_end(e);
    default:
        return false;
    }
}

int turns_get(struct turns *turns, enum vgpu_engine engine, uint64_t now_ns)
{
    struct turns_engine *e = &turns->engines[engine];

    if (e->state == TURNS_NONE) {
        if (!turn_try(&e->turn)) {
            set_turns_state(e, TURNS_ASKED);
            return turn_ask(&e->turn);
        }
        set_turns_state(e, TURNS_HELD);
    }
    return turn_held(e) && turn_allows(e, now_ns);
}

void turns_note_pause(struct turns *turns, enum vgpu_engine engine)
{
    const uint64_t idle = turns->flight->idle_ns[engine];
    struct turns_engine *e = &turns->engines[engine];
    uint64_t pause = PAUSE_MAX_NS, now;

    now = idle != 0 ? clock_ns() : 0;
    if (idle != 0 && now - idle < PAUSE_MAX_NS) {
        pause = now - idle;
    }
    e->pause = e->pause - e->pause / PAUSES + pause / PAUSES;
}

/* Whether the piece of work that waits is for this engine. */
static bool is_wanted(const struct turns_next *next, const struct turns_engine *e)
{
    return next->piece && next->piece->engine == e->turn.engine;
}

/*
 * Whether the next piece of work may be expected any moment. Of its own slice a session may spend
 * more on waiting: it pays for that, and a program that waits for each of its kernels could not use
 * its share beside others that have long ones.
 */
static bool more_expected(const struct turns *turns, const struct turns_engine *e,
                          enum vgpu_turn state, uint64_t now)
{
    const bool own = state == VGPU_TURN_SHARED && e->pause < PAUSE_MAX_NS / 2;
    const uint64_t limit = LINGER_NS + (own ? 2 * e->pause : 0);

    return e->used && e->pause < limit && now - turns->flight->idle_ns[e->turn.engine] < limit;
}

/*
 * Whether the engine has work of this session's, or may have: what is not confirmed to be done is
 * asked about where others want the engine. While nobody does, that is left to a quiet moment.
 */
static bool is_busy(struct turns *turns, const struct turns_engine *e, bool wanted)
{
    struct gpu *gpu = turns->flight->gpu;

    return flight_busy(turns->flight, e->turn.engine) ||
           (gpu->unconfirmed && (!wanted || !gpu->ops->confirm(gpu)));
}

static int end_turn(struct turns_engine *e)
{
    set_turns_state(e, TURNS_NONE);
    return turn_finish(&e->turn);
}

/*
 * Gives a turn up to which nothing will be added, because it may not, or because by the time that
 * it might the slice will be over.
 */
static int yield_turn(struct turns *turns, struct turns_engine *e, uint64_t now)
{
    const uint64_t window = shared_load64(&turns->page->terms.window_ns);
    const uint64_t left = flight_remaining(turns->flight, e->turn.engine, now);
    const uint64_t lead = window / LEAD_PART;
    bool done = false;
    const int r = turn_yield(&e->turn, now + (left > lead ? left - lead : 0), &done);

    if (done) {
        set_turns_state(e, TURNS_YIELDED);
    }
    return r;
}

/* Whether the slice will be over before the window lets another piece of work in. */
static bool slice_used_up(const struct turns *turns, const struct turns_engine *e, uint64_t now)
{
    const uint64_t window = shared_load64(&turns->page->terms.window_ns);

    return now + flight_remaining(turns->flight, e->turn.engine, now) >= turn_slice_end(e) + window;
}

/* Decides about a turn whose engine has work of this session. */
static int look_at_busy(struct turns *turns, struct turns_engine *e, enum vgpu_turn state,
                        uint64_t now)
{
    if (state == VGPU_TURN_STOPPED) {
        flight_disturb(turns->flight);
        return yield_turn(turns, e, now);
    }
    return state == VGPU_TURN_SHARED && slice_used_up(turns, e, now) ? yield_turn(turns, e, now)
                                                                     : 0;
}

/* Decides about a turn whose engine has none. */
static int look_at_idle(struct turns *turns, struct turns_engine *e, enum vgpu_turn state,
                        const struct turns_next *next, uint64_t now)
{
    const bool wanted = is_wanted(next, e);
    bool keep;

    if (state == VGPU_TURN_STOPPED) {
        flight_disturb(turns->flight);
        return end_turn(e);
    }
    if (state == VGPU_TURN_SHARED && e->used && now >= turn_slice_end(e)) {
        return end_turn(e);
    }
    if (state == VGPU_TURN_RUNNING) {
        keep = wanted; /* nobody waits: to take it again costs nothing */
    } else if (wanted) {
        keep = next->may && flight_may(turns->flight, next->piece, now);
    } else {
        keep = more_expected(turns, e, state, now);
    }
    return keep ? 0 : end_turn(e);
}

int turns_look(struct turns *turns, const struct turns_next *next)
{
    int r = 0;

    for (unsigned i = 0; r >= 0 && i < VGPU_ENGINES; i++) {
        struct turns_engine *e = &turns->engines[i];
        uint64_t now;
        bool busy;

        if (e->state == TURNS_NONE) {
            continue;
        }
        busy = is_busy(turns, e, !turn_held(e) || turn_state(&e->turn) != VGPU_TURN_RUNNING);
        now = clock_ns();
        if (e->state == TURNS_YIELDED) {
            r = busy ? 0 : end_turn(e);
        } else if (turn_held(e)) {
            const enum vgpu_turn state = turn_state(&e->turn);

            r = busy ? look_at_busy(turns, e, state, now)
                     : look_at_idle(turns, e, state, next, now);
        }
    }
    return r;
}

int turns_lend(struct turns *turns)
{
    int r = 0;

    for (unsigned i = 0; r == 0 && i < VGPU_ENGINES; i++) {
        struct turns_engine *e = &turns->engines[i];

        if (e->state == TURNS_HELD && !is_busy(turns, e, true)) {
            r = end_turn(e);
        }
    }
    return r;
}

bool turns_none(const struct turns *turns)
{
    for (unsigned i = 0; i < VGPU_ENGINES; i++) {
        if (turns->engines[i].state != TURNS_NONE) {
            return false;
        }
    }
    return true;
}
