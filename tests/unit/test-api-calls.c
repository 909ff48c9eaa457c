/* SPDX-License-Identifier: MIT */
/*
 * Calls of the CUDA driver API as a guest posts them: what their commands and arguments may be, and
 * where results go. Most tests look at what the fake GPU is asked for.
 *
 * Tests: worker/api.c, worker/do-call.c, worker/command.c, worker/execution.c
 */
#include <errno.h>
#include <string.h>

#include "tests/unit/api-fixture.h"

/* Commands ------------------------------------------------------------------------------------ */

static void test_unknown_calls(void **state)
{
    const uint32_t ids[] = {0, 99, 299, 615, 623, api_ids, api_ids + 1, UINT32_MAX};

    (void)state;
    for (size_t i = 0; i < sizeof(ids) / sizeof(ids[0]); i++) {
        assert_int_equal(CALL(ids[i], 1, 2, 3), VGPU_GPU_NOT_SUPPORTED);
        /* Without a slot it is the next synchronisation that says so. */
        post_it(0);
        assert_int_equal(call(VGPU_CMD_SYNC, NULL, 0), VGPU_GPU_NOT_SUPPORTED);
        assert_int_equal(call(VGPU_CMD_SYNC, NULL, 0), VGPU_GPU_SUCCESS);
    }
}

static void test_calls_without_the_slot_they_need(void **state)
{
    unsigned count = 0;

    for (uint32_t id = 0; id < api_ids; id++) {
        const struct api_rule *rule = api_find(id);

        if (rule) {
            again(state);
            begin(id);
            post_it(0);
            assert_int_equal(steps(), rule->flags & COMMAND_SLOT ? -EPROTO : 0);
            count++;
        }
    }
    assert_true(count > 30);
}

static void test_arguments_of_the_wrong_length(void **state)
{
    static const uint32_t wrong[] = {1, 2, 3, 4, 5, 6, 7, 12, 0, 24, 40, 1u << 31, UINT32_MAX - 7};

    for (size_t i = 0; i < sizeof(wrong) / sizeof(wrong[0]); i++) {
        again(state);
        BEGIN(WRITE_VALUE_32, 1, 2);
        body.call.bytes = wrong[i];
        post(VGPU_CMD_CALL, 1, &body, sizeof(body.call) + 16);
        assert_int_equal(steps(), -EPROTO);
        assert_false(answered(1));
    }
    again(state);
    /* Too short for a call at all: nothing of it is looked at. */
    begin(HELLO);
    post(VGPU_CMD_CALL, 1, &body, sizeof(body.call) - 16);
    assert_int_equal(steps(), -EPROTO);
}

/* As many as a command has room for, and a claim of more than it carries. */
static void test_many_arguments(void **state)
{
    static const uint8_t zeros[ROOM];
    static const uint32_t claims[] = {ROOM, ROOM - 8, ROOM + 8, 1u << 31, UINT32_MAX - 7};

    for (size_t i = 0; i < sizeof(claims) / sizeof(claims[0]); i++) {
        const bool right = ((claims[i] + 15) & ~15u) == ROOM;

        again(state);
        begin(HELLO);
        put(zeros, ROOM);
        body.call.bytes = claims[i];
        post(VGPU_CMD_CALL, 1, &body, sizeof(body));
        assert_int_equal(steps(), right ? 0 : -EPROTO);
        assert_true(!right || result_of(1) == VGPU_GPU_INVALID_VALUE);
    }
}

