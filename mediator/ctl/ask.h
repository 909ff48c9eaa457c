/* SPDX-License-Identifier: MIT */
/* A question to the mediator (docs/control.md), and getting at what is in its answer. */
#ifndef VGPU_MEDIATOR_CTL_ASK_H
#define VGPU_MEDIATOR_CTL_ASK_H

#include <json-c/json.h>
#include <stdbool.h>
#include <stdint.h>

/*
 * Asks at the control socket. The answer is the caller's, and has "error" where the mediator
 * refused. NULL when there is none: *problem says why, until the next call.
 */
struct json_object *ask(const char *path, struct json_object *question, const char **problem);

/* A question without arguments; the caller's. */
struct json_object *ask_question(const char *command);

/* What is under a key; NULL, "", 0 or false where it is missing. */
struct json_object *get(struct json_object *object, const char *key);
const char *get_text(struct json_object *object, const char *key);
uint64_t get_number(struct json_object *object, const char *key);
double get_real(struct json_object *object, const char *key);
bool get_bool(struct json_object *object, const char *key);

/* Of the array under a key: its length, 0 where it is missing, and an element. */
size_t get_length(struct json_object *object, const char *key);
struct json_object *get_element(struct json_object *object, const char *key, size_t index);

#endif
