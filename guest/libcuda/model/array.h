/* SPDX-License-Identifier: MIT */
/* Arrays, plain and mipmapped ones. */
#ifndef VGPU_GUEST_LIBCUDA_MODEL_ARRAY_H
#define VGPU_GUEST_LIBCUDA_MODEL_ARRAY_H

#include "api/cuda-types.h"
#include "guest/libcuda/state/object.h"

struct array {
    struct object object;
    CUDA_ARRAY3D_DESCRIPTOR shape;
    unsigned count;       /* of levels; 0: it is not mipmapped */
    bool inner;           /* a level of a mipmapped one, with which it goes */
    struct array **level; /* `count` of them; NULL: not asked for yet */
};

/* The array that a program means, NULL when there is none; the second one is a mipmapped one. */
struct array *array_find(CUarray array);
struct array *mipmap_find(CUmipmappedArray array);

/* An array of the current context's; with `levels` a mipmapped one. */
CUresult array_create(CUarray *array, CUDA_ARRAY3D_DESCRIPTOR shape, unsigned levels);

/* INVALID_HANDLE for NULL, and for a level, which goes with its array. */
CUresult array_destroy(struct array *array);

/* A level, which is the same each time. */
CUresult array_level(struct array *array, unsigned number, CUarray *level);

/*
 * Whether a box of so many bytes, rows and slices lies in the array. What has a format of unknown
 * size is left to the host's driver.
 */
bool array_holds(const struct array *array, const uint64_t at[3], const uint64_t extent[3]);

/* Destroys all of a context's. */
void array_release(const struct context *context);

#endif
