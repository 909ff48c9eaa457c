/* SPDX-License-Identifier: MIT */
/*
 * Copies. One from or to the program's own memory is done with that memory when the function
 * returns, asynchronous or not, unless the memory is page-locked: then it is posted, and the GPU's
 * copy engines work on it directly. CUDA promises no more for memory that is not page-locked.
 *
 * Entries of api/memory.api lead here. Those of calls that CUDA calls synchronous wait behind the
 * copy with and_wait(), where it is not done by itself.
 */

#include <assert.h>
#include <string.h>

#include "guest/libcuda/calls/families.h"
#include "guest/libcuda/calls/guest-calls.h"
#include "guest/libcuda/model/array.h"
#include "guest/libcuda/model/box.h"
#include "guest/libcuda/model/capture.h"
#include "guest/libcuda/model/context.h"
#include "guest/libcuda/model/memory.h"
#include "guest/libcuda/model/stream.h"
#include "guest/libcuda/model/work.h"
#include "guest/libcuda/state/state.h"
#include "guest/libcuda/wire/pinned.h"
#include "guest/libcuda/wire/wire-calls.h"
#include "guest/libvgpu/ring-calls.h"

/*
 * Rows shorter than this many bytes are packed before they are copied: each row by itself is a
 * command, and for short ones that takes longer than to copy them once more here. PACK_BYTES is how
 * much is packed at a time.
 */
#define ROW_MAX (UINT64_C(64) << 10)
#define PACK_BYTES (UINT64_C(1) << 20)

/* One line of bytes --------------------------------------------------------------------------- */

/*
 * Between device and host, as the name of the call says: the host's side is not looked up. A copy
 * of 0 bytes is checked by nobody and does nothing, also with NULL.
 */
CUresult copy_to_device(CUdeviceptr to, const void *from, size_t bytes, uint64_t stream)
{
    CUresult r = memory_check(to, bytes);

    if (r == CUDA_SUCCESS && bytes > 0) {
        r = from ? result_of(vgpu_copy_to_async(cuda.session, to, from, bytes, stream))
                 : CUDA_ERROR_INVALID_VALUE;
    }
    return r;
}

CUresult copy_from_device(void *to, CUdeviceptr from, size_t bytes, uint64_t stream)
{
    CUresult r = memory_check(from, bytes);

    if (r == CUDA_SUCCESS && bytes > 0) {
        r = to ? result_of(vgpu_copy_from_async(cuda.session, to, from, bytes, stream))
               : CUDA_ERROR_INVALID_VALUE;
    }
    return r;
}

CUresult copy_on_device(CUdeviceptr to, CUdeviceptr from, size_t bytes, uint64_t stream)
{
    CUresult r = memory_check(to, bytes);

    if (r == CUDA_SUCCESS) {
        r = memory_check(from, bytes);
    }
    if (r == CUDA_SUCCESS && bytes > 0) {
        r = result_of(vgpu_copy_on_device(cuda.session, to, from, bytes, stream));
    }
    return r;
}

static CUresult wait_for_stream(uint64_t stream)
{
    return result_of(vgpu_stream_sync(cuda.session, stream));
}

/*
 * By the addresses themselves: what is not device memory is the program's own. Where both sides
 * are, no GPU is needed; but the copy has its place in the stream, so that is waited for and the
 * processor copies. cuMemcpyAsync() between two places of host memory is synchronous with CUDA too.
 */
CUresult copy_any(CUdeviceptr to, CUdeviceptr from, size_t bytes, uint64_t stream)
{
    const bool to_gpu = memory_is_device(to), from_gpu = memory_is_device(from);
    CUresult r;

    if (bytes == 0) {
        return CUDA_SUCCESS;
    }
    if (to_gpu && from_gpu) {
        return copy_on_device(to, from, bytes, stream);
    }
    if (to_gpu) {
        return copy_to_device(to, (const void *)(uintptr_t)from, bytes, stream);
    }
    if (from_gpu) {
        return copy_from_device((void *)(uintptr_t)to, from, bytes, stream);
    }
    r = wait_for_stream(stream);
    if (r == CUDA_SUCCESS) {
        memmove((void *)(uintptr_t)to, (const void *)(uintptr_t)from, bytes);
    }
    return r;
}

CUresult and_wait(CUresult r, uint64_t stream)
{
    return r == CUDA_SUCCESS ? wait_for_stream(stream) : r;
}

CUresult captured_line(CUDA_MEMCPY3D copy, uint64_t stream)
{
    struct work work;

    return capture_add(stream, work_copy(&copy, &work), &work);
}

/*
 * Bytes up to which cuMemcpyHtoD() from memory that is not page-locked returns when it has a copy
 * of them, before they are where they go. CUDA documents this limit.
 */
#define STAGED_BYTES (UINT64_C(64) << 10)

