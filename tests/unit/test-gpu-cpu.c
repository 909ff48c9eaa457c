/* SPDX-License-Identifier: MIT */
/*
 * Ring sessions on the cpu backend: what is computed, what waits, and what a guest may get wrong.
 *
 * Tests: worker/backend-cpu/
 */
#include <errno.h>
#include <string.h>

#include "common/clock.h"
#include "tests/unit/ring-fixture.h"
#include "tests/unit/unit.h"

#define COUNT 1000u                /* elements */
#define MEMORY (UINT64_C(1) << 20) /* of the device, as ring-fixture.c has it */
#define FOR_EVER UINT64_MAX

static uint64_t arena_at(uint64_t offset)
{
    return (uint64_t)(uintptr_t)fixture.arena + offset;
}

static void post_launch(uint64_t function, const void *params, uint32_t bytes)
{
    struct {
        struct vgpu_cmd_launch launch;
        uint8_t params[64];
    } body = {
        .launch = {
            .function = function, .grid = {1, 1, 1}, .block = {1, 1, 1}, .param_bytes = bytes}};

    memcpy(body.params, params, bytes);
    post(VGPU_CMD_LAUNCH, 0, &body, (uint32_t)sizeof(body.launch) + bytes);
}

static void post_spin(uint64_t ns)
{
    post_launch(make_function(make_module(), "spin"), &ns, sizeof(ns));
}

/* Waits for all that was posted; what came of it. */
static enum vgpu_gpu_error sync_all(void)
{
    post(VGPU_CMD_SYNC, 1, NULL, 0);
    wait_for(1);
    return result_of(1);
}

/* The memory is given back behind the work before it, so the answer may take a while. */
static enum vgpu_gpu_error free_at(uint64_t address)
{
    post_value(VGPU_CMD_MEM_FREE, 2, address);
    wait_for(2);
    return result_of(2);
}

static void test_vadd(void **state)
{
    const uint64_t bytes = COUNT * sizeof(float);
    const uint64_t a = make(VGPU_CMD_MEM_ALLOC, bytes), b = make(VGPU_CMD_MEM_ALLOC, bytes);
    const uint64_t sum = make(VGPU_CMD_MEM_ALLOC, bytes);
    const uint64_t params[] = {a, b, sum, COUNT};
    const uint64_t vadd = make_function(make_module(), "vadd");
    float *from = (float *)(void *)fixture.arena;
    const float *to = (const float *)(const void *)(fixture.arena + 8192);

    (void)state;
    for (unsigned i = 0; i < COUNT; i++) {
        from[i] = (float)i;
    }
    post_copy(VGPU_COPY_TO_DEVICE, a, arena_at(0), bytes, 0);
    post_copy(VGPU_COPY_ON_DEVICE, b, a, bytes, 0);
    post_launch(vadd, params, sizeof(params));
    post_copy(VGPU_COPY_FROM_DEVICE, arena_at(8192), sum, bytes, 0);
    assert_int_equal(sync_all(), VGPU_GPU_SUCCESS);
    for (unsigned i = 0; i < COUNT; i++) {
        assert_true(to[i] == (float)(2 * i));
    }
}

static void test_fill_and_reduce(void **state)
{
    const uint64_t data = make(VGPU_CMD_MEM_ALLOC, COUNT * 4), sum = make(VGPU_CMD_MEM_ALLOC, 8);
    const uint64_t module = make_module();
    const uint64_t params[] = {data, COUNT, sum};
    struct {
        uint64_t to, count;
        uint32_t value;
    } fill = {data, COUNT - 1, 0xfffffffe}; /* -2 each */
    int64_t result;

    (void)state;
    post_fill(0, data, COUNT * 4, 1);
    post_fill(0, sum, 2, 4);
    post_launch(make_function(module, "fill"), &fill, 20);
    post_launch(make_function(module, "reduce_sum"), params, sizeof(params));
    post_launch(make_function(module, "reduce_sum"), params, sizeof(params)); /* adds */
    post_copy(VGPU_COPY_FROM_DEVICE, arena_at(0), sum, 8, 0);
    assert_int_equal(sync_all(), VGPU_GPU_SUCCESS);
    memcpy(&result, fixture.arena, sizeof(result));
    assert_int_equal(result, -4 * (int64_t)(COUNT - 1));
}

