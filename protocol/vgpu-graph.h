/* SPDX-License-Identifier: MIT */
/*
 * A graph of work as it comes to the worker: what the program has captured or built is brought over
 * at once, in the chunks of an upload (api/private.api), when it is made executable.
 *
 * It is a row of nodes. Each begins with a struct vgpu_graph_node, then come the numbers of the
 * nodes that it follows, all lower than its own, and then the structure for its kind. Everything
 * begins at a multiple of 8 bytes.
 */
#ifndef VGPU_PROTOCOL_VGPU_GRAPH_H
#define VGPU_PROTOCOL_VGPU_GRAPH_H

#include <assert.h>
#include <stdint.h>

#include "vgpu-queue.h"

/* The most nodes that all graphs of a session may have together. */
#define VGPU_GRAPH_NODES_MAX (1u << 20)

enum vgpu_graph_kind {
    VGPU_GRAPH_NOTHING = 0, /* joins what it follows; no structure */
    VGPU_GRAPH_KERNEL = 1, /* struct vgpu_cmd_launch and what follows it; its stream is no matter */
    VGPU_GRAPH_COPY = 2,   /* struct vgpu_graph_copy */
    VGPU_GRAPH_FILL = 3,   /* struct vgpu_graph_fill */
    VGPU_GRAPH_GATE = 4,   /* struct vgpu_graph_gate */
};

struct vgpu_graph_node {
    uint32_t kind;     /* enum vgpu_graph_kind */
    uint32_t bytes;    /* from here to the next node */
    uint32_t follows;  /* numbers behind this, of 32 bits each */
    uint32_t reserved; /* 0 */
};

/* A copy in rows and slices; as COPY with a struct vgpu_copy_box. */
struct vgpu_graph_copy {
    uint64_t to, to_pitch, to_rows;
    uint64_t from, from_pitch, from_rows;
    uint64_t width, height, depth; /* bytes, rows, slices */
    uint32_t kind;                 /* enum vgpu_copy_kind */
    uint32_t reserved;             /* 0 */
};

/* A fill in rows; width in elements of 1, 2 or 4 bytes. */
struct vgpu_graph_fill {
    uint64_t to, pitch;
    uint64_t width, height;
    uint32_t value, element;
};

/*
 * The guest does something in between: when the graph comes here the word at the address, in the
 * arena, becomes 1; the graph goes on when the guest has made it 2, and it becomes 0.
 */
struct vgpu_graph_gate {
    uint64_t address; /* a multiple of 4 */
};

static_assert(sizeof(struct vgpu_graph_node) == 16, "ABI");
static_assert(sizeof(struct vgpu_graph_copy) == 80, "ABI");
static_assert(sizeof(struct vgpu_graph_fill) == 40, "ABI");
static_assert(sizeof(struct vgpu_graph_gate) == 8, "ABI");

#endif
