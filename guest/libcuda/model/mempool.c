/* SPDX-License-Identifier: MIT */
/* Pools: which block is whose, and what is kept; see mempool.h. */
#include "guest/libcuda/model/mempool.h"

#include <pthread.h>
#include <stdlib.h>

#include "guest/libcuda/model/block.h"
#include "guest/libcuda/model/context.h"
#include "guest/libcuda/model/memory.h"
#include "guest/libcuda/model/spare.h"
#include "guest/libcuda/state/state.h"
#include "guest/libcuda/wire/wire-calls.h"
#include "guest/libvgpu/session.h"

#define GRANULE UINT64_C(512)             /* of blocks, bytes */
#define CHUNK_GRANULE (UINT64_C(2) << 20) /* of chunks */
#define CHUNK_BYTES (UINT64_C(32) << 20)  /* the least that is asked for, if there is so much */

static pthread_mutex_t mutex = PTHREAD_MUTEX_INITIALIZER; /* of all that follows */
static struct pool standard = {.reuse = {1, 1, 1}};
static struct pool *pools; /* all others */
static struct pool *current = &standard;
static uint64_t last_position; /* also read without the mutex */

static struct pool *pool_find(CUmemoryPool wanted)
{
    struct pool *pool = pools;

    if (wanted == (CUmemoryPool)&standard) {
        return &standard;
    }
    while (pool && (pool != (struct pool *)wanted || pool->ended)) {
        pool = pool->next;
    }
    return pool;
}

/* Blocks -------------------------------------------------------------------------------------- */

/* The smallest block that a stream may have, so that large ones last; NULL when there is none. */
static struct block *find_block(const struct pool *pool, uint64_t bytes, uint64_t stream)
{
    struct block *best = NULL;

    for (const struct chunk *chunk = pool->chunks; chunk; chunk = chunk->next) {
        for (struct block *block = chunk->first; block; block = block->next) {
            if (!block->used && block->bytes >= bytes &&
                (block->settled || block->stream == stream) &&
                (!best || block->bytes < best->bytes)) {
                best = block;
            }
        }
    }
    return best;
}

static void pool_count(uint64_t *value, uint64_t *high, uint64_t bytes)
{
    *value += bytes;
    *high = *value > *high ? *value : *high;
}

static bool take_block(struct pool *pool, struct block *block, uint64_t bytes)
{
    if (!split_block(block, bytes)) {
        return false;
    }
    settle_block(block);
    block->used = true;
    pool_count(&pool->used, &pool->used_high, bytes);
    return true;
}

/* Chunks -------------------------------------------------------------------------------------- */

static bool is_over_limit(const struct pool *pool, uint64_t bytes)
{
    return pool->limit != 0 && bytes > pool->limit - pool->reserved;
}

static struct block *reuse_chunk(struct pool *pool, uint64_t bytes)
{
    /* A spare one may be up to twice as large, and counts as a whole. */
    struct chunk *chunk = is_over_limit(pool, 2 * bytes) ? NULL : spare_take(bytes);

    if (!chunk) {
        return NULL;
    }
    chunk->next = pool->chunks;
    pool->chunks = chunk;
    pool_count(&pool->reserved, &pool->reserved_high, chunk->bytes);
    return chunk->first;
}

static struct block *add_chunk(struct pool *pool, uint64_t bytes)
{
    struct chunk *chunk = calloc(1, sizeof(*chunk));
    struct block *block = calloc(1, sizeof(*block));
    uint64_t address = 0;

    if (!chunk || !block || is_over_limit(pool, bytes) ||
        memory_allocate(bytes, &address) != CUDA_SUCCESS) {
        free(chunk);
        free(block);
        return NULL;
    }
    *block = (struct block){.address = address, .bytes = bytes, .settled = true};
    *chunk = (struct chunk){
        .next = pool->chunks, .first = block, .address = address, .bytes = bytes};
    pool->chunks = chunk;
    pool_count(&pool->reserved, &pool->reserved_high, bytes);
    return block;
}

/* A new chunk that has so many bytes, and more where there is more. */
static struct block *pool_grow(struct pool *pool, uint64_t bytes)
{
    const uint64_t least = (bytes + CHUNK_GRANULE - 1) & ~(CHUNK_GRANULE - 1);
    struct block *block = NULL;

