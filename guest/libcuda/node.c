/* SPDX-License-Identifier: MIT */
/* What the nodes of a graph do: how programs say it, and ask for it. */
#include <string.h>

#include "guest/libcuda/context.h"
#include "guest/libcuda/entry.h"
#include "guest/libcuda/graph.h"
#include "guest/libcuda/module.h"

/* Work from what a program says --------------------------------------------------------------- */

CUDA_KERNEL_NODE_PARAMS kernel_params(const CUDA_KERNEL_NODE_PARAMS_v1 *params)
{
    CUDA_KERNEL_NODE_PARAMS all = {0};

    static_assert(offsetof(CUDA_KERNEL_NODE_PARAMS, kern) == sizeof(*params),
                  "the same up to there");
    memcpy(&all, params, sizeof(*params));
    return all;
}

CUresult work_kernel(const CUDA_KERNEL_NODE_PARAMS *params, struct work *work)
{
    const struct launch launch = {
        /* A kernel is a function here. */
        .function = params->func ? params->func : (CUfunction)params->kern,
        .shape = {{params->gridDimX, params->gridDimY, params->gridDimZ},
                  {params->blockDimX, params->blockDimY, params->blockDimZ},
                  params->sharedMemBytes},
        .params = params->kernelParams,
        .extra = params->extra,
    };

    if (!params->func && params->ctx && !context_find(params->ctx)) {
        return CUDA_ERROR_INVALID_CONTEXT;
    }
    work->type = CU_GRAPH_NODE_TYPE_KERNEL;
    return kernel_make(&launch, &work->kernel);
}

CUresult work_copy(const CUDA_MEMCPY3D *copy, struct work *work)
{
    work->type = CU_GRAPH_NODE_TYPE_MEMCPY;
    work->copy.said = *copy;
    return copy_plan(copy, &work->copy.plan);
}

CUresult work_fill(const CUDA_MEMSET_NODE_PARAMS *params, struct work *work)
{
    work->type = CU_GRAPH_NODE_TYPE_MEMSET;
    work->fill.said = *params;
    return fill_plan(params, &work->fill.plan);
}

CUresult work_host(const CUDA_HOST_NODE_PARAMS *params, struct work *work)
{
    work->type = CU_GRAPH_NODE_TYPE_HOST;
    work->host = *params;
    return params->fn ? CUDA_SUCCESS : CUDA_ERROR_INVALID_VALUE;
}

/* A copy of the graph becomes the node's. */
static CUresult work_child(CUgraph graph, struct work *work)
{
    const struct graph *known = graph_find(graph);

    if (!known) {
        return CUDA_ERROR_INVALID_VALUE;
    }
    work->type = CU_GRAPH_NODE_TYPE_GRAPH;
    work->child = graph_copy(known);
    if (!work->child) {
        return CUDA_ERROR_OUT_OF_MEMORY;
    }
    work->child->inner = true;
    return CUDA_SUCCESS;
}

CUresult work_of(const CUgraphNodeParams *params, struct work *work)
{
    switch (params->type) {
    case CU_GRAPH_NODE_TYPE_KERNEL:
        return work_kernel(&params->kernel, work);
    case CU_GRAPH_NODE_TYPE_MEMCPY:
        return work_copy(&params->memcpy.copyParams, work);
    case CU_GRAPH_NODE_TYPE_MEMSET:
        return work_fill(&(CUDA_MEMSET_NODE_PARAMS){.dst = params->memset.dst,
                                                    .pitch = params->memset.pitch,
                                                    .value = params->memset.value,
                                                    .elementSize = params->memset.elementSize,
                                                    .width = params->memset.width,
                                                    .height = params->memset.height},
                         work);
    case CU_GRAPH_NODE_TYPE_HOST:
        return work_host(&params->host, work);
    case CU_GRAPH_NODE_TYPE_GRAPH:
        return work_child(params->graph.graph, work);
    case CU_GRAPH_NODE_TYPE_EMPTY:
        work->type = CU_GRAPH_NODE_TYPE_EMPTY;
        return CUDA_SUCCESS;
    default:
        return REFUSE("a node of a graph that is no kernel, copy, fill, function or graph");
    }
}

