/* SPDX-License-Identifier: MIT */
/*
 * The arguments of each command: a guest that gets lengths, slots, handles, addresses or flags
 * wrong fails its command, or ends its session, and reaches nothing of the GPU with them.
 *
 * Tests: worker/command.c, worker/execution.c, worker/pending.c, worker/do-*.c
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "tests/unit/ring-fixture.h"
#include "tests/unit/unit.h"

enum { SLOT = 1 };

/* As docs/commands.md has it; by hand, to hold what is generated against. */
static const struct {
    uint32_t bytes; /* of the body */
    unsigned flags;
} rules[VGPU_COMMAND_COUNT] = {
    [VGPU_CMD_NOP] = {0, 0},
    [VGPU_CMD_DEVICE_INFO] = {0, SLOT},
    [VGPU_CMD_MEM_INFO] = {0, SLOT},
    [VGPU_CMD_MEM_ALLOC] = {16, SLOT},
    [VGPU_CMD_MEM_FREE] = {16, SLOT},
    [VGPU_CMD_COPY] = {48, 0},
    [VGPU_CMD_FILL] = {48, 0},
    [VGPU_CMD_MODULE_LOAD] = {16, SLOT},
    [VGPU_CMD_MODULE_BUILTIN] = {0, SLOT},
    [VGPU_CMD_MODULE_UNLOAD] = {16, SLOT},
    [VGPU_CMD_FUNCTION_GET] = {16, SLOT},
    [VGPU_CMD_FUNCTION_PARAM] = {16, SLOT},
    [VGPU_CMD_LAUNCH] = {56, 0},
    [VGPU_CMD_STREAM_CREATE] = {16, SLOT},
    [VGPU_CMD_STREAM_DESTROY] = {16, 0},
    [VGPU_CMD_STREAM_WAIT] = {16, 0},
    [VGPU_CMD_STREAM_SYNC] = {16, SLOT},
    [VGPU_CMD_STREAM_QUERY] = {16, SLOT},
    [VGPU_CMD_EVENT_CREATE] = {16, SLOT},
    [VGPU_CMD_EVENT_DESTROY] = {16, 0},
    [VGPU_CMD_EVENT_RECORD] = {16, 0},
    [VGPU_CMD_EVENT_SYNC] = {16, SLOT},
    [VGPU_CMD_EVENT_QUERY] = {16, SLOT},
    [VGPU_CMD_EVENT_ELAPSED] = {16, SLOT},
    [VGPU_CMD_SYNC] = {0, SLOT},
    [VGPU_CMD_FENCE] = {16, SLOT},
    [VGPU_CMD_CALL] = {32, 0},
    [VGPU_CMD_PRINTED] = {16, SLOT},
};

static uint64_t arena_address(void)
{
    return (uint64_t)(uintptr_t)fixture.arena;
}

/* A fresh session for each of many cases in one test. */
static void again(void **state)
{
    assert_int_equal(fixture_tear_down(state), 0);
    assert_int_equal(fixture_set_up(state), 0);
}

/* Lengths and slots -------------------------------------------------------------------------- */

static void test_body_of_the_wrong_length(void **state)
{
    static const uint8_t zeros[VGPU_COMMAND_MAX - sizeof(struct vgpu_command)];

    for (uint32_t opcode = VGPU_CMD_NOP; opcode < VGPU_COMMAND_COUNT; opcode++) {
        const uint32_t right = (rules[opcode].bytes + 15) & ~15u;

        for (uint32_t bytes = 0; bytes <= sizeof(zeros); bytes += bytes < 256 ? 16 : 1024 - 16) {
            again(state);
            post(opcode, 1, zeros, bytes);
            assert_int_equal(steps(), bytes == right ? 0 : -EPROTO);
            assert_int_equal(answered(1), bytes == right);
        }
    }
}

static void test_command_without_the_slot_it_needs(void **state)
{
    static const uint8_t zeros[64];

    for (uint32_t opcode = VGPU_CMD_NOP; opcode < VGPU_COMMAND_COUNT; opcode++) {
        again(state);
        post(opcode, 0, zeros, rules[opcode].bytes);
        assert_int_equal(steps(), rules[opcode].flags & SLOT ? -EPROTO : 0);
    }
}

/* Of a newer guest: answered, so that it can do without. */
static void test_unknown_opcode(void **state)
{
    static const uint32_t opcodes[] = {VGPU_COMMAND_COUNT, 1000, UINT16_MAX};
    static const uint8_t body[128];

    (void)state;
    for (size_t i = 0; i < 3; i++) {
        assert_int_equal(call(opcodes[i], body, sizeof(body)), VGPU_GPU_NOT_SUPPORTED);
        assert_int_equal(call(opcodes[i], NULL, 0), VGPU_GPU_NOT_SUPPORTED);
        post(opcodes[i], 0, body, 16);
        assert_int_equal(call(VGPU_CMD_SYNC, NULL, 0), VGPU_GPU_NOT_SUPPORTED);
        assert_int_equal(call(VGPU_CMD_SYNC, NULL, 0), VGPU_GPU_SUCCESS);
    }
}

