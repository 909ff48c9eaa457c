/* SPDX-License-Identifier: MIT */
/*
 * An attached VM: its descriptors, its worker for register mode, its queues, and its limits, which
 * all of its workers share.
 *
 * Register mode has a worker as long as the VM is attached: when one ends, the next is started
 * after a delay. Where there is a GPU it begins without it, and is replaced by one with it as soon
 * as a request wants that, and that one by one without it after `register-rest`. To replace a
 * worker on purpose, replace_worker() kills it, and vm_worker_ended() starts the next one.
 * --takeover tells that one what to do with an answer that is owed:
 *
 *   resume     act as the journal says (DESIGN.md, section 6); this is the usual one
 *   discard    forget it, because there was a reset
 *   fail:CODE  answer with this error: two workers have ended on the request (WORKER_LOST), or the
 *              request held others up for too long (TIMEOUT)
 *
 * While the VM stands still, to be saved or migrated, there is no worker: the one that is there
 * finishes what runs and ends, and what waits stays in the page, as between two mediators. The next
 * is started when the VM runs on.
 *
 * `takeover` stays so until a worker has said READY, which means that it has done this. If a
 * worker dies before that, the next one is told the same, and no reset is lost.
 *
 * Of the VM's memory the mediator maps nothing, and it writes QUEUE_STATUS alone (chores.h). It
 * reads nothing that a guest wrote.
 *
 * The connection is in client.c, the rules for attaching in attach.c, the life of a session in
 * queue.c.
 */
#include "mediator/vm.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "common/clock.h"
#include "common/log.h"
#include "common/memfd.h"
#include "common/shared.h"
#include "mediator/cards.h"
#include "mediator/chores.h"
#include "mediator/keep.h"
#include "mediator/launcher.h"
#include "mediator/printable.h"
#include "mediator/vm-memory.h"

/* Between the starts of two workers: for resets, and for the first failure. */
#define START_INTERVAL_NS (50 * NS_PER_MS)
#define START_DELAY_MAX_NS (5 * NS_PER_S)
/* Resets in a row that are no reason for a longer delay, the longest, and what ends a row. */
#define RESETS_AT_ONCE 16u
#define RESET_DELAY_MAX_NS NS_PER_S
#define RESET_PAUSE_NS (2 * NS_PER_S)
/* Workers in a row that may end on one request before it is answered with an error. */
#define FAILURES_MAX 2u
/* An idle worker that lived this long did not end on the request that it was started with. */
#define GOOD_LIFE_NS (5 * NS_PER_S)

struct vm *vm_find(struct mediator *mediator, uint32_t id)
{
    for (struct vm *vm = mediator->vms; vm; vm = vm->next) {
        if (vm->id == id) {
            return vm;
        }
    }
    return NULL;
}

static struct vm *vm_of_process(const struct process *process)
{
    return LIST_OWNER((uintptr_t)process, struct vm, worker);
}

static const char *vm_label(const struct process *process)
{
    static char text[32];

    snprintf(text, sizeof(text), "VM %" PRIu32, vm_of_process(process)->id);
    return text;
}

/* The worker for register mode -------------------------------------------------------- */

/* Values of --takeover. */
static const char *const takeovers[] = {
    [TAKEOVER_RESUME] = "resume",
    [TAKEOVER_DISCARD] = "discard",
    [TAKEOVER_TIMEOUT] = "fail:12",
};
static_assert(VGPU_ERROR_TIMEOUT == 12, "as it says");

/* Starts the next worker; there must be none. Returns 0 or -errno, logged. */
static int start_worker(struct vm *vm)
{
    char fail[32];
    const char *takeover = takeovers[vm->kept->takeover];
    char rest[32];
    const char *arguments[] = {"--takeover", NULL, NULL, NULL, NULL};
    const struct process_start start = {
        .shm_size = vm->shm_size,
        .memfd = vm->fds[VGPU_ATTACH_MEMFD],
        .doorbell = vm->fds[VGPU_ATTACH_DOORBELL],
        .irq = vm->fds[vgpu_attach_irq(vm->queues)],
        .account = vm->account_fd,
        .resting = vm->kept->resting,
        .arguments = arguments,
    };
    int r;

    /* A reset or a time-out goes first: both end the request that the failures are about. */
    if (vm->kept->takeover == TAKEOVER_RESUME && vm->kept->failures >= FAILURES_MAX) {
        snprintf(fail, sizeof(fail), "fail:%d", VGPU_ERROR_WORKER_LOST);
        takeover = fail;
    }
    arguments[1] = takeover;
    vm->kept->rest_ns = mediator_rest_ns(vm->mediator);
    if (vm->kept->resting) {
        arguments[2] = "--resting";
    } else if (vm->kept->rest_ns != 0) {
        snprintf(rest, sizeof(rest), "%" PRIu64, vm->kept->rest_ns);
        arguments[2] = "--rest";
        arguments[3] = rest;
    }
    vm->kept->failing = takeover == fail;
    vm->kept->finishing = false;
    r = process_start(&vm->worker, &start);
    if (r == 0 && !vm->kept->stopped) {
        pool_leave_place(vm->accounts);
    }
    vm_share_limits(vm);
    return r;
}

/*
 * Returns the delay before the next worker may start, in ns; 0: it may start now. The delay counts
 * from the last start, so a worker that has lived longer than that is followed at once. It is 50
 * ms, 100 ms after two failures in a row, 200 after three, and at most 5 s; after many resets in a
 * row likewise, and at most 1 s.
 */
