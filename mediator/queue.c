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

static struct queue *queue_of(const struct process *process)
{
    return LIST_OWNER((uintptr_t)process, struct queue, worker);
}

static void queue_publish(struct queue *queue)
{
    /* Partner: the load-acquire of whoever reads QUEUE_STATUS. */
    shared_store_release(&queue->vm->page->queue_status[queue->number],
                         (uint32_t)queue->state | (uint32_t)queue->end << 8 |
                             (queue->count & 0xffff) << 16);
}

static void set_state(struct queue *queue, enum vgpu_queue_state state, enum vgpu_queue_end end)
{
    queue->state = state;
    queue->end = end;
    queue_publish(queue);
}

static const char *queue_label(const struct process *process)
{
    static char text[48];
    const struct queue *queue = queue_of(process);

    snprintf(text, sizeof(text), "VM %" PRIu32 " queue %" PRIu32, queue->vm->id, queue->number);
    return text;
}

static void start_now(struct queue *queue)
{
    struct vm *vm = queue->vm;
    char number[16], queues[16];
    const char *const arguments[] = {"--queue", number, "--queues", queues, NULL};
    const struct process_start start = {
        .shm_size = vm->shm_size,
        .memfd = vm->fds[VGPU_ATTACH_MEMFD],
        .doorbell = vm->fds[VGPU_ATTACH_DOORBELL + 1 + queue->number],
        .irq = vm->fds[vgpu_attach_irq(vm->queues) + 1 + queue->number],
        .account = vm->account_fd,
        .arguments = arguments,
    };
    int r;

    queue->wanted = false;
    vm->session_started_ns = clock_ns();
    snprintf(number, sizeof(number), "%" PRIu32, queue->number);
    snprintf(queues, sizeof(queues), "%" PRIu32, vm->queues);
    r = process_start(&queue->worker, &start);
    vm_share_limits(vm);
    if (r < 0) {
        queue->failures++;
        set_state(queue, VGPU_QUEUE_ENDED,
                  r == -EBUSY ? VGPU_QUEUE_END_NO_GPU : VGPU_QUEUE_END_NO_MEMORY);
    }
}

