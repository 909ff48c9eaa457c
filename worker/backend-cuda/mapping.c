/* SPDX-License-Identifier: MIT */
/*
 * Addresses and memory apart from each other, on the cuda backend: as the driver has it.
 *
 * A guest reserves addresses, creates memory, maps the one to the other and sets who may access it.
 * Its own half of that is guest/libcuda/mapping.c. What counts against the VM's memory, and when,
 * is in api-memory.c, which also lets nothing be released, mapped or unmapped but memory that was
 * created here. So these three calls need not ask whether the driver has them: it has made the
 * memory. The others do, since a driver may lack some of the calls, and then none is used.
 */

#include "worker/api-calls.h"
#include "worker/backend-cuda/cuda-api.h"
#include "worker/backend-cuda/cuda-driver.h"
#include "worker/backend-cuda/raw.h"

/* member, symbol, parameters */
#define MAPPING_CALLS(X)                                                                           \
    X(AddressReserve, "cuMemAddressReserve",                                                       \
      (CUdeviceptr * address, size_t bytes, size_t alignment, CUdeviceptr wanted,                  \
       unsigned long long flags))                                                                  \
    X(AddressFree, "cuMemAddressFree", (CUdeviceptr address, size_t bytes))                        \
    X(Create, "cuMemCreate",                                                                       \
      (CUmemGenericAllocationHandle * handle, size_t bytes, const CUmemAllocationProp *prop,       \
       unsigned long long flags))                                                                  \
    X(Release, "cuMemRelease", (CUmemGenericAllocationHandle handle))                              \
    X(Map, "cuMemMap",                                                                             \
      (CUdeviceptr address, size_t bytes, size_t offset, CUmemGenericAllocationHandle handle,      \
       unsigned long long flags))                                                                  \
    X(Unmap, "cuMemUnmap", (CUdeviceptr address, size_t bytes))                                    \
    X(SetAccess, "cuMemSetAccess",                                                                 \
      (CUdeviceptr address, size_t bytes, const CUmemAccessDesc *access, size_t count))            \
    X(GetAllocationGranularity, "cuMemGetAllocationGranularity",                                   \
      (size_t * granularity, const CUmemAllocationProp *prop,                                      \
       CUmemAllocationGranularity_flags option))                                                   \
    X(CtxGetDevice, "cuCtxGetDevice", (CUdevice * device))

static struct mapping_api {
#define MAPPING_MEMBER(member, symbol, parameters) CUresult(*member) parameters;
    MAPPING_CALLS(MAPPING_MEMBER)
#undef MAPPING_MEMBER
    bool complete; /* the driver has them all */
} api;

void cuda_mapping_load(void *library)
{
    static const struct cuda_symbol calls[] = {
#define MAPPING_SYMBOL(member, symbol, parameters) {symbol, offsetof(struct mapping_api, member)},
        MAPPING_CALLS(MAPPING_SYMBOL)
#undef MAPPING_SYMBOL
    };

    api.complete = cuda_look_up(library, &api, calls, sizeof(calls) / sizeof(calls[0]));
}

/* The device's own memory, for this process alone. */
static CUresult own_memory(CUmemAllocationProp *prop)
{
    *prop = (CUmemAllocationProp){.type = CU_MEM_ALLOCATION_TYPE_PINNED,
                                  .location = {.type = CU_MEM_LOCATION_TYPE_DEVICE}};
    return api.complete ? api.CtxGetDevice(&prop->location.id) : CUDA_ERROR_NOT_SUPPORTED;
}

/* `wanted` is a wish: the driver may choose other addresses, and the guest looks which it got. */
enum vgpu_gpu_error cuda_range_reserve(struct gpu *gpu, uint64_t bytes, uint64_t alignment,
                                       uint64_t wanted, uint64_t *address)
{
    CUdeviceptr made = 0;
    const CUresult error = api.complete ? api.AddressReserve(&made, bytes, alignment, wanted, 0)
                                        : CUDA_ERROR_NOT_SUPPORTED;

    (void)gpu;
    *address = made;
    return error;
}

enum vgpu_gpu_error cuda_range_free(struct gpu *gpu, uint64_t address, uint64_t bytes)
{
    (void)gpu;
    return api.complete ? api.AddressFree(address, bytes) : CUDA_ERROR_NOT_SUPPORTED;
}

enum vgpu_gpu_error cuda_memory_create(struct gpu *gpu, uint64_t bytes, uint32_t compression,
                                       uint64_t *memory)
{
    CUmemGenericAllocationHandle handle = 0;
    CUmemAllocationProp prop;
    CUresult error = own_memory(&prop);

    (void)gpu;
    /* At most 255: api-memory.c has looked. */
    prop.allocFlags.compressionType = (unsigned char)compression;
    if (error == CUDA_SUCCESS) {
        error = api.Create(&handle, bytes, &prop, 0);
    }
    *memory = handle;
    return error;
}

enum vgpu_gpu_error cuda_memory_release(struct gpu *gpu, uint64_t memory)
{
    (void)gpu;
    return api.Release(memory);
}

enum vgpu_gpu_error cuda_memory_map(struct gpu *gpu, uint64_t address, uint64_t bytes,
                                    uint64_t memory)
{
    (void)gpu;
    return api.Map(address, bytes, 0, memory, 0);
}

enum vgpu_gpu_error cuda_memory_unmap(struct gpu *gpu, uint64_t address, uint64_t bytes)
{
    (void)gpu;
    return api.Unmap(address, bytes);
}

/* Access of this device alone; `flags` say which: none, to read, or to read and write. */
enum vgpu_gpu_error cuda_memory_access(struct gpu *gpu, CUdeviceptr address, size_t bytes,
                                       unsigned flags)
{
    CUmemAllocationProp prop;
    CUresult error = own_memory(&prop);
    const CUmemAccessDesc access = {.location = prop.location, .flags = (CUmemAccess_flags)flags};

    (void)gpu;
    if (error == CUDA_SUCCESS) {
        error = api.SetAccess(address, bytes, &access, 1);
    }
    return error;
}

enum vgpu_gpu_error cuda_memory_granularity(struct gpu *gpu, size_t *least, size_t *best)
{
    CUmemAllocationProp prop;
    CUresult error = own_memory(&prop);

    (void)gpu;
    if (error == CUDA_SUCCESS) {
        error = api.GetAllocationGranularity(least, &prop, CU_MEM_ALLOC_GRANULARITY_MINIMUM);
    }
    if (error == CUDA_SUCCESS) {
        error = api.GetAllocationGranularity(best, &prop, CU_MEM_ALLOC_GRANULARITY_RECOMMENDED);
    }
    return error;
}
