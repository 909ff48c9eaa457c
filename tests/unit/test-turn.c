/* SPDX-License-Identifier: MIT */
/*
 * The worker's side of a turn word: which message goes with which change, whatever the mediator
 * has stored in between. The test plays the mediator: step by step, then as a thread that changes
 * the word at any moment.
 *
 * Tests: worker/turn.c
 */
#include <errno.h>
#include <pthread.h>
#include <sched.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "common/shared.h"
#include "tests/unit/unit.h"
#include "worker/turn.h"

#define ENGINE VGPU_ENGINE_TO_DEVICE
#define ROUNDS 100000

static struct vgpu_turn_page page;
static struct turn turn;
static int mediator; /* the other end of the link */
static struct vgpu_link_msg message;

static int set_up(void **state)
{
    int pair[2];

    (void)state;
    memset(&page, 0, sizeof(page));
    if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_NONBLOCK, 0, pair) < 0) {
        return -1;
    }
    mediator = pair[0];
    turn = (struct turn){.page = &page, .link = pair[1], .engine = ENGINE};
    return 0;
}

static int tear_down(void **state)
{
    (void)state;
    /* What concerns one engine leaves the others alone. */
    for (unsigned i = 0; i < VGPU_ENGINES; i++) {
        if (i != ENGINE && (page.turn[i].state != 0 || page.counters.turns[i] != 0)) {
            return -1;
        }
    }
    close(mediator);
    return close(turn.link);
}

static uint32_t *word(void)
{
    return &page.turn[ENGINE].state;
}

/* The type of the next message, which is in `message`; 0: there is none. */
static uint32_t sent(void)
{
    message = (struct vgpu_link_msg){0};
    if (recv(mediator, &message, sizeof(message), 0) != (ssize_t)sizeof(message)) {
        return 0;
    }
    assert_int_equal(message.engine, ENGINE);
    assert_int_equal(message.value, 0);
    assert_int_equal(message.flags, 0);
    return message.type;
}

/* A turn that was asked for, and found in this state. */
static void get_granted(enum vgpu_turn as)
{
    *word() = VGPU_TURN_CLOSED;
    assert_false(turn_try(&turn));
    assert_int_equal(turn_ask(&turn), 0);
    assert_int_equal(sent(), VGPU_LINK_ASK);
    assert_false(turn_granted(&turn));
    *word() = as;
    assert_true(turn_granted(&turn));
    assert_int_equal(turn_state(&turn), as);
}

/* Step by step -------------------------------------------------------------------------------- */

static void test_only_an_open_turn_is_taken(void **state)
{
    (void)state;
    for (uint32_t i = VGPU_TURN_CLOSED; i <= VGPU_TURN_STOPPED; i++) {
        *word() = i;
        assert_int_equal(turn_try(&turn), i == VGPU_TURN_OPEN);
        assert_int_equal(*word(), i == VGPU_TURN_OPEN ? VGPU_TURN_RUNNING : i);
    }
    assert_int_equal(page.counters.turns[ENGINE], 1);
    assert_int_equal(sent(), 0);
}

static void test_turn_taken_and_left_needs_no_message(void **state)
{
    (void)state;
    for (uint64_t i = 1; i <= 3; i++) {
        *word() = VGPU_TURN_OPEN;
        assert_true(turn_try(&turn));
        assert_int_equal(turn_finish(&turn), 0);
        assert_int_equal(*word(), VGPU_TURN_OPEN);
        assert_int_equal(sent(), 0);
        assert_int_equal(page.counters.turns[ENGINE], i);
    }
}

static void test_turn_asked_for_that_stays(void **state)
{
    (void)state;
    get_granted(VGPU_TURN_RUNNING);
    assert_int_equal(turn_finish(&turn), 0);
    assert_int_equal(*word(), VGPU_TURN_OPEN);
    assert_int_equal(sent(), VGPU_LINK_KEPT);
    assert_int_equal(sent(), 0);
    /* The next one was not asked for. */
    assert_true(turn_try(&turn));
    assert_int_equal(turn_finish(&turn), 0);
    assert_int_equal(sent(), 0);
    assert_int_equal(page.counters.turns[ENGINE], 2);
}

