/* SPDX-License-Identifier: MIT */
/*
 * Arrays, see array.h. They are the host's; here is what programs ask of them, and what copies are
 * checked by. The levels of a mipmapped array are arrays of their own, which the program does not
 * destroy.
 */
#include "guest/libcuda/model/array.h"

#include <pthread.h>
#include <stdlib.h>

#include "api/array-format.h"
#include "guest/libcuda/model/context.h"
#include "guest/libcuda/state/state.h"
#include "guest/libcuda/wire/wire-calls.h"

static pthread_mutex_t mutex = PTHREAD_MUTEX_INITIALIZER; /* for lists of levels */

static struct array *find_any(uint64_t handle)
{
    return (struct array *)object_find(HANDLE_ARRAY, handle);
}

struct array *array_find(CUarray array)
{
    struct array *known = find_any((uint64_t)(uintptr_t)array);

    return known && known->count == 0 ? known : NULL;
}

struct array *mipmap_find(CUmipmappedArray array)
{
    struct array *known = find_any((uint64_t)(uintptr_t)array);

    return known && known->count > 0 ? known : NULL;
}

static CUarray array_handle(const struct array *array)
{
    return (CUarray)(uintptr_t)array->object.handle;
}

static struct array *new_array(unsigned levels)
{
    struct array *made = calloc(1, sizeof(*made));

    if (made && levels > 0) {
        made->count = levels;
        made->level = calloc(levels, sizeof(struct array *));
    }
    if (made && levels > 0 && !made->level) {
        free(made);
        return NULL;
    }
    return made;
}

static void forget_array(struct array *array)
{
    free(array->level);
    object_drop(&array->object);
}

/* More levels than there can be are as many as can be, also with CUDA. */
CUresult array_create(CUarray *array, CUDA_ARRAY3D_DESCRIPTOR shape, unsigned levels)
{
    const unsigned most = array_levels_max(shape.Width, shape.Height, shape.Depth);
    const struct vgpu_array_shape wanted = {
        .width = shape.Width,
        .height = shape.Height,
        .depth = shape.Depth,
        .format = (uint32_t)shape.Format,
        .channels = shape.NumChannels,
        .flags = shape.Flags,
        .levels = levels < most ? levels : most,
    };
    struct array *made;
    CUarray handle = NULL;
    CUresult r;

    if (shape.Flags & (CUDA_ARRAY3D_SPARSE | CUDA_ARRAY3D_DEFERRED_MAPPING)) {
        return REFUSE("an array whose memory is mapped later");
    }
    made = new_array(wanted.levels);
    if (!made) {
        return CUDA_ERROR_OUT_OF_MEMORY;
    }
    made->shape = shape;
    r = call_array_create(&handle, &wanted);
    if (r == CUDA_SUCCESS &&
        !object_add(&made->object, (uint64_t)(uintptr_t)handle, context_current())) {
        call_array_destroy(handle);
        r = CUDA_ERROR_OUT_OF_MEMORY;
    }
    if (r != CUDA_SUCCESS) {
        free(made->level);
        free(made);
        return r;
    }
    *array = handle;
    return CUDA_SUCCESS;
}

/* With its levels, which go on the host too. */
static CUresult end_array(struct array *array)
{
    const CUresult r = call_array_destroy(array_handle(array));

    for (unsigned i = 0; i < array->count; i++) {
        if (array->level[i]) {
            forget_array(array->level[i]);
        }
    }
    forget_array(array);
    return r;
}

CUresult array_destroy(struct array *array)
{
    return array && !array->inner ? end_array(array) : CUDA_ERROR_INVALID_HANDLE;
}

/* A dimension that there is not is none in a level either. */
static size_t dimension_at(size_t extent, unsigned number)
{
    return extent > 0 ? array_level_extent(extent, number) : 0;
}

/* With the mutex. Layers do not get fewer, and there is no depth but theirs then. */
static CUresult make_level(struct array *array, unsigned number)
{
    struct array *made = new_array(0);
    CUarray handle = NULL;
    CUresult r;

    if (!made) {
        return CUDA_ERROR_OUT_OF_MEMORY;
    }
    r = call_array_level(&handle, array_handle(array), number);
    if (r == CUDA_SUCCESS &&
        !object_add(&made->object, (uint64_t)(uintptr_t)handle, array->object.context)) {
        r = CUDA_ERROR_OUT_OF_MEMORY;
    }
    if (r != CUDA_SUCCESS) {
        free(made);
        return r;
    }
    made->inner = true;
    made->shape = array->shape;
    made->shape.Width = dimension_at(array->shape.Width, number);
    made->shape.Height = dimension_at(array->shape.Height, number);
    if (!(array->shape.Flags & (CUDA_ARRAY3D_LAYERED | CUDA_ARRAY3D_CUBEMAP))) {
        made->shape.Depth = dimension_at(array->shape.Depth, number);
    }
    array->level[number] = made;
    return CUDA_SUCCESS;
}

CUresult array_level(struct array *array, unsigned number, CUarray *level)
{
    CUresult r = CUDA_SUCCESS;

    if (!array) {
        return CUDA_ERROR_INVALID_HANDLE;
    }
    if (!level || number >= array->count) {
        return CUDA_ERROR_INVALID_VALUE;
    }
    pthread_mutex_lock(&mutex);
    if (!array->level[number]) {
        r = make_level(array, number);
    }
    if (r == CUDA_SUCCESS) {
        *level = array_handle(array->level[number]);
    }
    pthread_mutex_unlock(&mutex);
    return r;
}

bool array_holds(const struct array *array, const uint64_t at[3], const uint64_t extent[3])
{
    const CUDA_ARRAY3D_DESCRIPTOR *shape = &array->shape;
    const unsigned element = array_element_bytes((uint32_t)shape->Format, shape->NumChannels);

    return element == 0 ||
           (array_extent_holds(at[0], extent[0], shape->Width * element) &&
            array_extent_holds(at[1], extent[1], shape->Height ? shape->Height : 1) &&
            array_extent_holds(at[2], extent[2], shape->Depth ? shape->Depth : 1));
}

void array_release(const struct context *context)
{
    struct array *array;

    /* Levels are found too, and go with what they belong to. */
    while ((array = object_of(context, HANDLE_ARRAY)) != NULL) {
        if (array->inner) {
            array->object.context = NULL;
        } else {
            end_array(array);
        }
    }
}
