/* SPDX-License-Identifier: MIT */
/*
 * The configuration file, and the limits that are set while VMs run: any bytes at all. What was
 * understood must be understood again as it is written.
 *
 * Tests: mediator/config*.c
 */
#include <stdlib.h>
#include <string.h>

#include "mediator/config.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void ignore(void *context, const char *file, int line, const char *text)
{
    (void)context;
    (void)file;
    (void)line;
    (void)text;
}

static void read_file(const uint8_t *data, size_t size)
{
    FILE *file = fmemopen((void *)(uintptr_t)data, size, "r");
    struct config config;

    config_read(&config, file, ignore, NULL);
    fclose(file);
    config_free(&config);
}

static void set_limit(const char *key, const char *value)
{
    struct config_limits limits = {.share = 1}, again = {.share = 1};
    char text[64], same[64];

    if (config_set_limit(&limits, key, value)) {
        return;
    }
    if (!config_get_limit(&limits, key, text, sizeof(text)) ||
        config_set_limit(&again, key, text) || !config_get_limit(&again, key, same, sizeof(same)) ||
        strcmp(text, same) != 0) {
        abort();
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    char *text = malloc(size + 1);
    char *value;

    if (!text || size == 0) {
        free(text);
        return 0;
    }
    read_file(data, size);
    memcpy(text, data, size);
    text[size] = '\0';
    for (unsigned i = 0; config_limit_keys[i]; i++) {
        set_limit(config_limit_keys[i], text);
    }
    value = strchr(text, '=');
    if (value) {
        *value = '\0';
        set_limit(text, value + 1);
    }
    free(text);
    return 0;
}
