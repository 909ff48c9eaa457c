/* SPDX-License-Identifier: MIT */
/*
 * A ring session whose mediator changes its mind: turn words, times, the window and the other terms
 * change between any two steps, as the bytes say, within what protocol/vgpu-worker.h allows. They
 * also post commands, let time pass, and finish work on a GPU that does nothing.
 *
 * Nothing may be submitted where the word, its times or the limit on commands forbid it; each
 * message must fit what the mediator knows; a turn that is over has no work left. In the end the
 * mediator grants all that is asked for: then every command is answered, no turn is kept, and the
 * GPU has nothing left that is not freed.
 *
 * Tests: worker/turn.c, worker/flight*.c, worker/ring-session*.c
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <sys/socket.h>

#include "common/clock.h"
#include "tests/unit/guest-side.h"
#include "tests/unit/test-clock.h"
#include "worker/ring-session.h"

#define ARENA (16u << 20) /* bytes; nobody touches them */
#define WINDOW (100 * NS_PER_US)
#define STREAMS 3u
#define ALLOCATIONS 8u
#define PATIENCE 100000 /* steps in which all must come to an end */

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

struct input {
    const uint8_t *data;
    size_t left;
};

static uint8_t byte(struct input *in)
{
    if (in->left == 0) {
        return 0;
    }
    in->left--;
    return *in->data++;
}

static void demand(bool right)
{
    if (!right) {
        abort();
    }
}

static struct ring_session session;
static struct vgpu_turn_page page;
static struct vgpu_account_page account;
static struct guest_side guest;
static struct vgpu_queue *queue;
static struct gpu_arena arena;
static int irq, links[2]; /* the mediator's end, the worker's end */

/* The mediator -------------------------------------------------------------------------------- */

/* What the mediator knows of an engine. */
static struct {
    bool has;      /* the worker has the turn */
    bool waits;    /* or has asked for it */
    bool asked;    /* a message is to end a turn that was asked for */
    bool yielded;  /* its work may still run */
    uint64_t used; /* the number of the last turn in which work was submitted */
} seen[VGPU_ENGINES];

static uint32_t *word(unsigned engine)
{
    return &page.turn[engine].state;
}

static void grant(unsigned engine, enum vgpu_turn turn)
{
    if (seen[engine].waits) {
        seen[engine].waits = false;
        seen[engine].has = seen[engine].asked = true;
        *word(engine) = turn;
    }
}

/* Takes a turn back, or makes somebody want it, or not any more. */
static void change_word(struct input *in, unsigned engine)
{
    const enum vgpu_turn turn = (enum vgpu_turn)(VGPU_TURN_RUNNING + byte(in) % 4);

    if (*word(engine) == VGPU_TURN_OPEN) {
        seen[engine].has = false;
        *word(engine) = VGPU_TURN_CLOSED;
    } else if (*word(engine) != VGPU_TURN_CLOSED) {
        *word(engine) = turn;
    } else {
        grant(engine, turn);
    }
}

static bool engine_idle(unsigned engine);

static void read_message(const struct vgpu_link_msg *msg)
{
    const unsigned e = msg->engine;

    demand(e < VGPU_ENGINES && msg->value == 0 && msg->flags == 0);
    demand((msg->type == VGPU_LINK_YIELD) == (msg->from_ns != 0));
    switch (msg->type) {
    case VGPU_LINK_ASK:
        demand(!seen[e].has && !seen[e].waits && !seen[e].yielded && !seen[e].asked);
        seen[e].waits = true;
        break;
    case VGPU_LINK_YIELD:
        demand(seen[e].has && *word(e) == VGPU_TURN_CLOSED && msg->from_ns >= test_clock_ns);
        seen[e].has = false;
        seen[e].yielded = true;
        break;
    case VGPU_LINK_DONE:
        demand((seen[e].has || seen[e].yielded) && *word(e) == VGPU_TURN_CLOSED && engine_idle(e));
        seen[e].has = seen[e].yielded = seen[e].asked = false;
        break;
    case VGPU_LINK_KEPT:
        demand(seen[e].asked && !seen[e].yielded); /* it may have begun another one since */
        seen[e].asked = false;
        break;
    default:
        abort();
    }
}