/* The guest is told which command ended its session, and why. */
static void test_refusals_tell_which_and_why(void **state)
{
    static const uint8_t zeros[64];
    static const struct {
        uint32_t opcode, slot, bytes;
        enum vgpu_refusal why;
    } cases[] = {
        {VGPU_CMD_COPY, 3, 32, VGPU_REFUSED_LENGTH},
        {VGPU_CMD_COPY, 3, 64, VGPU_REFUSED_LENGTH},
        {VGPU_CMD_SYNC, 0, 0, VGPU_REFUSED_SLOT_WANTED},
        {VGPU_CMD_LAUNCH, 0, 0, VGPU_REFUSED_LENGTH},
    };

    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        const struct vgpu_queue *queue;

        again(state);
        queue = fixture.queue;
        assert_int_equal(call(VGPU_CMD_NOP, NULL, 0), VGPU_GPU_SUCCESS);
        assert_int_equal(queue->refused.why, VGPU_REFUSED_NONE);
        post(cases[i].opcode, cases[i].slot, zeros, cases[i].bytes);
        assert_int_equal(steps(), -EPROTO);
        assert_int_equal(queue->refused.why, cases[i].why);
        assert_int_equal(queue->refused.opcode, cases[i].opcode);
        assert_int_equal(queue->refused.slot, cases[i].slot);
        assert_int_equal(queue->refused.length, 16 + cases[i].bytes);
        assert_int_equal(queue->refused.offset, 16); /* behind the NOP */
    }
    again(state);
    post(VGPU_CMD_STREAM_SYNC, 7, zeros, 16);
    post(VGPU_CMD_LAUNCH, 0, &(struct vgpu_cmd_launch){.attributes = VGPU_ATTRIBUTES_MAX + 1}, 56);
    assert_int_equal(steps(), -EPROTO);
    assert_int_equal(fixture.queue->refused.why, VGPU_REFUSED_COUNT);
    again(state);
    fake.submitted++;
    post(VGPU_CMD_STREAM_SYNC, 7, zeros, 16);
    post(VGPU_CMD_NOP, 7, NULL, 0);
    assert_int_equal(steps(), -EPROTO);
    assert_int_equal(fixture.queue->refused.why, VGPU_REFUSED_SLOT_USED);
    assert_int_equal(fixture.queue->refused.slot, 7);
}

/* Whose failure a synchronising command reports. */
static void test_failures_name_their_culprit(void **state)
{
    const struct vgpu_slot *slot = &fixture.queue->slots[VGPU_SLOTS - 1];
    struct {
        struct vgpu_cmd_call call;
        uint64_t words[4];
    } body = {.call = {.call = 621, .bytes = 32}, .words = {77, 0, 1, 0}};

    (void)state;
    post_value(VGPU_CMD_EVENT_DESTROY, 0, 77);
    assert_int_equal(call(VGPU_CMD_SYNC, NULL, 0), VGPU_GPU_INVALID_HANDLE);
    assert_int_equal(slot->culprit, vgpu_culprit(VGPU_CMD_EVENT_DESTROY, 0));
    /* A call, here cuStreamWriteValue32, by its id too. */
    post(VGPU_CMD_CALL, 0, &body, sizeof(body));
    assert_int_equal(call(VGPU_CMD_SYNC, NULL, 0), VGPU_GPU_INVALID_HANDLE);
    assert_int_equal(slot->culprit, VGPU_CMD_CALL | 621 << 8);
    /* A command's own failure has none, whatever the slot held before. */
    assert_int_equal(call_value(VGPU_CMD_EVENT_SYNC, 77), VGPU_GPU_INVALID_HANDLE);
    assert_int_equal(slot->culprit, 0);
    assert_int_equal(call(VGPU_CMD_SYNC, NULL, 0), VGPU_GPU_SUCCESS);
    assert_int_equal(slot->culprit, 0);
}