    if (least < bytes) {
        return NULL;
    }
    block = reuse_chunk(pool, least < CHUNK_BYTES ? CHUNK_BYTES : least);
    if (!block && least < CHUNK_BYTES) {
        block = add_chunk(pool, CHUNK_BYTES);
    }
    return block ? block : add_chunk(pool, least);
}

/* Gives free chunks back, as far as so many bytes are left. */
static void pool_shrink(struct pool *pool, uint64_t keep)
{
    struct chunk **place = &pool->chunks;

    while (*place && pool->reserved > keep) {
        struct chunk *chunk = *place;

        merge_all(chunk);
        if (chunk->first->next || chunk->first->used || !chunk->first->settled ||
            pool->reserved - chunk->bytes < keep) {
            place = &chunk->next;
            continue;
        }
        *place = chunk->next;
        pool->reserved -= chunk->bytes;
        spare_add(chunk);
    }
}

/* A pool that was destroyed goes with its last block. */
static void end_if_unused(struct pool *pool)
{
    struct pool **place = &pools;

    if (!pool->ended) {
        return;
    }
    pool_shrink(pool, 0);
    if (pool->chunks) {
        return;
    }
    while (*place != pool) {
        place = &(*place)->next;
    }
    *place = pool->next;
    free(pool);
}

/* Calls something for all pools; the next one is known before, since it may end. With the mutex. */
static void for_all(void (*act)(struct pool *pool, uint64_t stream, uint64_t position),
                    uint64_t stream, uint64_t position)
{
    struct pool *next = pools;

    act(&standard, stream, position);
    while (next) {
        struct pool *pool = next;

        next = pool->next;
        act(pool, stream, position);
    }
}

/* What is done -------------------------------------------------------------------------------- */

/* Stands for all streams; no handle is this. */
#define ALL_STREAMS UINT64_MAX

static void settle_pool(struct pool *pool, uint64_t stream, uint64_t position)
{
    for (struct chunk *chunk = pool->chunks; chunk; chunk = chunk->next) {
        for (struct block *block = chunk->first; block; block = block->next) {
            if (!block->used && block->position <= position &&
                (stream == ALL_STREAMS || block->stream == stream)) {
                settle_block(block);
            }
        }
        merge_all(chunk);
    }
    if (pool->reserved > pool->threshold) {
        pool_shrink(pool, pool->threshold);
    }
    end_if_unused(pool);
}

uint64_t pool_position(void)
{
    return __atomic_load_n(&last_position, __ATOMIC_RELAXED);
}

/* Each wait comes here: without freed blocks it costs a look at a counter. */
void pool_settle(uint64_t stream, uint64_t position)
{
    if (__atomic_load_n(&unsettled_blocks, __ATOMIC_RELAXED) == 0) {
        return;
    }
    pthread_mutex_lock(&mutex);
    for_all(settle_pool, stream, position);
    pthread_mutex_unlock(&mutex);
}

void pool_settle_all(uint64_t position)
{
    pool_settle(ALL_STREAMS, position);
    if (spare_bytes() > 0) {
        pthread_mutex_lock(&mutex);
        spares_drop();
        pthread_mutex_unlock(&mutex);
    }
}

/* Allocating ---------------------------------------------------------------------------------- */

/* With the mutex. */
static struct block *pool_allocate(struct pool *pool, uint64_t bytes, uint64_t stream)
{
    struct block *block = find_block(pool, bytes, stream);

    if (!block) {
        block = pool_grow(pool, bytes);
    }
    return block && take_block(pool, block, bytes) ? block : NULL;
}

static void shrink_pool(struct pool *pool, uint64_t stream, uint64_t position)
{
    (void)stream;
    (void)position;
    pool_shrink(pool, 0);
}

bool pool_give_up(void)
{
    const uint64_t position = pool_position();
    bool any;

    /* Before the mutex: others may allocate meanwhile. What they free has a later position. */
    if (vgpu_session_sync(cuda.session) != VGPU_OK) {
        return false;
    }
    pthread_mutex_lock(&mutex);
    for_all(settle_pool, ALL_STREAMS, position);
    for_all(shrink_pool, 0, 0);
    any = spare_bytes() > 0;
    spares_drop();
    pthread_mutex_unlock(&mutex);
    return any;
}

