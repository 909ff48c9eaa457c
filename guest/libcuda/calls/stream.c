/* SPDX-License-Identifier: MIT */
/*
 * Streams: made, asked, and waited for. The exported functions find the stream, and refuse a
 * captured one where CUDA does, before they come here.
 *
 * Whoever waits for a stream tells the pools. The position is read before the wait: a block that
 * another thread frees in the stream meanwhile has a later one, and may be freed behind the work
 * that was waited for.
 */

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

/* There are no green contexts, which have a part of the GPU for themselves. */
CUresult guest_cuStreamGetCtx_v2(struct stream *stream, CUcontext *context, CUgreenCtx *green)
{
    if (!context && !green) {
        return CUDA_ERROR_INVALID_VALUE;
    }
    if (green) {
        *green = NULL;
    }
    if (context) {
        *context = stream_context(stream);
    }
    return CUDA_SUCCESS;
}

/*
 * Gives on the result of a wait for a stream; after a good one pools learn that all before
 * `position` is done.
 */
static CUresult stream_passed(uint64_t stream, uint64_t position, CUresult r)
{
    if (r == CUDA_SUCCESS) {
        pool_settle(stream, position);
    }
    return r;
}

CUresult guest_cuStreamSynchronize(uint64_t stream)
{
    const uint64_t position = pool_position();

    return stream_passed(stream, position, result_of(vgpu_stream_sync(cuda.session, stream)));
}

/* NOT_READY is no error: it does not stay, and is not told by the next call. */
CUresult guest_cuStreamQuery(uint64_t stream)
{
    const uint64_t position = pool_position();

    return stream_passed(stream, position, result_of(vgpu_stream_query(cuda.session, stream)));
}
