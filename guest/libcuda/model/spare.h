/* SPDX-License-Identifier: MIT */
/*
 * Chunks that pools have given back and the host still has: to free them it has to wait until the
 * GPU does nothing. To programs they are free memory. All but spare_bytes() is called with the
 * pools' mutex.
 */
#ifndef VGPU_GUEST_LIBCUDA_MODEL_SPARE_H
#define VGPU_GUEST_LIBCUDA_MODEL_SPARE_H

#include <stdint.h>

struct chunk;

/* Adds a chunk, of which no block is used. */
void spare_add(struct chunk *chunk);

/*
 * Takes the smallest of at least `bytes` bytes and at most twice as many: a larger one would be
 * missing elsewhere. NULL when there is none.
 */
struct chunk *spare_take(uint64_t bytes);

/* Has the host free them all, as soon as it can. */
void spares_drop(void);

/* Bytes of all. */
uint64_t spare_bytes(void);

#endif