/* As many as fit the slot, from the one that was asked for on. */
static void test_parameters_come_in_a_row(void **state)
{
    const uint64_t function = make_function(make_module(), "f");
    const struct vgpu_slot *slot = &fixture.queue->slots[VGPU_SLOTS - 1];
    struct vgpu_result_param params[VGPU_RESULT_PARAMS];

    (void)state;
    assert_int_equal(call_pair(VGPU_CMD_FUNCTION_PARAM, function, 3), VGPU_GPU_SUCCESS);
    assert_int_equal(slot->length, sizeof(params));
    memcpy(params, slot->payload, sizeof(params));
    for (unsigned i = 0; i < VGPU_RESULT_PARAMS; i++) {
        assert_int_equal(params[i].offset, 8 * (3 + i)); /* as the fake GPU has them */
        assert_int_equal(params[i].size, 8);
    }
    fake.next = VGPU_GPU_INVALID_VALUE;
    assert_int_equal(call_pair(VGPU_CMD_FUNCTION_PARAM, function, 3), VGPU_GPU_INVALID_VALUE);
}

/* Memory ------------------------------------------------------------------------------------- */

static void test_results_of_plain_commands(void **state)
{
    const struct vgpu_slot *slot = &fixture.queue->slots[VGPU_SLOTS - 1];
    struct vgpu_result_mem_info memory;
    struct vgpu_device_info info;

    (void)state;
    assert_int_equal(call(VGPU_CMD_DEVICE_INFO, NULL, 0), VGPU_GPU_SUCCESS);
    assert_int_equal(slot->length, sizeof(info));
    memcpy(&info, slot->payload, sizeof(info));
    assert_string_equal(info.name, "fake");
    assert_int_equal(call(VGPU_CMD_MEM_INFO, NULL, 0), VGPU_GPU_SUCCESS);
    assert_int_equal(slot->length, sizeof(memory));
    memcpy(&memory, slot->payload, sizeof(memory));
    assert_int_equal(memory.free, FAKE_FREE);
    assert_int_equal(memory.total, FAKE_TOTAL);
    assert_int_equal(make(VGPU_CMD_MEM_ALLOC, 64), FAKE_ADDRESS);
    assert_int_equal(slot->length, sizeof(struct vgpu_result_value));
}

static void test_failed_command_has_no_payload(void **state)
{
    (void)state;
    assert_int_equal(call_value(VGPU_CMD_MEM_ALLOC, 0), VGPU_GPU_INVALID_VALUE);
    assert_int_equal(fixture.queue->slots[VGPU_SLOTS - 1].length, 0);
    assert_string_equal(fake_log(), "");
    fake.next = VGPU_GPU_OUT_OF_MEMORY;
    assert_int_equal(call_value(VGPU_CMD_MEM_ALLOC, 1), VGPU_GPU_OUT_OF_MEMORY);
    assert_int_equal(fixture.queue->slots[VGPU_SLOTS - 1].length, 0);
}

static enum vgpu_gpu_error copy(uint32_t kind, uint64_t to, uint64_t from, uint64_t bytes)
{
    const struct vgpu_cmd_copy body = {.to = to, .from = from, .bytes = bytes, .kind = kind};

    return call(VGPU_CMD_COPY, &body, sizeof(body));
}

static void test_copy_beyond_the_arena(void **state)
{
    const uint64_t start = arena_address();
    const struct {
        uint64_t address, bytes;
        bool good;
    } cases[] = {
        {start, FIXTURE_ARENA, true},
        {start + 1, FIXTURE_ARENA - 1, true},
        {start + FIXTURE_ARENA - 1, 1, true},
        {start, FIXTURE_ARENA + 1, false},
        {start + 1, FIXTURE_ARENA, false},
        {start - 1, 1, false},
        {start - 1, 2, false},
        {start + FIXTURE_ARENA, 1, false},
        {start + FIXTURE_ARENA + 1, 1, false},
        {start, UINT64_MAX, false},
        {start + 4096, UINT64_MAX - start, false},
        {start + 4096, 0 - (start + 4096), false},
        {start + 4096, UINT64_MAX - 4095, false},
        {0, UINT64_MAX, false},
        {UINT64_MAX, 1, false},
        {(uint64_t)(uintptr_t)fixture.queue, 64, false}, /* memory of ours, but not of the arena */
    };

    (void)state;
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        const enum vgpu_gpu_error result = cases[i].good ? VGPU_GPU_SUCCESS
                                                         : VGPU_GPU_INVALID_VALUE;

        assert_int_equal(copy(VGPU_COPY_TO_DEVICE, 0x7000, cases[i].address, cases[i].bytes),
                         result);
        assert_int_equal(copy(VGPU_COPY_FROM_DEVICE, cases[i].address, 0x7000, cases[i].bytes),
                         result);
        assert_string_equal(fake_log(), cases[i].good ? "copy copy" : "");
    }
}

