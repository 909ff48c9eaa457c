/* SPDX-License-Identifier: MIT */
/*
 * Memory and addresses apart from each other, as a guest calls for them: what counts against its VM
 * from when until when, whatever the GPU says of each step. Each test ends with a session that is
 * released with what it still holds. Memory that is dropped is in test-memory-drop.c.
 *
 * Tests: worker/api-memory*.c, worker/ledger.c
 */
#include <stdlib.h>
#include <string.h>

#include "tests/unit/guest-call.h"
#include "worker/estimate.h"
#include "worker/ring-session.h"

#define QUOTA 100000u
#define AT UINT64_C(0x300000000) /* a range of addresses */

/* What the GPU was asked for last. */
static struct {
    struct gpu_ops ops;
    const struct gpu_ops *fake;
    enum vgpu_gpu_error next; /* what mapping and its kind ends with, once */
    unsigned calls;
    uint64_t address, bytes, memory, alignment, wanted;
    uint32_t compression;
    unsigned created, released;
} seen;

static enum vgpu_gpu_error outcome(uint64_t address, uint64_t bytes, uint64_t memory)
{
    const enum vgpu_gpu_error error = seen.next;

    seen.next = VGPU_GPU_SUCCESS;
    seen.calls++;
    seen.address = address;
    seen.bytes = bytes;
    seen.memory = memory;
    return error;
}

static enum vgpu_gpu_error see_reserve(struct gpu *gpu, uint64_t bytes, uint64_t alignment,
                                       uint64_t wanted, uint64_t *address)
{
    (void)gpu;
    seen.alignment = alignment;
    seen.wanted = wanted;
    *address = AT;
    return outcome(0, bytes, 0);
}

static enum vgpu_gpu_error see_range_free(struct gpu *gpu, uint64_t address, uint64_t bytes)
{
    (void)gpu;
    return outcome(address, bytes, 0);
}

static enum vgpu_gpu_error see_create(struct gpu *gpu, uint64_t bytes, uint32_t compression,
                                      uint64_t *memory)
{
    const enum vgpu_gpu_error error = outcome(0, bytes, 0);

    (void)gpu;
    seen.compression = compression;
    if (error == VGPU_GPU_SUCCESS) {
        *memory = 1000 + ++seen.created;
    }
    return error;
}

static enum vgpu_gpu_error see_release(struct gpu *gpu, uint64_t memory)
{
    const enum vgpu_gpu_error error = outcome(0, 0, memory);

    (void)gpu;
    seen.released += error == VGPU_GPU_SUCCESS;
    return error;
}

static enum vgpu_gpu_error see_map(struct gpu *gpu, uint64_t address, uint64_t bytes,
                                   uint64_t memory)
{
    (void)gpu;
    return outcome(address, bytes, memory);
}

static enum vgpu_gpu_error see_unmap(struct gpu *gpu, uint64_t address, uint64_t bytes)
{
    (void)gpu;
    return outcome(address, bytes, 0);
}

static int set_up(void **state)
{
    const int r = fixture_set_up(state);

    memset(&seen, 0, sizeof(seen));
    seen.fake = fake.head.ops;
    seen.ops = *fake.head.ops;
    seen.ops.range_reserve = see_reserve;
    seen.ops.range_free = see_range_free;
    seen.ops.memory_create = see_create;
    seen.ops.memory_release = see_release;
    seen.ops.memory_map = see_map;
    seen.ops.memory_unmap = see_unmap;
    fake.head.ops = &seen.ops;
    fixture.account.limit = QUOTA;
    return r;
}

static void assert_used(uint64_t bytes)
{
    assert_int_equal(fixture.account.used, bytes);
    assert_int_equal(fixture.turn_page.counters.memory, bytes);
}

static uint64_t create(uint64_t bytes)
{
    assert_int_equal(CALL(CALL_MEMORY_CREATE, bytes, 0), VGPU_GPU_SUCCESS);
    assert_int_not_equal(result_word(), 0);
    return result_word();
}

static void map(uint64_t address, uint64_t bytes, uint64_t allocation)
{
    assert_int_equal(CALL(CALL_MEMORY_MAP, address, bytes, allocation), VGPU_GPU_SUCCESS);
}

/* Addresses ---------------------------------------------------------------------------------- */

