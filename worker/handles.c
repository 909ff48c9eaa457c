/* SPDX-License-Identifier: MIT */
/* Handles, see handles.h. */
#include "worker/handles.h"

#include <stdlib.h>

#define INDEX_MASK 0xffffffu
#define TYPE_SHIFT 24
#define GENERATION_SHIFT 32
#define GROWTH 64u /* entries */

void handles_release(struct handles *handles)
{
    free(handles->entries);
    *handles = (struct handles){0};
}

static int handles_grow(struct handles *handles)
{
    const uint32_t count = handles->count + GROWTH;
    struct handle_entry *entries;

    if (count > HANDLES_MAX) {
        return -1;
    }
    entries = realloc(handles->entries, count * sizeof(entries[0]));
    if (!entries) {
        return -1;
    }
    handles->entries = entries;
    for (uint32_t i = handles->count; i < count; i++) {
        entries[i] = (struct handle_entry){.next = i + 1 < count ? i + 2 : 0};
    }
    handles->free = handles->count + 1;
    handles->count = count;
    return 0;
}

static uint64_t handle_of(const struct handles *handles, uint32_t place)
{
    const struct handle_entry *entry = &handles->entries[place - 1];

    return place | (uint64_t)entry->type << TYPE_SHIFT |
           (uint64_t)entry->generation << GENERATION_SHIFT;
}

uint64_t handles_add(struct handles *handles, enum handle_type type, void *object, uint64_t parent)
{
    struct handle_entry *entry;
    uint32_t place;

    if (handles->free == 0 && handles_grow(handles) < 0) {
        return 0;
    }
    place = handles->free;
    entry = &handles->entries[place - 1];
    handles->free = entry->next;
    entry->object = object;
    entry->parent = parent;
    entry->type = type;
    entry->generation++;
    return handle_of(handles, place);
}

void *handles_get(const struct handles *handles, enum handle_type type, uint64_t handle)
{
    const uint32_t place = (uint32_t)handle & INDEX_MASK;
    const struct handle_entry *entry;

    if (place == 0 || place > handles->count) {
        return NULL;
    }
    entry = &handles->entries[place - 1];
    if (entry->type != type || ((handle >> TYPE_SHIFT) & 0xff) != (uint64_t)type ||
        entry->generation != (uint32_t)(handle >> GENERATION_SHIFT)) {
        return NULL;
    }
    return entry->object;
}

uint64_t handles_find(const struct handles *handles, enum handle_type type, const void *object,
                      uint64_t parent)
{
    for (uint32_t i = 0; i < handles->count; i++) {
        const struct handle_entry *entry = &handles->entries[i];

        if (entry->type == type && entry->object == object && entry->parent == parent) {
            return handle_of(handles, i + 1);
        }
    }
    return 0;
}

void handles_remove(struct handles *handles, uint64_t handle)
{
    const uint32_t place = (uint32_t)handle & INDEX_MASK;
    struct handle_entry *entry = &handles->entries[place - 1];

    entry->type = HANDLE_FREE;
    entry->object = NULL;
    entry->next = handles->free;
    handles->free = place;
}

void handles_remove_children(struct handles *handles, uint64_t parent)
{
    for (uint32_t i = 0; i < handles->count; i++) {
        if (handles->entries[i].type != HANDLE_FREE && handles->entries[i].parent == parent) {
            handles_remove(handles, i + 1);
        }
    }
}

void *handles_next(const struct handles *handles, enum handle_type type, uint32_t *position)
{
    while (*position < handles->count) {
        const struct handle_entry *entry = &handles->entries[(*position)++];

        if (entry->type == type) {
            return entry->object;
        }
    }
    return NULL;
}
