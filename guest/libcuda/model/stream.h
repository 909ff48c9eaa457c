/* SPDX-License-Identifier: MIT */
/*
 * Streams.
 *
 * A host callback runs here, in a thread that the stream has for them, and what follows in the
 * stream waits: the stream waits for a word in the arena, which the thread counts up when the
 * callback has returned.
 */
#ifndef VGPU_GUEST_LIBCUDA_MODEL_STREAM_H
#define VGPU_GUEST_LIBCUDA_MODEL_STREAM_H

#include <stdbool.h>
#include <stdint.h>

#include "guest/libcuda/model/callback.h"
#include "guest/libcuda/model/capture.h"
#include "guest/libcuda/state/object.h"

struct context;

struct stream {
    struct object object;
    unsigned flags;
    int priority;
    uint64_t id;
    struct callbacks *callbacks; /* NULL until there is one */
};

/*
 * What a program means by a stream: NULL is the default stream, CU_STREAM_PER_THREAD the calling
 * thread's own, which is made when first used. INVALID_HANDLE when there is no such stream.
 */
CUresult stream_find(CUstream wanted, struct stream **stream);

/*
 * Whether something may be submitted to a stream, or waited for, that cannot be captured: a
 * captured one allows neither.
 */
static inline CUresult stream_allows(const struct stream *stream)
{
    return shared_load(&capture_streams) == 0 ? CUDA_SUCCESS
                                              : capture_refuses(stream->object.handle);
}

/* The two in one, for what is not captured. */
CUresult stream_usable(CUstream wanted, struct stream **stream);

/* Whether what is submitted to a stream goes into a graph. */
static inline bool stream_captured(const struct stream *stream)
{
    return capture_takes(stream->object.handle);
}

/* Whether a stream and the default one wait for each other. */
static inline bool stream_waits_for_default(const struct stream *stream)
{
    return !(stream->flags & CU_STREAM_NON_BLOCKING);
}

/* The context of a stream; the calling thread's for one that belongs to none. */
CUcontext stream_context(const struct stream *stream);

/* A new stream; `context` is whose it is. A priority that there is not becomes the nearest. */
CUresult stream_make(unsigned flags, int priority, struct context *context, struct stream **made);

/* Destroys a stream of the program's: INVALID_HANDLE for the default one, or a thread's own. */
CUresult stream_destroy(CUstream wanted);

/* Destroys any stream, whose work is done nevertheless. */
CUresult stream_drop(struct stream *stream);

/* Adds a function of the program's behind what the stream has. */
CUresult stream_add_callback(struct stream *stream, CUstream wanted, struct callback callback);

#endif
