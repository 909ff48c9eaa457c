/* SPDX-License-Identifier: MIT */
/*
 * Events. They are the host's. Here it is decided whether one is a capture's or one of several
 * processes (ipc.h), and what pools learn from it (model/event.c).
 */

#include "guest/libcuda/model/event.h"
#include "guest/libcuda/calls/families.h"
#include "guest/libcuda/calls/guest-calls.h"
#include "guest/libcuda/calls/ipc.h"
#include "guest/libcuda/model/capture.h"
#include "guest/libcuda/model/context.h"
#include "guest/libcuda/model/mempool.h"
#include "guest/libcuda/model/stream.h"
#include "guest/libcuda/state/state.h"
#include "guest/libvgpu/session.h"

CUresult guest_cuEventCreate(CUevent *event, unsigned int flags)
{
    const unsigned known = CU_EVENT_BLOCKING_SYNC | CU_EVENT_DISABLE_TIMING | CU_EVENT_INTERPROCESS;
    struct event *made;
    CUresult r = CUDA_ERROR_INVALID_VALUE;

    /* CUDA has one for several processes only without timing. */
    if ((flags & ~known) != 0 ||
        ((flags & CU_EVENT_INTERPROCESS) && !(flags & CU_EVENT_DISABLE_TIMING))) {
        return r;
    }
    made = event_make(flags, &r);
    if (!made) {
        return r;
    }
    if (flags & CU_EVENT_INTERPROCESS) {
        r = ipc_event_make(made);
    }
    if (r == CUDA_SUCCESS) {
        *event = (CUevent)(uintptr_t)made->object.handle;
    } else {
        event_end(made);
    }
    return r;
}

/*
 * A capture that uses the event goes on: edges were drawn when the event was waited for. On the
 * host what was posted with it is still done.
 */
CUresult guest_cuEventDestroy_v2(CUevent event)
{
    struct event *known = object_find(HANDLE_EVENT, (uint64_t)(uintptr_t)event);

    if (!known) {
        return CUDA_ERROR_INVALID_HANDLE;
    }
    capture_drop_point(known->object.handle);
    return event_end(known);
}

/*
 * From now on it stands for work of the host's, so it is no capture's any more. The position is
 * read before the event is posted: all blocks that were freed by then are freed before it in the
 * stream. Without any (0) nothing has to be noted.
 */
CUresult guest_cuEventRecord(CUevent event, struct stream *stream)
{
    uint64_t recorded;
    struct record record;
    CUresult r = event_find(event, &recorded);

    if (r == CUDA_SUCCESS) {
        r = stream_allows(stream);
    }
    if (r != CUDA_SUCCESS) {
        return r;
    }
    capture_drop_point(recorded);
    if (event_shared(recorded)) {
        return ipc_event_record(event_shared(recorded), stream->object.handle);
    }
    record = (struct record){stream->object.handle, pool_position()};
    r = result_of(vgpu_event_record(cuda.session, recorded, stream->object.handle));
    if (r == CUDA_SUCCESS && record.position != 0) {
        set_record(recorded, record);
    }
    return r;
}

CUresult captured_record(CUevent event, uint64_t stream)
{
    uint64_t recorded;
    const CUresult r = event_find(event, &recorded);

    return r == CUDA_SUCCESS ? capture_record(stream, recorded) : r;
}

/*
 * EXTERNAL asks for a node that records the event at each launch, instead of an edge of the
 * capture. The wire has no such node.
 */
CUresult captured_record_with(CUevent event, uint64_t stream, unsigned flags)
{
    if (flags == CU_EVENT_RECORD_EXTERNAL) {
        return REFUSE("cuEventRecordWithFlags as a node of a graph");
    }
    return flags == CU_EVENT_RECORD_DEFAULT ? captured_record(event, stream)
                                            : CUDA_ERROR_INVALID_VALUE;
}

CUresult guest_cuEventRecordWithFlags(CUevent event, struct stream *stream, unsigned int flags)
{
    return flags == CU_EVENT_RECORD_DEFAULT ? guest_cuEventRecord(event, stream)
                                            : CUDA_ERROR_INVALID_VALUE;
}

/*
 * Captures come first: a wait can bring a stream into one, though the stream is not captured yet.
 * The host has an event that was never recorded count as one that has happened, like CUDA.
 */
CUresult guest_cuStreamWaitEvent(struct stream *stream, CUevent event, unsigned int flags)
{
    uint64_t waited;
    CUresult r = event_find(event, &waited);

    if (flags != CU_EVENT_WAIT_DEFAULT) {
        return flags == CU_EVENT_WAIT_EXTERNAL ? REFUSE("cuStreamWaitEvent as a node of a graph")
                                               : CUDA_ERROR_INVALID_VALUE;
    }
    if (r == CUDA_SUCCESS &&
        capture_waits(stream->object.handle, stream_waits_for_default(stream), waited, &r)) {
        return r;
    }
    if (r == CUDA_SUCCESS) {
        r = stream_allows(stream);
    }
    if (r == CUDA_SUCCESS && event_shared(waited)) {
        return ipc_event_wait(event_shared(waited), stream->object.handle);
    }
    return r == CUDA_SUCCESS
               ? result_of(vgpu_stream_wait(cuda.session, stream->object.handle, waited))
               : r;
}

/*
 * The note of the event is read before the host is asked, so that it is never newer than the record
 * that the answer is about. Asking is not safe beside a capture of this thread, as CUDA has it.
 */
CUresult guest_cuEventQuery(CUevent event)
{
    struct record record;
    uint64_t handle;
    CUresult r = event_recorded(event, &handle);

    if (r == CUDA_SUCCESS) {
        r = capture_allows();
    }
    if (r == CUDA_SUCCESS && event_shared(handle)) {
        return ipc_event_query(event_shared(handle));
    }
    record = get_record(handle);
    return r == CUDA_SUCCESS
               ? event_passed(record, result_of(vgpu_event_query(cuda.session, handle)))
               : r;
}

CUresult guest_cuEventSynchronize(CUevent event)
{
    struct record record;
    uint64_t handle;
    const CUresult r = event_recorded(event, &handle);

    if (r == CUDA_SUCCESS && event_shared(handle)) {
        return ipc_event_synchronize(event_shared(handle));
    }
    record = get_record(handle);
    return r == CUDA_SUCCESS
               ? event_passed(record, result_of(vgpu_event_sync(cuda.session, handle)))
               : r;
}

/*
 * In milliseconds; NOT_READY while one of them has not happened, INVALID_HANDLE for one without
 * timing.
 */
CUresult guest_cuEventElapsedTime(float *milliseconds, CUevent start, CUevent end)
{
    uint64_t first, last;
    float elapsed = 0;
    CUresult r = event_recorded(start, &first);

    if (r == CUDA_SUCCESS) {
        r = event_recorded(end, &last);
    }
    if (r == CUDA_SUCCESS) {
        r = result_of(vgpu_event_elapsed(cuda.session, first, last, &elapsed));
    }
    if (r == CUDA_SUCCESS && milliseconds) {
        *milliseconds = elapsed;
    }
    return r == CUDA_SUCCESS && !milliseconds ? CUDA_ERROR_INVALID_VALUE : r;
}
