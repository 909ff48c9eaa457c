/* SPDX-License-Identifier: MIT */
/*
 * A ring that a hostile guest process has filled, before a session with the cpu backend: what it
 * holds is carried out, or ends the session, and nothing outside the queue, the arena and the
 * session's own memory is touched. The first byte tells how far before the end of the ring, and of
 * the counters, the worker is; then come four bytes of tail beyond that, and what the ring holds.
 *
 * Tests: worker/ring.c, worker/ring-session*.c
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/mman.h>

#include "tests/unit/gpu-check.h"
#include "worker/ring-session.h"

#define ARENA (64u << 10)
#define ARENA_ADDRESS UINT64_C(0x200000000000)
#define MEMORY (1u << 20) /* bytes of device memory */
#define STEPS 64          /* a batch of commands each, or a look at what is pending */

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static struct vgpu_queue *queue; /* of exactly its size, so that a byte beyond is found */
static struct gpu_arena arena;
static int irq;

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

/* Puts the bytes where the worker will look for them, around the end of the ring. */
static void fill_ring(uint32_t head, const uint8_t *bytes, size_t count)
{
    memset(queue, 0, sizeof(*queue));
    for (size_t i = 0; i < count && i < VGPU_RING_SIZE; i++) {
        queue->ring[(head + i) % VGPU_RING_SIZE] = bytes[i];
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static struct ring_session session;
    struct vgpu_turn_page page = {
        .turn = {{VGPU_TURN_OPEN}, {VGPU_TURN_OPEN}, {VGPU_TURN_OPEN}},
    };
    struct vgpu_account_page account = {0};
    struct gpu *gpu;
    uint32_t head, posted;
    int r = 0;

    if (!queue) {
        set_up();
    }
    if (size < 5) {
        return 0;
    }
    head = 0u - VGPU_COMMAND_ALIGN * data[0];
    memcpy(&posted, data + 1, 4);
    memset(&session, 0, sizeof(session));
    if (cpu_gpu_open(&arena, MEMORY, &gpu) < 0) {
        abort();
    }
    gpu_check(gpu);
    fill_ring(head, data + 5, size - 5);
    ring_session_init(&session, &(struct ring_session_needs){.files = {-1, -1},
                                                             .queue = queue,
                                                             .irq = irq,
                                                             .gpu = gpu,
                                                             .page = &page,
                                                             .account = &account,
                                                             .link = -1});
    session.ring.head = session.ring.tail = head;
    queue->tail = head + posted;
    queue->waiting = posted & 1;
    for (int i = 0; i < STEPS && r >= 0; i++) {
        r = ring_session_step(&session);
    }
    if (r < 0 && r != -EPROTO) {
        abort();
    }
    /* What has been taken had been posted, and the guest has been told. */
    if (session.ring.head - head > posted ||
        (session.ring.head != head && queue->head != session.ring.head)) {
        abort();
    }
    ring_session_release(&session);
    gpu->ops->close(gpu);
    return 0;
}
