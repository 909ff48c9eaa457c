/* SPDX-License-Identifier: MIT */
/* Pools of device memory, see pool.h. */
#include "guest/libcuda/mempool.h"

#include <pthread.h>
#include <stdlib.h>
#include <string.h>

#include "guest/libcuda/capture.h"
#include "guest/libcuda/entry.h"
#include "guest/libcuda/memory.h"
#include "guest/libcuda/stream.h"
#include "guest/libvgpu/session.h"

#define GRANULE UINT64_C(512)             /* of blocks, bytes */
#define CHUNK_GRANULE (UINT64_C(2) << 20) /* of chunks */
#define CHUNK_BYTES (UINT64_C(32) << 20)  /* the least that is asked for, if there is so much */

/* A part of a chunk. */
struct block {
    struct block *next, *before; /* in the chunk, by addresses */
    uint64_t address, bytes;
    bool used;
    /* Of a free one. */
    bool settled; /* nothing uses it any more */
    uint64_t stream, position;
};

struct chunk {
    struct chunk *next;
    struct block *first;
    uint64_t address, bytes;
};

struct pool {
    struct pool *next; /* NULL in the default one */
    struct chunk *chunks;
    uint64_t limit;     /* of what is reserved; 0: none */
    uint64_t threshold; /* what is kept though it is free */
    uint64_t reserved, reserved_high, used, used_high;
    int reuse[3]; /* what programs have set; nothing depends on it */
    bool ended;   /* it goes when nothing of it is used */
};

static pthread_mutex_t mutex = PTHREAD_MUTEX_INITIALIZER; /* of all that follows */
static struct pool standard = {.reuse = {1, 1, 1}};
static struct pool *pools; /* all others */
static struct pool *current = &standard;
static uint64_t last_position; /* also read without the mutex */
static uint64_t unsettled;     /* likewise: free blocks that something may still use */

/*
 * Chunks that pools have given back and the host still has: to free them it has to wait until the
 * GPU does nothing. To programs they are free memory.
 */
static struct chunk *spares;
static uint64_t spare_bytes; /* also read without the mutex */

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

static void settle_block(struct block *block)
{
    if (!block->settled) {
        block->settled = true;
        __atomic_fetch_sub(&unsettled, 1, __ATOMIC_RELAXED);
    }
}

/* Whether two free neighbours can be one. */
static bool are_alike(const struct block *a, const struct block *b)
{
    return !a->used && !b->used && a->settled == b->settled &&
           (a->settled || a->stream == b->stream);
}

/* Makes a block and the one behind it one, which is as free as the later of them. */
static void merge_blocks(struct block *block)
{
    struct block *gone = block->next;

    block->bytes += gone->bytes;
    block->position = gone->position > block->position ? gone->position : block->position;
    block->next = gone->next;
    if (block->next) {
        block->next->before = block;
    }
    settle_block(gone);
    free(gone);
}

static void merge_around(struct block *block)
{
    if (block->next && are_alike(block, block->next)) {
        merge_blocks(block);
    }
    if (block->before && are_alike(block->before, block)) {
        merge_blocks(block->before);
    }
}

static void merge_all(struct chunk *chunk)
{
    struct block *block = chunk->first;

    while (block->next) {
        if (are_alike(block, block->next)) {
            merge_blocks(block);
        } else {
            block = block->next;
        }
    }
}

/* Leaves so many bytes in the block; the rest becomes one of its own. */
static bool split_block(struct block *block, uint64_t bytes)
{
    struct block *rest;

    if (block->bytes == bytes) {
        return true;
    }
    rest = malloc(sizeof(*rest));
    if (!rest) {
        return false;
    }
    *rest = *block;
    rest->before = block;
    rest->address += bytes;
    rest->bytes -= bytes;
    if (rest->next) {
        rest->next->before = rest;
    }
    block->next = rest;
    block->bytes = bytes;
    if (!rest->settled) {
        __atomic_fetch_add(&unsettled, 1, __ATOMIC_RELAXED);
    }
    return true;
}

