/* SPDX-License-Identifier: MIT */
/*
 * A ring session: one guest process's queue, and what it has on the GPU.
 *
 * Theory of operation
 * -------------------
 * Commands are taken in the order of the ring and carried out at once, which for work means: it is
 * submitted. What has to wait for work (a synchronise, a free) is kept as pending, in the place
 * of its slot, and answered when its fences are passed; the commands behind it go on. So one
 * thread of the guest that waits holds up no other.
 *
 * Only work needs a turn (vgpu-worker.h). A command that finds none is kept, with all behind it,
 * until the turn comes. A session keeps its turn while it has work on the GPU. When others want it
 * the session submits no more, but for the first milliseconds of a turn that it had to wait
 * for, and returns the turn when its work is done.
 *
 * A failed command without a slot is remembered, the first one of several, until the next
 * synchronising command reports it.
 */
#ifndef VGPU_WORKER_RING_SESSION_H
#define VGPU_WORKER_RING_SESSION_H

#include <stdbool.h>
#include <stdint.h>

#include "gpu.h"
#include "handles.h"
#include "ring.h"
#include "turn.h"

enum pending_kind {
    PENDING_SYNC,   /* reports what went wrong before */
    PENDING_FENCE,  /* does not */
    PENDING_FREE,   /* then frees the memory at `argument` */
    PENDING_UNLOAD, /* then unloads the module `argument` */
};

/* A command that is answered later. */
struct pending {
    struct vgpu_command header;
    enum pending_kind kind;
    uint64_t argument;
    struct gpu_fence *fences; /* `count` of them are not passed yet */
    uint32_t count;
};

/* A destroyed stream that still has work to do. */
struct retired {
    struct retired *next;
    struct gpu_stream *stream;
    struct gpu_fence fence; /* its end */
};

enum ring_turn {
    RING_TURN_NONE,
    RING_TURN_ASKED,
    RING_TURN_HELD,
};

struct ring_session {
    /* Set by the caller. */
    struct ring ring;
    struct gpu *gpu;
    struct turn turn;

    /* The session's own, zero at first. */
    struct handles handles;
    struct pending pending[VGPU_SLOTS]; /* those in pending_slots are valid */
    uint64_t pending_slots;             /* bit N: slot N + 1 has a pending command */
    enum vgpu_gpu_error deferred;       /* of a command without a slot */
    enum ring_turn turn_state;
    uint64_t turn_ns;  /* when the turn began */
    bool turn_granted; /* it was waited for: worth keeping for a while */
    bool turn_used;    /* work was submitted in it */
    struct retired *retired;
    unsigned retired_count;
    bool held; /* `command` is still to be carried out */
    struct ring_command command;
};

/*
 * Takes and answers what can be now. Returns 1 when something was done, 0 when not, or
 * -errno: -EPROTO when the ring holds no commands, others when the mediator is lost.
 */
int ring_session_step(struct ring_session *session);

/* The turn that was asked for has been granted; -EPROTO when none was asked for. */
int ring_session_turn(struct ring_session *session);

/* Whether it waits for nothing but the ring: no work, nothing pending, nothing held. */
bool ring_session_quiet(struct ring_session *session);

/* Frees what the session has; the GPU stays the caller's. */
void ring_session_release(struct ring_session *session);

#endif
