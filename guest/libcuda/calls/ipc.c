/* SPDX-License-Identifier: MIT */
/*
 * Memory and events that several processes of a guest have, see ipc.h.
 *
 * A handle of CUDA's is the key by which the host finds what it is of, and zeroes. So it is good in
 * the guest that it comes from, and for as long as there is something behind it.
 */
#include "guest/libcuda/calls/ipc.h"

#include <pthread.h>
#include <string.h>
#include <time.h>

#include "common/clock.h"
#include "guest/libcuda/calls/families.h"
#include "guest/libcuda/calls/guest-calls.h"
#include "guest/libcuda/model/capture.h"
#include "guest/libcuda/model/event.h"
#include "guest/libcuda/model/memory.h"
#include "guest/libcuda/state/reserve.h"
#include "guest/libcuda/state/state.h"
#include "guest/libcuda/wire/wire-calls.h"
#include "guest/libvgpu/session.h"

#define KEY_BYTES 16u

/* Waiting for another process: at once at first, then in naps of an eighth of the time waited. */
#define SPIN_NS (50 * NS_PER_US)
#define NAP_PART 8u
#define NAP_MAX_NS NS_PER_MS

static pthread_mutex_t opening = PTHREAD_MUTEX_INITIALIZER; /* of what is open, here and there */
/*
 * From when a record is announced until it is posted, and from when a wait has asked until it is:
 * else a wait could be posted before the record that it is for, to the same stream.
 */
static pthread_mutex_t posting = PTHREAD_MUTEX_INITIALIZER;

/* Memory -------------------------------------------------------------------------------------- */

/* An address within an allocation stands for all of it, as CUDA has it. */
CUresult guest_cuIpcGetMemHandle(CUipcMemHandle *handle, CUdeviceptr address)
{
    CUipcMemHandle made = {{0}};
    struct memory area;
    CUresult r;

    if (!memory_find(address, &area) || area.kind != MEMORY_DEVICE) {
        return CUDA_ERROR_INVALID_VALUE;
    }
    r = call_shared_memory_export((uint8_t *)made.reserved, area.address);
    if (r == CUDA_SUCCESS) {
        *handle = made;
    }
    return r;
}

/* With the mutex. */
static CUresult open_handle(CUdeviceptr *address, const CUipcMemHandle *handle)
{
    struct memory area;
    uint32_t left;
    size_t bytes = 0;
    CUresult r;

    r = call_shared_memory_import(address, &bytes, (const uint8_t *)handle->reserved);
    if (r != CUDA_SUCCESS || (memory_find(*address, &area) && area.kind == MEMORY_SHARED)) {
        return r;
    }
    /*
     * The host's driver has chosen the place, and would choose it again. Where the program has
     * something there it works all the same: addresses of device memory are looked up first.
     */
    (void)reserve_addresses(*address, bytes);
    if (!memory_add((struct memory){.address = *address,
                                    .bytes = bytes,
                                    .context = context_current(),
                                    .kind = MEMORY_SHARED})) {
        call_shared_memory_close(&left, *address);
        return CUDA_ERROR_OUT_OF_MEMORY;
    }
    return CUDA_SUCCESS;
}

CUresult ipc_open_memory(CUdeviceptr *address, const CUipcMemHandle *handle, unsigned flags)
{
    CUdeviceptr made = 0;
    CUresult r;

    if (flags != CU_IPC_MEM_LAZY_ENABLE_PEER_ACCESS) {
        return CUDA_ERROR_INVALID_VALUE;
    }
    r = capture_allows();
    if (r == CUDA_SUCCESS) {
        pthread_mutex_lock(&opening);
        r = open_handle(&made, handle);
        pthread_mutex_unlock(&opening);
    }
    if (r == CUDA_SUCCESS) {
        *address = made;
    }
    return r;
}

CUresult guest_cuIpcCloseMemHandle(CUdeviceptr address)
{
    struct memory area;
    uint32_t left = 0;
    CUresult r;

    if (!memory_find(address, &area) || area.kind != MEMORY_SHARED || area.address != address) {
        return CUDA_ERROR_INVALID_VALUE;
    }
    r = capture_allows();
    if (r != CUDA_SUCCESS) {
        return r;
    }
    /* Not with the mutex: what is waited for may be another process, and others open meanwhile. */
    r = result_of(vgpu_session_sync(cuda.session));
    pthread_mutex_lock(&opening);
    if (r == CUDA_SUCCESS) {
        r = call_shared_memory_close(&left, address);
    }
    if (r == CUDA_SUCCESS && left == 0) {
        memory_drop(address);
    }
    pthread_mutex_unlock(&opening);
    return r;
}

