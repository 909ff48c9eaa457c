/* SPDX-License-Identifier: MIT */
/*
 * Register mode: what the request and response buffers hold.
 *
 * A request is a 16-byte header and operands that depend on the opcode; the guest writes both. A
 * response is the result alone, RESPONSE_LEN bytes of it; the worker writes it. All fields are
 * little-endian. Reserved fields are 0. A vector in the shared memory is given by its byte offset
 * into BAR2 and its element count; the worker computes on it in place.
 */
#ifndef VGPU_PROTOCOL_VGPU_REQUEST_H
#define VGPU_PROTOCOL_VGPU_REQUEST_H

#include "vgpu-regs.h"

enum vgpu_opcode {
    VGPU_OP_ECHO = 1,        /* the response is what follows the header */
    VGPU_OP_DEVICE_INFO = 2, /* the response is struct vgpu_device_info */
    VGPU_OP_ADD_INLINE = 3,  /* a[count], b[count] follow; the response is sum[count] */
    VGPU_OP_ADD_SHM = 4,     /* struct vgpu_add_shm; no response bytes */
};

/* Element types; every one is 4 bytes wide. */
enum vgpu_type {
    VGPU_TYPE_INT32 = 1,   /* two's complement, wraps on overflow */
    VGPU_TYPE_FLOAT32 = 2, /* IEEE 754 binary32, round to nearest; a NaN result is 0x7fffffff */
};
#define VGPU_ELEMENT_SIZE 4u

struct vgpu_request_header {
    uint32_t opcode; /* enum vgpu_opcode */
    uint32_t type;   /* enum vgpu_type; 0 for opcodes without elements */
    uint64_t count;  /* elements of each vector, at least 1; 0 for opcodes without elements */
};
static_assert(sizeof(struct vgpu_request_header) == 16, "ABI");

/* The most elements of VGPU_OP_ADD_INLINE: both vectors fit the request buffer with the header. */
#define VGPU_INLINE_MAX                                                                            \
    ((VGPU_REQUEST_MAX - (uint32_t)sizeof(struct vgpu_request_header)) / (2 * VGPU_ELEMENT_SIZE))

/* The most bytes that an echo can carry. */
#define VGPU_ECHO_MAX (VGPU_REQUEST_MAX - (uint32_t)sizeof(struct vgpu_request_header))

/*
 * Follows the header of VGPU_OP_ADD_SHM. Offsets are in bytes from the start of BAR2, multiples of
 * 4, and the whole vector lies within BAR2. The sum may have the offset of an operand and replace
 * it, but may not overlap it in part.
 */
struct vgpu_add_shm {
    uint64_t a;   /* offset of the first operand */
    uint64_t b;   /* offset of the second one; may be that of the first */
    uint64_t sum; /* offset of the result */
};
static_assert(sizeof(struct vgpu_add_shm) == 24, "ABI");

/* The response to VGPU_OP_DEVICE_INFO, and the answer to VGPU_CMD_DEVICE_INFO. */
struct vgpu_device_info {
    uint32_t backend;    /* VGPU_FEATURE_BACKEND_CPU or VGPU_FEATURE_BACKEND_GPU */
    uint32_t compute;    /* compute capability, major << 16 | minor; 0 on the CPU */
    uint32_t processors; /* multiprocessors of the GPU; 1 on the CPU */
    uint32_t driver;     /* CUDA driver version as the driver reports it; 0 on the CPU */
    /* Bytes of device memory; in a session at most the quota, in register mode on the CPU 0. */
    uint64_t memory_total;
    uint64_t reserved; /* 0 */
    char name[64];     /* of the device, NUL-terminated, printable ASCII */
};
static_assert(sizeof(struct vgpu_device_info) == 96, "ABI");
static_assert(sizeof(struct vgpu_device_info) <= VGPU_RESPONSE_MAX, "fits the response");

#endif
