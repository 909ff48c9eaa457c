/* SPDX-License-Identifier: MIT */
/* VMs, sessions and pools as JSON, with the keys of docs/control.md. */
#ifndef VGPU_MEDIATOR_CONTROL_DESCRIBE_H
#define VGPU_MEDIATOR_CONTROL_DESCRIBE_H

#include <json-c/json.h>

#include "mediator/mediator.h"

/* These add one key. */
void describe_string(struct json_object *object, const char *key, const char *text);
void describe_number(struct json_object *object, const char *key, uint64_t number);
void describe_seconds(struct json_object *object, const char *key, uint64_t ns);
void describe_bool(struct json_object *object, const char *key, bool value);

/* All of these are the caller's. */
struct json_object *describe_vm(struct vm *vm);
struct json_object *describe_limits(const struct config_limits *limits);
struct json_object *describe_pool(const struct pool *pool);
struct json_object *describe_history(const struct pool *pool);

#endif
