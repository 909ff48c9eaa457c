/* SPDX-License-Identifier: MIT */
/*
 * A queue of an attached VM, and the worker of the session behind it: they are opened and closed as
 * the guest asks. The answer to the guest is QUEUE_STATUS; when a queue has a record, this file
 * alone writes its word.
 *
 * FREE: there is no worker, and none is wanted.
 *   Operations: OPEN. CLOSE is counted and changes nothing.
 *   Caveats: after a CLOSE this is stored when the worker has been reaped, and not before. So FREE
 *   says that all that the session had on the GPU is gone.
 *
 * STARTING: a worker is to be started (`wanted`), or was started and has not said READY.
 *   Operations: CLOSE, which counts as a failed start. OPEN is counted and changes nothing.
 *   Caveats: while `wanted`, the start waits for the timer, or, with `closing`, for the end of the
 *   worker before. So `worker.kept->pid` may be 0 or that of the worker before.
 *
 * RUNNING: READY has come.
 *   Operations: CLOSE. OPEN is counted and changes nothing.
 *   Caveats: the worker may be dead and not reaped yet. If it was killed for its turn or for CLOSE,
 *   OPEN is accepted, and the next worker starts when this one has been reaped.
 *
 * ENDED: the session has ended, but not as asked; `end` says why.
 *   Operations: OPEN, as from FREE. CLOSE makes it FREE.
 *   Caveats: no worker is started by itself. The session's memory on the GPU is lost, so another
 *   worker could not go on with it.
 *
 * Each OPEN and each CLOSE is counted once, even if it changes nothing or fails: the guest waits
 * until the count moves, and until then the stub sends nothing more for this queue.
 *
 * The commands in the queue are no concern of this file: the mediator reads none of them.
 */
#include "mediator/queue.h"

#include <errno.h>
#include <inttypes.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "common/clock.h"
#include "common/log.h"
#include "common/memfd.h"
#include "mediator/chores.h"
#include "mediator/keep.h"
#include "mediator/vm.h"

/* Between two starts of a VM's; and for one queue, doubled with each start that fails. */
#define START_INTERVAL_NS (5 * NS_PER_MS)
#define START_DELAY_MAX_NS NS_PER_S

static struct queue *queue_of(const struct process *process)
{
    return LIST_OWNER((uintptr_t)process, struct queue, worker);
}

/* State, reason and count go out in one store, so a guest that sees the count sees the outcome. */
static void queue_publish(struct queue *queue)
{
    status_page_store(queue->vm->status, queue->number,
                      (uint32_t)queue->kept->state | (uint32_t)queue->kept->end << 8 |
                          (queue->kept->count & 0xffff) << 16);
}

/* This also publishes the count, and so completes the action that led to this state. */
static void set_state(struct queue *queue, enum vgpu_queue_state state, enum vgpu_queue_end end)
{
    queue->kept->state = state;
    queue->kept->end = end;
    queue_publish(queue);
}

static const char *queue_label(const struct process *process)
{
    static char text[48];
    const struct queue *queue = queue_of(process);

    snprintf(text, sizeof(text), "VM %" PRIu32 " queue %" PRIu32, queue->vm->id, queue->number);
    return text;
}

/*
 * Starts the worker; there must be none. If that fails the session has ended, and it is up to the
 * guest to try again. Register mode has the first doorbell and the first interrupt, hence the 1.
 */
static void start_now(struct queue *queue)
{
    struct vm *vm = queue->vm;
    char number[16], queues[16];
    const char *const arguments[] = {"--queue", number, "--queues", queues, NULL};
    const struct process_start start = {
        .shm_size = vm->shm_size,
        .preempt = true,
        .memfd = vm->fds[VGPU_ATTACH_MEMFD],
        .doorbell = vm->fds[VGPU_ATTACH_DOORBELL + 1 + queue->number],
        .irq = vm->fds[vgpu_attach_irq(vm->queues) + 1 + queue->number],
        .account = vm->account_fd,
        .arguments = arguments,
    };
    int r;

    queue->kept->wanted = false;
    queue->kept->shares = false;
    vm->session_started_ns = clock_ns();
    snprintf(number, sizeof(number), "%" PRIu32, queue->number);
    snprintf(queues, sizeof(queues), "%" PRIu32, vm->queues);
    r = process_start(&queue->worker, &start);
    vm_share_limits(vm);
    if (r < 0) {
        queue->kept->failures++;
        set_state(queue, VGPU_QUEUE_ENDED,
                  r == -EBUSY ? VGPU_QUEUE_END_NO_GPU : VGPU_QUEUE_END_NO_MEMORY);
    }
}

