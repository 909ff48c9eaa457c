/* SPDX-License-Identifier: MIT */
/*
 * An attached VM: its descriptors, and the worker process that serves it.
 *
 * A worker that ends unasked is started again, later each time it ends without having
 * answered anything. What it owed is answered by the next one (worker/session.h), so the
 * guest sees a delay at most; a request on which two workers died is answered with an
 * error instead.
 */
#ifndef VGPU_VM_H
#define VGPU_VM_H

#include <stdbool.h>
#include <stdint.h>

#include "attach.h"
#include "mediator.h"
#include "vgpu-worker.h"

struct vm {
    struct vm *next;
    struct mediator *mediator;
    struct client *client; /* whose socket it came through */

    uint32_t id;
    bool host;                                         /* a host process, not a VM */
    char name[sizeof(((struct vgpu_hello *)0)->name)]; /* printable */
    uid_t user;
    pid_t peer; /* of QEMU */
    uint64_t shm_size;
    uint64_t attached_ns;

    int fds[VGPU_ATTACH_FDS];
    int turn_fd;
    struct pool_member member; /* of member.pool while a worker runs */
    struct pool *pool;

    /* The worker; pid 0 while there is none. */
    pid_t pid;
    int link; /* -1 without */
    sd_event_source *link_source, *child_source;
    sd_event_source *timer; /* a delayed start, or the limit on starting up */
    bool ready;
    char device[sizeof(((struct vgpu_link_msg *)0)->text)]; /* printable */
    uint64_t started_ns;
    uint64_t starts;          /* workers started so far */
    uint64_t answered_before; /* the turn page's count when the worker was started */
    unsigned failures;        /* workers in a row that ended without an answer */
    const char *takeover;     /* a --takeover value, until a worker has done it; NULL: resume */
    bool replacing;           /* the worker was killed for that, and is not heard any more */
    bool reset_asked;         /* the client waits for RESET_DONE */
    uint32_t reset_serial;
};

/*
 * Makes a VM and starts its worker. `fds` come from memory_create() or from the stub; on
 * success they are the VM's. Returns 0 or -errno.
 */
int vm_create(struct mediator *mediator, struct client *client, const struct vgpu_hello *hello,
              const struct attach_grant *grant, const int fds[VGPU_ATTACH_FDS],
              struct vm **created);

/* Ends the worker and forgets the VM. */
void vm_destroy(struct vm *vm);

/* Drops what runs or waits: the worker is replaced; client_reset_done() follows. */
void vm_reset(struct vm *vm, uint32_t serial);

/* The worker's turn lasts too long: ends it, and its request with TIMEOUT. */
void vm_turn_expired(struct vm *vm);

/* Lets the worker finish what runs and end; it is not started again while stopping. */
void vm_finish(struct vm *vm);

struct vm *vm_find(struct mediator *mediator, uint32_t id);
struct vm *vm_of_member(struct pool_member *member);

#endif
