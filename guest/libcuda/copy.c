/* SPDX-License-Identifier: MIT */
/*
 * Copies and fills. A copy from or to the program's own memory is done with that memory when the
 * function returns, asynchronous or not, unless the memory is page-locked: then it is posted.
 */
#include <stdlib.h>
#include <string.h>

#include "guest/libcuda/capture.h"
#include "guest/libcuda/copy.h"
#include "guest/libcuda/entry.h"
#include "guest/libcuda/memory.h"
#include "guest/libcuda/stream.h"
#include "guest/libvgpu/ring-calls.h"

/* Rows shorter than this are packed before they are copied. */
#define ROW_MAX (UINT64_C(64) << 10)
#define PACK_BYTES (UINT64_C(1) << 20)

/* One line of bytes ------------------------------------------------------------------------- */

/* Between device and host, by what the program says it is. */
static CUresult to_device(CUdeviceptr to, const void *from, size_t bytes, uint64_t stream)
{
    CUresult r = memory_check(to, bytes);

    if (r == CUDA_SUCCESS && bytes > 0) {
        r = from ? result_of(vgpu_copy_to_async(cuda.session, to, from, bytes, stream))
                 : CUDA_ERROR_INVALID_VALUE;
    }
    return r;
}

static CUresult from_device(void *to, CUdeviceptr from, size_t bytes, uint64_t stream)
{
    CUresult r = memory_check(from, bytes);

    if (r == CUDA_SUCCESS && bytes > 0) {
        r = to ? result_of(vgpu_copy_from_async(cuda.session, to, from, bytes, stream))
               : CUDA_ERROR_INVALID_VALUE;
    }
    return r;
}

static CUresult on_device(CUdeviceptr to, CUdeviceptr from, size_t bytes, uint64_t stream)
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

/* By what the addresses are. */
static CUresult any_copy(CUdeviceptr to, CUdeviceptr from, size_t bytes, uint64_t stream)
{
    const bool to_gpu = memory_is_device(to), from_gpu = memory_is_device(from);
    CUresult r;

    if (bytes == 0) {
        return CUDA_SUCCESS;
    }
    if (to_gpu && from_gpu) {
        return on_device(to, from, bytes, stream);
    }
    if (to_gpu) {
        return to_device(to, (const void *)(uintptr_t)from, bytes, stream);
    }
    if (from_gpu) {
        return from_device((void *)(uintptr_t)to, from, bytes, stream);
    }
    r = wait_for_stream(stream);
    if (r == CUDA_SUCCESS) {
        memmove((void *)(uintptr_t)to, (const void *)(uintptr_t)from, bytes);
    }
    return r;
}

/* What the functions have in common: a stream that is there, and for the others the end. */
#define IN_STREAM(stream, copy)                                                                    \
    ({                                                                                             \
        uint64_t handle_;                                                                          \
        CUresult r_ = stream_handle(stream, &handle_);                                             \
        r_ == CUDA_SUCCESS ? (copy) : r_;                                                          \
    })
#define AND_WAIT(stream, copy)                                                                     \
    IN_STREAM(stream, ({                                                                           \
                  CUresult done_ = (copy);                                                         \
                  done_ == CUDA_SUCCESS ? wait_for_stream(handle_) : done_;                        \
              }))

CUresult guest_cuMemcpy(CUdeviceptr to, CUdeviceptr from, size_t bytes, CUstream default_stream)
{
    return AND_WAIT(default_stream, any_copy(to, from, bytes, handle_));
}

/* A captured copy of a line of bytes, or the ordinary one. */
#define CAPTURED_OR(stream, to_type, to, from_type, from, bytes, copy)                             \
    (capture_takes(stream) ? capture_line(stream, copy_line(to_type, to, from_type, from, bytes))  \
                           : IN_STREAM(stream, copy))

static CUresult capture_line(CUstream stream, CUDA_MEMCPY3D line)
{
    return capture_copy(stream, &line);
}

CUresult guest_cuMemcpyAsync(CUdeviceptr to, CUdeviceptr from, size_t bytes, CUstream stream)
{
    return CAPTURED_OR(stream, CU_MEMORYTYPE_UNIFIED, to, CU_MEMORYTYPE_UNIFIED, from, bytes,
                       any_copy(to, from, bytes, handle_));
}

/* Bytes that the program's own memory is done with before they are where they go, as CUDA has it.
 */
#define STAGED_BYTES (UINT64_C(64) << 10)

