/* SPDX-License-Identifier: MIT */
/* A ring session for tests, see ring-fixture.h. */
#include "tests/unit/ring-fixture.h"

#include "worker/api-calls.h"

#include <sched.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <unistd.h>

#include "tests/unit/gpu-check.h"
#include "tests/unit/unit.h"
#include "worker/predict.h"

#define CALL_SLOT VGPU_SLOTS
#define CPU_MEMORY (1u << 20) /* bytes of device memory */

struct fixture fixture;
struct fake_gpu fake;

/* The fake GPU ----------------------------------------------------------------------------- */

struct gpu_stream {
    uint64_t last; /* position of its last piece of work */
};
struct gpu_event {
    uint64_t position;
};
struct gpu_module {
    int dummy;
};
struct gpu_function {
    int dummy;
};
static struct gpu_function function;
static struct gpu_stream main_stream;

static void note(const char *what)
{
    const size_t length = strlen(fake.log);

    assert_true(length + strlen(what) + 2 < sizeof(fake.log));
    if (length > 0) {
        strcat(fake.log, " ");
    }
    strcat(fake.log, what);
}

const char *fake_log(void)
{
    static char log[sizeof(fake.log)];

    memcpy(log, fake.log, sizeof(log));
    fake.log[0] = '\0';
    return log;
}

void fake_finish(void)
{
    fake.done = fake.submitted;
}

static enum vgpu_gpu_error outcome(void)
{
    const enum vgpu_gpu_error next = fake.next;

    fake.next = VGPU_GPU_SUCCESS;
    return fake.head.lost != VGPU_GPU_SUCCESS ? fake.head.lost : next;
}

static enum vgpu_gpu_error work(const char *what, struct gpu_stream *stream)
{
    const enum vgpu_gpu_error error = outcome();

    note(what);
    if (error == VGPU_GPU_SUCCESS) {
        (stream ? stream : &main_stream)->last = ++fake.submitted;
    }
    return error;
}

static enum vgpu_gpu_error poll_position(uint64_t position)
{
    if (fake.head.lost != VGPU_GPU_SUCCESS) {
        return fake.head.lost;
    }
    return fake.done >= position ? VGPU_GPU_SUCCESS : VGPU_GPU_NOT_READY;
}

static enum vgpu_gpu_error fake_mem_info(struct gpu *gpu, uint64_t *free_bytes, uint64_t *total)
{
    (void)gpu;
    *free_bytes = FAKE_FREE;
    *total = FAKE_TOTAL;
    return outcome();
}

static enum vgpu_gpu_error fake_mem_alloc(struct gpu *gpu, uint64_t bytes, uint64_t *address)
{
    (void)gpu;
    (void)bytes;
    note("alloc");
    *address = FAKE_ADDRESS + 0x200u * fake.allocations++;
    return outcome();
}

static enum vgpu_gpu_error fake_mem_free(struct gpu *gpu, uint64_t address)
{
    (void)gpu;
    (void)address;
    note("free");
    return outcome();
}

static enum vgpu_gpu_error fake_copy(struct gpu *gpu, const struct gpu_copy *copy,
                                     struct gpu_stream *stream)
{
    (void)gpu;
    if (fake.copy_count < FAKE_COPIES) {
        fake.copies[fake.copy_count++] = *copy;
    }
    return work("copy", stream);
}

static enum vgpu_gpu_error fake_copy_rows(struct gpu *gpu, const struct gpu_rows *rows,
                                          struct gpu_stream *stream)
{
    (void)gpu;
    fake.rows = *rows;
    return work("copy rows", stream);
}

static enum vgpu_gpu_error fake_fill_rows(struct gpu *gpu, const struct gpu_fill_rows *rows,
                                          struct gpu_stream *stream)
{
    (void)gpu;
    fake.fill_rows = *rows;
    return work("fill rows", stream);
}