/* The smallest block that a stream may have; NULL when there is none. */
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

static void pool_add_block(uint64_t *value, uint64_t *high, uint64_t bytes)
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
    pool_add_block(&pool->used, &pool->used_high, bytes);
    return true;
}

/* Chunks -------------------------------------------------------------------------------------- */

/* The smallest spare chunk of so many bytes, and not many more; NULL when there is none. */
static struct chunk *take_spare_block(uint64_t bytes)
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
    __atomic_fetch_sub(&spare_bytes, chunk->bytes, __ATOMIC_RELAXED);
    return chunk;
}

/* The host frees them when it can. */
static void drop_spares(void)
{
    while (spares) {
        struct chunk *chunk = spares;

        spares = chunk->next;
        __atomic_fetch_sub(&spare_bytes, chunk->bytes, __ATOMIC_RELAXED);
        call_memory_drop(chunk->address);
        free(chunk->first);
        free(chunk);
    }
}

static bool is_over_limit(const struct pool *pool, uint64_t bytes)
{
    return pool->limit != 0 && bytes > pool->limit - pool->reserved;
}

static struct block *reuse_chunk(struct pool *pool, uint64_t bytes)
{
    struct chunk *chunk = is_over_limit(pool, 2 * bytes) ? NULL : take_spare_block(bytes);

