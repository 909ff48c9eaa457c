/* SPDX-License-Identifier: MIT */
/*
 * Commands of a session that have left the ring and wait for their time, in order: work that may
 * not be submitted yet, and what has to come after it. Pure.
 */
#ifndef VGPU_WORKER_BACKLOG_H
#define VGPU_WORKER_BACKLOG_H

#include <stdbool.h>
#include <stdint.h>

#include "worker/ring.h"

#define BACKLOG_COMMANDS 1024u
#define BACKLOG_BYTES (512u << 10) /* at least a few of VGPU_COMMAND_MAX */

/* What a command works on; handles, 0: none, or the default stream. */
struct backlog_key {
    uint64_t stream, event;
};

struct backlog_entry {
    struct backlog_key key;
    uint32_t length; /* bytes */
    uint16_t opcode;
    uint16_t slot;
};

/* Zero-initialised it is empty. */
struct backlog {
    uint8_t *bytes;        /* BACKLOG_BYTES, a ring; NULL before the first use */
    uint32_t first, count; /* of entries */
    uint32_t head, used;   /* of bytes */
    uint64_t slots;        /* bit N: a command with slot N + 1 is here */
    struct backlog_entry entries[BACKLOG_COMMANDS];
};

/* Whether a command of any length can be added. */
bool backlog_has_room(const struct backlog *backlog);

/* Adds a copy of a command; there is room. False when memory is short. */
bool backlog_add(struct backlog *backlog, const struct ring_command *command,
                 const struct backlog_key *key);

/* Takes the first one out, into *command; there is one. */
void backlog_take(struct backlog *backlog, struct ring_command *command);

/*
 * The last command of one of these opcodes, bit N for opcode N, that works on the key's event, or
 * where it has none on its stream: its place, 1 for the first in the backlog, 0 for none.
 */
uint32_t backlog_find(const struct backlog *backlog, uint32_t opcodes,
                      const struct backlog_key *key);

/* Whether two keys are the same in that sense. */
bool backlog_same(const struct backlog_key *wanted, const struct backlog_key *key);

/* Frees it. */
void backlog_release(struct backlog *backlog);

#endif
