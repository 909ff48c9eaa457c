/* SPDX-License-Identifier: MIT */
/*
 * The guest driver's device files, /dev/vgpu0, /dev/vgpu1, ...: what an open file can do.
 *
 * An open file has a queue of its own, from open(2) until the last close(2), and a part of the
 * arena once it has asked for one. Nobody else can reach either. When the file goes, however its
 * process ended, the queue is closed and the part is free.
 *
 *   open    takes a queue; EBUSY when all are taken, ENODEV when the device is gone
 *   ioctl   below; ENODEV when the device is gone, EINVAL for what makes no sense
 *   mmap    the queue (struct vgpu_queue) at offset 0, the part at VGPU_DRIVER_MMAP_ARENA
 *   poll    readable when the queue's interrupt came since the last read
 *   read    4 bytes: how often it came since the last read; waits unless O_NONBLOCK
 */
#ifndef VGPU_PROTOCOL_VGPU_DRIVER_H
#define VGPU_PROTOCOL_VGPU_DRIVER_H

#include <linux/ioctl.h>

#include "vgpu-queue.h"

#define VGPU_DRIVER_VERSION 1u
#define VGPU_DRIVER_MMAP_ARENA 0x100000000ull /* bytes */

/* What the device is; the registers of the same names. */
struct vgpu_driver_info {
    uint32_t driver_version; /* VGPU_DRIVER_VERSION */
    uint32_t queue;          /* that this file has */
    uint32_t interrupts;     /* 1 when the queue has an interrupt of its own */
    uint32_t version, pool, priority, vm_id, features, generation, status, queues, reserved;
    uint64_t shm_size; /* bytes */
};

/* Takes a part of the arena, once for each open file. ENOSPC when none of the size is free. */
struct vgpu_driver_arena {
    uint64_t size;   /* in: bytes, or 0 for a quarter of the largest free part; out: what it got */
    uint64_t offset; /* out: bytes from the start of BAR2 */
};

/*
 * Starts the session: writes the claim, opens the queue, waits until it runs or has ended.
 * EINTR on a signal, ETIMEDOUT after a minute, EIO while no mediator is there. The caller has
 * mapped the part at `address` before, and may try again with another after an end.
 */
struct vgpu_driver_start {
    uint64_t address; /* in: a multiple of 4096 */
    uint32_t status;  /* out: QUEUE_STATUS */
    uint32_t reserved;
};

/*
 * One request in register mode, one at a time among all files. A vector that it names must lie
 * in the file's part. EIO while there is no mediator, ETIMEDOUT after `timeout_ms`: it is
 * dropped then.
 */
struct vgpu_driver_request {
    uint32_t length;     /* in: bytes of request, a multiple of 4 */
    uint32_t timeout_ms; /* in */
    uint32_t status;     /* out: STATUS, COMPLETE or ERROR */
    uint32_t error;      /* out: ERROR */
    uint32_t response_length;
    uint32_t reserved;
    uint8_t request[VGPU_REQUEST_MAX];   /* in */
    uint8_t response[VGPU_RESPONSE_MAX]; /* out */
};

#define VGPU_IOC_INFO _IOR('V', 0, struct vgpu_driver_info)
#define VGPU_IOC_ARENA _IOWR('V', 1, struct vgpu_driver_arena)
#define VGPU_IOC_START _IOWR('V', 2, struct vgpu_driver_start)
#define VGPU_IOC_KICK _IO('V', 3)              /* writes the queue's doorbell */
#define VGPU_IOC_STATUS _IOR('V', 4, uint32_t) /* QUEUE_STATUS */
#define VGPU_IOC_EVENTFD _IOW('V', 5, int32_t) /* signalled at each interrupt; -1: no more */
#define VGPU_IOC_REQUEST _IOWR('V', 6, struct vgpu_driver_request)
#define VGPU_IOC_RESET                                                                             \
    _IO('V', 7) /* register mode's reset; needs CAP_SYS_ADMIN; ETIMEDOUT, EIO                      \
                 */

static_assert(sizeof(struct vgpu_driver_info) == 56, "ABI");
static_assert(sizeof(struct vgpu_driver_arena) == 16, "ABI");
static_assert(sizeof(struct vgpu_driver_start) == 16, "ABI");
static_assert(sizeof(struct vgpu_driver_request) == 536, "ABI");

#endif
