/* SPDX-License-Identifier: MIT */
/*
 * Between the mediator and its workers: inherited descriptors, messages, the turn page, and the
 * account page.
 *
 * Theory of operation
 * -------------------
 * A GPU has three engines: one computes (kernels, fills, copies on the device), one copies to the
 * device, one from it. A worker may submit work to an engine only on its turn there. Asking the
 * mediator for each turn would cost two wake-ups a request, so a turn is a standing grant: it
 * stays with the worker that had it last until somebody else asks. The grant is one word for each
 * engine, in a page that the worker shares with the mediator alone:
 *
 *   CLOSED   must ask                                         the mediator leaves it, by a grant
 *   OPEN     may start without asking                         worker: RUNNING; mediator: CLOSED
 *   RUNNING  in use, and nobody else asks                     worker, when its work is done: OPEN
 *   WANTED   in use; others ask, who wait until it is idle    worker, when its work is done: CLOSED
 *   SHARED   in use; others ask, who wait for its slice       worker, when that is over: CLOSED;
 *                                                             mediator: RUNNING, nobody asks
 *   STOPPED  in use; others come first: submits no more       worker: CLOSED; mediator: as granted
 *
 * A grant stores RUNNING, WANTED or SHARED, for the worker has asked and so has work. It submits
 * nothing before `from_ns`, when the work of the previous worker is about to end. After that it may
 * submit one piece of work even if `until_ns` has passed, unless the word is STOPPED. In SHARED it
 * may submit more until `until_ns`; in RUNNING and WANTED without such a limit.
 *
 * Changes that race are compare-and-swap, so that a recall and a start cannot both win; a word
 * that only one side may leave (CLOSED the mediator) is stored. A worker returns a turn with a
 * message, after the word is CLOSED: YIELD while the last of its work still runs, with the time
 * from which the next worker may submit so that its work is there when that ends; then DONE. Or
 * only DONE, when nothing runs any more. A turn that it had asked for and that stays with it
 * (RUNNING to OPEN) ends with a KEPT. By the time that a KEPT is read, the mediator may have taken
 * the turn from OPEN.
 *
 * The same page says how much of a worker's work may be on an engine at a time: `window_ns`. A
 * worker of a higher band finds no more than that, and one piece of work, of each one before it.
 *
 * A worker that can do so takes its work off the computing engine, in the middle of a kernel, when
 * `off` in that engine's word becomes odd, and puts it back when it becomes even: the mediator
 * counts it up and wakes who waits for the word as a futex, which is shared. When the work is off,
 * the worker says OFF, with the count that it has obeyed. READY says whether it can, and OFF with 0
 * that it cannot any more. While it is off, the worker's part of the protocol stays as it is: its
 * work is there, and does not end.
 *
 * Until it is off, the driver's own time slicing parts the GPU among processes. The terms say how
 * long a slice of such a worker is, which then has the driver use that (`slice_us`). To be seen at
 * once, a new value counts `off` up by 2.
 *
 * To make a context on a GPU holds a lock of the driver's, for up to 30 ms at a time. So a
 * worker does that when it is told OPEN, which is at its start unless others would be disturbed.
 *
 * What a session exports, another one of its VM may import, each in a worker of its own: the
 * mediator introduces them to each other. It gives out the keys, by which it finds what was
 * exported; what lies behind is the workers' matter. Who asks waits for the answer, in which the
 * type is that of the question and `value` an enum vgpu_link_result.
 *
 * A worker outlives its mediator. It ends when nobody holds the other end of its link any more, and
 * until then goes on with the turns that it has. The next mediator gets that end from whoever has
 * kept it, and says RESYNC, with a number of its own. The worker answers with a STATE that has this
 * number: what it has said of turns before that counts no more, and what follows does. A question
 * about exports that is not answered by then is asked again, by the same number, so that it is
 * known whether it was carried out. A mediator changes no word of a worker between RESYNC and
 * STATE, but for recalling its turn: OPEN to CLOSED, or to STOPPED.
 *
 * A worker that ends by itself stores its exit code in the page before it exits: another mediator's
 * worker is nobody's child, and its exit code is lost.
 *
 * A worker counts as hostile, since it parses what a guest writes: the mediator believes its
 * messages and counters no further than this file says. Killing a worker is safe at any time.
 */