CUresult guest_cuMemcpyHtoD_v2(CUdeviceptr to, const void *from, size_t bytes,
                               uint64_t default_stream)
{
    const bool staged = bytes <= STAGED_BYTES && !vgpu_is_pinned(cuda.session, from);
    const CUresult r = copy_to_device(to, from, bytes, default_stream);

    return staged ? r : and_wait(r, default_stream);
}

/* Into memory that is not pinned the copy goes through stages, and has waited by itself. */
CUresult guest_cuMemcpyDtoH_v2(void *to, CUdeviceptr from, size_t bytes, uint64_t default_stream)
{
    const CUresult r = copy_from_device(to, from, bytes, default_stream);

    return vgpu_is_pinned(cuda.session, to) ? and_wait(r, default_stream) : r;
}

/* All contexts are one on the host, so they only have to be there. */
static CUresult check_contexts(CUcontext to, CUcontext from)
{
    return context_find(to) && context_find(from) ? CUDA_SUCCESS : CUDA_ERROR_INVALID_CONTEXT;
}

CUresult copy_between(CUdeviceptr to, CUcontext to_context, CUdeviceptr from,
                      CUcontext from_context, size_t bytes, uint64_t stream)
{
    const CUresult r = check_contexts(to_context, from_context);

    return r == CUDA_SUCCESS ? copy_on_device(to, from, bytes, stream) : r;
}

CUresult captured_between(CUdeviceptr to, CUcontext to_context, CUdeviceptr from,
                          CUcontext from_context, size_t bytes, uint64_t stream)
{
    const CUresult r = check_contexts(to_context, from_context);

    return r == CUDA_SUCCESS
               ? captured_line(
                     copy_line(CU_MEMORYTYPE_DEVICE, to, CU_MEMORYTYPE_DEVICE, from, bytes), stream)
               : r;
}

/* Rows ---------------------------------------------------------------------------------------- */

static struct vgpu_array_side array_side(const struct side *side)
{
    if (side->array) {
        return (struct vgpu_array_side){
            .kind = VGPU_ARRAY_SIDE_ARRAY,
            .array = side->array->object.handle,
            .x = side->at[0],
            .y = side->at[1],
            .z = side->at[2],
        };
    }
    return (struct vgpu_array_side){
        .kind = side->host ? VGPU_ARRAY_SIDE_ARENA : VGPU_ARRAY_SIDE_DEVICE,
        .address = side->address,
        .pitch = side->pitch,
        .rows = side->rows,
    };
}

static CUresult post_array(const struct box *box, uint64_t stream)
{
    const struct vgpu_array_copy copy = {
        .to = array_side(&box->to),
        .from = array_side(&box->from),
        .width = box->width,
        .height = box->height,
        .depth = box->depth,
    };

    return call_array_copy(&copy, stream, box->width * box->height * box->depth);
}

/* One command for all rows. The host's side, where there is one, lies in the arena as a whole. */
static CUresult post_rows(const struct box *box, enum vgpu_copy_kind kind, uint64_t stream)
{
    const struct vgpu_cmd_copy body = {
        .to = box->to.address,
        .from = box->from.address,
        .bytes = box->width,
        .stream = stream,
        .kind = kind,
        .box = 1,
    };
    const struct vgpu_copy_box rest = {
        .to_pitch = box->to.pitch,
        .to_rows = box->to.rows,
        .from_pitch = box->from.pitch,
        .from_rows = box->from.rows,
        .height = box->height,
        .depth = box->depth,
    };

    if (has_array(box)) {
        return post_array(box, stream);
    }
    return result_of(ring_copy(cuda.session, &body, &rest, sizeof(rest)));
}

/* Behind all that the stream has, as in copy_any(). memmove(), since sides may overlap in a row. */
static CUresult host_rows(const struct box *box, uint64_t stream)
{
    const CUresult r = wait_for_stream(stream);

    for (uint64_t slice = 0; r == CUDA_SUCCESS && slice < box->depth; slice++) {
        for (uint64_t row = 0; row < box->height; row++) {
            memmove((void *)(uintptr_t)row_address(&box->to, slice, row),
                    (const void *)(uintptr_t)row_address(&box->from, slice, row), box->width);
        }
    }
    return r;
}

/* Rows that are long enough to be copied one by one. */
static CUresult long_rows(const struct box *box, uint64_t stream)
{
    CUresult r = CUDA_SUCCESS;

    for (uint64_t slice = 0; r == CUDA_SUCCESS && slice < box->depth; slice++) {
        for (uint64_t row = 0; r == CUDA_SUCCESS && row < box->height; row++) {
            const uint64_t to = row_address(&box->to, slice, row);
            const uint64_t from = row_address(&box->from, slice, row);

            r = box->to.host
                    ? copy_from_device((void *)(uintptr_t)to, from, box->width, stream)
                    : copy_to_device(to, (const void *)(uintptr_t)from, box->width, stream);
        }
    }
    return r;
}

