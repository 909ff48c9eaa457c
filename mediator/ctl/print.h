/* SPDX-License-Identifier: MIT */
/* The mediator's answers as tables, for people. */
#ifndef VGPU_MEDIATOR_CTL_PRINT_H
#define VGPU_MEDIATOR_CTL_PRINT_H

#include <json-c/json.h>
#include <stdint.h>

void print_list(struct json_object *answer);
void print_vm(struct json_object *vm);
void print_limits(struct json_object *vm);
void print_history(struct json_object *answer);

#define UNIT_TEXT 24u

/* "512", "1.5G": bytes. */
const char *format_bytes(uint64_t bytes, char text[UNIT_TEXT]);

/* "16us", "1.5ms", "2.00s". */
const char *format_seconds(double seconds, char text[UNIT_TEXT]);

#endif
