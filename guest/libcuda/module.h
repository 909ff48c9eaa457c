/* SPDX-License-Identifier: MIT */
/* Modules and functions, which are libraries and kernels too. */
#ifndef VGPU_GUEST_LIBCUDA_MODULE_H
#define VGPU_GUEST_LIBCUDA_MODULE_H

#include "guest/libcuda/context.h"
#include "guest/libcuda/object.h"

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

/* Unloads all modules of a context. */
void module_release(const struct context *context);

#endif
