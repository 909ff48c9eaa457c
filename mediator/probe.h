/* SPDX-License-Identifier: MIT */
/* What computes on this host, asked of `vgpu-worker --probe`: the mediator loads no CUDA. */
#ifndef VGPU_MEDIATOR_PROBE_H
#define VGPU_MEDIATOR_PROBE_H

#include <stdbool.h>
#include <stddef.h>

/* What the probe has found. */
struct probe {
    int gpus;
    char name[192];       /* the first GPU's, or why there is none */
    bool can_preempt;     /* a kernel that runs can be taken off it */
    char no_preempt[192]; /* why not */
};

/* Runs the worker's probe. Returns 0, or -errno, logged, when the worker cannot be run. */
int probe_gpus(const char *worker, struct probe *probe);

#endif
