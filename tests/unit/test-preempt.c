/* SPDX-License-Identifier: MIT */
/*
 * The thread that takes a worker's work off the GPU, and sets its time slice, as the mediator says.
 *
 * Tests: worker/preempt.c
 */
#include <linux/futex.h>
#include <poll.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "common/clock.h"
#include "common/fdmsg.h"
#include "common/shared.h"
#include "tests/unit/unit.h"
#include "worker/gpu.h"
#include "worker/preempt.h"

/* A worker and its mediator; the thread stays, so each test has its own. */
struct worker {
    struct preempt preempt;
    struct vgpu_turn_page page;
    struct gpu gpu;
    uint32_t off, slice_us; /* as the GPU has it */
    bool refuses;
    int link; /* the mediator's end */
};

static bool set_off(struct gpu *gpu, bool off)
{
    struct worker *w = (struct worker *)((char *)gpu - offsetof(struct worker, gpu));

    if (w->refuses && off) {
        return false;
    }
    shared_store(&w->off, off);
    return true;
}

static bool set_slice(struct gpu *gpu, uint32_t us)
{
    struct worker *w = (struct worker *)((char *)gpu - offsetof(struct worker, gpu));

    shared_store(&w->slice_us, us);
    return true;
}

static const struct gpu_ops both = {.set_off = set_off, .set_slice = set_slice};
static const struct gpu_ops off_alone = {.set_off = set_off};

static void start(struct worker *w, const struct gpu_ops *ops)
{
    int pair[2];

    assert_int_equal(socketpair(AF_UNIX, SOCK_SEQPACKET, 0, pair), 0);
    w->link = pair[0];
    w->gpu.ops = ops;
    assert_int_equal(preempt_start(&w->preempt, &w->page, &w->gpu, pair[1]), 0);
}

static void order(struct worker *w, uint32_t count)
{
    uint32_t *word = &w->page.turn[VGPU_ENGINE_COMPUTE].off;

    shared_store_release(word, count);
    syscall(SYS_futex, word, FUTEX_WAKE, 1, NULL, NULL, 0);
}

/* The count of the next OFF. */
static uint32_t hear(struct worker *w)
{
    struct pollfd link = {.fd = w->link, .events = POLLIN};
    struct vgpu_link_msg msg;
    int fds[FDMSG_MAX];
    size_t count = 0;

    assert_int_equal(poll(&link, 1, 60000), 1);
    assert_int_equal(fdmsg_recv(w->link, &msg, sizeof(msg), fds, &count), sizeof(msg));
    assert_int_equal(msg.type, VGPU_LINK_OFF);
    assert_int_equal(msg.engine, VGPU_ENGINE_COMPUTE);
    return msg.value;
}

static void await(const uint32_t *word, uint32_t value)
{
    for (unsigned i = 0; i < 60000 && shared_load(word) != value; i++) {
        usleep(1000);
    }
    assert_int_equal(shared_load(word), value);
}

static void test_off_and_on(void **state)
{
    static struct worker w;

    (void)state;
    start(&w, &both);
    assert_false(preempt_is_off(&w.preempt));
    order(&w, 1);
    assert_int_equal(hear(&w), 1);
    assert_int_equal(shared_load(&w.off), 1);
    assert_true(preempt_is_off(&w.preempt));
    order(&w, 2);
    await(&w.off, 0);
    while (preempt_is_off(&w.preempt)) {
        usleep(1000);
    }
    assert_true(preempt_off_ns(&w.preempt) > 0);
    /* Two at once leave it as it is. */
    order(&w, 4);
    order(&w, 7);
    assert_int_equal(hear(&w), 7);
}

/* It is there before the thread is, or comes with a count of the same parity. */
static void test_slices(void **state)
{
    static struct worker w = {.page.terms.slice_us = 200};

    (void)state;
    start(&w, &both);
    await(&w.slice_us, 200);
    shared_store(&w.page.terms.slice_us, 400);
    order(&w, 2);
    await(&w.slice_us, 400);
    assert_int_equal(shared_load(&w.off), 0);
    order(&w, 3);
    assert_int_equal(hear(&w), 3);
    /* While it is off: it says so again, since the mediator goes by the newest count. */
    shared_store(&w.page.terms.slice_us, 0);
    order(&w, 5);
    assert_int_equal(hear(&w), 5);
    await(&w.slice_us, 0);
    assert_int_equal(shared_load(&w.off), 1);
}

static void test_without_slices(void **state)
{
    static struct worker w = {.page.terms.slice_us = 200};

    (void)state;
    start(&w, &off_alone);
    order(&w, 1);
    assert_int_equal(hear(&w), 1);
    assert_int_equal(shared_load(&w.slice_us), 0);
}

static void test_driver_that_refuses(void **state)
{
    static struct worker w = {.refuses = true, .off = 9};

    (void)state;
    start(&w, &both);
    order(&w, 1);
    assert_int_equal(hear(&w), 0);
    /* What is on in part is put back. */
    assert_int_equal(shared_load(&w.off), 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_off_and_on),
        cmocka_unit_test(test_slices),
        cmocka_unit_test(test_without_slices),
        cmocka_unit_test(test_driver_that_refuses),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
