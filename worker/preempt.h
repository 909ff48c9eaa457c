/* SPDX-License-Identifier: MIT */
/*
 * Taking a session's work off the GPU when the mediator says so, and putting it back
 * (protocol/vgpu-worker.h); and how long the driver's own slices are. A thread of its own does it:
 * the worker's main one may be in a call of the driver's that takes as long as the work that is in
 * the way.
 */
#ifndef VGPU_WORKER_PREEMPT_H
#define VGPU_WORKER_PREEMPT_H

#include <stdbool.h>
#include <stdint.h>

#include "protocol/vgpu-worker.h"

struct gpu;

struct preempt {
    struct vgpu_turn_page *page;
    struct gpu *gpu;
    int link; /* to the mediator */

    /* The thread's; read by others. */
    uint64_t since_ns; /* since when the work is off; 0: it is not */
    uint64_t off_ns;   /* how long it was off before that, in all */
};

/*
 * Starts the thread; to be called before the worker gives up its rights: none could be made then.
 * A change of user takes its rights too. Returns 0 or -errno.
 */
int preempt_start(struct preempt *preempt, struct vgpu_turn_page *page, struct gpu *gpu, int link);

/* Whether the work is off now. */
bool preempt_is_off(const struct preempt *preempt);

/* How long it has been off in all, but for the time since it is off now. */
uint64_t preempt_off_ns(const struct preempt *preempt);

#endif
