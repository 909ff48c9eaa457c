/* SPDX-License-Identifier: MIT */
/*
 * What a guest calls its modules, functions, streams and events by. A handle is an index with a
 * type and a generation: one that was given back, or is of another kind, is found to be wrong.
 * Its bits are as vgpu-queue.h has them.
 */
#ifndef VGPU_WORKER_HANDLES_H
#define VGPU_WORKER_HANDLES_H

#include <stddef.h>
#include <stdint.h>

#include "api/handle-types.h"
#include "protocol/vgpu-queue.h"

/* The most handles that a session may have. */
#define HANDLES_MAX 65536u

struct handle_entry {
    void *object;
    uint64_t parent; /* of a function: its module's handle */
    uint64_t handle; /* of a free entry: the last one, with the type FREE */
    uint32_t next;   /* of a free entry: index + 1 of the next free one, or 0 */
};

struct handles {
    struct handle_entry *entries;
    uint32_t count; /* that exist */
    uint32_t free;  /* index + 1 of the first free one, or 0 */
};

/* Frees the table; the objects stay the caller's. */
void handles_release(struct handles *handles);

/* A handle for an object, or 0 when there are too many or memory is short. */
uint64_t handles_add(struct handles *handles, enum handle_type type, void *object, uint64_t parent);

/*
 * The object behind a handle, or NULL. Every command asks for its own, so that it is here. An entry
 * that is free has the type FREE in its handle, which nobody asks for.
 */
static inline void *handles_get(const struct handles *handles, enum handle_type type,
                                uint64_t handle)
{
    const uint32_t index = vgpu_handle_index(handle);
    const struct handle_entry *entry;

    if (index >= handles->count) {
        return NULL;
    }
    entry = &handles->entries[index];
    return entry->handle == handle && vgpu_handle_type(handle) == (uint32_t)type ? entry->object
                                                                                 : NULL;
}

/* The handle of an object with this parent, or 0. */
uint64_t handles_find(const struct handles *handles, enum handle_type type, const void *object,
                      uint64_t parent);

/* Takes a handle back that handles_get() knows. */
void handles_remove(struct handles *handles, uint64_t handle);

/* Takes back all that have this parent. */
void handles_remove_children(struct handles *handles, uint64_t parent);

/* The next object of a type; *position starts at 0. NULL at the end. */
void *handles_next(const struct handles *handles, enum handle_type type, uint32_t *position);

#endif