/*
 * Returns the delay before the worker may start, in ns; 0: it may start now. Two rules apply. All
 * queues of a VM together get one start in START_INTERVAL_NS, so that a guest that opens and closes
 * in a loop cannot keep the host busy with new processes. And a queue whose starts fail waits
 * longer each time: 10 ms after the first failure, 20 after the second, until START_DELAY_MAX_NS is
 * reached.
 */
static uint64_t queue_start_delay(const struct queue *queue, uint64_t now)
{
    const struct process *worker = &queue->worker;
    uint64_t interval = START_INTERVAL_NS, next = queue->vm->session_started_ns + interval;

    for (unsigned i = 0; i < queue->kept->failures && interval < START_DELAY_MAX_NS; i++) {
        interval *= 2;
    }
    if (worker->kept->starts > 0 && worker->kept->started_ns + interval > next) {
        next = worker->kept->started_ns + interval;
    }
    return next > now ? next - now : 0;
}

static void start_wanted(struct queue *queue)
{
    const uint64_t delay = queue_start_delay(queue, clock_ns());

    if (delay == 0) {
        start_now(queue);
        return;
    }
    /* The delay is rounded up: a timer that is early would find it not over. */
    sd_event_source_set_time_relative(queue->timer, delay / NS_PER_US + 1);
    sd_event_source_set_enabled(queue->timer, SD_EVENT_ONESHOT);
}

static int on_queue_timer(sd_event_source *source, uint64_t usec, void *context)
{
    struct queue *queue = context;

    (void)source;
    (void)usec;
    mediator_works_for(queue->vm->mediator, queue->vm->id);
    /* CLOSE clears `wanted` and leaves the timer as it is. */
    if (queue->kept->wanted && queue->worker.kept->pid == 0) {
        /* Another of the VM's may have been first. */
        start_wanted(queue);
    }
    return 0;
}

/* From here on the end of the worker is not a failed start, and does not delay the next one. */
static void queue_worker_ready(struct process *process)
{
    struct queue *queue = queue_of(process);

    queue->kept->failures = 0;
    set_state(queue, VGPU_QUEUE_RUNNING, VGPU_QUEUE_END_NONE);
}

/* The reasons that are a worker's to give; others are the mediator's. */
static enum vgpu_queue_end end_of_code(int exit_code)
{
    const int code = exit_code - VGPU_WORKER_EXIT_END;

    return (code >= VGPU_QUEUE_END_BAD_CLAIM && code <= VGPU_QUEUE_END_TIMEOUT) ||
                   code == VGPU_QUEUE_END_NO_MEMORY
               ? (enum vgpu_queue_end)code
               : VGPU_QUEUE_END_LOST;
}

/*
 * Why the session has ended. This comes first: the exit of a worker that was killed says no more.
 * What one says that ended by itself counts for its own guest alone.
 */
static enum vgpu_queue_end end_of(const struct queue *queue, int exit_code)
{
    return queue->kept->reason != VGPU_QUEUE_END_NONE ? (enum vgpu_queue_end)queue->kept->reason
                                                      : end_of_code(exit_code);
}

/* The worker is gone, as CLOSE has asked. */
static void end_closing(struct queue *queue)
{
    /* Should the mediator end in between, `closing` is the last to go. */
    if (queue->kept->wanted) {
        /* OPEN came while the worker was ending. The state is STARTING already. */
        queue->kept->closing = false;
        start_wanted(queue);
    } else {
        set_state(queue, VGPU_QUEUE_FREE, VGPU_QUEUE_END_NONE);
        queue->kept->closing = false;
    }
}

/*
 * There are three cases: CLOSE (`closing`); the mediator stops, and queue_stop() has told the guest
 * already; any other end, which the guest is told now. `condemned` does not distinguish them: a
 * worker that was killed for its turn was condemned too.
 */
