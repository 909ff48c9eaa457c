/* SPDX-License-Identifier: MIT */
/*
 * The order of waiting work: bands high > medium > low, first come first served within
 * one. Pure: no I/O, no clock, no allocation.
 */
#ifndef VGPU_MEDIATOR_QUEUE_H
#define VGPU_MEDIATOR_QUEUE_H

#include <stdbool.h>

#include "vgpu-regs.h"

/* Part of whatever waits. Zero-initialised it is in no queue. */
struct queue_entry {
    struct queue_entry *next, *previous; /* NULL when not queued */
};

struct queue {
    struct queue_entry band[VGPU_PRIORITIES]; /* heads of rings */
};

void queue_init(struct queue *queue);
bool queue_empty(const struct queue *queue);

/* Appends an entry that is in no queue to the band of its priority. */
void queue_push(struct queue *queue, struct queue_entry *entry, enum vgpu_priority priority);

/* Takes the entry whose turn it is, NULL when there is none. */
struct queue_entry *queue_pop(struct queue *queue);

/* Takes an entry out, wherever it stands; nothing happens when it is in no queue. */
void queue_remove(struct queue_entry *entry);

static inline bool queue_contains(const struct queue_entry *entry)
{
    return entry->next != NULL;
}

#endif
