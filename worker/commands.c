/* SPDX-License-Identifier: MIT */
/* The commands of ring mode, see commands.h. */
#include "worker/commands.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "common/clock.h"
#include "common/shared.h"
#include "worker/api.h"

/* What is guessed of work that was not seen before, ns. */
#define GUESS_LAUNCH_NS UINT64_C(1000000)
#define GUESS_COPY_NS UINT64_C(10000) /* and a nanosecond for each GUESS_COPY_RATE bytes */
#define GUESS_COPY_RATE 8u

/* What a handler fills in for the slot. */
struct answer {
    bool later; /* pending: not answered now */
    bool again; /* pieces of it are left to do */
    uint32_t length;
    _Alignas(8) uint8_t payload[VGPU_PAYLOAD_MAX];
};

typedef enum vgpu_gpu_error (*command_handler)(struct ring_session *s, const void *body,
                                               struct answer *answer);

static void put_answer(struct answer *answer, const void *payload, size_t length)
{
    memcpy(answer->payload, payload, length);
    answer->length = (uint32_t)length;
}

static void put_value(struct answer *answer, uint64_t value)
{
    const struct vgpu_result_value result = {.value = value};

    put_answer(answer, &result, sizeof(result));
}

/* Gives a new object its handle; without one it could not be found again. */
static enum vgpu_gpu_error put_handle(struct ring_session *s, struct answer *answer,
                                      enum handle_type type, void *object)
{
    const uint64_t handle = handles_add(&s->handles, type, object, 0);

    if (handle == 0) {
        return VGPU_GPU_OUT_OF_MEMORY;
    }
    put_value(answer, handle);
    return VGPU_GPU_SUCCESS;
}

/* The stream behind a handle, NULL for the default one; false when there is none. */
static bool session_stream(struct ring_session *s, uint64_t handle, struct gpu_stream **stream)
{
    *stream = handle == 0 ? NULL : handles_get(&s->handles, HANDLE_STREAM, handle);
    return handle == 0 || *stream != NULL;
}

static struct gpu_event *session_event(struct ring_session *s, uint64_t handle)
{
    return handles_get(&s->handles, HANDLE_EVENT, handle);
}

/* Pending commands --------------------------------------------------------------------- */

static enum vgpu_gpu_error take_deferred(struct ring_session *s)
{
    const enum vgpu_gpu_error error = s->deferred;

    s->deferred = VGPU_GPU_SUCCESS;
    return error;
}

void command_release_fences(struct ring_session *s, struct pending *pending)
{
    while (pending->count > 0) {
        s->gpu->ops->fence_release(s->gpu, &pending->fences[--pending->count]);
    }
    free(pending->fences);
    pending->fences = NULL;
}

/* What is left to do when the fences are passed, or when `error` came first. */
static enum vgpu_gpu_error finish_pending(struct ring_session *s, const struct pending *pending,
                                          enum vgpu_gpu_error error)
{
    struct gpu_module *module;
    enum vgpu_gpu_error deferred;

    switch (pending->kind) {
    case PENDING_FENCE:
        return error;
    case PENDING_FREE:
        error = s->gpu->ops->mem_free(s->gpu, pending->argument);
        if (error == VGPU_GPU_SUCCESS) {
            ledger_free(&s->ledger, pending->argument);
        }
        return error;
    case PENDING_UNLOAD:
        module = handles_get(&s->handles, HANDLE_MODULE, pending->argument);
        if (!module) {
            return VGPU_GPU_INVALID_HANDLE;
        }
        handles_remove_children(&s->handles, pending->argument);
        handles_remove(&s->handles, pending->argument);
        return s->gpu->ops->module_unload(s->gpu, module);
    default:
        deferred = take_deferred(s);
        return error != VGPU_GPU_SUCCESS ? error : deferred;
    }
}

/*
 * Freeing and unloading would have the driver wait for all work, and this worker with it. So
 * nothing more is submitted until there is none.
 */
static bool may_finish(struct ring_session *s, const struct pending *pending)
{
    const bool waits = pending->kind == PENDING_FREE || pending->kind == PENDING_UNLOAD;

    if (waits) {
        flight_poll(&s->flight, clock_ns());
        s->settling = !flight_idle(&s->flight);
    }
    return !waits || !s->settling;
}

bool command_poll(struct ring_session *s, struct pending *pending)
{
    enum vgpu_gpu_error error = VGPU_GPU_SUCCESS;

    while (error == VGPU_GPU_SUCCESS && pending->count > 0) {
        struct gpu_fence *fence = &pending->fences[pending->count - 1];

        error = s->gpu->ops->fence_poll(s->gpu, fence);
        if (error == VGPU_GPU_SUCCESS) {
            s->gpu->ops->fence_release(s->gpu, fence);
            pending->count--;
        }
    }
    if (error == VGPU_GPU_NOT_READY || !may_finish(s, pending)) {
        return false;
    }
    command_release_fences(s, pending);
    error = finish_pending(s, pending, error);
    s->pending_slots &= ~(UINT64_C(1) << (pending->header.slot - 1));
    ring_answer(&s->ring, &pending->header, error, NULL, 0);
    return true;
}

/* Where the command being carried out waits; its slot is free, command_execute() has looked. */
static struct pending *make_pending(struct ring_session *s, enum pending_kind kind,
                                    uint64_t argument, struct answer *answer)
{
    const struct vgpu_command *header = &s->command->header;
    struct pending *pending = &s->pending[header->slot - 1];

    *pending = (struct pending){.header = *header, .kind = kind, .argument = argument};
    s->pending_slots |= UINT64_C(1) << (header->slot - 1);
    answer->later = true;
    return pending;
}

/* Makes the command wait for one fence, which is its own from now on. */
static enum vgpu_gpu_error wait_for_one(struct ring_session *s, enum pending_kind kind,
                                        struct gpu_fence *fence, struct answer *answer)
{
    struct gpu_fence *fences = malloc(sizeof(*fences));
    struct pending *pending;