static void test_memory_is_limited_and_comes_back(void **state)
{
    const uint64_t half = make(VGPU_CMD_MEM_ALLOC, MEMORY / 2);
    uint64_t other;

    (void)state;
    assert_int_equal(call_value(VGPU_CMD_MEM_ALLOC, MEMORY / 2 + 1), VGPU_GPU_OUT_OF_MEMORY);
    assert_int_equal(call_value(VGPU_CMD_MEM_ALLOC, UINT64_MAX), VGPU_GPU_OUT_OF_MEMORY);
    other = make(VGPU_CMD_MEM_ALLOC, MEMORY / 2);
    assert_int_equal(call_value(VGPU_CMD_MEM_ALLOC, 1), VGPU_GPU_OUT_OF_MEMORY);
    assert_int_equal(free_at(half), VGPU_GPU_SUCCESS);
    assert_int_not_equal(make(VGPU_CMD_MEM_ALLOC, MEMORY / 2), other);
}

/* None of these is an allocation's start; the context stays as it is. */
static void test_free_of_what_is_none(void **state)
{
    const uint64_t address = make(VGPU_CMD_MEM_ALLOC, 4096);
    const uint64_t wrong[] = {0,          1,          address + 1, address - 1, address + 4096,
                              UINT64_MAX, arena_at(0)};

    (void)state;
    for (size_t i = 0; i < sizeof(wrong) / sizeof(wrong[0]); i++) {
        assert_int_equal(free_at(wrong[i]), VGPU_GPU_INVALID_VALUE);
    }
    assert_int_equal(free_at(address), VGPU_GPU_SUCCESS);
    assert_int_equal(free_at(address), VGPU_GPU_INVALID_VALUE);
    assert_int_equal(sync_all(), VGPU_GPU_SUCCESS);
}

/* Addresses that a copy and a kernel may not use, the first of which loses the context. */
static void test_address_that_is_none(void **state)
{
    const struct {
        int64_t from_start;
        uint64_t bytes;
    } cases[] = {
        {-1, 2},      {0, 4097},     {4095, 2},       {4096, 1},
        {1 << 20, 1}, {0, 1u << 31}, {1, UINT64_MAX}, {4095, UINT64_MAX - 4094},
    };

    for (size_t i = 0; i < 2 * sizeof(cases) / sizeof(cases[0]); i++) {
        uint64_t address, params[3];

        fixture_tear_down(state);
        assert_int_equal(fixture_set_up_cpu(state), 0);
        address = make(VGPU_CMD_MEM_ALLOC, 4096) + (uint64_t)cases[i / 2].from_start;
        if (i % 2 == 0) {
            post_copy(VGPU_COPY_ON_DEVICE, address, address, cases[i / 2].bytes, 0);
        } else {
            params[0] = address;
            params[1] = cases[i / 2].bytes;
            params[2] = 0;
            post_launch(make_function(make_module(), "fill"), params, 20);
        }
        assert_int_equal(sync_all(), VGPU_GPU_ILLEGAL_ADDRESS);
        assert_int_equal(sync_all(), VGPU_GPU_ILLEGAL_ADDRESS);
        assert_int_equal(call_value(VGPU_CMD_MEM_ALLOC, 1), VGPU_GPU_ILLEGAL_ADDRESS);
        assert_int_equal(call_value(VGPU_CMD_STREAM_CREATE, 0), VGPU_GPU_ILLEGAL_ADDRESS);
        assert_int_equal(call_value(VGPU_CMD_EVENT_CREATE, 0), VGPU_GPU_ILLEGAL_ADDRESS);
        assert_int_equal(call(VGPU_CMD_MODULE_BUILTIN, NULL, 0), VGPU_GPU_ILLEGAL_ADDRESS);
    }
}

