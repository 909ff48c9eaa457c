/* SPDX-License-Identifier: MIT */
/*
 * The nodes of a graph: how programs add them, ask for what they do, and change it.
 *
 * To add one takes three steps in each call: the list of those it follows is checked, the work is
 * made of the parameters, and both go into the graph. An error of one step is handed to the next,
 * which then does nothing, so that a call returns the first.
 */

#include <stdlib.h>
#include <string.h>

#include "guest/libcuda/calls/families.h"
#include "guest/libcuda/calls/guest-calls.h"
#include "guest/libcuda/model/context.h"
#include "guest/libcuda/model/graph.h"
#include "guest/libcuda/model/work.h"
#include "guest/libcuda/state/state.h"

/* Adding -------------------------------------------------------------------------------------- */

/*
 * Before the work is made, which may take memory and ask the host. Whether the nodes are of this
 * graph and in the list once is found out when the node is added.
 */
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

/* The nodes of a list, which is checked; malloc's, NULL when memory is short. */
static struct node **find_nodes(const CUgraphNode *list, size_t count)
{
    struct node **nodes = calloc(count + 1, sizeof(struct node *));

    for (size_t i = 0; nodes && i < count; i++) {
        nodes[i] = node_find(list[i]);
    }
    return nodes;
}

/*
 * Adds the work when it was made, `r`. It becomes the node's, or is freed; *work is a copy whose
 * pointers may still be read then, but no longer freed.
 */
static CUresult graph_add_node(CUresult r, struct work *work, CUgraphNode *node, CUgraph graph,
                               const CUgraphNode *follows, size_t count)
{
    struct node *made = NULL, **before;

    if (r != CUDA_SUCCESS) {
        return r;
    }
    before = find_nodes(follows, count);
    r = before ? graph_add(graph_find(graph), work, before, count, &made)
               : CUDA_ERROR_OUT_OF_MEMORY;
    free(before);
    if (r != CUDA_SUCCESS) {
        work_free(work);
        return r;
    }
    *node = node_handle(made);
    return CUDA_SUCCESS;
}

/* CUDA looks at this before it looks whether there is a graph. */
static bool names_kernel(const CUDA_KERNEL_NODE_PARAMS *params)
{
    return params->func || params->kern;
}

CUresult add_kernel_node(CUgraphNode *node, CUgraph graph, const CUgraphNode *follows, size_t count,
                         CUDA_KERNEL_NODE_PARAMS params)
{
    CUresult r = names_kernel(&params) ? check_new(node, graph, follows, count)
                                       : CUDA_ERROR_INVALID_HANDLE;
    struct work work;

    if (r == CUDA_SUCCESS) {
        r = work_kernel(&params, &work);
    }
    return graph_add_node(r, &work, node, graph, follows, count);
}

CUresult guest_cuGraphAddMemcpyNode(CUgraphNode *node, CUgraph graph, const CUgraphNode *follows,
                                    size_t count, const CUDA_MEMCPY3D *copy, CUcontext context)
{
    CUresult r = check_new(node, graph, follows, count);
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
    CUresult r = check_new(node, graph, follows, count);
    struct work work;

    if (r == CUDA_SUCCESS) {
        r = context_find(context) ? work_fill(params, &work) : CUDA_ERROR_INVALID_CONTEXT;
    }
    return graph_add_node(r, &work, node, graph, follows, count);
}

