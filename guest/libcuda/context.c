/* SPDX-License-Identifier: MIT */
/* Contexts, see context.h. */
#include "guest/libcuda/context.h"

#include <pthread.h>
#include <stdlib.h>
#include <string.h>

#include "common/shared.h"
#include "guest/libcuda/capture.h"
#include "guest/libcuda/device.h"
#include "guest/libcuda/entry.h"
#include "guest/libcuda/exec.h"
#include "guest/libcuda/memory.h"
#include "guest/libcuda/mempool.h"
#include "guest/libcuda/module.h"
#include "guest/libcuda/stream.h"
#include "guest/libvgpu/session.h"

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
static pthread_mutex_t life = PTHREAD_MUTEX_INITIALIZER; /* of the primary one's begin and end */
static pthread_mutex_t mutex = PTHREAD_MUTEX_INITIALIZER;
static struct context primary;
static struct context *contexts; /* those that live */
static uint64_t last_id;
static uint64_t changes = 1; /* counts contexts that have ended */

/* Those that live ----------------------------------------------------------------------------- */

/* With the mutex. */
static void context_begin(struct context *context, unsigned flags)
{
    /* The primary one is the same when it comes back. */
    context->id = context->id != 0 ? context->id : ++last_id;
    context->flags = flags;
    context->next = contexts;
    context->before = &contexts;
    if (contexts) {
        contexts->before = &context->next;
    }
    contexts = context;
}

