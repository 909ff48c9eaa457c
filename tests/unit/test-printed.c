/* SPDX-License-Identifier: MIT */
/*
 * What kernels print: kept within bounds, told before the answer to what synchronises, and fetched.
 *
 * Tests: worker/printed.c, worker/ring-session.c, worker/do-stream.c
 */
#include <fcntl.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "tests/unit/ring-fixture.h"
#include "tests/unit/unit.h"

#define PIPE_PART (32u << 10) /* that a pipe has room for */

static struct printed printed;
static struct gpu_ops ops;
static int out, err;
static bool expected; /* what the driver is asked to write, it has */
static unsigned asked, asked_for_all;

/* As a driver that has this to write. */
static bool print(struct gpu *gpu, bool all)
{
    (void)gpu;
    asked++;
    asked_for_all += all;
    if (expected && write(out, "printed\n", 8) != 8) {
        abort();
    }
    return expected || all;
}

static int set_up(void **state)
{
    int ends[2][2], pipes[VGPU_PRINTED_FILES];

    if (fixture_set_up(state) < 0 || pipe2(ends[0], O_NONBLOCK) < 0 ||
        pipe2(ends[1], O_NONBLOCK) < 0) {
        return -1;
    }
    for (int i = 0; i < 2; i++) {
        pipes[i] = ends[i][0];
    }
    out = ends[0][1];
    err = ends[1][1];
    asked = asked_for_all = 0;
    expected = false;
    ops = *fake.head.ops;
    ops.print = print;
    fake.head.ops = &ops;
    fixture.session.printed = &printed;
    return printed_init(&printed, pipes, fixture.queue);
}

static int tear_down(void **state)
{
    printed_release(&printed);
    close(out);
    close(err);
    return fixture_tear_down(state);
}

static struct vgpu_result_printed fetch(uint32_t file, void *to, uint32_t bytes)
{
    const struct vgpu_cmd_printed body = {
        .file = file, .bytes = bytes, .to = (uint64_t)(uintptr_t)to};
    struct vgpu_result_printed result;

    assert_int_equal(call(VGPU_CMD_PRINTED, &body, sizeof(body)), VGPU_GPU_SUCCESS);
    memcpy(&result, fixture.queue->slots[VGPU_SLOTS - 1].payload, sizeof(result));
    return result;
}

static void test_text_is_told_before_the_answer(void **state)
{
    struct vgpu_result_printed result;

    (void)state;
    expected = true;
    post(VGPU_CMD_SYNC, 1, NULL, 0);
    assert_int_equal(fixture.queue->printed, 0);
    steps();
    assert_true(answered(1));
    assert_int_equal(fixture.queue->printed, 8);
    assert_true(fake.head.prints);
    assert_int_equal(asked, 1);
    assert_int_equal(asked_for_all, 1);
    result = fetch(VGPU_PRINTED_OUT, NULL, 0);
    assert_int_equal(result.bytes, 8);
    assert_memory_equal(result.text, "printed\n", 8);
    assert_int_equal(fetch(VGPU_PRINTED_OUT, NULL, 0).bytes, 0);
    assert_int_equal(fetch(VGPU_PRINTED_ERR, NULL, 0).bytes, 0);
}

/* Who waits for one stream has what is known to print; who waits for all has all. */
static void test_a_stream_asks_for_less(void **state)
{
    (void)state;
    assert_int_equal(call_value(VGPU_CMD_STREAM_SYNC, 0), VGPU_GPU_SUCCESS);
    assert_int_equal(asked, 1);
    assert_int_equal(asked_for_all, 0);
}

/* Also where the thread has read it before. */
static void test_that_something_was_printed(void **state)
{
    (void)state;
    assert_int_equal(write(out, "text", 4), 4);
    assert_true(printed_read(&printed));
    assert_false(fake.head.prints);
    assert_int_equal(call_value(VGPU_CMD_STREAM_SYNC, 0), VGPU_GPU_SUCCESS);
    assert_true(fake.head.prints);
}

/* Neither looking whether work is done nor a fence has the driver write. */
static void test_queries_ask_for_none(void **state)
{
    (void)state;
    expected = true;
    assert_int_equal(call_value(VGPU_CMD_STREAM_QUERY, 0), VGPU_GPU_SUCCESS);
    assert_int_equal(call_value(VGPU_CMD_FENCE, 0), VGPU_GPU_SUCCESS);
    assert_int_equal(asked, 0);
    assert_int_equal(fixture.queue->printed, 0);
}

/* The driver has said where the assertion is by the time that it says that one has failed. */
static void test_what_is_said_of_an_assertion(void **state)
{
    struct vgpu_result_printed result;

    (void)state;
    assert_int_equal(write(err, "failed\n", 7), 7);
    fake.head.lost = (enum vgpu_gpu_error)710;
    assert_int_equal(call_value(VGPU_CMD_STREAM_QUERY, 0), 710);
    assert_int_equal(fixture.queue->printed, 7);
    assert_int_equal(fixture.queue->lost, 710);
    result = fetch(VGPU_PRINTED_ERR, NULL, 0);
    assert_int_equal(result.bytes, 7);
    assert_memory_equal(result.text, "failed\n", 7);
    fake.head.lost = VGPU_GPU_SUCCESS;
}

