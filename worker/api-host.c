/* SPDX-License-Identifier: MIT */
/*
 * Calls of api/ whose host half is written by hand: they work on the session, not only on what
 * computes. The generated code has decoded and checked their arguments one by one.
 */
#include <stdlib.h>
#include <string.h>

#include "common/shared.h"
#include "worker/api-calls.h"
#include "worker/commands.h"
#include "worker/exec-graph.h"
#include "worker/rows.h"

/* Threads that a multiprocessor can have at a time, of every GPU so far. */
#define MAX_THREADS 2048u

enum vgpu_gpu_error host_hello(struct api_serve *serve, uint32_t revision, uint32_t *host_revision,
                               int *driver_version, size_t *total_memory, char *name)
{
    const struct vgpu_device_info *info = &serve->gpu->info;
    uint64_t free_bytes = info->memory_total, total = info->memory_total;

    (void)revision; /* Calls keep their meaning; the guest leaves out those that this side lacks. */
    ledger_limit(&serve->session->ledger, &free_bytes, &total);
    *host_revision = API_REVISION;
    *driver_version = (int)info->driver;
    *total_memory = total;
    static_assert(sizeof(info->name) == 64, "as private.api has it");
    memcpy(name, info->name, sizeof(info->name));
    return VGPU_GPU_SUCCESS;
}

enum vgpu_gpu_error host_function_params(struct api_serve *serve, uint32_t *values, unsigned count,
                                         struct gpu_function *function)
{
    for (unsigned i = 0; i + 1 < count; i += 2) {
        struct vgpu_result_param param = {0};
        const enum vgpu_gpu_error error = serve->gpu->ops->function_param(serve->gpu, function,
                                                                          i / 2, &param);

        if (error != VGPU_GPU_SUCCESS) {
            return error;
        }
        values[i] = (uint32_t)param.offset;
        values[i + 1] = (uint32_t)param.size;
    }
    return VGPU_GPU_SUCCESS;
}

/*
 * Limits of the context are device memory: for each thread that the GPU can have at a time, or for
 * what kernels allocate and print. It is the VM's from when the limit is set.
 */
enum vgpu_gpu_error host_cuCtxSetLimit(struct api_serve *serve, CUlimit limit, size_t value)
{
    struct ring_session *s = serve->session;
    const uint64_t threads = (uint64_t)serve->gpu->info.processors * MAX_THREADS;
    uint64_t bytes = value, before, more;
    enum vgpu_gpu_error error;

    static_assert(CU_LIMIT_STACK_SIZE == 0 && CU_LIMIT_MALLOC_HEAP_SIZE == 2, "an index each");
    if ((unsigned)limit > CU_LIMIT_MALLOC_HEAP_SIZE) {
        return CUDA_ERROR_UNSUPPORTED_LIMIT;
    }
    if ((limit == CU_LIMIT_STACK_SIZE && __builtin_mul_overflow(value, threads, &bytes)) ||
        bytes > serve->gpu->info.memory_total) {
        return VGPU_GPU_INVALID_VALUE;
    }
    before = s->limit_bytes[limit];
    more = bytes > before ? bytes - before : 0;
    if (!ledger_reserve(&s->ledger, more)) {
        return VGPU_GPU_OUT_OF_MEMORY;
    }
    error = serve->gpu->ops->set_limit(serve->gpu, limit, value);
    if (error != VGPU_GPU_SUCCESS) {
        ledger_return(&s->ledger, more);
        return error;
    }
    if (before > bytes) {
        ledger_return(&s->ledger, before - bytes);
    }
    s->limit_bytes[limit] = bytes;
    return VGPU_GPU_SUCCESS;
}

/* Images ------------------------------------------------------------------------------------- */

enum vgpu_gpu_error host_upload_begin(struct api_serve *serve, size_t bytes)
{
    struct upload *upload = &serve->session->upload;

