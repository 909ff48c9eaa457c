/* SPDX-License-Identifier: MIT */
/*
 * `vgpu bench`: how long requests take, as a program in this guest sees it. Each row repeats one
 * thing and gives the shortest time, the median and the 99th percentile.
 *
 * Each row does more than the one above it. Reading registers asks the device alone. An echo also
 * goes to the worker and back. A pair is computed as well, and vectors take the shared memory. So
 * the difference of two rows tells where time goes.
 */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/clock.h"
#include "guest/cli/cli.h"

#define ROUNDS 5000u
#define VECTOR_ROUNDS 10u
#define DEFAULT_ELEMENTS UINT64_C(1000000)

static int compare_times(const void *a, const void *b)
{
    const uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;

    return x < y ? -1 : x > y;
}

/* Prints a row, and sorts the times for that. */
static void print_times(const char *what, uint64_t *ns, size_t count)
{
    uint64_t p50, p99;

    qsort(ns, count, sizeof(ns[0]), compare_times);
    p50 = ns[count / 2];
    p99 = ns[count * 99 / 100];
    printf("%-34s %10.2f %10.2f %10.2f us\n", what, (double)ns[0] / 1e3, (double)p50 / 1e3,
           (double)p99 / 1e3);
}

/* Identifying a device reads ten registers and asks the host for nothing. */
static int register_read(struct vgpu *vgpu)
{
    struct vgpu_identity id;

    vgpu_identify(vgpu, &id);
    return VGPU_OK;
}

static int bench_echo(struct vgpu *vgpu)
{
    uint32_t word = 0x12345678, back = 0;

    return vgpu_echo(vgpu, &word, sizeof(word), &back);
}

/* A pair goes in the request itself and needs no shared memory. */
static int add_pair(struct vgpu *vgpu)
{
    const uint32_t a = 2, b = 3;
    uint32_t sum;

    return vgpu_add(vgpu, VGPU_TYPE_INT32, 1, &a, &b, &sum);
}

/* Prints one row. A time is that of the whole call, with the library's waiting for the answer. */
static int time_requests(struct vgpu *vgpu, const char *what, int (*request)(struct vgpu *vgpu))
{
    static uint64_t ns[ROUNDS];

    for (unsigned i = 0; i < ROUNDS; i++) {
        const uint64_t start = clock_ns();
        const int r = request(vgpu);

        if (r != VGPU_OK) {
            return cli_fail(r);
        }
        ns[i] = clock_ns() - start;
    }
    print_times(what, ns, ROUNDS);
    return EXIT_OK;
}

static int time_vectors(struct vgpu *vgpu, uint64_t count)
{
    uint64_t size, ns[VECTOR_ROUNDS];
    void *shm = vgpu_shm(vgpu, &size);
    const uint64_t bytes = count * VGPU_ELEMENT_SIZE;
    char what[64];

    if (!shm) {
        return cli_fail(VGPU_SYSTEM);
    }
    /* Divided, so that no number that --n gives can overflow. */
    if (count > size / VGPU_ELEMENT_SIZE / 3) {
        return cli_error(EXIT_USAGE,
                         "bench: three vectors of %" PRIu64 " elements do not fit %" PRIu64
                         " MiB of shared memory",
                         count, size >> 20);
    }
    /* The operands' pages are touched before anything is timed: a first access takes longer. */
    memset(shm, 1, 2 * bytes);
    for (unsigned i = 0; i < VECTOR_ROUNDS; i++) {
        const uint64_t start = clock_ns();
        const int r = vgpu_add_shm(vgpu, VGPU_TYPE_INT32, count, 0, bytes, 2 * bytes);

        if (r != VGPU_OK) {
            return cli_fail(r);
        }
        ns[i] = clock_ns() - start;
    }
    snprintf(what, sizeof(what), "add %" PRIu64 " pairs in shared memory", count);
    print_times(what, ns, VECTOR_ROUNDS);
    return EXIT_OK;
}

int cli_bench(struct vgpu *vgpu, int argc, char **argv)
{
    uint64_t count = DEFAULT_ELEMENTS;
    int r;

    if (argc == 2 && strcmp(argv[0], "--n") == 0) {
        count = strtoull(argv[1], NULL, 10);
    }
    if ((argc != 0 && argc != 2) || count == 0) {
        return cli_error(EXIT_USAGE, "bench takes nothing but --n and a number of pairs");
    }
    printf("%-34s %10s %10s %10s\n", "", "min", "p50", "p99");
    r = time_requests(vgpu, "ten register reads", register_read);
    if (r == EXIT_OK) {
        r = time_requests(vgpu, "echo of 4 bytes", bench_echo);
    }
    if (r == EXIT_OK) {
        r = time_requests(vgpu, "add 1 pair", add_pair);
    }
    return r == EXIT_OK ? time_vectors(vgpu, count) : r;
}
