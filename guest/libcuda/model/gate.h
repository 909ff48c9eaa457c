/* SPDX-License-Identifier: MIT */
/*
 * Functions of the program's within an executable graph, and copies that this process does there
 * (transfer.h). For each the graph has a gate: a word in
 * the arena that becomes 1 when the graph comes there. A thread sees that, calls the function, and
 * makes it 2; then the graph goes on, and it becomes 0 for the next launch.
 */
#ifndef VGPU_GUEST_LIBCUDA_MODEL_GATE_H
#define VGPU_GUEST_LIBCUDA_MODEL_GATE_H

#include <stdbool.h>
#include <stdint.h>

#include "api/cuda-types.h"

struct transfer;

/* The gates of one executable graph. */
struct gates;

/* NULL when memory is short. */
struct gates *gates_new(void);

/*
 * Adds one; *address is its word's. A transfer, which it is for or which is NULL, becomes the
 * gate's when this succeeds. False when memory is short. Not after the first launch.
 */
bool gates_add(struct gates *gates, const CUDA_HOST_NODE_PARAMS *host, struct transfer *transfer,
               uint64_t *address);

/* Launches the graph, and has the thread look after it. */
CUresult gates_launch(struct gates *gates, CUgraphExec exec, uint64_t stream);

/* Frees them when the GPU has left them behind, in all that was launched. NULL is allowed. */
void gates_end(struct gates *gates);

#endif
