/* SPDX-License-Identifier: MIT */
/*
 * Calls of the CUDA driver API over a ring, as a guest posts them: what their commands and
 * arguments may be, where results go, images, copies and fills in rows, launches, and in which
 * order calls come among other commands. Most tests look at what the fake GPU is asked for; where
 * bytes matter, the cpu backend moves them.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "common/clock.h"
#include "tests/unit/ring-fixture.h"
#include "tests/unit/unit.h"
#include "worker/api-calls.h"
#include "worker/commands.h"

#define SLOT VGPU_SLOTS /* that call() uses */
#define REMEMBERED 256u /* pieces */
#define WINDOW (100 * NS_PER_US)
#define ROOM (VGPU_COMMAND_MAX - sizeof(struct vgpu_command) - sizeof(struct vgpu_cmd_call))

/* As in api/. */
enum {
    HELLO = 1,
    DEVICE_ATTRIBUTES = 2,
    FUNCTION_PARAMS = 3,
    MODULE_GLOBAL = 5,
    IMAGE_BEGIN = 6,
    IMAGE_WRITE = 7,
    IMAGE_LOAD = 8,
    STREAM_CREATE = 9,
    COPY_3D = 10,
    LAUNCH_EX = 11,
    DEVICE_IDENTITY = 13,
    FILL_ROWS = 14,
    SET_LIMIT = 330,
    GET_CACHE = 332,
    SET_CACHE = 333,
    PRIORITY_RANGE = 336,
    OCCUPANCY = 450,
    STREAM_GET_ATTRIBUTE = 617,
    STREAM_SET_ATTRIBUTE = 618,
    WAIT_VALUE_32 = 619,
    WAIT_VALUE_64 = 620,
    WRITE_VALUE_32 = 621,
    WRITE_VALUE_64 = 622,
};

/* The call that is put together. */
static struct {
    struct vgpu_cmd_call call;
    uint8_t arguments[ROOM];
} body;

static void put(const void *bytes, size_t count)
{
    const size_t padded = (count + 7) & ~(size_t)7;

    if (count > 0) {
        memset(body.arguments + body.call.bytes, 0, padded);
        memcpy(body.arguments + body.call.bytes, bytes, count);
    }
    body.call.bytes += (uint32_t)padded;
}

static void put_word(uint64_t value)
{
    put(&value, sizeof(value));
}

static void begin(uint32_t id)
{
    body.call = (struct vgpu_cmd_call){.call = id};
}

static void begin_with(uint32_t id, const uint64_t *words, size_t count)
{
    begin(id);
    put(words, count * sizeof(words[0]));
}

#define WORDS(...)                                                                                 \
    (const uint64_t[])                                                                             \
    {                                                                                              \
        __VA_ARGS__                                                                                \
    }
#define BEGIN(id, ...) begin_with(id, WORDS(__VA_ARGS__), sizeof(WORDS(__VA_ARGS__)) / 8)

static uint32_t body_bytes(void)
{
    return (uint32_t)sizeof(body.call) + body.call.bytes;
}

static void post_it(uint32_t slot)
{
    post(VGPU_CMD_CALL, slot, &body, body_bytes());
}

static enum vgpu_gpu_error call_it(void)
{
    return call(VGPU_CMD_CALL, &body, body_bytes());
}

#define CALL(...) (BEGIN(__VA_ARGS__), call_it())

static const struct vgpu_slot *answer(void)
{
    return &fixture.queue->slots[SLOT - 1];
}

/* A word of the results in the slot. */
static uint64_t back(unsigned place)
{
    uint64_t word;

    assert_true(8 * (place + 1) <= answer()->length);
    memcpy(&word, answer()->payload + 8 * place, sizeof(word));
    return word;
}

static uint64_t arena_at(uint64_t offset)
{
    return (uint64_t)(uintptr_t)fixture.arena + offset;
}

static uint64_t random_below(uint64_t limit)
{
    static uint64_t state = 88172645463325252u;

    state ^= state << 13;
    state ^= state >> 7;
    state ^= state << 17;
    return state % limit;
}

/* What the GPU was asked for ------------------------------------------------------------------ */

static struct {
    struct gpu_ops ops; /* the fake GPU's, but for those below */
    const struct gpu_ops *fake;
    struct gpu_calls calls;
    struct gpu_rows rows[REMEMBERED];
    struct gpu_fill_rows fills[REMEMBERED];
    unsigned row_count, fill_count;
    CUlaunchAttribute attributes[2];
    uint32_t attribute_count, param_bytes;
    int32_t priority;
    uint8_t image[8192];
    CUjit_option options[4];
    uint64_t values[4];
    uint32_t option_count, info_bytes, error_bytes;
    char name[16];
    int number;
    bool least, greatest;
    enum vgpu_engine engine;
} seen;

static enum vgpu_gpu_error see_copy_rows(struct gpu *gpu, const struct gpu_rows *rows,
                                         struct gpu_stream *stream)
{
    assert_true(seen.row_count < REMEMBERED);
    seen.rows[seen.row_count++] = *rows;
    seen.engine = fixture.session.piece.engine;
    return seen.fake->copy_rows(gpu, rows, stream);
}

static enum vgpu_gpu_error see_fill_rows(struct gpu *gpu, const struct gpu_fill_rows *rows,
                                         struct gpu_stream *stream)
{
    assert_true(seen.fill_count < REMEMBERED);
    seen.fills[seen.fill_count++] = *rows;
    return seen.fake->fill_rows(gpu, rows, stream);
}

static enum vgpu_gpu_error see_launch(struct gpu *gpu, struct gpu_function *function,
                                      const struct gpu_launch *launch, struct gpu_stream *stream)
{
    const uint32_t count = launch->attribute_count < 2 ? launch->attribute_count : 2;

    if (count > 0) {
        memcpy(seen.attributes, launch->attributes, count * sizeof(seen.attributes[0]));
    }
    seen.attribute_count = launch->attribute_count;
    seen.param_bytes = launch->param_bytes;
    return seen.fake->launch(gpu, function, launch, stream);
}

static enum vgpu_gpu_error see_stream_create(struct gpu *gpu, uint32_t flags, int32_t priority,
                                             struct gpu_stream **stream)
{
    seen.priority = priority;
    return seen.fake->stream_create(gpu, flags, priority, stream);
}

static enum vgpu_gpu_error see_module_load(struct gpu *gpu, const void *image, uint64_t bytes,
                                           struct gpu_compile *compile, struct gpu_module **module)
{
    const enum vgpu_gpu_error error = seen.fake->module_load(gpu, image, bytes, compile, module);

    memcpy(seen.image, image, bytes + 1 < sizeof(seen.image) ? bytes + 1 : sizeof(seen.image));
    seen.option_count = compile->count;
    memcpy(seen.options, compile->options, compile->count * sizeof(seen.options[0]));
    memcpy(seen.values, compile->values, compile->count * sizeof(seen.values[0]));
    seen.info_bytes = compile->info_bytes;
    seen.error_bytes = compile->error_bytes;
    memset(compile->info_log, 'i', compile->info_bytes);
    memset(compile->error_log, 'e', compile->error_bytes);
    compile->info_used = compile->info_bytes;
    compile->error_used = compile->error_bytes;
    compile->wall_time = 1.5f;
    return error;
}

static enum vgpu_gpu_error see_set_cache(struct gpu *gpu, CUfunc_cache config)
{
    (void)gpu;
    seen.number = config;
    return VGPU_GPU_SUCCESS;
}

static enum vgpu_gpu_error see_global(struct gpu *gpu, CUdeviceptr *address, size_t *bytes,
                                      struct gpu_module *module, const char *name)
{
    (void)gpu;
    (void)module;
    *address = 0x1234;
    *bytes = 5;
    assert_true(strlen(name) < sizeof(seen.name));
    strcpy(seen.name, name);
    return VGPU_GPU_SUCCESS;
}

static enum vgpu_gpu_error see_range(struct gpu *gpu, int *least, int *greatest)
{
    (void)gpu;
    seen.least = least != NULL;
    seen.greatest = greatest != NULL;
    if (least) {
        *least = -3;
    }
    if (greatest) {
        *greatest = -5;
    }
    return VGPU_GPU_SUCCESS;
}

static enum vgpu_gpu_error see_get_attribute(struct gpu *gpu, struct gpu_stream *stream,
                                             CUstreamAttrID attribute, CUstreamAttrValue *value)
{
    (void)gpu;
    (void)stream;
    seen.number = (int)attribute;
    memset(value, 0x77, sizeof(*value));
    return VGPU_GPU_SUCCESS;
}

