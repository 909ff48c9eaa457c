/* SPDX-License-Identifier: MIT */
/*
 * Who may use an engine now, rule by rule, and workers that lie. The test plays the workers and
 * the clock; sim-arbiter.c has what only shows in a long run.
 *
 * Tests: mediator/arbiter*.c
 */
#include <errno.h>
#include <string.h>

#include "mediator/arbiter.h"
#include "tests/unit/unit.h"

#define MS UINT64_C(1000000)
#define SLICE (2 * MS)
#define PATIENCE (50 * MS)
#define LIMIT (1000 * MS)
#define SECOND (1000 * MS)
#define WORKERS 6u

struct worker {
    struct arbiter_member member;
    struct vgpu_turn_word word;
    struct arbiter_account account; /* its own, unless the test lets it share one */
    unsigned grants, alerts, expiries, orders;
    bool off; /* as it was told last */
};

static struct arbiter arbiter;
static struct turn_history history;
static struct worker workers[WORKERS];
static struct worker *const a = &workers[0], *const b = &workers[1], *const c = &workers[2],
                            *const d = &workers[3];

static void on_granted(struct arbiter_member *member)
{
    ((struct worker *)member)->grants++; /* the first member */
}

static void on_alerted(struct arbiter_member *member)
{
    ((struct worker *)member)->alerts++;
}

static void on_expired(struct arbiter_member *member)
{
    ((struct worker *)member)->expiries++;
}

static void on_turn_off(struct arbiter_member *member, bool off)
{
    ((struct worker *)member)->off = off;
    ((struct worker *)member)->orders++;
}

static void join(struct worker *worker)
{
    worker->member.word = &worker->word;
    worker->member.granted = on_granted;
    worker->member.alerted = on_alerted;
    worker->member.expired = on_expired;
    worker->member.vm_id = (uint32_t)(worker - workers) + 1;
    arbiter_join(&arbiter, &worker->member);
}

/* All are medium, of weight 100, each in an account of its own. */
static int set_up(void **state)
{
    const struct arbiter_rules rules = {.slice_ns = SLICE,
                                        .patience_ns = PATIENCE,
                                        .limit_ns = LIMIT,
                                        .least_share = ARBITER_LEAST_ONE / 100};

    (void)state;
    memset(workers, 0, sizeof(workers));
    memset(&history, 0, sizeof(history));
    arbiter_init(&arbiter, 3, VGPU_ENGINE_COMPUTE, &history, &rules);
    for (unsigned i = 0; i < WORKERS; i++) {
        workers[i].account.priority = VGPU_PRIORITY_MEDIUM;
        workers[i].account.weight = ARBITER_WEIGHT;
        workers[i].member.account = &workers[i].account;
        join(&workers[i]);
    }
    return 0;
}

/* What a worker does. ------------------------------------------------------------------------ */

static void ask(struct worker *worker, uint64_t now)
{
    assert_int_equal(arbiter_ask(&worker->member, now), 0);
}

/* Its work is about to end, and it submits no more. */
static void yield(struct worker *worker, uint64_t now)
{
    worker->word.state = VGPU_TURN_CLOSED;
    assert_int_equal(arbiter_yield(&worker->member, now, now), 0);
}

/* Its work is done, and the turn returned. */
static void done(struct worker *worker, uint64_t now)
{
    worker->word.state = VGPU_TURN_CLOSED;
    assert_int_equal(arbiter_done(&worker->member, now), 0);
}

/* Its work is done, with nobody else asking. */
static void keep(struct worker *worker, uint64_t now)
{
    assert_int_equal(worker->word.state, VGPU_TURN_RUNNING);
    worker->word.state = VGPU_TURN_OPEN;
    assert_int_equal(arbiter_kept(&worker->member, now), 0);
}

static void leave(struct worker *worker, uint64_t now)
{
    arbiter_leave(&worker->member, now);
}

static void set(struct worker *worker, enum vgpu_priority priority, uint32_t weight)
{
    worker->account.priority = priority;
    worker->account.weight = weight;
}

/* Puts `other` into the VM of `worker`, before the arbiter has seen either. */
static void same_vm(struct worker *worker, struct worker *other)
{
    other->member.account = &worker->account;
}

static void expect(const struct worker *worker, unsigned grants, enum vgpu_turn state)
{
    assert_int_equal(worker->grants, grants);
    assert_int_equal(worker->word.state, state);
}

/* A turn that stays --------------------------------------------------------------------------- */

static void test_lone_worker_keeps_the_turn(void **state)
{
    (void)state;
    ask(a, 10);
    expect(a, 1, VGPU_TURN_RUNNING);
    keep(a, 20);
    expect(a, 1, VGPU_TURN_OPEN);
    assert_int_equal(arbiter_deadline(&arbiter), 0);
    assert_false(arbiter_busy(&a->member));
    assert_int_equal(history.count, 1);
    assert_int_equal(history.record[0].gpu, 3);
    assert_int_equal(history.record[0].run_ns, 10);
}

static void test_idle_holder_loses_the_turn_at_once(void **state)
{
    (void)state;
    ask(a, 10);
    keep(a, 20);
    ask(b, 30);
    expect(a, 1, VGPU_TURN_CLOSED);
    expect(b, 1, VGPU_TURN_RUNNING);
}

/* The turn is taken from OPEN before its KEPT is read. */
static void test_turn_taken_before_its_kept_is_read(void **state)
{
    (void)state;
    ask(a, 10);
    a->word.state = VGPU_TURN_OPEN;
    ask(b, 20);
    expect(b, 1, VGPU_TURN_RUNNING);
    assert_int_equal(arbiter_ask(&a->member, 25), -EPROTO); /* a KEPT comes before that */
    assert_int_equal(arbiter_kept(&a->member, 30), 0);
    assert_int_equal(history.count, 1);
    assert_int_equal(history.record[0].vm_id, a->member.vm_id);
    ask(a, 40);
}

/* Likewise, but it has started again by then, and ends that too. */
static void test_kept_and_done_on_their_way(void **state)
{
    (void)state;
    ask(a, 10);
    a->word.state = VGPU_TURN_RUNNING; /* the second turn, by itself */
    ask(b, 20);
    expect(a, 1, VGPU_TURN_SHARED);
    a->word.state = VGPU_TURN_CLOSED;
    assert_int_equal(arbiter_kept(&a->member, 30), 0);
    assert_int_equal(b->grants, 0);
    assert_int_equal(arbiter_done(&a->member, 40), 0);
    assert_int_equal(b->grants, 1);
    assert_int_equal(history.count, 1);
}

/* What current finds in its word -------------------------------------------------------------- */

static void test_same_band_waits_for_the_slice(void **state)
{
    (void)state;
    ask(a, 10);
    ask(b, 20);
    expect(a, 1, VGPU_TURN_SHARED);
    expect(b, 0, VGPU_TURN_CLOSED);
    done(a, SLICE);
    expect(b, 1, VGPU_TURN_RUNNING);
}

static void test_lower_band_waits_until_it_is_idle(void **state)
{
    (void)state;
    set(b, VGPU_PRIORITY_LOW, 100);
    ask(a, 10);
    ask(b, 20);
    expect(a, 1, VGPU_TURN_WANTED);
    done(a, 30);
    expect(b, 1, VGPU_TURN_RUNNING);
}

static void test_higher_band_is_granted_at_once(void **state)
{
    (void)state;
    set(b, VGPU_PRIORITY_HIGH, 100);
    ask(a, 10);
    ask(b, 20);
    expect(a, 1, VGPU_TURN_STOPPED);
    expect(b, 1, VGPU_TURN_RUNNING);
    assert_ptr_equal(arbiter.current, &b->member);
    assert_true(arbiter_busy(&a->member));
}

static void test_grant_tells_who_else_waits(void **state)
{
    (void)state;
    set(c, VGPU_PRIORITY_LOW, 100);
    ask(a, 10);
    ask(b, 20);
    ask(c, 30);
    ask(d, 40);
    done(a, 50);
    expect(b, 1, VGPU_TURN_SHARED);
    done(b, 60);
    expect(d, 1, VGPU_TURN_WANTED);
    done(d, 70);
    expect(c, 1, VGPU_TURN_RUNNING);
}

static void test_stopped_goes_on_when_nobody_waits_any_more(void **state)
{
    (void)state;
    set(b, VGPU_PRIORITY_HIGH, 100);
    ask(a, 10);
    ask(b, 20);
    expect(a, 1, VGPU_TURN_STOPPED);
    done(b, 30);
    expect(a, 1, VGPU_TURN_RUNNING);
    assert_ptr_equal(arbiter.current, &a->member);
    keep(a, 40);
}

