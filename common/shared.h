/* SPDX-License-Identifier: MIT */
/*
 * Access to memory that somebody untrusted may change at any moment.
 *
 * Every word is read exactly once, by a volatile access, so that the compiler can
 * neither re-read what was checked nor invent accesses. Words that order other data
 * go through acquire and release; each use names its partner.
 */
#ifndef VGPU_SHARED_H
#define VGPU_SHARED_H

#include <stddef.h>
#include <stdint.h>
#include <string.h>

static inline uint32_t shared_load(const uint32_t *word)
{
    return __atomic_load_n(word, __ATOMIC_RELAXED);
}

static inline uint32_t shared_load_acquire(const uint32_t *word)
{
    return __atomic_load_n(word, __ATOMIC_ACQUIRE);
}

static inline void shared_store(uint32_t *word, uint32_t value)
{
    __atomic_store_n(word, value, __ATOMIC_RELAXED);
}

static inline void shared_store_release(uint32_t *word, uint32_t value)
{
    __atomic_store_n(word, value, __ATOMIC_RELEASE);
}

/* True when *word was `from` and now is `to`; a full barrier then. */
static inline int shared_swap(uint32_t *word, uint32_t from, uint32_t to)
{
    return __atomic_compare_exchange_n(word, &from, to, 0, __ATOMIC_SEQ_CST, __ATOMIC_SEQ_CST);
}

/* Copies `length` bytes, a multiple of 4 at word alignment, each word read once. */
static inline void shared_copy_in(void *to, const void *from, size_t length)
{
    const volatile uint32_t *words = from;

    for (size_t i = 0; i < length / 4; i++) {
        uint32_t word = words[i];
        memcpy((uint8_t *)to + 4 * i, &word, 4);
    }
}

#endif