static int set_up(void **state)
{
    const int r = fixture_set_up(state);

    memset(&seen, 0, sizeof(seen));
    seen.fake = fake.head.ops;
    seen.ops = *fake.head.ops;
    seen.ops.copy_rows = see_copy_rows;
    seen.ops.fill_rows = see_fill_rows;
    seen.ops.launch = see_launch;
    seen.ops.stream_create = see_stream_create;
    seen.ops.module_load = see_module_load;
    seen.calls.cuCtxSetCacheConfig = see_set_cache;
    seen.calls.module_global = see_global;
    seen.calls.cuCtxGetStreamPriorityRange = see_range;
    seen.calls.cuStreamGetAttribute = see_get_attribute;
    fake.head.ops = &seen.ops;
    fake.head.calls = &seen.calls;
    return r;
}

static void again(void **state)
{
    assert_int_equal(fixture_tear_down(state), 0);
    assert_int_equal(set_up(state), 0);
}

/* Commands ------------------------------------------------------------------------------------ */

static void test_unknown_calls(void **state)
{
    const uint32_t ids[] = {0, 29, 299, 615, 623, api_ids, api_ids + 1, UINT32_MAX};

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
            assert_int_equal(steps(), rule->post ? 0 : -EPROTO);
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
        BEGIN(COPY_3D, 1, 2);
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
    assert_int_equal(CALL(FUNCTION_PARAMS, 2, 77), VGPU_GPU_INVALID_HANDLE);
    assert_int_equal(CALL(FUNCTION_PARAMS, 2), VGPU_GPU_INVALID_VALUE);
    assert_int_equal(CALL(FILL_ROWS, 0x7000, 16, 0, 4, 4, 1), VGPU_GPU_INVALID_VALUE);
    assert_int_equal(CALL(FILL_ROWS, 0x7000, 16, 0, 4, 4, 1, 0, 0), VGPU_GPU_INVALID_VALUE);
    assert_string_equal(fake_log(), "");
    assert_int_equal(CALL(FILL_ROWS, 0x7000, 16, 0, 4, 4, 1, 0), VGPU_GPU_SUCCESS);
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
        assert_int_equal(CALL(FUNCTION_PARAMS, 2, wrong[i]), VGPU_GPU_INVALID_HANDLE);
        assert_int_equal(CALL(FILL_ROWS, 0x7000, 16, 0, 4, 4, 1, wrong[i]),
                         VGPU_GPU_INVALID_HANDLE);
        assert_int_equal(CALL(STREAM_GET_ATTRIBUTE, wrong[i], 1), VGPU_GPU_INVALID_HANDLE);
    }
    assert_int_equal(CALL(FUNCTION_PARAMS, 2, 0), VGPU_GPU_INVALID_HANDLE);
    assert_string_equal(fake_log(), "");
    assert_int_equal(CALL(FUNCTION_PARAMS, 2, function), VGPU_GPU_SUCCESS);
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
    assert_int_equal(CALL(FUNCTION_PARAMS, 2, function), VGPU_GPU_UNKNOWN);
    assert_int_equal(answer()->length, 0);
    memset(fixture.arena, 0xa5, 8);
    BEGIN(FUNCTION_PARAMS, 2, function);
    body.call.reply = arena_at(0);
    body.call.reply_bytes = 8;
    fake.next = VGPU_GPU_UNKNOWN;
    assert_int_equal(call_it(), VGPU_GPU_UNKNOWN);
    assert_memory_equal(fixture.arena, "\xa5\xa5\xa5\xa5\xa5\xa5\xa5\xa5", 8);
}

static void test_function_params(void **state)
{
    const uint64_t function = make_function(make_module(), "f");
    uint32_t values[44];

    (void)state;
    assert_int_equal(CALL(FUNCTION_PARAMS, 44, function), VGPU_GPU_SUCCESS);
    assert_int_equal(answer()->length, sizeof(values));
    memcpy(values, answer()->payload, sizeof(values));
    for (unsigned i = 0; i < 44; i++) {
        assert_int_equal(values[i], i % 2 == 0 ? 4 * i : 8); /* as the fake GPU has them */
    }
    /* Half a pair is not filled in. */
    assert_int_equal(CALL(FUNCTION_PARAMS, 3, function), VGPU_GPU_SUCCESS);
    assert_int_equal(answer()->length, 16);
    assert_int_equal(back(1), 0);
    assert_int_equal(CALL(FUNCTION_PARAMS, 0, function), VGPU_GPU_SUCCESS);
    assert_int_equal(answer()->length, 0);
    assert_int_equal(CALL(FUNCTION_PARAMS, 45, function), VGPU_GPU_INVALID_VALUE);
    assert_int_equal(CALL(FUNCTION_PARAMS, UINT32_MAX, function), VGPU_GPU_INVALID_VALUE);
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

/* Limits -------------------------------------------------------------------------------------- */

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
    assert_int_equal(CALL(SET_LIMIT, (uint64_t)-1, 1), CUDA_ERROR_UNSUPPORTED_LIMIT);
    assert_string_equal(fake_log(), "");
    assert_memory_used(4096);
    for (uint64_t value = 1; value < 10000; value += 9000) {
        /* Neither less nor more is counted when the driver refuses. */
        fake.next = VGPU_GPU_UNKNOWN;
        assert_int_equal(CALL(SET_LIMIT, CU_LIMIT_MALLOC_HEAP_SIZE, value), VGPU_GPU_UNKNOWN);
        assert_memory_used(4096);
    }
}

/* Images -------------------------------------------------------------------------------------- */

/* Brings bytes over by way of the arena. */
static enum vgpu_gpu_error write_image(uint64_t offset, const void *bytes, uint64_t count)
{
    memset(fixture.arena + 4096, 0xee, 8192);
    memcpy(fixture.arena + 4096, bytes, count);
    return CALL(IMAGE_WRITE, offset, arena_at(4096), count);
}

/* The result that the load itself has; the call is to succeed. */
static uint64_t load_image(void)
{
    assert_int_equal(CALL(IMAGE_LOAD, 0, 0, 0), VGPU_GPU_SUCCESS);
    return back(1);
}

static void test_images_in_pieces(void **state)
{
    static const uint64_t pieces[] = {1, 2, 3, 5, 7, 64, 333, 1001, 4000};
    static uint8_t bytes[4000 + 1];

    (void)state;
    for (size_t i = 0; i < sizeof(bytes) - 1; i++) {
        bytes[i] = (uint8_t)(1 + random_below(255));
    }
    for (size_t i = 0; i < sizeof(pieces) / sizeof(pieces[0]); i++) {
        const uint64_t size = sizeof(bytes) - 1;

        assert_int_equal(CALL(IMAGE_BEGIN, size), VGPU_GPU_SUCCESS);
        /* From the last to the first: no byte but its own may be written. */
        for (uint64_t left = size; left > 0;) {
            const uint64_t at = left > pieces[i] ? left - pieces[i] : 0;

            assert_int_equal(write_image(at, bytes + at, left - at), VGPU_GPU_SUCCESS);
            left = at;
        }
        assert_int_equal(load_image(), CUDA_SUCCESS);
        assert_int_equal(call_value(VGPU_CMD_MODULE_UNLOAD, back(0)), VGPU_GPU_SUCCESS);
        assert_int_equal(fake.image_bytes, size);
        assert_memory_equal(seen.image, bytes, sizeof(bytes)); /* with the NUL */
    }
}

static void test_image_with_holes(void **state)
{
    (void)state;
    /* What another image has left is not in them. */
    assert_int_equal(CALL(IMAGE_BEGIN, 16), VGPU_GPU_SUCCESS);
    assert_int_equal(write_image(0, "0123456789abcdef", 16), VGPU_GPU_SUCCESS);
    assert_int_equal(CALL(IMAGE_BEGIN, 16), VGPU_GPU_SUCCESS);
    assert_int_equal(write_image(2, "xyz", 3), VGPU_GPU_SUCCESS);
    assert_int_equal(write_image(15, "!", 1), VGPU_GPU_SUCCESS);
    assert_int_equal(write_image(16, "", 0), VGPU_GPU_SUCCESS);
    assert_int_equal(load_image(), CUDA_SUCCESS);
    assert_int_equal(fake.image_bytes, 16);
    assert_memory_equal(seen.image, "\0\0xyz\0\0\0\0\0\0\0\0\0\0!", 17);
}

