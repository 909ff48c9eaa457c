/* SPDX-License-Identifier: MIT */
/*
 * Calls of api/ that are about the driver's linker. What it makes is copied at once, since the
 * guest asks for it in parts and the driver's own goes with the state.
 */
#include <stdlib.h>
#include <string.h>

#include "worker/api-calls.h"
#include "worker/handles.h"
#include "worker/ring-session.h"
#include "worker/session-links.h"
#include "worker/uploads.h"

/* Each has logs in this process's memory. */
#define LINKS_MAX 64u

/* What all of them have been given and have made: the driver keeps its inputs. */
#define LINK_BYTES_MAX RING_UPLOAD_MAX

struct link {
    struct gpu_link *made; /* what the backend calls it */
    void *image;           /* what was linked; NULL before */
    uint64_t image_bytes;
    uint64_t kept; /* bytes that count */
};

static bool keep_bytes(struct ring_session *s, struct link *link, uint64_t bytes)
{
    if (bytes > LINK_BYTES_MAX - s->links.bytes) {
        return false;
    }
    s->links.bytes += bytes;
    link->kept += bytes;
    return true;
}

static void link_free(struct ring_session *s, struct link *link)
{
    s->gpu->ops->link_destroy(s->gpu, link->made);
    s->links.count--;
    s->links.bytes -= link->kept;
    free(link->image);
    free(link);
}

enum vgpu_gpu_error host_link_create(struct api_serve *serve, uint64_t *link, unsigned info_bytes,
                                     unsigned error_bytes, unsigned count,
                                     const CUjit_option *options, const uint64_t *values)
{
    const struct gpu_compile compile = {
        .options = options,
        .values = values,
        .count = count,
        .info_bytes = info_bytes,
        .error_bytes = error_bytes,
    };
    struct ring_session *s = serve->session;
    struct link *made;
    enum vgpu_gpu_error error;

    if (!serve->gpu->ops->link_create || !options_are_plain(options, count)) {
        return VGPU_GPU_NOT_SUPPORTED;
    }
    if (info_bytes > VGPU_REPLY_MAX || error_bytes > VGPU_REPLY_MAX) {
        return VGPU_GPU_INVALID_VALUE;
    }
    made = s->links.count < LINKS_MAX ? calloc(1, sizeof(*made)) : NULL;
    if (!made) {
        return VGPU_GPU_OUT_OF_MEMORY;
    }
    error = serve->gpu->ops->link_create(serve->gpu, &compile, &made->made);
    if (error != VGPU_GPU_SUCCESS) {
        free(made);
        return error;
    }
    s->links.count++;
    *link = handles_add(&s->handles, HANDLE_LINK, made, 0);
    if (*link == 0) {
        link_free(s, made);
        return VGPU_GPU_OUT_OF_MEMORY;
    }
    return VGPU_GPU_SUCCESS;
}

/* The state's logs; a guest that has room for less than it said at first gets as much. */
static struct gpu_compile answer_logs(char *info_log, char *error_log, unsigned info_bytes,
                                      unsigned error_bytes)
{
    return (struct gpu_compile){
        .info_log = info_log,
        .error_log = error_log,
        .info_bytes = info_bytes,
        .error_bytes = error_bytes,
    };
}

enum vgpu_gpu_error host_link_add(struct api_serve *serve, CUresult *result, float *wall_time,
                                  uint32_t *info_used, uint32_t *error_used, char *info_log,
                                  char *error_log, unsigned info_bytes, unsigned error_bytes,
                                  struct link *link, CUjitInputType type, unsigned count,
                                  const char *name, const CUjit_option *options,
                                  const uint64_t *values)
{
    struct gpu_compile compile = answer_logs(info_log, error_log, info_bytes, error_bytes);
    const struct upload upload = upload_take(serve->session);
    const bool plain = options_are_plain(options, count);

    if (!upload.bytes || !plain) {
        free(upload.bytes);
        return plain ? VGPU_GPU_INVALID_VALUE : VGPU_GPU_NOT_SUPPORTED;
    }
    if (!keep_bytes(serve->session, link, upload.size)) {
        free(upload.bytes);
        return VGPU_GPU_OUT_OF_MEMORY;
    }
    compile.options = options;
    compile.values = values;
    compile.count = count;
    *result = serve->gpu->ops->link_add(serve->gpu, link->made, type, upload.bytes, upload.size,
                                        name, &compile);
    free(upload.bytes);
    *wall_time = compile.wall_time;
    *info_used = compile.info_used;
    *error_used = compile.error_used;
    return VGPU_GPU_SUCCESS;
}

enum vgpu_gpu_error host_link_complete(struct api_serve *serve, CUresult *result,
                                       size_t *image_bytes, float *wall_time, uint32_t *info_used,
                                       uint32_t *error_used, char *info_log, char *error_log,
                                       unsigned info_bytes, unsigned error_bytes, struct link *link)
{
    struct gpu_compile compile = answer_logs(info_log, error_log, info_bytes, error_bytes);
    const void *image = NULL;
    uint64_t bytes = 0;

    *result = serve->gpu->ops->link_complete(serve->gpu, link->made, &image, &bytes, &compile);
    *wall_time = compile.wall_time;
    *info_used = compile.info_used;
    *error_used = compile.error_used;
    if (*result != CUDA_SUCCESS) {
        return VGPU_GPU_SUCCESS;
    }
    if (!keep_bytes(serve->session, link, 2 * bytes)) {
        return VGPU_GPU_OUT_OF_MEMORY;
    }
    free(link->image);
    link->image_bytes = 0;
    link->image = malloc(bytes);
    if (!link->image) {
        return VGPU_GPU_OUT_OF_MEMORY;
    }
    memcpy(link->image, image, bytes);
    link->image_bytes = bytes;
    *image_bytes = bytes;
    return VGPU_GPU_SUCCESS;
}

enum vgpu_gpu_error host_link_read(struct api_serve *serve, char *part, unsigned bytes,
                                   struct link *link, size_t offset)
{
    (void)serve;
    if (!link->image || offset > link->image_bytes || bytes > link->image_bytes - offset) {
        return VGPU_GPU_INVALID_VALUE;
    }
    memcpy(part, (const char *)link->image + offset, bytes);
    return VGPU_GPU_SUCCESS;
}

enum vgpu_gpu_error host_link_destroy(struct api_serve *serve, struct link *link)
{
    struct ring_session *s = serve->session;

    handles_remove(&s->handles, handles_find(&s->handles, HANDLE_LINK, link, 0));
    link_free(s, link);
    return VGPU_GPU_SUCCESS;
}

void link_release_all(struct ring_session *s)
{
    uint32_t position = 0;
    struct link *link;

    while ((link = handles_next(&s->handles, HANDLE_LINK, &position)) != NULL) {
        link_free(s, link);
    }
}