static struct block *block_at(const struct pool *pool, uint64_t address)
{
    for (const struct chunk *chunk = pool->chunks; chunk; chunk = chunk->next) {
        if (address - chunk->address < chunk->bytes) {
            struct block *block = chunk->first;

            while (block && block->address != address) {
                block = block->next;
            }
            return block;
        }
    }
    return NULL;
}

static void pool_release_block(struct pool *pool, uint64_t address, uint64_t stream, bool settled)
{
    struct block *block = block_at(pool, address);

    if (!block || !block->used) {
        return;
    }
    block->used = false;
    block->settled = settled;
    block->stream = stream;
    block->position = __atomic_add_fetch(&last_position, 1, __ATOMIC_RELAXED);
    pool->used -= block->bytes;
    if (!settled) {
        __atomic_fetch_add(&unsettled_blocks, 1, __ATOMIC_RELAXED);
    }
    merge_around(block);
    if (settled) {
        end_if_unused(pool);
    }
}

void pool_return(const struct memory *area)
{
    pthread_mutex_lock(&mutex);
    pool_release_block(area->pool, area->address, 0, true);
    pthread_mutex_unlock(&mutex);
}

/* From a pool, which the mutex keeps. */
static CUresult allocate_from(struct pool *pool, size_t bytes, uint64_t stream,
                              CUdeviceptr *address)
{
    const uint64_t rounded = (bytes + GRANULE - 1) & ~(GRANULE - 1);
    struct block *block = rounded < bytes ? NULL : pool_allocate(pool, rounded, stream);

    if (!block) {
        return CUDA_ERROR_OUT_OF_MEMORY;
    }
    if (!memory_add((struct memory){.address = block->address,
                                    .bytes = rounded,
                                    .context = context_current(),
                                    .kind = MEMORY_POOLED,
                                    .pool = pool})) {
        pool_release_block(pool, block->address, stream, true);
        return CUDA_ERROR_OUT_OF_MEMORY;
    }
    *address = block->address;
    return CUDA_SUCCESS;
}

CUresult pool_take(CUmemoryPool pool, size_t bytes, uint64_t stream, CUdeviceptr *address)
{
    struct pool *known;
    CUresult r;

    pthread_mutex_lock(&mutex);
    known = pool_find(pool);
    r = known ? allocate_from(known, bytes, stream, address) : CUDA_ERROR_INVALID_VALUE;
    pthread_mutex_unlock(&mutex);
    return r;
}

void pool_free(const struct memory *area, uint64_t stream)
{
    pthread_mutex_lock(&mutex);
    pool_release_block(area->pool, area->address, stream, false);
    pthread_mutex_unlock(&mutex);
}

/* Pools --------------------------------------------------------------------------------------- */

CUmemoryPool pool_default(void)
{
    return (CUmemoryPool)&standard;
}

CUmemoryPool pool_current(void)
{
    CUmemoryPool pool;

    pthread_mutex_lock(&mutex);
    pool = (CUmemoryPool)current;
    pthread_mutex_unlock(&mutex);
    return pool;
}

bool pool_choose(CUmemoryPool pool)
{
    struct pool *known = pool_lock(pool);

    current = known ? known : current;
    pool_unlock();
    return known != NULL;
}

CUmemoryPool pool_new(uint64_t limit)
{
    struct pool *made = calloc(1, sizeof(*made));

    if (made) {
        *made = (struct pool){.limit = limit, .reuse = {1, 1, 1}};
        pthread_mutex_lock(&mutex);
        made->next = pools;
        pools = made;
        pthread_mutex_unlock(&mutex);
    }
    return (CUmemoryPool)made;
}

bool pool_end(CUmemoryPool pool)
{
    struct pool *known = pool_lock(pool);
    const bool ends = known && known != &standard;

    if (ends) {
        known->ended = true;
        current = current == known ? &standard : current;
        end_if_unused(known);
    }
    pool_unlock();
    return ends;
}

bool pool_trim(CUmemoryPool pool, uint64_t keep)
{
    struct pool *known = pool_lock(pool);

    if (known) {
        pool_shrink(known, keep);
        spares_drop();
    }
    pool_unlock();
    return known != NULL;
}

struct pool *pool_lock(CUmemoryPool pool)
{
    pthread_mutex_lock(&mutex);
    return pool_find(pool);
}

void pool_unlock(void)
{
    pthread_mutex_unlock(&mutex);
}
