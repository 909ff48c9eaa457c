/* SPDX-License-Identifier: MIT */
/*
 * Rings of entries that are part of what they list. The head is an entry too. Pure: no
 * allocation, nothing fails.
 */
#ifndef VGPU_MEDIATOR_LIST_H
#define VGPU_MEDIATOR_LIST_H

#include <stdbool.h>
#include <stddef.h>

/* Zero-initialised it is in no list. */
struct list_entry {
    struct list_entry *next, *previous; /* NULL when not listed */
};

/* What an entry is part of. */
#define LIST_OWNER(entry, type, member) ((type *)((char *)(entry)-offsetof(type, member)))

static inline void list_init(struct list_entry *head)
{
    head->next = head->previous = head;
}

static inline bool list_empty(const struct list_entry *head)
{
    return head->next == head;
}

static inline bool list_contains(const struct list_entry *entry)
{
    return entry->next != NULL;
}

/* Adds an entry that is in no list before another; before the head is at the end. */
static inline void list_add_before(struct list_entry *place, struct list_entry *entry)
{
    entry->next = place;
    entry->previous = place->previous;
    place->previous->next = entry;
    place->previous = entry;
}

/* Nothing happens when it is in none. */
static inline void list_remove(struct list_entry *entry)
{
    if (list_contains(entry)) {
        entry->previous->next = entry->next;
        entry->next->previous = entry->previous;
        entry->next = entry->previous = NULL;
    }
}

#endif