static void read_messages(void)
{
    struct vgpu_link_msg msg;

    while (recv(links[0], &msg, sizeof(msg), MSG_DONTWAIT) == (ssize_t)sizeof(msg)) {
        read_message(&msg);
    }
    for (unsigned e = 0; e < VGPU_ENGINES; e++) {
        demand(*word(e) != VGPU_TURN_OPEN || engine_idle(e));
    }
}

static void change_terms(struct input *in)
{
    static const uint64_t windows[] = {0, WINDOW, WINDOW / 10, 100 * WINDOW};
    static const uint32_t commands[] = {0, 1, 3, 100};
    const uint8_t choice = byte(in);

    page.terms.window_ns = windows[choice % 4];
    page.terms.commands = commands[choice / 4 % 4];
    page.terms.kernel_ns = choice / 16 == 1 ? NS_PER_S : 0;
    account.limit = choice / 16 == 2 ? 4096 : 0;
}

static void change_times(struct input *in, unsigned engine)
{
    page.turn[engine].from_ns = test_clock_ns + byte(in) * NS_PER_US;
    page.turn[engine].until_ns = page.turn[engine].from_ns + byte(in) * NS_PER_US;
}

/* The GPU ------------------------------------------------------------------------------------- */

struct gpu_stream {
    uint64_t last; /* position of its last piece */
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

static struct {
    struct gpu head;
    struct gpu_stream main;
    uint64_t submitted, done;           /* pieces, in one order for all streams */
    uint64_t engine_last[VGPU_ENGINES]; /* the last one of each */
    unsigned fences, streams, events, modules;
    uint64_t memory, addresses;
    bool fail; /* the next piece is refused */
} gpu;

static bool engine_idle(unsigned engine)
{
    return gpu.done >= gpu.engine_last[engine];
}

/* A piece of work: whether it may be there now. */
static enum vgpu_gpu_error submit(enum vgpu_engine engine, struct gpu_stream *stream)
{
    const struct vgpu_turn_word *turn = &page.turn[engine];
    const uint64_t number = page.counters.turns[engine];
    const bool shared = turn->state == VGPU_TURN_SHARED;

    demand(turn->state == VGPU_TURN_RUNNING || turn->state == VGPU_TURN_WANTED || shared);
    demand(test_clock_ns >= turn->from_ns);
    demand(!shared || seen[engine].used != number || test_clock_ns < turn->until_ns);
    demand(page.terms.commands == 0 || gpu.submitted - gpu.done < page.terms.commands);
    if (gpu.fail) {
        gpu.fail = false;
        return VGPU_GPU_INVALID_VALUE;
    }
    seen[engine].used = number;
    (stream ? stream : &gpu.main)->last = ++gpu.submitted;
    gpu.engine_last[engine] = gpu.submitted;
    return VGPU_GPU_SUCCESS;
}

static enum vgpu_gpu_error poll_position(uint64_t position)
{
    return gpu.done >= position ? VGPU_GPU_SUCCESS : VGPU_GPU_NOT_READY;
}

static enum vgpu_gpu_error fake_mem_alloc(struct gpu *g, uint64_t bytes, uint64_t *address)
{
    (void)g;
    gpu.memory += (bytes + 511) & ~UINT64_C(511);
    demand(account.used >= gpu.memory);
    *address = 0x1000 * ++gpu.addresses + bytes % 4096; /* remembers the size */
    return VGPU_GPU_SUCCESS;
}

static enum vgpu_gpu_error fake_mem_free(struct gpu *g, uint64_t address)
{
    (void)g;
    gpu.memory -= (address % 4096 + 511) & ~UINT64_C(511);
    return VGPU_GPU_SUCCESS;
}

static enum vgpu_gpu_error fake_copy(struct gpu *g, const struct gpu_copy *copy,
                                     struct gpu_stream *stream)
{
    (void)g;
    return submit(copy->kind == VGPU_COPY_TO_DEVICE     ? VGPU_ENGINE_TO_DEVICE
                  : copy->kind == VGPU_COPY_FROM_DEVICE ? VGPU_ENGINE_FROM_DEVICE
                                                        : VGPU_ENGINE_COMPUTE,
                  stream);
}

static enum vgpu_gpu_error fake_fill(struct gpu *g, const struct gpu_fill *fill,
                                     struct gpu_stream *stream)
{
    (void)g;
    (void)fill;
    return submit(VGPU_ENGINE_COMPUTE, stream);
}

static enum vgpu_gpu_error fake_module_builtin(struct gpu *g, struct gpu_module **module)
{
    static struct gpu_module builtin;

