/* SPDX-License-Identifier: MIT */
/*
 * The state of the library in a process, and what each exported function begins with.
 *
 * A process has one session, which cuInit() opens, and so one context on the host. There is one
 * device. An error that loses the context is the process's for good: `lost`.
 */
#ifndef VGPU_GUEST_LIBCUDA_ENTRY_H
#define VGPU_GUEST_LIBCUDA_ENTRY_H

#include <pthread.h>
#include <stdbool.h>
#include <stdint.h>

#include "guest/libcuda/calls.h"

#define EXPORTED __attribute__((visibility("default")))

/* Attributes that are asked for at once when the session is opened; CUDA 13.0 has 147. */
#define ATTRIBUTES 160u

enum cuda_life {
    CUDA_NOT_YET, /* before cuInit() */
    CUDA_RUNNING,
    CUDA_FORKED, /* the child of a process that had called it */
    CUDA_ENDED,  /* the process ends, or the library is unloaded */
};

struct cuda {
    uint32_t life; /* enum cuda_life; what is below is valid while RUNNING */
    uint32_t lost; /* a CUresult that stays, or 0 */
    struct vgpu_session *session;
    uint32_t host_revision; /* of api/ */
    int driver_version;
    size_t total_memory; /* bytes */
    char name[64];
    CUuuid uuid;
    char pci_bus_id[16];
    int attributes[ATTRIBUTES]; /* INT_MIN: the driver does not know it */
};

extern struct cuda cuda;

/* SUCCESS when the library is initialised, and when there is a current context besides. */
CUresult enter_init(void);
CUresult enter_context(void);

/* The CUresult for a result of libvgpu's; notes what loses the context. */
CUresult result_of(int result);

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

/* What cuGetProcAddress() looks through; ascending names, then versions. */
struct entry {
    const char *name; /* without _vN */
    int version;      /* of CUDA, from which this is the one */
    int own_version;  /* the same for the variant with the thread's own default stream; 0: none */
    void *function, *own;
};

extern const struct entry entries[];
extern const unsigned entry_count;

/* The default stream's variant of a stream: 0 is the thread's own. */
static inline CUstream own_stream(CUstream stream)
{
    return stream ? stream : CU_STREAM_PER_THREAD;
}

#endif
