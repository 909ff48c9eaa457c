/* SPDX-License-Identifier: MIT */
/*
 * Who may use a pool's GPU now: the mediator's side of the turn pages.
 *
 * One member at a time holds the turn. While nobody else asks it keeps it and starts
 * work without asking (VGPU_TURN_OPEN). When somebody asks, the turn is recalled: at
 * once when the holder does nothing, else as soon as it is done; then whoever is first in
 * the queue gets it. protocol/vgpu-worker.h shows the states of the word.
 *
 * Pure but for the words in the turn pages: the clock is passed in, and what has to be
 * told to a worker goes through a callback. A worker is not trusted: a word that it may
 * not store, or a message out of turn, is reported as -EPROTO, and the caller ends it.
 */
#ifndef VGPU_POOL_H
#define VGPU_POOL_H

#include <stdbool.h>
#include <stdint.h>

#include "queue.h"
#include "vgpu-worker.h"

#define POOL_HISTORY 256u

/* One turn that was asked for and is over. */
struct pool_turn {
    uint64_t sequence; /* 1, 2, ... in the order in which turns were granted */
    uint32_t vm_id;
    uint32_t priority;
    uint64_t wait_ns; /* from asking to the grant */
    uint64_t run_ns;  /* from the grant to its end */
};

struct pool;

/* A worker in a pool. */
struct pool_member {
    /* Set by the owner before pool_join(). */
    struct vgpu_turn_page *page;
    uint32_t vm_id;
    enum vgpu_priority priority;
    void (*granted)(struct pool_member *member); /* tell the worker; may not call the pool */

    /* The pool's own. */
    struct queue_entry entry; /* in the queue while it waits */
    struct pool *pool;        /* NULL when in none */
    bool asked;               /* was granted a turn that it asked for; its DONE is to come */
    uint64_t sequence;
    uint64_t asked_ns;
    uint64_t granted_ns;
};

struct pool {
    char id;    /* upper-case letter */
    int device; /* number of its GPU */
    bool paused;
    struct queue queue;
    struct pool_member *holder; /* NULL: the turn is free */
    bool recalled;              /* the holder is running and was asked to return the turn */
    uint64_t wanted_ns;         /* since when others wait for the holder's turn; 0: they don't */
    uint64_t sequence;
    struct pool_turn history[POOL_HISTORY]; /* a ring; the newest is at history_count - 1 */
    uint64_t history_count;
};

void pool_init(struct pool *pool, char id, int device);

/* Adds a worker without a turn. */
void pool_join(struct pool *pool, struct pool_member *member);

/* Takes a worker out that has ended, whatever it held; nothing happens when in no pool. */
void pool_leave(struct pool_member *member, uint64_t now_ns);

/* The worker asks for a turn. Returns 0 or -EPROTO. */
int pool_ask(struct pool_member *member, uint64_t now_ns);

/*
 * The worker says that a turn is over that it had asked for or that was recalled; `returned`
 * tells whether it has closed the turn page's word. Returns 0 or -EPROTO.
 */
int pool_done(struct pool_member *member, bool returned, uint64_t now_ns);

/* Stops granting; what runs goes on. */
void pool_pause(struct pool *pool, uint64_t now_ns);
void pool_resume(struct pool *pool, uint64_t now_ns);

/*
 * Since when others have been waiting for the holder to end its turn, for a limit on that.
 * 0 when nobody is, or when the pool is paused.
 */
uint64_t pool_wanted_since(const struct pool *pool);

/* Whether the worker waits for a turn or is using one. */
bool pool_busy(const struct pool_member *member);

#endif
