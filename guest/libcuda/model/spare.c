/* SPDX-License-Identifier: MIT */
/*
 * Spare chunks, see spare.h.
 *
 * To free device memory the driver waits until the GPU does nothing, which would hold up a program
 * that frees at every step. So the host is told to drop a chunk only when the program itself has
 * waited for everything, or nothing else is left. Spare chunks do not belong to a pool: another
 * pool may take them, and cuMemGetInfo() calls them free.
 */
#include "guest/libcuda/model/spare.h"

#include <stdlib.h>

#include "guest/libcuda/model/block.h"
#include "guest/libcuda/wire/wire-calls.h"

/* With the pools' mutex. */
static struct chunk *spares;
static uint64_t bytes_spare; /* also read without the pools' mutex */

void spare_add(struct chunk *chunk)
{
    chunk->next = spares;
    spares = chunk;
    __atomic_fetch_add(&bytes_spare, chunk->bytes, __ATOMIC_RELAXED);
}

/* `best` is where the pointer to it lies, to take it out of the list of single links. */
struct chunk *spare_take(uint64_t bytes)
{
    struct chunk **best = NULL, *chunk;

    for (struct chunk **place = &spares; *place; place = &(*place)->next) {
        if ((*place)->bytes >= bytes && (*place)->bytes <= 2 * bytes &&
            (!best || (*place)->bytes < (*best)->bytes)) {
            best = place;
        }
    }
    if (!best) {
        return NULL;
    }
    chunk = *best;
    *best = chunk->next;
    __atomic_fetch_sub(&bytes_spare, chunk->bytes, __ATOMIC_RELAXED);
    return chunk;
}

void spares_drop(void)
{
    while (spares) {
        struct chunk *chunk = spares;

        spares = chunk->next;
        __atomic_fetch_sub(&bytes_spare, chunk->bytes, __ATOMIC_RELAXED);
        /*
         * Posted: the host frees it when no work is left that might use it. A chunk has one block
         * then, as pools merge all before they give it back.
         */
        call_memory_drop(chunk->address);
        free(chunk->first);
        free(chunk);
    }
}

/* A little old maybe, as the free memory that the host tells is. */
uint64_t spare_bytes(void)
{
    return __atomic_load_n(&bytes_spare, __ATOMIC_RELAXED);
}
