/* SPDX-License-Identifier: MIT */
/*
 * Decoder of register-mode requests: bytes that a guest wrote become a checked
 * struct, or a reason why not.
 */
#ifndef VGPU_WORKER_REQUEST_H
#define VGPU_WORKER_REQUEST_H

#include <stdbool.h>
#include <stdint.h>

#include "protocol/vgpu-request.h"

/* A request that passed every check. What it points to lies in the copy that was decoded. */
struct request {
    enum vgpu_opcode opcode;
    enum vgpu_type type; /* ADD_*: element type */
    uint64_t count;      /* ADD_*: elements; ECHO: bytes */
    union {
        const uint8_t *echo; /* ECHO: count bytes */
        struct {
            const uint8_t *a; /* ADD_INLINE: count elements each, aligned as the copy is */
            const uint8_t *b;
        } inlined;
        struct vgpu_add_shm shm; /* ADD_SHM: offsets, all ranges inside the shared memory */
    };
};

/*
 * Decodes `length` bytes at `bytes`, a private copy of VGPU_REQUEST_MAX bytes that outlives
 * *request. `length` is the guest's claim and may be anything; `shm_size` is in bytes. No
 * byte beyond `length` is looked at. On an error *request is undefined.
 */
enum vgpu_error request_decode(const uint8_t *bytes, uint32_t length, uint64_t shm_size,
                               struct request *request);

/* Whether the request computes, so that it has to wait for its turn. */
bool request_needs_turn(const struct request *request);

/* Whether running it twice gives the same as once: no operand is overwritten. */
bool request_repeatable(const struct request *request);

#endif
