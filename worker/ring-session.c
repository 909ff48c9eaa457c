/* SPDX-License-Identifier: MIT */
/*
 * A ring session, see ring-session.h: taking commands, and what is done when. What a command is was
 * found out by command_decode(); what it does is its handler's matter.
 *
 * One call of ring_session_step() takes up to BATCH commands, then looks once at all that waits.
 * Between the two nothing is forgotten: whatever is found to be possible there is found again in
 * the next step.
 */
#include "worker/ring-session.h"

#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "common/clock.h"
#include "common/shared.h"
#include "worker/estimate.h"
#include "worker/order.h"
#include "worker/session-arrays.h"
#include "worker/session-links.h"

/* Commands taken before what is pending is looked at again. */
#define BATCH 64u

void ring_session_init(struct ring_session *s, const struct ring_session_needs *needs)
{
    ring_init(&s->ring, needs->queue, needs->irq);
    s->ring.interrupt.page = needs->page;
    s->gpu = needs->gpu;
    s->page = needs->page;
    s->printed = needs->printed;
    s->reached = needs->gpu->ops->fence_answer && needs->gpu->ops->reach &&
                 needs->gpu->ops->reach(needs->gpu, needs->queue, VGPU_QUEUE_SIZE);
    s->memory.ledger.account = needs->account;
    s->memory.ledger.counters = &needs->page->counters;
    flight_init(&s->flight, needs->gpu, needs->page);
    turns_init(&s->turns, &s->flight, needs->page, needs->link);
    sharing_init(s, needs->link, &needs->files);
}

/* Whether nobody else wants the GPU. */
static bool is_alone(const struct ring_session *s)
{
    return shared_load64(&s->page->terms.window_ns) == 0;
}

static bool head_is_work(const struct ring_session *s)
{
    return s->taken.held && (s->taken.head_facts.flags & COMMAND_TURN);
}

/* The head ------------------------------------------------------------------------------------ */

/* Carries out what waited for the command that was at the head. */
static void serve_parked(struct ring_session *s)
{
    struct taken *t = &s->taken;

    for (uint64_t left = t->parked_slots; left != 0; left &= left - 1) {
        const unsigned place = (unsigned)__builtin_ctzll(left);
        const struct parked *parked = &t->parked[place];
        struct execution execution;

        if (t->passed < parked->until) {
            continue;
        }
        t->parked_slots &= ~(UINT64_C(1) << place);
        t->behind.header = parked->header;
        memcpy(t->behind.body, &parked->body, sizeof(parked->body));
        execution_begin(&execution, s, &s->handles, &t->behind, &parked->facts, NULL);
        execution_run(&execution);
    }
}

/* Whether the head, which is work, may be submitted now. 1, 0, or -errno. */
static int may_submit(struct ring_session *s, uint64_t now)
{
    const struct flight_piece *piece = &s->taken.piece;

    if (s->pending.settling || !flight_may(&s->flight, piece, now)) {
        return 0; /* others may use the engine meanwhile */
    }
    return turns_may_submit(&s->turns, piece->engine, now);
}

/* Whether the head, which may take long without the GPU, may be carried out now: 1, 0 or -errno. */
static int may_take_long(struct ring_session *s)
{
    const bool free = (s->taken.head_facts.flags & COMMAND_FREE) != 0;
    int r;

    ring_session_poll_flight(s);
    /* What comes in order may have the driver wait for all streams, and this worker with it. */
    if (!flight_idle(&s->flight) && !(free && is_alone(s))) {
        return 0;
    }
    r = turns_lend(&s->turns);
    return r < 0 ? r : 1;
}

/* Carries out the command at the head, or a piece of it, if it may be now. 1: it was; 0: not. */
static int try_head(struct ring_session *s)
{
    struct taken *t = &s->taken;
    const uint32_t flags = t->head_facts.flags;
    const uint64_t now = flags & COMMAND_TURN ? clock_ns() : 0;
    struct execution execution;
    enum execution_end end;
    int r = 1;

    execution_begin(&execution, s, &s->handles, &t->head, &t->head_facts, &t->progress);
    if (flags & COMMAND_TURN) {
        /* Each time anew: what is predicted and how large a piece may be change meanwhile. */
        estimate(&execution, &t->piece);
        r = may_submit(s, now);
    } else if (flags & COMMAND_SLOW) {
        r = may_take_long(s);
    }
    if (r <= 0) {
        return r;
    }
    end = execution_run(&execution);
    t->held = end == EXECUTION_PIECE;
    if ((flags & COMMAND_TURN) && end != EXECUTION_REFUSED) {
        turns_note_submitted(&s->turns, &t->piece);
        flight_add(&s->flight, &t->piece, now);
    }
    if (!t->held) {
        t->passed++;
        if (t->parked_slots != 0) {
            serve_parked(s);
        }
    }
    return 1;
}

