/* SPDX-License-Identifier: MIT */
/*
 * Tensor maps: the descriptions of tensors that Hopper's and later GPUs copy by. What they look
 * like inside is the driver's own, so the host's driver makes them. Libraries keep them: one costs
 * a round trip, and is used for many launches.
 */
#include <string.h>

#include "guest/libcuda/calls/guest-calls.h"
#include "guest/libcuda/wire/wire-calls.h"
#include "protocol/vgpu-tensor.h"

/* What all forms have beside arrays, in the order of CUDA's arguments. */
static vgpu_tensor describe_tensor(enum vgpu_tensor_form form, CUtensorMapDataType type,
                                   unsigned rank, const void *address,
                                   CUtensorMapInterleave interleave, CUtensorMapSwizzle swizzle,
                                   CUtensorMapL2promotion promotion, CUtensorMapFloatOOBfill fill)
{
    return (vgpu_tensor){
        .form = form,
        .type = type,
        .rank = rank,
        .address = (uintptr_t)address,
        .interleave = interleave,
        .swizzle = swizzle,
        .promotion = promotion,
        .fill = fill,
    };
}

/* The arrays of all forms: a size and a step for each dimension, a stride for all but the first. */
static void describe_dimensions(vgpu_tensor *tensor, const cuuint64_t *sizes,
                                const cuuint64_t *strides, const cuuint32_t *steps)
{
    memcpy(tensor->sizes, sizes, tensor->rank * sizeof(*sizes));
    memcpy(tensor->steps, steps, tensor->rank * sizeof(*steps));
    if (tensor->rank > 1) {
        memcpy(tensor->strides, strides, (tensor->rank - 1) * sizeof(*strides));
    }
}

CUresult guest_cuTensorMapEncodeTiled(CUtensorMap *map, CUtensorMapDataType type, cuuint32_t rank,
                                      void *address, const cuuint64_t *sizes,
                                      const cuuint64_t *strides, const cuuint32_t *box,
                                      const cuuint32_t *steps, CUtensorMapInterleave interleave,
                                      CUtensorMapSwizzle swizzle, CUtensorMapL2promotion promotion,
                                      CUtensorMapFloatOOBfill fill)
{
    vgpu_tensor tensor = describe_tensor(VGPU_TENSOR_TILED, type, rank, address, interleave,
                                         swizzle, promotion, fill);

    if (rank == 0 || rank > VGPU_TENSOR_RANK || (rank > 1 && !strides)) {
        return CUDA_ERROR_INVALID_VALUE;
    }
    describe_dimensions(&tensor, sizes, strides, steps);
    memcpy(tensor.box, box, rank * sizeof(*box));
    return call_tensor_map_encode(map->opaque, &tensor);
}

/* The corners are of the dimensions in the middle: all but the first, channels, and the last. */
CUresult guest_cuTensorMapEncodeIm2col(CUtensorMap *map, CUtensorMapDataType type, cuuint32_t rank,
                                       void *address, const cuuint64_t *sizes,
                                       const cuuint64_t *strides, const int *lower,
                                       const int *upper, cuuint32_t channels, cuuint32_t pixels,
                                       const cuuint32_t *steps, CUtensorMapInterleave interleave,
                                       CUtensorMapSwizzle swizzle, CUtensorMapL2promotion promotion,
                                       CUtensorMapFloatOOBfill fill)
{
    vgpu_tensor tensor = describe_tensor(VGPU_TENSOR_IM2COL, type, rank, address, interleave,
                                         swizzle, promotion, fill);

    if (rank < 3 || rank > VGPU_TENSOR_RANK) {
        return CUDA_ERROR_INVALID_VALUE;
    }
    describe_dimensions(&tensor, sizes, strides, steps);
    memcpy(tensor.lower, lower, (rank - 2) * sizeof(*lower));
    memcpy(tensor.upper, upper, (rank - 2) * sizeof(*upper));
    tensor.channels = channels;
    tensor.pixels = pixels;
    return call_tensor_map_encode(map->opaque, &tensor);
}

CUresult
guest_cuTensorMapEncodeIm2colWide(CUtensorMap *map, CUtensorMapDataType type, cuuint32_t rank,
                                  void *address, const cuuint64_t *sizes, const cuuint64_t *strides,
                                  int lower, int upper, cuuint32_t channels, cuuint32_t pixels,
                                  const cuuint32_t *steps, CUtensorMapInterleave interleave,
                                  CUtensorMapIm2ColWideMode mode, CUtensorMapSwizzle swizzle,
                                  CUtensorMapL2promotion promotion, CUtensorMapFloatOOBfill fill)
{
    vgpu_tensor tensor = describe_tensor(VGPU_TENSOR_IM2COL_WIDE, type, rank, address, interleave,
                                         swizzle, promotion, fill);

    if (rank < 3 || rank > VGPU_TENSOR_RANK) {
        return CUDA_ERROR_INVALID_VALUE;
    }
    describe_dimensions(&tensor, sizes, strides, steps);
    tensor.lower[0] = lower;
    tensor.upper[0] = upper;
    tensor.channels = channels;
    tensor.pixels = pixels;
    tensor.wide_mode = mode;
    return call_tensor_map_encode(map->opaque, &tensor);
}
