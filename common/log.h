/* SPDX-License-Identifier: MIT */
/*
 * Log lines on stderr. Under systemd each carries its priority for the journal
 * (sd-daemon(3)); elsewhere it starts with the program's name, and before that with the time in
 * UTC where log_times() was called: 2026-11-30T16:05:21.042Z (RFC 3339).
 */
#ifndef VGPU_COMMON_LOG_H
#define VGPU_COMMON_LOG_H

#include <stdint.h>

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

/*
 * Lines have the time from now on: for what runs in the background. Once, before a sandbox: the
 * first use looks for files.
 */
void log_times(void);

/* Lines go to this descriptor from now on; at first it is stderr. */
void log_set_file(int file);

/* Lines above this level are dropped; the default is LOG_LEVEL_INFO. */
void log_set_level(enum log_level level);

/*
 * Writes one line; `format` without a newline. Never fails, never waits, keeps errno. What would
 * have to wait is lost and counted, and the next line that is written comes behind the count.
 */
void log_line(enum log_level level, const char *format, ...) __attribute__((format(printf, 2, 3)));

/*
 * What one party may cause: so many lines in LOG_BUDGET_NS; then lines are left out and counted,
 * and the next one that is written comes behind the count. Begins as zeroes. It may lie in memory
 * that others write too: any values do no harm.
 */
struct log_budget {
    uint64_t since_ns; /* the first line that is counted now */
    uint32_t lines, left_out;
    uint32_t most; /* lines; 0: LOG_BUDGET_LINES */
    uint32_t reserved;
};
#define LOG_BUDGET_LINES 50u
#define LOG_BUDGET_NS UINT64_C(10000000000)

/* The same, at the expense of a budget. */
void log_line_within(struct log_budget *budget, enum log_level level, const char *format, ...)
    __attribute__((format(printf, 3, 4)));

/* From now on all lines of this process are at the expense of this budget, which stays. */
void log_limit(struct log_budget *budget);

#define log_error(...) log_line(LOG_LEVEL_ERROR, __VA_ARGS__)
#define log_warning(...) log_line(LOG_LEVEL_WARNING, __VA_ARGS__)
#define log_info(...) log_line(LOG_LEVEL_INFO, __VA_ARGS__)
#define log_debug(...) log_line(LOG_LEVEL_DEBUG, __VA_ARGS__)

#endif
