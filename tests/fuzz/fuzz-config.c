/* SPDX-License-Identifier: MIT */
/* The configuration file: any bytes at all. */
#include <string.h>

#include "config.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void ignore(void *context, int line, const char *text)
{
    (void)context;
    (void)line;
    (void)text;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct config config;
    FILE *file;

    if (size == 0) {
        return 0;
    }
    file = fmemopen((void *)(uintptr_t)data, size, "r");
    config_read(&config, file, ignore, NULL);
    fclose(file);
    config_free(&config);
    return 0;
}
