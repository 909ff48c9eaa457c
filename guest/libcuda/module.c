/* SPDX-License-Identifier: MIT */
/* Modules and functions, see module.h; how images get to the host is in image.c. */
#include "guest/libcuda/module.h"

#include <limits.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>

#include "guest/libcuda/device.h"
#include "guest/libcuda/entry.h"
#include "guest/libcuda/image.h"
#include "guest/libcuda/memory.h"
#include "guest/libvgpu/ring-calls.h"

struct module {
    struct object object;
    struct function *functions;
};

/* For lists of functions, and their attributes. */
static pthread_mutex_t mutex = PTHREAD_MUTEX_INITIALIZER;

static struct module *find_module(CUmodule module)
{
    return object_find(HANDLE_MODULE, (uint64_t)(uintptr_t)module);
}

/* Loading -------------------------------------------------------------------------------------- */

static CUresult module_load(CUmodule *module, const void *image,
                            const struct image_options *options, struct context *context)
{
    struct module *made;
    CUmodule handle = NULL;
    CUresult r;

    if (!module || !image) {
        return CUDA_ERROR_INVALID_VALUE;
    }
    made = calloc(1, sizeof(*made));
    if (!made) {
        return CUDA_ERROR_OUT_OF_MEMORY;
    }
    r = image_load(image, options, &handle);
    if (r == CUDA_SUCCESS && !object_add(&made->object, (uint64_t)(uintptr_t)handle, context)) {
        vgpu_module_unload(cuda.session, (uint64_t)(uintptr_t)handle);
        r = CUDA_ERROR_OUT_OF_MEMORY;
    }
    if (r != CUDA_SUCCESS) {
        free(made);
        return r;
    }
    *module = handle;
    return CUDA_SUCCESS;
}

static CUresult load_file(CUmodule *module, const char *path, const struct image_options *options,
                          struct context *context)
{
    void *image = NULL;
    CUresult r;

    if (!module || !path) {
        return CUDA_ERROR_INVALID_VALUE;
    }
    r = image_read(path, &image);
    if (r == CUDA_SUCCESS) {
        r = module_load(module, image, options, context);
    }
    free(image);
    return r;
}

static void free_function(struct function *function)
{
    free(function->parameters);
    object_drop(&function->object);
}

static CUresult module_unload(struct module *module)
{
    CUresult r;

    /* First: its variables' addresses may be somebody's right after. */
    memory_forget_module(module->object.handle);
    r = result_of(vgpu_module_unload(cuda.session, module->object.handle));
    while (module->functions) {
        struct function *function = module->functions;

        module->functions = function->next;
        free_function(function);
    }
    object_drop(&module->object);
    return r;
}

void module_release(const struct context *context)
{
    struct module *module;

    while ((module = object_of(context, HANDLE_MODULE)) != NULL) {
        module_unload(module);
    }
}

CUresult guest_cuModuleLoad(CUmodule *module, const char *path)
{
    return load_file(module, path, NULL, context_current());
}

CUresult guest_cuModuleLoadData(CUmodule *module, const void *image)
{
    return module_load(module, image, NULL, context_current());
}

CUresult guest_cuModuleLoadDataEx(CUmodule *module, const void *image, unsigned int count,
                                  CUjit_option *options, void **values)
{
    return module_load(module, image, &(struct image_options){options, values, count},
                       context_current());
}

CUresult guest_cuModuleLoadFatBinary(CUmodule *module, const void *image)
{
    return module_load(module, image, NULL, context_current());
}

CUresult guest_cuModuleUnload(CUmodule module)
{
    struct module *known = find_module(module);

    return known ? module_unload(known) : CUDA_ERROR_INVALID_HANDLE;
}

/* All of a module is loaded with it. */
CUresult guest_cuModuleGetLoadingMode(CUmoduleLoadingMode *mode)
{
    if (!mode) {
        return CUDA_ERROR_INVALID_VALUE;
    }
    *mode = CU_MODULE_EAGER_LOADING;
    return CUDA_SUCCESS;
}

/* Functions ----------------------------------------------------------------------------------- */

