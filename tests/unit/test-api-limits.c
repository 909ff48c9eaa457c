/* SPDX-License-Identifier: MIT */
/*
 * Limits of a context that a guest sets: what they take counts as memory of its VM.
 *
 * Tests: worker/api-host*.c, worker/ledger.c
 */
#include "tests/unit/api-fixture.h"

#define RESIDENT 2048u /* threads of a processor */

static void assert_memory_used(uint64_t bytes)
{
    assert_int_equal(fixture.account.used, bytes);
    assert_int_equal(fixture.turn_page.counters.memory, bytes);
}

static void test_limits_are_memory_of_the_vm(void **state)
{
    (void)state;
    fake.head.info.processors = 2;
    fake.head.info.memory_total = 1 << 30;
    fixture.account.limit = 1 << 20;
    assert_int_equal(CALL(SET_LIMIT, CU_LIMIT_MALLOC_HEAP_SIZE, 8192), VGPU_GPU_SUCCESS);
    assert_memory_used(8192);
    assert_int_equal(CALL(SET_LIMIT, CU_LIMIT_PRINTF_FIFO_SIZE, 100), VGPU_GPU_SUCCESS);
    assert_memory_used(8292);
    assert_int_equal(CALL(SET_LIMIT, CU_LIMIT_MALLOC_HEAP_SIZE, 4096), VGPU_GPU_SUCCESS);
    assert_memory_used(4196);
    /* For each thread that there can be. */
    assert_int_equal(CALL(SET_LIMIT, CU_LIMIT_STACK_SIZE, 16), VGPU_GPU_SUCCESS);
    assert_memory_used(4196 + 16 * 2 * RESIDENT);
    assert_int_equal(CALL(SET_LIMIT, CU_LIMIT_STACK_SIZE, 0), VGPU_GPU_SUCCESS);
    assert_memory_used(4196);
}

static void test_limits_that_cannot_be(void **state)
{
    (void)state;
    fake.head.info.processors = 2;
    fake.head.info.memory_total = 1 << 30;
    fixture.account.limit = 1 << 20;
    assert_int_equal(CALL(SET_LIMIT, CU_LIMIT_MALLOC_HEAP_SIZE, 4096), VGPU_GPU_SUCCESS);
    fake_log();
    assert_int_equal(CALL(SET_LIMIT, CU_LIMIT_MALLOC_HEAP_SIZE, (1 << 20) + 1),
                     VGPU_GPU_OUT_OF_MEMORY);
    /* More than the GPU has, whatever the quota. */
    fixture.account.limit = 0;
    assert_int_equal(CALL(SET_LIMIT, CU_LIMIT_PRINTF_FIFO_SIZE, (1 << 30) + 1),
                     VGPU_GPU_INVALID_VALUE);
    assert_int_equal(CALL(SET_LIMIT, CU_LIMIT_MALLOC_HEAP_SIZE, UINT64_MAX),
                     VGPU_GPU_INVALID_VALUE);
    assert_int_equal(CALL(SET_LIMIT, CU_LIMIT_STACK_SIZE, UINT64_C(1) << 60),
                     VGPU_GPU_INVALID_VALUE); /* as bytes it wraps */
    assert_int_equal(CALL(SET_LIMIT, 3, 1), CUDA_ERROR_UNSUPPORTED_LIMIT);
    assert_int_equal(CALL(SET_LIMIT, (uint64_t)-1, 1), VGPU_GPU_INVALID_VALUE);
    assert_string_equal(fake_log(), "");
    assert_memory_used(4096);
    for (uint64_t value = 1; value < 10000; value += 9000) {
        /* Neither less nor more is counted when the driver refuses. */
        fake.next = VGPU_GPU_UNKNOWN;
        assert_int_equal(CALL(SET_LIMIT, CU_LIMIT_MALLOC_HEAP_SIZE, value), VGPU_GPU_UNKNOWN);
        assert_memory_used(4096);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(test_limits_are_memory_of_the_vm),
        TEST(test_limits_that_cannot_be),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
