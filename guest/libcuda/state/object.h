/* SPDX-License-Identifier: MIT */
/*
 * What programs hold as CUmodule, CUfunction, CUstream and so on is the worker's handle. Here lies
 * what this side knows of each, found by its index; a handle that was given back is not found.
 *
 * To look an object up takes no lock. A program that uses one in a thread while another destroys
 * it has no defined behaviour with CUDA either.
 */
#ifndef VGPU_GUEST_LIBCUDA_STATE_OBJECT_H
#define VGPU_GUEST_LIBCUDA_STATE_OBJECT_H

#include <stdbool.h>
#include <stdint.h>

#include "api/handle-types.h"

/* The head of what is known of an object. */
struct object {
    uint64_t handle;
    struct context *context;       /* whose it is */
    struct object *next, **before; /* among all */
};

/* Remembers an object, which is malloc's, for its handle. False when memory is short. */
bool object_add(struct object *object, uint64_t handle, struct context *context);

/* The object behind a handle of this type, NULL when there is none. */
void *object_find(enum handle_type type, uint64_t handle);

/* Forgets an object and frees it. */
void object_drop(struct object *object);

/* Any object of a context's of this type, NULL when there is none. */
void *object_of(const struct context *context, enum handle_type type);

/* Frees all objects, when the library is unloaded. */
void objects_end(void);

#endif