static uint64_t vm_start_delay(const struct vm *vm, uint64_t now)
{
    const uint64_t started = vm->worker.kept->started_ns;
    uint64_t interval = START_INTERVAL_NS;

    for (unsigned i = 1; i < vm->kept->failures && interval < START_DELAY_MAX_NS; i++) {
        interval *= 2;
    }
    /* Starting a worker costs some 20 ms of a processor: a guest that resets on and on waits. */
    for (unsigned i = RESETS_AT_ONCE; i < vm->resets && interval < RESET_DELAY_MAX_NS; i++) {
        interval *= 2;
    }
    if (interval > START_DELAY_MAX_NS) {
        interval = START_DELAY_MAX_NS;
    }
    return now - started >= interval ? 0 : started + interval - now;
}

/*
 * A VM that stands still needs a worker for a reset alone, or for an answer that the guest is to
 * have: those are not in its page.
 */
static void start_later(struct vm *vm)
{
    const uint64_t delay = vm_start_delay(vm, clock_ns());

    if (vm->mediator->stopping) {
        return;
    }
    if (vm->kept->stopped && vm->kept->takeover == TAKEOVER_RESUME) {
        vm_tell_stored(vm);
        return;
    }
    if (delay == 0 && start_worker(vm) == 0) {
        return;
    }
    /* A start may have failed for want of memory or of a GPU. It is tried again in a second. */
    sd_event_source_set_time_relative(vm->timer, (delay == 0 ? NS_PER_S : delay) / NS_PER_US);
    sd_event_source_set_enabled(vm->timer, SD_EVENT_ONESHOT);
}

static int on_vm_timer(sd_event_source *source, uint64_t usec, void *context)
{
    struct vm *vm = context;

    (void)source;
    (void)usec;
    mediator_works_for(vm->mediator, vm->id);
    if (!vm->mediator->stopping && vm->worker.kept->pid == 0) {
        start_later(vm);
    }
    return 0;
}

/*
 * Replaces the worker; the next one begins with `takeover`. If there is no worker, a start is due
 * anyway, and `takeover` is for that one.
 */
static void replace_worker(struct vm *vm, enum record_takeover takeover)
{
    vm->kept->takeover = takeover;
    process_kill(&vm->worker);
}

/* Whether a worker that was killed may still be there, and with it the VM's memory. */
static bool session_is_ending(const struct vm *vm)
{
    for (uint32_t i = 0; i < vm->queues; i++) {
        const struct queue *queue = vm->queue[i];

        if (queue && queue->worker.kept->pid != 0 &&
            (queue->kept->closing || queue->worker.kept->condemned)) {
            return true;
        }
    }
    return false;
}

void vm_tell_stored(struct vm *vm)
{
    if (!status_page_settled(vm->status)) {
        return;
    }
    vm->owner.stored(vm->owner.client);
    /* The queues that the reset closed have to be seen closed. */
    if (vm->reset_done) {
        vm->reset_done = false;
        /* Told twice, by two mediators, does no harm. */
        vm->owner.done(vm->owner.client, VGPU_MSG_RESET_DONE, vm->kept->reset_serial);
        vm->kept->reset_asked = false;
    }
    /* A worker may still have to give an answer, or to drop one. */
    if (vm->kept->stop_asked && vm->worker.kept->pid == 0 &&
        vm->kept->takeover == TAKEOVER_RESUME && !session_is_ending(vm)) {
        /* In this order: once it is said, the page is the client's to fill, and nobody else's. */
        vm->kept->stop_asked = false;
        vm->owner.done(vm->owner.client, VGPU_MSG_STOPPED, vm->kept->stop_serial);
    }
}

/* A request that waits or comes stays in the page, as it does at the mediator's end. */
static void finish_worker(struct vm *vm)
{
    vm->kept->finishing = true;
    process_send(&vm->worker, VGPU_LINK_FINISH, 0);
}

/* To be called when the worker has started up: where the VM stands still it is not wanted. */
static void finish_if_stopped(struct vm *vm)
{
    if (vm->kept->stopped) {
        finish_worker(vm);
    }
}

/* READY comes after the worker has given or dropped the answer that was owed: a reset is done. */
static void vm_worker_ready(struct process *process)
{
    struct vm *vm = vm_of_process(process);

    vm->kept->takeover = TAKEOVER_RESUME;
    if (vm->kept->reset_again) {
        replace_worker(vm, TAKEOVER_DISCARD);
        vm->kept->reset_again = false;
    } else {
        vm->reset_done = vm->kept->reset_asked;
        vm_tell_stored(vm);
        finish_if_stopped(vm);
    }
}

static struct log_budget *vm_worker_log(const struct process *process)
{
    return &vm_of_process(process)->log;
}

/* Whether the worker has ended as it was told. */
static bool has_finished(const struct vm *vm, const siginfo_t *info)
{
    /* Of one that another mediator has started it is not known how. */
    return vm->kept->finishing && info->si_status == 0 &&
           (info->si_code == CLD_EXITED || info->si_code == 0);
}

/*
 * A worker without a device that is asked for one ends, and so does one whose device rests: another
 * takes its place. No worker rests before its time.
 */
