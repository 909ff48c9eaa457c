/* SPDX-License-Identifier: MIT */
/*
 * Callbacks. There are two words in the arena for a stream's: the GPU writes into one how many
 * callbacks it has come to, and waits until the other says that as many have returned. The thread
 * looks at the first, calls the function, and counts the second. So nothing of it needs the worker,
 * which may be in the driver meanwhile, waiting for this very stream.
 *
 * Example: the third callback of a stream. The host gets "write 3 to the first word" and "wait
 * until the second is at least 3". The GPU writes and stands still, as the second is 2. The thread
 * sees the 3, calls the function, writes 3, and the stream goes on.
 *
 * When the work before it has failed the GPU never comes there. The worker notices, and says so in
 * the queue's header.
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
    bool last; /* no callback: what is behind the last one */
    CUstream stream;
    uint32_t number;
};

struct callbacks {
    pthread_mutex_t mutex; /* of what follows */
    pthread_cond_t added;
    struct waiting *first, **last;
    uint64_t stream;
    struct {
        uint32_t reached;  /* the GPU's: the last callback that it has come to */
        uint32_t returned; /* the thread's: the last one that has returned */
    } * words;             /* in the arena */
    uint32_t number;       /* of the last that was added */
    bool ending;
};

/*
 * Waits until the GPU has come to a callback, looking ever more slowly. The result is that of the
 * work before it, which callbacks with a status are told. Without the mutex: it may take as long as
 * the stream's work.
 */
static CUresult wait_until_reached(const struct callbacks *c, uint32_t number)
{
    const uint64_t start = clock_ns();

    /* By the sign of the difference, as the numbers wrap. */
    while ((int32_t)(shared_load_acquire(&c->words->reached) - number) < 0) {
        if (enter_init() != CUDA_SUCCESS) {
            return CUDA_ERROR_DEINITIALIZED;
        }
        session_look(cuda.session, clock_ns() - start);
        if (session_lost(cuda.session) != 0) {
            return result_of((int)session_lost(cuda.session));
        }
        if (vgpu_session_end(cuda.session) != VGPU_QUEUE_END_NONE) {
            return result_of(VGPU_ENDED);
        }
        vgpu_pause(clock_ns() - start);
    }
    return CUDA_SUCCESS;
}

static void callbacks_run(const struct callbacks *c, const struct waiting *waiting)
{
    const struct callback *callback = &waiting->callback;
    const CUresult r = wait_until_reached(c, waiting->number);

    /*
     * After the end of the session the program's functions and their data may be unloaded, and the
     * words' memory is not the arena's any more.
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
    shared_store(&c->words->returned, waiting->number);
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
    /* The GPU has come to the end, so no wait of it looks at the words any more. */
    if (enter_init() == CUDA_SUCCESS) {
        vgpu_pinned_free(cuda.session, c->words);
    }
    pthread_cond_destroy(&c->added);
    pthread_mutex_destroy(&c->mutex);
    free(c);
    return NULL;
}

/*
 * The words lie in the arena because the GPU uses them: they have to be the same memory, at the
 * same address, for the driver on the host and for this process.
 */
CUresult callbacks_begin(uint64_t stream_handle, struct callbacks **callbacks)
{
    struct callbacks *c = calloc(1, sizeof(*c));
    void *words = c ? memory_pinned(sizeof(*c->words)) : NULL;
    CUresult r = CUDA_ERROR_OUT_OF_MEMORY;

    if (words) {
        c->stream = stream_handle;
        c->words = words;
        shared_store(&c->words->reached, 0);
        shared_store(&c->words->returned, 0);
        c->last = &c->first;
        pthread_mutex_init(&c->mutex, NULL);
        pthread_cond_init(&c->added, NULL);
        r = library_thread(callbacks_serve, c);
    }
    if (r != CUDA_SUCCESS) {
        vgpu_pinned_free(cuda.session, words);
        free(c);
        return r;
    }
    *callbacks = c;
    return CUDA_SUCCESS;
}

/*
 * Posts the write, and where there is a callback that the stream waits. Numbers wrap at 2^32;
 * AT_LEAST compares by the sign of the difference, so it holds across that. Neither of the two has
 * an answer, so the program's thread goes on at once.
 */
static CUresult callbacks_post(const struct callbacks *c, const struct waiting *waiting)
{
    const CUdeviceptr reached = (uintptr_t)&c->words->reached;
    const CUdeviceptr returned = (uintptr_t)&c->words->returned;
    const CUresult r = call_cuStreamWriteValue32_v2(c->stream, reached, waiting->number, 0);

    return r == CUDA_SUCCESS && !waiting->last
               ? call_cuStreamWaitValue32_v2(c->stream, returned, waiting->number, WAIT_AT_LEAST)
               : r;
}

/* Posts, and hands it to the thread. With the mutex, so that their order is the stream's. */
static CUresult callbacks_append(struct callbacks *c, struct waiting *waiting)
{
    CUresult r;

    waiting->number = c->number + 1;
    r = callbacks_post(c, waiting);
    if (r != CUDA_SUCCESS) {
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
    struct waiting *waiting = calloc(1, sizeof(*waiting));
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
 * The write without a callback tells the thread when the GPU has left the last wait behind. It may
 * give the words back then, and not before: the next owner of these bytes would let the stream go
 * on, or hold it for ever. When there is no memory for it they go when the last function has
 * returned.
 */
void callbacks_end(struct callbacks *c)
{
    struct waiting *waiting = calloc(1, sizeof(*waiting));

    pthread_mutex_lock(&c->mutex);
    c->ending = true;
    pthread_cond_signal(&c->added);
    if (waiting) {
        waiting->last = true;
        callbacks_append(c, waiting);
    }
    pthread_mutex_unlock(&c->mutex);
}
