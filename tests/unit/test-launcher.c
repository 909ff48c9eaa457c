/* SPDX-License-Identifier: MIT */
/*
 * The process that starts workers: what it starts, as whom, whom it kills, and what it tells. It
 * starts a shell here, as what the arguments say is then seen by its exit code.
 *
 * Tests: mediator/launcher.c, mediator/users.c, mediator/access.c
 */
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

#include "mediator/launcher.h"
#include "tests/unit/unit.h"

static int socket_fd;
static int fds[LAUNCHER_FDS];
static char path[64];

static int set_up(void **state)
{
    const struct launcher_fixed fixed = {
        .worker = "/bin/sh", .user = 12, .group = 34, .socket = path};
    struct sockaddr_un address = {.sun_family = AF_UNIX};

    (void)state;
    snprintf(path, sizeof(path), "/tmp/vgpu-launcher-%d", (int)getpid());
    strcpy(address.sun_path, path);
    assert_int_equal(
        bind(socket(AF_UNIX, SOCK_STREAM, 0), (struct sockaddr *)&address, sizeof(address)), 0);
    /* Of the test's own; nobody else is to have it. */
    assert_true(fcntl(open("/dev/zero", O_RDONLY), F_DUPFD, 77) == 77);
    socket_fd = launcher_open(&fixed);
    assert_true(socket_fd >= 0);
    for (unsigned i = 0; i < LAUNCHER_FDS; i++) {
        fds[i] = open("/dev/null", O_RDWR | O_CLOEXEC);
    }
    return 0;
}

/* As launcher_start(); the pidfd is looked at and closed. */
static pid_t start_worker(const char *const arguments[], uint64_t *start)
{
    int pidfd = -1;
    const pid_t pid = launcher_start(arguments, fds, start, &pidfd);

    assert_int_equal(pidfd >= 0, pid > 0);
    if (pidfd >= 0) {
        close(pidfd);
    }
    return pid;
}

static pid_t run(const char *script)
{
    uint64_t start;

    return start_worker((const char *const[]){"-c", script, NULL}, &start);
}

/* Waits for the next end. */
static siginfo_t next_end(void)
{
    struct pollfd readable = {.fd = socket_fd, .events = POLLIN};
    siginfo_t info = {0};
    uint64_t start;
    int r;

    while ((r = launcher_next_end(&info, &start)) == 0) {
        assert_int_equal(poll(&readable, 1, 60000), 1);
    }
    assert_int_equal(r, 1);
    return info;
}

static void expect_exit(const char *script, int status)
{
    const pid_t pid = run(script);
    siginfo_t info;

    assert_true(pid > 0);
    info = next_end();
    assert_int_equal(info.si_pid, pid);
    assert_int_equal(info.si_code, CLD_EXITED);
    assert_int_equal(info.si_status, status);
}

static void test_starts_and_tells_ends(void **state)
{
    (void)state;
    expect_exit("exit 7", 7);
    /* It has its six descriptors, the standard ones, and no more. */
    expect_exit("for i in 3 4 5 6 7 8; do [ -e /proc/$$/fd/$i ] || exit 1; done; "
                "[ -e /proc/$$/fd/9 ] || [ -e /proc/$$/fd/77 ] && exit 2; exit 0",
                0);
    /* Its arguments end with what is fixed. */
    expect_exit("[ \"$0 $1\" = '--user 12:34' ]", 0);
}

static void test_kills_its_own_alone(void **state)
{
    const pid_t stranger = fork();
    pid_t pid;
    siginfo_t info;

    (void)state;
    if (stranger == 0) {
        pause();
        _exit(0);
    }
    pid = run("exec sleep 1000");
    assert_true(pid > 0);
    launcher_kill(stranger);
    launcher_kill(pid);
    info = next_end();
    assert_int_equal(info.si_pid, pid);
    assert_int_equal(info.si_code, CLD_KILLED);
    assert_int_equal(info.si_status, SIGKILL);
    /* Reaped, and so no longer its own. */
    launcher_kill(pid);
    expect_exit("exit 0", 0);
    assert_int_equal(waitpid(stranger, NULL, WNOHANG), 0);
    kill(stranger, SIGKILL);
    waitpid(stranger, NULL, 0);
}