static bool vm_worker_meant(const struct process *process, const siginfo_t *info)
{
    const struct vm *vm = vm_of_process(process);

    if (process->kept->condemned) {
        return false;
    }
    if (has_finished(vm, info)) {
        return true;
    }
    if (info->si_code != CLD_EXITED) {
        return false;
    }
    if (vm->kept->resting) {
        return info->si_status == VGPU_WORKER_EXIT_WAKE;
    }
    return info->si_status == VGPU_WORKER_EXIT_REST && vm->kept->rest_ns != 0 &&
           clock_ns() - process->kept->started_ns >= vm->kept->rest_ns;
}

static void vm_worker_ended(struct process *process, const siginfo_t *info, bool condemned,
                            bool meant)
{
    struct vm *vm = vm_of_process(process);
    /* Did it get its first request done, or live long with nothing to do? */
    const bool good = process->kept->answered > (vm->kept->failing ? 1 : 0) ||
                      (!process->was_busy && clock_ns() - process->kept->started_ns > GOOD_LIFE_NS);

    vm_share_limits(vm);
    vm->kept->reset_again = false; /* the next worker is one that no reset was before */
    if (vm->mediator->stopping) {
        return;
    }
    /* One that rests had nothing to do, and one that is woken has not begun: neither has failed. */
    if (meant && !has_finished(vm, info)) {
        vm->kept->resting = !vm->kept->resting;
        vm->kept->failures = 0;
    }
    /*
     * After a good life this end is the first failure, and not the next one in a row: it has
     * nothing to do with the ends before.
     */
    if (!condemned && !meant) {
        vm->kept->failures = good ? 1 : vm->kept->failures + 1;
    }
    start_later(vm);
}

/*
 * The request is answered with TIMEOUT by the next worker. The one that runs it cannot be asked to:
 * it may never come back from that request.
 */
static void vm_worker_expired(struct process *process)
{
    struct vm *vm = vm_of_process(process);

    if (vm->kept->takeover != TAKEOVER_RESUME) {
        return; /* it is being ended already */
    }
    log_line_within(&vm->log, LOG_LEVEL_WARNING,
                    "VM %" PRIu32 ": a turn of more than %" PRIu64 " ms while others wait; ending "
                    "worker %d",
                    vm->id, vm->mediator->config.turn_limit_ns / NS_PER_MS,
                    (int)process->kept->pid);
    replace_worker(vm, TAKEOVER_TIMEOUT);
}

struct pool_account **vm_accounts(struct vm *vm, struct pool_standing *standing)
{
    *standing = (struct pool_standing){
        .priority = vm->priority, .weight = vm->limits.share, .paused = vm->paused};
    return &vm->accounts;
}

static struct pool_account **vm_worker_accounts(struct process *process,
                                                struct pool_standing *standing)
{
    return vm_accounts(vm_of_process(process), standing);
}

static void vm_worker_freed(struct process *process, uint64_t bytes)
{
    vm_give_back(vm_of_process(process), bytes);
}

static const struct process_ops worker_ops = {
    .accounts = vm_worker_accounts,
    .freed = vm_worker_freed,
    .ready = vm_worker_ready,
    .log = vm_worker_log,
    .meant = vm_worker_meant,
    .ended = vm_worker_ended,
    .expired = vm_worker_expired,
    .label = vm_label,
};

/* Limits ------------------------------------------------------------------------------ */

void vm_give_back(struct vm *vm, uint64_t bytes)
{
    uint64_t used = shared_load64(&vm->account->used), left;

    /*
     * The worker has said how much it had, and need not be believed: the sum does not go below 0.
     * It is exchanged in a loop, because other workers of the VM change it at the same time.
     */
    do {
        left = bytes < used ? used - bytes : 0;
    } while (!__atomic_compare_exchange_n(&vm->account->used, &used, left, false, __ATOMIC_SEQ_CST,
                                          __ATOMIC_RELAXED));
}

/* Likewise the sum stays at the most that there is. It is off by what a worker has lied. */
void vm_keep(struct vm *vm, uint64_t bytes)
{
    uint64_t used = shared_load64(&vm->account->used), sum;

    do {
        sum = bytes < UINT64_MAX - used ? used + bytes : UINT64_MAX;
    } while (!__atomic_compare_exchange_n(&vm->account->used, &used, sum, false, __ATOMIC_SEQ_CST,
                                          __ATOMIC_RELAXED));
}

/*
 * A mediator that ends between two of the steps in which memory is given back leaves the sum off by
 * that much. Once is enough: from then on it is exact again.
 */
void vm_settle_account(struct vm *vm)
{
    if (vm->unsure && vm_session_count(vm) == 0) {
        vm->unsure = false;
        shared_store64(&vm->account->used, shared_load64(&vm->worker.worker.page->counters.memory));
    }
}

struct exports *vm_exports(struct vm *vm)
{
    if (vm->exports) {
        return vm->exports;
    }
    for (struct vm *other = vm->host ? vm->mediator->vms : NULL; other; other = other->next) {
        if (other->host && other->user == vm->user && other->exports) {
            vm->exports = exports_ref(other->exports);
            return vm->exports;
        }
    }
    vm->exports = exports_new();
    return vm->exports;
}

/*
 * Each of the VM's `workers` gets an equal part of the limits. With 10 commands and 4 workers each
 * may have 2 under way. A part is at least 1, because 0 means no limit. kernel_ns is a limit on
 * each piece of work and is not divided.
 */
static void set_terms(struct process *process, const struct config_limits *limits, uint32_t workers)
{
    struct vgpu_terms *terms = &process->worker.page->terms;
    const uint32_t limit[] = {limits->commands, limits->doorbells, limits->interrupts};
    uint32_t *const term[] = {&terms->commands, &terms->doorbells, &terms->interrupts};

    for (unsigned i = 0; i < 3; i++) {
        const uint32_t part = limit[i] / workers;

        shared_store(term[i], limit[i] != 0 && part == 0 ? 1 : part);
    }
    shared_store64(&terms->kernel_ns, limits->kernel_ns);
}

