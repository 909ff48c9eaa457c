/* SPDX-License-Identifier: MIT */
/*
 * Listening Unix sockets. A mediator that was killed leaves its socket's path behind, which is then
 * in the way of the next one. It is removed, but only if it is a socket and nobody answers there: a
 * wrong path in the configuration must not cost a file, nor a second mediator take the first one's
 * clients. At its own end a mediator removes its path by the same rule: somebody may have moved it
 * away and started another one.
 *
 * The umask gives the socket its mode from the beginning, so at no moment does it have another.
 */
#include "mediator/listen.h"

#include <errno.h>
#include <libgen.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include "common/log.h"
#include "common/unixaddr.h"
#include "mediator/chores.h"

#define BACKLOG 128

/*
 * A socket's file does not tell whether anybody listens. To connect is the way to find out, or to
 * hear that there are too many others who do (EAGAIN).
 */
static bool is_served(const struct sockaddr_un *un, socklen_t length)
{
    const int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    const bool served = fd >= 0 &&
                        (connect(fd, (const struct sockaddr *)un, length) == 0 || errno == EAGAIN);

    if (fd >= 0) {
        close(fd);
    }
    return served;
}

/* An error is not told here: bind(2) fails then, and its error is. */
static void make_directory(const char *path)
{
    char *copy = strdup(path);

    if (copy && mkdir(dirname(copy), 0755) < 0 && errno != EEXIST) {
        log_debug("cannot make the directory of '%s': %s", path, strerror(errno));
    }
    free(copy);
}

static int bind_socket(int fd, const char *address, const struct sockaddr_un *un, socklen_t length,
                       mode_t mode)
{
    struct stat st;
    mode_t before;
    int r;

    if (address[0] != '@') {
        make_directory(address);
        if (is_served(un, length)) {
            return -EADDRINUSE;
        }
        /* lstat(2) does not follow a symbolic link: that is no socket either, and stays. */
        if (lstat(address, &st) == 0) {
            if (!S_ISSOCK(st.st_mode)) {
                return -EEXIST;
            }
            unlink(address);
        }
    }
    /* The umask is the whole process's; no other thread of it makes files. */
    before = umask(0777 & ~mode);
    r = bind(fd, (const struct sockaddr *)un, length) < 0 ? -errno : 0;
    umask(before);
    return r;
}

int listen_at(const char *address, mode_t mode)
{
    struct sockaddr_un un;
    const socklen_t length = unix_address(address, &un);
    int fd, r;

    if (length == 0) {
        log_error("cannot listen at '%s': the name is empty or longer than %zu bytes", address,
                  sizeof(un.sun_path) - 1);
        return -ENAMETOOLONG;
    }
    fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    r = fd < 0 ? -errno : bind_socket(fd, address, &un, length, mode);
    if (r == 0 && listen(fd, BACKLOG) < 0) {
        r = -errno;
    }
    if (r < 0) {
        log_error("cannot listen at '%s': %s", address,
                  r == -EADDRINUSE ? "another mediator is serving it"
                  : r == -EEXIST   ? "there is a file of that name that is no socket"
                                   : strerror(-r));
        if (fd >= 0) {
            close(fd);
        }
        return r;
    }
    return fd;
}

void listen_end(int fd, const char *address)
{
    struct sockaddr_un un;
    const socklen_t length = unix_address(address, &un);

    /* What waits in its backlog is closed with it, as others have set that. */
    if (fd >= 0) {
        chores_hang_up(fd);
    }
    if (address[0] != '@' && length > 0 && !is_served(&un, length)) {
        unlink(address);
    }
}
