/* SPDX-License-Identifier: MIT */
/*
 * Pools of GPUs: a worker is placed on one of them, the other workers there are told of it, and its
 * messages are passed to the arbiters.
 *
 * A GPU has an arbiter for each engine. A worker joins all of them, with a member for each. Behind
 * the members is an account, one for each VM and GPU, which outlives the workers: a VM keeps its
 * debts when it closes a session and opens another.
 *
 * While `worker->gpu` is set the worker is in the GPU's list and in its arbiters, and is counted by
 * the GPU and by its account; when it is NULL, in none of them. pool_join() and pool_leave() alone
 * change that.
 *
 * Turns are decided by arbiter.c. Nothing here knows of processes.
 */
#include "mediator/pool.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "common/clock.h"
#include "common/shared.h"

/* How long a worker that should have returned a turn holds others up. */
#define PATIENCE_NS (50 * NS_PER_MS)
/*
 * The driver's own time slices, by band, while a context is made on the GPU and a session of a
 * higher band is there. To make one holds a lock of the driver's for up to 30 ms at a time, in
 * which nothing can be turned off. The higher one then comes in when such a slice is over, and has
 * the GPU for longer than the lower ones: its own slice is as the driver has it, some 2 ms. At
 * other times short ones do not pay. They bring in its first kernel sooner, but not its last, and
 * cost lower bands 2 to 7 % of the GPU.
 */
static const uint32_t lower_slice_us[VGPU_PRIORITIES] = {
    [VGPU_PRIORITY_LOW] = 200,
    [VGPU_PRIORITY_MEDIUM] = 400,
};
/* How long contexts wait for others to be made at most; guests wait for a minute. */
#define CONTEXT_WAITS_NS (10 * NS_PER_S)

static struct arbiter_rules rules_of(const struct config_pool *config, uint64_t limit_ns)
{
    return (struct arbiter_rules){
        .slice_ns = config->slice_ns,
        .patience_ns = PATIENCE_NS,
        .limit_ns = limit_ns,
        .least_share = config->least_share,
    };
}

void pool_init(struct pool *pool, char id, const struct config_pool *config, uint64_t limit_ns)
{
    const struct arbiter_rules rules = rules_of(config, limit_ns);

    memset(pool, 0, sizeof(*pool));
    pool->id = id;
    pool->exclusive = config->exclusive;
    pool->window_ns = config->window_ns;
    pool->gpu_count = config->device_count;
    for (unsigned i = 0; i < pool->gpu_count; i++) {
        struct pool_gpu *gpu = &pool->gpus[i];

        gpu->pool = pool;
        gpu->number = (uint32_t)config->devices[i];
        list_init(&gpu->workers);
        for (unsigned j = 0; j < VGPU_ENGINES; j++) {
            arbiter_init(&gpu->engines[j], gpu->number, j, &pool->history, &rules);
        }
    }
}

/*
 * Whether nobody but its own VM in register mode may want a worker's GPU. That worker is there as
 * long as its VM is, mostly unused, and does not count: otherwise no session would ever be alone.
 * Two sessions of a VM do count as others to each other.
 */
static bool vm_alone(const struct pool_worker *worker)
{
    const struct pool_account *account = worker->account;
    const unsigned own = worker->register_mode ? account->register_count
                                               : account->register_count + 1;

    return worker->gpu->worker_count == own;
}

static void store_slice(struct pool_worker *worker, uint32_t us)
{
    if (shared_load(&worker->page->terms.slice_us) != us) {
        shared_store(&worker->page->terms.slice_us, us);
        worker->sliced(worker);
    }
}

static enum vgpu_priority band_of(const struct pool_worker *worker)
{
    return worker->account->engines[VGPU_ENGINE_COMPUTE].priority;
}

/* The highest band of a GPU's sessions. */
static enum vgpu_priority highest_band(const struct pool_gpu *gpu)
{
    enum vgpu_priority highest = VGPU_PRIORITY_LOW;

