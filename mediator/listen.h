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

/*
 * Ends what listen_at() began: closes `fd`, unless that is negative and done already, and removes
 * the path, unless another process serves it by now.
 */
void listen_end(int fd, const char *address);

#endif
