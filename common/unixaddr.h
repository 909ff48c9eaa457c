/* SPDX-License-Identifier: MIT */
/* Names of Unix sockets, as configuration files and command lines give them. */
#ifndef VGPU_COMMON_UNIXADDR_H
#define VGPU_COMMON_UNIXADDR_H

#include <sys/socket.h>
#include <sys/un.h>

/*
 * Fills in *address from a path, or from '@' and an abstract name. Returns its length for
 * bind(2) and connect(2), or 0 when the name is empty or does not fit.
 */
socklen_t unix_address(const char *name, struct sockaddr_un *address);

#endif
