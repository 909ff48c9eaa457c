/* SPDX-License-Identifier: MIT */
/*
 * Log lines: nobody waits for the log's reader, nobody dies of its end, and what is lost is
 * counted.
 *
 * Tests: common/log.c
 */
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#include "common/log.h"
#include "tests/unit/unit.h"

#define ENOUGH 10000u /* lines; more than a pipe or a socket has room for */

/* What can be read now, with a NUL. */
static void read_all(int file, char *text, size_t room)
{
    size_t length = 0;
    ssize_t n;

    while ((n = read(file, text + length, room - length - 1)) > 0) {
        length += (size_t)n;
    }
    text[length] = '\0';
}

/* Fills the log, reads it, and goes on. */
static void fill_and_read(int end)
{
    static char text[4u << 20];
    unsigned before = 0, lost = 0;

    assert_int_equal(fcntl(end, F_SETFL, O_NONBLOCK), 0);
    for (unsigned i = 0; i < ENOUGH; i++) {
        log_info("line %u", i);
    }
    read_all(end, text, sizeof(text));
    for (const char *line = strstr(text, "line "); line; line = strstr(line + 1, "line ")) {
        before++;
    }
    assert_in_range(before, 1, ENOUGH - 1);
    log_info("more");
    read_all(end, text, sizeof(text));
    assert_non_null(strstr(text, "more\n"));
    assert_int_equal(sscanf(text, "test: warning: %u lines are lost", &lost), 1);
    assert_int_equal(before + lost, ENOUGH);
    log_info("last");
    read_all(end, text, sizeof(text));
    assert_string_equal(text, "test: last\n");
}

/* As a service's: stderr is a pipe, or a socket, that others have too and that blocks. */
static void test_reader_stands_still(void **state)
{
    const int before = dup(STDERR_FILENO);
    int ends[2];

    (void)state;
    assert_int_equal(pipe(ends), 0);
    dup2(ends[1], STDERR_FILENO);
    log_open("test");
    dup2(before, STDERR_FILENO);
    fill_and_read(ends[0]);
    assert_false(fcntl(ends[1], F_GETFL) & O_NONBLOCK);
    close(ends[0]);
    close(ends[1]);

    assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM, 0, ends), 0);
    log_set_file(ends[1]);
    fill_and_read(ends[0]);
    close(ends[0]);
    close(ends[1]);

    /* One that could not be opened again. */
    assert_int_equal(pipe(ends), 0);
    log_set_file(ends[1]);
    fill_and_read(ends[0]);
    close(ends[0]);
    close(ends[1]);
    log_set_file(STDERR_FILENO);
    close(before);
}

static void test_reader_is_gone(void **state)
{
    int ends[2];

    (void)state;
    log_open("test");
    assert_int_equal(pipe(ends), 0);
    log_set_file(ends[1]);
    close(ends[0]);
    log_info("to nobody");
    assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM, 0, ends), 0);
    log_set_file(ends[1]);
    close(ends[0]);
    log_info("to nobody");
    log_set_file(STDERR_FILENO);
}

/* In UTC, whatever the time zone; the journal has its own. */
static void test_times(void **state)
{
    char text[256], *end;
    int ends[2], milliseconds = -1;
    struct tm parts = {0};
    time_t before, after;

    (void)state;
    assert_int_equal(setenv("TZ", "XYZ-05:30", 1), 0);
    assert_int_equal(pipe2(ends, O_NONBLOCK), 0);
    log_open("test");
    log_set_file(ends[1]);
    log_times();
    before = time(NULL);
    log_warning("a line");
    after = time(NULL);
    read_all(ends[0], text, sizeof(text));
    end = strptime(text, "%Y-%m-%dT%H:%M:%S", &parts);
    assert_non_null(end);
    assert_in_range(timegm(&parts), before, after);
    assert_int_equal(sscanf(end, ".%3dZ ", &milliseconds), 1);
    assert_in_range(milliseconds, 0, 999);
    assert_string_equal(end + 6, "test: warning: a line\n");
    log_set_file(STDERR_FILENO);
    close(ends[0]);
    close(ends[1]);
}

static unsigned count_lines(const char *text)
{
    unsigned count = 0;

    for (; *text; text++) {
        count += *text == '\n';
    }
    return count;
}

/* One party's lines are so many in a time; the count of what was left out comes before the next. */
static void test_budget(void **state)
{
    static char text[1u << 16];
    struct log_budget budget = {0}, small = {.most = 2};
    int ends[2];

    (void)state;
    assert_int_equal(pipe2(ends, O_NONBLOCK), 0);
    log_open("test");
    log_set_file(ends[1]);
    /* What the tests before have lost is told now. */
    log_info("begin");
    read_all(ends[0], text, sizeof(text));
    for (unsigned i = 0; i < 3 * LOG_BUDGET_LINES; i++) {
        log_line_within(&budget, LOG_LEVEL_INFO, "line");
    }
    read_all(ends[0], text, sizeof(text));
    assert_int_equal(count_lines(text), LOG_BUDGET_LINES);
    for (unsigned i = 0; i < 3; i++) {
        log_line_within(&small, LOG_LEVEL_INFO, "of another");
    }
    read_all(ends[0], text, sizeof(text));
    assert_string_equal(text, "test: of another\ntest: of another\n");
    /* As if the time were over. */
    budget.since_ns = 1;
    log_limit(&budget);
    log_info("new");
    log_limit(NULL);
    read_all(ends[0], text, sizeof(text));
    assert_string_equal(text, "test: warning: 100 lines like the next one are left out here\n"
                              "test: new\n");
    log_set_file(STDERR_FILENO);
    close(ends[0]);
    close(ends[1]);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_reader_stands_still), cmocka_unit_test(test_reader_is_gone),
        cmocka_unit_test(test_budget),
        cmocka_unit_test(test_times), /* from then on lines have them */
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
