/* SPDX-License-Identifier: MIT */
/*
 * Textures and surfaces, see texture.h. What they were made of is kept here, by their numbers: the
 * driver's are no handles of the worker's, and say nothing of themselves.
 */
#include "guest/libcuda/model/texture.h"

#include <pthread.h>
#include <stdlib.h>
#include <string.h>

#include "guest/libcuda/model/array.h"
#include "guest/libcuda/model/context.h"
#include "guest/libcuda/model/memory.h"
#include "guest/libcuda/state/state.h"
#include "guest/libcuda/wire/wire-calls.h"

/* Lists, so that a program with some thousand of them does not look at all for one. */
#define LISTS 256u

struct texture {
    struct texture *next; /* of its list */
    unsigned long long number;
    bool surface, viewed;
    const struct context *context;
    CUDA_RESOURCE_DESC resource;
    CUDA_TEXTURE_DESC sampling;
    CUDA_RESOURCE_VIEW_DESC view; /* where it is `viewed` */
};

static pthread_mutex_t mutex = PTHREAD_MUTEX_INITIALIZER;
static struct texture *lists[LISTS];

/* The place that points to it, or to NULL. With the mutex. */
static struct texture **place_of(unsigned long long number, bool surface)
{
    struct texture **place = &lists[(number ^ number >> 8) % LISTS];

    while (*place && ((*place)->number != number || (*place)->surface != surface)) {
        place = &(*place)->next;
    }
    return place;
}

/* What is sampled ------------------------------------------------------------------------------ */

/*
 * The array, or memory, which is the driver's to check; a kernel that reads beyond what there is
 * has the fault.
 */
static CUresult set_resource(const CUDA_RESOURCE_DESC *said, struct vgpu_texture *t)
{
    const struct array *array = NULL;

    if (said->flags != 0) {
        return CUDA_ERROR_INVALID_VALUE;
    }
    switch (said->resType) {
    case CU_RESOURCE_TYPE_ARRAY:
        array = array_find(said->res.array.hArray);
        break;
    case CU_RESOURCE_TYPE_MIPMAPPED_ARRAY:
        array = mipmap_find(said->res.mipmap.hMipmappedArray);
        break;
    case CU_RESOURCE_TYPE_LINEAR:
        t->address = said->res.linear.devPtr;
        t->format = (uint32_t)said->res.linear.format;
        t->channels = said->res.linear.numChannels;
        t->bytes = said->res.linear.sizeInBytes;
        break;
    case CU_RESOURCE_TYPE_PITCH2D:
        t->address = said->res.pitch2D.devPtr;
        t->format = (uint32_t)said->res.pitch2D.format;
        t->channels = said->res.pitch2D.numChannels;
        t->width = said->res.pitch2D.width;
        t->height = said->res.pitch2D.height;
        t->pitch = said->res.pitch2D.pitchInBytes;
        break;
    default:
        return CUDA_ERROR_INVALID_VALUE;
    }
    t->resource = (uint32_t)said->resType;
    t->array = array ? array->object.handle : 0;
    return array || said->resType > CU_RESOURCE_TYPE_MIPMAPPED_ARRAY ? CUDA_SUCCESS
                                                                     : CUDA_ERROR_INVALID_VALUE;
}

static void set_sampling(const CUDA_TEXTURE_DESC *said, struct vgpu_texture *t)
{
    for (unsigned i = 0; i < 3; i++) {
        t->address_mode[i] = (uint32_t)said->addressMode[i];
    }
    t->filter = (uint32_t)said->filterMode;
    t->flags = said->flags;
    t->anisotropy = said->maxAnisotropy;
    t->level_filter = (uint32_t)said->mipmapFilterMode;
    t->level_bias = said->mipmapLevelBias;
    t->level_min = said->minMipmapLevelClamp;
    t->level_max = said->maxMipmapLevelClamp;
    memcpy(t->border, said->borderColor, sizeof(t->border));
}

