/* SPDX-License-Identifier: MIT */
/*
 * Pools of device memory, as programs use them; model/mempool.c has them. There is one device, so
 * calls that name one, or a place for memory, can only mean that.
 */

#include <stdlib.h>
#include <string.h>

#include "guest/libcuda/calls/families.h"
#include "guest/libcuda/calls/guest-calls.h"
#include "guest/libcuda/model/capture.h"
#include "guest/libcuda/model/device.h"
#include "guest/libcuda/model/graph-memory.h"
#include "guest/libcuda/model/memory.h"
#include "guest/libcuda/model/mempool.h"
#include "guest/libcuda/model/stream.h"
#include "guest/libcuda/state/state.h"
#include "guest/libvgpu/session.h"

/* pool_unlock() in any case: pool_lock() takes the lock also where it finds no pool. */
static bool is_pool(CUmemoryPool pool)
{
    bool found;

    found = pool_lock(pool) != NULL;
    pool_unlock();
    return found;
}

CUresult guest_cuMemAllocFromPoolAsync(CUdeviceptr *address, size_t bytes, CUmemoryPool pool,
                                       uint64_t stream)
{
    CUresult r;

    if (!address) {
        return CUDA_ERROR_INVALID_VALUE;
    }
    /* Nothing, as cuMemAllocHost() gives it too; to free that is no error. */
    if (bytes == 0) {
        *address = 0;
        return is_pool(pool) ? CUDA_SUCCESS : CUDA_ERROR_INVALID_VALUE;
    }
    r = pool_take(pool, bytes, stream, address);
    if (r == CUDA_ERROR_OUT_OF_MEMORY) {
        /* What was freed may be in use, for other streams; that is waited for. */
        pool_give_up();
        r = pool_take(pool, bytes, stream, address);
    }
    return r;
}

/*
 * Memory of cuMemAlloc() may be freed here as well. The host frees it behind all work of the
 * session, and this call waits for that: more than the stream's order asks for.
 */
CUresult guest_cuMemFreeAsync(CUdeviceptr address, uint64_t stream)
{
    struct memory area;

    if (address == 0) {
        return CUDA_SUCCESS;
    }
    if (!memory_find(address, &area) || area.address != address ||
        (area.kind != MEMORY_POOLED && area.kind != MEMORY_DEVICE && area.kind != MEMORY_GRAPH)) {
        return CUDA_ERROR_INVALID_VALUE;
    }
    /* It stays its graph's, in whatever order the next launch comes. */
    if (area.kind == MEMORY_GRAPH) {
        return graph_memory_give_back(address);
    }
    /*
     * First, so that the next owner of the address is not forgotten: once it is in the pool another
     * thread may get it.
     */
    memory_drop(address);
    if (area.kind == MEMORY_DEVICE) {
        return result_of(vgpu_mem_free(cuda.session, address));
    }
    pool_free(&area, stream);
    return CUDA_SUCCESS;
}

/* Pools --------------------------------------------------------------------------------------- */

CUresult guest_cuDeviceSetMemPool(CUdevice device, CUmemoryPool pool)
{
    return device_valid(device) && pool_choose(pool) ? CUDA_SUCCESS : CUDA_ERROR_INVALID_VALUE;
}

/* There are pools on the device alone, of memory that stays where it is. */
static CUresult check_location(const CUmemLocation *location, CUmemAllocationType type)
{
    if (!location || location->type == CU_MEM_LOCATION_TYPE_INVALID ||
        type == CU_MEM_ALLOCATION_TYPE_INVALID) {
        return CUDA_ERROR_INVALID_VALUE;
    }
    if (location->type != CU_MEM_LOCATION_TYPE_DEVICE || type != CU_MEM_ALLOCATION_TYPE_PINNED) {
        return REFUSE("a pool of memory that is not the device's");
    }
    return location->id == 0 ? CUDA_SUCCESS : CUDA_ERROR_INVALID_DEVICE;
}

static CUresult give_pool(CUmemoryPool *pool, CUmemoryPool wanted)
{
    if (!pool) {
        return CUDA_ERROR_INVALID_VALUE;
    }
    *pool = wanted;
    return CUDA_SUCCESS;
}

CUresult guest_cuMemGetDefaultMemPool(CUmemoryPool *pool, CUmemLocation *location,
                                      CUmemAllocationType type)
{
    const CUresult r = check_location(location, type);

    return r == CUDA_SUCCESS ? give_pool(pool, pool_default()) : r;
}

CUresult guest_cuMemGetMemPool(CUmemoryPool *pool, CUmemLocation *location,
                               CUmemAllocationType type)
{
    const CUresult r = check_location(location, type);

    return r == CUDA_SUCCESS ? give_pool(pool, pool_current()) : r;
}

CUresult guest_cuMemSetMemPool(CUmemLocation *location, CUmemAllocationType type, CUmemoryPool pool)
{
    const CUresult r = check_location(location, type);

    return r == CUDA_SUCCESS ? guest_cuDeviceSetMemPool(0, pool) : r;
}

CUresult guest_cuMemPoolCreate(CUmemoryPool *pool, const CUmemPoolProps *props)
{
    CUresult r;

    r = check_location(&props->location, props->allocType);
    if (r == CUDA_SUCCESS && props->handleTypes != CU_MEM_HANDLE_TYPE_NONE) {
        r = REFUSE("a pool for several processes");
    }
    if (r != CUDA_SUCCESS) {
        return r;
    }
    /* Of the size nothing is taken yet: the first allocation gets the first chunk. */
    *pool = pool_new(props->maxSize);
    return *pool ? CUDA_SUCCESS : CUDA_ERROR_OUT_OF_MEMORY;
}

/* Attributes ---------------------------------------------------------------------------------- */

