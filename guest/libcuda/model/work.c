/* SPDX-License-Identifier: MIT */
/*
 * Work of nodes, from the parameters that programs give; see work.h.
 *
 * A copy or a fill is kept twice: as the program said it, which cuGraph...GetParams() gives back,
 * and as the plan that goes to the host. The plan is made when the node is added, since CUDA checks
 * parameters then, and what an address means may have changed when the graph is launched.
 */
#include "guest/libcuda/model/work.h"

#include <assert.h>
#include <string.h>

#include "guest/libcuda/model/context.h"
#include "guest/libcuda/model/graph-memory.h"
#include "guest/libcuda/state/state.h"

/* The newer structure begins as the old one does, and has a kernel and a context behind that. */
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
        /*
         * CUDA has a function or a kernel here, one of the two. A kernel is a function in this
         * library.
         */
        .function = params->func ? params->func : (CUfunction)params->kern,
        .shape = {{params->gridDimX, params->gridDimY, params->gridDimZ},
                  {params->blockDimX, params->blockDimY, params->blockDimZ},
                  params->sharedMemBytes},
        .params = params->kernelParams,
        .extra = params->extra,
    };

    /* The context counts with a kernel only: a function has one already. */
    if (!params->func && params->ctx && !context_find(params->ctx)) {
        return CUDA_ERROR_INVALID_CONTEXT;
    }
    work->type = CU_GRAPH_NODE_TYPE_KERNEL;
    return kernel_make(&launch, &work->kernel);
}

CUresult work_copy(const CUDA_MEMCPY3D *copy, struct work *work)
{
    work->type = CU_GRAPH_NODE_TYPE_MEMCPY;
    return copy_make(copy, &work->copy);
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

/*
 * A copy of the graph becomes the node's, as CUDA clones it: later changes to the program's graph
 * do not matter. It is `inner`: the program may get a handle of it and change its nodes, but not
 * destroy it.
 */
CUresult work_child(CUgraph graph, struct work *work)
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

/* The parameters get the address. */
CUresult work_alloc(CUDA_MEM_ALLOC_NODE_PARAMS *params, struct work *work)
{
    work->type = CU_GRAPH_NODE_TYPE_MEM_ALLOC;
    return graph_memory_new(params, &work->memory);
}

/* Only what a graph allocates is freed in one. */
CUresult work_free_memory(CUdeviceptr address, struct work *work)
{
    work->type = CU_GRAPH_NODE_TYPE_MEM_FREE;
    work->freed = address;
    return graph_memory_begins(address) ? CUDA_SUCCESS : CUDA_ERROR_INVALID_VALUE;
}

/* The one structure of CUDA 12 for all types. Those that are refused have no form on the wire. */
CUresult work_of(CUgraphNodeParams *params, struct work *work)
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
    case CU_GRAPH_NODE_TYPE_MEM_ALLOC:
        return work_alloc(&params->alloc, work);
    case CU_GRAPH_NODE_TYPE_MEM_FREE:
        return work_free_memory(params->free.dptr, work);
    case CU_GRAPH_NODE_TYPE_EMPTY:
        work->type = CU_GRAPH_NODE_TYPE_EMPTY;
        return CUDA_SUCCESS;
    default:
        return REFUSE("a node of a graph that is an event, a condition or a word");
    }
}
