/* SPDX-License-Identifier: MIT */
/*
 * Contexts and threads' stacks of them, see context.h.
 *
 * A CUcontext is an address, and a program may hold one whose context has ended, or have it on the
 * stack of another thread. So a context is looked for among those that live before anything is read
 * from it. That would be a lock for every call of CUDA's. Instead a thread remembers the count of
 * ended contexts at which it last found its top one alive: as long as none has ended since, it
 * still lives.
 *
 * Example: the count is 7, thread A has checked its context then. Thread B destroys another
 * context: 8. A's next call looks once, finds its own alive, and remembers 8.
 */
#include "guest/libcuda/model/context.h"

#include <pthread.h>

#include "guest/libcuda/state/state.h"

/* How deep a thread's stack of contexts may be. */
#define STACK_MAX 256u

/*
 * What the calling thread has current. Identities tell an address that was used again: malloc may
 * put the next context where one was that has ended, and the thread must not find itself with that
 * one.
 */
struct stack {
    struct {
        struct context *context;
        uint64_t id;
    } place[STACK_MAX];
    unsigned count;
    uint64_t checked; /* `changes` when the top one was last seen to live */
};

/*
 * It has its identity from the beginning and is the same when it comes back, as CUDA has it:
 * threads that had it current before cuDevicePrimaryCtxReset() have it again.
 */
#define PRIMARY_ID 1u
struct context primary_context = {.id = PRIMARY_ID};

static __thread struct stack stack;
static pthread_mutex_t mutex = PTHREAD_MUTEX_INITIALIZER; /* of all that follows */
static struct context *contexts;                          /* those that live */
static uint64_t last_id = PRIMARY_ID;
static uint64_t changes = 1; /* counts contexts that have ended; also read without the mutex */

/* Those that live ----------------------------------------------------------------------------- */

void context_begin(struct context *context, unsigned flags)
{
    pthread_mutex_lock(&mutex);
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

/*
 * Compares addresses before it looks at what is there. An id of 0 is any: programs name a context
 * by its address alone. With the mutex.
 */
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
        /*
         * Pairs with the load in context_check(): a thread that sees the new count looks under the
         * mutex, and does not find the context any more.
         */
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

struct context *context_find_or_primary(CUcontext context)
{
    return (struct context *)context == &primary_context ? &primary_context : context_find(context);
}

/* The thread's stack -------------------------------------------------------------------------- */

/*
 * The count is read before the list is looked at. One that ends in between is noticed at the next
 * call; that call and this were in a race anyway.
 */
static CUresult context_check(void)
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
        /* CUDA leaves a destroyed context current, and answers so until the thread sets another. */
        return CUDA_ERROR_CONTEXT_IS_DESTROYED;
    }
    stack.checked = now;
    return CUDA_SUCCESS;
}

struct context *context_current(void)
{
    return context_check() == CUDA_SUCCESS ? stack.place[stack.count - 1].context : NULL;
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

/* Not looked for: cuCtxPopCurrent() gives a destroyed one back too. */
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
