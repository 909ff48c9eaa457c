/* SPDX-License-Identifier: MIT */
/*
 * Attach: how the stub in QEMU (or a host process) and the mediator get to share a
 * VM's memory and eventfds.
 *
 * Both talk over a Unix stream socket in messages of VGPU_MSG_SIZE bytes, all fields
 * little-endian. Descriptors travel by SCM_RIGHTS with the first byte of the message
 * they belong to.
 *
 *   client                     mediator
 *   HELLO                  ->              the VM, and the pool and priority that it wants
 *                          <-  ATTACHED    the values that it gets; descriptors, see below
 *                          <-  REFUSED     the reason; then the mediator closes the connection
 *   FDS                    <->  FDS        more descriptors, see below
 *   RESET                  ->              drop the request that runs
 *                          <-  RESET_DONE
 *   QUEUE                  ->              open or close a queue; QUEUE_STATUS is the answer
 *   STOP                   ->              the VM stands still, and is to be saved or migrated
 *                          <-  STOPPED     nobody writes to the VM's memory and register page now
 *   CONTINUE               ->              it runs on, or is filled with what was saved
 *   BYE                    ->              the device is unplugged; a HELLO may follow
 *                          <-  ATTACHED    unasked, serial 0: another mediator is there, with other
 *                                          flags; nothing else in it is new
 *
 * The descriptors, vgpu_attach_fds() of them in this order: the memfd (shared memory,
 * then the register page), the doorbell eventfds of register mode and of each queue, the
 * interrupt eventfds likewise. They come with ATTACHED, or, when the client keeps a set from
 * an earlier mediator, with HELLO and VGPU_HELLO_HANDOVER; then ATTACHED brings none. As many
 * as one message takes come with it, the others with FDS messages right behind it. The memfd
 * is sealed against shrinking and growing: each side checks that before it maps it.
 *
 * STOP is for a VM without open queues, whose state is then all in its memory, its register page
 * and "is the doorbell up?". A request that runs is finished first; one that has not begun stays in
 * the page's journal, for the worker that CONTINUE starts, here or, on the copy, elsewhere.
 *
 * Identity that a HELLO claims is a wish: the mediator's configuration and the
 * socket's peer credentials decide.
 */
#ifndef VGPU_PROTOCOL_VGPU_ATTACH_H
#define VGPU_PROTOCOL_VGPU_ATTACH_H

#include "vgpu-queue.h"

#define VGPU_MSG_MAGIC 0x4D475056u /* "VPGM" */
#define VGPU_MSG_SIZE 256u         /* bytes, of every message */

#define VGPU_MSG_FDS_MAX 16u /* QEMU's character devices take no more in one message */

/* Number of interrupt vectors of a device: register mode's, and one for each queue. */
static inline uint32_t vgpu_attach_vectors(uint32_t queues)
{
    return 1 + queues;
}

/* Number of descriptors of a device with so many queues, and where some of them are in the row. */
#define VGPU_ATTACH_FDS_MAX (3u + 2u * VGPU_MAX_QUEUES)
#define VGPU_ATTACH_MEMFD 0u
#define VGPU_ATTACH_DOORBELL 1u /* of register mode; that of queue N is at 2 + N */
static inline uint32_t vgpu_attach_fds(uint32_t queues)
{
    return 3 + 2 * queues;
}
/* The place of register mode's interrupt; that of queue N is N + 1 places behind it. */
static inline uint32_t vgpu_attach_irq(uint32_t queues)
{
    return 2 + queues;
}

enum vgpu_msg_type {
    VGPU_MSG_HELLO = 1,
    VGPU_MSG_ATTACHED = 2,
    VGPU_MSG_REFUSED = 3,
    VGPU_MSG_RESET = 4,
    VGPU_MSG_RESET_DONE = 5,
    VGPU_MSG_BYE = 6,
    VGPU_MSG_FDS = 7,
    VGPU_MSG_QUEUE = 8,
    VGPU_MSG_STOP = 9,
    VGPU_MSG_STOPPED = 10,
    VGPU_MSG_CONTINUE = 11,
};

/* struct vgpu_hello.flags */
#define VGPU_HELLO_HANDOVER (1u << 0) /* the descriptors come with this message */
#define VGPU_HELLO_HOST (1u << 1)     /* a host process, not a VM */