static void test_wanted_turn_is_returned(void **state)
{
    static const enum vgpu_turn wanted[] = {VGPU_TURN_WANTED, VGPU_TURN_SHARED, VGPU_TURN_STOPPED};

    (void)state;
    for (int asked = 0; asked < 2; asked++) {
        for (int i = 0; i < 3; i++) {
            if (asked) {
                get_granted(wanted[i]);
            } else {
                *word() = VGPU_TURN_OPEN;
                assert_true(turn_try(&turn));
                *word() = wanted[i];
            }
            assert_int_equal(turn_finish(&turn), 0);
            assert_int_equal(*word(), VGPU_TURN_CLOSED);
            assert_int_equal(sent(), VGPU_LINK_DONE);
            assert_int_equal(sent(), 0);
        }
    }
}

/* Whoever wanted it has left meanwhile. */
static void test_turn_stopped_and_running_again(void **state)
{
    bool done = true;

    (void)state;
    *word() = VGPU_TURN_OPEN;
    assert_true(turn_try(&turn));
    *word() = VGPU_TURN_STOPPED;
    assert_int_equal(turn_state(&turn), VGPU_TURN_STOPPED);
    *word() = VGPU_TURN_RUNNING;
    assert_int_equal(turn_yield(&turn, 5, &done), 0);
    assert_false(done);
    assert_int_equal(*word(), VGPU_TURN_RUNNING);
    assert_int_equal(sent(), 0);
    assert_int_equal(turn_finish(&turn), 0);
    assert_int_equal(*word(), VGPU_TURN_OPEN);
    assert_int_equal(sent(), 0);
}

static void test_yield_and_then_done(void **state)
{
    static const enum vgpu_turn wanted[] = {VGPU_TURN_WANTED, VGPU_TURN_SHARED, VGPU_TURN_STOPPED};

    (void)state;
    for (int i = 0; i < 3; i++) {
        bool done = false;

        get_granted(wanted[i]);
        assert_int_equal(turn_yield(&turn, 77, &done), 0);
        assert_true(done);
        assert_int_equal(*word(), VGPU_TURN_CLOSED);
        assert_int_equal(sent(), VGPU_LINK_YIELD);
        assert_int_equal(message.from_ns, 77);
        assert_int_equal(sent(), 0);
        assert_int_equal(turn_finish(&turn), 0);
        assert_int_equal(*word(), VGPU_TURN_CLOSED);
        assert_int_equal(sent(), VGPU_LINK_DONE);
        assert_int_equal(message.from_ns, 0);
        assert_int_equal(sent(), 0);
    }
    /* It was over: the next ends by itself. */
    *word() = VGPU_TURN_OPEN;
    assert_true(turn_try(&turn));
    assert_int_equal(turn_finish(&turn), 0);
    assert_int_equal(sent(), 0);
}

/* The mediator takes it before it reads that it was kept; then it is asked for again. */
static void test_turn_taken_before_its_kept_is_read(void **state)
{
    (void)state;
    get_granted(VGPU_TURN_RUNNING);
    assert_int_equal(turn_finish(&turn), 0);
    assert_true(shared_swap(word(), VGPU_TURN_OPEN, VGPU_TURN_CLOSED));
    assert_false(turn_try(&turn));
    assert_int_equal(turn_ask(&turn), 0);
    assert_int_equal(sent(), VGPU_LINK_KEPT);
    assert_int_equal(sent(), VGPU_LINK_ASK);
    assert_int_equal(sent(), 0);
}

static void test_link_that_is_gone(void **state)
{
    bool done;

    (void)state;
    shutdown(mediator, SHUT_RDWR);
    assert_true(turn_ask(&turn) < 0);
    *word() = VGPU_TURN_STOPPED;
    assert_true(turn_yield(&turn, 0, &done) < 0);
    assert_true(turn_finish(&turn) < 0);
}

/* At any moment ------------------------------------------------------------------------------- */

/* What the mediator knows by the messages it has read. */
static struct {
    bool has;     /* the worker has the turn */
    bool asked;   /* and has asked for it, which a message is to end */
    bool wanted;  /* and was told that others want it */
    bool yielded; /* it has not the turn, but its work runs */
    uint64_t count[VGPU_LINK_KEPT + 1];
    uint64_t taken; /* from OPEN */
    const char *wrong;
    unsigned seed;
} seen;

static void expect(bool right, const char *wrong)
{
    if (!right && !seen.wrong) {
        seen.wrong = wrong;
    }
}