static void test_image_writes_that_cannot_be(void **state)
{
    const struct {
        uint64_t offset, from, bytes;
        bool good;
    } cases[] = {
        {0, arena_at(0), 64, true},
        {0, arena_at(FIXTURE_ARENA - 64), 64, true},
        {0, arena_at(FIXTURE_ARENA - 64), 61, true}, /* whole words are read */
        {64, arena_at(FIXTURE_ARENA), 0, true},
        {0, arena_at(0), 65, false},
        {1, arena_at(0), 64, false},
        {65, arena_at(0), 0, false},
        {UINT64_MAX, arena_at(0), 1, false},
        {UINT64_MAX, arena_at(0), 2, false},
        {4, arena_at(0), UINT64_MAX, false},
        {4, arena_at(0), UINT64_MAX - 2, false},
        {0, arena_at(1), 4, false},
        {0, arena_at(2), 4, false},
        {0, arena_at(0) - 4, 8, false},
        {0, arena_at(FIXTURE_ARENA - 4), 5, false},
        {0, arena_at(FIXTURE_ARENA), 1, false},
        {0, 0, 4, false},
        {0, UINT64_MAX - 3, 8, false},
        {0, (uint64_t)(uintptr_t)fixture.queue, 4, false},
    };

    (void)state;
    assert_int_equal(CALL(IMAGE_WRITE, 0, arena_at(0), 4), VGPU_GPU_INVALID_VALUE); /* none yet */
    assert_int_equal(CALL(IMAGE_WRITE, 0, arena_at(0), 0), VGPU_GPU_INVALID_VALUE);
    assert_int_equal(CALL(IMAGE_BEGIN, 64), VGPU_GPU_SUCCESS);
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        assert_int_equal(CALL(IMAGE_WRITE, cases[i].offset, cases[i].from, cases[i].bytes),
                         cases[i].good ? VGPU_GPU_SUCCESS : VGPU_GPU_INVALID_VALUE);
    }
}

static void test_image_sizes(void **state)
{
    static const uint64_t wrong[] = {0, COMMAND_IMAGE_MAX + 1, UINT64_MAX, UINT64_MAX - 1};

    (void)state;
    for (size_t i = 0; i < sizeof(wrong) / sizeof(wrong[0]); i++) {
        assert_int_equal(CALL(IMAGE_BEGIN, 4), VGPU_GPU_SUCCESS);
        assert_int_equal(CALL(IMAGE_BEGIN, wrong[i]), VGPU_GPU_INVALID_VALUE);
        /* Then there is none, not even the one before. */
        assert_int_equal(CALL(IMAGE_LOAD, 0, 0, 0), VGPU_GPU_INVALID_VALUE);
    }
    assert_int_equal(CALL(IMAGE_BEGIN, COMMAND_IMAGE_MAX), VGPU_GPU_SUCCESS);
    assert_int_equal(CALL(IMAGE_WRITE, COMMAND_IMAGE_MAX - 1, arena_at(0), 1), VGPU_GPU_SUCCESS);
    assert_int_equal(CALL(IMAGE_WRITE, COMMAND_IMAGE_MAX - 1, arena_at(0), 2),
                     VGPU_GPU_INVALID_VALUE);
}

static void test_image_is_loaded_once(void **state)
{
    (void)state;
    assert_int_equal(CALL(IMAGE_LOAD, 0, 0, 0), VGPU_GPU_INVALID_VALUE);
    assert_int_equal(CALL(IMAGE_BEGIN, 4), VGPU_GPU_SUCCESS);
    assert_int_equal(load_image(), CUDA_SUCCESS);
    assert_int_equal(fake.modules, 1);
    make_function(back(0), "f");
    assert_int_equal(CALL(IMAGE_LOAD, 0, 0, 0), VGPU_GPU_INVALID_VALUE);
    /* One that the driver refuses is gone as well, and what it said comes back. */
    assert_int_equal(CALL(IMAGE_BEGIN, 4), VGPU_GPU_SUCCESS);
    fake.next = VGPU_GPU_INVALID_PTX;
    assert_int_equal(load_image(), CUDA_ERROR_INVALID_PTX);
    assert_int_equal(back(0), 0);
    assert_int_equal(CALL(IMAGE_LOAD, 0, 0, 0), VGPU_GPU_INVALID_VALUE);
    assert_int_equal(fake.modules, 1);
}

static enum vgpu_gpu_error load_with(const CUjit_option *options, const uint64_t *values,
                                     unsigned count)
{
    BEGIN(IMAGE_LOAD, 0, 0, count);
    put(options, count * sizeof(options[0]));
    put(values, count * sizeof(values[0]));
    return call_it();
}

static void test_options_of_a_load(void **state)
{
    static const CUjit_option plain[] = {CU_JIT_MAX_REGISTERS, CU_JIT_OPTIMIZATION_LEVEL,
                                         CU_JIT_CACHE_MODE};
    static const uint64_t values[] = {32, 4, UINT64_MAX};

    (void)state;
    /* Pointers, results, and what is not known. */
    for (int option = -1; option < 64; option++) {
        switch (option) {
        case CU_JIT_INFO_LOG_BUFFER:
        case CU_JIT_INFO_LOG_BUFFER_SIZE_BYTES:
        case CU_JIT_ERROR_LOG_BUFFER:
        case CU_JIT_ERROR_LOG_BUFFER_SIZE_BYTES:
        case CU_JIT_WALL_TIME:
        case CU_JIT_GLOBAL_SYMBOL_NAMES:
        case CU_JIT_GLOBAL_SYMBOL_ADDRESSES:
        case -1:
        case 63: {
            const CUjit_option options[] = {plain[0], (CUjit_option)option};

            assert_int_equal(CALL(IMAGE_BEGIN, 4), VGPU_GPU_SUCCESS);
            assert_int_equal(load_with(options, values, 2), VGPU_GPU_NOT_SUPPORTED);
            /* The image is given up. */
            assert_int_equal(load_with(plain, values, 3), VGPU_GPU_INVALID_VALUE);
            break;
        }
        default:
            break;
        }
    }
    assert_int_equal(fake.modules, 0);
    assert_int_equal(CALL(IMAGE_BEGIN, 4), VGPU_GPU_SUCCESS);
    assert_int_equal(load_with(plain, values, 3), VGPU_GPU_SUCCESS);
    assert_int_equal(seen.option_count, 3);
    assert_memory_equal(seen.options, plain, sizeof(plain));
    assert_memory_equal(seen.values, values, sizeof(values));
}

static void test_number_of_options(void **state)
{
    static const uint64_t counts[] = {2, 1000, VGPU_COMMAND_MAX, VGPU_COMMAND_MAX + 1, UINT32_MAX};

    (void)state;
    assert_int_equal(CALL(IMAGE_BEGIN, 4), VGPU_GPU_SUCCESS);
    for (size_t i = 0; i < sizeof(counts) / sizeof(counts[0]); i++) {
        /* One option and its value. */
        assert_int_equal(CALL(IMAGE_LOAD, 0, 0, counts[i], 0, 0), VGPU_GPU_INVALID_VALUE);
    }
    assert_int_equal(CALL(IMAGE_LOAD, 0, 0, 1, 0, 0), VGPU_GPU_SUCCESS);
}

static void test_logs_of_a_load(void **state)
{
    float wall_time;
    uint64_t word;

    (void)state;
    assert_int_equal(CALL(IMAGE_BEGIN, 4), VGPU_GPU_SUCCESS);
    /* 40 bytes of other results, so 136 are left in the slot. */
    assert_int_equal(CALL(IMAGE_LOAD, 129, 8, 0), VGPU_GPU_INVALID_VALUE);
    assert_int_equal(CALL(IMAGE_LOAD, UINT32_MAX, UINT32_MAX, 0), VGPU_GPU_INVALID_VALUE);
    assert_int_equal(CALL(IMAGE_LOAD, 121, 7, 0), VGPU_GPU_SUCCESS);
    assert_int_equal(seen.info_bytes, 121);
    assert_int_equal(seen.error_bytes, 7);
    assert_int_equal(answer()->length, 176);
    assert_int_equal(back(3), 121);
    assert_int_equal(back(4), 7);
    word = back(2);
    memcpy(&wall_time, &word, sizeof(wall_time));
    assert_true(wall_time == 1.5f);
    assert_int_equal(answer()->payload[40 + 120], 'i');
    assert_int_equal(answer()->payload[40 + 121], 0);
    assert_memory_equal(answer()->payload + 40 + 128, "eeeeeee", 8);
}

/* On the cpu backend, whose compiler knows one text. */
static void test_built_in_text_is_loaded(void **state)
{
    extern const char cuda_kernels_ptx[];
    const uint64_t length = strlen(cuda_kernels_ptx);

    (void)state;
    for (uint64_t nul = 0; nul < 2; nul++) {
        assert_int_equal(CALL(IMAGE_BEGIN, length + nul), VGPU_GPU_SUCCESS);
        for (uint64_t at = 0; at < length; at += 999) {
            const uint64_t bytes = length - at < 999 ? length - at : 999;

            assert_int_equal(write_image(at, cuda_kernels_ptx + at, bytes), VGPU_GPU_SUCCESS);
        }
        assert_int_equal(load_image(), CUDA_SUCCESS);
        make_function(back(0), "vadd");
    }
    assert_int_equal(CALL(IMAGE_BEGIN, length), VGPU_GPU_SUCCESS);
    assert_int_equal(write_image(0, cuda_kernels_ptx, 999), VGPU_GPU_SUCCESS);
    assert_int_equal(load_image(), CUDA_ERROR_NOT_SUPPORTED);
    assert_int_equal(back(0), 0);
}

