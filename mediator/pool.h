/* SPDX-License-Identifier: MIT */
/*
 * Pools: named sets of GPUs. Each GPU has an arbiter for each of its engines. A worker is placed on
 * a GPU of its VM's pool when it starts, and stays there.
 *
 * It is placed where the fewest workers are, and among such GPUs where its VM has the fewest,
 * and then on the first. In an exclusive pool a VM has one GPU, which no other VM has.
 *
 * Pure as the arbiter is; what changes for the other workers of a GPU is stored in their pages.
 */
#ifndef VGPU_MEDIATOR_POOL_H
#define VGPU_MEDIATOR_POOL_H

#include <stdbool.h>
#include <stdint.h>

#include "mediator/arbiter.h"
#include "mediator/config.h"
#include "mediator/list.h"

struct pool;

struct pool_gpu {
    struct pool *pool;
    uint32_t number; /* as the driver counts */
    struct arbiter engines[VGPU_ENGINES];
    struct list_entry workers; /* a ring's head */
    unsigned worker_count;
    unsigned places_kept;   /* VMs without a worker there that are to come back */
    bool drained;           /* no worker is placed there any more */
    unsigned contexts_wait; /* workers that are to make a context and may not yet */
};

struct pool {
    char id;     /* upper-case letter; 0: there is no such pool */
    bool paused; /* nothing new starts on its GPUs */
    bool exclusive;
    uint64_t window_ns;
    struct pool_gpu gpus[CONFIG_DEVICES];
    unsigned gpu_count;
    struct turn_history history;
};

/* How a VM stands among others, on all GPUs of its pool. */
struct pool_standing {
    enum vgpu_priority priority;
    uint32_t weight;
    bool paused;
};

/* What a VM has used of a GPU; lives as long as the VM is attached. */
struct pool_account {
    struct pool_account *next;
    struct pool_gpu *gpu;
    struct arbiter_account engines[VGPU_ENGINES];
    unsigned worker_count;
    unsigned register_count; /* of those, for register mode */
    bool keeps_place;        /* the GPU counts as the VM's, without a worker too */
};

/* A worker's context on its GPU. */
enum pool_context {
    POOL_CONTEXT_NONE, /* or made already */
    POOL_CONTEXT_WAITS,
    POOL_CONTEXT_BEGUN,
};

/* A worker in a pool. */
struct pool_worker {
    /* Set by the owner before pool_join(). */
    struct vgpu_turn_page *page;
    uint32_t vm_id;
    bool register_mode;
    void (*granted)(struct arbiter_member *member);
    void (*alerted)(struct arbiter_member *member);
    void (*expired)(struct arbiter_member *member);
    void (*turn_off)(struct arbiter_member *member, bool off);
    void (*sliced)(struct pool_worker *worker); /* the terms have another `slice_us` */
    void (*open)(struct pool_worker *worker);   /* it may make its context */

    /* The pool's own. */
    struct list_entry entry;      /* on its GPU */
    struct pool_gpu *gpu;         /* NULL: in no pool */
    struct pool_account *account; /* of its VM, on that GPU */
    struct arbiter_member members[VGPU_ENGINES];
    enum pool_context context;
    uint64_t asked_ns; /* when it asked for its context */
};

void pool_init(struct pool *pool, char id, const struct config_pool *config, uint64_t limit_ns);

/* Takes over what may change while it is in use: slice, window, least share, limit. */
void pool_configure(struct pool *pool, const struct config_pool *config, uint64_t limit_ns);

/* Why pool_place() has none. */
#define POOL_NO_GPU                                                                                \
    "each is drained, or serves another VM of an exclusive pool; 'vgpuctl list' shows them"

/* The GPU for a worker of the VM with these accounts; NULL when there is none for it. */
struct pool_gpu *pool_place(struct pool *pool, const struct pool_account *accounts);

/*
 * The VM's account on a GPU; made, with this standing, where there is none. NULL when memory is
 * short. pool_forget() frees all; nobody may be joined by them.
 */
struct pool_account *pool_account(struct pool_account **accounts, struct pool_gpu *gpu,
                                  const struct pool_standing *standing);
void pool_forget(struct pool_account **accounts);

/* Whether a GPU of the pool is drained: what finds none free there may wait for it. */
bool pool_has_drained(const struct pool *pool);

/* In an exclusive pool the account's GPU is its VM's from now on; or none of them is any more. */
void pool_keep_place(struct pool_account *account);
void pool_leave_place(struct pool_account *accounts);

/* Changes the standing of all of a VM's accounts. */
void pool_set_accounts(struct pool_account *accounts, const struct pool_standing *standing,
                       uint64_t now_ns);

/* From now on the worker's work can be taken off the engine that computes; or not any more. */
void pool_can_be_off(struct pool_worker *worker, bool can);

/* The worker says that its work is off that engine, as it was last told; whether that counts. */
bool pool_off(struct pool_worker *worker, uint64_t now_ns);

/* Since when it is; 0: it is not. */
uint64_t pool_off_ns(const struct pool_worker *worker);

/* Adds a worker without a turn to its account's GPU. */
void pool_join(struct pool_worker *worker, struct pool_account *account);

/*
 * The same for a worker that another mediator has left, whose turns its page tells; to be called
 * while the pool is held. Until it has said how it stands its messages about turns do not count.
 */
void pool_adopt(struct pool_worker *worker, struct pool_account *account, uint64_t now_ns);

/* It has said so. Returns 0 or -EPROTO. */
int pool_resync(struct pool_worker *worker, const struct vgpu_link_state *state, uint64_t now_ns);

/* It has not said so in time, and keeps no turn. */
void pool_doubt(struct pool_worker *worker, uint64_t now_ns);

/* Takes a worker out that has ended; nothing happens when in none. */
void pool_leave(struct pool_worker *worker, uint64_t now_ns);

/*
 * The worker is to make its context: `open` is called when it may, which is at once or later. While
 * a session of a higher band is on its GPU, one context is made there at a time.
 */
void pool_open(struct pool_worker *worker, uint64_t now_ns);

/* It has made it. */
void pool_opened(struct pool_worker *worker, uint64_t now_ns);

/* A worker's message about an engine's turn. Returns 0 or -EPROTO. */
int pool_message(struct pool_worker *worker, const struct vgpu_link_msg *msg, uint64_t now_ns);

void pool_pause(struct pool *pool, uint64_t now_ns);
void pool_resume(struct pool *pool, uint64_t now_ns);

/*
 * Nothing is granted between these two, and nothing taken: workers are adopted. Afterwards the pool
 * is paused if it was before.
 */
void pool_hold(struct pool *pool, uint64_t now_ns);
void pool_release(struct pool *pool, uint64_t now_ns);

/* As arbiter_deadline() and arbiter_tick(), for all engines of a GPU. */
uint64_t pool_deadline(const struct pool_gpu *gpu);
void pool_tick(struct pool_gpu *gpu, uint64_t now_ns);

/* Whether the worker waits for a turn, and whether it waits for one or is using one. */
bool pool_waits(const struct pool_worker *worker);
bool pool_busy(const struct pool_worker *worker);

#endif
