/* SPDX-License-Identifier: MIT */
/*
 * The host's users, see users.h. Where they are kept is the host's matter: looking one up may take
 * any library and any server. So the mediator, once it is confined, has others do it.
 */
#include "mediator/users.h"

#include <pwd.h>
#include <stdlib.h>

static users_find_fn *asked = users_ask_libc;

bool users_ask_libc(const char *name, uid_t *user, gid_t *group)
{
    char *end;
    const unsigned long number = strtoul(name, &end, 10);
    const struct passwd *entry = end != name && *end == '\0' ? getpwuid((uid_t)number)
                                                             : getpwnam(name);

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
