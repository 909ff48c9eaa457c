/* SPDX-License-Identifier: MIT */
/*
 * Finds out whether this host has GPUs. The mediator itself loads no CUDA, so that it neither
 * crashes nor hangs with the driver. It runs `vgpu-worker --probe` and reads its output: "cuda N"
 * and a line with each GPU's name, or "cpu" and the reason why there is no GPU.
 *
 * This is called once, at the start, before the event loop runs; so it may wait.
 */
#include "mediator/probe.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <spawn.h>
#include <stdio.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "common/log.h"

/* A driver that wakes a sleeping GPU takes seconds; one that hangs takes for ever. */
#define PROBE_LIMIT_MS 30000

static int spawn_probe(const char *worker, int out, pid_t *pid)
{
    char *const argv[] = {(char *)"vgpu-worker", (char *)"--probe", NULL};
    posix_spawn_file_actions_t actions;
    posix_spawnattr_t attributes;
    sigset_t none;
    int r;

    posix_spawn_file_actions_init(&actions);
    posix_spawn_file_actions_adddup2(&actions, out, STDOUT_FILENO);
    /* The mediator's signals are blocked for its event loop. */
    sigemptyset(&none);
    posix_spawnattr_init(&attributes);
    posix_spawnattr_setsigmask(&attributes, &none);
    posix_spawnattr_setflags(&attributes, POSIX_SPAWN_SETSIGMASK);
    r = posix_spawn(pid, worker, &actions, &attributes, argv, environ);
    posix_spawnattr_destroy(&attributes);
    posix_spawn_file_actions_destroy(&actions);
    return -r;
}

/* Reads until the end of the probe or the limit; the length of the text. */
static size_t read_output(int fd, char *output, size_t size)
{
    struct pollfd p = {.fd = fd, .events = POLLIN};
    size_t length = 0;

    while (length < size - 1 && poll(&p, 1, PROBE_LIMIT_MS) == 1) {
        const ssize_t n = read(fd, output + length, size - 1 - length);

        if (n <= 0) {
            break;
        }
        length += (size_t)n;
    }
    output[length] = '\0';
    return length;
}

int probe_gpus(const char *worker, char *text, size_t size)
{
    char output[1024];
    char *first, *rest;
    int pipe_fds[2];
    int count = 0;
    pid_t pid;
    int r;

    if (pipe2(pipe_fds, O_CLOEXEC) < 0) {
        return -errno;
    }
    r = spawn_probe(worker, pipe_fds[1], &pid);
    close(pipe_fds[1]);
    if (r < 0) {
        close(pipe_fds[0]);
        log_error("cannot run the worker '%s': %s; see 'worker' in the configuration", worker,
                  strerror(-r));
        return r;
    }
    read_output(pipe_fds[0], output, sizeof(output));
    close(pipe_fds[0]);
    /* One that has ended by itself does not notice this; one that hangs ends by it. */
    kill(pid, SIGKILL);
    waitpid(pid, NULL, 0);
    rest = output;
    first = strsep(&rest, "\n");
    /* Of several GPUs the first one's name stands for all: it is for people. */
    if (sscanf(first, "cuda %d", &count) == 1 && count > 0) {
        const char *name = strsep(&rest, "\n");

        snprintf(text, size, "%s", name ? name : "a GPU");
        return count;
    }
    if (strncmp(first, "cpu ", 4) == 0) {
        snprintf(text, size, "%s", first + 4);
        return 0;
    }
    log_error("the probe of '%s' printed '%s': is it a vgpu-worker of this release?", worker,
              first);
    return -EPROTO;
}