static void test_bands_then_arrival(void **state)
{
    (void)state;
    set(a, VGPU_PRIORITY_LOW, 100);
    set(d, VGPU_PRIORITY_LOW, 100);
    set(c, VGPU_PRIORITY_HIGH, 100);
    arbiter_pause(&arbiter, 1);
    ask(a, 10);
    ask(d, 11);
    ask(b, 12);
    ask(c, 13);
    assert_int_equal(arbiter_deadline(&arbiter), 0);
    arbiter_resume(&arbiter, 20);
    expect(c, 1, VGPU_TURN_WANTED);
    done(c, 30);
    expect(b, 1, VGPU_TURN_WANTED);
    done(b, 40);
    expect(a, 1, VGPU_TURN_SHARED);
    done(a, 50);
    expect(d, 1, VGPU_TURN_RUNNING);
    done(d, 60);
    assert_int_equal(history.count, 4);
    assert_int_equal(history.record[3].vm_id, d->member.vm_id);
    assert_int_equal(history.record[3].sequence, 4);
    assert_int_equal(history.record[3].wait_ns, 50 - 11);
    assert_int_equal(history.record[3].run_ns, 10);
}

/* Work that is about to end ------------------------------------------------------------------- */

static void test_yield_hands_over(void **state)
{
    (void)state;
    ask(a, 10);
    ask(b, 20);
    yield(a, 30);
    expect(b, 1, VGPU_TURN_RUNNING);
    assert_true(arbiter_busy(&a->member));
    done(a, 40);
    assert_ptr_equal(arbiter.current, &b->member);
}

/* The next submits nothing before what is there is about to end. */
static void test_next_starts_when_the_work_before_it_ends(void **state)
{
    (void)state;
    ask(a, 10);
    ask(b, 20);
    a->word.state = VGPU_TURN_CLOSED;
    assert_int_equal(arbiter_yield(&a->member, 5 * MS, 30), 0);
    expect(b, 1, VGPU_TURN_RUNNING);
    assert_int_equal(b->word.from_ns, 5 * MS);
    done(a, 4 * MS); /* sooner than it had said */
    assert_int_equal(b->word.from_ns, 4 * MS);
    assert_int_equal(b->alerts, 1);
    assert_int_equal(a->account.used_ns, 4 * MS - 20);
    assert_int_equal(b->account.used_ns, 0);
}

/* A lie about the end keeps the next waiting no longer than silence would. */
static void test_next_starts_after_patience(void **state)
{
    (void)state;
    ask(a, 10);
    ask(b, 20);
    a->word.state = VGPU_TURN_CLOSED;
    assert_int_equal(arbiter_yield(&a->member, UINT64_MAX, 30), 0);
    expect(b, 1, VGPU_TURN_RUNNING);
    assert_in_range(b->word.from_ns, 30, 30 + PATIENCE);
}

static void test_next_is_alerted_before_the_slice_ends(void **state)
{
    (void)state;
    ask(a, 0);
    ask(b, 20);
    assert_in_range(arbiter_deadline(&arbiter), SLICE / 2, SLICE - MS / 10);
    arbiter_tick(&arbiter, SLICE / 2 - 1);
    assert_int_equal(b->alerts, 0);
    arbiter_tick(&arbiter, arbiter_deadline(&arbiter));
    assert_int_equal(b->alerts, 1);
    assert_int_equal(b->grants, 0);
    assert_true(arbiter_deadline(&arbiter) > SLICE); /* once */
}

static void test_only_one_about_to_end_beside_the_next(void **state)
{
    (void)state;
    ask(a, 10);
    ask(b, 20);
    ask(c, 30);
    yield(a, 40);
    expect(b, 1, VGPU_TURN_SHARED);
    yield(b, 50);
    assert_int_equal(c->grants, 0);
    done(a, 60);
    expect(c, 1, VGPU_TURN_RUNNING);
}

static void test_higher_band_does_not_mind_what_drains(void **state)
{
    (void)state;
    set(c, VGPU_PRIORITY_HIGH, 100);
    set(d, VGPU_PRIORITY_HIGH, 100);
    ask(a, 10);
    ask(b, 20);
    yield(a, 30);
    ask(c, 40); /* beside what a and b have left */
    expect(b, 1, VGPU_TURN_STOPPED);
    expect(c, 1, VGPU_TURN_RUNNING);
    ask(d, 50);
    yield(c, 60);
    expect(d, 1, VGPU_TURN_RUNNING);
}

/* A lower one has to wait until all that drains of its band or a higher one is about to end. */
static void test_lower_band_waits_for_what_drains(void **state)
{
    (void)state;
    set(b, VGPU_PRIORITY_HIGH, 100);
    ask(a, 10);
    ask(b, 20);
    ask(c, 30);
    assert_int_equal(c->grants, 0);
    done(b, 40);
    assert_int_equal(c->grants, 0);
    yield(a, 50);
    expect(c, 1, VGPU_TURN_RUNNING);
}

/* Order --------------------------------------------------------------------------------------- */

static void test_equals_are_served_by_arrival(void **state)
{
    (void)state;
    ask(a, 10);
    for (unsigned i = WORKERS - 1; i > 0; i--) {
        ask(&workers[i], 20 + WORKERS - i);
    }
    done(a, 100);
    for (unsigned i = WORKERS - 1; i > 0; i--) {
        assert_ptr_equal(arbiter.current, &workers[i].member);
        done(&workers[i], 200 + WORKERS - i);
    }
}

/* b's VM is ahead of the others by more than a slice, so asking first does not help it. */
static void test_who_is_ahead_by_more_than_a_slice_waits(void **state)
{
    (void)state;
    same_vm(b, &workers[4]);
    ask(b, 0);
    ask(&workers[4], 1);
    ask(c, 2);
    ask(d, 3);
    done(b, 2 * SLICE);
    assert_ptr_equal(arbiter.current, &c->member);
    done(c, 2 * SLICE + 10);
    assert_ptr_equal(arbiter.current, &d->member);
    ask(c, 2 * SLICE + 20);
    done(d, 2 * SLICE + 30);
    assert_ptr_equal(arbiter.current, &c->member);
    done(c, 2 * SLICE + 40);
    assert_ptr_equal(arbiter.current, &workers[4].member);
}

static void test_within_a_vm_by_arrival(void **state)
{
    (void)state;
    same_vm(a, b);
    same_vm(a, c);
    ask(d, 10);
    ask(c, 20);
    ask(a, 30);
    ask(b, 40);
    done(d, 50);
    assert_ptr_equal(arbiter.current, &c->member);
    done(c, 60);
    assert_ptr_equal(arbiter.current, &a->member);
    done(a, 70);
    assert_ptr_equal(arbiter.current, &b->member);
}

/*
 * Lets workers, each alone in its VM, use the engine without a pause until `end`. Each submits as
 * long as its word lets it, in pieces that may have a different length each; on the engine is one
 * piece at a time.
 */
static void saturate(struct worker *const *who, const uint64_t *piece, unsigned count, uint64_t end)
{
    uint64_t now = 1000;

    for (unsigned i = 0; i < count; i++) {
        ask(who[i], now + i);
    }
    while (now < end) {
        struct worker *worker = (struct worker *)arbiter.current;
        unsigned index = 0;

        assert_non_null(worker);
        while (who[index] != worker) {
            index++;
        }
        do {
            now += piece[index];
        } while (now < worker->member.due_ns && worker->word.state == VGPU_TURN_SHARED);
        done(worker, now);
        now += 20000;
        ask(worker, now);
    }
}

static void expect_share(const struct worker *worker, uint64_t all, unsigned percent)
{
    const uint64_t got = worker->account.used_ns * 1000 / all;

    assert_in_range(got, percent * 10 - 15, percent * 10 + 15);
}

static void test_weights(void **state)
{
    struct worker *const who[] = {a, b, c};
    const uint64_t piece[] = {MS / 10, MS / 10, MS / 10};

    (void)state;
    set(a, VGPU_PRIORITY_MEDIUM, 100);
    set(b, VGPU_PRIORITY_MEDIUM, 200);
    set(c, VGPU_PRIORITY_MEDIUM, 400);
    saturate(who, piece, 3, 10000 * MS);
    expect_share(a, 10000 * MS, 14);
    expect_share(b, 10000 * MS, 29);
    expect_share(c, 10000 * MS, 57);
}

/* Pieces of 30 ms against ones of 0.1 ms: what is past the slice is made good. */
static void test_overshoot_is_charged_to_who_caused_it(void **state)
{
    struct worker *const who[] = {a, b};
    const uint64_t piece[] = {30 * MS, MS / 10};

    (void)state;
    saturate(who, piece, 2, 10000 * MS);
    expect_share(a, 10000 * MS, 50);
    expect_share(b, 10000 * MS, 50);
}