/* Adding -------------------------------------------------------------------------------------- */

static CUresult check_new(const CUgraphNode *node, CUgraph graph, const CUgraphNode *follows,
                          size_t count)
{
    if (!node || !graph_find(graph) || (count > 0 && !follows)) {
        return CUDA_ERROR_INVALID_VALUE;
    }
    for (size_t i = 0; i < count; i++) {
        if (!node_find(follows[i])) {
            return CUDA_ERROR_INVALID_VALUE;
        }
    }
    return CUDA_SUCCESS;
}

/* Adds the work when it was made, `r`. */
static CUresult graph_add_node(CUresult r, struct work *work, CUgraphNode *node, CUgraph graph,
                               const CUgraphNode *follows, size_t count)
{
    struct node *made = NULL;

    if (r != CUDA_SUCCESS) {
        return r;
    }
    r = graph_add(graph_find(graph), work, (struct node *const *)follows, count, &made);
    if (r != CUDA_SUCCESS) {
        work_free(work);
        return r;
    }
    *node = (CUgraphNode)made;
    return CUDA_SUCCESS;
}

CUresult guest_cuGraphAddKernelNode_v2(CUgraphNode *node, CUgraph graph, const CUgraphNode *follows,
                                       size_t count, const CUDA_KERNEL_NODE_PARAMS *params)
{
    CUresult r = params ? check_new(node, graph, follows, count) : CUDA_ERROR_INVALID_VALUE;
    struct work work;

    if (r == CUDA_SUCCESS) {
        r = work_kernel(params, &work);
    }
    return graph_add_node(r, &work, node, graph, follows, count);
}

CUresult guest_cuGraphAddKernelNode(CUgraphNode *node, CUgraph graph, const CUgraphNode *follows,
                                    size_t count, const CUDA_KERNEL_NODE_PARAMS_v1 *params)
{
    CUDA_KERNEL_NODE_PARAMS all;

    if (!params) {
        return CUDA_ERROR_INVALID_VALUE;
    }
    all = kernel_params(params);
    return guest_cuGraphAddKernelNode_v2(node, graph, follows, count, &all);
}

CUresult guest_cuGraphAddMemcpyNode(CUgraphNode *node, CUgraph graph, const CUgraphNode *follows,
                                    size_t count, const CUDA_MEMCPY3D *copy, CUcontext context)
{
    CUresult r = copy ? check_new(node, graph, follows, count) : CUDA_ERROR_INVALID_VALUE;
    struct work work;

    if (r == CUDA_SUCCESS) {
        r = context_find(context) ? work_copy(copy, &work) : CUDA_ERROR_INVALID_CONTEXT;
    }
    return graph_add_node(r, &work, node, graph, follows, count);
}

CUresult guest_cuGraphAddMemsetNode(CUgraphNode *node, CUgraph graph, const CUgraphNode *follows,
                                    size_t count, const CUDA_MEMSET_NODE_PARAMS *params,
                                    CUcontext context)
{
    CUresult r = params ? check_new(node, graph, follows, count) : CUDA_ERROR_INVALID_VALUE;
    struct work work;

    if (r == CUDA_SUCCESS) {
        r = context_find(context) ? work_fill(params, &work) : CUDA_ERROR_INVALID_CONTEXT;
    }
    return graph_add_node(r, &work, node, graph, follows, count);
}

CUresult guest_cuGraphAddHostNode(CUgraphNode *node, CUgraph graph, const CUgraphNode *follows,
                                  size_t count, const CUDA_HOST_NODE_PARAMS *params)
{
    CUresult r = params ? check_new(node, graph, follows, count) : CUDA_ERROR_INVALID_VALUE;
    struct work work;

    if (r == CUDA_SUCCESS) {
        r = work_host(params, &work);
    }
    return graph_add_node(r, &work, node, graph, follows, count);
}

