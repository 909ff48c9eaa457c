/* SPDX-License-Identifier: MIT */
/*
 * Calls of the CUDA driver API before a session with the cpu backend. The bytes choose calls, and
 * for each word of their arguments a handle of a kind, memory, an address in the arena, a number,
 * or bytes as they are; the commands that make and destroy such things come in between. There is
 * one of each kind from the start, so that calls get good handles often. The window opens and
 * closes, so that commands wait for others and large copies go in pieces.
 *
 * A command of good form never ends the session. Each is answered once, unless it still waits at
 * the end; no byte of the arena changes but those of replies, and those behind the first address
 * that work was given. What streams wait for may never come: closing the GPU ends that, as it ends
 * a kernel that spins.
 *
 * Tests: worker/api*.c, worker/backend-cpu/
 */
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <unistd.h>

#include "common/clock.h"
#include "tests/unit/gpu-check.h"
#include "tests/unit/guest-side.h"
#include "worker/api-calls.h"
#include "worker/ring-session.h"

#define ARENA (64u << 10)
#define ARENA_ADDRESS UINT64_C(0x200000000000)
#define TEXT_AT (16u << 10)  /* where the built-in module's PTX lies in the arena */
#define GRAPH_AT (48u << 10) /* and a graph of GRAPH_NODES nodes */
#define GRAPH_NODES 2u
#define MEMORY (UINT64_C(16) << 20) /* bytes of device memory */
#define QUOTA (MEMORY / 2)
#define KEPT 4u   /* results of each kind that are remembered */
#define KINDS 10u /* of handles, and memory */
#define WAITS 20  /* steps that a command gets before the next is posted */
#define WORDS 48u
#define FILLING 0xa5

/* Each command begins with a byte: */
#define OTHER 0x80u /* no call: its low bits are the opcode, 0 for the window */
#define WAIT 0x40u  /* it gets time */
/* And a call's second one: */
#define WITH_SLOT 1u /* where it need not have one */
#define WITH_REPLY 2u

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

extern const char cuda_kernels_ptx[];

struct input {
    const uint8_t *data;
    size_t left;
};

/* A fill of a word at the arena's end, and what follows it. */
static const struct {
    struct vgpu_graph_node fill;
    struct vgpu_graph_fill what;
    struct vgpu_graph_node last;
    uint32_t follows[2];
} graph_image = {
    .fill = {.kind = VGPU_GRAPH_FILL,
             .bytes = sizeof(struct vgpu_graph_node) + sizeof(graph_image.what)},
    .what = {.to = ARENA_ADDRESS + ARENA - 4, .pitch = 4, .width = 1, .height = 1, .element = 4},
    .last = {.bytes = sizeof(struct vgpu_graph_node) + sizeof(graph_image.follows), .follows = 1},
};

static struct vgpu_queue *queue; /* of exactly its size, so that a byte beyond is found */
static struct gpu_arena arena;
static int irq;
static uint32_t wired[1024]; /* the ids that there are */
static uint32_t wired_count;
static uint8_t at_start[ARENA];

static struct ring_session session;
static struct vgpu_turn_page page;
static struct guest_side guest;
static uint64_t kept[KINDS][KEPT]; /* by enum handle_type; 0: addresses of memory */
static unsigned kept_count[KINDS];
static uint32_t sequences[VGPU_SLOTS + 1]; /* of what is not answered yet; 0: the slot is free */
static uint32_t opcodes[VGPU_SLOTS + 1];
static struct vgpu_slot last[VGPU_SLOTS + 1]; /* the answer before */
static bool may_change[ARENA];                /* it is in a reply */
static uint64_t work_from;                    /* work may write to the arena from here on */

static void demand(bool right)
{
    if (!right) {
        abort();
    }
}

static uint64_t arena_start(void)
{
    return (uint64_t)(uintptr_t)arena.address;
}

static void set_up(void)
{
    const size_t text_bytes = strlen(cuda_kernels_ptx);

    /* Always there, so that an input does the same again; a byte beyond is not mapped. */
    arena.address = mmap((void *)ARENA_ADDRESS, ARENA, PROT_READ | PROT_WRITE,
                         MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED_NOREPLACE, -1, 0);
    arena.size = ARENA;
    demand(arena.address == (void *)ARENA_ADDRESS && TEXT_AT + text_bytes <= GRAPH_AT);
    queue = aligned_alloc(4096, sizeof(*queue));
    irq = eventfd(0, EFD_NONBLOCK);
    memset(at_start, FILLING, sizeof(at_start));
    memcpy(at_start + TEXT_AT, cuda_kernels_ptx, text_bytes);
    memcpy(at_start + GRAPH_AT, &graph_image, sizeof(graph_image));
    for (uint32_t id = 0; id < api_ids; id++) {
        if (api_find(id)) {
            wired[wired_count++] = id;
        }
    }
}

