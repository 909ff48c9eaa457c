/* SPDX-License-Identifier: MIT */
/*
 * Commands that are answered later, see pending.h. Fences are made when the command comes, so that
 * work which is posted behind it does not keep it waiting.
 */
#include "worker/pending.h"

#include <stdlib.h>

#include "common/clock.h"
#include "worker/execution.h"
#include "worker/ring-session.h"

void pending_defer(struct pending_set *pending, enum vgpu_gpu_error error, uint32_t culprit)
{
    if (pending->deferred == VGPU_GPU_SUCCESS) {
        pending->deferred = error;
        pending->culprit = culprit;
    }
}

static void release_fences(struct ring_session *s, struct pending *pending)
{
    while (pending->count > 0) {
        s->gpu->ops->fence_release(s->gpu, &pending->fences[--pending->count]);
    }
    free(pending->fences);
    pending->fences = NULL;
}

/* Waiting ------------------------------------------------------------------------------------- */

/* Where the command waits; its slot is free, as was seen when it was taken. */
static struct pending *make_pending(struct execution *x, enum pending_kind kind, uint64_t argument)
{
    struct pending_set *set = &x->session->pending;
    struct pending *pending = &set->of[x->header->slot - 1];

    *pending = (struct pending){.header = *x->header, .kind = kind, .argument = argument};
    set->slots |= UINT64_C(1) << (x->header->slot - 1);
    x->later = true;
    return pending;
}

/* Has the GPU answer, where it can and the answer is all that is to be done. */
static bool answer_by_gpu(struct execution *x, struct pending *pending)
{
    struct ring_session *s = x->session;

    return s->reached && pending->kind == PENDING_SYNC && s->pending.deferred == VGPU_GPU_SUCCESS &&
           !s->gpu->prints && s->gpu->fresh == 0 &&
           s->gpu->ops->fence_answer(s->gpu, &pending->fences[0],
                                     ring_prepare_answer(&s->ring, x->header), x->header->sequence);
}

enum vgpu_gpu_error pending_wait(struct execution *x, enum pending_kind kind,
                                 struct gpu_fence *fence)
{
    struct gpu_fence *fences = malloc(sizeof(*fences));
    struct pending *pending;

    if (!fences) {
        x->session->gpu->ops->fence_release(x->session->gpu, fence);
        return VGPU_GPU_OUT_OF_MEMORY;
    }
    fences[0] = *fence;
    fences[0].awaited = true;
    pending = make_pending(x, kind, 0);
    pending->fences = fences;
    pending->count = 1;
    pending->by_gpu = answer_by_gpu(x, pending);
    return VGPU_GPU_SUCCESS;
}

/* Makes fences for all streams, also those that are destroyed; *count of them were made. */
static enum vgpu_gpu_error fence_all(struct ring_session *s, struct gpu_fence *fences,
                                     uint32_t *count)
{
    enum vgpu_gpu_error error = s->gpu->ops->fence(s->gpu, NULL, &fences[0]);
    const struct retired *retired = s->streams.retired;
    struct gpu_stream *stream;
    uint32_t position = 0;

    fences[0].awaited = true;
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
        fences[*count].awaited = true;
        *count += error == VGPU_GPU_SUCCESS;
    }
    return error;
}

enum vgpu_gpu_error pending_wait_for_all(struct execution *x, enum pending_kind kind,
                                         uint64_t argument)
{
    struct ring_session *s = x->session;
    struct pending waiting = {.kind = kind};
    uint32_t position = 0, count = 1 + s->streams.retired_count;
    enum vgpu_gpu_error error;
    struct pending *pending;

    while (handles_next(&s->handles, HANDLE_STREAM, &position)) {
        count++;
    }
    waiting.fences = calloc(count, sizeof(waiting.fences[0]));
    if (!waiting.fences) {
        return VGPU_GPU_OUT_OF_MEMORY;
    }
    error = fence_all(s, waiting.fences, &waiting.count);
    if (error != VGPU_GPU_SUCCESS) {
        release_fences(s, &waiting);
        return error;
    }
    pending = make_pending(x, kind, argument);
    pending->all = true;
    pending->fences = waiting.fences;
    pending->count = waiting.count;
    return VGPU_GPU_SUCCESS;
}

/* Ending -------------------------------------------------------------------------------------- */

static enum vgpu_gpu_error unload_module(struct ring_session *s, uint64_t handle)
{
    struct gpu_module *module = handles_get(&s->handles, HANDLE_MODULE, handle);

    /* Another command may have unloaded it meanwhile. */
    if (!module) {
        return VGPU_GPU_INVALID_HANDLE;
    }
    handles_remove_children(&s->handles, handle);
    handles_remove(&s->handles, handle);
    return s->gpu->ops->module_unload(s->gpu, module);
}