static void read_message(const struct vgpu_link_msg *msg)
{
    static const enum vgpu_turn grants[] = {VGPU_TURN_RUNNING, VGPU_TURN_WANTED, VGPU_TURN_SHARED};
    enum vgpu_turn granted;

    seen.count[msg->type]++;
    switch (msg->type) {
    case VGPU_LINK_ASK:
        expect(!seen.has && !seen.yielded && !seen.asked, "ASK for what it has");
        seen.has = seen.asked = true;
        granted = grants[rand_r(&seen.seed) % 3];
        seen.wanted = granted != VGPU_TURN_RUNNING;
        shared_store_release(word(), granted);
        break;
    case VGPU_LINK_YIELD:
        expect(seen.has && shared_load(word()) == VGPU_TURN_CLOSED, "YIELD without a turn");
        seen.has = false;
        seen.yielded = true;
        break;
    case VGPU_LINK_DONE:
        expect((seen.has || seen.yielded) && shared_load(word()) == VGPU_TURN_CLOSED,
               "DONE without a turn");
        seen.has = seen.yielded = seen.asked = false;
        break;
    case VGPU_LINK_KEPT:
        expect(seen.asked && !seen.yielded, "KEPT without an ASK");
        seen.asked = false;
        break;
    default:
        expect(false, "no such message");
    }
}

/* Changes the word, where it has not been changed by the other side. */
static void recall_or_relent(void)
{
    const uint32_t now = shared_load(word());
    const uint32_t next = VGPU_TURN_RUNNING + (uint32_t)rand_r(&seen.seed) % 4;

    if (now == VGPU_TURN_OPEN) {
        expect(!seen.wanted, "a turn that others want was kept");
        if (shared_swap(word(), VGPU_TURN_OPEN, VGPU_TURN_CLOSED)) {
            seen.taken++;
            seen.has = false;
        }
    } else if (now != VGPU_TURN_CLOSED && shared_swap(word(), now, next)) {
        seen.wanted = next != VGPU_TURN_RUNNING;
    }
}

static void *mediator_thread(void *argument)
{
    bool *stop = argument;

    while (!__atomic_load_n(stop, __ATOMIC_ACQUIRE) || seen.has) {
        struct vgpu_link_msg msg;

        if (recv(mediator, &msg, sizeof(msg), 0) == (ssize_t)sizeof(msg)) {
            read_message(&msg);
        } else if (seen.has && rand_r(&seen.seed) % 4 == 0) {
            recall_or_relent();
        } else {
            sched_yield();
        }
    }
    return NULL;
}

/* One turn, with work of no length. */
static void have_a_turn(unsigned *seed)
{
    bool done;

    if (!turn_try(&turn)) {
        assert_int_equal(turn_ask(&turn), 0);
        while (!turn_granted(&turn)) {
            sched_yield();
        }
    }
    for (int i = rand_r(seed) % 100; i > 0; i--) {
        turn_state(&turn);
    }
    if (rand_r(seed) % 2 == 0) {
        assert_int_equal(turn_yield(&turn, 1, &done), 0);
        if (rand_r(seed) % 2 == 0) {
            sched_yield();
        }
    }
    assert_int_equal(turn_finish(&turn), 0);
}

static void test_words_that_change_at_any_moment(void **state)
{
    pthread_t thread;
    bool stop = false;
    unsigned seed = 1;

    (void)state;
    memset(&seen, 0, sizeof(seen));
    alarm(240); /* ends a test that hangs */
    assert_int_equal(pthread_create(&thread, NULL, mediator_thread, &stop), 0);
    for (int i = 0; i < ROUNDS; i++) {
        have_a_turn(&seed);
    }
    __atomic_store_n(&stop, true, __ATOMIC_RELEASE);
    pthread_join(thread, NULL);
    alarm(0);
    if (seen.wrong) {
        fail_msg("%s", seen.wrong);
    }
    assert_int_equal(page.counters.turns[ENGINE], ROUNDS);
    /* Otherwise nothing has met. */
    for (uint32_t type = VGPU_LINK_ASK; type <= VGPU_LINK_KEPT; type++) {
        if (type != VGPU_LINK_TURN && type != VGPU_LINK_FINISH) {
            assert_true(seen.count[type] > 0);
        }
    }
    assert_true(seen.taken > 0);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(test_only_an_open_turn_is_taken),
        TEST(test_turn_taken_and_left_needs_no_message),
        TEST(test_turn_asked_for_that_stays),
        TEST(test_wanted_turn_is_returned),
        TEST(test_turn_stopped_and_running_again),
        TEST(test_yield_and_then_done),
        TEST(test_turn_taken_before_its_kept_is_read),
        TEST(test_link_that_is_gone),
        TEST(test_words_that_change_at_any_moment),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
