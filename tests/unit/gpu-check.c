/* SPDX-License-Identifier: MIT */
/*
 * The contract of worker/gpu.h, asserted; see gpu-check.h.
 *
 * The backend's structure stays in its place, since it casts what it gets to its own: only its
 * table of operations is exchanged. Objects that are alive are in a list, and allocations in
 * another; both are short, as tests go. What a backend says is asked for twice where it must say
 * the same again.
 */
#include "tests/unit/gpu-check.h"

#include <assert.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "worker/api.h"
#include "worker/predict.h"

enum kind { STREAM, EVENT, MODULE, FUNCTION, GRAPH };

struct alive {
    struct alive *next;
    enum kind kind;
    const void *object;
    const void *module; /* whose function it is */
};

struct allocated {
    struct allocated *next;
    uint64_t address, bytes;
};

static struct {
    struct gpu *gpu; /* NULL: closed */
    const struct gpu_ops *ops;
    struct gpu_ops checks;
    struct alive *alive;
    struct allocated *allocated;
    uint64_t fences; /* that are not released */
    enum vgpu_gpu_error lost;
} check;

#define REQUIRE(condition)                                                                         \
    do {                                                                                           \
        if (!(condition)) {                                                                        \
            broken(__func__, #condition);                                                          \
        }                                                                                          \
    } while (0)

static void broken(const char *where, const char *condition)
{
    fprintf(stderr, "%s(): worker/gpu.h wants %s\n", where, condition);
    abort();
}

/* What is alive ------------------------------------------------------------------------------- */

static void forget_all(void)
{
    while (check.alive) {
        struct alive *gone = check.alive;

        check.alive = gone->next;
        free(gone);
    }
    while (check.allocated) {
        struct allocated *gone = check.allocated;

        check.allocated = gone->next;
        free(gone);
    }
    check.fences = 0;
}

static bool is_alive(enum kind kind, const void *object)
{
    const struct alive *alive = check.alive;

    while (alive && (alive->object != object || alive->kind != kind)) {
        alive = alive->next;
    }
    return alive != NULL;
}

static void born(enum kind kind, const void *object, const void *module)
{
    struct alive *alive = malloc(sizeof(*alive));

    REQUIRE(alive);
    *alive = (struct alive){check.alive, kind, object, module};
    check.alive = alive;
}

/* An object. A backend may have one for several modules: their functions go with the last. */
static void died(enum kind kind, const void *object)
{
    struct alive **place = &check.alive, *gone;

    while (*place && ((*place)->object != object || (*place)->kind != kind)) {
        place = &(*place)->next;
    }
    gone = *place;
    REQUIRE(gone != NULL);
    *place = gone->next;
    free(gone);
    if (kind != MODULE || is_alive(MODULE, object)) {
        return;
    }
    for (place = &check.alive; *place;) {
        gone = *place;
        if (gone->kind == FUNCTION && gone->module == object) {
            *place = gone->next;
            free(gone);
        } else {
            place = &gone->next;
        }
    }
}

/* What both sides have in common --------------------------------------------------------------- */

static bool is_error(enum vgpu_gpu_error error)
{
    switch ((int)error) {
#define KNOWN(value, name, text, sticky) case value:
        VGPU_GPU_ERRORS(KNOWN)
#undef KNOWN
        return true;
    default:
        return false;
    }
}

/* Before each operation. */
static void enter_check(const struct gpu *gpu)
{
    REQUIRE(check.gpu != NULL);
    REQUIRE(gpu == check.gpu);
}

/* Behind each; the error, as the backend said it. */
static enum vgpu_gpu_error leave_check(enum vgpu_gpu_error error)
{
    REQUIRE(is_error(error));
    REQUIRE(check.lost == VGPU_GPU_SUCCESS || check.gpu->lost == check.lost);
    check.lost = check.gpu->lost;
    return error;
}

static bool in_arena(uint64_t address, uint64_t bytes)
{
    return gpu_in_arena(&check.gpu->arena, address, bytes);
}

static bool is_copy_kind(enum vgpu_copy_kind kind)
{
    return kind == VGPU_COPY_TO_DEVICE || kind == VGPU_COPY_FROM_DEVICE ||
           kind == VGPU_COPY_ON_DEVICE;
}

/* Bytes from the first of `rows` rows to the last one's end; more than there are on overflow. */
static uint64_t rows_extent(uint64_t width, uint64_t pitch, uint64_t rows)
{
    uint64_t extent;

    if (rows == 0 || width == 0) {
        return 0;
    }
    return __builtin_mul_overflow(rows - 1, pitch, &extent) ||
                   __builtin_add_overflow(extent, width, &extent)
               ? UINT64_MAX
               : extent;
}

static void require_stream(const struct gpu_stream *stream)
{
    REQUIRE(!stream || is_alive(STREAM, stream));
}

static void require_launch(const struct gpu_launch *launch)
{
    REQUIRE(launch->shape != NULL);
    REQUIRE(launch->param_bytes == 0 || launch->params != NULL);
    REQUIRE(launch->attribute_count <= VGPU_ATTRIBUTES_MAX);
    for (uint32_t i = 0; i < launch->attribute_count; i++) {
        REQUIRE(api_attribute_is_plain(launch->attributes[i].id));
    }
}

/* Memory -------------------------------------------------------------------------------------- */

static enum vgpu_gpu_error check_mem_info(struct gpu *gpu, uint64_t *free_bytes, uint64_t *total)
{
    enum vgpu_gpu_error error;

    enter_check(gpu);
    error = leave_check(check.ops->mem_info(gpu, free_bytes, total));
    REQUIRE(error != VGPU_GPU_SUCCESS || *free_bytes <= *total);
    return error;
}

static enum vgpu_gpu_error check_mem_alloc(struct gpu *gpu, uint64_t bytes, uint64_t *address)
{
    enum vgpu_gpu_error error;
    struct allocated *made;

    enter_check(gpu);
    error = leave_check(check.ops->mem_alloc(gpu, bytes, address));
    if (error != VGPU_GPU_SUCCESS) {
        return error;
    }
    REQUIRE(*address != 0);
    for (const struct allocated *a = check.allocated; a; a = a->next) {
        REQUIRE(*address + bytes <= a->address || *address >= a->address + a->bytes);
    }
    made = malloc(sizeof(*made));
    REQUIRE(made);
    *made = (struct allocated){check.allocated, *address, bytes};
    check.allocated = made;
    return error;
}

static enum vgpu_gpu_error check_mem_free(struct gpu *gpu, uint64_t address)
{
    struct allocated **place = &check.allocated, *gone;
    enum vgpu_gpu_error error;

    enter_check(gpu);
    while (*place && (*place)->address != address) {
        place = &(*place)->next;
    }
    gone = *place;
    error = leave_check(check.ops->mem_free(gpu, address));
    REQUIRE(gone || error != VGPU_GPU_SUCCESS); /* addresses are the backend's to check */
    if (gone && error == VGPU_GPU_SUCCESS) {
        *place = gone->next;
        free(gone);
    }
    return error;
}

static enum vgpu_gpu_error check_copy(struct gpu *gpu, const struct gpu_copy *copy,
                                      struct gpu_stream *stream)
{
    enter_check(gpu);
    require_stream(stream);
    REQUIRE(is_copy_kind(copy->kind));
    REQUIRE(copy->kind != VGPU_COPY_TO_DEVICE || in_arena(copy->from, copy->bytes));
    REQUIRE(copy->kind != VGPU_COPY_FROM_DEVICE || in_arena(copy->to, copy->bytes));
    return leave_check(check.ops->copy(gpu, copy, stream));
}

static enum vgpu_gpu_error check_fill(struct gpu *gpu, const struct gpu_fill *fill,
                                      struct gpu_stream *stream)
{
    enter_check(gpu);
    require_stream(stream);
    REQUIRE(fill->width == 1 || fill->width == 2 || fill->width == 4);
    REQUIRE(fill->count <= UINT64_MAX / fill->width);
    return leave_check(check.ops->fill(gpu, fill, stream));
}

static enum vgpu_gpu_error check_copy_rows(struct gpu *gpu, const struct gpu_rows *rows,
                                           struct gpu_stream *stream)
{
    const uint64_t to = rows_extent(rows->width, rows->to_pitch, rows->rows);
    const uint64_t from = rows_extent(rows->width, rows->from_pitch, rows->rows);

    enter_check(gpu);
    require_stream(stream);
    REQUIRE(is_copy_kind(rows->kind));
    REQUIRE(to != UINT64_MAX && from != UINT64_MAX);
    REQUIRE(rows->kind != VGPU_COPY_TO_DEVICE || in_arena(rows->from, from));
    REQUIRE(rows->kind != VGPU_COPY_FROM_DEVICE || in_arena(rows->to, to));
    return leave_check(check.ops->copy_rows(gpu, rows, stream));
}

static void require_array_side(const struct gpu_array_side *side, const struct gpu_array_copy *copy)
{
    const uint64_t extent = rows_extent(copy->width, side->pitch, copy->rows);

    REQUIRE(side->array || extent != UINT64_MAX);
    REQUIRE(side->array || !side->host || in_arena(side->address, extent));
}

static enum vgpu_gpu_error check_array_copy(struct gpu *gpu, const struct gpu_array_copy *copy,
                                            struct gpu_stream *stream)
{
    enter_check(gpu);
    require_stream(stream);
    REQUIRE(copy->to.array || copy->from.array);
    REQUIRE(copy->width > 0 && copy->rows > 0);
    require_array_side(&copy->to, copy);
    require_array_side(&copy->from, copy);
    return leave_check(check.ops->array_copy(gpu, copy, stream));
}

static enum vgpu_gpu_error check_fill_rows(struct gpu *gpu, const struct gpu_fill_rows *rows,
                                           struct gpu_stream *stream)
{
    enter_check(gpu);
    require_stream(stream);
    REQUIRE(rows->element == 1 || rows->element == 2 || rows->element == 4);
    REQUIRE(rows->width <= UINT64_MAX / rows->element);
    REQUIRE(rows_extent(rows->width * rows->element, rows->pitch, rows->rows) != UINT64_MAX);
    return leave_check(check.ops->fill_rows(gpu, rows, stream));
}

/* Modules ------------------------------------------------------------------------------------- */

static enum vgpu_gpu_error made_module(enum vgpu_gpu_error error, struct gpu_module *const *module)
{
    leave_check(error);
    if (error == VGPU_GPU_SUCCESS) {
        REQUIRE(*module != NULL);
        born(MODULE, *module, NULL);
    }
    return error;
}

static enum vgpu_gpu_error check_module_load(struct gpu *gpu, const void *image, uint64_t bytes,
                                             struct gpu_compile *compile,
                                             struct gpu_module **module)
{
    enum vgpu_gpu_error error;

    enter_check(gpu);
    REQUIRE(((const char *)image)[bytes] == '\0');
    REQUIRE(!compile || compile->count == 0 || (compile->options && compile->values));
    REQUIRE(!compile || compile->info_log || compile->info_bytes == 0);
    REQUIRE(!compile || compile->error_log || compile->error_bytes == 0);
    error = made_module(check.ops->module_load(gpu, image, bytes, compile, module), module);
    REQUIRE(!compile || compile->info_used <= compile->info_bytes);
    REQUIRE(!compile || compile->error_used <= compile->error_bytes);
    return error;
}

static enum vgpu_gpu_error check_module_builtin(struct gpu *gpu, struct gpu_module **module)
{
    enter_check(gpu);
    return made_module(check.ops->module_builtin(gpu, module), module);
}

static enum vgpu_gpu_error check_module_unload(struct gpu *gpu, struct gpu_module *module)
{
    enter_check(gpu);
    REQUIRE(is_alive(MODULE, module));
    died(MODULE, module);
    return leave_check(check.ops->module_unload(gpu, module));
}

static enum vgpu_gpu_error check_function_get(struct gpu *gpu, struct gpu_module *module,
                                              const char *name, struct gpu_function **function,
                                              struct vgpu_result_function *info)
{
    struct gpu_function *again = NULL;
    enum vgpu_gpu_error error;

    enter_check(gpu);
    REQUIRE(is_alive(MODULE, module));
    REQUIRE(strlen(name) < VGPU_NAME_MAX);
    error = leave_check(check.ops->function_get(gpu, module, name, function, info));
    if (error != VGPU_GPU_SUCCESS) {
        return error;
    }
    REQUIRE(*function != NULL);
    REQUIRE(check.ops->function_get(gpu, module, name, &again, info) == VGPU_GPU_SUCCESS);
    REQUIRE(again == *function);
    if (!is_alive(FUNCTION, *function)) {
        born(FUNCTION, *function, module);
    }
    return error;
}

static enum vgpu_gpu_error check_function_param(struct gpu *gpu, struct gpu_function *function,
                                                uint64_t index, struct vgpu_result_param *param)
{
    enter_check(gpu);
    REQUIRE(is_alive(FUNCTION, function));
    return leave_check(check.ops->function_param(gpu, function, index, param));
}

static enum vgpu_gpu_error check_launch(struct gpu *gpu, struct gpu_function *function,
                                        const struct gpu_launch *launch, struct gpu_stream *stream)
{
    enter_check(gpu);
    require_stream(stream);
    REQUIRE(is_alive(FUNCTION, function));
    require_launch(launch);
    return leave_check(check.ops->launch(gpu, function, launch, stream));
}

static uint32_t check_launch_part(struct gpu *gpu, struct gpu_function *function,
                                  const struct vgpu_cmd_launch *shape)
{
    uint32_t part;

    enter_check(gpu);
    REQUIRE(is_alive(FUNCTION, function));
    part = check.ops->launch_part(gpu, function, shape);
    REQUIRE(part >= 1 && part <= PREDICT_WHOLE);
    return part;
}

static enum vgpu_gpu_error check_set_limit(struct gpu *gpu, CUlimit limit, uint64_t value)
{
    enter_check(gpu);
    return leave_check(check.ops->set_limit(gpu, limit, value));
}

/* Graphs -------------------------------------------------------------------------------------- */

/* From the first byte of a side to its last, in slices of rows. */
static uint64_t slices_extent(const struct vgpu_graph_copy *copy, uint64_t pitch, uint64_t rows)
{
    uint64_t slice, extent;

    if (copy->width == 0 || copy->height == 0 || copy->depth == 0) {
        return 0;
    }
    return __builtin_mul_overflow(copy->depth - 1, rows, &slice) ||
                   __builtin_add_overflow(slice, copy->height - 1, &slice) ||
                   __builtin_mul_overflow(slice, pitch, &extent) ||
                   __builtin_add_overflow(extent, copy->width, &extent)
               ? UINT64_MAX
               : extent;
}

static void require_copy_node(const struct vgpu_graph_copy *copy)
{
    const uint64_t to = slices_extent(copy, copy->to_pitch, copy->to_rows);
    const uint64_t from = slices_extent(copy, copy->from_pitch, copy->from_rows);

    REQUIRE(is_copy_kind((enum vgpu_copy_kind)copy->kind));
    REQUIRE(to != UINT64_MAX && from != UINT64_MAX);
    REQUIRE(copy->kind != VGPU_COPY_TO_DEVICE || in_arena(copy->from, from));
    REQUIRE(copy->kind != VGPU_COPY_FROM_DEVICE || in_arena(copy->to, to));
}

static void require_nodes(const struct gpu_graph_node *nodes, uint32_t count)
{
    for (uint32_t i = 0; i < count; i++) {
        const struct gpu_graph_node *node = &nodes[i];

        for (uint32_t k = 0; k < node->follow_count; k++) {
            REQUIRE(node->follows[k] < i);
        }
        switch (node->kind) {
        case VGPU_GRAPH_KERNEL:
            REQUIRE(is_alive(FUNCTION, node->kernel.function));
            require_launch(&node->kernel.launch);
            break;
        case VGPU_GRAPH_COPY:
            require_copy_node(&node->copy);
            break;
        case VGPU_GRAPH_FILL:
            REQUIRE(node->fill.element == 1 || node->fill.element == 2 || node->fill.element == 4);
            break;
        case VGPU_GRAPH_GATE:
            REQUIRE(node->gate % sizeof(uint32_t) == 0);
            REQUIRE(in_arena(node->gate, sizeof(uint32_t)));
            break;
        default:
            REQUIRE(node->kind == VGPU_GRAPH_NOTHING);
            break;
        }
    }
}

static enum vgpu_gpu_error check_graph_make(struct gpu *gpu, const struct gpu_graph_node *nodes,
                                            uint32_t count, struct gpu_graph **graph)
{
    enum vgpu_gpu_error error;

    enter_check(gpu);
    require_nodes(nodes, count);
    error = leave_check(check.ops->graph_make(gpu, nodes, count, graph));
    if (error == VGPU_GPU_SUCCESS) {
        REQUIRE(*graph != NULL);
        born(GRAPH, *graph, NULL);
    }
    return error;
}

static enum vgpu_gpu_error check_graph_update(struct gpu *gpu, struct gpu_graph *graph,
                                              const struct gpu_graph_node *nodes, uint32_t count)
{
    enter_check(gpu);
    REQUIRE(is_alive(GRAPH, graph));
    require_nodes(nodes, count);
    return leave_check(check.ops->graph_update(gpu, graph, nodes, count));
}

static enum vgpu_gpu_error check_graph_launch(struct gpu *gpu, struct gpu_graph *graph,
                                              struct gpu_stream *stream)
{
    enter_check(gpu);
    REQUIRE(is_alive(GRAPH, graph));
    require_stream(stream);
    return leave_check(check.ops->graph_launch(gpu, graph, stream));
}

static void check_graph_destroy(struct gpu *gpu, struct gpu_graph *graph)
{
    enter_check(gpu);
    REQUIRE(is_alive(GRAPH, graph));
    died(GRAPH, graph);
    check.ops->graph_destroy(gpu, graph);
}

/* Streams and events -------------------------------------------------------------------------- */

static enum vgpu_gpu_error check_stream_create(struct gpu *gpu, uint32_t flags, int32_t priority,
                                               struct gpu_stream **stream)
{
    enum vgpu_gpu_error error;

    enter_check(gpu);
    error = leave_check(check.ops->stream_create(gpu, flags, priority, stream));
    if (error == VGPU_GPU_SUCCESS) {
        REQUIRE(*stream != NULL);
        born(STREAM, *stream, NULL);
    }
    return error;
}

static void check_stream_destroy(struct gpu *gpu, struct gpu_stream *stream)
{
    enter_check(gpu);
    REQUIRE(is_alive(STREAM, stream));
    REQUIRE(check.ops->stream_poll(gpu, stream) != VGPU_GPU_NOT_READY);
    died(STREAM, stream);
    check.ops->stream_destroy(gpu, stream);
}

static enum vgpu_gpu_error check_stream_poll(struct gpu *gpu, struct gpu_stream *stream)
{
    enum vgpu_gpu_error error;

    enter_check(gpu);
    require_stream(stream);
    error = leave_check(check.ops->stream_poll(gpu, stream));
    REQUIRE(error != VGPU_GPU_SUCCESS || check.ops->stream_poll(gpu, stream) != VGPU_GPU_NOT_READY);
    return error;
}

static enum vgpu_gpu_error check_stream_wait(struct gpu *gpu, struct gpu_stream *stream,
                                             struct gpu_event *event)
{
    enter_check(gpu);
    require_stream(stream);
    REQUIRE(is_alive(EVENT, event));
    return leave_check(check.ops->stream_wait(gpu, stream, event));
}

static enum vgpu_gpu_error check_event_create(struct gpu *gpu, uint32_t flags,
                                              struct gpu_event **event)
{
    enum vgpu_gpu_error error;

    enter_check(gpu);
    error = leave_check(check.ops->event_create(gpu, flags, event));
    if (error == VGPU_GPU_SUCCESS) {
        REQUIRE(*event != NULL);
        born(EVENT, *event, NULL);
    }
    return error;
}

static void check_event_destroy(struct gpu *gpu, struct gpu_event *event)
{
    enter_check(gpu);
    REQUIRE(is_alive(EVENT, event));
    died(EVENT, event);
    check.ops->event_destroy(gpu, event);
}

static enum vgpu_gpu_error check_event_record(struct gpu *gpu, struct gpu_event *event,
                                              struct gpu_stream *stream)
{
    enter_check(gpu);
    require_stream(stream);
    REQUIRE(is_alive(EVENT, event));
    return leave_check(check.ops->event_record(gpu, event, stream));
}

static enum vgpu_gpu_error check_event_query(struct gpu *gpu, struct gpu_event *event)
{
    enum vgpu_gpu_error error;

    enter_check(gpu);
    REQUIRE(is_alive(EVENT, event));
    error = leave_check(check.ops->event_query(gpu, event));
    REQUIRE(error != VGPU_GPU_SUCCESS || check.ops->event_query(gpu, event) != VGPU_GPU_NOT_READY);
    return error;
}

static enum vgpu_gpu_error check_event_elapsed(struct gpu *gpu, struct gpu_event *start,
                                               struct gpu_event *end, float *milliseconds)
{
    enter_check(gpu);
    REQUIRE(is_alive(EVENT, start));
    REQUIRE(is_alive(EVENT, end));
    return leave_check(check.ops->event_elapsed(gpu, start, end, milliseconds));
}

/* Fences -------------------------------------------------------------------------------------- */

/* One that is all zero is passed already, and need not be released. */
static bool is_open(const struct gpu_fence *fence)
{
    return fence->mark || fence->record;
}

static enum vgpu_gpu_error made_fence(enum vgpu_gpu_error error, const struct gpu_fence *fence)
{
    leave_check(error);
    check.fences += error == VGPU_GPU_SUCCESS && is_open(fence);
    return error;
}

static enum vgpu_gpu_error check_event_fence(struct gpu *gpu, struct gpu_event *event,
                                             struct gpu_fence *fence)
{
    enter_check(gpu);
    REQUIRE(is_alive(EVENT, event));
    return made_fence(check.ops->event_fence(gpu, event, fence), fence);
}

static enum vgpu_gpu_error check_fence(struct gpu *gpu, struct gpu_stream *stream,
                                       struct gpu_fence *fence)
{
    enter_check(gpu);
    require_stream(stream);
    return made_fence(check.ops->fence(gpu, stream, fence), fence);
}

static enum vgpu_gpu_error check_fence_poll(struct gpu *gpu, const struct gpu_fence *fence)
{
    enum vgpu_gpu_error error;

    enter_check(gpu);
    REQUIRE(!is_open(fence) || check.fences > 0);
    error = leave_check(check.ops->fence_poll(gpu, fence));
    REQUIRE(error != VGPU_GPU_SUCCESS || check.ops->fence_poll(gpu, fence) != VGPU_GPU_NOT_READY);
    return error;
}

static void check_fence_release(struct gpu *gpu, struct gpu_fence *fence)
{
    enter_check(gpu);
    if (is_open(fence)) {
        REQUIRE(check.fences > 0);
        check.fences--;
    }
    check.ops->fence_release(gpu, fence);
}

static bool check_fence_answer(struct gpu *gpu, struct gpu_fence *fence, uint32_t *word,
                               uint32_t value)
{
    enter_check(gpu);
    REQUIRE(!is_open(fence) || check.fences > 0);
    return check.ops->fence_answer(gpu, fence, word, value);
}

static bool check_print(struct gpu *gpu, bool all)
{
    enter_check(gpu);
    return check.ops->print(gpu, all);
}

static bool check_room(struct gpu *gpu)
{
    enter_check(gpu);
    return check.ops->room(gpu);
}

static void check_close(struct gpu *gpu)
{
    enter_check(gpu);
    forget_all();
    check.gpu = NULL;
    check.ops->close(gpu);
}

/* What a backend may lack it still lacks; what only passes through is the backend's own. */
struct gpu *gpu_check(struct gpu *gpu)
{
    const struct gpu_ops *ops = gpu->ops;

    forget_all();
    check.gpu = gpu;
    check.ops = ops;
    check.lost = gpu->lost;
    /* What is added to the table and not here would be NULL: the number tells. */
    static_assert(sizeof(struct gpu_ops) == 61 * sizeof(void *), "an operation is not checked");
    check.checks = (struct gpu_ops){
        .mem_info = check_mem_info,
        .mem_alloc = check_mem_alloc,
        .mem_free = check_mem_free,
        .range_reserve = ops->range_reserve,
        .range_free = ops->range_free,
        .memory_create = ops->memory_create,
        .memory_release = ops->memory_release,
        .memory_map = ops->memory_map,
        .memory_unmap = ops->memory_unmap,
        .array_create = ops->array_create,
        .array_destroy = ops->array_destroy,
        .array_level = ops->array_level,
        .array_copy = check_array_copy,
        .texture_create = ops->texture_create,
        .texture_destroy = ops->texture_destroy,
        .link_create = ops->link_create,
        .link_add = ops->link_add,
        .link_complete = ops->link_complete,
        .link_destroy = ops->link_destroy,
        .copy = check_copy,
        .fill = check_fill,
        .copy_rows = check_copy_rows,
        .fill_rows = check_fill_rows,
        .module_load = check_module_load,
        .module_builtin = check_module_builtin,
        .module_unload = check_module_unload,
        .function_get = check_function_get,
        .function_param = check_function_param,
        .launch = check_launch,
        .launch_part = check_launch_part,
        .graph_make = ops->graph_make ? check_graph_make : NULL,
        .graph_update = ops->graph_update ? check_graph_update : NULL,
        .graph_launch = ops->graph_launch ? check_graph_launch : NULL,
        .graph_destroy = ops->graph_destroy ? check_graph_destroy : NULL,
        .set_limit = check_set_limit,
        .stream_create = check_stream_create,
        .stream_destroy = check_stream_destroy,
        .stream_poll = check_stream_poll,
        .stream_wait = check_stream_wait,
        .event_create = check_event_create,
        .event_destroy = check_event_destroy,
        .event_record = check_event_record,
        .event_fence = check_event_fence,
        .event_query = check_event_query,
        .event_elapsed = check_event_elapsed,
        .fence = check_fence,
        .fence_poll = check_fence_poll,
        .fence_release = check_fence_release,
        .print = ops->print ? check_print : NULL,
        .fence_answer = ops->fence_answer ? check_fence_answer : NULL,
        .fence_told = ops->fence_told,
        .reach = ops->reach,
        .unreach = ops->unreach,
        .share_name = ops->share_name,
        .share_open = ops->share_open,
        .share_close = ops->share_close,
        .confirm = ops->confirm,
        .set_off = ops->set_off,
        .set_slice = ops->set_slice,
        .room = check_room,
        .close = check_close,
    };
    gpu->ops = &check.checks;
    return gpu;
}
