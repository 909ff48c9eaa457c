/* SPDX-License-Identifier: MIT */
/* From the guest half to the worker's half, see transport.h. */
#include "tests/api/transport.h"

#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include "guest/libcuda/model/context.h"
#include "guest/libcuda/model/stream.h"
#include "guest/libcuda/state/object.h"
#include "guest/libcuda/state/state.h"
#include "guest/libvgpu/session.h"
#include "tests/unit/unit.h"

#define FENCE 65536u /* whole pages */
#define STALE 0xa5   /* in the room for results before a call */

struct transport transport;
struct cuda cuda;
uint32_t capture_streams; /* none is captured */

/* What call.c asks of the library ------------------------------------------------------------- */

/* A stream is found by its handle; what the program said stays in `id`. */
CUresult stream_find(CUstream wanted, struct stream **stream)
{
    static struct stream streams[2];
    static unsigned next;
    const bool own = wanted == CU_STREAM_PER_THREAD && !transport.any_stream;
    const uint64_t handle = own ? transport.own_stream : (uint64_t)(uintptr_t)wanted;

    if (!transport.any_stream &&
        (transport.refuse_handles || (handle != 0 && !object_find(HANDLE_STREAM, handle)))) {
        return CUDA_ERROR_INVALID_HANDLE;
    }
    *stream = &streams[next++ % 2]; /* a call may have two */
    (*stream)->object.handle = handle;
    (*stream)->id = (uint64_t)(uintptr_t)wanted;
    return CUDA_SUCCESS;
}

CUresult stream_usable(CUstream wanted, struct stream **stream)
{
    return stream_find(wanted, stream);
}

void *object_find(enum handle_type type, uint64_t handle)
{
    return transport.refuse_handles ? NULL : handles_get(&transport.handles, type, handle);
}

CUresult error_of(int result)
{
    return (CUresult)result;
}

int vgpu_pinned_alloc(struct vgpu_session *session, uint64_t bytes, void **memory)
{
    (void)session;
    *memory = malloc(bytes);
    return *memory ? VGPU_OK : VGPU_SYSTEM;
}

int vgpu_is_pinned(const struct vgpu_session *session, const void *memory)
{
    (void)session;
    return memory != NULL;
}

void vgpu_pinned_free(struct vgpu_session *session, void *memory)
{
    (void)session;
    free(memory);
}

bool capture_has(uint64_t stream)
{
    (void)stream;
    return false;
}

CUresult capture_refuses(uint64_t stream)
{
    (void)stream;
    return CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED;
}

/* What goes over the ring --------------------------------------------------------------------- */

static uint64_t padded(uint64_t bytes)
{
    return (bytes + 7) & ~UINT64_C(7);
}

static int serve_command(const struct command *command, void *out, uint32_t room)
{
    const struct vgpu_cmd_call *body = command->body;

    assert_int_equal(command->opcode, VGPU_CMD_CALL);
    assert_int_equal(command->body_bytes, sizeof(*body));
    assert_int_equal(command->rest_bytes, body->bytes);
    assert_int_equal(body->reserved, 0);
    assert_int_equal(body->reserved2, 0);
    assert_true(body->bytes <= sizeof(transport.in));
    memcpy(transport.in, command->rest, body->bytes);
    transport.runs++;
    transport.id = body->call;
    transport.in_bytes = body->bytes;
    transport.back_bytes = room;
    return (int)transport_serve(body->call, transport.in, body->bytes, out, room,
                                &transport.length);
}

/* Tells at once what went wrong, which the ring does later. */
int session_post(struct vgpu_session *s, const struct command *command)
{
    assert_ptr_equal(s, cuda.session);
    transport.post = true;
    return serve_command(command, NULL, 0);
}

int session_call(struct vgpu_session *s, const struct command *command, void *payload,
                 uint32_t bytes)
{
    const struct vgpu_cmd_call *body = command->body;

    assert_ptr_equal(s, cuda.session);
    transport.post = false;
    if (body->reply != 0) {
        assert_int_equal(bytes, 0);
        return serve_command(command, (void *)(uintptr_t)body->reply, body->reply_bytes);
    }
    assert_true(bytes <= VGPU_PAYLOAD_MAX);
    return serve_command(command, payload, bytes);
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

/* What programs' calls begin with -------------------------------------------------------------- */

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
