/* SPDX-License-Identifier: MIT */
/*
 * Arrays where there is no GPU: rows of memory one behind another, level by level, so that copies
 * and what programs ask about arrays can be tested. Nothing can be read through a texture.
 */
#include <stdlib.h>

#include "api/array-format.h"
#include "worker/api-calls.h"
#include "worker/backend-cpu/cpu.h"

struct gpu_array {
    uint64_t address;
    uint64_t width, height, depth; /* bytes, rows, slices; none is 0 */
    vgpu_array_shape shape;
    bool inner; /* a level: its memory is the mipmapped array's */
};

/* A level without its memory. Layers do not get fewer. */
static struct gpu_array level_of(const vgpu_array_shape *shape, unsigned number)
{
    const bool layers = shape->flags & (CUDA_ARRAY3D_LAYERED | CUDA_ARRAY3D_CUBEMAP);

    return (struct gpu_array){
        .width = array_level_extent(shape->width, number) *
                 array_element_bytes(shape->format, shape->channels),
        .height = array_level_extent(shape->height, number),
        .depth = array_level_extent(shape->depth, layers ? 0 : number),
        .shape = *shape,
        .inner = true,
    };
}

/* Sizes fit 64 bits: api-array.c has looked. */
static uint64_t bytes_before(const vgpu_array_shape *shape, unsigned levels)
{
    uint64_t bytes = 0;

    for (unsigned i = 0; i < levels; i++) {
        const struct gpu_array level = level_of(shape, i);

        bytes += level.width * level.height * level.depth;
    }
    return bytes;
}

enum vgpu_gpu_error cpu_array_create(struct gpu *gpu, const vgpu_array_shape *shape,
                                     struct gpu_array **array)
{
    struct gpu_array *made;
    enum vgpu_gpu_error error;

    if (shape->channels == 3 || array_element_bytes(shape->format, shape->channels) == 0) {
        return VGPU_GPU_INVALID_VALUE;
    }
    made = malloc(sizeof(*made));
    if (!made) {
        return VGPU_GPU_OUT_OF_MEMORY;
    }
    *made = level_of(shape, 0);
    made->inner = false;
    error = gpu->ops->mem_alloc(gpu, bytes_before(shape, shape->levels ? shape->levels : 1),
                                &made->address);
    if (error != VGPU_GPU_SUCCESS) {
        free(made);
        return error;
    }
    *array = made;
    return VGPU_GPU_SUCCESS;
}

void cpu_array_destroy(struct gpu *gpu, struct gpu_array *array)
{
    if (!array->inner) {
        gpu->ops->mem_free(gpu, array->address);
    }
    free(array);
}

enum vgpu_gpu_error cpu_array_level(struct gpu *gpu, struct gpu_array *array, unsigned number,
                                    struct gpu_array **level)
{
    struct gpu_array *made = malloc(sizeof(*made));

    (void)gpu;
    if (!made) {
        return VGPU_GPU_OUT_OF_MEMORY;
    }
    *made = level_of(&array->shape, number);
    made->address = array->address + bytes_before(&array->shape, number);
    *level = made;
    return VGPU_GPU_SUCCESS;
}

/* The side as memory; false when it goes beyond the array. */
static bool as_memory(const struct gpu_array_side *side, const struct gpu_array_copy *copy,
                      uint64_t *address, uint64_t *pitch)
{
    const struct gpu_array *array = side->array;

    if (!array) {
        *address = side->address;
        *pitch = side->pitch;
        return true;
    }
    *address = array->address + (side->z * array->height + side->y) * array->width + side->x;
    *pitch = array->width;
    return array_extent_holds(side->x, copy->width, array->width) &&
           array_extent_holds(side->y, copy->rows, array->height) &&
           array_extent_holds(side->z, 1, array->depth);
}

enum vgpu_gpu_error cpu_array_copy(struct gpu *gpu, const struct gpu_array_copy *copy,
                                   struct gpu_stream *stream)
{
    struct gpu_rows rows = {
        .kind = copy->to.host     ? VGPU_COPY_FROM_DEVICE
                : copy->from.host ? VGPU_COPY_TO_DEVICE
                                  : VGPU_COPY_ON_DEVICE,
        .width = copy->width,
        .rows = copy->rows,
    };

    return as_memory(&copy->to, copy, &rows.to, &rows.to_pitch) &&
                   as_memory(&copy->from, copy, &rows.from, &rows.from_pitch)
               ? gpu->ops->copy_rows(gpu, &rows, stream)
               : VGPU_GPU_INVALID_VALUE;
}