    if (!fences) {
        s->gpu->ops->fence_release(s->gpu, fence);
        return VGPU_GPU_OUT_OF_MEMORY;
    }
    fences[0] = *fence;
    pending = make_pending(s, kind, 0, answer);
    pending->fences = fences;
    pending->count = 1;
    return VGPU_GPU_SUCCESS;
}

/* Makes fences for all streams, also those that are destroyed; *count of them were made. */
static enum vgpu_gpu_error fence_all(struct ring_session *s, struct gpu_fence *fences,
                                     uint32_t *count)
{
    enum vgpu_gpu_error error = s->gpu->ops->fence(s->gpu, NULL, &fences[0]);
    const struct retired *retired = s->retired;
    struct gpu_stream *stream;
    uint32_t position = 0;

    *count = error == VGPU_GPU_SUCCESS;
    while (error == VGPU_GPU_SUCCESS) {
        stream = handles_next(&s->handles, HANDLE_STREAM, &position);
        if (!stream && retired) {
            stream = retired->stream;
            retired = retired->next;
        }
        if (!stream) {
            break;
        }
        error = s->gpu->ops->fence(s->gpu, stream, &fences[*count]);
        *count += error == VGPU_GPU_SUCCESS;
    }
    return error;
}

/* Makes the command wait for what all streams have been given. */
static enum vgpu_gpu_error wait_for_all(struct ring_session *s, enum pending_kind kind,
                                        uint64_t argument, struct answer *answer)
{
    struct pending waiting = {.kind = kind};
    uint32_t position = 0, count = 1;
    enum vgpu_gpu_error error;
    struct pending *pending;

    while (handles_next(&s->handles, HANDLE_STREAM, &position)) {
        count++;
    }
    for (const struct retired *retired = s->retired; retired; retired = retired->next) {
        count++;
    }
    waiting.fences = calloc(count, sizeof(waiting.fences[0]));
    if (!waiting.fences) {
        return VGPU_GPU_OUT_OF_MEMORY;
    }
    error = fence_all(s, waiting.fences, &waiting.count);
    if (error != VGPU_GPU_SUCCESS) {
        command_release_fences(s, &waiting);
        return error;
    }
    pending = make_pending(s, kind, argument, answer);
    pending->fences = waiting.fences;
    pending->count = waiting.count;
    return VGPU_GPU_SUCCESS;
}

/* Handlers ------------------------------------------------------------------------------ */

static enum vgpu_gpu_error do_nop(struct ring_session *s, const void *body, struct answer *answer)
{
    (void)s;
    (void)body;
    (void)answer;
    return VGPU_GPU_SUCCESS;
}

static enum vgpu_gpu_error do_device_info(struct ring_session *s, const void *body,
                                          struct answer *answer)
{
    struct vgpu_device_info info = s->gpu->info;
    uint64_t free_bytes = info.memory_total;

    (void)body;
    ledger_limit(&s->ledger, &free_bytes, &info.memory_total);
    put_answer(answer, &info, sizeof(info));
    return VGPU_GPU_SUCCESS;
}

static enum vgpu_gpu_error do_mem_info(struct ring_session *s, const void *body,
                                       struct answer *answer)
{
    struct vgpu_result_mem_info info = {0};
    enum vgpu_gpu_error error;

    (void)body;
    memory_free_dropped(s);
    error = s->gpu->ops->mem_info(s->gpu, &info.free, &info.total);
    ledger_limit(&s->ledger, &info.free, &info.total);
    put_answer(answer, &info, sizeof(info));
    return error;
}

/* What an allocation takes of the VM's quota: what the GPU has to give for it at least. */
#define ALLOC_GRANULE UINT64_C(512)

static enum vgpu_gpu_error do_mem_alloc(struct ring_session *s, const void *body,
                                        struct answer *answer)
{
    const struct vgpu_cmd_value *command = body;
    const uint64_t bytes = (command->value + ALLOC_GRANULE - 1) & ~(ALLOC_GRANULE - 1);
    uint64_t address = 0;
    enum vgpu_gpu_error error;

    if (command->value == 0) {
        return VGPU_GPU_INVALID_VALUE;
    }
    memory_free_dropped(s);
    /* 0: rounding has wrapped. */
    if (bytes == 0 || !ledger_reserve(&s->ledger, bytes)) {
        return VGPU_GPU_OUT_OF_MEMORY;
    }
    error = s->gpu->ops->mem_alloc(s->gpu, command->value, &address);
    if (error == VGPU_GPU_SUCCESS && !ledger_note(&s->ledger, address, bytes)) {
        s->gpu->ops->mem_free(s->gpu, address);
        error = VGPU_GPU_OUT_OF_MEMORY;
    }
    if (error != VGPU_GPU_SUCCESS) {
        ledger_return(&s->ledger, bytes);
        return error;
    }
    put_value(answer, address);
    return VGPU_GPU_SUCCESS;
}

static enum vgpu_gpu_error do_mem_free(struct ring_session *s, const void *body,
                                       struct answer *answer)
{
    const struct vgpu_cmd_value *command = body;

    return wait_for_all(s, PENDING_FREE, command->value, answer);
}

uint64_t command_piece(const struct ring_session *s, uint64_t left, uint64_t piece)
{
    return shared_load64(&s->page->terms.window_ns) != 0 && left > piece ? piece : left;
}

static enum vgpu_gpu_error do_copy(struct ring_session *s, const void *body, struct answer *answer)
{
    const struct vgpu_cmd_copy *command = body;
    struct gpu_copy copy = {
        .kind = (enum vgpu_copy_kind)command->kind,
        .to = command->to,
        .from = command->from,
        .bytes = command->bytes,
    };
    struct gpu_stream *stream;

