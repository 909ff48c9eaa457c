/* SPDX-License-Identifier: MIT */
/*
 * Callbacks. For each the stream records an event and then waits until the word has counted to this
 * callback. The thread waits for the event, calls the function, and counts. It asks for the event
 * again and again, ever more slowly, since a wait for it would take one of the session's 64 slots
 * for as long as the stream runs; and a question for an event, unlike a wait, takes no error that
 * is the program's to see.
 *
 * Example: the third callback of a stream. The host gets "record event E3" and "wait until the word
 * is at least 3". The GPU comes to E3 and stands still at the word, which is 2. The thread sees E3,
 * calls the function, writes 3, and the stream goes on.
 *
 * There is one thread for each stream with callbacks, so that a slow function holds up no other
 * stream.
 */
#include "guest/libcuda/model/callback.h"

#include <pthread.h>
#include <stdbool.h>
#include <stdlib.h>

#include "common/clock.h"
#include "common/shared.h"
#include "guest/libcuda/state/state.h"
#include "guest/libcuda/wire/pinned.h"
#include "guest/libcuda/wire/wire-calls.h"
#include "guest/libvgpu/session.h"

/* CUDA's condition: at least, by the sign of the difference. */
#define WAIT_AT_LEAST 0u

/* One callback that has been posted and not called yet. */
struct waiting {
    struct waiting *next;
    struct callback callback;
    uint64_t event; /* behind what was before it */
    bool last;      /* no callback: what is behind the last one */
    CUstream stream;
    uint32_t number;
};

struct callbacks {
    pthread_mutex_t mutex; /* of what follows */
    pthread_cond_t added;
    struct waiting *first, **last;
    uint64_t stream;
    uint32_t *word;  /* in the arena: the callbacks that have returned */
    uint32_t number; /* of the last that was added */
    bool ending;
};

/*
 * Waits until the stream is where it was when the event was recorded. The result is that of the
 * work before it, which callbacks with a status are told. Without the mutex: it may take as long as
 * the stream's work.
 */
static CUresult wait_for_event(uint64_t event)
{
    const uint64_t start = clock_ns();
    CUresult r;

    while ((r = result_of(vgpu_event_query(cuda.session, event))) == CUDA_ERROR_NOT_READY &&
           enter_init() == CUDA_SUCCESS) {
        vgpu_pause(clock_ns() - start);
    }
    vgpu_event_destroy(cuda.session, event);
    return r;
}

static void callbacks_run(struct callbacks *c, struct waiting *waiting)
{
    const struct callback *callback = &waiting->callback;
    const CUresult r = wait_for_event(waiting->event);

    /*
     * After the end of the session the program's functions and their data may be unloaded, and the
     * word's memory is not the arena's any more.
     */
    if (waiting->last || enter_init() != CUDA_SUCCESS) {
        return;
    }
    /*
     * cuStreamAddCallback() has its function called in any case, with the error; cuLaunchHostFunc()
     * has it only called when all before it went well.
     */
    if (callback->with_status) {
        callback->with_status(waiting->stream, r, callback->argument);
    } else if (r == CUDA_SUCCESS) {
        callback->function(callback->argument);
    }
    /* What the callback has written is there before the stream goes on. */
    shared_fence();
    shared_store(c->word, waiting->number);
}

/*
 * The stream's thread. Callbacks that are in the list when the stream is destroyed are still
 * called: CUDA lets the work of a destroyed stream end. The thread owns *c from then on and frees
 * it.
 */
static void *callbacks_serve(void *argument)
{
    struct callbacks *c = argument;

    pthread_mutex_lock(&c->mutex);
    while (c->first || !c->ending) {
        struct waiting *waiting = c->first;

        if (!waiting) {
            pthread_cond_wait(&c->added, &c->mutex);
            continue;
        }
        c->first = waiting->next;
        /* `last` pointed into the one that is taken, which is freed below. */
        if (!c->first) {
            c->last = &c->first;
        }
        pthread_mutex_unlock(&c->mutex);
        callbacks_run(c, waiting);
        free(waiting);
        pthread_mutex_lock(&c->mutex);
    }
    pthread_mutex_unlock(&c->mutex);
    /* The last event has happened, so no wait of the GPU looks at the word any more. */
    if (enter_init() == CUDA_SUCCESS) {
        vgpu_pinned_free(cuda.session, c->word);
    }
    pthread_cond_destroy(&c->added);
    pthread_mutex_destroy(&c->mutex);
    free(c);
    return NULL;
}

