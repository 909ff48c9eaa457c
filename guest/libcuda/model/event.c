/* SPDX-License-Identifier: MIT */
/*
 * Events, see event.h.
 *
 * Beside its handle an event has a note for pools: the stream in which it was recorded, and how
 * many blocks had been freed then. When the event is found to have happened, blocks that were freed
 * in that stream up to then are free for every stream. The notes are under one mutex for all
 * events, since two words are to be read as a pair; it is held for a copy and nothing else.
 */
#include "guest/libcuda/model/event.h"

#include <pthread.h>
#include <stdlib.h>

#include "guest/libcuda/model/capture.h"
#include "guest/libcuda/model/context.h"
#include "guest/libcuda/model/mempool.h"
#include "guest/libcuda/state/state.h"
#include "guest/libcuda/wire/wire-calls.h"
#include "guest/libvgpu/session.h"

/*
 * BLOCKING_SYNC says how to wait and is of no matter to the host: libvgpu polls first and then
 * sleeps.
 */
struct event *event_make(unsigned flags, CUresult *error)
{
    struct event *made = calloc(1, sizeof(*made));
    uint64_t handle = 0;
    CUresult r = CUDA_ERROR_OUT_OF_MEMORY;

    if (made) {
        r = result_of(vgpu_event_create(
            cuda.session, flags & CU_EVENT_DISABLE_TIMING ? VGPU_EVENT_NO_TIMING : 0, &handle));
    }
    if (r == CUDA_SUCCESS && !object_add(&made->object, handle, context_current())) {
        vgpu_event_destroy(cuda.session, handle);
        r = CUDA_ERROR_OUT_OF_MEMORY;
    }
    *error = r;
    if (r == CUDA_SUCCESS) {
        return made;
    }
    free(made);
    return NULL;
}

CUresult event_share(struct event *event, uint64_t shared)
{
    struct object *object = calloc(1, sizeof(*object));

    if (!object || !object_add(object, shared, NULL)) {
        free(object);
        return CUDA_ERROR_OUT_OF_MEMORY;
    }
    event->shared = object;
    return CUDA_SUCCESS;
}

CUsharedEvent event_shared(uint64_t handle)
{
    const struct event *event = object_find(HANDLE_EVENT, handle);

    return event && event->shared ? (CUsharedEvent)(uintptr_t)event->shared->handle : NULL;
}

CUresult event_end(struct event *event)
{
    CUresult r = CUDA_SUCCESS, dropped;

    if (event->shared) {
        r = call_shared_event_drop((CUsharedEvent)(uintptr_t)event->shared->handle);
        object_drop(event->shared);
    }
    dropped = result_of(vgpu_event_destroy(cuda.session, event->object.handle));
    object_drop(&event->object);
    return r == CUDA_SUCCESS ? dropped : r;
}

CUresult event_find(CUevent event, uint64_t *handle)
{
    *handle = (uint64_t)(uintptr_t)event;
    return object_find(HANDLE_EVENT, *handle) ? CUDA_SUCCESS : CUDA_ERROR_INVALID_HANDLE;
}

CUresult event_recorded(CUevent event, uint64_t *handle)
{
    const CUresult r = event_find(event, handle);

    return r == CUDA_SUCCESS && capture_has_point(*handle) ? CUDA_ERROR_CAPTURED_EVENT : r;
}

static pthread_mutex_t records = PTHREAD_MUTEX_INITIALIZER;

void set_record(uint64_t handle, struct record record)
{
    struct event *event = object_find(HANDLE_EVENT, handle);

    pthread_mutex_lock(&records);
    if (event) {
        event->record = record;
    }
    pthread_mutex_unlock(&records);
}

struct record get_record(uint64_t handle)
{
    const struct event *event = object_find(HANDLE_EVENT, handle);
    struct record record = {0};

    pthread_mutex_lock(&records);
    if (event) {
        record = event->record;
    }
    pthread_mutex_unlock(&records);
    return record;
}

/*
 * NOT_READY and errors say nothing of the stream. A record of {0, 0} settles nothing: positions of
 * freed blocks begin at 1.
 */
CUresult event_passed(struct record record, CUresult r)
{
    if (r == CUDA_SUCCESS) {
        pool_settle(record.stream, record.position);
    }
    return r;
}