    if (!session_stream(s, command->stream, &stream)) {
        return VGPU_GPU_INVALID_HANDLE;
    }
    if (command->kind < VGPU_COPY_TO_DEVICE || command->kind > VGPU_COPY_ON_DEVICE ||
        command->reserved != 0 || command->reserved2 != 0) {
        return VGPU_GPU_INVALID_VALUE;
    }
    if ((copy.kind == VGPU_COPY_TO_DEVICE &&
         !gpu_in_arena(&s->gpu->arena, copy.from, copy.bytes)) ||
        (copy.kind == VGPU_COPY_FROM_DEVICE &&
         !gpu_in_arena(&s->gpu->arena, copy.to, copy.bytes))) {
        return VGPU_GPU_INVALID_VALUE;
    }
    copy.to += s->progress;
    copy.from += s->progress;
    copy.bytes = command_piece(s, command->bytes - s->progress,
                               copy.kind == VGPU_COPY_ON_DEVICE ? COMMAND_FILL_PIECE
                                                                : COMMAND_COPY_PIECE);
    s->progress += copy.bytes;
    answer->again = s->progress < command->bytes;
    return copy.bytes == 0 ? VGPU_GPU_SUCCESS : s->gpu->ops->copy(s->gpu, &copy, stream);
}

static enum vgpu_gpu_error do_fill(struct ring_session *s, const void *body, struct answer *answer)
{
    const struct vgpu_cmd_fill *command = body;
    struct gpu_fill fill = {
        .address = command->address,
        .count = command->count,
        .value = command->value,
        .width = command->width,
    };
    struct gpu_stream *stream;

    if (!session_stream(s, command->stream, &stream)) {
        return VGPU_GPU_INVALID_HANDLE;
    }
    if ((fill.width != 1 && fill.width != 2 && fill.width != 4) || fill.address % fill.width != 0 ||
        fill.count > UINT64_MAX / 4) {
        return VGPU_GPU_INVALID_VALUE;
    }
    fill.address += s->progress * fill.width;
    fill.count = command_piece(s, command->count - s->progress, COMMAND_FILL_PIECE / fill.width);
    s->progress += fill.count;
    answer->again = s->progress < command->count;
    return fill.count == 0 ? VGPU_GPU_SUCCESS : s->gpu->ops->fill(s->gpu, &fill, stream);
}

static enum vgpu_gpu_error do_module_load(struct ring_session *s, const void *body,
                                          struct answer *answer)
{
    const struct vgpu_cmd_module_load *command = body;
    struct gpu_module *module = NULL;
    enum vgpu_gpu_error error;
    uint64_t words;
    uint8_t *image;

    if (command->bytes == 0 || command->bytes > COMMAND_IMAGE_MAX || command->image % 4 != 0 ||
        !gpu_in_arena(&s->gpu->arena, command->image, command->bytes)) {
        return VGPU_GPU_INVALID_VALUE;
    }
    /* Whole words are read; the arena's size is a multiple of them. A NUL follows for PTX. */
    words = (command->bytes + 3) / 4;
    image = malloc(4 * words + 1);
    if (!image) {
        return VGPU_GPU_OUT_OF_MEMORY;
    }
    shared_copy_in(image, (void *)(uintptr_t)command->image, 4 * words);
    image[command->bytes] = '\0';
    error = s->gpu->ops->module_load(s->gpu, image, command->bytes, NULL, &module);
    free(image);
    if (error != VGPU_GPU_SUCCESS) {
        return error;
    }
    error = put_handle(s, answer, HANDLE_MODULE, module);
    if (error != VGPU_GPU_SUCCESS) {
        s->gpu->ops->module_unload(s->gpu, module);
    }
    return error;
}

static enum vgpu_gpu_error do_module_builtin(struct ring_session *s, const void *body,
                                             struct answer *answer)
{
    struct gpu_module *module = NULL;
    enum vgpu_gpu_error error = s->gpu->ops->module_builtin(s->gpu, &module);

    (void)body;
    if (error == VGPU_GPU_SUCCESS) {
        error = put_handle(s, answer, HANDLE_MODULE, module);
        if (error != VGPU_GPU_SUCCESS) {
            s->gpu->ops->module_unload(s->gpu, module);
        }
    }
    return error;
}

static enum vgpu_gpu_error do_module_unload(struct ring_session *s, const void *body,
                                            struct answer *answer)
{
    const struct vgpu_cmd_value *command = body;

    if (!handles_get(&s->handles, HANDLE_MODULE, command->value)) {
        return VGPU_GPU_INVALID_HANDLE;
    }
    return wait_for_all(s, PENDING_UNLOAD, command->value, answer);
}

static enum vgpu_gpu_error do_function_get(struct ring_session *s, const void *body,
                                           struct answer *answer)
{
    const struct vgpu_cmd_function_get *command = body;
    struct gpu_module *module = handles_get(&s->handles, HANDLE_MODULE, command->module);
    struct vgpu_result_function info = {0};
    struct gpu_function *function = NULL;
    char name[VGPU_NAME_MAX];
    enum vgpu_gpu_error error;

    if (!module) {
        return VGPU_GPU_INVALID_HANDLE;
    }
    /* The length fits the command and the name its limit: check_length() has looked. */
    memcpy(name, command + 1, command->length);
    name[command->length] = '\0';
    error = s->gpu->ops->function_get(s->gpu, module, name, &function, &info);
    if (error != VGPU_GPU_SUCCESS) {
        return error;
    }
    info.function = handles_find(&s->handles, HANDLE_FUNCTION, function, command->module);
    if (info.function == 0) {
        info.function = handles_add(&s->handles, HANDLE_FUNCTION, function, command->module);
    }
    put_answer(answer, &info, sizeof(info));
    return info.function == 0 ? VGPU_GPU_OUT_OF_MEMORY : VGPU_GPU_SUCCESS;
}

static enum vgpu_gpu_error do_function_param(struct ring_session *s, const void *body,
                                             struct answer *answer)
{
    const struct vgpu_cmd_pair *command = body;
    struct gpu_function *function = handles_get(&s->handles, HANDLE_FUNCTION, command->first);
    struct vgpu_result_param param = {0};
    enum vgpu_gpu_error error = VGPU_GPU_INVALID_HANDLE;

    if (function) {
        error = s->gpu->ops->function_param(s->gpu, function, command->second, &param);
    }
    put_answer(answer, &param, sizeof(param));
    return error;
}

