/* SPDX-License-Identifier: MIT */
/*
 * What NVIDIA's runtime library keeps by context: a value under a key, and a function to be called
 * with both when the context ends. Several copies of that library may be in a process; each has a
 * key of its own.
 */
#ifndef VGPU_GUEST_LIBCUDA_MODEL_STORAGE_H
#define VGPU_GUEST_LIBCUDA_MODEL_STORAGE_H

#include "guest/libcuda/model/context.h"

typedef void (*storage_end_fn)(CUcontext context, void *key, void *value);

struct stored;

/* Keeps a value; `end` may be NULL. INVALID_HANDLE where the key has one; OUT_OF_MEMORY. */
CUresult storage_put(const struct context *context, void *key, void *value, storage_end_fn end);

/* Forgets one without calling its function. INVALID_HANDLE when there is none, as storage_get(). */
CUresult storage_drop(const struct context *context, const void *key);
CUresult storage_get(const struct context *context, const void *key, void **value);

/*
 * The two halves of a context's end: takes out what it has, and calls the functions, which may call
 * CUDA, so that no lock may be held.
 */
struct stored *storage_take(const struct context *context);
void storage_end(struct stored *taken);

#endif
