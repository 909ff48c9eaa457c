/* SPDX-License-Identifier: MIT */
/*
 * Pools: device memory that is allocated and freed in the order of streams.
 *
 * A pool has chunks of device memory, and divides them into blocks. A block that was freed in a
 * stream is good for that stream at once, since it will do there what comes next when it has done
 * what came before; for others when it is known that the stream has come that far, because somebody
 * has waited for it. Chunks that are free, and more than the pool is to keep, are spare then: the
 * next pool takes them, and the host gets them when all its streams are waited for.
 */
#ifndef VGPU_GUEST_LIBCUDA_MEMPOOL_H
#define VGPU_GUEST_LIBCUDA_MEMPOOL_H

#include <stdbool.h>
#include <stdint.h>

#include "api/cuda-types.h"

struct memory;

/* How many blocks were freed so far: a position for what follows. */
uint64_t pool_position(void);

/*
 * The stream has done all that it had when pool_position() was this; or, for any stream, all of
 * them have. To be told by whoever has waited.
 */
void pool_settle(uint64_t stream, uint64_t position);
void pool_settle_all(uint64_t position);

/* Bytes that no pool has and the host does not know to be free yet: they are, to a program. */
uint64_t pool_spare(void);

/*
 * When there is no memory left: waits for all that may still use some, and has the host free what
 * no pool needs. Whether that was anything.
 */
bool pool_give_up(void);

/* Gives back a block whose context ends: nothing uses it. */
void pool_return(const struct memory *piece);

#endif
