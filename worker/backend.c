/* SPDX-License-Identifier: MIT */
/*
 * The choice between backends, for register mode and for sessions: `auto` takes the CPU only where
 * there is no driver or no device. The mediator asks for `cuda` outright where its probe has found
 * a GPU, so that one which fails later does not turn into a slow session that says nothing.
 */
#include "worker/backend.h"

#include <errno.h>

#include "worker/gpu.h"

int backend_open(enum backend_kind kind, int device, void *shm, uint64_t size,
                 struct backend **backend, char *why, size_t why_size)
{
    int r;

    why[0] = '\0';
    if (kind != BACKEND_CPU) {
        r = cuda_backend_open(device, shm, size, backend, why, why_size);
        /* A GPU that is there but fails is an error, not a reason to compute elsewhere. */
        if (r != -ENODEV || kind == BACKEND_CUDA) {
            return r;
        }
    }
    return cpu_backend_open(backend, why, why_size);
}

int gpu_open(enum backend_kind kind, int device, const struct gpu_arena *arena, struct gpu **gpu,
             char *why, size_t why_size)
{
    int r;

    why[0] = '\0';
    if (kind != BACKEND_CPU) {
        r = cuda_gpu_open(device, arena, gpu, why, why_size);
        /* As in backend_open(). */
        if (r != -ENODEV || kind == BACKEND_CUDA) {
            return r;
        }
    }
    return cpu_gpu_open(arena, CPU_GPU_MEMORY, gpu);
}