/* Input ------------------------------------------------------------------------------------- */

static uint8_t byte(struct input *in)
{
    if (in->left == 0) {
        return 0;
    }
    in->left--;
    return *in->data++;
}

static uint64_t number(struct input *in, unsigned bytes)
{
    uint64_t value = 0;

    for (unsigned i = 0; i < bytes; i++) {
        value = value << 8 | byte(in);
    }
    return value;
}

static uint64_t known(struct input *in, unsigned kind)
{
    return kept[kind][byte(in) % KEPT];
}

/* The kinds that tests/fuzz/make-call-seeds knows. */
static uint64_t argument(struct input *in)
{
    const uint8_t choice = byte(in) % 23;
    uint64_t value;

    switch (choice) {
    case 0:
        return known(in, 0) + 4u * byte(in);
    case 1:
    case 2:
    case 3:
    case 4:
        return known(in, choice);
    case 5:
        return arena_start() + 16u * byte(in);
    case 6:
        return arena_start() + ARENA - byte(in);
    case 7:
        return byte(in);
    case 8:
        return number(in, 2);
    case 9:
        return number(in, 8);
    case 10:
        value = known(in, byte(in) % KINDS);
        return value ^ UINT64_C(1) << byte(in) % 64;
    case 11:
        return UINT64_C(1) << byte(in) % 64;
    case 12:
        return UINT64_C(0) - byte(in);
    case 13:
        return arena_start() + TEXT_AT;
    case 14:
        return strlen(cuda_kernels_ptx);
    case 16:
        return known(in, HANDLE_GRAPH);
    case 17:
        return known(in, HANDLE_ALLOCATION);
    case 18:
        return arena_start() + GRAPH_AT;
    case 19:
        return sizeof(graph_image);
    case 20:
        return GRAPH_NODES;
    case 21:
        return known(in, HANDLE_LINK);
    case 22:
        return known(in, HANDLE_ARRAY);
    default:
        return 0;
    }
}

/* Words, and runs of bytes; returns how many bytes they are. */
static uint32_t put_arguments(struct input *in, uint8_t *to)
{
    const unsigned count = byte(in) % WORDS;
    uint32_t bytes = 0;

    for (unsigned i = 0; i < count; i++) {
        const uint64_t word = argument(in);

        memcpy(to + bytes, &word, sizeof(word));
        bytes += (uint32_t)sizeof(word);
    }
    for (unsigned left = byte(in); left > 0 && in->left > 0; left--) {
        if (bytes % 8 == 0) {
            memset(to + bytes, 0, 8);
        }
        to[bytes++] = byte(in);
    }
    return (bytes + 7) & ~7u;
}

/* What may be written ----------------------------------------------------------------------- */

/* Work goes up from an address; that of graphs may be anywhere. */
static void note_work(const struct api_rule *rule, const uint8_t *body, uint32_t bytes)
{
    if (strcmp(rule->name, "graph_launch") == 0) {
        work_from = arena_start();
    }
    for (uint32_t at = 0; at + 8 <= bytes; at += 8) {
        uint64_t word;

        memcpy(&word, body + at, sizeof(word));
        if (word >= arena_start() && word < work_from) {
            work_from = word;
        }
    }
}

static void note_reply(uint64_t reply, uint32_t bytes)
{
    if (gpu_in_arena(&arena, reply, bytes)) {
        memset(may_change + (reply - arena_start()), true, bytes);
    }
}

static void check_arena(void)
{
    if (memcmp(arena.address, at_start, ARENA) == 0) {
        return;
    }
    for (uint64_t i = 0; i < ARENA && arena_start() + i < work_from; i++) {
        demand(may_change[i] || arena.address[i] == at_start[i]);
    }
}

/* Answers ----------------------------------------------------------------------------------- */

static void keep(unsigned kind, uint64_t value)
{
    demand(value != 0 && kind < KINDS);
    kept[kind][kept_count[kind]++ % KEPT] = value;
}

static void take_results(uint32_t opcode, const struct vgpu_slot *slot)
{
    uint64_t value;

    memcpy(&value, slot->payload, sizeof(value));
    switch (opcode) {
    case VGPU_CMD_MEM_ALLOC:
        keep(0, value);
        break;
    case VGPU_CMD_MODULE_BUILTIN:
    case VGPU_CMD_FUNCTION_GET:
    case VGPU_CMD_STREAM_CREATE:
    case VGPU_CMD_EVENT_CREATE:
        keep(vgpu_handle_type(value), value);
        break;
    case VGPU_CMD_CALL:
        demand(slot->length % 8 == 0);
        /* Of what makes something, or no handle. */
        if (slot->length >= 8 && vgpu_handle_index(value) < HANDLES_MAX &&
            vgpu_handle_type(value) > 0 && vgpu_handle_type(value) < KINDS) {
            keep(vgpu_handle_type(value), value);
        }
        break;
    default:
        break;
    }
}

