/* SPDX-License-Identifier: MIT */
/*
 * What the control socket answers: JSON. docs/control.md lists the commands and all keys.
 */
#ifndef VGPU_MEDIATOR_CONTROL_ANSWER_H
#define VGPU_MEDIATOR_CONTROL_ANSWER_H

#include <sys/socket.h>

#include "mediator/mediator.h"

struct json_object;

/*
 * Does what a question of this process asks for. The answer is the caller's; it has "error" when
 * that failed. NULL: there is no memory for it.
 */
struct json_object *control_answer(struct mediator *mediator, const char *text,
                                   const struct ucred *asker);

/* An answer that says why there is no other. */
struct json_object *control_error(const char *format, ...) __attribute__((format(printf, 1, 2)));

#endif