CUresult guest_cuMemcpyHtoD_v2(CUdeviceptr to, const void *from, size_t bytes,
                               CUstream default_stream)
{
    if (bytes <= STAGED_BYTES && !vgpu_is_pinned(cuda.session, from)) {
        return IN_STREAM(default_stream, to_device(to, from, bytes, handle_));
    }
    return AND_WAIT(default_stream, to_device(to, from, bytes, handle_));
}

CUresult guest_cuMemcpyDtoH_v2(void *to, CUdeviceptr from, size_t bytes, CUstream default_stream)
{
    if (!vgpu_is_pinned(cuda.session, to)) {
        return IN_STREAM(default_stream, from_device(to, from, bytes, handle_));
    }
    return AND_WAIT(default_stream, from_device(to, from, bytes, handle_));
}

CUresult guest_cuMemcpyDtoD_v2(CUdeviceptr to, CUdeviceptr from, size_t bytes,
                               CUstream default_stream)
{
    return IN_STREAM(default_stream, on_device(to, from, bytes, handle_));
}

CUresult guest_cuMemcpyHtoDAsync_v2(CUdeviceptr to, const void *from, size_t bytes, CUstream stream)
{
    return CAPTURED_OR(stream, CU_MEMORYTYPE_DEVICE, to, CU_MEMORYTYPE_HOST,
                       (uint64_t)(uintptr_t)from, bytes, to_device(to, from, bytes, handle_));
}

CUresult guest_cuMemcpyDtoHAsync_v2(void *to, CUdeviceptr from, size_t bytes, CUstream stream)
{
    return CAPTURED_OR(stream, CU_MEMORYTYPE_HOST, (uint64_t)(uintptr_t)to, CU_MEMORYTYPE_DEVICE,
                       from, bytes, from_device(to, from, bytes, handle_));
}

CUresult guest_cuMemcpyDtoDAsync_v2(CUdeviceptr to, CUdeviceptr from, size_t bytes, CUstream stream)
{
    return CAPTURED_OR(stream, CU_MEMORYTYPE_DEVICE, to, CU_MEMORYTYPE_DEVICE, from, bytes,
                       on_device(to, from, bytes, handle_));
}

CUresult guest_cuMemcpyPeer(CUdeviceptr to, CUcontext to_context, CUdeviceptr from,
                            CUcontext from_context, size_t bytes, CUstream default_stream)
{
    if (!context_find(to_context) || !context_find(from_context)) {
        return CUDA_ERROR_INVALID_CONTEXT;
    }
    return guest_cuMemcpyDtoDAsync_v2(to, from, bytes, default_stream);
}

CUresult guest_cuMemcpyPeerAsync(CUdeviceptr to, CUcontext to_context, CUdeviceptr from,
                                 CUcontext from_context, size_t bytes, CUstream stream)
{
    return guest_cuMemcpyPeer(to, to_context, from, from_context, bytes, stream);
}

/* Rows ---------------------------------------------------------------------------------------- */

/* One side of a copy in rows. */
struct side {
    bool host;
    uint64_t address;
    uint64_t pitch; /* bytes to the next row */
    uint64_t rows;  /* to the next slice */
};

struct box {
    struct side to, from;
    uint64_t width, height, depth; /* bytes, rows, slices */
};

static uint64_t row_address(const struct side *side, uint64_t slice, uint64_t row)
{
    return side->address + (slice * side->rows + row) * side->pitch;
}

/* From the first byte of a side to its last. */
static uint64_t side_extent(const struct box *box, const struct side *side)
{
    return ((box->depth - 1) * side->rows + box->height - 1) * side->pitch + box->width;
}

/* Whether the GPU reaches all of a host's side. */
static bool is_pinned(const struct box *box, const struct side *side)
{
    const void *first = (const void *)(uintptr_t)side->address;
    const void *last = (const uint8_t *)first + side_extent(box, side) - 1;

    return vgpu_is_pinned(cuda.session, first) && vgpu_is_pinned(cuda.session, last);
}

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

    return result_of(ring_copy(cuda.session, &body, &rest, sizeof(rest)));
}

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

            r = box->to.host ? from_device((void *)(uintptr_t)to, from, box->width, stream)
                             : to_device(to, (const void *)(uintptr_t)from, box->width, stream);
        }
    }
    return r;
}

