/* SPDX-License-Identifier: MIT */
/*
 * Work in rows and slices: whether a guest's numbers for it can be. From the first byte to the last
 * there are
 *
 *   (rows * (depth - 1) + height - 1) * pitch + width
 *
 * bytes. The last row ends with its width and not with its pitch, and the last slice with its last
 * row: a copy may end where the arena does. Each step is checked, since a product that has wrapped
 * would look like one that fits.
 */
#include "worker/rows.h"

bool rows_fit(const struct gpu_arena *arena, const struct rows_side *side, bool in_arena,
              uint64_t width, uint64_t height, uint64_t depth)
{
    uint64_t pitches, bytes, end;

    if (side->rows < height || (side->pitch < width && (height > 1 || depth > 1)) ||
        __builtin_mul_overflow(side->rows, depth - 1, &pitches) ||
        __builtin_add_overflow(pitches, height - 1, &pitches) ||
        __builtin_mul_overflow(side->pitch, pitches, &bytes) ||
        __builtin_add_overflow(bytes, width, &bytes) ||
        __builtin_add_overflow(side->address, bytes, &end)) {
        return false;
    }
    return !in_arena || gpu_in_arena(arena, side->address, bytes);
}
