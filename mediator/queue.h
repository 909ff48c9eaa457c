/* SPDX-License-Identifier: MIT */
/*
 * A queue of an attached VM, and the worker that serves a guest process through it
 * (protocol/vgpu-queue.h).
 *
 *            OPEN                 READY
 *   FREE ----------> STARTING ----------> RUNNING
 *    ^  \               |                    |
 *    |   \ CLOSE        | its worker ends    |
 *    |    +-------------+--------------------+-----> ENDED, with a reason; OPEN starts again
 *    +-- worker reaped -+
 *
 * The state is the guest's to read, in the register page's QUEUE_STATUS. A worker that ended is
 * not started again: what the session had on the GPU is gone with it.
 */
#ifndef VGPU_MEDIATOR_QUEUE_H
#define VGPU_MEDIATOR_QUEUE_H

#include "mediator/exports.h"
#include "mediator/process.h"
#include "protocol/vgpu-queue.h"

struct vm;

struct queue {
    struct vm *vm;
    uint32_t number;           /* from 0 */
    struct queue_record *kept; /* its state, in the VM's record */
    struct process worker;
    struct sharer sharer;   /* of the session; `domain` is NULL before it exports or imports */
    int book;               /* the record of that, where it is kept; else -1 */
    sd_event_source *timer; /* a delayed start */
};

/* Makes a queue, free. Returns 0 or -errno. */
int queue_create(struct vm *vm, uint32_t number, struct queue **created);

/*
 * Goes on with a queue that another mediator had, by its record and with what was kept of it.
 * Returns 0 or -errno.
 */
int queue_adopt(struct vm *vm, uint32_t number, struct queue **created);

/*
 * Takes its worker over, or what that has left; when all queues of the VM are there, as the
 * sessions of others may have what this one has exported.
 */
void queue_adopt_worker(struct queue *queue);

/* Does what was under way then; to be called when all of the VM is there. */
void queue_go_on(struct queue *queue);

/* Ends the worker and forgets the queue; QUEUE_STATUS stays as it is. */
void queue_destroy(struct queue *queue);

/* VGPU_QUEUE_OPEN or VGPU_QUEUE_CLOSE, as the guest asks. */
void queue_act(struct queue *queue, uint32_t action);

/* Ends the session, with that reason; false: there is none that runs. */
bool queue_end(struct queue *queue, enum vgpu_queue_end reason);

/* The guest was reset: closes the queue, which is not counted. */
void queue_reset(struct queue *queue);

/*
 * QUEUE_STATUS is what a saved VM had there: the count goes on from that. A session that runs here,
 * which there is not to be, goes on; one that was open there has ended.
 */
void queue_load(struct queue *queue);

/* The mediator stops: ends the session with that reason. */
void queue_stop(struct queue *queue);

#endif
