/* SPDX-License-Identifier: MIT */
/*
 * Blocks, into which a pool's chunk of device memory is divided. Neighbours that are alike are one,
 * so that a chunk of which nothing is used is one block again.
 *
 * A block is used; or free and settled, so that any stream may have it; or free and not settled:
 * the stream in which it was freed may have it at once, others only when that stream has come as
 * far as `position`. Example: a block is freed in stream 5 as the 17th of all. cuMemAllocAsync in
 * stream 5 takes it. One in stream 6 does not, until somebody has waited for stream 5 and found the
 * position at 17 or more.
 */
#ifndef VGPU_GUEST_LIBCUDA_MODEL_BLOCK_H
#define VGPU_GUEST_LIBCUDA_MODEL_BLOCK_H

#include <stdbool.h>
#include <stdint.h>

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

/* Free blocks of all pools that are not settled. Also read without the pools' mutex. */
extern uint64_t unsettled_blocks;

/* From now on any stream may have a free block. */
void settle_block(struct block *block);

/* Makes a free block one with its neighbours that are as free; and all of a chunk. */
void merge_around(struct block *block);
void merge_all(struct chunk *chunk);

/* Leaves `bytes` in the block; the rest becomes one of its own. False when memory is short. */
bool split_block(struct block *block, uint64_t bytes);

#endif
