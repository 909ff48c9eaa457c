/* SPDX-License-Identifier: MIT */
/* What the environment says to libraries that programs do not know of: libcuda and libnvidia-ml. */
#ifndef VGPU_GUEST_LIBVGPU_ENVIRONMENT_H
#define VGPU_GUEST_LIBVGPU_ENVIRONMENT_H

#include <stdbool.h>

#include "guest/libvgpu/vgpu.h"

struct environment {
    bool on_host;                  /* VGPU_HOST: by the mediator's socket */
    struct vgpu_host_options host; /* with it: VGPU_VM_ID, VGPU_POOL, VGPU_PRIORITY, VGPU_SHM_MIB */
    const char *address;           /* VGPU_ADDRESS: PCI address in a guest; NULL: the only one */
    uint64_t arena_size;           /* VGPU_ARENA_MIB, in bytes; 0: not said */
};

/* Reads it. NULL, or a sentence about what is not as it may be. */
const char *environment_read(struct environment *environment);

#endif
