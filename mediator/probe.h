/* SPDX-License-Identifier: MIT */
/* What computes on this host, asked of `vgpu-worker --probe`: the mediator loads no CUDA. */
#ifndef VGPU_MEDIATOR_PROBE_H
#define VGPU_MEDIATOR_PROBE_H

#include <stddef.h>

/*
 * Runs the worker's probe. `text` gets the first GPU's name, or why there is no GPU.
 * Returns the number of GPUs, or -errno, logged, when the worker cannot be run.
 */
int probe_gpus(const char *worker, char *text, size_t size);

#endif
