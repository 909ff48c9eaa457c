/* SPDX-License-Identifier: MIT */
/*
 * Register mode: what the request and response buffers hold.
 *
 * A request is a 16-byte header and operands that depend on the opcode; a response
 * is the result alone, RESPONSE_LEN bytes of it. All fields are little-endian.
 * Reserved fields are zero. Vectors that lie in the shared memory are named by
 * byte offset into BAR2 and element count; the worker computes on them in place.
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
    uint64_t count;  /* elements in each vector; 0 for opcodes without elements */
};
static_assert(sizeof(struct vgpu_request_header) == 16, "ABI");

/* Pairs that fit the request buffer beside the header. */
#define VGPU_INLINE_MAX                                                                            \
    ((VGPU_REQUEST_MAX - (uint32_t)sizeof(struct vgpu_request_header)) / (2 * VGPU_ELEMENT_SIZE))

/* Bytes that an echo can carry. */
#define VGPU_ECHO_MAX (VGPU_REQUEST_MAX - (uint32_t)sizeof(struct vgpu_request_header))

/*
 * Follows the header of VGPU_OP_ADD_SHM: byte offsets into the shared memory, each a
 * multiple of 4. The sum may replace an operand (equal offsets), not overlap it in part.
 */
struct vgpu_add_shm {
    uint64_t a;
    uint64_t b;
    uint64_t sum;
};
static_assert(sizeof(struct vgpu_add_shm) == 24, "ABI");

struct vgpu_device_info {
    uint32_t backend;      /* VGPU_FEATURE_BACKEND_CPU or VGPU_FEATURE_BACKEND_GPU */
    uint32_t compute;      /* compute capability, major << 16 | minor; 0 on the CPU */
    uint32_t processors;   /* multiprocessors of the GPU; 1 on the CPU */
    uint32_t driver;       /* CUDA driver version as the driver reports it; 0 on the CPU */
    uint64_t memory_total; /* bytes of device memory; on the CPU 0, in a session what it plays */
    uint64_t reserved;
    char name[64]; /* NUL-terminated, printable ASCII */
};
static_assert(sizeof(struct vgpu_device_info) == 96, "ABI");
static_assert(sizeof(struct vgpu_device_info) <= VGPU_RESPONSE_MAX, "fits the response");

#endif
