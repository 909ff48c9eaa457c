/* SPDX-License-Identifier: MIT */
/*
 * Graphs: nodes of work, and which follows which. They are this side's alone. When one is made
 * executable the host gets all of it at once (exec.c); what is captured of a stream becomes one
 * too (capture.c).
 *
 * As CUDA has it, a graph is not for several threads at a time.
 */
#ifndef VGPU_GUEST_LIBCUDA_MODEL_GRAPH_H
#define VGPU_GUEST_LIBCUDA_MODEL_GRAPH_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "api/cuda-types.h"
#include "guest/libcuda/model/box.h"
#include "guest/libcuda/model/kernel.h"
#include "guest/libcuda/model/transfer.h"
#include "guest/libcuda/model/user-object.h"

struct graph;
struct graph_memory;

/* What a node does. */
struct work {
    CUgraphNodeType type;
    union {
        struct kernel_work kernel;
        struct copy_work copy;
        struct {
            CUDA_MEMSET_NODE_PARAMS said;
            struct vgpu_graph_fill plan;
        } fill;
        CUDA_HOST_NODE_PARAMS host;
        struct graph *child;         /* the node's own */
        struct graph_memory *memory; /* that it allocates, of which it has a reference */
        CUdeviceptr freed;           /* where what it frees begins */
    };
};

struct node {
    uint64_t handle; /* what programs have as CUgraphNode, see state/local.h */
    struct graph *graph;
    struct node *next; /* in the order in which they were added */
    uint64_t id;       /* a copy of the node has the same */
    struct work work;
    struct node **follows; /* `follow_count`, of room for `follow_room` */
    size_t follow_count, follow_room;
    size_t followers; /* nodes that follow it */
    bool disabled;    /* in an executable graph: does nothing */

    /* While the graph is walked. */
    uint32_t place, number, left;
};

struct graph {
    uint64_t handle; /* what programs have as CUgraph */
    struct node *first, **last;
    size_t count;
    bool inner;        /* a node's own: not the program's to destroy */
    bool allocates;    /* some nodes allocate or free, or did */
    struct held *held; /* user objects */
};

/* Whether nodes of a type are about memory; CUDA does not let these be changed. */
static inline bool allocates_or_frees(CUgraphNodeType type)
{
    return type == CU_GRAPH_NODE_TYPE_MEM_ALLOC || type == CU_GRAPH_NODE_TYPE_MEM_FREE;
}

/* What a program means; NULL when that is none. And what it has for them; NULL for NULL. */
struct graph *graph_find(CUgraph graph);
struct node *node_find(CUgraphNode node);
CUgraph graph_handle(const struct graph *graph);
CUgraphNode node_handle(const struct node *node);

/*
 * A new graph without nodes; a copy of one with the same ids, of whose nodes `place` is used. NULL:
 * no memory, or a kernel is gone.
 */
struct graph *graph_new(void);
struct graph *graph_copy(const struct graph *graph);
void graph_free(struct graph *graph);

/* Adds a node, to which what the work has allocated belongs when this succeeds. */
CUresult graph_add(struct graph *graph, const struct work *work, struct node *const *follows,
                   size_t count, struct node **node);

/* Takes a node out of its graph, and frees it. */
void graph_remove(struct node *node);

/* Makes one node follow another, which it does not yet; and no longer; and whether it does. */
CUresult node_follow(struct node *node, struct node *before);
void stop_following(struct node *node, struct node *before);
bool node_follows(const struct node *node, const struct node *before);

/* The node of a graph that is a copy of this one, or it; NULL when there is none. */
struct node *graph_twin(const struct graph *graph, const struct node *node);

/* Another work of the same type in place of the node's; as graph_add() has it. */
void node_change(struct node *node, struct work *work);

void work_free(struct work *work);

/*
 * The nodes in an order in which each comes behind those that it follows, malloc's; their `place`
 * is the index. NULL with INVALID_VALUE where some follow each other in a ring.
 */
CUresult graph_order(struct graph *graph, struct node ***order);

/* NOT_SUPPORTED for an edge with data: of a kernel that starts before another ends, say. */
CUresult check_edges(const CUgraphEdgeData *edges, size_t count);

#endif
