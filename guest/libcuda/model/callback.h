/* SPDX-License-Identifier: MIT */
/* Functions of the program's that run in the order of a stream; see stream.h. */
#ifndef VGPU_GUEST_LIBCUDA_MODEL_CALLBACK_H
#define VGPU_GUEST_LIBCUDA_MODEL_CALLBACK_H

#include <stdint.h>

#include "api/cuda-types.h"

struct callbacks;

/* One of the two functions is set. */
struct callback {
    CUhostFn function; /* not called when the stream's work has failed */
    CUstreamCallback with_status;
    void *argument;
};

/* Starts a thread for a stream's callbacks. */
CUresult callbacks_begin(uint64_t stream_handle, struct callbacks **callbacks);

/* Adds one behind what the stream has; `stream` is what the program calls it. */
CUresult callbacks_add(struct callbacks *callbacks, CUstream stream, struct callback callback);

/* The thread ends when those are done that were added. To be called before the stream ends. */
void callbacks_end(struct callbacks *callbacks);

#endif
