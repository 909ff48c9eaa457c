/* SPDX-License-Identifier: MIT */
/*
 * Arrays, textures and surfaces, as the driver has them. Handles were looked up and addresses in
 * the arena checked by api-array.c; what else is wrong the driver finds out.
 */
#include <stdlib.h>
#include <string.h>

#include "worker/api-calls.h"
#include "worker/backend-cuda/cuda-driver.h"
#include "worker/backend-cuda/raw.h"

struct gpu_array {
    CUarray plain; /* one of the two is set */
    CUmipmappedArray levels;
    bool inner; /* a level, which goes with what it is of */
};

enum vgpu_gpu_error cuda_array_create(struct gpu *gpu, const vgpu_array_shape *shape,
                                      struct gpu_array **array)
{
    const CUDA_ARRAY3D_DESCRIPTOR wanted = {
        .Width = shape->width,
        .Height = shape->height,
        .Depth = shape->depth,
        .Format = (CUarray_format)shape->format,
        .NumChannels = shape->channels,
        .Flags = shape->flags,
    };
    struct gpu_array *made;
    CUresult error;

    (void)gpu;
    if (cu.lacks[CUDA_ARRAYS]) {
        return VGPU_GPU_NOT_SUPPORTED;
    }
    made = calloc(1, sizeof(*made));
    if (!made) {
        return VGPU_GPU_OUT_OF_MEMORY;
    }
    error = shape->levels > 0 ? cu.MipmappedArrayCreate(&made->levels, &wanted, shape->levels)
                              : cu.Array3DCreate(&made->plain, &wanted);
    if (error != CUDA_SUCCESS) {
        free(made);
        return error;
    }
    *array = made;
    return VGPU_GPU_SUCCESS;
}

/* If the driver refuses, the context is lost. */
void cuda_array_destroy(struct gpu *gpu, struct gpu_array *array)
{
    (void)gpu;
    if (array->levels) {
        cu.MipmappedArrayDestroy(array->levels);
    } else if (!array->inner) {
        cu.ArrayDestroy(array->plain);
    }
    free(array);
}

enum vgpu_gpu_error cuda_array_level(struct gpu *gpu, struct gpu_array *array, unsigned number,
                                     struct gpu_array **level)
{
    struct gpu_array *made = calloc(1, sizeof(*made));
    CUresult error;

    (void)gpu;
    if (!made) {
        return VGPU_GPU_OUT_OF_MEMORY;
    }
    made->inner = true;
    error = cu.MipmappedArrayGetLevel(&made->plain, array->levels, number);
    if (error != CUDA_SUCCESS) {
        free(made);
        return error;
    }
    *level = made;
    return VGPU_GPU_SUCCESS;
}

static CUmemorytype side_memory_type(const struct gpu_array_side *side)
{
    return side->array  ? CU_MEMORYTYPE_ARRAY
           : side->host ? CU_MEMORYTYPE_HOST
                        : CU_MEMORYTYPE_DEVICE;
}

enum vgpu_gpu_error cuda_array_copy(struct gpu *gpu, const struct gpu_array_copy *copy,
                                    struct gpu_stream *stream)
{
    const struct gpu_array_side *to = &copy->to, *from = &copy->from;
    const CUDA_MEMCPY3D said = {
        .srcXInBytes = from->x,
        .srcY = from->y,
        .srcZ = from->z,
        .srcMemoryType = side_memory_type(from),
        .srcHost = from->host ? (const void *)(uintptr_t)from->address : NULL,
        .srcDevice = from->host ? 0 : from->address,
        .srcArray = from->array ? from->array->plain : NULL,
        .srcPitch = from->pitch,
        .srcHeight = copy->rows,
        .dstXInBytes = to->x,
        .dstY = to->y,
        .dstZ = to->z,
        .dstMemoryType = side_memory_type(to),
        .dstHost = to->host ? (void *)(uintptr_t)to->address : NULL,
        .dstDevice = to->host ? 0 : to->address,
        .dstArray = to->array ? to->array->plain : NULL,
        .dstPitch = to->pitch,
        .dstHeight = copy->rows,
        .WidthInBytes = copy->width,
        .Height = copy->rows,
        .Depth = 1,
    };

    return cu.Memcpy3DAsync(&said, cuda_submit(gpu, stream));
}