/*
 * The word lies in the arena because the GPU polls it: it has to be the same memory, at the same
 * address, for the driver on the host and for this process.
 */
CUresult callbacks_begin(uint64_t stream_handle, struct callbacks **callbacks)
{
    struct callbacks *c = calloc(1, sizeof(*c));
    void *word = c ? memory_pinned(sizeof(*c->word)) : NULL;
    CUresult r = CUDA_ERROR_OUT_OF_MEMORY;

    if (word) {
        c->stream = stream_handle;
        c->word = word;
        shared_store(c->word, 0);
        c->last = &c->first;
        pthread_mutex_init(&c->mutex, NULL);
        pthread_cond_init(&c->added, NULL);
        r = library_thread(callbacks_serve, c);
    }
    if (r != CUDA_SUCCESS) {
        vgpu_pinned_free(cuda.session, word);
        free(c);
        return r;
    }
    *callbacks = c;
    return CUDA_SUCCESS;
}

/* Made before the mutex is taken: to make an event is a call to the host and back. */
static struct waiting *make_waiting(void)
{
    struct waiting *waiting = calloc(1, sizeof(*waiting));

    if (waiting &&
        vgpu_event_create(cuda.session, VGPU_EVENT_NO_TIMING, &waiting->event) != VGPU_OK) {
        free(waiting);
        return NULL;
    }
    return waiting;
}

/*
 * Posts the event, and where there is a callback that the stream waits. Numbers wrap at 2^32;
 * AT_LEAST compares by the sign of the difference, so it holds across that. Neither of the two has
 * an answer, so the program's thread goes on at once.
 */
static CUresult callbacks_post(struct callbacks *c, const struct waiting *waiting)
{
    const CUresult r = result_of(vgpu_event_record(cuda.session, waiting->event, c->stream));

    return r == CUDA_SUCCESS && !waiting->last
               ? call_cuStreamWaitValue32_v2(c->stream, (CUdeviceptr)(uintptr_t)c->word,
                                             waiting->number, WAIT_AT_LEAST)
               : r;
}

/* Posts, and hands it to the thread. With the mutex, so that their order is the stream's. */
static CUresult callbacks_append(struct callbacks *c, struct waiting *waiting)
{
    CUresult r;

    waiting->number = c->number + 1;
    r = callbacks_post(c, waiting);
    if (r != CUDA_SUCCESS) {
        vgpu_event_destroy(cuda.session, waiting->event);
        free(waiting);
        return r;
    }
    c->number++;
    *c->last = waiting;
    c->last = &waiting->next;
    pthread_cond_signal(&c->added);
    return CUDA_SUCCESS;
}

CUresult callbacks_add(struct callbacks *c, CUstream stream, struct callback callback)
{
    struct waiting *waiting = make_waiting();
    CUresult r;

    if (!waiting) {
        return CUDA_ERROR_OUT_OF_MEMORY;
    }
    waiting->callback = callback;
    waiting->stream = stream;
    pthread_mutex_lock(&c->mutex);
    r = callbacks_append(c, waiting);
    pthread_mutex_unlock(&c->mutex);
    return r;
}

/*
 * The event without a callback tells the thread when the GPU has left the last wait behind. It may
 * give the word back then, and not before: the next owner of these bytes would let the stream go
 * on, or hold it for ever. When there is no memory for the event the word goes when the last
 * function has returned.
 */
void callbacks_end(struct callbacks *c)
{
    struct waiting *waiting = make_waiting();

    pthread_mutex_lock(&c->mutex);
    c->ending = true;
    pthread_cond_signal(&c->added);
    if (waiting) {
        waiting->last = true;
        callbacks_append(c, waiting);
    }
    pthread_mutex_unlock(&c->mutex);
}
