/* SPDX-License-Identifier: MIT */
/*
 * Register mode: one VM's register page, its doorbell and what runs for it.
 *
 * Theory of operation
 * -------------------
 *            doorbell, invalid or needs no turn
 *               +-------+
 *               v       |        TURN
 *             IDLE -----+--> WAITING --> RUNNING --+
 *               ^   doorbell                       |
 *               +--------- backend finished -------+
 *
 * The doorbell's eventfd is listened to in IDLE alone: one request at a time, and a
 * guest that floods it fills a counter in the kernel. On a doorbell the worker
 *   1. stores BUSY in the page,
 *   2. clears the eventfd (the partner: QEMU reads STATUS after the eventfd),
 *   3. copies the request out of the page, once, and decodes the copy.
 * A request that computes is noted in the page's journal before it waits. An answer is
 * stored in this order: response and ERROR, STATUS, journal. So a worker that takes over
 * finds STATUS BUSY exactly when an answer is owed, and the journal says what to do:
 * registers_start().
 *
 * A worker at rest has no device: a GPU's context costs memory, and most VMs never compute by
 * register mode. It answers what needs none. A request that does is noted as ACCEPTED, and the
 * worker ends; the next one has a device, and takes it over.
 */
#ifndef VGPU_WORKER_REGISTERS_H
#define VGPU_WORKER_REGISTERS_H

#include "protocol/vgpu-regs.h"
#include "worker/backend.h"
#include "worker/interrupt.h"
#include "worker/request.h"
#include "worker/turn.h"

enum registers_state {
    REGISTERS_IDLE,    /* listens to the doorbell */
    REGISTERS_WAITING, /* has asked for a turn; it takes them one by one, in the engines' order */
    REGISTERS_RUNNING, /* the backend works; its event ends it */
};

/* What a worker that starts does with an answer that is owed. */
enum registers_takeover {
    REGISTERS_RESUME,  /* runs the request, or says WORKER_LOST where it must not run twice */
    REGISTERS_DISCARD, /* forgets it: the guest was reset */
    REGISTERS_FAIL,    /* answers with an error */
};

struct registers {
    /* Set by the caller; all of it outlives the service. */
    struct vgpu_regs_page *page;
    uint8_t *shm;
    uint64_t shm_size; /* bytes */
    int doorbell;      /* eventfd */
    struct interrupt interrupt;
    struct backend *backend; /* without `ops` at rest: it has no device, only what is said of one */
    struct vgpu_turn_page *turn_page;
    int link; /* to the mediator */

    /* Its own. */
    enum registers_state state;
    struct turn turns[VGPU_ENGINES];
    unsigned held; /* bit N: has the turn on engine N */
    struct request request;
    uint64_t started_ns;
    uint64_t published_ns; /* when the last answer was given */
    uint32_t length;       /* of copy */
    _Alignas(16) uint8_t copy[VGPU_REQUEST_MAX];
    _Alignas(16) uint8_t response[VGPU_RESPONSE_MAX];
};

/* A request waits for which there has to be a device, and this worker has none. */
#define REGISTERS_WAKE 1

/*
 * Begins to serve the page after another worker or as its first. `error` is the answer
 * for REGISTERS_FAIL. All functions return 0, REGISTERS_WAKE, which ends the worker so that one
 * with a device follows, or -errno; an error ends the worker: the link or the backend is lost.
 */
int registers_start(struct registers *registers, enum registers_takeover takeover,
                    enum vgpu_error error);

/* The doorbell is readable; only in REGISTERS_IDLE. */
int registers_doorbell(struct registers *registers);

/* The mediator says that an engine's word is worth a look. */
int registers_turn(struct registers *registers, uint32_t engine);

/* In how many ns registers_look() is to be called; 0: not at all. */
uint64_t registers_wait(const struct registers *registers);

/* Starts what may start by now, or gives back turns that others want first. */
int registers_look(struct registers *registers);

/* The backend's event is readable; only in REGISTERS_RUNNING. */
int registers_backend(struct registers *registers);

#endif
