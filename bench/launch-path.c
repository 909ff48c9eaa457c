/* SPDX-License-Identifier: MIT */
/*
 * A ring session on the cpu backend that takes launches: what bench/launch-path counts the
 * instructions of.
 *
 *   launch-path ROUNDS WINDOW_US
 *
 * In each round a guest's 64 launches lie in the ring, and one call of ring_session_step() takes
 * them all. Only that call is counted, by callgrind's client requests; what the backend's thread
 * does, and waiting for it, is not. With a window, others are taken to want the GPU too.
 *
 * It is compiled against this tree and against an older one, so it uses nothing but what both have.
 */
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <time.h>
#include <valgrind/callgrind.h>

#include "protocol/vgpu-queue.h"
#include "protocol/vgpu-worker.h"
#include "worker/gpu.h"
#include "worker/ring-session.h"

#define LAUNCHES 64u /* what one step takes at most */
#define ARENA_BYTES (UINT64_C(1) << 20)
#define COUNT UINT64_C(16)

static struct vgpu_queue *queue;
static struct ring_session *session;
static uint32_t sequence;

static void *pages(size_t bytes)
{
    void *memory = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);

    if (memory == MAP_FAILED) {
        perror("launch-path: mmap");
        exit(1);
    }
    return memory;
}

static void put(uint32_t at, const void *bytes, size_t count)
{
    for (size_t i = 0; i < count; i++) {
        queue->ring[(at + i) % VGPU_RING_SIZE] = ((const uint8_t *)bytes)[i];
    }
}

/* Posts a command as a guest does. */
static void post(uint16_t opcode, uint16_t slot, const void *body, size_t bytes, const void *more,
                 size_t more_bytes)
{
    const uint32_t align = VGPU_COMMAND_ALIGN - 1;
    const uint32_t length = (uint32_t)(sizeof(struct vgpu_command) + bytes + more_bytes + align) &
                            ~align;
    const uint32_t left = VGPU_RING_SIZE - queue->tail % VGPU_RING_SIZE;
    struct vgpu_command header = {.opcode = VGPU_CMD_PAD, .length = left};

    if (left < length) {
        put(queue->tail, &header, sizeof(header));
        queue->tail += left;
    }
    header = (struct vgpu_command){
        .opcode = opcode, .slot = slot, .length = length, .sequence = ++sequence};
    put(queue->tail, &header, sizeof(header));
    put(queue->tail + (uint32_t)sizeof(header), body, bytes);
    put(queue->tail + (uint32_t)(sizeof(header) + bytes), more, more_bytes);
    __atomic_store_n(&queue->tail, queue->tail + length, __ATOMIC_RELEASE);
}

/* Carries out what is there until the slot is answered. Returns its first word. */
static uint64_t ask(uint16_t opcode, const void *body, size_t bytes, const void *more,
                    size_t more_bytes)
{
    const struct timespec moment = {.tv_nsec = 20000};
    uint64_t word;

    post(opcode, 1, body, bytes, more, more_bytes);
    while (__atomic_load_n(&queue->slots[0].sequence, __ATOMIC_ACQUIRE) != sequence) {
        if (ring_session_step(session) < 0) {
            fputs("launch-path: the session has failed\n", stderr);
            exit(1);
        }
        nanosleep(&moment, NULL);
    }
    if (queue->slots[0].result != 0) {
        fprintf(stderr, "launch-path: opcode %u: error %u\n", opcode, queue->slots[0].result);
        exit(1);
    }
    memcpy(&word, queue->slots[0].payload, sizeof(word));
    return word;
}

static void set_up(uint64_t window_us)
{
    struct vgpu_turn_page *page = pages(VGPU_TURN_PAGE_SIZE);
    const struct gpu_arena arena = {.address = pages(ARENA_BYTES), .size = ARENA_BYTES};
    struct gpu *gpu = NULL;
    int link[2];

    queue = pages(VGPU_QUEUE_SIZE);
    session = calloc(1, sizeof(*session));
    if (!session || socketpair(AF_UNIX, SOCK_SEQPACKET, 0, link) < 0 ||
        cpu_gpu_open(&arena, CPU_GPU_MEMORY, &gpu) != 0) {
        fputs("launch-path: cannot set up a session\n", stderr);
        exit(1);
    }
    page->terms.window_ns = window_us * 1000;
    for (unsigned i = 0; i < VGPU_ENGINES; i++) {
        page->turn[i].state = VGPU_TURN_OPEN;
    }
    ring_session_init(session, &(struct ring_session_needs){
                                   .queue = queue,
                                   .irq = -1,
                                   .gpu = gpu,
                                   .page = page,
                                   .account = pages(VGPU_ACCOUNT_PAGE_SIZE),
                                   .link = link[0],
                               });
}

int main(int argc, char **argv)
{
    const unsigned rounds = argc > 1 ? (unsigned)atoi(argv[1]) : 0;
    const struct vgpu_cmd_value value = {.value = COUNT * sizeof(uint32_t)}, none = {0};
    struct vgpu_cmd_function_get get = {.length = 4};
    struct vgpu_cmd_launch launch = {.grid = {1, 1, 1}, .block = {16, 1, 1}, .param_bytes = 20};
    uint8_t params[20] = {0};
    uint64_t address;

    if (rounds == 0 || argc > 3) {
        fputs("usage: launch-path ROUNDS [WINDOW_US]\n", stderr);
        return 2;
    }
    set_up(argc > 2 ? (uint64_t)atoi(argv[2]) : 0);
    address = ask(VGPU_CMD_MEM_ALLOC, &value, sizeof(value), NULL, 0);
    get.module = ask(VGPU_CMD_MODULE_BUILTIN, NULL, 0, NULL, 0);
    launch.function = ask(VGPU_CMD_FUNCTION_GET, &get, sizeof(get), "fill", 4);
    memcpy(params, &address, 8);
    memcpy(params + 8, &(uint64_t){COUNT}, 8);
    for (unsigned i = 0; i < rounds; i++) {
        for (unsigned j = 0; j < LAUNCHES; j++) {
            post(VGPU_CMD_LAUNCH, 0, &launch, sizeof(launch), params, sizeof(params));
        }
        CALLGRIND_TOGGLE_COLLECT;
        ring_session_step(session);
        CALLGRIND_TOGGLE_COLLECT;
        ask(VGPU_CMD_STREAM_SYNC, &none, sizeof(none), NULL, 0);
    }
    printf("%u launches\n", rounds * LAUNCHES);
    return 0;
}
