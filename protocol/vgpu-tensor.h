/* SPDX-License-Identifier: MIT */
/*
 * Tensor maps: what a guest's program says of a tensor, for the host's driver to encode
 * (tensor_map_encode in api/private.api). The driver's own functions take arrays whose lengths
 * follow from the rank; here they have room for the largest.
 */
#ifndef VGPU_PROTOCOL_VGPU_TENSOR_H
#define VGPU_PROTOCOL_VGPU_TENSOR_H

#include <assert.h>
#include <stdint.h>

#define VGPU_TENSOR_RANK 5u /* the most dimensions */

/* Which of the driver's functions encodes it. */
enum vgpu_tensor_form {
    VGPU_TENSOR_TILED = 0,       /* cuTensorMapEncodeTiled */
    VGPU_TENSOR_IM2COL = 1,      /* cuTensorMapEncodeIm2col */
    VGPU_TENSOR_IM2COL_WIDE = 2, /* cuTensorMapEncodeIm2colWide */
};

/*
 * Numbers are CUDA's, and are the driver's to check, but for form and rank. What a form does not
 * use is 0. Of each array the first entries count, as many as CUDA says for the rank.
 */
typedef struct vgpu_tensor {
    uint64_t address;                       /* device memory */
    uint64_t sizes[VGPU_TENSOR_RANK];       /* elements */
    uint64_t strides[VGPU_TENSOR_RANK - 1]; /* bytes */
    uint32_t steps[VGPU_TENSOR_RANK];       /* elements */
    uint32_t box[VGPU_TENSOR_RANK];         /* TILED: elements */
    int32_t lower[VGPU_TENSOR_RANK - 2];    /* IM2COL; of IM2COL_WIDE the first */
    int32_t upper[VGPU_TENSOR_RANK - 2];
    uint32_t form;     /* enum vgpu_tensor_form */
    uint32_t rank;     /* TILED: 1 to 5; others: 3 to 5 */
    uint32_t type;     /* CUtensorMapDataType */
    uint32_t channels; /* per pixel */
    uint32_t pixels;   /* per column */
    uint32_t interleave, wide_mode, swizzle, promotion, fill;
} vgpu_tensor; /* a word of its own, as api/ has types */

static_assert(sizeof(vgpu_tensor) == 184, "ABI");

#endif
