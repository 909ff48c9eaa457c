/* SPDX-License-Identifier: MIT */
/*
 * Executable graphs, as programs make, launch and change them. The calls differ in how they name
 * what they change; model/exec.c changes it.
 *
 * `work` is made and handed on in one expression: exec_change_node() gets the result of making it,
 * and where that is an error does not look at it.
 */

#include "guest/libcuda/model/exec.h"
#include "guest/libcuda/calls/families.h"
#include "guest/libcuda/calls/guest-calls.h"
#include "guest/libcuda/model/context.h"
#include "guest/libcuda/model/gate.h"
#include "guest/libcuda/model/stream.h"
#include "guest/libcuda/model/work.h"
#include "guest/libcuda/state/state.h"
#include "guest/libcuda/wire/wire-calls.h"

/*
 * Before CUDA 12 there were a node and a text for errors. The host does not tell which node was
 * wrong.
 */
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

/* UPLOAD needs a stream to upload in, which only the call with a structure of parameters has. */
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
    r = exec_instantiate(exec, graph, params->flags);
    params->hErrNode_out = NULL;
    params->result_out = r == CUDA_SUCCESS ? CUDA_GRAPH_INSTANTIATE_SUCCESS
                                           : CUDA_GRAPH_INSTANTIATE_ERROR;
    return r;
}

CUresult guest_cuGraphLaunch(CUgraphExec exec, struct stream *stream)
{
    struct exec *known = exec_find(exec);
    CUresult r;

    if (!known) {
        return CUDA_ERROR_INVALID_VALUE;
    }
    r = stream_allows(stream);
    return r == CUDA_SUCCESS ? exec_launch(known, stream->object.handle) : r;
}

/* The host has it since it was made. */
CUresult guest_cuGraphUpload(CUgraphExec exec, struct stream *stream)
{
    return exec_find(exec) ? stream_allows(stream) : CUDA_ERROR_INVALID_VALUE;
}

/* Updates ------------------------------------------------------------------------------------- */

/* errorNode is of the new graph, which is the one that the program still has a handle for. */
CUresult guest_cuGraphExecUpdate_v2(CUgraphExec exec, CUgraph graph,
                                    CUgraphExecUpdateResultInfo *info)
{
    struct exec *known = exec_find(exec);
    const struct graph *wanted = graph_find(graph);
    CUgraphExecUpdateResultInfo told = {0};
    struct node *node = NULL;
    CUresult r;

    if (!known || !wanted) {
        return CUDA_ERROR_INVALID_VALUE;
    }
    r = exec_update(known, wanted, &told.result, &node);
    told.errorNode = node_handle(node);
    if (info) {
        *info = told;
    }
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

CUresult change_launched_kernel(CUgraphExec exec, CUgraphNode node, CUDA_KERNEL_NODE_PARAMS params)
{
    struct exec *known = exec_find(exec);
    struct work work = {.type = CU_GRAPH_NODE_TYPE_KERNEL};

    return known ? exec_change_node(known, node, work_kernel(&params, &work), &work)
                 : CUDA_ERROR_INVALID_VALUE;
}

/* The context only has to be there, or be NULL for the current one: all are one on the host. */
CUresult guest_cuGraphExecMemcpyNodeSetParams(CUgraphExec exec, CUgraphNode node,
                                              const CUDA_MEMCPY3D *copy, CUcontext context)
{
    struct exec *known = exec_find(exec);
    struct work work = {.type = CU_GRAPH_NODE_TYPE_MEMCPY};

    if (!context_find(context)) {
        return CUDA_ERROR_INVALID_CONTEXT;
    }
    return known ? exec_change_node(known, node, work_copy(copy, &work), &work)
                 : CUDA_ERROR_INVALID_VALUE;
}

CUresult guest_cuGraphExecMemsetNodeSetParams(CUgraphExec exec, CUgraphNode node,
                                              const CUDA_MEMSET_NODE_PARAMS *params,
                                              CUcontext context)
{
    struct exec *known = exec_find(exec);
    struct work work = {.type = CU_GRAPH_NODE_TYPE_MEMSET};

    if (!context_find(context)) {
        return CUDA_ERROR_INVALID_CONTEXT;
    }
    return known ? exec_change_node(known, node, work_fill(params, &work), &work)
                 : CUDA_ERROR_INVALID_VALUE;
}

CUresult guest_cuGraphExecHostNodeSetParams(CUgraphExec exec, CUgraphNode node,
                                            const CUDA_HOST_NODE_PARAMS *params)
{
    struct exec *known = exec_find(exec);
    struct work work = {.type = CU_GRAPH_NODE_TYPE_HOST};

    return known ? exec_change_node(known, node, work_host(params, &work), &work)
                 : CUDA_ERROR_INVALID_VALUE;
}

CUresult guest_cuGraphExecNodeSetParams(CUgraphExec exec, CUgraphNode node,
                                        CUgraphNodeParams *params)
{
    struct exec *known = exec_find(exec);
    struct work work = {.type = params->type};

    if (known && allocates_or_frees(params->type)) {
        return CUDA_ERROR_NOT_SUPPORTED;
    }
    return known ? exec_change_node(known, node, work_of(params, &work), &work)
                 : CUDA_ERROR_INVALID_VALUE;
}

/*
 * CUDA lets kernels, copies and fills be switched off, and no other nodes. The rest of the graph
 * goes on as if the node did nothing.
 */
static bool has_switch(const struct node *node)
{
    return node && (node->work.type == CU_GRAPH_NODE_TYPE_KERNEL ||
                    node->work.type == CU_GRAPH_NODE_TYPE_MEMCPY ||
                    node->work.type == CU_GRAPH_NODE_TYPE_MEMSET);
}

CUresult guest_cuGraphNodeSetEnabled(CUgraphExec exec, CUgraphNode node, unsigned int enabled)
{
    struct exec *known = exec_find(exec);
    struct node *own = own_node(known, node);

    if (!has_switch(own)) {
        return CUDA_ERROR_INVALID_VALUE;
    }
    exec_enable(known, own, enabled != 0);
    return CUDA_SUCCESS;
}

CUresult guest_cuGraphNodeGetEnabled(CUgraphExec exec, CUgraphNode node, unsigned int *enabled)
{
    const struct node *own = own_node(exec_find(exec), node);

    if (!has_switch(own)) {
        return CUDA_ERROR_INVALID_VALUE;
    }
    *enabled = !own->disabled;
    return CUDA_SUCCESS;
}
