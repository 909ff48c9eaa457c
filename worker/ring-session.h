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
 * Work needs the turn on its engine (turns.h), and room in the window (flight.h). A command that
 * has not got both waits, and so does what is behind it, but for commands that do not depend on
 * what waits (order.h). A large copy or fill is submitted in pieces, each as if it were a command
 * of its own.
 *
 *   head      the first command that waits, or is carried out
 *   backlog   those behind it, in order (backlog.h)
 *   parked    commands that wait until so many of these have been carried out, by their slots
 *   pending   commands that were carried out and wait for the GPU, by their slots (pending.h)
 *
 * A failed command without a slot is remembered, the first one of several, until the next
 * synchronising command reports it, and whose failure it was.
 */
#ifndef VGPU_WORKER_RING_SESSION_H
#define VGPU_WORKER_RING_SESSION_H

#include <stdbool.h>
#include <stdint.h>

#include "common/shared.h"
#include "worker/backlog.h"
#include "worker/exec-graph.h"
#include "worker/execution.h"
#include "worker/flight.h"
#include "worker/gpu.h"
#include "worker/handles.h"
#include "worker/pending.h"
#include "worker/predict.h"
#include "worker/preempt.h"
#include "worker/printed.h"
#include "worker/ring.h"
#include "worker/session-arrays.h"
#include "worker/session-links.h"
#include "worker/session-memory.h"
#include "worker/sharing.h"
#include "worker/streams.h"
#include "worker/turns.h"

/* The largest upload: the worker has a copy of it until a module or graph is made of it. */
#define RING_UPLOAD_MAX (UINT64_C(1) << 30) /* bytes */

/* A command that waits for work which waits itself. */
struct parked {
    uint64_t until; /* so many have to be carried out at the head */
    struct vgpu_command header;
    struct vgpu_cmd_value body;
    struct command_facts facts;
};

/* Commands that have left the ring. */
struct taken {
    bool held; /* `head` is still to be carried out */
    struct ring_command head;
    struct command_facts head_facts;
    struct flight_piece piece; /* of the head, where it is work: what is to be submitted next */
    uint64_t progress;         /* of the head: bytes, elements or places submitted */
    struct backlog backlog;
    uint64_t passed;                  /* commands carried out at the head, so far */
    struct parked parked[VGPU_SLOTS]; /* those in parked_slots are valid */
    uint64_t parked_slots;            /* bit N: slot N + 1 has one */
    struct ring_command behind;       /* one that was taken while others wait */
};

/* What comes over in chunks: a module's image or the encoding of a graph. */
struct upload {
    uint8_t *bytes; /* `size` of them and a NUL; NULL: none */
    uint64_t size;
};

/* Each part has an owner, the file that alone changes it; others call that. */
struct ring_session {
    /* Set by ring_session_init(), and not changed. */
    struct gpu *gpu;
    struct vgpu_turn_page *page;

    struct ring ring;              /* ring.c */
    struct taken taken;            /* ring-session.c */
    struct turns turns;            /* turns.c */
    struct flight flight;          /* flight.c */
    struct predictor predictor;    /* estimate.c looks up, flight.c teaches */
    struct handles handles;        /* handles.c */
    struct pending_set pending;    /* pending.c */
    struct streams streams;        /* do-stream.c */
    struct session_memory memory;  /* do-memory.c and api-memory.c */
    struct upload upload;          /* api-host.c */
    struct graph_sum graphs;       /* exec-graph.c */
    struct textures textures;      /* api-array.c */
    struct links links;            /* api-link.c */
    struct sharing sharing;        /* sharing.c */
    const struct preempt *preempt; /* NULL: its work stays on the GPU; ring-worker.c */
    uint64_t off_ns;               /* ring-session.c: how long it was off, that was looked at */
    struct printed *printed;       /* NULL: its kernels print nothing */
    bool reached;                  /* the GPU can write to the queue, and so answer */
    bool faulted;                  /* ring-session.c: the GPU's context is lost, which is counted */
};

/* All that a session needs, and it does not own. */
struct ring_session_needs {
    struct vgpu_queue *queue;
    int irq; /* eventfd of the queue's interrupt */
    struct gpu *gpu;
    struct vgpu_turn_page *page;
    struct vgpu_account_page *account;
    int link;                   /* to the mediator */
    struct sharing_files files; /* what it shares with others */
    struct printed *printed;    /* NULL: kernels print nothing */
};

/* *session is all zero. */
void ring_session_init(struct ring_session *session, const struct ring_session_needs *needs);

/*
 * Takes and answers what can be now. Returns 1 when something was done, 0 when not, or
 * -errno: -EPROTO when the ring holds no commands, -ETIME when a piece of work takes longer than
 * the VM's terms allow, others when the mediator is lost.
 */
int ring_session_step(struct ring_session *session);

/*
 * Has the driver write what kernels have printed by now, and tells the guest. `all`: whatever was
 * launched; else only where it may have printed, as gpu.h says.
 */
static inline void ring_session_print(struct ring_session *s, bool all)
{
    if (s->printed && s->gpu->ops->print(s->gpu, all)) {
        printed_read(s->printed);
    }
    s->gpu->prints = s->gpu->prints || (s->printed && shared_load(&s->printed->count) != 0);
}

/* Sees what has ended; time for which the work was off the GPU is none that it took. */
static inline bool ring_session_poll_flight(struct ring_session *s)
{
    const uint64_t off_ns = s->preempt ? preempt_off_ns(s->preempt) : 0;

    if (off_ns != s->off_ns) {
        flight_shift(&s->flight, off_ns - s->off_ns);
        s->off_ns = off_ns;
    }
    return flight_poll(&s->flight, clock_ns());
}

/* Counts and tells that the GPU's context is lost; before an answer, which may be about that. */
static inline void ring_session_note_loss(struct ring_session *s)
{
    if (s->gpu->lost == VGPU_GPU_SUCCESS || s->faulted) {
        return;
    }
    s->faulted = true;
    /* The driver has said of a failed assertion where it is. */
    if (s->printed) {
        printed_read(s->printed);
    }
    /* For whoever waits for something of the GPU's without asking this worker. */
    shared_store(&s->ring.queue->lost, (uint32_t)s->gpu->lost);
    s->page->counters.faults++;
}

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
