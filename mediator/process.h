/* SPDX-License-Identifier: MIT */
/*
 * A worker process: its start, its link, its place in a pool, its end. What it works for,
 * and what follows from its end, is its owner's matter: vm.c for register mode, queue-session.c for
 * a queue.
 */
#ifndef VGPU_PROCESS_H
#define VGPU_PROCESS_H

#include <stdbool.h>
#include <stdint.h>

#include "mediator.h"
#include "vgpu-worker.h"

struct process {
    /* Set by process_init(). */
    struct mediator *mediator;
    const struct process_ops *ops;
    struct pool *pool;
    struct pool_member member; /* of the pool while the process runs */
    int turn_fd;

    pid_t pid; /* 0 while there is none */
    int link;  /* -1 without */
    sd_event_source *link_source, *child_source;
    sd_event_source *timer; /* the limit on starting up */
    bool ready;
    bool condemned; /* killed on purpose: it is not heard any more */
    bool was_busy;  /* it waited for a turn or had one when it ended */
    char device[sizeof(((struct vgpu_link_msg *)0)->text)]; /* printable */
    uint64_t started_ns;
    uint64_t starts; /* so far */
};

struct process_ops {
    /* READY has come. */
    void (*ready)(struct process *process);
    /* It was reaped, and has left the pool; may start the next. */
    void (*ended)(struct process *process, const siginfo_t *info, bool condemned);
    /* It has kept the turn too long while others wait. */
    void (*expired)(struct process *process);
    /* For log lines, such as "VM 3"; valid until the next call. */
    const char *(*label)(const struct process *process);
};

/* Makes the turn page and the timer. Returns 0 or -errno; then there is nothing to release. */
int process_init(struct process *process, struct mediator *mediator, const struct process_ops *ops,
                 struct pool *pool, uint32_t vm_id, enum vgpu_priority priority);

/* Ends the process where there is one, which is reaped later, and frees what init made. */
void process_release(struct process *process);

/* What a worker is given: descriptors, and arguments, NULL at their end. */
struct process_start {
    uint64_t shm_size;
    int memfd, doorbell, irq;
    const char *const *arguments;
};

/* Starts the process; there must be none. Returns 0 or -errno, logged. */
int process_start(struct process *process, const struct process_start *start);

/* Kills it; `ended` follows when there was one. */
void process_kill(struct process *process);

/* Sends a message; a process that does not listen is ended by the limits on it. */
void process_send(struct process *process, enum vgpu_link_type type);

struct process *process_of_member(struct pool_member *member);

/* Text from outside, for logs and tables: `to` has `size` bytes and gets a NUL. */
void process_printable(char *to, size_t size, const char *from);

#endif
