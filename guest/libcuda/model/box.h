/* SPDX-License-Identifier: MIT */
/*
 * Copies and fills in rows, as one box of bytes with two sides: of each side it is known where it
 * begins, how far it is to the next row, and how many rows there are to the next slice.
 *
 * Example: 3 rows of 100 bytes out of an image whose rows are 512 bytes long, into memory without
 * gaps, is a box of width 100, height 3 and depth 1. Its `from` has pitch 512, its `to` pitch 100;
 * the extent of `from` is 2 * 512 + 100 = 1,124 bytes, that of `to` 300.
 */
#ifndef VGPU_GUEST_LIBCUDA_MODEL_BOX_H
#define VGPU_GUEST_LIBCUDA_MODEL_BOX_H

#include <stdbool.h>
#include <stdint.h>

#include "api/cuda-types.h"
#include "protocol/vgpu-graph.h"

struct array;

/* One side of a copy in rows: memory, or a box of an array. */
struct side {
    bool host;
    uint64_t address;
    uint64_t pitch;            /* bytes to the next row */
    uint64_t rows;             /* to the next slice */
    const struct array *array; /* NULL: memory */
    uint64_t at[3];            /* of an array: bytes, rows and slices from its origin */
};

struct box {
    struct side to, from;
    uint64_t width, height, depth; /* bytes, rows, slices */
};

/* Where a row of memory begins. */
uint64_t row_address(const struct side *side, uint64_t slice, uint64_t row);

/* What is left of a side from a row on, for some rows of that slice. */
struct side side_from(const struct side *side, uint64_t slice, uint64_t row);

/* Whether a side is an array. */
static inline bool has_array(const struct box *box)
{
    return box->to.array || box->from.array;
}

/* Whether nothing is copied. */
bool is_empty(const struct box *box);

/* Whether the GPU reaches all of a host's side. */
bool is_pinned(const struct box *box, const struct side *side);

/* What a program says, as a box: its sides are checked where anything is copied. */
CUresult make_box(const CUDA_MEMCPY3D *copy, struct box *box);

/* A copy of one slice as one of slices. */
CUDA_MEMCPY3D as_3d(const CUDA_MEMCPY2D *copy);

/* INVALID_VALUE when the rows are not device memory, or sizes do not go together. */
CUresult check_fill(const CUDA_MEMSET_NODE_PARAMS *fill);

/* Fills nothing where a dimension is 0; *plan is then all zero. */
CUresult fill_plan(const CUDA_MEMSET_NODE_PARAMS *fill, struct vgpu_graph_fill *plan);

/* One end of a line of bytes, as copies by offset have it. */
struct line_end {
    CUmemorytype type;
    uint64_t address; /* of memory */
    CUarray array;
    size_t offset; /* of an array, in bytes */
};

static inline struct line_end array_end(CUarray array, size_t offset)
{
    return (struct line_end){.type = CU_MEMORYTYPE_ARRAY, .array = array, .offset = offset};
}

static inline struct line_end device_end(CUdeviceptr address)
{
    return (struct line_end){.type = CU_MEMORYTYPE_DEVICE, .address = address};
}

static inline struct line_end host_end(const void *memory)
{
    return (struct line_end){.type = CU_MEMORYTYPE_HOST, .address = (uint64_t)(uintptr_t)memory};
}

/* A copy of one line of bytes between an array and something. */
CUDA_MEMCPY3D line_between(struct line_end to, struct line_end from, size_t bytes);

/* A copy of one line of bytes. */
CUDA_MEMCPY3D copy_line(CUmemorytype to_type, uint64_t to, CUmemorytype from_type, uint64_t from,
                        size_t bytes);

#endif