static void test_copy_of_no_kind(void **state)
{
    static const uint32_t kinds[] = {0, 4, UINT32_MAX};
    struct vgpu_cmd_copy body = {.bytes = 4, .kind = VGPU_COPY_ON_DEVICE};

    (void)state;
    for (size_t i = 0; i < 3; i++) {
        assert_int_equal(copy(kinds[i], 0x7000, arena_address(), 4), VGPU_GPU_INVALID_VALUE);
    }
    body.reserved = 1;
    assert_int_equal(call(VGPU_CMD_COPY, &body, sizeof(body)), VGPU_GPU_INVALID_VALUE);
    body.reserved = UINT64_C(1) << 63;
    assert_int_equal(call(VGPU_CMD_COPY, &body, sizeof(body)), VGPU_GPU_INVALID_VALUE);
    assert_string_equal(fake_log(), "");
    assert_int_equal(copy(VGPU_COPY_ON_DEVICE, 1, 2, 3), VGPU_GPU_SUCCESS);
    assert_string_equal(fake_log(), "copy");
}

static void test_nothing_to_do_is_not_submitted(void **state)
{
    (void)state;
    assert_int_equal(copy(VGPU_COPY_ON_DEVICE, 1, 2, 0), VGPU_GPU_SUCCESS);
    post_fill(1, 0x7000, 0, 4);
    assert_int_equal(steps(), 0);
    assert_int_equal(result_of(1), VGPU_GPU_SUCCESS);
    assert_string_equal(fake_log(), "");
}

static void test_fill_that_cannot_be(void **state)
{
    static const struct {
        uint64_t address, count;
        uint32_t width;
    } cases[] = {
        {0x7000, 1, 0},          {0x7000, 1, 3},          {0x7000, 1, 8},
        {0x7000, 1, UINT32_MAX}, {0x7001, 1, 2},          {0x7002, 1, 4},
        {0x7003, 1, 4},          {0x7000, UINT64_MAX, 4}, {0x7000, UINT64_MAX / 4 + 1, 4},
    };

    (void)state;
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        post_fill(1, cases[i].address, cases[i].count, cases[i].width);
        assert_int_equal(steps(), 0);
        assert_int_equal(result_of(1), VGPU_GPU_INVALID_VALUE);
    }
    assert_string_equal(fake_log(), "");
}

/* Modules and functions ---------------------------------------------------------------------- */

static void test_module_image_is_copied(void **state)
{
    /* Odd lengths, up to the arena's last byte. */
    for (uint64_t bytes = 1; bytes <= 9; bytes++) {
        const uint64_t offset = FIXTURE_ARENA - ((bytes + 3) & ~UINT64_C(3));
        uint8_t expected[16] = {0};

        again(state);
        memcpy(expected, "abcdefghi", bytes);
        memcpy(fixture.arena + offset, "abcdefghi\xff\xff", FIXTURE_ARENA - offset);
        assert_int_equal(call_pair(VGPU_CMD_MODULE_LOAD, arena_address() + offset, bytes),
                         VGPU_GPU_SUCCESS);
        assert_int_equal(fake.image_bytes, bytes);
        assert_memory_equal(fake.image, expected, bytes + 1);
    }
}

static void test_module_image_that_cannot_be(void **state)
{
    const uint64_t start = arena_address();
    const struct vgpu_cmd_module_load cases[] = {
        {start, 0},
        {start + 1, 4},
        {start + 2, 4},
        {start, FIXTURE_ARENA + 1},
        {start + FIXTURE_ARENA, 1},
        {start + FIXTURE_ARENA - 4, 5},
        {start - 4, 8},
        {start, UINT64_MAX},
        {start, UINT64_MAX - 2},
        {0, 4},
        {start, (UINT64_C(1) << 30) + 1},
    };

    (void)state;
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        assert_int_equal(call(VGPU_CMD_MODULE_LOAD, &cases[i], sizeof(cases[i])),
                         VGPU_GPU_INVALID_VALUE);
    }
    fake.next = VGPU_GPU_INVALID_IMAGE;
    assert_int_equal(call_pair(VGPU_CMD_MODULE_LOAD, start, 64), VGPU_GPU_INVALID_IMAGE);
    assert_int_equal(fake.modules, 0);
}

