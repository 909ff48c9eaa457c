/* SPDX-License-Identifier: MIT */
/*
 * Carrying out a command, see execution.h: what all of them share around their handlers. The table
 * of rules is the only way from here to a handler.
 */
#include "worker/execution.h"

#include <assert.h>
#include <string.h>

#include "worker/api.h"
#include "worker/ring-session.h"

/* A command without a slot has failed: the next that synchronises tells it. */
static void defer_failure(struct execution *x, enum vgpu_gpu_error error)
{
    const struct vgpu_cmd_call *call = x->body;

    pending_defer(
        &x->session->pending, error,
        vgpu_culprit(x->header->opcode, x->header->opcode == VGPU_CMD_CALL ? call->call : 0));
}

enum execution_end execution_run(struct execution *x)
{
    struct ring_session *s = x->session;
    const enum vgpu_gpu_error error = x->error != VGPU_GPU_SUCCESS ? x->error
                                                                   : x->facts->rule->handler(x);

    if (error == VGPU_GPU_SUCCESS && x->again) {
        return EXECUTION_PIECE;
    }
    s->page->counters.requests++;
    if (error != VGPU_GPU_SUCCESS && error != VGPU_GPU_NOT_READY) {
        s->page->counters.errors++;
    }
    ring_session_note_loss(s);
    if (x->later) {
        pending_poll(s, x->header->slot);
    } else if (x->header->slot != 0) {
        ring_answer(&s->ring, x->header, error, x->payload,
                    error == VGPU_GPU_SUCCESS ? x->length : 0);
    } else if (error != VGPU_GPU_SUCCESS) {
        defer_failure(x, error);
    }
    return error == VGPU_GPU_SUCCESS ? EXECUTION_DONE : EXECUTION_REFUSED;
}

void execution_answer(struct execution *x, const void *payload, size_t length)
{
    memcpy(x->payload, payload, length);
    x->length = (uint32_t)length;
}

void execution_answer_value(struct execution *x, uint64_t value)
{
    const struct vgpu_result_value result = {.value = value};

    execution_answer(x, &result, sizeof(result));
}

enum vgpu_gpu_error execution_answer_handle(struct execution *x, enum handle_type type,
                                            void *object)
{
    const uint64_t handle = handles_add(&x->session->handles, type, object, 0);

    if (handle == 0) {
        return VGPU_GPU_OUT_OF_MEMORY;
    }
    execution_answer_value(x, handle);
    return VGPU_GPU_SUCCESS;
}
