/* SPDX-License-Identifier: MIT */
/*
 * A guest process's side of a queue for tests: posts commands as libvgpu does. What a test wants
 * to be wrong it stores itself.
 */
#ifndef VGPU_TESTS_UNIT_GUEST_SIDE_H
#define VGPU_TESTS_UNIT_GUEST_SIDE_H

#include <stdint.h>
#include <string.h>

#include "common/shared.h"
#include "protocol/vgpu-queue.h"

struct guest_side {
    struct vgpu_queue *queue;
    uint32_t tail, sequence;
};

/* Bytes of a command with a body of this size. */
static inline uint32_t guest_length(uint32_t body_bytes)
{
    return ((uint32_t)sizeof(struct vgpu_command) + body_bytes + VGPU_COMMAND_ALIGN - 1) &
           ~(VGPU_COMMAND_ALIGN - 1);
}

/* Where the next command goes; the tail is aligned, which the mask tells the compiler. */
static inline uint32_t guest_offset(const struct guest_side *guest)
{
    return guest->tail % VGPU_RING_SIZE & ~(VGPU_COMMAND_ALIGN - 1);
}

/* Bytes of the ring that a command takes now, with the PAD before it if it does not fit the end. */
static inline uint32_t guest_needs(const struct guest_side *guest, uint32_t body_bytes)
{
    const uint32_t to_end = VGPU_RING_SIZE - guest_offset(guest);
    const uint32_t length = guest_length(body_bytes);

    return length > to_end ? to_end + length : length;
}

/* Posts a command and returns its sequence number. The caller has seen that there is room. */
static inline uint32_t guest_post(struct guest_side *guest, uint32_t opcode, uint32_t slot,
                                  const void *body, uint32_t body_bytes)
{
    const uint32_t length = guest_length(body_bytes);
    const uint32_t to_end = VGPU_RING_SIZE - guest_offset(guest);
    const struct vgpu_command pad = {.opcode = VGPU_CMD_PAD, .length = to_end};
    const struct vgpu_command header = {
        .opcode = (uint16_t)opcode,
        .slot = (uint16_t)slot,
        .length = length,
        .sequence = ++guest->sequence,
    };
    uint8_t *to;

    if (length > to_end) {
        memcpy(guest->queue->ring + guest_offset(guest), &pad, sizeof(pad));
        guest->tail += to_end;
    }
    to = guest->queue->ring + guest_offset(guest);
    memcpy(to, &header, sizeof(header));
    if (body_bytes > 0) {
        memcpy(to + sizeof(header), body, body_bytes);
    }
    memset(to + sizeof(header) + body_bytes, 0, length - sizeof(header) - body_bytes);
    guest->tail += length;
    /* Partner: the load-acquire in the worker's ring_take(). */
    shared_store_release(&guest->queue->tail, guest->tail);
    return header.sequence;
}

/* Whether the worker has answered a command. */
static inline int guest_answered(const struct guest_side *guest, uint32_t slot, uint32_t sequence)
{
    /* Partner: the store-release in the worker's ring_answer(). */
    return shared_load_acquire(&guest->queue->slots[slot - 1].sequence) == sequence;
}

#endif
