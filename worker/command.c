/* SPDX-License-Identifier: MIT */
/*
 * Decoding a command, see command.h. What checks each command's form is generated, and the only
 * code that looks at lengths; here is what is the same for all, and what is known of CUDA's calls
 * alone. The bytes are the worker's own copy, so that they may be looked at more than once; they
 * are still a guest's, and nothing about them is taken for granted.
 */
#include "worker/command.h"

#include "worker/api.h"

/*
 * VGPU_CMD_CALL is what the call in it is: which has its own flags, and its own stream. One that
 * this version does not know is answered with an error, in its order.
 */
enum vgpu_refusal command_decode_call(const struct ring_command *command,
                                      struct command_facts *facts)
{
    const struct vgpu_cmd_call *body = (const void *)command->body;
    const struct api_rule *call = api_find(body->call);

    facts->call = call;
    facts->flags = COMMAND_CHANGES_STREAM;
    if (!call) {
        return VGPU_REFUSED_NONE;
    }
    facts->flags = call->flags;
    if (call->stream != 0) {
        facts->key.stream = api_word(body, call->stream - 1u);
    }
    return (call->flags & COMMAND_SLOT) && command->header.slot == 0 ? VGPU_REFUSED_SLOT_WANTED
                                                                     : VGPU_REFUSED_NONE;
}
