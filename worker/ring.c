/* SPDX-License-Identifier: MIT */
/* The worker's side of a command queue, see ring.h. */
#include "worker/ring.h"

#include <string.h>

#include "common/shared.h"

#define HEADER ((uint32_t)sizeof(struct vgpu_command))

void ring_init(struct ring *ring, struct vgpu_queue *queue, int irq)
{
    *ring = (struct ring){.queue = queue, .interrupt = {.fd = irq}};
    shared_store(&queue->head, 0);
    shared_store_release(&queue->parked, 0);
}

/* Whether a copied header can be that of a command with `room` contiguous bytes posted. */
static bool good_header(const struct vgpu_command *header, uint32_t to_end, uint32_t room)
{
    if (header->length < HEADER || header->length % VGPU_COMMAND_ALIGN != 0 ||
        header->length > room || header->reserved != 0 || header->slot > VGPU_SLOTS) {
        return false;
    }
    if (header->opcode == VGPU_CMD_PAD) {
        /* Nobody needs one at the start; two in a row could go on for ever. */
        return header->length == to_end && to_end < VGPU_RING_SIZE && header->slot == 0;
    }
    return header->length <= VGPU_COMMAND_MAX;
}

enum ring_state ring_take(struct ring *ring, struct ring_command *command)
{
    struct vgpu_queue *queue = ring->queue;

    do {
        const uint32_t offset = ring->head % VGPU_RING_SIZE;
        const uint32_t to_end = VGPU_RING_SIZE - offset;
        uint32_t posted;

        if (ring->head == ring->tail) {
            /* Partner: the store-release of whoever posted. */
            ring->tail = shared_load_acquire(&queue->tail);
        }
        posted = ring->tail - ring->head;
        if (posted == 0) {
            return RING_EMPTY;
        }
        if (posted > VGPU_RING_SIZE || posted % VGPU_COMMAND_ALIGN != 0) {
            return RING_BAD;
        }
        shared_copy_in(&command->header, queue->ring + offset, HEADER);
        if (!good_header(&command->header, to_end, posted < to_end ? posted : to_end)) {
            return RING_BAD;
        }
        if (command->header.opcode != VGPU_CMD_PAD) {
            shared_copy_in(command->body, queue->ring + offset + HEADER,
                           command->header.length - HEADER);
        }
        ring->head += command->header.length;
        /* Partner: the load-acquire of a guest that waits for room. */
        shared_store_release(&queue->head, ring->head);
    } while (command->header.opcode == VGPU_CMD_PAD);
    return RING_COMMAND;
}

void ring_answer(struct ring *ring, const struct vgpu_command *command, enum vgpu_gpu_error result,
                 const void *payload, uint32_t length)
{
    struct vgpu_slot *slot = &ring->queue->slots[command->slot - 1];

    if (length > 0) {
        memcpy(slot->payload, payload, length);
    }
    shared_store(&slot->result, result);
    shared_store(&slot->length, length);
    /* Partner: the load-acquire of the thread that waits for this slot. */
    shared_store_release(&slot->sequence, command->sequence);
    /* Partner: the fence between the guest's store of `waiting` and its look at the slot. */
    shared_fence();
    if (shared_load(&ring->queue->waiting) != 0) {
        interrupt_raise(&ring->interrupt);
    }
}

bool ring_park(struct ring *ring)
{
    shared_store(&ring->queue->parked, ++ring->parked);
    /* Partner: the fence between the guest's store of `tail` and its look at `parked`. */
    shared_fence();
    if (shared_load_acquire(&ring->queue->tail) == ring->head) {
        return true;
    }
    ring_unpark(ring);
    return false;
}

void ring_unpark(struct ring *ring)
{
    if (ring->parked % 2 != 0) {
        shared_store(&ring->queue->parked, ++ring->parked);
    }
}
