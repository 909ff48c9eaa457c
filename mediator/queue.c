/* SPDX-License-Identifier: MIT */
/* A queue and its worker, see queue.h. */
#include "mediator/queue.h"

#include <errno.h>
#include <inttypes.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/clock.h"
#include "common/log.h"
#include "common/shared.h"
#include "mediator/vm.h"

/* Between two starts of a VM's; and for one queue, doubled with each start that fails. */
#define START_INTERVAL_NS (5 * NS_PER_MS)
#define START_DELAY_MAX_NS NS_PER_S

static struct session *session_of(const struct process *process)
{
    return LIST_OWNER((uintptr_t)process, struct session, worker);
}

static void publish(struct session *session)
{
    /* Partner: the load-acquire of whoever reads QUEUE_STATUS. */
    shared_store_release(&session->vm->page->queue_status[session->queue],
                         (uint32_t)session->state | (uint32_t)session->end << 8 |
                             (session->count & 0xffff) << 16);
}

static void set_state(struct session *session, enum vgpu_queue_state state, enum vgpu_queue_end end)
{
    session->state = state;
    session->end = end;
    publish(session);
}

static const char *session_label(const struct process *process)
{
    static char text[48];
    const struct session *session = session_of(process);

    snprintf(text, sizeof(text), "VM %" PRIu32 " queue %" PRIu32, session->vm->id, session->queue);
    return text;
}

static void start_now(struct session *session)
{
    struct vm *vm = session->vm;
    char queue[16], queues[16];
    const char *const arguments[] = {"--queue", queue, "--queues", queues, NULL};
    const struct process_start start = {
        .shm_size = vm->shm_size,
        .memfd = vm->fds[VGPU_ATTACH_MEMFD],
        .doorbell = vm->fds[VGPU_ATTACH_DOORBELL + 1 + session->queue],
        .irq = vm->fds[vgpu_attach_irq(vm->queues) + 1 + session->queue],
        .account = vm->account_fd,
        .arguments = arguments,
    };
    int r;

    session->wanted = false;
    vm->session_started_ns = clock_ns();
    snprintf(queue, sizeof(queue), "%" PRIu32, session->queue);
    snprintf(queues, sizeof(queues), "%" PRIu32, vm->queues);
    r = process_start(&session->worker, &start);
    vm_share_limits(vm);
    if (r < 0) {
        session->failures++;
        set_state(session, VGPU_QUEUE_ENDED,
                  r == -EBUSY ? VGPU_QUEUE_END_NO_GPU : VGPU_QUEUE_END_NO_MEMORY);
    }
}

static uint64_t start_delay(const struct session *session, uint64_t now)
{
    const struct process *worker = &session->worker;
    uint64_t interval = START_INTERVAL_NS, next = session->vm->session_started_ns + interval;

    for (unsigned i = 0; i < session->failures && interval < START_DELAY_MAX_NS; i++) {
        interval *= 2;
    }
    if (worker->starts > 0 && worker->started_ns + interval > next) {
        next = worker->started_ns + interval;
    }
    return next > now ? next - now : 0;
}

static void start_wanted(struct session *session)
{
    const uint64_t delay = start_delay(session, clock_ns());

    if (delay == 0) {
        start_now(session);
        return;
    }
    sd_event_source_set_time_relative(session->timer, delay / NS_PER_US + 1);
    sd_event_source_set_enabled(session->timer, SD_EVENT_ONESHOT);
}

static int on_timer(sd_event_source *source, uint64_t usec, void *context)
{
    struct session *session = context;

    (void)source;
    (void)usec;
    if (session->wanted && session->worker.pid == 0) {
        /* Another of the VM's may have been first. */
        start_wanted(session);
    }
    return 0;
}

static void worker_ready(struct process *process)
{
    struct session *session = session_of(process);

    session->failures = 0;
    set_state(session, VGPU_QUEUE_RUNNING, VGPU_QUEUE_END_NONE);
}

/* What a worker that ended by itself says of it; its word counts for its own guest alone. */
static enum vgpu_queue_end end_of(const struct session *session, const siginfo_t *info)
{
    const int code = info->si_status - VGPU_WORKER_EXIT_END;

    if (session->expired) {
        return VGPU_QUEUE_END_TIMEOUT;
    }
    if (info->si_code == CLD_EXITED && code > 0 && code < (int)VGPU_QUEUE_END_COUNT) {
        return (enum vgpu_queue_end)code;
    }
    return VGPU_QUEUE_END_LOST;
}