    (void)g;
    /* It may take long: others who are there do not wait for work that is done meanwhile. */
    demand(page.terms.window_ns == 0 || gpu.done == gpu.submitted);
    gpu.modules++;
    *module = &builtin;
    return VGPU_GPU_SUCCESS;
}

static enum vgpu_gpu_error fake_function_get(struct gpu *g, struct gpu_module *module,
                                             const char *name, struct gpu_function **function,
                                             struct vgpu_result_function *info)
{
    static struct gpu_function only;

    (void)g;
    (void)module;
    (void)name;
    (void)info;
    *function = &only;
    return VGPU_GPU_SUCCESS;
}

static enum vgpu_gpu_error fake_launch(struct gpu *g, struct gpu_function *function,
                                       const struct gpu_launch *launch, struct gpu_stream *stream)
{
    (void)g;
    (void)function;
    (void)launch;
    return submit(VGPU_ENGINE_COMPUTE, stream);
}

static uint32_t fake_launch_part(struct gpu *g, struct gpu_function *function,
                                 const struct vgpu_cmd_launch *shape)
{
    (void)g;
    (void)function;
    return shape->grid[0] < PREDICT_WHOLE ? shape->grid[0] + 1 : PREDICT_WHOLE;
}

static enum vgpu_gpu_error fake_stream_create(struct gpu *g, uint32_t flags, int32_t priority,
                                              struct gpu_stream **stream)
{
    (void)g;
    (void)flags;
    (void)priority;
    *stream = calloc(1, sizeof(**stream));
    gpu.streams++;
    return VGPU_GPU_SUCCESS;
}

static void fake_stream_destroy(struct gpu *g, struct gpu_stream *stream)
{
    (void)g;
    demand(gpu.done >= stream->last);
    gpu.streams--;
    free(stream);
}

static enum vgpu_gpu_error fake_stream_poll(struct gpu *g, struct gpu_stream *stream)
{
    (void)g;
    return poll_position((stream ? stream : &gpu.main)->last);
}

static enum vgpu_gpu_error fake_stream_wait(struct gpu *g, struct gpu_stream *stream,
                                            struct gpu_event *event)
{
    (void)g;
    (void)event;
    return submit(VGPU_ENGINE_COMPUTE, stream);
}

static enum vgpu_gpu_error fake_event_create(struct gpu *g, uint32_t flags,
                                             struct gpu_event **event)
{
    (void)g;
    (void)flags;
    *event = calloc(1, sizeof(**event));
    gpu.events++;
    return VGPU_GPU_SUCCESS;
}

static void fake_event_destroy(struct gpu *g, struct gpu_event *event)
{
    (void)g;
    gpu.events--;
    free(event);
}

static enum vgpu_gpu_error fake_event_record(struct gpu *g, struct gpu_event *event,
                                             struct gpu_stream *stream)
{
    const enum vgpu_gpu_error error = submit(VGPU_ENGINE_COMPUTE, stream);

