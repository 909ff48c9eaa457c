/* SPDX-License-Identifier: MIT */
/*
 * CUDA's driver API by this project's libcuda.so.1 beside NVIDIA's, in one process.
 *
 *   cuda-bench OURS [NATIVE]
 *
 * OURS is a path, NATIVE a name or path, "libcuda.so.1" without it. VGPU_HOST is the mediator's
 * socket.
 *
 * Each row is a call, measured by turns: both sides in each turn, and each first in every other
 * one. It shows the median duration of all calls of all turns, ours divided by native, ours less
 * native, and whether that is what is aimed at. Work is waited for now and then, untimed, so that
 * no call waits for room in a queue. Without a GPU the rows of ours alone are shown.
 */
#include <errno.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "bench/cuda-bench.h"
#include "common/clock.h"

#define TURNS 11u
#define WARM_UP 50u  /* samples of a turn that do not count */
#define SAMPLES 201u /* that do; of all turns an odd number */
#define AHEAD 200u   /* calls that may be under way */
#define RATIO_MAX 1.0
#define DIFFERENCE_MAX 2.0 /* us */

struct samples {
    CUresult error; /* of the first call that failed */
    unsigned count;
    double us[TURNS * SAMPLES];
};

/* How the targets were met; FAILED is a call of one side or both. */
static struct {
    unsigned ok, missed, none, failed;
} tally;

static int compare(const void *a, const void *b)
{
    const double x = *(const double *)a, y = *(const double *)b;

    return x < y ? -1 : x > y;
}

double median(double *values, unsigned count)
{
    qsort(values, count, sizeof(values[0]), compare);
    return values[count / 2];
}

/* Makes a batch; what each of its calls took in microseconds. */
static double time_batch(struct side *side, const struct row *row, CUresult *result)
{
    const uint64_t start = clock_ns();

    for (unsigned i = 0; i < row->batch && *result == CUDA_SUCCESS; i++) {
        *result = row->call(side);
    }
    return (double)(clock_ns() - start) / 1e3 / row->batch;
}

static void take_turn(struct side *side, const struct row *row, struct samples *samples)
{
    CUresult *result = &samples->error;
    unsigned under_way = 0;

    for (unsigned i = 0; i < WARM_UP + SAMPLES && *result == CUDA_SUCCESS; i++) {
        const double us = time_batch(side, row, result);

        if (i >= WARM_UP && *result == CUDA_SUCCESS) {
            samples->us[samples->count++] = us;
        }
        under_way += row->batch;
        if (row->kind == KIND_ASYNC && under_way + row->batch > AHEAD) {
            side_check(side, "cuCtxSynchronize", side->cu.CtxSynchronize());
            under_way = 0;
        }
    }
    side_check(side, "cuCtxSynchronize", side->cu.CtxSynchronize());
}

/* A side's cell; false where it has no figure. */
static bool print_cell(const struct row *row, const struct side *side, struct samples *samples,
                       double *us)
{
    if (samples->error == CUDA_SUCCESS) {
        *us = median(samples->us, samples->count);
        printf(" %10.3f", *us);
        return true;
    }
    printf(" %10s", "-");
    if (samples->error != CUDA_ERROR_NOT_SUPPORTED) {
        tally.failed++;
        fprintf(stderr, "cuda-bench: %s: %s: %s\n", side->name, row->name,
                side_error(side, samples->error));
    }
    return false;
}

static const char *verdict(enum kind kind, double ours, double native)
{
    const bool ok = kind == KIND_ASYNC ? ours / native <= RATIO_MAX
                                       : ours - native <= DIFFERENCE_MAX;

    tally.ok += ok;
    tally.missed += !ok;
    return ok ? "ok" : "missed";
}

static void measure_row(const struct row *row, struct side *const *sides, unsigned count)
{
    static const char *const kinds[] = {"guest", "async", "sync"};
    static struct samples samples[2];
    bool compared = count == 2;
    double us[2] = {0};

    memset(samples, 0, sizeof(samples));
    for (unsigned turn = 0; turn < TURNS; turn++) {
        for (unsigned i = 0; i < count; i++) {
            const unsigned side = (turn + i) % count;

            take_turn(sides[side], row, &samples[side]);
        }
    }
    printf("%-5s %-44s", kinds[row->kind], row->name);
    for (unsigned i = 0; i < count; i++) {
        compared = print_cell(row, sides[i], &samples[i], &us[i]) && compared;
    }
    if (count == 1) {
        printf(" %10s", "-");
    }
    if (compared) {
        printf(" %8.3f %+10.3f %s\n", us[0] / us[1], us[0] - us[1],
               verdict(row->kind, us[0], us[1]));
    } else {
        tally.none++;
        printf(" %8s %10s -\n", "-", "-");
    }
    fflush(stdout);
}

static void measure(struct side *const *sides, unsigned count)
{
    printf("\n%-50s %10s %10s %8s %10s target\n", "us, p50", "ours", "native", "ratio",
           "difference");
    for (unsigned i = 0; i < row_count; i++) {
        measure_row(&rows[i], sides, count);
    }
    run_program(sides, count);
    printf("\ntargets: async at most %.2f x native, others at most %.0f us more\n"
           "%u ok, %u missed, %u not compared, %u failed\n",
           RATIO_MAX, DIFFERENCE_MAX, tally.ok, tally.missed, tally.none, tally.failed);
}

int main(int argc, char **argv)
{
    static struct side ours, native;
    struct side *const sides[] = {&ours, &native};
    char path[PATH_MAX];

    if (argc < 2 || argc > 3) {
        fputs("usage: cuda-bench OURS [NATIVE]\n", stderr);
        return 2;
    }
    if (!realpath(argv[1], path)) {
        die(argv[1], strerror(errno));
    }
    measure(sides, sides_open(&ours, path, &native, argc == 3 ? argv[2] : "libcuda.so.1") ? 2 : 1);
    return tally.failed > 0;
}
