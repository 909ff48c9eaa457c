/* SPDX-License-Identifier: MIT */
/* NVIDIA's driver, loaded once, and what its users in this folder need. */
#ifndef VGPU_WORKER_BACKEND_CUDA_CUDA_DRIVER_H
#define VGPU_WORKER_BACKEND_CUDA_CUDA_DRIVER_H

#include <stdbool.h>
#include <stddef.h>

#include "worker/backend-cuda/cuda-api.h"
#include "worker/backend.h"

/* The driver's calls; valid after cuda_init(). */
extern struct cuda_api cu;

/* kernels.ptx, by scripts/embed. */
extern const char cuda_kernels_ptx[];

/*
 * Loads and initializes the driver. Returns 0 and the number of GPUs, at least 1, or -ENODEV with
 * the reason in `why`.
 */
int cuda_init(char *why, size_t why_size, int *count);

/*
 * Makes GPU number `device` this process's, its primary context this thread's, and fills in
 * *info. Returns 0 or -errno, logged.
 */
int cuda_open_device(int device, struct vgpu_device_info *info);

/* CUDA's name of an error. */
const char *cuda_error_name(CUresult error);

/* Turns a failed call into -errno; `what` names the call in the log. */
int cuda_failed(CUresult error, const char *what);

/* For functions that return 0 or -errno. */
#define CHECK(call, arguments)                                                                     \
    do {                                                                                           \
        const CUresult error_ = cu.call arguments;                                                 \
        if (error_ != CUDA_SUCCESS) {                                                              \
            return cuda_failed(error_, "cu" #call);                                                \
        }                                                                                          \
    } while (0)

/*
 * One of the driver's private tables of functions (common/driver-tables.h), whose first word is its
 * size in bytes. NULL where the driver has none of that id with so many words.
 */
const uintptr_t *cuda_find_table(const char *id, unsigned words);

#endif