static void test_ranges(void **state)
{
    (void)state;
    assert_int_equal(CALL(CALL_ADDRESS_RESERVE, 4096, 512, 77), VGPU_GPU_SUCCESS);
    assert_int_equal(result_word(), AT);
    assert_true(seen.bytes == 4096 && seen.alignment == 512 && seen.wanted == 77);
    assert_int_equal(CALL(CALL_ADDRESS_RESERVE, 4096, 0, 0), VGPU_GPU_SUCCESS);
    assert_int_equal(CALL(CALL_ADDRESS_RESERVE, 1, UINT64_C(1) << 40, 0), VGPU_GPU_SUCCESS);
    assert_int_equal(CALL(CALL_ADDRESS_FREE, AT, 4096), VGPU_GPU_SUCCESS);
    assert_true(seen.address == AT && seen.bytes == 4096);
    /* Addresses are no memory. */
    assert_used(0);
    seen.next = VGPU_GPU_OUT_OF_MEMORY;
    assert_int_equal(CALL(CALL_ADDRESS_RESERVE, 4096, 0, 0), VGPU_GPU_OUT_OF_MEMORY);
    seen.next = VGPU_GPU_INVALID_VALUE;
    assert_int_equal(CALL(CALL_ADDRESS_FREE, AT, 1), VGPU_GPU_INVALID_VALUE);
}

static void test_ranges_that_cannot_be(void **state)
{
    static const uint64_t wrong[] = {3, 513, UINT64_C(1) << 41, (UINT64_C(1) << 40) + 1,
                                     UINT64_MAX};

    (void)state;
    assert_int_equal(CALL(CALL_ADDRESS_RESERVE, 0, 0, 0), VGPU_GPU_INVALID_VALUE);
    for (size_t i = 0; i < sizeof(wrong) / sizeof(wrong[0]); i++) {
        assert_int_equal(CALL(CALL_ADDRESS_RESERVE, 4096, wrong[i], 0), VGPU_GPU_INVALID_VALUE);
    }
    assert_int_equal(seen.calls, 0);
}

static void test_gpu_that_maps_nothing(void **state)
{
    (void)state;
    fake.head.ops = seen.fake;
    assert_int_equal(CALL(CALL_ADDRESS_RESERVE, 4096, 0, 0), VGPU_GPU_NOT_SUPPORTED);
    assert_int_equal(CALL(CALL_ADDRESS_FREE, AT, 4096), VGPU_GPU_NOT_SUPPORTED);
    assert_int_equal(CALL(CALL_MEMORY_CREATE, 4096, 0), VGPU_GPU_NOT_SUPPORTED);
    assert_int_equal(CALL(CALL_MEMORY_UNMAP, AT, 4096), VGPU_GPU_INVALID_VALUE);
    assert_used(0);
}

/* Allocations -------------------------------------------------------------------------------- */

static void test_memory_counts_while_it_is_held(void **state)
{
    uint64_t allocation;

    (void)state;
    assert_int_equal(CALL(CALL_MEMORY_CREATE, 4096, 1), VGPU_GPU_SUCCESS);
    allocation = result_word();
    assert_true(seen.bytes == 4096 && seen.compression == 1);
    assert_used(4096);
    map(AT, 4096, allocation);
    assert_true(seen.address == AT && seen.bytes == 4096 && seen.memory == 1001);
    map(AT + 8192, 4096, allocation);
    assert_used(4096);
    assert_int_equal(CALL(CALL_MEMORY_RELEASE, allocation), VGPU_GPU_SUCCESS);
    assert_int_equal(seen.memory, 1001);
    assert_used(4096);
    /* The handle is gone, the mappings are not. */
    assert_int_equal(CALL(CALL_MEMORY_RELEASE, allocation), VGPU_GPU_INVALID_HANDLE);
    assert_int_equal(CALL(CALL_MEMORY_MAP, AT + 16384, 4096, allocation), VGPU_GPU_INVALID_HANDLE);
    assert_int_equal(CALL(CALL_MEMORY_UNMAP, AT, 4096), VGPU_GPU_SUCCESS);
    assert_used(4096);
    assert_int_equal(CALL(CALL_MEMORY_UNMAP, AT + 8192, 4096), VGPU_GPU_SUCCESS);
    assert_used(0);
    assert_int_equal(seen.released, 1);
}

static void test_memory_is_unmapped_first(void **state)
{
    const uint64_t allocation = create(4096);

    (void)state;
    for (unsigned i = 0; i < 3; i++) {
        map(AT, 4096, allocation);
        assert_int_equal(CALL(CALL_MEMORY_UNMAP, AT, 4096), VGPU_GPU_SUCCESS);
        assert_int_equal(CALL(CALL_MEMORY_UNMAP, AT, 4096), VGPU_GPU_INVALID_VALUE);
        assert_used(4096);
    }
    assert_int_equal(CALL(CALL_MEMORY_RELEASE, allocation), VGPU_GPU_SUCCESS);
    assert_used(0);
}