/* Taking -------------------------------------------------------------------------------------- */

/* The slots whose commands are not answered yet, but for the head's. */
static uint64_t slots_in_use(const struct ring_session *s)
{
    return s->pending.slots | s->taken.parked_slots | s->taken.backlog.slots;
}

/*
 * Takes the next command out of the ring and finds out about it. Returns 1, 0 when there is none,
 * or -EPROTO, told to the guest. Each command comes through here, so that it is no call.
 */
static inline __attribute__((always_inline)) int take_command(struct ring_session *s,
                                                              uint64_t slots,
                                                              struct ring_command *command,
                                                              struct command_facts *facts)
{
    const struct vgpu_command *header = &command->header;
    enum vgpu_refusal why;

    switch (ring_take(&s->ring, command)) {
    case RING_EMPTY:
        return 0;
    case RING_BAD:
        return -EPROTO;
    case RING_COMMAND:
        break;
    }
    why = command_decode(command, facts);
    if (why == VGPU_REFUSED_NONE && header->slot != 0 &&
        (slots & UINT64_C(1) << (header->slot - 1)) != 0 && !pending_free_slot(s, header->slot)) {
        why = VGPU_REFUSED_SLOT_USED;
    }
    if (why != VGPU_REFUSED_NONE) {
        ring_refuse(&s->ring, header, why);
        return -EPROTO;
    }
    return 1;
}

/* Keeps a command until enough of those before it are carried out. All that wait have a slot. */
static void park_command(struct taken *t, const struct command_facts *facts, uint64_t before)
{
    const struct vgpu_command *header = &t->behind.header;
    struct parked *parked;

    assert(header->slot >= 1 && header->slot <= VGPU_SLOTS);
    parked = &t->parked[header->slot - 1];
    parked->until = t->passed + before;
    parked->header = *header;
    parked->facts = *facts;
    memcpy(&parked->body, t->behind.body, sizeof(parked->body));
    t->parked_slots |= UINT64_C(1) << (header->slot - 1);
}

/* Carries out a command that was taken behind others and does not depend on them. 1 or -errno. */
static int run_behind(struct ring_session *s, const struct command_facts *facts)
{
    const int r = facts->flags & COMMAND_SLOW ? turns_lend(&s->turns) : 0;
    uint64_t progress = 0;
    struct execution execution;

    if (r == 0) {
        execution_begin(&execution, s, &s->handles, &s->taken.behind, facts, &progress);
        execution_run(&execution);
    }
    return r < 0 ? r : 1;
}

/* Takes a command behind one that waits. 1: it was; 0: there is none, or no room for it. */
static int take_behind(struct ring_session *s)
{
    struct taken *t = &s->taken;
    const struct vgpu_command *header = &t->behind.header;
    uint64_t slots = slots_in_use(s), before;
    struct command_facts facts;
    int r;

    if (!backlog_has_room(&t->backlog)) {
        return 0;
    }
    slots |= t->head.header.slot != 0 ? UINT64_C(1) << (t->head.header.slot - 1) : 0;
    r = take_command(s, slots, &t->behind, &facts);
    if (r <= 0) {
        return r;
    }
    switch (order_place(&t->head_facts, &t->backlog, &facts, is_alone(s), &before)) {
    case ORDER_NOW:
        return run_behind(s, &facts);
    case ORDER_AFTER:
        park_command(t, &facts, before);
        return 1;
    case ORDER_NOT_READY:
        s->page->counters.requests++;
        ring_answer(&s->ring, header, VGPU_GPU_NOT_READY, NULL, 0);
        return 1;
    case ORDER_LAST:
        break;
    }
    return backlog_add(&t->backlog, &t->behind, &facts) ? 1 : -ENOMEM;
}

/* Whether another command may be carried out at all. */
static bool has_room(const struct ring_session *s)
{
    return s->gpu->ops->room(s->gpu) && streams_have_room(&s->streams);
}

