/* SPDX-License-Identifier: MIT */
/* A ring session, see ring-session.h. */
#include "worker/ring-session.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "common/clock.h"
#include "common/shared.h"
#include "worker/commands.h"
#include "worker/exec-graph.h"

/* Commands taken before what is pending is looked at again. */
#define BATCH 64u
/* Destroyed streams with work to do; when there are more, nothing is taken until some are done. */
#define RETIRED_MAX 1024u
/* How long a turn that others wait for is kept without work, where work has followed that soon. */
#define LINGER_NS (60 * NS_PER_US)
/* The longest pause that is told from others, and how many of them make an average. */
#define PAUSE_MAX_NS (2 * NS_PER_MS)
#define PAUSES 2u
/* The next worker may submit when so much of a window is left of this one's work. */
#define LEAD_PART 2u

void ring_session_init(struct ring_session *s, const struct ring_session_needs *needs)
{
    ring_init(&s->ring, needs->queue, needs->irq);
    s->ring.interrupt.page = needs->page;
    s->gpu = needs->gpu;
    s->page = needs->page;
    s->ledger.account = needs->account;
    s->ledger.counters = &needs->page->counters;
    flight_init(&s->flight, needs->gpu, needs->page);
    for (unsigned i = 0; i < VGPU_ENGINES; i++) {
        s->engines[i].turn = (struct turn){
            .page = needs->page,
            .link = needs->link,
            .engine = (enum vgpu_engine)i,
        };
        s->engines[i].pause = PAUSE_MAX_NS;
    }
}

/* Turns ------------------------------------------------------------------------------------- */

static void begin_turn(struct ring_engine *e)
{
    e->state = RING_TURN_HELD;
    e->used = false;
}

/* Whether the word says that the turn that was asked for is there. */
static bool take_granted(struct ring_engine *e)
{
    if (e->state == RING_TURN_ASKED && turn_granted(&e->turn)) {
        begin_turn(e);
    }
    return e->state == RING_TURN_HELD;
}

static uint64_t turn_slice_end(const struct ring_engine *e)
{
    return shared_load64(&e->turn.page->turn[e->turn.engine].until_ns);
}

/* Whether the turn, which is held, allows another piece of work. */
static bool turn_allows(const struct ring_engine *e, uint64_t now)
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

/* Whether the held piece of work may be submitted now; asks for the turn where that is to be done.
 */
static int may_submit(struct ring_session *s, bool *may)
{
    struct ring_engine *e = &s->engines[s->piece.engine];

    *may = false;
    if (s->settling || !flight_may(&s->flight, &s->piece, clock_ns())) {
        return 0; /* others may use the engine meanwhile */
    }
    if (e->state == RING_TURN_NONE) {
        if (!turn_try(&e->turn)) {
            e->state = RING_TURN_ASKED;
            return turn_ask(&e->turn);
        }
        begin_turn(e);
    }
    *may = take_granted(e) && turn_allows(e, clock_ns());
    return 0;
}

/* A piece of work has been submitted: what it was is in s->piece. */
static void count_piece(struct ring_session *s)
{
    struct ring_engine *e = &s->engines[s->piece.engine];

    s->piece.first = !e->used;
    e->used = true;
    flight_add(&s->flight, &s->piece, clock_ns());
}

/* Work has come: after which pause, where there was none. */
static void note_pause(struct ring_session *s)
{
    const enum vgpu_engine engine = command_engine(&s->head);
    const uint64_t idle = s->flight.idle_ns[engine];
    struct ring_engine *e = &s->engines[engine];
    uint64_t pause = PAUSE_MAX_NS;

    if (flight_busy(&s->flight, engine)) {
        return;
    }
    if (idle != 0 && clock_ns() - idle < PAUSE_MAX_NS) {
        pause = clock_ns() - idle;
    }
    e->pause = e->pause - e->pause / PAUSES + pause / PAUSES;
}

/* Whether the command that is held is work for this engine. */
static bool work_held(const struct ring_session *s, const struct ring_engine *e)
{
    return s->held && command_needs_turn(&s->head) && s->piece.engine == e->turn.engine;
}

/*
 * Whether the next piece of work may be expected any moment. Of its own slice a session may spend
 * more on waiting: it pays for that, and who waits for each of his kernels could not use his share
 * beside others that have long ones.
 */
