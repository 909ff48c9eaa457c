/* SPDX-License-Identifier: MIT */
/*
 * Images of modules on their way to the host. An image tells its own length; programs say nothing
 * of it.
 */
#ifndef VGPU_GUEST_LIBCUDA_MODEL_IMAGE_H
#define VGPU_GUEST_LIBCUDA_MODEL_IMAGE_H

#include <stddef.h>

#include "guest/libcuda/model/jit-options.h"

/* Reads an image from a file, with a NUL behind its bytes; the caller frees it. FILE_NOT_FOUND. */
CUresult image_read(const char *path, void **image, size_t *bytes);

/* Loads an image on the host; NULL options are none. */
CUresult image_load(const void *image, const struct image_options *options, CUmodule *module);

#endif