void vm_share_limits(struct vm *vm)
{
    uint32_t workers = vm->worker.kept->pid != 0;

    for (uint32_t i = 0; i < vm->queues; i++) {
        workers += vm->queue[i] && vm->queue[i]->worker.kept->pid != 0;
    }
    /*
     * The terms of queues that have no worker now are stored too: the next worker finds them in its
     * page when it starts.
     */
    workers = workers == 0 ? 1 : workers;
    set_terms(&vm->worker, &vm->limits, workers);
    for (uint32_t i = 0; i < vm->queues; i++) {
        if (vm->queue[i]) {
            set_terms(&vm->queue[i]->worker, &vm->limits, workers);
        }
    }
}

/* The use until now is charged at the old share first. Turns may move on any GPU. */
static void change_standing(struct vm *vm)
{
    struct pool_standing standing;

    pool_set_accounts(*vm_accounts(vm, &standing), &standing, clock_ns());
    mediator_watch_pool(vm->mediator, vm->pool);
}

const struct config_limits *vm_configured(const struct vm *vm)
{
    return config_limits_of(&vm->mediator->config, &vm->who);
}

/* For the next mediator, which takes the configuration's limits where those have changed. */
static void note_standing(struct vm *vm)
{
    vm->kept->paused = vm->paused;
    vm->kept->priority = vm->priority;
    vm->kept->limits = vm->limits;
    vm->kept->configured = *vm_configured(vm);
}

void vm_set_limits(struct vm *vm, const struct config_limits *limits, bool forced)
{
    vm->limits = *limits;
    if (forced || vm->asked > limits->priority) {
        vm->priority = limits->priority;
    } else {
        vm->priority = vm->asked;
    }
    shared_store64(&vm->account->limit, limits->memory);
    note_standing(vm);
    change_standing(vm);
    vm_share_limits(vm);
}

void vm_set_paused(struct vm *vm, bool paused)
{
    vm->paused = paused;
    note_standing(vm);
    change_standing(vm);
}

unsigned vm_session_count(const struct vm *vm)
{
    unsigned count = 0;

    for (uint32_t i = 0; i < vm->queues; i++) {
        const struct queue *queue = vm->queue[i];

        count += queue && (queue->worker.kept->pid != 0 || queue->kept->wanted);
    }
    return count;
}

/* The VM itself ---------------------------------------------------------------------- */

/* The list is in the order of the numbers, which is how vgpuctl and the metrics show VMs. */
static void insert_sorted(struct mediator *mediator, struct vm *vm)
{
    struct vm **place = &mediator->vms;

    while (*place && (*place)->id < vm->id) {
        place = &(*place)->next;
    }
    vm->next = *place;
    *place = vm;
    mediator->vm_count++;
}

/*
 * Takes over QUEUE_STATUS of queues that this mediator does not know. Sessions that it still shows
 * as running were an earlier mediator's that has left nothing behind, or another host's, so they
 * have ended. The counts stay, because the stub goes on from them.
 */
static void end_old_sessions(struct vm *vm)
{
    for (uint32_t i = 0; i < vm->queues; i++) {
        const uint32_t status = status_page_word(vm->status, i);

        if (!vm->queue[i] && (vgpu_queue_state(status) == VGPU_QUEUE_STARTING ||
                              vgpu_queue_state(status) == VGPU_QUEUE_RUNNING)) {
            status_page_store(vm->status, i,
                              VGPU_QUEUE_ENDED | VGPU_QUEUE_END_MEDIATOR << 8 |
                                  (status & 0xffff0000u));
        }
    }
}

/*
 * Does the steps that can fail, with descriptors that are there already or -1. Returns 0 or -errno;
 * after an error the caller undoes them with vm_release_all(), and the VM's `fds` still belong to
 * its own caller.
 */
static int set_up(struct vm *vm, int account_fd, int turn_fd)
{
    const struct process_place place = {
        .kept = &vm->kept->worker, .pool = vm->pool, .vm_id = vm->id, .turn_fd = turn_fd};
    void *account;
    int r;

    vm->account_fd = account_fd;
    r = account_fd < 0 ? memory_create_page("vgpu-account", &vm->account_fd, &account)
                       : memory_map_page(account_fd, &account);
    if (r < 0) {
        return r;
    }
    vm->account = account;
    shared_store64(&vm->account->limit, vm->limits.memory);
    r = status_page_create(vm->fds[VGPU_ATTACH_MEMFD], vm->shm_size, vm->queues, &vm->status);
    if (r == 0) {
        r = sd_event_add_time_relative(vm->mediator->event, &vm->timer, CLOCK_MONOTONIC, 0,
                                       TIMER_ACCURACY_US, on_vm_timer, vm);
    }
    if (r >= 0) {
        sd_event_source_set_enabled(vm->timer, SD_EVENT_OFF);
        r = process_init(&vm->worker, vm->mediator, &worker_ops, &place);
    }
    return r;
}

/* What set_up() has made, as far as it got, but for the worker; descriptors stay. */
static void undo_set_up(struct vm *vm)
{
    sd_event_source_disable_unref(vm->timer);
    if (vm->account) {
        munmap(vm->account, VGPU_ACCOUNT_PAGE_SIZE);
    }
    if (vm->status) {
        status_page_release(vm->status);
    }
}

