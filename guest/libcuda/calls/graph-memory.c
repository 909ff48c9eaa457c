/* SPDX-License-Identifier: MIT */
/*
 * Nodes that allocate and free memory, captured calls that become such nodes, and what the device
 * has of it; model/graph-memory.c says what they do.
 */
#include <string.h>

#include "guest/libcuda/calls/families.h"
#include "guest/libcuda/calls/guest-calls.h"
#include "guest/libcuda/model/capture.h"
#include "guest/libcuda/model/device.h"
#include "guest/libcuda/model/graph-memory.h"
#include "guest/libcuda/model/graph.h"
#include "guest/libcuda/model/mempool.h"
#include "guest/libcuda/model/work.h"
#include "guest/libcuda/state/state.h"

/* Nodes --------------------------------------------------------------------------------------- */

CUresult guest_cuGraphMemAllocNodeGetParams(CUgraphNode node, CUDA_MEM_ALLOC_NODE_PARAMS *params)
{
    const struct node *known = node_find(node);

    if (!known || known->work.type != CU_GRAPH_NODE_TYPE_MEM_ALLOC) {
        return CUDA_ERROR_INVALID_VALUE;
    }
    *params = graph_memory_params(known->work.memory);
    return CUDA_SUCCESS;
}

CUresult guest_cuGraphMemFreeNodeGetParams(CUgraphNode node, CUdeviceptr *address)
{
    const struct node *known = node_find(node);

    if (!known || known->work.type != CU_GRAPH_NODE_TYPE_MEM_FREE) {
        return CUDA_ERROR_INVALID_VALUE;
    }
    *address = known->work.freed;
    return CUDA_SUCCESS;
}

/* Captured ------------------------------------------------------------------------------------ */

/* A pool has to be there, and is not asked for more: a graph's memory is its own. */
static bool pool_is_there(CUmemoryPool pool)
{
    const bool found = pool_lock(pool) != NULL;

    pool_unlock();
    return found;
}

CUresult captured_alloc(CUdeviceptr *address, size_t bytes, CUmemoryPool pool, uint64_t stream)
{
    CUDA_MEM_ALLOC_NODE_PARAMS params = {
        .poolProps = {.allocType = CU_MEM_ALLOCATION_TYPE_PINNED,
                      .location = {.type = CU_MEM_LOCATION_TYPE_DEVICE}},
        .bytesize = bytes,
    };
    struct work work;
    CUresult r;

    if (!address || !pool_is_there(pool)) {
        return CUDA_ERROR_INVALID_VALUE;
    }
    r = capture_add(stream, work_alloc(&params, &work), &work);
    if (r == CUDA_SUCCESS) {
        *address = params.dptr;
    }
    return r;
}

CUresult captured_free(CUdeviceptr address, uint64_t stream)
{
    struct work work;

    return capture_add(stream, work_free_memory(address, &work), &work);
}

/* The device ---------------------------------------------------------------------------------- */

/* What no graph has is the host's at once: there is nothing to give back. */
CUresult guest_cuDeviceGraphMemTrim(CUdevice device)
{
    return device_valid(device) ? CUDA_SUCCESS : CUDA_ERROR_INVALID_DEVICE;
}

CUresult guest_cuDeviceGetGraphMemAttribute(CUdevice device, CUgraphMem_attribute attribute,
                                            void *value)
{
    const struct graph_memory_sums now = graph_memory_sum(), peak = graph_memory_peak();
    const cuuint64_t sums[] = {
        [CU_GRAPH_MEM_ATTR_USED_MEM_CURRENT] = now.used,
        [CU_GRAPH_MEM_ATTR_USED_MEM_HIGH] = peak.used,
        [CU_GRAPH_MEM_ATTR_RESERVED_MEM_CURRENT] = now.reserved,
        [CU_GRAPH_MEM_ATTR_RESERVED_MEM_HIGH] = peak.reserved,
    };

    if (!device_valid(device)) {
        return CUDA_ERROR_INVALID_DEVICE;
    }
    if ((unsigned)attribute >= sizeof(sums) / sizeof(sums[0])) {
        return CUDA_ERROR_INVALID_VALUE;
    }
    memcpy(value, &sums[attribute], sizeof(sums[0]));
    return CUDA_SUCCESS;
}

/* Peaks can be set back, which is all. */
CUresult guest_cuDeviceSetGraphMemAttribute(CUdevice device, CUgraphMem_attribute attribute,
                                            void *value)
{
    cuuint64_t wanted;

    memcpy(&wanted, value, sizeof(wanted));
    if (!device_valid(device)) {
        return CUDA_ERROR_INVALID_DEVICE;
    }
    if ((attribute != CU_GRAPH_MEM_ATTR_USED_MEM_HIGH &&
         attribute != CU_GRAPH_MEM_ATTR_RESERVED_MEM_HIGH) ||
        wanted != 0) {
        return CUDA_ERROR_INVALID_VALUE;
    }
    graph_memory_reset_peak(attribute == CU_GRAPH_MEM_ATTR_RESERVED_MEM_HIGH);
    return CUDA_SUCCESS;
}
