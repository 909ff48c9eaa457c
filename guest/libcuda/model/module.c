/* SPDX-License-Identifier: MIT */
/*
 * Modules and functions, see module.h; how images get to the host is in image.c.
 *
 * A function is asked for once, with all that its launches need: how many threads a block may have,
 * where its parameters lie. The host is not asked again, so a launch needs no answer from it.
 *
 * The mutex is held while the host is asked, so that two threads that look for the same function do
 * not add it twice. Launches take it for a moment, and only with dynamic shared memory: they find
 * functions by their handles. Modules are loaded without it, which may take seconds.
 */
#include "guest/libcuda/model/module.h"

#include <limits.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>

#include "guest/libcuda/model/memory.h"
#include "guest/libcuda/state/state.h"
#include "guest/libcuda/wire/wire-calls.h"
#include "guest/libvgpu/ring-calls.h"
#include "guest/libvgpu/room.h"

/* For lists of functions, and their attributes. */
static pthread_mutex_t mutex = PTHREAD_MUTEX_INITIALIZER;

/* Modules ------------------------------------------------------------------------------------- */

CUresult module_load(CUmodule *module, const void *image, const struct image_options *options,
                     struct context *context)
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
        /* The program has no handle, so nobody else would. */
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

/* The path is one in the guest: the file is read here, and the host gets its bytes. */
CUresult module_load_file(CUmodule *module, const char *path, const struct image_options *options,
                          struct context *context)
{
    void *image = NULL;
    size_t bytes;
    CUresult r;

    if (!module || !path || !image_options_complete(options)) {
        return CUDA_ERROR_INVALID_VALUE;
    }
    r = image_read(path, &image, &bytes);
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

/*
 * Variables are forgotten first: their addresses may be somebody's right after the host has
 * unloaded the module, and the table has room for one area in a place. Functions go with their
 * module on the host too, where it waits for the work that uses them.
 */
CUresult module_unload(struct module *module)
{
    CUresult r;

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

/* Functions ----------------------------------------------------------------------------------- */

/*
 * Asks where the parameters lie. An answer has room for some (VGPU_RESULT_PARAMS), so it is asked
 * from the first unknown one on until all are known; each answer has one at least. What the host
 * says is checked: launches copy by these numbers into a buffer of as many bytes as they say. A
 * kernel has at most one parameter for each byte.
 */
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

/*
 * Asks the host for a function. With the mutex. The function has its module's context, and goes
 * with the module before that ends.
 */
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

CUresult module_get_function(struct module *module, const char *name, CUfunction *function)
{
    struct function *known;
    CUresult r = CUDA_SUCCESS;

    if (!module) {
        return CUDA_ERROR_INVALID_HANDLE;
    }
    if (!function || !name) {
        return CUDA_ERROR_INVALID_VALUE;
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

static CUmodule module_handle(const struct module *module)
{
    return (CUmodule)(uintptr_t)module->object.handle;
}

CUresult module_count(struct module *module, unsigned *count)
{
    return module ? call_module_functions(count, module_handle(module)) : CUDA_ERROR_INVALID_HANDLE;
}

/* The host knows them by number, and all else here goes by name: so each is asked for twice. */
static CUresult nth_function(struct module *module, unsigned index, CUfunction *function)
{
    struct room room;
    char *name = (char *)room_open(&room, VGPU_NAME_MAX);
    uint32_t length = 0;
    CUresult r = CUDA_ERROR_OUT_OF_MEMORY;

    if (name) {
        r = call_module_function_name(&length, name, VGPU_NAME_MAX - 1, module_handle(module),
                                      index);
    }
    if (r == CUDA_SUCCESS) {
        name[length < VGPU_NAME_MAX ? length : VGPU_NAME_MAX - 1] = '\0';
        r = module_get_function(module, name, function);
    }
    room_close(&room);
    return r;
}

CUresult module_list(struct module *module, CUfunction *functions, unsigned count)
{
    unsigned known = 0;
    CUresult r;

    if (!functions) {
        return CUDA_ERROR_INVALID_VALUE;
    }
    r = module_count(module, &known);
    for (unsigned i = 0; r == CUDA_SUCCESS && i < count && i < known; i++) {
        r = nth_function(module, i, &functions[i]);
    }
    return r;
}

/*
 * Attributes that cuFuncSetAttribute() and nobody else changes are kept, all at once: one question
 * for the first launch with dynamic shared memory, none for those that follow. With an error *value
 * is an old one or 0, which no caller looks at.
 */
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

CUresult function_set_attribute(struct function *function, CUfunction_attribute attribute,
                                int value)
{
    const CUresult r = call_function_set_attribute((CUfunction)(uintptr_t)function->object.handle,
                                                   attribute, value);

    pthread_mutex_lock(&mutex);
    function->attributes_known = false;
    pthread_mutex_unlock(&mutex);
    return r;
}