static bool more_expected(const struct ring_session *s, const struct ring_engine *e,
                          enum vgpu_turn state, uint64_t now)
{
    const bool own = state == VGPU_TURN_SHARED && e->pause < PAUSE_MAX_NS / 2;
    const uint64_t limit = LINGER_NS + (own ? 2 * e->pause : 0);

    return e->used && e->pause < limit && now - s->flight.idle_ns[e->turn.engine] < limit;
}

/* Whether a turn that others wait for is kept, with nothing on the engine. */
static bool work_may_follow(const struct ring_session *s, const struct ring_engine *e,
                            enum vgpu_turn state, uint64_t now)
{
    return work_held(s, e) ? !s->settling && flight_may(&s->flight, &s->piece, now)
                           : more_expected(s, e, state, now);
}

static int end_turn(struct ring_engine *e)
{
    e->state = RING_TURN_NONE;
    return turn_finish(&e->turn);
}

/*
 * Gives a turn up to which nothing will be added, because it may not, or because by the time that
 * it might the slice will be over.
 */
static int yield_turn(struct ring_session *s, struct ring_engine *e, uint64_t now)
{
    const uint64_t window = shared_load64(&s->page->terms.window_ns);
    const uint64_t left = flight_remaining(&s->flight, e->turn.engine, now);
    const uint64_t lead = window / LEAD_PART;
    bool done = false;
    int r;

    r = turn_yield(&e->turn, now + (left > lead ? left - lead : 0), &done);
    if (done) {
        e->state = RING_TURN_YIELDED;
    }
    return r;
}

/* Whether the slice will be over before the window lets another piece of work in. */
static bool slice_used_up(const struct ring_session *s, const struct ring_engine *e, uint64_t now)
{
    const uint64_t window = shared_load64(&s->page->terms.window_ns);

    return now + flight_remaining(&s->flight, e->turn.engine, now) >= turn_slice_end(e) + window;
}

/* Ends an engine's turn when its work is done and it is of no more use. */
static int keep_turn(struct ring_session *s, struct ring_engine *e)
{
    const uint64_t now = clock_ns();
    const bool busy = flight_busy(&s->flight, e->turn.engine);
    enum vgpu_turn state;

    if (e->state == RING_TURN_YIELDED) {
        return busy ? 0 : end_turn(e);
    }
    if (!take_granted(e)) {
        return 0;
    }
    state = turn_state(&e->turn);
    if (state == VGPU_TURN_STOPPED) {
        flight_disturb(&s->flight);
        return busy ? yield_turn(s, e, now) : end_turn(e);
    }
    if (busy) {
        return state == VGPU_TURN_SHARED && slice_used_up(s, e, now) ? yield_turn(s, e, now) : 0;
    }
    if (state == VGPU_TURN_SHARED && e->used && now >= turn_slice_end(e)) {
        return end_turn(e);
    }
    if (state == VGPU_TURN_RUNNING ? work_held(s, e) : work_may_follow(s, e, state, now)) {
        return 0;
    }
    return end_turn(e);
}

/* Before a command that is no work and may take long: no turn is kept for that, nor one used. */
static int lend_turns(struct ring_session *s)
{
    int r = 0;

    for (unsigned i = 0; r == 0 && i < VGPU_ENGINES; i++) {
        struct ring_engine *e = &s->engines[i];

        if (e->state == RING_TURN_HELD && !flight_busy(&s->flight, e->turn.engine)) {
            r = end_turn(e);
        }
    }
    return r;
}

/* Commands ---------------------------------------------------------------------------------- */

/* Carries out what waited for the command that was at the head. Returns 0 or -errno. */
static int serve_parked(struct ring_session *s)
{
    int r = 0;

    for (uint64_t left = s->parked_slots; r >= 0 && left != 0; left &= left - 1) {
        const struct parked *parked = &s->parked[__builtin_ctzll(left)];

        if (s->passed >= parked->until) {
            s->parked_slots &= ~(left & -left);
            s->behind.header = parked->header;
            memcpy(s->behind.body, &parked->body, sizeof(parked->body));
            s->command = &s->behind;
            r = command_execute(s);
        }
    }
    return r;
}

