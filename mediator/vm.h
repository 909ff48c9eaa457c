/* SPDX-License-Identifier: MIT */
/*
 * An attached VM: its descriptors, the worker process that serves it in register mode, and its
 * queues (queue.h).
 *
 * A worker that ends unasked is started again, later each time it ends without having
 * answered anything. What it owed is answered by the next one (worker/registers.h), so the
 * guest sees a delay at most; a request on which two workers died is answered with an
 * error instead.
 */
#ifndef VGPU_MEDIATOR_VM_H
#define VGPU_MEDIATOR_VM_H

#include <stdbool.h>
#include <stdint.h>

#include "common/log.h"
#include "mediator/attach.h"
#include "mediator/chores.h"
#include "mediator/exports.h"
#include "mediator/process.h"
#include "mediator/queue.h"
#include "mediator/record.h"

struct client;

/* The connection that a VM came through, and what it is told. */
struct vm_owner {
    struct client *client;
    /*
     * RESET_DONE: the next worker serves the register page. STOPPED: none does, and none writes to
     * the VM's memory.
     */
    void (*done)(struct client *client, enum vgpu_msg_type what, uint32_t serial);
    /* All that was stored is there to be seen. */
    void (*stored)(struct client *client);
};

/*
 * What is in `kept` (record.h) for register mode:
 *
 *   failing       the worker was started to answer with an error
 *   resting       it is one without a device, or the next will be
 *   rest_ns       with which the worker was started
 *   failures      workers in a row that ended without an answer
 *   takeover      what the next worker is told, until one has done it
 *   reset_asked   the client waits for RESET_DONE, with `reset_serial`
 *   reset_again   another came when the worker for it had started
 *   stopped       the VM stands still: a worker finishes, and none is started but for what
 *                 `takeover` says
 *   stop_asked    the client waits for STOPPED, with `stop_serial`
 *   finishing     the worker that is there was told FINISH
 */
struct vm {
    struct vm *next;
    struct mediator *mediator;
    struct vm_owner owner;
    struct vm_record *kept; /* what outlives the mediator */
    int kept_fd;
    bool lasting; /* its descriptors are kept */
    bool unsure;  /* its account may be off by what was given back when another mediator ended */

    uint32_t id;
    bool host;   /* a host process, not a VM */
    bool paused; /* by an operator, until it is resumed or detached */
    char name[sizeof(((struct vgpu_hello *)0)->name)]; /* printable */
    struct identity who;                               /* as sections and questions name it */
    uid_t user;
    pid_t peer; /* of QEMU */
    uint64_t shm_size;
    uint32_t queues;
    uint64_t attached_ns;
    struct pool *pool;
    enum vgpu_priority asked;          /* what it asked for */
    enum vgpu_priority priority;       /* what it has */
    struct config_limits limits;       /* what it may, as configured and changed since */
    struct pool_account *accounts;     /* its use of the pool's GPUs */
    struct vgpu_account_page *account; /* its device memory, shared with its workers */
    int account_fd;
    struct exports *exports;  /* of its sessions; NULL: there are none yet */
    struct card_meter *meter; /* of its card (cards.c); NULL: none was told yet */
    struct log_budget log; /* of the mediator's lines about it; its workers' are in the account */

    int fds[VGPU_ATTACH_FDS_MAX]; /* vgpu_attach_fds(queues) of them */
    struct status_page *status;
    struct queue *queue[VGPU_MAX_QUEUES]; /* NULL until a queue is used */
    uint64_t session_started_ns;          /* the last start of a worker for one */

    /* The worker for register mode. */
    struct process worker;
    sd_event_source *timer; /* a delayed start */
    bool reset_done;        /* it is told as soon as the queues are seen closed */
    unsigned resets;        /* in a row */
    uint64_t reset_ns;
};

/*
 * Makes a VM and starts its worker. `fds`, vgpu_attach_fds() of them, come from
 * memory_create() or from the stub; on success they are the VM's. Returns 0 or -errno.
 */
