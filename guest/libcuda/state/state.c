/* SPDX-License-Identifier: MIT */
/* The state of the library in a process, see state.h. */
#include "guest/libcuda/state/state.h"

#include <dlfcn.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>

#include "common/shared.h"
#include "guest/libvgpu/session.h"

struct cuda cuda;

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

static const struct cuda_error errors[] = {
#define ERROR(value, name, text, sticky)                                                           \
    {VGPU_GPU_##name, (value) == 0 ? "CUDA_SUCCESS" : "CUDA_ERROR_" #name, text, sticky},
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

/* What a session that is gone means to a program. */
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

CUresult result_of(int result)
{
    CUresult error = (CUresult)result;

    if (result == VGPU_OK) {
        return CUDA_SUCCESS;
    }
    if (result == VGPU_ENDED) {
        error = library_ended();
    } else if (result == VGPU_BAD_ARGUMENT) {
        error = CUDA_ERROR_INVALID_VALUE;
    } else if (result == VGPU_SYSTEM) {
        error = CUDA_ERROR_OUT_OF_MEMORY;
    } else if (result < 0) {
        error = CUDA_ERROR_UNKNOWN;
    }
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
    sigfillset(&all);
    pthread_attr_init(&attributes);
    pthread_attr_setdetachstate(&attributes, PTHREAD_CREATE_DETACHED);
    pthread_sigmask(SIG_SETMASK, &all, &before);
    r = pthread_create(&thread, &attributes, run, argument);
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    pthread_attr_destroy(&attributes);
    return r == 0 ? CUDA_SUCCESS : CUDA_ERROR_OPERATING_SYSTEM;
}

CUresult refuse(const char *name, int *said)
{
    if (__atomic_exchange_n(said, 1, __ATOMIC_RELAXED) == 0) {
        fprintf(stderr, "libcuda (vGPU): %s is not served: CUDA_ERROR_NOT_SUPPORTED\n", name);
    }
    return CUDA_ERROR_NOT_SUPPORTED;
}