/* With the mutex. */
static void context_end(struct context *context)
{
    *context->before = context->next;
    if (context->next) {
        context->next->before = context->before;
    }
    context->before = NULL;
    __atomic_fetch_add(&changes, 1, __ATOMIC_RELEASE);
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

/* Gives back what a context has. It is ended already, so that nothing is added. */
static void context_release(struct context *context)
{
    vgpu_session_sync(cuda.session);
    exec_release(context);
    stream_release(context);
    module_release(context);
    memory_release_of(context);
}

/* The thread's stack --------------------------------------------------------------------------- */

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

static CUresult context_push(struct context *context)
{
    if (stack.count == STACK_MAX) {
        return CUDA_ERROR_OUT_OF_MEMORY;
    }
    stack.place[stack.count].context = context;
    stack.place[stack.count++].id = context->id;
    stack.checked = 0;
    return CUDA_SUCCESS;
}

static void context_pop(void)
{
    stack.count--;
    stack.checked = 0;
}

CUresult guest_cuCtxPushCurrent_v2(CUcontext context)
{
    struct context *known = context ? context_find(context) : NULL;

    return known ? context_push(known) : CUDA_ERROR_INVALID_CONTEXT;
}

CUresult guest_cuCtxPopCurrent_v2(CUcontext *context)
{
    if (stack.count == 0) {
        return CUDA_ERROR_INVALID_CONTEXT;
    }
    if (context) {
        *context = (CUcontext)stack.place[stack.count - 1].context;
    }
    context_pop();
    return CUDA_SUCCESS;
}

CUresult guest_cuCtxSetCurrent(CUcontext context)
{
    struct context *known = context ? context_find(context) : NULL;

    if (context && !known) {
        return CUDA_ERROR_INVALID_CONTEXT;
    }
    if (stack.count > 0) {
        context_pop();
    }
    return known ? context_push(known) : CUDA_SUCCESS;
}

CUresult guest_cuCtxGetCurrent(CUcontext *context)
{
    if (!context) {
        return CUDA_ERROR_INVALID_VALUE;
    }
    *context = stack.count == 0 ? NULL : (CUcontext)stack.place[stack.count - 1].context;
    return CUDA_SUCCESS;
}

/* The primary one ------------------------------------------------------------------------------ */

CUresult guest_cuDevicePrimaryCtxRetain(CUcontext *context, CUdevice device)
{
    if (!context) {
        return CUDA_ERROR_INVALID_VALUE;
    }
    if (!device_valid(device)) {
        return CUDA_ERROR_INVALID_DEVICE;
    }
    pthread_mutex_lock(&life);
    pthread_mutex_lock(&mutex);
    primary.retained++;
    if (!primary.active) {
        primary.active = true;
        context_begin(&primary, primary.flags);
    }
    pthread_mutex_unlock(&mutex);
    pthread_mutex_unlock(&life);
    *context = (CUcontext)&primary;
    return CUDA_SUCCESS;
}

/* Ends the primary context, if it is there. With `life`. */
static void end_primary(void)
{
    bool was;

    pthread_mutex_lock(&mutex);
    was = primary.active;
    if (was) {
        primary.active = false;
        context_end(&primary);
    }
    pthread_mutex_unlock(&mutex);
    if (was) {
        context_release(&primary);
    }
}

CUresult guest_cuDevicePrimaryCtxRelease_v2(CUdevice device)
{
    CUresult r = CUDA_SUCCESS;

    if (!device_valid(device)) {
        return CUDA_ERROR_INVALID_DEVICE;
    }
    pthread_mutex_lock(&life);
    if (primary.retained == 0) {
        r = CUDA_ERROR_INVALID_CONTEXT;
    } else if (--primary.retained == 0) {
        end_primary();
    }
    pthread_mutex_unlock(&life);
    return r;
}

/* What it has is gone; who has retained it still has to release it. */
CUresult guest_cuDevicePrimaryCtxReset_v2(CUdevice device)
{
    if (!device_valid(device)) {
        return CUDA_ERROR_INVALID_DEVICE;
    }
    pthread_mutex_lock(&life);
    end_primary();
    pthread_mutex_unlock(&life);
    return CUDA_SUCCESS;
}

static bool flags_valid(unsigned flags)
{
    const unsigned schedule = flags & CU_CTX_SCHED_MASK;

    return (flags & ~(unsigned)(CU_CTX_SCHED_MASK | CU_CTX_MAP_HOST | CU_CTX_LMEM_RESIZE_TO_MAX)) ==
               0 &&
           (schedule & (schedule - 1)) == 0;
}

CUresult guest_cuDevicePrimaryCtxSetFlags_v2(CUdevice device, unsigned int flags)
{
    if (!device_valid(device)) {
        return CUDA_ERROR_INVALID_DEVICE;
    }
    if (!flags_valid(flags)) {
        return CUDA_ERROR_INVALID_VALUE;
    }
    pthread_mutex_lock(&mutex);
    primary.flags = flags;
    pthread_mutex_unlock(&mutex);
    return CUDA_SUCCESS;
}

CUresult guest_cuDevicePrimaryCtxGetState(CUdevice device, unsigned int *flags, int *active)
{
    if (!flags || !active) {
        return CUDA_ERROR_INVALID_VALUE;
    }
    if (!device_valid(device)) {
        return CUDA_ERROR_INVALID_DEVICE;
    }
    pthread_mutex_lock(&mutex);
    *flags = primary.flags;
    *active = primary.active;
    pthread_mutex_unlock(&mutex);
    return CUDA_SUCCESS;
}

/* Others --------------------------------------------------------------------------------------- */

CUresult guest_cuCtxCreate_v2(CUcontext *context, unsigned int flags, CUdevice device)
{
    struct context *made;
    CUresult r;

    if (!context || !flags_valid(flags)) {
        return CUDA_ERROR_INVALID_VALUE;
    }
    if (!device_valid(device)) {
        return CUDA_ERROR_INVALID_DEVICE;
    }
    made = calloc(1, sizeof(*made));
    if (!made) {
        return CUDA_ERROR_OUT_OF_MEMORY;
    }
    pthread_mutex_lock(&mutex);
    context_begin(made, flags);
    pthread_mutex_unlock(&mutex);
    r = context_push(made);
    if (r != CUDA_SUCCESS) {
        guest_cuCtxDestroy_v2((CUcontext)made);
        return r;
    }
    *context = (CUcontext)made;
    return CUDA_SUCCESS;
}

CUresult guest_cuCtxCreate_v3(CUcontext *context, CUexecAffinityParam *affinity, int count,
                              unsigned int flags, CUdevice device)
{
    if (affinity || count != 0) {
        return CUDA_ERROR_UNSUPPORTED_EXEC_AFFINITY;
    }
    return guest_cuCtxCreate_v2(context, flags, device);
}

CUresult guest_cuCtxCreate_v4(CUcontext *context, CUctxCreateParams *params, unsigned int flags,
                              CUdevice device)
{
    if (params && params->cigParams) {
        return REFUSE("cuCtxCreate with cigParams");
    }
    return params ? guest_cuCtxCreate_v3(context, params->execAffinityParams,
                                         params->numExecAffinityParams, flags, device)
                  : guest_cuCtxCreate_v2(context, flags, device);
}

CUresult guest_cuCtxDestroy_v2(CUcontext context)
{
    struct context *known = (struct context *)context;
    bool found;

    pthread_mutex_lock(&mutex);
    found = known && known != &primary && context_lives(known, 0);
    if (found) {
        context_end(known);
    }
    pthread_mutex_unlock(&mutex);
    if (!found) {
        return CUDA_ERROR_INVALID_CONTEXT;
    }
    if (stack.count > 0 && stack.place[stack.count - 1].context == known) {
        context_pop();
    }
    context_release(known);
    free(known);
    return CUDA_SUCCESS;
}

/* From before there were push and pop: a count of those who use it. */
CUresult guest_cuCtxAttach(CUcontext *context, unsigned int flags)
{
    if (!context || flags != 0) {
        return CUDA_ERROR_INVALID_VALUE;
    }
    return guest_cuCtxGetCurrent(context);
}

CUresult guest_cuCtxDetach(CUcontext context)
{
    return context_find(context) ? CUDA_SUCCESS : CUDA_ERROR_INVALID_CONTEXT;
}

/* Questions ------------------------------------------------------------------------------------ */

CUresult guest_cuCtxGetDevice(CUdevice *device)
{
    if (!device) {
        return CUDA_ERROR_INVALID_VALUE;
    }
    *device = 0;
    return CUDA_SUCCESS;
}

CUresult guest_cuCtxGetDevice_v2(CUdevice *device, CUcontext context)
{
    return context_find(context) ? guest_cuCtxGetDevice(device) : CUDA_ERROR_INVALID_CONTEXT;
}

CUresult guest_cuCtxGetFlags(unsigned int *flags)
{
    const struct context *context = context_current();

    if (!flags || !context) {
        return flags ? CUDA_ERROR_CONTEXT_IS_DESTROYED : CUDA_ERROR_INVALID_VALUE;
    }
    *flags = context->flags;
    return CUDA_SUCCESS;
}

CUresult guest_cuCtxSetFlags(unsigned int flags)
{
    struct context *context = context_current();

    if (!context || !flags_valid(flags)) {
        return context ? CUDA_ERROR_INVALID_VALUE : CUDA_ERROR_CONTEXT_IS_DESTROYED;
    }
    context->flags = flags;
    return CUDA_SUCCESS;
}

CUresult guest_cuCtxGetId(CUcontext context, unsigned long long *id)
{
    const struct context *known = context_find(context);

    if (!known || !id) {
        return known ? CUDA_ERROR_INVALID_VALUE : CUDA_ERROR_INVALID_CONTEXT;
    }
    *id = known->id;
    return CUDA_SUCCESS;
}

CUresult guest_cuCtxGetApiVersion(CUcontext context, unsigned int *version)
{
    if (!version) {
        return CUDA_ERROR_INVALID_VALUE;
    }
    if (!context_find(context)) {
        return CUDA_ERROR_INVALID_CONTEXT;
    }
    *version = 3020;
    return CUDA_SUCCESS;
}

CUresult guest_cuCtxSynchronize(void)
{
    const uint64_t position = pool_position();
    CUresult r = capture_allows();

    if (r == CUDA_SUCCESS) {
        r = result_of(vgpu_session_sync(cuda.session));
    }
    if (r == CUDA_SUCCESS) {
        pool_settle_all(position);
    }
    return r;
}

CUresult guest_cuCtxSynchronize_v2(CUcontext context)
{
    return context_find(context) ? guest_cuCtxSynchronize() : CUDA_ERROR_INVALID_CONTEXT;
}

CUresult guest_cuCtxGetExecAffinity(CUexecAffinityParam *affinity, CUexecAffinityType type)
{
    if (!affinity) {
        return CUDA_ERROR_INVALID_VALUE;
    }
    if (type != CU_EXEC_AFFINITY_TYPE_SM_COUNT) {
        return CUDA_ERROR_UNSUPPORTED_EXEC_AFFINITY;
    }
    affinity->type = type;
    affinity->param.smCount.val =
        (unsigned)cuda.attributes[CU_DEVICE_ATTRIBUTE_MULTIPROCESSOR_COUNT];
    return CUDA_SUCCESS;
}

/* There is one device, which has no peer but itself. */

CUresult guest_cuCtxEnablePeerAccess(CUcontext peer, unsigned int flags)
{
    if (flags != 0) {
        return CUDA_ERROR_INVALID_VALUE;
    }
    return peer && context_find(peer) && context_find(peer) != context_current()
               ? CUDA_ERROR_PEER_ACCESS_UNSUPPORTED
               : CUDA_ERROR_INVALID_CONTEXT;
}

CUresult guest_cuCtxDisablePeerAccess(CUcontext peer)
{
    return peer && context_find(peer) ? CUDA_ERROR_PEER_ACCESS_NOT_ENABLED
                                      : CUDA_ERROR_INVALID_CONTEXT;
}