    for (struct list_entry *e = gpu->workers.next; e != &gpu->workers; e = e->next) {
        const struct pool_worker *worker = LIST_OWNER(e, struct pool_worker, entry);

        if (!worker->register_mode && band_of(worker) > highest) {
            highest = band_of(worker);
        }
    }
    return highest;
}

static bool makes_context(const struct pool_gpu *gpu)
{
    for (struct list_entry *e = gpu->workers.next; e != &gpu->workers; e = e->next) {
        if (LIST_OWNER(e, struct pool_worker, entry)->context == POOL_CONTEXT_BEGUN) {
            return true;
        }
    }
    return false;
}

static void set_context(struct pool_worker *worker, enum pool_context context)
{
    worker->gpu->contexts_wait -= worker->context == POOL_CONTEXT_WAITS;
    worker->context = context;
    worker->gpu->contexts_wait += worker->context == POOL_CONTEXT_WAITS;
}

/*
 * Stores a GPU's window, and its workers' time slices, in their pages; to be called when their
 * number, the band of one, or whether one makes a context has changed. A worker that is alone needs
 * no window and gets 0: flight.h says how far it may go then.
 */
static void set_gpu_terms(struct pool_gpu *gpu)
{
    const enum vgpu_priority highest = highest_band(gpu);
    const bool makes = makes_context(gpu);

    for (struct list_entry *e = gpu->workers.next; e != &gpu->workers; e = e->next) {
        struct pool_worker *worker = LIST_OWNER(e, struct pool_worker, entry);
        const enum vgpu_priority band = band_of(worker);

        shared_store64(&worker->page->terms.window_ns, vm_alone(worker) ? 0 : gpu->pool->window_ns);
        store_slice(worker, makes && band < highest ? lower_slice_us[band] : 0);
    }
}

/* Contexts ------------------------------------------------------------------------------- */

static bool has_waited(const struct pool_worker *worker, uint64_t now_ns)
{
    return now_ns >= worker->asked_ns + CONTEXT_WAITS_NS;
}

/* Who has waited too long comes first; then a higher band; then who asked first. */
static bool comes_before(const struct pool_worker *worker, const struct pool_worker *other,
                         uint64_t now_ns)
{
    if (!other) {
        return true;
    }
    if (has_waited(worker, now_ns) != has_waited(other, now_ns)) {
        return has_waited(worker, now_ns);
    }
    if (!has_waited(worker, now_ns) && band_of(worker) != band_of(other)) {
        return band_of(worker) > band_of(other);
    }
    return worker->asked_ns < other->asked_ns;
}

/* Who is to make a context next, of those that may; NULL: nobody. */
static struct pool_worker *next_to_open(const struct pool_gpu *gpu, uint64_t now_ns)
{
    const enum vgpu_priority highest = highest_band(gpu);
    const bool begun = makes_context(gpu);
    struct pool_worker *next = NULL;

    for (struct list_entry *e = gpu->workers.next; e != &gpu->workers; e = e->next) {
        struct pool_worker *worker = LIST_OWNER(e, struct pool_worker, entry);

        if (worker->context == POOL_CONTEXT_WAITS && comes_before(worker, next, now_ns)) {
            next = worker;
        }
    }
    return next && (!begun || band_of(next) >= highest || has_waited(next, now_ns)) ? next : NULL;
}

/* To be called when one was asked for or is made, and set_gpu_terms() afterwards. */
static void open_contexts(struct pool_gpu *gpu, uint64_t now_ns)
{
    struct pool_worker *next;

    while ((next = next_to_open(gpu, now_ns))) {
        set_context(next, POOL_CONTEXT_BEGUN);
        next->open(next);
    }
}

void pool_open(struct pool_worker *worker, uint64_t now_ns)
{
    set_context(worker, POOL_CONTEXT_WAITS);
    worker->asked_ns = now_ns;
    open_contexts(worker->gpu, now_ns);
    set_gpu_terms(worker->gpu);
}

