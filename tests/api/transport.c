/* SPDX-License-Identifier: MIT */
/* From the guest half to the worker's half, see transport.h. */
#include "transport.h"

#include <string.h>
#include <sys/mman.h>

#include "call.h"
#include "entry.h"
#include "unit.h"

#define FENCE 65536u /* whole pages */
#define STALE 0xa5   /* in the room for results before a call */

struct transport transport;

void call_in(struct call *call, const void *bytes, uint64_t count)
{
    assert_true(call->in_count < CALL_PARTS);
    call->in[call->in_count++] = (struct call_part){bytes, count};
}

void call_back(struct call *call, void *bytes, uint64_t count)
{
    assert_true(call->back_count < CALL_PARTS);
    call->back[call->back_count++] = (struct call_result){bytes, count};
}

CUresult call_handle(enum handle_type type, const void *object, uint64_t *handle)
{
    *handle = (uint64_t)(uintptr_t)object;
    if (transport.refuse_handles) {
        return CUDA_ERROR_INVALID_HANDLE;
    }
    if (type == HANDLE_STREAM && *handle == 0) {
        return CUDA_SUCCESS;
    }
    if (type == HANDLE_STREAM && (CUstream)object == CU_STREAM_PER_THREAD) {
        *handle = transport.own_stream;
    }
    return handles_get(&transport.handles, type, *handle) ? CUDA_SUCCESS
                                                          : CUDA_ERROR_INVALID_HANDLE;
}

static uint64_t padded(uint64_t bytes)
{
    return (bytes + 7) & ~UINT64_C(7);
}

static void gather(const struct call *call)
{
    uint64_t length = 0;

    for (unsigned i = 0; i < call->in_count; i++) {
        const struct call_part *part = &call->in[i];

        assert_true(length + padded(part->count) <= sizeof(transport.in));
        memset(transport.in + length, 0, padded(part->count));
        if (part->count > 0) {
            memcpy(transport.in + length, part->bytes, part->count);
        }
        length += padded(part->count);
    }
    transport.in_bytes = (uint32_t)length;
}

static void scatter(const struct call *call, const uint8_t *from)
{
    for (unsigned i = 0; i < call->back_count; i++) {
        if (call->back[i].count > 0) {
            memcpy(call->back[i].bytes, from, call->back[i].count);
        }
        from += padded(call->back[i].count);
    }
}

CUresult call_run(struct call *call)
{
    uint8_t out[TRANSPORT_ROOM];
    uint64_t room = 0;
    CUresult r;

    for (unsigned i = 0; i < call->back_count; i++) {
        room += padded(call->back[i].count);
    }
    assert_true(room <= sizeof(out));
    gather(call);
    transport.runs++;
    transport.id = call->id;
    transport.since = call->since;
    transport.post = call->post;
    transport.back_bytes = (uint32_t)room;
    r = (CUresult)transport_serve(call->id, transport.in, transport.in_bytes, out, (uint32_t)room,
                                  &transport.length);
    if (r == CUDA_SUCCESS) {
        scatter(call, out);
    }
    return r;
}

/* The last `bytes`, in whole words, before a page that nobody may touch. */
static uint8_t *fenced(uint8_t **area, uint32_t bytes)
{
    if (!*area) {
        *area = mmap(NULL, TRANSPORT_ROOM + FENCE, PROT_READ | PROT_WRITE,
                     MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
        assert_ptr_not_equal(*area, MAP_FAILED);
        assert_int_equal(mprotect(*area + TRANSPORT_ROOM, FENCE, PROT_NONE), 0);
    }
    assert_true(bytes <= TRANSPORT_ROOM);
    return *area + TRANSPORT_ROOM - padded(bytes);
}

enum vgpu_gpu_error transport_serve(uint32_t id, const void *in, uint32_t in_bytes, void *out,
                                    uint32_t room, uint32_t *length)
{
    static uint8_t *in_area, *out_area;
    const struct api_rule *rule = api_find(id);
    uint8_t *arguments = fenced(&in_area, in_bytes), *results = fenced(&out_area, room);
    struct api_serve serve = {
        .handles = &transport.handles,
        .gpu = transport.gpu,
        .calls = transport.calls,
        .in = arguments,
        .left = in_bytes,
        .out = results,
        .room = room,
    };
    enum vgpu_gpu_error error;

    assert_non_null(rule);
    memcpy(arguments, in, in_bytes);
    memset(results, STALE, room);
    error = rule->serve(&serve);
    assert_true(serve.length <= room);
    if (out) {
        memcpy(out, results, room);
    }
    if (length) {
        *length = serve.length;
    }
    return error;
}

CUresult enter_init(void)
{
    transport.init_asked++;
    return transport.life;
}

CUresult enter_context(void)
{
    transport.context_asked++;
    return transport.life;
}

CUresult refuse(const char *name, int *said)
{
    ++*said;
    transport.refused = name;
    return CUDA_ERROR_NOT_SUPPORTED;
}