static void queue_worker_ended(struct process *process, const siginfo_t *info, bool condemned,
                               bool meant)
{
    struct queue *queue = queue_of(process);
    struct mediator *mediator = queue->vm->mediator;

    (void)condemned;
    (void)meant;
    vm_share_limits(queue->vm);
    vm_settle_account(queue->vm);
    if (queue->kept->closing) {
        end_closing(queue);
    } else if (!mediator->stopping) {
        if (queue->kept->state == VGPU_QUEUE_STARTING) {
            queue->kept->failures++;
        }
        set_state(queue, VGPU_QUEUE_ENDED,
                  end_of(queue, info->si_code == CLD_EXITED ? info->si_status : 0));
    }
    queue->kept->reason = VGPU_QUEUE_END_NONE;
    if (queue->vm->kept->stop_asked) {
        vm_tell_stored(queue->vm);
    }
}

bool queue_end(struct queue *queue, enum vgpu_queue_end reason)
{
    if (queue->worker.kept->pid == 0 || queue->worker.kept->condemned) {
        return false;
    }
    queue->kept->reason = reason;
    process_kill(&queue->worker);
    return true;
}

static void queue_worker_expired(struct process *process)
{
    struct queue *queue = queue_of(process);

    /* A condemned worker may still be in the way of others. It was killed already. */
    if (!process->kept->condemned) {
        log_line_within(&queue->vm->log, LOG_LEVEL_WARNING,
                        "%s: a turn of more than %" PRIu64
                        " ms while others wait; ending worker %d",
                        queue_label(process), process->mediator->config.turn_limit_ns / NS_PER_MS,
                        (int)process->kept->pid);
        queue_end(queue, VGPU_QUEUE_END_TIMEOUT);
    }
}

static struct pool_account **queue_worker_accounts(struct process *process,
                                                   struct pool_standing *standing)
{
    return vm_accounts(queue_of(process)->vm, standing);
}

/*
 * What the session has recorded and not reached counts as happened: so nobody waits for it for
 * ever, and its words are free. The file is 24 KiB of a worker's, sealed, so this takes no time.
 */
static void land_words(const struct sharer *sharer, int file)
{
    const uint32_t session = (uint32_t)sharer->session & ((1u << VGPU_SHARED_SESSION_BITS) - 1);
    uint64_t taken[VGPU_SHARED_EVENTS];

    if (pread(file, taken, sizeof(taken), offsetof(struct vgpu_shared_events, taken)) !=
        (ssize_t)sizeof(taken)) {
        return;
    }
    for (unsigned i = 0; i < VGPU_SHARED_EVENTS; i++) {
        const size_t place = offsetof(struct vgpu_shared_events, word) + i * sizeof(taken[i]);
        uint64_t word = 0;

        if (taken[i] != 0 && vgpu_shared_session(taken[i]) == session &&
            pread(file, &word, sizeof(word), (off_t)place) == (ssize_t)sizeof(word) &&
            word != taken[i] &&
            pwrite(file, &taken[i], sizeof(word), (off_t)place) != (ssize_t)sizeof(word)) {
            log_debug("cannot store an event of an ended session: %s", strerror(errno));
        }
    }
}

/* The book ----------------------------------------------------------------------------------- */

static const char *book_name(const struct queue *queue, char what)
{
    return keep_name_worker(queue->vm->id, 1 + queue->number, what);
}

/* Bytes that the names of a session's book and files have at most, each with what parts them. */
static size_t book_names(const struct queue *queue)
{
    return 3 * (strlen(book_name(queue, 'b')) + 1);
}

/*
 * A session shares for the first time: a record of that, which is kept. NULL where nothing of the
 * VM is, or there is no room: then the session ends with this mediator.
 */
static struct export_record *open_book(struct queue *queue)
{
    void *book;

    if (!queue->vm->lasting || !keep_reserve(book_names(queue))) {
        queue->kept->shares = true;
        return NULL;
    }
    if (record_create("vgpu-book", sizeof(struct export_record), &queue->book, &book) < 0) {
        keep_release(book_names(queue));
        queue->kept->shares = true;
        return NULL;
    }
    keep_put(book_name(queue, 'b'), queue->book);
    return book;
}

static void drop_book(const struct queue *queue)
{
    keep_drop(book_name(queue, 'b'));
    keep_drop(book_name(queue, 'e'));
    keep_drop(book_name(queue, 'm'));
}

static void close_book(struct queue *queue, struct export_record *book)
{
    queue->kept->booked = false;
    drop_book(queue);
    keep_release(book_names(queue));
    munmap(book, sizeof(*book));
    close(queue->book);
    queue->book = -1;
}