/* Each call, one word short and one too long: nothing is done. */
static void test_too_few_and_too_many_arguments(void **state)
{
    (void)state;
    for (uint32_t id = 0; id < api_ids; id++) {
        static const uint8_t zeros[1024];

        if (!api_find(id)) {
            continue;
        }
        begin(id);
        put(zeros, sizeof(zeros));
        assert_int_not_equal(call_it(), VGPU_GPU_SUCCESS);
    }
    assert_int_equal(CALL(HELLO, 1), VGPU_GPU_SUCCESS);
    assert_int_equal(CALL(HELLO, 1, 0), VGPU_GPU_INVALID_VALUE);
    begin(HELLO);
    assert_int_equal(call_it(), VGPU_GPU_INVALID_VALUE);
    /* What lies behind them is not taken for a handle. */
    assert_int_equal(CALL(FUNCTION_ATTRIBUTES, 2, 77), VGPU_GPU_INVALID_HANDLE);
    assert_int_equal(CALL(FUNCTION_ATTRIBUTES, 2), VGPU_GPU_INVALID_VALUE);
    assert_int_equal(CALL(SET_LIMIT, 0), VGPU_GPU_INVALID_VALUE);
    assert_int_equal(CALL(SET_LIMIT, 0, 1024, 0), VGPU_GPU_INVALID_VALUE);
    assert_string_equal(fake_log(), "");
    assert_int_equal(CALL(FILL_ROWS, 0x7000, 16, 0, 4, 4, 2, 0), VGPU_GPU_SUCCESS);
    assert_string_equal(fake_log(), "fill rows");
}

static void test_reserved_fields(void **state)
{
    (void)state;
    BEGIN(HELLO, 1);
    body.call.reserved = 1;
    assert_int_equal(call_it(), VGPU_GPU_INVALID_VALUE);
    body.call.reserved = 0;
    body.call.reserved2 = UINT64_C(1) << 63;
    assert_int_equal(call_it(), VGPU_GPU_INVALID_VALUE);
    body.call.reserved2 = 0;
    assert_int_equal(call_it(), VGPU_GPU_SUCCESS);
}

static void test_numbers_that_do_not_fit(void **state)
{
    static const uint64_t wrong[] = {INT32_MAX + UINT64_C(1), UINT32_MAX, UINT64_C(1) << 32,
                                     (uint64_t)INT32_MIN - 1, UINT64_C(1) << 63};

    (void)state;
    for (size_t i = 0; i < sizeof(wrong) / sizeof(wrong[0]); i++) {
        assert_int_equal(CALL(SET_CACHE, wrong[i]), VGPU_GPU_INVALID_VALUE);
    }
    assert_int_equal(CALL(SET_CACHE, (uint64_t)INT32_MIN), VGPU_GPU_SUCCESS);
    assert_int_equal(seen.number, INT32_MIN);
    assert_int_equal(CALL(SET_CACHE, INT32_MAX), VGPU_GPU_SUCCESS);
    assert_int_equal(seen.number, INT32_MAX);
    assert_int_equal(CALL(HELLO, UINT32_MAX), VGPU_GPU_SUCCESS);
    assert_int_equal(CALL(HELLO, UINT64_C(1) << 32), VGPU_GPU_INVALID_VALUE);
}

static void test_handles_of_calls(void **state)
{
    const uint64_t module = make_module(), function = make_function(module, "f");
    const uint64_t stream = make(VGPU_CMD_STREAM_CREATE, 0);
    const uint64_t wrong[] = {module, UINT64_MAX, stream ^ 1, stream ^ UINT64_C(1) << 40};

    (void)state;
    fake_log();
    for (size_t i = 0; i < sizeof(wrong) / sizeof(wrong[0]); i++) {
        assert_int_equal(CALL(FUNCTION_ATTRIBUTES, 2, wrong[i]), VGPU_GPU_INVALID_HANDLE);
        assert_int_equal(CALL(FILL_ROWS, 0x7000, 16, 0, 4, 4, 1, wrong[i]),
                         VGPU_GPU_INVALID_HANDLE);
        assert_int_equal(CALL(STREAM_GET_ATTRIBUTE, wrong[i], 1), VGPU_GPU_INVALID_HANDLE);
    }
    assert_int_equal(CALL(FUNCTION_ATTRIBUTES, 2, 0), VGPU_GPU_INVALID_HANDLE);
    assert_string_equal(fake_log(), "");
    assert_int_equal(CALL(FUNCTION_ATTRIBUTES, 2, function), VGPU_GPU_SUCCESS);
    assert_int_equal(CALL(FILL_ROWS, 0x7000, 16, 0, 4, 4, 1, 0), VGPU_GPU_SUCCESS);
    assert_int_equal(CALL(FILL_ROWS, 0x7000, 16, 0, 4, 4, 1, stream), VGPU_GPU_SUCCESS);
    assert_int_equal(CALL(STREAM_GET_ATTRIBUTE, stream, 7), VGPU_GPU_SUCCESS);
    assert_int_equal(seen.number, 7);
    assert_int_equal(answer()->length, 64);
    assert_int_equal(back(7), 0x7777777777777777u);
}

