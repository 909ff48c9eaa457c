/* SPDX-License-Identifier: MIT */
/*
 * Between the mediator and its workers: inherited descriptors, messages, and the
 * turn page.
 *
 * Theory of operation
 * -------------------
 * A worker may use the GPU only on its turn. Asking the mediator for each turn would
 * cost two wake-ups a request, so a turn is a standing grant: it stays with the worker
 * that had it last until somebody else asks. The grant is one word in a page that
 * the worker shares with the mediator alone:
 *
 *            grant, others wait                 grant, nobody waits
 *      +--------------------------- CLOSED ---------------------------+
 *      v                            ^    ^                            v
 *   RECALLED --- worker finishes ---+    +---- mediator recalls --- OPEN <-+
 *      ^            (sends DONE)                                    | |    |
 *      |                                              worker starts | |    | worker
 *      +---- mediator recalls ---- RUNNING <------------------------+ |    | finishes
 *                                     |  ^----- grant, nobody waits --+    |
 *                                     +------------------------------------+
 *
 * Changes that race are compare-and-swap, so that a recall and a start cannot both win; a
 * word that only one side may leave (CLOSED the mediator, RECALLED the worker) is stored.
 * A granted worker finds RUNNING or RECALLED: it has work, it asked. It sends DONE
 * after a turn that it had asked for and after one that was recalled; DONE says whether
 * the worker itself returned the turn (RECALLED to CLOSED) or still had it then. By the
 * time that a DONE is read, the mediator may have taken the turn from OPEN.
 *
 * A worker counts as hostile once guest code ran beside it: the mediator believes
 * its messages and counters no further than this file says, and killing a worker is
 * always safe.
 */
#ifndef VGPU_WORKER_H
#define VGPU_WORKER_H

#include "vgpu-regs.h"

/*
 * Descriptors that a worker is started with. One for register mode gets that mode's doorbell
 * and interrupt, one for a queue the queue's.
 */
#define VGPU_WORKER_FD_LINK 3     /* SOCK_SEQPACKET to the mediator */
#define VGPU_WORKER_FD_MEMFD 4    /* the VM's memory and register page */
#define VGPU_WORKER_FD_DOORBELL 5 /* eventfd */
#define VGPU_WORKER_FD_IRQ 6      /* eventfd */
#define VGPU_WORKER_FD_TURN 7     /* memfd of the turn page */

enum vgpu_turn {
    VGPU_TURN_CLOSED = 0,   /* must ask */
    VGPU_TURN_OPEN = 1,     /* may start without asking */
    VGPU_TURN_RUNNING = 2,  /* running; falls back to OPEN */
    VGPU_TURN_RECALLED = 3, /* running; falls back to CLOSED with a DONE */
};

/* A queue's worker that ends by itself ends with this and an enum vgpu_queue_end as its exit code.
 */
#define VGPU_WORKER_EXIT_END 64

/* One page of memory; the counters are the worker's claims, for display. */
struct vgpu_turn_page {
    uint32_t turn; /* enum vgpu_turn */
    uint32_t reserved[15];
    uint64_t requests; /* answered with success or error; of a queue: commands taken */
    uint64_t errors;   /* of those, with error */
    uint64_t busy_ns;  /* time from start to completion, summed */
    uint64_t elements; /* results computed */
};
#define VGPU_TURN_PAGE_SIZE 4096u
static_assert(sizeof(struct vgpu_turn_page) == 96, "ABI");

enum vgpu_link_type {
    VGPU_LINK_READY = 1,  /* worker: start-up finished, what was owed is taken over */
    VGPU_LINK_ASK = 2,    /* worker: wants a turn */
    VGPU_LINK_DONE = 3,   /* worker: an asked or recalled turn is over */
    VGPU_LINK_TURN = 4,   /* mediator: granted, look at the turn page */
    VGPU_LINK_FINISH = 5, /* mediator: finish what runs, then exit */
};

struct vgpu_link_msg {
    uint32_t type;  /* enum vgpu_link_type */
    uint32_t value; /* READY: VGPU_FEATURE_BACKEND_*; DONE: 1 when the turn is returned, else 0 */
    char text[120]; /* READY: device name; NUL-terminated */
};
static_assert(sizeof(struct vgpu_link_msg) == 128, "ABI");

#endif