/* Some rows of a slice, through a piece of the arena where they lie behind each other. */
static CUresult packed_rows(const struct box *box, uint64_t slice, uint64_t row, uint64_t rows,
                            uint8_t *pack, uint64_t handle)
{
    const struct side packed = {true, (uint64_t)(uintptr_t)pack, box->width, rows};
    struct box part = {.width = box->width, .height = rows, .depth = 1};
    CUresult r;

    if (box->to.host) {
        part.to = packed;
        part.from = (struct side){false, row_address(&box->from, slice, row), box->from.pitch,
                                  rows};
        r = post_rows(&part, VGPU_COPY_FROM_DEVICE, handle);
    } else {
        for (uint64_t i = 0; i < rows; i++) {
            memcpy(pack + i * box->width,
                   (const void *)(uintptr_t)row_address(&box->from, slice, row + i), box->width);
        }
        part.from = packed;
        part.to = (struct side){false, row_address(&box->to, slice, row), box->to.pitch, rows};
        r = post_rows(&part, VGPU_COPY_TO_DEVICE, handle);
    }
    if (r == CUDA_SUCCESS) {
        r = wait_for_stream(handle);
    }
    for (uint64_t i = 0; box->to.host && r == CUDA_SUCCESS && i < rows; i++) {
        memcpy((void *)(uintptr_t)row_address(&box->to, slice, row + i), pack + i * box->width,
               box->width);
    }
    return r;
}

static CUresult short_rows(const struct box *box, uint64_t handle)
{
    const uint64_t all = box->height * box->width, most = PACK_BYTES / box->width;
    CUresult r = CUDA_SUCCESS;
    void *pack = memory_pinned(all < PACK_BYTES ? all : PACK_BYTES);

    if (!pack) {
        return long_rows(box, handle);
    }
    for (uint64_t slice = 0; r == CUDA_SUCCESS && slice < box->depth; slice++) {
        for (uint64_t row = 0; r == CUDA_SUCCESS && row < box->height; row += most) {
            const uint64_t left = box->height - row;

            r = packed_rows(box, slice, row, left < most ? left : most, pack, handle);
        }
    }
    vgpu_pinned_free(cuda.session, pack);
    return r;
}

