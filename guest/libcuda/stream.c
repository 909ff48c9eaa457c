/* SPDX-License-Identifier: MIT */
/* Streams and events, see stream.h; callbacks are in callback.c. */
#include "guest/libcuda/stream.h"

#include <pthread.h>
#include <stdlib.h>

#include "guest/libcuda/callback.h"
#include "guest/libcuda/capture.h"
#include "guest/libcuda/entry.h"
#include "guest/libcuda/mempool.h"
#include "guest/libcuda/object.h"
#include "guest/libvgpu/ring-calls.h"

struct stream {
    struct object object;
    unsigned flags;
    int priority;
    uint64_t id;
    struct callbacks *callbacks; /* NULL until there is one */
};

/* Where an event was recorded, and pools' position then. */
struct record {
    uint64_t stream, position;
};

struct event {
    struct object object;
    struct record record;
};

/* What the default stream and the threads' own have; not destroyed. */
static struct stream default_stream = {.flags = CU_STREAM_DEFAULT, .id = 1};
static uint64_t last_id = 1;

/* Threads' own streams ------------------------------------------------------------------------ */

static pthread_once_t own_once = PTHREAD_ONCE_INIT;
static pthread_key_t own_key;
static __thread struct stream *own;

static CUresult make_stream(unsigned flags, int priority, struct context *context,
                            struct stream **made)
{
    struct stream *stream = calloc(1, sizeof(*stream));
    struct vgpu_result_value handle = {0};
    CUresult r;

    if (!stream) {
        return CUDA_ERROR_OUT_OF_MEMORY;
    }
    r = result_of(ring_stream_create(cuda.session, flags, priority, &handle));
    if (r == CUDA_SUCCESS && !object_add(&stream->object, handle.value, context)) {
        vgpu_stream_destroy(cuda.session, handle.value);
        r = CUDA_ERROR_OUT_OF_MEMORY;
    }
    if (r != CUDA_SUCCESS) {
        free(stream);
        return r;
    }
    stream->flags = flags;
    stream->priority = priority;
    stream->id = __atomic_add_fetch(&last_id, 1, __ATOMIC_RELAXED);
    *made = stream;
    return CUDA_SUCCESS;
}

static CUresult stream_destroy_object(struct stream *stream)
{
    CUresult r;

    if (shared_load(&capture_streams) != 0) {
        capture_drop(stream->object.handle);
    }
    if (stream->callbacks) {
        callbacks_end(stream->callbacks);
    }
    r = result_of(vgpu_stream_destroy(cuda.session, stream->object.handle));
    object_drop(&stream->object);
    return r;
}

static void drop_own(void *stream)
{
    own = NULL;
    if (enter_init() == CUDA_SUCCESS) {
        stream_destroy_object(stream);
    }
}

static void make_own_key(void)
{
    library_stays();
    pthread_key_create(&own_key, drop_own);
}

static CUresult find_named_stream(struct stream **stream)
{
    CUresult r = CUDA_SUCCESS;

    if (!own) {
        pthread_once(&own_once, make_own_key);
        r = make_stream(CU_STREAM_DEFAULT, 0, NULL, &own);
        if (r == CUDA_SUCCESS) {
            pthread_setspecific(own_key, own);
        }
    }
    *stream = own;
    return r;
}

/* What a program means ------------------------------------------------------------------------- */

static CUresult find_stream_object(CUstream wanted, struct stream **stream)
{
    if (!wanted || wanted == CU_STREAM_LEGACY) {
        *stream = &default_stream;
        return CUDA_SUCCESS;
    }
    if (wanted == CU_STREAM_PER_THREAD) {
        return find_named_stream(stream);
    }
    *stream = object_find(HANDLE_STREAM, (uint64_t)(uintptr_t)wanted);
    return *stream ? CUDA_SUCCESS : CUDA_ERROR_INVALID_HANDLE;
}

CUresult stream_known(CUstream stream, uint64_t *handle, bool *waits_for_default)
{
    struct stream *known;
    const CUresult r = find_stream_object(stream, &known);

    if (r == CUDA_SUCCESS) {
        *handle = known->object.handle;
        if (waits_for_default) {
            *waits_for_default = !(known->flags & CU_STREAM_NON_BLOCKING);
        }
    }
    return r;
}

