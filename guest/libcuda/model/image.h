/* SPDX-License-Identifier: MIT */
/*
 * Images of modules on their way to the host. An image tells its own length; programs say nothing
 * of it.
 */
#ifndef VGPU_GUEST_LIBCUDA_MODEL_IMAGE_H
#define VGPU_GUEST_LIBCUDA_MODEL_IMAGE_H

#include <stdint.h>

#include "api/cuda-types.h"

/* As cuModuleLoadDataEx() has them; what they ask for is written there. */
struct image_options {
    const CUjit_option *options;
    void **values;
    unsigned count;
};

/* Reads an image from a file, with a NUL behind it; the caller frees it. FILE_NOT_FOUND. */
CUresult image_read(const char *path, void **image);

/* Loads an image on the host; NULL options are none. */
CUresult image_load(const void *image, const struct image_options *options, CUmodule *module);

#endif
