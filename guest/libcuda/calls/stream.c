/* SPDX-License-Identifier: MIT */
/* Streams. */

#include "guest/libcuda/model/stream.h"
#include "guest/libcuda/calls/guest-calls.h"
#include "guest/libcuda/model/context.h"
#include "guest/libcuda/model/mempool.h"
#include "guest/libcuda/state/state.h"
#include "guest/libvgpu/session.h"

CUresult guest_cuStreamCreateWithPriority(CUstream *stream, unsigned int flags, int priority)
{
    struct stream *made;
    CUresult r;

    if ((flags & ~(unsigned)CU_STREAM_NON_BLOCKING) != 0) {
        return CUDA_ERROR_INVALID_VALUE;
    }
    r = stream_make(flags, priority, context_current(), &made);
    if (r == CUDA_SUCCESS) {
        *stream = (CUstream)(uintptr_t)made->object.handle;
    }
    return r;
}

CUresult guest_cuStreamGetCtx_v2(struct stream *stream, CUcontext *context, CUgreenCtx *green)
{
    if (green) {
        *green = NULL;
    }
    *context = stream_context(stream);
    return CUDA_SUCCESS;
}

/* What a wait for a stream has found; pools learn that all before `position` is done. */
static CUresult stream_passed(const struct stream *stream, uint64_t position, CUresult r)
{
    if (r == CUDA_SUCCESS) {
        pool_settle(stream->object.handle, position);
    }
    return r;
}

CUresult guest_cuStreamSynchronize(struct stream *stream)
{
    const uint64_t position = pool_position();

    return stream_passed(stream, position,
                         result_of(vgpu_stream_sync(cuda.session, stream->object.handle)));
}

CUresult guest_cuStreamQuery(struct stream *stream)
{
    const uint64_t position = pool_position();

    return stream_passed(stream, position,
                         result_of(vgpu_stream_query(cuda.session, stream->object.handle)));
}