static void test_idle_time_is_not_banked(void **state)
{
    struct worker *const who[] = {a, b, c};
    const uint64_t piece[] = {MS, MS, MS};

    (void)state;
    saturate(who, piece, 2, 5000 * MS); /* c is away */
    leave(a, 5000 * MS);
    leave(b, 5000 * MS);
    arbiter_join(&arbiter, &a->member);
    arbiter_join(&arbiter, &b->member);
    a->account.used_ns = b->account.used_ns = 0;
    ask(c, 5000 * MS);
    assert_in_range(c->account.virtual_ns, a->account.virtual_ns - 2 * SLICE,
                    a->account.virtual_ns + 2 * SLICE);
}

/* What a used while it was alone, and past its slice before, does not count for long. */
static void test_debt_is_forgiven(void **state)
{
    (void)state;
    ask(a, 10);
    ask(b, 20);
    done(a, 500 * MS);
    done(b, 501 * MS);
    assert_true(a->account.virtual_ns > b->account.virtual_ns + 400 * MS);
    ask(b, 1100 * MS);
    ask(a, 1100 * MS + 1);
    assert_in_range(a->account.virtual_ns - b->account.virtual_ns, 0, SLICE);
}

/* A band's least share ------------------------------------------------------------------------- */

/* a is high and never rests, b and c are low; asked at 0. */
static void starve(void)
{
    set(a, VGPU_PRIORITY_HIGH, 100);
    set(b, VGPU_PRIORITY_LOW, 100);
    set(c, VGPU_PRIORITY_LOW, 100);
    ask(a, 1);
    ask(b, 2);
    ask(c, 3);
    expect(a, 1, VGPU_TURN_WANTED);
}

static void test_starved_band_is_lent_a_turn(void **state)
{
    (void)state;
    starve();
    assert_in_range(arbiter_deadline(&arbiter), 1000 * MS, 1001 * MS);
    arbiter_tick(&arbiter, 999 * MS);
    expect(a, 1, VGPU_TURN_WANTED);
    arbiter_tick(&arbiter, 1001 * MS);
    expect(a, 1, VGPU_TURN_STOPPED);
    assert_int_equal(b->grants, 0); /* what a has there comes first */
    yield(a, 1002 * MS);
    expect(b, 1, VGPU_TURN_SHARED);
    assert_int_equal(b->word.until_ns, 0);
}

static void test_lent_turn_is_of_one_piece_and_not_preempted(void **state)
{
    (void)state;
    starve();
    arbiter_tick(&arbiter, 1001 * MS);
    done(a, 1002 * MS);
    expect(b, 1, VGPU_TURN_SHARED);
    ask(a, 1003 * MS);
    expect(b, 1, VGPU_TURN_SHARED);
    assert_int_equal(a->grants, 1);
    yield(b, 1004 * MS);
    expect(a, 2, VGPU_TURN_WANTED);
    done(b, 1005 * MS);
    assert_int_equal(c->grants, 0); /* one was lent */
    /* 3 ms at 1 % take 300 ms to earn. */
    assert_in_range(arbiter_deadline(&arbiter), 1250 * MS, 1350 * MS);
    arbiter_tick(&arbiter, 1350 * MS);
    expect(a, 2, VGPU_TURN_STOPPED);
}

static void test_lent_turn_goes_to_one_of_many(void **state)
{
    (void)state;
    starve();
    arbiter_tick(&arbiter, 1001 * MS);
    done(a, 1002 * MS);
    ask(a, 1003 * MS);
    done(b, 1004 * MS);
    ask(b, 1004 * MS);
    expect(a, 2, VGPU_TURN_WANTED);
    assert_int_equal(c->grants, 0);
}

static void test_without_a_least_share_a_band_may_starve(void **state)
{
    (void)state;
    arbiter.rules.least_share = 0;
    starve();
    assert_int_equal(arbiter_deadline(&arbiter), 0);
    arbiter_tick(&arbiter, 100000 * MS);
    expect(a, 1, VGPU_TURN_WANTED);
    assert_int_equal(b->grants, 0);
}

static void test_band_that_was_served_has_no_credit(void **state)
{
    (void)state;
    starve();
    done(a, 900 * MS);
    done(b, 901 * MS);
    ask(a, 902 * MS);
    done(c, 903 * MS);
    ask(b, 904 * MS);
    assert_in_range(arbiter_deadline(&arbiter), 1100 * MS, 1904 * MS);
}

/* Those who do not return the turn ------------------------------------------------------------- */

static void test_after_patience_the_next_is_granted_beside(void **state)
{
    (void)state;
    ask(a, 10);
    ask(b, 20);
    arbiter_tick(&arbiter, 10 + SLICE);
    assert_int_equal(arbiter_deadline(&arbiter), 10 + SLICE + PATIENCE);
    arbiter_tick(&arbiter, 10 + SLICE + PATIENCE - 1);
    expect(a, 1, VGPU_TURN_SHARED);
    arbiter_tick(&arbiter, 10 + SLICE + PATIENCE);
    expect(a, 1, VGPU_TURN_STOPPED);
    expect(b, 1, VGPU_TURN_RUNNING);
}

static void test_who_lied_about_its_end_is_not_waited_for(void **state)
{
    (void)state;
    ask(a, 10);
    ask(b, 20);
    ask(c, 30);
    yield(a, 100);
    yield(b, 200);
    assert_int_equal(arbiter_deadline(&arbiter), 100 + PATIENCE);
    arbiter_tick(&arbiter, 100 + PATIENCE);
    expect(c, 1, VGPU_TURN_RUNNING);
}

static void test_whoever_holds_others_up_pays(void **state)
{
    (void)state;
    ask(a, 0);
    ask(b, 0);
    a->word.state = VGPU_TURN_CLOSED; /* and says nothing */
    arbiter_tick(&arbiter, SLICE);
    assert_int_equal(b->grants, 0);
    arbiter_tick(&arbiter, PATIENCE);
    assert_int_equal(a->account.used_ns, PATIENCE);
    assert_int_equal(b->account.used_ns, 0);
}

/* The engine's own time slicing parts them, and so does the charge. */
static void test_who_has_work_beside_another_pays_half(void **state)
{
    (void)state;
    ask(a, 0);
    ask(b, 0);
    yield(a, MS);
    assert_ptr_equal(arbiter.current, &b->member);
    arbiter_tick(&arbiter, 11 * MS);
    assert_int_equal(a->account.used_ns, 6 * MS);
    assert_int_equal(b->account.used_ns, 5 * MS);
    done(a, 21 * MS);
    assert_int_equal(a->account.used_ns, 11 * MS);
}

/* One is there beside whom others are served; its VM gets no more before that is over. */
static void test_overdue_vm_gets_no_more(void **state)
{
    (void)state;
    same_vm(a, c);
    ask(a, 10);
    ask(c, 20);
    ask(b, 30);
    arbiter_tick(&arbiter, 10 + SLICE + PATIENCE);
    assert_ptr_equal(arbiter.current, &b->member);
    yield(b, 60 * MS);
    done(b, 61 * MS);
    assert_int_equal(c->grants, 0);
    assert_null(arbiter.current);
    ask(b, 62 * MS);
    expect(b, 2, VGPU_TURN_RUNNING);
    done(a, 63 * MS);
    expect(b, 2, VGPU_TURN_SHARED);
    done(b, 64 * MS);
    assert_int_equal(c->grants, 1);
}

/* Who is overdue when nobody waits is not waited for again by the next who asks. */
static void test_overdue_is_not_waited_for_again(void **state)
{
    (void)state;
    ask(a, 10);
    ask(b, 20);
    arbiter_tick(&arbiter, 10 + SLICE + PATIENCE);
    assert_ptr_equal(arbiter.current, &b->member);
    done(b, 100 * MS);
    expect(a, 1, VGPU_TURN_STOPPED);
    ask(b, 200 * MS);
    assert_ptr_equal(arbiter.current, &b->member);
}

/* The one that it was to share with has gone. */
static void test_shared_turn_becomes_a_standing_one(void **state)
{
    (void)state;
    ask(a, 10);
    ask(b, 20);
    expect(a, 1, VGPU_TURN_SHARED);
    leave(b, 30);
    expect(a, 1, VGPU_TURN_RUNNING);
    keep(a, 40);
}

static void test_after_the_limit_the_owner_is_told_once(void **state)
{
    (void)state;
    ask(a, 10);
    ask(b, 20);
    arbiter_tick(&arbiter, 10 + SLICE + PATIENCE);
    ask(c, SLICE + LIMIT - MS);
    arbiter_tick(&arbiter, SLICE + LIMIT - MS);
    assert_in_range(arbiter_deadline(&arbiter), SLICE + LIMIT, SLICE + LIMIT + 2 * MS);
    arbiter_tick(&arbiter, 10 + SLICE + LIMIT - 1);
    assert_int_equal(a->expiries, 0);
    arbiter_tick(&arbiter, 10 + SLICE + LIMIT);
    assert_int_equal(a->expiries, 1);
    arbiter_tick(&arbiter, 10 + SLICE + LIMIT + 1);
    arbiter_tick(&arbiter, 10 + SLICE + 2 * LIMIT);
    assert_int_equal(a->expiries, 1);
}

