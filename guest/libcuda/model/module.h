/* SPDX-License-Identifier: MIT */
/* Modules and functions, which are libraries and kernels too. */
#ifndef VGPU_GUEST_LIBCUDA_MODEL_MODULE_H
#define VGPU_GUEST_LIBCUDA_MODEL_MODULE_H

#include "guest/libcuda/model/context.h"
#include "guest/libcuda/model/image.h"
#include "guest/libcuda/state/object.h"

struct module {
    struct object object;
    struct function *functions;
};

/* Where a parameter lies in a kernel's parameters; bytes. */
struct parameter {
    uint32_t offset, size;
};

struct function {
    struct object object;
    struct function *next; /* of its module's */
    struct module *module;
    uint32_t max_threads; /* in a block */
    uint32_t count;       /* of parameters; ~0: the host's driver cannot tell */
    uint32_t bytes;       /* of all parameters */
    struct parameter *parameters;
    bool attributes_known;
    int attributes[CU_FUNC_ATTRIBUTE_MAX]; /* INT_MIN: the driver does not know it */
    char name[];
};

/* The function that a program means, NULL when there is none. */
static inline struct function *function_find(CUfunction function)
{
    return (struct function *)object_find(HANDLE_FUNCTION, (uint64_t)(uintptr_t)function);
}

/* An attribute of a function's. */
CUresult function_attribute(struct function *function, CUfunction_attribute attribute, int *value);

/* Sets one; those that are known are asked for anew. */
CUresult function_set_attribute(struct function *function, CUfunction_attribute attribute,
                                int value);

/* The module that a program means, NULL when there is none. */
static inline struct module *module_find(CUmodule module)
{
    return (struct module *)object_find(HANDLE_MODULE, (uint64_t)(uintptr_t)module);
}

/*
 * Loads an image, or a file with one; NULL options are none. `context` is whose the module is: it
 * goes with that; NULL: it stays until it is unloaded.
 */
CUresult module_load(CUmodule *module, const void *image, const struct image_options *options,
                     struct context *context);
CUresult module_load_file(CUmodule *module, const char *path, const struct image_options *options,
                          struct context *context);
CUresult module_unload(struct module *module);

/* The function of a name; INVALID_HANDLE when `module` is NULL, NOT_FOUND when it has none. */
CUresult module_get_function(struct module *module, const char *name, CUfunction *function);

/*
 * How many functions a module has, and the first `count` of them, in the driver's order.
 * INVALID_HANDLE when `module` is NULL; NOT_SUPPORTED where the host's driver cannot tell, which
 * CUDA 12.4 can.
 */
CUresult module_count(struct module *module, unsigned *count);
CUresult module_list(struct module *module, CUfunction *functions, unsigned count);

/* Unloads all modules of a context. */
void module_release(const struct context *context);

#endif
