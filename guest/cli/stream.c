/* SPDX-License-Identifier: MIT */
/*
 * Vectors of any length through the shared memory, piece by piece. The memory is divided into three
 * equal parts, for the operands and the sum. A piece fills them; it is computed, its result is
 * taken, and the next piece uses the same memory. So there is never more than one request under
 * way, and none needs more memory than there is.
 */
#include <stdlib.h>

#include "guest/cli/cli.h"

/* Pieces begin at page boundaries of the shared memory. */
#define PAGE_ELEMENTS (4096u / VGPU_ELEMENT_SIZE)

int cli_add_stream(struct vgpu *vgpu, const struct cli_stream *stream)
{
    uint64_t size;
    uint8_t *shm = vgpu_shm(vgpu, &size);
    /* In elements: a third of the memory, rounded down to whole pages. */
    const uint64_t room = size / VGPU_ELEMENT_SIZE / 3 / PAGE_ELEMENTS * PAGE_ELEMENTS;

    if (!shm) {
        return cli_fail(VGPU_SYSTEM);
    }
    for (uint64_t first = 0; first < stream->count; first += room) {
        const uint64_t left = stream->count - first;
        const uint64_t b = room * VGPU_ELEMENT_SIZE;
        const struct cli_piece piece = {
            .first = first,
            .count = left < room ? left : room,
            .a = (uint32_t *)(void *)shm,
            .b = (uint32_t *)(void *)(shm + b),
            .sum = (uint32_t *)(void *)(shm + 2 * b),
        };
        /* Both write or read in place: nothing is copied but by the functions that are called. */
        int r = stream->fill(stream->context, &piece);

        if (r != EXIT_OK) {
            return r;
        }
        r = vgpu_add_shm(vgpu, stream->type, piece.count, 0, b, 2 * b);
        if (r != VGPU_OK) {
            return cli_fail(r);
        }
        r = stream->take(stream->context, &piece);
        if (r != EXIT_OK) {
            return r;
        }
    }
    return EXIT_OK;
}
