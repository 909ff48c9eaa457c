/* SPDX-License-Identifier: MIT */
/*
 * The commands of ring mode: one table says what each opcode takes and whether it needs a slot
 * and a turn; the checks that all share are made once, from the table. A handler gets a body of
 * the right length and answers for its arguments alone.
 */
#ifndef VGPU_WORKER_COMMANDS_H
#define VGPU_WORKER_COMMANDS_H

#include "worker/ring-session.h"

/* The largest image of a module; the worker has a copy of it while it loads. */
#define COMMAND_IMAGE_MAX (UINT64_C(1) << 30) /* bytes */

/* Bytes of large copies and fills that are submitted at a time, where others want the GPU too. */
#define COMMAND_COPY_PIECE (UINT64_C(4) << 20)
#define COMMAND_FILL_PIECE (UINT64_C(64) << 20)

/* How much of `left` is submitted at once. */
uint64_t command_piece(const struct ring_session *session, uint64_t left, uint64_t piece);

/*
 * Says in session->piece what session->command, which is work, will be on the GPU, or the next
 * piece of it.
 */
void command_estimate(struct ring_session *session);

/* The engine that a command, which is work, goes to. */
enum vgpu_engine command_engine(const struct ring_command *command);

/* When a command may be carried out that comes behind others which wait: session->head, backlog. */
enum command_place {
    COMMAND_NOW,       /* it does not depend on them */
    COMMAND_AFTER,     /* as soon as some of them are: it waits for their work */
    COMMAND_LAST,      /* after all of them */
    COMMAND_NOT_READY, /* never: it asks whether they are done, and they are not */
};

/* *before: for COMMAND_AFTER, how many of them, head included. */
enum command_place command_place(const struct ring_session *session,
                                 const struct ring_command *command, uint64_t *before);

/* What it works on, as backlog_add() wants it. */
struct backlog_key command_key(const struct ring_command *command);

/* Whether a command has the slot and the length that its opcode asks for. */
bool command_is_good(const struct ring_command *command);

/* Whether it is work for the GPU. */
bool command_needs_turn(const struct ring_command *command);

/* Whether it may take long without the GPU, as the compiler for PTX does. */
bool command_is_slow(const struct ring_command *command);

/*
 * Carries out session->command: it is answered, or pending, or has failed into
 * session->deferred. Returns 0; 1 when it is a large one of which pieces are left; or -EPROTO when
 * its header does not fit its opcode or its slot is in use. session->submitted tells whether the
 * GPU has taken it.
 */
int command_execute(struct ring_session *session);

/* Gives back the fences of a pending command that is not answered any more. */
void command_release_fences(struct ring_session *session, struct pending *pending);

/* Looks whether a pending command is done, and answers it then. Returns whether it was. */
bool command_poll(struct ring_session *session, struct pending *pending);

/* Whether a command does not depend on what was posted before it. */
bool command_is_free(const struct ring_command *command);

/* Frees what memory_drop of api/ has named, if nothing is on the GPU. */
void memory_free_dropped(struct ring_session *s);

/* What a session still has of mappings and of what is dropped; the GPU's own ends with it. */
void memory_release_all(struct ring_session *s);

#endif
