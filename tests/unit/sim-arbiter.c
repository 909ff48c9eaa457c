/* SPDX-License-Identifier: MIT */
/*
 * What the arbiter promises, in long runs of a simulated engine (sim-model.h).
 *
 *   sim-arbiter [SEED [RUNS]]       the scenarios, then so many plans at random
 *   sim-arbiter --trace SEED        a run of four VMs for scripts/plot-schedule, on stdout
 *
 * The scenarios have the figures: shares, least shares, waiting times. The plans at random have
 * everything at once, with hostile workers among them, against what must hold at every decision.
 * With SIM_VERBOSE in the environment all figures are printed.
 *
 * Tests: mediator/arbiter*.c
 */
#include <inttypes.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

#include "tests/unit/sim-model.h"

#define WINDOW MS
#define LEAST (ARBITER_LEAST_ONE / 100)

static struct sim_plan plan;
static struct sim_result result;

/* Over all runs. */
static struct {
    uint64_t decisions;
    double share_error; /* points */
    double least_error; /* of the least share, percent */
    double idle;        /* percent */
    uint64_t ahead_ns, start_ns, starved_ns;
    uint64_t deaths; /* so many in all */
} worst;

static void fail(const char *what, double figure)
{
    fflush(stdout);
    fprintf(stderr, "%s: %.2f\n", what, figure);
    sim_fail(&plan, plan.run_ns, what);
}

static void start(uint64_t seed, uint64_t run_ns)
{
    memset(&plan, 0, sizeof(plan));
    plan.seed = seed;
    plan.run_ns = run_ns;
    plan.window_ns = WINDOW;
    plan.yield_ns = 100 * US;
    plan.rules = (struct arbiter_rules){
        .slice_ns = 2 * MS, .patience_ns = 100 * MS, .limit_ns = 10 * SEC, .least_share = LEAST};
}

/* A VM that never rests, of one session. */
static struct sim_vm *add(enum vgpu_priority priority, uint32_t weight, uint64_t shortest_ns,
                          uint64_t longest_ns)
{
    struct sim_vm *vm = &plan.vm[plan.count++];

    *vm = (struct sim_vm){.priority = priority,
                          .weight = weight,
                          .sessions = 1,
                          .shortest_ns = shortest_ns,
                          .longest_ns = longest_ns,
                          .burst = 1};
    return vm;
}

static void run(void)
{
    sim_run(&plan, &result);
    worst.decisions += result.decisions;
}

static double all_ns(void)
{
    double sum = 0;

    for (unsigned i = 0; i < plan.count; i++) {
        sum += (double)result.vm[i].gpu_ns;
    }
    return sum;
}

static double percent(unsigned vm)
{
    return 100 * (double)result.vm[vm].gpu_ns / all_ns();
}

/* How far the shares are from the weights, at most. */
static void check_shares(const char *what)
{
    double weights = 0, idle;

    for (unsigned i = 0; i < plan.count; i++) {
        weights += plan.vm[i].weight;
    }
    for (unsigned i = 0; i < plan.count; i++) {
        const double due = 100 * plan.vm[i].weight / weights;
        const double error = percent(i) > due ? percent(i) - due : due - percent(i);

        worst.share_error = error > worst.share_error ? error : worst.share_error;
        if (getenv("SIM_VERBOSE")) {
            printf("%s: VM %u of %u: %.2f %% for %.2f %%\n", what, i + 1, plan.count, percent(i),
                   due);
        }
        if (error > 2) {
            fail(what, percent(i));
        }
    }
    idle = 100 * (double)result.idle_ns / (double)(plan.run_ns - plan.warm_ns);
    worst.idle = idle > worst.idle ? idle : worst.idle;
}

static void shares(uint64_t seed, const char *what, const uint32_t *weights, unsigned count,
                   const uint64_t *lengths, const unsigned *sessions)
{
    start(seed, 11 * SEC);
    plan.warm_ns = SEC;
    for (unsigned i = 0; i < count; i++) {
        struct sim_vm *vm = add(VGPU_PRIORITY_MEDIUM, weights[i], lengths[i], lengths[i]);

        vm->sessions = sessions ? sessions[i] : 1;
    }
    run();
    check_shares(what);
}