CUresult stream_handle(CUstream stream, uint64_t *handle)
{
    const CUresult r = stream_known(stream, handle, NULL);

    return r == CUDA_SUCCESS && shared_load(&capture_streams) != 0 ? capture_refuses(*handle) : r;
}

void stream_release(const struct context *context)
{
    struct object *object;

    while ((object = object_of(context, HANDLE_STREAM)) != NULL) {
        stream_destroy_object((struct stream *)object);
    }
    while ((object = object_of(context, HANDLE_EVENT)) != NULL) {
        capture_unmark(object->handle);
        vgpu_event_destroy(cuda.session, object->handle);
        object_drop(object);
    }
}

/* Streams -------------------------------------------------------------------------------------- */

/* Priorities that there are not become the nearest that there is. */
static CUresult clamp_priority(int *priority)
{
    static int least, greatest, known;
    CUresult r = CUDA_SUCCESS;

    if (*priority == 0) {
        return CUDA_SUCCESS;
    }
    if (!__atomic_load_n(&known, __ATOMIC_ACQUIRE)) {
        r = call_cuCtxGetStreamPriorityRange(&least, &greatest);
        __atomic_store_n(&known, r == CUDA_SUCCESS, __ATOMIC_RELEASE);
    }
    *priority = *priority > least ? least : *priority < greatest ? greatest : *priority;
    return r;
}

CUresult guest_cuStreamCreateWithPriority(CUstream *stream, unsigned int flags, int priority)
{
    struct stream *made;
    CUresult r;

    if (!stream || (flags & ~(unsigned)CU_STREAM_NON_BLOCKING) != 0) {
        return CUDA_ERROR_INVALID_VALUE;
    }
    r = clamp_priority(&priority);
    if (r == CUDA_SUCCESS) {
        r = make_stream(flags, priority, context_current(), &made);
    }
    if (r == CUDA_SUCCESS) {
        *stream = (CUstream)(uintptr_t)made->object.handle;
    }
    return r;
}

CUresult guest_cuStreamCreate(CUstream *stream, unsigned int flags)
{
    return guest_cuStreamCreateWithPriority(stream, flags, 0);
}

CUresult guest_cuStreamDestroy_v2(CUstream stream)
{
    struct stream *known = object_find(HANDLE_STREAM, (uint64_t)(uintptr_t)stream);

    return known && known != own ? stream_destroy_object(known) : CUDA_ERROR_INVALID_HANDLE;
}

/* Asks for something that this side knows of a stream. */
#define OF_STREAM(wanted, result, value)                                                           \
    ({                                                                                             \
        struct stream *stream_;                                                                    \
        CUresult r_ = (result) ? find_stream_object(wanted, &stream_) : CUDA_ERROR_INVALID_VALUE;  \
        if (r_ == CUDA_SUCCESS) {                                                                  \
            *(result) = (value);                                                                   \
        }                                                                                          \
        r_;                                                                                        \
    })

CUresult guest_cuStreamGetPriority(CUstream stream, int *priority)
{
    return OF_STREAM(stream, priority, stream_->priority);
}

CUresult guest_cuStreamGetFlags(CUstream stream, unsigned int *flags)
{
    return OF_STREAM(stream, flags, stream_->flags);
}

CUresult guest_cuStreamGetId(CUstream stream, unsigned long long *id)
{
    return OF_STREAM(stream, id, stream_->id);
}

CUresult guest_cuStreamGetCtx(CUstream stream, CUcontext *context)
{
    return OF_STREAM(
        stream, context,
        (CUcontext)(stream_->object.context ? stream_->object.context : context_current()));
}

CUresult guest_cuStreamGetCtx_v2(CUstream stream, CUcontext *context, CUgreenCtx *green)
{
    if (green) {
        *green = NULL;
    }
    return guest_cuStreamGetCtx(stream, context);
}

CUresult guest_cuStreamGetDevice(CUstream stream, CUdevice *device)
{
    return OF_STREAM(stream, device, 0);
}

CUresult guest_cuStreamSynchronize(CUstream stream)
{
    const uint64_t position = pool_position();
    uint64_t handle;
    CUresult r = stream_handle(stream, &handle);

    if (r == CUDA_SUCCESS) {
        r = result_of(vgpu_stream_sync(cuda.session, handle));
    }
    if (r == CUDA_SUCCESS) {
        pool_settle(handle, position);
    }
    return r;
}