/* Asks where the parameters lie. */
static CUresult read_parameters(struct function *function)
{
    const uint32_t count = function->count;
    struct parameter *parameters;
    CUresult r = CUDA_SUCCESS;

    if (count == 0 || count == ~0u) {
        return CUDA_SUCCESS;
    }
    if (count > VGPU_PARAMS_MAX) {
        return CUDA_ERROR_UNKNOWN;
    }
    parameters = calloc(count, sizeof(*parameters));
    if (!parameters) {
        return CUDA_ERROR_OUT_OF_MEMORY;
    }
    for (uint32_t known = 0; r == CUDA_SUCCESS && known < count;) {
        struct vgpu_result_param params[VGPU_RESULT_PARAMS];
        uint32_t got = 0;

        r = result_of(
            ring_function_param(cuda.session, function->object.handle, known, params, &got));
        for (uint32_t i = 0; r == CUDA_SUCCESS && i < got && known < count; i++) {
            const uint64_t end = params[i].offset + params[i].size;

            if (params[i].size > VGPU_PARAMS_MAX || params[i].offset > VGPU_PARAMS_MAX ||
                end > VGPU_PARAMS_MAX) {
                r = CUDA_ERROR_UNKNOWN;
            } else if (end > function->bytes) {
                function->bytes = (uint32_t)end;
            }
            parameters[known++] = (struct parameter){(uint32_t)params[i].offset,
                                                     (uint32_t)params[i].size};
        }
    }
    if (r != CUDA_SUCCESS) {
        free(parameters);
        return r;
    }
    function->parameters = parameters;
    return CUDA_SUCCESS;
}

/* Asks the host for a function. With the mutex. */
static CUresult module_function(struct module *module, const char *name, struct function **function)
{
    const size_t length = strlen(name);
    const struct vgpu_cmd_function_get body = {.module = module->object.handle, .length = length};
    struct vgpu_result_function result = {0};
    struct function *made;
    CUresult r;

    if (length == 0 || length >= VGPU_NAME_MAX) {
        return CUDA_ERROR_NOT_FOUND;
    }
    r = result_of(ring_function_get(cuda.session, &body, name, (uint32_t)length, &result));
    if (r != CUDA_SUCCESS) {
        return r;
    }
    made = object_find(HANDLE_FUNCTION, result.function);
    if (made) {
        *function = made; /* by another of its names */
        return CUDA_SUCCESS;
    }
    made = calloc(1, sizeof(*made) + length + 1);
    if (!made || !object_add(&made->object, result.function, module->object.context)) {
        free(made);
        return CUDA_ERROR_OUT_OF_MEMORY;
    }
    memcpy(made->name, name, length);
    made->module = module;
    made->count = result.params;
    made->max_threads = result.max_threads;
    r = read_parameters(made);
    if (r != CUDA_SUCCESS) {
        object_drop(&made->object);
        return r;
    }
    made->next = module->functions;
    module->functions = made;
    *function = made;
    return CUDA_SUCCESS;
}

static CUresult find_function(struct module *module, const char *name, CUfunction *function)
{
    struct function *known;
    CUresult r = CUDA_SUCCESS;

    if (!function || !name) {
        return CUDA_ERROR_INVALID_VALUE;
    }
    if (!module) {
        return CUDA_ERROR_INVALID_HANDLE;
    }
    pthread_mutex_lock(&mutex);
    known = module->functions;
    while (known && strcmp(known->name, name) != 0) {
        known = known->next;
    }
    if (!known) {
        r = module_function(module, name, &known);
    }
    pthread_mutex_unlock(&mutex);
    if (r == CUDA_SUCCESS) {
        *function = (CUfunction)(uintptr_t)known->object.handle;
    }
    return r;
}

CUresult guest_cuModuleGetFunction(CUfunction *function, CUmodule module, const char *name)
{
    return find_function(find_module(module), name, function);
}

