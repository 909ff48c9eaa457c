/* SPDX-License-Identifier: MIT */
/*
 * Memory that a graph allocates and frees.
 *
 * With CUDA the address is the node's from the beginning, and memory is there from a launch that
 * comes to the node until it is freed: by a node of the same graph, by one of another graph that is
 * launched later, or by the program. Here it is there as long as the node or a copy of it is, so no
 * launch has to allocate anything, and two graphs do not share memory. What is noted is whether the
 * program has it: then no launch may allocate it again, and it outlives its graph.
 */
#ifndef VGPU_GUEST_LIBCUDA_MODEL_GRAPH_MEMORY_H
#define VGPU_GUEST_LIBCUDA_MODEL_GRAPH_MEMORY_H

#include <stdbool.h>

#include "api/cuda-types.h"

struct graph;

/* What an allocating node has. */
struct graph_memory;

/*
 * Allocates what *params asks for; its address is the parameters' `dptr` then. INVALID_VALUE for
 * what is no memory of the device, OUT_OF_MEMORY.
 */
CUresult graph_memory_new(CUDA_MEM_ALLOC_NODE_PARAMS *params, struct graph_memory **memory);

/* One node more, or less. It is freed when there is none and the program does not have it. */
void graph_memory_ref(struct graph_memory *memory);
void graph_memory_unref(struct graph_memory *memory);

/* As it was asked for, with the address. */
CUDA_MEM_ALLOC_NODE_PARAMS graph_memory_params(const struct graph_memory *memory);

/* Whether an address is where memory of a graph begins. */
bool graph_memory_begins(CUdeviceptr address);

/*
 * The program frees it: INVALID_VALUE when it does not have it, or there is no such memory of a
 * graph. Nothing uses it any more, or the stream's order sees to that.
 */
CUresult graph_memory_give_back(CUdeviceptr address);

/*
 * A graph is about to be launched, of which some nodes allocate or free: INVALID_VALUE when the
 * program still has what it would allocate.
 */
CUresult graph_memory_check(const struct graph *graph);

/* It was launched: the program has what its nodes allocate and none of them frees. */
void graph_memory_note_launch(const struct graph *graph);

/* Bytes of all, and of what a launch has allocated and nobody freed. */
struct graph_memory_sums {
    cuuint64_t reserved, used;
};
struct graph_memory_sums graph_memory_sum(void);

/* The most that there was of both; reset by a change to now. */
struct graph_memory_sums graph_memory_peak(void);
void graph_memory_reset_peak(bool reserved);

#endif