/* Shares among VMs that never rest, whatever the lengths of their pieces. */
static void scenario_shares(uint64_t seed)
{
    static const uint32_t equal[8] = {100, 100, 100, 100, 100, 100, 100, 100};
    static const uint32_t three_one[2] = {300, 100}, one_three[2] = {100, 300};
    static const uint32_t doubled[3] = {100, 200, 400};
    static const uint64_t same[8] = {200 * US, 200 * US, 200 * US, 200 * US,
                                     200 * US, 200 * US, 200 * US, 200 * US};
    static const uint64_t mixed[8] = {100 * US, 10 * MS, 300 * US, 3 * MS,
                                      MS,       50 * US, 5 * MS,   2 * MS};
    static const unsigned many[2] = {16, 1};

    shares(seed, "1:1", equal, 2, same, NULL);
    shares(seed, "1:1, pieces 1:100", equal, 2, mixed, NULL);
    shares(seed, "3:1", three_one, 2, same, NULL);
    shares(seed, "3:1, pieces 1:100", three_one, 2, mixed, NULL);
    shares(seed, "1:3, pieces 1:100", one_three, 2, mixed, NULL);
    shares(seed, "1:2:4", doubled, 3, same, NULL);
    shares(seed, "1:2:4, pieces 1:100", doubled, 3, mixed, NULL);
    shares(seed, "8 equal", equal, 8, same, NULL);
    shares(seed, "8 equal, pieces 1:200", equal, 8, mixed, NULL);
    shares(seed, "16 sessions against 1", equal, 2, same, many);
    shares(seed, "16 sessions against 1, pieces 1:100", equal, 2, mixed, many);
    shares(seed, "16 sessions against 1, 3:1", three_one, 2, same, many);
    shares(seed, "16 sessions against 1, 1:3", one_three, 2, same, many);
}

/* As on an H200: turning off takes 0.5 to 0.8 ms, and on again about as long. */
static void can_turn_off(void)
{
    plan.off_shortest_ns = 500 * US;
    plan.off_longest_ns = 800 * US;
}

/* Pieces of any length, one without end among them: no share depends on that. */
static void scenario_shares_of_any_length(uint64_t seed)
{
    static const uint32_t weights[][8] = {{100, 100},
                                          {300, 100},
                                          {100, 300},
                                          {100, 200, 400},
                                          {100, 100, 100, 100, 100, 100, 100, 100}};
    static const uint64_t lengths[][8] = {
        {50 * US, 60 * SEC},
        {60 * SEC, 50 * US},
        {500 * MS, 5 * MS},
        {5 * MS, 500 * MS, 60 * SEC},
        {50 * US, 5 * MS, 500 * MS, 60 * SEC, 200 * US, 20 * MS, MS, 100 * MS}};
    static const unsigned counts[] = {2, 2, 2, 3, 8};

    for (unsigned i = 0; i < 5; i++) {
        start(seed, 11 * SEC);
        can_turn_off();
        plan.warm_ns = SEC;
        plan.rules.slice_ns = 5 * MS;
        for (unsigned j = 0; j < counts[i]; j++) {
            add(VGPU_PRIORITY_MEDIUM, weights[i][j], lengths[i][j], lengths[i][j]);
        }
        run();
        check_shares("pieces of any length");
    }
}

/* What a low VM gets beside high ones that never rest. */
static void least_share(uint64_t seed, unsigned high, uint64_t length, double tolerance)
{
    double got, error;

    start(seed, 62 * SEC);
    plan.warm_ns = 2 * SEC;
    add(VGPU_PRIORITY_LOW, 100, length, length);
    for (unsigned i = 0; i < high; i++) {
        add(VGPU_PRIORITY_HIGH, 100, 200 * US, 200 * US);
    }
    run();
    got = 100 * (double)result.vm[0].gpu_ns / (60.0 * (double)SEC);
    error = 100 * (got - 1);
    error = error < 0 ? -error : error;
    worst.least_error = error > worst.least_error ? error : worst.least_error;
    if (getenv("SIM_VERBOSE")) {
        printf(
            "least share beside %u, pieces %" PRIu64 " us: %.3f %%, high %.2f %%, idle %.2f %%\n",
            high, length / US, got, 100 * (all_ns() / 60e9) - got, (double)result.idle_ns / 60e7);
    }
    if (error > tolerance) {
        fail("the least share, in percent of all", got);
    }
    if (100 * all_ns() / 60e9 < 97) {
        fail("what is used of the engine beside least shares, in percent", 100 * all_ns() / 60e9);
    }
}