static enum vgpu_gpu_error fake_fill(struct gpu *gpu, const struct gpu_fill *fill,
                                     struct gpu_stream *stream)
{
    (void)gpu;
    if (fake.fill_count < FAKE_COPIES) {
        fake.fills[fake.fill_count++] = *fill;
    }
    return work("fill", stream);
}

static enum vgpu_gpu_error fake_module_builtin(struct gpu *gpu, struct gpu_module **module)
{
    (void)gpu;
    note("module");
    fake.turn_at_load = *turn_word(VGPU_ENGINE_COMPUTE);
    *module = malloc(sizeof(**module));
    fake.modules++;
    return VGPU_GPU_SUCCESS;
}

static enum vgpu_gpu_error fake_module_load(struct gpu *gpu, const void *image, uint64_t bytes,
                                            struct gpu_compile *compile, struct gpu_module **module)
{
    const enum vgpu_gpu_error error = outcome();

    (void)compile;
    /* With the NUL behind it. */
    memcpy(fake.image, image, bytes + 1 < sizeof(fake.image) ? bytes + 1 : sizeof(fake.image));
    fake.image_bytes = bytes;
    return error == VGPU_GPU_SUCCESS ? fake_module_builtin(gpu, module) : error;
}

static enum vgpu_gpu_error fake_module_unload(struct gpu *gpu, struct gpu_module *module)
{
    (void)gpu;
    note("unload");
    free(module);
    fake.modules--;
    return outcome();
}

static enum vgpu_gpu_error fake_function_get(struct gpu *gpu, struct gpu_module *module,
                                             const char *name, struct gpu_function **found,
                                             struct vgpu_result_function *info)
{
    (void)gpu;
    (void)module;
    note(name);
    *found = &function;
    info->params = 1;
    info->max_threads = 256;
    return outcome();
}

static enum vgpu_gpu_error fake_function_param(struct gpu *gpu, struct gpu_function *of,
                                               uint64_t index, struct vgpu_result_param *param)
{
    (void)gpu;
    (void)of;
    *param = (struct vgpu_result_param){.offset = 8 * index, .size = 8};
    return outcome();
}

static enum vgpu_gpu_error fake_launch(struct gpu *gpu, struct gpu_function *what,
                                       const struct gpu_launch *launch, struct gpu_stream *stream)
{
    (void)gpu;
    (void)what;
    fake.launch = *launch->shape;
    memcpy(fake.params, launch->params,
           launch->param_bytes < sizeof(fake.params) ? launch->param_bytes : sizeof(fake.params));
    return work("launch", stream);
}

static uint32_t fake_launch_part(struct gpu *gpu, struct gpu_function *what,
                                 const struct vgpu_cmd_launch *shape)
{
    (void)gpu;
    (void)what;
    (void)shape;
    return fake.part != 0 ? fake.part : PREDICT_WHOLE;
}

static enum vgpu_gpu_error fake_set_limit(struct gpu *gpu, CUlimit limit, uint64_t value)
{
    (void)gpu;
    (void)limit;
    (void)value;
    note("set limit");
    return outcome();
}

static enum vgpu_gpu_error fake_stream_create(struct gpu *gpu, uint32_t flags, int32_t priority,
                                              struct gpu_stream **stream)
{
    const enum vgpu_gpu_error error = outcome();

    (void)gpu;
    (void)flags;
    (void)priority;
    if (error == VGPU_GPU_SUCCESS) {
        *stream = calloc(1, sizeof(**stream));
        fake.streams++;
    }
    return error;
}

static void fake_stream_destroy(struct gpu *gpu, struct gpu_stream *stream)
{
    (void)gpu;
    free(stream);
    fake.streams--;
}

static enum vgpu_gpu_error fake_stream_poll(struct gpu *gpu, struct gpu_stream *stream)
{
    (void)gpu;
    return poll_position((stream ? stream : &main_stream)->last);
}

