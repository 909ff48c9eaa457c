/* SPDX-License-Identifier: MIT */
/*
 * Callbacks. For each the stream records an event and then waits until the word has counted to
 * this callback. The thread waits for the event, calls the function, and counts. It asks for the
 * event again and again, ever more slowly, since a wait for it would take one of the session's
 * slots; and it takes no error that is the program's to see.
 */
#include "guest/libcuda/model/callback.h"

#include <pthread.h>
#include <stdbool.h>
#include <stdlib.h>

#include "common/clock.h"
#include "common/shared.h"
#include "guest/libcuda/model/memory.h"
#include "guest/libcuda/state/state.h"
#include "guest/libcuda/wire/pinned.h"
#include "guest/libcuda/wire/wire-calls.h"
#include "guest/libvgpu/session.h"

/* CUDA's condition: at least, by the sign of the difference. */
#define WAIT_AT_LEAST 0u

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

/* Waits until the stream is where it was when the event was recorded. */
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

    if (waiting->last || enter_init() != CUDA_SUCCESS) {
        return;
    }
    if (callback->with_status) {
        callback->with_status(waiting->stream, r, callback->argument);
    } else if (r == CUDA_SUCCESS) {
        callback->function(callback->argument);
    }
    /* What the callback has written is there before the stream goes on. */
    shared_fence();
    shared_store(c->word, waiting->number);
}

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
        if (!c->first) {
            c->last = &c->first;
        }
        pthread_mutex_unlock(&c->mutex);
        callbacks_run(c, waiting);
        free(waiting);
        pthread_mutex_lock(&c->mutex);
    }
    pthread_mutex_unlock(&c->mutex);
    if (enter_init() == CUDA_SUCCESS) {
        vgpu_pinned_free(cuda.session, c->word);
    }
    pthread_cond_destroy(&c->added);
    pthread_mutex_destroy(&c->mutex);
    free(c);
    return NULL;
}

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

/* Posts the event, and where there is a callback that the stream waits. */
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