CUresult guest_cuStreamQuery(CUstream stream)
{
    const uint64_t position = pool_position();
    uint64_t handle;
    CUresult r = stream_handle(stream, &handle);

    if (r == CUDA_SUCCESS) {
        r = result_of(vgpu_stream_query(cuda.session, handle));
    }
    if (r == CUDA_SUCCESS) {
        pool_settle(handle, position);
    }
    return r;
}

/* Callbacks ----------------------------------------------------------------------------------- */

static CUresult add_callback(CUstream wanted, struct callback callback)
{
    static pthread_mutex_t mutex = PTHREAD_MUTEX_INITIALIZER;
    struct stream *stream;
    uint64_t handle;
    CUresult r = stream_handle(wanted, &handle);

    if (r == CUDA_SUCCESS) {
        r = find_stream_object(wanted, &stream);
    }
    if (r != CUDA_SUCCESS) {
        return r;
    }
    pthread_mutex_lock(&mutex);
    if (!stream->callbacks) {
        r = callbacks_begin(stream->object.handle, &stream->callbacks);
    }
    pthread_mutex_unlock(&mutex);
    return r == CUDA_SUCCESS ? callbacks_add(stream->callbacks, wanted, callback) : r;
}

CUresult guest_cuLaunchHostFunc(CUstream stream, CUhostFn function, void *argument)
{
    if (!function) {
        return CUDA_ERROR_INVALID_VALUE;
    }
    if (capture_takes(stream)) {
        return capture_host(stream, function, argument);
    }
    return add_callback(stream, (struct callback){.function = function, .argument = argument});
}

CUresult guest_cuStreamAddCallback(CUstream stream, CUstreamCallback callback, void *argument,
                                   unsigned int flags)
{
    if (!callback || flags != 0) {
        return CUDA_ERROR_INVALID_VALUE;
    }
    return add_callback(stream, (struct callback){.with_status = callback, .argument = argument});
}

/* Events -------------------------------------------------------------------------------------- */

static CUresult find_event_object(CUevent event, uint64_t *handle)
{
    *handle = (uint64_t)(uintptr_t)event;
    return object_find(HANDLE_EVENT, *handle) ? CUDA_SUCCESS : CUDA_ERROR_INVALID_HANDLE;
}

/* One whose time can be asked for. */
static CUresult find_recorded(CUevent event, uint64_t *handle)
{
    const CUresult r = find_event_object(event, handle);

    return r == CUDA_SUCCESS && capture_marked(*handle) ? CUDA_ERROR_CAPTURED_EVENT : r;
}

/* What an event comes behind, for pools. */
static pthread_mutex_t records = PTHREAD_MUTEX_INITIALIZER;

static void set_record(uint64_t handle, struct record record)
{
    struct event *event = object_find(HANDLE_EVENT, handle);

    pthread_mutex_lock(&records);
    if (event) {
        event->record = record;
    }
    pthread_mutex_unlock(&records);
}

static struct record get_record(uint64_t handle)
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

/* What an event had been recorded as, before it was asked for with this result. */
static CUresult event_passed(struct record record, CUresult r)
{
    if (r == CUDA_SUCCESS) {
        pool_settle(record.stream, record.position);
    }
    return r;
}

CUresult guest_cuEventCreate(CUevent *event, unsigned int flags)
{
    const unsigned known = CU_EVENT_BLOCKING_SYNC | CU_EVENT_DISABLE_TIMING | CU_EVENT_INTERPROCESS;
    struct event *made;
    uint64_t handle = 0;
    CUresult r;

    if (!event || (flags & ~known) != 0) {
        return CUDA_ERROR_INVALID_VALUE;
    }
    if (flags & CU_EVENT_INTERPROCESS) {
        return flags & CU_EVENT_DISABLE_TIMING ? REFUSE("cuEventCreate for several processes")
                                               : CUDA_ERROR_INVALID_VALUE;
    }
    made = calloc(1, sizeof(*made));
    if (!made) {
        return CUDA_ERROR_OUT_OF_MEMORY;
    }
    r = result_of(vgpu_event_create(
        cuda.session, flags & CU_EVENT_DISABLE_TIMING ? VGPU_EVENT_NO_TIMING : 0, &handle));
    if (r == CUDA_SUCCESS && !object_add(&made->object, handle, context_current())) {
        vgpu_event_destroy(cuda.session, handle);
        r = CUDA_ERROR_OUT_OF_MEMORY;
    }
    if (r != CUDA_SUCCESS) {
        free(made);
        return r;
    }
    *event = (CUevent)(uintptr_t)handle;
    return CUDA_SUCCESS;
}

