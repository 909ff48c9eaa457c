/* SPDX-License-Identifier: MIT */
/*
 * Options of the driver's compiler and linker as it wants them. Values are numbers as well as
 * pointers, and the driver writes results back to the same place.
 */
#ifndef VGPU_WORKER_BACKEND_CUDA_DRIVER_OPTIONS_H
#define VGPU_WORKER_BACKEND_CUDA_DRIVER_OPTIONS_H

#include "worker/gpu.h"

/* The most options that a guest may give, and those that are added here. */
#define JIT_OPTIONS_MAX 32u
#define JIT_OPTIONS_OWN 5u

struct jit_options {
    CUjit_option option[JIT_OPTIONS_MAX + JIT_OPTIONS_OWN];
    void *value[JIT_OPTIONS_MAX + JIT_OPTIONS_OWN];
    unsigned count;
    unsigned info, errors; /* where the driver says how much of each log is used; ~0: no log */
};

/*
 * What `compile` says, with the time and its logs: these are this process's memory. The guest's own
 * options have numbers for values alone, which options_are_plain() has seen to. INVALID_VALUE for
 * more than JIT_OPTIONS_MAX.
 */
CUresult jit_options_make(const struct gpu_compile *compile, struct jit_options *options);

/* After the driver's call: puts the time and how much of the logs is used into *compile. */
void jit_options_read(const struct jit_options *options, struct gpu_compile *compile);

#endif