static enum vgpu_gpu_error global(uint64_t module, const char *name, size_t carried, uint64_t bytes)
{
    BEGIN(MODULE_GLOBAL, module, bytes);
    put(name, carried);
    return call_it();
}

static void test_strings(void **state)
{
    const uint64_t module = make_module();

    (void)state;
    assert_int_equal(global(module, "variable", 9, 9), VGPU_GPU_SUCCESS);
    assert_string_equal(seen.name, "variable");
    assert_int_equal(back(0), 0x1234);
    assert_int_equal(back(1), 5);
    seen.name[0] = '\0';
    assert_int_equal(global(module, "variable", 9, 8), VGPU_GPU_INVALID_VALUE);
    assert_int_equal(global(module, "variabl", 8, 7), VGPU_GPU_INVALID_VALUE); /* no NUL in it */
    assert_int_equal(global(module, "va\0iable", 9, 9), VGPU_GPU_INVALID_VALUE);
    assert_int_equal(global(module, "variable", 9, 0), VGPU_GPU_INVALID_VALUE);
    assert_int_equal(global(module, "variable", 9, 17), VGPU_GPU_INVALID_VALUE);
    assert_int_equal(global(module, "variable", 9, UINT64_MAX), VGPU_GPU_INVALID_VALUE);
    assert_int_equal(global(module, "variable", 9, UINT64_MAX - 6), VGPU_GPU_INVALID_VALUE);
    assert_int_equal(global(module, "variable", 9, VGPU_COMMAND_MAX + 1), VGPU_GPU_INVALID_VALUE);
    assert_int_equal(global(module, "", 0, 0), VGPU_GPU_INVALID_VALUE);
    assert_string_equal(seen.name, "");
    assert_int_equal(global(module, "", 1, 1), VGPU_GPU_SUCCESS);
}

static void test_results_that_are_not_wanted(void **state)
{
    (void)state;
    for (uint64_t wanted = 0; wanted < 4; wanted++) {
        assert_int_equal(CALL(PRIORITY_RANGE, wanted), VGPU_GPU_SUCCESS);
        assert_int_equal(seen.least, wanted & 1);
        assert_int_equal(seen.greatest, wanted >> 1);
        assert_true((int64_t)back(0) == (wanted & 1 ? -3 : 0));
        assert_true((int64_t)back(1) == (wanted & 2 ? -5 : 0));
    }
    assert_int_equal(CALL(PRIORITY_RANGE, 4), VGPU_GPU_INVALID_VALUE);
    assert_int_equal(CALL(PRIORITY_RANGE, UINT64_C(1) << 63), VGPU_GPU_INVALID_VALUE);
}

/* Results ------------------------------------------------------------------------------------- */

#define HELLO_BYTES 88u

static void test_results_in_the_slot(void **state)
{
    (void)state;
    assert_int_equal(CALL(HELLO, API_REVISION), VGPU_GPU_SUCCESS);
    assert_int_equal(answer()->length, HELLO_BYTES);
    assert_int_equal(back(0), API_REVISION);
    assert_int_equal(back(2), FAKE_TOTAL);
    assert_string_equal((const char *)answer()->payload + 24, "fake");
    /* What a VM may have is less than what the GPU has. */
    fixture.account.limit = FAKE_TOTAL / 2;
    assert_int_equal(CALL(HELLO, API_REVISION), VGPU_GPU_SUCCESS);
    assert_int_equal(back(2), FAKE_TOTAL / 2);
}

