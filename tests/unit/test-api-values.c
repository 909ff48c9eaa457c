/* SPDX-License-Identifier: MIT */
/*
 * Words that streams write and wait for, on the cpu backend.
 *
 * Tests: worker/backend-cpu/
 */
#include <time.h>

#include "common/shared.h"
#include "tests/unit/api-fixture.h"

static void test_values_that_are_written(void **state)
{
    const uint64_t memory = make(VGPU_CMD_MEM_ALLOC, 16);
    uint64_t found[2];

    (void)state;
    BEGIN(WRITE_VALUE_64, 0, memory, UINT64_C(0x1122334455667788), 0);
    assert_int_equal(run_it(), VGPU_GPU_SUCCESS);
    BEGIN(WRITE_VALUE_32, 0, memory + 12, 0xdeadbeef, 1);
    assert_int_equal(run_it(), VGPU_GPU_SUCCESS);
    read_device(memory, sizeof(found), (uint8_t *)found);
    assert_int_equal(found[0], 0x1122334455667788);
    assert_int_equal(found[1], UINT64_C(0xdeadbeef) << 32);
    assert_int_equal(CALL(WRITE_VALUE_32, 0, memory + 2, 1, 0), VGPU_GPU_INVALID_VALUE);
    assert_int_equal(CALL(WRITE_VALUE_64, 0, memory + 4, 1, 0), VGPU_GPU_INVALID_VALUE);
    assert_int_equal(CALL(WRITE_VALUE_64, 0, memory, 1, 2), VGPU_GPU_INVALID_VALUE);
    assert_int_equal(CALL(WRITE_VALUE_32, 0, memory, UINT64_C(1) << 32, 0), VGPU_GPU_INVALID_VALUE);
    assert_int_equal(CALL(WAIT_VALUE_32, 0, memory + 2, 1, 0), VGPU_GPU_INVALID_VALUE);
    assert_int_equal(CALL(WAIT_VALUE_32, 0, memory, 1, 4), VGPU_GPU_INVALID_VALUE);
    assert_int_equal(CALL(WRITE_VALUE_64, 0, memory + 16, 1, 0), VGPU_GPU_ILLEGAL_ADDRESS);
}

static void test_conditions_of_waits(void **state)
{
    static const struct {
        uint32_t id, flags;
        uint64_t wanted, no, yes;
    } cases[] = {
        {WAIT_VALUE_32, 0, 5, 4, 5},
        {WAIT_VALUE_32, 0, 5, 0x80000005, 0x80000004}, /* by the sign of the difference */
        {WAIT_VALUE_32, 0, 0xfffffff0, 0xffffffef, 3},
        {WAIT_VALUE_32, 1, 5, 6, 5},
        {WAIT_VALUE_32, 2, 6, 9, 4},
        {WAIT_VALUE_32, 3, 0xffff0000, 0x0000ffff, 0x0000fffe},
        {WAIT_VALUE_64, 0, UINT64_C(5) << 32, UINT64_C(5) << 32 | 0, UINT64_C(6) << 32},
        {WAIT_VALUE_64, 0, UINT64_MAX - 1, UINT64_MAX - 2, 7},
        {WAIT_VALUE_64, 1, UINT64_C(1) << 40, 0, UINT64_C(1) << 40},
        {WAIT_VALUE_64, 2, UINT64_C(1) << 40, UINT32_MAX, UINT64_MAX},
        {WAIT_VALUE_64, 3, UINT32_MAX, UINT64_MAX - UINT32_MAX, 0},
    };
    uint64_t *word = (uint64_t *)(void *)fixture.arena;

    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        /* The seventh is there from the start. */
        const bool there = cases[i].no == cases[i].wanted;
        uint64_t stream;

        fixture_tear_down(state);
        assert_int_equal(fixture_set_up_cpu(state), 0);
        word = (uint64_t *)(void *)fixture.arena;
        stream = make(VGPU_CMD_STREAM_CREATE, 0);
        shared_store64(word, cases[i].no);
        BEGIN(cases[i].id, stream, arena_at(0), cases[i].wanted, cases[i].flags);
        post_it(0);
        post_value(VGPU_CMD_STREAM_SYNC, 1, stream);
        for (int step = 0; step < 20; step++) {
            assert_int_equal(steps(), 0);
            nanosleep(&(struct timespec){.tv_nsec = 100000}, NULL);
        }
        if (!there) {
            assert_false(answered(1));
            assert_int_equal(call_value(VGPU_CMD_STREAM_QUERY, stream), VGPU_GPU_NOT_READY);
        }
        shared_store64(word, cases[i].yes);
        wait_for(1);
        assert_int_equal(result_of(1), VGPU_GPU_SUCCESS);
    }
    /* One that never comes ends with the session. */
    BEGIN(WAIT_VALUE_32, 0, arena_at(64), 1, 1);
    post_it(0);
    assert_int_equal(steps(), 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        CPU_TEST(test_values_that_are_written),
        CPU_TEST(test_conditions_of_waits),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
