/* SPDX-License-Identifier: MIT */
/*
 * Graphs of work, as a guest has them made executable: protocol/vgpu-graph.h. They are decoded
 * and checked once. A backend makes its own of them, or has none: then the nodes are carried out
 * one by one, in their order, whenever the graph is launched.
 */
#ifndef VGPU_WORKER_EXEC_GRAPH_H
#define VGPU_WORKER_EXEC_GRAPH_H

#include <stdbool.h>
#include <stdint.h>

#include "protocol/vgpu-graph.h"
#include "worker/gpu.h"
#include "worker/handles.h"

struct graph {
    uint8_t *encoding; /* what the nodes point into */
    struct gpu_graph_node *nodes;
    uint32_t count;         /* of nodes, also where the backend has them */
    uint64_t bytes;         /* of the encoding, likewise */
    struct gpu_graph *made; /* the backend's; NULL: it has none */
};

/* What all graphs of a session have together; no more than GRAPH_BYTES_MAX of encodings. */
struct graph_sum {
    uint64_t nodes, bytes;
};
#define GRAPH_BYTES_MAX (UINT64_C(256) << 20)

struct graph_needs {
    struct gpu *gpu;
    const struct handles *handles;
    struct graph_sum *sum;
};

/*
 * Makes a graph of `count` nodes from an encoding, which is malloc's and the graph's own when this
 * succeeds. INVALID_VALUE, INVALID_HANDLE and NOT_SUPPORTED for what is wrong with a node, and what
 * the backend says.
 */
enum vgpu_gpu_error graph_make(const struct graph_needs *needs, uint8_t *encoding, uint64_t bytes,
                               uint32_t count, struct graph **graph);

/* Puts others in the place of its nodes; when this fails it is as it was. */
enum vgpu_gpu_error graph_update(const struct graph_needs *needs, struct graph *graph,
                                 uint8_t *encoding, uint64_t bytes, uint32_t count);

/*
 * Submits what comes at a place, 0 first; *again tells that there is more, at the next place. The
 * places count on through the graph.
 */
enum vgpu_gpu_error graph_launch(struct gpu *gpu, struct graph *graph, struct gpu_stream *stream,
                                 uint64_t *place, bool *again);

/* What was launched of it goes on. */
void graph_free(const struct graph_needs *needs, struct graph *graph);

#endif