static enum vgpu_gpu_error do_launch(struct ring_session *s, const void *body,
                                     struct answer *answer)
{
    const struct vgpu_cmd_launch *command = body;
    struct gpu_function *function = handles_get(&s->handles, HANDLE_FUNCTION, command->function);
    const struct gpu_launch launch = {
        .shape = command,
        .params = command + 1,
        .param_bytes = command->param_bytes,
    };
    struct gpu_stream *stream;

    (void)answer;
    if (!function || !session_stream(s, command->stream, &stream)) {
        return VGPU_GPU_INVALID_HANDLE;
    }
    for (int i = 0; i < 3; i++) {
        if (command->grid[i] == 0 || command->block[i] == 0) {
            return VGPU_GPU_INVALID_VALUE;
        }
    }
    return s->gpu->ops->launch(s->gpu, function, &launch, stream);
}

static enum vgpu_gpu_error do_stream_create(struct ring_session *s, const void *body,
                                            struct answer *answer)
{
    const struct vgpu_cmd_value *command = body;
    struct gpu_stream *stream = NULL;
    enum vgpu_gpu_error error;

    if (command->value & ~(uint64_t)VGPU_STREAM_NON_BLOCKING) {
        return VGPU_GPU_INVALID_VALUE;
    }
    error = s->gpu->ops->stream_create(s->gpu, (uint32_t)command->value, 0, &stream);
    if (error == VGPU_GPU_SUCCESS) {
        error = put_handle(s, answer, HANDLE_STREAM, stream);
        if (error != VGPU_GPU_SUCCESS) {
            s->gpu->ops->stream_destroy(s->gpu, stream);
        }
    }
    return error;
}

/* What the stream has to do is still done: it is kept until then. */
static enum vgpu_gpu_error do_stream_destroy(struct ring_session *s, const void *body,
                                             struct answer *answer)
{
    const struct vgpu_cmd_value *command = body;
    struct gpu_stream *stream = handles_get(&s->handles, HANDLE_STREAM, command->value);
    struct retired *retired;
    enum vgpu_gpu_error error;

    (void)answer;
    if (!stream) {
        return VGPU_GPU_INVALID_HANDLE;
    }
    retired = calloc(1, sizeof(*retired));
    if (!retired) {
        return VGPU_GPU_OUT_OF_MEMORY;
    }
    error = s->gpu->ops->fence(s->gpu, stream, &retired->fence);
    if (error != VGPU_GPU_SUCCESS) {
        free(retired);
        return error;
    }
    handles_remove(&s->handles, command->value);
    retired->stream = stream;
    retired->next = s->retired;
    s->retired = retired;
    s->retired_count++;
    return VGPU_GPU_SUCCESS;
}

static enum vgpu_gpu_error do_stream_wait(struct ring_session *s, const void *body,
                                          struct answer *answer)
{
    const struct vgpu_cmd_pair *command = body;
    struct gpu_event *event = session_event(s, command->second);
    struct gpu_stream *stream;

    (void)answer;
    if (!event || !session_stream(s, command->first, &stream)) {
        return VGPU_GPU_INVALID_HANDLE;
    }
    return s->gpu->ops->stream_wait(s->gpu, stream, event);
}

/* Waits for a stream. */
static enum vgpu_gpu_error sync_stream(struct ring_session *s, enum pending_kind kind,
                                       uint64_t handle, struct answer *answer)
{
    struct gpu_stream *stream;
    struct gpu_fence fence;
    enum vgpu_gpu_error error;

    if (!session_stream(s, handle, &stream)) {
        return VGPU_GPU_INVALID_HANDLE;
    }
    error = s->gpu->ops->fence(s->gpu, stream, &fence);
    return error == VGPU_GPU_SUCCESS ? wait_for_one(s, kind, &fence, answer) : error;
}

static enum vgpu_gpu_error do_stream_sync(struct ring_session *s, const void *body,
                                          struct answer *answer)
{
    const struct vgpu_cmd_value *command = body;

    return sync_stream(s, PENDING_SYNC, command->value, answer);
}

static enum vgpu_gpu_error do_fence(struct ring_session *s, const void *body, struct answer *answer)
{
    const struct vgpu_cmd_value *command = body;

    return sync_stream(s, PENDING_FENCE, command->value, answer);
}

static enum vgpu_gpu_error do_stream_query(struct ring_session *s, const void *body,
                                           struct answer *answer)
{
    const struct vgpu_cmd_value *command = body;
    struct gpu_stream *stream;
    struct gpu_fence fence;
    enum vgpu_gpu_error error;

    (void)answer;
    if (!session_stream(s, command->value, &stream)) {
        return VGPU_GPU_INVALID_HANDLE;
    }
    error = s->gpu->ops->fence(s->gpu, stream, &fence);
    if (error == VGPU_GPU_SUCCESS) {
        error = s->gpu->ops->fence_poll(s->gpu, &fence);
        s->gpu->ops->fence_release(s->gpu, &fence);
    }
    return error;
}

static enum vgpu_gpu_error do_event_create(struct ring_session *s, const void *body,
                                           struct answer *answer)
{
    const struct vgpu_cmd_value *command = body;
    struct gpu_event *event = NULL;
    enum vgpu_gpu_error error;

    if (command->value & ~(uint64_t)VGPU_EVENT_NO_TIMING) {
        return VGPU_GPU_INVALID_VALUE;
    }
    error = s->gpu->ops->event_create(s->gpu, (uint32_t)command->value, &event);
    if (error == VGPU_GPU_SUCCESS) {
        error = put_handle(s, answer, HANDLE_EVENT, event);
        if (error != VGPU_GPU_SUCCESS) {
            s->gpu->ops->event_destroy(s->gpu, event);
        }
    }
    return error;
}

static enum vgpu_gpu_error do_event_destroy(struct ring_session *s, const void *body,
                                            struct answer *answer)
{
    const struct vgpu_cmd_value *command = body;
    struct gpu_event *event = session_event(s, command->value);

