/* SPDX-License-Identifier: MIT */
/*
 * Arrays, textures and surfaces: what a guest's program says of them, for the calls array_create,
 * array_copy and texture_create of api/private.api.
 *
 * Numbers whose meaning is not told here are CUDA's, of the structure that is named, and are the
 * driver's to check. A handle is the worker's, as in vgpu-queue.h.
 */
#ifndef VGPU_PROTOCOL_VGPU_ARRAY_H
#define VGPU_PROTOCOL_VGPU_ARRAY_H

#include <assert.h>
#include <stdint.h>

/* CUDA_ARRAY3D_DESCRIPTOR, and how many levels a mipmapped array has; 0: it is a plain one. */
typedef struct vgpu_array_shape {
    uint64_t width, height, depth; /* elements; 0: the array has fewer dimensions */
    uint32_t format, channels, flags, levels;
} vgpu_array_shape;
static_assert(sizeof(vgpu_array_shape) == 40, "ABI");

/* What one side of a copy is. */
enum vgpu_array_side_kind {
    VGPU_ARRAY_SIDE_ARRAY = 0,
    VGPU_ARRAY_SIDE_DEVICE = 1, /* device memory */
    VGPU_ARRAY_SIDE_ARENA = 2,  /* in the session's part of the arena, all of it */
};

struct vgpu_array_side {
    uint64_t kind;    /* enum vgpu_array_side_kind */
    uint64_t array;   /* ARRAY: a handle; else 0 */
    uint64_t address; /* DEVICE, ARENA: of the first byte; else 0 */
    uint64_t pitch;   /* DEVICE, ARENA: bytes to the next row, not less than a row's; else 0 */
    uint64_t rows;    /* DEVICE, ARENA: to the next slice, not less than are copied; else 0 */
    uint64_t x, y, z; /* ARRAY: bytes, rows, slices or layers from its origin; else 0 */
};
static_assert(sizeof(struct vgpu_array_side) == 64, "ABI");

/* A copy of which one side at least is an array. */
typedef struct vgpu_array_copy {
    struct vgpu_array_side to, from;
    uint64_t width, height, depth; /* bytes, rows, slices; none is 0 */
} vgpu_array_copy;
static_assert(sizeof(vgpu_array_copy) == 152, "ABI");

/* What kernels read or write through. */
enum vgpu_texture_form {
    VGPU_TEXTURE = 0,
    VGPU_SURFACE = 1, /* of an array; all that is about sampling and views is 0 */
};

/* CUDA_RESOURCE_DESC, CUDA_TEXTURE_DESC and CUDA_RESOURCE_VIEW_DESC. */
typedef struct vgpu_texture {
    uint64_t array;                /* a handle of an array or a mipmapped one; else 0 */
    uint64_t address;              /* device memory; else 0 */
    uint64_t bytes;                /* of linear memory; else 0 */
    uint64_t width, height, pitch; /* of rows of memory: elements, rows, bytes; else 0 */
    uint64_t view_width, view_height, view_depth;
    uint32_t form;             /* enum vgpu_texture_form */
    uint32_t resource;         /* CUresourcetype; it says which of the above count */
    uint32_t format, channels; /* of memory; else 0 */
    uint32_t address_mode[3], filter, flags, anisotropy, level_filter;
    float level_bias, level_min, level_max, border[4];
    uint32_t view; /* 0: all of the array, and what is about the view is 0 */
    uint32_t view_format, first_level, last_level, first_layer, last_layer;
} vgpu_texture;
static_assert(sizeof(vgpu_texture) == 168, "ABI");

#endif
