/* SPDX-License-Identifier: MIT */
/*
 * The guest driver's device files, /dev/vgpu0, /dev/vgpu1, ...: what an open file can do.
 *
 * A file that was opened for writing has a queue of its own, from open(2) until the last close(2),
 * and a part of the arena once it has asked for one. Nobody else can reach either. When the file
 * goes, however its process ended, the queue is closed and the part is free.
 *
 *   open    takes a queue, but not for reading alone; EBUSY when all are taken, ENODEV when the
 *           device is gone
 *   ioctl   below; ENODEV when the device is gone, EINVAL for what makes no sense
 *   mmap    the queue (struct vgpu_queue) at offset 0, the part at VGPU_DRIVER_MMAP_ARENA
 *   poll    readable when the queue's interrupt came since the last read
 *   read    4 bytes: how often it came since the last read; waits unless O_NONBLOCK
 *
 * Signals wait for an ioctl's end, but for SIGKILL and what the kernel makes one of: see
 * guest/driver/request.c.
 */
#ifndef VGPU_PROTOCOL_VGPU_DRIVER_H
#define VGPU_PROTOCOL_VGPU_DRIVER_H

#include <linux/ioctl.h>

#include "vgpu-card.h"
#include "vgpu-queue.h"

#define VGPU_DRIVER_VERSION 1u
#define VGPU_DRIVER_MMAP_ARENA 0x100000000ull /* bytes */

/*
 * INFO: what the device is. Written by the driver. From `version` to `status` they are the
 * registers of the same names in BAR0, as they read now (vgpu-regs.h).
 */
struct vgpu_driver_info {
    uint32_t driver_version; /* VGPU_DRIVER_VERSION */
    uint32_t queue;          /* number of the queue that this file has, below `queues` */
    uint32_t interrupts;     /* 1 when the queue has an interrupt of its own, else 0 */
    /* `queues` is the number of queues of the device, at most VGPU_MAX_QUEUES; `reserved` is 0. */
    uint32_t version, pool, priority, vm_id, features, generation, status, queues, reserved;
    uint64_t shm_size; /* bytes of BAR2 */
};

/*
 * ARENA: takes a part of the arena, once for each open file; a second time is EINVAL. ENOSPC when
 * no part of the size is free.
 */
struct vgpu_driver_arena {
    uint64_t size;   /* in: bytes, or 0: a quarter of the largest free part; out: in whole pages */
    uint64_t offset; /* out: bytes from the start of BAR2 */
};

/*
 * START: starts the session. The driver writes the claim, opens the queue, and waits until it runs
 * or has ended. ETIMEDOUT after a minute, EIO while there is no mediator. The caller has mapped the
 * part at `address` before. After an end it may try again with another address: a host process may
 * have this one in use.
 */
struct vgpu_driver_start {
    uint64_t address;  /* in: where the part is mapped; a multiple of 4096, not 0 */
    uint32_t status;   /* out: QUEUE_STATUS, as vgpu-queue.h has it */
    uint32_t reserved; /* 0 */
};

/*
 * REQUEST: one request in register mode; the driver runs one at a time for all files. A vector in
 * shared memory must lie in the file's part, else EINVAL. EIO while there is no mediator. ETIMEDOUT
 * after `timeout_ms`: the request is dropped then. ECANCELED when somebody resets the device.
 */
struct vgpu_driver_request {
    uint32_t length;                     /* in: bytes valid in `request`, a multiple of 4 */
    uint32_t timeout_ms;                 /* in: how long to wait, in ms */
    uint32_t status;                     /* out: VGPU_STATUS_COMPLETE or VGPU_STATUS_ERROR */
    uint32_t error;                      /* out: enum vgpu_error; NONE unless `status` is ERROR */
    uint32_t response_length;            /* out: bytes valid in `response`; 0 unless COMPLETE */
    uint32_t reserved;                   /* 0 */
    uint8_t request[VGPU_REQUEST_MAX];   /* in: as vgpu-request.h has it */
    uint8_t response[VGPU_RESPONSE_MAX]; /* out: likewise */
};

/*
 * CARD: what the GPU is and does, as it was a tenth of a second ago at most. EIO while there is no
 * mediator, EAGAIN where the host does not tell, or not yet, ETIMEDOUT where it does not end to. It
 * and INFO are all that a file can do which was opened for reading alone; such a file has no queue,
 * and INFO says VGPU_MAX_QUEUES for its number.
 */
struct vgpu_driver_card {
    struct vgpu_card card;          /* out: as it is now */
    int32_t owner[VGPU_MAX_QUEUES]; /* out: the process that has opened each queue, as the caller's
                                       namespace numbers it; 0: none, or one that is not in there */
};

#define VGPU_IOC_INFO _IOR('V', 0, struct vgpu_driver_info)
#define VGPU_IOC_ARENA _IOWR('V', 1, struct vgpu_driver_arena)
#define VGPU_IOC_START _IOWR('V', 2, struct vgpu_driver_start)
#define VGPU_IOC_KICK _IO('V', 3)              /* writes the queue's doorbell */
#define VGPU_IOC_STATUS _IOR('V', 4, uint32_t) /* reads QUEUE_STATUS */
#define VGPU_IOC_EVENTFD _IOW('V', 5, int32_t) /* to signal at each interrupt; -1: none */
#define VGPU_IOC_REQUEST _IOWR('V', 6, struct vgpu_driver_request)
/* Resets register mode. EPERM without CAP_SYS_ADMIN, ETIMEDOUT, EIO. */
#define VGPU_IOC_RESET _IO('V', 7)

#define VGPU_IOC_CARD _IOR('V', 8, struct vgpu_driver_card)

static_assert(sizeof(struct vgpu_driver_card) == 1224, "ABI");
static_assert(sizeof(struct vgpu_driver_info) == 56, "ABI");
static_assert(sizeof(struct vgpu_driver_arena) == 16, "ABI");
static_assert(sizeof(struct vgpu_driver_start) == 16, "ABI");
static_assert(sizeof(struct vgpu_driver_request) == 536, "ABI");

#endif