/*
 * Does what is left to do when the fences are passed, or when `error` came first. *culprit: whose
 * error it is, where it is not the command's own.
 */
static enum vgpu_gpu_error finish_pending(struct ring_session *s, const struct pending *pending,
                                          enum vgpu_gpu_error error, uint32_t *culprit)
{
    enum vgpu_gpu_error deferred;

    switch (pending->kind) {
    case PENDING_FENCE:
        return error;
    case PENDING_FREE:
        error = s->gpu->ops->mem_free(s->gpu, pending->argument);
        if (error == VGPU_GPU_SUCCESS) {
            sharing_memory_freed(s, pending->argument);
        }
        return error;
    case PENDING_UNLOAD:
        return unload_module(s, pending->argument);
    default:
        /* Reported once, by whichever command synchronises first; a newer error goes before it. */
        deferred = s->pending.deferred;
        s->pending.deferred = VGPU_GPU_SUCCESS;
        if (error == VGPU_GPU_SUCCESS && deferred != VGPU_GPU_SUCCESS) {
            *culprit = s->pending.culprit;
            return deferred;
        }
        return error;
    }
}

/* Whether what the kind does may be done by now; until then nothing is submitted. */
static bool may_finish(struct ring_session *s, const struct pending *pending)
{
    const bool waits = pending->kind == PENDING_FREE || pending->kind == PENDING_UNLOAD;

    if (waits) {
        ring_session_poll_flight(s);
        s->pending.settling = !flight_idle(&s->flight);
    }
    return !waits || !s->pending.settling;
}

bool pending_poll(struct ring_session *s, unsigned slot)
{
    struct pending *pending = &s->pending.of[slot - 1];
    enum vgpu_gpu_error error = VGPU_GPU_SUCCESS;
    uint32_t culprit = 0;

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
    release_fences(s, pending);
    if (pending->by_gpu && error == VGPU_GPU_SUCCESS) {
        s->pending.slots &= ~(UINT64_C(1) << (slot - 1));
        ring_note_answer(&s->ring);
        return true;
    }
    if (pending->kind != PENDING_FENCE && s->gpu->prints) {
        /* It may take long, and is no work: a mediator that is lost is found so elsewhere. */
        turns_lend(&s->turns);
    }
    if (pending->kind != PENDING_FENCE) {
        /* The guest reads it as soon as it has the answer. */
        ring_session_print(s, pending->all);
    }
    error = finish_pending(s, pending, error, &culprit);
    ring_session_note_loss(s);
    /* Before the answer: the guest may use the slot again as soon as it sees that. */
    s->pending.slots &= ~(UINT64_C(1) << (slot - 1));
    ring_answer_for(&s->ring, &pending->header, error, culprit);
    return true;
}

bool pending_free_slot(struct ring_session *s, unsigned slot)
{
    struct pending *pending = &s->pending.of[slot - 1];
    const uint64_t bit = UINT64_C(1) << (slot - 1);

    if (!(s->pending.slots & bit) || !pending->by_gpu ||
        !ring_has_answer(&s->ring, &pending->header)) {
        return false;
    }
    s->gpu->ops->fence_told(s->gpu, &pending->fences[0]);
    release_fences(s, pending);
    s->pending.slots &= ~bit;
    return true;
}

void pending_note_told(struct ring_session *s)
{
    for (uint64_t left = s->pending.slots; left != 0; left &= left - 1) {
        const struct pending *pending = &s->pending.of[__builtin_ctzll(left)];

        if (pending->by_gpu && pending->count > 0 && ring_has_answer(&s->ring, &pending->header)) {
            s->gpu->ops->fence_told(s->gpu, &pending->fences[0]);
        }
    }
}

bool pending_poll_all(struct ring_session *s)
{
    bool any = false;

    for (uint64_t left = s->pending.slots; left != 0; left &= left - 1) {
        any = pending_poll(s, 1 + (unsigned)__builtin_ctzll(left)) || any;
    }
    return any;
}

void pending_fail(struct ring_session *s, enum vgpu_gpu_error error)
{
    for (uint64_t left = s->pending.slots; left != 0; left &= left - 1) {
        ring_answer(&s->ring, &s->pending.of[__builtin_ctzll(left)].header, error, NULL, 0);
    }
}

void pending_release(struct ring_session *s)
{
    for (uint64_t left = s->pending.slots; left != 0; left &= left - 1) {
        release_fences(s, &s->pending.of[__builtin_ctzll(left)]);
    }
    s->pending.slots = 0;
}