/* Streams and launches ------------------------------------------------------------------------ */

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
    assert_int_equal(CALL(IMAGE_BEGIN, 4), VGPU_GPU_SUCCESS);
    assert_int_equal(CALL(IMAGE_LOAD, 0, 0, 0), VGPU_GPU_OUT_OF_MEMORY);
    assert_int_equal(fake.modules, 0);
}

struct launch {
    uint64_t function, grid[3], block[3], shared, stream;
};

static void begin_launch(const struct launch *launch, const CUlaunchAttribute *attributes,
                         uint32_t count, const void *params, uint32_t param_bytes)
{
    begin_with(LAUNCH_EX, (const uint64_t *)(const void *)launch, sizeof(*launch) / 8);
    put_word(count);
    put_word(param_bytes);
    put(attributes, count * sizeof(attributes[0]));
    put(params, param_bytes);
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
        *dimension = UINT64_C(1) << 32 | 1;
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
        assert_int_equal(call_it(), VGPU_GPU_INVALID_VALUE);
    }
    launch.function ^= 1;
    begin_launch(&launch, NULL, 0, "", 0);
    assert_int_equal(call_it(), VGPU_GPU_INVALID_HANDLE);
    assert_string_equal(fake_log(), "");
}

/* Copies and fills in rows -------------------------------------------------------------------- */

/* The arguments of copy_3d, in their order. */
struct box {
    uint64_t to, to_pitch, to_rows, from, from_pitch, from_rows, width, height, depth, kind, stream;
};

static void begin_box(const struct box *box)
{
    begin_with(COPY_3D, (const uint64_t *)(const void *)box, sizeof(*box) / 8);
}

static enum vgpu_gpu_error copy_box(const struct box *box)
{
    begin_box(box);
    return call_it();
}

#define HUGE_NUMBER (UINT64_C(1) << 63)

static void test_boxes_that_cannot_be(void **state)
{
    const uint64_t device = 0x7000, arena = arena_at(4096);
    const struct box good[] = {
        {device, 16, 4, arena, 16, 4, 8, 3, 2, VGPU_COPY_TO_DEVICE, 0},
        {arena, 16, 4, device, 16, 4, 8, 3, 2, VGPU_COPY_FROM_DEVICE, 0},
        {device, 16, 4, device + 4096, 16, 4, 8, 3, 2, VGPU_COPY_ON_DEVICE, 0},
    };
    /* What is wrong with a side, of either kind. */
    const struct {
        uint64_t address, pitch, rows;
    } sides[] = {
        {arena, 7, 4}, /* the pitch */
        {arena, 0, 4},
        {arena, 16, 2}, /* the rows */
        {arena, 16, 0},
        {arena, HUGE_NUMBER, 4}, /* pitch times rows */
        {arena, UINT64_MAX / 6 + 1, 4},
        {arena, 16, HUGE_NUMBER}, /* rows times pitch */
        {arena, 16, UINT64_MAX},  /* rows plus height */
        {arena, 16, UINT64_MAX - 2},
        {UINT64_MAX - 20, 16, 4}, /* the address wraps */
        {UINT64_MAX, 16, 4},
    };

    (void)state;
    for (int kind = 0; kind < 3; kind++) {
        assert_int_equal(copy_box(&good[kind]), VGPU_GPU_SUCCESS);
        assert_int_equal(seen.rows[seen.row_count - 1].kind, kind + 1);
    }
    fake_log();
    for (size_t i = 0; i < sizeof(sides) / sizeof(sides[0]); i++) {
        for (int kind = 0; kind < 3; kind++) {
            struct box box = good[kind];

            box.to = box.kind == VGPU_COPY_TO_DEVICE && i < 9 ? box.to : sides[i].address;
            box.to_pitch = sides[i].pitch;
            box.to_rows = sides[i].rows;
            assert_int_equal(copy_box(&box), VGPU_GPU_INVALID_VALUE);
            box = good[kind];
            box.from = box.kind == VGPU_COPY_FROM_DEVICE && i < 9 ? box.from : sides[i].address;
            box.from_pitch = sides[i].pitch;
            box.from_rows = sides[i].rows;
            assert_int_equal(copy_box(&box), VGPU_GPU_INVALID_VALUE);
        }
    }
    assert_string_equal(fake_log(), "");
}

static void test_boxes_of_no_kind(void **state)
{
    static const uint64_t kinds[] = {0, 4, UINT32_MAX, UINT64_C(1) << 32 | 1};
    struct box box = {0x7000, 16, 4, 0x8000, 16, 4, 8, 3, 2, 0, 0};

    (void)state;
    for (size_t i = 0; i < sizeof(kinds) / sizeof(kinds[0]); i++) {
        box.kind = kinds[i];
        assert_int_equal(copy_box(&box), VGPU_GPU_INVALID_VALUE);
    }
    assert_string_equal(fake_log(), "");
}

static void test_boxes_of_nothing(void **state)
{
    (void)state;
    for (int i = 0; i < 3; i++) {
        struct box box = {0, 0, 0, 0, 0, 0, 8, 3, 2, VGPU_COPY_TO_DEVICE, 0};

        *(i == 0 ? &box.width : i == 1 ? &box.height : &box.depth) = 0;
        assert_int_equal(copy_box(&box), VGPU_GPU_SUCCESS);
    }
    assert_string_equal(fake_log(), "");
}

/* Products that wrap to something small. */
static void test_boxes_whose_size_wraps(void **state)
{
    static const struct {
        uint64_t width, height, depth;
    } sizes[] = {
        {1, UINT64_C(1) << 32, UINT64_C(1) << 32},
        {1, HUGE_NUMBER, 2},
        {2, HUGE_NUMBER, 1},
        {UINT64_C(1) << 33, UINT64_C(1) << 31, 1},
        {UINT64_MAX, 2, 1},
        {UINT64_MAX, 1, 2},
        {1, UINT64_MAX, UINT64_MAX},
        {UINT64_C(1) << 62, 2, 2},
        {8, 1, UINT64_C(1) << 61},
        {8, 1, HUGE_NUMBER + 1},
    };

    (void)state;
    for (size_t i = 0; i < sizeof(sizes) / sizeof(sizes[0]); i++) {
        for (uint64_t kind = 1; kind <= 3; kind++) {
            const uint64_t to = kind == VGPU_COPY_FROM_DEVICE ? arena_at(0) : 0x7000;
            const uint64_t from = kind == VGPU_COPY_TO_DEVICE ? arena_at(0) : 0x7000;
            struct box box = {to,
                              sizes[i].width,
                              sizes[i].height,
                              from,
                              sizes[i].width,
                              sizes[i].height,
                              sizes[i].width,
                              sizes[i].height,
                              sizes[i].depth,
                              kind,
                              0};

            assert_int_equal(copy_box(&box), VGPU_GPU_INVALID_VALUE);
            /* Pitches that would be too small, were the size not wrapped. */
            box.to_pitch = box.from_pitch = 0;
            assert_int_equal(copy_box(&box), VGPU_GPU_INVALID_VALUE);
        }
    }
    assert_string_equal(fake_log(), "");
}

/* Slices so far apart that their distances wrap to something small. */
static void test_slices_whose_distance_wraps(void **state)
{
    static const uint64_t rows[][2] = {
        /* rows, depth */
        {HUGE_NUMBER, 3},
        {HUGE_NUMBER / 2, 5},
        {HUGE_NUMBER + 4, 3},
        {HUGE_NUMBER / 8 + 4, 17},
    };

    (void)state;
    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        struct box box = {0x7000, 16, 4, arena_at(0), 16, rows[i][0], 8, 3, rows[i][1], 0, 0};

        box.kind = VGPU_COPY_TO_DEVICE;
        assert_int_equal(copy_box(&box), VGPU_GPU_INVALID_VALUE);
        box.kind = VGPU_COPY_ON_DEVICE;
        assert_int_equal(copy_box(&box), VGPU_GPU_INVALID_VALUE);
        box.from_rows = 4;
        box.to_rows = rows[i][0];
        assert_int_equal(copy_box(&box), VGPU_GPU_INVALID_VALUE);
    }
    assert_string_equal(fake_log(), "");
}

