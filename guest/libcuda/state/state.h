/* SPDX-License-Identifier: MIT */
/*
 * The state of the library in a process.
 *
 * A process has one session, and so one context on the host. The session is opened by cuInit(), or
 * when NVIDIA's runtime library asks for the driver's private tables. There is one device. An error
 * that loses the context is the process's for good: `lost`.
 *
 * The library is built in layers, and each uses only those below it:
 *
 *   exports/  the functions that programs call, generated; finding them by name
 *   calls/    what is written by hand of each: its arguments are checked here
 *   model/    what things are: contexts, memory, streams, graphs and what may be done with them
 *   wire/     calls and bytes on their way to the host
 *   state/    this file; tables of handles; reserved addresses
 *
 * Locks are taken in this order, and none twice. Whoever holds one may take those behind it:
 *
 *   life_mutex (calls/library.c)              begin and end of the session
 *   life, then mutex (calls/context.c)        begin and end of the primary context; what it is
 *   exec (model/exec.h)                       an executable graph
 *   stream_add_callback()'s (model/stream.c)  a stream's thread for callbacks begins
 *   gates, callbacks (model/)                 functions of the program's that wait to be called
 *   opening, posting (calls/ipc.c)            what other processes have exported
 *   mapping (calls/mapping.c)                 addresses and what is mapped there
 *   mempool (model/mempool.c)                 pools and their blocks
 *   capture (model/capture.c)                 captures and their streams
 *   module (model/module.c)                   functions and their attributes
 *   upload (wire/upload.c)                    the one image that is on its way to the host
 *   user objects (model/user-object.c)        their counts
 *   graph memory (model/graph-memory.c)       who has what graphs allocate
 *   model/context.c, model/memory.c, model/event.c, model/storage.c, state/reserve.c,
 *   state/object.c, state/local.c             tables; nothing is called with one of these held
 */
#ifndef VGPU_GUEST_LIBCUDA_STATE_STATE_H
#define VGPU_GUEST_LIBCUDA_STATE_STATE_H

#include <stdbool.h>
#include <stdint.h>

#include "api/cuda-types.h"
#include "guest/libvgpu/vgpu.h"

/* Attributes that are asked for at once when the session is opened; CUDA 13.0 has 147. */
#define ATTRIBUTES 160u

enum cuda_life {
    CUDA_NOT_YET, /* before cuInit(); there may be a session */
    CUDA_RUNNING,
    CUDA_FORKED, /* the child of a process that had called it */
    CUDA_ENDED,  /* the process ends, or the library is unloaded */
};

struct cuda {
    uint32_t life; /* enum cuda_life; what is below is valid while there is a session */
    uint32_t lost; /* a CUresult that stays, or 0 */
    struct vgpu_session *session;
    uint32_t host_revision; /* of api/ */
    bool launch_blocking;   /* CUDA_LAUNCH_BLOCKING: kernels are waited for */
    int driver_version;
    size_t total_memory; /* bytes */
    char name[64];
    CUuuid uuid;
    char pci_bus_id[16];
    int attributes[ATTRIBUTES]; /* INT_MIN: the driver does not know it */
};

extern struct cuda cuda;

/* SUCCESS when the library is initialised; what CUDA says otherwise. */
CUresult enter_init(void);

/*
 * SUCCESS when there is a session of this process's, which may be before cuInit(): NVIDIA's runtime
 * library asks for the driver's private tables first.
 */
CUresult enter_session(void);

/* An error of CUDA's. */
struct cuda_error {
    const char *name, *text;
    CUresult error;
    bool sticky; /* the context is good for nothing afterwards */
};

/* NULL when there is no such error. */
const struct cuda_error *find_error(CUresult error);

/*
 * The CUresult for a result of libvgpu's; notes what loses the context. Success is told here: that
 * is what nearly every call has, and each of them asks.
 */
CUresult error_of(int result);
static inline CUresult result_of(int result)
{
    return result == VGPU_OK ? CUDA_SUCCESS : error_of(result);
}

/* From now on the library is not unloaded: threads will come back to its code. */
void library_stays(void);

/*
 * Starts a thread that nobody waits for, and with which the library stays. It is none of the
 * program's: it leaves the signals to those. OPERATING_SYSTEM.
 */
CUresult library_thread(void *(*run)(void *argument), void *argument);

/* Says once that a call is not served; `said` is the caller's. */
CUresult refuse(const char *name, int *said);

/* A call that was found not to be served for these arguments. */
#define REFUSE(what)                                                                               \
    ({                                                                                             \
        static int said_;                                                                          \
        refuse(what, &said_);                                                                      \
    })

#endif