/*
 * Some rows of a slice, through a piece of the arena where they lie behind each other. To the
 * device they are packed first, from it unpacked afterwards; in between the stream is waited for,
 * since the same piece serves the next rows.
 */
static CUresult packed_rows(const struct box *box, uint64_t slice, uint64_t row, uint64_t rows,
                            uint8_t *pack, uint64_t stream)
{
    const struct side packed = {
        .host = true, .address = (uint64_t)(uintptr_t)pack, .pitch = box->width, .rows = rows};
    struct box part = {.width = box->width, .height = rows, .depth = 1};
    CUresult r;

    if (box->to.host) {
        part.to = packed;
        part.from = side_from(&box->from, slice, row);
        r = post_rows(&part, VGPU_COPY_FROM_DEVICE, stream);
    } else {
        for (uint64_t i = 0; i < rows; i++) {
            memcpy(pack + i * box->width,
                   (const void *)(uintptr_t)row_address(&box->from, slice, row + i), box->width);
        }
        part.from = packed;
        part.to = side_from(&box->to, slice, row);
        r = post_rows(&part, VGPU_COPY_TO_DEVICE, stream);
    }
    if (r == CUDA_SUCCESS) {
        r = wait_for_stream(stream);
    }
    for (uint64_t i = 0; box->to.host && r == CUDA_SUCCESS && i < rows; i++) {
        memcpy((void *)(uintptr_t)row_address(&box->to, slice, row + i), pack + i * box->width,
               box->width);
    }
    return r;
}

/*
 * At least a row at a time: those of arrays may be longer than the rest goes by. Without room in
 * the arena rows of memory go one by one, slower, but done.
 */
static CUresult short_rows(const struct box *box, uint64_t stream)
{
    const uint64_t all = box->height * box->width;
    const uint64_t room = box->width > PACK_BYTES ? box->width : PACK_BYTES;
    const uint64_t most = room / box->width;
    CUresult r = CUDA_SUCCESS;
    void *pack = memory_pinned(all < room ? all : room);

    if (!pack) {
        return has_array(box) ? CUDA_ERROR_OUT_OF_MEMORY : long_rows(box, stream);
    }
    for (uint64_t slice = 0; r == CUDA_SUCCESS && slice < box->depth; slice++) {
        for (uint64_t row = 0; r == CUDA_SUCCESS && row < box->height; row += most) {
            const uint64_t left = box->height - row;

            r = packed_rows(box, slice, row, left < most ? left : most, pack, stream);
        }
    }
    vgpu_pinned_free(cuda.session, pack);
    return r;
}

/* A box whose sides are checked, by the fastest way that its sides allow. */
static CUresult copy_box(const struct box *box, uint64_t stream)
{
    if (is_empty(box)) {
        return CUDA_SUCCESS;
    }
    if (box->to.host && box->from.host) {
        return host_rows(box, stream);
    }
    if (!box->to.host && !box->from.host) {
        return post_rows(box, VGPU_COPY_ON_DEVICE, stream);
    }
    if (is_pinned(box, box->to.host ? &box->to : &box->from)) {
        return post_rows(box, box->to.host ? VGPU_COPY_FROM_DEVICE : VGPU_COPY_TO_DEVICE, stream);
    }
    return box->width < ROW_MAX || has_array(box) ? short_rows(box, stream)
                                                  : long_rows(box, stream);
}

CUresult copy_rows(CUDA_MEMCPY3D copy, uint64_t stream)
{
    struct box box;
    CUresult r;

    /* Then it does not matter what the ends are. */
    if (copy.WidthInBytes == 0 || copy.Height == 0 || copy.Depth == 0) {
        return CUDA_SUCCESS;
    }
    r = make_box(&copy, &box);
    return r == CUDA_SUCCESS ? copy_box(&box, stream) : r;
}

/*
 * The structure for copies between contexts is that of the ordinary copy, with contexts where that
 * one has two reserved fields.
 */
static CUresult without_contexts(const CUDA_MEMCPY3D_PEER *copy, CUDA_MEMCPY3D *same)
{
    static_assert(sizeof(*same) == sizeof(*copy), "the same but for that");
    memcpy(same, copy, sizeof(*same));
    same->reserved0 = NULL;
    same->reserved1 = NULL;
    return check_contexts(copy->dstContext, copy->srcContext);
}

CUresult copy_rows_between(const CUDA_MEMCPY3D_PEER *copy, uint64_t stream)
{
    CUDA_MEMCPY3D same;
    const CUresult r = without_contexts(copy, &same);

    return r == CUDA_SUCCESS ? copy_rows(same, stream) : r;
}

CUresult captured_rows_between(const CUDA_MEMCPY3D_PEER *copy, uint64_t stream)
{
    CUDA_MEMCPY3D same;
    const CUresult r = without_contexts(copy, &same);

    return r == CUDA_SUCCESS ? captured_line(same, stream) : r;
}