static void test_quota(void **state)
{
    uint64_t all;

    (void)state;
    assert_int_equal(CALL(CALL_MEMORY_CREATE, QUOTA + 1, 0), VGPU_GPU_OUT_OF_MEMORY);
    assert_int_equal(CALL(CALL_MEMORY_CREATE, UINT64_MAX, 0), VGPU_GPU_OUT_OF_MEMORY);
    assert_int_equal(CALL(CALL_MEMORY_CREATE, 0, 0), VGPU_GPU_INVALID_VALUE);
    assert_int_equal(seen.calls, 0);
    assert_used(0);
    all = create(QUOTA);
    assert_int_equal(CALL(CALL_MEMORY_CREATE, 1, 0), VGPU_GPU_OUT_OF_MEMORY);
    assert_used(QUOTA);
    assert_int_equal(CALL(CALL_MEMORY_RELEASE, all), VGPU_GPU_SUCCESS);
    create(1);
    assert_used(1);
}

/* A table of handles that cannot grow: what was made for the handle is given back. */
static void test_too_many_handles(void **state)
{
    static int object;
    unsigned count = 0;

    (void)state;
    while (handles_add(&fixture.session.handles, HANDLE_FUNCTION, &object, 1) != 0) {
        count++;
    }
    assert_true(count > 1000);
    assert_int_equal(CALL(CALL_MEMORY_CREATE, 4096, 0), VGPU_GPU_OUT_OF_MEMORY);
    assert_true(seen.created == 1 && seen.released == 1 && seen.memory == 1001);
    assert_used(0);
}

static void test_what_the_gpu_refuses(void **state)
{
    uint64_t allocation;

    (void)state;
    seen.next = VGPU_GPU_UNKNOWN;
    assert_int_equal(CALL(CALL_MEMORY_CREATE, 4096, 0), VGPU_GPU_UNKNOWN);
    assert_used(0);
    allocation = create(4096);
    seen.next = VGPU_GPU_UNKNOWN;
    assert_int_equal(CALL(CALL_MEMORY_MAP, AT, 4096, allocation), VGPU_GPU_UNKNOWN);
    assert_int_equal(CALL(CALL_MEMORY_UNMAP, AT, 4096), VGPU_GPU_INVALID_VALUE);
    map(AT, 4096, allocation);
    seen.next = VGPU_GPU_UNKNOWN;
    assert_int_equal(CALL(CALL_MEMORY_RELEASE, allocation), VGPU_GPU_UNKNOWN);
    seen.next = VGPU_GPU_UNKNOWN;
    assert_int_equal(CALL(CALL_MEMORY_UNMAP, AT, 4096), VGPU_GPU_UNKNOWN);
    assert_used(4096);
    /* All is as it was. */
    map(AT + 4096, 4096, allocation);
    assert_int_equal(CALL(CALL_MEMORY_UNMAP, AT, 8192), VGPU_GPU_SUCCESS);
    assert_used(4096);
    assert_int_equal(CALL(CALL_MEMORY_RELEASE, allocation), VGPU_GPU_SUCCESS);
    assert_used(0);
}

static void test_handles_of_allocations(void **state)
{
    const uint64_t allocation = create(4096), stream = make(VGPU_CMD_STREAM_CREATE, 0);
    const uint64_t wrong[] = {0, stream, allocation ^ 1, allocation ^ UINT64_C(1) << 40};

    (void)state;
    seen.calls = 0;
    for (size_t i = 0; i < sizeof(wrong) / sizeof(wrong[0]); i++) {
        assert_int_equal(CALL(CALL_MEMORY_MAP, AT, 4096, wrong[i]), VGPU_GPU_INVALID_HANDLE);
        assert_int_equal(CALL(CALL_MEMORY_RELEASE, wrong[i]), VGPU_GPU_INVALID_HANDLE);
    }
    assert_int_equal(seen.calls, 0);
}

/* Mappings ----------------------------------------------------------------------------------- */

static void test_parts_are_not_mapped(void **state)
{
    static const uint64_t wrong[] = {0, 1, 4095, 4097, 8192, UINT64_MAX};
    const uint64_t allocation = create(4096);

    (void)state;
    seen.calls = 0;
    for (size_t i = 0; i < sizeof(wrong) / sizeof(wrong[0]); i++) {
        assert_int_equal(CALL(CALL_MEMORY_MAP, AT, wrong[i], allocation), VGPU_GPU_INVALID_VALUE);
    }
    assert_int_equal(seen.calls, 0);
}