static void test_name_of_a_function(void **state)
{
    static const uint64_t lengths[] = {0,
                                       1,
                                       15,
                                       16,
                                       17,
                                       VGPU_NAME_MAX - 1,
                                       VGPU_NAME_MAX,
                                       VGPU_NAME_MAX + 1,
                                       2 * VGPU_NAME_MAX,
                                       1u << 31,
                                       UINT64_MAX,
                                       UINT64_MAX - 14};
    static struct {
        struct vgpu_cmd_function_get get;
        char name[2 * VGPU_NAME_MAX + 32];
    } body;

    memset(body.name, 'x', sizeof(body.name));
    for (size_t i = 0; i < sizeof(lengths) / sizeof(lengths[0]); i++) {
        const uint64_t carried = lengths[i] <= 2 * VGPU_NAME_MAX ? lengths[i] : 0;

        /* One byte of padding too much, and too little, are -EPROTO as well. */
        for (int off = -16; off <= 16; off += 16) {
            const uint64_t bytes = 16 + ((carried + 15) & ~UINT64_C(15)) + (uint64_t)off;

            again(state);
            body.get.module = make_module();
            body.get.length = lengths[i];
            fake_log();
            post(VGPU_CMD_FUNCTION_GET, 1, &body, (uint32_t)bytes);
            if (off != 0 || lengths[i] >= VGPU_NAME_MAX) {
                assert_int_equal(steps(), -EPROTO);
            } else {
                assert_int_equal(steps(), 0);
                assert_int_equal(result_of(1), VGPU_GPU_SUCCESS);
                assert_int_equal(strlen(fake.log), lengths[i]); /* the name, ended */
            }
        }
    }
}

static void test_parameters_of_a_launch(void **state)
{
    static const uint32_t counts[] = {0,     1,     8,     9,     23,       24,        25,
                                      32763, 32764, 32765, 32768, 1u << 31, UINT32_MAX};
    static struct {
        struct vgpu_cmd_launch launch;
        uint8_t
            params[VGPU_COMMAND_MAX - sizeof(struct vgpu_command) - sizeof(struct vgpu_cmd_launch)];
    } body;

    memset(body.params, 0x3c, sizeof(body.params));
    for (size_t i = 0; i < sizeof(counts) / sizeof(counts[0]); i++) {
        const uint32_t carried = counts[i] <= 32768 ? counts[i] : 0;
        const uint32_t right = (sizeof(body.launch) + carried + 15) & ~15u;

        for (int off = -16; off <= 16; off += 16) {
            again(state);
            body.launch = (struct vgpu_cmd_launch){
                .grid = {1, 2, 3}, .block = {4, 5, 6}, .param_bytes = counts[i]};
            body.launch.function = make_function(make_module(), "f");
            fake_log();
            post(VGPU_CMD_LAUNCH, 1, &body, right + (uint32_t)off);
            if (off != 0 || counts[i] > VGPU_PARAMS_MAX) {
                assert_int_equal(steps(), -EPROTO);
                assert_string_equal(fake_log(), "");
            } else {
                assert_int_equal(steps(), 0);
                assert_int_equal(result_of(1), VGPU_GPU_SUCCESS);
                assert_memory_equal(&fake.launch, &body.launch, sizeof(body.launch));
                assert_memory_equal(fake.params, body.params, carried < 64 ? carried : 64);
            }
        }
    }
}

static void test_launch_of_nothing(void **state)
{
    struct vgpu_cmd_launch body = {.grid = {1, 1, 1}, .block = {1, 1, 1}};

    body.function = make_function(make_module(), "f");
    fake_log();
    for (int i = 0; i < 6; i++) {
        uint32_t *dimension = i < 3 ? &body.grid[i] : &body.block[i - 3];

        *dimension = 0;
        assert_int_equal(call(VGPU_CMD_LAUNCH, &body, sizeof(body)), VGPU_GPU_INVALID_VALUE);
        *dimension = 1;
    }
    assert_string_equal(fake_log(), "");
    again(state);
    body.attributes = 1; /* of which there is none */
    post(VGPU_CMD_LAUNCH, 1, &body, sizeof(body));
    assert_int_equal(steps(), -EPROTO);
}

static enum vgpu_gpu_error launch(uint64_t function, uint64_t stream)
{
    const struct vgpu_cmd_launch body = {
        .function = function, .stream = stream, .grid = {1, 1, 1}, .block = {1, 1, 1}};

    return call(VGPU_CMD_LAUNCH, &body, sizeof(body));
}

static void test_functions_go_with_their_module(void **state)
{
    const uint64_t first = make_module(), second = make_module();
    const uint64_t a = make_function(first, "a"), b = make_function(second, "b");

    (void)state;
    assert_int_equal(call_value(VGPU_CMD_MODULE_UNLOAD, first), VGPU_GPU_SUCCESS);
    assert_int_equal(launch(a, 0), VGPU_GPU_INVALID_HANDLE);
    assert_int_equal(call_pair(VGPU_CMD_FUNCTION_PARAM, a, 0), VGPU_GPU_INVALID_HANDLE);
    assert_int_equal(call_value(VGPU_CMD_MODULE_UNLOAD, first), VGPU_GPU_INVALID_HANDLE);
    assert_int_equal(call_pair(VGPU_CMD_FUNCTION_PARAM, b, 3), VGPU_GPU_SUCCESS);
    assert_int_equal(launch(b, 0), VGPU_GPU_SUCCESS);
}

