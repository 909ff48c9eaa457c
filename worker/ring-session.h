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
 * Work needs the turn on its engine (vgpu-worker.h), and room in the window (flight.h). A command
 * that has not got both waits, and so does what is behind it, but for commands that do not depend
 * on what waits: to wait for an event that was recorded long ago, say. A large copy or fill is
 * submitted in pieces, each as if it were a command of its own.
 *
 *            turn_try()                                  its work is done
 *   NONE -----------------------------------> HELD --------------------------+
 *    |  ask                        TURN        ^ |                           |
 *    +-------------> ASKED --------------------+ | it may submit no more,    v
 *    ^                                           | its work is about to end  NONE
 *    +------------------ YIELDED <---------------+
 *       its work is done
 *
 * A session keeps a turn while it has work on the engine. One that others wait for it keeps for a
 * moment more, if the next piece of work has lately followed the last one that soon: a job that
 * waits for each of its kernels is not interrupted at each of them.
 *
 * A failed command without a slot is remembered, the first one of several, until the next
 * synchronising command reports it.
 */
#ifndef VGPU_WORKER_RING_SESSION_H
#define VGPU_WORKER_RING_SESSION_H

#include <stdbool.h>
#include <stdint.h>

#include "worker/backlog.h"
#include "worker/exec-graph.h"
#include "worker/flight.h"
#include "worker/gpu.h"
#include "worker/handles.h"
#include "worker/ledger.h"
#include "worker/predict.h"
#include "worker/ring.h"
#include "worker/turn.h"

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

/* A command that waits for work which waits itself. */
struct parked {
    uint64_t until; /* so many have to be carried out at the head */
    struct vgpu_command header;
    struct vgpu_cmd_value body;
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
    RING_TURN_YIELDED,
};

/* The session's turn on one engine. */
struct ring_engine {
    struct turn turn;
    enum ring_turn state;
    bool used;      /* work was submitted in this turn */
    uint64_t pause; /* between the end of work and the next piece, ns, of late */
};

/* What comes over in chunks: a module's image or the encoding of a graph. */
struct upload {
    uint8_t *bytes; /* `size` of them and a NUL; NULL: none */
    uint64_t size;
};

struct mapping;

/* Memory that is to be freed when the GPU does nothing. */
struct dropped {
    uint64_t *address; /* `count` of them, with room for `room` */
    size_t count, room;
};

struct ring_session {
    /* Set by ring_session_init(). */
    struct ring ring;
    struct gpu *gpu;
    struct vgpu_turn_page *page;
    struct ring_engine engines[VGPU_ENGINES];
    struct ledger ledger;
    struct flight flight;
    struct predictor predictor;

    /* The session's own, zero at first. */
    struct handles handles;
    struct pending pending[VGPU_SLOTS]; /* those in pending_slots are valid */
    uint64_t pending_slots;             /* bit N: slot N + 1 has a pending command */
    enum vgpu_gpu_error deferred;       /* of a command without a slot */
    bool faulted;                       /* the GPU's context is lost, and that is counted */
    struct retired *retired;
    unsigned retired_count;
    uint32_t mapping_count;
    bool held;                 /* `head` is still to be carried out */
    bool settling;             /* nothing is submitted until all is done: something is freed then */
    bool submitted;            /* it was not refused */
    struct flight_piece piece; /* of it, where it is work */
    uint64_t progress;         /* of a large copy or fill: bytes or elements submitted */
    struct ring_command head;  /* the first command that waits, or is carried out */
    struct backlog backlog;    /* those behind it */
    uint64_t passed;           /* commands carried out at the head, so far */
    struct parked parked[VGPU_SLOTS]; /* those in parked_slots are valid */
    uint64_t parked_slots;            /* bit N: slot N + 1 has one */
    struct ring_command behind;       /* one that was taken while others wait */
    struct ring_command *command;     /* the one that is carried out: head or behind */
    struct upload upload;
    struct graph_sum graphs;
    struct mapping *mappings; /* `mapping_count` of them */
    struct dropped dropped;
    uint64_t limit_bytes[3]; /* of device memory that limits of the context account for */
};

/* All that a session needs, and it does not own. */
struct ring_session_needs {
    struct vgpu_queue *queue;
    int irq; /* eventfd of the queue's interrupt */
    struct gpu *gpu;
    struct vgpu_turn_page *page;
    struct vgpu_account_page *account;
    int link; /* to the mediator */
};

/* *session is all zero. */
void ring_session_init(struct ring_session *session, const struct ring_session_needs *needs);

/*
 * Takes and answers what can be now. Returns 1 when something was done, 0 when not, or
 * -errno: -EPROTO when the ring holds no commands, -ETIME when a piece of work takes longer than
 * the VM's terms allow, others when the mediator is lost.
 */
int ring_session_step(struct ring_session *session);

/* Answers all that is pending or held with this error: the session ends. */
void ring_session_fail(struct ring_session *session, enum vgpu_gpu_error error);

/* Whether it would take a command if the ring held one. */
bool ring_session_takes(const struct ring_session *session);

/* Whether it waits for nothing but the ring: no work, nothing pending, nothing held. */
bool ring_session_quiet(const struct ring_session *session);

/* Whether nothing can happen before the mediator has granted a turn. */
bool ring_session_waits_for_turn(const struct ring_session *session);

/* In how many ns something is expected to happen, or more may be submitted; 0: at any moment. */
uint64_t ring_session_next(const struct ring_session *session, uint64_t now_ns);

/* Frees what the session has; the GPU stays the caller's. */
void ring_session_release(struct ring_session *session);

#endif