    (void)answer;
    if (!event) {
        return VGPU_GPU_INVALID_HANDLE;
    }
    handles_remove(&s->handles, command->value);
    s->gpu->ops->event_destroy(s->gpu, event);
    return VGPU_GPU_SUCCESS;
}

static enum vgpu_gpu_error do_event_record(struct ring_session *s, const void *body,
                                           struct answer *answer)
{
    const struct vgpu_cmd_pair *command = body;
    struct gpu_event *event = session_event(s, command->first);
    struct gpu_stream *stream;

    (void)answer;
    if (!event || !session_stream(s, command->second, &stream)) {
        return VGPU_GPU_INVALID_HANDLE;
    }
    return s->gpu->ops->event_record(s->gpu, event, stream);
}

static enum vgpu_gpu_error do_event_sync(struct ring_session *s, const void *body,
                                         struct answer *answer)
{
    const struct vgpu_cmd_value *command = body;
    struct gpu_event *event = session_event(s, command->value);
    struct gpu_fence fence;
    enum vgpu_gpu_error error;

    if (!event) {
        return VGPU_GPU_INVALID_HANDLE;
    }
    error = s->gpu->ops->event_fence(s->gpu, event, &fence);
    return error == VGPU_GPU_SUCCESS ? wait_for_one(s, PENDING_SYNC, &fence, answer) : error;
}

static enum vgpu_gpu_error do_event_query(struct ring_session *s, const void *body,
                                          struct answer *answer)
{
    const struct vgpu_cmd_value *command = body;
    struct gpu_event *event = session_event(s, command->value);

    (void)answer;
    return event ? s->gpu->ops->event_query(s->gpu, event) : VGPU_GPU_INVALID_HANDLE;
}

static enum vgpu_gpu_error do_event_elapsed(struct ring_session *s, const void *body,
                                            struct answer *answer)
{
    const struct vgpu_cmd_pair *command = body;
    struct gpu_event *start = session_event(s, command->first);
    struct gpu_event *end = session_event(s, command->second);
    struct vgpu_result_elapsed result = {0};
    enum vgpu_gpu_error error = VGPU_GPU_INVALID_HANDLE;

    if (start && end) {
        error = s->gpu->ops->event_elapsed(s->gpu, start, end, &result.milliseconds);
    }
    put_answer(answer, &result, sizeof(result));
    return error;
}

static enum vgpu_gpu_error do_sync(struct ring_session *s, const void *body, struct answer *answer)
{
    (void)body;
    return wait_for_all(s, PENDING_SYNC, 0, answer);
}

/* Calls of api/ ---------------------------------------------------------------------------- */

/* The call that a command of the right length holds, and its rule; NULL when it is none. */
static const struct api_rule *find_call(const struct ring_command *command)
{
    const struct vgpu_cmd_call *call = (const void *)command->body;

    return command->header.opcode == VGPU_CMD_CALL &&
                   command->header.length >= sizeof(command->header) + sizeof(*call) &&
                   call->bytes <= command->header.length - sizeof(command->header) - sizeof(*call)
               ? api_find(call->call)
               : NULL;
}

/* Puts results that do not fit the slot into the arena. */
static enum vgpu_gpu_error reply_into_arena(struct api_serve *serve, const struct api_rule *rule,
                                            const struct vgpu_cmd_call *command)
{
    enum vgpu_gpu_error error;

    if (command->reply_bytes > VGPU_REPLY_MAX || command->reply_bytes % 8 != 0 ||
        !gpu_in_arena(&serve->gpu->arena, command->reply, command->reply_bytes)) {
        return VGPU_GPU_INVALID_VALUE;
    }
    serve->room = command->reply_bytes;
    serve->out = malloc(serve->room + 1);
    if (!serve->out) {
        return VGPU_GPU_OUT_OF_MEMORY;
    }
    error = rule->serve(serve);
    if (error == VGPU_GPU_SUCCESS) {
        memcpy((void *)(uintptr_t)command->reply, serve->out, serve->length);
    }
    free(serve->out);
    return error;
}

static enum vgpu_gpu_error do_call(struct ring_session *s, const void *body, struct answer *answer)
{
    const struct vgpu_cmd_call *command = body;
    const struct api_rule *rule = api_find(command->call);
    struct api_serve serve = {
        .session = s,
        .handles = &s->handles,
        .gpu = s->gpu,
        .calls = s->gpu->calls,
        .in = (const uint8_t *)(command + 1),
        .left = command->bytes,
        .out = answer->payload,
        .room = sizeof(answer->payload),
    };
    enum vgpu_gpu_error error;

    if (!rule) {
        return VGPU_GPU_NOT_SUPPORTED; /* what a newer guest may know */
    }
    if (command->reserved != 0 || command->reserved2 != 0) {
        return VGPU_GPU_INVALID_VALUE;
    }
    if (command->reply != 0 || command->reply_bytes != 0) {
        error = reply_into_arena(&serve, rule, command);
        answer->again = serve.again;
        return error;
    }
    error = rule->serve(&serve);
    answer->again = serve.again;
    answer->length = serve.length;
    return error;
}

/* The table ----------------------------------------------------------------------------- */

enum {
    SLOT = 1,  /* must have a slot */
    TURN = 2,  /* is work for the GPU */
    VALUE = 4, /* its body is one value */
    SLOW = 8,  /* may take long without the GPU */
    FREE = 16, /* does not depend on what was posted before */
};