/* What another mediator has kept. Where that cannot be had the session ends, in queue_go_on(). */
static void take_book(struct queue *queue)
{
    const int files[] = {keep_take(book_name(queue, 'b')), keep_take(book_name(queue, 'e')),
                         keep_take(book_name(queue, 'm'))};
    struct export_record *book = record_open(files[0], sizeof(*book));
    struct exports *domain = vm_exports(queue->vm);

    if (book && domain && keep_reserve(book_names(queue))) {
        queue->book = files[0];
        if (sharer_restore(&queue->sharer, domain, queue->vm, book) < 0) {
            queue->kept->shares = true;
        }
        queue->sharer.events = files[1];
        queue->sharer.memory = files[2];
        return;
    }
    queue->kept->booked = false;
    queue->kept->shares = true;
    drop_book(queue);
    if (book) {
        munmap(book, sizeof(*book));
    }
    for (unsigned i = 0; i < sizeof(files) / sizeof(files[0]); i++) {
        if (files[i] >= 0) {
            chores_close(files[i]);
        }
    }
}

/*
 * What others of the VM still have of its memory is taken into the account first: no other session
 * is to find that room free for a moment.
 */
static void leave_sharers(struct queue *queue)
{
    struct export_record *book = queue->sharer.kept;
    struct estate estate;

    sharer_visit_events(&queue->sharer, land_words);
    sharer_leave(&queue->sharer, &estate);
    queue->sharer.domain = NULL;
    vm_keep(queue->vm, estate.kept);
    vm_give_back(queue->vm, estate.freed);
    if (estate.events >= 0) {
        chores_close(estate.events);
    }
    if (estate.memory >= 0 && estate.count == SIZE_MAX) {
        chores_close(estate.memory);
        free(estate.still_had);
    } else if (estate.memory >= 0) {
        chores_empty(estate.memory, estate.still_had, estate.count);
    }
    /* Last: until then the next mediator finds all of it. */
    if (book) {
        close_book(queue, book);
    }
}

static void queue_worker_freed(struct process *process, uint64_t bytes)
{
    struct queue *queue = queue_of(process);

    if (queue->sharer.domain) {
        leave_sharers(queue);
    }
    vm_give_back(queue->vm, bytes);
}

/* Exports ---------------------------------------------------------------------------------- */

/* Keeps the session's file of a kind, when it has come; 0, or -EPROTO when it is none. */
static int take_file(struct queue *queue, uint32_t kind, int *fds, size_t *count)
{
    const bool event = kind == VGPU_EXPORT_EVENT;
    int *file = event ? &queue->sharer.events : &queue->sharer.memory;

    /* A second one is closed by the caller. */
    if (*count == 0 || *file >= 0) {
        return 0;
    }
    if (*count > 1 ||
        memfd_check(fds[0], event ? sizeof(struct vgpu_shared_events) : VGPU_SHARED_SIZE) < 0) {
        return -EPROTO;
    }
    *file = fds[0];
    *count = 0;
    if (queue->kept->booked) {
        keep_put(book_name(queue, event ? 'e' : 'm'), *file);
    }
    return 0;
}

static int answer_worker(struct queue *queue, struct vgpu_link_msg *msg, int result, int file)
{
    msg->value = (uint32_t)result;
    msg->from_ns = queue->sharer.session;
    return process_answer(&queue->worker, msg, file);
}

static int answer_export(struct queue *queue, struct vgpu_link_msg *msg, int *fds, size_t *count)
{
    int r = take_file(queue, msg->share.kind, fds, count);

    if (r == 0) {
        r = sharer_export(&queue->sharer, &msg->share, msg->number);
    }
    return r < 0 ? r : answer_worker(queue, msg, r, -1);
}

static int answer_import(struct queue *queue, struct vgpu_link_msg *msg)
{
    int file;
    const int r = sharer_import(&queue->sharer, &msg->share, &file, msg->number);

    return answer_worker(queue, msg, r, file);
}