/* Each side that lies in the arena, around its ends: the last row has no pitch behind it. */
static void test_boxes_around_the_ends_of_the_arena(void **state)
{
    /* 2 slices of 4 rows, the last row of 8 bytes: 7 pitches and 8 bytes. */
    const uint64_t bytes = (4 + 3 - 1) * 16 + 8;
    const struct {
        uint64_t address;
        bool good;
    } cases[] = {
        {arena_at(0), true},
        {arena_at(0) - 1, false},
        {arena_at(0) - bytes, false},
        {arena_at(FIXTURE_ARENA - bytes), true},
        {arena_at(FIXTURE_ARENA - bytes) + 1, false},
        {arena_at(FIXTURE_ARENA - bytes) + 8, false},
        {arena_at(FIXTURE_ARENA), false},
        {0, false},
    };

    (void)state;
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        const enum vgpu_gpu_error result = cases[i].good ? VGPU_GPU_SUCCESS
                                                         : VGPU_GPU_INVALID_VALUE;
        struct box box = {0x7000, 16, 4, cases[i].address, 16, 4, 8, 3, 2, VGPU_COPY_TO_DEVICE, 0};

        assert_int_equal(copy_box(&box), result);
        box.to = cases[i].address;
        box.from = 0x7000;
        box.kind = VGPU_COPY_FROM_DEVICE;
        assert_int_equal(copy_box(&box), result);
        /* The device's side is the driver's to check. */
        box.kind = VGPU_COPY_TO_DEVICE;
        box.to = 0x7000;
        box.from = arena_at(0);
        assert_int_equal(copy_box(&box), VGPU_GPU_SUCCESS);
    }
}

/* A single row needs no pitch. */
static void test_box_of_one_row(void **state)
{
    const struct box box = {0x7000, 0, 1, arena_at(0), 3, 1, 100, 1, 1, VGPU_COPY_TO_DEVICE, 0};

    (void)state;
    assert_int_equal(copy_box(&box), VGPU_GPU_SUCCESS);
    assert_int_equal(seen.rows[0].width, 100);
    assert_int_equal(seen.rows[0].rows, 1);
}

/* Runs what was posted for slot 1 to its end, on a GPU that finishes now and then. */
static void finish_slot_1(bool window_changes)
{
    for (unsigned i = 0; !answered(1); i++) {
        assert_true(i < 10000);
        if (window_changes) {
            fixture.turn_page.terms.window_ns = random_below(2) ? WINDOW : 0;
        }
        assert_true(ring_session_step(&fixture.session) >= 0);
        test_clock_ns += NS_PER_MS;
        fake_finish();
        fake_log();
    }
    assert_int_equal(result_of(1), VGPU_GPU_SUCCESS);
}

/* What is to come next of a box, row by row. */
struct cursor {
    uint64_t slice, row, offset;
};

static void advance(struct cursor *cursor, uint64_t bytes, uint64_t width, uint64_t height)
{
    cursor->offset += bytes;
    if (cursor->offset == width) {
        cursor->offset = 0;
        cursor->row++;
    }
    if (cursor->row == height) {
        cursor->row = 0;
        cursor->slice++;
    }
}

/* Whether the pieces that the GPU got are the whole box, each byte once, in its order. */
static void check_pieces(const struct box *box, bool window)
{
    struct cursor c = {0, 0, 0};

    for (unsigned i = 0; i < seen.row_count; i++) {
        const struct gpu_rows *piece = &seen.rows[i];

        assert_int_equal(piece->kind, box->kind);
        assert_true(piece->rows > 0 && piece->width > 0);
        assert_true(!window || piece->width * piece->rows <= COMMAND_COPY_PIECE);
        for (uint64_t row = 0; row < piece->rows; row++) {
            const uint64_t to = (c.slice * box->to_rows + c.row) * box->to_pitch + c.offset;
            const uint64_t from = (c.slice * box->from_rows + c.row) * box->from_pitch + c.offset;

            if (c.slice >= box->depth || piece->width > box->width - c.offset ||
                piece->to + row * piece->to_pitch != box->to + to ||
                piece->from + row * piece->from_pitch != box->from + from) {
                fail_msg("piece %u, its row %llu", i, (unsigned long long)row);
            }
            advance(&c, piece->width, box->width, box->height);
        }
    }
    assert_int_equal(c.slice, box->depth);
    assert_int_equal(c.row + c.offset, 0);
}

static void run_box(void **state, const struct box *box, int window)
{
    again(state);
    test_clock_ns = NS_PER_S;
    fixture.turn_page.terms.window_ns = window != 0 ? WINDOW : 0;
    begin_box(box);
    post_it(1);
    finish_slot_1(window == 2);
    check_pieces(box, window == 1);
    assert_int_equal(fixture.turn_page.counters.requests, 1);
}

static void test_pieces_are_the_whole(void **state)
{
    static const uint64_t piece = COMMAND_COPY_PIECE;
    static const struct {
        uint64_t width, height, depth;
    } sizes[] = {
        {COMMAND_COPY_PIECE - 1, 3, 2},
        {COMMAND_COPY_PIECE, 3, 2},
        {COMMAND_COPY_PIECE + 1, 3, 2},
        {COMMAND_COPY_PIECE / 2, 5, 2},
        {COMMAND_COPY_PIECE / 2 + 1, 5, 2},
        {COMMAND_COPY_PIECE * 2, 2, 3},
        {COMMAND_COPY_PIECE * 2 + 5, 2, 3},
        {1000, 10000, 3},
        {1, COMMAND_COPY_PIECE + 3, 2},
        {4096, 1024, 1},
        {4096, 1025, 3},
        {1, 1, 40},
        {64, 1, 1},
    };

    for (size_t i = 0; i < sizeof(sizes) / sizeof(sizes[0]); i++) {
        const uint64_t height = sizes[i].height;

        for (int window = 0; window < 3; window++) {
            const struct box box = {
                1 << 12,    sizes[i].width + 24, height + 1, UINT64_C(1) << 40, sizes[i].width,
                height + 3, sizes[i].width,      height,     sizes[i].depth,    VGPU_COPY_ON_DEVICE,
                0};

            run_box(state, &box, window);
            if (sizes[i].width <= piece && window == 0) {
                assert_int_equal(seen.row_count, sizes[i].depth);
            }
        }
    }
}

static void test_pieces_of_any_box(void **state)
{
    for (int i = 0; i < 300; i++) {
        const uint64_t width = 1 + random_below(random_below(2) ? COMMAND_COPY_PIECE * 3 : 99999);
        const uint64_t most = 60 * COMMAND_COPY_PIECE / width; /* rows in all, for the memory */
        const uint64_t depth = 1 + random_below(4);
        const uint64_t height = 1 + random_below(most / depth > 20 ? most / depth : 20);
        const struct box box = {random_below(UINT64_C(1) << 40),
                                width + random_below(1000),
                                height + random_below(10),
                                random_below(UINT64_C(1) << 40),
                                width + random_below(1000),
                                height + random_below(10),
                                width,
                                height,
                                depth,
                                VGPU_COPY_ON_DEVICE,
                                0};

        run_box(state, &box, (int)random_below(3));
    }
}

/* In the arena, to and from it, and one that fails in the middle. */
static void test_pieces_in_the_arena(void **state)
{
    const uint64_t width = COMMAND_COPY_PIECE + 4096;
    struct box box = {0x7000, width, 1, 0, width + 8, 1, width, 1, 3, VGPU_COPY_TO_DEVICE, 0};

    for (int kind = VGPU_COPY_TO_DEVICE; kind <= VGPU_COPY_FROM_DEVICE; kind++) {
        again(state);
        test_clock_ns = NS_PER_S;
        fixture.turn_page.terms.window_ns = WINDOW;
        box.kind = (uint64_t)kind;
        box.to = kind == VGPU_COPY_TO_DEVICE ? 0x7000 : arena_at(16);
        box.from = kind == VGPU_COPY_TO_DEVICE ? arena_at(16) : 0x7000;
        begin_box(&box);
        post_it(1);
        finish_slot_1(false);
        check_pieces(&box, true);
        assert_int_equal(seen.row_count, 6);
        assert_int_equal(seen.engine, kind == VGPU_COPY_TO_DEVICE ? VGPU_ENGINE_TO_DEVICE
                                                                  : VGPU_ENGINE_FROM_DEVICE);
    }
    again(state);
    test_clock_ns = NS_PER_S;
    fixture.turn_page.terms.window_ns = WINDOW;
    box.kind = VGPU_COPY_ON_DEVICE;
    box.to = box.from = 0x7000;
    begin_box(&box);
    post_it(1);
    assert_int_equal(steps(), 0);
    fake.next = VGPU_GPU_UNKNOWN;
    for (int i = 0; i < 10 && !answered(1); i++) {
        fake_finish();
        test_clock_ns += NS_PER_MS;
        assert_int_equal(steps(), 0);
    }
    assert_int_equal(result_of(1), VGPU_GPU_UNKNOWN);
    assert_true(seen.row_count < 6);
}