CUresult guest_cuGraphAddEmptyNode(CUgraphNode *node, CUgraph graph, const CUgraphNode *follows,
                                   size_t count)
{
    struct work work = {.type = CU_GRAPH_NODE_TYPE_EMPTY};

    return graph_add_node(check_new(node, graph, follows, count), &work, node, graph, follows,
                          count);
}

CUresult guest_cuGraphAddChildGraphNode(CUgraphNode *node, CUgraph graph,
                                        const CUgraphNode *follows, size_t count, CUgraph child)
{
    CUresult r = check_new(node, graph, follows, count);
    struct work work;

    if (r == CUDA_SUCCESS) {
        r = work_child(child, &work);
    }
    return graph_add_node(r, &work, node, graph, follows, count);
}

CUresult guest_cuGraphAddNode(CUgraphNode *node, CUgraph graph, const CUgraphNode *follows,
                              size_t count, CUgraphNodeParams *params)
{
    CUresult r = params ? check_new(node, graph, follows, count) : CUDA_ERROR_INVALID_VALUE;
    struct work work = {.type = CU_GRAPH_NODE_TYPE_EMPTY};

    if (r == CUDA_SUCCESS) {
        r = work_of(params, &work);
    }
    r = graph_add_node(r, &work, node, graph, follows, count);
    if (r == CUDA_SUCCESS && work.type == CU_GRAPH_NODE_TYPE_GRAPH) {
        params->graph.graph = (CUgraph)work.child;
    }
    return r;
}

CUresult guest_cuGraphAddNode_v2(CUgraphNode *node, CUgraph graph, const CUgraphNode *follows,
                                 const CUgraphEdgeData *edges, size_t count,
                                 CUgraphNodeParams *params)
{
    const CUresult r = check_edges(edges, count);

    return r == CUDA_SUCCESS ? guest_cuGraphAddNode(node, graph, follows, count, params) : r;
}

/* Asking, and changing ------------------------------------------------------------------------ */

static struct node *find_of(CUgraphNode node, CUgraphNodeType type)
{
    struct node *known = node_find(node);

    return known && known->work.type == type ? known : NULL;
}

/* Puts work that was made, `r`, in place of the node's. */
static CUresult change_node(CUresult r, struct node *node, struct work *work)
{
    if (r == CUDA_SUCCESS) {
        node_change(node, work);
    }
    return r;
}

CUresult guest_cuGraphNodeGetType(CUgraphNode node, CUgraphNodeType *type)
{
    const struct node *known = node_find(node);

    if (!known || !type) {
        return CUDA_ERROR_INVALID_VALUE;
    }
    *type = known->work.type;
    return CUDA_SUCCESS;
}

CUresult guest_cuGraphKernelNodeGetParams_v2(CUgraphNode node, CUDA_KERNEL_NODE_PARAMS *params)
{
    const struct node *known = find_of(node, CU_GRAPH_NODE_TYPE_KERNEL);
    const struct kernel_work *kernel = known ? &known->work.kernel : NULL;

    if (!known || !params) {
        return CUDA_ERROR_INVALID_VALUE;
    }
    *params = (CUDA_KERNEL_NODE_PARAMS){
        .func = kernel->function,
        .gridDimX = kernel->shape.grid[0],
        .gridDimY = kernel->shape.grid[1],
        .gridDimZ = kernel->shape.grid[2],
        .blockDimX = kernel->shape.block[0],
        .blockDimY = kernel->shape.block[1],
        .blockDimZ = kernel->shape.block[2],
        .sharedMemBytes = kernel->shape.shared_bytes,
        .kernelParams = kernel->param_list,
    };
    return CUDA_SUCCESS;
}

CUresult guest_cuGraphKernelNodeGetParams(CUgraphNode node, CUDA_KERNEL_NODE_PARAMS_v1 *params)
{
    CUDA_KERNEL_NODE_PARAMS all;
    const CUresult r = params ? guest_cuGraphKernelNodeGetParams_v2(node, &all)
                              : CUDA_ERROR_INVALID_VALUE;

    if (r == CUDA_SUCCESS) {
        memcpy(params, &all, sizeof(*params));
    }
    return r;
}

