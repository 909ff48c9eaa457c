/* SPDX-License-Identifier: MIT */
/* Streams, see stream.h. */
#include "guest/libcuda/model/stream.h"

#include <pthread.h>
#include <stdlib.h>

#include "guest/libcuda/model/callback.h"
#include "guest/libcuda/model/capture.h"
#include "guest/libcuda/model/context.h"
#include "guest/libcuda/state/state.h"
#include "guest/libcuda/wire/wire-calls.h"
#include "guest/libvgpu/ring-calls.h"

static struct stream default_stream = {.flags = CU_STREAM_DEFAULT, .id = 1};
static uint64_t last_id = 1;

/* Threads' own streams ------------------------------------------------------------------------ */

static pthread_once_t own_once = PTHREAD_ONCE_INIT;
static pthread_key_t own_key;
static __thread struct stream *own;

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

CUresult stream_make(unsigned flags, int priority, struct context *context, struct stream **made)
{
    struct vgpu_result_value handle = {0};
    struct stream *stream;
    CUresult r = clamp_priority(&priority);

    if (r != CUDA_SUCCESS) {
        return r;
    }
    stream = calloc(1, sizeof(*stream));
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

CUresult stream_drop(struct stream *stream)
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
        stream_drop(stream);
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
        r = stream_make(CU_STREAM_DEFAULT, 0, NULL, &own);
        if (r == CUDA_SUCCESS) {
            pthread_setspecific(own_key, own);
        }
    }
    *stream = own;
    return r;
}

/* What a program means ------------------------------------------------------------------------ */

CUresult stream_find(CUstream wanted, struct stream **stream)
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

CUresult stream_usable(CUstream wanted, struct stream **stream)
{
    const CUresult r = stream_find(wanted, stream);

    return r == CUDA_SUCCESS ? stream_allows(*stream) : r;
}

CUcontext stream_context(const struct stream *stream)
{
    return (CUcontext)(stream->object.context ? stream->object.context : context_current());
}

CUresult stream_destroy(CUstream wanted)
{
    struct stream *known = object_find(HANDLE_STREAM, (uint64_t)(uintptr_t)wanted);

    return known && known != own ? stream_drop(known) : CUDA_ERROR_INVALID_HANDLE;
}

CUresult stream_add_callback(struct stream *stream, CUstream wanted, struct callback callback)
{
    static pthread_mutex_t mutex = PTHREAD_MUTEX_INITIALIZER;
    CUresult r = CUDA_SUCCESS;

    pthread_mutex_lock(&mutex);
    if (!stream->callbacks) {
        r = callbacks_begin(stream->object.handle, &stream->callbacks);
    }
    pthread_mutex_unlock(&mutex);
    return r == CUDA_SUCCESS ? callbacks_add(stream->callbacks, wanted, callback) : r;
}
