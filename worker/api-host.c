/* SPDX-License-Identifier: MIT */
/*
 * Calls of api/ whose host half is written by hand: they work on the session, not only on what
 * computes. The generated code has decoded and checked their arguments one by one.
 */
#include <stdlib.h>
#include <string.h>

#include "common/shared.h"
#include "worker/api-calls.h"
#include "worker/exec-graph.h"
#include "worker/ring-session.h"
#include "worker/uploads.h"

/* Threads that a multiprocessor can have at a time, of every GPU so far. */
#define MAX_THREADS 2048u

enum vgpu_gpu_error host_hello(struct api_serve *serve, uint32_t revision, uint32_t *host_revision,
                               int *driver_version, size_t *total_memory, char *name)
{
    const struct vgpu_device_info *info = &serve->gpu->info;
    uint64_t free_bytes = info->memory_total, total = info->memory_total;

    (void)revision; /* Calls keep their meaning; the guest leaves out those that this side lacks. */
    ledger_limit(&serve->session->memory.ledger, &free_bytes, &total);
    *host_revision = API_REVISION;
    *driver_version = (int)info->driver;
    *total_memory = total;
    static_assert(sizeof(info->name) == 64, "as private.api has it");
    memcpy(name, info->name, sizeof(info->name));
    return VGPU_GPU_SUCCESS;
}

/* What a launch that a kernel has made and that waits takes at most: its parameters are 4 KiB. */
#define LAUNCH_BYTES 8192u

/* Bytes of device memory that a limit stands for; false when they do not fit 64 bits. */
static bool limit_bytes(const struct gpu *gpu, CUlimit limit, size_t value, uint64_t *bytes)
{
    const uint64_t threads = (uint64_t)gpu->info.processors * MAX_THREADS;

    switch (limit) {
    case CU_LIMIT_STACK_SIZE:
        return !__builtin_mul_overflow(value, threads, bytes);
    case CU_LIMIT_DEV_RUNTIME_PENDING_LAUNCH_COUNT:
        return !__builtin_mul_overflow(value, LAUNCH_BYTES, bytes);
    default:
        *bytes = value;
        return true;
    }
}

static bool limit_served(CUlimit limit)
{
    return limit == CU_LIMIT_STACK_SIZE || limit == CU_LIMIT_PRINTF_FIFO_SIZE ||
           limit == CU_LIMIT_MALLOC_HEAP_SIZE || limit == CU_LIMIT_DEV_RUNTIME_PENDING_LAUNCH_COUNT;
}

/*
 * Limits of the context are device memory: for each thread that the GPU can have at a time, for
 * what kernels allocate and print, and for kernels that they launch. It is the VM's from when the
 * limit is set.
 */
enum vgpu_gpu_error host_cuCtxSetLimit(struct api_serve *serve, CUlimit limit, size_t value)
{
    struct ring_session *s = serve->session;
    uint64_t bytes, before, more;
    enum vgpu_gpu_error error;

    static_assert(CU_LIMIT_DEV_RUNTIME_PENDING_LAUNCH_COUNT < SESSION_LIMITS, "an index each");
    if (!limit_served(limit)) {
        return (unsigned)limit <= CU_LIMIT_CIG_SHMEM_FALLBACK_ENABLED ? CUDA_ERROR_UNSUPPORTED_LIMIT
                                                                      : VGPU_GPU_INVALID_VALUE;
    }
    if (!limit_bytes(serve->gpu, limit, value, &bytes) || bytes > serve->gpu->info.memory_total) {
        return VGPU_GPU_INVALID_VALUE;
    }
    before = s->memory.limit_bytes[limit];
    more = bytes > before ? bytes - before : 0;
    if (!ledger_reserve(&s->memory.ledger, more)) {
        return VGPU_GPU_OUT_OF_MEMORY;
    }
    error = serve->gpu->ops->set_limit(serve->gpu, limit, value);
    if (error != VGPU_GPU_SUCCESS) {
        ledger_return(&s->memory.ledger, more);
        return error;
    }
    if (before > bytes) {
        ledger_return(&s->memory.ledger, before - bytes);
    }
    s->memory.limit_bytes[limit] = bytes;
    return VGPU_GPU_SUCCESS;
}

/* Images ------------------------------------------------------------------------------------- */

enum vgpu_gpu_error host_upload_begin(struct api_serve *serve, size_t bytes)
{
    struct upload *upload = &serve->session->upload;

    free(upload->bytes);
    *upload = (struct upload){0};
    if (bytes == 0 || bytes > RING_UPLOAD_MAX) {
        return VGPU_GPU_INVALID_VALUE;
    }
    upload->bytes = calloc(1, bytes + 1);
    upload->size = bytes;
    return upload->bytes ? VGPU_GPU_SUCCESS : VGPU_GPU_OUT_OF_MEMORY;
}

enum vgpu_gpu_error host_upload_write(struct api_serve *serve, size_t offset, CUdeviceptr from,
                                      size_t bytes)
{
    struct upload *upload = &serve->session->upload;
    const uint64_t words = bytes / 4;
    uint32_t last;

    if (!upload->bytes || offset > upload->size || bytes > upload->size - offset || from % 4 != 0 ||
        !gpu_in_arena(&serve->gpu->arena, from, (bytes + 3) & ~UINT64_C(3))) {
        return VGPU_GPU_INVALID_VALUE;
    }
    /* Whole words are read; of the last one maybe a part. */
    shared_copy_in(upload->bytes + offset, (void *)(uintptr_t)from, 4 * words);
    if (bytes % 4 != 0) {
        shared_copy_in(&last, (void *)(uintptr_t)(from + 4 * words), sizeof(last));
        memcpy(upload->bytes + offset + 4 * words, &last, bytes % 4);
    }
    return VGPU_GPU_SUCCESS;
}

