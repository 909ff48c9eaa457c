/* SPDX-License-Identifier: MIT */
/*
 * Commands of a session that have left the ring and wait for their time, in order: work that may
 * not be submitted yet, and what has to come after it. What was found out about them waits with
 * them. Pure.
 */
#ifndef VGPU_WORKER_BACKLOG_H
#define VGPU_WORKER_BACKLOG_H

#include <stdbool.h>
#include <stdint.h>

#include "worker/command.h"

#define BACKLOG_COMMANDS 1024u
#define BACKLOG_BYTES (512u << 10) /* at least a few of VGPU_COMMAND_MAX */

struct backlog_entry {
    struct command_facts facts;
    uint32_t length; /* bytes */
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
                 const struct command_facts *facts);

/* Takes the first one out, into *command and *facts; there is one. */
void backlog_take(struct backlog *backlog, struct ring_command *command,
                  struct command_facts *facts);

/*
 * The last command that has any of these flags (enum command_flag) and matches the key: its place,
 * 1 for the first in the backlog, 0 for none.
 */
uint32_t backlog_find(const struct backlog *backlog, uint32_t flags, const struct command_key *key);

/* Frees it. */
void backlog_release(struct backlog *backlog);

#endif