void pool_opened(struct pool_worker *worker, uint64_t now_ns)
{
    set_context(worker, POOL_CONTEXT_NONE);
    open_contexts(worker->gpu, now_ns);
    set_gpu_terms(worker->gpu);
}

void pool_configure(struct pool *pool, const struct config_pool *config, uint64_t limit_ns)
{
    pool->window_ns = config->window_ns;
    for (unsigned i = 0; i < pool->gpu_count; i++) {
        /* The rules hold from the next decision on. */
        for (unsigned j = 0; j < VGPU_ENGINES; j++) {
            pool->gpus[i].engines[j].rules = rules_of(config, limit_ns);
        }
        set_gpu_terms(&pool->gpus[i]);
    }
}

/* How many workers a VM has on a GPU, its place among them. */
static unsigned own_workers(const struct pool_account *accounts, const struct pool_gpu *gpu)
{
    while (accounts && accounts->gpu != gpu) {
        accounts = accounts->next;
    }
    return accounts ? accounts->worker_count + accounts->keeps_place : 0;
}

struct pool_gpu *pool_place(struct pool *pool, const struct pool_account *accounts)
{
    struct pool_gpu *best = NULL;
    unsigned best_own = 0;

    for (unsigned i = 0; i < pool->gpu_count; i++) {
        struct pool_gpu *gpu = &pool->gpus[i];
        const unsigned own = own_workers(accounts, gpu);

        if (gpu->drained) {
            continue;
        }
        /* In an exclusive pool: the GPU that the VM has, or else one where nobody is. */
        if (pool->exclusive && own > 0) {
            return gpu;
        }
        if (pool->exclusive && gpu->worker_count + gpu->places_kept > 0) {
            continue;
        }
        if (!best || gpu->worker_count < best->worker_count ||
            (gpu->worker_count == best->worker_count && own < best_own)) {
            best = gpu;
            best_own = own;
        }
    }
    return best;
}

struct pool_account *pool_account(struct pool_account **accounts, struct pool_gpu *gpu,
                                  const struct pool_standing *standing)
{
    struct pool_account *account = *accounts;

    while (account && account->gpu != gpu) {
        account = account->next;
    }
    if (account) {
        return account;
    }
    account = calloc(1, sizeof(*account));
    if (!account) {
        return NULL;
    }
    account->gpu = gpu;
    for (unsigned i = 0; i < VGPU_ENGINES; i++) {
        account->engines[i].priority = standing->priority;
        account->engines[i].weight = standing->weight;
        account->engines[i].paused = standing->paused;
    }
    account->next = *accounts;
    *accounts = account;
    return account;
}

bool pool_has_drained(const struct pool *pool)
{
    for (unsigned i = 0; i < pool->gpu_count; i++) {
        if (pool->gpus[i].drained) {
            return true;
        }
    }
    return false;
}

void pool_keep_place(struct pool_account *account)
{
    account->gpu->places_kept += !account->keeps_place;
    account->keeps_place = true;
}

void pool_leave_place(struct pool_account *accounts)
{
    for (struct pool_account *account = accounts; account; account = account->next) {
        account->gpu->places_kept -= account->keeps_place;
        account->keeps_place = false;
    }
}

void pool_forget(struct pool_account **accounts)
{
    pool_leave_place(*accounts);
    while (*accounts) {
        struct pool_account *account = *accounts;

        *accounts = account->next;
        free(account);
    }
}

void pool_set_accounts(struct pool_account *accounts, const struct pool_standing *standing,
                       uint64_t now_ns)
{
    for (; accounts; accounts = accounts->next) {
        for (unsigned i = 0; i < VGPU_ENGINES; i++) {
            struct arbiter *arbiter = &accounts->gpu->engines[i];
            struct arbiter_account *account = &accounts->engines[i];

            arbiter_set_account(arbiter, account, standing->priority, standing->weight, now_ns);
            arbiter_pause_account(arbiter, account, standing->paused, now_ns);
        }
        open_contexts(accounts->gpu, now_ns);
        set_gpu_terms(accounts->gpu);
    }
}

