/* SPDX-License-Identifier: MIT */
/* Kernels on their way to the host: launched at once, or kept for a graph. */
#ifndef VGPU_GUEST_LIBCUDA_MODEL_KERNEL_H
#define VGPU_GUEST_LIBCUDA_MODEL_KERNEL_H

#include <stdint.h>

#include "api/cuda-types.h"

/* How a kernel is launched, whichever call did it. */
struct shape {
    unsigned grid[3], block[3];
    unsigned shared_bytes;
};

/* A launch as a call says it: nothing of it is the callee's. */
struct launch {
    CUfunction function;
    struct shape shape;
    void *const *params, *const *extra;
    const CUlaunchAttribute *attributes;
    unsigned attribute_count;
};

/* A launch to be done later: checked, with a copy of what it points to. */
struct kernel_work {
    CUfunction function;
    struct shape shape;
    CUlaunchAttribute *attributes;
    unsigned attribute_count;
    uint8_t *params;
    uint32_t param_bytes;
    void **param_list; /* into params, as programs ask for them */
};

/*
 * Launches a kernel in a stream. What CUDA says of a function or a shape at once is said here; the
 * rest by the next call that synchronises.
 */
CUresult launch_kernel(const struct launch *launch, uint64_t stream);

/* What is made is freed by kernel_free(). */
CUresult kernel_make(const struct launch *launch, struct kernel_work *work);
CUresult kernel_copy(const struct kernel_work *from, struct kernel_work *work);
void kernel_free(struct kernel_work *work);

#endif
