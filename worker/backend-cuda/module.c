/* SPDX-License-Identifier: MIT */
/* Modules, functions and launches on the cuda backend. */

#include <errno.h>
#include <limits.h>
#include <stdlib.h>
#include <string.h>

#include "common/log.h"
#include "worker/api-calls.h"
#include "worker/backend-cuda/cuda-driver.h"
#include "worker/backend-cuda/driver-options.h"
#include "worker/backend-cuda/raw.h"
#include "worker/gpu.h"
#include "worker/module-image.h"
#include "worker/predict.h"

struct gpu_module {
    CUmodule handle;
    struct gpu_function *functions;
    CUfunction *listed; /* all that the driver has, once they were asked for; NULL before */
    unsigned listed_count;
};

struct gpu_function {
    struct gpu_function *next;
    CUfunction handle;
    uint32_t params;      /* ~0: unknown */
    uint32_t param_bytes; /* of all, where known */
    bool launched;        /* once at least */
};

/* Modules ------------------------------------------------------------------------------------- */

static CUresult compile_image(CUmodule *module, const void *image, struct gpu_compile *compile)
{
    struct jit_options options;
    CUresult error = jit_options_make(compile, &options);

    if (error == CUDA_SUCCESS) {
        error = cu.ModuleLoadDataEx(module, image, options.count, options.option, options.value);
        jit_options_read(&options, compile);
    }
    return error;
}

static enum vgpu_gpu_error load_image(const void *image, struct gpu_compile *compile,
                                      struct gpu_module **module)
{
    struct gpu_module *made = calloc(1, sizeof(*made));
    CUresult error;

    if (!made) {
        return VGPU_GPU_OUT_OF_MEMORY;
    }
    error = compile ? compile_image(&made->handle, image, compile)
                    : cu.ModuleLoadData(&made->handle, image);
    if (error != CUDA_SUCCESS) {
        free(made);
        return error;
    }
    *module = made;
    return VGPU_GPU_SUCCESS;
}

enum vgpu_gpu_error cuda_module_load(struct gpu *gpu, const void *image, uint64_t bytes,
                                     struct gpu_compile *compile, struct gpu_module **module)
{
    if (!image_check(image, bytes)) {
        return VGPU_GPU_INVALID_IMAGE;
    }
    gpu->prints = gpu->prints || cuda_may_print(image, bytes);
    return load_image(image, compile, module);
}

enum vgpu_gpu_error cuda_module_builtin(struct gpu *gpu, struct gpu_module **module)
{
    (void)gpu;
    return load_image(cuda_kernels_ptx, NULL, module);
}

/*
 * The functions go in any case. If the driver refuses, the context is lost; and the session's
 * handles for them are gone already.
 */
enum vgpu_gpu_error cuda_module_unload(struct gpu *gpu, struct gpu_module *module)
{
    const CUresult error = cu.ModuleUnload(module->handle);

    (void)gpu;
    while (module->functions) {
        struct gpu_function *function = module->functions;

        module->functions = function->next;
        free(function);
    }
    free(module->listed);
    free(module);
    return error;
}

/* Functions ----------------------------------------------------------------------------------- */

/*
 * Counts the parameters and their bytes, where the driver can tell. It tells how many there are by
 * failing at the first that is not there.
 */
static void read_params(struct gpu_function *function)
{
    size_t offset = 0, size = 0;

    function->params = ~0u;
    if (!cu.FuncGetParamInfo) {
        return;
    }
    function->params = 0;
    while (cu.FuncGetParamInfo(function->handle, function->params, &offset, &size) ==
           CUDA_SUCCESS) {
        function->params++;
        function->param_bytes = (uint32_t)(offset + size);
    }
}

enum vgpu_gpu_error cuda_function_get(struct gpu *gpu, struct gpu_module *module, const char *name,
                                      struct gpu_function **function,
                                      struct vgpu_result_function *info)
{
    struct gpu_function *made = calloc(1, sizeof(*made));
    CUresult error;
    int threads = 0;

