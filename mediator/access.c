/* SPDX-License-Identifier: MIT */
/*
 * Access lists of sockets, see access.h. A socket is opened once, without following a link, looked
 * at, and changed by that descriptor: what its name leads to may change meanwhile.
 */
#include "mediator/access.h"

#include <errno.h>
#include <fcntl.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/acl.h>
#include <sys/stat.h>
#include <unistd.h>

#include "common/log.h"

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

/* Sorts, and takes out whoever is there twice; how many are left. */
static size_t sort_users(uid_t *users, size_t count)
{
    size_t kept = 0;

    if (count > 0) {
        qsort(users, count, sizeof(*users), compare_users);
    }
    for (size_t i = 0; i < count; i++) {
        if (kept == 0 || users[i] != users[kept - 1]) {
            users[kept++] = users[i];
        }
    }
    return kept;
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
        good = add_entry(&list, ACL_USER, &users[i], true);
    }
    r = good && acl_set_file(path, ACL_TYPE_ACCESS, list) == 0 ? 0 : -errno;
    if (list) {
        acl_free(list);
    }
    return r;
}

/* Returns 0 or -errno. */
static int admit_to(const char *path, const char *name, const uid_t *users, size_t count)
{
    const int r = set_access_list(path, users, count);

    if (r != -EOPNOTSUPP && r != -ENOSPC && r != -E2BIG && r != -ERANGE) {
        return r;
    }
    if (chmod(path, count > 0 ? 0666 : 0600) < 0) {
        return -errno;
    }
    if (count > 0) {
        log_warning("'%s' gets no access list of %zu users (%s): every user may connect, and is "
                    "told there who may attach",
                    name, count, strerror(-r));
    }
    return 0;
}

int access_admit(const char *path, uid_t *users, size_t count)
{
    const int fd = open(path, O_PATH | O_NOFOLLOW | O_CLOEXEC);
    char by_fd[32];
    struct stat st = {0};
    int r = fd < 0 || fstat(fd, &st) < 0 ? -errno : 0;

    if (r == 0) {
        snprintf(by_fd, sizeof(by_fd), "/proc/self/fd/%d", fd);
        r = S_ISSOCK(st.st_mode) ? admit_to(by_fd, path, users, sort_users(users, count))
                                 : -ENOTSOCK;
    }
    if (fd >= 0) {
        close(fd);
    }
    if (r < 0) {
        log_warning("cannot change who may reach '%s': %s", path, strerror(-r));
    }
    return r;
}
