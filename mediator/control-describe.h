/* SPDX-License-Identifier: MIT */
/* VMs, sessions and pools as JSON, with the keys of docs/control.md. */
#ifndef VGPU_MEDIATOR_CONTROL_DESCRIBE_H
#define VGPU_MEDIATOR_CONTROL_DESCRIBE_H

#include <json-c/json.h>

#include "mediator/mediator.h"

/* NULL without memory, which the functions below take as an object too. */
struct json_object *describe_object(void);
struct json_object *describe_array(void);

/* Whether something found no memory since this was asked last. */
bool describe_failed(void);

/* These add one key, or one element; `value` is not the caller's any more. */
void describe_part(struct json_object *object, const char *key, struct json_object *value);
void describe_element(struct json_object *array, struct json_object *value);
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
