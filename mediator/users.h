/* SPDX-License-Identifier: MIT */
/* The host's users. */
#ifndef VGPU_MEDIATOR_USERS_H
#define VGPU_MEDIATOR_USERS_H

#include <stdbool.h>
#include <sys/types.h>

/* A user by name, or by a number in decimal; false: there is none. */
typedef bool users_find_fn(const char *name, uid_t *user, gid_t *group);

/* Asks libc, which may load libraries and talk to servers; at first that is who is asked. */
users_find_fn users_ask_libc;

/* From now on this is who is asked. */
void users_ask(users_find_fn *find);

users_find_fn users_find;

#endif
