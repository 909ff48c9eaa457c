/* SPDX-License-Identifier: MIT */
/*
 * The driver's linker. It keeps the addresses of its options' values and of its logs for as long as
 * the state lives, so these are the state's own, and each answer gets a copy of the logs.
 */
#include <stdlib.h>
#include <string.h>

#include "worker/backend-cuda/cuda-driver.h"
#include "worker/backend-cuda/driver-options.h"
#include "worker/backend-cuda/raw.h"
#include "worker/module-image.h"

struct gpu_link {
    CUlinkState handle;
    struct jit_options options;
    struct gpu_compile logs; /* their buffers are malloc's */
};

static void free_logs(struct gpu_link *link)
{
    free(link->logs.info_log);
    free(link->logs.error_log);
    free(link);
}

/* With a byte more than the driver is told of, so that they end. */
static struct gpu_link *make_logs(const struct gpu_compile *compile)
{
    struct gpu_link *made = calloc(1, sizeof(*made));

    if (!made) {
        return NULL;
    }
    made->logs = *compile;
    made->logs.info_log = calloc(1, (size_t)compile->info_bytes + 1);
    made->logs.error_log = calloc(1, (size_t)compile->error_bytes + 1);
    if (!made->logs.info_log || !made->logs.error_log) {
        free_logs(made);
        return NULL;
    }
    return made;
}

enum vgpu_gpu_error cuda_link_create(struct gpu *gpu, const struct gpu_compile *compile,
                                     struct gpu_link **link)
{
    struct gpu_link *made;
    CUresult error;

    (void)gpu;
    if (cu.lacks[CUDA_LINKER]) {
        return VGPU_GPU_NOT_SUPPORTED;
    }
    made = make_logs(compile);
    if (!made) {
        return VGPU_GPU_OUT_OF_MEMORY;
    }
    error = jit_options_make(&made->logs, &made->options);
    if (error == CUDA_SUCCESS) {
        error = cu.LinkCreate(made->options.count, made->options.option, made->options.value,
                              &made->handle);
    }
    /* The guest's own are read, and gone after this call. */
    made->logs.options = NULL;
    made->logs.values = NULL;
    if (error != CUDA_SUCCESS) {
        free_logs(made);
        return error;
    }
    *link = made;
    return VGPU_GPU_SUCCESS;
}

/* By what is there and not by the driver's count, which it may set with the state's end alone. */
static uint32_t give_log(char *to, uint32_t room, const char *log)
{
    const size_t bytes = strlen(log) + 1;

    if (room == 0 || bytes == 1) {
        return 0;
    }
    memcpy(to, log, bytes < room ? bytes : room);
    to[room - 1] = '\0';
    return bytes < room ? (uint32_t)bytes : room;
}

static void give_logs(const struct gpu_link *link, struct gpu_compile *compile)
{
    jit_options_read(&link->options, compile);
    compile->info_used = give_log(compile->info_log, compile->info_bytes, link->logs.info_log);
    compile->error_used = give_log(compile->error_log, compile->error_bytes, link->logs.error_log);
}

static CUresult add_image(struct gpu_link *link, CUjitInputType type, const void *data,
                          uint64_t bytes, const char *name, const struct gpu_compile *compile)
{
    /* No logs and no time: those are the state's. */
    struct jit_options options;

    /* Objects and libraries of the host's have images inside, which the driver would believe. */
    if (type != CU_JIT_INPUT_CUBIN && type != CU_JIT_INPUT_PTX && type != CU_JIT_INPUT_FATBINARY) {
        return CUDA_ERROR_NOT_SUPPORTED;
    }
    if (!image_check(data, bytes)) {
        return CUDA_ERROR_INVALID_IMAGE;
    }
    if (compile->count > JIT_OPTIONS_MAX) {
        return CUDA_ERROR_INVALID_VALUE;
    }
    for (uint32_t i = 0; i < compile->count; i++) {
        options.option[i] = compile->options[i];
        options.value[i] = (void *)(uintptr_t)compile->values[i];
    }
    return cu.LinkAddData(link->handle, type, (void *)(uintptr_t)data, bytes, name, compile->count,
                          options.option, options.value);
}

/* The logs come also where nothing was added: the program still has what it read before. */
enum vgpu_gpu_error cuda_link_add(struct gpu *gpu, struct gpu_link *link, CUjitInputType type,
                                  const void *data, uint64_t bytes, const char *name,
                                  struct gpu_compile *compile)
{
    const CUresult error = add_image(link, type, data, bytes, name, compile);

    (void)gpu;
    give_logs(link, compile);
    return error;
}

enum vgpu_gpu_error cuda_link_complete(struct gpu *gpu, struct gpu_link *link, const void **image,
                                       uint64_t *bytes, struct gpu_compile *compile)
{
    void *cubin = NULL;
    size_t size = 0;
    const CUresult error = cu.LinkComplete(link->handle, &cubin, &size);

    (void)gpu;
    give_logs(link, compile);
    *image = cubin;
    *bytes = size;
    return error;
}

void cuda_link_destroy(struct gpu *gpu, struct gpu_link *link)
{
    (void)gpu;
    cu.LinkDestroy(link->handle);
    free_logs(link);
}
