/* SPDX-License-Identifier: MIT */
/*
 * Device memory of a session: what counts against the VM's quota, what is mapped where, and what is
 * freed at leisure.
 */
#ifndef VGPU_WORKER_SESSION_MEMORY_H
#define VGPU_WORKER_SESSION_MEMORY_H

#include <stddef.h>
#include <stdint.h>

#include "worker/ledger.h"

struct ring_session;
struct mapping;

/* Limits of the context have numbers below this. */
#define SESSION_LIMITS 5u

struct session_memory {
    struct ledger ledger;
    struct mapping *mappings; /* `mapping_count` of them */
    uint32_t mapping_count;
    /* Memory that is to be freed when the GPU does nothing. */
    struct {
        uint64_t *address; /* `count` of them, with room for `room` */
        size_t count, room;
    } dropped;
    uint64_t limit_bytes[SESSION_LIMITS]; /* that limits of the context account for, by CUlimit */
};

/* Frees what the guest has dropped (memory_drop of api/), if nothing is on the GPU. */
void memory_free_dropped(struct ring_session *session);

/* Forgets it all; the GPU's own goes with the process. */
void memory_release_all(struct ring_session *session);

#endif