static void scenario_least_share(uint64_t seed)
{
    /* Half of what messages take is charged to high, which counts where pieces are short. */
    least_share(seed, 1, MS, 60);
    least_share(seed, 1, 10 * MS, 20);
    least_share(seed, 2, 5 * MS, 30);
    start(seed, 10 * SEC);
    plan.rules.least_share = 0;
    add(VGPU_PRIORITY_LOW, 100, MS, MS);
    add(VGPU_PRIORITY_HIGH, 100, MS, MS);
    plan.warm_ns = 10 * MS;
    run();
    if (result.vm[0].gpu_ns > 0) {
        fail("without a least share, low got ms", (double)result.vm[0].gpu_ns / 1e6);
    }
}

/* A VM that was away gets its share afterwards, and one that was alone its own. */
static void scenario_coming_back(uint64_t seed)
{
    start(seed, 12 * SEC);
    plan.warm_ns = 6 * SEC;
    add(VGPU_PRIORITY_MEDIUM, 100, 200 * US, 200 * US);
    add(VGPU_PRIORITY_MEDIUM, 100, 200 * US, 200 * US)->from_ns = 6 * SEC;
    plan.run_ns = 6 * SEC + 500 * MS;
    run();
    check_shares("after one was alone");
    add(VGPU_PRIORITY_MEDIUM, 100, 10 * MS, 10 * MS)->until_ns = 3 * SEC;
    run();
    plan.count = 2; /* the third has gone */
    check_shares("after one came back");
}

/* How long a high one that comes now and then waits, beside low ones that never rest. */
static void scenario_high_waits(uint64_t seed, uint64_t length, unsigned low, bool off)
{
    const uint64_t messages = 4 * 300 * US;
    /* Where work is turned off it does not matter what there is of it. */
    const uint64_t bound = messages + (off ? 800 * US : WINDOW + length);

    start(seed, 20 * SEC);
    if (off) {
        can_turn_off();
    }
    for (unsigned i = 0; i < low; i++) {
        add(VGPU_PRIORITY_LOW, 100, length / 4, length)->sessions = 2;
    }
    *add(VGPU_PRIORITY_HIGH, 100, 100 * US,
         100 * US) = (struct sim_vm){.priority = VGPU_PRIORITY_HIGH,
                                     .weight = 100,
                                     .sessions = 1,
                                     .shortest_ns = 10 * US,
                                     .longest_ns = 500 * US,
                                     .burst = 4,
                                     .rest_ns = 5 * MS};
    run();
    for (unsigned i = 1; i < result.samples; i++) {
        const uint64_t sample = result.sample[i];
        unsigned j = i;

        for (; j > 0 && result.sample[j - 1] > sample; j--) {
            result.sample[j] = result.sample[j - 1];
        }
        result.sample[j] = sample;
    }
    const uint64_t p99 = result.sample[result.samples * 99 / 100];

    worst.start_ns = p99 > worst.start_ns ? p99 : worst.start_ns;
    worst.ahead_ns = result.ahead_ns > worst.ahead_ns && !off ? result.ahead_ns : worst.ahead_ns;
    if (getenv("SIM_VERBOSE")) {
        printf("high waits, low pieces of %" PRIu64 " us: p50 %" PRIu64 " us, p99 %" PRIu64
               " us, most %" PRIu64 " us of %u; ahead %" PRIu64 " us\n",
               length / US, result.sample[result.samples / 2] / US, p99 / US,
               result.sample[result.samples - 1] / US, result.samples, result.ahead_ns / US);
    }
    if (result.samples < 100 || p99 > bound) {
        fail("99 of 100 of high should wait less, us", (double)p99 / 1e3);
    }
    if (!off && result.ahead_ns > 2 * WINDOW + WINDOW / 2) {
        fail("work of lower bands before a higher one, us", (double)result.ahead_ns / 1e3);
    }
}

/* Hostile neighbours of a VM that never rests, which has to get its half. */
static void scenario_hostile(uint64_t seed, enum sim_manner manner, unsigned sessions,
                             uint64_t length, double least, bool off)
{
    struct sim_vm *vm;
    double got;

    start(seed, 21 * SEC);
    plan.warm_ns = SEC;
    if (off) {
        can_turn_off();
    }
    add(VGPU_PRIORITY_MEDIUM, 100, 200 * US, 200 * US);
    vm = add(VGPU_PRIORITY_MEDIUM, 100, length, length);
    vm->manner = manner;
    vm->sessions = sessions;
    run();
    got = 100 * (double)result.vm[0].gpu_ns / 20e9;
    if (getenv("SIM_VERBOSE")) {
        printf("beside %u sessions of manner %d, pieces of %" PRIu64
               " us: %.1f %% of the engine, theirs %.1f %%, longest wait %.0f ms\n",
               sessions, (int)manner, length / US, got, (double)result.vm[1].gpu_ns / 20e7,
               (double)result.vm[0].wait_ns / 1e6);
    }
    if (got < least) {
        fail("what is left beside a hostile VM, in percent", got);
    }
}