int vm_create(struct mediator *mediator, const struct vm_owner *owner,
              const struct vgpu_hello *hello, const struct attach_grant *grant, const int fds[],
              struct vm **created);

/*
 * From now on it outlives the mediator, with its connection, where there is somebody who keeps
 * descriptors, and room for their names; where there is no room that is logged.
 */
void vm_keep_on(struct vm *vm, int connection);

/* Why a VM may be to blame for the end of the mediator before. */
enum adopt_blame {
    ADOPT_BLAME_NONE,
    ADOPT_BLAME_CRASH,    /* it has crashed while it worked for it */
    ADOPT_BLAME_ADOPTION, /* it has ended, in whatever way, as it adopted it */
};

/*
 * Goes on with the VM whose record and descriptors were kept; *connection is that of its client,
 * the caller's on success. With another VM's number, or with a part missing, nothing is left of it.
 * Returns 0 or -errno, logged. With RECORD_BLAMES_MAX blames in a row it ends. `may` says whether
 * the configuration still allows it; NULL, or why not.
 */
int vm_adopt(struct mediator *mediator, uint32_t id, enum adopt_blame blame,
             const char *(*may)(const struct mediator *mediator, const struct vm_record *record),
             struct vm **adopted, int *connection);

/* Does what was under way then; to be called when it has an owner. */
void vm_go_on(struct vm *vm);

/* Ends its workers and forgets the VM. */
void vm_destroy(struct vm *vm);

/*
 * Drops what runs or waits: the worker is replaced; the owner's done() follows. `flags` are
 * VGPU_RESET_*.
 */
void vm_reset(struct vm *vm, uint32_t flags, uint32_t serial);

/*
 * The VM stands still: register mode finishes what runs; the owner's done() follows. Sessions are
 * none of its business: a client that has some open is not ready to be saved.
 */
void vm_stop(struct vm *vm, uint32_t serial);

/* Register mode's worker finishes what runs, and is followed by one on another GPU. */
void vm_move(struct vm *vm);

/* Register mode goes on, with what the page says then. `flags` are VGPU_CONTINUE_*. */
void vm_continue(struct vm *vm, uint32_t flags);

/* Tells the owner what was to wait until all is stored; to be called when something was. */
void vm_tell_stored(struct vm *vm);

/* Opens or closes a queue that the VM has. */
void vm_act_on_queue(struct vm *vm, uint32_t queue, uint32_t action);

/*
 * Lets the worker finish what runs and end, and ends the sessions; none is started again while
 * stopping.
 */
void vm_finish(struct vm *vm);

/*
 * The VM's limits are these from now on. Its priority is what it asked for, at most the limit's;
 * where `forced`, the limit's.
 */
void vm_set_limits(struct vm *vm, const struct config_limits *limits, bool forced);

/* What the configuration allows it. */
const struct config_limits *vm_configured(const struct vm *vm);

/* Its work stops, and is taken off the GPU where that can be; or it goes on. */
void vm_set_paused(struct vm *vm, bool paused);

/* Its use of its pool's GPUs, and how it stands there. */
struct pool_account **vm_accounts(struct vm *vm, struct pool_standing *standing);

/* So much device memory is free again, that of a worker that has ended, say. */
void vm_give_back(struct vm *vm, uint64_t bytes);

/* Without a session the VM has no memory but its register mode's, whatever was lost on the way. */
void vm_settle_account(struct vm *vm);

/* So much is the VM's still, though no worker counts it. */
void vm_keep(struct vm *vm, uint64_t bytes);

/*
 * Where its sessions find what others export: those of the VM, or all host processes of its user.
 * NULL when memory is short.
 */
struct exports *vm_exports(struct vm *vm);

/* Shares the VM's limits out among its workers. To be called when their number has changed. */
void vm_share_limits(struct vm *vm);

/* Sessions that have a worker or wait for one. */
unsigned vm_session_count(const struct vm *vm);

struct vm *vm_find(struct mediator *mediator, uint32_t id);

#endif