static int queue_worker_shares(struct process *process, struct vgpu_link_msg *msg, int *fds,
                               size_t *count)
{
    struct queue *queue = queue_of(process);
    uint64_t freed = 0;
    int r;

    if (!queue->sharer.domain) {
        struct exports *domain = vm_exports(queue->vm);

        if (!domain) {
            msg->value = VGPU_LINK_FULL;
            return process_answer(process, msg, -1);
        }
        sharer_init(&queue->sharer, domain, queue->vm, open_book(queue));
        /* From here on the book is one. */
        queue->kept->booked = queue->sharer.kept != NULL;
    }
    switch (msg->type) {
    case VGPU_LINK_EXPORT:
        return answer_export(queue, msg, fds, count);
    case VGPU_LINK_IMPORT:
        return answer_import(queue, msg);
    case VGPU_LINK_RELEASE:
        r = sharer_release(&queue->sharer, &msg->share, &freed, msg->number);
        break;
    default:
        r = sharer_withdraw(&queue->sharer, &msg->share, &freed, msg->number);
        break;
    }
    vm_give_back(queue->vm, freed);
    return r;
}

static struct log_budget *queue_worker_log(const struct process *process)
{
    return &queue_of(process)->vm->log;
}

static const struct process_ops worker_ops = {
    .accounts = queue_worker_accounts,
    .freed = queue_worker_freed,
    .ready = queue_worker_ready,
    .shares = queue_worker_shares,
    .log = queue_worker_log,
    .ended = queue_worker_ended,
    .expired = queue_worker_expired,
    .label = queue_label,
};

static void open_queue(struct queue *queue)
{
    const bool runs = queue->worker.kept->pid != 0 && !queue->worker.kept->condemned;
    const uint32_t limit = queue->vm->limits.sessions;

    /* It is open or about to be: the action is counted and changes nothing. */
    if (runs || queue->kept->wanted) {
        queue_publish(queue);
        return;
    }
    /* The session that is just ending on this queue does not count: the new one takes its place. */
    if (limit != 0 && vm_session_count(queue->vm) - (queue->worker.kept->pid != 0) >= limit) {
        set_state(queue, VGPU_QUEUE_ENDED, VGPU_QUEUE_END_QUOTA);
        return;
    }
    /* STARTING is stored first, because a start that fails at once stores ENDED after it. */
    queue->kept->wanted = true;
    set_state(queue, VGPU_QUEUE_STARTING, VGPU_QUEUE_END_NONE);
    if (queue->worker.kept->pid == 0) {
        start_wanted(queue);
    } else {
        /* Killed for its turn, say: its successor waits for its end, which is none for it. */
        queue->kept->closing = true;
    }
}

static void close_queue(struct queue *queue)
{
    queue->kept->wanted = false;
    if (queue->worker.kept->pid == 0) {
        set_state(queue, VGPU_QUEUE_FREE, VGPU_QUEUE_END_NONE);
        return;
    }
    if (queue->kept->state == VGPU_QUEUE_STARTING) {
        /*
         * A guest that opens and closes in a loop would keep this host busy, so this counts as a
         * failed start, and the next one comes later.
         */
        queue->kept->failures++;
    }
    /* Counted when it is done. */
    queue->kept->closing = true;
    process_kill(&queue->worker);
}

/*
 * This is not counted, because nobody wrote to QUEUE_CONTROL. The guest may be booting and opening
 * this queue again; it would take a count that moves for the answer to its own write.
 */
void queue_reset(struct queue *queue)
{
    close_queue(queue);
}

/*
 * Unknown actions are counted too: the stub sends none, but a host process may. While the mediator
 * stops, OPEN is counted and not done.
 */
void queue_act(struct queue *queue, uint32_t action)
{
    queue->kept->count++;
    if (action == VGPU_QUEUE_OPEN && !queue->vm->mediator->stopping) {
        open_queue(queue);
    } else if (action == VGPU_QUEUE_CLOSE) {
        close_queue(queue);
    } else {
        queue_publish(queue);
    }
}

void queue_load(struct queue *queue)
{
    const uint32_t status = status_page_word(queue->vm->status, queue->number);

    if (queue->worker.kept->pid == 0 && !queue->kept->wanted) {
        queue->kept->count = vgpu_queue_count(status);
        queue->kept->failures = 0;
        queue->kept->state = VGPU_QUEUE_ENDED;
        queue->kept->end = VGPU_QUEUE_END_MEDIATOR;
        if (vgpu_queue_state(status) == VGPU_QUEUE_FREE) {
            queue->kept->state = VGPU_QUEUE_FREE;
            queue->kept->end = VGPU_QUEUE_END_NONE;
        } else if (vgpu_queue_state(status) == VGPU_QUEUE_ENDED) {
            queue->kept->end = vgpu_queue_end(status);
        }
    }
    queue_publish(queue);
}