/* Who is beside it waits for nothing, and yet has only half of the engine. */
static void test_limit_counts_while_another_is_served_beside(void **state)
{
    (void)state;
    set(b, VGPU_PRIORITY_HIGH, 100);
    ask(a, 10);
    ask(b, 20);
    expect(a, 1, VGPU_TURN_STOPPED);
    assert_int_equal(arbiter_deadline(&arbiter), 20 + LIMIT);
    arbiter_tick(&arbiter, 20 + LIMIT);
    assert_int_equal(a->expiries, 1);
}

/* The limit counts from when others wait, and only while they do. */
static void test_nobody_is_told_about_who_holds_nobody_up(void **state)
{
    (void)state;
    ask(a, 0);
    arbiter_tick(&arbiter, 10 * LIMIT);
    assert_int_equal(a->expiries, 0); /* alone, for as long as it likes */
    ask(b, 10 * LIMIT);
    expect(a, 1, VGPU_TURN_SHARED);
    leave(b, 10 * LIMIT + MS);
    arbiter_tick(&arbiter, 20 * LIMIT);
    ask(c, 20 * LIMIT);
    arbiter_tick(&arbiter, 20 * LIMIT);
    assert_int_equal(a->expiries, 0);
    expect(a, 1, VGPU_TURN_SHARED);
}

static void test_nobody_is_told_about_who_drains_alone(void **state)
{
    (void)state;
    ask(a, 0);
    yield(a, MS); /* and holds nobody up */
    ask(b, 10 * LIMIT);
    expect(b, 1, VGPU_TURN_RUNNING);
    ask(c, 10 * LIMIT);
    arbiter_tick(&arbiter, 10 * LIMIT + MS);
    assert_int_equal(a->expiries, 0);
}

/* It was to share with one who has gone; the one who waits now is of a lower band. */
static void test_lower_band_is_not_granted_beside_who_need_not_share(void **state)
{
    (void)state;
    set(c, VGPU_PRIORITY_LOW, 100);
    ask(a, 0);
    ask(b, 1);
    ask(c, 2);
    leave(b, 3);
    expect(a, 1, VGPU_TURN_WANTED);
    arbiter_tick(&arbiter, SLICE + PATIENCE + 1);
    expect(a, 1, VGPU_TURN_WANTED);
    assert_int_equal(c->grants, 0);
}

/* Pausing, changing, leaving ------------------------------------------------------------------ */

static void test_pause_takes_a_standing_turn(void **state)
{
    (void)state;
    ask(a, 10);
    keep(a, 20);
    arbiter_pause(&arbiter, 30);
    expect(a, 1, VGPU_TURN_CLOSED);
    ask(a, 40);
    assert_int_equal(a->grants, 1);
    arbiter_resume(&arbiter, 50);
    expect(a, 2, VGPU_TURN_RUNNING);
}

static void test_pause_stops_who_runs(void **state)
{
    (void)state;
    ask(a, 10);
    ask(b, 20);
    arbiter_pause(&arbiter, 30);
    expect(a, 1, VGPU_TURN_STOPPED);
    assert_int_equal(arbiter_deadline(&arbiter), 0);
    arbiter_tick(&arbiter, 2 * LIMIT);
    assert_int_equal(a->expiries, 0);
    assert_int_equal(a->account.used_ns, 10); /* since b asked */
    /* Patience and the limit start again. */
    arbiter_resume(&arbiter, 2 * LIMIT);
    arbiter_tick(&arbiter, 2 * LIMIT);
    assert_int_equal(a->expiries, 0);
    assert_int_equal(arbiter_deadline(&arbiter), 2 * LIMIT + PATIENCE);
    done(a, 2 * LIMIT + 1);
    expect(b, 1, VGPU_TURN_RUNNING);
}

static void test_resumed_alone_it_goes_on(void **state)
{
    (void)state;
    ask(a, 10);
    arbiter_pause(&arbiter, 30);
    expect(a, 1, VGPU_TURN_STOPPED);
    arbiter_resume(&arbiter, 40);
    expect(a, 1, VGPU_TURN_RUNNING);
}

static void test_paused_account_stands_aside(void **state)
{
    (void)state;
    ask(a, 10);
    ask(b, 20);
    arbiter_pause_account(&arbiter, &a->account, true, 30);
    expect(a, 1, VGPU_TURN_STOPPED);
    done(a, 40);
    expect(b, 1, VGPU_TURN_RUNNING);
    ask(a, 50);
    assert_int_equal(arbiter_deadline(&arbiter), 0);
    done(b, 60);
    ask(b, 70);
    expect(b, 2, VGPU_TURN_RUNNING);
    assert_int_equal(a->grants, 1);
    /* Nothing was saved. */
    arbiter.band[VGPU_PRIORITY_MEDIUM].virtual_ns = SECOND;
    arbiter_pause_account(&arbiter, &a->account, false, 80);
    assert_true(a->account.virtual_ns >= SECOND);
    done(b, 90);
    expect(a, 2, VGPU_TURN_RUNNING);
}

static void test_paused_account_has_no_standing_turn(void **state)
{
    (void)state;
    ask(a, 10);
    keep(a, 20);
    arbiter_pause_account(&arbiter, &a->account, true, 30);
    expect(a, 1, VGPU_TURN_CLOSED);
    ask(a, 40);
    assert_int_equal(a->grants, 1);
    assert_null(arbiter.current);
    /* Another priority does not bring it in. */
    arbiter_set_account(&arbiter, &a->account, VGPU_PRIORITY_HIGH, 100, 50);
    assert_null(arbiter.current);
    arbiter_pause_account(&arbiter, &a->account, false, 60);
    expect(a, 2, VGPU_TURN_RUNNING);
}

/* It was stopped, and nobody waits: it must not go on, but does so when it may. */
static void test_paused_account_does_not_go_on(void **state)
{
    (void)state;
    ask(a, 10);
    arbiter_pause_account(&arbiter, &a->account, true, 20);
    arbiter_tick(&arbiter, MS);
    expect(a, 1, VGPU_TURN_STOPPED);
    ask(b, 2 * MS);
    arbiter_tick(&arbiter, 2 * MS + PATIENCE);
    expect(b, 1, VGPU_TURN_RUNNING); /* beside it, as it cannot be off */
    done(b, 3 * MS + PATIENCE);
    arbiter_pause_account(&arbiter, &a->account, false, 4 * MS + PATIENCE);
    expect(a, 1, VGPU_TURN_RUNNING);
}

static void test_account_raised_while_it_waits(void **state)
{
    (void)state;
    ask(a, 10);
    ask(b, 20);
    ask(c, 30);
    arbiter_set_account(&arbiter, &c->account, VGPU_PRIORITY_HIGH, 100, 40);
    expect(a, 1, VGPU_TURN_STOPPED);
    expect(c, 1, VGPU_TURN_WANTED);
    assert_int_equal(b->grants, 0);
}

static void test_account_lowered_while_it_is_current(void **state)
{
    (void)state;
    ask(a, 10);
    ask(b, 20);
    arbiter_set_account(&arbiter, &a->account, VGPU_PRIORITY_LOW, 100, 40);
    expect(a, 1, VGPU_TURN_STOPPED);
    expect(b, 1, VGPU_TURN_RUNNING);
}

static void test_account_raised_while_it_is_current(void **state)
{
    (void)state;
    ask(a, 10);
    ask(b, 20);
    arbiter_set_account(&arbiter, &a->account, VGPU_PRIORITY_HIGH, 100, 40);
    expect(a, 1, VGPU_TURN_WANTED);
    arbiter_tick(&arbiter, 100 * MS);
    expect(a, 1, VGPU_TURN_WANTED);
    assert_int_equal(b->grants, 0);
}

static void test_leaving_in_every_state(void **state)
{
    (void)state;
    leave(d, 1); /* idle */
    leave(d, 2); /* twice does nothing */
    ask(a, 10);
    ask(b, 20);
    ask(c, 30);
    leave(b, 40); /* waiting */
    leave(a, 50); /* current */
    expect(c, 1, VGPU_TURN_RUNNING);
    assert_int_equal(b->grants, 0);
    join(a);
    join(b);
    ask(a, 60);
    ask(b, 70);
    yield(c, 80);
    yield(a, 90);
    assert_int_equal(b->grants, 0);
    leave(c, 100); /* draining */
    expect(b, 1, VGPU_TURN_RUNNING);
    b->word.state = VGPU_TURN_OPEN;
    leave(b, 110); /* current, and idle */
    assert_null(arbiter.current);
    assert_int_equal(arbiter.members, WORKERS - 3);
}

static void test_who_is_lent_to_leaves(void **state)
{
    (void)state;
    starve();
    leave(c, 4);
    arbiter_tick(&arbiter, 1001 * MS);
    expect(a, 1, VGPU_TURN_STOPPED);
    leave(b, 1001 * MS);
    expect(a, 1, VGPU_TURN_RUNNING);
}

