/* SPDX-License-Identifier: MIT */
/*
 * How the library begins and ends, and what it says of itself.
 *
 * cuInit() opens the session, in a guest by the PCI device, and with VGPU_HOST by the mediator's
 * socket on the host itself. It may be called again and by several threads. A failed one leaves the
 * library as it was, so a later one may succeed, when the mediator has been started say. Where
 * NVIDIA's runtime library asks for private tables before, the session is opened for these.
 *
 * A session that serves ends with the process, or when the library is unloaded: then no descriptor
 * and no mapping stays, but of the heap what belongs to objects that the program has not destroyed,
 * and a few bytes besides, see unload.c. A child of fork() cannot use the session of its parent.
 * After cuInit() calls there answer NOT_INITIALIZED, as with CUDA; before, it opens one of its own.
 */

#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "common/shared.h"
#include "guest/libcuda/calls/guest-calls.h"
#include "guest/libcuda/calls/tables.h"
#include "guest/libcuda/model/device.h"
#include "guest/libcuda/model/memory.h"
#include "guest/libcuda/model/visible.h"
#include "guest/libcuda/state/object.h"
#include "guest/libcuda/state/place.h"
#include "guest/libcuda/state/reserve.h"
#include "guest/libcuda/state/state.h"
#include "guest/libcuda/state/unload.h"
#include "guest/libcuda/wire/wire-calls.h"
#include "guest/libvgpu/environment.h"
#include "guest/libvgpu/session.h"

/* By this the host's side tells that it has found this library in place of NVIDIA's. */
extern const int vgpu_cuda;
const int vgpu_cuda = 1;

/* Workers that are tried for one whose driver lies where this process has nothing. */
#define PLACE_ATTEMPTS 5
#define PLACE_PAUSE_NS 50000000

/*
 * Held while the session is opened, which may take a fraction of a second: the others wait for it.
 */
static pthread_mutex_t life_mutex = PTHREAD_MUTEX_INITIALIZER;

/*
 * On the host the process has all the shared memory to itself, and takes half of it. In a guest
 * others may come, and 0 lets libvgpu take its share of the free part. VGPU_ARENA_MIB says how many
 * MiB instead.
 */
static int open_session(const struct environment *environment)
{
    const uint64_t half = environment->on_host ? environment->host.shm_size / 2 : 0;
    const struct vgpu_session_options options = {
        .address = environment->address,
        .host = environment->on_host ? &environment->host : NULL,
        .arena_size = environment->arena_size != 0 ? environment->arena_size : half,
    };

    return vgpu_session_open(&options, &cuda.session);
}

/*
 * Asks for all that does not change, in three calls instead of one for each question of the
 * program's. Revision 1 is assumed for the first call itself: without that it would not be sent.
 * Texts are the host's, so they are ended here.
 */
static CUresult say_hello(void)
{
    CUresult r;

    cuda.host_revision = 1;
    r = call_hello(API_REVISION, &cuda.host_revision, &cuda.driver_version, &cuda.total_memory,
                   cuda.name);
    cuda.name[sizeof(cuda.name) - 1] = '\0';
    if (r == CUDA_SUCCESS) {
        r = call_device_identity(&cuda.uuid, cuda.pci_bus_id);
        cuda.pci_bus_id[sizeof(cuda.pci_bus_id) - 1] = '\0';
    }
    return r == CUDA_SUCCESS ? call_device_attributes(cuda.attributes, ATTRIBUTES) : r;
}

/*
 * The reason why an open failed, which the program's own message will not have. Only where somebody
 * has set something up for this library: a program that tries CUDA and goes on without it has to
 * stay quiet.
 */
static void say_no_device(const char *why)
{
    if (getenv("VGPU_HOST") || getenv("VGPU_ADDRESS") || getenv("VGPU_VERBOSE")) {
        fprintf(stderr, "libcuda (vGPU): no device: %s\n", why);
    }
}

/* Runs in the child, in its one thread, so no lock is needed. Locks may be held for ever there. */
static void child_of_fork(void)
{
    if (cuda.life == CUDA_RUNNING) {
        cuda.life = CUDA_FORKED;
    } else {
        /* As if nothing had been asked for: it may open a session of its own. */
        cuda.session = NULL;
        cuda.host_revision = 0;
    }
}

static void close_session(void)
{
    vgpu_session_close(cuda.session);
    cuda.session = NULL;
    cuda.host_revision = 0;
}

/*
 * Puts the tables for NVIDIA's runtime library where the host's driver has its own. A host without
 * that driver has none, and all is well.
 */
static enum placed place_tables(void)
{
    uint64_t runtime, test, function;
    const CUresult r = call_runtime_tables(&runtime, &test, &function);

    return r == CUDA_SUCCESS ? tables_place(runtime, test, function) : PLACE_DONE;
}

/* Returns NULL, or why there is no device. */
static const char *open_and_ask(const struct environment *environment)
{
    if (open_session(environment) != VGPU_OK) {
        return vgpu_last_message();
    }
    if (say_hello() != CUDA_SUCCESS) {
        close_session();
        return "the host's mediator is older than this library and does not know CUDA calls";
    }
    return NULL;
}

/*
 * Where the driver's addresses are not free here, another worker is tried: each has the driver at
 * addresses of its own. The one before may not have ended yet, and count against the VM's sessions.
 * The last one is kept in any case, for the sake of programs that do not ask for these tables.
 * Returns NULL, or why there is no device.
 */
