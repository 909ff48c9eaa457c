/* SPDX-License-Identifier: MIT */
/* Whose turn it is: grants, recalls, and workers that lie. The test plays the workers. */
#include <errno.h>
#include <string.h>

#include "pool.h"
#include "unit.h"

struct worker {
    struct pool_member member;
    struct vgpu_turn_page page;
    unsigned grants;
};

static struct pool pool;
static struct worker workers[4];

static void on_granted(struct pool_member *member)
{
    ((struct worker *)member)->grants++; /* the first member */
}

static int set_up(void **state)
{
    (void)state;
    memset(workers, 0, sizeof(workers));
    pool_init(&pool, 'A', 0);
    for (unsigned i = 0; i < 4; i++) {
        workers[i].member.page = &workers[i].page;
        workers[i].member.vm_id = i + 1;
        workers[i].member.priority = (enum vgpu_priority)(i % VGPU_PRIORITIES);
        workers[i].member.granted = on_granted;
        pool_join(&pool, &workers[i].member);
    }
    return 0;
}

/* What worker/turn.c does at the end of a turn. */
static int end_turn(struct worker *worker, uint64_t now)
{
    const bool stays = worker->page.turn == VGPU_TURN_RUNNING;

    worker->page.turn = stays ? VGPU_TURN_OPEN : VGPU_TURN_CLOSED;
    return pool_done(&worker->member, !stays, now);
}

static void test_lone_worker_keeps_the_turn(void **state)
{
    struct worker *a = &workers[0];

    (void)state;
    assert_int_equal(pool_ask(&a->member, 10), 0);
    assert_int_equal(a->grants, 1);
    assert_int_equal(a->page.turn, VGPU_TURN_RUNNING);
    assert_int_equal(end_turn(a, 20), 0);
    assert_int_equal(a->page.turn, VGPU_TURN_OPEN);
    assert_int_equal(pool_wanted_since(&pool), 0);
}

static void test_idle_holder_loses_the_turn_at_once(void **state)
{
    struct worker *a = &workers[0], *b = &workers[1];

    (void)state;
    pool_ask(&a->member, 10);
    end_turn(a, 20);
    assert_int_equal(pool_ask(&b->member, 30), 0);
    assert_int_equal(a->page.turn, VGPU_TURN_CLOSED);
    assert_int_equal(b->grants, 1);
    assert_int_equal(b->page.turn, VGPU_TURN_RUNNING);
}

static void test_running_holder_is_waited_for(void **state)
{
    struct worker *a = &workers[0], *b = &workers[1];

    (void)state;
    pool_ask(&a->member, 10);
    end_turn(a, 20);
    a->page.turn = VGPU_TURN_RUNNING; /* it started by itself */
    pool_ask(&b->member, 30);
    assert_int_equal(a->page.turn, VGPU_TURN_RECALLED);
    assert_int_equal(b->grants, 0);
    assert_int_equal(pool_wanted_since(&pool), 30);
    assert_int_equal(end_turn(a, 40), 0);
    assert_int_equal(a->page.turn, VGPU_TURN_CLOSED);
    assert_int_equal(b->grants, 1);
}

/* The worker kept the turn and sent DONE; the mediator takes it before it reads that. */
static void test_turn_taken_before_its_done_is_read(void **state)
{
    struct worker *a = &workers[0], *b = &workers[1];

    (void)state;
    pool_ask(&a->member, 10);
    a->page.turn = VGPU_TURN_OPEN;
    pool_ask(&b->member, 20);
    assert_int_equal(b->grants, 1);
    assert_int_equal(pool_done(&a->member, false, 30), 0);
    assert_int_equal(pool.history_count, 1);
    assert_int_equal(pool_ask(&a->member, 40), 0);
}

