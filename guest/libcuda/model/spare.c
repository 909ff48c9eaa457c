/* SPDX-License-Identifier: MIT */
/* Spare chunks, see spare.h. */
#include "guest/libcuda/model/spare.h"

#include <stdlib.h>

#include "guest/libcuda/model/block.h"
#include "guest/libcuda/wire/wire-calls.h"

static struct chunk *spares;
static uint64_t bytes_spare; /* also read without the pools' mutex */

void spare_add(struct chunk *chunk)
{
    chunk->next = spares;
    spares = chunk;
    __atomic_fetch_add(&bytes_spare, chunk->bytes, __ATOMIC_RELAXED);
}

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
        call_memory_drop(chunk->address);
        free(chunk->first);
        free(chunk);
    }
}

uint64_t spare_bytes(void)
{
    return __atomic_load_n(&bytes_spare, __ATOMIC_RELAXED);
}