/* HELLO; written by the client. From flags to shm_size any value but these is refused. */
struct vgpu_hello {
    uint32_t flags;    /* VGPU_HELLO_*; all other bits are 0 */
    uint32_t vm_id;    /* not 0; a host process may say 0, and gets a number */
    uint32_t pool;     /* that it wants: an upper-case ASCII letter */
    uint32_t priority; /* that it wants: enum vgpu_priority */
    uint32_t vectors;  /* vgpu_attach_vectors() of `queues` */
    uint32_t queues;   /* number of queues, at most vgpu_queues_max() of `shm_size`; may be 0 */
    uint64_t shm_size; /* bytes of BAR2, see vgpu_shm_size_valid() */
    char name[64];     /* of the VM or process, for people; NUL-terminated, may be empty */
    uint8_t uuid[16];  /* of the VM, in the order of its text (RFC 4122); 0: it has none */
};

/* struct vgpu_attached.flags; a client ignores other bits */
#define VGPU_ATTACHED_STOPS (1u << 0)           /* the mediator knows STOP and CONTINUE */
#define VGPU_ATTACHED_FLAGS VGPU_ATTACHED_STOPS /* all that this version has */

/* ATTACHED; written by the mediator. Pool and priority may differ from those of the HELLO. */
struct vgpu_attached {
    uint32_t flags;    /* VGPU_ATTACHED_* */
    uint32_t vm_id;    /* as in the HELLO, or the number that a host process got */
    uint32_t pool;     /* that it gets: an upper-case ASCII letter */
    uint32_t priority; /* that it gets: enum vgpu_priority */
    uint32_t vectors;  /* as in the HELLO */
    uint32_t queues;   /* as in the HELLO */
    uint64_t shm_size; /* as in the HELLO */
};

/* struct vgpu_reset.flags */
#define VGPU_RESET_QUEUES (1u << 0) /* close the queues too: the guest itself was reset */

/* RESET; written by the client. */
struct vgpu_reset {
    uint32_t flags; /* VGPU_RESET_*; other bits are ignored */
};

/* struct vgpu_continue.flags */
#define VGPU_CONTINUE_LOADED (1u << 0) /* memory and page are another's now: QUEUE_STATUS too */

/* CONTINUE; written by the client. */
struct vgpu_continue {
    uint32_t flags; /* VGPU_CONTINUE_*; other bits are ignored */
};

/* QUEUE; written by the client. */
struct vgpu_queue_action {
    uint32_t queue;  /* number, below `queues` of the HELLO */
    uint32_t action; /* VGPU_QUEUE_OPEN or VGPU_QUEUE_CLOSE; any other is counted and ignored */
};

/* REFUSED; written by the mediator. */
struct vgpu_refused {
    char reason[192]; /* text for the administrator, NUL-terminated */
};

/*
 * A message, of either side. RESET_DONE, BYE, FDS, STOP and STOPPED use no member of the union.
 * RESET_DONE and STOPPED may come twice with one serial, where the mediator has ended in between.
 */
struct vgpu_msg {
    uint32_t magic;   /* VGPU_MSG_MAGIC */
    uint32_t version; /* VGPU_VERSION of the sender; the other side refuses another major */
    uint32_t type;    /* enum vgpu_msg_type */
    uint32_t serial;  /* any, of the client's choice; an answer repeats that of its question */
    union {
        struct vgpu_hello hello;
        struct vgpu_attached attached;
        struct vgpu_refused refused;
        struct vgpu_reset reset;
        struct vgpu_queue_action queue;
        struct vgpu_continue go_on;
        uint8_t bytes[VGPU_MSG_SIZE - 16];
    };
};

static_assert(sizeof(struct vgpu_hello) == 112, "ABI");
static_assert(sizeof(struct vgpu_attached) == 32, "ABI");
static_assert(sizeof(struct vgpu_refused) == 192, "ABI");
static_assert(sizeof(struct vgpu_reset) == 4, "ABI");
static_assert(sizeof(struct vgpu_queue_action) == 8, "ABI");
static_assert(sizeof(struct vgpu_continue) == 4, "ABI");
static_assert(sizeof(struct vgpu_msg) == VGPU_MSG_SIZE, "ABI");

/* Offset of the register page in the memfd, and the memfd's size, both in bytes. */
static inline uint64_t vgpu_regs_page_offset(uint64_t shm_size)
{
    return shm_size;
}
static inline uint64_t vgpu_memfd_size(uint64_t shm_size)
{
    return shm_size + VGPU_REGS_SIZE;
}

#endif