static void worker_ended(struct process *process, const siginfo_t *info, bool condemned)
{
    struct session *session = session_of(process);
    struct mediator *mediator = session->vm->mediator;

    (void)condemned;
    vm_share_limits(session->vm);
    if (session->closing) {
        session->closing = false;
        if (session->wanted) {
            start_wanted(session);
        } else {
            set_state(session, VGPU_QUEUE_FREE, VGPU_QUEUE_END_NONE);
        }
    } else if (!mediator->stopping) {
        if (session->state == VGPU_QUEUE_STARTING) {
            session->failures++;
        }
        set_state(session, VGPU_QUEUE_ENDED, end_of(session, info));
    }
    session->expired = false;
    mediator_worker_gone(mediator);
}

static void worker_expired(struct process *process)
{
    struct session *session = session_of(process);

    if (!process->condemned) {
        log_warning("%s: a turn of more than %" PRIu64 " ms while others wait; ending worker %d",
                    session_label(process), process->mediator->config.turn_limit_ns / NS_PER_MS,
                    (int)process->pid);
        session->expired = true;
        process_kill(process);
    }
}

static struct pool_account **worker_accounts(struct process *process, enum vgpu_priority *priority,
                                             uint32_t *weight)
{
    struct vm *vm = session_of(process)->vm;

    *priority = vm->priority;
    *weight = vm->limits.share;
    return &vm->accounts;
}

static void worker_freed(struct process *process, uint64_t bytes)
{
    vm_give_back(session_of(process)->vm, bytes);
}

static const struct process_ops worker_ops = {
    .accounts = worker_accounts,
    .freed = worker_freed,
    .ready = worker_ready,
    .ended = worker_ended,
    .expired = worker_expired,
    .label = session_label,
};

static void open_queue(struct session *session)
{
    const bool runs = session->worker.pid != 0 && !session->worker.condemned;
    const uint32_t limit = session->vm->limits.sessions;

    if (runs || session->wanted) {
        publish(session);
        return;
    }
    if (limit != 0 && vm_session_count(session->vm) - (session->worker.pid != 0) >= limit) {
        set_state(session, VGPU_QUEUE_ENDED, VGPU_QUEUE_END_QUOTA);
        return;
    }
    session->wanted = true;
    set_state(session, VGPU_QUEUE_STARTING, VGPU_QUEUE_END_NONE);
    if (session->worker.pid == 0) {
        start_wanted(session);
    } else {
        /* Killed for its turn, say: its successor waits for its end, which is none for it. */
        session->closing = true;
    }
}

static void close_queue(struct session *session)
{
    session->wanted = false;
    if (session->worker.pid == 0) {
        set_state(session, VGPU_QUEUE_FREE, VGPU_QUEUE_END_NONE);
        return;
    }
    if (session->state == VGPU_QUEUE_STARTING) {
        /* Of no use to anybody but one who wants to keep this host busy. */
        session->failures++;
    }
    /* Counted when it is done. */
    session->closing = true;
    process_kill(&session->worker);
}

void session_reset(struct session *session)
{
    close_queue(session);
}

void session_act(struct session *session, uint32_t action)
{
    session->count++;
    if (action == VGPU_QUEUE_OPEN && !session->vm->mediator->stopping) {
        open_queue(session);
    } else if (action == VGPU_QUEUE_CLOSE) {
        close_queue(session);
    } else {
        publish(session);
    }
}

void session_stop(struct session *session)
{
    session->wanted = false;
    if (session->state != VGPU_QUEUE_FREE) {
        set_state(session, VGPU_QUEUE_ENDED, VGPU_QUEUE_END_MEDIATOR);
    }
    process_kill(&session->worker);
}

int session_create(struct vm *vm, uint32_t queue, struct session **created)
{
    struct session *session = calloc(1, sizeof(*session));
    int r;

    if (!session) {
        return -ENOMEM;
    }
    session->vm = vm;
    session->queue = queue;
    /* The stub counts on from what it has seen. */
    session->count = vgpu_queue_count(shared_load(&vm->page->queue_status[queue]));
    r = process_init(&session->worker, vm->mediator, &worker_ops, vm->pool, vm->id, false);
    if (r < 0) {
        free(session);
        return r;
    }
    r = sd_event_add_time_relative(vm->mediator->event, &session->timer, CLOCK_MONOTONIC, 0, 0,
                                   on_timer, session);
    if (r < 0) {
        process_release(&session->worker);
        free(session);
        return r;
    }
    sd_event_source_set_enabled(session->timer, SD_EVENT_OFF);
    *created = session;
    return 0;
}

void session_destroy(struct session *session)
{
    sd_event_source_disable_unref(session->timer);
    process_release(&session->worker);
    free(session);
}
