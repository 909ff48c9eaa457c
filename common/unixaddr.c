/* SPDX-License-Identifier: MIT */
/*
 * Names of Unix sockets. A name that begins with '@' is an abstract one, as in ss(8): it is in no
 * file system and has no permissions. All others are paths.
 */
#include "common/unixaddr.h"

#include <stddef.h>
#include <string.h>

socklen_t unix_address(const char *name, struct sockaddr_un *address)
{
    const size_t length = strlen(name);

    memset(address, 0, sizeof(*address));
    address->sun_family = AF_UNIX;
    if (length == 0 || length >= sizeof(address->sun_path)) {
        return 0;
    }
    memcpy(address->sun_path, name, length);
    if (name[0] == '@') {
        /* An abstract name is as long as the address says, not up to a NUL. */
        address->sun_path[0] = '\0';
        return (socklen_t)(offsetof(struct sockaddr_un, sun_path) + length);
    }
    return (socklen_t)sizeof(*address);
}
