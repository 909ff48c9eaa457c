/* SPDX-License-Identifier: MIT */
/* Connections on the attach socket: QEMU's stubs and host processes. */
#ifndef VGPU_MEDIATOR_CLIENT_H
#define VGPU_MEDIATOR_CLIENT_H

#include <stdint.h>

#include "mediator/mediator.h"

/* Takes over a connected socket. Returns 0 or -errno, and the socket is closed then. */
int client_create(struct mediator *mediator, int fd);

/* Closes the connection; its VM ends with it. */
void client_destroy(struct client *client);

#endif
