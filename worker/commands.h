/* SPDX-License-Identifier: MIT */
/*
 * The commands of ring mode: one table says what each opcode takes and whether it needs a slot
 * and a turn; the checks that all share are made once, from the table. A handler gets a body of
 * the right length and answers for its arguments alone.
 */
#ifndef VGPU_WORKER_COMMANDS_H
#define VGPU_WORKER_COMMANDS_H

#include "ring-session.h"

/* Whether it is work for the GPU. */
bool command_needs_turn(const struct vgpu_command *header);

/* Whether it may take long without the GPU, as the compiler for PTX does. */
bool command_is_slow(const struct vgpu_command *header);

/*
 * Carries out session->command: it is answered, or pending, or has failed into
 * session->deferred. Returns 0, or -EPROTO when its header does not fit its opcode or its slot
 * is in use.
 */
int command_execute(struct ring_session *session);

/* Gives back the fences of a pending command that is not answered any more. */
void command_release_fences(struct ring_session *session, struct pending *pending);

/* Looks whether a pending command is done, and answers it then. Returns whether it was. */
bool command_poll(struct ring_session *session, struct pending *pending);

#endif