/* A low VM with endless pieces in many sessions, whenever a high one rests. */
static void scenario_low_keeps(uint64_t seed, bool off, double least)
{
    struct sim_vm *vm;
    double got;

    start(seed, 11 * SEC);
    plan.warm_ns = SEC;
    if (off) {
        can_turn_off();
    }
    vm = add(VGPU_PRIORITY_HIGH, 100, 200 * US, 200 * US);
    vm->burst = 100;
    vm->rest_ns = MS;
    run();
    got = (double)result.vm[0].gpu_ns;
    vm = add(VGPU_PRIORITY_LOW, 100, 5 * SEC, 5 * SEC);
    vm->manner = SIM_KEEPS;
    vm->sessions = 16;
    run();
    got = 100 * (double)result.vm[0].gpu_ns / got;
    if (getenv("SIM_VERBOSE")) {
        printf("high with rests beside low that keeps: %.1f %% of what it gets alone\n", got);
    }
    if (got < least) {
        fail("high beside low that keeps, in percent of what it gets alone", got);
    }
}

static struct sim_vm random_vm(uint64_t *random, uint64_t run_ns)
{
    const uint64_t shortest = sim_length(random, US, 100 * MS);
    struct sim_vm vm = {
        .priority = (enum vgpu_priority)sim_random(random, VGPU_PRIORITIES),
        .weight = (uint32_t)sim_length(random, 10, 1000),
        .sessions = 1 + (unsigned)sim_length(random, 1, 16) % 16,
        .shortest_ns = shortest,
        .longest_ns = sim_length(random, shortest, 100 * MS),
        .burst = 1 + (unsigned)sim_random(random, 50),
    };

    if (sim_random(random, 4)) {
        vm.rest_ns = sim_length(random, 10 * US, 200 * MS);
    }
    if (vm.longest_ns < 20 * US && vm.rest_ns == 0) {
        vm.rest_ns = MS; /* nothing but tiny pieces shows nothing more and takes long */
    }
    if (sim_random(random, 3) == 0) {
        vm.from_ns = sim_random(random, run_ns);
        vm.until_ns = vm.from_ns + 1 + sim_random(random, run_ns);
    }
    if (sim_random(random, 6) == 0) {
        vm.manner = (enum sim_manner)(1 + sim_random(random, 5));
        vm.sessions = 1 + vm.sessions / 4;
    }
    return vm;
}

/* A band waits for what it has to earn first: a second's, and what a lent turn took. */
static void check_starving(void)
{
    uint64_t longest = 0, bound;

    for (unsigned i = 0; i < plan.count; i++) {
        longest = plan.vm[i].longest_ns > longest ? plan.vm[i].longest_ns : longest;
    }
    if (plan.rules.least_share == 0) {
        return;
    }
    /* A lent turn may be one of a worker that keeps it, for as long as there is patience. */
    longest += plan.rules.patience_ns;
    bound = SEC + longest + longest * ARBITER_LEAST_ONE / plan.rules.least_share;
    for (unsigned i = 0; i < VGPU_PRIORITIES; i++) {
        if (result.starved_ns[i] > bound) {
            fail("a band with a least share waits for ms", (double)result.starved_ns[i] / 1e6);
        }
    }
}

/* Anything, at once; what must hold at every decision is checked by the model. */
static void random_run(uint64_t seed, bool can_off, bool dies)
{
    uint64_t random = seed * 2654435761u + 12345;

    start(seed, 4 * SEC);
    plan.count = 2 + (unsigned)sim_random(&random, 8);
    for (unsigned i = 0; i < plan.count; i++) {
        plan.vm[i] = random_vm(&random, plan.run_ns);
    }
    plan.rules.least_share = (uint32_t)sim_random(&random, 3) * LEAST * 5;
    plan.rules.limit_ns = sim_length(&random, 100 * MS, 2 * SEC);
    plan.rules.patience_ns = sim_length(&random, 5 * MS, 200 * MS);
    plan.rules.slice_ns = sim_length(&random, 200 * US, 10 * MS);
    if (can_off) {
        plan.off_shortest_ns = sim_length(&random, 200 * US, 2 * MS);
        plan.off_longest_ns = sim_length(&random, plan.off_shortest_ns, 30 * MS);
    }
    plan.death_ns = dies ? sim_length(&random, 20 * MS, SEC) : 0;
    run();
    worst.deaths += result.deaths;
    if (dies) {
        return; /* what a band has saved up for a turn is forgotten each time */
    }
    check_starving();
    for (unsigned i = 0; i < VGPU_PRIORITIES; i++) {
        worst.starved_ns = result.starved_ns[i] > worst.starved_ns && plan.rules.least_share > 0
                               ? result.starved_ns[i]
                               : worst.starved_ns;
    }
}

