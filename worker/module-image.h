/* SPDX-License-Identifier: MIT */
/*
 * Whether a module's image is what it seems, as far as can be told from outside: the driver
 * believes an image's own headers about how long it is.
 */
#ifndef VGPU_WORKER_MODULE_IMAGE_H
#define VGPU_WORKER_MODULE_IMAGE_H

#include <stdbool.h>
#include <stdint.h>

/*
 * True for PTX (text up to the end or a NUL), for a cubin (64-bit ELF) whose headers, segments and
 * sections lie within its `bytes`, and for a fatbin that is not longer than that.
 */
bool image_check(const uint8_t *image, uint64_t bytes);

#endif