CUresult guest_cuGraphKernelNodeSetParams_v2(CUgraphNode node,
                                             const CUDA_KERNEL_NODE_PARAMS *params)
{
    struct node *known = find_of(node, CU_GRAPH_NODE_TYPE_KERNEL);
    struct work work;

    return known && params ? change_node(work_kernel(params, &work), known, &work)
                           : CUDA_ERROR_INVALID_VALUE;
}

CUresult guest_cuGraphKernelNodeSetParams(CUgraphNode node,
                                          const CUDA_KERNEL_NODE_PARAMS_v1 *params)
{
    CUDA_KERNEL_NODE_PARAMS all;

    if (!params) {
        return CUDA_ERROR_INVALID_VALUE;
    }
    all = kernel_params(params);
    return guest_cuGraphKernelNodeSetParams_v2(node, &all);
}

CUresult guest_cuGraphMemcpyNodeGetParams(CUgraphNode node, CUDA_MEMCPY3D *copy)
{
    const struct node *known = find_of(node, CU_GRAPH_NODE_TYPE_MEMCPY);

    if (!known || !copy) {
        return CUDA_ERROR_INVALID_VALUE;
    }
    *copy = known->work.copy.said;
    return CUDA_SUCCESS;
}

CUresult guest_cuGraphMemcpyNodeSetParams(CUgraphNode node, const CUDA_MEMCPY3D *copy)
{
    struct node *known = find_of(node, CU_GRAPH_NODE_TYPE_MEMCPY);
    struct work work;

    return known && copy ? change_node(work_copy(copy, &work), known, &work)
                         : CUDA_ERROR_INVALID_VALUE;
}

CUresult guest_cuGraphMemsetNodeGetParams(CUgraphNode node, CUDA_MEMSET_NODE_PARAMS *params)
{
    const struct node *known = find_of(node, CU_GRAPH_NODE_TYPE_MEMSET);

    if (!known || !params) {
        return CUDA_ERROR_INVALID_VALUE;
    }
    *params = known->work.fill.said;
    return CUDA_SUCCESS;
}

CUresult guest_cuGraphMemsetNodeSetParams(CUgraphNode node, const CUDA_MEMSET_NODE_PARAMS *params)
{
    struct node *known = find_of(node, CU_GRAPH_NODE_TYPE_MEMSET);
    struct work work;

    return known && params ? change_node(work_fill(params, &work), known, &work)
                           : CUDA_ERROR_INVALID_VALUE;
}

CUresult guest_cuGraphHostNodeGetParams(CUgraphNode node, CUDA_HOST_NODE_PARAMS *params)
{
    const struct node *known = find_of(node, CU_GRAPH_NODE_TYPE_HOST);

    if (!known || !params) {
        return CUDA_ERROR_INVALID_VALUE;
    }
    *params = known->work.host;
    return CUDA_SUCCESS;
}

CUresult guest_cuGraphHostNodeSetParams(CUgraphNode node, const CUDA_HOST_NODE_PARAMS *params)
{
    struct node *known = find_of(node, CU_GRAPH_NODE_TYPE_HOST);
    struct work work;

    return known && params ? change_node(work_host(params, &work), known, &work)
                           : CUDA_ERROR_INVALID_VALUE;
}

CUresult guest_cuGraphChildGraphNodeGetGraph(CUgraphNode node, CUgraph *graph)
{
    const struct node *known = find_of(node, CU_GRAPH_NODE_TYPE_GRAPH);

    if (!known || !graph) {
        return CUDA_ERROR_INVALID_VALUE;
    }
    *graph = (CUgraph)known->work.child;
    return CUDA_SUCCESS;
}

CUresult guest_cuGraphNodeSetParams(CUgraphNode node, CUgraphNodeParams *params)
{
    struct node *known = params ? find_of(node, params->type) : NULL;
    struct work work;

    return known ? change_node(work_of(params, &work), known, &work) : CUDA_ERROR_INVALID_VALUE;
}
