/* SPDX-License-Identifier: MIT */
/* Messages with descriptors over Unix sockets. */
#ifndef VGPU_COMMON_FDMSG_H
#define VGPU_COMMON_FDMSG_H

#include <stddef.h>
#include <sys/types.h>

/* More than any message of ours carries; what a peer sends beyond it is closed. */
#define FDMSG_MAX 16u

/* Has descriptors closed by another function than close(), here and in fdmsg_close(). */
void fdmsg_close_by(void (*function)(int fd));

/*
 * Sends `length` bytes and `count` descriptors, without SIGPIPE and without blocking.
 * Returns the bytes sent or -errno. The descriptors stay the caller's.
 */
ssize_t fdmsg_send(int socket, const void *bytes, size_t length, const int *fds, size_t count);

/*
 * Receives at most `length` bytes, without blocking. Descriptors that come with them
 * are appended to `fds` (room for FDMSG_MAX, *count of them used), close-on-exec, and
 * belong to the caller, also when an error is returned. Returns the bytes, 0 at end of
 * file, or -errno; -EMSGSIZE when more descriptors came than there is room for.
 */
ssize_t fdmsg_recv(int socket, void *bytes, size_t length, int *fds, size_t *count);

/* Closes all of `fds` and sets *count to 0. */
void fdmsg_close(int *fds, size_t *count);

#endif