#ifndef VGPU_PROTOCOL_VGPU_WORKER_H
#define VGPU_PROTOCOL_VGPU_WORKER_H

#include "vgpu-card.h"
#include "vgpu-regs.h"
#include "vgpu-request.h"

/*
 * Of the messages and pages in this file. A mediator adopts workers of its own version and of the
 * one before, and ends others. 1 had neither RESYNC nor STATE, and is not adopted.
 */
#define VGPU_LINK_VERSION 2u

/*
 * Descriptors that a worker is started with. A worker for register mode gets the doorbell and the
 * interrupt of that mode, a worker for a queue gets those of the queue.
 */
#define VGPU_WORKER_FD_LINK 3                     /* SOCK_SEQPACKET to the mediator */
#define VGPU_WORKER_FD_MEMFD 4                    /* the VM's memory and register page */
#define VGPU_WORKER_FD_DOORBELL 5                 /* eventfd; readable when the guest has rung */
#define VGPU_WORKER_FD_IRQ 6                      /* eventfd; written to interrupt the guest */
#define VGPU_WORKER_FD_TURN 7                     /* memfd of the turn page */
#define VGPU_WORKER_FD_ACCOUNT 8                  /* memfd of the VM's account page */
#define VGPU_WORKER_FD_GAUGE VGPU_WORKER_FD_MEMFD /* of the gauge: memfd of its page */

/*
 * GPUs that a session may have at most, one day. So far it has one. In a message the number of a
 * session's GPU has its place above that of the engine: engine | GPU << 8.
 */
#define VGPU_LINK_DEVICES 8u

/* The states of a turn word; the table at the top says what each allows, and to whom. */
enum vgpu_turn {
    VGPU_TURN_CLOSED = 0,
    VGPU_TURN_OPEN = 1,
    VGPU_TURN_RUNNING = 2,
    VGPU_TURN_WANTED = 3,
    VGPU_TURN_SHARED = 4,
    VGPU_TURN_STOPPED = 5,
};

/*
 * Exit codes of a worker for register mode that asks for another in its place: it has no device and
 * a request wants one; it has one that nothing has wanted for a while (--rest).
 */
#define VGPU_WORKER_EXIT_WAKE 48
#define VGPU_WORKER_EXIT_REST 49

/* The exit code of a queue's worker that ends by itself: this, plus an enum vgpu_queue_end. */
#define VGPU_WORKER_EXIT_END 64

/*
 * An engine's turn; a cache line. Times are
 * CLOCK_MONOTONIC in ns. The mediator may store them at any moment, and does so before it stores
 * the state that they belong to.
 */
struct vgpu_turn_word {
    uint32_t state;    /* enum vgpu_turn; mediator and worker, by compare-and-swap as above */
    uint32_t reserved; /* 0 */
    uint64_t from_ns;  /* mediator: nothing may be submitted before */
    uint64_t until_ns; /* mediator: end of the slice in SHARED; 0 in a turn of one piece of work */
    uint32_t off;      /* mediator: odd: the worker's work is to be off; as above */
    uint8_t unused[36];
};
static_assert(sizeof(struct vgpu_turn_word) == 64, "ABI");

/*
 * What a worker has to keep to. Written by the mediator, which may change it at any time; the
 * worker reads it at each decision. 0 is no limit.
 */
struct vgpu_terms {
    uint64_t window_ns;   /* ns of work, as predicted, that may be there when a piece is added */
    uint64_t kernel_ns;   /* ns that a piece may take; past it the worker ends, with TIMEOUT */
    uint32_t commands;    /* pieces of work that may be submitted and not done */
    uint32_t doorbells;   /* how many are heard in a second */
    uint32_t interrupts;  /* how many are sent in a second */
    uint32_t slice_us;    /* how long its work may keep that of other processes waiting; 0: the
                             driver's own time, which it is until told otherwise; as above */
    uint32_t reserved[8]; /* 0 */
};
static_assert(sizeof(struct vgpu_terms) == 64, "ABI");

