/* SPDX-License-Identifier: MIT */
/*
 * Blocks of a chunk of device memory, see block.h.
 *
 * The list of a chunk covers it without gaps, in the order of addresses, so neighbours in the list
 * are neighbours in memory. All is called with the pools' mutex. Only the count of unsettled blocks
 * is read without it: while it is 0, which is the case in a program without pools, a wait for a
 * stream has nothing to tell them. What is done to a block must keep that count: merging takes one
 * away where two unsettled blocks become one, splitting adds one.
 */
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

/*
 * Whether two free neighbours can be one. Unsettled ones only if the same stream freed them: a
 * block has one stream to wait for.
 */
static bool are_alike(const struct block *a, const struct block *b)
{
    return !a->used && !b->used && a->settled == b->settled &&
           (a->settled || a->stream == b->stream);
}

/*
 * Makes a block and the one behind it one, which is as free as the later of them. Example: freed in
 * stream 5 as 17th and 20th, they are free for others when the stream has passed 20. That is later
 * than needed for the first, and never too early.
 */
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
    /* Behind first, since this frees `block`. */
    if (block->before && are_alike(block->before, block)) {
        merge_blocks(block->before);
    }
}

/*
 * Many blocks may have settled at once, so merging around each would not do. A merged block is
 * compared again with the next one.
 */
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

/*
 * The rest is as free as the block was: its stream and position are copied. With no memory for its
 * structure nothing is changed; the caller says OUT_OF_MEMORY then, rather than waste the rest.
 */
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
