/* SPDX-License-Identifier: MIT */
/*
 * Device memory that a session has allocated, and what its VM may have in all: the account page
 * that the VM's workers share (protocol/vgpu-worker.h).
 *
 * Bytes are reserved in the account before the GPU is asked for them, so that all sessions of a
 * VM together never have more than its limit, not for a moment.
 */
#ifndef VGPU_WORKER_LEDGER_H
#define VGPU_WORKER_LEDGER_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "protocol/vgpu-worker.h"

struct ledger_entry {
    uint64_t address; /* 0: a free place */
    uint64_t bytes;
};

struct ledger {
    /* Set by the caller. */
    struct vgpu_account_page *account;
    struct vgpu_counters *counters;

    struct ledger_entry *entries; /* a hash table, `room` places, a power of two */
    size_t count, room;
};

/* Takes bytes of the VM's quota, before the GPU is asked. False: there are not as many left. */
bool ledger_reserve(struct ledger *ledger, uint64_t bytes);

/* Gives reserved bytes back, where the GPU had no room for them. */
void ledger_return(struct ledger *ledger, uint64_t bytes);

/* Notes where the reserved bytes are, or returns false: no memory for that. */
bool ledger_note(struct ledger *ledger, uint64_t address, uint64_t bytes);

/* The GPU has freed this address: its bytes are given back. Nothing happens if none were noted. */
void ledger_free(struct ledger *ledger, uint64_t address);

/* The bytes that were noted for an address; 0: none were. */
uint64_t ledger_bytes(const struct ledger *ledger, uint64_t address);

/* Forgets an address; its bytes stay in the account, where another counts them from now on. */
void ledger_hand_over(struct ledger *ledger, uint64_t address);

/* Lowers the GPU's free bytes and its total to what the VM may have: the guest sees its quota. */
void ledger_limit(const struct ledger *ledger, uint64_t *free_bytes, uint64_t *total);

/* Frees the table. */
void ledger_release(struct ledger *ledger);

#endif