static enum vgpu_gpu_error hello_into(uint64_t reply, uint32_t bytes)
{
    BEGIN(HELLO, API_REVISION);
    body.call.reply = reply;
    body.call.reply_bytes = bytes;
    return call_it();
}

static void test_results_in_the_arena(void **state)
{
    static const uint64_t offsets[] = {64, 3, FIXTURE_ARENA - HELLO_BYTES - 8};

    (void)state;
    for (size_t i = 0; i < sizeof(offsets) / sizeof(offsets[0]); i++) {
        uint8_t *at = fixture.arena + offsets[i];
        uint64_t total;

        memset(at - 3, 0xa5, HELLO_BYTES + 3 + 8);
        assert_int_equal(hello_into(arena_at(offsets[i]), HELLO_BYTES + 8), VGPU_GPU_SUCCESS);
        assert_int_equal(answer()->length, 0);
        memcpy(&total, at + 16, sizeof(total));
        assert_int_equal(total, FAKE_TOTAL);
        assert_string_equal((const char *)at + 24, "fake");
        /* No byte more than the results have. */
        assert_memory_equal(at - 3, "\xa5\xa5\xa5", 3);
        assert_memory_equal(at + HELLO_BYTES, "\xa5\xa5\xa5\xa5\xa5\xa5\xa5\xa5", 8);
    }
    assert_int_equal(hello_into(arena_at(FIXTURE_ARENA - HELLO_BYTES), HELLO_BYTES),
                     VGPU_GPU_SUCCESS);
    assert_int_equal(hello_into(arena_at(0), VGPU_REPLY_MAX), VGPU_GPU_SUCCESS);
}

static void test_replies_that_cannot_be(void **state)
{
    const struct {
        uint64_t reply;
        uint32_t bytes;
    } cases[] = {
        {arena_at(0) - 8, HELLO_BYTES},
        {arena_at(FIXTURE_ARENA), HELLO_BYTES},
        {arena_at(FIXTURE_ARENA - HELLO_BYTES + 1), HELLO_BYTES},
        {arena_at(FIXTURE_ARENA - HELLO_BYTES), HELLO_BYTES + 8},
        {arena_at(FIXTURE_ARENA + 4096), HELLO_BYTES},
        {(uint64_t)(uintptr_t)fixture.queue, HELLO_BYTES},
        {UINT64_MAX, HELLO_BYTES},
        {UINT64_MAX - HELLO_BYTES + 1, HELLO_BYTES},
        {0, HELLO_BYTES},
        {8, HELLO_BYTES},
        {arena_at(0), HELLO_BYTES + 1},
        {arena_at(0), HELLO_BYTES + 4},
        {arena_at(0), HELLO_BYTES + 7},
        {arena_at(0), VGPU_REPLY_MAX + 8},
        {arena_at(0), UINT32_MAX - 7},
        {arena_at(0), HELLO_BYTES - 8}, /* no room for all results */
        {arena_at(0), 8},
        {arena_at(0), 0},
    };
    static uint8_t before[4096];

    (void)state;
    memset(fixture.arena, 0xa5, sizeof(before));
    memset(before, 0xa5, sizeof(before));
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        assert_int_equal(hello_into(cases[i].reply, cases[i].bytes), VGPU_GPU_INVALID_VALUE);
        assert_memory_equal(fixture.arena, before, sizeof(before));
    }
}

static void test_failed_call_has_no_results(void **state)
{
    const uint64_t function = make_function(make_module(), "f");

    (void)state;
    fake.next = VGPU_GPU_UNKNOWN;
    assert_int_equal(CALL(FUNCTION_ATTRIBUTES, 2, function), VGPU_GPU_UNKNOWN);
    assert_int_equal(answer()->length, 0);
    memset(fixture.arena, 0xa5, 8);
    BEGIN(FUNCTION_ATTRIBUTES, 2, function);
    body.call.reply = arena_at(0);
    body.call.reply_bytes = 8;
    fake.next = VGPU_GPU_UNKNOWN;
    assert_int_equal(call_it(), VGPU_GPU_UNKNOWN);
    assert_memory_equal(fixture.arena, "\xa5\xa5\xa5\xa5\xa5\xa5\xa5\xa5", 8);
}

