/* SPDX-License-Identifier: MIT */
/*
 * Fills: of one line of elements, and of rows of them. They are posted. CUDA lets synchronous ones
 * of device memory return early as well, so nothing here waits.
 */
#include "guest/libcuda/calls/families.h"
#include "guest/libcuda/model/box.h"
#include "guest/libcuda/model/memory.h"
#include "guest/libcuda/model/stream.h"
#include "guest/libcuda/model/work.h"
#include "guest/libcuda/state/state.h"
#include "guest/libvgpu/ring-calls.h"

/*
 * The address has to be a multiple of the element, and the memory has to be there, or CUDA says
 * INVALID_VALUE at once. With no elements only the alignment counts.
 */
CUresult fill_line(CUdeviceptr to, unsigned value, unsigned element, size_t count, uint64_t stream)
{
    uint64_t bytes;
    CUresult r;

    if (to % element != 0 || __builtin_mul_overflow(count, element, &bytes)) {
        return CUDA_ERROR_INVALID_VALUE;
    }
    r = memory_check(to, bytes);
    return r == CUDA_SUCCESS && count > 0
               ? result_of(vgpu_fill(cuda.session, to, value, element, count, stream))
               : r;
}

/* `width` is in elements and `pitch` in bytes, as CUDA has them. */
CUresult fill_rows(CUdeviceptr to, size_t pitch, unsigned value, unsigned element, size_t width,
                   size_t height, struct stream *stream)
{
    CUresult r = check_fill(&(CUDA_MEMSET_NODE_PARAMS){
        .dst = to, .pitch = pitch, .elementSize = element, .width = width, .height = height});

    if (r != CUDA_SUCCESS || width == 0 || height == 0) {
        return r; /* nothing for the stream, which may be one that a capture waits for */
    }
    r = stream_allows(stream);
    return r == CUDA_SUCCESS ? result_of(ring_fill(cuda.session, to, width, stream->object.handle,
                                                   value, element, height > 1 ? pitch : 0, height))
                             : r;
}

/* A line is one row: the entries in api/memory.api give it height 1 and pitch 0. */
CUresult captured_fill(CUdeviceptr to, size_t pitch, unsigned value, unsigned element, size_t width,
                       size_t height, uint64_t stream)
{
    const CUDA_MEMSET_NODE_PARAMS fill = {.dst = to,
                                          .pitch = pitch,
                                          .value = value,
                                          .elementSize = element,
                                          .width = width,
                                          .height = height};
    struct work work;

    return capture_add(stream, work_fill(&fill, &work), &work);
}
