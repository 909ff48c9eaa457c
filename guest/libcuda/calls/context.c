/* SPDX-License-Identifier: MIT */
/*
 * Contexts, as programs make, choose and end them; and what goes with a context when it ends.
 *
 * The primary one is retained and released by those who use it, and comes back as the same.
 *
 * `life` is held while the primary context ends, which waits for the GPU: a thread that retains it
 * meanwhile gets it when all is gone that it had. `mutex` is only held for its fields, so that
 * cuDevicePrimaryCtxGetState() need not wait. Whoever takes both takes `life` first.
 */

#include <pthread.h>
#include <stdlib.h>

#include "guest/libcuda/calls/guest-calls.h"
#include "guest/libcuda/calls/ipc.h"
#include "guest/libcuda/model/array.h"
#include "guest/libcuda/model/capture.h"
#include "guest/libcuda/model/context.h"
#include "guest/libcuda/model/device.h"
#include "guest/libcuda/model/event.h"
#include "guest/libcuda/model/exec.h"
#include "guest/libcuda/model/link.h"
#include "guest/libcuda/model/memory.h"
#include "guest/libcuda/model/mempool.h"
#include "guest/libcuda/model/module.h"
#include "guest/libcuda/model/storage.h"
#include "guest/libcuda/model/stream.h"
#include "guest/libcuda/model/texture.h"
#include "guest/libcuda/state/state.h"
#include "guest/libvgpu/session.h"

static pthread_mutex_t life = PTHREAD_MUTEX_INITIALIZER;  /* of the primary one's begin and end */
static pthread_mutex_t mutex = PTHREAD_MUTEX_INITIALIZER; /* of what it is */

/* What a context has -------------------------------------------------------------------------- */

/*
 * Always the first that is left, as dropping one takes it out of the table. Work of the streams is
 * done: the caller has waited.
 */
static void stream_release(const struct context *context)
{
    struct object *object;

    while ((object = object_of(context, HANDLE_STREAM)) != NULL) {
        stream_drop((struct stream *)object);
    }
    while ((object = object_of(context, HANDLE_EVENT)) != NULL) {
        capture_drop_point(object->handle);
        event_end((struct event *)object);
    }
}

/*
 * Variables went with their modules; registered memory is the program's, and only the note of it
 * goes.
 */
static void free_area(const struct memory *area)
{
    if (area->kind == MEMORY_DEVICE) {
        vgpu_mem_free(cuda.session, area->address);
    } else if (area->kind == MEMORY_HOST || area->kind == MEMORY_MANAGED) {
        vgpu_pinned_free(cuda.session, (void *)(uintptr_t)area->address);
    } else if (area->kind == MEMORY_POOLED) {
        pool_return(area);
    } else if (area->kind == MEMORY_SHARED) {
        ipc_close_all(area->address);
    }
}

/*
 * Gives back what a context has. It is ended already, so that nothing is added. Graphs come before
 * the modules whose kernels they launch, callbacks, which go with their streams, before the memory
 * that their functions may use. Errors are not looked at: what could not be given back goes with
 * the session's worker.
 */
static void context_release(const struct context *context)
{
    struct memory area;

    vgpu_session_sync(cuda.session);
    link_release(context);
    exec_release(context);
    stream_release(context);
    module_release(context);
    texture_release(context);
    array_release(context);
    while (memory_take(context, &area)) {
        free_area(&area);
    }
}

/* The thread's stack -------------------------------------------------------------------------- */

/* NULL is not the current one here: CUDA wants a context. */
CUresult guest_cuCtxPushCurrent_v2(CUcontext context)
{
    struct context *known = context ? context_find_or_primary(context) : NULL;

    if (!context) {
        return CUDA_ERROR_INVALID_VALUE;
    }
    return known ? context_push(known) : CUDA_ERROR_INVALID_CONTEXT;
}

CUresult guest_cuCtxPopCurrent_v2(CUcontext *context)
{
    struct context *top = context_top();

    if (!top) {
        return CUDA_ERROR_INVALID_CONTEXT;
    }
    if (context) {
        *context = (CUcontext)top;
    }
    context_pop();
    return CUDA_SUCCESS;
}

