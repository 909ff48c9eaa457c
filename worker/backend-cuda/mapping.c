/* SPDX-License-Identifier: MIT */
/*
 * Addresses and memory apart from each other, on the cuda backend: as the driver has it.
 *
 * A guest reserves addresses, creates memory, maps the one to the other and sets who may access it.
 * Its own half of that is guest/libcuda/calls/mapping.c. What counts against the VM's memory, and
 * when, is in api-memory.c, which also lets nothing be released, mapped or unmapped but memory that
 * was created here. So these three calls need not ask whether the driver has them: it has made the
 * memory. The others do, since a driver may lack some of the calls, and then none is used.
 */

#include <string.h>

#include "worker/api-calls.h"
#include "worker/backend-cuda/cuda-api.h"
#include "worker/backend-cuda/cuda-driver.h"
#include "worker/backend-cuda/raw.h"

/* The device's own memory, for this process alone. */
static CUresult own_memory(CUmemAllocationProp *prop)
{
    *prop = (CUmemAllocationProp){.type = CU_MEM_ALLOCATION_TYPE_PINNED,
                                  .location = {.type = CU_MEM_LOCATION_TYPE_DEVICE}};
    return !cu.lacks[CUDA_MAPPING] ? cu.CtxGetDevice(&prop->location.id) : CUDA_ERROR_NOT_SUPPORTED;
}

/* `wanted` is a wish: the driver may choose other addresses, and the guest looks which it got. */
enum vgpu_gpu_error cuda_range_reserve(struct gpu *gpu, uint64_t bytes, uint64_t alignment,
                                       uint64_t wanted, uint64_t *address)
{
    CUdeviceptr made = 0;
    const CUresult error = !cu.lacks[CUDA_MAPPING]
                               ? cu.MemAddressReserve(&made, bytes, alignment, wanted, 0)
                               : CUDA_ERROR_NOT_SUPPORTED;

    (void)gpu;
    *address = made;
    return error;
}

enum vgpu_gpu_error cuda_range_free(struct gpu *gpu, uint64_t address, uint64_t bytes)
{
    (void)gpu;
    return !cu.lacks[CUDA_MAPPING] ? cu.MemAddressFree(address, bytes) : CUDA_ERROR_NOT_SUPPORTED;
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
        error = cu.MemCreate(&handle, bytes, &prop, 0);
    }
    *memory = handle;
    return error;
}

enum vgpu_gpu_error cuda_memory_release(struct gpu *gpu, uint64_t memory)
{
    (void)gpu;
    return cu.MemRelease(memory);
}

enum vgpu_gpu_error cuda_memory_map(struct gpu *gpu, uint64_t address, uint64_t bytes,
                                    uint64_t memory)
{
    (void)gpu;
    return cu.MemMap(address, bytes, 0, memory, 0);
}

enum vgpu_gpu_error cuda_memory_unmap(struct gpu *gpu, uint64_t address, uint64_t bytes)
{
    (void)gpu;
    return cu.MemUnmap(address, bytes);
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
        error = cu.MemSetAccess(address, bytes, &access, 1);
    }
    return error;
}

enum vgpu_gpu_error cuda_memory_granularity(struct gpu *gpu, size_t *least, size_t *best)
{
    CUmemAllocationProp prop;
    CUresult error = own_memory(&prop);

    (void)gpu;
    if (error == CUDA_SUCCESS) {
        error = cu.MemGetAllocationGranularity(least, &prop, CU_MEM_ALLOC_GRANULARITY_MINIMUM);
    }
    if (error == CUDA_SUCCESS) {
        error = cu.MemGetAllocationGranularity(best, &prop, CU_MEM_ALLOC_GRANULARITY_RECOMMENDED);
    }
    return error;
}

/* Memory of several processes: CUDA's handles of it, which are good between any of them. */

enum vgpu_gpu_error cuda_share_name(struct gpu *gpu, uint64_t address, uint8_t name[64])
{
    CUipcMemHandle handle;
    const CUresult error = cu.lacks[CUDA_SHARING] ? CUDA_ERROR_NOT_SUPPORTED
                                                  : cu.IpcGetMemHandle(&handle, address);

    (void)gpu;
    static_assert(sizeof(handle) == 64, "as gpu.h has it");
    if (error == CUDA_SUCCESS) {
        memcpy(name, &handle, sizeof(handle));
    }
    return error;
}

enum vgpu_gpu_error cuda_share_open(struct gpu *gpu, const uint8_t name[64], uint64_t bytes,
                                    int file, uint64_t *address)
{
    CUipcMemHandle handle;
    CUdeviceptr made = 0;
    CUresult error = CUDA_ERROR_NOT_SUPPORTED;

    (void)gpu;
    (void)bytes;
    (void)file;
    memcpy(&handle, name, sizeof(handle));
    if (!cu.lacks[CUDA_SHARING]) {
        error = cu.IpcOpenMemHandle(&made, handle, CU_IPC_MEM_LAZY_ENABLE_PEER_ACCESS);
    }
    *address = made;
    return error;
}

enum vgpu_gpu_error cuda_share_close(struct gpu *gpu, uint64_t address)
{
    (void)gpu;
    return cu.IpcCloseMemHandle(address);
}