    free(upload->bytes);
    *upload = (struct upload){0};
    if (bytes == 0 || bytes > COMMAND_IMAGE_MAX) {
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

/* An upload serves one module or graph: what takes it has it for good, also when that fails. */
static struct upload take_upload(struct ring_session *s)
{
    const struct upload upload = s->upload;

    s->upload = (struct upload){0};
    return upload;
}

/* Options whose value is a number; all others are pointers, or unknown. */
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
    const struct upload upload = take_upload(s);
    struct gpu_module *made = NULL;
    bool plain = true;

    for (unsigned i = 0; plain && i < count; i++) {
        plain = option_is_plain(options[i]);
    }
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
    const struct upload upload = take_upload(s);
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
    const struct upload upload = take_upload(serve->session);
    const enum vgpu_gpu_error error = graph_update(&needs, graph, upload.bytes, upload.size, nodes);

    if (error != VGPU_GPU_SUCCESS) {
        free(upload.bytes);
    }
    return error;
}

enum vgpu_gpu_error host_graph_launch(struct api_serve *serve, struct graph *graph,
                                      struct gpu_stream *stream)
{
    return graph_launch(serve->gpu, graph, stream, &serve->session->progress, &serve->again);
}

enum vgpu_gpu_error host_graph_destroy(struct api_serve *serve, struct graph *graph)
{
    struct ring_session *s = serve->session;
    const struct graph_needs needs = graph_needs(s);

    handles_remove(&s->handles, handles_find(&s->handles, HANDLE_GRAPH, graph, 0));
    graph_free(&needs, graph);
    return VGPU_GPU_SUCCESS;
}

/* Streams and work --------------------------------------------------------------------------- */

enum vgpu_gpu_error host_stream_create(struct api_serve *serve, uint64_t *stream, unsigned flags,
                                       int priority)
{
    struct gpu_stream *made = NULL;
    enum vgpu_gpu_error error;

    if (flags & ~VGPU_STREAM_NON_BLOCKING) {
        return VGPU_GPU_INVALID_VALUE;
    }
    error = serve->gpu->ops->stream_create(serve->gpu, flags, priority, &made);
    if (error != VGPU_GPU_SUCCESS) {
        return error;
    }
    *stream = handles_add(&serve->session->handles, HANDLE_STREAM, made, 0);
    if (*stream == 0) {
        serve->gpu->ops->stream_destroy(serve->gpu, made);
        return VGPU_GPU_OUT_OF_MEMORY;
    }
    return VGPU_GPU_SUCCESS;
}

/*
 * What is done next of a copy or fill in rows: a large one is done in pieces, each some rows or,
 * where rows are longer than a piece, a part of one. The session counts these.
 */
struct rows_piece {
    uint64_t slice, row, offset; /* bytes from the row's start */
    uint64_t bytes, rows;
};

static bool next_piece(struct api_serve *serve, uint64_t width, uint64_t height, uint64_t depth,
                       uint64_t limit, struct rows_piece *piece)
{
    struct ring_session *s = serve->session;
    const uint64_t parts = (width - 1) / limit + 1;
    const uint64_t row = s->progress / parts;
    uint64_t all;

    if (__builtin_mul_overflow(height, depth, &all) || __builtin_mul_overflow(all, parts, &all)) {
        return false;
    }
    piece->slice = row / height;
    piece->row = row % height;
    piece->offset = s->progress % parts * limit;
    piece->bytes = width - piece->offset < limit ? width - piece->offset : limit;
    piece->rows = parts > 1 ? 1 : command_piece(s, height - piece->row, limit / width);
    s->progress += piece->rows;
    serve->again = s->progress < all;
    return true;
}

static uint64_t piece_address(const struct rows_side *side, const struct rows_piece *piece)
{
    return side->address + (piece->slice * side->rows + piece->row) * side->pitch + piece->offset;
}

enum vgpu_gpu_error host_copy_3d(struct api_serve *serve, CUdeviceptr to, size_t to_pitch,
                                 size_t to_rows, CUdeviceptr from, size_t from_pitch,
                                 size_t from_rows, size_t width, size_t height, size_t depth,
                                 unsigned kind, struct gpu_stream *stream)
{
    const struct gpu_arena *arena = &serve->gpu->arena;
    const struct rows_side target = {to, to_pitch, to_rows};
    const struct rows_side source = {from, from_pitch, from_rows};
    struct rows_piece piece;

    if (kind < VGPU_COPY_TO_DEVICE || kind > VGPU_COPY_ON_DEVICE) {
        return VGPU_GPU_INVALID_VALUE;
    }
    if (width == 0 || height == 0 || depth == 0) {
        return VGPU_GPU_SUCCESS;
    }
    if (!rows_fit(arena, &target, kind == VGPU_COPY_FROM_DEVICE, width, height, depth) ||
        !rows_fit(arena, &source, kind == VGPU_COPY_TO_DEVICE, width, height, depth) ||
        !next_piece(serve, width, height, depth, COMMAND_COPY_PIECE, &piece)) {
        return VGPU_GPU_INVALID_VALUE;
    }
    return serve->gpu->ops->copy_rows(serve->gpu,
                                      &(struct gpu_rows){
                                          .kind = (enum vgpu_copy_kind)kind,
                                          .to = piece_address(&target, &piece),
                                          .to_pitch = to_pitch,
                                          .from = piece_address(&source, &piece),
                                          .from_pitch = from_pitch,
                                          .width = piece.bytes,
                                          .rows = piece.rows,
                                      },
                                      stream);
}

enum vgpu_gpu_error host_fill_rows(struct api_serve *serve, CUdeviceptr to, size_t pitch,
                                   uint32_t value, unsigned element, size_t width, size_t height,
                                   struct gpu_stream *stream)
{
    const struct rows_side target = {to, pitch, height};
    uint64_t bytes;
    struct rows_piece piece;

