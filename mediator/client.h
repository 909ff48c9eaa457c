/* SPDX-License-Identifier: MIT */
/* Connections on the attach socket: QEMU's stubs and host processes. */
#ifndef VGPU_MEDIATOR_CLIENT_H
#define VGPU_MEDIATOR_CLIENT_H

#include <stdint.h>

#include "mediator/mediator.h"

/* Takes over a connected socket. Returns 0 or -errno, and the socket is closed then. */
int client_create(struct mediator *mediator, int fd);

/*
 * Goes on with the connection of an adopted VM, which becomes the client's, as does the VM. Returns
 * 0 or -errno, and both have ended then.
 */
int client_adopt(struct mediator *mediator, int fd, struct vm *vm);

/* Has the connection end, and its VM with it, when the event loop comes to it. */
void client_hang_up(struct client *client);

/* Closes the connection; its VM ends with it. */
void client_destroy(struct client *client);

#endif