/* Lies ----------------------------------------------------------------------------------------- */

static void test_worker_asks_twice(void **state)
{
    (void)state;
    ask(a, 10);
    assert_int_equal(arbiter_ask(&a->member, 11), -EPROTO);
    ask(b, 12);
    assert_int_equal(arbiter_ask(&b->member, 13), -EPROTO);
    yield(a, 14);
    assert_int_equal(arbiter_ask(&a->member, 15), -EPROTO);
}

static void test_worker_ends_what_it_does_not_have(void **state)
{
    (void)state;
    assert_int_equal(arbiter_done(&a->member, 10), -EPROTO);
    assert_int_equal(arbiter_yield(&a->member, 10, 10), -EPROTO);
    assert_int_equal(arbiter_kept(&a->member, 10), -EPROTO);
    ask(b, 20);
    ask(a, 30);
    assert_int_equal(arbiter_done(&a->member, 40), -EPROTO);
    assert_int_equal(arbiter_yield(&a->member, 40, 40), -EPROTO);
    assert_int_equal(arbiter_kept(&a->member, 40), -EPROTO);
    yield(b, 50);
    b->word.state = VGPU_TURN_CLOSED;
    assert_int_equal(arbiter_yield(&b->member, 60, 60), -EPROTO);
    assert_int_equal(arbiter_kept(&b->member, 60), 0);
    assert_int_equal(arbiter_kept(&b->member, 60), -EPROTO);
    leave(c, 70);
    assert_int_equal(arbiter_ask(&c->member, 80), -EPROTO);
    assert_int_equal(arbiter_done(&c->member, 80), -EPROTO);
}

static void test_worker_says_done_and_holds_on(void **state)
{
    (void)state;
    ask(a, 10);
    ask(b, 20);
    assert_int_equal(arbiter_done(&a->member, 30), -EPROTO);
    assert_int_equal(arbiter_yield(&a->member, 30, 30), -EPROTO);
    assert_int_equal(b->grants, 0);
    /* The caller kills it; then the other one goes on. */
    leave(a, 40);
    assert_int_equal(b->grants, 1);
}

static void test_worker_stores_garbage(void **state)
{
    (void)state;
    ask(a, 10);
    keep(a, 20);
    a->word.state = 0xdeadbeef;
    ask(b, 30);
    /* As good as running: patience and the limit apply. */
    assert_int_equal(b->grants, 0);
    assert_int_not_equal(arbiter_deadline(&arbiter), 0);
    arbiter_tick(&arbiter, 30 + SLICE + PATIENCE);
    assert_int_equal(b->grants, 1);
    ask(c, SLICE + LIMIT);
    arbiter_tick(&arbiter, 30 + SLICE + LIMIT);
    assert_int_equal(a->expiries, 1);
}

/* A worker that closes its word, and says nothing, is waited for no longer than any other. */
static void test_worker_closes_its_word_silently(void **state)
{
    (void)state;
    ask(a, 10);
    a->word.state = VGPU_TURN_CLOSED;
    ask(b, 20);
    assert_int_not_equal(arbiter_deadline(&arbiter), 0);
    arbiter_tick(&arbiter, 20 + SLICE + PATIENCE);
    assert_int_equal(b->grants, 1);
    /* No deadline is left in the past, for that would make the mediator spin. */
    assert_true(arbiter_deadline(&arbiter) == 0 ||
                arbiter_deadline(&arbiter) > 20 + SLICE + PATIENCE);
    ask(c, SLICE + LIMIT);
    arbiter_tick(&arbiter, 20 + SLICE + LIMIT);
    assert_int_equal(a->expiries, 1);
}

static void test_worker_closes_its_word_silently_before_a_higher_band(void **state)
{
    (void)state;
    set(b, VGPU_PRIORITY_HIGH, 100);
    ask(a, 10);
    a->word.state = VGPU_TURN_CLOSED; /* its YIELD may be on its way */
    ask(b, 20);
    expect(b, 1, VGPU_TURN_RUNNING);
    assert_int_equal(arbiter_yield(&a->member, 30, 30), 0);
    assert_int_equal(arbiter_done(&a->member, 40), 0);
    assert_ptr_equal(arbiter.current, &b->member);
}

static void test_history_wraps(void **state)
{
    (void)state;
    for (unsigned i = 0; i < TURN_HISTORY; i++) {
        ask(a, 1);
        keep(a, 2);
        ask(b, 3);
        keep(b, 4);
    }
    assert_int_equal(history.count, 2 * TURN_HISTORY);
    assert_int_equal(history.record[0].sequence, TURN_HISTORY + 1);
}

/* Work that is taken off the engine ----------------------------------------------------------- */

#define WORD (MS / 20)   /* in which who is stopped may say when its work ends */
#define ON (MS / 2)      /* what turning on takes, which is not charged */
#define LONG (4 * SLICE) /* the turn of who has to be turned off */

static void can_be_off(struct worker *worker)
{
    worker->member.turn_off = on_turn_off;
}

static void yield_until(struct worker *worker, uint64_t from, uint64_t now)
{
    worker->word.state = VGPU_TURN_CLOSED;
    assert_int_equal(arbiter_yield(&worker->member, from, now), 0);
}

static void expect_orders(const struct worker *worker, unsigned orders, bool off)
{
    assert_int_equal(worker->orders, orders);
    assert_int_equal(worker->off, off);
}

/* a is low and has work without end, b is high; a is off. */
static void turn_off_for_higher(void)
{
    can_be_off(a);
    set(a, VGPU_PRIORITY_LOW, 100);
    set(b, VGPU_PRIORITY_HIGH, 100);
    ask(a, 10);
    ask(b, 20);
    yield_until(a, 20 + SECOND, 30);
    assert_in_range(arbiter_deadline(&arbiter), 1, 20 + WORD);
    arbiter_tick(&arbiter, 20 + WORD);
    expect_orders(a, 1, true);
    arbiter_off(&a->member, MS);
}

static void test_lower_band_is_off_while_a_higher_one_has_work(void **state)
{
    uint64_t used;

    (void)state;
    turn_off_for_higher();
    expect(b, 1, VGPU_TURN_WANTED);
    assert_true(arbiter_busy(&a->member));
    used = a->account.used_ns;
    done(b, 50 * MS);
    /* It is off, and so has used nothing; now it goes on, and submits nothing. */
    assert_int_equal(a->account.used_ns, used);
    expect_orders(a, 2, false);
    expect(a, 1, VGPU_TURN_CLOSED);
    assert_ptr_equal(arbiter.current, &a->member);
    done(a, 60 * MS);
    assert_false(arbiter_busy(&a->member));
    ask(a, 60 * MS);
    expect(a, 2, VGPU_TURN_RUNNING);
}

static void test_off_and_on_again_and_again(void **state)
{
    uint64_t now = 50 * MS;

    (void)state;
    turn_off_for_higher();
    done(b, now);
    for (unsigned i = 0; i < 20; i++) {
        expect_orders(a, 2 + 2 * i, false);
        ask(b, now + MS);
        assert_int_equal(b->grants, i + 2);
        arbiter_tick(&arbiter, now + MS + WORD);
        expect_orders(a, 3 + 2 * i, true);
        arbiter_off(&a->member, now + 2 * MS);
        now += 50 * MS;
        done(b, now);
    }
}

/* Not even told to be off: it says that it ends sooner than that would take. */
static void test_work_that_is_about_to_end_stays(void **state)
{
    (void)state;
    can_be_off(a);
    set(b, VGPU_PRIORITY_HIGH, 100);
    ask(a, 10);
    ask(b, 20);
    yield_until(a, MS / 4, 30);
    arbiter_tick(&arbiter, MS / 4);
    done(a, MS / 4 + 10);
    expect_orders(a, 0, false);
    /* One that has said so and does not end is off a moment later. */
    ask(a, MS);
    done(b, 2 * MS);
    ask(b, 3 * MS);
    yield_until(a, 3 * MS + MS / 4, 3 * MS + 10);
    arbiter_tick(&arbiter, 4 * MS);
    expect_orders(a, 1, true);
}

