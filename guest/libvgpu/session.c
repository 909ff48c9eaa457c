/* SPDX-License-Identifier: MIT */
/*
 * A session: posting commands, and waiting for answers.
 *
 * Any thread posts, one at a time, in the order of the ring's mutex. An answer comes into the slot
 * that its command named. Threads that wait look at their own slots for a short while. After that
 * one of them, on behalf of all, asks for the queue's interrupt and waits for it; it wakes the
 * others, and another takes its place when it has what it wanted. Where there is no interrupt it
 * sleeps instead, ever longer.
 *
 * The one rule of posting and waiting: store first, then a full fence, then look. The worker does
 * the same, so that one of both sees the other's store, and neither sleeps with work to do.
 *
 * A session that has ended says so in `end`, which is set once and looked at by all who wait.
 *
 * Memory of BAR2 may be mapped write-combining, whose loads and stores the processor reorders where
 * it would not in ordinary memory: hence full fences where acquire and release would do.
 */
#include "guest/libvgpu/session.h"

#include <assert.h>
#include <errno.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "common/clock.h"
#include "common/shared.h"
#include "guest/libvgpu/ring-calls.h"

/*
 * How long a thread looks at its slot before it sleeps: without letting others run; then, unless
 * the session's last wait was longer, yielding to them. A wake-up takes longer than most work.
 */
#define SPIN_NS (50 * NS_PER_US)
#define YIELD_NS (10 * NS_PER_MS)
/* What a launch and its parameters mostly take of the ring. */
#define CACHE_LINE 64u
#define NEXT_LINES 3u
/* The longest sleep for want of an interrupt, and between looks whether the session lives. */
#define WAIT_MS 20

/* Messages -------------------------------------------------------------------------------- */

enum vgpu_queue_end vgpu_session_end(const struct vgpu_session *s)
{
    const uint32_t end = shared_load(&s->end);

    return end == 0 ? VGPU_QUEUE_END_NONE : (enum vgpu_queue_end)(end - 1);
}

/* Says which command the worker could not take for one, and why. */
static int tell_refusal(struct vgpu_session *s)
{
    const struct vgpu_queue *queue = s->port->queue;
    /* Partner: the store-release of the worker that has ended the session. */
    const uint32_t why = shared_load_acquire(&queue->refused.why);

    return vgpu_fail(VGPU_ENDED,
                     "the session has ended (BAD_RING): %s of %u bytes, slot %u, posted after %u "
                     "bytes: %s",
                     ring_command_name(queue->refused.opcode), shared_load(&queue->refused.length),
                     queue->refused.slot, shared_load(&queue->refused.offset),
                     session_refusal_text(why));
}

int session_ended(struct vgpu_session *s)
{
    const enum vgpu_queue_end end = vgpu_session_end(s);
    /* What CUDA says, and goes on saying, of a kernel that took too long. */
    const int result = end == VGPU_QUEUE_END_TIMEOUT ? (int)VGPU_GPU_LAUNCH_TIMEOUT : VGPU_ENDED;

    if (end == VGPU_QUEUE_END_BAD_RING &&
        shared_load(&s->port->queue->refused.why) != VGPU_REFUSED_NONE) {
        return tell_refusal(s);
    }
    return vgpu_fail(result, "the session has ended (%s): %s", vgpu_queue_end_name(end),
                     vgpu_queue_end_text(end));
}

/* Sets the message for a result of the GPU's; `culprit` as in struct vgpu_slot. */
static int tell_result(int result, uint32_t culprit)
{
    if (result <= 0 || result == VGPU_GPU_NOT_READY) {
        return result;
    }
    if (culprit != 0) {
        return vgpu_fail(result, "an earlier %s failed with GPU error %d (%s): %s",
                         ring_command_name(culprit & 0xff), result, vgpu_result_name(result),
                         vgpu_result_text(result));
    }
    return vgpu_fail(result, "the GPU reports error %d (%s): %s", result, vgpu_result_name(result),
                     vgpu_result_text(result));
}

/* Posting -------------------------------------------------------------------------------- */

/*
 * Rings for a worker that sleeps with work to do, which none does where fences are fences. But an
 * emulated processor that is alone in its guest has no fences before QEMU 8.1: it may see `parked`
 * from before its own store of the tail (findings/qemu7-emulated-fences.sh), and the worker sleep
 * on.
 */
