/* SPDX-License-Identifier: MIT */
/*
 * A graph of work as it comes to the worker. The guest sends all of it when the program makes the
 * graph executable, in the chunks of an upload (api/private.api). So all fields are written by the
 * guest, and the worker copies them before it checks them.
 *
 * It is a row of nodes, which count from 0. A node begins with a struct vgpu_graph_node. Then come
 * the numbers of the nodes that it follows, all lower than its own, and then the structure for its
 * kind. Each of the three begins at a multiple of 8 bytes.
 *
 * Addresses are of 64 bits, of the GPU or in the session's part of the arena, as CUDA has them. A
 * value that is not allowed fails the call with INVALID_VALUE, an unknown kind with
 * NOT_SUPPORTED, a function that there is not with INVALID_HANDLE.
 */
#ifndef VGPU_PROTOCOL_VGPU_GRAPH_H
#define VGPU_PROTOCOL_VGPU_GRAPH_H

#include <assert.h>
#include <stdint.h>

#include "vgpu-queue.h"

/* The most nodes that all graphs of a session may have together. */
#define VGPU_GRAPH_NODES_MAX (1u << 20)

enum vgpu_graph_kind {
    VGPU_GRAPH_NOTHING = 0, /* waits for the nodes that it follows; no structure */
    VGPU_GRAPH_KERNEL = 1,  /* struct vgpu_cmd_launch and what follows it; `stream` is not used */
    VGPU_GRAPH_COPY = 2,    /* struct vgpu_graph_copy */
    VGPU_GRAPH_FILL = 3,    /* struct vgpu_graph_fill */
    VGPU_GRAPH_GATE = 4,    /* struct vgpu_graph_gate */
};

struct vgpu_graph_node {
    uint32_t kind;     /* enum vgpu_graph_kind */
    uint32_t bytes;    /* from here to the next node; a multiple of 8 */
    uint32_t follows;  /* how many numbers of 32 bits come next: at most the node's own number */
    uint32_t reserved; /* 0 */
};

/*
 * A copy in rows and slices, as COPY with a struct vgpu_copy_box. For each side: the address, the
 * bytes from row to row, and the rows from slice to slice.
 */
struct vgpu_graph_copy {
    uint64_t to, to_pitch, to_rows;
    uint64_t from, from_pitch, from_rows;
    uint64_t width, height, depth; /* bytes of a row, rows, slices (below 2^40); none is 0 */
    uint32_t kind;                 /* enum vgpu_copy_kind */
    uint32_t reserved;             /* 0 */
};

/* A fill in rows. `to` and, with several rows, `pitch` are multiples of `element`. */
struct vgpu_graph_fill {
    uint64_t to, pitch;      /* address; bytes from row to row */
    uint64_t width, height;  /* elements of a row, rows; neither is 0 */
    uint32_t value, element; /* its low `element` bytes count; bytes of an element: 1, 2 or 4 */
};

/*
 * A place where the guest does something in the middle of a graph. A word of 32 bits in the arena
 * stands for it: the GPU stores 1 when the graph comes here, and waits; the guest stores 2 when it
 * is done; then the GPU stores 0 and the graph goes on.
 */
struct vgpu_graph_gate {
    uint64_t address; /* of the word, in the session's part of the arena; a multiple of 4 */
};

static_assert(sizeof(struct vgpu_graph_node) == 16, "ABI");
static_assert(sizeof(struct vgpu_graph_copy) == 80, "ABI");
static_assert(sizeof(struct vgpu_graph_fill) == 40, "ABI");
static_assert(sizeof(struct vgpu_graph_gate) == 8, "ABI");

#endif
