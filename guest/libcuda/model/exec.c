/* SPDX-License-Identifier: MIT */
/*
 * Executable graphs, see exec.h.
 *
 * The program's handle is the worker's, as for streams; what lies behind it here is a copy of the
 * graph, so that nodes can be changed one by one and the graph be sent again as a whole. That
 * happens at the next launch, not at each change: programs change many nodes and then launch once.
 *
 * There is a mutex for each, though CUDA asks programs to synchronise these themselves: next to a
 * launch it costs nothing, and without it two launches at once would send the same change twice. It
 * is held while the host is waited for. What is taken behind it: gates, upload, tables.
 */
#include "guest/libcuda/model/exec.h"

#include <pthread.h>
#include <stdlib.h>

#include "guest/libcuda/model/context.h"
#include "guest/libcuda/model/gate.h"
#include "guest/libcuda/model/graph-memory.h"
#include "guest/libcuda/model/plan.h"
#include "guest/libcuda/state/state.h"
#include "guest/libcuda/wire/wire-calls.h"

/* All four flags of cuGraphInstantiateWithFlags() that CUDA 13.0 has. */
#define FLAGS_MAX 15u

/*
 * A graph of its own that lasts as long as the program has it: the program may change or destroy
 * the one it was made from at once.
 */
CUresult exec_instantiate(CUgraphExec *exec, CUgraph graph, unsigned long long flags)
{
    const struct graph *known = graph_find(graph);
    struct exec *made;
    CUgraphExec handle = NULL;
    CUresult r = CUDA_ERROR_OUT_OF_MEMORY;

    if (!exec || !known || flags > FLAGS_MAX) {
        return CUDA_ERROR_INVALID_VALUE;
    }
    /* Launches by kernels would not come through the worker, where the scheduler counts them. */
    if (flags & CUDA_GRAPH_INSTANTIATE_FLAG_DEVICE_LAUNCH) {
        return REFUSE("a graph that kernels launch");
    }
    made = calloc(1, sizeof(*made));
    if (made) {
        made->graph = graph_copy(known);
    }
    if (made && made->graph) {
        r = plan_send(made->graph, &handle, &made->gates);
    }
    if (r == CUDA_SUCCESS &&
        !object_add(&made->object, (uint64_t)(uintptr_t)handle, context_current())) {
        call_graph_destroy(handle);
        gates_end(made->gates);
        r = CUDA_ERROR_OUT_OF_MEMORY;
    }
    if (r != CUDA_SUCCESS) {
        if (made && made->graph) {
            graph_free(made->graph);
        }
        free(made);
        return r;
    }
    pthread_mutex_init(&made->mutex, NULL);
    /* The host has the graph already. cuGraphExecGetFlags() leaves that flag out too. */
    made->flags = flags & ~(unsigned long long)CUDA_GRAPH_INSTANTIATE_FLAG_UPLOAD;
    *exec = handle;
    return CUDA_SUCCESS;
}

/*
 * A launch that is under way goes on, as CUDA promises: the call to the host is posted behind it,
 * and gates_end() leaves the thread until the functions of all launches were called.
 */
CUresult exec_destroy(struct exec *exec)
{
    const CUgraphExec handle = (CUgraphExec)(uintptr_t)exec->object.handle;
    const CUresult r = call_graph_destroy(handle);

    gates_end(exec->gates);
    graph_free(exec->graph);
    pthread_mutex_destroy(&exec->mutex);
    object_drop(&exec->object);
    return r;
}

void exec_release(const struct context *context)
{
    struct object *object;

    while ((object = object_of(context, HANDLE_GRAPH)) != NULL) {
        exec_destroy((struct exec *)object);
    }
}

/* Brings what has changed over. With the mutex. */
static CUresult exec_renew(struct exec *exec)
{
    CUgraphExec handle = (CUgraphExec)(uintptr_t)exec->object.handle;
    struct gates *gates = NULL;
    CUresult r;

    if (!exec->changed) {
        return CUDA_SUCCESS;
    }
    /*
     * On the host this waits in the ring behind launches that were posted before. Those go on with
     * the old nodes, and with the old gates, whose thread ends by itself. When it fails the host
     * still has the old nodes, and `changed` stays set.
     */
    r = plan_send(exec->graph, &handle, &gates);
    if (r == CUDA_SUCCESS) {
        gates_end(exec->gates);
        exec->gates = gates;
        exec->changed = false;
    }
    return r;
}

CUresult exec_launch(struct exec *exec, uint64_t stream)
{
    const CUgraphExec handle = (CUgraphExec)(uintptr_t)exec->object.handle;
    CUresult r;

    pthread_mutex_lock(&exec->mutex);
    r = exec_renew(exec);
    if (r == CUDA_SUCCESS && exec->graph->allocates &&
        !(exec->flags & CUDA_GRAPH_INSTANTIATE_FLAG_AUTO_FREE_ON_LAUNCH)) {
        r = graph_memory_check(exec->graph);
    }
    if (r == CUDA_SUCCESS) {
        r = exec->gates ? gates_launch(exec->gates, handle, stream)
                        : call_graph_launch(handle, stream);
    }
    if (r == CUDA_SUCCESS && exec->graph->allocates) {
        graph_memory_note_launch(exec->graph);
    }
    pthread_mutex_unlock(&exec->mutex);
    return r;
}

/* Updates ------------------------------------------------------------------------------------- */

