/* SPDX-License-Identifier: MIT */
/*
 * Capturing streams, as programs begin, watch and end it: arguments are checked here,
 * model/capture.c does the rest. The streams come here found but not refused (`stream asks` in
 * api/graph.api): a captured one is just what these calls are about.
 */

#include "guest/libcuda/model/capture.h"
#include "guest/libcuda/calls/guest-calls.h"
#include "guest/libcuda/model/stream.h"
#include "guest/libcuda/state/state.h"

CUresult guest_cuStreamBeginCapture_v2(struct stream *stream, CUstreamCaptureMode mode)
{
    if (mode > CU_STREAM_CAPTURE_MODE_RELAXED) {
        return CUDA_ERROR_INVALID_VALUE;
    }
    /*
     * The legacy default stream stands for the whole context, and CUDA does not let it be captured.
     */
    if (stream->object.handle == 0) {
        return CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED;
    }
    return capture_begin(stream->object.handle, stream_waits_for_default(stream), mode);
}

CUresult guest_cuStreamEndCapture(struct stream *stream, CUgraph *graph)
{
    struct graph *made = NULL;
    CUresult r;

    if (!graph) {
        return stream_captured(stream) ? CUDA_ERROR_INVALID_VALUE : CUDA_ERROR_ILLEGAL_STATE;
    }
    r = capture_end(stream->object.handle, &made);
    /* NULL when the capture failed, also where it was this call that ended it. */
    *graph = graph_handle(made);
    return r;
}

CUresult guest_cuStreamIsCapturing(struct stream *stream, CUstreamCaptureStatus *status)
{
    struct capture_info info;
    const CUresult r = capture_ask(stream->object.handle, &info);

    *status = info.status;
    return r;
}

CUresult guest_cuStreamGetCaptureInfo_v3(struct stream *stream, CUstreamCaptureStatus *status,
                                         cuuint64_t *id, CUgraph *graph, const CUgraphNode **nodes,
                                         const CUgraphEdgeData **edges, size_t *count)
{
    struct capture_info info;
    const CUresult r = capture_ask(stream->object.handle, &info);

    *status = info.status;
    /*
     * CUDA writes the other results only while the capture is good; the id of one that is spoilt
     * stays untold.
     */
    if (r != CUDA_SUCCESS || info.status != CU_STREAM_CAPTURE_STATUS_ACTIVE) {
        return r;
    }
    if (id) {
        *id = info.id;
    }
    if (graph) {
        *graph = info.graph;
    }
    if (nodes) {
        *nodes = info.nodes;
    }
    if (edges) {
        *edges = NULL; /* none has data */
    }
    if (count) {
        *count = info.count;
    }
    return CUDA_SUCCESS;
}

/* There are two flags, ADD (0) and SET (1), and they exclude each other. */
CUresult guest_cuStreamUpdateCaptureDependencies(struct stream *stream, CUgraphNode *nodes,
                                                 size_t count, unsigned int flags)
{
    if (!stream_captured(stream)) {
        return CUDA_ERROR_ILLEGAL_STATE;
    }
    if ((count > 0 && !nodes) || flags > CU_STREAM_SET_CAPTURE_DEPENDENCIES) {
        return CUDA_ERROR_INVALID_VALUE;
    }
    return capture_follow(stream->object.handle, nodes, count,
                          flags == CU_STREAM_SET_CAPTURE_DEPENDENCIES);
}

CUresult guest_cuStreamUpdateCaptureDependencies_v2(struct stream *stream, CUgraphNode *nodes,
                                                    const CUgraphEdgeData *edges, size_t count,
                                                    unsigned int flags)
{
    const CUresult r = stream_captured(stream) ? check_edges(edges, count) : CUDA_SUCCESS;

    return r == CUDA_SUCCESS ? guest_cuStreamUpdateCaptureDependencies(stream, nodes, count, flags)
                             : r;
}

/*
 * Libraries set their thread's mode around a call that is not safe while capturing, and set it back
 * by the same call: the old mode comes back in the place of the new one.
 */
CUresult guest_cuThreadExchangeStreamCaptureMode(CUstreamCaptureMode *mode)
{
    if (*mode > CU_STREAM_CAPTURE_MODE_RELAXED) {
        return CUDA_ERROR_INVALID_VALUE;
    }
    *mode = capture_exchange_mode(*mode);
    return CUDA_SUCCESS;
}