/*
 * The worker's counters since its start; written by the worker alone. Any value may stand there,
 * since the worker counts as hostile: they are for display. `memory` is also what the mediator
 * takes off the VM's account when the worker ends.
 */
struct vgpu_counters {
    uint64_t requests;             /* requests answered; of a queue: commands carried out */
    uint64_t errors;               /* those of them that failed */
    uint64_t elements;             /* results computed in register mode */
    uint64_t gpu_ns[VGPU_ENGINES]; /* ns that it had work on the engine, until the end was seen */
    uint64_t turns[VGPU_ENGINES];  /* taken, with and without asking */
    uint64_t memory;               /* bytes of device memory allocated now */
    uint64_t in_flight;            /* pieces of work that are submitted now and not done */
    uint64_t doorbells;            /* doorbells heard */
    uint64_t interrupts;           /* interrupts sent */
    uint64_t faults;               /* errors with which the GPU's context was lost */
    uint64_t reserved[2];          /* 0 */
};
static_assert(sizeof(struct vgpu_counters) == 128, "ABI");

/* One page of memory, shared by the mediator and one worker; the rest of it is unused. */
struct vgpu_turn_page {
    struct vgpu_turn_word turn[VGPU_ENGINES]; /* by enum vgpu_engine */
    struct vgpu_terms terms;
    struct vgpu_counters counters;
    /* Of register mode: what the last worker that had the device said of it; 0 before the first. */
    struct vgpu_device_info device;
    /* Worker: with which it is about to exit; 0: it is not, as far as it says. */
    uint32_t exit_code;
    uint8_t reserved[1564]; /* 0 */
    /* Room for a session of several GPUs: of its further ones. 0 */
    struct vgpu_turn_word further[VGPU_LINK_DEVICES - 1][VGPU_ENGINES];
};
#define VGPU_TURN_PAGE_SIZE 4096u
static_assert(sizeof(struct vgpu_turn_page) == 3392, "ABI");

/*
 * One page of memory that the workers of a VM share with the mediator: the device memory of the VM.
 * To allocate, a worker adds to `used` if the sum stays within `limit`, then to its counter
 * `memory`, and then asks the GPU. To free, it does the same in the opposite order. When a worker
 * ends, the mediator takes that counter off `used`.
 */
struct vgpu_account_page {
    uint64_t limit;  /* mediator: bytes that the VM may have; 0: no limit */
    uint64_t used;   /* workers and mediator: bytes that it has; changed by atomic operations */
    uint64_t log[3]; /* workers: what they may log, a struct log_budget */
};
#define VGPU_ACCOUNT_PAGE_SIZE 4096u
static_assert(sizeof(struct vgpu_account_page) == 40, "ABI");

/*
 * The gauge is a worker without a guest: it tells the mediator what the host's GPUs are, and what
 * their sensors say, in a page that it fills in. It has the link, whose end is its own, and in
 * place of all other descriptors that page, VGPU_GAUGE_PAGE_SIZE bytes.
 *
 * `sequence` of an entry is odd while the rest of it is being stored, and 0 where there is no such
 * GPU. Where no GPU computes entry 0 tells of the CPU.
 */
#define VGPU_GAUGES 64u /* GPUs, as the driver counts; what is beyond is not told of */
struct vgpu_gauge {
    uint32_t sequence; /* as above */
    uint32_t backend;  /* VGPU_FEATURE_BACKEND_* */
    uint32_t known;    /* VGPU_KNOWN_*, see vgpu-card.h */
    uint32_t reserved; /* 0 */
    struct vgpu_gpu_facts facts;
    struct vgpu_gpu_sensors sensors;
};
static_assert(sizeof(struct vgpu_gauge) == 424, "ABI");
#define VGPU_GAUGE_PAGE_SIZE 28672u /* bytes, of VGPU_GAUGES entries */
static_assert(VGPU_GAUGES * sizeof(struct vgpu_gauge) <= VGPU_GAUGE_PAGE_SIZE, "whole pages");

