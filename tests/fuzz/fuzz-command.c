/* SPDX-License-Identifier: MIT */
/*
 * Commands of good form with arguments of any kind, before a session with the cpu backend. The
 * bytes choose opcodes, and arguments among what earlier commands gave back (whole, off by some,
 * or of another kind), addresses in the arena, small numbers and large ones. So every handler is
 * reached behind the checks that fuzz-ring cannot pass. A command of good form never ends the
 * session and is answered once, with its own number.
 *
 * Tests: worker/command.c, worker/execution.c, worker/do-*.c, worker/backend-cpu/
 */
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/mman.h>

#include "tests/fuzz/command-bodies.h"
#include "tests/unit/gpu-check.h"
#include "tests/unit/guest-side.h"
#include "worker/ring-session.h"

#define ARENA (64u << 10)
#define ARENA_ADDRESS UINT64_C(0x200000000000)
#define MEMORY (1u << 20) /* bytes of device memory */
#define QUOTA (MEMORY / 2)
#define KEPT 16u /* results that are remembered */
#define WAITS 20 /* steps that a command gets before the next is posted */

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

struct input {
    const uint8_t *data;
    size_t left;
};

static struct vgpu_queue *queue; /* of exactly its size, so that a byte beyond is found */
static struct gpu_arena arena;
static int irq;

static struct ring_session session;
static struct guest_side guest;
static uint64_t kept[KEPT];
static unsigned kept_count;
static uint32_t sequences[VGPU_SLOTS + 1]; /* of what is not answered yet; 0: the slot is free */
static uint32_t opcodes[VGPU_SLOTS + 1];
static uint64_t unanswered; /* the same slots, bit N for slot N + 1 */
static_assert(VGPU_SLOTS == 64, "as many as bits");