/* A call with a reply is carried out whole like any other. */
static void test_pieces_of_a_copy_with_a_reply(void **state)
{
    const uint64_t width = 2 * COMMAND_COPY_PIECE;
    const struct box box = {0x7000, width, 1, 0x7000, width, 1, width, 1, 1, VGPU_COPY_ON_DEVICE,
                            0};

    (void)state;
    begin_box(&box);
    body.call.reply = arena_at(0);
    body.call.reply_bytes = 8;
    post_it(1);
    assert_int_equal(steps(), 0);
    fake_finish();
    assert_int_equal(steps(), 0);
    if (result_of(1) == VGPU_GPU_SUCCESS) {
        check_pieces(&box, false);
    } else {
        assert_int_equal(result_of(1), VGPU_GPU_INVALID_VALUE);
        assert_int_equal(seen.row_count, 0);
    }
}

/* Fills: to, pitch, value, element, width, height, stream. */
static void test_fills_that_cannot_be(void **state)
{
    static const uint64_t fills[][7] = {
        {0x7000, 16, 0, 0, 4, 2, 0},
        {0x7000, 16, 0, 3, 4, 2, 0},
        {0x7000, 16, 0, 8, 1, 2, 0},
        {0x7000, 16, 0, UINT32_MAX, 4, 2, 0},
        {0x7001, 16, 0, 2, 4, 2, 0},
        {0x7002, 16, 0, 4, 4, 2, 0},
        {0x7000, 18, 0, 4, 4, 2, 0}, /* rows out of line */
        {0x7000, 12, 0, 4, 4, 2, 0}, /* rows that overlap */
        {0x7000, 0, 0, 1, 1, 2, 0},
        {0x7000, HUGE_NUMBER, 0, 4, UINT64_C(1) << 62, 1, 0}, /* bytes of a row */
        {0x7000, 16, 0, 2, HUGE_NUMBER, 2, 0},
        {0x7000, HUGE_NUMBER, 0, 1, 4, 4, 0}, /* pitch times rows */
        {UINT64_MAX - 2, 16, 0, 1, 4, 1, 0},  /* the end */
        {0x7000, 16, UINT64_C(1) << 32, 4, 4, 2, 0},
    };

    (void)state;
    for (size_t i = 0; i < sizeof(fills) / sizeof(fills[0]); i++) {
        begin_with(FILL_ROWS, fills[i], 7);
        assert_int_equal(call_it(), VGPU_GPU_INVALID_VALUE);
    }
    assert_int_equal(CALL(FILL_ROWS, 0x7000, 16, 0, 4, 0, 2, 0), VGPU_GPU_SUCCESS);
    assert_int_equal(CALL(FILL_ROWS, 0x7000, 16, 0, 4, 4, 0, 0), VGPU_GPU_SUCCESS);
    assert_string_equal(fake_log(), "");
    assert_int_equal(CALL(FILL_ROWS, 0x7000, 3, 9, 4, 4, 1, 0), VGPU_GPU_SUCCESS); /* one row */
    assert_int_equal(seen.fills[0].value, 9);
}

static void check_fill(uint64_t to, uint64_t pitch, uint64_t element, uint64_t width,
                       uint64_t height)
{
    struct cursor c = {0, 0, 0};

    for (unsigned i = 0; i < seen.fill_count; i++) {
        const struct gpu_fill_rows *piece = &seen.fills[i];

        assert_int_equal(piece->element, element);
        assert_int_equal(piece->value, 0x55);
        for (uint64_t row = 0; row < piece->rows; row++) {
            if (c.slice > 0 || piece->width * element > width * element - c.offset ||
                piece->address + row * piece->pitch != to + c.row * pitch + c.offset) {
                fail_msg("piece %u, its row %llu", i, (unsigned long long)row);
            }
            advance(&c, piece->width * element, width * element, height);
        }
    }
    assert_int_equal(c.slice, 1);
}

static void test_pieces_of_fills(void **state)
{
    static const uint64_t piece = COMMAND_FILL_PIECE;

    for (uint64_t element = 1; element <= 4; element *= 2) {
        const uint64_t sizes[][2] = {
            {piece / element - 1, 3},     {piece / element, 3}, {piece / element + 1, 3},
            {2 * piece / element + 3, 2}, {1000, 200000},       {1, 5},
        };

        for (size_t i = 0; i < sizeof(sizes) / sizeof(sizes[0]); i++) {
            const uint64_t pitch = sizes[i][0] * element + 8;
            const bool window = i % 2 == 0;

            again(state);
            test_clock_ns = NS_PER_S;
            fixture.turn_page.terms.window_ns = WINDOW;
            BEGIN(FILL_ROWS, 0x7000, pitch, 0x55, element, sizes[i][0], sizes[i][1], 0);
            post_it(1);
            finish_slot_1(window);
            check_fill(0x7000, pitch, element, sizes[i][0], sizes[i][1]);
        }
    }
}

/* Bytes, on the cpu backend ------------------------------------------------------------------- */

#define SIDE (32u << 10) /* bytes: of device memory, and of the arena's start */

static uint64_t any_box_side(uint64_t *pitch, uint64_t *rows, uint64_t width, uint64_t height,
                             uint64_t depth)
{
    uint64_t bytes;

    *pitch = width + random_below(20);
    *rows = height + random_below(3);
    bytes = ((depth - 1) * *rows + height - 1) * *pitch + width;
    assert_true(bytes <= SIDE / 2);
    return random_below(SIDE / 2 - bytes + 1);
}

static void copy_reference(uint8_t *to, const uint8_t *from, const struct box *box,
                           uint64_t to_start, uint64_t from_start)
{
    for (uint64_t z = 0; z < box->depth; z++) {
        for (uint64_t y = 0; y < box->height; y++) {
            for (uint64_t x = 0; x < box->width; x++) {
                to[to_start + (z * box->to_rows + y) * box->to_pitch + x] =
                    from[from_start + (z * box->from_rows + y) * box->from_pitch + x];
            }
        }
    }
}

/* The device's memory as it is now. */
static void read_device(uint64_t device, uint64_t bytes, uint8_t *into)
{
    post_copy(VGPU_COPY_FROM_DEVICE, arena_at(1 << 20), device, bytes, 0);
    post(VGPU_CMD_SYNC, 2, NULL, 0);
    wait_for(2);
    assert_int_equal(result_of(2), VGPU_GPU_SUCCESS);
    memcpy(into, fixture.arena + (1 << 20), bytes);
}

static enum vgpu_gpu_error run_it(void)
{
    post_it(1);
    wait_for(1);
    if (result_of(1) != VGPU_GPU_SUCCESS) {
        return result_of(1);
    }
    post(VGPU_CMD_SYNC, 2, NULL, 0);
    wait_for(2);
    return result_of(2);
}

/* Halves: what is read lies in the upper one, what is written in the lower one, of each side. */
static void test_bytes_of_boxes(void **state)
{
    static uint8_t arena[SIDE], device[SIDE], found[SIDE];
    const uint64_t memory = make(VGPU_CMD_MEM_ALLOC, SIDE);

    (void)state;
    for (size_t i = 0; i < SIDE; i++) {
        arena[i] = (uint8_t)random_below(256);
    }
    memcpy(fixture.arena, arena, SIDE);
    memcpy(device, arena, SIDE);
    post_copy(VGPU_COPY_TO_DEVICE, memory, arena_at(0), SIDE, 0);
    for (int i = 0; i < 400; i++) {
        const uint64_t width = 1 + random_below(60), height = 1 + random_below(9);
        const uint64_t depth = 1 + random_below(5);
        struct box box = {.width = width, .height = height, .depth = depth};
        uint64_t to, from;

        box.kind = 1 + random_below(3);
        fixture.turn_page.terms.window_ns = i % 2 ? WINDOW : 0;
        to = any_box_side(&box.to_pitch, &box.to_rows, width, height, depth);
        from = SIDE / 2 + any_box_side(&box.from_pitch, &box.from_rows, width, height, depth);
        box.to = (box.kind == VGPU_COPY_FROM_DEVICE ? arena_at(0) : memory) + to;
        box.from = (box.kind == VGPU_COPY_TO_DEVICE ? arena_at(0) : memory) + from;
        copy_reference(box.kind == VGPU_COPY_FROM_DEVICE ? arena : device,
                       box.kind == VGPU_COPY_TO_DEVICE ? arena : device, &box, to, from);
        begin_box(&box);
        assert_int_equal(run_it(), VGPU_GPU_SUCCESS);
        if (i % 20 == 19) {
            read_device(memory, SIDE, found);
            assert_memory_equal(found, device, SIDE);
            assert_memory_equal(fixture.arena, arena, SIDE);
        }
    }
}

