/* SPDX-License-Identifier: MIT */
/*
 * A program of many small kernels: 10,000 launches over two streams, which pass vectors on.
 *
 * Each launch adds one to its stream's vector. The last one of every ten puts the sum into a place
 * of its own and records an event, and its stream begins again with zeros; the other stream waits
 * for that and adds the sum to what it has. Streams do so by turns. So each launch counts in all
 * sums that come later, and a wait that did not hold, or a launch that was lost, spoils them.
 */
#include <stdio.h>

#include "bench/cuda-bench.h"
#include "common/clock.h"

#define TURNS 5u
#define LAUNCHES 10000u
#define GROUP 10u /* launches between two events */
#define GROUPS (LAUNCHES / GROUP)
#define WORDS 256u
#define VECTOR_BYTES (WORDS * sizeof(float))

#define SIDE(call) side_check(side, "cu" #call, side->cu.call)

/* Vectors in the device's memory: sums of groups, each stream's own, and those that stay. */
enum {
    OWN = GROUPS,
    ZEROS = OWN + 2,
    ONES,
    VECTORS,
};

_Static_assert(VECTORS *VECTOR_BYTES <= DEVICE_BYTES, "the device's memory has room for all");

/* What each stream's next launch adds up. */
struct plan {
    unsigned a[2], b[2];
};

struct step {
    unsigned stream, a, b, sum;
    bool passed_on;
};

static const struct plan first_plan = {{ZEROS, ZEROS}, {ONES, ONES}};

/* The stream whose turn it is has seven of ten launches, the first and the last among them. */
static struct step next_step(struct plan *plan, unsigned launch)
{
    const unsigned group = launch / GROUP, in_group = launch % GROUP;
    const unsigned own = (group + (in_group % 3 == 1)) % 2;
    const bool pass_on = in_group == GROUP - 1;
    const struct step step = {own, plan->a[own], plan->b[own], pass_on ? group : OWN + own,
                              pass_on};

    plan->a[own] = pass_on ? ZEROS : step.sum;
    plan->b[own] = ONES;
    if (pass_on) {
        plan->b[1 - own] = step.sum;
    }
    return step;
}

static CUdeviceptr vector(const struct side *side, unsigned index)
{
    return side->memory + index * VECTOR_BYTES;
}

static void prepare(struct side *side)
{
    float ones[WORDS];

    for (unsigned i = 0; i < WORDS; i++) {
        ones[i] = 1;
    }
    SIDE(MemsetD32Async(side->memory, 0, (size_t)VECTORS * WORDS, NULL));
    SIDE(MemcpyHtoD(vector(side, ONES), ones, VECTOR_BYTES));
    SIDE(CtxSynchronize());
}

static void add(struct side *side, const struct step *step)
{
    CUdeviceptr a = vector(side, step->a), b = vector(side, step->b);
    CUdeviceptr sum = vector(side, step->sum);
    uint64_t count = WORDS;
    void *params[] = {&a, &b, &sum, &count};

    SIDE(LaunchKernel(side->add, 1, 1, 1, WORDS, 1, 1, 0, side->streams[step->stream], params,
                      NULL));
}

/* Milliseconds from the first launch until all is done. */
static double run(struct side *side)
{
    struct plan plan = first_plan;
    const uint64_t start = clock_ns();

    for (unsigned i = 0; i < LAUNCHES; i++) {
        const struct step step = next_step(&plan, i);
        const CUevent event = side->events[step.stream];

        add(side, &step);
        if (step.passed_on) {
            SIDE(EventRecord(event, side->streams[step.stream]));
            SIDE(StreamWaitEvent(side->streams[1 - step.stream], event, CU_EVENT_WAIT_DEFAULT));
        }
    }
    SIDE(StreamSynchronize(side->streams[0]));
    SIDE(StreamSynchronize(side->streams[1]));
    return (double)(clock_ns() - start) / 1e6;
}

/* All vectors are what the same additions make here. */
static void check(struct side *side)
{
    static float vectors[VECTORS][WORDS];
    float expected[VECTORS] = {[ONES] = 1};
    struct plan plan = first_plan;

    for (unsigned i = 0; i < LAUNCHES; i++) {
        const struct step step = next_step(&plan, i);

        expected[step.sum] = expected[step.a] + expected[step.b];
    }
    SIDE(MemcpyDtoH(vectors, side->memory, sizeof(vectors)));
    for (unsigned i = 0; i < VECTORS; i++) {
        for (unsigned word = 0; word < WORDS; word++) {
            if (vectors[i][word] != expected[i]) {
                die(side->name, "the program's result is wrong");
            }
        }
    }
}

static double run_checked(struct side *side)
{
    double ms;

    prepare(side);
    ms = run(side);
    check(side);
    return ms;
}

void run_program(struct side *const *sides, unsigned count)
{
    double ms[2][TURNS], p50[2] = {0};

    for (unsigned i = 0; i < count; i++) {
        run_checked(sides[i]);
    }
    for (unsigned turn = 0; turn < TURNS; turn++) {
        for (unsigned i = 0; i < count; i++) {
            const unsigned side = (turn + i) % count;

            ms[side][turn] = run_checked(sides[side]);
        }
    }
    for (unsigned i = 0; i < count; i++) {
        p50[i] = median(ms[i], TURNS);
    }
    printf("\n%-50s %10.3f", "program of 10,000 launches, ms (checked)", p50[0]);
    if (count == 2) {
        printf(" %10.3f %8.3f %+10.3f\n", p50[1], p50[0] / p50[1], p50[0] - p50[1]);
    } else {
        printf(" %10s %8s %10s\n", "-", "-", "-");
    }
}
