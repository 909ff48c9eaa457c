/* SPDX-License-Identifier: MIT */
/* The linker: a program adds images one by one, and gets a cubin. */
#ifndef VGPU_GUEST_LIBCUDA_MODEL_LINK_H
#define VGPU_GUEST_LIBCUDA_MODEL_LINK_H

#include <stddef.h>

#include "guest/libcuda/model/jit-options.h"

struct context;

/* A linker's state, which is the current context's. Its logs and times go where `options` say. */
CUresult link_create(const struct image_options *options, CUlinkState *state);

/*
 * Adds `bytes` bytes, or a file; `name` is for the linker's messages and may be NULL. Of the
 * options those that are numbers count. INVALID_HANDLE for a state that there is not.
 */
CUresult link_add(CUlinkState state, CUjitInputType type, const void *data, size_t bytes,
                  const char *name, const struct image_options *options);
CUresult link_add_file(CUlinkState state, CUjitInputType type, const char *path,
                       const struct image_options *options);

/* Links. The cubin is the state's, until that is destroyed; `bytes` may be NULL. */
CUresult link_complete(CUlinkState state, void **cubin, size_t *bytes);
CUresult link_destroy(CUlinkState state);

/* Destroys all of a context's. */
void link_release(const struct context *context);

#endif