static void remind_worker(struct vgpu_session *s)
{
    const struct vgpu_queue *queue = s->port->queue;

    if (shared_load(&queue->parked) % 2 != 0 &&
        shared_load(&queue->tail) != shared_load(&queue->head)) {
        s->port->ops->kick(s->port);
    }
}

/*
 * Looks whether the session still runs, and notes why not. It reads a register, which takes far
 * longer than memory, so loops call it once in a while. Any thread may.
 */
static bool session_alive(struct vgpu_session *s)
{
    const uint32_t status = s->port->ops->status(s->port);

    remind_worker(s);
    if (shared_load(&s->end) == 0 && vgpu_queue_state(status) != VGPU_QUEUE_RUNNING) {
        shared_store(&s->end, 1 + vgpu_queue_end(status));
    }
    return shared_load(&s->end) == 0;
}

void session_look(struct vgpu_session *s, uint64_t waited_ns)
{
    if (waited_ns > NS_PER_MS) {
        session_alive(s);
    }
}

/* Wakes the worker where it sleeps; after the store of the tail. */
static void kick_worker(struct vgpu_session *s)
{
    uint32_t parked;

    /* Partner: the fence in the worker's ring_park(). */
    shared_fence();
    parked = shared_load(&s->port->queue->parked);
    /*
     * Odd: it sleeps, or is about to. Each sleep has a number of its own and needs one doorbell,
     * which is expensive: a register is written.
     */
    if (parked % 2 != 0 && parked != s->kicked) {
        s->kicked = parked;
        s->port->ops->kick(s->port);
    }
}

/*
 * Waits until `bytes` more fit the ring. With the ring's mutex, so that the order is kept: other
 * threads that post wait behind this one. VGPU_OK or VGPU_ENDED.
 */
static int wait_for_room(struct vgpu_session *s, uint32_t bytes)
{
    uint64_t start = 0, waited = 0, looked = 0;

    while (s->tail + bytes - s->head > VGPU_RING_SIZE) {
        /* Partner: the store-release in the worker's ring_take(). */
        s->head = shared_load_acquire(&s->port->queue->head);
        if (s->tail + bytes - s->head <= VGPU_RING_SIZE) {
            break;
        }
        if (start == 0) {
            start = clock_ns();
        }
        waited = clock_ns() - start;
        if (waited - looked > NS_PER_MS) {
            looked = waited;
            if (!session_alive(s)) {
                return session_ended(s);
            }
        }
        vgpu_pause(waited);
    }
    return VGPU_OK;
}

/* Never across the ring's end: put_command() has put a PAD there. */
static void ring_put(struct vgpu_session *s, const void *bytes, uint32_t count)
{
    memcpy(s->port->queue->ring + s->tail % VGPU_RING_SIZE, bytes, count);
    s->tail += count;
}

/* Writes a command for a slot, 0 for none, into the ring. With the ring's mutex. */
static int put_command(struct vgpu_session *s, const struct command *command, uint32_t slot)
{
    struct vgpu_command header = {
        .opcode = command->opcode,
        .slot = (uint16_t)slot,
        .length = (uint32_t)((sizeof(header) + command->body_bytes + command->rest_bytes +
                              VGPU_COMMAND_ALIGN - 1) &
                             ~(VGPU_COMMAND_ALIGN - 1)),
    };
    /*
     * A command lies in one piece. Where it would go across the ring's end, a PAD fills that, and
     * the command comes at the start.
     */
    const uint32_t to_end = VGPU_RING_SIZE - s->tail % VGPU_RING_SIZE;
    const struct vgpu_command pad = {.opcode = VGPU_CMD_PAD, .length = to_end};
    const bool wraps = header.length > to_end;
    int r = wait_for_room(s, header.length + (wraps ? to_end : 0));

    if (r != VGPU_OK) {
        return r;
    }
    if (wraps) {
        ring_put(s, &pad, sizeof(pad));
        s->tail += to_end - (uint32_t)sizeof(pad);
    }
    header.sequence = ++s->sequence;
    ring_put(s, &header, sizeof(header));
    ring_put(s, command->body, command->body_bytes);
    if (command->rest) {
        ring_put(s, command->rest, command->rest_bytes);
    }
    s->tail += header.length - (uint32_t)sizeof(header) - command->body_bytes - command->rest_bytes;
    /* The command before the tail, also where the ring is write-combining. */
    shared_fence();
    /* Partner: the load-acquire in the worker's ring_take(). */
    shared_store_release(&s->port->queue->tail, s->tail);
    kick_worker(s);
    return VGPU_OK;
}

