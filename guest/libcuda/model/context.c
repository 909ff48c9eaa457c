/* SPDX-License-Identifier: MIT */
/* Contexts and threads' stacks of them, see context.h. */
#include "guest/libcuda/model/context.h"

#include <pthread.h>

#include "guest/libcuda/state/state.h"

/* How deep a thread's stack of contexts may be. */
#define STACK_MAX 256u

/* What the calling thread has current; identities tell an address that was used again. */
struct stack {
    struct {
        struct context *context;
        uint64_t id;
    } place[STACK_MAX];
    unsigned count;
    uint64_t checked; /* `changes` when the top one was last seen to live */
};

static __thread struct stack stack;
static pthread_mutex_t mutex = PTHREAD_MUTEX_INITIALIZER; /* of all that follows */
static struct context *contexts;                          /* those that live */
static uint64_t last_id;
static uint64_t changes = 1; /* counts contexts that have ended; also read without the mutex */

/* Those that live ----------------------------------------------------------------------------- */

void context_begin(struct context *context, unsigned flags)
{
    pthread_mutex_lock(&mutex);
    /* The primary one is the same when it comes back. */
    context->id = context->id != 0 ? context->id : ++last_id;
    context->flags = flags;
    context->next = contexts;
    context->before = &contexts;
    if (contexts) {
        contexts->before = &context->next;
    }
    contexts = context;
    pthread_mutex_unlock(&mutex);
}

/* With the mutex. */
static bool context_lives(const struct context *wanted, uint64_t id)
{
    const struct context *context = contexts;

    while (context && context != wanted) {
        context = context->next;
    }
    return context && (id == 0 || context->id == id);
}

bool context_end(const struct context *context)
{
    bool lives;

    pthread_mutex_lock(&mutex);
    lives = context_lives(context, 0);
    if (lives) {
        *context->before = context->next;
        if (context->next) {
            context->next->before = context->before;
        }
        __atomic_fetch_add(&changes, 1, __ATOMIC_RELEASE);
    }
    pthread_mutex_unlock(&mutex);
    return lives;
}

struct context *context_find(CUcontext context)
{
    struct context *known = (struct context *)context;
    bool found;

    if (!known) {
        return context_current();
    }
    pthread_mutex_lock(&mutex);
    found = context_lives(known, 0);
    pthread_mutex_unlock(&mutex);
    return found ? known : NULL;
}

/* The thread's stack -------------------------------------------------------------------------- */

struct context *context_current(void)
{
    return context_check() == CUDA_SUCCESS ? stack.place[stack.count - 1].context : NULL;
}

CUresult context_check(void)
{
    const uint64_t now = __atomic_load_n(&changes, __ATOMIC_ACQUIRE);
    bool found;

    if (stack.count == 0) {
        return CUDA_ERROR_INVALID_CONTEXT;
    }
    if (stack.checked == now) {
        return CUDA_SUCCESS;
    }
    pthread_mutex_lock(&mutex);
    found = context_lives(stack.place[stack.count - 1].context, stack.place[stack.count - 1].id);
    pthread_mutex_unlock(&mutex);
    if (!found) {
        return CUDA_ERROR_CONTEXT_IS_DESTROYED;
    }
    stack.checked = now;
    return CUDA_SUCCESS;
}

CUresult context_push(struct context *context)
{
    if (stack.count == STACK_MAX) {
        return CUDA_ERROR_OUT_OF_MEMORY;
    }
    stack.place[stack.count].context = context;
    stack.place[stack.count++].id = context->id;
    stack.checked = 0;
    return CUDA_SUCCESS;
}

struct context *context_top(void)
{
    return stack.count == 0 ? NULL : stack.place[stack.count - 1].context;
}

void context_pop(void)
{
    stack.count--;
    stack.checked = 0;
}

CUresult enter_context(void)
{
    const CUresult r = enter_init();

    if (r != CUDA_SUCCESS) {
        return r;
    }
    return context_check();
}