static enum vgpu_gpu_error fake_stream_wait(struct gpu *gpu, struct gpu_stream *stream,
                                            struct gpu_event *event)
{
    (void)gpu;
    (void)stream;
    (void)event;
    note("wait");
    return outcome();
}

static enum vgpu_gpu_error fake_event_create(struct gpu *gpu, uint32_t flags,
                                             struct gpu_event **event)
{
    const enum vgpu_gpu_error error = outcome();

    (void)gpu;
    (void)flags;
    if (error == VGPU_GPU_SUCCESS) {
        *event = calloc(1, sizeof(**event));
        fake.events++;
    }
    return error;
}

static void fake_event_destroy(struct gpu *gpu, struct gpu_event *event)
{
    (void)gpu;
    free(event);
    fake.events--;
}

static enum vgpu_gpu_error fake_event_record(struct gpu *gpu, struct gpu_event *event,
                                             struct gpu_stream *stream)
{
    (void)gpu;
    (void)stream;
    note("record");
    event->position = fake.submitted;
    return outcome();
}

static enum vgpu_gpu_error fake_fence(struct gpu *gpu, struct gpu_stream *stream,
                                      struct gpu_fence *fence)
{
    (void)gpu;
    (void)stream;
    if (fake.head.lost == VGPU_GPU_SUCCESS) {
        *fence = (struct gpu_fence){.mark = malloc(1), .position = fake.submitted};
        fake.fences++;
        fake.fence_calls++;
    }
    return fake.head.lost;
}

static enum vgpu_gpu_error fake_event_fence(struct gpu *gpu, struct gpu_event *event,
                                            struct gpu_fence *fence)
{
    const enum vgpu_gpu_error error = fake_fence(gpu, NULL, fence);

    fence->position = event->position;
    return error;
}

static enum vgpu_gpu_error fake_event_query(struct gpu *gpu, struct gpu_event *event)
{
    (void)gpu;
    return poll_position(event->position);
}

static enum vgpu_gpu_error fake_event_elapsed(struct gpu *gpu, struct gpu_event *start,
                                              struct gpu_event *end, float *milliseconds)
{
    (void)gpu;
    *milliseconds = (float)(end->position - start->position);
    return outcome();
}

static enum vgpu_gpu_error fake_fence_poll(struct gpu *gpu, const struct gpu_fence *fence)
{
    (void)gpu;
    return poll_position(fence->position);
}

static void fake_fence_release(struct gpu *gpu, struct gpu_fence *fence)
{
    (void)gpu;
    free(fence->mark);
    fake.fences--;
}

static bool fake_room(struct gpu *gpu)
{
    (void)gpu;
    return !fake.full;
}

static void fake_close(struct gpu *gpu)
{
    (void)gpu;
}

/* Calls of api/ that are not written by hand: none. */
static const struct gpu_calls no_calls;

static const struct gpu_ops fake_ops = {
    .mem_info = fake_mem_info,
    .mem_alloc = fake_mem_alloc,
    .mem_free = fake_mem_free,
    .copy = fake_copy,
    .fill = fake_fill,
    .copy_rows = fake_copy_rows,
    .fill_rows = fake_fill_rows,
    .module_load = fake_module_load,
    .module_builtin = fake_module_builtin,
    .module_unload = fake_module_unload,
    .function_get = fake_function_get,
    .function_param = fake_function_param,
    .launch = fake_launch,
    .launch_part = fake_launch_part,
    .set_limit = fake_set_limit,
    .stream_create = fake_stream_create,
    .stream_destroy = fake_stream_destroy,
    .stream_poll = fake_stream_poll,
    .stream_wait = fake_stream_wait,
    .event_create = fake_event_create,
    .event_destroy = fake_event_destroy,
    .event_record = fake_event_record,
    .event_fence = fake_event_fence,
    .event_query = fake_event_query,
    .event_elapsed = fake_event_elapsed,
    .fence = fake_fence,
    .fence_poll = fake_fence_poll,
    .fence_release = fake_fence_release,
    .room = fake_room,
    .close = fake_close,
};