static bool may_be_unready(uint32_t opcode)
{
    return opcode == VGPU_CMD_STREAM_QUERY || opcode == VGPU_CMD_EVENT_QUERY ||
           opcode == VGPU_CMD_EVENT_ELAPSED;
}

static void take_answers(void)
{
    for (uint32_t i = 1; i <= VGPU_SLOTS; i++) {
        const struct vgpu_slot *slot = &queue->slots[i - 1];

        if (sequences[i] == 0 || !guest_answered(&guest, i, sequences[i])) {
            demand(memcmp(slot, &last[i], sizeof(*slot)) == 0);
            continue;
        }
        sequences[i] = 0;
        demand(slot->length <= VGPU_PAYLOAD_MAX);
        demand(slot->result == VGPU_GPU_SUCCESS || slot->length == 0);
        demand(slot->result != VGPU_GPU_NOT_READY || may_be_unready(opcodes[i]));
        if (slot->result == VGPU_GPU_SUCCESS) {
            take_results(opcodes[i], slot);
        }
        last[i] = *slot;
    }
}

/* What is not answered in the end still waits. */
static void check_unanswered(void)
{
    uint64_t waiting = session.pending.slots | session.taken.parked_slots |
                       session.taken.backlog.slots;

    if (session.taken.held && session.taken.head.header.slot != 0) {
        waiting |= UINT64_C(1) << (session.taken.head.header.slot - 1);
    }
    for (uint32_t i = 1; i <= VGPU_SLOTS && queue->head == queue->tail; i++) {
        demand((sequences[i] != 0) == (waiting >> (i - 1) & 1));
    }
}

/* Commands ---------------------------------------------------------------------------------- */

static uint32_t free_slot(void)
{
    for (uint32_t i = 1; i <= VGPU_SLOTS; i++) {
        if (sequences[i] == 0) {
            return i;
        }
    }
    return 0;
}

/* Posts a command and lets the session work; false when there is no slot or no room for more. */
static bool post(uint32_t opcode, bool wants, const uint8_t *body, uint32_t bytes, bool wait)
{
    const uint32_t slot = wants ? free_slot() : 0;

    if ((wants && slot == 0) ||
        guest.tail + guest_needs(&guest, bytes) - queue->head > VGPU_RING_SIZE) {
        return false;
    }
    opcodes[slot] = opcode;
    sequences[slot] = guest_post(&guest, opcode, slot, body, bytes);
    for (int i = 0; i < WAITS && (i == 0 || (wait && sequences[slot] != 0)); i++) {
        demand(ring_session_step(&session) >= 0);
        take_answers();
        if (i > 0) {
            cpu_gpu_step(session.gpu);
        }
    }
    if (bytes % 3 != 0) {
        cpu_gpu_step(session.gpu);
    }
    return true;
}

static bool post_call(struct input *in, bool wait)
{
    static _Alignas(8) uint8_t body[sizeof(struct vgpu_cmd_call) + 8 * WORDS + 256];
    struct vgpu_cmd_call call = {.call = (uint32_t)number(in, 2)};
    const uint8_t how = byte(in);
    const struct api_rule *rule;

    if (!api_find(call.call) && call.call < 0x8000) {
        call.call = wired[call.call % wired_count];
    }
    rule = api_find(call.call);
    if (how & WITH_REPLY) {
        call.reply = argument(in);
        call.reply_bytes = (uint32_t)argument(in);
        note_reply(call.reply, call.reply_bytes);
    }
    if (how >= 0xf8) {
        call.reserved = how & 1;
        call.reserved2 = how & 4;
    }
    call.bytes = put_arguments(in, body + sizeof(call));
    memcpy(body, &call, sizeof(call));
    if (rule && (rule->flags & COMMAND_TURN)) {
        note_work(rule, body + sizeof(call), call.bytes);
    }
    return post(VGPU_CMD_CALL, (rule && (rule->flags & COMMAND_SLOT)) || how & WITH_SLOT, body,
                (uint32_t)sizeof(call) + call.bytes, wait);
}

static bool post_function_get(uint64_t module, uint8_t choice, bool wait)
{
    static const char *const names[] = {"vadd", "fill", "reduce_sum", "spin"};
    const char *name = names[choice % 4];
    uint8_t body[64];
    const struct vgpu_cmd_function_get get = {.module = module, .length = strlen(name)};

    memcpy(body, &get, sizeof(get));
    memcpy(body + sizeof(get), name, get.length);
    return post(VGPU_CMD_FUNCTION_GET, true, body, (uint32_t)(sizeof(get) + get.length), wait);
}

