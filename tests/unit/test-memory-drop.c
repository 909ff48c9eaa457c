/* SPDX-License-Identifier: MIT */
/*
 * Memory that a guest drops: it is freed when the GPU does nothing, and not before; then it does
 * not count any more. What the GPU does not free goes on to count.
 *
 * Tests: worker/api-memory*.c, worker/ledger.c
 */
#include <string.h>

#include "tests/unit/guest-call.h"

#define GRANULE 512u /* what an allocation takes at least */

/* The fake GPU's operations, but for mem_free. */
static struct {
    struct gpu_ops ops;
    const struct gpu_ops *fake;
    uint64_t refused; /* this address is not freed */
    uint64_t freed[64];
    unsigned count;
} seen;

static enum vgpu_gpu_error see_free(struct gpu *gpu, uint64_t address)
{
    if (address == seen.refused) {
        return VGPU_GPU_INVALID_VALUE;
    }
    assert_true(seen.count < sizeof(seen.freed) / sizeof(seen.freed[0]));
    seen.freed[seen.count++] = address;
    return seen.fake->mem_free(gpu, address);
}

static int set_up(void **state)
{
    const int r = fixture_set_up(state);

    memset(&seen, 0, sizeof(seen));
    seen.fake = fake.head.ops;
    seen.ops = *fake.head.ops;
    seen.ops.mem_free = see_free;
    fake.head.ops = &seen.ops;
    return r;
}

static void assert_used(uint64_t bytes)
{
    assert_int_equal(fixture.account.used, bytes);
    assert_int_equal(fixture.turn_page.counters.memory, bytes);
}

/* Work that is not done before fake_finish(). */
static void begin_work(uint64_t address)
{
    post_fill(0, address, 4, 4);
    assert_int_equal(steps(), 0);
    assert_true(fake.submitted > fake.done);
}

static void test_freed_at_once_when_idle(void **state)
{
    const uint64_t address = make(VGPU_CMD_MEM_ALLOC, 100);

    (void)state;
    assert_used(GRANULE);
    assert_int_equal(CALL(CALL_MEMORY_DROP, address), VGPU_GPU_SUCCESS);
    assert_true(seen.count == 1 && seen.freed[0] == address);
    assert_used(0);
    assert_int_equal(steps(), 0);
    assert_int_equal(seen.count, 1);
}

static void test_freed_when_work_is_done(void **state)
{
    const uint64_t first = make(VGPU_CMD_MEM_ALLOC, 100), second = make(VGPU_CMD_MEM_ALLOC, 600);

    (void)state;
    begin_work(first);
    /* Without a slot, as a guest posts it. */
    POST(0, CALL_MEMORY_DROP, first);
    assert_int_equal(CALL(CALL_MEMORY_DROP, second), VGPU_GPU_SUCCESS);
    assert_int_equal(steps(), 0);
    assert_int_equal(seen.count, 0);
    assert_used(3 * GRANULE);
    begin_work(second);
    fake.done = 1;
    assert_int_equal(steps(), 0);
    assert_int_equal(seen.count, 0);
    fake_finish();
    assert_int_equal(steps(), 0);
    assert_int_equal(seen.count, 2);
    assert_int_equal(seen.freed[0] + seen.freed[1], first + second);
    assert_used(0);
}

/* An allocation does not run into the quota for memory that waits to be freed. */
static void test_freed_before_more_is_allocated(void **state)
{
    const uint64_t address = make(VGPU_CMD_MEM_ALLOC, GRANULE);

    (void)state;
    fixture.account.limit = GRANULE;
    begin_work(address);
    assert_int_equal(CALL(CALL_MEMORY_DROP, address), VGPU_GPU_SUCCESS);
    assert_int_equal(call_value(VGPU_CMD_MEM_ALLOC, 1), VGPU_GPU_OUT_OF_MEMORY);
    assert_int_equal(seen.count, 0);
    fake_finish();
    make(VGPU_CMD_MEM_ALLOC, 1);
    assert_int_equal(seen.count, 1);
    assert_used(GRANULE);
}

