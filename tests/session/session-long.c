/* SPDX-License-Identifier: MIT */
/*
 * A session with one kernel that takes long, whose result is checked: for what is done to it
 * meanwhile. Needs a GPU.
 *
 *   session-long --host SOCKET --vm-id N [--fault] SECONDS
 *
 * Prints "running" when the kernel is submitted, and in the end "right", or "wrong: ..." with the
 * number of threads whose chains have other ends than they must have. --fault has a kernel follow
 * that ends the session; then "fault" is what it prints.
 *
 * Exit codes: 0 right, or the fault that was asked for; 1 wrong; 2 wrong usage; 5 anything else.
 *
 * Tests: worker/backend-cuda/channels.c, worker/preempt.c
 */
#include <inttypes.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/clock.h"
#include "guest/libvgpu/vgpu.h"

/* As long.cu has them. */
#define FACTOR UINT64_C(6364136223846793005)
#define SUMMAND UINT64_C(1442695040888963407)
#define THREADS 256u

#define BLOCKS_PER_PROCESSOR 4u
#define TRIED_ROUNDS 20000u /* to learn how long one takes */

extern const char long_ptx[];

struct params {
    uint64_t out, rounds;
};

static struct {
    struct vgpu_session *session;
    uint64_t chain, illegal; /* functions */
    uint64_t out;
    uint64_t threads;
} load;

#define GOOD(call)                                                                                 \
    do {                                                                                           \
        if ((call) != VGPU_OK) {                                                                   \
            fprintf(stderr, #call ": %s\n", vgpu_last_message());                                  \
            exit(5);                                                                               \
        }                                                                                          \
    } while (0)

static void prepare(const struct vgpu_host_options *host)
{
    const struct vgpu_session_options options = {.host = host};
    struct vgpu_device_info info;
    uint64_t module = 0;

    GOOD(vgpu_session_open(&options, &load.session));
    GOOD(vgpu_session_info(load.session, &info));
    load.threads = (uint64_t)info.processors * BLOCKS_PER_PROCESSOR * THREADS;
    GOOD(vgpu_module_load(load.session, long_ptx, strlen(long_ptx), &module));
    GOOD(vgpu_function_get(load.session, module, "chain", &load.chain));
    GOOD(vgpu_function_get(load.session, module, "illegal", &load.illegal));
    GOOD(vgpu_mem_alloc(load.session, load.threads * 16, &load.out));
}

static void launch(uint64_t function, uint64_t rounds)
{
    const struct params params = {load.out, rounds};
    const struct vgpu_launch shape = {
        .function = function, .grid = {(uint32_t)(load.threads / THREADS)}, .block = {THREADS}};

    GOOD(vgpu_launch(load.session, &shape, &params, sizeof(params)));
}

/* How many rounds take so long. */
static uint64_t rounds_of(double seconds)
{
    uint64_t least = UINT64_MAX;

    for (unsigned i = 0; i < 3; i++) {
        const uint64_t start = clock_ns();

        launch(load.chain, TRIED_ROUNDS);
        GOOD(vgpu_stream_sync(load.session, 0));
        least = clock_ns() - start < least ? clock_ns() - start : least;
    }
    return (uint64_t)(seconds * 1e9 / (double)least * TRIED_ROUNDS);
}

/* What `rounds` rounds make of x: factor * x + summand, by doubling. */
static void whole(uint64_t rounds, uint64_t *factor, uint64_t *summand)
{
    uint64_t f = FACTOR, s = SUMMAND;

    *factor = 1;
    *summand = 0;
    for (; rounds > 0; rounds >>= 1) {
        if (rounds & 1) {
            *factor *= f;
            *summand = *summand * f + s;
        }
        s = s * f + s;
        f *= f;
    }
}

static uint64_t count_wrong(uint64_t rounds)
{
    uint64_t *ends = malloc(load.threads * 16);
    uint64_t factor, summand, wrong = 0;

    if (!ends) {
        fputs("no memory\n", stderr);
        exit(5);
    }
    GOOD(vgpu_copy_from(load.session, ends, load.out, load.threads * 16));
    whole(rounds, &factor, &summand);
    for (uint64_t i = 0; i < load.threads; i++) {
        wrong += ends[2 * i] != i * factor + summand || ends[2 * i + 1] != ~i * factor + summand;
    }
    free(ends);
    return wrong;
}

static int run(double seconds, bool fault)
{
    const uint64_t rounds = rounds_of(seconds);
    uint64_t wrong;

    launch(load.chain, rounds);
    if (fault) {
        launch(load.illegal, UINT64_C(1) << 44);
    }
    puts("running");
    fflush(stdout);
    if (fault) {
        const int r = vgpu_stream_sync(load.session, 0);

        puts(r == VGPU_OK ? "no fault" : "fault");
        return r == VGPU_OK;
    }
    GOOD(vgpu_stream_sync(load.session, 0));
    wrong = count_wrong(rounds);
    if (wrong != 0) {
        printf("wrong: %" PRIu64 " of %" PRIu64 " threads\n", wrong, load.threads);
        return 1;
    }
    puts("right");
    return 0;
}

int main(int argc, char **argv)
{
    struct vgpu_host_options host = {
        .pool = 'A', .priority = VGPU_PRIORITY_MEDIUM, .shm_size = UINT64_C(16) << 20};
    bool fault = false;
    double seconds = 0;

    for (int i = 1; i < argc; i++) {
        if (strcmp(argv[i], "--host") == 0 && i + 1 < argc) {
            host.socket = argv[++i];
        } else if (strcmp(argv[i], "--vm-id") == 0 && i + 1 < argc) {
            host.vm_id = (uint32_t)strtoul(argv[++i], NULL, 10);
        } else if (strcmp(argv[i], "--fault") == 0) {
            fault = true;
        } else {
            seconds = strtod(argv[i], NULL);
        }
    }
    if (!host.socket || seconds <= 0) {
        fputs("usage: session-long --host SOCKET --vm-id N [--fault] SECONDS\n", stderr);
        return 2;
    }
    prepare(&host);
    return run(seconds, fault);
}