/* Likewise, but it has started again by then, and ends that too. */
static void test_two_dones_on_their_way(void **state)
{
    struct worker *a = &workers[0], *b = &workers[1];

    (void)state;
    pool_ask(&a->member, 10);
    a->page.turn = VGPU_TURN_RUNNING; /* the second turn, by itself */
    pool_ask(&b->member, 20);
    assert_int_equal(a->page.turn, VGPU_TURN_RECALLED);
    a->page.turn = VGPU_TURN_CLOSED;
    assert_int_equal(pool_done(&a->member, false, 30), 0);
    assert_int_equal(b->grants, 0);
    assert_int_equal(pool_done(&a->member, true, 40), 0);
    assert_int_equal(b->grants, 1);
}

static void test_order_by_priority_then_arrival(void **state)
{
    struct worker *low = &workers[0], *medium = &workers[1], *high = &workers[2],
                  *low_too = &workers[3];

    (void)state;
    pool_pause(&pool, 1);
    pool_ask(&low->member, 10);
    pool_ask(&low_too->member, 11);
    pool_ask(&medium->member, 12);
    pool_ask(&high->member, 13);
    assert_int_equal(high->grants, 0);
    pool_resume(&pool, 20);
    assert_int_equal(high->grants, 1);
    assert_int_equal(high->page.turn, VGPU_TURN_RECALLED);
    assert_int_equal(medium->grants, 0);
    assert_int_equal(end_turn(high, 30), 0);
    assert_int_equal(medium->grants, 1);
    end_turn(medium, 40);
    assert_int_equal(low->grants, 1);
    end_turn(low, 50);
    assert_int_equal(low_too->grants, 1);
    assert_int_equal(low_too->page.turn, VGPU_TURN_RUNNING); /* nobody waits any more */
    end_turn(low_too, 60);

    assert_int_equal(pool.history_count, 4);
    assert_int_equal(pool.history[0].vm_id, high->member.vm_id);
    assert_int_equal(pool.history[1].vm_id, medium->member.vm_id);
    assert_int_equal(pool.history[2].vm_id, low->member.vm_id);
    assert_int_equal(pool.history[3].vm_id, low_too->member.vm_id);
    assert_int_equal(pool.history[3].wait_ns, 50 - 11);
    assert_int_equal(pool.history[3].run_ns, 10);
}

static void test_pause_takes_a_standing_turn(void **state)
{
    struct worker *a = &workers[0];

    (void)state;
    pool_ask(&a->member, 10);
    end_turn(a, 20);
    pool_pause(&pool, 30);
    assert_int_equal(a->page.turn, VGPU_TURN_CLOSED);
    pool_ask(&a->member, 40);
    assert_int_equal(a->grants, 1);
    pool_resume(&pool, 50);
    assert_int_equal(a->grants, 2);
}

static void test_holder_that_ends_frees_the_turn(void **state)
{
    struct worker *a = &workers[0], *b = &workers[1];

    (void)state;
    pool_ask(&a->member, 10);
    pool_ask(&b->member, 20);
    assert_int_equal(b->grants, 0);
    pool_leave(&a->member, 30);
    assert_int_equal(b->grants, 1);
}

static void test_waiter_that_ends_is_skipped(void **state)
{
    struct worker *a = &workers[0], *b = &workers[1], *c = &workers[2];

    (void)state;
    pool_ask(&a->member, 10);
    pool_ask(&c->member, 20);
    pool_ask(&b->member, 30);
    pool_leave(&c->member, 40);
    end_turn(a, 50);
    assert_int_equal(c->grants, 0);
    assert_int_equal(b->grants, 1);
    pool_leave(&c->member, 60); /* twice does nothing */
}

static void test_worker_asks_twice(void **state)
{
    struct worker *a = &workers[0], *b = &workers[1];

    (void)state;
    pool_ask(&a->member, 10);
    assert_int_equal(pool_ask(&a->member, 11), -EPROTO);
    pool_ask(&b->member, 12);
    assert_int_equal(pool_ask(&b->member, 13), -EPROTO);
}

static void test_worker_is_done_without_a_turn(void **state)
{
    (void)state;
    assert_int_equal(pool_done(&workers[0].member, false, 10), -EPROTO);
    assert_int_equal(pool_done(&workers[0].member, true, 10), -EPROTO);
    pool_ask(&workers[0].member, 20);
    end_turn(&workers[0], 30);
    assert_int_equal(pool_done(&workers[0].member, false, 40), -EPROTO);
}

