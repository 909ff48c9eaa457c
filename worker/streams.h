/* SPDX-License-Identifier: MIT */
/*
 * Streams that a guest has destroyed and that still have work: they are retired, and destroyed for
 * good when it is done. Until then their work counts as any.
 */
#ifndef VGPU_WORKER_STREAMS_H
#define VGPU_WORKER_STREAMS_H

#include <stdbool.h>
#include <stdint.h>

#include "worker/gpu.h"

struct ring_session;

struct retired {
    struct retired *next;
    struct gpu_stream *stream;
    struct gpu_fence fence; /* its end */
};

struct streams {
    struct retired *retired;
    uint32_t retired_count;
};

/* More are not retired: a guest could make its worker grow without a limit. */
#define STREAMS_RETIRED_MAX 1024u

/* Whether another may be retired. When not, no command is taken until some are done. */
static inline bool streams_have_room(const struct streams *streams)
{
    return streams->retired_count < STREAMS_RETIRED_MAX;
}

/* Destroys streams for good that have done what they had to do. Whether there were any. */
bool streams_poll(struct ring_session *session);

/* Forgets them; the streams go with the GPU's context. */
void streams_release(struct ring_session *session);

#endif