struct upload upload_take(struct ring_session *s)
{
    const struct upload upload = s->upload;

    s->upload = (struct upload){0};
    return upload;
}

/* Whether its value is a number; all others are pointers, or unknown. */
static bool option_is_plain(CUjit_option option)
{
    switch (option) {
    case CU_JIT_MAX_REGISTERS:
    case CU_JIT_THREADS_PER_BLOCK:
    case CU_JIT_OPTIMIZATION_LEVEL:
    case CU_JIT_TARGET_FROM_CUCONTEXT:
    case CU_JIT_TARGET:
    case CU_JIT_FALLBACK_STRATEGY:
    case CU_JIT_GENERATE_DEBUG_INFO:
    case CU_JIT_LOG_VERBOSE:
    case CU_JIT_GENERATE_LINE_INFO:
    case CU_JIT_CACHE_MODE:
    case CU_JIT_POSITION_INDEPENDENT_CODE:
    case CU_JIT_MIN_CTA_PER_SM:
    case CU_JIT_MAX_THREADS_PER_BLOCK:
    case CU_JIT_OVERRIDE_DIRECTIVE_VALUES:
        return true;
    default:
        return false;
    }
}

bool options_are_plain(const CUjit_option *options, unsigned count)
{
    bool plain = true;

    for (unsigned i = 0; plain && i < count; i++) {
        plain = option_is_plain(options[i]);
    }
    return plain;
}

enum vgpu_gpu_error host_image_load(struct api_serve *serve, uint64_t *module, CUresult *result,
                                    float *wall_time, uint32_t *info_used, uint32_t *error_used,
                                    char *info_log, char *error_log, unsigned info_bytes,
                                    unsigned error_bytes, const CUjit_option *options,
                                    const uint64_t *values, unsigned count)
{
    struct ring_session *s = serve->session;
    struct gpu_compile compile = {
        .options = options,
        .values = values,
        .count = count,
        .info_log = info_log,
        .error_log = error_log,
        .info_bytes = info_bytes,
        .error_bytes = error_bytes,
    };
    const struct upload upload = upload_take(s);
    const bool plain = options_are_plain(options, count);
    struct gpu_module *made = NULL;

    if (!upload.bytes || !plain) {
        free(upload.bytes);
        return plain ? VGPU_GPU_INVALID_VALUE : VGPU_GPU_NOT_SUPPORTED;
    }
    *result = serve->gpu->ops->module_load(serve->gpu, upload.bytes, upload.size, &compile, &made);
    free(upload.bytes);
    *wall_time = compile.wall_time;
    *info_used = compile.info_used;
    *error_used = compile.error_used;
    if (*result != CUDA_SUCCESS) {
        return VGPU_GPU_SUCCESS;
    }
    *module = handles_add(&s->handles, HANDLE_MODULE, made, 0);
    if (*module == 0) {
        serve->gpu->ops->module_unload(serve->gpu, made);
        return VGPU_GPU_OUT_OF_MEMORY;
    }
    return VGPU_GPU_SUCCESS;
}

/* Graphs ------------------------------------------------------------------------------------- */

static struct graph_needs graph_needs(struct ring_session *s)
{
    return (struct graph_needs){.gpu = s->gpu, .handles = &s->handles, .sum = &s->graphs};
}

enum vgpu_gpu_error host_graph_make(struct api_serve *serve, uint64_t *graph, unsigned nodes)
{
    struct ring_session *s = serve->session;
    const struct graph_needs needs = graph_needs(s);
    const struct upload upload = upload_take(s);
    struct graph *made = NULL;
    enum vgpu_gpu_error error;

    error = graph_make(&needs, upload.bytes, upload.size, nodes, &made);
    if (error != VGPU_GPU_SUCCESS) {
        free(upload.bytes);
        return error;
    }
    *graph = handles_add(&s->handles, HANDLE_GRAPH, made, 0);
    if (*graph == 0) {
        graph_free(&needs, made);
        return VGPU_GPU_OUT_OF_MEMORY;
    }
    return VGPU_GPU_SUCCESS;
}

enum vgpu_gpu_error host_graph_update(struct api_serve *serve, struct graph *graph, unsigned nodes)
{
    const struct graph_needs needs = graph_needs(serve->session);
    const struct upload upload = upload_take(serve->session);
    const enum vgpu_gpu_error error = graph_update(&needs, graph, upload.bytes, upload.size, nodes);

    if (error != VGPU_GPU_SUCCESS) {
        free(upload.bytes);
    }
    return error;
}

enum vgpu_gpu_error host_graph_launch(struct api_serve *serve, struct graph *graph,
                                      struct gpu_stream *stream)
{
    return graph_launch(serve->gpu, graph, stream, serve->execution->progress,
                        &serve->execution->again);
}

enum vgpu_gpu_error host_graph_destroy(struct api_serve *serve, struct graph *graph)
{
    struct ring_session *s = serve->session;
    const struct graph_needs needs = graph_needs(s);

    handles_remove(&s->handles, handles_find(&s->handles, HANDLE_GRAPH, graph, 0));
    graph_free(&needs, graph);
    return VGPU_GPU_SUCCESS;
}
