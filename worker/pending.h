/* SPDX-License-Identifier: MIT */
/*
 * Commands that are answered later: they wait for work on the GPU, in the place of their slot, and
 * hold up no other. Also what a failed command without a slot has left to be told.
 *
 * Where nothing is left to do but to answer, the GPU does that itself, behind the work: the guest
 * knows before this process does, which then keeps its own books. It believes a word of its own for
 * that, which the GPU writes next, since the slot is the guest's to write. In between the GPU may
 * turn to other processes for as long as these have time slices, and a guest that is quick uses the
 * slot again: then nothing is waited for any more (pending_free_slot()).
 *
 * A pending command has fences, one for each stream that it waits for. When all are passed it does
 * what its kind says, and is answered. Freeing and unloading would have the driver wait for all
 * work, and the worker with it; so such a command stays pending until nothing is on the GPU, and
 * while it does nothing more is submitted: `settling`.
 */
#ifndef VGPU_WORKER_PENDING_H
#define VGPU_WORKER_PENDING_H

#include <stdbool.h>
#include <stdint.h>

#include "worker/gpu.h"

struct execution;
struct ring_session;

enum pending_kind {
    PENDING_SYNC,   /* reports what went wrong before */
    PENDING_FENCE,  /* does not */
    PENDING_FREE,   /* then frees the memory at `argument` */
    PENDING_UNLOAD, /* then unloads the module `argument` */
};

struct pending {
    struct vgpu_command header;
    enum pending_kind kind;
    uint64_t argument;
    struct gpu_fence *fences; /* `count` of them are not passed yet */
    uint32_t count;
    bool all;    /* it waits for all streams */
    bool by_gpu; /* which answers, unless the context is lost */
};

struct pending_set {
    struct pending of[VGPU_SLOTS]; /* those in `slots` are valid */
    uint64_t slots;                /* bit N: slot N + 1 has a pending command */
    bool settling;                 /* nothing is submitted until all work is done */
    enum vgpu_gpu_error deferred;  /* of a command without a slot, the first that failed */
    uint32_t culprit;              /* which it was: vgpu_culprit() */
};

/* Notes the failure of a command without a slot, unless an earlier one is noted still. */
void pending_defer(struct pending_set *pending, enum vgpu_gpu_error error, uint32_t culprit);

/* Makes the command wait for one fence, which is its own from now on. */
enum vgpu_gpu_error pending_wait(struct execution *x, enum pending_kind kind,
                                 struct gpu_fence *fence);

/* Makes the command wait for what all streams have been given. */
enum vgpu_gpu_error pending_wait_for_all(struct execution *x, enum pending_kind kind,
                                         uint64_t argument);

/*
 * Notes what the guest has answers for, so that what it asks next is not answered as if it had
 * none: cuStreamQuery() behind cuStreamSynchronize().
 */
void pending_note_told(struct ring_session *session);

/* Looks whether the command in a slot is done, and answers it then. Returns whether it was. */
bool pending_poll(struct ring_session *session, unsigned slot);

/* The same for all. Returns whether any was. */
bool pending_poll_all(struct ring_session *session);

/*
 * Whether the slot of a command that the GPU answers is free, since it has; the command is
 * forgotten then. A guest that has made the answer up itself has no other.
 */
bool pending_free_slot(struct ring_session *session, unsigned slot);

/* Answers all with an error: the session ends. */
void pending_fail(struct ring_session *session, enum vgpu_gpu_error error);

/* Gives their fences back. */
void pending_release(struct ring_session *session);

#endif