/* Whether a node of the new graph is like the one of the old graph in its place. */
static CUgraphExecUpdateResult exec_compare(const struct node *old, const struct node *new)
{
    if (old->work.type != new->work.type) {
        return CU_GRAPH_EXEC_UPDATE_ERROR_NODE_TYPE_CHANGED;
    }
    if (old->follow_count != new->follow_count) {
        return CU_GRAPH_EXEC_UPDATE_ERROR_TOPOLOGY_CHANGED;
    }
    for (size_t i = 0; i < old->follow_count; i++) {
        if (old->follows[i]->place != new->follows[i]->place) {
            return CU_GRAPH_EXEC_UPDATE_ERROR_TOPOLOGY_CHANGED;
        }
    }
    return CU_GRAPH_EXEC_UPDATE_SUCCESS;
}

/*
 * Compares two graphs; *node is the first of the new one that differs. Nodes are paired by the
 * order in which they were added. A program that updates a graph captures it anew in the same way,
 * so the orders are the same. Predecessors are then compared by their places: pointers differ
 * between the two graphs in any case. `place` of both graphs' nodes is used.
 */
static CUgraphExecUpdateResult compare_graphs(const struct graph *old, const struct graph *new,
                                              struct node **node)
{
    CUgraphExecUpdateResult result = CU_GRAPH_EXEC_UPDATE_SUCCESS;
    struct node *a = old->first, *b = new->first;

    *node = NULL;
    if (old->count != new->count) {
        return CU_GRAPH_EXEC_UPDATE_ERROR_TOPOLOGY_CHANGED;
    }
    for (uint32_t place = 0; result == CU_GRAPH_EXEC_UPDATE_SUCCESS && a; place++) {
        a->place = b->place = place;
        a = a->next;
        b = b->next;
    }
    for (a = old->first, b = new->first; a &&result == CU_GRAPH_EXEC_UPDATE_SUCCESS;
         a = a->next, b = b->next) {
        result = exec_compare(a, b);
        *node = result == CU_GRAPH_EXEC_UPDATE_SUCCESS ? NULL : b;
        if (result == CU_GRAPH_EXEC_UPDATE_SUCCESS && a->work.type == CU_GRAPH_NODE_TYPE_GRAPH) {
            /* Places of the child's nodes are its own, so those of this graph stay right. */
            result = compare_graphs(a->work.child, b->work.child, node);
        }
    }
    return result;
}

/*
 * Nodes are known by those of the first graph, and stay enabled or not as they were. CUDA has
 * cuGraphExecKernelNodeSetParams() and its like take nodes of the graph that was instantiated,
 * after an update too. So the new copy gets the old ids, not those of the graph that it is a copy
 * of.
 */
static void exec_take_over(const struct graph *old, struct graph *new)
{
    const struct node *before = old->first;

    for (struct node *node = new->first; node; node = node->next, before = before->next) {
        node->id = before->id;
        node->disabled = before->disabled;
        if (node->work.type == CU_GRAPH_NODE_TYPE_GRAPH) {
            exec_take_over(before->work.child, node->work.child);
        }
    }
}

/*
 * Takes another graph, which compares well. It goes to the host at once, unlike single changes, so
 * that cuGraphExecUpdate() returns what the host says of it. With the mutex.
 */
static CUresult take_graph(struct exec *exec, const struct graph *graph)
{
    struct graph *copy = graph_copy(graph), *before = exec->graph;
    CUresult r;

    if (!copy) {
        return CUDA_ERROR_OUT_OF_MEMORY;
    }
    exec_take_over(before, copy);
    exec->graph = copy;
    exec->changed = true;
    r = exec_renew(exec);
    if (r != CUDA_SUCCESS) {
        exec->graph = before;
        graph_free(copy);
        return r;
    }
    graph_free(before);
    return CUDA_SUCCESS;
}

CUresult exec_update(struct exec *exec, const struct graph *graph, CUgraphExecUpdateResult *result,
                     struct node **node)
{
    CUresult r = CUDA_ERROR_GRAPH_EXEC_UPDATE_FAILURE;

    pthread_mutex_lock(&exec->mutex);
    *result = compare_graphs(exec->graph, graph, node);
    if (*result == CU_GRAPH_EXEC_UPDATE_SUCCESS) {
        r = take_graph(exec, graph);
        *result = r == CUDA_SUCCESS ? CU_GRAPH_EXEC_UPDATE_SUCCESS : CU_GRAPH_EXEC_UPDATE_ERROR;
    }
    pthread_mutex_unlock(&exec->mutex);
    return r;
}

struct node *own_node(const struct exec *exec, CUgraphNode node)
{
    const struct node *known = node_find(node);

    return exec && known ? graph_twin(exec->graph, known) : NULL;
}

/*
 * `r` is how making the work went, which callers hand on to keep them to one line. The work is
 * freed here or becomes the node's, in every case in which it was made. CUDA lets a node keep its
 * type only.
 */
CUresult exec_change_node(struct exec *exec, CUgraphNode node, CUresult r, struct work *work)
{
    struct node *own;

    pthread_mutex_lock(&exec->mutex);
    own = own_node(exec, node);
    if (!own || own->work.type != work->type) {
        if (r == CUDA_SUCCESS) {
            work_free(work);
        }
        r = CUDA_ERROR_INVALID_VALUE;
    } else if (r == CUDA_SUCCESS) {
        node_change(own, work);
        exec->changed = true;
    }
    pthread_mutex_unlock(&exec->mutex);
    return r;
}

void exec_enable(struct exec *exec, struct node *own, bool enabled)
{
    pthread_mutex_lock(&exec->mutex);
    /* Only when it is not so already: a needless change would send the whole graph again. */
    exec->changed = exec->changed || own->disabled == enabled;
    own->disabled = !enabled;
    pthread_mutex_unlock(&exec->mutex);
}
