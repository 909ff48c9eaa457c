/* SPDX-License-Identifier: MIT */
/*
 * Executable graphs. Each keeps the graph that it was made from, and the host has the same
 * (plan.h). What is changed in one goes to the host as a whole, when it is launched the next time.
 */
#include "guest/libcuda/exec.h"

#include <pthread.h>
#include <stdlib.h>

#include "guest/libcuda/entry.h"
#include "guest/libcuda/gate.h"
#include "guest/libcuda/graph.h"
#include "guest/libcuda/object.h"
#include "guest/libcuda/plan.h"
#include "guest/libcuda/stream.h"

#define FLAGS_MAX 15u

struct exec {
    struct object object;
    pthread_mutex_t mutex; /* of what follows */
    struct graph *graph;
    struct gates *gates; /* for its functions; NULL: it has none */
    unsigned long long flags;
    bool changed; /* the host does not know yet */
};

/* A graph of its own that lasts as long as the program has it. */
static CUresult exec_instantiate(CUgraphExec *exec, CUgraph graph, unsigned long long flags)
{
    const struct graph *known = graph_find(graph);
    struct exec *made;
    CUgraphExec handle = NULL;
    CUresult r = CUDA_ERROR_OUT_OF_MEMORY;

    if (!exec || !known || flags > FLAGS_MAX) {
        return CUDA_ERROR_INVALID_VALUE;
    }
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
    made->flags = flags & ~(unsigned long long)CUDA_GRAPH_INSTANTIATE_FLAG_UPLOAD;
    *exec = handle;
    return CUDA_SUCCESS;
}

static struct exec *find_exec(CUgraphExec exec)
{
    return object_find(HANDLE_GRAPH, (uint64_t)(uintptr_t)exec);
}

/* Of what was launched, functions are still called. */
static CUresult exec_destroy(struct exec *exec)
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
    r = plan_send(exec->graph, &handle, &gates);
    if (r == CUDA_SUCCESS) {
        gates_end(exec->gates);
        exec->gates = gates;
        exec->changed = false;
    }
    return r;
}

/* What programs call -------------------------------------------------------------------------- */

CUresult guest_cuGraphInstantiate(CUgraphExec *exec, CUgraph graph, CUgraphNode *error_node,
                                  char *log, size_t log_bytes)
{
    if (error_node) {
        *error_node = NULL;
    }
    if (log && log_bytes > 0) {
        log[0] = '\0';
    }
    return exec_instantiate(exec, graph, 0);
}

CUresult guest_cuGraphInstantiateWithFlags(CUgraphExec *exec, CUgraph graph,
                                           unsigned long long flags)
{
    return flags & CUDA_GRAPH_INSTANTIATE_FLAG_UPLOAD ? CUDA_ERROR_INVALID_VALUE
                                                      : exec_instantiate(exec, graph, flags);
}

CUresult guest_cuGraphInstantiateWithParams(CUgraphExec *exec, CUgraph graph,
                                            CUDA_GRAPH_INSTANTIATE_PARAMS *params,
                                            CUstream default_stream)
{
    CUresult r;

    (void)default_stream; /* The host has the graph at once: nothing is left to upload. */
    if (!params) {
        return CUDA_ERROR_INVALID_VALUE;
    }
    r = exec_instantiate(exec, graph, params->flags);
    params->hErrNode_out = NULL;
    params->result_out = r == CUDA_SUCCESS ? CUDA_GRAPH_INSTANTIATE_SUCCESS
                                           : CUDA_GRAPH_INSTANTIATE_ERROR;
    return r;
}

CUresult guest_cuGraphLaunch(CUgraphExec exec, CUstream stream)
{
    struct exec *known = find_exec(exec);
    uint64_t handle;
    CUresult r;

    if (!known) {
        return CUDA_ERROR_INVALID_VALUE;
    }
    r = stream_handle(stream, &handle);
    if (r != CUDA_SUCCESS) {
        return r;
    }
    pthread_mutex_lock(&known->mutex);
    r = exec_renew(known);
    if (r == CUDA_SUCCESS && known->gates) {
        r = gates_launch(known->gates, exec, stream);
    } else if (r == CUDA_SUCCESS) {
        r = call_graph_launch(exec, stream);
    }
    pthread_mutex_unlock(&known->mutex);
    return r;
}

