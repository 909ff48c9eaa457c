/* SPDX-License-Identifier: MIT */
/*
 * Calls over the wire, see call.h; api/README.md has the encoding.
 *
 * A call is one command of the ring. Arguments are gathered beside it and copied to the ring from
 * there; results come in the command's slot, or by way of a piece of the arena where they are
 * longer. All parts begin at multiples of 8 bytes, on either side.
 */
#include "guest/libcuda/wire/call.h"

#include <assert.h>
#include <string.h>

#include "guest/libcuda/state/object.h"
#include "guest/libcuda/state/state.h"
#include "guest/libvgpu/room.h"
#include "guest/libvgpu/session.h"

#define WORD 8u

void call_in(struct call *call, const void *bytes, uint64_t count)
{
    assert(call->in_count < CALL_PARTS);
    call->in[call->in_count++] = (struct call_part){bytes, count};
}

void call_back(struct call *call, void *bytes, uint64_t count)
{
    assert(call->back_count < CALL_PARTS);
    call->back[call->back_count++] = (struct call_result){bytes, count};
}

/*
 * The program's pointer is the worker's handle. It is looked up here so that a wrong one is
 * answered at once and in CUDA's words; the worker looks it up again, since it believes nobody.
 */
CUresult call_handle(enum handle_type type, const void *object, uint64_t *handle)
{
    *handle = (uint64_t)(uintptr_t)object;
    return object_find(type, *handle) ? CUDA_SUCCESS : CUDA_ERROR_INVALID_HANDLE;
}

static uint64_t call_padded(uint64_t bytes)
{
    return (bytes + WORD - 1) & ~(uint64_t)(WORD - 1);
}

/*
 * Bytes of all arguments, or more than a command can have. Each count is compared before it is
 * added: programs pass counts, and the sum must not wrap.
 */
static uint64_t in_bytes(const struct call *call)
{
    uint64_t bytes = 0;

    for (unsigned i = 0; i < call->in_count; i++) {
        if (call->in[i].count > VGPU_COMMAND_MAX) {
            return VGPU_COMMAND_MAX;
        }
        bytes += call_padded(call->in[i].count);
    }
    return bytes;
}

/* The same for results, of which there may be VGPU_REPLY_MAX bytes. */
static uint64_t back_bytes(const struct call *call)
{
    uint64_t bytes = 0;

    for (unsigned i = 0; i < call->back_count; i++) {
        if (call->back[i].count > VGPU_REPLY_MAX) {
            return VGPU_REPLY_MAX + 1;
        }
        bytes += call_padded(call->back[i].count);
    }
    return bytes;
}

/*
 * Gathers the arguments behind each other. Padding is 0, so that nothing else of the process goes
 * out.
 */
static void call_gather(const struct call *call, uint8_t *to)
{
    for (unsigned i = 0; i < call->in_count; i++) {
        const struct call_part *part = &call->in[i];

        if (part->count > 0) {
            memcpy(to, part->bytes, part->count);
        }
        memset(to + part->count, 0, call_padded(part->count) - part->count);
        to += call_padded(part->count);
    }
}

/* Hands the results out. */
static void call_scatter(const struct call *call, const uint8_t *from)
{
    for (unsigned i = 0; i < call->back_count; i++) {
        if (call->back[i].count > 0) {
            memcpy(call->back[i].bytes, from, call->back[i].count);
        }
        from += call_padded(call->back[i].count);
    }
}

/*
 * With results that do not fit a slot: they come through a piece of the arena. It is given back
 * when the answer is there, or the session has ended, so the worker does not write there any more.
 * Memory that libvgpu gives outside of a full arena will not do: the worker cannot reach it.
 */
static CUresult run_with_reply(const struct call *call, struct vgpu_cmd_call *body,
                               struct command *command, uint64_t bytes)
{
    struct vgpu_session *s = cuda.session;
    void *reply = NULL;
    CUresult r;

    if (bytes > VGPU_REPLY_MAX) {
        return CUDA_ERROR_INVALID_VALUE;
    }
    if (vgpu_pinned_alloc(s, bytes, &reply) != VGPU_OK || !vgpu_is_pinned(s, reply)) {
        vgpu_pinned_free(s, reply);
        return CUDA_ERROR_OUT_OF_MEMORY;
    }
    body->reply = (uint64_t)(uintptr_t)reply;
    body->reply_bytes = (uint32_t)bytes;
    r = result_of(session_call(s, command, NULL, 0));
    if (r == CUDA_SUCCESS) {
        call_scatter(call, reply);
    }
    vgpu_pinned_free(s, reply);
    return r;
}

/* With its arguments gathered, of which there are `bytes`. */
static CUresult run_gathered(const struct call *call, const uint8_t *in, uint64_t bytes)
{
    const uint64_t back = back_bytes(call);
    struct vgpu_cmd_call body = {.call = call->id, .bytes = (uint32_t)bytes};
    _Alignas(8) uint8_t out[VGPU_PAYLOAD_MAX];
    struct command command = {
        .opcode = VGPU_CMD_CALL,
        .body = &body,
        .body_bytes = sizeof(body),
        .rest = in,
        .rest_bytes = (uint32_t)bytes,
    };
    CUresult r;

    /* No results: what goes wrong is told by the next call that synchronises. */
    if (call->post) {
        return result_of(session_post(cuda.session, &command));
    }
    if (back > sizeof(out)) {
        return run_with_reply(call, &body, &command, back);
    }
    r = result_of(session_call(cuda.session, &command, out, (uint32_t)back));
    if (r == CUDA_SUCCESS) {
        call_scatter(call, out);
    }
    return r;
}

CUresult call_run(struct call *call)
{
    const uint64_t bytes = in_bytes(call);
    struct room room;
    CUresult r;

    /*
     * A host of an older version would take the id for an unknown call, with the same answer: this
     * saves the way there.
     */
    if (call->since > cuda.host_revision) {
        return CUDA_ERROR_NOT_SUPPORTED;
    }
    if (bytes > VGPU_COMMAND_MAX - sizeof(struct vgpu_command) - sizeof(struct vgpu_cmd_call)) {
        return CUDA_ERROR_INVALID_VALUE;
    }
    if (!room_open(&room, bytes)) {
        return CUDA_ERROR_OUT_OF_MEMORY;
    }
    call_gather(call, room.bytes);
    r = run_gathered(call, room.bytes, bytes);
    room_close(&room);
    return r;
}
