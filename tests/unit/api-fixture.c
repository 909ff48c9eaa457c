/* SPDX-License-Identifier: MIT */
/* Calls over a ring for tests, see api-fixture.h. */
#include "tests/unit/api-fixture.h"

#include <string.h>

struct body body;
struct seen seen;

void put(const void *bytes, size_t count)
{
    const size_t padded = (count + 7) & ~(size_t)7;

    if (count > 0) {
        memset(body.arguments + body.call.bytes, 0, padded);
        memcpy(body.arguments + body.call.bytes, bytes, count);
    }
    body.call.bytes += (uint32_t)padded;
}

void put_word(uint64_t value)
{
    put(&value, sizeof(value));
}

void begin(uint32_t id)
{
    body.call = (struct vgpu_cmd_call){.call = id};
}

void begin_with(uint32_t id, const uint64_t *words, size_t count)
{
    begin(id);
    put(words, count * sizeof(words[0]));
}

/* What is posted: a call, or the command that the words stand for. */
static struct posted {
    uint32_t opcode, bytes;
    union {
        struct body call;
        struct vgpu_cmd_stream_create stream_create;
        struct {
            struct vgpu_cmd_copy copy;
            struct vgpu_copy_box box;
        } copy;
        struct {
            struct vgpu_cmd_launch launch;
            uint8_t rest[1024];
        } launch;
        struct vgpu_cmd_fill fill;
    };
} posted;

static void make_copy(const uint64_t *w)
{
    posted.opcode = VGPU_CMD_COPY;
    posted.bytes = sizeof(posted.copy);
    posted.copy.copy = (struct vgpu_cmd_copy){
        .to = w[0], .from = w[3], .bytes = w[6], .stream = w[10], .kind = (uint32_t)w[9], .box = 1};
    posted.copy.box = (struct vgpu_copy_box){.to_pitch = w[1],
                                             .to_rows = w[2],
                                             .from_pitch = w[4],
                                             .from_rows = w[5],
                                             .height = w[7],
                                             .depth = w[8]};
}

static void make_launch(const uint64_t *w)
{
    const uint32_t rest = body.call.bytes - 11 * 8;

    posted.opcode = VGPU_CMD_LAUNCH;
    posted.bytes = (uint32_t)sizeof(posted.launch.launch) + rest;
    posted.launch.launch = (struct vgpu_cmd_launch){
        .function = w[0],
        .stream = w[8],
        .grid = {(uint32_t)w[1], (uint32_t)w[2], (uint32_t)w[3]},
        .block = {(uint32_t)w[4], (uint32_t)w[5], (uint32_t)w[6]},
        .shared_bytes = (uint32_t)w[7],
        .param_bytes = (uint32_t)w[10],
        .attributes = w[9],
    };
    memcpy(posted.launch.rest, w + 11, rest);
}

static void make_posted(void)
{
    const uint64_t *w = (const void *)body.arguments;

    switch (body.call.call) {
    case STREAM_CREATE:
        posted.opcode = VGPU_CMD_STREAM_CREATE;
        posted.bytes = sizeof(posted.stream_create);
        posted.stream_create = (struct vgpu_cmd_stream_create){.flags = (uint32_t)w[0],
                                                               .priority = (int32_t)w[1]};
        break;
    case COPY_3D:
        make_copy(w);
        break;
    case LAUNCH_EX:
        make_launch(w);
        break;
    case FILL_ROWS:
        posted.opcode = VGPU_CMD_FILL;
        posted.bytes = sizeof(posted.fill);
        posted.fill = (struct vgpu_cmd_fill){.address = w[0],
                                             .width = w[4],
                                             .stream = w[6],
                                             .value = (uint32_t)w[2],
                                             .element = (uint32_t)w[3],
                                             .pitch = w[1],
                                             .rows = w[5]};
        break;
    default:
        posted.opcode = VGPU_CMD_CALL;
        posted.bytes = (uint32_t)sizeof(body.call) + body.call.bytes;
        memcpy(&posted.call, &body, posted.bytes);
    }
}