static void test_arrays_of_results(void **state)
{
    const uint64_t function = make_function(make_module(), "f");
    uint32_t values[44];

    (void)state;
    assert_int_equal(CALL(FUNCTION_ATTRIBUTES, 44, function), VGPU_GPU_SUCCESS);
    assert_int_equal(answer()->length, sizeof(values));
    memcpy(values, answer()->payload, sizeof(values));
    for (unsigned i = 0; i < 44; i++) {
        assert_int_equal(values[i], i % 2 == 0 ? 4 * i : 8); /* as the fake GPU has them */
    }
    /* Half a pair is not filled in. */
    assert_int_equal(CALL(FUNCTION_ATTRIBUTES, 3, function), VGPU_GPU_SUCCESS);
    assert_int_equal(answer()->length, 16);
    assert_int_equal(back(1), 0);
    assert_int_equal(CALL(FUNCTION_ATTRIBUTES, 0, function), VGPU_GPU_SUCCESS);
    assert_int_equal(answer()->length, 0);
    assert_int_equal(CALL(FUNCTION_ATTRIBUTES, 45, function), VGPU_GPU_INVALID_VALUE);
    assert_int_equal(CALL(FUNCTION_ATTRIBUTES, UINT32_MAX, function), VGPU_GPU_INVALID_VALUE);
}

static enum vgpu_gpu_error attributes_into(uint64_t count, uint64_t reply, uint32_t bytes)
{
    BEGIN(DEVICE_ATTRIBUTES, count);
    body.call.reply = reply;
    body.call.reply_bytes = bytes;
    return call_it();
}

static void test_device_attributes(void **state)
{
    const int *values = (const int *)(const void *)fixture.arena;

    (void)state;
    assert_int_equal(attributes_into(150, arena_at(0), 600), VGPU_GPU_SUCCESS);
    assert_int_equal(values[CU_DEVICE_ATTRIBUTE_MAX_THREADS_PER_BLOCK], 1024);
    assert_int_equal(values[CU_DEVICE_ATTRIBUTE_WARP_SIZE], 32);
    assert_int_equal(attributes_into(150, arena_at(0), 592), VGPU_GPU_INVALID_VALUE);
    assert_int_equal(attributes_into(VGPU_REPLY_MAX / 4, arena_at(0), VGPU_REPLY_MAX),
                     VGPU_GPU_SUCCESS);
    assert_int_equal(attributes_into(VGPU_REPLY_MAX / 4 + 1, arena_at(0), VGPU_REPLY_MAX),
                     VGPU_GPU_INVALID_VALUE);
    assert_int_equal(attributes_into(UINT32_MAX, arena_at(0), VGPU_REPLY_MAX),
                     VGPU_GPU_INVALID_VALUE);
    /* As many as the slot has room for, and one more. */
    assert_int_equal(attributes_into(43, 0, 0), VGPU_GPU_SUCCESS);
    assert_int_equal(attributes_into(44, 0, 0), VGPU_GPU_SUCCESS);
    assert_int_equal(answer()->length, 176);
    assert_int_equal(attributes_into(45, 0, 0), VGPU_GPU_INVALID_VALUE);
    assert_int_equal(attributes_into(0, 0, 0), VGPU_GPU_SUCCESS);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(test_unknown_calls),
        TEST(test_calls_without_the_slot_they_need),
        TEST(test_arguments_of_the_wrong_length),
        TEST(test_many_arguments),
        TEST(test_too_few_and_too_many_arguments),
        TEST(test_reserved_fields),
        TEST(test_numbers_that_do_not_fit),
        TEST(test_handles_of_calls),
        TEST(test_strings),
        TEST(test_results_that_are_not_wanted),
        TEST(test_results_in_the_slot),
        TEST(test_results_in_the_arena),
        TEST(test_replies_that_cannot_be),
        TEST(test_failed_call_has_no_results),
        TEST(test_arrays_of_results),
        CPU_TEST(test_device_attributes),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