enum vgpu_link_type {
    VGPU_LINK_READY = 1,  /* worker: it has started, and taken over what is owed to the guest */
    VGPU_LINK_ASK = 2,    /* worker: wants the engine's turn */
    VGPU_LINK_DONE = 3,   /* worker: its word is CLOSED and it has nothing on the engine */
    VGPU_LINK_TURN = 4,   /* mediator: look at the engine's word; a change is there, or near */
    VGPU_LINK_FINISH = 5, /* mediator: finish the work that runs, then exit */
    VGPU_LINK_YIELD = 6,  /* worker: its word is CLOSED, its work is about to end; DONE follows */
    VGPU_LINK_KEPT = 7,   /* worker: a turn that it asked for is over, and stays its own */
    /* The following are of sessions alone. */
    VGPU_LINK_EXPORT = 8,    /* worker: others may import this; mediator: the key */
    VGPU_LINK_IMPORT = 9,    /* worker: wants what this key is of; mediator: that */
    VGPU_LINK_RELEASE = 10,  /* worker: has given back what it had imported */
    VGPU_LINK_WITHDRAW = 11, /* worker: what it had exported is gone */
    VGPU_LINK_OFF = 12,      /* worker: its work is off the engine */
    /* Of all workers that use a device from their start on. */
    /* mediator: make a context on the device now. Only RESYNC comes before; a second one is none */
    VGPU_LINK_OPEN = 13,
    VGPU_LINK_RESYNC = 14, /* mediator: another one than before; look at everything, say STATE */
    VGPU_LINK_STATE = 15,  /* worker: how it stands; also that it is READY */
};

/* Flags of READY. */
#define VGPU_READY_CAN_BE_OFF 1u

/* What a session exports; the numbers are part of the key's meaning and never change. */
enum vgpu_export_kind {
    VGPU_EXPORT_MEMORY = 1,
    VGPU_EXPORT_EVENT = 2,
};

enum vgpu_link_result {
    VGPU_LINK_DONE_WELL = 0,
    VGPU_LINK_UNKNOWN = 1, /* there is nothing of this kind with this key, for this VM */
    VGPU_LINK_OWN = 2,     /* it is the asker's own */
    VGPU_LINK_FULL = 3,    /* it has exported or imported too much */
};

/*
 * What is exported. `name` is for the other worker alone, but for memory in a file, whose place
 * there is its first eight bytes. Memory counts against the VM's account until the exporter has
 * withdrawn it and all have released it: from WITHDRAW on the exporter counts it no more, and the
 * mediator takes it off the account at the end. An importer in another VM's account (`foreign`, as
 * host processes of one user have) counts it itself, and releases it not.
 *
 * With the first EXPORT of a kind comes the session's file for that kind, where it has one; with
 * each answer to IMPORT that of the exporter.
 */
struct vgpu_export {
    uint8_t key[16];  /* mediator, in the answer to EXPORT; worker, in IMPORT and after */
    uint64_t bytes;   /* of memory; else 0 */
    uint32_t kind;    /* enum vgpu_export_kind */
    uint32_t foreign; /* in the answer to IMPORT: 1 or 0 */
    uint8_t name[64]; /* EXPORT, and the answer to IMPORT; else zeroes */
    uint64_t
        session; /* in the answer to IMPORT: the exporter's number; its file is known by that */
};
static_assert(sizeof(struct vgpu_export) == 104, "ABI");

/* How a worker stands to an engine: enum vgpu_turn, as its word was then, and flags. */
#define VGPU_LINK_TURN_STATE 0xffu
#define VGPU_LINK_TURN_ASKED (1u << 8)   /* it has asked for a turn; KEPT or DONE follows */
#define VGPU_LINK_TURN_YIELDED (1u << 9) /* its word is CLOSED, and DONE follows */