/* The next starts when it is off, and not when it had said. */
static void test_turn_in_a_band_ends_with_its_time(void **state)
{
    (void)state;
    can_be_off(a);
    ask(a, 0);
    ask(b, 20);
    yield_until(a, SECOND, 30);
    expect(b, 1, VGPU_TURN_RUNNING);
    assert_in_range(b->word.from_ns, 2 * LONG, PATIENCE + SLICE);
    arbiter_tick(&arbiter, LONG - 10);
    expect_orders(a, 0, false);
    arbiter_tick(&arbiter, LONG);
    expect_orders(a, 1, true);
    arbiter_off(&a->member, LONG + MS);
    assert_int_equal(b->word.from_ns, LONG + MS);
    assert_int_equal(b->alerts, 1);
    assert_in_range(a->account.used_ns, LONG, LONG + MS);
    /* Then it is its turn again, for as long, but for what turning on takes. */
    done(b, 2 * LONG);
    expect_orders(a, 2, false);
    ask(b, 2 * LONG + 10);
    assert_in_range(arbiter_deadline(&arbiter), 2 * LONG, 3 * LONG + ON);
    arbiter_tick(&arbiter, 3 * LONG + ON + 10);
    expect_orders(a, 3, true);
    assert_int_equal(b->grants, 1);
    arbiter_off(&a->member, 3 * LONG + ON + MS);
    assert_int_equal(b->grants, 2);
}

/* Its thread may be in a call of the driver's: it is not waited for. */
static void test_silent_worker_is_turned_off(void **state)
{
    (void)state;
    can_be_off(a);
    ask(a, 0);
    ask(b, 20);
    arbiter_tick(&arbiter, SLICE + MS);
    expect(a, 1, VGPU_TURN_STOPPED);
    arbiter_tick(&arbiter, LONG + MS);
    expect_orders(a, 1, true);
    assert_int_equal(b->grants, 0);
    arbiter_off(&a->member, LONG + 2 * MS);
    assert_int_equal(b->grants, 1);
    /* Now it says what it had to say. */
    yield_until(a, LONG + 3 * MS, LONG + 3 * MS);
    done(b, LONG + 4 * MS);
    expect_orders(a, 2, false);
    done(a, LONG + 5 * MS);
    assert_null(arbiter.current);
}

/* Current starts work on an OPEN word without a word to anybody: it finds the other one off. */
static void test_current_without_work_is_not_held_up_later(void **state)
{
    (void)state;
    can_be_off(a);
    ask(a, 0);
    ask(b, SLICE);
    yield_until(a, SLICE + 20, SLICE + 10);
    expect(b, 1, VGPU_TURN_RUNNING);
    b->word.state = VGPU_TURN_OPEN;
    assert_in_range(arbiter_deadline(&arbiter), SLICE, LONG + 2 * MS);
    arbiter_tick(&arbiter, LONG + 2 * MS);
    expect_orders(a, 1, true);
    /* Off it waits, and nobody uses the engine: it goes on, and the other one has to ask. */
    arbiter_off(&a->member, LONG + 3 * MS);
    expect_orders(a, 2, false);
    expect(b, 1, VGPU_TURN_CLOSED);
}

/* The one that waits may not be served: that is no reason to look again at once. */
static void test_late_vm_ends_no_lent_turn(void **state)
{
    unsigned ticks = 0;
    uint64_t now;

    (void)state;
    can_be_off(a);
    set(a, VGPU_PRIORITY_LOW, 100);
    ask(a, 10);
    ask(b, 20);
    yield_until(a, 20 + SECOND, 30);
    arbiter_tick(&arbiter, 20 + WORD);
    arbiter_off(&a->member, MS);
    /* b's VM has a second worker. The one that is stopped for the lent turn ends nothing. */
    c->member.account = &b->account;
    ask(c, MS);
    for (now = 2 * MS; now < 5 * SECOND && arbiter.current != &a->member; now += MS / 10) {
        arbiter_tick(&arbiter, now);
        for (struct worker *w = b; w <= c; w++) {
            if (arbiter.current == &w->member && w->word.state == VGPU_TURN_SHARED &&
                now >= w->word.until_ns) {
                done(w, now);
                ask(w, now);
            }
        }
    }
    assert_ptr_equal(arbiter.current, &a->member);
    assert_true(a->member.lent);
    while (now < 5 * SECOND && ticks < 1000 && arbiter_deadline(&arbiter) != 0) {
        const uint64_t deadline = arbiter_deadline(&arbiter);

        now = deadline > now ? deadline : now + 1000;
        arbiter_tick(&arbiter, now);
        ticks++;
    }
    assert_in_range(ticks, 0, 999);
}

/* A copy comes behind the kernel, and waits for as long as that is off. */
static void test_other_engine_waits_for_who_is_off(void **state)
{
    struct arbiter_member kernel = {.turn_off = on_turn_off, .state = ARBITER_OFF};

    (void)state;
    a->member.behind = &kernel;
    ask(a, 10);
    ask(b, 20);
    yield(a, 30);
    /* Nobody waits for it, and it pays nothing. */
    expect(b, 1, VGPU_TURN_RUNNING);
    ask(c, 40);
    arbiter_tick(&arbiter, LIMIT + SECOND);
    assert_int_equal(a->expiries, 0);
    assert_int_equal(a->member.held_up_ns, 0);
    assert_false(a->member.late);
    assert_true(a->account.used_ns <= 20);
    /* Now it runs; its kernel may do so without end. */
    kernel.state = ARBITER_CURRENT;
    arbiter_tick(&arbiter, 2 * LIMIT + SECOND);
    arbiter_tick(&arbiter, 3 * LIMIT + SECOND);
    assert_int_equal(a->expiries, 0);
    assert_true(a->member.late);
    /* With no kernel before it, it is in the way by itself. */
    kernel.state = ARBITER_IDLE;
    arbiter_tick(&arbiter, 5 * LIMIT + SECOND);
    assert_int_equal(a->expiries, 1);
}

static void test_who_does_not_obey_is_passed(void **state)
{
    (void)state;
    can_be_off(a);
    ask(a, 0);
    ask(b, 20);
    yield_until(a, SECOND, 30);
    arbiter_tick(&arbiter, LONG);
    expect_orders(a, 1, true);
    arbiter_tick(&arbiter, SLICE + PATIENCE + 10);
    assert_true(a->member.late);
    assert_int_equal(b->word.from_ns <= SLICE + PATIENCE, true);
    arbiter_tick(&arbiter, LIMIT + SLICE + MS);
    assert_int_equal(a->expiries, 1);
    /* It does, late as it is. */
    arbiter_off(&a->member, LIMIT + SLICE + 2 * MS);
    assert_false(a->member.late);
    assert_ptr_equal(arbiter.current, &b->member);
}

/* It had ended by then, and is not to be off when it begins anew. */
static void test_work_that_ends_while_it_is_turned_off(void **state)
{
    (void)state;
    can_be_off(a);
    set(b, VGPU_PRIORITY_HIGH, 100);
    ask(a, 10);
    ask(b, 20);
    arbiter_tick(&arbiter, 20 + WORD);
    expect_orders(a, 1, true);
    done(a, MS / 2);
    expect_orders(a, 2, false);
    arbiter_off(&a->member, MS);
    assert_false(arbiter_busy(&a->member));
    ask(a, 2 * MS);
    done(b, 3 * MS);
    expect(a, 2, VGPU_TURN_RUNNING);
}

static void test_work_that_had_ended_before_it_was_off(void **state)
{
    (void)state;
    turn_off_for_higher();
    done(a, 2 * MS);
    expect_orders(a, 2, false);
    assert_false(arbiter_busy(&a->member));
    assert_int_equal(arbiter_done(&a->member, 3 * MS), -EPROTO);
    ask(a, 4 * MS);
    assert_int_equal(arbiter_ask(&a->member, 5 * MS), -EPROTO);
}

static void test_messages_of_who_is_off(void **state)
{
    (void)state;
    turn_off_for_higher();
    assert_int_equal(arbiter_ask(&a->member, 2 * MS), -EPROTO);
    assert_int_equal(arbiter_yield(&a->member, 3 * MS, 2 * MS), -EPROTO); /* a second time */
    a->word.state = VGPU_TURN_RUNNING;
    assert_int_equal(arbiter_done(&a->member, 2 * MS), -EPROTO);
    /* Nobody else is off by saying so. */
    arbiter_off(&b->member, 2 * MS);
    arbiter_off(&c->member, 2 * MS);
    assert_ptr_equal(arbiter.current, &b->member);
    assert_false(arbiter_busy(&c->member));
}

static void test_leaving_while_off(void **state)
{
    (void)state;
    turn_off_for_higher();
    leave(a, 2 * MS);
    done(b, 3 * MS);
    assert_null(arbiter.current);
    assert_int_equal(arbiter_deadline(&arbiter), 0);
    join(a);
    ask(a, 4 * MS);
    expect(a, 2, VGPU_TURN_RUNNING);
    assert_int_equal(a->account.active, 1);
}

static void test_pause_takes_work_off(void **state)
{
    (void)state;
    can_be_off(a);
    ask(a, 10);
    arbiter_pause(&arbiter, 20);
    expect_orders(a, 1, true);
    arbiter_off(&a->member, MS);
    assert_int_equal(arbiter_deadline(&arbiter), 0);
    arbiter_resume(&arbiter, SECOND);
    expect_orders(a, 2, false);
    assert_ptr_equal(arbiter.current, &a->member);
    /* A resumed one is off again by the next pause. */
    arbiter_pause(&arbiter, SECOND + MS);
    expect_orders(a, 3, true);
    arbiter_off(&a->member, SECOND + 2 * MS);
    arbiter_resume(&arbiter, 2 * SECOND);
    expect_orders(a, 4, false);
}