    (void)gpu;
    if (!made) {
        return VGPU_GPU_OUT_OF_MEMORY;
    }
    error = cu.ModuleGetFunction(&made->handle, module->handle, name);
    if (error == CUDA_SUCCESS) {
        error = cu.FuncGetAttribute(&threads, CU_FUNC_ATTRIBUTE_MAX_THREADS_PER_BLOCK,
                                    made->handle);
    }
    if (error != CUDA_SUCCESS) {
        free(made);
        return error;
    }
    /*
     * CUDA has one function for a name, however often it is asked for. Here too: handles_find()
     * goes by the pointer, so a program that asks again and again gets no new handles.
     */
    info->max_threads = (uint32_t)threads;
    *function = module->functions;
    while (*function && (*function)->handle != made->handle) {
        *function = (*function)->next;
    }
    if (*function) {
        free(made);
    } else {
        read_params(made);
        made->next = module->functions;
        module->functions = made;
        *function = made;
    }
    info->params = (*function)->params;
    return VGPU_GPU_SUCCESS;
}

enum vgpu_gpu_error cuda_function_param(struct gpu *gpu, struct gpu_function *function,
                                        uint64_t index, struct vgpu_result_param *param)
{
    size_t offset = 0, size = 0;
    CUresult error;

    (void)gpu;
    if (!cu.FuncGetParamInfo) {
        return VGPU_GPU_NOT_SUPPORTED;
    }
    if (index >= function->params) {
        return VGPU_GPU_INVALID_VALUE;
    }
    error = cu.FuncGetParamInfo(function->handle, index, &offset, &size);
    *param = (struct vgpu_result_param){.offset = offset, .size = size};
    return error;
}

/*
 * With too few bytes the driver would read on behind them, into this process's memory. Where it
 * cannot tell how many a function has, the guest's number has to do.
 */
bool cuda_params_fit(const struct gpu_function *function, size_t *bytes)
{
    if (function->params == ~0u) {
        return true;
    }
    if (!gpu_params_fit(*bytes, function->param_bytes)) {
        return false;
    }
    *bytes = function->param_bytes;
    return true;
}

/* Lists --------------------------------------------------------------------------------------- */

/* The driver tells all of them at once, so the list is kept: programs go through it. */
static CUresult list_functions(struct gpu_module *module)
{
    unsigned count = 0;
    CUfunction *listed;
    CUresult error;

    if (module->listed) {
        return CUDA_SUCCESS;
    }
    if (!cu.ModuleGetFunctionCount || !cu.ModuleEnumerateFunctions || !cu.FuncGetName) {
        return CUDA_ERROR_NOT_SUPPORTED;
    }
    error = cu.ModuleGetFunctionCount(&count, module->handle);
    if (error != CUDA_SUCCESS) {
        return error;
    }
    listed = calloc((size_t)count + 1, sizeof(CUfunction));
    if (!listed) {
        return CUDA_ERROR_OUT_OF_MEMORY;
    }
    error = cu.ModuleEnumerateFunctions(listed, count, module->handle);
    if (error != CUDA_SUCCESS) {
        free(listed);
        return error;
    }
    module->listed = listed;
    module->listed_count = count;
    return CUDA_SUCCESS;
}

enum vgpu_gpu_error cuda_module_functions(struct gpu *gpu, unsigned *count,
                                          struct gpu_module *module)
{
    const CUresult error = list_functions(module);

    (void)gpu;
    *count = module->listed_count;
    return error;
}

enum vgpu_gpu_error cuda_module_function_name(struct gpu *gpu, uint32_t *length, char *name,
                                              unsigned bytes, struct gpu_module *module,
                                              unsigned index)
{
    CUresult error = list_functions(module);
    const char *found = NULL;

    (void)gpu;
    if (error != CUDA_SUCCESS || index >= module->listed_count) {
        return error != CUDA_SUCCESS ? error : CUDA_ERROR_INVALID_VALUE;
    }
    error = cu.FuncGetName(&found, module->listed[index]);
    if (error == CUDA_SUCCESS && !found) {
        error = CUDA_ERROR_UNKNOWN;
    }
    if (error == CUDA_SUCCESS) {
        *length = (uint32_t)strlen(found);
        memcpy(name, found, *length < bytes ? *length : bytes);
    }
    return error;
}

