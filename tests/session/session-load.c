/* SPDX-License-Identifier: MIT */
/*
 * A session that computes, and checks what it gets, until it is stopped: for what happens to a
 * session while it is in use. By the mediator's socket, by sysfs or by the guest driver.
 *
 *   session-load [--host SOCKET [--vm-id N]] [--memory MIB] [--rounds N] [--spin US] SECONDS
 *
 * 0 seconds: for ever, or for so many rounds. SIGTERM stops it too. Prints "open" once the session
 * runs, and in the end "N rounds: RESULT", where RESULT is OK or why it went on no further; after
 * ENDED the reason follows. An error's text goes to stderr.
 *
 * --memory asks for so many MiB of device memory, one by one, and says how many it got, and how
 * many there are in all. --spin keeps the GPU busy: a round begins with 16 kernels that take so
 * many microseconds each, and only then waits for anything.
 *
 * Exit codes: 0 all were right, 1 a wrong result, 2 wrong usage, 3 the session ended, 4 no
 * permission, 5 no session for another reason.
 *
 * Tests: guest/libvgpu/calls*.c, guest/libvgpu/session*.c
 */
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "guest/libvgpu/vgpu.h"

#define COUNT 4096u /* elements */
#define MIB (UINT64_C(1) << 20)
#define SPINS 16u

static volatile sig_atomic_t stopped;

static void on_signal(int number)
{
    (void)number;
    stopped = 1;
}

/* What is wanted. */
struct wanted {
    unsigned long seconds, rounds; /* 0: no limit */
    unsigned long memory;          /* MiB */
    unsigned long spin_us;         /* 0: none */
};

/* What a round uses. */
struct load {
    struct vgpu_session *session;
    uint64_t vadd, reduce, spin; /* functions */
    uint64_t a, b, sum, total;   /* device memory */
    uint64_t rounds;
    bool wrong;
};

static int prepare(struct load *l)
{
    uint64_t module = 0;
    int r = vgpu_module_builtin(l->session, &module);

    r = r ? r : vgpu_function_get(l->session, module, "vadd", &l->vadd);
    r = r ? r : vgpu_function_get(l->session, module, "reduce_sum", &l->reduce);
    r = r ? r : vgpu_function_get(l->session, module, "spin", &l->spin);
    r = r ? r : vgpu_mem_alloc(l->session, 4 * COUNT, &l->a);
    r = r ? r : vgpu_mem_alloc(l->session, 4 * COUNT, &l->b);
    r = r ? r : vgpu_mem_alloc(l->session, 4 * COUNT, &l->sum);
    return r ? r : vgpu_mem_alloc(l->session, 8, &l->total);
}

/* Sums of floats that are exact, and a sum of all bits of `a`. */
static int compute(struct load *l)
{
    static float a[COUNT], b[COUNT], sum[COUNT];
    const struct vgpu_launch vadd = {.function = l->vadd, .grid = {4}, .block = {256}};
    const struct vgpu_launch reduce = {.function = l->reduce, .grid = {4}, .block = {256}};
    int64_t total = 0, expected = 0;
    int32_t bits;
    int r;

    for (uint32_t i = 0; i < COUNT; i++) {
        a[i] = (float)((i + l->rounds) % 65536);
        b[i] = (float)((i * 7 + (uint32_t)getpid()) % 65536);
        memcpy(&bits, &a[i], sizeof(bits));
        expected += bits;
    }
    r = vgpu_copy_to(l->session, l->a, a, sizeof(a));
    r = r ? r : vgpu_copy_to(l->session, l->b, b, sizeof(b));
    r = r ? r : vgpu_fill(l->session, l->total, 0, 4, 2, 0);
    r = r ? r
          : vgpu_launch(l->session, &vadd,
                        &(struct { uint64_t a, b, sum, n; }){l->a, l->b, l->sum, COUNT}, 32);
    r = r ? r
          : vgpu_launch(l->session, &reduce,
                        &(struct { uint64_t from, n, sum; }){l->a, COUNT, l->total}, 24);
    r = r ? r : vgpu_copy_from(l->session, sum, l->sum, sizeof(sum));
    r = r ? r : vgpu_copy_from(l->session, &total, l->total, sizeof(total));
    for (uint32_t i = 0; r == VGPU_OK && i < COUNT; i++) {
        l->wrong = l->wrong || sum[i] != a[i] + b[i];
    }
    l->wrong = l->wrong || (r == VGPU_OK && total != expected);
    return r;
}

