/* SPDX-License-Identifier: MIT */
/*
 * The control socket: vgpuctl's questions. One JSON object a line each way, one question
 * a connection: {"command": NAME, ...} is answered with an object that has "error" when
 * it failed. docs/control.md lists the commands.
 */
#ifndef VGPU_MEDIATOR_CONTROL_H
#define VGPU_MEDIATOR_CONTROL_H

#include "mediator/mediator.h"

/* Takes over a connected socket. Returns 0 or -errno, and the socket is closed then. */
int control_create(struct mediator *mediator, int fd);

#endif
