/* SPDX-License-Identifier: MIT */
/* A ring session, see ring-session.h. */
#include "ring-session.h"

#include <errno.h>
#include <stdlib.h>

#include "clock.h"
#include "commands.h"
#include "shared.h"

/* Commands taken before what is pending is looked at again. */
#define BATCH 64u
/* Destroyed streams with work to do; when there are more, nothing is taken until some are done. */
#define RETIRED_MAX 1024u
/* How long work may be submitted in a turn that was waited for, while others wait in turn. */
#define SLICE_NS NS_PER_MS

static bool recalled(const struct ring_session *s)
{
    return shared_load(&s->turn.page->turn) == VGPU_TURN_RECALLED;
}

/* Whether work may be submitted now; asks for the turn where that is to be done. */
static int may_submit(struct ring_session *s, bool *may)
{
    *may = false;
    switch (s->turn_state) {
    case RING_TURN_HELD:
        *may = !recalled(s) || !s->turn_used ||
               (s->turn_granted && clock_ns() - s->turn_ns < SLICE_NS);
        return 0;
    case RING_TURN_ASKED:
        return 0;
    case RING_TURN_NONE:
        break;
    }
    if (turn_try(&s->turn)) {
        s->turn_state = RING_TURN_HELD;
        s->turn_granted = false;
        s->turn_used = false;
        s->turn_ns = clock_ns();
        *may = true;
        return 0;
    }
    s->turn_state = RING_TURN_ASKED;
    return turn_ask(&s->turn);
}

int ring_session_turn(struct ring_session *s)
{
    if (s->turn_state != RING_TURN_ASKED) {
        return -EPROTO;
    }
    s->turn_state = RING_TURN_HELD;
    s->turn_granted = true;
    s->turn_used = false;
    s->turn_ns = clock_ns();
    return 0;
}

static int end_turn(struct ring_session *s)
{
    s->turn_state = RING_TURN_NONE;
    s->turn.page->busy_ns += clock_ns() - s->turn_ns;
    return turn_finish(&s->turn);
}

/* Ends the turn when its work is done and it is of no more use. */
static int keep_turn(struct ring_session *s)
{
    const bool more = s->held && (!recalled(s) || !s->turn_used);

    if (s->turn_state != RING_TURN_HELD || more || !s->gpu->ops->idle(s->gpu)) {
        return 0;
    }
    return end_turn(s);
}

/* Before a command that is no work: not kept for it when others wait, or when it is slow. */
static int lend_turn(struct ring_session *s)
{
    if (s->turn_state != RING_TURN_HELD || !(recalled(s) || command_is_slow(&s->command.header)) ||
        !s->gpu->ops->idle(s->gpu)) {
        return 0;
    }
    return end_turn(s);
}

/* Carries out the next command, if there is one and it may be. 1: it was; 0: not. */
static int take_one(struct ring_session *s)
{
    bool may = true;
    int r = 0;

    if (!s->held) {
        switch (ring_take(&s->ring, &s->command)) {
        case RING_EMPTY:
            return 0;
        case RING_BAD:
            return -EPROTO;
        case RING_COMMAND:
            s->held = true;
        }
    }
    if (!s->gpu->ops->room(s->gpu) || s->retired_count >= RETIRED_MAX) {
        return 0;
    }
    if (command_needs_turn(&s->command.header)) {
        r = may_submit(s, &may);
        if (r < 0 || !may) {
            return r;
        }
        s->turn_used = true;
    } else {
        r = lend_turn(s);
        if (r < 0) {
            return r;
        }
    }
    s->held = false;
    r = command_execute(s);
    return r < 0 ? r : 1;
}

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
    if (r >= 0) {
        any = poll_pending(s) || any;
        any = poll_retired(s) || any;
        r = keep_turn(s);
    }
    return r < 0 ? r : any;
}

bool ring_session_quiet(struct ring_session *s)
{
    return !s->held && !s->retired && s->pending_slots == 0 && s->turn_state == RING_TURN_NONE;
}

void ring_session_release(struct ring_session *s)
{
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
    handles_release(&s->handles);
}
