/* SPDX-License-Identifier: MIT */
/* Who may use a pool's GPU now, see pool.h. */
#include "pool.h"

#include <errno.h>
#include <stddef.h>
#include <string.h>

#include "shared.h"

static struct pool_member *member_of(struct queue_entry *entry)
{
    return (struct pool_member *)((char *)entry - offsetof(struct pool_member, entry));
}

/*
 * Wants the turn back from its holder, who is none any more when that can be at once. A word
 * that is none of the states counts as running: the limit on waiting ends such a worker.
 */
static void recall(struct pool *pool)
{
    uint32_t *turn = &pool->holder->page->turn;
    bool freed = shared_swap(turn, VGPU_TURN_OPEN, VGPU_TURN_CLOSED);

    if (!freed && !pool->recalled) {
        pool->recalled = true;
        /* The first fails where the worker has ended its turn in between. */
        freed = !shared_swap(turn, VGPU_TURN_RUNNING, VGPU_TURN_RECALLED) &&
                shared_swap(turn, VGPU_TURN_OPEN, VGPU_TURN_CLOSED);
    }
    if (freed) {
        pool->holder = NULL;
        pool->recalled = false;
    }
}

static void grant(struct pool *pool, struct pool_member *member, uint64_t now_ns)
{
    const bool others = !queue_empty(&pool->queue);

    pool->holder = member;
    pool->recalled = others;
    member->asked = true;
    member->sequence = ++pool->sequence;
    member->granted_ns = now_ns;
    shared_store_release(&member->page->turn, others ? VGPU_TURN_RECALLED : VGPU_TURN_RUNNING);
    member->granted(member);
}

/* Moves the turn on as far as it can go now. */
static void advance(struct pool *pool, uint64_t now_ns)
{
    const bool wanted = pool->paused || !queue_empty(&pool->queue);

    if (wanted && pool->holder) {
        /* Where it is running, its DONE brings us here again. */
        recall(pool);
    }
    if (!pool->holder && !pool->paused && !queue_empty(&pool->queue)) {
        grant(pool, member_of(queue_pop(&pool->queue)), now_ns);
        pool->wanted_ns = 0;
    }
    if (!pool->holder || pool->paused || queue_empty(&pool->queue)) {
        pool->wanted_ns = 0;
    } else if (pool->wanted_ns == 0) {
        pool->wanted_ns = now_ns;
    }
}

static void remember(struct pool *pool, const struct pool_member *member, uint64_t now_ns)
{
    pool->history[pool->history_count++ % POOL_HISTORY] = (struct pool_turn){
        .sequence = member->sequence,
        .vm_id = member->vm_id,
        .priority = member->priority,
        .wait_ns = member->granted_ns - member->asked_ns,
        .run_ns = now_ns - member->granted_ns,
    };
}

void pool_init(struct pool *pool, char id, int device)
{
    memset(pool, 0, sizeof(*pool));
    pool->id = id;
    pool->device = device;
    queue_init(&pool->queue);
}

void pool_join(struct pool *pool, struct pool_member *member)
{
    member->pool = pool;
    member->asked = false;
    shared_store(&member->page->turn, VGPU_TURN_CLOSED);
}

void pool_leave(struct pool_member *member, uint64_t now_ns)
{
    struct pool *pool = member->pool;

    if (!pool) {
        return;
    }
    queue_remove(&member->entry);
    member->pool = NULL;
    if (pool->holder == member) {
        pool->holder = NULL;
        pool->recalled = false;
    }
    advance(pool, now_ns);
}

int pool_ask(struct pool_member *member, uint64_t now_ns)
{
    struct pool *pool = member->pool;

    if (!pool || queue_contains(&member->entry) || pool->holder == member || member->asked) {
        return -EPROTO;
    }
    member->asked_ns = now_ns;
    queue_push(&pool->queue, &member->entry, member->priority);
    advance(pool, now_ns);
    return 0;
}

int pool_done(struct pool_member *member, bool returned, uint64_t now_ns)
{
    struct pool *pool = member->pool;

    if (!pool || (!returned && !member->asked)) {
        return -EPROTO;
    }
    if (returned && (pool->holder != member || !pool->recalled ||
                     shared_load_acquire(&member->page->turn) != VGPU_TURN_CLOSED)) {
        return -EPROTO;
    }
    if (member->asked) {
        remember(pool, member, now_ns);
        member->asked = false;
    }
    if (returned) {
        pool->holder = NULL;
        pool->recalled = false;
        advance(pool, now_ns);
    }
    return 0;
}

void pool_pause(struct pool *pool, uint64_t now_ns)
{
    pool->paused = true;
    advance(pool, now_ns);
}

void pool_resume(struct pool *pool, uint64_t now_ns)
{
    pool->paused = false;
    advance(pool, now_ns);
}

uint64_t pool_wanted_since(const struct pool *pool)
{
    return pool->wanted_ns;
}

bool pool_busy(const struct pool_member *member)
{
    const bool holds = member->pool && member->pool->holder == member;

    return queue_contains(&member->entry) ||
           (holds && shared_load(&member->page->turn) != VGPU_TURN_OPEN);
}
