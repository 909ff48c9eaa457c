/* SPDX-License-Identifier: MIT */
/*
 * What a scheduling decision costs: 64 VMs of 16 sessions each, all of which wait.
 *
 *   arbiter-bench
 *
 * Each figure is nanoseconds a decision, averages over batches of decisions: their median, what 99
 * of 100 stay below, and the worst, which on a busy machine is the machine's. A whole turn is three
 * decisions: DONE with the next grant, the ASK that follows, and the tick that finds nothing to do.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/clock.h"
#include "mediator/arbiter.h"

#define VMS 64u
#define SESSIONS 16u
#define BATCHES 2000u
#define BATCH 200u /* decisions */

static struct arbiter arbiter;
static struct turn_history history;
static struct arbiter_account accounts[VMS];
static struct arbiter_member members[VMS * SESSIONS];
static struct vgpu_turn_word words[VMS * SESSIONS];
static uint64_t now_ns = 1;

static void ignore(struct arbiter_member *member)
{
    (void)member;
}

/* Everybody joins and asks; VMs are spread over so many bands, with weights of 1 to 4 times. */
static void set_up(unsigned bands)
{
    const struct arbiter_rules rules = {.slice_ns = 2000000,
                                        .patience_ns = 100000000,
                                        .limit_ns = UINT64_C(10000000000),
                                        .least_share = ARBITER_LEAST_ONE / 100};

    memset(accounts, 0, sizeof(accounts));
    memset(members, 0, sizeof(members));
    arbiter_init(&arbiter, 0, 0, &history, &rules);
    for (unsigned i = 0; i < VMS; i++) {
        accounts[i].priority = (enum vgpu_priority)(i % bands);
        accounts[i].weight = ARBITER_WEIGHT * (1 + i % 4);
    }
    for (unsigned i = 0; i < VMS * SESSIONS; i++) {
        members[i] = (struct arbiter_member){.word = &words[i],
                                             .account = &accounts[i % VMS],
                                             .vm_id = i % VMS + 1,
                                             .granted = ignore,
                                             .alerted = ignore,
                                             .expired = ignore};
        arbiter_join(&arbiter, &members[i]);
        if (arbiter_ask(&members[i], now_ns++) < 0) {
            abort();
        }
    }
}

/* The turn of current is over after its slice, with the next granted while it ends, or not. */
static struct arbiter_member *end_turn(bool yields)
{
    struct arbiter_member *member = arbiter.current;

    if (!member) {
        /* It was stopped, for a turn that is lent. */
        member = LIST_OWNER(arbiter.draining.next, struct arbiter_member, entry);
    }
    now_ns += 2000000;
    words[member - members].state = VGPU_TURN_CLOSED;
    if ((yields && arbiter_yield(member, now_ns, now_ns) < 0) || arbiter_done(member, now_ns) < 0) {
        abort();
    }
    return member;
}

/* One session of each VM but one keeps its turn for longer than anybody has patience. */
static void let_them_hold_up(void)
{
    for (unsigned i = 0; i < VMS - 1; i++) {
        now_ns += 1000000000;
        arbiter_tick(&arbiter, now_ns);
    }
}

enum what { WHOLE_TURN, WITH_YIELD, ONLY_TICK };

static unsigned run_batch(enum what what)
{
    unsigned decisions = 0;

    while (decisions < BATCH) {
        if (what != ONLY_TICK) {
            struct arbiter_member *member = end_turn(what == WITH_YIELD);

            decisions += what == WITH_YIELD ? 3 : 2;
            now_ns += 1000;
            if (arbiter_ask(member, now_ns) < 0) {
                abort();
            }
        }
        now_ns += 1000;
        arbiter_tick(&arbiter, now_ns);
        decisions++;
    }
    return decisions;
}

static int compare(const void *a, const void *b)
{
    const double x = *(const double *)a, y = *(const double *)b;

    return (x > y) - (x < y);
}

static void measure(const char *name, unsigned bands, enum what what, bool held_up)
{
    static double figure[BATCHES];

    set_up(bands);
    if (held_up) {
        let_them_hold_up();
    }
    for (unsigned i = 0; i < BATCHES; i++) {
        const uint64_t start = clock_ns();
        const unsigned decisions = run_batch(what);

        figure[i] = (double)(clock_ns() - start) / decisions;
    }
    qsort(figure, BATCHES, sizeof(figure[0]), compare);
    printf("%-36s %8.0f %8.0f %8.0f\n", name, figure[BATCHES / 2], figure[BATCHES * 99 / 100],
           figure[BATCHES - 1]);
}

int main(void)
{
    printf("%u VMs of %u sessions, all waiting\n", VMS, SESSIONS);
    printf("%-36s %8s %8s %8s\n", "ns a decision", "median", "99 %", "worst");
    measure("DONE and grant, ASK, tick; 1 band", 1, WHOLE_TURN, false);
    measure("DONE and grant, ASK, tick; 3 bands", 3, WHOLE_TURN, false);
    measure("YIELD and grant, DONE, ASK, tick", 1, WITH_YIELD, false);
    measure("who is next, with nothing to do", 1, ONLY_TICK, false);
    measure("the same, 63 VMs hold others up", 1, ONLY_TICK, true);
    return 0;
}