CUresult guest_cuModuleGetGlobal_v2(CUdeviceptr *address, size_t *bytes, CUmodule module,
                                    const char *name)
{
    const struct module *known = find_module(module);
    CUdeviceptr found = 0;
    size_t size = 0;
    CUresult r;

    if (!name || (!address && !bytes)) {
        return CUDA_ERROR_INVALID_VALUE;
    }
    if (!known) {
        return CUDA_ERROR_INVALID_HANDLE;
    }
    r = call_module_global(&found, &size, module, name);
    if (r != CUDA_SUCCESS) {
        return r;
    }
    /* Where it is known already nothing is added. */
    memory_add((struct memory){.address = found,
                               .bytes = size,
                               .context = known->object.context,
                               .owner = known->object.handle,
                               .kind = MEMORY_GLOBAL});
    if (address) {
        *address = found;
    }
    if (bytes) {
        *bytes = size;
    }
    return CUDA_SUCCESS;
}

/* Attributes that cuFuncSetAttribute() and nobody else changes are kept. */
CUresult function_attribute(struct function *function, CUfunction_attribute attribute, int *value)
{
    int values[CU_FUNC_ATTRIBUTE_MAX];
    CUresult r = CUDA_SUCCESS;

    if ((unsigned)attribute >= CU_FUNC_ATTRIBUTE_MAX) {
        return CUDA_ERROR_INVALID_VALUE;
    }
    pthread_mutex_lock(&mutex);
    if (!function->attributes_known) {
        r = call_function_attributes(values, CU_FUNC_ATTRIBUTE_MAX,
                                     (CUfunction)(uintptr_t)function->object.handle);
        if (r == CUDA_SUCCESS) {
            memcpy(function->attributes, values, sizeof(values));
            function->attributes_known = true;
        }
    }
    *value = function->attributes[attribute];
    pthread_mutex_unlock(&mutex);
    return r == CUDA_SUCCESS && *value == INT_MIN ? CUDA_ERROR_INVALID_VALUE : r;
}

CUresult guest_cuFuncGetAttribute(int *value, CUfunction_attribute attribute, CUfunction function)
{
    struct function *known = function_find(function);

    if (!value) {
        return CUDA_ERROR_INVALID_VALUE;
    }
    return known ? function_attribute(known, attribute, value) : CUDA_ERROR_INVALID_HANDLE;
}

CUresult guest_cuFuncSetAttribute(CUfunction function, CUfunction_attribute attribute, int value)
{
    struct function *known = function_find(function);
    CUresult r;

    if (!known) {
        return CUDA_ERROR_INVALID_HANDLE;
    }
    r = call_function_set_attribute(function, attribute, value);
    pthread_mutex_lock(&mutex);
    known->attributes_known = false;
    pthread_mutex_unlock(&mutex);
    return r;
}

CUresult guest_cuFuncGetModule(CUmodule *module, CUfunction function)
{
    const struct function *known = function_find(function);

    if (!module) {
        return CUDA_ERROR_INVALID_VALUE;
    }
    if (!known) {
        return CUDA_ERROR_INVALID_HANDLE;
    }
    *module = (CUmodule)(uintptr_t)known->module->object.handle;
    return CUDA_SUCCESS;
}

CUresult guest_cuFuncGetName(const char **name, CUfunction function)
{
    const struct function *known = function_find(function);

    if (!name) {
        return CUDA_ERROR_INVALID_VALUE;
    }
    if (!known) {
        return CUDA_ERROR_INVALID_HANDLE;
    }
    *name = known->name;
    return CUDA_SUCCESS;
}

CUresult guest_cuFuncGetParamInfo(CUfunction function, size_t index, size_t *offset, size_t *size)
{
    const struct function *known = function_find(function);

    if (!known) {
        return CUDA_ERROR_INVALID_HANDLE;
    }
    if (known->count == ~0u) {
        return CUDA_ERROR_NOT_SUPPORTED;
    }
    if (!offset || index >= known->count) {
        return CUDA_ERROR_INVALID_VALUE;
    }
    *offset = known->parameters[index].offset;
    if (size) {
        *size = known->parameters[index].size;
    }
    return CUDA_SUCCESS;
}

CUresult guest_cuFuncIsLoaded(CUfunctionLoadingState *state, CUfunction function)
{
    if (!state) {
        return CUDA_ERROR_INVALID_VALUE;
    }
    *state = CU_FUNCTION_LOADING_STATE_LOADED;
    return guest_cuFuncLoad(function);
}

CUresult guest_cuFuncLoad(CUfunction function)
{
    return function_find(function) ? CUDA_SUCCESS : CUDA_ERROR_INVALID_HANDLE;
}