static void test_who_it_runs_as_is_not_asked_for(void **state)
{
    static char longest[LAUNCHER_TEXT + 1];
    uint64_t start;

    (void)state;
    memset(longest, 'x', LAUNCHER_TEXT);
    assert_int_equal(start_worker((const char *const[]){"--user", "0:0", NULL}, &start), -EPROTO);
    assert_int_equal(start_worker((const char *const[]){"--us=0:0", NULL}, &start), -EPROTO);
    assert_int_equal(start_worker((const char *const[]){longest, NULL}, &start), -E2BIG);
    expect_exit("exit 0", 0);
}

/* Ends that come while the answer to a start is waited for are not lost. */
static void test_many_at_once(void **state)
{
    enum { MANY = 200 };
    static pid_t pids[MANY];

    (void)state;
    for (unsigned i = 0; i < MANY; i++) {
        pids[i] = run("exit 3");
        assert_true(pids[i] > 0);
    }
    for (unsigned i = 0; i < MANY; i++) {
        const siginfo_t info = next_end();
        unsigned j = 0;

        while (j < MANY && pids[j] != info.si_pid) {
            j++;
        }
        assert_true(j < MANY);
        pids[j] = 0;
        assert_int_equal(info.si_status, 3);
    }
    assert_false(launcher_pending());
}

static void test_users(void **state)
{
    uid_t user = 1;
    gid_t group = 1;

    (void)state;
    assert_true(launcher_find_user("root", &user, &group));
    assert_int_equal(user + group, 0);
    assert_true(launcher_find_user("0", &user, &group));
    assert_false(launcher_find_user("nobody at all", &user, &group));
    /* Numbers are not folded. */
    assert_false(launcher_find_user("4294967296", &user, &group));
    assert_false(launcher_find_user("+0", &user, &group));
    expect_exit("exit 0", 0);
}

/* Numbers of starts tell ends apart, where process ids come again. */
static void test_numbers_of_starts(void **state)
{
    const char *const arguments[] = {"-c", "exit 0", NULL};
    uint64_t first, second, ended;
    siginfo_t info;

    (void)state;
    assert_true(start_worker(arguments, &first) > 0);
    next_end();
    assert_true(start_worker(arguments, &second) > 0);
    assert_true(second > first);
    while (launcher_next_end(&info, &ended) == 0) {
        usleep(1000);
    }
    assert_int_equal(ended, second);
}

static void test_who_reaches_the_socket(void **state)
{
    const uid_t users[] = {77, 5, 77};
    struct stat st;

    (void)state;
    launcher_admit(users, 3);
    assert_int_equal(stat(path, &st), 0);
    /* The group's bits are the list's mask, or there are no lists here. */
    assert_true((st.st_mode & 0777) == 0660 || (st.st_mode & 0777) == 0666);
    launcher_admit(NULL, 0);
    assert_int_equal(stat(path, &st), 0);
    assert_int_equal(st.st_mode & 0007, 0);
    /* A link in its place is not followed. */
    unlink(path);
    assert_int_equal(symlink("/etc/passwd", path), 0);
    launcher_admit(users, 3);
    assert_int_equal(stat("/etc/passwd", &st), 0);
    assert_int_equal(st.st_mode & 0777, 0644);
    unlink(path);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_starts_and_tells_ends),
        cmocka_unit_test(test_kills_its_own_alone),
        cmocka_unit_test(test_who_it_runs_as_is_not_asked_for),
        cmocka_unit_test(test_many_at_once),
        cmocka_unit_test(test_users),
        cmocka_unit_test(test_numbers_of_starts),
        cmocka_unit_test(test_who_reaches_the_socket),
    };

    return cmocka_run_group_tests(tests, set_up, NULL);
}