/* In a pool, and in no arbiter yet. A member starts as new; only its account remembers the past. */
static void enter_pool(struct pool_worker *worker, struct pool_account *account)
{
    struct pool_gpu *gpu = account->gpu;

    worker->gpu = gpu;
    worker->account = account;
    worker->context = POOL_CONTEXT_NONE;
    account->worker_count++;
    account->register_count += worker->register_mode;
    gpu->worker_count++;
    list_add_before(&gpu->workers, &worker->entry);
    for (unsigned i = 0; i < VGPU_ENGINES; i++) {
        worker->members[i] = (struct arbiter_member){
            .word = &worker->page->turn[i],
            .account = &account->engines[i],
            .vm_id = worker->vm_id,
            .granted = worker->granted,
            .alerted = worker->alerted,
            .expired = worker->expired,
            .behind = i == VGPU_ENGINE_COMPUTE ? NULL : &worker->members[VGPU_ENGINE_COMPUTE],
        };
    }
}

void pool_join(struct pool_worker *worker, struct pool_account *account)
{
    enter_pool(worker, account);
    for (unsigned i = 0; i < VGPU_ENGINES; i++) {
        arbiter_join(&worker->gpu->engines[i], &worker->members[i]);
    }
    set_gpu_terms(worker->gpu);
}

void pool_adopt(struct pool_worker *worker, struct pool_account *account, uint64_t now_ns)
{
    enter_pool(worker, account);
    for (unsigned i = 0; i < VGPU_ENGINES; i++) {
        arbiter_adopt(&worker->gpu->engines[i], &worker->members[i], now_ns);
    }
    set_gpu_terms(worker->gpu);
}

int pool_resync(struct pool_worker *worker, const struct vgpu_link_state *state, uint64_t now_ns)
{
    int r = 0;

    for (unsigned i = 0; r == 0 && i < VGPU_ENGINES; i++) {
        r = arbiter_resync(&worker->members[i], state->turn[i], now_ns);
    }
    return r;
}

void pool_doubt(struct pool_worker *worker, uint64_t now_ns)
{
    for (unsigned i = 0; i < VGPU_ENGINES; i++) {
        arbiter_doubt(&worker->members[i], now_ns);
    }
}

void pool_leave(struct pool_worker *worker, uint64_t now_ns)
{
    struct pool_gpu *gpu = worker->gpu;

    if (!gpu) {
        return;
    }
    for (unsigned i = 0; i < VGPU_ENGINES; i++) {
        arbiter_leave(&worker->members[i], now_ns);
    }
    list_remove(&worker->entry);
    worker->account->worker_count--;
    worker->account->register_count -= worker->register_mode;
    gpu->worker_count--;
    set_context(worker, POOL_CONTEXT_NONE);
    /* `account` stays: the process asks by it which GPU this was. */
    worker->gpu = NULL;
    open_contexts(gpu, now_ns);
    set_gpu_terms(gpu);
}

void pool_can_be_off(struct pool_worker *worker, bool can)
{
    struct arbiter_member *member = &worker->members[VGPU_ENGINE_COMPUTE];

    member->turn_off = can ? worker->turn_off : NULL;
    member->off_asked = member->off_asked && can;
}

bool pool_off(struct pool_worker *worker, uint64_t now_ns)
{
    if (!arbiter_off(&worker->members[VGPU_ENGINE_COMPUTE], now_ns)) {
        return false;
    }
    /* What it has at other engines may be held now. */
    pool_tick(worker->gpu, now_ns);
    return true;
}

