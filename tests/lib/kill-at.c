/* SPDX-License-Identifier: MIT */
/*
 * usage: kill-at [--crash] PID N
 *
 * With --crash it gets a SIGSEGV there, as by a fault of its own, which it may handle.
 *
 * Kills a process at the N-th point from now on at which it enters or leaves a system call, in its
 * main thread. Between two of them a process only changes its own memory. So each N is one moment
 * of what it does next, and one after the other they are all that others can see.
 *
 * Prints "watching" when it does. The end of its input before that point lets the process go on;
 * then it prints "not reached", with the number of points that there were. Else it prints "killed".
 */
#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ptrace.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

static int fail(const char *what)
{
    fprintf(stderr, "kill-at: %s: %s\n", what, strerror(errno));
    return 1;
}

/* Waits for a stop; -1 when the input has ended first. */
static int await_stop(pid_t pid)
{
    struct pollfd input = {.fd = STDIN_FILENO, .events = POLLIN};
    int status;

    for (unsigned looks = 1;; looks++) {
        if (waitpid(pid, &status, WNOHANG) == pid) {
            return status;
        }
        /* Nothing tells of both: mostly the stop is there in a moment. */
        if (looks % 256 == 0 && poll(&input, 1, 1) == 1) {
            return -1;
        }
    }
}

int main(int argc, char **argv)
{
    const bool crash = argc == 4 && strcmp(argv[1], "--crash") == 0;
    const pid_t pid = argc == 3 + crash ? atoi(argv[1 + crash]) : 0;
    const long wanted = argc == 3 + crash ? atol(argv[2 + crash]) : 0;
    long points = 0;
    int status;

    if (pid <= 0 || wanted <= 0) {
        fputs("usage: kill-at [--crash] PID N\n", stderr);
        return 2;
    }
    if (ptrace(PTRACE_SEIZE, pid, NULL, PTRACE_O_TRACESYSGOOD) < 0 ||
        ptrace(PTRACE_INTERRUPT, pid, NULL, NULL) < 0 || waitpid(pid, &status, 0) != pid ||
        ptrace(PTRACE_SYSCALL, pid, NULL, NULL) < 0) {
        return fail("cannot watch the process");
    }
    puts("watching");
    fflush(stdout);
    while ((status = await_stop(pid)) >= 0) {
        const int number = WIFSTOPPED(status) ? WSTOPSIG(status) : 0;

        if (!WIFSTOPPED(status)) {
            fputs("kill-at: it has ended by itself\n", stderr);
            return 1;
        }
        points += number == (SIGTRAP | 0x80);
        if (points == wanted && crash) {
            ptrace(PTRACE_DETACH, pid, NULL, (long)SIGSEGV);
            puts("killed");
            return 0;
        }
        if (points == wanted) {
            kill(pid, SIGKILL);
            puts("killed");
            return 0;
        }
        /* A signal of its own is passed on; what stops it for this program is not. */
        ptrace(PTRACE_SYSCALL, pid, NULL, (number & 0x7f) == SIGTRAP ? 0L : (long)number);
    }
    printf("not reached %ld\n", points);
    fflush(stdout);
    ptrace(PTRACE_INTERRUPT, pid, NULL, NULL);
    waitpid(pid, &status, 0);
    ptrace(PTRACE_DETACH, pid, NULL, NULL);
    return 0;
}
