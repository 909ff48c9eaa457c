/* SPDX-License-Identifier: MIT */
/*
 * Access to memory that somebody untrusted may change at any moment.
 *
 * Every word is read exactly once, by a volatile access, so that the compiler can
 * neither re-read what was checked nor invent accesses. Words that order other data
 * go through acquire and release; each use names its partner.
 */
#ifndef VGPU_COMMON_SHARED_H
#define VGPU_COMMON_SHARED_H

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

static inline uint64_t shared_load64(const uint64_t *word)
{
    return __atomic_load_n(word, __ATOMIC_RELAXED);
}

static inline void shared_store64(uint64_t *word, uint64_t value)
{
    __atomic_store_n(word, value, __ATOMIC_RELAXED);
}

static inline uint64_t shared_load64_acquire(const uint64_t *word)
{
    return __atomic_load_n(word, __ATOMIC_ACQUIRE);
}

static inline void shared_store64_release(uint64_t *word, uint64_t value)
{
    __atomic_store_n(word, value, __ATOMIC_RELEASE);
}

/* True when *word was `from` and now is `to`; a full barrier then. */
static inline int shared_swap(uint32_t *word, uint32_t from, uint32_t to)
{
    return __atomic_compare_exchange_n(word, &from, to, 0, __ATOMIC_SEQ_CST, __ATOMIC_SEQ_CST);
}

/* Orders a store before it against a load behind it, on both sides of a wake-up. */
static inline void shared_fence(void)
{
    __atomic_thread_fence(__ATOMIC_SEQ_CST);
}

/* What the poison build (meson -Dpoison=true) leaves where bytes were copied from. */
#define SHARED_POISON 0xdbdbdbdbu

/*
 * Copies `length` bytes, a multiple of 4 at word alignment, each word read once. With the poison
 * build the source is overwritten, so that code which looks there again is found by its tests.
 */
static inline void shared_copy_in(void *to, void *from, size_t length)
{
    volatile uint32_t *words = from;

    for (size_t i = 0; i < length / 4; i++) {
        const uint32_t word = words[i];

        memcpy((uint8_t *)to + 4 * i, &word, 4);
#ifdef VGPU_POISON
        words[i] = SHARED_POISON;
#endif
    }
}

/*
 * 16 bytes that are read and written at once. They may alias anything, as memcpy()'s bytes do: what
 * is copied is read as a structure afterwards, and a compiler that knows otherwise could go on with
 * a field's value from before the copy.
 */
typedef uint64_t shared_pair __attribute__((vector_size(16), may_alias));

/* The same for a multiple of 16 bytes, aligned to that on both sides, as commands are. */
static inline void shared_copy_in_pairs(void *to, void *from, size_t length)
{
    volatile shared_pair *pairs = from;
    shared_pair *own = to;
    const shared_pair *end = own + length / sizeof(*own);

    while (own != end) {
        *own++ = *pairs;
#ifdef VGPU_POISON
        *pairs = (shared_pair){SHARED_POISON * UINT64_C(0x100000001),
                               SHARED_POISON * UINT64_C(0x100000001)};
#endif
        pairs++;
    }
}

#endif
