/* SPDX-License-Identifier: MIT */
/*
 * Streams, see stream.h.
 *
 * A stream is the host's; here are its flags, for captures and questions, and its callbacks. The
 * default stream has the handle 0 on the wire and belongs to no context. Streams of threads are
 * made when first used, by CU_STREAM_PER_THREAD or by a program that was compiled for them, and go
 * with their threads.
 */
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

/*
 * CUDA takes any priority, and brings it into its range. Lower numbers come first: `greatest` is
 * the lowest number, -5 say, and `least` is 0. The range does not change and is asked for once; two
 * threads that do so at the same time get the same. Most programs have 0, which needs no question.
 */
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

/*
 * In this order: a capture must not keep a handle that may come back for another stream; callbacks
 * still need the stream for their last event; the host finishes what the stream has and then
 * forgets it. The object goes last, so that nobody finds it half gone under its handle.
 */
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

/* Called by the C library when a thread ends. At the end of the process the session may be gone. */
static void drop_own(void *stream)
{
    own = NULL;
    if (enter_init() == CUDA_SUCCESS) {
        stream_drop(stream);
    }
}

/*
 * A thread that ends after the library was unloaded would call drop_own() where there is no code.
 */
static void make_own_key(void)
{
    library_stays();
    pthread_key_create(&own_key, drop_own);
}

/*
 * It belongs to no context: the thread may make several contexts current in turn, and all are one
 * on the host. `own` is looked at first, as the key costs a call; the key is there for its
 * destructor.
 */
static CUresult find_own_stream(struct stream **stream)
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
        return find_own_stream(stream);
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

/* NULL, LEGACY and PER_THREAD are no handles of objects, so they are not found. */
CUresult stream_destroy(CUstream wanted)
{
    struct stream *known = object_find(HANDLE_STREAM, (uint64_t)(uintptr_t)wanted);

    return known && known != own ? stream_drop(known) : CUDA_ERROR_INVALID_HANDLE;
}

/*
 * One mutex for all streams: it is held when the first callback of a stream starts its thread, and
 * otherwise for a moment. The default stream has its own callbacks too, which last as long as the
 * process.
 */
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
