/* SPDX-License-Identifier: MIT */
/*
 * Options of the driver's compiler and linker. CUDA has numbers in the place of pointers in the
 * values, and writes results back to the same place.
 */
#ifndef VGPU_GUEST_LIBCUDA_MODEL_JIT_OPTIONS_H
#define VGPU_GUEST_LIBCUDA_MODEL_JIT_OPTIONS_H

#include <stdbool.h>
#include <stdint.h>

#include "api/cuda-types.h"

/*
 * The most options that go to the host. CUDA 13.0 has 35, of which 9 stay here or are refused: with
 * more than these, one would be there twice.
 */
#define JIT_OPTIONS_MAX 32u

/* As cuModuleLoadDataEx() has them; what they ask for is written there. */
struct image_options {
    const CUjit_option *options;
    void **values;
    unsigned count;
};

/* Whether there are as many options as are said; NULL are none. */
static inline bool image_options_complete(const struct image_options *options)
{
    return !options || options->count == 0 || (options->options && options->values);
}

/* Options as they go to the host, and where results are wanted. */
struct jit_options {
    CUjit_option plain[JIT_OPTIONS_MAX];
    uint64_t values[JIT_OPTIONS_MAX];
    unsigned count;
    char *info, *error; /* the program's buffers for logs, of so many bytes; NULL: none */
    unsigned info_bytes, error_bytes;
    void **wall_time, **info_used, **error_used; /* where the program wants them; NULL: not */
};

/*
 * Sorts what a program has given; NULL are no options. INVALID_VALUE, or NOT_SUPPORTED for one that
 * names symbols, which is said.
 */
CUresult jit_options_sort(const struct image_options *given, struct jit_options *o);

/* Tells the program how long it took, in ms, and how much of each log is used, in bytes. */
void jit_options_give_back(const struct jit_options *o, float wall_time, uint32_t info,
                           uint32_t error);

#endif