static void set_view(const CUDA_RESOURCE_VIEW_DESC *said, struct vgpu_texture *t)
{
    t->view = 1;
    t->view_format = (uint32_t)said->format;
    t->view_width = said->width;
    t->view_height = said->height;
    t->view_depth = said->depth;
    t->first_level = said->firstMipmapLevel;
    t->last_level = said->lastMipmapLevel;
    t->first_layer = said->firstLayer;
    t->last_layer = said->lastLayer;
}

/* Making and looking -------------------------------------------------------------------------- */

static void add_texture(struct texture *made)
{
    struct texture **place;

    pthread_mutex_lock(&mutex);
    place = place_of(made->number, made->surface);
    made->next = *place;
    *place = made;
    pthread_mutex_unlock(&mutex);
}

CUresult texture_create(const CUDA_RESOURCE_DESC *resource, const CUDA_TEXTURE_DESC *sampling,
                        const CUDA_RESOURCE_VIEW_DESC *view, unsigned long long *texture)
{
    struct vgpu_texture said = {.form = sampling ? VGPU_TEXTURE : VGPU_SURFACE};
    struct texture *made;
    uint64_t number = 0;
    CUresult r = set_resource(resource, &said);

    if (r != CUDA_SUCCESS) {
        return r;
    }
    made = calloc(1, sizeof(*made));
    if (!made) {
        return CUDA_ERROR_OUT_OF_MEMORY;
    }
    made->resource = *resource;
    if (sampling) {
        set_sampling(sampling, &said);
        made->sampling = *sampling;
    }
    if (view) {
        set_view(view, &said);
        made->view = *view;
        made->viewed = true;
    }
    r = call_texture_create(&number, &said);
    if (r != CUDA_SUCCESS) {
        free(made);
        return r;
    }
    made->number = number;
    made->surface = !sampling;
    made->context = context_current();
    add_texture(made);
    *texture = number;
    return CUDA_SUCCESS;
}

static struct texture *take_texture(unsigned long long number, bool surface)
{
    struct texture **place, *found;

    pthread_mutex_lock(&mutex);
    place = place_of(number, surface);
    found = *place;
    if (found) {
        *place = found->next;
    }
    pthread_mutex_unlock(&mutex);
    return found;
}

CUresult texture_destroy(unsigned long long texture, bool surface)
{
    struct texture *found = take_texture(texture, surface);

    if (!found) {
        return CUDA_SUCCESS;
    }
    free(found);
    return call_texture_destroy(texture, surface ? VGPU_SURFACE : VGPU_TEXTURE);
}

CUresult texture_describe(unsigned long long texture, bool surface, CUDA_RESOURCE_DESC *resource,
                          CUDA_TEXTURE_DESC *sampling, CUDA_RESOURCE_VIEW_DESC *view)
{
    const struct texture *found;
    bool there;

    pthread_mutex_lock(&mutex);
    found = *place_of(texture, surface);
    there = found != NULL;
    if (there && resource) {
        *resource = found->resource;
    }
    if (there && sampling) {
        *sampling = found->sampling;
    }
    if (there && view && found->viewed) {
        *view = found->view;
    }
    pthread_mutex_unlock(&mutex);
    return there ? CUDA_SUCCESS : CUDA_ERROR_INVALID_VALUE;
}

/* The first of a context's from a list on, which is taken out; NULL: there is none any more. */
static struct texture *take_of(const struct context *context)
{
    struct texture *found = NULL;

    pthread_mutex_lock(&mutex);
    for (unsigned i = 0; !found && i < LISTS; i++) {
        struct texture **place = &lists[i];

        while (*place && (*place)->context != context) {
            place = &(*place)->next;
        }
        found = *place;
        if (found) {
            *place = found->next;
        }
    }
    pthread_mutex_unlock(&mutex);
    return found;
}

void texture_release(const struct context *context)
{
    struct texture *texture;

    while ((texture = take_of(context)) != NULL) {
        call_texture_destroy(texture->number, texture->surface ? VGPU_SURFACE : VGPU_TEXTURE);
        free(texture);
    }
}