/*
 * Three are of type int, which follow each other, all others 64 bits wide; a program passes a
 * pointer to the one or the other. With the mutex.
 */
static CUresult get_attribute(const struct pool *pool, CUmemPool_attribute attribute, void *value)
{
    uint64_t bytes;

    switch (attribute) {
    case CU_MEMPOOL_ATTR_REUSE_FOLLOW_EVENT_DEPENDENCIES:
    case CU_MEMPOOL_ATTR_REUSE_ALLOW_OPPORTUNISTIC:
    case CU_MEMPOOL_ATTR_REUSE_ALLOW_INTERNAL_DEPENDENCIES:
        memcpy(value, &pool->reuse[attribute - CU_MEMPOOL_ATTR_REUSE_FOLLOW_EVENT_DEPENDENCIES],
               sizeof(int));
        return CUDA_SUCCESS;
    case CU_MEMPOOL_ATTR_RELEASE_THRESHOLD:
        bytes = pool->threshold;
        break;
    case CU_MEMPOOL_ATTR_RESERVED_MEM_CURRENT:
        bytes = pool->reserved;
        break;
    case CU_MEMPOOL_ATTR_RESERVED_MEM_HIGH:
        bytes = pool->reserved_high;
        break;
    case CU_MEMPOOL_ATTR_USED_MEM_CURRENT:
        bytes = pool->used;
        break;
    case CU_MEMPOOL_ATTR_USED_MEM_HIGH:
        bytes = pool->used_high;
        break;
    default:
        return CUDA_ERROR_INVALID_VALUE;
    }
    memcpy(value, &bytes, sizeof(bytes));
    return CUDA_SUCCESS;
}

CUresult guest_cuMemPoolGetAttribute(CUmemoryPool pool, CUmemPool_attribute attribute, void *value)
{
    const struct pool *known;
    CUresult r;

    known = pool_lock(pool);
    r = known ? get_attribute(known, attribute, value) : CUDA_ERROR_INVALID_VALUE;
    pool_unlock();
    return r;
}

/* A peak can only be set back to what there is now. */
static CUresult reset_peak(uint64_t *peak, uint64_t now, const void *value)
{
    uint64_t wanted;

    memcpy(&wanted, value, sizeof(wanted));
    if (wanted != 0) {
        return CUDA_ERROR_INVALID_VALUE;
    }
    *peak = now;
    return CUDA_SUCCESS;
}

/*
 * The flags for reuse are kept and nothing depends on them: they allow CUDA to find free blocks in
 * more ways, and do not demand it. A lower threshold takes effect when blocks settle the next time.
 * With the mutex.
 */
static CUresult set_attribute(struct pool *pool, CUmemPool_attribute attribute, const void *value)
{
    switch (attribute) {
    case CU_MEMPOOL_ATTR_REUSE_FOLLOW_EVENT_DEPENDENCIES:
    case CU_MEMPOOL_ATTR_REUSE_ALLOW_OPPORTUNISTIC:
    case CU_MEMPOOL_ATTR_REUSE_ALLOW_INTERNAL_DEPENDENCIES:
        memcpy(&pool->reuse[attribute - CU_MEMPOOL_ATTR_REUSE_FOLLOW_EVENT_DEPENDENCIES], value,
               sizeof(int));
        return CUDA_SUCCESS;
    case CU_MEMPOOL_ATTR_RELEASE_THRESHOLD:
        memcpy(&pool->threshold, value, sizeof(pool->threshold));
        return CUDA_SUCCESS;
    case CU_MEMPOOL_ATTR_RESERVED_MEM_HIGH:
        return reset_peak(&pool->reserved_high, pool->reserved, value);
    case CU_MEMPOOL_ATTR_USED_MEM_HIGH:
        return reset_peak(&pool->used_high, pool->used, value);
    default:
        return CUDA_ERROR_INVALID_VALUE;
    }
}

CUresult guest_cuMemPoolSetAttribute(CUmemoryPool pool, CUmemPool_attribute attribute, void *value)
{
    struct pool *known;
    CUresult r;

    known = pool_lock(pool);
    r = known ? set_attribute(known, attribute, value) : CUDA_ERROR_INVALID_VALUE;
    pool_unlock();
    return r;
}

CUresult guest_cuMemPoolGetAccess(CUmemAccess_flags *flags, CUmemoryPool pool,
                                  CUmemLocation *location)
{
    if (!is_pool(pool) || location->type == CU_MEM_LOCATION_TYPE_INVALID) {
        return CUDA_ERROR_INVALID_VALUE;
    }
    *flags = location->type == CU_MEM_LOCATION_TYPE_DEVICE && location->id == 0
                 ? CU_MEM_ACCESS_FLAGS_PROT_READWRITE
                 : CU_MEM_ACCESS_FLAGS_PROT_NONE;
    return CUDA_SUCCESS;
}

/* The device has access to its own pools, and there is no other. */
CUresult guest_cuMemPoolSetAccess(CUmemoryPool pool, const CUmemAccessDesc *access, size_t count)
{
    if (!is_pool(pool) || (count > 0 && !access)) {
        return CUDA_ERROR_INVALID_VALUE;
    }
    for (size_t i = 0; i < count; i++) {
        if (access[i].location.type == CU_MEM_LOCATION_TYPE_INVALID) {
            return CUDA_ERROR_NOT_SUPPORTED;
        }
        if (access[i].location.type != CU_MEM_LOCATION_TYPE_DEVICE ||
            access[i].flags != CU_MEM_ACCESS_FLAGS_PROT_READWRITE) {
            return CUDA_ERROR_INVALID_VALUE;
        }
        if (access[i].location.id != 0) {
            return CUDA_ERROR_INVALID_DEVICE;
        }
    }
    return CUDA_SUCCESS;
}
