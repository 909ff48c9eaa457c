/* SPDX-License-Identifier: MIT */
/* What libvgpu's files share. */
#ifndef VGPU_INTERNAL_H
#define VGPU_INTERNAL_H

#include <stdbool.h>

#include "vgpu.h"

/* How registers are reached. */
struct vgpu_transport {
    bool comes_back; /* after OFFLINE, when the next mediator runs */
    uint32_t (*read)(struct vgpu *vgpu, uint32_t offset);
    void (*write)(struct vgpu *vgpu, uint32_t offset, uint32_t value);
    void *(*map_shm)(struct vgpu *vgpu); /* NULL with a message on failure */
    void (*close)(struct vgpu *vgpu);
};

/* The head of each transport's own structure. */
struct vgpu {
    const struct vgpu_transport *transport;
    uint32_t timeout_ms;
    void *shm; /* NULL until asked for */
    uint64_t shm_size;
    enum vgpu_error error;
};

#define VGPU_DEFAULT_TIMEOUT_MS 60000u

/* Sets vgpu_last_message() and returns `result`. */
int vgpu_fail(enum vgpu_result result, const char *format, ...)
    __attribute__((format(printf, 2, 3)));

#endif