    if (!chunk) {
        return NULL;
    }
    chunk->next = pool->chunks;
    pool->chunks = chunk;
    pool_add_block(&pool->reserved, &pool->reserved_high, chunk->bytes);
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
    pool_add_block(&pool->reserved, &pool->reserved_high, bytes);
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
        chunk->next = spares;
        spares = chunk;
        __atomic_fetch_add(&spare_bytes, chunk->bytes, __ATOMIC_RELAXED);
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

/* Calls something for all pools; the next one is known before, since it may end. */
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

void pool_settle(uint64_t stream, uint64_t position)
{
    if (__atomic_load_n(&unsettled, __ATOMIC_RELAXED) == 0) {
        return;
    }
    pthread_mutex_lock(&mutex);
    for_all(settle_pool, stream, position);
    pthread_mutex_unlock(&mutex);
}

void pool_settle_all(uint64_t position)
{
    pool_settle(ALL_STREAMS, position);
    if (pool_spare() > 0) {
        pthread_mutex_lock(&mutex);
        drop_spares();
        pthread_mutex_unlock(&mutex);
    }
}

uint64_t pool_spare(void)
{
    return __atomic_load_n(&spare_bytes, __ATOMIC_RELAXED);
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

    if (vgpu_session_sync(cuda.session) != VGPU_OK) {
        return false;
    }
    pthread_mutex_lock(&mutex);
    for_all(settle_pool, ALL_STREAMS, position);
    for_all(shrink_pool, 0, 0);
    any = spares != NULL;
    drop_spares();
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
        __atomic_fetch_add(&unsettled, 1, __ATOMIC_RELAXED);
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

static CUresult check_stream(CUstream stream, uint64_t *handle)
{
    *handle = 0;
    if (capture_takes(stream)) {
        capture_spoil(stream);
        return REFUSE("memory that is allocated or freed in a graph");
    }
    return stream_handle(stream, handle);
}

static CUresult allocate_in(CUmemoryPool pool, size_t bytes, uint64_t stream, CUdeviceptr *address)
{
    struct pool *known;
    CUresult r;

    pthread_mutex_lock(&mutex);
    known = pool_find(pool);
    r = known ? allocate_from(known, bytes, stream, address) : CUDA_ERROR_INVALID_VALUE;
    pthread_mutex_unlock(&mutex);
    return r;
}

CUresult guest_cuMemAllocFromPoolAsync(CUdeviceptr *address, size_t bytes, CUmemoryPool pool,
                                       CUstream stream)
{
    uint64_t handle;
    CUresult r = check_stream(stream, &handle);

    if (r != CUDA_SUCCESS) {
        return r;
    }
    if (!address || bytes == 0) {
        return CUDA_ERROR_INVALID_VALUE;
    }
    r = allocate_in(pool, bytes, handle, address);
    if (r == CUDA_ERROR_OUT_OF_MEMORY) {
        /* What was freed may be in use, for other streams; that is waited for. */
        pool_give_up();
        r = allocate_in(pool, bytes, handle, address);
    }
    return r;
}

CUresult guest_cuMemAllocAsync(CUdeviceptr *address, size_t bytes, CUstream stream)
{
    CUmemoryPool pool;

    pthread_mutex_lock(&mutex);
    pool = (CUmemoryPool)current;
    pthread_mutex_unlock(&mutex);
    return guest_cuMemAllocFromPoolAsync(address, bytes, pool, stream);
}

CUresult guest_cuMemFreeAsync(CUdeviceptr address, CUstream stream)
{
    struct memory area;
    uint64_t handle;
    CUresult r = check_stream(stream, &handle);

    if (r != CUDA_SUCCESS) {
        return r;
    }
    if (!memory_find(address, &area) || area.address != address ||
        (area.kind != MEMORY_POOLED && area.kind != MEMORY_DEVICE)) {
        return CUDA_ERROR_INVALID_VALUE;
    }
    /* First, so that who gets the address next is not forgotten. */
    memory_drop(address);
    if (area.kind == MEMORY_DEVICE) {
        return result_of(vgpu_mem_free(cuda.session, address));
    }
    pthread_mutex_lock(&mutex);
    pool_release_block(area.pool, address, handle, false);
    pthread_mutex_unlock(&mutex);
    return CUDA_SUCCESS;
}

/* Pools --------------------------------------------------------------------------------------- */

static CUresult give_pool(CUmemoryPool *pool, struct pool *const *wanted, CUdevice device)
{
    if (!pool) {
        return CUDA_ERROR_INVALID_VALUE;
    }
    if (device != 0) {
        return CUDA_ERROR_INVALID_DEVICE;
    }
    pthread_mutex_lock(&mutex);
    *pool = (CUmemoryPool)*wanted;
    pthread_mutex_unlock(&mutex);
    return CUDA_SUCCESS;
}

CUresult guest_cuDeviceGetDefaultMemPool(CUmemoryPool *pool, CUdevice device)
{
    struct pool *wanted = &standard;

    return give_pool(pool, &wanted, device);
}

CUresult guest_cuDeviceGetMemPool(CUmemoryPool *pool, CUdevice device)
{
    return give_pool(pool, &current, device);
}

CUresult guest_cuDeviceSetMemPool(CUdevice device, CUmemoryPool pool)
{
    struct pool *known;

    if (device != 0) {
        return CUDA_ERROR_INVALID_DEVICE;
    }
    pthread_mutex_lock(&mutex);
    known = pool_find(pool);
    current = known ? known : current;
    pthread_mutex_unlock(&mutex);
    return known ? CUDA_SUCCESS : CUDA_ERROR_INVALID_VALUE;
}

/* There are pools on the device alone, of memory that stays where it is. */
static CUresult check_location(const CUmemLocation *location, CUmemAllocationType type)
{
    if (!location || location->type == CU_MEM_LOCATION_TYPE_INVALID ||
        type == CU_MEM_ALLOCATION_TYPE_INVALID) {
        return CUDA_ERROR_INVALID_VALUE;
    }
    if (location->type != CU_MEM_LOCATION_TYPE_DEVICE || type != CU_MEM_ALLOCATION_TYPE_PINNED) {
        return REFUSE("a pool of memory that is not the device's");
    }
    return location->id == 0 ? CUDA_SUCCESS : CUDA_ERROR_INVALID_DEVICE;
}

CUresult guest_cuMemGetDefaultMemPool(CUmemoryPool *pool, CUmemLocation *location,
                                      CUmemAllocationType type)
{
    const CUresult r = check_location(location, type);

    return r == CUDA_SUCCESS ? guest_cuDeviceGetDefaultMemPool(pool, 0) : r;
}

CUresult guest_cuMemGetMemPool(CUmemoryPool *pool, CUmemLocation *location,
                               CUmemAllocationType type)
{
    const CUresult r = check_location(location, type);

    return r == CUDA_SUCCESS ? guest_cuDeviceGetMemPool(pool, 0) : r;
}

CUresult guest_cuMemSetMemPool(CUmemLocation *location, CUmemAllocationType type, CUmemoryPool pool)
{
    const CUresult r = check_location(location, type);

    return r == CUDA_SUCCESS ? guest_cuDeviceSetMemPool(0, pool) : r;
}

CUresult guest_cuMemPoolCreate(CUmemoryPool *pool, const CUmemPoolProps *props)
{
    struct pool *made;
    CUresult r;

    if (!pool || !props) {
        return CUDA_ERROR_INVALID_VALUE;
    }
    r = check_location(&props->location, props->allocType);
    if (r == CUDA_SUCCESS && props->handleTypes != CU_MEM_HANDLE_TYPE_NONE) {
        r = REFUSE("a pool for several processes");
    }
    if (r != CUDA_SUCCESS) {
        return r;
    }
    made = calloc(1, sizeof(*made));
    if (!made) {
        return CUDA_ERROR_OUT_OF_MEMORY;
    }
    made->limit = props->maxSize;
    for (int i = 0; i < 3; i++) {
        made->reuse[i] = 1;
    }
    pthread_mutex_lock(&mutex);
    made->next = pools;
    pools = made;
    pthread_mutex_unlock(&mutex);
    *pool = (CUmemoryPool)made;
    return CUDA_SUCCESS;
}

/* What is allocated from it stays until it is freed. */
CUresult guest_cuMemPoolDestroy(CUmemoryPool pool)
{
    struct pool *known;

    pthread_mutex_lock(&mutex);
    known = pool_find(pool);
    if (known && known != &standard) {
        known->ended = true;
        current = current == known ? &standard : current;
        end_if_unused(known);
    }
    pthread_mutex_unlock(&mutex);
    return known && known != &standard ? CUDA_SUCCESS : CUDA_ERROR_INVALID_VALUE;
}

CUresult guest_cuMemPoolTrimTo(CUmemoryPool pool, size_t keep)
{
    struct pool *known;

    pthread_mutex_lock(&mutex);
    known = pool_find(pool);
    if (known) {
        pool_shrink(known, keep);
        drop_spares();
    }
    pthread_mutex_unlock(&mutex);
    return known ? CUDA_SUCCESS : CUDA_ERROR_INVALID_VALUE;
}

/* With the mutex. */
static CUresult get_attribute(const struct pool *pool, CUmemPool_attribute attribute, void *value)
{
    uint64_t bytes;

    switch (attribute) {
    case CU_MEMPOOL_ATTR_REUSE_FOLLOW_EVENT_DEPENDENCIES:
    case CU_MEMPOOL_ATTR_REUSE_ALLOW_OPPORTUNISTIC:
    case CU_MEMPOOL_ATTR_REUSE_ALLOW_INTERNAL_DEPENDENCIES:
        memcpy(value, &pool->reuse[attribute - CU_MEMPOOL_ATTR_REUSE_FOLLOW_EVENT_DEPENDENCIES],
               sizeof(int));
        return CUDA_SUCCESS;
    case CU_MEMPOOL_ATTR_RELEASE_THRESHOLD:
        bytes = pool->threshold;
        break;
    case CU_MEMPOOL_ATTR_RESERVED_MEM_CURRENT:
        bytes = pool->reserved;
        break;
    case CU_MEMPOOL_ATTR_RESERVED_MEM_HIGH:
        bytes = pool->reserved_high;
        break;
    case CU_MEMPOOL_ATTR_USED_MEM_CURRENT:
        bytes = pool->used;
        break;
    case CU_MEMPOOL_ATTR_USED_MEM_HIGH:
        bytes = pool->used_high;
        break;
    default:
        return CUDA_ERROR_INVALID_VALUE;
    }
    memcpy(value, &bytes, sizeof(bytes));
    return CUDA_SUCCESS;
}

CUresult guest_cuMemPoolGetAttribute(CUmemoryPool pool, CUmemPool_attribute attribute, void *value)
{
    const struct pool *known;
    CUresult r;

    pthread_mutex_lock(&mutex);
    known = pool_find(pool);
    r = known && value ? get_attribute(known, attribute, value) : CUDA_ERROR_INVALID_VALUE;
    pthread_mutex_unlock(&mutex);
    return r;
}

/* A peak can only be set back to what there is now. */
static CUresult reset_peak(uint64_t *peak, uint64_t now, const void *value)
{
    uint64_t wanted;

    memcpy(&wanted, value, sizeof(wanted));
    if (wanted != 0) {
        return CUDA_ERROR_INVALID_VALUE;
    }
    *peak = now;
    return CUDA_SUCCESS;
}

/* With the mutex. */
static CUresult set_attribute(struct pool *pool, CUmemPool_attribute attribute, const void *value)
{
    switch (attribute) {
    case CU_MEMPOOL_ATTR_REUSE_FOLLOW_EVENT_DEPENDENCIES:
    case CU_MEMPOOL_ATTR_REUSE_ALLOW_OPPORTUNISTIC:
    case CU_MEMPOOL_ATTR_REUSE_ALLOW_INTERNAL_DEPENDENCIES:
        memcpy(&pool->reuse[attribute - CU_MEMPOOL_ATTR_REUSE_FOLLOW_EVENT_DEPENDENCIES], value,
               sizeof(int));
        return CUDA_SUCCESS;
    case CU_MEMPOOL_ATTR_RELEASE_THRESHOLD:
        memcpy(&pool->threshold, value, sizeof(pool->threshold));
        return CUDA_SUCCESS;
    case CU_MEMPOOL_ATTR_RESERVED_MEM_HIGH:
        return reset_peak(&pool->reserved_high, pool->reserved, value);
    case CU_MEMPOOL_ATTR_USED_MEM_HIGH:
        return reset_peak(&pool->used_high, pool->used, value);
    default:
        return CUDA_ERROR_INVALID_VALUE;
    }
}

CUresult guest_cuMemPoolSetAttribute(CUmemoryPool pool, CUmemPool_attribute attribute, void *value)
{
    struct pool *known;
    CUresult r;

    pthread_mutex_lock(&mutex);
    known = pool_find(pool);
    r = known && value ? set_attribute(known, attribute, value) : CUDA_ERROR_INVALID_VALUE;
    pthread_mutex_unlock(&mutex);
    return r;
}

static bool is_pool(CUmemoryPool pool)
{
    bool found;

    pthread_mutex_lock(&mutex);
    found = pool_find(pool) != NULL;
    pthread_mutex_unlock(&mutex);
    return found;
}

CUresult guest_cuMemPoolGetAccess(CUmemAccess_flags *flags, CUmemoryPool pool,
                                  CUmemLocation *location)
{
    if (!flags || !location || !is_pool(pool)) {
        return CUDA_ERROR_INVALID_VALUE;
    }
    *flags = location->type == CU_MEM_LOCATION_TYPE_DEVICE && location->id == 0
                 ? CU_MEM_ACCESS_FLAGS_PROT_READWRITE
                 : CU_MEM_ACCESS_FLAGS_PROT_NONE;
    return CUDA_SUCCESS;
}

/* The device has access to its own pools, and there is no other. */
CUresult guest_cuMemPoolSetAccess(CUmemoryPool pool, const CUmemAccessDesc *access, size_t count)
{
    if (!is_pool(pool) || (count > 0 && !access)) {
        return CUDA_ERROR_INVALID_VALUE;
    }
    for (size_t i = 0; i < count; i++) {
        if (access[i].location.type != CU_MEM_LOCATION_TYPE_DEVICE ||
            access[i].flags != CU_MEM_ACCESS_FLAGS_PROT_READWRITE) {
            return CUDA_ERROR_INVALID_VALUE;
        }
        if (access[i].location.id != 0) {
            return CUDA_ERROR_INVALID_DEVICE;
        }
    }
    return CUDA_SUCCESS;
}