static const struct command_rule {
    command_handler handler;
    uint32_t bytes; /* of the body; what follows it in two commands, check_length() knows */
    uint32_t flags;
} rules[] = {
    [VGPU_CMD_NOP] = {do_nop, 0, FREE},
    [VGPU_CMD_DEVICE_INFO] = {do_device_info, 0, SLOT | FREE},
    [VGPU_CMD_MEM_INFO] = {do_mem_info, 0, SLOT | FREE},
    [VGPU_CMD_MEM_ALLOC] = {do_mem_alloc, sizeof(struct vgpu_cmd_value), SLOT | VALUE | FREE},
    [VGPU_CMD_MEM_FREE] = {do_mem_free, sizeof(struct vgpu_cmd_value), SLOT | VALUE},
    [VGPU_CMD_COPY] = {do_copy, sizeof(struct vgpu_cmd_copy), TURN},
    [VGPU_CMD_FILL] = {do_fill, sizeof(struct vgpu_cmd_fill), TURN},
    [VGPU_CMD_MODULE_LOAD] = {do_module_load, sizeof(struct vgpu_cmd_module_load),
                              SLOT | SLOW | FREE},
    [VGPU_CMD_MODULE_BUILTIN] = {do_module_builtin, 0, SLOT | SLOW | FREE},
    [VGPU_CMD_MODULE_UNLOAD] = {do_module_unload, sizeof(struct vgpu_cmd_value), SLOT | VALUE},
    [VGPU_CMD_FUNCTION_GET] = {do_function_get, sizeof(struct vgpu_cmd_function_get), SLOT | FREE},
    [VGPU_CMD_FUNCTION_PARAM] = {do_function_param, sizeof(struct vgpu_cmd_pair), SLOT | FREE},
    [VGPU_CMD_LAUNCH] = {do_launch, sizeof(struct vgpu_cmd_launch), TURN},
    [VGPU_CMD_STREAM_CREATE] = {do_stream_create, sizeof(struct vgpu_cmd_value),
                                SLOT | VALUE | FREE},
    [VGPU_CMD_STREAM_DESTROY] = {do_stream_destroy, sizeof(struct vgpu_cmd_value), VALUE},
    [VGPU_CMD_STREAM_WAIT] = {do_stream_wait, sizeof(struct vgpu_cmd_pair), TURN},
    [VGPU_CMD_STREAM_SYNC] = {do_stream_sync, sizeof(struct vgpu_cmd_value), SLOT | VALUE},
    [VGPU_CMD_STREAM_QUERY] = {do_stream_query, sizeof(struct vgpu_cmd_value), SLOT | VALUE},
    [VGPU_CMD_EVENT_CREATE] = {do_event_create, sizeof(struct vgpu_cmd_value), SLOT | VALUE | FREE},
    [VGPU_CMD_EVENT_DESTROY] = {do_event_destroy, sizeof(struct vgpu_cmd_value), VALUE},
    [VGPU_CMD_EVENT_RECORD] = {do_event_record, sizeof(struct vgpu_cmd_pair), TURN},
    [VGPU_CMD_EVENT_SYNC] = {do_event_sync, sizeof(struct vgpu_cmd_value), SLOT | VALUE},
    [VGPU_CMD_EVENT_QUERY] = {do_event_query, sizeof(struct vgpu_cmd_value), SLOT | VALUE},
    [VGPU_CMD_EVENT_ELAPSED] = {do_event_elapsed, sizeof(struct vgpu_cmd_pair), SLOT},
    [VGPU_CMD_SYNC] = {do_sync, 0, SLOT},
    [VGPU_CMD_FENCE] = {do_fence, sizeof(struct vgpu_cmd_value), SLOT | VALUE},
    [VGPU_CMD_CALL] = {do_call, sizeof(struct vgpu_cmd_call), 0},
};
static_assert(sizeof(rules) / sizeof(rules[0]) == VGPU_COMMAND_COUNT, "a rule for each opcode");

static const struct command_rule *find_rule(const struct vgpu_command *header)
{
    return header->opcode < VGPU_COMMAND_COUNT ? &rules[header->opcode] : NULL;
}

/* What is true of a command: for a call, what its own rule says. */
static uint32_t flags_of(const struct ring_command *command)
{
    const struct command_rule *rule = find_rule(&command->header);
    const struct api_rule *call = find_call(command);

    if (!call) {
        return rule ? rule->flags : 0;
    }
    return (call->post ? 0 : SLOT) | (call->free ? FREE : 0) | (call->slow ? SLOW : 0) |
           (call->family == API_COPY || call->family == API_LAUNCH ? TURN : 0);
}

/* Whether the command has just the bytes that its opcode, and what its body says, ask for. */
static bool check_length(const struct ring_command *command, const struct command_rule *rule)
{
    const uint32_t room = command->header.length - (uint32_t)sizeof(command->header);
    uint64_t bytes = rule->bytes;

    if (room < bytes) {
        return false;
    }
    if (command->header.opcode == VGPU_CMD_LAUNCH) {
        const struct vgpu_cmd_launch *launch = (const void *)command->body;

        if (launch->param_bytes > VGPU_PARAMS_MAX || launch->reserved != 0) {
            return false;
        }
        bytes += launch->param_bytes;
    } else if (command->header.opcode == VGPU_CMD_FUNCTION_GET) {
        const struct vgpu_cmd_function_get *get = (const void *)command->body;

        if (get->length >= VGPU_NAME_MAX) {
            return false;
        }
        bytes += get->length;
    } else if (command->header.opcode == VGPU_CMD_CALL) {
        const struct vgpu_cmd_call *call = (const void *)command->body;

        if (call->bytes % 8 != 0) {
            return false;
        }
        bytes += call->bytes;
    }
    return room == ((bytes + VGPU_COMMAND_ALIGN - 1) & ~(uint64_t)(VGPU_COMMAND_ALIGN - 1));
}

/* Whether what is reserved is 0, so that it can mean something one day. */
static bool check_reserved(const struct ring_command *command, const struct command_rule *rule)
{
    const struct vgpu_cmd_value *value = (const void *)command->body;

    return !(rule->flags & VALUE) || value->reserved == 0;
}

bool command_is_good(const struct ring_command *command)
{
    const struct command_rule *rule = find_rule(&command->header);

    return !rule || ((!(flags_of(command) & SLOT) || command->header.slot != 0) &&
                     check_length(command, rule));
}

bool command_needs_turn(const struct ring_command *command)
{
    return (flags_of(command) & TURN) != 0;
}

bool command_is_slow(const struct ring_command *command)
{
    return (flags_of(command) & SLOW) != 0;
}

bool command_is_free(const struct ring_command *command)
{
    return (flags_of(command) & FREE) != 0;
}

/* Estimates --------------------------------------------------------------------------------- */

