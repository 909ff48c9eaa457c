/* SPDX-License-Identifier: MIT */
/*
 * The wake-ups of a queue, in both directions: neither side may sleep while it has something to do.
 *
 * A guest thread and a worker thread share a queue and real eventfds. Both sleep without a limit,
 * so that one wake-up that is lost is the end of the test. They look on for a moment before, never
 * for the same time: the one has to store just when the other goes to sleep, which is over in some
 * nanoseconds, and a thread that has been asleep is always too late for that.
 *
 * The worker's side is the worker's own ring.c in a loop like that of ring-worker.c; the guest's
 * side is that of kick() and sleep_for_all() in guest/libvgpu/session.c, but for the limit on its
 * sleep.
 *
 * Tests: worker/ring.c
 */
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "tests/unit/guest-side.h"
#include "tests/unit/unit.h"
#include "worker/ring.h"

#ifdef __SANITIZE_THREAD__
#define ROUNDS 40000u /* each takes far longer */
#else
#define ROUNDS 200000u
#endif
#define BURST 8u        /* commands of a round, at most */
#define PATIENCE_S 120u /* for what takes a second or two */

static _Alignas(4096) struct vgpu_queue queue;
static int doorbell, irq;
static unsigned seed = 1; /* the guest's */

struct count {
    uint64_t kicks, interrupts, parks;
};
static struct count count; /* each member by one thread */

static void on_alarm(int number)
{
    static const char text[] = "test-wakeup: a wake-up was lost: both sides sleep\n";

    (void)number;
    if (write(STDERR_FILENO, text, sizeof(text) - 1) < 0) {
        _exit(2);
    }
    _exit(1);
}

/*
 * How often to look before sleeping: mostly a few times, now and then for longer than it takes the
 * other side to wake up.
 */
static int how_long(unsigned *seed_of)
{
    return rand_r(seed_of) % (1 << rand_r(seed_of) % 16);
}

static void wait_for_eventfd(int fd)
{
    struct pollfd p = {.fd = fd, .events = POLLIN};
    eventfd_t value;

    poll(&p, 1, -1);
    eventfd_read(fd, &value);
}

/* The worker ------------------------------------------------------------------------------- */

/* Takes and answers all that there is; false when that was the last command. */
static bool serve(struct ring *ring)
{
    static struct ring_command command;

    while (ring_take(ring, &command) == RING_COMMAND) {
        uint32_t last;

        memcpy(&last, command.body, sizeof(last));
        if (command.header.slot != 0) {
            ring_answer(ring, &command.header, VGPU_GPU_SUCCESS, NULL, 0);
        }
        if (last) {
            return false;
        }
    }
    return true;
}

static void *worker_thread(void *argument)
{
    struct ring *ring = argument;
    unsigned own_seed = 2;

    for (;;) {
        for (int looks = how_long(&own_seed); looks >= 0; looks--) {
            if (!serve(ring)) {
                return NULL;
            }
        }
        if (ring_park(ring)) {
            count.parks++;
            wait_for_eventfd(doorbell);
            ring_unpark(ring);
        }
    }
}

/* The guest -------------------------------------------------------------------------------- */

static void kick(uint32_t *kicked)
{
    uint32_t parked;

    /* Partner: the fence in the worker's ring_park(). */
    shared_fence();
    parked = shared_load(&queue.parked);
    if (parked % 2 != 0 && parked != *kicked) {
        *kicked = parked;
        count.kicks++;
        eventfd_write(doorbell, 1);
    }
}

static void wait_for(const struct guest_side *guest, uint32_t slot, uint32_t sequence)
{
    for (int looks = how_long(&seed); looks > 0; looks--) {
        if (guest_answered(guest, slot, sequence)) {
            return;
        }
    }
    while (!guest_answered(guest, slot, sequence)) {
        shared_store(&queue.waiting, 1);
        /* Partner: the fence in the worker's ring_answer(). */
        shared_fence();
        if (!guest_answered(guest, slot, sequence)) {
            count.interrupts++;
            wait_for_eventfd(irq);
        }
        shared_store(&queue.waiting, 0);
    }
}

/* Lets the other side come to another place of its loop each time. */
static void dawdle(void)
{
    for (volatile int i = rand_r(&seed) % 200; i > 0; i--) {
    }
}

static void test_no_wake_up_is_lost(void **state)
{
    struct guest_side guest = {.queue = &queue};
    uint32_t kicked = 0;
    struct ring ring;
    pthread_t worker;

    (void)state;
    doorbell = eventfd(0, 0);
    irq = eventfd(0, 0);
    ring_init(&ring, &queue, irq);
    signal(SIGALRM, on_alarm);
    alarm(PATIENCE_S);
    assert_int_equal(pthread_create(&worker, NULL, worker_thread, &ring), 0);
    for (uint32_t round = 0; round < ROUNDS; round++) {
        const unsigned burst = 1 + (unsigned)rand_r(&seed) % BURST;
        const uint32_t slot = 1 + round % VGPU_SLOTS;
        uint32_t sequence = 0;

        /* Only the last of a burst is answered. A burst fits: those before have been taken. */
        for (unsigned i = 1; i <= burst; i++) {
            const uint32_t body[4] = {round == ROUNDS - 1 && i == burst};

            sequence = guest_post(&guest, VGPU_CMD_NOP, i == burst ? slot : 0, body, sizeof(body));
            kick(&kicked);
            dawdle();
        }
        wait_for(&guest, slot, sequence);
        dawdle();
    }
    pthread_join(worker, NULL);
    alarm(0);
    close(doorbell);
    close(irq);
    assert_int_equal(ring.head, guest.tail);
    /* Otherwise nobody has slept and this has tested nothing. */
    assert_true(count.parks > ROUNDS / 100);
    assert_true(count.kicks > ROUNDS / 100);
    assert_true(count.interrupts > ROUNDS / 100);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_no_wake_up_is_lost),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