static bool post_pair(uint32_t opcode, uint64_t first, uint64_t second, bool slot, bool wait)
{
    const struct vgpu_cmd_pair pair = {first, second};
    uint8_t body[sizeof(pair)];

    memcpy(body, &pair, sizeof(pair));
    return post(opcode, slot, body, sizeof(body), wait);
}

/* The commands that make, destroy or order what calls use. */
static bool post_other(struct input *in, uint32_t opcode, bool wait)
{
    uint64_t first;

    switch (opcode) {
    case 0:
        page.terms.window_ns = page.terms.window_ns == 0 ? 100 * NS_PER_US : 0;
        return true;
    case VGPU_CMD_MODULE_BUILTIN:
    case VGPU_CMD_MEM_INFO:
    case VGPU_CMD_SYNC:
        return post(opcode, true, NULL, 0, wait);
    case VGPU_CMD_FUNCTION_GET:
        first = argument(in);
        return post_function_get(first, byte(in), wait);
    case VGPU_CMD_STREAM_WAIT:
    case VGPU_CMD_EVENT_RECORD:
    case VGPU_CMD_EVENT_ELAPSED:
        first = argument(in);
        return post_pair(opcode, first, argument(in), opcode == VGPU_CMD_EVENT_ELAPSED, wait);
    case VGPU_CMD_MEM_ALLOC:
    case VGPU_CMD_MEM_FREE:
    case VGPU_CMD_MODULE_UNLOAD:
    case VGPU_CMD_STREAM_CREATE:
    case VGPU_CMD_STREAM_DESTROY:
    case VGPU_CMD_STREAM_SYNC:
    case VGPU_CMD_STREAM_QUERY:
    case VGPU_CMD_EVENT_CREATE:
    case VGPU_CMD_EVENT_DESTROY:
    case VGPU_CMD_EVENT_SYNC:
    case VGPU_CMD_EVENT_QUERY:
    case VGPU_CMD_FENCE:
        return post_pair(opcode, argument(in), 0, true, wait);
    default:
        return post(VGPU_CMD_NOP, true, NULL, 0, wait);
    }
}

static bool post_next(struct input *in)
{
    const uint8_t choice = byte(in);

    return choice & OTHER ? post_other(in, choice & 31, (choice & WAIT) != 0)
                          : post_call(in, (choice & WAIT) != 0);
}

/* One of each kind: memory, a module, its functions, a stream, an event. */
static void make_some(void)
{
    post_pair(VGPU_CMD_MEM_ALLOC, 4096, 0, true, true);
    post(VGPU_CMD_MODULE_BUILTIN, true, NULL, 0, true);
    for (uint8_t i = 0; i < 4; i++) {
        post_function_get(kept[1][0], i, true);
    }
    post_pair(VGPU_CMD_STREAM_CREATE, 0, 0, true, true);
    post_pair(VGPU_CMD_EVENT_CREATE, 0, 0, true, true);
}

/* Events are made there; the mediator, who would be asked about what is exported, is not there. */
static struct sharing_files files;

static void start(struct vgpu_account_page *account)
{
    struct gpu *gpu = NULL;

    memset(&session, 0, sizeof(session));
    memset(queue, 0, sizeof(*queue));
    memset(kept, 0, sizeof(kept));
    memset(kept_count, 0, sizeof(kept_count));
    memset(sequences, 0, sizeof(sequences));
    memset(last, 0, sizeof(last));
    memset(may_change, 0, sizeof(may_change));
    memcpy(arena.address, at_start, ARENA);
    work_from = UINT64_MAX;
    guest = (struct guest_side){.queue = queue};
    page = (struct vgpu_turn_page){
        .turn = {{VGPU_TURN_OPEN}, {VGPU_TURN_OPEN}, {VGPU_TURN_OPEN}},
    };
    demand(cpu_gpu_open_stepped(&arena, MEMORY, &gpu) == 0);
    gpu_check(gpu);
    demand(sharing_make_files(false, &files) == 0);
    ring_session_init(&session, &(struct ring_session_needs){.files = files,
                                                             .queue = queue,
                                                             .irq = irq,
                                                             .gpu = gpu,
                                                             .page = &page,
                                                             .account = account,
                                                             .link = -1});
    make_some();
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct input in = {.data = data, .left = size};
    struct vgpu_account_page account = {.limit = QUOTA};

    if (!queue) {
        set_up();
    }
    start(&account);
    while (in.left > 0 && post_next(&in)) {
    }
    check_unanswered();
    demand(account.used <= QUOTA && account.used == page.counters.memory);
    /* Kernels that spin, and streams that wait, end with the GPU. */
    ring_session_release(&session);
    session.gpu->ops->close(session.gpu);
    close(files.events);
    check_arena();
    return 0;
}
