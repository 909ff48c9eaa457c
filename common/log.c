/* SPDX-License-Identifier: MIT */
/*
 * Log lines on stderr, or where that has been put. Each is one write(2), so that lines of several
 * processes never mix: the mediator and all of its workers have the same stderr.
 *
 * Nothing is buffered and nothing is allocated, so a line is out even if the process dies right
 * behind it, and logging works without memory. A line that is too long is cut, but ends with its
 * newline.
 *
 * Nobody waits for a log, or dies of it: its reader may be a pager that somebody has left open, or
 * be gone. A line that would have to wait is lost, and the next one that is written tells how many
 * were. A socket, as the journal's is, can be asked not to wait for one message. A pipe cannot, so
 * log_open() opens it once more for itself, since the flag would hold for all who have the first
 * one. Where it may not do that, it looks first whether there is room; another process may then
 * still take it.
 */
#include "common/log.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "common/clock.h"

static const char *log_program = "vgpu";
static enum log_level log_max = LOG_LEVEL_INFO;
static bool log_to_journal;
static bool log_has_times;
static int log_file = STDERR_FILENO;
static struct log_budget *log_own; /* of all lines; NULL: there is none */
static unsigned log_lost;          /* lines, since the last one that was written; by any thread */

/* The pipe or terminal behind stderr, as a file of this process's own that does not wait. */
static int open_unwaiting(void)
{
    struct stat status;

    if (fstat(STDERR_FILENO, &status) < 0 || !(S_ISFIFO(status.st_mode) || isatty(STDERR_FILENO))) {
        return -1;
    }
    return open("/proc/self/fd/2", O_WRONLY | O_NONBLOCK | O_NOCTTY | O_CLOEXEC);
}

void log_open(const char *program)
{
    /* Once: a program that is called something else from now on has it already. */
    const int file = log_file == STDERR_FILENO ? open_unwaiting() : -1;

    log_program = program;
    /* systemd sets this for a service whose stderr goes to the journal; see systemd.exec(5). */
    log_to_journal = getenv("JOURNAL_STREAM") != NULL;
    if (file >= 0) {
        log_file = file;
    }
    /* A reader that is gone, and a file that has reached the process's limit of size. */
    signal(SIGPIPE, SIG_IGN);
    signal(SIGXFSZ, SIG_IGN);
}

void log_limit(struct log_budget *budget)
{
    log_own = budget;
}

/* The time now, and a blank; nothing where lines have none. */
static void put_time(char text[32])
{
    struct timespec now;
    struct tm parts;
    size_t length;

    text[0] = '\0';
    if (log_has_times && clock_gettime(CLOCK_REALTIME, &now) == 0 &&
        gmtime_r(&now.tv_sec, &parts)) {
        length = strftime(text, 32, "%Y-%m-%dT%H:%M:%S", &parts);
        snprintf(text + length, 32 - length, ".%03ldZ ", now.tv_nsec / 1000000);
    }
}

void log_times(void)
{
    char text[32];

    log_has_times = true;
    put_time(text);
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

/* Whether the line was written; a part of it counts. */
static bool put_line(char *line, size_t bytes)
{
    struct iovec part = {line, bytes};
    const struct msghdr message = {.msg_iov = &part, .msg_iovlen = 1};
    struct pollfd room = {.fd = log_file, .events = POLLOUT};

    if (sendmsg(log_file, &message, MSG_DONTWAIT | MSG_NOSIGNAL) > 0) {
        return true;
    }
    if (errno != ENOTSOCK) {
        return false;
    }
    return poll(&room, 1, 0) == 1 && (room.revents & POLLOUT) && write(log_file, line, bytes) > 0;
}

static bool write_line(enum log_level level, const char *format, va_list args)
{
    char line[1024], when[32];
    const int size = (int)sizeof(line);
    int n;

    if (log_to_journal) {
        /*
         * The journal takes the priority off the line, and knows by itself which service this is.
         */
        n = snprintf(line, sizeof(line), "<%d>", (int)level);
    } else {
        put_time(when);
        n = snprintf(line, sizeof(line), "%s%s: %s", when, log_program, level_word(level));
    }
    n += vsnprintf(line + n, sizeof(line) - (size_t)n, format, args);
    if (n > size - 1) {
        n = size - 1;
    }
    line[n++] = '\n';
    return put_line(line, (size_t)n);
}

static bool write_words(enum log_level level, const char *format, ...)
    __attribute__((format(printf, 2, 3)));

static bool write_words(enum log_level level, const char *format, ...)
{
    va_list args;
    bool written;

    va_start(args, format);
    written = write_line(level, format, args);
    va_end(args);
    return written;
}

/* Whether a line may be written; *left_out: how many were not before it. */
static bool budget_take(struct log_budget *budget, unsigned *left_out)
{
    const uint64_t now = clock_ns();
    const uint32_t most = budget->most ? budget->most : LOG_BUDGET_LINES;

    if (now - __atomic_load_n(&budget->since_ns, __ATOMIC_RELAXED) >= LOG_BUDGET_NS) {
        __atomic_store_n(&budget->since_ns, now, __ATOMIC_RELAXED);
        __atomic_store_n(&budget->lines, 0, __ATOMIC_RELAXED);
    }
    if (__atomic_fetch_add(&budget->lines, 1, __ATOMIC_RELAXED) >= most) {
        __atomic_fetch_add(&budget->left_out, 1, __ATOMIC_RELAXED);
        return false;
    }
    *left_out = __atomic_exchange_n(&budget->left_out, 0, __ATOMIC_RELAXED);
    return true;
}

static void log_arguments(struct log_budget *budget, enum log_level level, const char *format,
                          va_list args)
{
    const int saved = errno;
    unsigned lost, left_out = 0;

    if (level > log_max || (budget && !budget_take(budget, &left_out))) {
        return;
    }
    lost = __atomic_exchange_n(&log_lost, 0, __ATOMIC_RELAXED);
    if (lost > 0 &&
        write_words(LOG_LEVEL_WARNING,
                    "%u lines are lost here: who reads this log does not keep up", lost)) {
        lost = 0;
    }
    if (left_out > 0) {
        lost += !write_words(LOG_LEVEL_WARNING, "%u lines like the next one are left out here",
                             left_out);
    }
    lost += !write_line(level, format, args);
    __atomic_fetch_add(&log_lost, lost, __ATOMIC_RELAXED);
    errno = saved;
}

void log_line_within(struct log_budget *budget, enum log_level level, const char *format, ...)
{
    va_list args;

    va_start(args, format);
    log_arguments(budget, level, format, args);
    va_end(args);
}

void log_line(enum log_level level, const char *format, ...)
{
    va_list args;

    va_start(args, format);
    log_arguments(log_own, level, format, args);
    va_end(args);
}