/* low all the time, two medium ones of 3:1, one high; see scripts/plot-schedule. */
static void write_trace(uint64_t seed)
{
    start(seed, 6 * SEC);
    plan.trace = stdout;
    puts("vm,band,start,end");
    add(VGPU_PRIORITY_LOW, 100, 200 * US, MS);
    add(VGPU_PRIORITY_MEDIUM, 300, 100 * US, 800 * US)->from_ns = SEC;
    add(VGPU_PRIORITY_MEDIUM, 100, MS, 3 * MS)->from_ns = SEC;
    add(VGPU_PRIORITY_HIGH, 100, 100 * US, 400 * US)->from_ns = 3 * SEC;
    plan.vm[1].until_ns = plan.vm[2].until_ns = 5 * SEC;
    plan.vm[3].until_ns = 4 * SEC;
    plan.rules.least_share = ARBITER_LEAST_ONE / 50;
    run();
}

int main(int argc, char **argv)
{
    const uint64_t seed = argc > 1 && strcmp(argv[1], "--trace") != 0 ? strtoull(argv[1], NULL, 0)
                                                                      : 1;
    const uint64_t runs = argc > 2 ? strtoull(argv[2], NULL, 0) : 500;

    if (argc > 1 && strcmp(argv[1], "--trace") == 0) {
        write_trace(argc > 2 ? strtoull(argv[2], NULL, 0) : 1);
        return 0;
    }
    scenario_shares(seed);
    scenario_least_share(seed);
    scenario_coming_back(seed);
    scenario_shares_of_any_length(seed);
    scenario_high_waits(seed, 200 * US, 1, false);
    scenario_high_waits(seed, 5 * MS, 2, false);
    scenario_high_waits(seed, 5 * MS, 2, true);
    scenario_high_waits(seed, 500 * MS, 4, true);
    scenario_high_waits(seed, 60 * SEC, 4, true);
    scenario_hostile(seed, SIM_UNDERSTATES, 1, 20 * MS, 40, false);
    scenario_hostile(seed, SIM_UNDERSTATES, 16, 20 * MS, 40, false);
    scenario_hostile(seed, SIM_UNDERSTATES, 16, 20 * MS, 40, true);
    scenario_hostile(seed, SIM_KEEPS, 1, 5 * SEC, 40, false);
    scenario_hostile(seed, SIM_KEEPS, 16, 5 * SEC, 40, false);
    scenario_hostile(seed, SIM_KEEPS, 16, 5 * SEC, 40, true);
    scenario_hostile(seed, SIM_DEAF, 16, 5 * SEC, 40, true);
    scenario_hostile(seed, SIM_FLOODS, 4, MS, 60, false);
    scenario_hostile(seed, SIM_FLOODS, 4, MS, 60, true);
    scenario_hostile(seed, SIM_LEAVES, 16, MS, 40, false);
    scenario_hostile(seed, SIM_LEAVES, 16, MS, 40, true);
    scenario_low_keeps(seed, false, 40);
    scenario_low_keeps(seed, true, 85);
    for (uint64_t i = 0; i < runs; i++) {
        random_run(seed + i, false, false);
        random_run(seed + i, true, false);
        random_run(seed + i, i % 2 == 0, true);
    }
    printf("sim-arbiter: %" PRIu64 " decisions; worst: share %.2f points, least share %.1f %%, "
           "idle %.1f %%, high starts after %.0f us (p99), %.0f us of lower work before it, "
           "a band waits %.0f ms; %" PRIu64 " mediators\n",
           worst.decisions, worst.share_error, worst.least_error, worst.idle,
           (double)worst.start_ns / 1e3, (double)worst.ahead_ns / 1e3,
           (double)worst.starved_ns / 1e6, worst.deaths);
    return 0;
}