/* Launches ------------------------------------------------------------------------------------ */

static enum vgpu_gpu_error launch_with_attributes(struct gpu *gpu, struct gpu_function *function,
                                                  const struct gpu_launch *launch,
                                                  struct gpu_stream *stream, void **extra)
{
    const struct vgpu_cmd_launch *shape = launch->shape;
    const CUlaunchConfig config = {
        .gridDimX = shape->grid[0],
        .gridDimY = shape->grid[1],
        .gridDimZ = shape->grid[2],
        .blockDimX = shape->block[0],
        .blockDimY = shape->block[1],
        .blockDimZ = shape->block[2],
        .sharedMemBytes = shape->shared_bytes,
        /* Nothing may be counted as submitted that will not be. */
        .hStream = cu.LaunchKernelEx ? cuda_submit(gpu, stream) : NULL,
        .attrs = (CUlaunchAttribute *)(uintptr_t)launch->attributes,
        .numAttrs = launch->attribute_count,
    };

    return cu.LaunchKernelEx ? cu.LaunchKernelEx(&config, function->handle, NULL, extra)
                             : VGPU_GPU_NOT_SUPPORTED;
}

enum vgpu_gpu_error cuda_launch(struct gpu *gpu, struct gpu_function *function,
                                const struct gpu_launch *launch, struct gpu_stream *stream)
{
    const struct vgpu_cmd_launch *shape = launch->shape;
    size_t bytes = launch->param_bytes;
    void *extra[] = {CU_LAUNCH_PARAM_BUFFER_POINTER, (void *)(uintptr_t)launch->params,
                     CU_LAUNCH_PARAM_BUFFER_SIZE, &bytes, CU_LAUNCH_PARAM_END};

    /* The driver takes the buffer's size on trust. */
    if (!cuda_params_fit(function, &bytes)) {
        return VGPU_GPU_INVALID_VALUE;
    }
    cuda_note_launch(gpu, &function->launched);
    if (launch->attribute_count > 0) {
        return launch_with_attributes(gpu, function, launch, stream, bytes > 0 ? extra : NULL);
    }
    return cu.LaunchKernel(function->handle, shape->grid[0], shape->grid[1], shape->grid[2],
                           shape->block[0], shape->block[1], shape->block[2], shape->shared_bytes,
                           cuda_submit(gpu, stream), NULL, bytes > 0 ? extra : NULL);
}

/*
 * The blocks of the launch against those that the GPU can have at a time. By floating point, since
 * the product of three dimensions may not fit 64 bits. What the driver cannot tell fills the GPU.
 */
uint32_t cuda_launch_part(struct gpu *gpu, struct gpu_function *function,
                          const struct vgpu_cmd_launch *shape)
{
    const double blocks = (double)shape->grid[0] * shape->grid[1] * shape->grid[2];
    const uint64_t threads = (uint64_t)shape->block[0] * shape->block[1] * shape->block[2];
    double part;
    int each = 0;

    if (threads > INT_MAX ||
        cu.OccupancyMaxActiveBlocksPerMultiprocessor(&each, function->handle, (int)threads,
                                                     shape->shared_bytes) != CUDA_SUCCESS ||
        each <= 0) {
        return PREDICT_WHOLE;
    }
    part = blocks * PREDICT_WHOLE / ((double)each * gpu->info.processors);
    return part >= PREDICT_WHOLE ? PREDICT_WHOLE : part < 1 ? 1 : (uint32_t)part;
}

CUfunction cuda_raw_function(struct gpu *gpu, const struct gpu_function *function)
{
    (void)gpu;
    return function->handle;
}

CUmodule cuda_raw_module(struct gpu *gpu, const struct gpu_module *module)
{
    (void)gpu;
    return module->handle;
}