static void test_paused_account_is_off(void **state)
{
    (void)state;
    can_be_off(a);
    ask(a, 10);
    arbiter_pause_account(&arbiter, &a->account, true, 20);
    expect_orders(a, 1, true);
    arbiter_off(&a->member, MS);
    assert_int_equal(arbiter_deadline(&arbiter), 0);
    ask(b, 2 * MS);
    done(b, 3 * MS);
    expect_orders(a, 1, true);
    arbiter_pause_account(&arbiter, &a->account, false, SECOND);
    expect_orders(a, 2, false);
    assert_ptr_equal(arbiter.current, &a->member);
    /* One that goes on after that is off again, while another has the turn. */
    arbiter_pause_account(&arbiter, &a->account, true, SECOND + MS);
    expect_orders(a, 3, true);
    ask(b, SECOND + 2 * MS);
    arbiter_off(&a->member, SECOND + 3 * MS);
    expect(b, 2, VGPU_TURN_RUNNING);
    leave(a, SECOND + 4 * MS);
    assert_int_equal(a->account.active, 0);
}

/* It is one of work that was begun: it has a slice, and is off again. */
static void test_lent_turn_of_who_is_off(void **state)
{
    uint64_t now;

    (void)state;
    turn_off_for_higher();
    for (now = 2 * MS; a->orders < 2 && now < 5 * SECOND; now += MS) {
        arbiter_tick(&arbiter, now);
        if (b->word.state == VGPU_TURN_STOPPED) {
            done(b, now);
            ask(b, now);
        }
    }
    expect_orders(a, 2, false);
    assert_true(a->member.lent);
    arbiter_tick(&arbiter, now + SLICE + ON + MS);
    arbiter_tick(&arbiter, now + SLICE + ON + 2 * MS);
    expect_orders(a, 3, true);
}

/* Another mediator --------------------------------------------------------------------------- */

/* The one before has ended: nothing is left of it but the words. */
static void begin_anew(uint64_t now)
{
    const struct arbiter_rules rules = arbiter.rules;

    arbiter_init(&arbiter, 3, VGPU_ENGINE_COMPUTE, &history, &rules);
    arbiter_hold(&arbiter, now);
    for (unsigned i = 0; i < WORKERS; i++) {
        struct worker *w = &workers[i];
        const enum vgpu_priority priority = w->account.priority;

        w->account = (struct arbiter_account){.priority = priority, .weight = ARBITER_WEIGHT};
        w->grants = 0;
        arbiter_adopt(&arbiter, &w->member, now);
    }
}

static void tell(struct worker *worker, uint32_t told, uint64_t now)
{
    assert_int_equal(arbiter_resync(&worker->member, told, now), 0);
}

/* Each says how it stands, as its word is and with these flags. */
static void tell_all(const uint32_t flags[WORKERS], uint64_t now)
{
    for (unsigned i = 0; i < WORKERS; i++) {
        tell(&workers[i], workers[i].word.state | flags[i], now);
    }
}

static void test_adopted_alone(void **state)
{
    (void)state;
    ask(a, 10);
    begin_anew(20);
    /* It goes on, and nobody has touched its word. */
    assert_int_equal(a->word.state, VGPU_TURN_RUNNING);
    assert_ptr_equal(arbiter.current, &a->member);
    tell_all((const uint32_t[WORKERS]){VGPU_LINK_TURN_ASKED}, 30);
    arbiter_resume(&arbiter, 40);
    assert_int_equal(a->word.state, VGPU_TURN_RUNNING);
    keep(a, 50);
    /* And again without asking. */
    a->word.state = VGPU_TURN_RUNNING;
    ask(b, 60);
    assert_int_equal(a->word.state, VGPU_TURN_SHARED);
}

static void test_adopted_waiting(void **state)
{
    (void)state;
    ask(a, 10);
    ask(b, 20);
    ask(c, 30);
    begin_anew(40);
    tell_all(
        (const uint32_t[WORKERS]){VGPU_LINK_TURN_ASKED, VGPU_LINK_TURN_ASKED, VGPU_LINK_TURN_ASKED},
        50);
    /* Nobody is granted anything while some may not have spoken. */
    assert_int_equal(b->grants + c->grants, 0);
    arbiter_resume(&arbiter, 60);
    assert_int_equal(a->word.state, VGPU_TURN_SHARED);
    done(a, 70);
    assert_int_equal(b->grants, 1);
    assert_int_equal(b->word.state, VGPU_TURN_SHARED);
    done(b, 80);
    assert_int_equal(c->grants, 1);
}

/* The DONE of its turn was for the mediator before, and is told by its word. */
static void test_adopted_done(void **state)
{
    (void)state;
    ask(a, 10);
    ask(b, 20);
    begin_anew(40);
    a->word.state = VGPU_TURN_CLOSED;
    tell(a, VGPU_TURN_CLOSED, 50);
    tell(b, VGPU_TURN_CLOSED | VGPU_LINK_TURN_ASKED, 50);
    arbiter_resume(&arbiter, 60);
    assert_int_equal(b->grants, 1);
    /* It is as one that has just joined. */
    ask(a, 70);
    done(b, 80);
    assert_int_equal(a->grants, 1);
}

/* It was told to stop, and has said that its work is about to end: its DONE is yet to come. */
static void test_adopted_yielded(void **state)
{
    (void)state;
    a->account.priority = VGPU_PRIORITY_HIGH;
    b->account.priority = VGPU_PRIORITY_HIGH;
    ask(a, 10);
    begin_anew(40);
    a->word.state = VGPU_TURN_CLOSED;
    tell(b, VGPU_TURN_CLOSED | VGPU_LINK_TURN_ASKED, 45);
    tell(a, VGPU_TURN_CLOSED | VGPU_LINK_TURN_YIELDED | VGPU_LINK_TURN_ASKED, 50);
    assert_int_equal(a->member.state, ARBITER_DRAINING);
    arbiter_resume(&arbiter, 60);
    assert_int_equal(b->grants, 1);
    done(a, 70);
    assert_int_equal(a->member.state, ARBITER_IDLE);
}

/* Of several that say that they have the turn one keeps it, and nobody has to be believed. */
static void test_adopted_liars(void **state)
{
    (void)state;
    for (unsigned i = 0; i < WORKERS; i++) {
        workers[i].word.state = i % 2 == 0 ? VGPU_TURN_RUNNING : 77;
    }
    begin_anew(40);
    assert_int_equal(a->word.state, VGPU_TURN_RUNNING);
    for (unsigned i = 1; i < WORKERS; i++) {
        assert_int_equal(workers[i].word.state, VGPU_TURN_STOPPED);
        assert_int_equal(workers[i].member.state, ARBITER_DRAINING);
    }
    /* One without a turn cannot have had one recalled that was in use. */
    c->word.state = VGPU_TURN_CLOSED;
    tell(c, VGPU_TURN_CLOSED, 50);
    assert_int_equal(arbiter_resync(&c->member, VGPU_TURN_SHARED, 60), -EPROTO);
    assert_int_equal(arbiter_resync(&c->member, VGPU_TURN_STOPPED, 60), -EPROTO);
    arbiter_resume(&arbiter, 60);
}

/* One that has not said how it stands keeps no turn; when it does it is as any other. */
static void test_adopted_late(void **state)
{
    (void)state;
    ask(a, 10);
    ask(b, 20);
    begin_anew(40);
    tell(b, VGPU_TURN_CLOSED | VGPU_LINK_TURN_ASKED, 50);
    arbiter_doubt(&a->member, 60);
    arbiter_doubt(&b->member, 60);
    assert_int_equal(a->word.state, VGPU_TURN_STOPPED);
    arbiter_resume(&arbiter, 60);
    assert_int_equal(b->grants, 0);
    /* It says nothing: the others wait for it no longer than for anybody. */
    arbiter_tick(&arbiter, 60 + PATIENCE);
    assert_int_equal(b->grants, 1);
    tell(a, VGPU_TURN_STOPPED | VGPU_LINK_TURN_ASKED, 70 + PATIENCE);
    done(a, 80 + PATIENCE);
    ask(a, 90 + PATIENCE);
    done(b, 100 + PATIENCE);
    assert_int_equal(a->grants, 1);
}

