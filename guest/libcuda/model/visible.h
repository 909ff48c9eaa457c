/* SPDX-License-Identifier: MIT */
/* Which devices CUDA_VISIBLE_DEVICES leaves a program, and in which order. */
#ifndef VGPU_GUEST_LIBCUDA_MODEL_VISIBLE_H
#define VGPU_GUEST_LIBCUDA_MODEL_VISIBLE_H

#include <stdbool.h>

#include "api/cuda-types.h"

/*
 * Whether a value of the variable may name a device at all: not "", "-1" or a word. NULL, where it
 * is not set, stands for all devices.
 */
bool visible_any(const char *list);

/*
 * Those of `count` devices that a list names, by their places in `uuids`, into `chosen`, which has
 * room for all. Returns how many, 0: none; or -1 when it names one twice.
 */
int visible_choose(const char *list, const CUuuid *uuids, int count, int *chosen);

#endif
