/* SPDX-License-Identifier: MIT */
/*
 * Names and texts of what calls return and of why sessions end. Each list is the protocol's or the
 * API's own; only what this library adds to them stands here.
 */
#include "guest/libvgpu/session.h"

#include <assert.h>

static const struct {
    int value;
    const char *name, *text;
} results[] = {{VGPU_OK, "OK", "no error"},
               {VGPU_NO_DEVICE, "NO_DEVICE", "there is no such vGPU"},
               {VGPU_NO_PERMISSION, "NO_PERMISSION", "this user may not use the vGPU"},
               {VGPU_OFFLINE, "OFFLINE", "no mediator runs on the host"},
               {VGPU_BUSY, "BUSY", "others use all of the vGPU"},
               {VGPU_TIMED_OUT, "TIMED_OUT", "there was no answer in time"},
               {VGPU_REFUSED, "REFUSED", "the host answered with an error"},
               {VGPU_BAD_ARGUMENT, "BAD_ARGUMENT", "an argument is wrong"},
               {VGPU_SYSTEM, "SYSTEM", "a system call failed"},
               {VGPU_INCOMPATIBLE, "INCOMPATIBLE", "the host speaks another protocol version"},
               {VGPU_ENDED, "ENDED", "the session has ended"},
#define GPU_RESULT(value, name, text, sticky) {value, #name, text},
               VGPU_GPU_ERRORS(GPU_RESULT)
#undef GPU_RESULT
};

const char *vgpu_result_name(int result)
{
    for (size_t i = 0; i < sizeof(results) / sizeof(results[0]); i++) {
        if (results[i].value == result) {
            return results[i].name;
        }
    }
    return "UNKNOWN";
}

const char *vgpu_result_text(int result)
{
    for (size_t i = 0; i < sizeof(results) / sizeof(results[0]); i++) {
        if (results[i].value == result) {
            return results[i].text;
        }
    }
    return result > 0 ? "an error of the GPU's driver" : "an unknown error";
}

static const struct {
    const char *name, *text;
} ends[] = {
#define QUEUE_END(value, name, text) [value] = {#name, text},
    VGPU_QUEUE_ENDS(QUEUE_END)
#undef QUEUE_END
};
static_assert(sizeof(ends) / sizeof(ends[0]) == VGPU_QUEUE_END_COUNT, "a text for each end");

const char *vgpu_queue_end_name(enum vgpu_queue_end end)
{
    return (unsigned)end < VGPU_QUEUE_END_COUNT ? ends[end].name : "UNKNOWN";
}

const char *vgpu_queue_end_text(enum vgpu_queue_end end)
{
    return (unsigned)end < VGPU_QUEUE_END_COUNT ? ends[end].text : "for a reason of a newer host";
}

static const char *const refusals[] = {
#define REFUSAL(value, name, text) [value] = text,
    VGPU_REFUSALS(REFUSAL)
#undef REFUSAL
};
static_assert(sizeof(refusals) / sizeof(refusals[0]) == VGPU_REFUSAL_COUNT, "a text for each");

const char *session_refusal_text(uint32_t why)
{
    return why < VGPU_REFUSAL_COUNT ? refusals[why] : "for a reason of a newer host";
}
