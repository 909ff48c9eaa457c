/* SPDX-License-Identifier: MIT */
/*
 * Options of the compiler and the linker, see jit-options.h.
 *
 * Numbers go to the host. What is a pointer stays here: the host writes logs and times into its
 * answer, and they are copied to where the program wants them.
 */
#include "guest/libcuda/model/jit-options.h"

#include <string.h>

#include "guest/libcuda/state/state.h"

#define LOG_MAX (256u << 10) /* bytes of each */

/*
 * What a program has as the size of a log, cut to LOG_MAX: both logs have to fit into one answer,
 * of at most VGPU_REPLY_MAX bytes.
 */
static unsigned log_bytes(const void *value)
{
    const uint32_t bytes = (uint32_t)(uintptr_t)value;

    return bytes < LOG_MAX ? bytes : LOG_MAX;
}

static CUresult sort_option(struct jit_options *o, CUjit_option option, void **value)
{
    switch (option) {
    case CU_JIT_WALL_TIME:
        o->wall_time = value;
        return CUDA_SUCCESS;
    case CU_JIT_INFO_LOG_BUFFER:
        o->info = *value;
        return CUDA_SUCCESS;
    case CU_JIT_INFO_LOG_BUFFER_SIZE_BYTES:
        o->info_used = value;
        o->info_bytes = log_bytes(*value);
        return CUDA_SUCCESS;
    case CU_JIT_ERROR_LOG_BUFFER:
        o->error = *value;
        return CUDA_SUCCESS;
    case CU_JIT_ERROR_LOG_BUFFER_SIZE_BYTES:
        o->error_used = value;
        o->error_bytes = log_bytes(*value);
        return CUDA_SUCCESS;
    case CU_JIT_GLOBAL_SYMBOL_NAMES:
    case CU_JIT_GLOBAL_SYMBOL_ADDRESSES:
    case CU_JIT_REFERENCED_KERNEL_NAMES:
    case CU_JIT_REFERENCED_VARIABLE_NAMES:
        return REFUSE("an option of the compiler that names symbols");
    default:
        if ((unsigned)option >= CU_JIT_NUM_OPTIONS || o->count == JIT_OPTIONS_MAX) {
            return CUDA_ERROR_INVALID_VALUE;
        }
        o->plain[o->count] = option;
        o->values[o->count++] = (uint64_t)(uintptr_t)*value;
        return CUDA_SUCCESS;
    }
}

CUresult jit_options_sort(const struct image_options *given, struct jit_options *o)
{
    CUresult r = CUDA_SUCCESS;

    *o = (struct jit_options){.count = 0};
    if (!image_options_complete(given)) {
        return CUDA_ERROR_INVALID_VALUE;
    }
    for (unsigned i = 0; r == CUDA_SUCCESS && given && i < given->count; i++) {
        r = sort_option(o, given->options[i], &given->values[i]);
    }
    /*
     * A size without a buffer: nothing is wanted then. Sizes may come before buffers, so this is
     * last.
     */
    o->info_bytes = o->info ? o->info_bytes : 0;
    o->error_bytes = o->error ? o->error_bytes : 0;
    return r;
}

/*
 * As CUDA does it: the time, in milliseconds, is a float in the first bytes of the option's value,
 * a log's size a number in it.
 */
void jit_options_give_back(const struct jit_options *o, float wall_time, uint32_t info,
                           uint32_t error)
{
    if (o->wall_time) {
        memcpy(o->wall_time, &wall_time, sizeof(wall_time));
    }
    if (o->info_used) {
        *o->info_used = (void *)(uintptr_t)info;
    }
    if (o->error_used) {
        *o->error_used = (void *)(uintptr_t)error;
    }
}
