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
#ifndef VGPU_GUEST_LIBCUDA_MODEL_MEMPOOL_H
#define VGPU_GUEST_LIBCUDA_MODEL_MEMPOOL_H

#include <stdbool.h>
#include <stdint.h>

#include "api/cuda-types.h"

struct chunk;
struct memory;

struct pool {
    struct pool *next; /* NULL in the default one */
    struct chunk *chunks;
    uint64_t limit;     /* of what is reserved; 0: none */
    uint64_t threshold; /* what is kept though it is free */
    uint64_t reserved, reserved_high, used, used_high;
    int reuse[3]; /* what programs have set; nothing depends on it */
    bool ended;   /* it goes when nothing of it is used */
};

/* The default pool, and the one that cuMemAllocAsync() takes. */
CUmemoryPool pool_default(void);
CUmemoryPool pool_current(void);

/* Makes a pool the current one. False when there is no such pool. */
bool pool_choose(CUmemoryPool pool);

/* A new pool that reserves at most `limit` bytes, 0: as many as there are. NULL: no memory. */
CUmemoryPool pool_new(uint64_t limit);

/*
 * Ends a pool; what is allocated from it stays until it is freed. False when there is no such pool,
 * or it is the default one.
 */
bool pool_end(CUmemoryPool pool);

/* Gives back what is free, down to `keep` bytes. False when there is no such pool. */
bool pool_trim(CUmemoryPool pool, uint64_t keep);

/*
 * The pool that a program means, to look at and to set: nobody else has it until pool_unlock(),
 * which is called in any case. NULL when there is no such pool.
 */
struct pool *pool_lock(CUmemoryPool pool);
void pool_unlock(void);

/*
 * Allocates in the order of a stream. INVALID_VALUE when there is no such pool, OUT_OF_MEMORY when
 * it has nothing and gets nothing.
 */
CUresult pool_take(CUmemoryPool pool, size_t bytes, uint64_t stream, CUdeviceptr *address);

/* Frees an area of a pool in the order of a stream. */
void pool_free(const struct memory *area, uint64_t stream);

/* How many blocks were freed so far: a position for what follows. */
uint64_t pool_position(void);

/*
 * The stream has done all that it had when pool_position() was this; or, for any stream, all of
 * them have. To be told by whoever has waited.
 */
void pool_settle(uint64_t stream, uint64_t position);
void pool_settle_all(uint64_t position);

/*
 * When there is no memory left: waits for all that may still use some, and has the host free what
 * no pool needs. Whether that was anything.
 */
bool pool_give_up(void);

/* Gives back a block whose context ends: nothing uses it. */
void pool_return(const struct memory *area);

#endif
