/* SPDX-License-Identifier: MIT */
/*
 * Streams, functions and launches as a guest calls for them, on the fake GPU and on the cpu
 * backend.
 *
 * Tests: worker/do-work.c, worker/do-stream.c, worker/backend-cpu/
 */
#include <errno.h>

#include "tests/unit/api-fixture.h"

static void test_streams_with_a_priority(void **state)
{
    (void)state;
    assert_int_equal(CALL(STREAM_CREATE, VGPU_STREAM_NON_BLOCKING, (uint64_t)-5), VGPU_GPU_SUCCESS);
    assert_int_equal(seen.priority, -5);
    assert_int_equal(call_value(VGPU_CMD_STREAM_SYNC, back(0)), VGPU_GPU_SUCCESS);
    assert_int_equal(CALL(STREAM_CREATE, 2, 0), VGPU_GPU_INVALID_VALUE);
    fake.next = VGPU_GPU_OUT_OF_MEMORY;
    assert_int_equal(CALL(STREAM_CREATE, 0, 0), VGPU_GPU_OUT_OF_MEMORY);
    assert_int_equal(fake.streams, 1);
    for (uint32_t i = 1; i < HANDLES_MAX; i++) {
        make(VGPU_CMD_EVENT_CREATE, 0);
    }
    /* What gets no handle is not kept. */
    assert_int_equal(CALL(STREAM_CREATE, 0, 0), VGPU_GPU_OUT_OF_MEMORY);
    assert_int_equal(fake.streams, 1);
    assert_int_equal(CALL(UPLOAD_BEGIN, 4), VGPU_GPU_SUCCESS);
    assert_int_equal(CALL(IMAGE_LOAD, 0, 0, 0), VGPU_GPU_OUT_OF_MEMORY);
    assert_int_equal(fake.modules, 0);
}

static void test_launch_with_attributes(void **state)
{
    const struct launch launch = {make_function(make_module(), "f"), {1, 2, 3}, {4, 5, 6}, 7, 0};
    CUlaunchAttribute attributes[2] = {{.id = CU_LAUNCH_ATTRIBUTE_COOPERATIVE},
                                       {.id = CU_LAUNCH_ATTRIBUTE_PRIORITY}};

    (void)state;
    fake_log();
    attributes[1].value.priority = -2;
    begin_launch(&launch, attributes, 2, "parameters", 10);
    assert_int_equal(call_it(), VGPU_GPU_SUCCESS);
    assert_string_equal(fake_log(), "launch");
    for (unsigned i = 0; i < 3; i++) {
        assert_int_equal(fake.launch.grid[i], launch.grid[i]);
        assert_int_equal(fake.launch.block[i], launch.block[i]);
    }
    assert_int_equal(fake.launch.shared_bytes, 7);
    assert_int_equal(seen.attribute_count, 2);
    assert_memory_equal(seen.attributes, attributes, sizeof(attributes));
    assert_int_equal(seen.param_bytes, 10);
    assert_memory_equal(fake.params, "parameters", 10);
}

static void test_attributes_that_hold_handles(void **state)
{
    const struct launch launch = {make_function(make_module(), "f"), {1, 1, 1}, {1, 1, 1}, 0, 0};

    (void)state;
    fake_log();
    for (int id = -2; id < 40; id++) {
        const CUlaunchAttribute attributes[2] = {{.id = CU_LAUNCH_ATTRIBUTE_IGNORE},
                                                 {.id = (CUlaunchAttributeID)id}};
        const bool plain = id >= 0 && id <= 14 && (0x4f7fu >> id & 1);

        /* As cuda.h numbers them: 7, 12 and 13 hold handles, 3 is one of streams. */
        begin_launch(&launch, attributes, 2, "", 0);
        assert_int_equal(call_it(), plain ? VGPU_GPU_SUCCESS : VGPU_GPU_NOT_SUPPORTED);
        assert_string_equal(fake_log(), plain ? "launch" : "");
    }
}

static void test_launches_that_cannot_be(void **state)
{
    struct launch launch = {make_function(make_module(), "f"), {1, 1, 1}, {1, 1, 1}, 0, 0};

    (void)state;
    fake_log();
    for (int i = 0; i < 6; i++) {
        uint64_t *dimension = i < 3 ? &launch.grid[i] : &launch.block[i - 3];

        *dimension = 0;
        begin_launch(&launch, NULL, 0, "", 0);
        assert_int_equal(call_it(), VGPU_GPU_INVALID_VALUE);
        *dimension = 1;
    }
    for (int i = 0; i < 2; i++) {
        /* More attributes, or parameters, than it carries. */
        begin_with(LAUNCH_EX, (const uint64_t *)(const void *)&launch, sizeof(launch) / 8);
        put_word(i == 0 ? 1 : 0);
        put_word(i == 0 ? 0 : 9);
        put_word(0);
        post_it(1);
        assert_int_equal(steps(), -EPROTO);
        assert_false(answered(1));
        again(state);
    }
    launch.function = make_function(make_module(), "f") ^ 1;
    fake_log();
    begin_launch(&launch, NULL, 0, "", 0);
    assert_int_equal(call_it(), VGPU_GPU_INVALID_HANDLE);
    assert_string_equal(fake_log(), "");
}

/* On the cpu backend -------------------------------------------------------------------------- */

/* Launches that come by this way compute the same. */
static void test_launch_on_the_cpu(void **state)
{
    const uint64_t memory = make(VGPU_CMD_MEM_ALLOC, 64);
    const struct launch launch = {make_function(make_module(), "fill"), {1, 1, 1}, {1, 1, 1}, 0, 0};
    const CUlaunchAttribute attribute = {.id = CU_LAUNCH_ATTRIBUTE_PRIORITY};
    const struct {
        uint64_t to, count;
        uint32_t value;
    } params = {memory, 16, 0x01020304};
    uint32_t found[16];

    (void)state;
    begin_launch(&launch, &attribute, 1, &params, 20);
    assert_int_equal(run_it(), VGPU_GPU_SUCCESS);
    read_device(memory, sizeof(found), (uint8_t *)found);
    for (int i = 0; i < 16; i++) {
        assert_int_equal(found[i], 0x01020304);
    }
    begin_launch(&launch, NULL, 0, &params, 16);
    assert_int_equal(run_it(), VGPU_GPU_INVALID_VALUE);
}

static void test_identity_and_occupancy_on_the_cpu(void **state)
{
    const uint64_t function = make_function(make_module(), "vadd");

    (void)state;
    begin(DEVICE_IDENTITY);
    assert_int_equal(call_it(), VGPU_GPU_SUCCESS);
    assert_int_equal(answer()->length, 32);
    assert_string_equal((const char *)answer()->payload + 16, "0000:00:00.0");
    assert_int_equal(CALL(OCCUPANCY, function, 256, 0), VGPU_GPU_SUCCESS);
    assert_int_equal(back(0), 8);
    assert_int_equal(CALL(OCCUPANCY, function, (uint64_t)-1, 0), VGPU_GPU_INVALID_VALUE);
    assert_int_equal(CALL(OCCUPANCY, function, 0, 0), VGPU_GPU_INVALID_VALUE);
    /* What this backend has not. */
    assert_int_equal(CALL(STREAM_GET_ATTRIBUTE, 0, 1), VGPU_GPU_NOT_SUPPORTED);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(test_streams_with_a_priority),      TEST(test_launch_with_attributes),
        TEST(test_attributes_that_hold_handles), TEST(test_launches_that_cannot_be),
        CPU_TEST(test_launch_on_the_cpu),        CPU_TEST(test_identity_and_occupancy_on_the_cpu),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
