/* SPDX-License-Identifier: MIT */
/*
 * A command of ring mode: what is known of it from its opcode, and what is found out about it,
 * once, when it has left the ring.
 *
 * Theory of operation
 * -------------------
 * api/ring.api describes every command: its fields, the objects that it names, whether it needs a
 * slot and a turn, and how it is ordered against others. From that a rule for each is generated
 * (command-rules.c). command_decode() holds a command's bytes against its rule and notes what the
 * scheduler wants to know, so that nobody has to look at the opcode or at the body again: not when
 * it is ordered, not while it waits, not when its time is estimated.
 *
 * A handler, do_launch() and the like, gets a body of the right length, with its reserved fields 0
 * and its objects found. It answers for the values alone.
 *
 *   ring.c  ->  command_decode()  ->  order.c  ->  execution_begin()  ->  do_xxx()
 *                                     backlog.c    estimate.c             pending.c
 */
#ifndef VGPU_WORKER_COMMAND_H
#define VGPU_WORKER_COMMAND_H

#include <stdbool.h>
#include <stdint.h>

#include "api/handle-types.h"
#include "protocol/vgpu-queue.h"
#include "protocol/vgpu-worker.h"
#include "worker/ring.h"

struct api_rule;
struct execution;

/* What is true of a command. */
enum command_flag {
    COMMAND_SLOT = 1u << 0,     /* it must have a slot */
    COMMAND_TURN = 1u << 1,     /* it is work for the GPU, and so waits for a turn */
    COMMAND_SLOW = 1u << 2,     /* it may take long without the GPU, as the compiler does */
    COMMAND_FREE = 1u << 3,     /* it does not depend on what was posted before */
    COMMAND_GATE = 1u << 4,     /* its stream may wait for something that is not the GPU's */
    COMMAND_WAITS = 1u << 5,    /* it is answered when its stream, or its event, is done */
    COMMAND_ASKS = 1u << 6,     /* it asks whether that is so */
    COMMAND_BY_EVENT = 1u << 7, /* the two before are about its event, else about its stream */
    COMMAND_CHANGES_STREAM = 1u << 8, /* what waits for its stream comes behind it */
    COMMAND_CHANGES_EVENT = 1u << 9,  /* what waits for its event does */
};

/* The objects that a command names, at most. */
#define COMMAND_OBJECTS 2u

struct command_facts;
struct flight_piece;
struct handles;

struct command_rule {
    const char *name;
    enum vgpu_gpu_error (*handler)(struct execution *x);
    /* Checks the form of a command and notes the facts about it, which are all 0 before. */
    enum vgpu_refusal (*decode)(const struct vgpu_command *header, const void *fields,
                                struct command_facts *facts);
    /*
     * Finds the objects that the fields name, in their order; NULL is the default stream. False
     * when one is missing. NULL: it names none.
     */
    bool (*objects)(const struct handles *handles, const void *fields, void **objects);
    /* Fills in how long work takes, and which part of the GPU; NULL: no time. */
    void (*estimate)(const struct execution *x, struct flight_piece *piece);
    uint8_t stream; /* of work: which of the objects is the stream */
};

/* By opcode; generated. That of VGPU_CMD_PAD is empty. */
extern const struct command_rule command_rules[VGPU_COMMAND_COUNT];

/* What a command works on; handles, 0: none, or the default stream. */
struct command_key {
    uint64_t stream, event;
};

/* What is found out about a command. */
struct command_facts {
    const struct command_rule *rule; /* NULL: this version has no such command */
    const struct api_rule *call;     /* of VGPU_CMD_CALL; NULL: it is none, or not known either */
    struct command_key key;
    uint16_t flags;     /* of the rule, or for a call of its own */
    uint8_t engine;     /* enum vgpu_engine; of work */
    bool reserved_used; /* a reserved field is not 0 */
};

/*
 * For the generated code: whether a command has so many bytes behind its header, at least; exactly,
 * but for the padding.
 */
static inline bool command_reaches(const struct vgpu_command *header, uint64_t bytes)
{
    return header->length - sizeof(*header) >= bytes;
}

static inline bool command_is_long(const struct vgpu_command *header, uint64_t bytes)
{
    return header->length - sizeof(*header) ==
           ((bytes + VGPU_COMMAND_ALIGN - 1) & ~(uint64_t)(VGPU_COMMAND_ALIGN - 1));
}

/* The engine of a copy; of one of no kind, which its handler refuses, any will do. */
static inline uint8_t command_engine(uint32_t copy_kind)
{
    return copy_kind == VGPU_COPY_TO_DEVICE     ? VGPU_ENGINE_TO_DEVICE
           : copy_kind == VGPU_COPY_FROM_DEVICE ? VGPU_ENGINE_FROM_DEVICE
                                                : VGPU_ENGINE_COMPUTE;
}

/* Whether two keys are the same: in the event where `wanted` has one, else in the stream. */
static inline bool command_key_matches(const struct command_key *wanted,
                                       const struct command_key *key)
{
    return wanted->event != 0 ? wanted->event == key->event : wanted->stream == key->stream;
}

/* For command_decode(): what VGPU_CMD_CALL is, of the right form. */
enum vgpu_refusal command_decode_call(const struct ring_command *command,
                                      struct command_facts *facts);

/*
 * Finds out about a command that ring_take() has given. VGPU_REFUSED_NONE, or why there can be no
 * such command: then its session ends. A command that this version does not know, or whose reserved
 * fields are used, is none of those; it is answered with an error.
 */
static inline enum vgpu_refusal command_decode(const struct ring_command *command,
                                               struct command_facts *facts)
{
    const uint16_t opcode = command->header.opcode;
    enum vgpu_refusal why;

    *facts = (struct command_facts){0};
    static_assert(VGPU_ENGINE_COMPUTE == 0, "what most work is for");
    if (opcode >= VGPU_COMMAND_COUNT) {
        return VGPU_REFUSED_NONE;
    }
    facts->rule = &command_rules[opcode];
    why = facts->rule->decode(&command->header, command->body, facts);
    return opcode == VGPU_CMD_CALL && why == VGPU_REFUSED_NONE ? command_decode_call(command, facts)
                                                               : why;
}

#endif
