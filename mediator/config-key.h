/* SPDX-License-Identifier: MIT */
/* The keys of the configuration's sections. */
#ifndef VGPU_MEDIATOR_CONFIG_KEY_H
#define VGPU_MEDIATOR_CONFIG_KEY_H

#include "mediator/config-value.h"

#define CONFIG_KEYS_MAX 14 /* of a section */

/* The places of those that are looked at once more. */
enum { KEY_LISTEN, KEY_CONTROL, KEY_METRICS };
enum { KEY_DEVICES };
enum { KEY_USER, KEY_POOL };

/* Each ends with a key without a name. The defaults are the VM's keys from KEY_POOL on. */
extern const struct key config_mediator_keys[];
extern const struct key config_pool_keys[];
extern const struct key config_vm_keys[];
extern const struct key *const config_default_keys;

/* Adds a name to a list of names in `text`. */
void config_append_name(char *text, size_t size, const char *name);

#endif