/* The host has it since it was made. */
CUresult guest_cuGraphUpload(CUgraphExec exec, CUstream stream)
{
    uint64_t handle;

    return find_exec(exec) ? stream_handle(stream, &handle) : CUDA_ERROR_INVALID_VALUE;
}

CUresult guest_cuGraphExecDestroy(CUgraphExec exec)
{
    struct exec *known = find_exec(exec);

    return known ? exec_destroy(known) : CUDA_ERROR_INVALID_VALUE;
}

CUresult guest_cuGraphExecGetFlags(CUgraphExec exec, cuuint64_t *flags)
{
    const struct exec *known = find_exec(exec);

    if (!known || !flags) {
        return CUDA_ERROR_INVALID_VALUE;
    }
    *flags = known->flags;
    return CUDA_SUCCESS;
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

/* Compares two graphs; *node is the first of the new one that differs. */
static CUgraphExecUpdateResult compare_graphs(struct graph *old, struct graph *new,
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
            result = compare_graphs(a->work.child, b->work.child, node);
        }
    }
    return result;
}

/* Nodes are known by those of the first graph, and stay enabled or not as they were. */
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

/* Takes another graph, which compares well, for an executable one. */
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

CUresult guest_cuGraphExecUpdate_v2(CUgraphExec exec, CUgraph graph,
                                    CUgraphExecUpdateResultInfo *info)
{
    struct exec *known = find_exec(exec);
    struct graph *wanted = graph_find(graph);
    struct node *node = NULL;
    CUresult r = CUDA_ERROR_GRAPH_EXEC_UPDATE_FAILURE;

    if (!known || !wanted || !info) {
        return CUDA_ERROR_INVALID_VALUE;
    }
    pthread_mutex_lock(&known->mutex);
    info->result = compare_graphs(known->graph, wanted, &node);
    info->errorNode = (CUgraphNode)node;
    info->errorFromNode = NULL;
    if (info->result == CU_GRAPH_EXEC_UPDATE_SUCCESS) {
        r = take_graph(known, wanted);
        info->result = r == CUDA_SUCCESS ? CU_GRAPH_EXEC_UPDATE_SUCCESS
                                         : CU_GRAPH_EXEC_UPDATE_ERROR;
    }
    pthread_mutex_unlock(&known->mutex);
    return r;
}

CUresult guest_cuGraphExecUpdate(CUgraphExec exec, CUgraph graph, CUgraphNode *error_node,
                                 CUgraphExecUpdateResult *result)
{
    CUgraphExecUpdateResultInfo info = {0};
    const CUresult r = guest_cuGraphExecUpdate_v2(exec, graph, &info);

    if (error_node) {
        *error_node = info.errorNode;
    }
    if (result) {
        *result = info.result;
    }
    return r;
}

/* The copy that the executable graph has of a node of the graph that it was made from. */
static struct node *own_node(const struct exec *exec, CUgraphNode node)
{
    const struct node *known = node_find(node);

    return exec && known ? graph_twin(exec->graph, known) : NULL;
}

/* Puts work that was made, `r`, in place of the node's, for the launches to come. */
static CUresult exec_change_node(struct exec *exec, CUgraphNode node, CUresult r, struct work *work)
{
    struct node *own;

    if (r != CUDA_SUCCESS) {
        return r;
    }
    pthread_mutex_lock(&exec->mutex);
    own = own_node(exec, node);
    if (own && own->work.type == work->type) {
        node_change(own, work);
        exec->changed = true;
    } else {
        work_free(work);
        r = CUDA_ERROR_INVALID_VALUE;
    }
    pthread_mutex_unlock(&exec->mutex);
    return r;
}

