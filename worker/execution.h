/* SPDX-License-Identifier: MIT */
/*
 * Carrying out a command: what its handler is given, and what it says.
 *
 * A handler reads the body and the objects, does what the command asks for, and either answers (a
 * payload, or an error), or has the command wait as pending (pending.h), or has done a piece of it
 * and wants to be called again. One handler is called per command and piece; which it is, the rule
 * says.
 */
#ifndef VGPU_WORKER_EXECUTION_H
#define VGPU_WORKER_EXECUTION_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "worker/command.h"
#include "worker/gpu.h"
#include "worker/handles.h"

struct ring_session;

struct execution {
    struct ring_session *session;
    const struct vgpu_command *header;
    const void *body; /* of the length that the rule asks for */
    const struct command_facts *facts;
    enum vgpu_gpu_error error; /* what the decoder found wrong: the handler is not called */
    /* In the order of the fields; NULL is the default stream. A call looks for its own. */
    void *objects[COMMAND_OBJECTS];
    uint64_t
        *progress; /* of a large command: bytes, elements or places that are submitted; 0 first */

    /* What the handler says. */
    bool again; /* pieces of it are left to do */
    bool later; /* it is pending, and not answered now */
    uint32_t length;
    _Alignas(8) uint8_t payload[VGPU_PAYLOAD_MAX];
};

/* What has become of a command. */
enum execution_end {
    EXECUTION_DONE,    /* it is answered, or pending, or has failed without a slot */
    EXECUTION_REFUSED, /* it is answered or has failed; as work, nothing of it was submitted */
    EXECUTION_PIECE,   /* a piece of it is done; pieces are left */
};

/*
 * Begins with a command: finds its objects among the session's handles. `facts` are what
 * command_decode() has found out. What is passed outlives the execution, which is for one call of
 * execution_run().
 */
static inline void execution_begin(struct execution *x, struct ring_session *session,
                                   const struct handles *handles,
                                   const struct ring_command *command,
                                   const struct command_facts *facts, uint64_t *progress)
{
    x->session = session;
    x->header = &command->header;
    x->body = command->body;
    x->facts = facts;
    x->progress = progress;
    x->objects[0] = x->objects[1] = NULL;
    x->again = x->later = false;
    x->length = 0;
    x->error = VGPU_GPU_SUCCESS;
    if (!facts->rule) {
        x->error = VGPU_GPU_NOT_SUPPORTED; /* what a newer guest may know */
    } else if (facts->rule->objects && !facts->rule->objects(handles, x->body, x->objects)) {
        x->error = VGPU_GPU_INVALID_HANDLE;
    } else if (facts->reserved_used) {
        x->error = VGPU_GPU_INVALID_VALUE;
    }
}

/* Carries it out, or the next piece of it. */
enum execution_end execution_run(struct execution *x);

/* For handlers: what the answer holds. */
void execution_answer(struct execution *x, const void *payload, size_t length);
void execution_answer_value(struct execution *x, uint64_t value);

/* A handle for a new object as the answer; OUT_OF_MEMORY when there is none to be had. */
enum vgpu_gpu_error execution_answer_handle(struct execution *x, enum handle_type type,
                                            void *object);

#endif
