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
#include <sys/acl.h>
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

/* One more entry of an access list; `user` for a named one. */
static bool add_entry(acl_t *list, acl_tag_t tag, const uid_t *user, bool may)
{
    acl_entry_t entry;
    acl_permset_t rights;

    return acl_create_entry(list, &entry) == 0 && acl_set_tag_type(entry, tag) == 0 &&
           (!user || acl_set_qualifier(entry, user) == 0) && acl_get_permset(entry, &rights) == 0 &&
           acl_clear_perms(rights) == 0 &&
           (!may || (acl_add_perm(rights, ACL_READ) == 0 && acl_add_perm(rights, ACL_WRITE) == 0));
}

static int compare_users(const void *one, const void *other)
{
    const uid_t a = *(const uid_t *)one, b = *(const uid_t *)other;

    return (a > b) - (a < b);
}

/* Returns 0 or -errno. */
static int set_access_list(const char *path, const uid_t *users, size_t count)
{
    acl_t list = acl_init((int)count + 4);
    bool good = list && add_entry(&list, ACL_USER_OBJ, NULL, true) &&
                add_entry(&list, ACL_GROUP_OBJ, NULL, false) &&
                add_entry(&list, ACL_OTHER, NULL, false) && add_entry(&list, ACL_MASK, NULL, true);
    int r;

    for (size_t i = 0; good && i < count; i++) {
        /* Nobody may be there twice. */
        good = (i > 0 && users[i] == users[i - 1]) || add_entry(&list, ACL_USER, &users[i], true);
    }
    r = good && acl_set_file(path, ACL_TYPE_ACCESS, list) == 0 ? 0 : -errno;
    if (list) {
        acl_free(list);
    }
    return r;
}

int listen_admit(const char *path, uid_t *users, size_t count)
{
    int r;

    if (count > 0) {
        qsort(users, count, sizeof(*users), compare_users);
    }
    r = set_access_list(path, users, count);
    if (r == -EOPNOTSUPP) {
        r = chmod(path, count > 0 ? 0666 : 0600) < 0 ? -errno : 0;
        if (r == 0 && count > 0) {
            log_warning("the file system of '%s' has no access lists: every user may connect, and "
                        "is told there who may attach",
                        path);
        }
    }
    if (r < 0) {
        log_warning("cannot change who may reach '%s': %s", path, strerror(-r));
    }
    return r;
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
