/* SPDX-License-Identifier: MIT */
/*
 * A worker process: its start, its link, its place in a pool, its end. What it works for,
 * and what follows from its end, is its owner's matter: vm.c for register mode, queue.c for
 * a queue.
 */
#ifndef VGPU_MEDIATOR_PROCESS_H
#define VGPU_MEDIATOR_PROCESS_H

#include <signal.h>
#include <stdbool.h>
#include <stdint.h>

#include "mediator/histogram.h"
#include "mediator/list.h"
#include "mediator/mediator.h"
#include "mediator/record.h"
#include "protocol/vgpu-worker.h"

struct process {
    /* Set by process_init(). */
    struct mediator *mediator;
    const struct process_ops *ops;
    struct process_record *kept; /* its owner's, outlives it */
    struct pool *pool;
    struct pool_worker worker; /* in the pool while the process runs */
    int turn_fd;
    uint32_t place;         /* among its VM's workers: 0 for register mode, 1 + N for queue N */
    bool lasting;           /* its descriptors are kept */
    struct histogram waits; /* for turns */

    uint64_t start;          /* by which the launcher tells its end */
    struct list_entry entry; /* of the mediator's workers, while there is one */
    int link;                /* -1 without */
    int pidfd;               /* likewise */
    sd_event_source *link_source;
    sd_event_source *timer;    /* the limit on starting up */
    uint32_t resync;           /* it was adopted, and has not said STATE with this number; or 0 */
    bool was_busy;             /* it waited for a turn or had one when it ended */
    struct vgpu_counters seen; /* of the one that runs, when they were last read */
};

struct process_ops {
    /* Its VM's accounts on the pool's GPUs; the process adds what is missing. */
    struct pool_account **(*accounts)(struct process *process, struct pool_standing *standing);
    /* READY has come. */
    void (*ready)(struct process *process);
    /*
     * EXPORT, IMPORT, RELEASE or WITHDRAW has come, `count` descriptors with it; those that it does
     * not keep it leaves there. Returns 0, or -EPROTO when the worker does what it may not. NULL:
     * it may do none of these.
     */
    int (*shares)(struct process *process, struct vgpu_link_msg *msg, int *fds, size_t *count);
    /* A worker that had allocated so much device memory, by its own account, has ended. */
    void (*freed)(struct process *process, uint64_t bytes);
    /* What may be logged of it. */
    struct log_budget *(*log)(const struct process *process);
    /* Whether such an end is no failure; NULL: only one that the mediator wants. */
    bool (*meant)(const struct process *process, const siginfo_t *info);
    /* It was reaped, and has left the pool; may start the next. */
    void (*ended)(struct process *process, const siginfo_t *info, bool condemned, bool meant);
    /* It has kept the turn too long while others wait. */
    void (*expired)(struct process *process);
    /* For log lines, such as "VM 3"; valid until the next call. */
    const char *(*label)(const struct process *process);
};

/* What a process is for. */
struct process_place {
    struct process_record *kept; /* its record, the owner's */
    struct pool *pool;
    uint32_t vm_id;
    uint32_t place; /* as above */
    int turn_fd;    /* of a page that was kept, which becomes the process's; -1: a new one */
};

/*
 * Makes the turn page and the timer. Returns 0 or -errno; then there is nothing to release, and the
 * descriptor is closed.
 */
int process_init(struct process *process, struct mediator *mediator, const struct process_ops *ops,
                 const struct process_place *place);

/* From now on what it has and will have outlives the mediator, as its record does. */
void process_keep(struct process *process);

/*
 * Goes on with the worker that another mediator has left, if its record says that there is one, and
 * its descriptors were kept. The worker has to say how it stands. Where there is none any more, or
 * it cannot be taken over, the record says so, and what follows is the owner's to do.
 */
void process_adopt(struct process *process);

/* Adopted workers that have not said by now how they stand keep no turn. */
void process_doubt_unheard(struct mediator *mediator);

/* Ends the process where there is one, which is reaped later, and frees what init made. */
void process_release(struct process *process);

/* What a worker is given: descriptors, and arguments, NULL at their end. */
struct process_start {
    uint64_t shm_size;
    bool preempt; /* its work may be taken off the GPU */
    bool resting; /* it makes no context there */
    int memfd, doorbell, irq, account;
    const char *const *arguments;
};

/*
 * Starts the process; there must be none. Returns 0 or -errno, logged: -EBUSY when no GPU of the
 * pool is to be had.
 */
int process_start(struct process *process, const struct process_start *start);

/* A worker has ended, says the launcher. */
void process_ended(struct mediator *mediator, const siginfo_t *info, uint64_t start);

/* The exit code that the last worker has noted before it ended; 0: none. */
int process_exit_code(const struct process *process);

/* Kills it; `ended` follows when there was one. */
void process_kill(struct process *process);

/* Sends a message; a process that does not listen is ended by the limits on it. */
void process_send(struct process *process, enum vgpu_link_type type, uint32_t engine);

/*
 * Answers a question of the worker's, with a descriptor or -1. Returns 0, or -EPROTO where it does
 * not listen though it has asked.
 */
int process_answer(struct process *process, const struct vgpu_link_msg *msg, int fd);

/*
 * What the worker that runs has done, by its own account; what cannot be is left out, and counters
 * never fall.
 */
struct vgpu_counters process_counters(struct process *process);

/* The same of all workers so far; memory and in_flight of the one that runs. */
struct vgpu_counters process_totals(struct process *process);

/* How long all workers so far were on an engine of the pool's GPU with this index. */
uint64_t process_gpu_ns(struct process *process, unsigned gpu, enum vgpu_engine engine);

/* The same for all engines at once; `seen` of the process is as of now then. */
void process_gpu_times(struct process *process, unsigned gpu, uint64_t ns[VGPU_ENGINES]);

/* Adds counters, but for memory and in_flight; the sum stays at the most that there is. */
void process_add_counters(struct vgpu_counters *to, const struct vgpu_counters *from);

struct process *process_of_worker(const struct pool_worker *worker);

#endif
