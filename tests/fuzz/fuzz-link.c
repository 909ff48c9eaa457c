/* SPDX-License-Identifier: MIT */
/*
 * Hostile workers at their mediator: messages about turns, exports and how they stand, and words of
 * their turn pages, as the bytes say; between them time passes, workers end and begin, and another
 * mediator comes, which asks how they stand.
 *
 * One worker is honest. In the end it asks for its turns, and gets them, whatever the others have
 * said: those that keep it waiting are ended by the limit, as they are by the real mediator. Memory
 * that was shared is nobody's when all have left: what was taken into the account is off it.
 *
 * Tests: mediator/pool.c, mediator/arbiter.c, mediator/exports.c
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "common/clock.h"
#include "mediator/exports.h"
#include "mediator/pool.h"

#define GPUS 2u
#define WORKERS 5u
#define VMS 2u
#define KEYS 16u     /* that are remembered, of those given out */
#define HONEST 0u    /* the worker that is */
#define STEPS 10000u /* of a millisecond, in which its turn has to come */
#define LIMIT (50 * NS_PER_MS)

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

struct input {
    const uint8_t *data;
    size_t left;
};

struct worker {
    struct pool_worker head;
    struct vgpu_turn_page page;
    struct sharer sharer;
    struct export_record *book;
    uint32_t number; /* of its last message about exports */
    bool told;       /* OPEN; it has said nothing before */
    bool expired;
};

static struct pool pool;
static struct worker workers[WORKERS];
static struct pool_account *accounts[VMS];
static struct exports *domains[VMS];
static uint64_t shared[VMS]; /* bytes in the account that no worker counts */
static struct vgpu_export known[KEYS];
static struct export_record books[WORKERS];
static bool lied[VMS]; /* by a number that was said before: then accounts need not be right */
static uint64_t now;

static uint64_t take_bytes(struct input *in, unsigned count)
{
    uint64_t value = 0;

    while (count-- > 0) {
        value = value << 8 | (in->left > 0 ? *in->data : 0);
        in->data += in->left > 0;
        in->left -= in->left > 0;
    }
    return value;
}

static void demand(bool right)
{
    if (!right) {
        abort();
    }
}

static struct worker *worker_of(struct pool_worker *head)
{
    return LIST_OWNER((uintptr_t)head, struct worker, head);
}

static unsigned vm_of(const struct worker *worker)
{
    return (unsigned)(worker - workers) % VMS;
}

static void ignore(struct arbiter_member *member)
{
    (void)member;
}

static void on_expired(struct arbiter_member *member)
{
    const struct arbiter_member *first = member - member->arbiter->engine;

    worker_of(LIST_OWNER((uintptr_t)first, struct pool_worker, members))->expired = true;
}

static void on_off(struct arbiter_member *member, bool off)
{
    (void)member;
    (void)off;
}

static void on_sliced(struct pool_worker *head)
{
    (void)head;
}

static void on_open(struct pool_worker *head)
{
    worker_of(head)->told = true;
}

/* All are on one GPU, so that they are in each other's way. */
static struct pool_account *account_of(unsigned number)
{
    static const struct pool_standing standing = {VGPU_PRIORITY_MEDIUM, 1, false};
    struct pool_account *account = pool_account(&accounts[vm_of(&workers[number])], &pool.gpus[0],
                                                &standing);

    demand(account != NULL);
    return account;
}

static void begin(unsigned number)
{
    struct worker *worker = &workers[number];

    *worker = (struct worker){.head = {
                                  .page = &worker->page,
                                  .vm_id = 1 + number % VMS,
                                  .granted = ignore,
                                  .alerted = ignore,
                                  .expired = on_expired,
                                  .turn_off = on_off,
                                  .sliced = on_sliced,
                                  .open = on_open,
                              }};
    worker->book = &books[number];
    memset(worker->book, 0, sizeof(*worker->book));
    sharer_init(&worker->sharer, domains[vm_of(worker)], &accounts[vm_of(worker)], worker->book);
    pool_join(&worker->head, account_of(number));
    pool_open(&worker->head, now);
}

static void end(unsigned number)
{
    struct worker *worker = &workers[number];
    struct estate estate;

    pool_leave(&worker->head, now);
    sharer_leave(&worker->sharer, &estate);
    shared[vm_of(worker)] += estate.kept;
    shared[vm_of(worker)] -= estate.freed;
    free(estate.still_had);
}

