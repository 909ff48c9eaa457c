/* SPDX-License-Identifier: MIT */
/*
 * Answers that the GPU stores: which commands get them, and what the worker does besides.
 *
 * Tests: worker/pending.c, worker/ring.c
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "tests/unit/ring-fixture.h"
#include "tests/unit/unit.h"

static struct gpu_ops ops;
static uint32_t *word; /* that the GPU will store to; NULL: it was not asked to */
static uint32_t value;
static bool refused;
static const void *told; /* the mark of which the guest knows */
static bool confirmed;   /* what the driver says when it is asked */
static unsigned confirms;

static bool fence_answer(struct gpu *gpu, struct gpu_fence *fence, uint32_t *to, uint32_t what)
{
    (void)gpu;
    (void)fence;
    word = refused ? NULL : to;
    value = what;
    return !refused;
}

static void fence_told(struct gpu *gpu, const struct gpu_fence *fence)
{
    (void)gpu;
    told = fence->mark;
}

static bool confirm(struct gpu *gpu)
{
    confirms++;
    gpu->unconfirmed = gpu->unconfirmed && !confirmed;
    return !gpu->unconfirmed;
}

static int set_up(void **state)
{
    if (fixture_set_up(state) < 0) {
        return -1;
    }
    ops = *fake.head.ops;
    ops.fence_answer = fence_answer;
    ops.fence_told = fence_told;
    ops.confirm = confirm;
    told = NULL;
    confirmed = false;
    confirms = 0;
    fake.head.ops = &ops;
    fixture.session.reached = true;
    word = NULL;
    refused = false;
    return 0;
}

static int tear_down(void **state)
{
    return fixture_tear_down(state);
}

/* Work, and somebody who waits for it in a slot. */
static void work_and_wait(uint32_t slot)
{
    post_fill(0, FAKE_ADDRESS, 1, 4);
    post_value(VGPU_CMD_STREAM_SYNC, slot, 0);
    assert_int_equal(steps(), 0);
    assert_false(answered(slot));
}

/* As the GPU does it; what the worker believes comes behind, by fake_finish(). */
static void gpu_answers(void)
{
    assert_non_null(word);
    *word = value;
}

static void test_the_gpu_answers(void **state)
{
    (void)state;
    work_and_wait(3);
    assert_ptr_equal(word, &fixture.queue->slots[2].sequence);
    gpu_answers();
    assert_int_equal(result_of(3), VGPU_GPU_SUCCESS);
    /* The worker has not looked yet, and then it has nothing left to say. */
    fake_finish();
    fixture.queue->slots[2].result = 77;
    assert_int_equal(steps(), 0);
    assert_int_equal(fixture.queue->slots[2].result, 77);
    assert_true(ring_session_quiet(&fixture.session));
}

/* What a slot held before is no part of the answer. */
static void test_nothing_of_the_answer_before(void **state)
{
    (void)state;
    fixture.queue->slots[2].result = 700;
    fixture.queue->slots[2].length = 16;
    fixture.queue->slots[2].culprit = 13;
    work_and_wait(3);
    gpu_answers();
    assert_int_equal(fixture.queue->slots[2].result, 0);
    assert_int_equal(fixture.queue->slots[2].length, 0);
    assert_int_equal(fixture.queue->slots[2].culprit, 0);
    fake_finish();
    steps();
}

/* A guest that sleeps is woken by the worker. */
static void test_interrupt_behind_the_answer(void **state)
{
    uint64_t count = 0;

    (void)state;
    fixture.queue->waiting = 1;
    work_and_wait(1);
    gpu_answers();
    fake_finish();
    steps();
    assert_int_equal(read(fixture.session.ring.interrupt.fd, &count, sizeof(count)), 8);
    assert_int_equal(count, 1);
}

/* The guest has its answer before the worker knows, and uses the slot for the next command. */
static void test_slot_is_used_again_at_once(void **state)
{
    (void)state;
    work_and_wait(5);
    gpu_answers();
    post_value(VGPU_CMD_STREAM_SYNC, 5, 0);
    assert_int_equal(steps(), 0);
    assert_false(answered(5));
    gpu_answers();
    fake_finish();
    assert_int_equal(steps(), 0);
    assert_int_equal(result_of(5), VGPU_GPU_SUCCESS);
    assert_true(ring_session_quiet(&fixture.session));
}

