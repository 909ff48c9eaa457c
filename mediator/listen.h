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
 * Lets these users connect to the socket with this path, and no other user but the owner and root.
 * Where its file system has no access lists any user may, which is logged. Returns 0 or -errno,
 * logged. `users` is sorted.
 */
int listen_admit(const char *path, uid_t *users, size_t count);

/*
 * Ends what listen_at() began: closes `fd`, unless that is negative and done already, and removes
 * the path, unless another process serves it by now.
 */
void listen_end(int fd, const char *address);

#endif