/* Larger than a piece, from one part of the arena to another: it is device memory as well. */
static void test_bytes_of_large_boxes(void **state)
{
    static const uint64_t sizes[][2] = {{COMMAND_COPY_PIECE + 12345, 1}, {100003, 60}, {7, 700000}};
    const uint64_t half = FIXTURE_ARENA / 2;

    (void)state;
    for (uint64_t i = 0; i < half; i++) {
        fixture.arena[i] = (uint8_t)(i * 2654435761u >> 13);
    }
    fixture.turn_page.terms.window_ns = WINDOW;
    for (size_t i = 0; i < sizeof(sizes) / sizeof(sizes[0]); i++) {
        const uint64_t width = sizes[i][0], height = sizes[i][1];
        const struct box box = {
            arena_at(half), width + 1, height, arena_at(0),         width + 3, height,
            width,          height,    1,      VGPU_COPY_ON_DEVICE, 0};

        memset(fixture.arena + half, 0, half);
        begin_box(&box);
        assert_int_equal(run_it(), VGPU_GPU_SUCCESS);
        for (uint64_t row = 0; row < height; row++) {
            const uint8_t *to = fixture.arena + half + row * (width + 1);

            assert_true(memcmp(to, fixture.arena + row * (width + 3), width) == 0);
            assert_int_equal(to[width], 0);
        }
    }
}

static void test_bytes_of_fills(void **state)
{
    static uint8_t device[SIDE], found[SIDE];
    const uint64_t memory = make(VGPU_CMD_MEM_ALLOC, SIDE);

    (void)state;
    for (int i = 0; i < 200; i++) {
        const uint64_t element = UINT64_C(1) << random_below(3), width = 1 + random_below(50);
        const uint64_t height = 1 + random_below(20);
        const uint64_t pitch = (width + random_below(5)) * element;
        const uint64_t start = random_below(1000) * 4;
        const uint32_t value = (uint32_t)random_below(UINT64_C(1) << 32);

        for (uint64_t y = 0; y < height; y++) {
            for (uint64_t x = 0; x < width; x++) {
                memcpy(device + start + y * pitch + x * element, &value, element);
            }
        }
        BEGIN(FILL_ROWS, memory + start, pitch, value, element, width, height, 0);
        assert_int_equal(run_it(), VGPU_GPU_SUCCESS);
    }
    read_device(memory, SIDE, found);
    assert_memory_equal(found, device, SIDE);
}

/* A box that leaves the device's memory by a byte loses the context, and no byte is written. */
static void test_boxes_beyond_device_memory(void **state)
{
    const uint64_t bytes = (UINT64_C(2) * 4 + 3 - 1) * 16 + 8; /* of 3 slices of 4 rows */

    for (int off = -1; off <= 1; off++) {
        uint64_t memory;
        struct box box = {0, 16, 4, arena_at(0), 16, 4, 8, 3, 3, VGPU_COPY_TO_DEVICE, 0};

        fixture_tear_down(state);
        assert_int_equal(fixture_set_up_cpu(state), 0);
        memory = make(VGPU_CMD_MEM_ALLOC, 4096);
        box.from = arena_at(0);
        box.to = off < 0 ? memory - 1 : memory + 4096 - bytes + (uint64_t)off;
        begin_box(&box);
        assert_int_equal(run_it(), off == 0 ? VGPU_GPU_SUCCESS : VGPU_GPU_ILLEGAL_ADDRESS);
    }
}

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

/* Words that streams wait for ----------------------------------------------------------------- */

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

/* Order --------------------------------------------------------------------------------------- */

static void close_turn(enum vgpu_engine engine)
{
    *turn_word(engine) = VGPU_TURN_CLOSED;
}

static void post_box(uint32_t slot, uint64_t kind, uint64_t stream)
{
    const uint64_t to = kind == VGPU_COPY_FROM_DEVICE ? arena_at(0) : 0x7000;
    const uint64_t from = kind == VGPU_COPY_TO_DEVICE ? arena_at(0) : 0x8000;
    const struct box box = {to, 16, 1, from, 16, 1, 16, 1, 1, kind, stream};

    begin_box(&box);
    post_it(slot);
}

/* Those that are free pass what waits; others that are ordered wait behind it. */
static void test_calls_behind_work_that_waits(void **state)
{
    (void)state;
    close_turn(VGPU_ENGINE_COMPUTE);
    post_box(0, VGPU_COPY_ON_DEVICE, 0);
    BEGIN(HELLO, 1);
    post_it(1);
    BEGIN(SET_CACHE, 2);
    post_it(2);
    BEGIN(IMAGE_BEGIN, 4);
    post_it(3);
    BEGIN(STREAM_CREATE, 0, 0);
    post_it(4);
    assert_int_equal(steps(), 0);
    assert_true(answered(1) && answered(3) && answered(4));
    assert_false(answered(2));
    assert_int_equal(seen.number, 0);
    assert_string_equal(fake_log(), "");
    *turn_word(VGPU_ENGINE_COMPUTE) = VGPU_TURN_RUNNING;
    assert_int_equal(steps(), 0);
    assert_int_equal(result_of(2), VGPU_GPU_SUCCESS); /* when it is submitted, not done */
    assert_int_equal(seen.number, 2);
    assert_string_equal(fake_log(), "copy rows");
}

/* A load may take long: it passes work that waits where nobody else is there. */
static void test_load_behind_work_that_waits(void **state)
{
    for (int window = 0; window < 2; window++) {
        again(state);
        fixture.turn_page.terms.window_ns = window ? WINDOW : 0;
        test_clock_ns = NS_PER_S;
        close_turn(VGPU_ENGINE_COMPUTE);
        post_box(0, VGPU_COPY_ON_DEVICE, 0);
        BEGIN(IMAGE_BEGIN, 4);
        post_it(1);
        BEGIN(IMAGE_LOAD, 0, 0, 0);
        post_it(2);
        assert_int_equal(steps(), 0);
        assert_true(answered(1));
        assert_int_equal(answered(2), !window);
        *turn_word(VGPU_ENGINE_COMPUTE) = VGPU_TURN_RUNNING;
        assert_int_equal(steps(), 0);
        assert_int_equal(answered(2), !window); /* until nothing is on the GPU */
        fake_finish();
        test_clock_ns += NS_PER_MS;
        assert_int_equal(steps(), 0);
        assert_int_equal(result_of(2), VGPU_GPU_SUCCESS);
    }
}

static void test_calls_go_to_their_engines(void **state)
{
    static const struct {
        uint64_t kind; /* 0: no copy */
        enum vgpu_engine engine;
    } cases[] = {
        {VGPU_COPY_TO_DEVICE, VGPU_ENGINE_TO_DEVICE},
        {VGPU_COPY_FROM_DEVICE, VGPU_ENGINE_FROM_DEVICE},
        {VGPU_COPY_ON_DEVICE, VGPU_ENGINE_COMPUTE},
        {0, VGPU_ENGINE_COMPUTE},
    };

    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        again(state);
        for (unsigned e = 0; e < VGPU_ENGINES; e++) {
            close_turn((enum vgpu_engine)e);
        }
        if (cases[i].kind != 0) {
            post_box(1, cases[i].kind, 0);
        } else {
            BEGIN(FILL_ROWS, 0x7000, 16, 0, 4, 4, 1, 0);
            post_it(1);
        }
        assert_int_equal(steps(), 0);
        assert_true(sent_is(VGPU_LINK_ASK, cases[i].engine));
        assert_int_equal(sent(), 0);
        assert_false(answered(1));
        assert_string_equal(fake_log(), "");
        *turn_word(cases[i].engine) = VGPU_TURN_RUNNING;
        assert_int_equal(steps(), 0);
        assert_int_equal(result_of(1), VGPU_GPU_SUCCESS);
        assert_true(flight_busy(&fixture.session.flight, cases[i].engine));
    }
}

/* A copy of no kind reads no further than its own bytes to find its engine. */
static void test_short_copy_finds_no_engine(void **state)
{
    (void)state;
    close_turn(VGPU_ENGINE_COMPUTE);
    close_turn(VGPU_ENGINE_TO_DEVICE);
    post_box(0, VGPU_COPY_TO_DEVICE, 0);
    assert_int_equal(steps(), 0);
    assert_true(sent_is(VGPU_LINK_ASK, VGPU_ENGINE_TO_DEVICE));
    *turn_word(VGPU_ENGINE_TO_DEVICE) = VGPU_TURN_RUNNING;
    assert_int_equal(steps(), 0);
    BEGIN(COPY_3D, 1, 2, 3);
    post_it(1);
    assert_int_equal(steps(), 0);
    assert_true(sent_is(VGPU_LINK_ASK, VGPU_ENGINE_COMPUTE));
}

