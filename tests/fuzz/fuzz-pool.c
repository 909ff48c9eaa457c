/* SPDX-License-Identifier: MIT */
/*
 * Workers that lie: each pair of bytes is a message of one of four workers, with something
 * stored in its turn page before. Whatever they do, at most one holds the turn, nobody who
 * waits is forgotten, and a worker that is caught is ended, as the mediator does it.
 */
#include <stdlib.h>
#include <string.h>

#include "pool.h"

#define WORKERS 4u

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static struct pool pool;
static struct vgpu_turn_page pages[WORKERS];
static struct pool_member members[WORKERS];

static void on_granted(struct pool_member *member)
{
    if (pool.holder != member || pool.paused) {
        abort();
    }
}

static int act(struct pool_member *member, uint8_t action, uint64_t now)
{
    switch (action % 8) {
    case 0:
    case 1:
        return pool_ask(member, now);
    case 2:
        return pool_done(member, false, now);
    case 3:
        return pool_done(member, true, now);
    case 4:
        pool_pause(&pool, now);
        return 0;
    case 5:
        pool_resume(&pool, now);
        return 0;
    case 6:
        return -1; /* it ends by itself */
    default:
        return 0; /* it only stores */
    }
}

static void check(void)
{
    /* With the turn free and the pool open, nobody may be left waiting. */
    if (!pool.holder && !pool.paused && !queue_empty(&pool.queue)) {
        abort();
    }
    if (pool_wanted_since(&pool) != 0 && (!pool.holder || queue_empty(&pool.queue))) {
        abort();
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    memset(members, 0, sizeof(members));
    memset(pages, 0, sizeof(pages));
    pool_init(&pool, 'A', 0);
    for (unsigned i = 0; i < WORKERS; i++) {
        members[i] = (struct pool_member){.page = &pages[i],
                                          .vm_id = i + 1,
                                          .priority = (enum vgpu_priority)(i % VGPU_PRIORITIES),
                                          .granted = on_granted};
        pool_join(&pool, &members[i]);
    }
    for (size_t i = 0; i + 1 < size; i += 2) {
        struct pool_member *member = &members[data[i] % WORKERS];

        if (data[i] & 0x80) {
            member->page->turn = data[i + 1] >> 4;
        }
        if (act(member, data[i + 1], i + 1) < 0) {
            pool_leave(member, i + 1);
            pool_join(&pool, member);
        }
        check();
    }
    return 0;
}