int session_post(struct vgpu_session *s, const struct command *command)
{
    int r;

    if (shared_load(&s->end) != 0) {
        return session_ended(s);
    }
    pthread_mutex_lock(&s->ring_mutex);
    r = put_command(s, command, 0);
    pthread_mutex_unlock(&s->ring_mutex);
    return r;
}

/* Waiting -------------------------------------------------------------------------------- */

/*
 * Waits while all slots are in use. Not with the ring's mutex: a thread that has a slot already may
 * need that to post.
 */
static uint32_t take_slot(struct vgpu_session *s)
{
    unsigned slot;

    pthread_mutex_lock(&s->wait_mutex);
    while (s->free_slots == 0) {
        pthread_cond_wait(&s->wait_cond, &s->wait_mutex);
    }
    slot = (unsigned)__builtin_ctzll(s->free_slots);
    s->free_slots &= s->free_slots - 1;
    pthread_mutex_unlock(&s->wait_mutex);
    return slot + 1;
}

static void give_slot(struct vgpu_session *s, uint32_t slot)
{
    assert(slot >= 1 && slot <= VGPU_SLOTS);
    pthread_mutex_lock(&s->wait_mutex);
    if (s->free_slots == 0) {
        pthread_cond_broadcast(&s->wait_cond);
    }
    s->free_slots |= UINT64_C(1) << (slot - 1);
    pthread_mutex_unlock(&s->wait_mutex);
}

int session_ask(struct vgpu_session *s, const struct command *command, struct ticket *ticket)
{
    int r = VGPU_OK;

    if (shared_load(&s->end) != 0) {
        return session_ended(s);
    }
    /* Before the mutex, see take_slot(). */
    ticket->slot = take_slot(s);
    pthread_mutex_lock(&s->ring_mutex);
    r = put_command(s, command, ticket->slot);
    ticket->sequence = s->sequence;
    pthread_mutex_unlock(&s->ring_mutex);
    if (r != VGPU_OK) {
        give_slot(s, ticket->slot);
        ticket->slot = 0;
    }
    return r;
}

bool session_answered(struct vgpu_session *s, const struct ticket *ticket)
{
    const struct vgpu_slot *slot = &s->port->queue->slots[ticket->slot - 1];

    /* Partner: the store-release in the worker's ring_answer(), or the GPU's store. */
    return shared_load_acquire(&slot->sequence) == ticket->sequence;
}

/*
 * Has the processor fetch what the next command will be written to, since the worker has read there
 * last: its posting is what somebody waits for, and now there is time. Where the ring is not cached
 * it does nothing.
 */
static void prepare_post(struct vgpu_session *s)
{
    /* Another thread may post meanwhile: then it is its lines. */
    const uint32_t tail = shared_load(&s->port->queue->tail);

    for (uint32_t i = 0; i < NEXT_LINES; i++) {
        const uint32_t at = (tail + i * CACHE_LINE) % VGPU_RING_SIZE;

        __asm__ volatile("prefetchw %0" : : "m"(s->port->queue->ring[at]));
    }
}

/*
 * Looks at the slot for a while. True when it was answered. An answer that comes in time says that
 * the next one may too: the session is not patient any more.
 */
static bool spin_for(struct vgpu_session *s, const struct ticket *ticket)
{
    const uint64_t start = clock_ns();
    const uint64_t limit = shared_load(&s->patient) ? SPIN_NS : YIELD_NS;
    uint64_t waited = 0;

    prepare_post(s);
    while (waited < limit && shared_load(&s->end) == 0) {
        for (int i = 0; i < 32; i++) {
            if (session_answered(s, ticket)) {
                shared_store(&s->patient, 0);
                return true;
            }
            __builtin_ia32_pause();
        }
        if (waited >= SPIN_NS) {
            sched_yield();
        }
        waited = clock_ns() - start;
    }
    return false;
}

/*
 * On behalf of all threads that wait: sleeps until something may have been answered. Its own slot
 * is looked at once more, behind the fence, since the worker may have answered before it could see
 * that an interrupt is wanted.
 */