/* Libraries and kernels ---------------------------------------------------------------------- */

CUresult guest_cuLibraryLoadData(CUlibrary *library, const void *image, CUjit_option *options,
                                 void **values, unsigned int count,
                                 CUlibraryOption *library_options, void **library_values,
                                 unsigned int library_count)
{
    (void)library_options; /* They save copies, which are made here. */
    (void)library_values;
    (void)library_count;
    return module_load((CUmodule *)library, image, &(struct image_options){options, values, count},
                       NULL);
}

CUresult guest_cuLibraryLoadFromFile(CUlibrary *library, const char *path, CUjit_option *options,
                                     void **values, unsigned int count,
                                     CUlibraryOption *library_options, void **library_values,
                                     unsigned int library_count)
{
    (void)library_options;
    (void)library_values;
    (void)library_count;
    return load_file((CUmodule *)library, path, &(struct image_options){options, values, count},
                     NULL);
}

CUresult guest_cuLibraryUnload(CUlibrary library)
{
    return guest_cuModuleUnload((CUmodule)library);
}

CUresult guest_cuLibraryGetKernel(CUkernel *kernel, CUlibrary library, const char *name)
{
    return find_function(find_module((CUmodule)library), name, (CUfunction *)kernel);
}

CUresult guest_cuLibraryGetModule(CUmodule *module, CUlibrary library)
{
    if (!module) {
        return CUDA_ERROR_INVALID_VALUE;
    }
    if (!find_module((CUmodule)library)) {
        return CUDA_ERROR_INVALID_HANDLE;
    }
    *module = (CUmodule)library;
    return CUDA_SUCCESS;
}

CUresult guest_cuLibraryGetGlobal(CUdeviceptr *address, size_t *bytes, CUlibrary library,
                                  const char *name)
{
    return guest_cuModuleGetGlobal_v2(address, bytes, (CUmodule)library, name);
}

/* There is no managed memory, so no library has any. */
CUresult guest_cuLibraryGetManaged(CUdeviceptr *address, size_t *bytes, CUlibrary library,
                                   const char *name)
{
    (void)address;
    (void)bytes;
    if (!name) {
        return CUDA_ERROR_INVALID_VALUE;
    }
    return find_module((CUmodule)library) ? CUDA_ERROR_NOT_FOUND : CUDA_ERROR_INVALID_HANDLE;
}

CUresult guest_cuKernelGetFunction(CUfunction *function, CUkernel kernel)
{
    if (!function) {
        return CUDA_ERROR_INVALID_VALUE;
    }
    *function = (CUfunction)kernel;
    return guest_cuFuncLoad(*function);
}

CUresult guest_cuKernelGetLibrary(CUlibrary *library, CUkernel kernel)
{
    return guest_cuFuncGetModule((CUmodule *)library, (CUfunction)kernel);
}

CUresult guest_cuKernelGetName(const char **name, CUkernel kernel)
{
    return guest_cuFuncGetName(name, (CUfunction)kernel);
}

CUresult guest_cuKernelGetParamInfo(CUkernel kernel, size_t index, size_t *offset, size_t *size)
{
    return guest_cuFuncGetParamInfo((CUfunction)kernel, index, offset, size);
}

CUresult guest_cuKernelGetAttribute(int *value, CUfunction_attribute attribute, CUkernel kernel,
                                    CUdevice device)
{
    return device_valid(device) ? guest_cuFuncGetAttribute(value, attribute, (CUfunction)kernel)
                                : CUDA_ERROR_INVALID_DEVICE;
}

CUresult guest_cuKernelSetAttribute(CUfunction_attribute attribute, int value, CUkernel kernel,
                                    CUdevice device)
{
    return device_valid(device) ? guest_cuFuncSetAttribute((CUfunction)kernel, attribute, value)
                                : CUDA_ERROR_INVALID_DEVICE;
}

CUresult guest_cuKernelSetCacheConfig(CUkernel kernel, CUfunc_cache config, CUdevice device)
{
    return device_valid(device) ? call_cuFuncSetCacheConfig((CUfunction)kernel, config)
                                : CUDA_ERROR_INVALID_DEVICE;
}