/* Of STATE. */
struct vgpu_link_state {
    uint32_t turn[VGPU_ENGINES]; /* by enum vgpu_engine */
    char name[92];               /* of the device, as READY has it */
};
static_assert(sizeof(struct vgpu_link_state) == 104, "ABI");

/* What a session may have exported, and may have imported, at a time. */
#define VGPU_EXPORTS_MAX 4096u

/* A message, written by the sender that its type names. */
struct vgpu_link_msg {
    uint32_t type;   /* enum vgpu_link_type */
    uint32_t value;  /* READY: VGPU_FEATURE_BACKEND_*; OFF: a count; RESYNC, STATE: the mediator's
                        number; an answer: as above; else 0 */
    uint32_t engine; /* ASK, DONE, TURN, YIELD, KEPT, OFF: enum vgpu_engine; else 0 */
    union {
        uint32_t flags;  /* READY, STATE: VGPU_READY_*; else 0 */
        uint32_t number; /* EXPORT, IMPORT, RELEASE, WITHDRAW, and answers: the message's, which
                            grows; 0: it has none */
    };
    uint64_t from_ns; /* YIELD: from when on the next may submit, CLOCK_MONOTONIC in ns; else 0 */
    union {
        char text[104];           /* READY: name of the device, NUL-terminated; else zeroes */
        struct vgpu_export share; /* EXPORT, IMPORT, RELEASE, WITHDRAW */
        struct vgpu_link_state state;
    };
};
static_assert(sizeof(struct vgpu_link_msg) == 128, "ABI");

/*
 * A session's file of events that several processes use: a memfd of this size, sealed against
 * resizing.
 *
 * Each record of such an event has a word of its own, which the GPU of whoever recorded it stores
 * when it comes there: so one that is late is not taken for the one after it. Its value is a count,
 * the session that recorded it, modulo 2^VGPU_SHARED_SESSION_BITS, and the word's number, from the
 * highest bits to the lowest. The count grows with each use of the word, and so a word that has
 * reached a value, or passed it, has seen that record happen.
 *
 * A word is free when it has the value that `taken` says. Who takes it exchanges that for the next
 * one, by compare-and-swap, and then stores the value in `current` of its event. When a session
 * ends, the mediator stores the values of those that it has taken: what it has recorded and not
 * reached counts as happened, and nobody waits for it. The words have pages of their own, since
 * kernels of each of these sessions can write there.
 */
#define VGPU_SHARED_BITS 10u
#define VGPU_SHARED_SESSION_BITS 22u
#define VGPU_SHARED_EVENTS (1u << VGPU_SHARED_BITS)
struct vgpu_shared_events {
    uint64_t current[VGPU_SHARED_EVENTS]; /* by event: of its last record; 0: never */
    uint64_t taken[VGPU_SHARED_EVENTS];   /* by word: what was given out last; 0: never */
    uint64_t word[VGPU_SHARED_EVENTS];    /* stored by GPUs */
};
static_assert(sizeof(struct vgpu_shared_events) == 24576, "whole pages");

/* The session that has taken this value, modulo. */
static inline uint32_t vgpu_shared_session(uint64_t value)
{
    return (uint32_t)(value >> VGPU_SHARED_BITS) & ((1u << VGPU_SHARED_SESSION_BITS) - 1);
}

/* The next value of a word, for this session. */
static inline uint64_t vgpu_shared_next(uint64_t value, uint64_t session, uint32_t word)
{
    const unsigned bits = VGPU_SHARED_BITS + VGPU_SHARED_SESSION_BITS;
    const uint64_t mask = (UINT64_C(1) << VGPU_SHARED_SESSION_BITS) - 1;

    return ((value >> bits) + 1) << bits | (session & mask) << VGPU_SHARED_BITS | word;
}

/*
 * A session's file of device memory, where there is no GPU: a memfd of this size, likewise. Memory
 * begins at VGPU_SHARED_MEMORY, and no place is used twice.
 */
#define VGPU_SHARED_MEMORY UINT64_C(4096)
#define VGPU_SHARED_SIZE (UINT64_C(1) << 42)

#endif