CUresult guest_cuCtxSetCurrent(CUcontext context)
{
    struct context *known = context ? context_find_or_primary(context) : NULL;

    if (context && !known) {
        return CUDA_ERROR_INVALID_CONTEXT;
    }
    /*
     * It replaces the top of the stack, and with NULL only takes it away. An empty stack stays so.
     */
    if (context_top()) {
        context_pop();
    }
    return known ? context_push(known) : CUDA_SUCCESS;
}

/* The primary one ----------------------------------------------------------------------------- */

/*
 * It may be inactive though it is retained, after cuDevicePrimaryCtxReset(): the next one that
 * retains it brings it back.
 */
CUresult guest_cuDevicePrimaryCtxRetain(CUcontext *context, CUdevice device)
{
    if (!device_valid(device)) {
        return CUDA_ERROR_INVALID_DEVICE;
    }
    pthread_mutex_lock(&life);
    pthread_mutex_lock(&mutex);
    primary_context.retained++;
    if (!primary_context.active) {
        primary_context.active = true;
        context_begin(&primary_context, primary_context.flags);
    }
    pthread_mutex_unlock(&mutex);
    pthread_mutex_unlock(&life);
    *context = (CUcontext)&primary_context;
    return CUDA_SUCCESS;
}

/*
 * Ends the primary context, if it is there. It is no longer found before anything of it is freed,
 * so that other threads' calls fail and do not use it half gone. With `life`. Returns what
 * NVIDIA's runtime library is to be told of, without it.
 */
static struct stored *end_primary(void)
{
    struct stored *stored;
    bool was;

    pthread_mutex_lock(&mutex);
    was = primary_context.active;
    if (was) {
        primary_context.active = false;
        context_end(&primary_context);
    }
    pthread_mutex_unlock(&mutex);
    stored = storage_take(&primary_context);
    if (was) {
        context_release(&primary_context);
    }
    return stored;
}

CUresult guest_cuDevicePrimaryCtxRelease_v2(CUdevice device)
{
    struct stored *stored = NULL;
    CUresult r = CUDA_SUCCESS;

    if (!device_valid(device)) {
        return CUDA_ERROR_INVALID_DEVICE;
    }
    pthread_mutex_lock(&life);
    if (primary_context.retained == 0) {
        r = CUDA_ERROR_INVALID_CONTEXT;
    } else if (--primary_context.retained == 0) {
        stored = end_primary();
    }
    pthread_mutex_unlock(&life);
    storage_end(stored);
    return r;
}

/* What it has is gone; who has retained it still has to release it. */
CUresult guest_cuDevicePrimaryCtxReset_v2(CUdevice device)
{
    struct stored *stored;

    if (!device_valid(device)) {
        return CUDA_ERROR_INVALID_DEVICE;
    }
    pthread_mutex_lock(&life);
    stored = end_primary();
    pthread_mutex_unlock(&life);
    storage_end(stored);
    return CUDA_SUCCESS;
}

/*
 * Of the ways to wait (SPIN, YIELD, BLOCKING_SYNC) a program may choose one at most. None of them
 * changes anything here: how a session waits is libvgpu's matter.
 */
static bool flags_valid(unsigned flags)
{
    const unsigned schedule = flags & CU_CTX_SCHED_MASK;

    return (flags & ~(unsigned)(CU_CTX_SCHED_MASK | CU_CTX_MAP_HOST | CU_CTX_LMEM_RESIZE_TO_MAX)) ==
               0 &&
           (schedule & (schedule - 1)) == 0;
}

/* Also while it is active; the context has the new flags at once then. */
CUresult guest_cuDevicePrimaryCtxSetFlags_v2(CUdevice device, unsigned int flags)
{
    if (!device_valid(device)) {
        return CUDA_ERROR_INVALID_DEVICE;
    }
    if (!flags_valid(flags)) {
        return CUDA_ERROR_INVALID_VALUE;
    }
    pthread_mutex_lock(&mutex);
    primary_context.flags = flags;
    pthread_mutex_unlock(&mutex);
    return CUDA_SUCCESS;
}

