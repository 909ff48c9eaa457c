/* SPDX-License-Identifier: MIT */
/*
 * The worker's side of a command queue. Everything in the queue is a hostile guest's, at any
 * moment: ring->head and ring->parked are this side's own numbers, which the guest can overwrite in
 * the queue but never change here; `tail` is read when all that it promised is taken; a header is
 * copied, then checked, then believed.
 *
 * A command's form is checked here: that it lies in what was posted, in one piece, and that its
 * slot exists. Whether its opcode is known, and its length right for that, is seen in command.c.
 */
#include "worker/ring.h"

#include <string.h>

#include "common/shared.h"

#define HEADER ((uint32_t)sizeof(struct vgpu_command))

/*
 * `head` and `parked` may be left from the session before; the guest clears the queue too, but it
 * is not relied upon.
 */
void ring_init(struct ring *ring, struct vgpu_queue *queue, int irq)
{
    *ring = (struct ring){.queue = queue, .interrupt = {.fd = irq}};
    shared_store(&queue->head, 0);
    shared_store(&queue->refused.why, VGPU_REFUSED_NONE);
    shared_store(&queue->lost, VGPU_GPU_SUCCESS);
    shared_store(&queue->printed, 0);
    shared_store_release(&queue->parked, 0);
}

void ring_refuse(struct ring *ring, const struct vgpu_command *command, enum vgpu_refusal why)
{
    struct vgpu_queue *queue = ring->queue;

    shared_store(&queue->refused.offset, ring->head - command->length);
    queue->refused.opcode = command->opcode;
    queue->refused.slot = command->slot;
    shared_store(&queue->refused.length, command->length);
    /* Partner: the load-acquire of a guest that finds its session ended. */
    shared_store_release(&queue->refused.why, (uint32_t)why);
}

/* What lies at the head is no command. */
static enum ring_state refuse_next(struct ring *ring, struct vgpu_command header,
                                   enum vgpu_refusal why)
{
    const uint32_t head = ring->head;

    /* As if it had been taken, whatever length it claims. */
    ring->head += header.length;
    ring_refuse(ring, &header, why);
    ring->head = head;
    return RING_BAD;
}

/* Looks how far the guest has posted. What is between head and tail then is whole commands. */
static enum ring_state read_tail(struct ring *ring)
{
    /* Partner: the store-release of the thread that posted. */
    const uint32_t tail = shared_load_acquire(&ring->queue->tail);
    const uint32_t posted = tail - ring->head;

    if (posted > VGPU_RING_SIZE || posted % VGPU_COMMAND_ALIGN != 0) {
        return refuse_next(ring, (struct vgpu_command){0}, VGPU_REFUSED_TAIL);
    }
    ring->tail = tail;
    return posted == 0 ? RING_EMPTY : RING_COMMAND;
}

/* Whether a copied header can be one, with so many contiguous bytes posted. */
static inline bool header_is_good(const struct vgpu_command *header, uint32_t posted)
{
    return header->length >= HEADER && header->length % VGPU_COMMAND_ALIGN == 0 &&
           header->length <= posted && header->reserved == 0 && header->slot <= VGPU_SLOTS;
}

static void leave_ring(struct ring *ring, uint32_t length)
{
    ring->head += length;
    /* Partner: the load-acquire of a guest that waits for room. */
    shared_store_release(&ring->queue->head, ring->head);
}

/* Skips padding up to the ring's end. At the ring's start there must be none: no two in a row. */
static enum ring_state skip_padding(struct ring *ring, struct ring_command *command,
                                    uint32_t to_end)
{
    const struct vgpu_command *header = &command->header;

    if (header->length != to_end || to_end == VGPU_RING_SIZE || header->slot != 0) {
        return refuse_next(ring, *header, VGPU_REFUSED_HEADER);
    }
    leave_ring(ring, to_end);
    return ring_take(ring, command);
}

enum ring_state ring_take(struct ring *ring, struct ring_command *command)
{
    const uint32_t offset = ring->head % VGPU_RING_SIZE;
    const uint32_t to_end = VGPU_RING_SIZE - offset;
    uint8_t *place = ring->queue->ring + offset;
    uint32_t posted;

    if (ring->head == ring->tail) {
        const enum ring_state state = read_tail(ring);

        if (state != RING_COMMAND) {
            return state;
        }
    }
    posted = ring->tail - ring->head;
    shared_copy_in_pairs(&command->header, place, HEADER);
    if (!header_is_good(&command->header, posted < to_end ? posted : to_end)) {
        return refuse_next(ring, command->header, VGPU_REFUSED_HEADER);
    }
    if (command->header.opcode == VGPU_CMD_PAD) {
        return skip_padding(ring, command, to_end);
    }
    if (command->header.length > VGPU_COMMAND_MAX) {
        return refuse_next(ring, command->header, VGPU_REFUSED_HEADER);
    }
    shared_copy_in_pairs(command->body, place + HEADER, command->header.length - HEADER);
    leave_ring(ring, command->header.length);
    return RING_COMMAND;
}

void ring_note_answer(struct ring *ring)
{
    /* Partner: the fence between the guest's store of `waiting` and its look at the slot. */
    shared_fence();
    if (shared_load(&ring->queue->waiting) != 0) {
        interrupt_raise(&ring->interrupt);
    }
}

bool ring_has_answer(const struct ring *ring, const struct vgpu_command *command)
{
    return shared_load_acquire(&ring->queue->slots[command->slot - 1].sequence) ==
           command->sequence;
}

uint32_t *ring_prepare_answer(struct ring *ring, const struct vgpu_command *command)
{
    struct vgpu_slot *slot = &ring->queue->slots[command->slot - 1];

    shared_store(&slot->result, VGPU_GPU_SUCCESS);
    shared_store(&slot->length, 0);
    shared_store(&slot->culprit, 0);
    /* Before the GPU can be told to store the last word. */
    shared_fence();
    return &slot->sequence;
}

/* Stores the rest of an answer whose payload is there already, and lets the guest see it. */
static void complete_answer(struct ring *ring, const struct vgpu_command *command,
                            enum vgpu_gpu_error result, uint32_t length, uint32_t culprit)
{
    struct vgpu_slot *slot = &ring->queue->slots[command->slot - 1];

    shared_store(&slot->result, result);
    shared_store(&slot->length, length);
    shared_store(&slot->culprit, culprit);
    /* Partner: the load-acquire of the thread that waits for this slot. */
    shared_store_release(&slot->sequence, command->sequence);
    ring_note_answer(ring);
}

void ring_answer(struct ring *ring, const struct vgpu_command *command, enum vgpu_gpu_error result,
                 const void *payload, uint32_t length)
{
    if (length > 0) {
        memcpy(ring->queue->slots[command->slot - 1].payload, payload, length);
    }
    complete_answer(ring, command, result, length, 0);
}

void ring_answer_for(struct ring *ring, const struct vgpu_command *command,
                     enum vgpu_gpu_error result, uint32_t culprit)
{
    complete_answer(ring, command, result, 0, culprit);
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