static void test_whole_mappings_are_unmapped(void **state)
{
    /* Address, bytes: a part of one; others, or what is not mapped, as well; what wraps. */
    static const uint64_t wrong[] = {
        AT,         0,     AT,         4095,           AT,        4097,       AT + 1,    4096,
        AT - 1,     4096,  AT - 1,     4097,           AT - 4096, 4096,       AT + 4096, 4096,
        AT + 8192,  4096,  AT,         8192,           AT + 4096, 8193,       AT,        16384,
        AT - 4096,  16384, AT + 12288, 4096,           AT,        UINT64_MAX, 0,         UINT64_MAX,
        UINT64_MAX, 4096,  AT,         UINT64_MAX - AT};
    const uint64_t first = create(4096), second = create(8192);

    (void)state;
    map(AT + 4096, 8192, second);
    map(AT, 4096, first);
    seen.calls = 0;
    for (size_t i = 0; i < sizeof(wrong) / sizeof(wrong[0]); i += 2) {
        assert_int_equal(CALL(CALL_MEMORY_UNMAP, wrong[i], wrong[i + 1]), VGPU_GPU_INVALID_VALUE);
    }
    assert_int_equal(seen.calls, 0);
    assert_int_equal(CALL(CALL_MEMORY_RELEASE, first), VGPU_GPU_SUCCESS);
    assert_int_equal(CALL(CALL_MEMORY_UNMAP, AT, 4096), VGPU_GPU_SUCCESS);
    assert_used(8192);
    assert_int_equal(CALL(CALL_MEMORY_UNMAP, AT + 4096, 8192), VGPU_GPU_SUCCESS);
    assert_true(seen.address == AT + 4096 && seen.bytes == 8192);
    assert_used(8192);
}

static void test_mappings_that_are_unmapped_at_once(void **state)
{
    uint64_t allocations[4];

    (void)state;
    for (unsigned i = 0; i < 4; i++) {
        allocations[i] = create(4096 * (i + 1));
    }
    /* In no order, and a gap before the last. */
    map(AT + 3 * 4096, 3 * 4096, allocations[2]);
    map(AT + 7 * 4096, 4 * 4096, allocations[3]);
    map(AT, 4096, allocations[0]);
    map(AT + 4096, 2 * 4096, allocations[1]);
    for (unsigned i = 0; i < 4; i++) {
        assert_int_equal(CALL(CALL_MEMORY_RELEASE, allocations[i]), VGPU_GPU_SUCCESS);
    }
    assert_used(10 * 4096);
    assert_int_equal(CALL(CALL_MEMORY_UNMAP, AT, 7 * 4096), VGPU_GPU_INVALID_VALUE);
    assert_int_equal(CALL(CALL_MEMORY_UNMAP, AT, 11 * 4096), VGPU_GPU_INVALID_VALUE);
    assert_int_equal(CALL(CALL_MEMORY_UNMAP, AT, 6 * 4096), VGPU_GPU_SUCCESS);
    assert_used(4 * 4096);
    assert_int_equal(CALL(CALL_MEMORY_UNMAP, AT + 7 * 4096, 4 * 4096), VGPU_GPU_SUCCESS);
    assert_used(0);
}

/* The end of a session ----------------------------------------------------------------------- */

static void test_session_that_holds_all(void **state)
{
    const uint64_t both = create(4096), mapped = create(8192);

    (void)state;
    create(100);
    map(AT, 4096, both);
    map(AT + 4096, 4096, both);
    map(AT + 8192, 8192, mapped);
    assert_int_equal(CALL(CALL_MEMORY_RELEASE, mapped), VGPU_GPU_SUCCESS);
    assert_used(4096 + 8192 + 100);
    memory_release_all(&fixture.session);
    /* The GPU has it until the process has ended. */
    assert_used(4096 + 8192 + 100);
    assert_null(fixture.session.memory.mappings);
    handles_release(&fixture.session.handles);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, set_up, fixture_tear_down)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(test_ranges),
        TEST(test_ranges_that_cannot_be),
        TEST(test_gpu_that_maps_nothing),
        TEST(test_memory_counts_while_it_is_held),
        TEST(test_memory_is_unmapped_first),
        TEST(test_quota),
        TEST(test_too_many_handles),
        TEST(test_what_the_gpu_refuses),
        TEST(test_handles_of_allocations),
        TEST(test_parts_are_not_mapped),
        TEST(test_whole_mappings_are_unmapped),
        TEST(test_mappings_that_are_unmapped_at_once),
        TEST(test_session_that_holds_all),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
