/* SPDX-License-Identifier: MIT */
/*
 * Log lines on stderr. Under systemd each carries its priority for the journal
 * (sd-daemon(3)); elsewhere it starts with the program's name.
 */
#ifndef VGPU_COMMON_LOG_H
#define VGPU_COMMON_LOG_H

enum log_level {
    LOG_LEVEL_ERROR = 3,
    LOG_LEVEL_WARNING = 4,
    LOG_LEVEL_INFO = 6,
    LOG_LEVEL_DEBUG = 7,
};

/*
 * Sets the name that lines start with; `program` is kept, not copied. Call first; later calls
 * change the name. SIGPIPE and SIGXFSZ are ignored from then on: a log does not end its program.
 */
void log_open(const char *program);

/* Lines go to this descriptor from now on; at first it is stderr. */
void log_set_file(int file);

/* Lines above this level are dropped; the default is LOG_LEVEL_INFO. */
void log_set_level(enum log_level level);

/*
 * Writes one line; `format` without a newline. Never fails, never waits, keeps errno. What would
 * have to wait is lost and counted, and the next line that is written comes behind the count.
 */
void log_line(enum log_level level, const char *format, ...) __attribute__((format(printf, 2, 3)));

#define log_error(...) log_line(LOG_LEVEL_ERROR, __VA_ARGS__)
#define log_warning(...) log_line(LOG_LEVEL_WARNING, __VA_ARGS__)
#define log_info(...) log_line(LOG_LEVEL_INFO, __VA_ARGS__)
#define log_debug(...) log_line(LOG_LEVEL_DEBUG, __VA_ARGS__)

#endif