/* Textures and surfaces ----------------------------------------------------------------------- */

static void resource_of(const vgpu_texture *t, const struct gpu_array *array,
                        CUDA_RESOURCE_DESC *resource)
{
    resource->resType = (CUresourcetype)t->resource;
    switch (resource->resType) {
    case CU_RESOURCE_TYPE_ARRAY:
        resource->res.array.hArray = array->plain;
        break;
    case CU_RESOURCE_TYPE_MIPMAPPED_ARRAY:
        resource->res.mipmap.hMipmappedArray = array->levels;
        break;
    case CU_RESOURCE_TYPE_LINEAR:
        resource->res.linear.devPtr = t->address;
        resource->res.linear.format = (CUarray_format)t->format;
        resource->res.linear.numChannels = t->channels;
        resource->res.linear.sizeInBytes = t->bytes;
        break;
    case CU_RESOURCE_TYPE_PITCH2D:
        resource->res.pitch2D.devPtr = t->address;
        resource->res.pitch2D.format = (CUarray_format)t->format;
        resource->res.pitch2D.numChannels = t->channels;
        resource->res.pitch2D.width = t->width;
        resource->res.pitch2D.height = t->height;
        resource->res.pitch2D.pitchInBytes = t->pitch;
        break;
    }
}

static void sampling_of(const vgpu_texture *t, CUDA_TEXTURE_DESC *sampling)
{
    for (unsigned i = 0; i < 3; i++) {
        sampling->addressMode[i] = (CUaddress_mode)t->address_mode[i];
    }
    sampling->filterMode = (CUfilter_mode)t->filter;
    sampling->flags = t->flags;
    sampling->maxAnisotropy = t->anisotropy;
    sampling->mipmapFilterMode = (CUfilter_mode)t->level_filter;
    sampling->mipmapLevelBias = t->level_bias;
    sampling->minMipmapLevelClamp = t->level_min;
    sampling->maxMipmapLevelClamp = t->level_max;
    memcpy(sampling->borderColor, t->border, sizeof(t->border));
}

static void view_of(const vgpu_texture *t, CUDA_RESOURCE_VIEW_DESC *view)
{
    view->format = (CUresourceViewFormat)t->view_format;
    view->width = t->view_width;
    view->height = t->view_height;
    view->depth = t->view_depth;
    view->firstMipmapLevel = t->first_level;
    view->lastMipmapLevel = t->last_level;
    view->firstLayer = t->first_layer;
    view->lastLayer = t->last_layer;
}

enum vgpu_gpu_error cuda_texture_create(struct gpu *gpu, const vgpu_texture *described,
                                        const struct gpu_array *array, uint64_t *texture)
{
    CUDA_RESOURCE_DESC resource = {0};
    CUDA_TEXTURE_DESC sampling = {0};
    CUDA_RESOURCE_VIEW_DESC view = {0};
    unsigned long long made = 0;
    CUresult error;

    (void)gpu;
    if (cu.lacks[CUDA_ARRAYS]) {
        return VGPU_GPU_NOT_SUPPORTED;
    }
    resource_of(described, array, &resource);
    if (described->form == VGPU_SURFACE) {
        error = cu.SurfObjectCreate(&made, &resource);
    } else {
        sampling_of(described, &sampling);
        view_of(described, &view);
        error = cu.TexObjectCreate(&made, &resource, &sampling, described->view ? &view : NULL);
    }
    *texture = made;
    return error;
}

enum vgpu_gpu_error cuda_texture_destroy(struct gpu *gpu, uint64_t texture, uint32_t form)
{
    (void)gpu;
    return form == VGPU_SURFACE ? cu.SurfObjectDestroy(texture) : cu.TexObjectDestroy(texture);
}

enum vgpu_gpu_error cuda_texture_width(struct gpu *gpu, size_t *elements, uint32_t format,
                                       uint32_t channels)
{
    CUdevice device;
    CUresult error;

    (void)gpu;
    if (!cu.DeviceGetTexture1DLinearMaxWidth) {
        return VGPU_GPU_NOT_SUPPORTED;
    }
    error = cu.CtxGetDevice(&device);
    return error != CUDA_SUCCESS ? error
                                 : cu.DeviceGetTexture1DLinearMaxWidth(
                                       elements, (CUarray_format)format, channels, device);
}
