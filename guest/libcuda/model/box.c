/* SPDX-License-Identifier: MIT */
/*
 * Copies and fills in rows, see box.h.
 *
 * Everything is checked here, in bytes, before it goes to the host: CUDA answers INVALID_VALUE at
 * once for sizes and addresses that cannot be, while the host's answer to posted work would only
 * come with the next call that synchronises. Sums are kept from overflowing first, so that a box
 * near the end of the address space is not taken for a small one.
 */
#include "guest/libcuda/model/box.h"

#include <stdlib.h>
#include <string.h>

#include "guest/libcuda/model/array.h"
#include "guest/libcuda/model/memory.h"
#include "guest/libcuda/state/state.h"
#include "guest/libvgpu/session.h"

uint64_t row_address(const struct side *side, uint64_t slice, uint64_t row)
{
    return side->address + (slice * side->rows + row) * side->pitch;
}

struct side side_from(const struct side *side, uint64_t slice, uint64_t row)
{
    struct side part = *side;

    if (side->array) {
        part.at[1] += row;
        part.at[2] += slice;
    } else {
        part.address = row_address(side, slice, row);
    }
    return part;
}

/*
 * The last row counts with its width and not its pitch: a box in the last column of an image does
 * not reach beyond the image. Not for an empty box, whose counts would wrap.
 */
static uint64_t side_extent(const struct box *box, const struct side *side)
{
    return ((box->depth - 1) * side->rows + box->height - 1) * side->pitch + box->width;
}

/* Both ends are enough: the session's part of the arena is one piece. */
bool is_pinned(const struct box *box, const struct side *side)
{
    const void *first = (const void *)(uintptr_t)side->address;
    const void *last = (const uint8_t *)first + side_extent(box, side) - 1;

    return vgpu_is_pinned(cuda.session, first) && vgpu_is_pinned(cuda.session, last);
}

/*
 * Whether sizes and addresses of a side go together. A pitch of 0 means rows without gaps, a height
 * of 0 slices without gaps. The program's own memory is not checked: nothing tells what of it is
 * there, and CUDA does not either.
 */
static CUresult check_side(const struct box *box, struct side *side)
{
    const uint64_t extent[] = {box->width, box->height, box->depth};
    uint64_t rows, bytes;

    if (side->array) {
        return array_holds(side->array, side->at, extent) ? CUDA_SUCCESS : CUDA_ERROR_INVALID_VALUE;
    }
    if (side->pitch == 0) {
        side->pitch = box->width;
    }
    if (side->rows == 0) {
        side->rows = box->height;
    }
    if (side->pitch < box->width || side->rows < box->height ||
        __builtin_mul_overflow(side->rows, box->depth, &rows) ||
        __builtin_mul_overflow(side->pitch, rows, &bytes) || bytes > INT64_MAX) {
        return CUDA_ERROR_INVALID_VALUE;
    }
    return side->host ? CUDA_SUCCESS : memory_check(side->address, side_extent(box, side));
}

bool is_empty(const struct box *box)
{
    return box->width == 0 || box->height == 0 || box->depth == 0;
}

/* One side as the program has it. `x` is in bytes, `y` in rows, `z` in slices. */
struct place {
    CUmemorytype type;
    const void *host;
    CUdeviceptr device;
    CUarray array;
    uint64_t x, y, z, pitch, rows;
};

static CUresult make_side(const struct place *place, struct side *side)
{
    uint64_t base = place->device;

    switch (place->type) {
    case CU_MEMORYTYPE_HOST:
        side->host = true;
        base = (uint64_t)(uintptr_t)place->host;
        break;
    case CU_MEMORYTYPE_DEVICE:
        side->host = false;
        break;
    case CU_MEMORYTYPE_UNIFIED:
        /*
         * By the address. One that nobody has allocated is taken for the program's own, as with
         * CUDA, where any memory of a process may be copied.
         */
        side->host = !memory_is_device(base);
        break;
    case CU_MEMORYTYPE_ARRAY:
        side->array = array_find(place->array);
        side->at[0] = place->x;
        side->at[1] = place->y;
        side->at[2] = place->z;
        return side->array ? CUDA_SUCCESS : CUDA_ERROR_INVALID_VALUE;
    default:
        return CUDA_ERROR_INVALID_VALUE;
    }
    if (side->host && base == 0) {
        return CUDA_ERROR_INVALID_VALUE;
    }
    side->address = base + (place->z * place->rows + place->y) * place->pitch + place->x;
    side->pitch = place->pitch;
    side->rows = place->rows;
    return CUDA_SUCCESS;
}

/*
 * Types of memory are checked in any case, addresses only where something is copied: an empty copy
 * may have any.
 */
CUresult make_box(const CUDA_MEMCPY3D *copy, struct box *box)
{
    CUresult r;

    if (copy->srcLOD != 0 || copy->dstLOD != 0) {
        return CUDA_ERROR_INVALID_VALUE;
    }
    *box = (struct box){.width = copy->WidthInBytes, .height = copy->Height, .depth = copy->Depth};
    r = make_side(&(struct place){.type = copy->dstMemoryType,
                                  .host = copy->dstHost,
                                  .device = copy->dstDevice,
                                  .array = copy->dstArray,
                                  .x = copy->dstXInBytes,
                                  .y = copy->dstY,
                                  .z = copy->dstZ,
                                  .pitch = copy->dstPitch,
                                  .rows = copy->dstHeight},
                  &box->to);
    if (r == CUDA_SUCCESS) {
        r = make_side(&(struct place){.type = copy->srcMemoryType,
                                      .host = copy->srcHost,
                                      .device = copy->srcDevice,
                                      .array = copy->srcArray,
                                      .x = copy->srcXInBytes,
                                      .y = copy->srcY,
                                      .z = copy->srcZ,
                                      .pitch = copy->srcPitch,
                                      .rows = copy->srcHeight},
                      &box->from);
    }
    if (r == CUDA_SUCCESS && !is_empty(box)) {
        r = check_side(box, &box->to);
    }
    return r == CUDA_SUCCESS && !is_empty(box) ? check_side(box, &box->from) : r;
}

