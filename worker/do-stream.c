/* SPDX-License-Identifier: MIT */
/*
 * Commands about streams and events, and those that wait for them; and what was printed by then.
 * None of them waits here: what cannot be answered yet becomes pending (pending.h) with a fence for
 * what was posted before it.
 */
#include <stdlib.h>

#include "common/clock.h"
#include "worker/command-rules.h"
#include "worker/ring-session.h"

/* Streams ------------------------------------------------------------------------------------- */

enum vgpu_gpu_error do_stream_create(struct execution *x)
{
    const struct vgpu_cmd_stream_create *command = x->body;
    struct gpu *gpu = x->session->gpu;
    struct gpu_stream *stream = NULL;
    enum vgpu_gpu_error error;

    if (command->flags & ~VGPU_STREAM_NON_BLOCKING) {
        return VGPU_GPU_INVALID_VALUE;
    }
    error = gpu->ops->stream_create(gpu, command->flags, command->priority, &stream);
    if (error != VGPU_GPU_SUCCESS) {
        return error;
    }
    error = execution_answer_handle(x, HANDLE_STREAM, stream);
    if (error != VGPU_GPU_SUCCESS) {
        gpu->ops->stream_destroy(gpu, stream);
    }
    return error;
}

/* What the stream has to do is still done: it is kept until then. */
enum vgpu_gpu_error do_stream_destroy(struct execution *x)
{
    const struct vgpu_cmd_value *command = x->body;
    struct ring_session *s = x->session;
    struct retired *retired = calloc(1, sizeof(*retired));
    enum vgpu_gpu_error error;

    if (!retired) {
        return VGPU_GPU_OUT_OF_MEMORY;
    }
    error = s->gpu->ops->fence(s->gpu, x->objects[0], &retired->fence);
    if (error != VGPU_GPU_SUCCESS) {
        free(retired);
        return error;
    }
    handles_remove(&s->handles, command->value);
    retired->stream = x->objects[0];
    retired->next = s->streams.retired;
    s->streams.retired = retired;
    s->streams.retired_count++;
    return VGPU_GPU_SUCCESS;
}

bool streams_poll(struct ring_session *s)
{
    struct retired **place = &s->streams.retired;
    bool any = false;

    while (*place) {
        struct retired *retired = *place;

        if (s->gpu->ops->fence_poll(s->gpu, &retired->fence) == VGPU_GPU_NOT_READY) {
            place = &retired->next;
            continue;
        }
        s->gpu->ops->fence_release(s->gpu, &retired->fence);
        flight_forget(&s->flight, retired->stream, clock_ns());
        s->gpu->ops->stream_destroy(s->gpu, retired->stream);
        *place = retired->next;
        s->streams.retired_count--;
        free(retired);
        any = true;
    }
    return any;
}

void streams_release(struct ring_session *s)
{
    while (s->streams.retired) {
        struct retired *retired = s->streams.retired;

        s->streams.retired = retired->next;
        s->gpu->ops->fence_release(s->gpu, &retired->fence);
        free(retired);
    }
}

enum vgpu_gpu_error do_stream_wait(struct execution *x)
{
    return x->session->gpu->ops->stream_wait(x->session->gpu, x->objects[0], x->objects[1]);
}

/* Waits for a stream. */
static enum vgpu_gpu_error sync_stream(struct execution *x, enum pending_kind kind)
{
    struct gpu *gpu = x->session->gpu;
    struct gpu_fence fence;
    const enum vgpu_gpu_error error = gpu->ops->fence(gpu, x->objects[0], &fence);

    return error == VGPU_GPU_SUCCESS ? pending_wait(x, kind, &fence) : error;
}

enum vgpu_gpu_error do_stream_sync(struct execution *x)
{
    return sync_stream(x, PENDING_SYNC);
}

enum vgpu_gpu_error do_fence(struct execution *x)
{
    return sync_stream(x, PENDING_FENCE);
}

