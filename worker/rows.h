/* SPDX-License-Identifier: MIT */
/* Work in rows and slices: whether what a guest says of it holds together. */
#ifndef VGPU_WORKER_ROWS_H
#define VGPU_WORKER_ROWS_H

#include <stdbool.h>
#include <stdint.h>

#include "worker/gpu.h"

/* One side of a copy, or what is filled. */
struct rows_side {
    uint64_t address, pitch, rows; /* bytes to the next row, rows to the next slice */
};

/*
 * Whether `depth` slices of `height` rows, none of the three 0, do not wrap; and lie in the arena
 * where that is said.
 */
bool rows_fit(const struct gpu_arena *arena, const struct rows_side *side, bool in_arena,
              uint64_t width, uint64_t height, uint64_t depth);

#endif