CUresult guest_cuGraphExecKernelNodeSetParams_v2(CUgraphExec exec, CUgraphNode node,
                                                 const CUDA_KERNEL_NODE_PARAMS *params)
{
    struct exec *known = find_exec(exec);
    struct work work;

    return known && params ? exec_change_node(known, node, work_kernel(params, &work), &work)
                           : CUDA_ERROR_INVALID_VALUE;
}

CUresult guest_cuGraphExecKernelNodeSetParams(CUgraphExec exec, CUgraphNode node,
                                              const CUDA_KERNEL_NODE_PARAMS_v1 *params)
{
    CUDA_KERNEL_NODE_PARAMS all;

    if (!params) {
        return CUDA_ERROR_INVALID_VALUE;
    }
    all = kernel_params(params);
    return guest_cuGraphExecKernelNodeSetParams_v2(exec, node, &all);
}

CUresult guest_cuGraphExecMemcpyNodeSetParams(CUgraphExec exec, CUgraphNode node,
                                              const CUDA_MEMCPY3D *copy, CUcontext context)
{
    struct exec *known = find_exec(exec);
    struct work work;

    if (!context_find(context)) {
        return CUDA_ERROR_INVALID_CONTEXT;
    }
    return known && copy ? exec_change_node(known, node, work_copy(copy, &work), &work)
                         : CUDA_ERROR_INVALID_VALUE;
}

CUresult guest_cuGraphExecMemsetNodeSetParams(CUgraphExec exec, CUgraphNode node,
                                              const CUDA_MEMSET_NODE_PARAMS *params,
                                              CUcontext context)
{
    struct exec *known = find_exec(exec);
    struct work work;

    if (!context_find(context)) {
        return CUDA_ERROR_INVALID_CONTEXT;
    }
    return known && params ? exec_change_node(known, node, work_fill(params, &work), &work)
                           : CUDA_ERROR_INVALID_VALUE;
}

CUresult guest_cuGraphExecHostNodeSetParams(CUgraphExec exec, CUgraphNode node,
                                            const CUDA_HOST_NODE_PARAMS *params)
{
    struct exec *known = find_exec(exec);
    struct work work;

    return known && params ? exec_change_node(known, node, work_host(params, &work), &work)
                           : CUDA_ERROR_INVALID_VALUE;
}

CUresult guest_cuGraphExecNodeSetParams(CUgraphExec exec, CUgraphNode node,
                                        CUgraphNodeParams *params)
{
    struct exec *known = find_exec(exec);
    struct work work;

    return known && params ? exec_change_node(known, node, work_of(params, &work), &work)
                           : CUDA_ERROR_INVALID_VALUE;
}

/* Whether a node can be switched off at all. */
static bool has_switch(const struct node *node)
{
    return node && (node->work.type == CU_GRAPH_NODE_TYPE_KERNEL ||
                    node->work.type == CU_GRAPH_NODE_TYPE_MEMCPY ||
                    node->work.type == CU_GRAPH_NODE_TYPE_MEMSET);
}

CUresult guest_cuGraphNodeSetEnabled(CUgraphExec exec, CUgraphNode node, unsigned int enabled)
{
    struct exec *known = find_exec(exec);
    struct node *own = own_node(known, node);

    if (!has_switch(own)) {
        return CUDA_ERROR_INVALID_VALUE;
    }
    pthread_mutex_lock(&known->mutex);
    known->changed = known->changed || own->disabled != !enabled;
    own->disabled = !enabled;
    pthread_mutex_unlock(&known->mutex);
    return CUDA_SUCCESS;
}

CUresult guest_cuGraphNodeGetEnabled(CUgraphExec exec, CUgraphNode node, unsigned int *enabled)
{
    const struct node *own = own_node(find_exec(exec), node);

    if (!has_switch(own) || !enabled) {
        return CUDA_ERROR_INVALID_VALUE;
    }
    *enabled = !own->disabled;
    return CUDA_SUCCESS;
}
