/* SPDX-License-Identifier: MIT */
/*
 * Handles: a table of entries and a list of the free ones. A handle names an entry's place, counted
 * from 1, with the entry's type and generation at the time. It is good as long as all three are the
 * entry's, so a handle that was given back, or made up, or is of another kind finds nothing, and
 * never an object of another type behind a pointer.
 *
 * The place that became free last is used next, so the table stays as small as what a guest has at
 * a time. The generation tells the two objects apart; it begins anew after 2^32 uses of a place.
 *
 * The table owns no objects: they stay the caller's when their handles are removed.
 */
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

/*
 * Called when no entry is free. Returns 0, or -1 at the limit and when memory is short: then the
 * table is as it was.
 */
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

static enum handle_type type_of(const struct handle_entry *entry)
{
    return (enum handle_type)vgpu_handle_type(entry->handle);
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
    /* Another generation than the last one here had, so that its handle is not taken for this. */
    entry->handle = place | (uint64_t)type << TYPE_SHIFT |
                    ((entry->handle >> GENERATION_SHIFT) + 1) << GENERATION_SHIFT;
    return entry->handle;
}

/* Looks at all of them: for calls that a program makes once in a while. */
uint64_t handles_find(const struct handles *handles, enum handle_type type, const void *object,
                      uint64_t parent)
{
    for (uint32_t i = 0; i < handles->count; i++) {
        const struct handle_entry *entry = &handles->entries[i];

        if (type_of(entry) == type && entry->object == object && entry->parent == parent) {
            return entry->handle;
        }
    }
    return 0;
}

void handles_remove(struct handles *handles, uint64_t handle)
{
    const uint32_t place = (uint32_t)handle & INDEX_MASK;
    struct handle_entry *entry = &handles->entries[place - 1];

    entry->handle &= ~(UINT64_C(0xff) << TYPE_SHIFT);
    entry->object = NULL;
    entry->next = handles->free;
    handles->free = place;
}

/* A module's functions, when it is unloaded: the backend has freed them with it. */
void handles_remove_children(struct handles *handles, uint64_t parent)
{
    for (uint32_t i = 0; i < handles->count; i++) {
        if (type_of(&handles->entries[i]) != HANDLE_FREE && handles->entries[i].parent == parent) {
            handles_remove(handles, i + 1);
        }
    }
}

void *handles_next(const struct handles *handles, enum handle_type type, uint32_t *position)
{
    while (*position < handles->count) {
        const struct handle_entry *entry = &handles->entries[(*position)++];

        if (type_of(entry) == type) {
            return entry->object;
        }
    }
    return NULL;
}