/* As the mediator does with one that has broken the protocol, or kept its turn for too long. */
static void end_and_begin(unsigned number)
{
    end(number);
    begin(number);
}

/* What it says of exports. Returns 0 or -EPROTO. */
static int say_share(struct worker *worker, struct input *in, uint32_t type)
{
    struct vgpu_export share = known[take_bytes(in, 1) % KEYS];
    const bool lies = take_bytes(in, 1) % 16 == 1;
    const uint32_t number = lies ? (uint32_t)take_bytes(in, 1) % 8 : ++worker->number;
    uint64_t freed = 0;
    int r, file;

    lied[vm_of(worker)] = lied[vm_of(worker)] || lies;

    switch (type) {
    case VGPU_LINK_EXPORT:
        share = (struct vgpu_export){.kind = (uint32_t)take_bytes(in, 1) % 4,
                                     .bytes = take_bytes(in, (unsigned)take_bytes(in, 1) % 9)};
        r = sharer_export(&worker->sharer, &share, number);
        if (r == VGPU_LINK_DONE_WELL) {
            known[take_bytes(in, 1) % KEYS] = share;
        }
        return r < 0 ? r : 0;
    case VGPU_LINK_IMPORT:
        share.kind = take_bytes(in, 1) % 8 == 0 ? 3 - share.kind : share.kind;
        r = sharer_import(&worker->sharer, &share, &file, number);
        return r < 0 ? r : 0;
    case VGPU_LINK_RELEASE:
        r = sharer_release(&worker->sharer, &share, &freed, number);
        break;
    default:
        r = sharer_withdraw(&worker->sharer, &share, &freed, number);
        /* From now on the mediator counts it, until it is freed, which may be now. */
        shared[vm_of(worker)] += r == 0 ? share.bytes : 0;
        break;
    }
    shared[vm_of(worker)] -= freed;
    return r;
}

static int say(unsigned number, struct input *in)
{
    struct worker *worker = &workers[number];
    const uint32_t type = (uint32_t)take_bytes(in, 1) % (VGPU_LINK_STATE + 2);
    struct vgpu_link_msg msg = {.type = type};

    if (type >= VGPU_LINK_EXPORT && type <= VGPU_LINK_WITHDRAW) {
        return say_share(worker, in, type);
    }
    msg.engine = (uint32_t)take_bytes(in, 1) % (VGPU_ENGINES + 1);
    msg.from_ns = take_bytes(in, 1) % 2 ? now + take_bytes(in, 4) : take_bytes(in, 8);
    if (type == VGPU_LINK_READY) {
        pool_opened(&worker->head, now);
        pool_can_be_off(&worker->head, take_bytes(in, 1) % 2);
        return 0;
    }
    if (type == VGPU_LINK_OFF) {
        pool_off(&worker->head, now);
        return 0;
    }
    return pool_message(&worker->head, &msg, now);
}

/* With nothing on the GPUs; the VMs have used nothing yet. */
static void make_pool(void)
{
    static const struct config_pool config = {
        .defined = true,
        .device_count = GPUS,
        .devices = {0, 1},
        .slice_ns = 2 * NS_PER_MS,
        .window_ns = 100 * NS_PER_US,
        .least_share = ARBITER_LEAST_ONE / 100,
    };

    for (unsigned vm = 0; vm < VMS; vm++) {
        pool_forget(&accounts[vm]);
    }
    pool_init(&pool, 'A', &config, LIMIT);
}

/* The books of the last one are read, as they are. */
static void change_books(void)
{
    for (unsigned i = 0; i < WORKERS; i++) {
        struct estate estate;

        sharer_leave(&workers[i].sharer, &estate);
        free(estate.still_had);
    }
    for (unsigned vm = 0; vm < VMS; vm++) {
        exports_unref(domains[vm]);
        domains[vm] = exports_new();
        demand(domains[vm] != NULL);
    }
    for (unsigned i = 0; i < WORKERS; i++) {
        struct worker *worker = &workers[(i + 2) % WORKERS];

        demand(sharer_restore(&worker->sharer, domains[vm_of(worker)], &accounts[vm_of(worker)],
                              worker->book) == 0);
    }
}

