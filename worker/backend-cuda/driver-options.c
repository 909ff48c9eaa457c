/* SPDX-License-Identifier: MIT */
/* Options of the driver's compiler and linker, see driver-options.h. */
#include "worker/backend-cuda/driver-options.h"

#include <string.h>

static void add_option(struct jit_options *options, CUjit_option option, uint64_t value)
{
    options->option[options->count] = option;
    options->value[options->count++] = (void *)(uintptr_t)value;
}

/* Adds a log; returns where the driver will say how much of it there is, ~0 without one. */
static unsigned add_log(struct jit_options *options, CUjit_option buffer, CUjit_option size,
                        char *log, uint32_t bytes)
{
    if (bytes == 0) {
        return ~0u;
    }
    add_option(options, buffer, (uint64_t)(uintptr_t)log);
    add_option(options, size, bytes);
    return options->count - 1;
}

CUresult jit_options_make(const struct gpu_compile *compile, struct jit_options *options)
{
    if (compile->count > JIT_OPTIONS_MAX) {
        return CUDA_ERROR_INVALID_VALUE;
    }
    options->count = 0;
    add_option(options, CU_JIT_WALL_TIME, 0);
    options->info = add_log(options, CU_JIT_INFO_LOG_BUFFER, CU_JIT_INFO_LOG_BUFFER_SIZE_BYTES,
                            compile->info_log, compile->info_bytes);
    options->errors = add_log(options, CU_JIT_ERROR_LOG_BUFFER, CU_JIT_ERROR_LOG_BUFFER_SIZE_BYTES,
                              compile->error_log, compile->error_bytes);
    for (uint32_t i = 0; i < compile->count; i++) {
        add_option(options, compile->options[i], compile->values[i]);
    }
    return CUDA_SUCCESS;
}

static uint32_t value_of(const struct jit_options *options, unsigned index)
{
    return index == ~0u ? 0 : (uint32_t)(uintptr_t)options->value[index];
}

/* The time, in the first value, is a float in the lower half of what was a pointer's place. */
void jit_options_read(const struct jit_options *options, struct gpu_compile *compile)
{
    const uint32_t time = value_of(options, 0);

    memcpy(&compile->wall_time, &time, sizeof(time));
    compile->info_used = value_of(options, options->info);
    compile->error_used = value_of(options, options->errors);
}