/* Carries out the command at the head, or a piece of it, if it may be now. 1: it was; 0: not. */
static int try_head(struct ring_session *s)
{
    const bool work = command_needs_turn(&s->head);
    bool may = true;
    int r = 0;

    s->command = &s->head;
    if (work) {
        command_estimate(s);
        r = may_submit(s, &may);
    } else if (command_is_slow(&s->head)) {
        flight_poll(&s->flight, clock_ns());
        /* What comes in order may have the driver wait for all streams, and this worker with it. */
        may = flight_idle(&s->flight) ||
              (command_is_free(&s->head) && shared_load64(&s->page->terms.window_ns) == 0);
        r = may ? lend_turns(s) : 0;
    }
    if (r < 0 || !may) {
        return r;
    }
    r = command_execute(s);
    if (r < 0) {
        return r;
    }
    s->held = r > 0;
    if (work && s->submitted) {
        count_piece(s);
    }
    if (!s->held) {
        s->passed++;
        r = s->parked_slots != 0 ? serve_parked(s) : 0;
    }
    return r < 0 ? r : 1;
}

/* Puts a command that was taken to where it has to wait. Returns 1 or -errno. */
static int put_aside(struct ring_session *s, enum command_place place, uint64_t before)
{
    const struct vgpu_command *header = &s->behind.header;
    const struct backlog_key key = command_key(&s->behind);
    struct parked *parked;

    if (place == COMMAND_LAST) {
        return backlog_add(&s->backlog, &s->behind, &key) ? 1 : -ENOMEM;
    }
    if (place == COMMAND_NOT_READY) {
        s->page->counters.requests++;
        ring_answer(&s->ring, header, VGPU_GPU_NOT_READY, NULL, 0);
        return 1;
    }
    if (header->slot == 0) {
        return -EPROTO; /* whoever waits has a slot: command_is_good() has looked */
    }
    parked = &s->parked[header->slot - 1];
    parked->until = s->passed + before;
    parked->header = *header;
    memcpy(&parked->body, s->behind.body, sizeof(parked->body));
    s->parked_slots |= UINT64_C(1) << (header->slot - 1);
    return 1;
}

/* Takes a command behind one that waits. 1: it was; 0: there is none, or no room for it. */
static int take_behind(struct ring_session *s)
{
    const struct vgpu_command *header = &s->behind.header;
    uint64_t slots = s->pending_slots | s->parked_slots | s->backlog.slots;
    enum command_place place;
    uint64_t before;
    int r;

    if (!backlog_has_room(&s->backlog)) {
        return 0;
    }
    switch (ring_take(&s->ring, &s->behind)) {
    case RING_EMPTY:
        return 0;
    case RING_BAD:
        return -EPROTO;
    case RING_COMMAND:
        break;
    }
    slots |= s->head.header.slot != 0 ? UINT64_C(1) << (s->head.header.slot - 1) : 0;
    if (!command_is_good(&s->behind) ||
        (header->slot != 0 && (slots & UINT64_C(1) << (header->slot - 1)) != 0)) {
        return -EPROTO;
    }
    place = command_place(s, &s->behind, &before);
    if (place != COMMAND_NOW) {
        return put_aside(s, place, before);
    }
    s->command = &s->behind;
    r = command_is_slow(&s->behind) ? lend_turns(s) : 0;
    if (r == 0) {
        r = command_execute(s);
    }
    return r < 0 ? r : 1;
}

/* Whether another command may be carried out at all. */
static bool has_room(const struct ring_session *s)
{
    return s->gpu->ops->room(s->gpu) && s->retired_count < RETIRED_MAX;
}

/* Does the next thing that can be done with commands. 1: something was; 0: nothing can be. */
static int take_one(struct ring_session *s)
{
    int r;

    if (!has_room(s)) {
        return 0;
    }
    if (s->held) {
        r = try_head(s);
        return r != 0 ? r : take_behind(s);
    }
    if (s->backlog.count > 0) {
        backlog_take(&s->backlog, &s->head);
        s->progress = 0;
    } else {
        switch (ring_take(&s->ring, &s->head)) {
        case RING_EMPTY:
            return 0;
        case RING_BAD:
            return -EPROTO;
        case RING_COMMAND:
            break;
        }
        s->progress = 0;
        if (command_needs_turn(&s->head)) {
            note_pause(s);
        }
    }
    s->held = true;
    r = try_head(s);
    return r < 0 ? r : 1;
}

/* Serving ----------------------------------------------------------------------------------- */

static bool poll_pending(struct ring_session *s)
{
    bool any = false;

    for (uint64_t left = s->pending_slots; left != 0; left &= left - 1) {
        any = command_poll(s, &s->pending[__builtin_ctzll(left)]) || any;
    }
    return any;
}

