/* SPDX-License-Identifier: MIT */
/* The device: there is one, and what it is does not change. */
#ifndef VGPU_GUEST_LIBCUDA_MODEL_DEVICE_H
#define VGPU_GUEST_LIBCUDA_MODEL_DEVICE_H

#include <stdbool.h>

#include "api/cuda-types.h"

static inline bool device_valid(CUdevice device)
{
    return device == 0;
}

/* Sets right the attributes that are not as the host's driver has them. */
void device_tell_truth(void);

#endif