CUresult guest_cuEventDestroy_v2(CUevent event)
{
    struct event *known = object_find(HANDLE_EVENT, (uint64_t)(uintptr_t)event);
    CUresult r;

    if (!known) {
        return CUDA_ERROR_INVALID_HANDLE;
    }
    capture_unmark(known->object.handle);
    r = result_of(vgpu_event_destroy(cuda.session, known->object.handle));
    object_drop(&known->object);
    return r;
}

CUresult guest_cuEventRecord(CUevent event, CUstream stream)
{
    uint64_t recorded, handle;
    struct record record;
    CUresult r = find_event_object(event, &recorded);

    if (r == CUDA_SUCCESS && capture_takes(stream)) {
        return capture_record(stream, recorded);
    }
    if (r == CUDA_SUCCESS) {
        r = stream_handle(stream, &handle);
    }
    if (r != CUDA_SUCCESS) {
        return r;
    }
    capture_unmark(recorded);
    record = (struct record){handle, pool_position()};
    r = result_of(vgpu_event_record(cuda.session, recorded, handle));
    if (r == CUDA_SUCCESS && record.position != 0) {
        set_record(recorded, record);
    }
    return r;
}

CUresult guest_cuEventRecordWithFlags(CUevent event, CUstream stream, unsigned int flags)
{
    if (flags == CU_EVENT_RECORD_EXTERNAL && capture_takes(stream)) {
        return REFUSE("cuEventRecordWithFlags as a node of a graph");
    }
    return flags == CU_EVENT_RECORD_DEFAULT ? guest_cuEventRecord(event, stream)
                                            : CUDA_ERROR_INVALID_VALUE;
}

CUresult guest_cuStreamWaitEvent(CUstream stream, CUevent event, unsigned int flags)
{
    uint64_t waited, handle;
    CUresult r = find_event_object(event, &waited);

    if (flags != CU_EVENT_WAIT_DEFAULT) {
        return flags == CU_EVENT_WAIT_EXTERNAL ? REFUSE("cuStreamWaitEvent as a node of a graph")
                                               : CUDA_ERROR_INVALID_VALUE;
    }
    if (r == CUDA_SUCCESS && capture_waits(stream, waited, &r)) {
        return r;
    }
    if (r == CUDA_SUCCESS) {
        r = stream_handle(stream, &handle);
    }
    return r == CUDA_SUCCESS ? result_of(vgpu_stream_wait(cuda.session, handle, waited)) : r;
}

CUresult guest_cuEventQuery(CUevent event)
{
    struct record record;
    uint64_t handle;
    CUresult r = find_recorded(event, &handle);

    if (r == CUDA_SUCCESS) {
        r = capture_allows();
    }
    record = get_record(handle);
    return r == CUDA_SUCCESS
               ? event_passed(record, result_of(vgpu_event_query(cuda.session, handle)))
               : r;
}

CUresult guest_cuEventSynchronize(CUevent event)
{
    struct record record;
    uint64_t handle;
    const CUresult r = find_recorded(event, &handle);

    record = get_record(handle);
    return r == CUDA_SUCCESS
               ? event_passed(record, result_of(vgpu_event_sync(cuda.session, handle)))
               : r;
}

CUresult guest_cuEventElapsedTime(float *milliseconds, CUevent start, CUevent end)
{
    uint64_t first, last;
    CUresult r = find_recorded(start, &first);

    if (!milliseconds) {
        return CUDA_ERROR_INVALID_VALUE;
    }
    if (r == CUDA_SUCCESS) {
        r = find_recorded(end, &last);
    }
    return r == CUDA_SUCCESS
               ? result_of(vgpu_event_elapsed(cuda.session, first, last, milliseconds))
               : r;
}

CUresult guest_cuEventElapsedTime_v2(float *milliseconds, CUevent start, CUevent end)
{
    return guest_cuEventElapsedTime(milliseconds, start, end);
}
