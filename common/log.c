/* SPDX-License-Identifier: MIT */
/* Log lines on stderr, see log.h. One write(2) a line, so that lines never mix. */
#include "common/log.h"

#include <errno.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

static const char *log_program = "vgpu";
static enum log_level log_max = LOG_LEVEL_INFO;
static bool log_to_journal;

void log_open(const char *program)
{
    log_program = program;
    log_to_journal = getenv("JOURNAL_STREAM") != NULL;
}

void log_set_level(enum log_level level)
{
    log_max = level;
}

static const char *level_word(enum log_level level)
{
    switch (level) {
    case LOG_LEVEL_ERROR:
        return "error: ";
    case LOG_LEVEL_WARNING:
        return "warning: ";
    case LOG_LEVEL_INFO:
    case LOG_LEVEL_DEBUG:
        break;
    }
    return "";
}

void log_line(enum log_level level, const char *format, ...)
{
    const int saved = errno;
    char line[1024];
    const int size = (int)sizeof(line);
    va_list args;
    int n;

    if (level > log_max) {
        return;
    }
    if (log_to_journal) {
        n = snprintf(line, sizeof(line), "<%d>", (int)level);
    } else {
        n = snprintf(line, sizeof(line), "%s: %s", log_program, level_word(level));
    }
    va_start(args, format);
    n += vsnprintf(line + n, sizeof(line) - (size_t)n, format, args);
    va_end(args);
    if (n > size - 1) {
        n = size - 1;
    }
    line[n++] = '\n';
    /* Nowhere to report a failure to. */
    (void)!write(STDERR_FILENO, line, (size_t)n);
    errno = saved;
}