static void test_module_that_is_unloaded_twice_at_a_time(void **state)
{
    const uint64_t module = make_module();

    (void)state;
    fake_log();
    post_fill(0, 0x7000, 1, 4);
    post_value(VGPU_CMD_MODULE_UNLOAD, 1, module);
    post_value(VGPU_CMD_MODULE_UNLOAD, 2, module);
    assert_int_equal(steps(), 0);
    fake_finish();
    assert_int_equal(steps(), 0);
    assert_int_equal(result_of(1), VGPU_GPU_SUCCESS);
    assert_int_equal(result_of(2), VGPU_GPU_INVALID_HANDLE);
    assert_string_equal(fake_log(), "fill unload");
}

/* Streams and events ------------------------------------------------------------------------- */

static void test_unknown_flags(void **state)
{
    (void)state;
    assert_int_equal(call_value(VGPU_CMD_STREAM_CREATE, 2), VGPU_GPU_INVALID_VALUE);
    assert_int_equal(call_value(VGPU_CMD_STREAM_CREATE, UINT32_MAX), VGPU_GPU_INVALID_VALUE);
    assert_int_equal(call_value(VGPU_CMD_EVENT_CREATE, 1), VGPU_GPU_INVALID_VALUE);
    assert_int_equal(call_value(VGPU_CMD_EVENT_CREATE, UINT64_C(1) << 33), VGPU_GPU_INVALID_VALUE);
    assert_int_equal(fake.streams + fake.events, 0);
    make(VGPU_CMD_STREAM_CREATE, VGPU_STREAM_NON_BLOCKING);
    make(VGPU_CMD_EVENT_CREATE, VGPU_EVENT_NO_TIMING);
}

static void test_event_destroyed_while_it_is_waited_for(void **state)
{
    const uint64_t event = make(VGPU_CMD_EVENT_CREATE, 0);

    (void)state;
    post_fill(0, 0x7000, 1, 4);
    post_pair(VGPU_CMD_EVENT_RECORD, 0, event, 0);
    post_value(VGPU_CMD_EVENT_SYNC, 1, event);
    assert_int_equal(steps(), 0);
    assert_false(answered(1));
    post_value(VGPU_CMD_EVENT_DESTROY, 0, event);
    assert_int_equal(steps(), 0);
    assert_false(answered(1));
    /* One in its place is another event. */
    make(VGPU_CMD_EVENT_CREATE, 0);
    assert_int_equal(call_value(VGPU_CMD_EVENT_QUERY, event), VGPU_GPU_INVALID_HANDLE);
    fake_finish();
    assert_int_equal(steps(), 0);
    assert_int_equal(result_of(1), VGPU_GPU_SUCCESS);
}

/* Somebody records it again and again: what was recorded when the wait began counts. */
static void test_event_recorded_again_while_it_is_waited_for(void **state)
{
    const uint64_t event = make(VGPU_CMD_EVENT_CREATE, 0);

    (void)state;
    post_fill(0, 0x7000, 1, 4);
    post_pair(VGPU_CMD_EVENT_RECORD, 0, event, 0);
    post_value(VGPU_CMD_EVENT_SYNC, 1, event);
    post_fill(0, 0x7000, 1, 4);
    post_pair(VGPU_CMD_EVENT_RECORD, 0, event, 0);
    assert_int_equal(steps(), 0);
    fake.done = 1;
    assert_int_equal(steps(), 0);
    assert_int_equal(result_of(1), VGPU_GPU_SUCCESS);
    assert_int_equal(call_value(VGPU_CMD_EVENT_QUERY, event), VGPU_GPU_NOT_READY);
}

/* The copies of pageable memory use it: what went wrong before is not theirs to report. */
static void test_fence_leaves_failures_to_others(void **state)
{
    (void)state;
    post_fill(0, 0x7000, 1, 3);
    assert_int_equal(call_value(VGPU_CMD_FENCE, 0), VGPU_GPU_SUCCESS);
    assert_int_equal(call_value(VGPU_CMD_STREAM_SYNC, 0), VGPU_GPU_INVALID_VALUE);
    assert_int_equal(call_value(VGPU_CMD_FENCE, 77), VGPU_GPU_INVALID_HANDLE);
}

static void test_reserved_word_that_is_not_zero(void **state)
{
    const struct vgpu_cmd_value body = {.value = 0, .reserved = 1};

    (void)state;
    assert_int_equal(call(VGPU_CMD_STREAM_SYNC, &body, sizeof(body)), VGPU_GPU_INVALID_VALUE);
}

static void test_function_asked_for_again_is_the_same(void **state)
{
    const uint64_t module = make_module();
    const uint64_t first = make_function(module, "kernel");

    (void)state;
    assert_int_equal(make_function(module, "kernel"), first);
}