/*
 * Frees the VM and all that set_up() made, as far as it got. Its workers must have left the pool.
 */
static void vm_release_all(struct vm *vm)
{
    undo_set_up(vm);
    if (vm->account) {
        close(vm->account_fd);
    }
    pool_forget(&vm->accounts);
    exports_unref(vm->exports);
    cards_forget(vm->meter);
    munmap(vm->kept, sizeof(*vm->kept));
    close(vm->kept_fd);
    free(vm);
}

static struct vm *allocate_vm(struct mediator *mediator)
{
    struct vm *vm = calloc(1, sizeof(*vm));
    void *record;

    if (vm && record_create("vgpu-record", sizeof(*vm->kept), &vm->kept_fd, &record) < 0) {
        free(vm);
        vm = NULL;
    }
    if (vm) {
        vm->mediator = mediator;
        vm->kept = record;
    }
    return vm;
}

int vm_create(struct mediator *mediator, const struct vm_owner *owner,
              const struct vgpu_hello *hello, const struct attach_grant *grant, const int fds[],
              struct vm **created)
{
    struct vm *vm = allocate_vm(mediator);
    int r;

    if (!vm) {
        return -ENOMEM;
    }
    vm->owner = *owner;
    vm->id = hello->vm_id;
    vm->host = (hello->flags & VGPU_HELLO_HOST) != 0;
    printable_copy(vm->name, sizeof(vm->name), hello->name);
    identity_of_hello(hello, &vm->who);
    vm->shm_size = hello->shm_size;
    vm->queues = hello->queues;
    vm->attached_ns = clock_ns();
    vm->pool = mediator_pool(mediator, grant->pool);
    vm->asked = (enum vgpu_priority)hello->priority;
    vm->priority = grant->priority;
    vm->limits = *vm_configured(vm);
    vm->kept->resting = mediator_rest_ns(mediator) != 0;
    memcpy(vm->fds, fds, vgpu_attach_fds(vm->queues) * sizeof(fds[0]));
    r = set_up(vm, -1, -1);
    if (r >= 0) {
        end_old_sessions(vm);
        r = start_worker(vm);
        if (r == -EBUSY && pool_has_drained(vm->pool)) {
            /* It waits for that, and does not stay out: it may be booting. */
            start_later(vm);
            r = 0;
        }
        if (r < 0) {
            /* vm_release_all() does not do this: there the workers have gone already. */
            process_release(&vm->worker);
        }
    }
    if (r < 0) {
        vm_release_all(vm);
        return r;
    }
    insert_sorted(mediator, vm);
    cards_tell(vm);
    *created = vm;
    return 0;
}

/* What outlives the mediator -------------------------------------------------------------- */

/* Bytes that the names of a VM's descriptors have at most, each with what parts them. */
static size_t names_of(const struct vm *vm)
{
    const size_t number = (size_t)snprintf(NULL, 0, "%" PRIu32 ".", vm->id);
    const size_t workers = 3 * (1 + (size_t)vm->queues);

    return (3 + vgpu_attach_fds(vm->queues)) * (number + 4) + workers * (number + 6);
}

/* The record comes last: with it all is there. */
void vm_keep_on(struct vm *vm, int connection)
{
    struct vm_record *kept = vm->kept;

    if (!keep_works()) {
        return;
    }
    if (!keep_reserve(names_of(vm))) {
        log_line_within(&vm->log, LOG_LEVEL_WARNING,
                        "VM %" PRIu32 ": it ends with this mediator, as there is no room for the "
                        "names of its descriptors; fewer queues of each VM make room",
                        vm->id);
        return;
    }
    kept->id = vm->id;
    kept->known = VGPU_ATTACHED_FLAGS;
    kept->host = vm->host;
    kept->user = vm->user;
    kept->peer = vm->peer;
    kept->pool = (uint32_t)vm->pool->id;
    kept->asked = vm->asked;
    kept->queues = vm->queues;
    kept->shm_size = vm->shm_size;
    kept->attached_ns = vm->attached_ns;
    memcpy(kept->name, vm->name, sizeof(kept->name));
    memcpy(kept->uuid, vm->who.uuid.bytes, sizeof(kept->uuid));
    note_standing(vm);
    vm->lasting = true;
    for (uint32_t i = 0; i < vgpu_attach_fds(vm->queues); i++) {
        keep_put(keep_name_memory(vm->id, i), vm->fds[i]);
    }
    keep_put(keep_name_vm(vm->id, "c"), connection);
    keep_put(keep_name_vm(vm->id, "a"), vm->account_fd);
    process_keep(&vm->worker);
    for (uint32_t i = 0; i < vm->queues; i++) {
        if (vm->queue[i]) {
            process_keep(&vm->queue[i]->worker);
        }
    }
    keep_put(keep_name_vm(vm->id, "r"), vm->kept_fd);
}

/* The record goes first: the next mediator ends what is left without one. */
static void drop_names(uint32_t id, uint32_t queues)
{
    keep_drop(keep_name_vm(id, "r"));
    keep_drop(keep_name_vm(id, "c"));
    keep_drop(keep_name_vm(id, "a"));
    for (uint32_t i = 0; i < vgpu_attach_fds(queues); i++) {
        keep_drop(keep_name_memory(id, i));
    }
}