static void test_memory_that_was_freed(void **state)
{
    const uint64_t address = make(VGPU_CMD_MEM_ALLOC, 4096);

    (void)state;
    assert_int_equal(free_at(address), VGPU_GPU_SUCCESS);
    post_fill(0, address, 1, 4);
    assert_int_equal(sync_all(), VGPU_GPU_ILLEGAL_ADDRESS);
}

static void test_parameters_that_do_not_fit_the_kernel(void **state)
{
    static const char *const names[] = {"vadd", "fill", "reduce_sum", "spin"};
    static const uint32_t right[] = {32, 20, 24, 8};
    static const uint8_t zeros[64];
    const uint64_t module = make_module();

    (void)state;
    for (int i = 0; i < 4; i++) {
        const uint64_t function = make_function(module, names[i]);

        for (uint32_t bytes = 0; bytes <= 40; bytes++) {
            /* What pads a struct of them is allowed. */
            if (bytes < right[i] || bytes >= right[i] + 16) {
                post_launch(function, zeros, bytes);
                assert_int_equal(sync_all(), VGPU_GPU_INVALID_VALUE);
            }
        }
        assert_int_equal(call_pair(VGPU_CMD_FUNCTION_PARAM, function, 4), VGPU_GPU_INVALID_VALUE);
        assert_int_equal(call_pair(VGPU_CMD_FUNCTION_PARAM, function, UINT64_MAX),
                         VGPU_GPU_INVALID_VALUE);
        assert_int_equal(call_pair(VGPU_CMD_FUNCTION_PARAM, function, 0), VGPU_GPU_SUCCESS);
    }
}

static void test_name_that_no_kernel_has(void **state)
{
    struct {
        struct vgpu_cmd_function_get get;
        char name[16];
    } body = {.get = {.module = make_module(), .length = 4}, .name = "vad"};

    (void)state;
    assert_int_equal(call(VGPU_CMD_FUNCTION_GET, &body, 20), VGPU_GPU_NOT_FOUND);
    assert_int_equal(call_pair(VGPU_CMD_MODULE_LOAD, arena_at(0), 16), VGPU_GPU_NOT_SUPPORTED);
}

/* A kernel that never ends holds up its own session's syncs, and nothing else. */
static void test_kernel_that_never_ends(void **state)
{
    const uint64_t event = make(VGPU_CMD_EVENT_CREATE, 0);
    const uint64_t stream = make(VGPU_CMD_STREAM_CREATE, 0);
    const uint64_t memory = make(VGPU_CMD_MEM_ALLOC, 64);

    (void)state;
    post_spin(FOR_EVER);
    post_pair(VGPU_CMD_EVENT_RECORD, 0, event, 0);
    post(VGPU_CMD_SYNC, 1, NULL, 0);
    post_value(VGPU_CMD_STREAM_SYNC, 2, 0);
    post_value(VGPU_CMD_EVENT_SYNC, 3, event);
    post_value(VGPU_CMD_MEM_FREE, 4, memory);
    assert_int_equal(call_value(VGPU_CMD_STREAM_QUERY, 0), VGPU_GPU_NOT_READY);
    assert_int_equal(call_value(VGPU_CMD_EVENT_QUERY, event), VGPU_GPU_NOT_READY);
    /* A stream that has nothing to do. */
    assert_int_equal(call_value(VGPU_CMD_STREAM_QUERY, stream), VGPU_GPU_SUCCESS);
    assert_int_equal(call_value(VGPU_CMD_STREAM_SYNC, stream), VGPU_GPU_SUCCESS);
    assert_int_equal(call(VGPU_CMD_MEM_INFO, NULL, 0), VGPU_GPU_SUCCESS);
    for (uint32_t slot = 1; slot <= 4; slot++) {
        assert_false(answered(slot));
    }
    assert_int_equal(*turn_word(VGPU_ENGINE_COMPUTE), VGPU_TURN_RUNNING);
    /* More than there is room for behind it: what is too much stays in the ring. */
    for (int i = 0; i < 2200; i++) {
        post_fill(0, memory, 1, 4);
        assert_true(i % 100 != 0 || steps() == 0);
    }
    post_value(VGPU_CMD_EVENT_DESTROY, 0, event);
    assert_int_equal(steps(), 0);
    assert_int_not_equal(fixture.queue->head, fixture.queue->tail);
    assert_true(fixture.session.taken.held);
    /* fixture_tear_down() ends it, with all that was submitted behind it. */
}