static void test_event_waits_for_what_was_before_its_record(void **state)
{
    const uint64_t event = make(VGPU_CMD_EVENT_CREATE, 0);

    (void)state;
    assert_int_equal(call_value(VGPU_CMD_EVENT_SYNC, event), VGPU_GPU_SUCCESS); /* never recorded */
    post_fill(0, 0x7000, 1, 4);
    post_pair(VGPU_CMD_EVENT_RECORD, 0, event, 0);
    post_fill(0, 0x7000, 1, 4);
    post_value(VGPU_CMD_EVENT_SYNC, 1, event);
    assert_int_equal(call_value(VGPU_CMD_EVENT_QUERY, event), VGPU_GPU_NOT_READY);
    assert_int_equal(call_value(VGPU_CMD_STREAM_QUERY, 0), VGPU_GPU_NOT_READY);
    assert_false(answered(1));
    fake.done = 1;
    assert_int_equal(steps(), 0);
    assert_int_equal(result_of(1), VGPU_GPU_SUCCESS);
    assert_int_equal(call_value(VGPU_CMD_EVENT_QUERY, event), VGPU_GPU_SUCCESS);
    assert_int_equal(call_value(VGPU_CMD_STREAM_QUERY, 0), VGPU_GPU_NOT_READY);
    assert_int_equal(fixture.turn_page.counters.errors, 0); /* NOT_READY is none */
}

static void test_stream_destroyed_while_it_is_waited_for(void **state)
{
    const uint64_t stream = make(VGPU_CMD_STREAM_CREATE, 0);

    (void)state;
    post_copy(VGPU_COPY_ON_DEVICE, 1, 2, 3, stream);
    post_value(VGPU_CMD_STREAM_SYNC, 1, stream);
    post(VGPU_CMD_SYNC, 2, NULL, 0);
    post_value(VGPU_CMD_STREAM_DESTROY, 0, stream);
    /* It is gone for the guest, and still waited for. */
    post(VGPU_CMD_SYNC, 3, NULL, 0);
    assert_int_equal(steps(), 0);
    assert_int_equal(call_value(VGPU_CMD_STREAM_QUERY, stream), VGPU_GPU_INVALID_HANDLE);
    assert_int_equal(fake.streams, 1);
    for (uint32_t slot = 1; slot <= 3; slot++) {
        assert_false(answered(slot));
    }
    assert_false(ring_session_quiet(&fixture.session));
    fake_finish();
    assert_int_equal(steps(), 0);
    for (uint32_t slot = 1; slot <= 3; slot++) {
        assert_int_equal(result_of(slot), VGPU_GPU_SUCCESS);
    }
    assert_int_equal(fake.streams, 0);
}

/* Each command that takes handles, with each handle that is not of its kind. */
static void test_handles_that_are_wrong(void **state)
{
    const uint64_t module = make_module(), function = make_function(module, "f");
    const uint64_t stream = make(VGPU_CMD_STREAM_CREATE, 0);
    const uint64_t event = make(VGPU_CMD_EVENT_CREATE, 0);
    const uint64_t old_stream = make(VGPU_CMD_STREAM_CREATE, 0);
    const uint64_t old_event = make(VGPU_CMD_EVENT_CREATE, 0);
    const uint64_t values[] = {module,    function, stream,     event,     old_stream,
                               old_event, 0,        UINT64_MAX, stream ^ 1};
    const struct {
        uint32_t opcode;
        int which;      /* of the two words; -1: there is but one */
        uint64_t right; /* the other word is right as well */
        uint64_t other;
        bool zero_is_right; /* the default stream */
    } commands[] = {
        {VGPU_CMD_MODULE_UNLOAD, -1, module, 0, false},
        {VGPU_CMD_FUNCTION_PARAM, 0, function, 0, false},
        {VGPU_CMD_STREAM_DESTROY, -1, stream, 0, false},
        {VGPU_CMD_STREAM_WAIT, 0, stream, event, true},
        {VGPU_CMD_STREAM_WAIT, 1, event, stream, false},
        {VGPU_CMD_STREAM_SYNC, -1, stream, 0, true},
        {VGPU_CMD_STREAM_QUERY, -1, stream, 0, true},
        {VGPU_CMD_EVENT_DESTROY, -1, event, 0, false},
        {VGPU_CMD_EVENT_RECORD, 0, event, stream, false},
        {VGPU_CMD_EVENT_RECORD, 1, stream, event, true},
        {VGPU_CMD_EVENT_SYNC, -1, event, 0, false},
        {VGPU_CMD_EVENT_QUERY, -1, event, 0, false},
        {VGPU_CMD_EVENT_ELAPSED, 0, event, event, false},
        {VGPU_CMD_EVENT_ELAPSED, 1, event, event, false},
    };

    (void)state;
    assert_int_equal(call_value(VGPU_CMD_STREAM_DESTROY, old_stream), VGPU_GPU_SUCCESS);
    assert_int_equal(call_value(VGPU_CMD_EVENT_DESTROY, old_event), VGPU_GPU_SUCCESS);
    fake_log();
    for (size_t c = 0; c < sizeof(commands) / sizeof(commands[0]); c++) {
        for (size_t v = 0; v < sizeof(values) / sizeof(values[0]); v++) {
            const uint64_t other = commands[c].other;

            if (values[v] == commands[c].right || (values[v] == 0 && commands[c].zero_is_right)) {
                continue;
            }
            assert_int_equal(commands[c].which == 1
                                 ? call_pair(commands[c].opcode, other, values[v])
                                 : call_pair(commands[c].opcode, values[v], other),
                             VGPU_GPU_INVALID_HANDLE);
        }
    }
    for (size_t v = 0; v < sizeof(values) / sizeof(values[0]); v++) {
        if (values[v] != function) {
            assert_int_equal(launch(values[v], 0), VGPU_GPU_INVALID_HANDLE);
        }
        if (values[v] != stream && values[v] != 0) {
            const struct vgpu_cmd_fill fill = {
                .address = 0x7000, .width = 1, .stream = values[v], .element = 4, .rows = 1};

            assert_int_equal(launch(function, values[v]), VGPU_GPU_INVALID_HANDLE);
            assert_int_equal(call(VGPU_CMD_FILL, &fill, sizeof(fill)), VGPU_GPU_INVALID_HANDLE);
        }
        if (values[v] != module) {
            assert_int_equal(call_pair(VGPU_CMD_FUNCTION_GET, values[v], 0),
                             VGPU_GPU_INVALID_HANDLE);
        }
    }
    assert_string_equal(fake_log(), ""); /* the GPU was asked for nothing */
}

