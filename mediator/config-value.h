/* SPDX-License-Identifier: MIT */
/* One value of the configuration: how it is read, and written again. */
#ifndef VGPU_MEDIATOR_CONFIG_VALUE_H
#define VGPU_MEDIATOR_CONFIG_VALUE_H

#include "mediator/config.h"

#define CONFIG_GPUS_MAX 256 /* of a host */

struct key;

/*
 * Reads a value into *field; NULL, or what it should have been. A wrong one leaves the field as it
 * was, unless it is a list.
 */
typedef const char *read_value(const struct key *key, const char *value, void *field);

/* Writes the field as read_value reads it. */
typedef void write_value(const struct key *key, const void *field, char *text, size_t size);

struct key {
    const char *name;
    size_t offset, size; /* of the field */
    read_value *read;
    const char *expected;
    uint64_t min, max; /* of numbers */
    bool none;         /* is a value, and stands for 0 */
    const char *const *words;

    /* Where it can be set for a VM that is attached: */
    const char *live;
    write_value *write;
};

read_value config_read_devices;
read_value config_read_duration;
read_value config_read_gpu_name;
read_value config_read_metrics;
read_value config_read_number;
read_value config_read_percentage;
read_value config_read_pool;
read_value config_read_shm;
read_value config_read_size;
read_value config_read_text;
read_value config_read_user;
read_value config_read_users;
read_value config_read_word;
read_value config_read_worker_user;

write_value config_write_duration;
write_value config_write_number;
write_value config_write_size;
write_value config_write_word;

/* A whole number up to `max`; *end is behind it. */
bool config_parse_u64(const char *text, uint64_t max, uint64_t *value, const char **end);

/* A pool's letter. */
bool config_parse_pool(const char *text, uint32_t *pool);

#endif