/* All that is in a record and may be used as an index or a size. */
static const char *check_record(const struct mediator *mediator, const struct vm_record *record,
                                uint32_t id)
{
    if (record->id != id || record->queues > VGPU_MAX_QUEUES ||
        !vgpu_shm_size_valid(record->shm_size) ||
        record->queues > vgpu_queues_max(record->shm_size) || record->asked >= VGPU_PRIORITIES ||
        record->priority >= VGPU_PRIORITIES || record->takeover > TAKEOVER_TIMEOUT) {
        return "its record is damaged";
    }
    if (record->pool < 'A' || record->pool >= 'A' + CONFIG_POOLS ||
        mediator->pools[record->pool - 'A'].id == 0) {
        return "its pool has gone";
    }
    return NULL;
}

static bool is_to_blame(const struct vm_record *record)
{
    return record->header.crashes >= RECORD_BLAMES_MAX ||
           record->header.adoptions >= RECORD_BLAMES_MAX;
}

static void close_all(const int fds[], uint32_t count)
{
    for (uint32_t i = 0; i < count; i++) {
        if (fds[i] >= 0) {
            chores_close(fds[i]);
        }
    }
}

/* A worker that is not to go on; one that does not heed the end of its link is killed. */
static void end_left_worker(uint32_t id, uint32_t place, const struct process_record *record)
{
    const int link = keep_take(keep_name_worker(id, place, 'l'));
    const int pidfd = keep_take(keep_name_worker(id, place, 'p'));
    uint64_t start;

    if (pidfd >= 0 && record->pid > 0 && launcher_adopt(record->pid, pidfd, &start) == 0) {
        launcher_kill(record->pid);
    }
    keep_drop(keep_name_worker(id, place, 'l'));
    keep_drop(keep_name_worker(id, place, 'p'));
    keep_drop(keep_name_worker(id, place, 't'));
    close_all((const int[]){link, pidfd, keep_take(keep_name_worker(id, place, 't'))}, 3);
    for (const char *what = "bem"; *what != '\0'; what++) {
        keep_drop(keep_name_worker(id, place, *what));
        close_all((const int[]){keep_take(keep_name_worker(id, place, *what))}, 1);
    }
}

static void end_left(uint32_t id, struct vm_record *record)
{
    end_left_worker(id, 0, &record->worker);
    for (uint32_t i = 0; i < VGPU_MAX_QUEUES; i++) {
        if (record->queue[i].used) {
            end_left_worker(id, 1 + i, &record->queue[i].worker);
        }
    }
    drop_names(id, VGPU_MAX_QUEUES);
}

static bool same_limits(const struct config_limits *a, const struct config_limits *b)
{
    return a->pool == b->pool && a->priority == b->priority && a->shm == b->shm &&
           a->share == b->share && a->memory == b->memory && a->sessions == b->sessions &&
           a->commands == b->commands && a->doorbells == b->doorbells &&
           a->interrupts == b->interrupts && a->kernel_ns == b->kernel_ns;
}

/* The configuration may have changed; what vgpuctl has set holds as long as it has not. */
static void restore_limits(struct vm *vm)
{
    const struct config_limits *configured = vm_configured(vm);

    if (same_limits(configured, &vm->kept->configured)) {
        vm->limits = vm->kept->limits;
        vm->priority = (enum vgpu_priority)vm->kept->priority;
    } else {
        vm->limits = *configured;
        vm->priority = vm->asked < configured->priority ? vm->asked : configured->priority;
    }
}

static void restore_vm(struct vm *vm)
{
    const struct vm_record *kept = vm->kept;
    struct vgpu_hello hello;

    vm->id = kept->id;
    vm->host = kept->host != 0;
    vm->user = kept->user;
    vm->peer = kept->peer;
    vm->pool = mediator_pool(vm->mediator, kept->pool);
    vm->asked = (enum vgpu_priority)kept->asked;
    vm->queues = kept->queues;
    vm->shm_size = kept->shm_size;
    vm->attached_ns = kept->attached_ns;
    vm->paused = kept->paused != 0;
    printable_copy(vm->name, sizeof(vm->name), kept->name);
    record_hello(kept, &hello);
    identity_of_hello(&hello, &vm->who);
    restore_limits(vm);
    note_standing(vm);
    /* Its names are there, and so there was room. */
    vm->lasting = keep_reserve(names_of(vm));
    vm->unsure = true;
}

/* In an exclusive pool the GPU of a VM that stands is not another's meanwhile. */
static void keep_place(struct vm *vm)
{
    struct pool_account *account = vm->worker.worker.account;
    struct pool_standing standing;

    /* Of one that stood when another mediator ended there is none yet. */
    for (unsigned i = 0; !account && i < vm->pool->gpu_count; i++) {
        if (vm->pool->gpus[i].number == vm->worker.kept->gpu) {
            account = pool_account(vm_accounts(vm, &standing), &vm->pool->gpus[i], &standing);
        }
    }
    if (account) {
        pool_keep_place(account);
    }
}

/* Takes the workers over; those that cannot be are seen to by vm_go_on(). */
static int adopt_workers(struct vm *vm)
{
    int r = 0;

    process_adopt(&vm->worker);
    for (uint32_t i = 0; r == 0 && i < vm->queues; i++) {
        if (vm->kept->queue[i].used) {
            r = queue_adopt(vm, i, &vm->queue[i]);
        }
    }
    for (uint32_t i = 0; i < vm->queues; i++) {
        if (vm->queue[i]) {
            queue_adopt_worker(vm->queue[i]);
        }
    }
    if (vm->kept->stopped) {
        keep_place(vm);
    }
    return r;
}