static void test_room_comes_back(void **state)
{
    enum { WORDS = 2000 }; /* as many commands fit the ring */
    const uint64_t memory = make(VGPU_CMD_MEM_ALLOC, 4 * WORDS);
    const uint64_t start = clock_ns();
    const uint32_t *words = (const uint32_t *)(const void *)fixture.arena;

    (void)state;
    post_spin(50 * NS_PER_MS);
    for (uint32_t i = 0; i < WORDS; i++) {
        const struct vgpu_cmd_fill fill = {
            .address = memory + 4 * i, .width = 1, .value = i, .element = 4, .rows = 1};

        post(VGPU_CMD_FILL, 0, &fill, sizeof(fill));
    }
    post_copy(VGPU_COPY_FROM_DEVICE, arena_at(0), memory, 4 * WORDS, 0);
    assert_int_equal(sync_all(), VGPU_GPU_SUCCESS);
    assert_true(clock_ns() - start >= 50 * NS_PER_MS);
    for (uint32_t i = 0; i < WORDS; i++) {
        assert_int_equal(words[i], i);
    }
    assert_true(ring_session_quiet(&fixture.session));
}

static void test_events_tell_the_time(void **state)
{
    const uint64_t start = make(VGPU_CMD_EVENT_CREATE, 0), end = make(VGPU_CMD_EVENT_CREATE, 0);
    const uint64_t silent = make(VGPU_CMD_EVENT_CREATE, VGPU_EVENT_NO_TIMING);
    struct vgpu_result_elapsed elapsed;

    (void)state;
    assert_int_equal(call_pair(VGPU_CMD_EVENT_ELAPSED, start, end), VGPU_GPU_INVALID_HANDLE);
    post_pair(VGPU_CMD_EVENT_RECORD, 0, start, 0);
    post_spin(5 * NS_PER_MS);
    post_pair(VGPU_CMD_EVENT_RECORD, 0, end, 0);
    post_pair(VGPU_CMD_EVENT_RECORD, 0, silent, 0);
    assert_int_equal(sync_all(), VGPU_GPU_SUCCESS);
    assert_int_equal(call_pair(VGPU_CMD_EVENT_ELAPSED, start, silent), VGPU_GPU_INVALID_HANDLE);
    assert_int_equal(call_pair(VGPU_CMD_EVENT_ELAPSED, start, end), VGPU_GPU_SUCCESS);
    memcpy(&elapsed, fixture.queue->slots[VGPU_SLOTS - 1].payload, sizeof(elapsed));
    assert_true(elapsed.milliseconds >= 5.0f);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, fixture_set_up_cpu, fixture_tear_down)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(test_vadd),
        TEST(test_fill_and_reduce),
        TEST(test_memory_is_limited_and_comes_back),
        TEST(test_free_of_what_is_none),
        TEST(test_address_that_is_none),
        TEST(test_memory_that_was_freed),
        TEST(test_parameters_that_do_not_fit_the_kernel),
        TEST(test_name_that_no_kernel_has),
        TEST(test_kernel_that_never_ends),
        TEST(test_room_comes_back),
        TEST(test_events_tell_the_time),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