/* The stream of a command; the default one where it is wrong, which its handler finds out. */
static struct gpu_stream *stream_or_default(struct ring_session *s, uint64_t handle)
{
    struct gpu_stream *stream = NULL;

    session_stream(s, handle, &stream);
    return stream;
}

/* Copies and fills of about the same size, on one engine, take about the same time. */
static void estimate_bytes(struct ring_session *s, enum vgpu_engine engine, unsigned kind,
                           uint64_t bytes)
{
    const unsigned size = bytes == 0 ? 0 : 64 - (unsigned)__builtin_clzll(bytes);

    s->piece.engine = engine;
    s->piece.prediction = predict_find(&s->predictor, predict_kind(kind + 1, size),
                                       GUESS_COPY_NS + bytes / GUESS_COPY_RATE);
    s->piece.ns = s->piece.prediction->ns;
    s->piece.part = PREDICT_WHOLE;
}

static enum vgpu_engine engine_of(uint64_t copy_kind)
{
    return copy_kind == VGPU_COPY_TO_DEVICE     ? VGPU_ENGINE_TO_DEVICE
           : copy_kind == VGPU_COPY_FROM_DEVICE ? VGPU_ENGINE_FROM_DEVICE
                                                : VGPU_ENGINE_COMPUTE;
}

enum vgpu_engine command_engine(const struct ring_command *command)
{
    const struct vgpu_cmd_copy *copy = (const void *)command->body;
    const struct vgpu_cmd_call *call = (const void *)command->body;
    const struct api_rule *rule = find_call(command);

    if (rule && rule->kind != 0) {
        return engine_of(api_word(call, rule->kind - 1));
    }
    return command->header.opcode == VGPU_CMD_COPY && command_is_good(command)
               ? engine_of(copy->kind)
               : VGPU_ENGINE_COMPUTE;
}

static void estimate_copy(struct ring_session *s, const struct vgpu_cmd_copy *command)
{
    const unsigned kind = command->kind <= VGPU_COPY_ON_DEVICE ? command->kind : 0;
    const uint64_t piece = kind == VGPU_COPY_ON_DEVICE ? COMMAND_FILL_PIECE : COMMAND_COPY_PIECE;

    s->piece.stream = stream_or_default(s, command->stream);
    estimate_bytes(s, command_engine(s->command), kind,
                   command_piece(s, command->bytes - s->progress, piece));
}

/*
 * A call's time depends on the words that have weight; those of a copy are how much it is in
 * each dimension.
 */
static void estimate_call(struct ring_session *s, const struct vgpu_cmd_call *command)
{
    const struct api_rule *rule = find_call(s->command);
    uint64_t kind = UINT64_MAX, amount = 1;

    if (!rule) {
        return;
    }
    if (rule->stream != 0) {
        s->piece.stream = stream_or_default(s, api_word(command, rule->stream - 1));
    }
    s->piece.engine = command_engine(s->command);
    s->piece.gate = rule->gate;
    if (rule->weigh == 0) {
        return;
    }
    kind = predict_kind(kind, command->call);
    for (uint64_t left = rule->weigh; left != 0; left &= left - 1) {
        const uint64_t word = api_word(command, (uint32_t)__builtin_ctzll(left));

        kind = predict_kind(kind, word);
        amount = word == 0 || amount > COMMAND_COPY_PIECE / word ? COMMAND_COPY_PIECE
                                                                 : amount * word;
    }
    s->piece.prediction = predict_find(
        &s->predictor, kind,
        rule->family == API_COPY ? GUESS_COPY_NS + amount / GUESS_COPY_RATE : GUESS_LAUNCH_NS);
    s->piece.ns = s->piece.prediction->ns;
    s->piece.part = PREDICT_WHOLE;
}

static void estimate_launch(struct ring_session *s, const struct vgpu_cmd_launch *command)
{
    struct gpu_function *function = handles_get(&s->handles, HANDLE_FUNCTION, command->function);
    uint64_t kind = (uint64_t)(uintptr_t)function + VGPU_COPY_ON_DEVICE + 2;
    struct prediction *prediction;

    s->piece.stream = stream_or_default(s, command->stream);
    if (!function) {
        return;
    }
    for (unsigned i = 0; i < 3; i++) {
        kind = predict_kind(kind, (uint64_t)command->grid[i] << 32 | command->block[i]);
    }
    kind = predict_kind(kind, command->shared_bytes);
    prediction = predict_find(&s->predictor, kind, GUESS_LAUNCH_NS);
    if (prediction->part == 0) {
        prediction->part = s->gpu->ops->launch_part(s->gpu, function, command);
    }
    s->piece.prediction = prediction;
    s->piece.ns = prediction->ns;
    s->piece.part = prediction->part;
}

void command_estimate(struct ring_session *s)
{
    const struct vgpu_command *header = &s->command->header;
    const void *body = s->command->body;

    s->piece = (struct flight_piece){.engine = VGPU_ENGINE_COMPUTE};
    if (header->length < sizeof(*header) + rules[header->opcode].bytes) {
        return; /* its handler is not even asked */
    }
    switch (header->opcode) {
    case VGPU_CMD_COPY:
        estimate_copy(s, body);
        break;
    case VGPU_CMD_FILL: {
        const struct vgpu_cmd_fill *fill = body;

        s->piece.stream = stream_or_default(s, fill->stream);
        estimate_bytes(
            s, VGPU_ENGINE_COMPUTE, VGPU_COPY_ON_DEVICE + 1,
            command_piece(s, (fill->count - s->progress) * fill->width, COMMAND_FILL_PIECE));
        break;
    }
    case VGPU_CMD_LAUNCH:
        estimate_launch(s, body);
        break;
    case VGPU_CMD_CALL:
        estimate_call(s, body);
        break;
    case VGPU_CMD_STREAM_WAIT:
        s->piece.stream = stream_or_default(s, ((const struct vgpu_cmd_pair *)body)->first);
        break;
    case VGPU_CMD_EVENT_RECORD:
        s->piece.stream = stream_or_default(s, ((const struct vgpu_cmd_pair *)body)->second);
        break;
    default:
        break;
    }
}