static void test_freed_before_memory_is_told(void **state)
{
    const uint64_t address = make(VGPU_CMD_MEM_ALLOC, GRANULE);

    (void)state;
    begin_work(address);
    assert_int_equal(CALL(CALL_MEMORY_DROP, address), VGPU_GPU_SUCCESS);
    fake_finish();
    fake_log();
    assert_int_equal(call(VGPU_CMD_MEM_INFO, NULL, 0), VGPU_GPU_SUCCESS);
    assert_string_equal(fake_log(), "free");
}

static void test_drop_that_the_gpu_refuses(void **state)
{
    const uint64_t kept = make(VGPU_CMD_MEM_ALLOC, 100), freed = make(VGPU_CMD_MEM_ALLOC, 100);

    (void)state;
    seen.refused = kept;
    begin_work(freed);
    assert_int_equal(CALL(CALL_MEMORY_DROP, kept), VGPU_GPU_SUCCESS);
    assert_int_equal(CALL(CALL_MEMORY_DROP, freed), VGPU_GPU_SUCCESS);
    fake_finish();
    assert_int_equal(steps(), 0);
    assert_true(seen.count == 1 && seen.freed[0] == freed);
    assert_used(GRANULE);
    /* It is not tried again. */
    seen.refused = 0;
    assert_int_equal(steps(), 0);
    assert_int_equal(seen.count, 1);
    assert_int_equal(call_value(VGPU_CMD_MEM_FREE, kept), VGPU_GPU_SUCCESS);
    assert_used(0);
}

/* What the GPU frees, but was not allocated here, counts for nothing. */
static void test_drop_of_other_addresses(void **state)
{
    static const uint64_t others[] = {0, 1, UINT64_MAX};
    const uint64_t address = make(VGPU_CMD_MEM_ALLOC, 100);

    (void)state;
    for (size_t i = 0; i < sizeof(others) / sizeof(others[0]); i++) {
        assert_int_equal(CALL(CALL_MEMORY_DROP, others[i]), VGPU_GPU_SUCCESS);
        assert_used(GRANULE);
    }
    assert_int_equal(CALL(CALL_MEMORY_DROP, address), VGPU_GPU_SUCCESS);
    /* Nothing is left that could be dropped. */
    assert_int_equal(CALL(CALL_MEMORY_DROP, address), VGPU_GPU_INVALID_VALUE);
    assert_used(0);
}

static void test_many_drops(void **state)
{
    uint64_t addresses[50], sum = 0;

    (void)state;
    for (unsigned round = 0; round < 2; round++) {
        seen.count = 0;
        for (unsigned i = 0; i < 50; i++) {
            addresses[i] = make(VGPU_CMD_MEM_ALLOC, 1);
            sum += addresses[i];
        }
        begin_work(addresses[0]);
        for (unsigned i = 0; i < 50; i++) {
            assert_int_equal(CALL(CALL_MEMORY_DROP, addresses[i]), VGPU_GPU_SUCCESS);
        }
        assert_int_equal(fixture.session.memory.dropped.count, 50);
        assert_used(50 * GRANULE);
        fake_finish();
        assert_int_equal(steps(), 0);
        assert_int_equal(seen.count, 50);
        for (unsigned i = 0; i < 50; i++) {
            sum -= seen.freed[i];
        }
        assert_int_equal(sum, 0);
        assert_used(0);
    }
}

static void test_session_ends_before(void **state)
{
    const uint64_t address = make(VGPU_CMD_MEM_ALLOC, 100);

    (void)state;
    begin_work(address);
    assert_int_equal(CALL(CALL_MEMORY_DROP, address), VGPU_GPU_SUCCESS);
    assert_int_equal(fixture.session.memory.dropped.count, 1);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, set_up, fixture_tear_down)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(test_freed_at_once_when_idle),
        TEST(test_freed_when_work_is_done),
        TEST(test_freed_before_more_is_allocated),
        TEST(test_freed_before_memory_is_told),
        TEST(test_drop_that_the_gpu_refuses),
        TEST(test_drop_of_other_addresses),
        TEST(test_many_drops),
        TEST(test_session_ends_before),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
