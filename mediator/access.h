/* SPDX-License-Identifier: MIT */
/* Who may connect to a socket that lies in the file system. */
#ifndef VGPU_MEDIATOR_ACCESS_H
#define VGPU_MEDIATOR_ACCESS_H

#include <stddef.h>
#include <sys/types.h>

/*
 * Lets these users connect to the socket with this path, and no other user but its owner and root.
 * Where its file system has no access lists, or has none that long, any user may, which is logged.
 * What the path leads to is a socket, or nothing happens. `users` is sorted here. Returns 0 or
 * -errno, logged.
 */
int access_admit(const char *path, uid_t *users, size_t count);

#endif
