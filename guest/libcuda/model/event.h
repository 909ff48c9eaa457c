/* SPDX-License-Identifier: MIT */
/* Events, and what is known of where they were recorded. */
#ifndef VGPU_GUEST_LIBCUDA_MODEL_EVENT_H
#define VGPU_GUEST_LIBCUDA_MODEL_EVENT_H

#include <stdint.h>

#include "api/cuda-types.h"
#include "guest/libcuda/state/object.h"

/* Where an event was recorded, and pools' position then. */
struct record {
    uint64_t stream, position;
};

struct event {
    struct object object;
    struct record record;
    /*
     * The host's event for several processes, which is recorded and asked about in place of this
     * one; NULL: it is this process's alone.
     */
    struct object *shared;
};

/* Makes an event of the program's, with these flags of CUDA's; NULL: *error says why not. */
struct event *event_make(unsigned flags, CUresult *error);

/* Makes the event one of several processes: the host's, with this handle. */
CUresult event_share(struct event *event, uint64_t shared);

/* Destroys it. What was posted with it is still done. */
CUresult event_end(struct event *event);

/* The host's event for several processes; NULL: this one is not. */
CUsharedEvent event_shared(uint64_t handle);

/* The handle of an event; INVALID_HANDLE when there is no such event. */
CUresult event_find(CUevent event, uint64_t *handle);

/*
 * The same for one that the host can be asked for: CAPTURED_EVENT when it was recorded in a capture
 * last, of which the host knows nothing.
 */
CUresult event_recorded(CUevent event, uint64_t *handle);

/* What an event comes behind, for pools. */
void set_record(uint64_t handle, struct record record);
struct record get_record(uint64_t handle);

/* `r` is what the host said of an event that had been recorded so: pools learn what has passed. */
CUresult event_passed(struct record record, CUresult r);

#endif
