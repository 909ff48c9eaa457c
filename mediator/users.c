/* SPDX-License-Identifier: MIT */
/*
 * The host's users, see users.h. Where they are kept is the host's matter: looking one up may take
 * any library and any server. So the mediator, once it is confined, has others do it.
 */
#include "mediator/users.h"

#include <pwd.h>
#include <stdlib.h>
#include <string.h>

static users_find_fn *asked = users_ask_libc;

bool users_ask_libc(const char *name, uid_t *user, gid_t *group)
{
    const bool digits = name[0] != '\0' && name[strspn(name, "0123456789")] == '\0';
    const unsigned long number = digits ? strtoul(name, NULL, 10) : 0;
    const struct passwd *entry = NULL;

    if (!digits) {
        entry = getpwnam(name);
    } else if (number < (uid_t)-1) {
        entry = getpwuid((uid_t)number);
    }

    if (entry) {
        *user = entry->pw_uid;
        *group = entry->pw_gid;
    }
    return entry != NULL;
}

void users_ask(users_find_fn *find)
{
    asked = find;
}

bool users_find(const char *name, uid_t *user, gid_t *group)
{
    return asked(name, user, group);
}
