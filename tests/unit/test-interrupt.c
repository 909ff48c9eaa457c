/* SPDX-License-Identifier: MIT */
/*
 * Interrupts at no more than their rate: some at once, the others later, none lost.
 *
 * Tests: worker/interrupt.c
 */
#include <sys/eventfd.h>
#include <unistd.h>

#include "common/clock.h"
#include "tests/unit/test-clock.h"
#include "tests/unit/unit.h"
#include "worker/interrupt.h"

#define RATE 1000u /* in a second */
#define START (5 * NS_PER_S)

static struct interrupt interrupt;
static struct vgpu_turn_page page;

static int set_up(void **state)
{
    (void)state;
    test_clock_ns = START;
    page = (struct vgpu_turn_page){.terms = {.interrupts = RATE}};
    interrupt = (struct interrupt){.fd = eventfd(0, EFD_NONBLOCK), .page = &page};
    return interrupt.fd < 0 ? -1 : 0;
}

static int tear_down(void **state)
{
    (void)state;
    test_clock_ns = 0;
    return close(interrupt.fd);
}

/* How many have come since the last call. */
static uint64_t received(void)
{
    eventfd_t value = 0;

    return eventfd_read(interrupt.fd, &value) == 0 ? value : 0;
}

static void raise_burst(void)
{
    for (unsigned i = 0; i < PACE_BURST; i++) {
        interrupt_raise(&interrupt);
    }
    assert_int_equal(received(), PACE_BURST);
    assert_int_equal(interrupt_serve(&interrupt), 0);
}

static void test_without_a_limit(void **state)
{
    (void)state;
    page.terms.interrupts = 0;
    for (int i = 0; i < 1000; i++) {
        interrupt_raise(&interrupt);
    }
    assert_int_equal(received(), 1000);
    assert_int_equal(page.counters.interrupts, 1000);
    interrupt.page = NULL; /* of a worker without a page */
    interrupt_raise(&interrupt);
    assert_int_equal(received(), 1);
}

static void test_one_too_early_is_owed(void **state)
{
    uint64_t wait;

    (void)state;
    raise_burst();
    interrupt_raise(&interrupt);
    assert_int_equal(received(), 0);
    wait = interrupt_serve(&interrupt);
    assert_in_range(wait, 1, NS_PER_S / RATE);
    test_clock_ns += wait - 1;
    assert_int_equal(interrupt_serve(&interrupt), 1);
    assert_int_equal(received(), 0);
    test_clock_ns += 1;
    assert_int_equal(interrupt_serve(&interrupt), 0);
    assert_int_equal(received(), 1);
    assert_int_equal(interrupt_serve(&interrupt), 0); /* once */
    assert_int_equal(received(), 0);
    assert_int_equal(page.counters.interrupts, PACE_BURST + 1);
}

static void test_several_owed_are_one(void **state)
{
    (void)state;
    raise_burst();
    for (int i = 0; i < 100; i++) {
        interrupt_raise(&interrupt);
    }
    test_clock_ns += NS_PER_S;
    interrupt_serve(&interrupt);
    assert_int_equal(received(), 1);
}

/* One that is raised when what is owed has become due sends that, and owes no other. */
static void test_raised_when_one_is_due(void **state)
{
    (void)state;
    raise_burst();
    interrupt_raise(&interrupt);
    test_clock_ns += NS_PER_S / RATE;
    interrupt_raise(&interrupt);
    assert_int_equal(received(), 1);
    assert_int_equal(interrupt_serve(&interrupt), 0);
}

static void test_rate_over_a_long_time(void **state)
{
    uint64_t sum = 0;

    (void)state;
    for (uint64_t i = 0; i < 100 * RATE; i++) {
        interrupt_raise(&interrupt);
        sum += received();
        test_clock_ns += NS_PER_S / RATE / 10;
    }
    assert_in_range(sum, 10 * RATE, 10 * RATE + PACE_BURST);
}

static void test_pause_gives_a_burst_and_no_more(void **state)
{
    (void)state;
    raise_burst();
    test_clock_ns += 3600 * NS_PER_S;
    for (int i = 0; i < 100; i++) {
        interrupt_raise(&interrupt);
    }
    assert_int_equal(received(), PACE_BURST);
}

static void test_limit_that_changes(void **state)
{
    (void)state;
    raise_burst();
    interrupt_raise(&interrupt);
    page.terms.interrupts = 0;
    assert_int_equal(interrupt_serve(&interrupt), 0);
    assert_int_equal(received(), 1); /* owed no longer */
    test_clock_ns += NS_PER_S;
    page.terms.interrupts = UINT32_MAX; /* as good as none */
    interrupt_raise(&interrupt);
    assert_int_equal(interrupt_serve(&interrupt), 0);
    assert_int_equal(received(), 1);
    page.terms.interrupts = 1;
    for (int i = 0; i < 100; i++) {
        interrupt_raise(&interrupt);
        test_clock_ns += NS_PER_S;
    }
    assert_true(received() >= 99);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(test_without_a_limit),       TEST(test_one_too_early_is_owed),
        TEST(test_several_owed_are_one),  TEST(test_raised_when_one_is_due),
        TEST(test_rate_over_a_long_time), TEST(test_pause_gives_a_burst_and_no_more),
        TEST(test_limit_that_changes),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