/* Puts the next command at the head. 1: there is one; 0: there is none. */
static int next_head(struct ring_session *s)
{
    struct taken *t = &s->taken;

    t->progress = 0;
    if (t->backlog.count > 0) {
        backlog_take(&t->backlog, &t->head, &t->head_facts);
    } else {
        const int r = take_command(s, slots_in_use(s), &t->head, &t->head_facts);
        const enum vgpu_engine engine = (enum vgpu_engine)t->head_facts.engine;

        if (r <= 0) {
            return r;
        }
        if ((t->head_facts.flags & COMMAND_TURN) && !flight_busy(&s->flight, engine)) {
            turns_note_pause(&s->turns, engine);
        }
    }
    t->held = true;
    return 1;
}

/* Does the next thing that can be done with commands. 1: something was; 0: nothing can be. */
static int take_one(struct ring_session *s)
{
    const bool held = s->taken.held;
    int r = 1;

    if (!has_room(s)) {
        return 0;
    }
    if (!held) {
        r = next_head(s);
    }
    if (r > 0) {
        r = try_head(s);
        if (r == 0) {
            /* One that was put there is something; behind one that waits there may be more. */
            r = held ? take_behind(s) : 1;
        }
    }
    return r;
}

/* Serving ----------------------------------------------------------------------------------- */

/* Looks at what is on the GPU. Whether something has ended, or -ETIME. */
static int look_at_flight(struct ring_session *s)
{
    /* Asked before the time off is looked at: what was off until now is not shifted yet. */
    const bool off = s->preempt && preempt_is_off(s->preempt);
    bool any;

    if (flight_idle(&s->flight)) {
        return 0;
    }
    any = ring_session_poll_flight(s);
    return !off && flight_overlong(&s->flight, clock_ns()) ? -ETIME : any;
}

int ring_session_step(struct ring_session *s)
{
    struct turns_next next = {0};
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
    any = pending_poll_all(s) || any;
    r = look_at_flight(s);
    if (r < 0) {
        return r;
    }
    any = streams_poll(s) || any || r > 0;
    memory_free_dropped(s);
    ring_session_note_loss(s);
    if (head_is_work(s)) {
        next = (struct turns_next){.piece = &s->taken.piece, .may = !s->pending.settling};
    }
    r = turns_look(&s->turns, &next);
    return r < 0 ? r : any;
}

void ring_session_fail(struct ring_session *s, enum vgpu_gpu_error error)
{
    struct taken *t = &s->taken;

    pending_fail(s, error);
    for (uint64_t left = t->parked_slots; left != 0; left &= left - 1) {
        ring_answer(&s->ring, &t->parked[__builtin_ctzll(left)].header, error, NULL, 0);
    }
    while (t->held || t->backlog.count > 0) {
        if (!t->held) {
            backlog_take(&t->backlog, &t->head, &t->head_facts);
        }
        if (t->head.header.slot != 0) {
            ring_answer(&s->ring, &t->head.header, error, NULL, 0);
        }
        t->held = false;
    }
}

bool ring_session_takes(const struct ring_session *s)
{
    return has_room(s) && (!s->taken.held || backlog_has_room(&s->taken.backlog));
}

bool ring_session_quiet(const struct ring_session *s)
{
    /* Without room it waits for that, though nobody waits for it. */
    return turns_none(&s->turns) && !s->taken.held && s->taken.backlog.count == 0 &&
           !s->streams.retired && s->pending.slots == 0 && has_room(s);
}

bool ring_session_waits_for_turn(const struct ring_session *s)
{
    return head_is_work(s) && flight_idle(&s->flight) &&
           s->turns.engines[s->taken.piece.engine].state == TURNS_ASKED;
}

uint64_t ring_session_next(const struct ring_session *s, uint64_t now_ns)
{
    uint64_t next = flight_next(&s->flight, now_ns);

    if (head_is_work(s) && s->turns.engines[s->taken.piece.engine].state == TURNS_HELD) {
        const uint64_t from = shared_load64(&s->page->turn[s->taken.piece.engine].from_ns);

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

    pending_release(s);
    streams_release(s);
    while ((graph = handles_next(&s->handles, HANDLE_GRAPH, &position)) != NULL) {
        graph_free(&needs, graph);
    }
    array_release_all(s);
    link_release_all(s);
    sharing_release(s);
    memory_release_all(s);
    free(s->upload.bytes);
    flight_release(&s->flight);
    backlog_release(&s->taken.backlog);
    handles_release(&s->handles);
}
