/* SPDX-License-Identifier: MIT */
/* Blocks of a chunk of device memory, see block.h. */
#include "guest/libcuda/model/block.h"

#include <stdlib.h>

uint64_t unsettled_blocks;

void settle_block(struct block *block)
{
    if (!block->settled) {
        block->settled = true;
        __atomic_fetch_sub(&unsettled_blocks, 1, __ATOMIC_RELAXED);
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

void merge_around(struct block *block)
{
    if (block->next && are_alike(block, block->next)) {
        merge_blocks(block);
    }
    if (block->before && are_alike(block->before, block)) {
        merge_blocks(block->before);
    }
}

void merge_all(struct chunk *chunk)
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
bool split_block(struct block *block, uint64_t bytes)
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
        __atomic_fetch_add(&unsettled_blocks, 1, __ATOMIC_RELAXED);
    }
    return true;
}