static uint64_t queue_start_delay(const struct queue *queue, uint64_t now)
{
    const struct process *worker = &queue->worker;
    uint64_t interval = START_INTERVAL_NS, next = queue->vm->session_started_ns + interval;

    for (unsigned i = 0; i < queue->failures && interval < START_DELAY_MAX_NS; i++) {
        interval *= 2;
    }
    if (worker->starts > 0 && worker->started_ns + interval > next) {
        next = worker->started_ns + interval;
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
    sd_event_source_set_time_relative(queue->timer, delay / NS_PER_US + 1);
    sd_event_source_set_enabled(queue->timer, SD_EVENT_ONESHOT);
}

static int on_queue_timer(sd_event_source *source, uint64_t usec, void *context)
{
    struct queue *queue = context;

    (void)source;
    (void)usec;
    if (queue->wanted && queue->worker.pid == 0) {
        /* Another of the VM's may have been first. */
        start_wanted(queue);
    }
    return 0;
}

static void queue_worker_ready(struct process *process)
{
    struct queue *queue = queue_of(process);

    queue->failures = 0;
    set_state(queue, VGPU_QUEUE_RUNNING, VGPU_QUEUE_END_NONE);
}

/* What a worker that ended by itself says of it; its word counts for its own guest alone. */
static enum vgpu_queue_end end_of(const struct queue *queue, const siginfo_t *info)
{
    const int code = info->si_status - VGPU_WORKER_EXIT_END;

    if (queue->expired) {
        return VGPU_QUEUE_END_TIMEOUT;
    }
    if (info->si_code == CLD_EXITED && code > 0 && code < (int)VGPU_QUEUE_END_COUNT) {
        return (enum vgpu_queue_end)code;
    }
    return VGPU_QUEUE_END_LOST;
}

static void queue_worker_ended(struct process *process, const siginfo_t *info, bool condemned)
{
    struct queue *queue = queue_of(process);
    struct mediator *mediator = queue->vm->mediator;

    (void)condemned;
    vm_share_limits(queue->vm);
    if (queue->closing) {
        queue->closing = false;
        if (queue->wanted) {
            start_wanted(queue);
        } else {
            set_state(queue, VGPU_QUEUE_FREE, VGPU_QUEUE_END_NONE);
        }
    } else if (!mediator->stopping) {
        if (queue->state == VGPU_QUEUE_STARTING) {
            queue->failures++;
        }
        set_state(queue, VGPU_QUEUE_ENDED, end_of(queue, info));
    }
    queue->expired = false;
}

static void queue_worker_expired(struct process *process)
{
    struct queue *queue = queue_of(process);

    if (!process->condemned) {
        log_warning("%s: a turn of more than %" PRIu64 " ms while others wait; ending worker %d",
                    queue_label(process), process->mediator->config.turn_limit_ns / NS_PER_MS,
                    (int)process->pid);
        queue->expired = true;
        process_kill(process);
    }
}

static struct pool_account **queue_worker_accounts(struct process *process,
                                                   enum vgpu_priority *priority, uint32_t *weight)
{
    struct vm *vm = queue_of(process)->vm;

    *priority = vm->priority;
    *weight = vm->limits.share;
    return &vm->accounts;
}

static void queue_worker_freed(struct process *process, uint64_t bytes)
{
    vm_give_back(queue_of(process)->vm, bytes);
}

static const struct process_ops worker_ops = {
    .accounts = queue_worker_accounts,
    .freed = queue_worker_freed,
    .ready = queue_worker_ready,
    .ended = queue_worker_ended,
    .expired = queue_worker_expired,
    .label = queue_label,
};

static void open_queue(struct queue *queue)
{
    const bool runs = queue->worker.pid != 0 && !queue->worker.condemned;
    const uint32_t limit = queue->vm->limits.sessions;

    if (runs || queue->wanted) {
        queue_publish(queue);
        return;
    }
    if (limit != 0 && vm_session_count(queue->vm) - (queue->worker.pid != 0) >= limit) {
        set_state(queue, VGPU_QUEUE_ENDED, VGPU_QUEUE_END_QUOTA);
        return;
    }
    queue->wanted = true;
    set_state(queue, VGPU_QUEUE_STARTING, VGPU_QUEUE_END_NONE);
    if (queue->worker.pid == 0) {
        start_wanted(queue);
    } else {
        /* Killed for its turn, say: its successor waits for its end, which is none for it. */
        queue->closing = true;
    }
}

static void close_queue(struct queue *queue)
{
    queue->wanted = false;
    if (queue->worker.pid == 0) {
        set_state(queue, VGPU_QUEUE_FREE, VGPU_QUEUE_END_NONE);
        return;
    }
    if (queue->state == VGPU_QUEUE_STARTING) {
        /* Of no use to anybody but one who wants to keep this host busy. */
        queue->failures++;
    }
    /* Counted when it is done. */
    queue->closing = true;
    process_kill(&queue->worker);
}

void queue_reset(struct queue *queue)
{
    close_queue(queue);
}

void queue_act(struct queue *queue, uint32_t action)
{
    queue->count++;
    if (action == VGPU_QUEUE_OPEN && !queue->vm->mediator->stopping) {
        open_queue(queue);
    } else if (action == VGPU_QUEUE_CLOSE) {
        close_queue(queue);
    } else {
        queue_publish(queue);
    }
}

void queue_stop(struct queue *queue)
{
    queue->wanted = false;
    if (queue->state != VGPU_QUEUE_FREE) {
        set_state(queue, VGPU_QUEUE_ENDED, VGPU_QUEUE_END_MEDIATOR);
    }
    process_kill(&queue->worker);
}

int queue_create(struct vm *vm, uint32_t number, struct queue **created)
{
    struct queue *queue = calloc(1, sizeof(*queue));
    int r;

    if (!queue) {
        return -ENOMEM;
    }
    queue->vm = vm;
    queue->number = number;
    /* The stub counts on from what it has seen. */
    queue->count = vgpu_queue_count(shared_load(&vm->page->queue_status[number]));
    r = process_init(&queue->worker, vm->mediator, &worker_ops, vm->pool, vm->id, false);
    if (r < 0) {
        free(queue);
        return r;
    }
    r = sd_event_add_time_relative(vm->mediator->event, &queue->timer, CLOCK_MONOTONIC, 0, 0,
                                   on_queue_timer, queue);
    if (r < 0) {
        process_release(&queue->worker);
        free(queue);
        return r;
    }
    sd_event_source_set_enabled(queue->timer, SD_EVENT_OFF);
    *created = queue;
    return 0;
}

void queue_destroy(struct queue *queue)
{
    sd_event_source_disable_unref(queue->timer);
    process_release(&queue->worker);
    free(queue);
}
