/* SPDX-License-Identifier: MIT */
/*
 * A guest that changes its queue and its arena at random while the worker reads them. One thread
 * stores bytes all over both, most of them where the worker is just reading; another posts commands
 * as a good guest would and steps a session with the cpu backend. A session that ends is followed
 * by another one. Nothing may crash, and nothing outside the two may be touched: pages around them
 * have no access rights.
 *
 * It takes VGPU_STRESS_SECONDS, by default 2.
 *
 * Tests: worker/ring.c, worker/ring-session*.c, worker/command*.c
 */
#include <errno.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <unistd.h>

#include "common/clock.h"
#include "tests/unit/gpu-check.h"
#include "tests/unit/guest-side.h"
#include "tests/unit/unit.h"
#include "worker/ring-session.h"

#define PAGE 4096u
#define ARENA (64u << 10) /* bytes */
#define MEMORY (1u << 20) /* of the device */
#define COMMANDS 300u     /* of a session, at most: one that has lost its context is of no use */
#define NEAR 512u         /* bytes around the tail that are changed most */

static struct vgpu_queue *queue;
static struct gpu_arena arena;
static bool stop;

/* Memory with nothing before and behind it. */
static void *guarded(size_t size)
{
    uint8_t *memory = mmap(NULL, size + 2 * PAGE, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

    assert_ptr_not_equal(memory, MAP_FAILED);
    assert_int_equal(mprotect(memory + PAGE, size, PROT_READ | PROT_WRITE), 0);
    return memory + PAGE;
}

static void unguard(void *memory, size_t size)
{
    munmap((uint8_t *)memory - PAGE, size + 2 * PAGE);
}

/* The guest that lies ------------------------------------------------------------------------ */

static void change(void *memory, size_t offset, unsigned *seed)
{
    volatile uint8_t *byte = (uint8_t *)memory + offset;

    *byte = rand_r(seed) % 4 == 0 ? (uint8_t)rand_r(seed)
                                  : (uint8_t)(*byte ^ 1u << rand_r(seed) % 8);
}

static void *mutator(void *argument)
{
    unsigned seed = 1;

    (void)argument;
    while (!__atomic_load_n(&stop, __ATOMIC_RELAXED)) {
        const uint32_t tail = shared_load(&queue->tail);
        const unsigned choice = (unsigned)rand_r(&seed) % 1000;
        const size_t any = (size_t)rand_r(&seed);

        if (choice < 1) {
            change(queue, any % 128, &seed); /* the counters */
        } else if (choice < 300) {
            change(queue->ring, (tail - NEAR + any % (2 * NEAR)) % VGPU_RING_SIZE, &seed);
        } else if (choice < 400) {
            change(queue, any % sizeof(*queue), &seed);
        } else if (choice < 500) {
            change(queue->slots, any % sizeof(queue->slots), &seed);
        } else {
            change(arena.address, any % ARENA, &seed);
        }
        /* Most of the time slower than the worker, so that it gets somewhere. */
        for (volatile int i = rand_r(&seed) % 2000; i > 0; i--) {
        }
    }
    return NULL;
}

/* The guest that does not -------------------------------------------------------------------- */

static uint64_t some_address(unsigned *seed)
{
    const uint64_t offset = (uint64_t)(rand_r(seed) % 64) * 16;

    /* Of the arena, or where the cpu backend's first allocations lie. */
    return rand_r(seed) % 2 == 0 ? (uint64_t)(uintptr_t)arena.address + offset
                                 : UINT64_C(0x1000000000) + offset;
}

/* Handles as the worker gives them: place, type, generation. */
static uint64_t some_handle(unsigned *seed)
{
    return (uint64_t)(1 + rand_r(seed) % 8) | (uint64_t)(1 + rand_r(seed) % 4) << 24 |
           UINT64_C(1) << 32;
}

static uint32_t make_body(uint32_t opcode, uint8_t *body, unsigned *seed)
{
    const struct vgpu_cmd_copy copy = {.to = some_address(seed),
                                       .from = some_address(seed),
                                       .bytes = 64,
                                       .kind = 1 + (uint32_t)rand_r(seed) % 3};
    const struct vgpu_cmd_fill fill = {
        .address = some_address(seed), .width = 16, .element = 4, .rows = 1};
    const struct vgpu_cmd_launch launch = {
        .function = some_handle(seed), .grid = {1, 1, 1}, .block = {1, 1, 1}, .param_bytes = 8};
    const struct vgpu_cmd_function_get get = {.module = some_handle(seed), .length = 4};
    const struct vgpu_cmd_pair pair = {some_handle(seed), some_handle(seed)};
    const uint64_t ns = 1000;

    switch (opcode) {
    case VGPU_CMD_NOP:
    case VGPU_CMD_DEVICE_INFO:
    case VGPU_CMD_MEM_INFO:
    case VGPU_CMD_MODULE_BUILTIN:
    case VGPU_CMD_SYNC:
        return 0;
    case VGPU_CMD_MEM_ALLOC:
    case VGPU_CMD_MEM_FREE:
    case VGPU_CMD_STREAM_CREATE:
    case VGPU_CMD_EVENT_CREATE:
        memset(body, 0, 16);
        body[1] = opcode == VGPU_CMD_MEM_ALLOC ? 4 : 0;
        return 16;
    case VGPU_CMD_COPY:
        memcpy(body, &copy, sizeof(copy));
        return sizeof(copy);
    case VGPU_CMD_FILL:
        memcpy(body, &fill, sizeof(fill));
        return sizeof(fill);
    case VGPU_CMD_FUNCTION_GET:
        memcpy(body, &get, sizeof(get));
        memcpy(body + sizeof(get), "spin", 4);
        return sizeof(get) + 4;
    case VGPU_CMD_LAUNCH:
        memcpy(body, &launch, sizeof(launch));
        memcpy(body + sizeof(launch), &ns, sizeof(ns));
        return sizeof(launch) + sizeof(ns);
    default:
        memcpy(body, &pair, sizeof(pair));
        return sizeof(pair);
    }
}

static void post_something(struct guest_side *guest, uint32_t slot, unsigned *seed)
{
    const uint32_t opcode = 1 + (uint32_t)rand_r(seed) % VGPU_COMMAND_COUNT;
    uint8_t body[128];
    const uint32_t bytes = make_body(opcode, body, seed);

    guest_post(guest, opcode, slot, body, bytes);
}

/* Sessions ----------------------------------------------------------------------------------- */

struct tally {
    uint64_t succeeded; /* commands */
    unsigned ended;     /* sessions, because of what their ring held */
    unsigned lasted;
};

static void one_session(int irq, unsigned *seed, struct tally *tally)
{
    static struct ring_session session;
    struct vgpu_turn_page page = {
        .turn = {{VGPU_TURN_OPEN}, {VGPU_TURN_OPEN}, {VGPU_TURN_OPEN}},
    };
    struct vgpu_account_page account = {.limit = MEMORY / 2};
    struct guest_side guest = {.queue = queue};
    struct gpu *gpu;
    int r = 0;

    memset(queue, 0, sizeof(*queue));
    memset(&session, 0, sizeof(session));
    assert_int_equal(cpu_gpu_open(&arena, MEMORY, &gpu), 0);
    gpu_check(gpu);
    ring_session_init(&session, &(struct ring_session_needs){.files = {-1, -1},
                                                             .queue = queue,
                                                             .irq = irq,
                                                             .gpu = gpu,
                                                             .page = &page,
                                                             .account = &account,
                                                             .link = -1});
    for (uint32_t i = 0; i < COMMANDS && r >= 0; i++) {
        /* None that is in use: it is the other thread that is to end the session. */
        if ((session.pending.slots >> i % VGPU_SLOTS & 1) == 0) {
            post_something(&guest, 1 + i % VGPU_SLOTS, seed);
        }
        if (i % 8 == 7) {
            r = ring_session_step(&session);
        }
    }
    tally->ended += r == -EPROTO;
    tally->lasted += r >= 0;
    tally->succeeded += page.counters.requests - page.counters.errors;
    assert_true(account.used <= account.limit);
    assert_int_equal(account.used, page.counters.memory);
    ring_session_release(&session);
    gpu->ops->close(gpu);
    assert_true(r >= 0 || r == -EPROTO);
}

static void test_guest_that_changes_everything_at_random(void **state)
{
    const char *text = getenv("VGPU_STRESS_SECONDS");
    const uint64_t limit = (text ? strtoul(text, NULL, 10) : 2) * NS_PER_S;
    const int irq = eventfd(0, EFD_NONBLOCK);
    const uint64_t start = clock_ns();
    struct tally tally = {0};
    unsigned seed = 2;
    pthread_t thread;

    (void)state;
#ifdef __SANITIZE_THREAD__
    skip(); /* races on what the guest shares are what this is about */
#endif
    queue = guarded(sizeof(*queue));
    arena = (struct gpu_arena){.address = guarded(ARENA), .size = ARENA};
    assert_int_equal(pthread_create(&thread, NULL, mutator, NULL), 0);
    while (clock_ns() - start < limit || tally.succeeded == 0 || tally.ended == 0 ||
           tally.lasted == 0) {
        one_session(irq, &seed, &tally);
    }
    __atomic_store_n(&stop, true, __ATOMIC_RELAXED);
    pthread_join(thread, NULL);
    unguard(queue, sizeof(*queue));
    unguard(arena.address, ARENA);
    close(irq);
    print_message("%u sessions ended, %u lasted, %llu commands succeeded\n", tally.ended,
                  tally.lasted, (unsigned long long)tally.succeeded);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_guest_that_changes_everything_at_random),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
