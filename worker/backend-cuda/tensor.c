/* SPDX-License-Identifier: MIT */
/*
 * Tensor maps, which the driver encodes: protocol/vgpu-tensor.h. The driver reads arrays as long as
 * the rank says, so that is checked here; all else it checks itself. A map is 128 bytes that a
 * guest's kernels get as a parameter, and holds an address that the GPU looks up as any other.
 */
#include <string.h>

#include "protocol/vgpu-tensor.h"
#include "worker/api-calls.h"
#include "worker/backend-cuda/cuda-driver.h"

static CUresult encode_tensor(CUtensorMap *map, const vgpu_tensor *t)
{
    void *address = (void *)(uintptr_t)t->address;

    switch (t->form) {
    case VGPU_TENSOR_TILED:
        return cu.TensorMapEncodeTiled(map, t->type, t->rank, address, t->sizes, t->strides, t->box,
                                       t->steps, t->interleave, t->swizzle, t->promotion, t->fill);
    case VGPU_TENSOR_IM2COL:
        return cu.TensorMapEncodeIm2col(map, t->type, t->rank, address, t->sizes, t->strides,
                                        t->lower, t->upper, t->channels, t->pixels, t->steps,
                                        t->interleave, t->swizzle, t->promotion, t->fill);
    default:
        return cu.TensorMapEncodeIm2colWide
                   ? cu.TensorMapEncodeIm2colWide(map, t->type, t->rank, address, t->sizes,
                                                  t->strides, t->lower[0], t->upper[0], t->channels,
                                                  t->pixels, t->steps, t->interleave, t->wide_mode,
                                                  t->swizzle, t->promotion, t->fill)
                   : CUDA_ERROR_NOT_SUPPORTED;
    }
}

enum vgpu_gpu_error cuda_tensor_map_encode(struct gpu *gpu, uint64_t *map,
                                           const vgpu_tensor *tensor)
{
    const uint32_t least = tensor->form == VGPU_TENSOR_TILED ? 1 : 3;
    CUtensorMap made = {{0}};
    CUresult error;

    (void)gpu;
    if (tensor->form > VGPU_TENSOR_IM2COL_WIDE || tensor->rank < least ||
        tensor->rank > VGPU_TENSOR_RANK) {
        return VGPU_GPU_INVALID_VALUE;
    }
    if (!cu.TensorMapEncodeTiled || !cu.TensorMapEncodeIm2col) {
        return VGPU_GPU_NOT_SUPPORTED;
    }
    error = encode_tensor(&made, tensor);
    memcpy(map, &made, sizeof(made));
    return error;
}

enum vgpu_gpu_error cuda_tensor_map_move(struct gpu *gpu, uint64_t *map, const uint64_t *before,
                                         CUdeviceptr address)
{
    CUtensorMap moved;
    CUresult error;

    (void)gpu;
    if (!cu.TensorMapReplaceAddress) {
        return VGPU_GPU_NOT_SUPPORTED;
    }
    memcpy(&moved, before, sizeof(moved));
    error = cu.TensorMapReplaceAddress(&moved, (void *)(uintptr_t)address);
    memcpy(map, &moved, sizeof(moved));
    return error;
}