uint64_t pool_off_ns(const struct pool_worker *worker)
{
    const struct arbiter_member *member = &worker->members[VGPU_ENGINE_COMPUTE];

    return worker->gpu && member->state == ARBITER_OFF ? member->off_ns : 0;
}

int pool_message(struct pool_worker *worker, const struct vgpu_link_msg *msg, uint64_t now_ns)
{
    const uint32_t engine = msg->engine;

    /* The worker may have sent any number, and it is about to be used as an index. */
    if (!worker->gpu || engine >= VGPU_ENGINES) {
        return -EPROTO;
    }
    switch (msg->type) {
    case VGPU_LINK_ASK:
        return arbiter_ask(&worker->members[engine], now_ns);
    case VGPU_LINK_YIELD:
        return arbiter_yield(&worker->members[engine], msg->from_ns, now_ns);
    case VGPU_LINK_DONE:
        return arbiter_done(&worker->members[engine], now_ns);
    case VGPU_LINK_KEPT:
        return arbiter_kept(&worker->members[engine], now_ns);
    default:
        return -EPROTO;
    }
}

/* The arbiters are paused, and not the workers: one that joins later is held up too. */
void pool_pause(struct pool *pool, uint64_t now_ns)
{
    pool->paused = true;
    for (unsigned i = 0; i < pool->gpu_count; i++) {
        for (unsigned j = 0; j < VGPU_ENGINES; j++) {
            arbiter_pause(&pool->gpus[i].engines[j], now_ns);
        }
    }
}

void pool_resume(struct pool *pool, uint64_t now_ns)
{
    pool->paused = false;
    for (unsigned i = 0; i < pool->gpu_count; i++) {
        for (unsigned j = 0; j < VGPU_ENGINES; j++) {
            arbiter_resume(&pool->gpus[i].engines[j], now_ns);
        }
    }
}

void pool_hold(struct pool *pool, uint64_t now_ns)
{
    for (unsigned i = 0; i < pool->gpu_count; i++) {
        for (unsigned j = 0; j < VGPU_ENGINES; j++) {
            arbiter_hold(&pool->gpus[i].engines[j], now_ns);
        }
    }
}

void pool_release(struct pool *pool, uint64_t now_ns)
{
    if (pool->paused) {
        pool_pause(pool, now_ns);
    } else {
        pool_resume(pool, now_ns);
    }
}

uint64_t pool_deadline(const struct pool_gpu *gpu)
{
    uint64_t deadline = 0;

    for (unsigned i = 0; i < VGPU_ENGINES; i++) {
        deadline = clock_earlier(deadline, arbiter_deadline(&gpu->engines[i]));
    }
    for (struct list_entry *e = gpu->workers.next; gpu->contexts_wait > 0 && e != &gpu->workers;
         e = e->next) {
        const struct pool_worker *worker = LIST_OWNER(e, struct pool_worker, entry);

        if (worker->context == POOL_CONTEXT_WAITS) {
            deadline = clock_earlier(deadline, worker->asked_ns + CONTEXT_WAITS_NS);
        }
    }
    return deadline;
}

void pool_tick(struct pool_gpu *gpu, uint64_t now_ns)
{
    for (unsigned i = 0; i < VGPU_ENGINES; i++) {
        arbiter_tick(&gpu->engines[i], now_ns);
    }
    if (gpu->contexts_wait > 0 && next_to_open(gpu, now_ns)) {
        open_contexts(gpu, now_ns);
        set_gpu_terms(gpu);
    }
}

bool pool_waits(const struct pool_worker *worker)
{
    for (unsigned i = 0; worker->gpu && i < VGPU_ENGINES; i++) {
        if (worker->members[i].state == ARBITER_WAITING) {
            return true;
        }
    }
    return false;
}

bool pool_busy(const struct pool_worker *worker)
{
    for (unsigned i = 0; worker->gpu && i < VGPU_ENGINES; i++) {
        if (arbiter_busy(&worker->members[i])) {
            return true;
        }
    }
    return false;
}