static void test_worker_says_done_and_holds_on(void **state)
{
    struct worker *a = &workers[0], *b = &workers[1];

    (void)state;
    pool_ask(&a->member, 10);
    pool_ask(&b->member, 20);
    assert_int_equal(pool_done(&a->member, true, 30), -EPROTO);
    assert_int_equal(b->grants, 0);
    /* The caller kills it; then the other one goes on. */
    pool_leave(&a->member, 40);
    assert_int_equal(b->grants, 1);
}

static void test_worker_stores_garbage(void **state)
{
    struct worker *a = &workers[0], *b = &workers[1];

    (void)state;
    pool_ask(&a->member, 10);
    end_turn(a, 20);
    a->page.turn = 0xdeadbeef;
    pool_ask(&b->member, 30);
    /* As good as running: whoever watches the limit ends it. */
    assert_int_equal(b->grants, 0);
    assert_int_equal(pool_wanted_since(&pool), 30);
    pool_leave(&a->member, 40);
    assert_int_equal(b->grants, 1);
}

/* The limit on a turn counts from when others wait for it, and only while they do. */
static void test_since_when_a_turn_is_wanted(void **state)
{
    struct worker *a = &workers[0], *b = &workers[1], *c = &workers[2];

    (void)state;
    pool_ask(&a->member, 10);
    assert_int_equal(pool_wanted_since(&pool), 0); /* alone, for as long as it likes */
    pool_ask(&b->member, 1000);
    assert_int_equal(pool_wanted_since(&pool), 1000);
    pool_ask(&c->member, 2000);
    assert_int_equal(pool_wanted_since(&pool), 1000);
    pool_pause(&pool, 3000);
    assert_int_equal(pool_wanted_since(&pool), 0); /* what runs goes on */
    pool_resume(&pool, 4000);
    assert_int_equal(pool_wanted_since(&pool), 4000);
    end_turn(a, 5000);
    assert_int_equal(c->grants, 1);
    assert_int_equal(pool_wanted_since(&pool), 5000); /* b goes on waiting */
    pool_leave(&b->member, 6000);
    assert_int_equal(pool_wanted_since(&pool), 0);
    assert_true(pool_busy(&c->member));
    assert_false(pool_busy(&a->member));
}

static void test_history_wraps(void **state)
{
    struct worker *a = &workers[0], *b = &workers[1];

    (void)state;
    for (unsigned i = 0; i < POOL_HISTORY; i++) {
        pool_ask(&a->member, 1);
        end_turn(a, 2);
        pool_ask(&b->member, 3);
        end_turn(b, 4);
    }
    assert_int_equal(pool.history_count, 2 * POOL_HISTORY);
    assert_int_equal(pool.history[0].sequence, POOL_HISTORY + 1);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup(test_lone_worker_keeps_the_turn, set_up),
        cmocka_unit_test_setup(test_idle_holder_loses_the_turn_at_once, set_up),
        cmocka_unit_test_setup(test_running_holder_is_waited_for, set_up),
        cmocka_unit_test_setup(test_turn_taken_before_its_done_is_read, set_up),
        cmocka_unit_test_setup(test_two_dones_on_their_way, set_up),
        cmocka_unit_test_setup(test_order_by_priority_then_arrival, set_up),
        cmocka_unit_test_setup(test_pause_takes_a_standing_turn, set_up),
        cmocka_unit_test_setup(test_holder_that_ends_frees_the_turn, set_up),
        cmocka_unit_test_setup(test_waiter_that_ends_is_skipped, set_up),
        cmocka_unit_test_setup(test_worker_asks_twice, set_up),
        cmocka_unit_test_setup(test_worker_is_done_without_a_turn, set_up),
        cmocka_unit_test_setup(test_worker_says_done_and_holds_on, set_up),
        cmocka_unit_test_setup(test_worker_stores_garbage, set_up),
        cmocka_unit_test_setup(test_since_when_a_turn_is_wanted, set_up),
        cmocka_unit_test_setup(test_history_wraps, set_up),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
