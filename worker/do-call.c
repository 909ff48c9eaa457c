/* SPDX-License-Identifier: MIT */
/*
 * VGPU_CMD_CALL: calls of CUDA's driver API that have no command of their own. The arguments are
 * decoded by generated code (api.h); here is where results go, into the slot or the arena.
 */
#include <stdlib.h>
#include <string.h>

#include "worker/api-calls.h"
#include "worker/command-rules.h"
#include "worker/ring-session.h"

/*
 * Puts results that do not fit the slot into the arena. They are made in this process's memory and
 * copied at the end: the guest may write there at the same time.
 */
static enum vgpu_gpu_error reply_into_arena(struct api_serve *serve,
                                            const struct vgpu_cmd_call *command)
{
    const struct api_rule *rule = serve->execution->facts->call;
    enum vgpu_gpu_error error;

    if (command->reply_bytes > VGPU_REPLY_MAX || command->reply_bytes % 8 != 0 ||
        !gpu_in_arena(&serve->gpu->arena, command->reply, command->reply_bytes)) {
        return VGPU_GPU_INVALID_VALUE;
    }
    serve->room = command->reply_bytes;
    serve->out = malloc(serve->room + 1);
    if (!serve->out) {
        return VGPU_GPU_OUT_OF_MEMORY;
    }
    error = rule->serve(serve);
    if (error == VGPU_GPU_SUCCESS) {
        memcpy((void *)(uintptr_t)command->reply, serve->out, serve->length);
    }
    free(serve->out);
    return error;
}

enum vgpu_gpu_error do_call(struct execution *x)
{
    const struct vgpu_cmd_call *command = x->body;
    struct api_serve serve = {
        .execution = x,
        .session = x->session,
        .handles = &x->session->handles,
        .gpu = x->session->gpu,
        .calls = x->session->gpu->calls,
        .in = (const uint8_t *)(command + 1),
        .left = command->bytes,
        .out = x->payload,
        .room = sizeof(x->payload),
    };
    enum vgpu_gpu_error error;

    if (!x->facts->call) {
        return VGPU_GPU_NOT_SUPPORTED; /* what a newer guest may know */
    }
    if (command->reply != 0 || command->reply_bytes != 0) {
        return reply_into_arena(&serve, command);
    }
    error = x->facts->call->serve(&serve);
    x->length = serve.length;
    return error;
}
