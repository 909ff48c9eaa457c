/* SPDX-License-Identifier: MIT */
/*
 * A copy in a graph whose host side is not page-locked, or which is between two places of the
 * program's memory. The GPU reaches neither, so this process does that part: at a gate (gate.h), as
 * if it were a function of the program's. Where one side is the device's, the other half is the
 * GPU's, and memory of the arena stands in between.
 */
#ifndef VGPU_GUEST_LIBCUDA_MODEL_TRANSFER_H
#define VGPU_GUEST_LIBCUDA_MODEL_TRANSFER_H

#include "guest/libcuda/model/box.h"

/* Who does a copy. */
enum copy_way {
    COPY_DIRECT,  /* the GPU */
    COPY_TO_GPU,  /* this process, then the GPU */
    COPY_BY_GPU,  /* the GPU, then this process */
    COPY_BY_HOST, /* this process */
};

/* A copy as a node has it. */
struct copy_work {
    CUDA_MEMCPY3D said; /* which cuGraphMemcpyNodeGetParams() gives back */
    struct box box;
    enum copy_way way;
    /* The GPU's part; all zero where nothing is copied. What is in the arena is not known yet. */
    struct vgpu_graph_copy plan;
};

/* Makes *work of a copy; NOT_SUPPORTED where a side is an array. */
CUresult copy_make(const CUDA_MEMCPY3D *copy, struct copy_work *work);

/* This process's part of a copy, for one executable graph. */
struct transfer;

/*
 * Makes it; *plan gets the address in the arena, where the GPU has a part too. NULL when memory is
 * short.
 */
struct transfer *transfer_new(const struct copy_work *copy, struct vgpu_graph_copy *plan);

/*
 * What the GPU has to note behind its part, so that it is known when the arena's memory may go.
 * False where that is known by the gate.
 */
bool transfer_note(const struct transfer *transfer, struct vgpu_graph_fill *fill);

/* Whether the GPU has taken all that this process has brought so far. */
bool transfer_taken(const struct transfer *transfer);

/* Copies; a CUhostFn. */
void transfer_run(void *transfer);

/* NULL is allowed. After the session's end the arena is gone: `with_arena` is false. */
void transfer_free(struct transfer *transfer, bool with_arena);

#endif