    (void)g;
    event->position = gpu.submitted;
    return error;
}

static enum vgpu_gpu_error fake_fence(struct gpu *g, struct gpu_stream *stream,
                                      struct gpu_fence *fence)
{
    (void)g;
    *fence = (struct gpu_fence){.mark = malloc(1), .position = (stream ? stream : &gpu.main)->last};
    gpu.fences++;
    return VGPU_GPU_SUCCESS;
}

static enum vgpu_gpu_error fake_event_query(struct gpu *g, struct gpu_event *of)
{
    (void)g;
    return poll_position(of->position);
}

static enum vgpu_gpu_error fake_event_fence(struct gpu *g, struct gpu_event *event,
                                            struct gpu_fence *fence)
{
    fake_fence(g, NULL, fence);
    fence->position = event->position;
    return VGPU_GPU_SUCCESS;
}

static enum vgpu_gpu_error fake_fence_poll(struct gpu *g, const struct gpu_fence *fence)
{
    (void)g;
    return poll_position(fence->position);
}

static void fake_fence_release(struct gpu *g, struct gpu_fence *fence)
{
    (void)g;
    free(fence->mark);
    gpu.fences--;
}

static bool fake_room(struct gpu *g)
{
    (void)g;
    return true;
}

static const struct gpu_ops fake_ops = {
    .mem_alloc = fake_mem_alloc,
    .mem_free = fake_mem_free,
    .copy = fake_copy,
    .fill = fake_fill,
    .module_builtin = fake_module_builtin,
    .function_get = fake_function_get,
    .launch = fake_launch,
    .launch_part = fake_launch_part,
    .stream_create = fake_stream_create,
    .stream_destroy = fake_stream_destroy,
    .stream_poll = fake_stream_poll,
    .stream_wait = fake_stream_wait,
    .event_create = fake_event_create,
    .event_destroy = fake_event_destroy,
    .event_record = fake_event_record,
    .event_fence = fake_event_fence,
    .event_query = fake_event_query,
    .fence = fake_fence,
    .fence_poll = fake_fence_poll,
    .fence_release = fake_fence_release,
    .room = fake_room,
};

/* The guest ----------------------------------------------------------------------------------- */

static uint64_t streams[STREAMS], event, function;
static uint64_t allocated[ALLOCATIONS];
static unsigned allocated_count;
static uint32_t opcodes[VGPU_SLOTS + 1], sequences[VGPU_SLOTS + 1]; /* 0: the slot is free */

static uint64_t value_of(uint32_t slot)
{
    uint64_t value;

    memcpy(&value, queue->slots[slot - 1].payload, sizeof(value));
    return queue->slots[slot - 1].result == VGPU_GPU_SUCCESS ? value : 0;
}

static void take_answers(void)
{
    for (uint32_t slot = 1; slot <= VGPU_SLOTS; slot++) {
        if (sequences[slot] == 0 || !guest_answered(&guest, slot, sequences[slot])) {
            continue;
        }
        sequences[slot] = 0;
        if (opcodes[slot] == VGPU_CMD_MEM_ALLOC && value_of(slot) != 0 &&
            allocated_count < ALLOCATIONS) {
            allocated[allocated_count++] = value_of(slot);
        } else if (opcodes[slot] == VGPU_CMD_STREAM_CREATE) {
            streams[slot % STREAMS] = value_of(slot);
        }
    }
}

static void post(uint32_t opcode, bool with_slot, const void *body, uint32_t bytes)
{
    uint32_t slot = 0;

    if (with_slot) {
        for (slot = 1; slot <= VGPU_SLOTS && sequences[slot] != 0; slot++) {
        }
    }
    if (slot > VGPU_SLOTS ||
        guest.tail + guest_needs(&guest, bytes) - queue->head > VGPU_RING_SIZE) {
        return;
    }
    opcodes[slot] = opcode;
    sequences[slot] = guest_post(&guest, opcode, slot, body, bytes);
    sequences[0] = 0;
}

static void post_pair(uint32_t opcode, bool with_slot, uint64_t first, uint64_t second)
{
    const struct vgpu_cmd_pair body = {first, second};

    post(opcode, with_slot, &body, sizeof(body));
}

static void post_work(struct input *in)
{
    const uint8_t choice = byte(in);
    const uint64_t to = (uint64_t)(uintptr_t)arena.address;
    const uint64_t stream = choice % 2 ? streams[choice / 2 % STREAMS] : 0;
    const struct vgpu_cmd_fill fill = {
        .address = 0x1000,
        .width = (uint64_t)1 << choice / 8,
        .stream = stream,
        .element = 4,
        .rows = 1,
    };
    const struct vgpu_cmd_copy copy = {.to = to,
                                       .from = to,
                                       .bytes = choice % 8 == 0 ? ARENA : 64u << choice / 64,
                                       .stream = stream,
                                       .kind = VGPU_COPY_TO_DEVICE + choice / 8 % 3};
    const struct vgpu_cmd_launch launch = {
        .function = function, .stream = stream, .grid = {choice, 1, 1}, .block = {1, 1, 1}};

    switch (byte(in) % 8) {
    case 0:
        post(VGPU_CMD_FILL, choice & 4, &fill, sizeof(fill));
        break;
    case 1:
    case 2:
    case 3:
        post(VGPU_CMD_COPY, choice & 4, &copy, sizeof(copy));
        break;
    case 4:
        post_pair(VGPU_CMD_EVENT_RECORD, false, event, stream);
        break;
    case 5:
        post_pair(VGPU_CMD_STREAM_WAIT, false, stream, event);
        break;
    default:
        post(VGPU_CMD_LAUNCH, choice & 4, &launch, sizeof(launch));
    }
}

static void post_other(struct input *in)
{
    const uint8_t choice = byte(in);
    const uint64_t stream = streams[choice / 11 % STREAMS];

    switch (choice % 11) {
    case 0:
        post(VGPU_CMD_SYNC, true, NULL, 0);
        break;
    case 1:
        post_pair(VGPU_CMD_STREAM_SYNC, true, stream, 0);
        break;
    case 2:
        post_pair(VGPU_CMD_EVENT_SYNC, true, event, 0);
        break;
    case 3:
        post_pair(VGPU_CMD_MEM_ALLOC, true, 1 + choice * 8, 0);
        break;
    case 4:
        if (allocated_count > 0) {
            post_pair(VGPU_CMD_MEM_FREE, true, allocated[--allocated_count], 0);
        }
        break;
    case 5:
        post_pair(VGPU_CMD_STREAM_DESTROY, false, stream, 0);
        break;
    case 6:
        post_pair(VGPU_CMD_STREAM_CREATE, true, 0, 0);
        break;
    case 7:
        post_pair(VGPU_CMD_STREAM_QUERY, true, stream, 0);
        break;
    case 8:
        post_pair(VGPU_CMD_EVENT_QUERY, true, event, 0);
        break;
    case 9:
        post_pair(VGPU_CMD_FENCE, true, stream, 0);
        break;
    default:
        post(VGPU_CMD_MODULE_BUILTIN, true, NULL, 0);
    }
}

/* Running ------------------------------------------------------------------------------------- */

static int step(void)
{
    const int r = ring_session_step(&session);

    demand(r >= 0 || r == -ETIME);
    read_messages();
    take_answers();
    demand(page.counters.memory == account.used && account.used >= gpu.memory);
    demand(page.counters.in_flight >= gpu.submitted - gpu.done);
    return r;
}

/* Makes what all the rest needs; the value of what is answered. */
static uint64_t make(uint32_t opcode, const void *body, uint32_t bytes)
{
    post(opcode, true, body, bytes);
    step();
    return value_of(1);
}

static void start(void)
{
    struct vgpu_cmd_pair pair = {0};

    memset(&session, 0, sizeof(session));
    memset(&page, 0, sizeof(page));
    memset(&account, 0, sizeof(account));
    memset(&gpu, 0, sizeof(gpu));
    memset(queue, 0, sizeof(*queue));
    memset(seen, 0, sizeof(seen));
    memset(sequences, 0, sizeof(sequences));
    allocated_count = 0;
    guest = (struct guest_side){.queue = queue};
    gpu.head.ops = &fake_ops;
    gpu.head.file = -1; /* memory is no file's, and counts in the smaller granules */
    gpu.head.arena = arena;
    test_clock_ns = NS_PER_S;
    ring_session_init(&session, &(struct ring_session_needs){.files = {-1, -1},
                                                             .queue = queue,
                                                             .irq = irq,
                                                             .gpu = &gpu.head,
                                                             .page = &page,
                                                             .account = &account,
                                                             .link = links[1]});
    pair.first = make(VGPU_CMD_MODULE_BUILTIN, NULL, 0);
    function = make(VGPU_CMD_FUNCTION_GET, &pair, sizeof(pair));
    pair.first = 0;
    event = make(VGPU_CMD_EVENT_CREATE, &pair, sizeof(pair));
    for (unsigned i = 0; i < STREAMS; i++) {
        streams[i] = make(VGPU_CMD_STREAM_CREATE, &pair, sizeof(pair));
    }
}

/* One thing after the other, as the bytes say. False when the session has ended. */
static bool play(struct input *in)
{
    while (in->left > 0) {
        const uint8_t choice = byte(in);
        const unsigned engine = choice / 16 % VGPU_ENGINES;

        switch (choice % 16) {
        case 0:
        case 1:
        case 2:
            post_work(in);
            break;
        case 3:
            post_other(in);
            break;
        case 4:
        case 5:
            gpu.done += byte(in) % 8;
            gpu.done = gpu.done < gpu.submitted ? gpu.done : gpu.submitted;
            break;
        case 6:
        case 7:
            test_clock_ns += byte(in) * NS_PER_US * (choice / 16 + 1);
            break;
        case 8:
            change_terms(in);
            break;
        case 9:
            change_times(in, engine);
            break;
        case 10:
            gpu.fail = true;
            break;
        default:
            change_word(in, engine);
        }
        if (step() < 0) {
            return false;
        }
    }
    return true;
}

/* Nobody else is there any more. */
static void come_to_an_end(void)
{
    page.terms = (struct vgpu_terms){0};
    for (int i = 0; i < PATIENCE; i++) {
        for (unsigned e = 0; e < VGPU_ENGINES; e++) {
            page.turn[e].from_ns = page.turn[e].until_ns = 0;
            grant(e, VGPU_TURN_RUNNING);
        }
        gpu.done = gpu.submitted;
        test_clock_ns += NS_PER_MS;
        if (step() == 0 && ring_session_quiet(&session) && queue->head == queue->tail) {
            break;
        }
    }
    demand(ring_session_quiet(&session) && queue->head == queue->tail);
    demand(flight_idle(&session.flight) && page.counters.in_flight == 0);
    for (uint32_t slot = 1; slot <= VGPU_SLOTS; slot++) {
        demand(sequences[slot] == 0);
    }
    for (unsigned e = 0; e < VGPU_ENGINES; e++) {
        demand(!seen[e].waits && !seen[e].asked && !seen[e].yielded);
    }
    demand(account.used == gpu.memory);
}

/* As the end of the process does it. */
static void drop_objects(void)
{
    uint32_t position = 0;

    for (void *object; (object = handles_next(&session.handles, HANDLE_STREAM, &position));) {
        free(object);
        gpu.streams--;
    }
    position = 0;
    for (void *object; (object = handles_next(&session.handles, HANDLE_EVENT, &position));) {
        free(object);
        gpu.events--;
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct input in = {.data = data, .left = size};

    if (!queue) {
        queue = aligned_alloc(4096, sizeof(*queue));
        irq = eventfd(0, EFD_NONBLOCK);
        arena.address = mmap(NULL, ARENA, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
        arena.size = ARENA;
        demand(socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_NONBLOCK, 0, links) == 0);
    }
    start();
    if (play(&in)) {
        come_to_an_end();
    } else {
        ring_session_fail(&session, VGPU_GPU_LAUNCH_TIMEOUT);
        while (session.streams.retired) {
            gpu.done = gpu.submitted;
            step();
        }
    }
    drop_objects();
    ring_session_release(&session);
    demand(gpu.fences == 0 && gpu.streams == 0 && gpu.events == 0);
    while (recv(links[0], &(struct vgpu_link_msg){0}, sizeof(struct vgpu_link_msg), MSG_DONTWAIT) >
           0) {
    }
    test_clock_ns = 0;
    return 0;
}