/*
 * Another mediator comes, which knows what the turn pages have, and asks all; some say what the
 * bytes say, and some nothing in time.
 */
static void change_mediators(struct input *in)
{
    for (unsigned i = 0; i < WORKERS; i++) {
        const struct vgpu_turn_page page = workers[i].page;

        pool_leave(&workers[i].head, now);
        workers[i].page = page;
    }
    make_pool();
    change_books();
    pool_hold(&pool, now);
    for (unsigned i = 0; i < WORKERS; i++) {
        pool_adopt(&workers[i].head, account_of(i), now);
    }
    for (unsigned i = 0; i < WORKERS; i++) {
        struct vgpu_link_state state = {0};

        for (unsigned e = 0; e < VGPU_ENGINES; e++) {
            state.turn[e] = i == HONEST ? VGPU_TURN_CLOSED : (uint32_t)take_bytes(in, 2);
        }
        if (i == HONEST || take_bytes(in, 1) % 4 != 0) {
            if (pool_resync(&workers[i].head, &state, now) < 0) {
                end_and_begin(i);
            }
        } else {
            pool_doubt(&workers[i].head, now);
        }
    }
    pool_release(&pool, now);
}

static void let_time_pass(uint64_t ns)
{
    now += ns;
    for (unsigned i = 0; i < GPUS; i++) {
        pool_tick(&pool.gpus[i], now);
    }
    for (unsigned i = 0; i < WORKERS; i++) {
        if (workers[i].expired) {
            demand(i != HONEST);
            end_and_begin(i);
        }
    }
}

static bool has_turn(const struct worker *worker, unsigned engine)
{
    const uint32_t state = worker->page.turn[engine].state;

    return state == VGPU_TURN_RUNNING || state == VGPU_TURN_WANTED || state == VGPU_TURN_SHARED;
}

/* The honest one asks, waits, and gives the turn back. */
static void take_turns(void)
{
    struct worker *worker = &workers[HONEST];

    for (unsigned engine = 0; engine < VGPU_ENGINES; engine++) {
        struct vgpu_link_msg msg = {.type = VGPU_LINK_ASK, .engine = engine};
        unsigned steps = 0;

        if (worker->page.turn[engine].state == VGPU_TURN_OPEN) {
            continue; /* it is its own already */
        }
        demand(worker->page.turn[engine].state == VGPU_TURN_CLOSED);
        demand(pool_message(&worker->head, &msg, now) == 0);
        while (!has_turn(worker, engine)) {
            demand(steps++ < STEPS);
            let_time_pass(NS_PER_MS);
        }
        worker->page.turn[engine].state = VGPU_TURN_CLOSED;
        msg.type = VGPU_LINK_DONE;
        demand(pool_message(&worker->head, &msg, now) == 0);
    }
}

static void step(struct input *in)
{
    const unsigned what = (unsigned)take_bytes(in, 1);
    const unsigned number = 1 + what / 16 % (WORKERS - 1);

    switch (what % 16) {
    case 0:
        end_and_begin(number);
        break;
    case 1:
        change_mediators(in);
        break;
    case 2:
        let_time_pass(take_bytes(in, 4));
        break;
    case 3:
    case 4:
        workers[number].page.turn[take_bytes(in, 1) % VGPU_ENGINES].state =
            (uint32_t)take_bytes(in, 1) % 8;
        break;
    default:
        if (say(number, in) < 0) {
            end_and_begin(number);
        }
        break;
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct input in = {data, size};

    now = NS_PER_S;
    memset(known, 0, sizeof(known));
    memset(shared, 0, sizeof(shared));
    memset(lied, 0, sizeof(lied));
    make_pool();
    for (unsigned vm = 0; vm < VMS; vm++) {
        domains[vm] = exports_new();
        demand(domains[vm] != NULL);
    }
    for (unsigned i = 0; i < WORKERS; i++) {
        begin(i);
    }
    while (in.left > 0) {
        step(&in);
    }
    take_turns();
    for (unsigned i = 0; i < WORKERS; i++) {
        end(i);
    }
    for (unsigned vm = 0; vm < VMS; vm++) {
        demand(shared[vm] == 0 || lied[vm]);
        pool_forget(&accounts[vm]);
        exports_unref(domains[vm]);
    }
    return 0;
}
