/* SPDX-License-Identifier: MIT */
/*
 * Memory, copies and fills on the cuda backend.
 *
 * Addresses of device memory are not checked here: the GPU does that, in a context that is this
 * session's alone. Those of the host are checked before, by command.c, api-host.c and
 * exec-graph.c, which let the arena through and nothing else.
 */

#include <string.h>

#include "worker/backend-cuda/cuda-driver.h"
#include "worker/backend-cuda/raw.h"
#include "worker/gpu.h"

/*
 * Bytes that the driver takes into its command buffer when they come from memory that is not
 * pinned; from pinned memory the copy engine would fetch them, which takes longer.
 */
#define SMALL_COPY 1024u

enum vgpu_gpu_error cuda_mem_info(struct gpu *gpu, uint64_t *free_bytes, uint64_t *total)
{
    size_t f = 0, t = 0;
    const CUresult error = cu.MemGetInfo(&f, &t);

    (void)gpu;
    *free_bytes = f;
    *total = t;
    return error;
}

enum vgpu_gpu_error cuda_mem_alloc(struct gpu *gpu, uint64_t bytes, uint64_t *address)
{
    CUdeviceptr pointer = 0;
    const CUresult error = cu.MemAlloc(&pointer, bytes);

    (void)gpu;
    *address = pointer;
    return error;
}

/*
 * The driver waits for all work before it frees. So the callers have seen to it that there is none:
 * this thread would wait with it, and no turn be returned.
 */
enum vgpu_gpu_error cuda_mem_free(struct gpu *gpu, uint64_t address)
{
    (void)gpu;
    return cu.MemFree(address);
}

enum vgpu_gpu_error cuda_copy(struct gpu *gpu, const struct gpu_copy *copy,
                              struct gpu_stream *stream)
{
    /* First: the next line makes the stream an active one. */
    const bool small = copy->bytes <= SMALL_COPY && cuda_is_idle(gpu);
    const CUstream handle = cuda_submit(gpu, stream);
    const void *from = (const void *)(uintptr_t)copy->from;
    uint8_t bytes[SMALL_COPY];

    switch (copy->kind) {
    case VGPU_COPY_TO_DEVICE:
        if (small) {
            /*
             * Read now instead of when the copy's time comes: nothing is on the GPU that could
             * still change them. The driver takes them out of `bytes` before it returns.
             */
            memcpy(bytes, from, copy->bytes);
            from = bytes;
        }
        return cu.MemcpyHtoDAsync(copy->to, from, copy->bytes, handle);
    case VGPU_COPY_FROM_DEVICE:
        return cu.MemcpyDtoHAsync((void *)(uintptr_t)copy->to, copy->from, copy->bytes, handle);
    default:
        return cu.MemcpyDtoDAsync(copy->to, copy->from, copy->bytes, handle);
    }
}

enum vgpu_gpu_error cuda_fill(struct gpu *gpu, const struct gpu_fill *fill,
                              struct gpu_stream *stream)
{
    const CUstream handle = cuda_submit(gpu, stream);

    switch (fill->width) {
    case 1:
        return cu.MemsetD8Async(fill->address, (unsigned char)fill->value, fill->count, handle);
    case 2:
        return cu.MemsetD16Async(fill->address, (unsigned short)fill->value, fill->count, handle);
    default:
        return cu.MemsetD32Async(fill->address, fill->value, fill->count, handle);
    }
}

enum vgpu_gpu_error cuda_copy_rows(struct gpu *gpu, const struct gpu_rows *rows,
                                   struct gpu_stream *stream)
{
    const CUDA_MEMCPY2D copy = {
        .srcMemoryType = rows->kind == VGPU_COPY_TO_DEVICE ? CU_MEMORYTYPE_HOST
                                                           : CU_MEMORYTYPE_DEVICE,
        .srcHost = (const void *)(uintptr_t)rows->from,
        .srcDevice = rows->from,
        .srcPitch = rows->from_pitch,
        .dstMemoryType = rows->kind == VGPU_COPY_FROM_DEVICE ? CU_MEMORYTYPE_HOST
                                                             : CU_MEMORYTYPE_DEVICE,
        .dstHost = (void *)(uintptr_t)rows->to,
        .dstDevice = rows->to,
        .dstPitch = rows->to_pitch,
        .WidthInBytes = rows->width,
        .Height = rows->rows,
    };

    if (rows->rows == 1) {
        /* There pitches do not matter, but the driver looks at them. */
        return cuda_copy(gpu, &(struct gpu_copy){rows->kind, rows->to, rows->from, rows->width},
                         stream);
    }
    return cu.Memcpy2DAsync(&copy, cuda_submit(gpu, stream));
}

enum vgpu_gpu_error cuda_fill_rows(struct gpu *gpu, const struct gpu_fill_rows *fill,
                                   struct gpu_stream *stream)
{
    CUstream handle;

    if (fill->rows == 1) {
        /* There the pitch does not matter, but the driver looks at it. */
        return cuda_fill(gpu,
                         &(struct gpu_fill){
                             .address = fill->address,
                             .count = fill->width,
                             .value = fill->value,
                             .width = fill->element,
                         },
                         stream);
    }
    handle = cuda_submit(gpu, stream);
    switch (fill->element) {
    case 1:
        return cu.MemsetD2D8Async(fill->address, fill->pitch, (unsigned char)fill->value,
                                  fill->width, fill->rows, handle);
    case 2:
        return cu.MemsetD2D16Async(fill->address, fill->pitch, (unsigned short)fill->value,
                                   fill->width, fill->rows, handle);
    default:
        return cu.MemsetD2D32Async(fill->address, fill->pitch, fill->value, fill->width, fill->rows,
                                   handle);
    }
}