/* Its work was taken off before it has said how it stands; then it has no turn at all. */
static void test_adopted_off(void **state)
{
    (void)state;
    a->member.turn_off = on_turn_off;
    a->word.state = VGPU_TURN_RUNNING;
    begin_anew(40);
    a->member.turn_off = on_turn_off;
    arbiter_doubt(&a->member, 50);
    tell(b, VGPU_TURN_CLOSED | VGPU_LINK_TURN_ASKED, 50);
    arbiter_resume(&arbiter, 60);
    arbiter_tick(&arbiter, 60 + 10 * SLICE);
    assert_true(a->off);
    assert_true(arbiter_off(&a->member, 70 + 10 * SLICE));
    assert_int_equal(b->grants, 1);
    /* A lie: its word says otherwise. */
    assert_int_equal(arbiter_resync(&a->member, VGPU_TURN_CLOSED, 80 + 10 * SLICE), -EPROTO);
    a->word.state = VGPU_TURN_CLOSED;
    tell(a, VGPU_TURN_CLOSED, 90 + 10 * SLICE);
    assert_int_equal(a->member.state, ARBITER_IDLE);
    assert_int_equal(a->account.active, 0);
    done(b, 100 + 10 * SLICE);
    ask(a, 110 + 10 * SLICE);
    assert_int_equal(a->grants, 1);
}

/* It left its turn OPEN, had it recalled, and says what it was before that. */
static void test_adopted_recalled(void **state)
{
    (void)state;
    ask(a, 10);
    begin_anew(40);
    a->word.state = VGPU_TURN_OPEN; /* and KEPT is on its way */
    arbiter_doubt(&a->member, 50);
    assert_int_equal(a->word.state, VGPU_TURN_CLOSED);
    arbiter_resume(&arbiter, 60);
    tell(a, VGPU_TURN_RUNNING | VGPU_LINK_TURN_ASKED, 70);
    assert_int_equal(arbiter_kept(&a->member, 80), 0);
    ask(a, 90);
    assert_int_equal(a->grants, 1);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup(test_lone_worker_keeps_the_turn, set_up),
        cmocka_unit_test_setup(test_idle_holder_loses_the_turn_at_once, set_up),
        cmocka_unit_test_setup(test_turn_taken_before_its_kept_is_read, set_up),
        cmocka_unit_test_setup(test_kept_and_done_on_their_way, set_up),
        cmocka_unit_test_setup(test_same_band_waits_for_the_slice, set_up),
        cmocka_unit_test_setup(test_lower_band_waits_until_it_is_idle, set_up),
        cmocka_unit_test_setup(test_higher_band_is_granted_at_once, set_up),
        cmocka_unit_test_setup(test_grant_tells_who_else_waits, set_up),
        cmocka_unit_test_setup(test_stopped_goes_on_when_nobody_waits_any_more, set_up),
        cmocka_unit_test_setup(test_bands_then_arrival, set_up),
        cmocka_unit_test_setup(test_yield_hands_over, set_up),
        cmocka_unit_test_setup(test_next_starts_when_the_work_before_it_ends, set_up),
        cmocka_unit_test_setup(test_next_starts_after_patience, set_up),
        cmocka_unit_test_setup(test_next_is_alerted_before_the_slice_ends, set_up),
        cmocka_unit_test_setup(test_only_one_about_to_end_beside_the_next, set_up),
        cmocka_unit_test_setup(test_higher_band_does_not_mind_what_drains, set_up),
        cmocka_unit_test_setup(test_lower_band_waits_for_what_drains, set_up),
        cmocka_unit_test_setup(test_equals_are_served_by_arrival, set_up),
        cmocka_unit_test_setup(test_who_is_ahead_by_more_than_a_slice_waits, set_up),
        cmocka_unit_test_setup(test_within_a_vm_by_arrival, set_up),
        cmocka_unit_test_setup(test_weights, set_up),
        cmocka_unit_test_setup(test_overshoot_is_charged_to_who_caused_it, set_up),
        cmocka_unit_test_setup(test_idle_time_is_not_banked, set_up),
        cmocka_unit_test_setup(test_debt_is_forgiven, set_up),
        cmocka_unit_test_setup(test_starved_band_is_lent_a_turn, set_up),
        cmocka_unit_test_setup(test_lent_turn_is_of_one_piece_and_not_preempted, set_up),
        cmocka_unit_test_setup(test_lent_turn_goes_to_one_of_many, set_up),
        cmocka_unit_test_setup(test_without_a_least_share_a_band_may_starve, set_up),
        cmocka_unit_test_setup(test_band_that_was_served_has_no_credit, set_up),
        cmocka_unit_test_setup(test_after_patience_the_next_is_granted_beside, set_up),
        cmocka_unit_test_setup(test_who_lied_about_its_end_is_not_waited_for, set_up),
        cmocka_unit_test_setup(test_whoever_holds_others_up_pays, set_up),
        cmocka_unit_test_setup(test_who_has_work_beside_another_pays_half, set_up),
        cmocka_unit_test_setup(test_overdue_vm_gets_no_more, set_up),
        cmocka_unit_test_setup(test_overdue_is_not_waited_for_again, set_up),
        cmocka_unit_test_setup(test_shared_turn_becomes_a_standing_one, set_up),
        cmocka_unit_test_setup(test_after_the_limit_the_owner_is_told_once, set_up),
        cmocka_unit_test_setup(test_limit_counts_while_another_is_served_beside, set_up),
        cmocka_unit_test_setup(test_nobody_is_told_about_who_holds_nobody_up, set_up),
        cmocka_unit_test_setup(test_nobody_is_told_about_who_drains_alone, set_up),
        cmocka_unit_test_setup(test_lower_band_is_not_granted_beside_who_need_not_share, set_up),
        cmocka_unit_test_setup(test_pause_takes_a_standing_turn, set_up),
        cmocka_unit_test_setup(test_pause_stops_who_runs, set_up),
        cmocka_unit_test_setup(test_resumed_alone_it_goes_on, set_up),
        cmocka_unit_test_setup(test_paused_account_stands_aside, set_up),
        cmocka_unit_test_setup(test_paused_account_has_no_standing_turn, set_up),
        cmocka_unit_test_setup(test_paused_account_does_not_go_on, set_up),
        cmocka_unit_test_setup(test_account_raised_while_it_waits, set_up),
        cmocka_unit_test_setup(test_account_lowered_while_it_is_current, set_up),
        cmocka_unit_test_setup(test_account_raised_while_it_is_current, set_up),
        cmocka_unit_test_setup(test_leaving_in_every_state, set_up),
        cmocka_unit_test_setup(test_who_is_lent_to_leaves, set_up),
        cmocka_unit_test_setup(test_worker_asks_twice, set_up),
        cmocka_unit_test_setup(test_worker_ends_what_it_does_not_have, set_up),
        cmocka_unit_test_setup(test_worker_says_done_and_holds_on, set_up),
        cmocka_unit_test_setup(test_worker_stores_garbage, set_up),
        cmocka_unit_test_setup(test_worker_closes_its_word_silently, set_up),
        cmocka_unit_test_setup(test_worker_closes_its_word_silently_before_a_higher_band, set_up),
        cmocka_unit_test_setup(test_history_wraps, set_up),
        cmocka_unit_test_setup(test_lower_band_is_off_while_a_higher_one_has_work, set_up),
        cmocka_unit_test_setup(test_off_and_on_again_and_again, set_up),
        cmocka_unit_test_setup(test_work_that_is_about_to_end_stays, set_up),
        cmocka_unit_test_setup(test_turn_in_a_band_ends_with_its_time, set_up),
        cmocka_unit_test_setup(test_silent_worker_is_turned_off, set_up),
        cmocka_unit_test_setup(test_late_vm_ends_no_lent_turn, set_up),
        cmocka_unit_test_setup(test_other_engine_waits_for_who_is_off, set_up),
        cmocka_unit_test_setup(test_current_without_work_is_not_held_up_later, set_up),
        cmocka_unit_test_setup(test_who_does_not_obey_is_passed, set_up),
        cmocka_unit_test_setup(test_work_that_ends_while_it_is_turned_off, set_up),
        cmocka_unit_test_setup(test_work_that_had_ended_before_it_was_off, set_up),
        cmocka_unit_test_setup(test_messages_of_who_is_off, set_up),
        cmocka_unit_test_setup(test_leaving_while_off, set_up),
        cmocka_unit_test_setup(test_pause_takes_work_off, set_up),
        cmocka_unit_test_setup(test_paused_account_is_off, set_up),
        cmocka_unit_test_setup(test_lent_turn_of_who_is_off, set_up),
        cmocka_unit_test_setup(test_adopted_alone, set_up),
        cmocka_unit_test_setup(test_adopted_waiting, set_up),
        cmocka_unit_test_setup(test_adopted_done, set_up),
        cmocka_unit_test_setup(test_adopted_yielded, set_up),
        cmocka_unit_test_setup(test_adopted_liars, set_up),
        cmocka_unit_test_setup(test_adopted_late, set_up),
        cmocka_unit_test_setup(test_adopted_recalled, set_up),
        cmocka_unit_test_setup(test_adopted_off, set_up),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
