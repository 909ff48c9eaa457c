/* SPDX-License-Identifier: MIT */
/*
 * The linker, see link.h. All is done by the host's driver, also reading what is added, so errors
 * come when CUDA has them come.
 *
 * The linker's logs are told anew with each answer, and copied to where the program wanted them
 * when it made the state; so is the time.
 */
#include "guest/libcuda/model/link.h"

#include <stdlib.h>

#include "guest/libcuda/model/context.h"
#include "guest/libcuda/model/image.h"
#include "guest/libcuda/state/object.h"
#include "guest/libcuda/state/state.h"
#include "guest/libcuda/wire/upload.h"
#include "guest/libcuda/wire/wire-calls.h"

/* Bytes of the result that come over at a time; less than VGPU_REPLY_MAX. */
#define PART_BYTES (512u << 10)

struct link {
    struct object object;
    struct jit_options options;
    void *cubin; /* once it is complete */
};

static struct link *link_find(CUlinkState state)
{
    return (struct link *)object_find(HANDLE_LINK, (uint64_t)(uintptr_t)state);
}

static CUlinkState link_handle(const struct link *link)
{
    return (CUlinkState)(uintptr_t)link->object.handle;
}

CUresult link_create(const struct image_options *options, CUlinkState *state)
{
    struct link *made = calloc(1, sizeof(*made));
    CUlinkState handle = NULL;
    CUresult r;

    if (!made) {
        return CUDA_ERROR_OUT_OF_MEMORY;
    }
    r = jit_options_sort(options, &made->options);
    if (r == CUDA_SUCCESS) {
        r = call_link_create(&handle, made->options.info_bytes, made->options.error_bytes,
                             made->options.count, made->options.plain, made->options.values);
    }
    if (r == CUDA_SUCCESS &&
        !object_add(&made->object, (uint64_t)(uintptr_t)handle, context_current())) {
        call_link_destroy(handle);
        r = CUDA_ERROR_OUT_OF_MEMORY;
    }
    if (r != CUDA_SUCCESS) {
        free(made);
        return r;
    }
    *state = handle;
    return CUDA_SUCCESS;
}

/*
 * Of the options of one input, those that are numbers go along. Results are told where the state's
 * options want them.
 */
static CUresult add_input(struct link *link, CUjitInputType type, const void *data, size_t bytes,
                          const char *name, const struct jit_options *options)
{
    const struct jit_options *logs = &link->options;
    CUresult result = CUDA_SUCCESS, r;
    uint32_t info = 0, error = 0;
    float wall_time = 0;

    upload_lock();
    r = upload_send(data, bytes);
    if (r == CUDA_SUCCESS) {
        r = call_link_add(&result, &wall_time, &info, &error, logs->info, logs->error,
                          logs->info_bytes, logs->error_bytes, link_handle(link), type,
                          options->count, name, options->plain, options->values);
    }
    upload_unlock();
    if (r == CUDA_SUCCESS) {
        jit_options_give_back(logs, wall_time, info, error);
        r = result;
    }
    return r;
}

CUresult link_add(CUlinkState state, CUjitInputType type, const void *data, size_t bytes,
                  const char *name, const struct image_options *options)
{
    struct link *link = link_find(state);
    struct jit_options sorted;
    CUresult r;

    if (!link) {
        return CUDA_ERROR_INVALID_HANDLE;
    }
    if (!data || (unsigned)type >= CU_JIT_NUM_INPUT_TYPES || bytes == 0) {
        return CUDA_ERROR_INVALID_VALUE;
    }
    r = jit_options_sort(options, &sorted);
    return r == CUDA_SUCCESS ? add_input(link, type, data, bytes, name ? name : "", &sorted) : r;
}

/* The path is one in the guest: the file is read here, and the host gets its bytes. */
CUresult link_add_file(CUlinkState state, CUjitInputType type, const char *path,
                       const struct image_options *options)
{
    void *data = NULL;
    size_t bytes = 0;
    CUresult r;

    if (!link_find(state)) {
        return CUDA_ERROR_INVALID_HANDLE;
    }
    if (!path || !image_options_complete(options)) {
        return CUDA_ERROR_INVALID_VALUE;
    }
    r = image_read(path, &data, &bytes);
    if (r == CUDA_SUCCESS) {
        /* PTX in memory counts its NUL, which image_read() has put there. */
        r = link_add(state, type, data, type == CU_JIT_INPUT_PTX ? bytes + 1 : bytes, path,
                     options);
    }
    free(data);
    return r;
}

static CUresult read_cubin(struct link *link, size_t bytes)
{
    char *cubin = malloc(bytes);
    CUresult r = cubin ? CUDA_SUCCESS : CUDA_ERROR_OUT_OF_MEMORY;

    for (size_t done = 0; r == CUDA_SUCCESS && done < bytes; done += PART_BYTES) {
        const size_t left = bytes - done;

        r = call_link_read(cubin + done, left < PART_BYTES ? (unsigned)left : PART_BYTES,
                           link_handle(link), done);
    }
    if (r != CUDA_SUCCESS) {
        free(cubin);
        return r;
    }
    free(link->cubin);
    link->cubin = cubin;
    return CUDA_SUCCESS;
}

CUresult link_complete(CUlinkState state, void **cubin, size_t *bytes)
{
    struct link *link = link_find(state);
    CUresult result = CUDA_SUCCESS, r;
    uint32_t info = 0, error = 0;
    float wall_time = 0;
    size_t made = 0;

    if (!link) {
        return CUDA_ERROR_INVALID_HANDLE;
    }
    if (!cubin) {
        return CUDA_ERROR_INVALID_VALUE;
    }
    r = call_link_complete(&result, &made, &wall_time, &info, &error, link->options.info,
                           link->options.error, link->options.info_bytes, link->options.error_bytes,
                           link_handle(link));
    if (r == CUDA_SUCCESS) {
        jit_options_give_back(&link->options, wall_time, info, error);
        r = result;
    }
    if (r == CUDA_SUCCESS) {
        r = read_cubin(link, made);
    }
    if (r == CUDA_SUCCESS) {
        *cubin = link->cubin;
        if (bytes) {
            *bytes = made;
        }
    }
    return r;
}

static CUresult end_link(struct link *link)
{
    const CUresult r = call_link_destroy(link_handle(link));

    free(link->cubin);
    object_drop(&link->object);
    return r;
}

CUresult link_destroy(CUlinkState state)
{
    struct link *link = link_find(state);

    return link ? end_link(link) : CUDA_ERROR_INVALID_HANDLE;
}

void link_release(const struct context *context)
{
    struct link *link;

    while ((link = object_of(context, HANDLE_LINK)) != NULL) {
        end_link(link);
    }
}
