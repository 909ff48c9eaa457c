/* SPDX-License-Identifier: MIT */
/*
 * The worker's side of a command queue: takes commands out, gives answers, parks. See
 * protocol/vgpu-queue.h for the other side and for who writes what.
 *
 * The queue lies in memory that the guest changes as it likes. Each word of it is read once,
 * what this side writes is never read back, and a command is copied before it is looked at.
 */
#ifndef VGPU_WORKER_RING_H
#define VGPU_WORKER_RING_H

#include <stdbool.h>
#include <stdint.h>

#include "common/shared.h"
#include "protocol/vgpu-queue.h"
#include "worker/interrupt.h"

struct ring {
    struct vgpu_queue *queue;
    struct interrupt interrupt;
    uint32_t head;   /* bytes taken */
    uint32_t tail;   /* as last read */
    uint32_t parked; /* as last stored */
};

/* A command, copied and of a length that fits its header; aligned for the structures in `body`. */
struct ring_command {
    _Alignas(VGPU_COMMAND_ALIGN) struct vgpu_command header;
    uint8_t body[VGPU_COMMAND_MAX - sizeof(struct vgpu_command)]; /* header.length less header */
};
static_assert(sizeof(struct ring_command) == VGPU_COMMAND_MAX, "the header needs no padding");

enum ring_state {
    RING_EMPTY,
    RING_COMMAND, /* *command is the next one, which has left the ring */
    RING_BAD,     /* what the ring holds is no command; it stays so */
};

void ring_init(struct ring *ring, struct vgpu_queue *queue, int irq);

/* Takes the next command. What is bad is told to the guest, as by ring_refuse(). */
enum ring_state ring_take(struct ring *ring, struct ring_command *command);

/* Tells the guest which command ends its session and why: the one that was taken last. */
void ring_refuse(struct ring *ring, const struct vgpu_command *command, enum vgpu_refusal why);

/*
 * Answers a command with `length` bytes, at most VGPU_PAYLOAD_MAX, and signals the interrupt where
 * the guest waits for it. The slot is one that ring_take() has let through, not 0.
 */
void ring_answer(struct ring *ring, const struct vgpu_command *command, enum vgpu_gpu_error result,
                 const void *payload, uint32_t length);

/* The same for the failure of another command, whose vgpu_culprit() is given. */
void ring_answer_for(struct ring *ring, const struct vgpu_command *command,
                     enum vgpu_gpu_error result, uint32_t culprit);

/*
 * For a command that the GPU will answer, by storing its sequence number: prepares the rest of a
 * success without a payload, and returns where that is to be stored.
 */
uint32_t *ring_prepare_answer(struct ring *ring, const struct vgpu_command *command);

/* Whether it has; or the guest says so, whose memory that is. */
bool ring_has_answer(const struct ring *ring, const struct vgpu_command *command);

/* It has answered: signals the interrupt where the guest waits for it. */
void ring_note_answer(struct ring *ring);

/* Whether the guest has posted what is not taken yet. */
static inline bool ring_posted(const struct ring *ring)
{
    return shared_load(&ring->queue->tail) != ring->head;
}

/* Announces that this side is about to sleep; false when there is something to do instead. */
bool ring_park(struct ring *ring);

/* Announces that it is awake, if it was not. */
void ring_unpark(struct ring *ring);

#endif