/* With a record that is good, and all descriptors. On success they are the VM's. */
static int take_over(struct mediator *mediator, struct vm_record *record, int record_fd,
                     const int fds[], int account_fd, struct vm **adopted)
{
    struct vm *vm = calloc(1, sizeof(*vm));
    int r, turn_fd;

    if (!vm) {
        return -ENOMEM;
    }
    turn_fd = keep_take(keep_name_worker(record->id, 0, 't'));
    vm->mediator = mediator;
    vm->kept = record;
    vm->kept_fd = record_fd;
    restore_vm(vm);
    memcpy(vm->fds, fds, vgpu_attach_fds(vm->queues) * sizeof(fds[0]));
    r = turn_fd >= 0 ? set_up(vm, account_fd, turn_fd) : -EINVAL;
    if (r >= 0) {
        insert_sorted(mediator, vm);
        r = adopt_workers(vm);
        vm_share_limits(vm);
        *adopted = vm;
        return r;
    }
    if (vm->lasting) {
        keep_release(names_of(vm));
    }
    if (!vm->timer && turn_fd >= 0) {
        close(turn_fd); /* process_init() was not come to */
    }
    undo_set_up(vm);
    free(vm);
    return r;
}

/* Takes the VM's descriptors but for those of its workers. False: one is missing, or is wrong. */
static bool take_descriptors(const struct vm_record *record, int fds[], int *account,
                             int *connection)
{
    bool all;

    *account = keep_take(keep_name_vm(record->id, "a"));
    *connection = keep_take(keep_name_vm(record->id, "c"));
    all = *account >= 0 && *connection >= 0;
    for (uint32_t i = 0; i < vgpu_attach_fds(record->queues); i++) {
        fds[i] = keep_take(keep_name_memory(record->id, i));
        all = all && fds[i] >= 0;
    }
    /* What a client handed over was looked at then; nobody else had it meanwhile. */
    return all && memfd_check(fds[VGPU_ATTACH_MEMFD], vgpu_memfd_size(record->shm_size)) == 0;
}

int vm_adopt(struct mediator *mediator, uint32_t id, enum adopt_blame blame,
             const char *(*may)(const struct mediator *mediator, const struct vm_record *record),
             struct vm **adopted, int *connection)
{
    const int record_fd = keep_take(keep_name_vm(id, "r"));
    struct vm_record *record = record_open(record_fd, sizeof(*record));
    int fds[VGPU_ATTACH_FDS_MAX], account = -1, r = -EINVAL;
    const char *problem;

    *adopted = NULL;
    *connection = -1;
    if (!record) {
        log_warning("VM %" PRIu32 ": what is left of it is another release's; ending it", id);
        drop_names(id, VGPU_MAX_QUEUES);
        chores_close(record_fd);
        return r;
    }
    memset(fds, -1, sizeof(fds));
    if (blame == ADOPT_BLAME_CRASH) {
        record->header.crashes++;
    } else if (blame == ADOPT_BLAME_ADOPTION) {
        record->header.adoptions++;
    }
    problem = check_record(mediator, record, id);
    if (!problem && is_to_blame(record)) {
        mediator_note_ended(mediator, id);
        problem = "three mediators have crashed while they worked for it";
    }
    if (!problem && !take_descriptors(record, fds, &account, connection)) {
        problem = "a part of it is missing";
    }
    problem = problem ? problem : may(mediator, record);
    if (!problem) {
        r = take_over(mediator, record, record_fd, fds, account, adopted);
        if (r == 0) {
            return 0;
        }
        problem = strerror(-r);
    }
    log_warning("VM %" PRIu32 ": %s; ending it", id, problem);
    if (*adopted) {
        vm_destroy(*adopted);
        *adopted = NULL;
    } else {
        end_left(id, record);
        close_all(fds, VGPU_ATTACH_FDS_MAX);
        close_all((const int[]){account, record_fd}, 2);
        munmap(record, sizeof(*record));
    }
    close_all(connection, 1);
    return r;
}

void vm_go_on(struct vm *vm)
{
    struct vm_record *kept = vm->kept;
    const struct process_record *worker = &kept->worker;

    for (uint32_t i = 0; i < vm->queues; i++) {
        if (vm->queue[i]) {
            queue_go_on(vm->queue[i]);
        }
    }
    if (worker->pid == 0) {
        start_later(vm);
    } else if (worker->ready && !worker->condemned) {
        if (kept->takeover != TAKEOVER_RESUME) {
            /* It was about to be replaced. */
            process_kill(&vm->worker);
        } else {
            vm->reset_done = kept->reset_asked;
            finish_if_stopped(vm);
        }
    }
    vm_settle_account(vm);
    if (kept->stopped && !kept->stop_asked) {
        /* Once more: the mediator before may have ended before it had said so. */
        vm->owner.done(vm->owner.client, VGPU_MSG_STOPPED, kept->stop_serial);
    }
    vm_tell_stored(vm);
}

void vm_destroy(struct vm *vm)
{
    struct vm **place = &vm->mediator->vms;

    while (*place != vm) {
        place = &(*place)->next;
    }
    *place = vm->next;
    vm->mediator->vm_count--;
    if (vm->lasting) {
        drop_names(vm->id, vm->queues);
        keep_release(names_of(vm));
    }
    /* Workers go before the accounts, because each gives back its turns and its memory there. */
    process_release(&vm->worker);
    for (uint32_t i = 0; i < vm->queues; i++) {
        if (vm->queue[i]) {
            queue_destroy(vm->queue[i]);
        }
    }
    /* Where this is the last holder of the VM's memory, to close it is to free that. */
    for (uint32_t i = 0; i < vgpu_attach_fds(vm->queues); i++) {
        chores_close(vm->fds[i]);
    }
    vm_release_all(vm);
}