/* Setting up ------------------------------------------------------------------------------- */

uint32_t *turn_word(enum vgpu_engine engine)
{
    return &fixture.turn_page.turn[engine].state;
}

static int prepare(void)
{
    memset(&fixture, 0, sizeof(fixture));
    test_clock_ns = 0;
    fixture.arena = mmap(NULL, FIXTURE_ARENA, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS,
                         -1, 0);
    fixture.queue = calloc(1, sizeof(*fixture.queue));
    if (fixture.arena == MAP_FAILED || !fixture.queue) {
        return -1;
    }
    fixture.guest = (struct guest_side){.queue = fixture.queue};
    for (unsigned i = 0; i < VGPU_ENGINES; i++) {
        *turn_word((enum vgpu_engine)i) = VGPU_TURN_OPEN;
    }
    return 0;
}

/* The session, once it has a GPU. */
static int start(struct gpu *gpu)
{
    int pair[2];

    if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_NONBLOCK, 0, pair) < 0) {
        return -1;
    }
    fixture.mediator = pair[0];
    ring_session_init(&fixture.session, &(struct ring_session_needs){
                                            .files = {-1, -1},
                                            .queue = fixture.queue,
                                            .irq = eventfd(0, EFD_NONBLOCK),
                                            .gpu = gpu,
                                            .page = &fixture.turn_page,
                                            .account = &fixture.account,
                                            .link = pair[1],
                                        });
    return 0;
}

int fixture_set_up(void **state)
{
    (void)state;
    if (prepare() < 0) {
        return -1;
    }
    memset(&fake, 0, sizeof(fake));
    memset(&main_stream, 0, sizeof(main_stream));
    fake.head.ops = &fake_ops;
    fake.head.file = -1;
    fake.head.calls = &no_calls;
    fake.head.arena = (struct gpu_arena){.address = fixture.arena, .size = FIXTURE_ARENA};
    fake.head.info.memory_total = FAKE_TOTAL;
    strcpy(fake.head.info.name, "fake");
    return start(&fake.head);
}

int fixture_set_up_cpu(void **state)
{
    struct gpu_arena arena;
    struct gpu *gpu;

    (void)state;
    if (prepare() < 0) {
        return -1;
    }
    arena = (struct gpu_arena){.address = fixture.arena, .size = FIXTURE_ARENA};
    return cpu_gpu_open(&arena, CPU_MEMORY, &gpu) < 0 ? -1 : start(gpu_check(gpu));
}

/* Destroys what the guest has left, as closing a real GPU would. */
static void drop_objects(struct handles *handles)
{
    static const enum handle_type types[] = {HANDLE_STREAM, HANDLE_EVENT, HANDLE_MODULE};

    for (int i = 0; i < 3; i++) {
        uint32_t position = 0;

        for (void *object; (object = handles_next(handles, types[i], &position)) != NULL;) {
            free(object);
            *(i == 0 ? &fake.streams : i == 1 ? &fake.events : &fake.modules) -= 1;
        }
    }
}

int fixture_tear_down(void **state)
{
    struct ring_session *s = &fixture.session;

    (void)state;
    alarm(0);
    if (s->gpu == &fake.head) {
        drop_objects(&s->handles);
    }
    ring_session_release(s);
    s->gpu->ops->close(s->gpu);
    close(s->ring.interrupt.fd);
    close(s->turns.engines[0].turn.link);
    close(fixture.mediator);
    free(fixture.queue);
    munmap(fixture.arena, FIXTURE_ARENA);
    return s->gpu == &fake.head && (fake.streams | fake.events | fake.modules | fake.fences) != 0;
}

/* The guest -------------------------------------------------------------------------------- */

void post(uint32_t opcode, uint32_t slot, const void *body, uint32_t bytes)
{
    fixture.sequences[slot] = guest_post(&fixture.guest, opcode, slot, body, bytes);
}