static void test_stream_sync_waits_for_calls_in_its_stream(void **state)
{
    const uint64_t mine = make(VGPU_CMD_STREAM_CREATE, 0), other = make(VGPU_CMD_STREAM_CREATE, 0);

    (void)state;
    close_turn(VGPU_ENGINE_COMPUTE);
    post_box(0, VGPU_COPY_ON_DEVICE, mine); /* at the head */
    BEGIN(FILL_ROWS, 0x7000, 16, 0, 4, 4, 1, mine);
    post_it(0); /* behind it */
    post_value(VGPU_CMD_STREAM_SYNC, 1, mine);
    post_value(VGPU_CMD_STREAM_SYNC, 2, other);
    post_value(VGPU_CMD_STREAM_QUERY, 3, mine);
    post_value(VGPU_CMD_STREAM_QUERY, 4, other);
    post_value(VGPU_CMD_STREAM_SYNC, 5, 0);
    assert_int_equal(steps(), 0);
    assert_false(answered(1) || answered(5));
    assert_int_equal(result_of(2), VGPU_GPU_SUCCESS);
    assert_int_equal(result_of(3), VGPU_GPU_NOT_READY);
    assert_int_equal(result_of(4), VGPU_GPU_SUCCESS);
    *turn_word(VGPU_ENGINE_COMPUTE) = VGPU_TURN_RUNNING;
    assert_int_equal(steps(), 0);
    assert_string_equal(fake_log(), "copy rows fill rows");
    assert_false(answered(1) || answered(5));
    fake_finish();
    assert_int_equal(steps(), 0);
    assert_true(answered(1) && answered(5));
}

/* The same for a call that is at the head alone. */
static void test_stream_sync_and_the_call_at_the_head(void **state)
{
    const uint64_t mine = make(VGPU_CMD_STREAM_CREATE, 0), other = make(VGPU_CMD_STREAM_CREATE, 0);

    (void)state;
    close_turn(VGPU_ENGINE_TO_DEVICE);
    post_box(0, VGPU_COPY_TO_DEVICE, mine);
    post_value(VGPU_CMD_STREAM_SYNC, 1, mine);
    post_value(VGPU_CMD_STREAM_SYNC, 2, other);
    assert_int_equal(steps(), 0);
    assert_false(answered(1));
    assert_true(answered(2));
}

/* Estimates ----------------------------------------------------------------------------------- */

/* Runs the call that was begun, for so long. */
static void run_for(uint64_t ns)
{
    post_it(1);
    assert_int_equal(steps(), 0);
    test_clock_ns += ns;
    fake_finish();
    assert_int_equal(steps(), 0);
    assert_int_equal(result_of(1), VGPU_GPU_SUCCESS);
}

/* How long the call that was begun is expected to take. */
static uint64_t expected(enum vgpu_engine engine)
{
    uint64_t ns;

    *turn_word(engine) = VGPU_TURN_CLOSED;
    post_it(1);
    assert_int_equal(steps(), 0);
    ns = fixture.session.piece.ns;
    *turn_word(engine) = VGPU_TURN_RUNNING;
    run_for(ns);
    return ns;
}

static bool about(uint64_t value, uint64_t wanted)
{
    return value > wanted - wanted / 8 && value < wanted + wanted / 8;
}

static void test_launches_are_known_by_their_weights(void **state)
{
    const uint64_t module = make_module();
    const uint64_t stream = make(VGPU_CMD_STREAM_CREATE, 0);
    struct launch launch = {make_function(module, "f"), {2, 2, 2}, {3, 3, 3}, 4, 0};
    const struct launch first = launch;

    (void)state;
    test_clock_ns = NS_PER_S;
    for (int i = 0; i < 20; i++) {
        begin_launch(&launch, NULL, 0, "12345678", 8);
        run_for(7 * NS_PER_MS);
    }
    begin_launch(&launch, NULL, 0, "12345678", 8);
    post_it(1);
    assert_int_equal(steps(), 0);
    assert_true(about(fixture.session.piece.ns, 7 * NS_PER_MS));
    test_clock_ns += 7 * NS_PER_MS;
    fake_finish();
    assert_int_equal(steps(), 0);
    /* Its stream and its parameters have no weight. */
    launch.stream = stream;
    begin_launch(&launch, NULL, 0, "87654321", 4);
    post_it(1);
    assert_int_equal(steps(), 0);
    assert_true(about(fixture.session.piece.ns, 7 * NS_PER_MS));
    test_clock_ns += 7 * NS_PER_MS;
    fake_finish();
    for (int i = 0; i < 7; i++) {
        launch = first;
        *(i < 3 ? &launch.grid[i] : i < 6 ? &launch.block[i - 3] : &launch.shared) += 1;
        begin_launch(&launch, NULL, 0, "12345678", 8);
        post_it(1);
        assert_int_equal(steps(), 0);
        assert_int_equal(fixture.session.piece.ns, NS_PER_MS); /* a guess */
        fake_finish();
        assert_int_equal(steps(), 0);
    }
}

static void test_copies_are_guessed_by_their_size(void **state)
{
    static const uint64_t sizes[][4] = {
        /* width, height, depth, bytes or a piece */
        {1024, 1, 1, 1024},
        {1024, 16, 1, 16384},
        {1024, 16, 3, 49152},
        {COMMAND_COPY_PIECE, 1, 1, COMMAND_COPY_PIECE},
        {COMMAND_COPY_PIECE, 9, 9, COMMAND_COPY_PIECE},
    };

    (void)state;
    test_clock_ns = NS_PER_S;
    for (size_t i = 0; i < sizeof(sizes) / sizeof(sizes[0]); i++) {
        const uint64_t width = sizes[i][0], height = sizes[i][1];
        const struct box box = {0x7000, width, height, 0x8000,      width,
                                height, width, height, sizes[i][2], VGPU_COPY_ON_DEVICE,
                                0};

        begin_box(&box);
        assert_int_equal(expected(VGPU_ENGINE_COMPUTE), 10 * NS_PER_US + sizes[i][3] / 8);
    }
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, set_up, fixture_tear_down)
#define CPU_TEST(name) cmocka_unit_test_setup_teardown(name, fixture_set_up_cpu, fixture_tear_down)

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
        TEST(test_function_params),
        CPU_TEST(test_device_attributes),
        TEST(test_limits_are_memory_of_the_vm),
        TEST(test_limits_that_cannot_be),
        TEST(test_images_in_pieces),
        TEST(test_image_with_holes),
        TEST(test_image_writes_that_cannot_be),
        TEST(test_image_sizes),
        TEST(test_image_is_loaded_once),
        TEST(test_options_of_a_load),
        TEST(test_number_of_options),
        TEST(test_logs_of_a_load),
        CPU_TEST(test_built_in_text_is_loaded),
        TEST(test_streams_with_a_priority),
        TEST(test_launch_with_attributes),
        TEST(test_attributes_that_hold_handles),
        TEST(test_launches_that_cannot_be),
        TEST(test_boxes_that_cannot_be),
        TEST(test_boxes_of_no_kind),
        TEST(test_boxes_of_nothing),
        TEST(test_boxes_whose_size_wraps),
        TEST(test_slices_whose_distance_wraps),
        TEST(test_boxes_around_the_ends_of_the_arena),
        TEST(test_box_of_one_row),
        TEST(test_pieces_are_the_whole),
        TEST(test_pieces_of_any_box),
        TEST(test_pieces_in_the_arena),
        TEST(test_pieces_of_a_copy_with_a_reply),
        TEST(test_fills_that_cannot_be),
        TEST(test_pieces_of_fills),
        CPU_TEST(test_bytes_of_boxes),
        CPU_TEST(test_bytes_of_large_boxes),
        CPU_TEST(test_bytes_of_fills),
        CPU_TEST(test_boxes_beyond_device_memory),
        CPU_TEST(test_launch_on_the_cpu),
        CPU_TEST(test_identity_and_occupancy_on_the_cpu),
        CPU_TEST(test_values_that_are_written),
        CPU_TEST(test_conditions_of_waits),
        TEST(test_calls_behind_work_that_waits),
        TEST(test_load_behind_work_that_waits),
        TEST(test_calls_go_to_their_engines),
        TEST(test_short_copy_finds_no_engine),
        TEST(test_stream_sync_waits_for_calls_in_its_stream),
        TEST(test_stream_sync_and_the_call_at_the_head),
        TEST(test_launches_are_known_by_their_weights),
        TEST(test_copies_are_guessed_by_their_size),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
