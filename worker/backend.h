/* SPDX-License-Identifier: MIT */
/*
 * What computes: the `cuda` backend, or the `cpu` backend where there is no GPU. Both
 * give the same results bit for bit.
 *
 * A backend runs one job at a time. backend_start() either finishes it at once or
 * leaves it running; then the event descriptor becomes readable and backend_finish()
 * tells how it ended. All calls come from one thread.
 */
#ifndef VGPU_WORKER_BACKEND_H
#define VGPU_WORKER_BACKEND_H

#include <stddef.h>
#include <stdint.h>

#include "protocol/vgpu-card.h"
#include "protocol/vgpu-request.h"

enum backend_kind {
    BACKEND_AUTO, /* cuda where it works, else cpu */
    BACKEND_CPU,
    BACKEND_CUDA,
};

/* sum[i] = a[i] + b[i]. The sum may be a or b itself; no other overlap. */
struct backend_job {
    enum vgpu_type type;
    uint64_t count; /* elements, at least 1 */
    const void *a;  /* host memory, aligned to 4 bytes */
    const void *b;
    void *sum;
    int in_shm; /* the vectors lie in the memory given to backend_open() */
};

struct backend_ops;

/* The head of every backend's own structure. */
struct backend {
    const struct backend_ops *ops;
    int event_fd;                 /* readable when a running job has ended; level-triggered */
    struct vgpu_device_info info; /* filled in by open */
};

struct backend_ops {
    int (*start)(struct backend *backend, const struct backend_job *job);
    int (*finish)(struct backend *backend);
    void (*close)(struct backend *backend);
};

/*
 * Opens a backend on device number `device` for vectors in [shm, shm + size). When this
 * fails, or when AUTO falls back to the CPU, `why` says in one line why there is no GPU;
 * it is empty otherwise. Returns 0 or -errno: -ENODEV without a driver or device.
 */
int backend_open(enum backend_kind kind, int device, void *shm, uint64_t size,
                 struct backend **backend, char *why, size_t why_size);

/* The number of GPUs, 0 with a reason in `why` when there is none. Loads the driver. */
int backend_count_gpus(char *why, size_t why_size);

/* What a program sees of the CPU where it is what computes; `facts` is zero before. */
void cpu_backend_facts(struct vgpu_gpu_facts *facts);

/* The name of GPU number `device`, NUL-terminated; returns 0 or -errno. */
int backend_gpu_name(int device, char *name, size_t size);

/*
 * Starts a job. Returns 0 when it is finished, -EINPROGRESS when it runs on, -ENOMEM when
 * the device lacks memory, -EIO when the device failed. After -EIO the backend is unusable.
 */
static inline int backend_start(struct backend *backend, const struct backend_job *job)
{
    return backend->ops->start(backend, job);
}

/* After the event: 0, -EINPROGRESS when the event was early, or an error as above. */
static inline int backend_finish(struct backend *backend)
{
    return backend->ops->finish(backend);
}

static inline void backend_close(struct backend *backend)
{
    backend->ops->close(backend);
}

#define CPU_NAME "CPU" /* where it computes */

/* The two implementations; `why` as for backend_open(). */
int cpu_backend_open(struct backend **backend, char *why, size_t why_size);
int cuda_backend_open(int device, void *shm, uint64_t size, struct backend **backend, char *why,
                      size_t why_size);

#endif