void post_it(uint32_t slot)
{
    make_posted();
    post(posted.opcode, slot, &posted.call, posted.bytes);
}

enum vgpu_gpu_error call_it(void)
{
    make_posted();
    return call(posted.opcode, &posted.call, posted.bytes);
}

enum vgpu_gpu_error run_it(void)
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

const struct vgpu_slot *answer(void)
{
    return &fixture.queue->slots[SLOT - 1];
}

uint64_t back(unsigned place)
{
    uint64_t word;

    assert_true(8 * (place + 1) <= answer()->length);
    memcpy(&word, answer()->payload + 8 * place, sizeof(word));
    return word;
}

uint64_t arena_at(uint64_t offset)
{
    return (uint64_t)(uintptr_t)fixture.arena + offset;
}

uint64_t random_below(uint64_t limit)
{
    static uint64_t state = 88172645463325252u;

    state ^= state << 13;
    state ^= state >> 7;
    state ^= state << 17;
    return state % limit;
}

void read_device(uint64_t device, uint64_t bytes, uint8_t *into)
{
    post_copy(VGPU_COPY_FROM_DEVICE, arena_at(1 << 20), device, bytes, 0);
    post(VGPU_CMD_SYNC, 2, NULL, 0);
    wait_for(2);
    assert_int_equal(result_of(2), VGPU_GPU_SUCCESS);
    memcpy(into, fixture.arena + (1 << 20), bytes);
}

void begin_launch(const struct launch *launch, const CUlaunchAttribute *attributes, uint32_t count,
                  const void *params, uint32_t param_bytes)
{
    begin_with(LAUNCH_EX, (const uint64_t *)(const void *)launch, sizeof(*launch) / 8);
    put_word(count);
    put_word(param_bytes);
    put(attributes, count * sizeof(attributes[0]));
    put(params, param_bytes);
}

void begin_box(const struct box *box)
{
    begin_with(COPY_3D, (const uint64_t *)(const void *)box, sizeof(*box) / 8);
}

/* What the GPU was asked for ------------------------------------------------------------------ */

static enum vgpu_gpu_error see_copy_rows(struct gpu *gpu, const struct gpu_rows *rows,
                                         struct gpu_stream *stream)
{
    assert_true(seen.row_count < REMEMBERED);
    seen.rows[seen.row_count++] = *rows;
    seen.engine = fixture.session.taken.piece.engine;
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

/* Pairs of what the fake GPU says of parameters, as many as fit. */
static enum vgpu_gpu_error see_function_attributes(struct gpu *gpu, int *values, unsigned count,
                                                   struct gpu_function *function)
{
    for (unsigned i = 0; i + 1 < count; i += 2) {
        struct vgpu_result_param param = {0};
        const enum vgpu_gpu_error error = gpu->ops->function_param(gpu, function, i / 2, &param);

        if (error != VGPU_GPU_SUCCESS) {
            return error;
        }
        values[i] = (int)param.offset;
        values[i + 1] = (int)param.size;
    }
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

/* A stream that waits: to the fixture it is work, as a fill is. */
static enum vgpu_gpu_error see_wait_value(struct gpu *gpu, struct gpu_stream *stream,
                                          CUdeviceptr address, cuuint32_t value, unsigned flags)
{
    const struct gpu_fill fill = {.address = address, .value = value, .width = 4, .count = 1};

    (void)flags;
    return seen.fake->fill(gpu, &fill, stream);
}

int api_set_up(void **state)
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
    seen.calls.function_attributes = see_function_attributes;
    seen.calls.cuCtxSetCacheConfig = see_set_cache;
    seen.calls.module_global = see_global;
    seen.calls.cuCtxGetStreamPriorityRange = see_range;
    seen.calls.cuStreamGetAttribute = see_get_attribute;
    seen.calls.cuStreamWaitValue32_v2 = see_wait_value;
    fake.head.ops = &seen.ops;
    fake.head.calls = &seen.calls;
    return r;
}

void again(void **state)
{
    assert_int_equal(fixture_tear_down(state), 0);
    assert_int_equal(api_set_up(state), 0);
}
