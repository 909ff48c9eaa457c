/* SPDX-License-Identifier: MIT */
/*
 * Executable graphs. Each keeps the graph that it was made from, and the host has the same
 * (plan.h). What is changed in one goes to the host as a whole, when it is launched the next time.
 */
#ifndef VGPU_GUEST_LIBCUDA_MODEL_EXEC_H
#define VGPU_GUEST_LIBCUDA_MODEL_EXEC_H

#include <pthread.h>
#include <stdbool.h>

#include "guest/libcuda/model/graph.h"
#include "guest/libcuda/state/object.h"

struct context;

struct exec {
    struct object object;
    pthread_mutex_t mutex; /* of what follows */
    struct graph *graph;
    struct gates *gates; /* for its functions; NULL: it has none */
    unsigned long long flags;
    bool changed; /* the host does not know yet */
};

/* The executable graph that a program means, NULL when there is none. */
static inline struct exec *exec_find(CUgraphExec exec)
{
    return (struct exec *)object_find(HANDLE_GRAPH, (uint64_t)(uintptr_t)exec);
}

/* Makes one of a graph, which it copies. */
CUresult exec_instantiate(CUgraphExec *exec, CUgraph graph, unsigned long long flags);

/* Launches it in a stream; what was changed goes over first. */
CUresult exec_launch(struct exec *exec, uint64_t stream);

/*
 * Takes another graph, if it is like the one that it has: the same nodes, each doing the same kind
 * of thing behind the same ones. Otherwise GRAPH_EXEC_UPDATE_FAILURE, *result says why, and *node
 * is the first that differs, if it is one.
 */
CUresult exec_update(struct exec *exec, const struct graph *graph, CUgraphExecUpdateResult *result,
                     struct node **node);

/*
 * Of a node of the graph that it was made from, the one that it has. NULL when there is none, or
 * either is none itself.
 */
struct node *own_node(const struct exec *exec, CUgraphNode node);

/* Puts work that was made, `r`, in place of the node's, for the launches to come. */
CUresult exec_change_node(struct exec *exec, CUgraphNode node, CUresult r, struct work *work);

/* Enables or disables a node that own_node() has found. */
void exec_enable(struct exec *exec, struct node *own, bool enabled);

CUresult exec_destroy(struct exec *exec);

/* Destroys those of a context. */
void exec_release(const struct context *context);

#endif