/* What it asks next is answered by what it knows. */
static void test_query_behind_the_answer(void **state)
{
    const void *mark;

    (void)state;
    work_and_wait(5);
    mark = fixture.session.pending.of[4].fences[0].mark;
    post_value(VGPU_CMD_STREAM_QUERY, 6, 0);
    assert_int_equal(steps(), 0);
    assert_null(told);
    gpu_answers();
    post_value(VGPU_CMD_STREAM_QUERY, 7, 0);
    assert_int_equal(steps(), 0);
    assert_ptr_equal(told, mark);
    told = NULL;
    post_value(VGPU_CMD_STREAM_QUERY, 5, 0);
    assert_int_equal(steps(), 0);
    assert_ptr_equal(told, mark);
    fake_finish();
    steps();
}

/* Work that may only seem to be done: where others want the turn, the driver says. */
static void test_turn_until_it_is_confirmed(void **state)
{
    (void)state;
    work_and_wait(1);
    assert_int_equal(*turn_word(VGPU_ENGINE_COMPUTE), VGPU_TURN_RUNNING);
    fake_finish();
    fake.head.unconfirmed = true;
    steps();
    /* Nobody wants it: the driver is asked in a quiet moment. */
    assert_int_equal(confirms, 0);
    assert_int_equal(*turn_word(VGPU_ENGINE_COMPUTE), VGPU_TURN_RUNNING);
    *turn_word(VGPU_ENGINE_COMPUTE) = VGPU_TURN_STOPPED;
    steps();
    assert_true(confirms > 0);
    assert_false(sent_is(VGPU_LINK_DONE, VGPU_ENGINE_COMPUTE));
    confirmed = true;
    steps();
    assert_true(sent_is(VGPU_LINK_DONE, VGPU_ENGINE_COMPUTE));
}

/* One that uses it without an answer is at fault. */
static void test_slot_that_was_not_answered(void **state)
{
    (void)state;
    work_and_wait(5);
    post_value(VGPU_CMD_STREAM_QUERY, 5, 0);
    assert_int_equal(steps(), -EPROTO);
    assert_int_equal(fixture.queue->refused.why, VGPU_REFUSED_SLOT_USED);
    fake_finish();
}

static void test_lost_context_is_the_workers_answer(void **state)
{
    (void)state;
    work_and_wait(2);
    fake.head.lost = VGPU_GPU_ILLEGAL_ADDRESS;
    assert_int_equal(steps(), 0);
    assert_int_equal(result_of(2), VGPU_GPU_ILLEGAL_ADDRESS);
    fake.head.lost = VGPU_GPU_SUCCESS;
}

/* What the answer has to say besides, or what has to come before it, is the worker's. */
static void test_answers_of_the_workers(void **state)
{
    (void)state;
    refused = true;
    work_and_wait(1);
    fake_finish();
    steps();
    assert_int_equal(result_of(1), VGPU_GPU_SUCCESS);
    refused = false;
    /* An earlier failure. */
    fake.next = VGPU_GPU_INVALID_VALUE;
    post_fill(0, FAKE_ADDRESS, 1, 4);
    work_and_wait(1);
    assert_null(word);
    fake_finish();
    steps();
    assert_int_equal(result_of(1), VGPU_GPU_INVALID_VALUE);
    /* What kernels print. */
    fake.head.prints = true;
    work_and_wait(1);
    assert_null(word);
    fake_finish();
    fake.head.prints = false;
    fake.head.fresh = 1;
    steps();
    work_and_wait(2);
    assert_null(word);
    fake_finish();
    fake.head.fresh = 0;
    steps();
    /* A fence reports nothing, and memory is freed first. */
    post_value(VGPU_CMD_FENCE, 3, 0);
    post_value(VGPU_CMD_MEM_FREE, 4, make(VGPU_CMD_MEM_ALLOC, 64));
    steps();
    assert_null(word);
    assert_true(answered(3) && answered(4));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_the_gpu_answers, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_nothing_of_the_answer_before, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_interrupt_behind_the_answer, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_slot_is_used_again_at_once, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_query_behind_the_answer, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_turn_until_it_is_confirmed, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_slot_that_was_not_answered, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_lost_context_is_the_workers_answer, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_answers_of_the_workers, set_up, tear_down),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
