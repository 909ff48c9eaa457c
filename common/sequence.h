/* SPDX-License-Identifier: MIT */
/*
 * Something in shared memory that one side stores as a whole and others read: its first word is
 * odd while the rest is being stored, 0 before the first time, and another even number after each.
 * A writer that ended in the middle leaves an odd number, which the next one goes on from.
 */
#ifndef VGPU_COMMON_SEQUENCE_H
#define VGPU_COMMON_SEQUENCE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include "common/shared.h"

/* Stores all of `from` but its first word, and then the next number there. One writer at a time. */
static inline void sequence_store(void *to, const void *from, size_t size)
{
    uint32_t *word = to;
    const uint32_t odd = shared_load(word) | 1;

    shared_store(word, odd);
    shared_fence();
    memcpy(word + 1, (const uint32_t *)from + 1, size - sizeof(*word));
    /* Partner: the acquire in sequence_copy(). 0 would say that there was nothing yet. */
    shared_store_release(word, odd + 1 != 0 ? odd + 1 : 2);
}

/* Copies what was stored; false where that is nothing, or changes at the moment. */
static inline bool sequence_copy(void *to, const void *from, size_t size)
{
    const uint32_t *word = from;
    const uint32_t before = shared_load_acquire(word);

    if (before == 0 || (before & 1) != 0) {
        return false;
    }
    memcpy(to, from, size);
    *(uint32_t *)to = before;
    __atomic_thread_fence(__ATOMIC_ACQUIRE);
    return shared_load(word) == before;
}

#endif