/* Destroys streams for good that have done what they had to do. Whether there were any. */
static bool poll_retired(struct ring_session *s)
{
    struct retired **place = &s->retired;
    bool any = false;

    while (*place) {
        struct retired *retired = *place;

        if (s->gpu->ops->fence_poll(s->gpu, &retired->fence) == VGPU_GPU_NOT_READY) {
            place = &retired->next;
            continue;
        }
        s->gpu->ops->fence_release(s->gpu, &retired->fence);
        flight_forget(&s->flight, retired->stream, clock_ns());
        s->gpu->ops->stream_destroy(s->gpu, retired->stream);
        *place = retired->next;
        s->retired_count--;
        free(retired);
        any = true;
    }
    return any;
}

int ring_session_step(struct ring_session *s)
{
    bool any = false;
    int r = 0;

    for (unsigned i = 0; i < BATCH; i++) {
        r = take_one(s);
        if (r <= 0) {
            break;
        }
        any = true;
    }
    if (r < 0) {
        return r;
    }
    any = poll_pending(s) || any;
    if (!flight_idle(&s->flight)) {
        any = flight_poll(&s->flight, clock_ns()) || any;
        if (flight_overlong(&s->flight, clock_ns())) {
            return -ETIME;
        }
    }
    any = poll_retired(s) || any;
    memory_free_dropped(s);
    if (s->gpu->lost != VGPU_GPU_SUCCESS && !s->faulted) {
        s->faulted = true;
        s->page->counters.faults++;
    }
    for (unsigned i = 0; r >= 0 && i < VGPU_ENGINES; i++) {
        r = keep_turn(s, &s->engines[i]);
    }
    return r < 0 ? r : any;
}

void ring_session_fail(struct ring_session *s, enum vgpu_gpu_error error)
{
    for (uint64_t left = s->pending_slots; left != 0; left &= left - 1) {
        ring_answer(&s->ring, &s->pending[__builtin_ctzll(left)].header, error, NULL, 0);
    }
    for (uint64_t left = s->parked_slots; left != 0; left &= left - 1) {
        ring_answer(&s->ring, &s->parked[__builtin_ctzll(left)].header, error, NULL, 0);
    }
    while (s->held || s->backlog.count > 0) {
        if (!s->held) {
            backlog_take(&s->backlog, &s->head);
        }
        if (s->head.header.slot != 0) {
            ring_answer(&s->ring, &s->head.header, error, NULL, 0);
        }
        s->held = false;
    }
}

bool ring_session_takes(const struct ring_session *s)
{
    return has_room(s) && (!s->held || backlog_has_room(&s->backlog));
}

bool ring_session_quiet(const struct ring_session *s)
{
    for (unsigned i = 0; i < VGPU_ENGINES; i++) {
        if (s->engines[i].state != RING_TURN_NONE) {
            return false;
        }
    }
    return !s->held && s->backlog.count == 0 && !s->retired && s->pending_slots == 0;
}

bool ring_session_waits_for_turn(const struct ring_session *s)
{
    return s->held && flight_idle(&s->flight) && command_needs_turn(&s->head) &&
           s->engines[s->piece.engine].state == RING_TURN_ASKED;
}

uint64_t ring_session_next(const struct ring_session *s, uint64_t now_ns)
{
    uint64_t next = flight_next(&s->flight, now_ns);

    if (s->held && command_needs_turn(&s->head) &&
        s->engines[s->piece.engine].state == RING_TURN_HELD) {
        const uint64_t from = shared_load64(&s->page->turn[s->piece.engine].from_ns);

        if (from > now_ns && from - now_ns > next) {
            next = from - now_ns;
        }
    }
    return next;
}

void ring_session_release(struct ring_session *s)
{
    const struct graph_needs needs = {.gpu = s->gpu, .handles = &s->handles, .sum = &s->graphs};
    struct graph *graph;
    uint32_t position = 0;

    for (uint64_t left = s->pending_slots; left != 0; left &= left - 1) {
        command_release_fences(s, &s->pending[__builtin_ctzll(left)]);
    }
    s->pending_slots = 0;
    while (s->retired) {
        struct retired *retired = s->retired;

        s->retired = retired->next;
        s->gpu->ops->fence_release(s->gpu, &retired->fence);
        free(retired);
    }
    while ((graph = handles_next(&s->handles, HANDLE_GRAPH, &position)) != NULL) {
        graph_free(&needs, graph);
    }
    memory_release_all(s);
    free(s->upload.bytes);
    flight_release(&s->flight);
    backlog_release(&s->backlog);
    ledger_release(&s->ledger);
    handles_release(&s->handles);
}
