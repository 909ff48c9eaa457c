/* SPDX-License-Identifier: MIT */
/*
 * Capturing streams: what a program submits to them becomes nodes of a graph instead. The host has
 * no part in it.
 *
 * A capture begins in one stream. Another comes in by waiting for an event that was recorded in one
 * of its streams, and has to come back in the same way before it ends. Each stream of it has the
 * nodes that the next one will follow.
 *
 * A capture that went wrong is spoilt. It goes on, since CUDA leaves such a stream as it is until
 * cuStreamEndCapture() is called there, and answers STREAM_CAPTURE_INVALIDATED meanwhile.
 *
 * A program that captures nothing does not pay for it at each launch: the counters below are looked
 * at first, without a lock. A thread that has begun a capture sees its own count; another one has
 * to synchronise with it in any case, to know that the stream is captured.
 */
#ifndef VGPU_GUEST_LIBCUDA_MODEL_CAPTURE_H
#define VGPU_GUEST_LIBCUDA_MODEL_CAPTURE_H

#include <stdbool.h>
#include <stdint.h>

#include "common/shared.h"
#include "guest/libcuda/model/graph.h"

/* Streams that are captured; and events last recorded in one. */
extern uint32_t capture_streams, capture_points;

/*
 * Streams are known here by their handles on the wire. The default one, 0, is never captured.
 *
 * Whether a stream's work goes into a graph. Costs next to nothing when no stream is captured.
 */
bool capture_has(uint64_t stream);
static inline bool capture_takes(uint64_t stream)
{
    return shared_load(&capture_streams) != 0 && capture_has(stream);
}

/*
 * When something is about to be submitted, or waited for: captured streams allow neither, nor does
 * the default one while others are captured that wait for it. The capture is spoilt then.
 */
CUresult capture_refuses(uint64_t stream);

/*
 * For calls that work on all streams, or may: refused while there is a capture that does not allow
 * them to this thread. Both modes count, that of the capture and that of the thread. A RELAXED
 * thread may call everything. Otherwise its own captures forbid it, unless they are RELAXED; and
 * where the thread's mode is GLOBAL, so do GLOBAL captures of other threads.
 */
CUresult capture_refuses_all(void);
static inline CUresult capture_allows(void)
{
    return shared_load(&capture_streams) == 0 ? CUDA_SUCCESS : capture_refuses_all();
}

/*
 * Begins a capture in a stream that is in none; ILLEGAL_STATE otherwise. `waits_for_default`: the
 * stream and the default one wait for each other.
 */
CUresult capture_begin(uint64_t stream, bool waits_for_default, CUstreamCaptureMode mode);

/*
 * Ends it in the stream where it began, and unless it is RELAXED in that thread. *graph is the
 * caller's; NULL where the capture failed. Captured work has to be joined: with a kernel A in the
 * first stream and B in another, the ends of the first have to be {A, B}, not {A}.
 */
CUresult capture_end(uint64_t stream, struct graph **graph);

/* What there is to say of a stream; all but the status only while its capture is active. */
struct capture_info {
    CUstreamCaptureStatus status;
    uint64_t id;
    CUgraph graph;
    const CUgraphNode *nodes; /* what the next one will follow; the stream's, until it is asked
                                 again or the capture ends */
    size_t count;
};

CUresult capture_ask(uint64_t stream, struct capture_info *info);

/* What the next node will follow besides; or, with `set`, what it will follow. */
CUresult capture_follow(uint64_t stream, const CUgraphNode *nodes, size_t count, bool set);

/* The calling thread's mode from now on; the one before is returned. */
CUstreamCaptureMode capture_exchange_mode(CUstreamCaptureMode mode);

/* Something of a captured stream is not served: its capture is spoilt. */
void capture_spoil(uint64_t stream);

/*
 * Adds work to a captured stream. `r` is how making it went: NOT_SUPPORTED spoils the capture,
 * since a graph without that work would be another one. Any error is returned as it is. What the
 * work has becomes the graph's, or is freed.
 */
CUresult capture_add(uint64_t stream, CUresult r, struct work *work);

/*
 * Records an event in a captured stream. The host is not told: the event stands for what the stream
 * has captured so far.
 */
CUresult capture_record(uint64_t stream, uint64_t event);

/*
 * Whether waiting in a stream for an event is the capture's matter, and how that went. If it is
 * not, the host does the waiting. An event may outlast the capture in which it was recorded.
 */
bool capture_waits(uint64_t stream, bool waits_for_default, uint64_t event, CUresult *result);

/*
 * Whether an event was last recorded in a captured stream; it no longer was. The host knows only of
 * older records of such an event, so it must not be asked.
 */
bool capture_has_point(uint64_t event);
void capture_drop_point(uint64_t event);

/* A stream goes, and so does the capture that began in it. */
void capture_drop(uint64_t stream);

#endif
