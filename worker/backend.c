/* SPDX-License-Identifier: MIT */
/*
 * The choice between backends, for register mode and for sessions: `auto` takes the CPU only where
 * there is no driver or no device. The mediator asks for `cuda` outright where its probe has found
 * a GPU, so that one which fails later does not turn into a slow session that says nothing.
 */
#include "worker/backend.h"

#include <errno.h>
#include <stdio.h>
#include <sys/mman.h>
#include <time.h>

#include "common/clock.h"
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

/* Trying whether work can be taken off ------------------------------------------------------- */

#define TRIED_NS (5 * NS_PER_MS) /* that the kernel takes */
#define OFF_NS (25 * NS_PER_MS)  /* that it is off */
#define ENDS_NS (5 * NS_PER_S)   /* within which it has ended when it is on again */
#define ARENA_BYTES 65536u       /* which nothing uses */

/* Launches a kernel that spins. */
static enum vgpu_gpu_error launch_spin(struct gpu *gpu, struct gpu_stream *stream)
{
    const struct vgpu_cmd_launch shape = {.grid = {1, 1, 1}, .block = {1, 1, 1}};
    const uint64_t ns = TRIED_NS;
    const struct gpu_launch launch = {.shape = &shape, .params = &ns, .param_bytes = sizeof(ns)};
    struct vgpu_result_function info = {0};
    struct gpu_function *spin = NULL;
    struct gpu_module *module = NULL;
    enum vgpu_gpu_error error = gpu->ops->module_builtin(gpu, &module);

    if (error == VGPU_GPU_SUCCESS) {
        error = gpu->ops->function_get(gpu, module, "spin", &spin, &info);
    }
    return error == VGPU_GPU_SUCCESS ? gpu->ops->launch(gpu, spin, &launch, stream) : error;
}

/* Whether it has ended after so long. */
static bool ends_within(struct gpu *gpu, struct gpu_stream *stream, uint64_t ns)
{
    const struct timespec nap = {.tv_nsec = (long)NS_PER_MS};
    const uint64_t start = clock_ns();

    while (gpu->ops->stream_poll(gpu, stream) == VGPU_GPU_NOT_READY) {
        if (clock_ns() - start > ns) {
            return false;
        }
        nanosleep(&nap, NULL);
    }
    return true;
}

/* The same kernel is run first, so that loading it is none of the time. NULL: it works. */
static const char *try_off(struct gpu *gpu)
{
    struct gpu_stream *stream = NULL;
    const char *why = NULL;

    if (gpu->ops->stream_create(gpu, VGPU_STREAM_NON_BLOCKING, 0, &stream) != VGPU_GPU_SUCCESS ||
        launch_spin(gpu, stream) != VGPU_GPU_SUCCESS || !ends_within(gpu, stream, ENDS_NS) ||
        launch_spin(gpu, stream) != VGPU_GPU_SUCCESS) {
        return "no kernel to try it with";
    }
    if (!gpu->ops->set_off(gpu, true)) {
        return "the driver refuses it";
    }
    if (ends_within(gpu, stream, OFF_NS)) {
        why = "the driver accepts it, and the kernel goes on";
    }
    if (!gpu->ops->set_off(gpu, false) || !ends_within(gpu, stream, ENDS_NS)) {
        why = "the kernel does not go on afterwards";
    }
    return why;
}

bool gpu_try_off(enum backend_kind kind, char *why, size_t why_size)
{
    struct gpu_arena arena = {.size = ARENA_BYTES};
    struct gpu *gpu = NULL;
    const char *reason = "no device to try it with";

    why[0] = '\0';
    arena.address = mmap(NULL, arena.size, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1,
                         0);
    if (arena.address == MAP_FAILED) {
        snprintf(why, why_size, "no memory");
        return false;
    }
    if (gpu_open(kind, 0, &arena, &gpu, why, why_size) == 0) {
        reason = gpu->ops->set_off ? try_off(gpu) : "the backend cannot";
        gpu->ops->close(gpu);
    }
    if (reason && why[0] == '\0') {
        snprintf(why, why_size, "%s", reason);
    }
    return !reason;
}