static void test_guest_that_makes_too_many_streams(void **state)
{
    (void)state;
    for (uint32_t i = 0; i < HANDLES_MAX; i++) {
        make(VGPU_CMD_STREAM_CREATE, 0);
    }
    assert_int_equal(call_value(VGPU_CMD_STREAM_CREATE, 0), VGPU_GPU_OUT_OF_MEMORY);
    assert_int_equal(call_value(VGPU_CMD_EVENT_CREATE, 0), VGPU_GPU_OUT_OF_MEMORY);
    assert_int_equal(call(VGPU_CMD_MODULE_BUILTIN, NULL, 0), VGPU_GPU_OUT_OF_MEMORY);
    /* What has no handle is not left on the GPU. */
    assert_int_equal(fake.streams, HANDLES_MAX);
    assert_int_equal(fake.events, 0);
    assert_int_equal(fake.modules, 0);
    /* A sync waits for them all. */
    post_fill(0, 0x7000, 1, 4);
    post(VGPU_CMD_SYNC, 1, NULL, 0);
    assert_int_equal(steps(), 0);
    assert_false(answered(1));
    assert_int_equal(fake.fences, HANDLES_MAX + 1);
    fake_finish();
    assert_int_equal(steps(), 0);
    assert_int_equal(result_of(1), VGPU_GPU_SUCCESS);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, fixture_set_up, fixture_tear_down)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(test_body_of_the_wrong_length),
        TEST(test_command_without_the_slot_it_needs),
        TEST(test_unknown_opcode),
        TEST(test_results_of_plain_commands),
        TEST(test_failed_command_has_no_payload),
        TEST(test_copy_beyond_the_arena),
        TEST(test_copy_of_no_kind),
        TEST(test_nothing_to_do_is_not_submitted),
        TEST(test_fill_that_cannot_be),
        TEST(test_refusals_tell_which_and_why),
        TEST(test_failures_name_their_culprit),
        TEST(test_parameters_come_in_a_row),
        TEST(test_module_image_is_copied),
        TEST(test_module_image_that_cannot_be),
        TEST(test_name_of_a_function),
        TEST(test_parameters_of_a_launch),
        TEST(test_launch_of_nothing),
        TEST(test_functions_go_with_their_module),
        TEST(test_module_that_is_unloaded_twice_at_a_time),
        TEST(test_unknown_flags),
        TEST(test_event_destroyed_while_it_is_waited_for),
        TEST(test_event_recorded_again_while_it_is_waited_for),
        TEST(test_fence_leaves_failures_to_others),
        TEST(test_reserved_word_that_is_not_zero),
        TEST(test_function_asked_for_again_is_the_same),
        TEST(test_event_waits_for_what_was_before_its_record),
        TEST(test_stream_destroyed_while_it_is_waited_for),
        TEST(test_handles_that_are_wrong),
        TEST(test_guest_that_makes_too_many_streams),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
