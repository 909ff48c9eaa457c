/* SPDX-License-Identifier: MIT */
/* The order of waiting work, see queue.h. */
#include "queue.h"

#include <stddef.h>

void queue_init(struct queue *queue)
{
    for (unsigned i = 0; i < VGPU_PRIORITIES; i++) {
        queue->band[i].next = queue->band[i].previous = &queue->band[i];
    }
}

static bool band_empty(const struct queue_entry *head)
{
    return head->next == head;
}

bool queue_empty(const struct queue *queue)
{
    for (unsigned i = 0; i < VGPU_PRIORITIES; i++) {
        if (!band_empty(&queue->band[i])) {
            return false;
        }
    }
    return true;
}

void queue_push(struct queue *queue, struct queue_entry *entry, enum vgpu_priority priority)
{
    struct queue_entry *head = &queue->band[priority];

    entry->next = head;
    entry->previous = head->previous;
    head->previous->next = entry;
    head->previous = entry;
}

struct queue_entry *queue_pop(struct queue *queue)
{
    for (unsigned i = VGPU_PRIORITIES; i-- > 0;) {
        struct queue_entry *first = queue->band[i].next;

        if (!band_empty(&queue->band[i])) {
            queue_remove(first);
            return first;
        }
    }
    return NULL;
}

void queue_remove(struct queue_entry *entry)
{
    if (!queue_contains(entry)) {
        return;
    }
    entry->previous->next = entry->next;
    entry->next->previous = entry->previous;
    entry->next = entry->previous = NULL;
}