CUresult guest_cuDevicePrimaryCtxGetState(CUdevice device, unsigned int *flags, int *active)
{
    if (!device_valid(device)) {
        return CUDA_ERROR_INVALID_DEVICE;
    }
    pthread_mutex_lock(&mutex);
    *flags = primary_context.flags;
    *active = primary_context.active;
    pthread_mutex_unlock(&mutex);
    return CUDA_SUCCESS;
}

/* Others -------------------------------------------------------------------------------------- */

/*
 * The host is not told: a second context there would share the GPU with the first in the driver's
 * own time slices, past the scheduler.
 */
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
    context_begin(made, flags);
    r = context_push(made);
    if (r != CUDA_SUCCESS) {
        guest_cuCtxDestroy_v2((CUcontext)made);
        return r;
    }
    *context = (CUcontext)made;
    return CUDA_SUCCESS;
}

/* A part of the GPU's multiprocessors for a context would need a context of its own on the host. */
CUresult guest_cuCtxCreate_v3(CUcontext *context, CUexecAffinityParam *affinity, int count,
                              unsigned int flags, CUdevice device)
{
    if (!context || (count > 0 && !affinity)) {
        return CUDA_ERROR_INVALID_VALUE;
    }
    if (!device_valid(device)) {
        return CUDA_ERROR_INVALID_DEVICE;
    }
    if (count > 0) {
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

/*
 * context_end() finds out whether the address is a context before anything there is read, and lets
 * one of several threads that destroy it at once do so. Other threads that have it current find it
 * destroyed at their next call. The primary one is not the program's to destroy.
 */
CUresult guest_cuCtxDestroy_v2(CUcontext context)
{
    struct context *known = (struct context *)context;

    if (!known) {
        return CUDA_ERROR_INVALID_VALUE;
    }
    if (known == &primary_context || !context_end(known)) {
        return CUDA_ERROR_INVALID_CONTEXT;
    }
    if (context_top() == known) {
        context_pop();
    }
    context_release(known);
    storage_end(storage_take(known));
    free(known);
    return CUDA_SUCCESS;
}

/*
 * From before there were push and pop, and deprecated: a count of those who use it, which is not
 * kept here. cuCtxDestroy() is what ends a context.
 */
CUresult guest_cuCtxAttach(CUcontext *context, unsigned int flags)
{
    if (!context || flags != 0) {
        return CUDA_ERROR_INVALID_VALUE;
    }
    *context = (CUcontext)context_top();
    return CUDA_SUCCESS;
}

/* Questions ----------------------------------------------------------------------------------- */

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

/*
 * All streams of the process are waited for, those of its other contexts included: on the host they
 * are one. That is more than CUDA promises, and never less. The position is read first: blocks that
 * other threads free meanwhile are not covered by this wait.
 */
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

/* Each context has all multiprocessors. */
CUresult guest_cuCtxGetExecAffinity(CUexecAffinityParam *affinity, CUexecAffinityType type)
{
    if (type != CU_EXEC_AFFINITY_TYPE_SM_COUNT) {
        return CUDA_ERROR_UNSUPPORTED_EXEC_AFFINITY;
    }
    affinity->type = type;
    affinity->param.smCount.val =
        (unsigned)cuda.attributes[CU_DEVICE_ATTRIBUTE_MULTIPROCESSOR_COUNT];
    return CUDA_SUCCESS;
}

/*
 * Contexts of one device reach each other's memory anyway, and CUDA calls peer access between them
 * unsupported. With itself it is an invalid context.
 */
CUresult guest_cuCtxEnablePeerAccess(CUcontext peer, unsigned int flags)
{
    if (flags != 0) {
        return CUDA_ERROR_INVALID_VALUE;
    }
    return peer && context_find(peer) ? CUDA_ERROR_PEER_ACCESS_UNSUPPORTED
                                      : CUDA_ERROR_INVALID_CONTEXT;
}

CUresult guest_cuCtxDisablePeerAccess(CUcontext peer)
{
    return peer && context_find(peer) ? CUDA_ERROR_PEER_ACCESS_NOT_ENABLED
                                      : CUDA_ERROR_INVALID_CONTEXT;
}
