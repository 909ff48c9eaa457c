/* SPDX-License-Identifier: MIT */
/*
 * What kernels print, and what is said of their failed assertions, on the way to the guest.
 *
 * Theory of operation
 * -------------------
 * The GPU's driver writes both by itself, with write(2): a kernel's printf to descriptor 1, in any
 * call that synchronises and every 100 ms in a thread of its own, and assertions to descriptor 2.
 * In a worker these would be the mediator's, and so a guest's text would stand in the host's log.
 * Before a session is served, each of the two becomes a pipe; log lines go on to what stderr was.
 *
 * A thread reads the pipes, since the session's only other one may be in the call that fills them:
 * a guest can have a number printed in a million places, and a driver that has to wait for room
 * would never return. Of either, the last VGPU_PRINTED_KEPT bytes are kept, and a count in the
 * queue tells the guest of what there is (protocol/vgpu-queue.h); it fetches by VGPU_CMD_PRINTED.
 *
 * A worker that only looks whether work is done makes no call in which the driver writes. So it
 * makes one, for which gpu.h has `print`, before it answers what synchronises, and before it
 * sleeps; and then it reads the pipes itself, so that what was written is there with the answer.
 *
 * What the C library says when it aborts this process goes to the pipe too, and is lost with it:
 * the mediator's log has the signal.
 */
#ifndef VGPU_WORKER_PRINTED_H
#define VGPU_WORKER_PRINTED_H

#include <pthread.h>
#include <stdbool.h>
#include <stdint.h>

#include "protocol/vgpu-queue.h"

/* The last of what came through a pipe. */
struct printed_text {
    int pipe;            /* its end to read from, which does not block */
    uint8_t *bytes;      /* VGPU_PRINTED_KEPT of them, used in a circle */
    uint64_t begin, end; /* what is kept, in bytes since the start */
};

struct printed {
    bool open;             /* there are pipes */
    uint8_t *bytes;        /* of both texts */
    pthread_mutex_t mutex; /* for the rest */
    struct printed_text texts[VGPU_PRINTED_FILES];
    struct vgpu_queue *queue; /* where the guest is told */
    uint32_t count;           /* as it was told; may be read without the mutex */
};

/*
 * Begins to keep what comes through two pipes, for stdout and stderr, whose ends to read from are
 * the structure's from now on. `printed` of the queue is 0. Returns 0 or -ENOMEM.
 */
int printed_init(struct printed *printed, const int pipes[VGPU_PRINTED_FILES],
                 struct vgpu_queue *queue);

/*
 * Makes pipes of stdout and stderr; log lines go on to where they went. To be called before the
 * worker gives up what it does not need. Returns 0 or -errno.
 */
int printed_divert(struct printed *printed, struct vgpu_queue *queue);

/* Starts the thread, which has to be as restricted as this one is. Returns 0 or -errno. */
int printed_watch(struct printed *printed);

/* Reads what was written, and tells the guest. Returns whether there was anything. */
bool printed_read(struct printed *printed);

/*
 * Copies the oldest text of a file, at most `room` bytes, and forgets it. Returns its bytes, 0 when
 * there is none.
 */
uint32_t printed_take(struct printed *printed, enum vgpu_printed_file file, void *to,
                      uint32_t room);

/* Frees what was kept; for whoever called printed_init(), when there is no thread. */
void printed_release(struct printed *printed);

#endif
