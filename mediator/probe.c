/* SPDX-License-Identifier: MIT */
/*
 * Finds out whether this host has GPUs. The mediator itself loads no CUDA, so that it neither
 * crashes nor hangs with the driver. It runs `vgpu-worker --probe` and reads its output: "cuda N"
 * and a line with each GPU's name, or "cpu" and the reason why there is no GPU; then "preempt" or
 * "no" and the reason why kernels cannot be taken off it.
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

/* The lines of what the probe printed. False when they are not a probe's. */
static bool read_probe(char *output, struct probe *probe)
{
    char *rest = output;
    const char *line = strsep(&rest, "\n");

    /* Of several GPUs the first one's name stands for all: it is for people. */
    if (sscanf(line, "cuda %d", &probe->gpus) == 1 && probe->gpus > 0) {
        for (int i = 0; i < probe->gpus; i++) {
            const char *name = strsep(&rest, "\n");

            if (i == 0) {
                snprintf(probe->name, sizeof(probe->name), "%s", name ? name : "a GPU");
            }
        }
    } else if (strncmp(line, "cpu ", 4) == 0) {
        probe->gpus = 0;
        snprintf(probe->name, sizeof(probe->name), "%s", line + 4);
    } else {
        return false;
    }
    line = strsep(&rest, "\n");
    probe->can_preempt = line && strcmp(line, "preempt") == 0;
    /* One that hung or crashed over it has printed nothing. */
    snprintf(probe->no_preempt, sizeof(probe->no_preempt), "%s",
             line && strncmp(line, "no ", 3) == 0 ? line + 3 : "trying it did not end");
    return true;
}

int probe_gpus(const char *worker, struct probe *probe)
{
    char output[4096];
    int pipe_fds[2];
    pid_t pid;
    int r;

    *probe = (struct probe){0};
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
    if (!read_probe(output, probe)) {
        log_error("the probe of '%s' printed '%s': is it a vgpu-worker of this release?", worker,
                  output);
        return -EPROTO;
    }
    return 0;
}
