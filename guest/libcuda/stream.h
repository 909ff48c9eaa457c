/* SPDX-License-Identifier: MIT */
/*
 * Streams and events.
 *
 * A host callback runs here, in a thread that the stream has for them, and what follows in the
 * stream waits: the stream waits for a word in the arena, which the thread counts up when the
 * callback has returned.
 */
#ifndef VGPU_GUEST_LIBCUDA_STREAM_H
#define VGPU_GUEST_LIBCUDA_STREAM_H

#include <stdbool.h>
#include <stdint.h>

#include "guest/libcuda/context.h"

/*
 * The handle on the wire of what a program means by a stream: NULL is the default stream,
 * CU_STREAM_PER_THREAD the calling thread's own, which is made when first used. A stream that is
 * captured has none: what cannot be captured is an error.
 */
CUresult stream_handle(CUstream stream, uint64_t *handle);

/*
 * The same, for those who only want to know: it does not matter whether the stream is captured.
 * *waits_for_default, which may be NULL, tells whether the two wait for each other.
 */
CUresult stream_known(CUstream stream, uint64_t *handle, bool *waits_for_default);

/* Destroys all streams and events of a context. */
void stream_release(const struct context *context);

#endif