void queue_stop(struct queue *queue)
{
    queue->kept->wanted = false;
    /*
     * The guest is told now, because the mediator may be gone when the worker has been reaped. A
     * queue that is free has no session that could end.
     */
    if (queue->kept->state != VGPU_QUEUE_FREE) {
        set_state(queue, VGPU_QUEUE_ENDED, VGPU_QUEUE_END_MEDIATOR);
    }
    process_kill(&queue->worker);
}

/* What both kinds have in common; the record is there. */
static int set_up_queue(struct vm *vm, uint32_t number, int turn_fd, struct queue **created)
{
    struct queue *queue = calloc(1, sizeof(*queue));
    const struct process_place place = {.kept = &vm->kept->queue[number].worker,
                                        .pool = vm->pool,
                                        .vm_id = vm->id,
                                        .place = 1 + number,
                                        .turn_fd = turn_fd};
    int r;

    if (!queue) {
        if (turn_fd >= 0) {
            close(turn_fd);
        }
        return -ENOMEM;
    }
    queue->vm = vm;
    queue->number = number;
    queue->book = -1;
    queue->kept = &vm->kept->queue[number];
    r = process_init(&queue->worker, vm->mediator, &worker_ops, &place);
    if (r < 0) {
        free(queue);
        return r;
    }
    if (vm->lasting && !queue->worker.lasting) {
        process_keep(&queue->worker);
    }
    r = sd_event_add_time_relative(vm->mediator->event, &queue->timer, CLOCK_MONOTONIC, 0,
                                   TIMER_ACCURACY_US, on_queue_timer, queue);
    if (r < 0) {
        process_release(&queue->worker);
        free(queue);
        return r;
    }
    sd_event_source_set_enabled(queue->timer, SD_EVENT_OFF);
    *created = queue;
    return 0;
}

int queue_create(struct vm *vm, uint32_t number, struct queue **created)
{
    struct queue_record *kept = &vm->kept->queue[number];
    int r;

    memset(kept, 0, sizeof(*kept));
    r = set_up_queue(vm, number, -1, created);
    if (r < 0) {
        return r;
    }
    /*
     * The stub counts on from the number that it has seen. Somebody may have written anything to
     * this word; that does no harm, since the value is only counted on, modulo 2^16.
     */
    kept->count = vgpu_queue_count(status_page_word(vm->status, number));
    kept->used = true;
    return 0;
}

int queue_adopt(struct vm *vm, uint32_t number, struct queue **created)
{
    const int turn_fd = keep_take(keep_name_worker(vm->id, 1 + number, 't'));
    const int r = set_up_queue(vm, number, turn_fd, created);

    if (r == 0 && (*created)->kept->booked) {
        take_book(*created);
    }
    return r;
}

void queue_adopt_worker(struct queue *queue)
{
    process_adopt(&queue->worker);
}

/* A session that another mediator had, and whose worker is gone with it or before it. */
static void go_on_without_worker(struct queue *queue)
{
    struct queue_record *kept = queue->kept;

    if (kept->closing) {
        end_closing(queue);
    } else if (kept->wanted || kept->state == VGPU_QUEUE_STARTING) {
        kept->wanted = true;
        start_wanted(queue);
    } else if (kept->state == VGPU_QUEUE_RUNNING) {
        set_state(queue, VGPU_QUEUE_ENDED, end_of(queue, process_exit_code(&queue->worker)));
    }
}

/* A session that shares with others, and has no book of that, ends. */
void queue_go_on(struct queue *queue)
{
    struct queue_record *kept = queue->kept;

    /* What the page of a VM that stands has may be another's by now: CONTINUE tells. */
    if (!queue->vm->kept->stopped || queue->vm->kept->stop_asked) {
        queue_publish(queue);
    }
    if (kept->worker.pid == 0) {
        go_on_without_worker(queue);
        return;
    }
    if (kept->shares && !kept->worker.condemned) {
        log_warning(
            "%s: it shares memory or events with other processes of its VM, of which no book "
            "could be kept; ending it",
            queue_label(&queue->worker));
        queue_end(queue, VGPU_QUEUE_END_MEDIATOR);
    }
}

void queue_destroy(struct queue *queue)
{
    sd_event_source_disable_unref(queue->timer);
    process_release(&queue->worker);
    queue->kept->used = false;
    free(queue);
}