void vm_act_on_queue(struct vm *vm, uint32_t queue, uint32_t action)
{
    /*
     * A queue's record is made when it is first used: it takes a page and a descriptor, and most of
     * 64 queues are never opened.
     */
    struct queue **slot = &vm->queue[queue];
    int r = 0;

    if (!*slot) {
        r = queue_create(vm, queue, slot);
    }
    if (r < 0) {
        const uint32_t count = vgpu_queue_count(status_page_word(vm->status, queue)) + 1;

        /*
         * There is no record that could count, so the action is counted here: the guest waits for
         * it.
         */
        log_line_within(&vm->log, LOG_LEVEL_ERROR,
                        "VM %" PRIu32 ": cannot open queue %" PRIu32 ": %s", vm->id, queue,
                        strerror(-r));
        status_page_store(vm->status, queue,
                          VGPU_QUEUE_ENDED | VGPU_QUEUE_END_NO_MEMORY << 8 |
                              (count & 0xffff) << 16);
        return;
    }
    queue_act(*slot, action);
}

/* One that starts up is on its way there, and is ended: it has done nothing. */
void vm_move(struct vm *vm)
{
    if (vm->worker.kept->condemned || vm->kept->finishing) {
        return;
    }
    if (vm->worker.kept->ready) {
        finish_worker(vm);
    } else {
        process_kill(&vm->worker);
    }
}

/* Resets, and stops likewise, that follow each other fast; a pause forgets them. */
static void count_reset(struct vm *vm)
{
    const uint64_t now = clock_ns();

    vm->resets = now - vm->reset_ns < RESET_PAUSE_NS ? vm->resets + 1 : 0;
    vm->reset_ns = now;
}

void vm_stop(struct vm *vm, uint32_t serial)
{
    vm->kept->stop_serial = serial;
    vm->kept->stopped = true;
    vm->kept->stop_asked = true;
    keep_place(vm);
    if (vm->worker.kept->ready && !vm->worker.kept->condemned) {
        finish_if_stopped(vm);
    }
    vm_tell_stored(vm);
}

/* The page was filled with what another VM, or this one once, had there. */
static void load_status(struct vm *vm)
{
    if (!status_page_settled(vm->status) || status_page_load(vm->status) < 0) {
        log_line_within(&vm->log, LOG_LEVEL_WARNING,
                        "VM %" PRIu32 ": it says that it was loaded, which it may not say now: the "
                        "state of its queues stays as it is",
                        vm->id);
        return;
    }
    for (uint32_t i = 0; i < vm->queues; i++) {
        if (vm->queue[i]) {
            queue_load(vm->queue[i]);
        }
    }
    end_old_sessions(vm);
    vm->kept->failures = 0;
}

/* Without a STOP, or twice, it does nothing: a worker is there, or is about to be. */
void vm_continue(struct vm *vm, uint32_t flags)
{
    if (vm->kept->stopped && (flags & VGPU_CONTINUE_LOADED)) {
        load_status(vm);
        /* The card in there is another host's. */
        cards_forget(vm->meter);
        vm->meter = NULL;
    }
    vm->kept->stop_asked = false;
    vm->kept->stopped = false;
    /* One that finishes is followed by another. */
    if (vm->worker.kept->pid == 0) {
        count_reset(vm);
        start_later(vm);
    }
}

static void reset_queue(struct vm *vm, uint32_t queue)
{
    if (vm->queue[queue]) {
        queue_reset(vm->queue[queue]);
    } else {
        /* An earlier mediator's session may have left its end there. */
        status_page_store(vm->status, queue, status_page_word(vm->status, queue) & 0xffff0000u);
    }
}

void vm_reset(struct vm *vm, uint32_t flags, uint32_t serial)
{
    for (uint32_t i = 0; (flags & VGPU_RESET_QUEUES) && i < vm->queues; i++) {
        reset_queue(vm, i);
    }
    vm->kept->reset_serial = serial;
    vm->kept->failures = 0;
    /*
     * If the last RESET has not been answered yet, this one is answered in its place. A worker that
     * is starting for that one may have looked already, and is followed by another.
     */
    if (vm->kept->reset_asked && !vm->reset_done) {
        vm->kept->reset_again = vm->worker.kept->pid != 0 && !vm->worker.kept->condemned;
        return;
    }
    count_reset(vm);
    vm->reset_done = false;
    /* In this order: a next mediator that finds the second says that the first is done. */
    replace_worker(vm, TAKEOVER_DISCARD);
    vm->kept->reset_asked = true;
    if (vm->kept->stopped && vm->worker.kept->pid == 0) {
        start_later(vm);
    }
}

/*
 * Register mode can be finished: its worker ends when the request that runs has been answered, and
 * requests that wait stay in the journal for the next mediator's worker. A session cannot be handed
 * over in this way, so it ends at once.
 */
void vm_finish(struct vm *vm)
{
    for (uint32_t i = 0; i < vm->queues; i++) {
        if (vm->queue[i]) {
            queue_stop(vm->queue[i]);
        }
    }
    if (vm->worker.kept->pid != 0) {
        process_send(&vm->worker, VGPU_LINK_FINISH, 0);
    }
}
