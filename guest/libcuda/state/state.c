/* SPDX-License-Identifier: MIT */
/*
 * The state of the library in a process, see state.h.
 *
 * Nearly all calls of CUDA's begin with enter_init(), so that is one load: what cuInit() stored
 * before it said RUNNING is seen by whoever reads RUNNING.
 */
#include "guest/libcuda/state/state.h"

#include <dlfcn.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>

#include "common/shared.h"
#include "guest/libvgpu/session.h"

struct cuda cuda;

/*
 * The child of fork() is as one that has never called cuInit(), as with CUDA: no call works there.
 */
CUresult enter_init(void)
{
    switch (shared_load_acquire(&cuda.life)) {
    case CUDA_RUNNING:
        return CUDA_SUCCESS;
    case CUDA_ENDED:
        return CUDA_ERROR_DEINITIALIZED;
    default:
        return CUDA_ERROR_NOT_INITIALIZED;
    }
}

CUresult enter_session(void)
{
    return shared_load_acquire(&cuda.life) == CUDA_NOT_YET && cuda.session ? CUDA_SUCCESS
                                                                           : enter_init();
}

/*
 * From api/errors.api, with CUDA's numbers. A list that is searched from the front does: it is only
 * looked at when something failed.
 */
static const struct cuda_error errors[] = {
#define ERROR(value, name, text, sticky)                                                           \
    {(value) == 0 ? "CUDA_SUCCESS" : "CUDA_ERROR_" #name, text, VGPU_GPU_##name, sticky},
    VGPU_GPU_ERRORS(ERROR)
#undef ERROR
};

const struct cuda_error *find_error(CUresult error)
{
    for (unsigned i = 0; i < sizeof(errors) / sizeof(errors[0]); i++) {
        if (errors[i].error == error) {
            return &errors[i];
        }
    }
    return NULL;
}

static bool is_sticky(CUresult error)
{
    const struct cuda_error *known = find_error(error);

    return known && known->sticky;
}

/*
 * How the end of a session looks to a program: as the error of CUDA's that comes nearest. A worker
 * that was killed for a kernel that took too long is what CUDA calls a launch timeout.
 */
static CUresult library_ended(void)
{
    switch (vgpu_session_end(cuda.session)) {
    case VGPU_QUEUE_END_TIMEOUT:
        return CUDA_ERROR_LAUNCH_TIMEOUT;
    case VGPU_QUEUE_END_NO_MEMORY:
        return CUDA_ERROR_OUT_OF_MEMORY;
    default:
        return CUDA_ERROR_DEVICE_UNAVAILABLE;
    }
}

/*
 * Results of libvgpu above 0 are CUDA's numbers already, those below 0 its own. VGPU_SYSTEM is a
 * failed system call, nearly always for lack of memory.
 *
 * A sticky error is noted once, the first one, and a line is written for the user: the program's
 * own message will only have CUDA's text, which says nothing of a VM.
 */
CUresult error_of(int result)
{
    CUresult error = (CUresult)result;

    if (result == VGPU_ENDED) {
        error = library_ended();
    } else if (result == VGPU_BAD_ARGUMENT) {
        error = CUDA_ERROR_INVALID_VALUE;
    } else if (result == VGPU_SYSTEM) {
        error = CUDA_ERROR_OUT_OF_MEMORY;
    } else if (result < 0) {
        error = CUDA_ERROR_UNKNOWN;
    }
    /* Two threads may both get here and write the line twice; that does no harm. */
    if (is_sticky(error) && shared_load(&cuda.lost) == CUDA_SUCCESS) {
        shared_store(&cuda.lost, error);
        /* Not at the process's own end, which threads in a call see too. */
        if (result == VGPU_ENDED && enter_init() == CUDA_SUCCESS) {
            fprintf(stderr, "libcuda (vGPU): %s\n", vgpu_last_message());
        } else if (error == CUDA_ERROR_LAUNCH_TIMEOUT) {
            fputs("libcuda (vGPU): the session has ended (TIMEOUT): a kernel took longer than the "
                  "VM's max-kernel, or kept others waiting for longer than turn-limit\n",
                  stderr);
        }
    }
    return error;
}

/*
 * dlopen() of the library itself with NODELETE: dlclose() by the program then leaves it mapped.
 * There is no other way to ask for that at run time. Where it fails nothing is lost but this.
 */
void library_stays(void)
{
    Dl_info own;

    if (dladdr(&cuda, &own) != 0) {
        dlopen(own.dli_fname, RTLD_NOW | RTLD_NOLOAD | RTLD_NODELETE);
    }
}

CUresult library_thread(void *(*run)(void *argument), void *argument)
{
    pthread_attr_t attributes;
    sigset_t all, before;
    pthread_t thread;
    int r;

    library_stays();
    /*
     * A thread begins with the mask of the one that starts it. A signal of the program's could be
     * delivered to any thread that lets it in, and its handler would run on a thread that the
     * program does not know.
     */
    sigfillset(&all);
    pthread_attr_init(&attributes);
    pthread_attr_setdetachstate(&attributes, PTHREAD_CREATE_DETACHED);
    pthread_sigmask(SIG_SETMASK, &all, &before);
    r = pthread_create(&thread, &attributes, run, argument);
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    pthread_attr_destroy(&attributes);
    return r == 0 ? CUDA_SUCCESS : CUDA_ERROR_OPERATING_SYSTEM;
}

/*
 * Once for each place, since programs try such calls again and again. The line tells the user why
 * the program goes another way, or gives up.
 */
CUresult refuse(const char *name, int *said)
{
    if (__atomic_exchange_n(said, 1, __ATOMIC_RELAXED) == 0) {
        fprintf(stderr, "libcuda (vGPU): %s is not served: CUDA_ERROR_NOT_SUPPORTED\n", name);
    }
    return CUDA_ERROR_NOT_SUPPORTED;
}