void ipc_close_all(uint64_t address)
{
    uint32_t left = 1;

    pthread_mutex_lock(&opening);
    while (left > 0 && call_shared_memory_close(&left, address) == CUDA_SUCCESS) {
    }
    pthread_mutex_unlock(&opening);
}

/* Events -------------------------------------------------------------------------------------- */

CUresult ipc_event_make(struct event *event)
{
    CUsharedEvent shared = NULL;
    CUresult r = call_shared_event_make(&shared);

    if (r == CUDA_SUCCESS) {
        r = event_share(event, (uint64_t)(uintptr_t)shared);
    }
    return r;
}

CUresult guest_cuIpcGetEventHandle(CUipcEventHandle *handle, CUevent event)
{
    CUipcEventHandle made = {{0}};
    uint64_t known;
    CUresult r;

    if (!event) {
        return CUDA_ERROR_INVALID_VALUE; /* unlike in other calls */
    }
    r = event_find(event, &known);
    if (r == CUDA_SUCCESS && !event_shared(known)) {
        r = CUDA_ERROR_INVALID_HANDLE;
    }
    if (r == CUDA_SUCCESS) {
        r = call_shared_event_export((uint8_t *)made.reserved, event_shared(known));
    }
    if (r == CUDA_SUCCESS) {
        *handle = made;
    }
    return r;
}

CUresult ipc_open_event(CUevent *event, const CUipcEventHandle *handle)
{
    CUsharedEvent shared = NULL;
    struct event *made;
    CUresult r = call_shared_event_import(&shared, (const uint8_t *)handle->reserved);

    /* NVIDIA's driver finds that there is nothing to map by such a handle. */
    if (r != CUDA_SUCCESS) {
        return r == CUDA_ERROR_INVALID_VALUE ? CUDA_ERROR_MAP_FAILED : r;
    }
    made = event_make(CU_EVENT_DISABLE_TIMING, &r);
    if (!made) {
        return r;
    }
    r = event_share(made, (uint64_t)(uintptr_t)shared);
    if (r == CUDA_SUCCESS) {
        *event = (CUevent)(uintptr_t)made->object.handle;
    } else {
        event_end(made);
    }
    return r;
}

/* Lets some time pass, of what has passed since. */
static void wait_a_little(uint64_t since_ns)
{
    const uint64_t waited = clock_ns() - since_ns;
    const uint64_t nap = waited / NAP_PART < NAP_MAX_NS ? waited / NAP_PART : NAP_MAX_NS;

    if (waited >= SPIN_NS) {
        nanosleep(&(struct timespec){.tv_nsec = (long)nap}, NULL);
    }
}

/*
 * It is announced before it is posted: whoever asks from now on, in any process, waits for this
 * record. NOT_READY: so many of them are on their way that this one has to wait for room.
 */
CUresult ipc_event_record(CUsharedEvent event, uint64_t stream)
{
    const uint64_t start = clock_ns();
    uint64_t number = 0;
    CUresult r;

    for (;;) {
        pthread_mutex_lock(&posting);
        r = call_shared_event_announce(&number, event);
        if (r == CUDA_SUCCESS) {
            r = call_shared_event_record(stream, event, number);
        }
        pthread_mutex_unlock(&posting);
        if (r != CUDA_ERROR_NOT_READY) {
            return r;
        }
        wait_a_little(start);
    }
}

CUresult ipc_event_wait(CUsharedEvent event, uint64_t stream)
{
    uint64_t number = 0;
    uint32_t passed = 0;
    CUresult r;

    pthread_mutex_lock(&posting);
    r = call_shared_event_number(&number, &passed, event);
    if (r == CUDA_SUCCESS && !passed) {
        r = call_shared_event_wait(stream, event, number);
    }
    pthread_mutex_unlock(&posting);
    return r;
}

CUresult ipc_event_query(CUsharedEvent event)
{
    uint64_t number = 0;
    uint32_t passed = 0;
    const CUresult r = call_shared_event_number(&number, &passed, event);

    return r == CUDA_SUCCESS && !passed ? CUDA_ERROR_NOT_READY : r;
}

/* Whoever recorded it may be another process, so there is nothing of this one's to wait for. */
CUresult ipc_event_synchronize(CUsharedEvent event)
{
    const uint64_t start = clock_ns();
    uint64_t number = 0;
    uint32_t passed = 0;
    CUresult r = call_shared_event_number(&number, &passed, event);

    if (r != CUDA_SUCCESS || passed) {
        return r;
    }
    while ((r = call_shared_event_query(event, number)) == CUDA_ERROR_NOT_READY) {
        wait_a_little(start);
    }
    return r;
}
