/* SPDX-License-Identifier: MIT */
/* Listening Unix sockets. */
#ifndef VGPU_MEDIATOR_LISTEN_H
#define VGPU_MEDIATOR_LISTEN_H

#include <sys/types.h>

/*
 * Listens at `address`, a path or '@' and an abstract name. A path that a dead mediator
 * left is replaced, one that a living one serves is not (-EADDRINUSE); a missing last
 * directory is made. `mode` is the socket's, for paths. Returns the descriptor or -errno,
 * logged.
 */
int listen_at(const char *address, mode_t mode);

#endif