/* Order --------------------------------------------------------------------------------- */

#define OPCODE(name) (1u << VGPU_CMD_##name)
/* What goes to a stream; a call that does not has the default one for a key. */
#define STREAM_WORK                                                                                \
    (OPCODE(COPY) | OPCODE(FILL) | OPCODE(LAUNCH) | OPCODE(STREAM_WAIT) | OPCODE(EVENT_RECORD) |   \
     OPCODE(CALL))
static_assert(VGPU_COMMAND_COUNT <= 32, "a bit for each opcode");

struct backlog_key command_key(const struct ring_command *command)
{
    const struct vgpu_command *header = &command->header;
    const struct vgpu_cmd_value *value = (const void *)command->body;
    const struct vgpu_cmd_pair *pair = (const void *)command->body;
    const struct api_rule *call = find_call(command);

    switch (header->opcode) {
    case VGPU_CMD_CALL:
        return (struct backlog_key){
            call && call->stream != 0 ? api_word((const void *)pair, call->stream - 1) : 0, 0};
    case VGPU_CMD_COPY:
        return (struct backlog_key){((const struct vgpu_cmd_copy *)(const void *)pair)->stream, 0};
    case VGPU_CMD_FILL:
        return (struct backlog_key){((const struct vgpu_cmd_fill *)(const void *)pair)->stream, 0};
    case VGPU_CMD_LAUNCH:
        return (struct backlog_key){((const struct vgpu_cmd_launch *)(const void *)pair)->stream,
                                    0};
    case VGPU_CMD_STREAM_WAIT:
        return (struct backlog_key){pair->first, 0};
    case VGPU_CMD_EVENT_RECORD:
        return (struct backlog_key){pair->second, pair->first};
    case VGPU_CMD_STREAM_SYNC:
    case VGPU_CMD_STREAM_QUERY:
    case VGPU_CMD_STREAM_DESTROY:
    case VGPU_CMD_FENCE:
        return (struct backlog_key){value->value, 0};
    case VGPU_CMD_EVENT_SYNC:
    case VGPU_CMD_EVENT_QUERY:
    case VGPU_CMD_EVENT_DESTROY:
        return (struct backlog_key){0, value->value};
    default:
        return (struct backlog_key){0, 0};
    }
}

/* How many of the commands that wait have to be carried out before all of these are. */
static uint64_t count_before(const struct ring_session *s, uint32_t opcodes,
                             const struct backlog_key *key)
{
    const uint32_t place = backlog_find(&s->backlog, opcodes, key);
    struct backlog_key head;

    if (place > 0) {
        return place + 1;
    }
    if (s->head.header.opcode >= VGPU_COMMAND_COUNT || !(opcodes & 1u << s->head.header.opcode) ||
        !command_is_good(&s->head)) {
        return 0;
    }
    head = command_key(&s->head);
    return backlog_same(key, &head);
}

enum command_place command_place(const struct ring_session *s, const struct ring_command *command,
                                 uint64_t *before)
{
    const uint32_t flags = flags_of(command);
    const struct backlog_key key = command_key(command);

    *before = 0;
    if (!find_rule(&command->header) || ((flags & FREE) && !(flags & SLOW))) {
        return COMMAND_NOW;
    }
    if (flags & SLOW) {
        /* A turn may come meanwhile, which nobody would use. */
        return (flags & FREE) && shared_load64(&s->page->terms.window_ns) == 0 ? COMMAND_NOW
                                                                               : COMMAND_LAST;
    }
    switch (command->header.opcode) {
    case VGPU_CMD_EVENT_SYNC:
    case VGPU_CMD_EVENT_QUERY:
        *before = count_before(s, OPCODE(EVENT_RECORD) | OPCODE(EVENT_DESTROY), &key);
        break;
    case VGPU_CMD_STREAM_SYNC:
    case VGPU_CMD_STREAM_QUERY:
    case VGPU_CMD_FENCE:
        /* The default stream waits for all others. */
        *before = key.stream == 0 ? s->backlog.count + UINT64_C(1)
                                  : count_before(s, STREAM_WORK | OPCODE(STREAM_DESTROY), &key);
        break;
    default:
        return COMMAND_LAST;
    }
    if (*before == 0) {
        return COMMAND_NOW;
    }
    return OPCODE(EVENT_QUERY) & 1u << command->header.opcode ||
                   OPCODE(STREAM_QUERY) & 1u << command->header.opcode
               ? COMMAND_NOT_READY
               : COMMAND_AFTER;
}

int command_execute(struct ring_session *s)
{
    const struct vgpu_command *header = &s->command->header;
    const struct command_rule *rule = find_rule(header);
    enum vgpu_gpu_error error = VGPU_GPU_NOT_SUPPORTED; /* what a newer guest may know */
    struct answer answer;

    answer.later = false;
    answer.again = false;
    answer.length = 0;
    if (header->slot != 0 && (s->pending_slots & UINT64_C(1) << (header->slot - 1)) != 0) {
        return -EPROTO;
    }
    if (!command_is_good(s->command)) {
        return -EPROTO;
    }
    if (rule) {
        error = check_reserved(s->command, rule) ? rule->handler(s, s->command->body, &answer)
                                                 : VGPU_GPU_INVALID_VALUE;
    }
    s->submitted = error == VGPU_GPU_SUCCESS;
    if (s->submitted && answer.again) {
        return 1;
    }
    s->page->counters.requests++;
    if (error != VGPU_GPU_SUCCESS && error != VGPU_GPU_NOT_READY) {
        s->page->counters.errors++;
    }
    if (answer.later) {
        command_poll(s, &s->pending[header->slot - 1]);
    } else if (header->slot != 0) {
        ring_answer(&s->ring, header, error, answer.payload,
                    error == VGPU_GPU_SUCCESS ? answer.length : 0);
    } else if (error != VGPU_GPU_SUCCESS && s->deferred == VGPU_GPU_SUCCESS) {
        s->deferred = error;
    }
    return 0;
}