static const char *try_session(const struct environment *environment)
{
    const char *why = open_and_ask(environment);

    if (why) {
        return why;
    }
    for (int attempt = 1; attempt < PLACE_ATTEMPTS; attempt++) {
        if (why) {
            nanosleep(&(struct timespec){.tv_nsec = PLACE_PAUSE_NS}, NULL);
        } else if (place_tables() == PLACE_TAKEN) {
            close_session();
        } else {
            return NULL;
        }
        why = open_and_ask(environment);
    }
    if (!why) {
        place_tables();
    }
    return why;
}

/* Whether CUDA_VISIBLE_DEVICES has the device, whose UUID is known by now. */
static CUresult check_visible(const char *list)
{
    int chosen, found = list ? visible_choose(list, &cuda.uuid, 1, &chosen) : 1;

    return found > 0 ? CUDA_SUCCESS : found == 0 ? CUDA_ERROR_NO_DEVICE : CUDA_ERROR_INVALID_DEVICE;
}

/*
 * Opens the session, where that has not been done; with life_mutex. For a list that names no device
 * no worker is started: that is how programs are kept from the GPU. *why is the reason of a
 * failure, or NULL where the user has wanted it so.
 */
static CUresult begin_session(const char **why)
{
    const char *list = getenv("CUDA_VISIBLE_DEVICES");
    struct environment environment;
    CUresult r;

    *why = NULL;
    if (cuda.session) {
        return CUDA_SUCCESS;
    }
    if (!visible_any(list)) {
        return CUDA_ERROR_NO_DEVICE;
    }
    *why = environment_read(&environment);
    if (!*why) {
        *why = try_session(&environment);
    }
    if (*why) {
        return CUDA_ERROR_NO_DEVICE;
    }
    r = check_visible(list);
    if (r != CUDA_SUCCESS) {
        close_session();
        return r;
    }
    pthread_atfork(NULL, NULL, child_of_fork);
    unload_watch();
    return CUDA_SUCCESS;
}

static CUresult begin_library(void)
{
    const char *why, *blocking = getenv("CUDA_LAUNCH_BLOCKING");
    const CUresult r = begin_session(&why);

    if (r != CUDA_SUCCESS) {
        if (why) {
            say_no_device(why);
        }
        return r;
    }
    device_tell_truth();
    cuda.launch_blocking = blocking && atoi(blocking) != 0;
    /* Last: a thread that reads RUNNING reads all else that was stored before, see enter_init(). */
    shared_store_release(&cuda.life, CUDA_RUNNING);
    return CUDA_SUCCESS;
}

CUresult guest_cuInit(unsigned int flags)
{
    CUresult r = CUDA_SUCCESS;

    if (flags != 0) {
        return CUDA_ERROR_INVALID_VALUE;
    }
    pthread_mutex_lock(&life_mutex);
    if (cuda.life == CUDA_NOT_YET) {
        r = begin_library();
    } else {
        r = enter_init();
    }
    pthread_mutex_unlock(&life_mutex);
    return r;
}

/*
 * NVIDIA's runtime library asks for tables before it calls cuInit(). Two of them lie where the
 * host's driver has them, so the session is opened now. Without a device they are handed out all
 * the same: cuInit() is where the library finds that out. It keeps what it gets, so this library
 * stays loaded from then on.
 */
CUresult guest_cuGetExportTable(const void **table, const CUuuid *id)
{
    static bool failed; /* once: cuInit() tries again, and says why */
    const char *why;

    pthread_mutex_lock(&life_mutex);
    if (cuda.life == CUDA_NOT_YET && !failed) {
        failed = begin_session(&why) != CUDA_SUCCESS;
    }
    *table = tables_find(id);
    pthread_mutex_unlock(&life_mutex);
    if (*table) {
        library_stays();
    }
    return *table ? CUDA_SUCCESS : CUDA_ERROR_INVALID_VALUE;
}

/*
 * At exit, and when the library is unloaded. At exit, threads that are still in a call find it
 * ended: nothing that they may use is freed. The mediator ends the worker, and the driver frees
 * what the session had. Without a lock, since such a thread might hold it; but a session of which
 * cuInit() has not heard yet is left alone where another thread is about to open or close it.
 */
__attribute__((destructor)) static void end_session(void)
{
    const uint32_t life = shared_load_acquire(&cuda.life);

    if (life == CUDA_RUNNING ||
        (life == CUDA_NOT_YET && pthread_mutex_trylock(&life_mutex) == 0 && cuda.session)) {
        /* What kernels have printed and nothing was asked since: where others are at it, not. */
        if (session_prints(cuda.session)) {
            session_show(cuda.session, false);
        }
        shared_store_release(&cuda.life, CUDA_ENDED);
        if (unload_under_way()) {
            close_session();
            objects_end();
            memory_end();
            places_end();
        } else {
            session_hang_up(cuda.session);
        }
        reservations_end();
    }
}

/*
 * 1000 times the major and 10 times the minor number; allowed before cuInit(). No newer than this
 * library, whose functions it stands for, and no newer than the host's driver, which has to do the
 * work.
 */
CUresult guest_cuDriverGetVersion(int *version)
{
    *version = CUDA_VERSION;
    if (enter_session() == CUDA_SUCCESS && cuda.driver_version != 0 &&
        cuda.driver_version < CUDA_VERSION) {
        *version = cuda.driver_version;
    }
    return CUDA_SUCCESS;
}

CUresult guest_cuGetErrorName(CUresult error, const char **name)
{
    const struct cuda_error *known = find_error(error);

    *name = known ? known->name : NULL;
    return known ? CUDA_SUCCESS : CUDA_ERROR_INVALID_VALUE;
}

CUresult guest_cuGetErrorString(CUresult error, const char **text)
{
    const struct cuda_error *known = find_error(error);

    *text = known ? known->text : NULL;
    return known ? CUDA_SUCCESS : CUDA_ERROR_INVALID_VALUE;
}