void post_value(uint32_t opcode, uint32_t slot, uint64_t value)
{
    const struct vgpu_cmd_value body = {.value = value};

    post(opcode, slot, &body, sizeof(body));
}

void post_pair(uint32_t opcode, uint32_t slot, uint64_t first, uint64_t second)
{
    const struct vgpu_cmd_pair body = {.first = first, .second = second};

    post(opcode, slot, &body, sizeof(body));
}

void post_copy(enum vgpu_copy_kind kind, uint64_t to, uint64_t from, uint64_t bytes,
               uint64_t stream)
{
    const struct vgpu_cmd_copy body = {
        .to = to, .from = from, .bytes = bytes, .stream = stream, .kind = kind};

    post(VGPU_CMD_COPY, 0, &body, sizeof(body));
}

void post_fill(uint32_t slot, uint64_t address, uint64_t count, uint32_t width)
{
    const struct vgpu_cmd_fill body = {
        .address = address, .width = count, .element = width, .rows = 1};

    post(VGPU_CMD_FILL, slot, &body, sizeof(body));
}

int steps(void)
{
    int r;

    do {
        r = ring_session_step(&fixture.session);
    } while (r > 0);
    return r;
}

bool answered(uint32_t slot)
{
    return guest_answered(&fixture.guest, slot, fixture.sequences[slot]);
}

enum vgpu_gpu_error result_of(uint32_t slot)
{
    assert_true(answered(slot));
    return (enum vgpu_gpu_error)fixture.queue->slots[slot - 1].result;
}

enum vgpu_gpu_error call(uint32_t opcode, const void *body, uint32_t bytes)
{
    post(opcode, CALL_SLOT, body, bytes);
    assert_int_equal(steps(), 0);
    return result_of(CALL_SLOT);
}

enum vgpu_gpu_error call_value(uint32_t opcode, uint64_t value)
{
    const struct vgpu_cmd_value body = {.value = value};

    return call(opcode, &body, sizeof(body));
}

enum vgpu_gpu_error call_pair(uint32_t opcode, uint64_t first, uint64_t second)
{
    const struct vgpu_cmd_pair body = {.first = first, .second = second};

    return call(opcode, &body, sizeof(body));
}

static uint64_t made(enum vgpu_gpu_error error)
{
    uint64_t value;

    assert_int_equal(error, VGPU_GPU_SUCCESS);
    memcpy(&value, fixture.queue->slots[CALL_SLOT - 1].payload, sizeof(value));
    assert_int_not_equal(value, 0);
    return value;
}

uint64_t make(uint32_t opcode, uint64_t value)
{
    return made(call_value(opcode, value));
}

uint64_t make_module(void)
{
    return made(call(VGPU_CMD_MODULE_BUILTIN, NULL, 0));
}

uint64_t make_function(uint64_t module, const char *name)
{
    struct {
        struct vgpu_cmd_function_get get;
        char name[64];
    } body = {.get = {.module = module, .length = strlen(name)}};

    memcpy(body.name, name, strlen(name));
    return made(call(VGPU_CMD_FUNCTION_GET, &body, (uint32_t)(sizeof(body.get) + strlen(name))));
}

void wait_for(uint32_t slot)
{
    alarm(120); /* ends a test that hangs */
    while (!answered(slot)) {
        assert_true(ring_session_step(&fixture.session) >= 0);
        sched_yield();
    }
    alarm(0);
}

/* The mediator ----------------------------------------------------------------------------- */

uint32_t sent(void)
{
    fixture.message = (struct vgpu_link_msg){0};
    if (recv(fixture.mediator, &fixture.message, sizeof(fixture.message), MSG_DONTWAIT) !=
        (ssize_t)sizeof(fixture.message)) {
        return 0;
    }
    return fixture.message.type;
}

bool sent_is(enum vgpu_link_type type, enum vgpu_engine engine)
{
    return sent() == (uint32_t)type && fixture.message.engine == (uint32_t)engine;
}