/* Heights of slices stay 0, for as many rows as are copied. */
CUDA_MEMCPY3D as_3d(const CUDA_MEMCPY2D *copy)
{
    return (CUDA_MEMCPY3D){
        .srcXInBytes = copy->srcXInBytes,
        .srcY = copy->srcY,
        .srcMemoryType = copy->srcMemoryType,
        .srcHost = copy->srcHost,
        .srcDevice = copy->srcDevice,
        .srcArray = copy->srcArray,
        .srcPitch = copy->srcPitch,
        .dstXInBytes = copy->dstXInBytes,
        .dstY = copy->dstY,
        .dstMemoryType = copy->dstMemoryType,
        .dstHost = copy->dstHost,
        .dstDevice = copy->dstDevice,
        .dstArray = copy->dstArray,
        .dstPitch = copy->dstPitch,
        .WidthInBytes = copy->WidthInBytes,
        .Height = copy->Height,
        .Depth = 1,
    };
}

/*
 * Whether the rows are device memory. The pitch of a single row is of no matter, and programs leave
 * it unset. Every row has to begin at a multiple of its elements, hence so has the pitch.
 */
CUresult check_fill(const CUDA_MEMSET_NODE_PARAMS *fill)
{
    const unsigned element = fill->elementSize;
    const uint64_t pitch = fill->height > 1 ? fill->pitch : 0;
    const struct box box = {.width = fill->width * element, .height = fill->height, .depth = 1};
    const struct side side = {.address = fill->dst, .pitch = pitch, .rows = fill->height};

    if ((element != 1 && element != 2 && element != 4) || fill->dst % element != 0 ||
        pitch % element != 0 || fill->width > INT64_MAX / element ||
        (fill->height > 1 && (pitch < box.width || pitch > INT64_MAX / fill->height))) {
        return CUDA_ERROR_INVALID_VALUE;
    }
    return is_empty(&box) ? CUDA_SUCCESS : memory_check(fill->dst, side_extent(&box, &side));
}

/*
 * A graph has one kind of copy only, and programs that ask for a captured cuMemcpyAsync() get it in
 * this form, as from CUDA. UNIFIED addresses go where device addresses do.
 */
CUDA_MEMCPY3D copy_line(CUmemorytype to_type, uint64_t to, CUmemorytype from_type, uint64_t from,
                        size_t bytes)
{
    return (CUDA_MEMCPY3D){
        .srcMemoryType = from_type,
        .srcHost = from_type == CU_MEMORYTYPE_HOST ? (const void *)(uintptr_t)from : NULL,
        .srcDevice = from_type == CU_MEMORYTYPE_HOST ? 0 : from,
        .srcPitch = bytes,
        .srcHeight = 1,
        .dstMemoryType = to_type,
        .dstHost = to_type == CU_MEMORYTYPE_HOST ? (void *)(uintptr_t)to : NULL,
        .dstDevice = to_type == CU_MEMORYTYPE_HOST ? 0 : to,
        .dstPitch = bytes,
        .dstHeight = 1,
        .WidthInBytes = bytes,
        .Height = 1,
        .Depth = 1,
    };
}

/* Pitches and heights are those of the line: there is no second row. */
CUDA_MEMCPY3D line_between(struct line_end to, struct line_end from, size_t bytes)
{
    return (CUDA_MEMCPY3D){
        .srcXInBytes = from.offset,
        .srcMemoryType = from.type,
        .srcHost = from.type == CU_MEMORYTYPE_HOST ? (const void *)(uintptr_t)from.address : NULL,
        .srcDevice = from.type == CU_MEMORYTYPE_DEVICE ? from.address : 0,
        .srcArray = from.array,
        .srcPitch = bytes,
        .srcHeight = 1,
        .dstXInBytes = to.offset,
        .dstMemoryType = to.type,
        .dstHost = to.type == CU_MEMORYTYPE_HOST ? (void *)(uintptr_t)to.address : NULL,
        .dstDevice = to.type == CU_MEMORYTYPE_DEVICE ? to.address : 0,
        .dstArray = to.array,
        .dstPitch = bytes,
        .dstHeight = 1,
        .WidthInBytes = bytes,
        .Height = 1,
        .Depth = 1,
    };
}

/* For one row the program's pitch may be unset, or anything: the host gets the row's length. */
CUresult fill_plan(const CUDA_MEMSET_NODE_PARAMS *fill, struct vgpu_graph_fill *plan)
{
    const CUresult r = check_fill(fill);

    *plan = (struct vgpu_graph_fill){0};
    if (r == CUDA_SUCCESS && fill->width > 0 && fill->height > 0) {
        *plan = (struct vgpu_graph_fill){
            .to = fill->dst,
            .pitch = fill->height > 1 ? fill->pitch : fill->width * fill->elementSize,
            .width = fill->width,
            .height = fill->height,
            .value = fill->value,
            .element = fill->elementSize,
        };
    }
    return r;
}