/* Whether sizes and addresses of a side go together. */
static CUresult check_side(const struct box *box, struct side *side)
{
    uint64_t rows, bytes;

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

static bool is_empty(const struct box *box)
{
    return box->width == 0 || box->height == 0 || box->depth == 0;
}

/* A box whose sides are checked. */
static CUresult copy_box(const struct box *box, uint64_t handle)
{
    if (is_empty(box)) {
        return CUDA_SUCCESS;
    }
    if (box->to.host && box->from.host) {
        return host_rows(box, handle);
    }
    if (!box->to.host && !box->from.host) {
        return post_rows(box, VGPU_COPY_ON_DEVICE, handle);
    }
    if (is_pinned(box, box->to.host ? &box->to : &box->from)) {
        return post_rows(box, box->to.host ? VGPU_COPY_FROM_DEVICE : VGPU_COPY_TO_DEVICE, handle);
    }
    return box->width < ROW_MAX ? short_rows(box, handle) : long_rows(box, handle);
}

/* What a program says of a side. */
struct place {
    CUmemorytype type;
    const void *host;
    CUdeviceptr device;
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
        side->host = !memory_is_device(base);
        break;
    case CU_MEMORYTYPE_ARRAY:
        return REFUSE("a copy from or to an array");
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

/* What a program says as sides; those that are there are checked where anything is copied. */
static CUresult make_box(const CUDA_MEMCPY3D *copy, struct box *box)
{
    CUresult r;

    if (copy->srcLOD != 0 || copy->dstLOD != 0) {
        return CUDA_ERROR_INVALID_VALUE;
    }
    *box = (struct box){.width = copy->WidthInBytes, .height = copy->Height, .depth = copy->Depth};
    r = make_side(&(struct place){.type = copy->dstMemoryType,
                                  .host = copy->dstHost,
                                  .device = copy->dstDevice,
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

static CUDA_MEMCPY3D as_3d(const CUDA_MEMCPY2D *copy)
{
    return (CUDA_MEMCPY3D){
        .srcXInBytes = copy->srcXInBytes,
        .srcY = copy->srcY,
        .srcMemoryType = copy->srcMemoryType,
        .srcHost = copy->srcHost,
        .srcDevice = copy->srcDevice,
        .srcPitch = copy->srcPitch,
        .dstXInBytes = copy->dstXInBytes,
        .dstY = copy->dstY,
        .dstMemoryType = copy->dstMemoryType,
        .dstHost = copy->dstHost,
        .dstDevice = copy->dstDevice,
        .dstPitch = copy->dstPitch,
        .WidthInBytes = copy->WidthInBytes,
        .Height = copy->Height,
        .Depth = 1,
    };
}

CUresult guest_cuMemcpy3DAsync_v2(const CUDA_MEMCPY3D *copy, CUstream stream)
{
    struct box box;
    CUresult r = copy ? CUDA_SUCCESS : CUDA_ERROR_INVALID_VALUE;

    if (r == CUDA_SUCCESS && capture_takes(stream)) {
        return capture_copy(stream, copy);
    }
    if (r == CUDA_SUCCESS) {
        r = make_box(copy, &box);
    }
    return r == CUDA_SUCCESS ? IN_STREAM(stream, copy_box(&box, handle_)) : r;
}

CUresult guest_cuMemcpy2DAsync_v2(const CUDA_MEMCPY2D *copy, CUstream stream)
{
    CUDA_MEMCPY3D same;

    if (!copy) {
        return CUDA_ERROR_INVALID_VALUE;
    }
    same = as_3d(copy);
    return guest_cuMemcpy3DAsync_v2(&same, stream);
}

CUresult guest_cuMemcpy3DPeerAsync(const CUDA_MEMCPY3D_PEER *copy, CUstream stream)
{
    CUDA_MEMCPY3D same;

    if (!copy) {
        return CUDA_ERROR_INVALID_VALUE;
    }
    if (!context_find(copy->srcContext) || !context_find(copy->dstContext)) {
        return CUDA_ERROR_INVALID_CONTEXT;
    }
    /* It has contexts where the other has something reserved. */
    static_assert(sizeof(same) == sizeof(*copy), "the same but for that");
    memcpy(&same, copy, sizeof(same));
    same.reserved0 = NULL;
    same.reserved1 = NULL;
    return guest_cuMemcpy3DAsync_v2(&same, stream);
}

CUresult guest_cuMemcpy2D_v2(const CUDA_MEMCPY2D *copy, CUstream default_stream)
{
    return AND_WAIT(default_stream, guest_cuMemcpy2DAsync_v2(copy, default_stream));
}

CUresult guest_cuMemcpy2DUnaligned_v2(const CUDA_MEMCPY2D *copy, CUstream default_stream)
{
    return guest_cuMemcpy2D_v2(copy, default_stream);
}

CUresult guest_cuMemcpy3D_v2(const CUDA_MEMCPY3D *copy, CUstream default_stream)
{
    return AND_WAIT(default_stream, guest_cuMemcpy3DAsync_v2(copy, default_stream));
}

CUresult guest_cuMemcpy3DPeer(const CUDA_MEMCPY3D_PEER *copy, CUstream default_stream)
{
    return AND_WAIT(default_stream, guest_cuMemcpy3DPeerAsync(copy, default_stream));
}

/* Fills --------------------------------------------------------------------------------------- */

static CUresult fill_linear(CUdeviceptr to, unsigned value, unsigned element, size_t count,
                            CUstream stream)
{
    uint64_t bytes, handle;
    CUresult r;

    if (capture_takes(stream)) {
        return capture_fill(
            stream,
            &(CUDA_MEMSET_NODE_PARAMS){
                .dst = to, .value = value, .elementSize = element, .width = count, .height = 1});
    }
    r = stream_handle(stream, &handle);
    if (r != CUDA_SUCCESS) {
        return r;
    }
    if (to % element != 0 || __builtin_mul_overflow(count, element, &bytes)) {
        return CUDA_ERROR_INVALID_VALUE;
    }
    r = memory_check(to, bytes);
    return r == CUDA_SUCCESS && count > 0
               ? result_of(vgpu_fill(cuda.session, to, value, element, count, handle))
               : r;
}

/* Whether the rows are device memory. */
static CUresult check_fill(const CUDA_MEMSET_NODE_PARAMS *fill)
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

static CUresult fill_pitched(CUdeviceptr to, size_t pitch, unsigned value, unsigned element,
                             size_t width, size_t height, CUstream stream)
{
    const CUDA_MEMSET_NODE_PARAMS fill = {.dst = to,
                                          .pitch = pitch,
                                          .value = value,
                                          .elementSize = element,
                                          .width = width,
                                          .height = height};
    uint64_t handle;
    CUresult r;

    if (capture_takes(stream)) {
        return capture_fill(stream, &fill);
    }
    r = stream_handle(stream, &handle);
    if (r == CUDA_SUCCESS) {
        r = check_fill(&fill);
    }
    return r == CUDA_SUCCESS && width > 0 && height > 0
               ? result_of(ring_fill(cuda.session, to, width, handle, value, element,
                                     height > 1 ? pitch : 0, height))
               : r;
}

CUresult guest_cuMemsetD8_v2(CUdeviceptr to, unsigned char value, size_t count,
                             CUstream default_stream)
{
    return fill_linear(to, value, 1, count, default_stream);
}

CUresult guest_cuMemsetD16_v2(CUdeviceptr to, unsigned short value, size_t count,
                              CUstream default_stream)
{
    return fill_linear(to, value, 2, count, default_stream);
}

CUresult guest_cuMemsetD32_v2(CUdeviceptr to, unsigned int value, size_t count,
                              CUstream default_stream)
{
    return fill_linear(to, value, 4, count, default_stream);
}

CUresult guest_cuMemsetD8Async(CUdeviceptr to, unsigned char value, size_t count, CUstream stream)
{
    return fill_linear(to, value, 1, count, stream);
}

CUresult guest_cuMemsetD16Async(CUdeviceptr to, unsigned short value, size_t count, CUstream stream)
{
    return fill_linear(to, value, 2, count, stream);
}

CUresult guest_cuMemsetD32Async(CUdeviceptr to, unsigned int value, size_t count, CUstream stream)
{
    return fill_linear(to, value, 4, count, stream);
}

CUresult guest_cuMemsetD2D8_v2(CUdeviceptr to, size_t pitch, unsigned char value, size_t width,
                               size_t height, CUstream default_stream)
{
    return fill_pitched(to, pitch, value, 1, width, height, default_stream);
}

CUresult guest_cuMemsetD2D16_v2(CUdeviceptr to, size_t pitch, unsigned short value, size_t width,
                                size_t height, CUstream default_stream)
{
    return fill_pitched(to, pitch, value, 2, width, height, default_stream);
}

CUresult guest_cuMemsetD2D32_v2(CUdeviceptr to, size_t pitch, unsigned int value, size_t width,
                                size_t height, CUstream default_stream)
{
    return fill_pitched(to, pitch, value, 4, width, height, default_stream);
}

CUresult guest_cuMemsetD2D8Async(CUdeviceptr to, size_t pitch, unsigned char value, size_t width,
                                 size_t height, CUstream stream)
{
    return fill_pitched(to, pitch, value, 1, width, height, stream);
}

CUresult guest_cuMemsetD2D16Async(CUdeviceptr to, size_t pitch, unsigned short value, size_t width,
                                  size_t height, CUstream stream)
{
    return fill_pitched(to, pitch, value, 2, width, height, stream);
}

CUresult guest_cuMemsetD2D32Async(CUdeviceptr to, size_t pitch, unsigned int value, size_t width,
                                  size_t height, CUstream stream)
{
    return fill_pitched(to, pitch, value, 4, width, height, stream);
}

/* For later ----------------------------------------------------------------------------------- */

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

CUresult copy_plan(const CUDA_MEMCPY3D *copy, struct vgpu_graph_copy *plan)
{
    struct box box;
    const CUresult r = make_box(copy, &box);

    *plan = (struct vgpu_graph_copy){0};
    if (r != CUDA_SUCCESS || is_empty(&box)) {
        return r;
    }
    if (box.to.host && box.from.host) {
        return REFUSE("a copy in a graph that is not the GPU's");
    }
    if ((box.to.host || box.from.host) && !is_pinned(&box, box.to.host ? &box.to : &box.from)) {
        return REFUSE("a copy in a graph from or to memory that is not page-locked");
    }
    *plan = (struct vgpu_graph_copy){
        .to = box.to.address,
        .to_pitch = box.to.pitch,
        .to_rows = box.to.rows,
        .from = box.from.address,
        .from_pitch = box.from.pitch,
        .from_rows = box.from.rows,
        .width = box.width,
        .height = box.height,
        .depth = box.depth,
        .kind = box.to.host     ? VGPU_COPY_FROM_DEVICE
                : box.from.host ? VGPU_COPY_TO_DEVICE
                                : VGPU_COPY_ON_DEVICE,
    };
    return CUDA_SUCCESS;
}

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
