/* SPDX-License-Identifier: MIT */
/*
 * Log lines on stderr, or where that has been put. Each is one write(2), so that lines of several
 * processes never mix: the mediator and all of its workers have the same stderr.
 *
 * Nothing is buffered and nothing is allocated, so a line is out even if the process dies right
 * behind it, and logging works without memory. A line that is too long is cut, but ends with its
 * newline.
 */
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
static int log_file = STDERR_FILENO;

void log_open(const char *program)
{
    log_program = program;
    /* systemd sets this for a service whose stderr goes to the journal; see systemd.exec(5). */
    log_to_journal = getenv("JOURNAL_STREAM") != NULL;
}

void log_set_file(int file)
{
    log_file = file;
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
        /*
         * The journal takes the priority off the line, and knows by itself which service this is.
         */
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
    (void)!write(log_file, line, (size_t)n);
    errno = saved;
}