/* Takes device memory, until there is none left. */
static int take_memory(struct load *l, unsigned long wanted)
{
    uint64_t address, free_bytes, total;
    unsigned long got = 0;
    int r = VGPU_OK;

    while (got < wanted && r == VGPU_OK) {
        r = vgpu_mem_alloc(l->session, MIB, &address);
        got += r == VGPU_OK;
    }
    if (r != VGPU_OK && r != VGPU_GPU_OUT_OF_MEMORY) {
        return r;
    }
    r = vgpu_mem_info(l->session, &free_bytes, &total);
    if (r == VGPU_OK) {
        printf("%lu of %lu MiB, %llu KiB left of %llu MiB\n", got, wanted,
               (unsigned long long)free_bytes >> 10, (unsigned long long)(total / MIB));
        fflush(stdout);
    }
    return r;
}

static int spin(struct load *l, unsigned long us)
{
    const struct vgpu_launch launch = {.function = l->spin, .grid = {1}, .block = {1}};
    const uint64_t ns = (uint64_t)us * 1000;
    int r = VGPU_OK;

    for (unsigned i = 0; us != 0 && r == VGPU_OK && i < SPINS; i++) {
        r = vgpu_launch(l->session, &launch, &ns, sizeof(ns));
    }
    return r;
}

static bool enough(const struct load *l, const struct wanted *wanted, time_t start)
{
    return stopped || (wanted->rounds != 0 && l->rounds >= wanted->rounds) ||
           (wanted->seconds != 0 && time(NULL) >= start + (time_t)wanted->seconds);
}

static int work(struct load *l, const struct wanted *wanted)
{
    const time_t start = time(NULL);
    int r = prepare(l);

    if (r == VGPU_OK && wanted->memory != 0) {
        r = take_memory(l, wanted->memory);
    }
    while (r == VGPU_OK && !l->wrong && !enough(l, wanted, start)) {
        r = spin(l, wanted->spin_us);
        r = r ? r : compute(l);
        l->rounds += r == VGPU_OK && !l->wrong;
    }
    return r;
}

static int run(const struct vgpu_session_options *options, const struct wanted *wanted)
{
    struct load l = {0};
    int r = vgpu_session_open(options, &l.session);

    if (r == VGPU_OK) {
        puts("open");
        fflush(stdout);
        r = work(&l, wanted);
    }
    printf("%llu rounds: %s", (unsigned long long)l.rounds,
           l.wrong ? "wrong results" : vgpu_result_name(r));
    if (r == VGPU_ENDED && l.session) {
        printf(" %s", vgpu_queue_end_name(vgpu_session_end(l.session)));
    }
    printf("\n");
    if (r != VGPU_OK) {
        fprintf(stderr, "session-load: %s\n", vgpu_last_message());
    }
    vgpu_session_close(l.session);
    if (r == VGPU_OK || l.wrong) {
        return l.wrong;
    }
    return r == VGPU_ENDED ? 3 : r == VGPU_NO_PERMISSION ? 4 : 5;
}

int main(int argc, char **argv)
{
    struct vgpu_host_options host = {.vm_id = 3000000u + (uint32_t)getpid(),
                                     .pool = 'A',
                                     .priority = VGPU_PRIORITY_MEDIUM,
                                     .shm_size = UINT64_C(16) << 20};
    struct vgpu_session_options options = {0};
    struct wanted wanted = {0};
    int i = 1;

    for (; i + 1 < argc && strncmp(argv[i], "--", 2) == 0; i += 2) {
        const char *value = argv[i + 1];

        if (strcmp(argv[i], "--host") == 0) {
            host.socket = value;
            options.host = &host;
        } else if (strcmp(argv[i], "--vm-id") == 0) {
            host.vm_id = (uint32_t)strtoul(value, NULL, 10);
        } else if (strcmp(argv[i], "--memory") == 0) {
            wanted.memory = strtoul(value, NULL, 10);
        } else if (strcmp(argv[i], "--rounds") == 0) {
            wanted.rounds = strtoul(value, NULL, 10);
        } else if (strcmp(argv[i], "--spin") == 0) {
            wanted.spin_us = strtoul(value, NULL, 10);
        } else {
            break;
        }
    }
    if (i + 1 != argc) {
        fprintf(stderr, "usage: session-load [--host SOCKET [--vm-id N]] [--memory MIB] "
                        "[--rounds N] [--spin US] SECONDS\n");
        return 2;
    }
    signal(SIGTERM, on_signal);
    wanted.seconds = strtoul(argv[i], NULL, 10);
    return run(&options, &wanted);
}