enum vgpu_gpu_error do_stream_query(struct execution *x)
{
    struct gpu *gpu = x->session->gpu;
    struct gpu_fence fence;
    enum vgpu_gpu_error error = gpu->ops->fence(gpu, x->objects[0], &fence);

    if (error == VGPU_GPU_SUCCESS) {
        pending_note_told(x->session);
        fence.asked = true;
        error = gpu->ops->fence_poll(gpu, &fence);
        gpu->ops->fence_release(gpu, &fence);
    }
    return error;
}

enum vgpu_gpu_error do_sync(struct execution *x)
{
    return pending_wait_for_all(x, PENDING_SYNC, 0);
}

/* Events -------------------------------------------------------------------------------------- */

enum vgpu_gpu_error do_event_create(struct execution *x)
{
    const struct vgpu_cmd_value *command = x->body;
    struct gpu *gpu = x->session->gpu;
    struct gpu_event *event = NULL;
    enum vgpu_gpu_error error;

    if (command->value & ~(uint64_t)VGPU_EVENT_NO_TIMING) {
        return VGPU_GPU_INVALID_VALUE;
    }
    error = gpu->ops->event_create(gpu, (uint32_t)command->value, &event);
    if (error != VGPU_GPU_SUCCESS) {
        return error;
    }
    error = execution_answer_handle(x, HANDLE_EVENT, event);
    if (error != VGPU_GPU_SUCCESS) {
        gpu->ops->event_destroy(gpu, event);
    }
    return error;
}

enum vgpu_gpu_error do_event_destroy(struct execution *x)
{
    const struct vgpu_cmd_value *command = x->body;

    handles_remove(&x->session->handles, command->value);
    x->session->gpu->ops->event_destroy(x->session->gpu, x->objects[0]);
    return VGPU_GPU_SUCCESS;
}

enum vgpu_gpu_error do_event_record(struct execution *x)
{
    return x->session->gpu->ops->event_record(x->session->gpu, x->objects[0], x->objects[1]);
}

enum vgpu_gpu_error do_event_sync(struct execution *x)
{
    struct gpu *gpu = x->session->gpu;
    struct gpu_fence fence;
    const enum vgpu_gpu_error error = gpu->ops->event_fence(gpu, x->objects[0], &fence);

    return error == VGPU_GPU_SUCCESS ? pending_wait(x, PENDING_SYNC, &fence) : error;
}

enum vgpu_gpu_error do_event_query(struct execution *x)
{
    return x->session->gpu->ops->event_query(x->session->gpu, x->objects[0]);
}

enum vgpu_gpu_error do_event_elapsed(struct execution *x)
{
    struct gpu *gpu = x->session->gpu;
    struct vgpu_result_elapsed result = {0};
    const enum vgpu_gpu_error error = gpu->ops->event_elapsed(gpu, x->objects[0], x->objects[1],
                                                              &result.milliseconds);

    execution_answer(x, &result, sizeof(result));
    return error;
}

/* Printing ------------------------------------------------------------------------------------ */

enum vgpu_gpu_error do_printed(struct execution *x)
{
    const struct vgpu_cmd_printed *command = x->body;
    struct ring_session *s = x->session;
    struct vgpu_result_printed result = {0};
    void *to = result.text;
    uint32_t room = VGPU_PRINTED_SLOT;

    if (command->file < VGPU_PRINTED_OUT || command->file > VGPU_PRINTED_ERR) {
        return VGPU_GPU_INVALID_VALUE;
    }
    if (command->to != 0) {
        if (!gpu_in_arena(&s->gpu->arena, command->to, command->bytes)) {
            return VGPU_GPU_INVALID_VALUE;
        }
        to = (void *)(uintptr_t)command->to;
        room = command->bytes;
    }
    if (s->printed) {
        result.bytes = printed_take(s->printed, (enum vgpu_printed_file)command->file, to, room);
    }
    execution_answer(x, &result, sizeof(result));
    return VGPU_GPU_SUCCESS;
}