static void test_into_the_arena(void **state)
{
    uint8_t *to = fixture.arena + 4096;

    (void)state;
    assert_int_equal(write(out, "0123456789", 10), 10);
    assert_true(printed_read(&printed));
    assert_false(printed_read(&printed));
    assert_int_equal(fetch(VGPU_PRINTED_OUT, to, 4).bytes, 4);
    assert_memory_equal(to, "0123\0\0", 6);
    assert_int_equal(fetch(VGPU_PRINTED_OUT, to, 100).bytes, 6);
    assert_memory_equal(to, "456789\0", 7);
}

static void test_wrong_commands(void **state)
{
    const uint64_t arena = (uint64_t)(uintptr_t)fixture.arena;
    const struct vgpu_cmd_printed wrong[] = {
        {.file = 0},
        {.file = 3},
        {.file = UINT32_MAX},
        {.file = 1, .to = arena - 1, .bytes = 1},
        {.file = 1, .to = arena, .bytes = FIXTURE_ARENA + 1},
        {.file = 1, .to = arena + FIXTURE_ARENA, .bytes = 1},
        {.file = 1, .to = 1, .bytes = UINT32_MAX},
    };

    (void)state;
    for (unsigned i = 0; i < sizeof(wrong) / sizeof(wrong[0]); i++) {
        assert_int_equal(call(VGPU_CMD_PRINTED, &wrong[i], sizeof(wrong[i])),
                         VGPU_GPU_INVALID_VALUE);
    }
    /* A backend whose kernels print nothing. */
    fixture.session.printed = NULL;
    assert_int_equal(fetch(VGPU_PRINTED_OUT, NULL, 0).bytes, 0);
}

/* A number for each four bytes, so that it is seen which are kept. */
static void print_numbers(uint32_t from, uint32_t to)
{
    static uint32_t numbers[PIPE_PART / 4];

    while (from < to) {
        const uint32_t count = to - from < PIPE_PART / 4 ? to - from : PIPE_PART / 4;

        for (uint32_t i = 0; i < count; i++) {
            numbers[i] = from + i;
        }
        assert_int_equal(write(out, numbers, count * 4), count * 4);
        assert_true(printed_read(&printed));
        from += count;
    }
}

static void expect_numbers(uint32_t from, uint32_t to)
{
    static uint32_t numbers[25000];
    uint32_t bytes;

    while ((bytes = printed_take(&printed, VGPU_PRINTED_OUT, numbers, sizeof(numbers))) > 0) {
        for (uint32_t i = 0; i < bytes / 4; i++) {
            assert_int_equal(numbers[i], from);
            from++;
        }
    }
    assert_int_equal(from, to);
}

/* Of what nobody fetches the end is kept. */
static void test_no_more_than_the_last(void **state)
{
    const uint32_t kept = VGPU_PRINTED_KEPT / 4;

    (void)state;
    print_numbers(0, kept);
    expect_numbers(0, kept);
    print_numbers(0, 2 * kept + 1000);
    expect_numbers(kept + 1000, 2 * kept + 1000);
    print_numbers(0, kept / 2);
    assert_int_equal(printed_take(&printed, VGPU_PRINTED_OUT, fixture.arena, 4000), 4000);
    print_numbers(kept / 2, kept);
    expect_numbers(1000, kept);
    assert_int_equal(fixture.queue->printed, (uint32_t)(16 * kept + 4000));
}

/* The thread lets a driver go on that writes more than a pipe holds, and tells by itself. */
static void test_the_thread_reads(void **state)
{
    static uint8_t text[3 * PIPE_PART];

    (void)state;
    assert_int_equal(fcntl(out, F_SETFL, 0), 0);
    assert_int_equal(printed_watch(&printed), 0);
    memset(text, 'x', sizeof(text));
    assert_int_equal(write(out, text, sizeof(text)), sizeof(text));
    while (shared_load_acquire(&fixture.queue->printed) != sizeof(text)) {
        poll(NULL, 0, 1);
    }
    for (uint32_t left = sizeof(text); left > 0;) {
        const uint32_t bytes = printed_take(&printed, VGPU_PRINTED_OUT, fixture.arena, left);

        assert_in_range(bytes, 1, left);
        left -= bytes;
    }
}

/* The thread ends with the process alone, so the pipes and the rest stay: it is the last test. */
static int keep_thread(void **state)
{
    return fixture_tear_down(state);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_text_is_told_before_the_answer, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_a_stream_asks_for_less, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_that_something_was_printed, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_queries_ask_for_none, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_what_is_said_of_an_assertion, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_into_the_arena, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_wrong_commands, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_no_more_than_the_last, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_the_thread_reads, set_up, keep_thread),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
