/* SPDX-License-Identifier: MIT */
/*
 * Textures and surfaces. A program's kernels get them as numbers, so these are the driver's own on
 * the host.
 */
#ifndef VGPU_GUEST_LIBCUDA_MODEL_TEXTURE_H
#define VGPU_GUEST_LIBCUDA_MODEL_TEXTURE_H

#include <stdbool.h>

#include "api/cuda-types.h"

struct context;

/* A texture of the current context's, or a surface where `sampling` is NULL; `view` may be NULL. */
CUresult texture_create(const CUDA_RESOURCE_DESC *resource, const CUDA_TEXTURE_DESC *sampling,
                        const CUDA_RESOURCE_VIEW_DESC *view, unsigned long long *texture);

/* SUCCESS too when there is none of this number, as from NVIDIA's driver. */
CUresult texture_destroy(unsigned long long texture, bool surface);

/* What it was made of, each where it is not NULL. Where it has no view nothing is written. */
CUresult texture_describe(unsigned long long texture, bool surface, CUDA_RESOURCE_DESC *resource,
                          CUDA_TEXTURE_DESC *sampling, CUDA_RESOURCE_VIEW_DESC *view);

/* Destroys all of a context's. */
void texture_release(const struct context *context);

#endif