static void sleep_for_all(struct vgpu_session *s, const struct ticket *ticket, uint64_t waited_ns)
{
    if (!s->port->ops->wait) {
        vgpu_pause(waited_ns);
    } else if (!session_answered(s, ticket)) {
        s->port->ops->wait(s->port, WAIT_MS);
    }
}

/* Waits until the slot is answered or the session is gone. */
static void wait_for_slot(struct vgpu_session *s, const struct ticket *ticket)
{
    const uint64_t start = clock_ns();
    uint64_t looked = start;

    pthread_mutex_lock(&s->wait_mutex);
    shared_store(&s->patient, 1);
    while (!session_answered(s, ticket) && shared_load(&s->end) == 0) {
        if (s->waiter) {
            pthread_cond_wait(&s->wait_cond, &s->wait_mutex);
            continue;
        }
        s->waiter = true;
        /*
         * With the mutex: a thread that comes next finds a waiter, and sleeps on the condition. It
         * has looked at its slot behind this store, so an answer that it did not see brings the
         * interrupt.
         */
        shared_store(&s->port->queue->waiting, s->port->ops->wait != NULL);
        /* Partner: the fence in the worker's ring_answer(). */
        shared_fence();
        pthread_mutex_unlock(&s->wait_mutex);
        sleep_for_all(s, ticket, clock_ns() - start);
        if (clock_ns() - looked > WAIT_MS * NS_PER_MS) {
            looked = clock_ns();
            session_alive(s);
        }
        pthread_mutex_lock(&s->wait_mutex);
        s->waiter = false;
        shared_store(&s->port->queue->waiting, 0);
        pthread_cond_broadcast(&s->wait_cond);
        if (session_prints(s)) {
            pthread_mutex_unlock(&s->wait_mutex);
            s->show(s, false);
            pthread_mutex_lock(&s->wait_mutex);
        }
    }
    pthread_mutex_unlock(&s->wait_mutex);
}

/* Waits for an answer of `least` to `most` bytes; *got: how many of them there were. */
static int await_slot(struct vgpu_session *s, struct ticket *ticket, void *payload, uint32_t least,
                      uint32_t most, uint32_t *got)
{
    const struct vgpu_slot *slot = &s->port->queue->slots[ticket->slot - 1];
    uint32_t culprit = 0, length;
    int result = VGPU_ENDED;

    *got = 0;
    if (!spin_for(s, ticket)) {
        wait_for_slot(s, ticket);
    }
    /* Also when the session has ended meanwhile: an answer that has come counts. */
    if (session_answered(s, ticket)) {
        shared_fence();
        result = (int)shared_load(&slot->result);
        length = shared_load(&slot->length);
        culprit = shared_load(&slot->culprit);
        if (result == VGPU_GPU_SUCCESS && length < least) {
            result = VGPU_INCOMPATIBLE;
        } else if (result == VGPU_GPU_SUCCESS && most > 0) {
            *got = length < most ? length : most;
            memcpy(payload, slot->payload, *got);
        }
    }
    give_slot(s, ticket->slot);
    ticket->slot = 0;
    if (session_prints(s)) {
        s->show(s, true);
    }
    if (result == VGPU_INCOMPATIBLE) {
        return vgpu_fail(result, "the host's answer is shorter than %u bytes", least);
    }
    return result == VGPU_ENDED ? session_ended(s) : tell_result(result, culprit);
}

int session_await(struct vgpu_session *s, struct ticket *ticket, void *payload, uint32_t bytes)
{
    uint32_t got;

    return await_slot(s, ticket, payload, bytes, bytes, &got);
}

int session_call(struct vgpu_session *s, const struct command *command, void *payload,
                 uint32_t bytes)
{
    struct ticket ticket = {0};
    const int r = session_ask(s, command, &ticket);

    return r == VGPU_OK ? session_await(s, &ticket, payload, bytes) : r;
}

int session_call_list(struct vgpu_session *s, const struct command *command, void *list,
                      uint32_t size, uint32_t most, uint32_t *count)
{
    struct ticket ticket = {0};
    uint32_t got = 0;
    int r = session_ask(s, command, &ticket);

    if (r == VGPU_OK) {
        r = await_slot(s, &ticket, list, size, most * size, &got);
    }
    *count = got / size;
    return r;
}