static void set_up(void)
{
    /* Always there, so that an input does the same again; a byte beyond is not mapped. */
    arena.address = mmap((void *)ARENA_ADDRESS, ARENA, PROT_READ | PROT_WRITE,
                         MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED_NOREPLACE, -1, 0);
    arena.size = ARENA;
    if (arena.address != (void *)ARENA_ADDRESS) {
        abort();
    }
    queue = aligned_alloc(4096, sizeof(*queue));
    irq = eventfd(0, EFD_NONBLOCK);
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

static uint64_t word(struct input *in)
{
    uint64_t value = 0;

    for (int i = 0; i < 8; i++) {
        value = value << 8 | byte(in);
    }
    return value;
}

uint64_t fuzz_argument(struct input *in)
{
    const uint8_t choice = byte(in);
    const uint64_t known = kept[(choice >> 4) % KEPT];

    switch (choice % 10) {
    case 0:
    case 1:
    case 2:
        return known;
    case 3:
        return known + 4u * byte(in);
    case 4:
        return known ^ UINT64_C(1) << byte(in) % 64;
    case 5:
        return (uint64_t)(uintptr_t)arena.address + 16u * byte(in);
    case 6:
        return (uint64_t)(uintptr_t)arena.address + ARENA - byte(in);
    case 7:
        return byte(in);
    case 8:
        return (uint64_t)byte(in) << 8 | byte(in);
    default:
        return word(in);
    }
}

uint32_t fuzz_number(struct input *in)
{
    const uint8_t value = byte(in);

    return value < 0xf0 ? value % 80 : (uint32_t)word(in);
}

/* A function's name, or words; also more of them than there is a use for. */
uint32_t fuzz_follow(struct input *in, uint8_t *to, uint32_t size, uint32_t most, uint32_t room)
{
    static const char *const names[] = {"vadd", "fill", "reduce_sum", "spin"};
    const uint8_t choice = byte(in);
    uint32_t count = choice % 16 < 4 ? (uint32_t)strlen(names[choice % 4]) : byte(in) * 8u / size;

    count = count < most ? count : most;
    count = count < room / size ? count : room / size;
    memset(to, 'x', (size_t)count * size);
    if (choice % 16 < 4) {
        memcpy(to, names[choice % 4], size == 1 ? count : 0);
        return count;
    }
    for (uint32_t at = 0; at < 64 && at + 8 <= count * size; at += 8) {
        const uint64_t value = fuzz_argument(in);

        memcpy(to + at, &value, sizeof(value));
    }
    return count;
}

/* Answers ----------------------------------------------------------------------------------- */

static void take_answers(void)
{
    for (uint64_t left = unanswered; left != 0; left &= left - 1) {
        const uint32_t i = 1 + (uint32_t)__builtin_ctzll(left);
        const struct vgpu_slot *slot = &queue->slots[i - 1];
        const uint32_t opcode = opcodes[i];
        uint64_t value;

        if (!guest_answered(&guest, i, sequences[i])) {
            continue;
        }
        sequences[i] = 0;
        unanswered &= ~(UINT64_C(1) << (i - 1));
        if (slot->length > VGPU_PAYLOAD_MAX ||
            (slot->result != VGPU_GPU_SUCCESS && slot->length != 0) ||
            (slot->result == VGPU_GPU_NOT_READY && !command_asks(opcode))) {
            abort();
        }
        memcpy(&value, slot->payload, sizeof(value));
        if (slot->result == VGPU_GPU_SUCCESS && command_gives_value(opcode)) {
            if (value == 0 || slot->length < sizeof(value)) {
                abort();
            }
            kept[kept_count++ % KEPT] = value;
        }
        if (slot->result == VGPU_GPU_SUCCESS && opcode == VGPU_CMD_MEM_INFO && value > QUOTA) {
            abort();
        }
    }
}

static uint32_t free_slot(void)
{
    for (uint32_t i = 1; i <= VGPU_SLOTS; i++) {
        if (sequences[i] == 0) {
            return i;
        }
    }
    return 0;
}

static void start(struct vgpu_turn_page *page, struct vgpu_account_page *account)
{
    struct gpu *gpu;

    memset(&session, 0, sizeof(session));
    memset(queue, 0, sizeof(*queue));
    memset(kept, 0, sizeof(kept));
    memset(sequences, 0, sizeof(sequences));
    kept_count = 0;
    unanswered = 0;
    guest = (struct guest_side){.queue = queue};
    if (cpu_gpu_open_stepped(&arena, MEMORY, &gpu) < 0) {
        abort();
    }
    gpu_check(gpu);
    ring_session_init(&session, &(struct ring_session_needs){.files = {-1, -1},
                                                             .queue = queue,
                                                             .irq = irq,
                                                             .gpu = gpu,
                                                             .page = page,
                                                             .account = account,
                                                             .link = -1});
}

/* Posts one command; false when there is no slot or no room for more. */
static bool post(struct input *in)
{
    static uint8_t body[VGPU_COMMAND_MAX];
    const uint8_t choice = byte(in);
    const uint32_t opcode = 1 + (choice & 31) % VGPU_COMMAND_COUNT; /* and one too many */
    /* What need not have a slot has one only when the bytes say so. */
    const bool wants = command_wants_slot(opcode);
    const uint32_t slot = wants || choice & 32 ? free_slot() : 0;
    const uint32_t bytes = command_body(in, opcode, body, sizeof(body) - VGPU_COMMAND_ALIGN);

    if ((wants && slot == 0) ||
        guest.tail + guest_needs(&guest, bytes) - queue->head > VGPU_RING_SIZE) {
        return false;
    }
    opcodes[slot] = opcode;
    sequences[slot] = guest_post(&guest, opcode, slot, body, bytes);
    unanswered |= slot != 0 ? UINT64_C(1) << (slot - 1) : 0;
    for (int i = 0; i < WAITS && (i == 0 || (choice & 64 && sequences[slot] != 0)); i++) {
        const int r = ring_session_step(&session);

        if (r < 0) {
            abort();
        }
        take_answers();
        /* Where nothing goes on, only time can help, and mostly it does not. */
        if (i > 0 && !cpu_gpu_step(session.gpu) && r == 0) {
            break;
        }
    }
    if (choice & 128) {
        cpu_gpu_step(session.gpu);
    }
    return true;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct input in = {.data = data, .left = size};
    struct vgpu_turn_page page = {
        .turn = {{VGPU_TURN_OPEN}, {VGPU_TURN_OPEN}, {VGPU_TURN_OPEN}},
    };
    struct vgpu_account_page account = {.limit = QUOTA};

    if (!queue) {
        set_up();
    }
    start(&page, &account);
    while (in.left > 0 && post(&in)) {
    }
    if (account.used > QUOTA || account.used != page.counters.memory) {
        abort();
    }
    /* Kernels that spin end with the GPU. */
    ring_session_release(&session);
    session.gpu->ops->close(session.gpu);
    return 0;
}
