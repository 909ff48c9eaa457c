/* SPDX-License-Identifier: MIT */
/*
 * A call over the wire (VGPU_CMD_CALL): its arguments and results, gathered and posted. The
 * functions that use this are generated from api/.
 */
#ifndef VGPU_GUEST_LIBCUDA_WIRE_CALL_H
#define VGPU_GUEST_LIBCUDA_WIRE_CALL_H

#include <stdbool.h>
#include <stdint.h>

#include "api/cuda-types.h"
#include "api/handle-types.h"

/* The fixed part, and arrays. */
#define CALL_PARTS 6u

struct call_part {
    const void *bytes;
    uint64_t count;
};

struct call_result {
    void *bytes;
    uint64_t count;
};

struct call {
    uint32_t id;
    uint32_t since; /* the revision of api/ that has it */
    bool post;      /* no answer is wanted */
    unsigned in_count, back_count;
    struct call_part in[CALL_PARTS];
    struct call_result back[CALL_PARTS];
};

/* Adds arguments; adds where results go. What they point to stays the caller's. */
void call_in(struct call *call, const void *bytes, uint64_t count);
void call_back(struct call *call, void *bytes, uint64_t count);

/*
 * The handle of an object of the program's, as the wire has it. INVALID_HANDLE when it is none.
 * Streams are resolved before they come here: that is the model's matter.
 */
CUresult call_handle(enum handle_type type, const void *object, uint64_t *handle);

/* Posts the call and waits for its results, if it has any. */
CUresult call_run(struct call *call);

#endif