    if ((element != 1 && element != 2 && element != 4) || to % element != 0 ||
        (height > 1 && pitch % element != 0)) {
        return VGPU_GPU_INVALID_VALUE;
    }
    if (width == 0 || height == 0) {
        return VGPU_GPU_SUCCESS;
    }
    if (__builtin_mul_overflow(width, element, &bytes) ||
        !rows_fit(&serve->gpu->arena, &target, false, bytes, height, 1) ||
        !next_piece(serve, bytes, height, 1, COMMAND_FILL_PIECE, &piece)) {
        return VGPU_GPU_INVALID_VALUE;
    }
    return serve->gpu->ops->fill_rows(serve->gpu,
                                      &(struct gpu_fill_rows){
                                          .address = piece_address(&target, &piece),
                                          .pitch = pitch,
                                          .width = piece.bytes / element,
                                          .rows = piece.rows,
                                          .value = value,
                                          .element = element,
                                      },
                                      stream);
}

bool api_attribute_is_plain(CUlaunchAttributeID id)
{
    switch (id) {
    case CU_LAUNCH_ATTRIBUTE_IGNORE:
    case CU_LAUNCH_ATTRIBUTE_ACCESS_POLICY_WINDOW:
    case CU_LAUNCH_ATTRIBUTE_COOPERATIVE:
    case CU_LAUNCH_ATTRIBUTE_SYNCHRONIZATION_POLICY:
    case CU_LAUNCH_ATTRIBUTE_CLUSTER_DIMENSION:
    case CU_LAUNCH_ATTRIBUTE_CLUSTER_SCHEDULING_POLICY_PREFERENCE:
    case CU_LAUNCH_ATTRIBUTE_PROGRAMMATIC_STREAM_SERIALIZATION:
    case CU_LAUNCH_ATTRIBUTE_PRIORITY:
    case CU_LAUNCH_ATTRIBUTE_MEM_SYNC_DOMAIN_MAP:
    case CU_LAUNCH_ATTRIBUTE_MEM_SYNC_DOMAIN:
    case CU_LAUNCH_ATTRIBUTE_PREFERRED_CLUSTER_DIMENSION:
    case CU_LAUNCH_ATTRIBUTE_PREFERRED_SHARED_MEMORY_CARVEOUT:
        return true;
    default:
        return false;
    }
}

enum vgpu_gpu_error host_launch_ex(struct api_serve *serve, struct gpu_function *function,
                                   unsigned grid_x, unsigned grid_y, unsigned grid_z,
                                   unsigned block_x, unsigned block_y, unsigned block_z,
                                   unsigned shared_bytes, struct gpu_stream *stream,
                                   const CUlaunchAttribute *attributes, unsigned count,
                                   const char *params, unsigned param_bytes)
{
    const struct vgpu_cmd_launch shape = {
        .grid = {grid_x, grid_y, grid_z},
        .block = {block_x, block_y, block_z},
        .shared_bytes = shared_bytes,
    };
    const struct gpu_launch launch = {
        .shape = &shape,
        .params = params,
        .param_bytes = param_bytes,
        .attributes = attributes,
        .attribute_count = count,
    };

    for (int i = 0; i < 3; i++) {
        if (shape.grid[i] == 0 || shape.block[i] == 0) {
            return VGPU_GPU_INVALID_VALUE;
        }
    }
    for (unsigned i = 0; i < count; i++) {
        if (!api_attribute_is_plain(attributes[i].id)) {
            return VGPU_GPU_NOT_SUPPORTED;
        }
    }
    return serve->gpu->ops->launch(serve->gpu, function, &launch, stream);
}
