/* SPDX-License-Identifier: MIT */
/*
 * Capturing streams: what a program submits to them becomes nodes of a graph instead. The host has
 * no part in it.
 *
 * A capture begins in one stream. Another comes in by waiting for an event that was recorded in
 * one of its streams, and has to come back in the same way before it ends. Each stream of it has
 * the nodes that the next one will follow.
 */
#ifndef VGPU_GUEST_LIBCUDA_CAPTURE_H
#define VGPU_GUEST_LIBCUDA_CAPTURE_H

#include <stdbool.h>
#include <stdint.h>

#include "common/shared.h"
#include "guest/libcuda/graph.h"

/* Streams that are captured; and events last recorded in one. */
extern uint32_t capture_streams, capture_marks;

/* Whether a stream's work goes into a graph. Costs next to nothing when no stream is captured. */
bool capture_has(CUstream stream);
static inline bool capture_takes(CUstream stream)
{
    return shared_load(&capture_streams) != 0 && capture_has(stream);
}

/*
 * For a stream's handle, when something is about to be submitted, or waited for: captured streams
 * allow neither, nor does the default one while others are captured that wait for it. The capture
 * is spoilt then.
 */
CUresult capture_refuses(uint64_t stream);

/*
 * For calls that work on all streams, or may: refused while there is a capture that does not allow
 * them to this thread.
 */
CUresult capture_refuses_all(void);
static inline CUresult capture_allows(void)
{
    return shared_load(&capture_streams) == 0 ? CUDA_SUCCESS : capture_refuses_all();
}

/* Something of a captured stream is not served: its capture is spoilt. */
void capture_spoil(CUstream stream);

/* Adds work, which was made (`r`), to a captured stream; what it has is the graph's or freed. */
CUresult capture_add(CUstream stream, CUresult r, struct work *work);

/* A launch, a copy, a fill, a function. */
CUresult capture_kernel(CUstream stream, const struct launch *launch);
CUresult capture_copy(CUstream stream, const CUDA_MEMCPY3D *copy);
CUresult capture_fill(CUstream stream, const CUDA_MEMSET_NODE_PARAMS *fill);
CUresult capture_host(CUstream stream, CUhostFn function, void *argument);

/* Records an event in a captured stream. */
CUresult capture_record(CUstream stream, uint64_t event);

/* Whether waiting in a stream for an event is the capture's matter, and how that went. */
bool capture_waits(CUstream stream, uint64_t event, CUresult *result);

/* Whether an event was last recorded in a captured stream; it no longer was. */
bool capture_marked(uint64_t event);
void capture_unmark(uint64_t event);

/* A stream goes: its capture is spoilt. */
void capture_drop(uint64_t stream);

#endif