CUresult guest_cuGraphAddHostNode(CUgraphNode *node, CUgraph graph, const CUgraphNode *follows,
                                  size_t count, const CUDA_HOST_NODE_PARAMS *params)
{
    CUresult r = check_new(node, graph, follows, count);
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

CUresult guest_cuGraphAddMemAllocNode(CUgraphNode *node, CUgraph graph, const CUgraphNode *follows,
                                      size_t count, CUDA_MEM_ALLOC_NODE_PARAMS *params)
{
    CUresult r = check_new(node, graph, follows, count);
    struct work work;

    if (r == CUDA_SUCCESS) {
        r = work_alloc(params, &work);
    }
    return graph_add_node(r, &work, node, graph, follows, count);
}

CUresult guest_cuGraphAddMemFreeNode(CUgraphNode *node, CUgraph graph, const CUgraphNode *follows,
                                     size_t count, CUdeviceptr address)
{
    CUresult r = check_new(node, graph, follows, count);
    struct work work;

    if (r == CUDA_SUCCESS) {
        r = work_free_memory(address, &work);
    }
    return graph_add_node(r, &work, node, graph, follows, count);
}

CUresult guest_cuGraphAddNode_v2(CUgraphNode *node, CUgraph graph, const CUgraphNode *follows,
                                 const CUgraphEdgeData *edges, size_t count,
                                 CUgraphNodeParams *params)
{
    struct work work = {.type = CU_GRAPH_NODE_TYPE_EMPTY};
    CUresult r;

    if (params->type == CU_GRAPH_NODE_TYPE_KERNEL && !names_kernel(&params->kernel)) {
        return CUDA_ERROR_INVALID_HANDLE;
    }
    r = check_edges(edges, count);
    if (r == CUDA_SUCCESS) {
        r = check_new(node, graph, follows, count);
    }
    if (r == CUDA_SUCCESS) {
        r = work_of(params, &work);
    }
    r = graph_add_node(r, &work, node, graph, follows, count);
    /* CUDA tells the program here which clone of its graph the node has got. */
    if (r == CUDA_SUCCESS && work.type == CU_GRAPH_NODE_TYPE_GRAPH) {
        params->graph.graph = graph_handle(work.child);
    }
    return r;
}

/* Asking, and changing ------------------------------------------------------------------------ */

/* To ask a node for parameters of another type is INVALID_VALUE. */
static struct node *find_of(CUgraphNode node, CUgraphNodeType type)
{
    struct node *known = node_find(node);

    return known && known->work.type == type ? known : NULL;
}

/*
 * Puts work that was made, `r`, in place of the node's. Executable graphs that were made of this
 * one before have copies and stay as they are.
 */
static CUresult change_node(CUresult r, struct node *node, struct work *work)
{
    if (r == CUDA_SUCCESS) {
        node_change(node, work);
    }
    return r;
}

CUresult guest_cuGraphKernelNodeGetParams_v2(CUgraphNode node, CUDA_KERNEL_NODE_PARAMS *params)
{
    const struct node *known = find_of(node, CU_GRAPH_NODE_TYPE_KERNEL);
    const struct kernel_work *kernel = known ? &known->work.kernel : NULL;

    if (!known) {
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
        /*
         * Pointers into the node's own copy, good until the node is changed or gone. CUDA has them
         * so too.
         */
        .kernelParams = kernel->param_list,
    };
    return CUDA_SUCCESS;
}

CUresult guest_cuGraphKernelNodeGetParams(CUgraphNode node, CUDA_KERNEL_NODE_PARAMS_v1 *params)
{
    CUDA_KERNEL_NODE_PARAMS all;
    const CUresult r = guest_cuGraphKernelNodeGetParams_v2(node, &all);

    if (r == CUDA_SUCCESS) {
        memcpy(params, &all, sizeof(*params));
    }
    return r;
}

CUresult change_kernel_node(CUgraphNode node, CUDA_KERNEL_NODE_PARAMS params)
{
    struct node *known = find_of(node, CU_GRAPH_NODE_TYPE_KERNEL);
    struct work work;

    return known ? change_node(work_kernel(&params, &work), known, &work)
                 : CUDA_ERROR_INVALID_VALUE;
}

CUresult guest_cuGraphMemcpyNodeGetParams(CUgraphNode node, CUDA_MEMCPY3D *copy)
{
    const struct node *known = find_of(node, CU_GRAPH_NODE_TYPE_MEMCPY);

    if (!known) {
        return CUDA_ERROR_INVALID_VALUE;
    }
    *copy = known->work.copy.said;
    return CUDA_SUCCESS;
}

CUresult guest_cuGraphMemcpyNodeSetParams(CUgraphNode node, const CUDA_MEMCPY3D *copy)
{
    struct node *known = find_of(node, CU_GRAPH_NODE_TYPE_MEMCPY);
    struct work work;

    return known ? change_node(work_copy(copy, &work), known, &work) : CUDA_ERROR_INVALID_VALUE;
}

CUresult guest_cuGraphMemsetNodeGetParams(CUgraphNode node, CUDA_MEMSET_NODE_PARAMS *params)
{
    const struct node *known = find_of(node, CU_GRAPH_NODE_TYPE_MEMSET);

    if (!known) {
        return CUDA_ERROR_INVALID_VALUE;
    }
    *params = known->work.fill.said;
    return CUDA_SUCCESS;
}

CUresult guest_cuGraphMemsetNodeSetParams(CUgraphNode node, const CUDA_MEMSET_NODE_PARAMS *params)
{
    struct node *known = find_of(node, CU_GRAPH_NODE_TYPE_MEMSET);
    struct work work;

    return known ? change_node(work_fill(params, &work), known, &work) : CUDA_ERROR_INVALID_VALUE;
}

CUresult guest_cuGraphHostNodeGetParams(CUgraphNode node, CUDA_HOST_NODE_PARAMS *params)
{
    const struct node *known = find_of(node, CU_GRAPH_NODE_TYPE_HOST);

    if (!known) {
        return CUDA_ERROR_INVALID_VALUE;
    }
    *params = known->work.host;
    return CUDA_SUCCESS;
}

CUresult guest_cuGraphHostNodeSetParams(CUgraphNode node, const CUDA_HOST_NODE_PARAMS *params)
{
    struct node *known = find_of(node, CU_GRAPH_NODE_TYPE_HOST);
    struct work work;

    return known ? change_node(work_host(params, &work), known, &work) : CUDA_ERROR_INVALID_VALUE;
}

/*
 * The node's own graph and no copy of it: what a program changes there changes what the node does.
 */
CUresult guest_cuGraphChildGraphNodeGetGraph(CUgraphNode node, CUgraph *graph)
{
    const struct node *known = find_of(node, CU_GRAPH_NODE_TYPE_GRAPH);

    if (!known) {
        return CUDA_ERROR_INVALID_VALUE;
    }
    *graph = graph_handle(known->work.child);
    return CUDA_SUCCESS;
}

/* A node keeps its type, so the type in the structure has to be that. */
CUresult guest_cuGraphNodeSetParams(CUgraphNode node, CUgraphNodeParams *params)
{
    struct node *known = find_of(node, params->type);
    struct work work;

    if (known && allocates_or_frees(params->type)) {
        return CUDA_ERROR_NOT_SUPPORTED;
    }
    return known ? change_node(work_of(params, &work), known, &work) : CUDA_ERROR_INVALID_VALUE;
}
