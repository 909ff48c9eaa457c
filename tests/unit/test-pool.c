/* SPDX-License-Identifier: MIT */
/*
 * Pools: on which GPU a worker is placed, what the others there are told, and that a VM's accounts
 * outlive its workers. Who gets a turn is test-arbiter's matter.
 *
 * Tests: mediator/pool*.c
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "common/clock.h"
#include "mediator/pool.h"
#include "tests/unit/unit.h"

#define WINDOW (100 * NS_PER_US)
#define VMS 4u
#define WORKERS 8u

struct worker {
    struct pool_worker head;
    struct vgpu_turn_page page;
    unsigned sliced, opened; /* so often it was told that */
};

static struct config_pool config;
static struct pool pool;
static struct worker workers[WORKERS];
static struct pool_account *accounts[VMS]; /* by VM */
static unsigned grants[VGPU_ENGINES];

static void on_granted(struct arbiter_member *member)
{
    grants[member->arbiter->engine]++;
}

static void ignore(struct arbiter_member *member)
{
    (void)member;
}

static struct worker *worker_of(struct pool_worker *head)
{
    return (struct worker *)((char *)head - offsetof(struct worker, head));
}

static void on_sliced(struct pool_worker *head)
{
    worker_of(head)->sliced++;
}

static void on_open(struct pool_worker *head)
{
    worker_of(head)->opened++;
}

static void make_pool(unsigned gpus, bool exclusive)
{
    config = (struct config_pool){
        .defined = true,
        .exclusive = exclusive,
        .device_count = gpus,
        .slice_ns = 2 * NS_PER_MS,
        .window_ns = WINDOW,
        .least_share = ARBITER_LEAST_ONE / 100,
    };
    for (unsigned i = 0; i < gpus; i++) {
        config.devices[i] = (int)(10 + i);
    }
    pool_init(&pool, 'A', &config, NS_PER_S);
}

static int set_up(void **state)
{
    (void)state;
    memset(workers, 0, sizeof(workers));
    memset(accounts, 0, sizeof(accounts));
    memset(grants, 0, sizeof(grants));
    return 0;
}

static int tear_down(void **state)
{
    (void)state;
    for (unsigned i = 0; i < WORKERS; i++) {
        pool_leave(&workers[i].head, NS_PER_S);
    }
    for (unsigned vm = 0; vm < VMS; vm++) {
        pool_forget(&accounts[vm]);
        assert_null(accounts[vm]);
    }
    return 0;
}

/* Where the VM's next worker is to go: an index; -1: nowhere. */
static const struct pool_standing usual = {VGPU_PRIORITY_MEDIUM, ARBITER_WEIGHT, false};
static const struct pool_standing high = {VGPU_PRIORITY_HIGH, 1, false};
static const struct pool_standing low = {VGPU_PRIORITY_LOW, 1, false};

static int place(unsigned vm)
{
    const struct pool_gpu *gpu = pool_place(&pool, accounts[vm]);

    return gpu ? (int)(gpu - pool.gpus) : -1;
}

static void join_at(unsigned vm, unsigned number, struct pool_gpu *gpu, bool register_mode)
{
    struct worker *worker = &workers[number];
    struct pool_account *account = pool_account(&accounts[vm], gpu, &usual);

    assert_non_null(account);
    worker->head = (struct pool_worker){
        .page = &worker->page,
        .vm_id = vm + 1,
        .register_mode = register_mode,
        .granted = on_granted,
        .alerted = ignore,
        .expired = ignore,
        .sliced = on_sliced,
        .open = on_open,
    };
    worker->sliced = worker->opened = 0;
    pool_join(&worker->head, account);
}

/* A session of the VM starts as this worker; where. */
static int join(unsigned vm, unsigned number)
{
    const int where = place(vm);

    if (where >= 0) {
        join_at(vm, number, &pool.gpus[where], false);
    }
    return where;
}

static void leave(unsigned number)
{
    pool_leave(&workers[number].head, NS_PER_S);
}

static uint64_t window(unsigned number)
{
    return workers[number].page.terms.window_ns;
}

/* Placing ------------------------------------------------------------------------------------- */

static void test_least_loaded_of_three(void **state)
{
    (void)state;
    make_pool(3, false);
    assert_int_equal(join(0, 0), 0);
    assert_int_equal(join(1, 1), 1);
    assert_int_equal(join(2, 2), 2);
    assert_int_equal(join(3, 3), 0);
    assert_int_equal(join(1, 4), 2); /* one each on 1 and 2: where it has none itself */
    assert_int_equal(join(2, 5), 1);
    leave(2);
    assert_int_equal(place(0), 2);
    leave(0);
    leave(3);
    assert_int_equal(place(1), 0);
    assert_int_equal(pool.gpus[0].worker_count, 0);
    assert_int_equal(pool.gpus[1].worker_count, 2);
    assert_int_equal(pool.gpus[2].worker_count, 1);
}

static void test_own_workers_break_ties(void **state)
{
    (void)state;
    make_pool(2, false);
    assert_int_equal(join(0, 0), 0);
    assert_int_equal(join(1, 1), 1);
    assert_int_equal(place(0), 1);
    assert_int_equal(place(1), 0);
    assert_int_equal(place(2), 0);
    /* But only ties. */
    join_at(2, 2, &pool.gpus[0], false);
    join_at(2, 3, &pool.gpus[0], false);
    assert_int_equal(place(1), 1);
}

static void test_gpus_have_the_drivers_numbers(void **state)
{
    (void)state;
    make_pool(3, false);
    for (unsigned i = 0; i < 3; i++) {
        assert_int_equal(pool.gpus[i].number, 10 + i);
        assert_int_equal(pool.gpus[i].engines[1].gpu, 10 + i);
        assert_int_equal(pool.gpus[i].engines[1].engine, 1);
    }
}

static void test_exclusive_pool(void **state)
{
    (void)state;
    make_pool(2, true);
    assert_int_equal(join(0, 0), 0);
    assert_int_equal(join(0, 1), 0); /* the fuller one, but its own */
    assert_int_equal(join(1, 2), 1);
    assert_int_equal(place(2), -1);
    assert_int_equal(join(1, 3), 1);
    leave(2);
    assert_int_equal(place(2), -1);
    leave(3);
    assert_int_equal(join(2, 4), 1);
    assert_int_equal(place(0), 0);
    assert_int_equal(place(1), -1);
}

/* Windows ------------------------------------------------------------------------------------- */

static void test_window_when_others_are_there(void **state)
{
    (void)state;
    make_pool(2, false);
    join_at(0, 0, &pool.gpus[0], false);
    assert_int_equal(window(0), 0);
    join_at(1, 1, &pool.gpus[1], false);
    assert_int_equal(window(0), 0);
    assert_int_equal(window(1), 0);
    join_at(1, 2, &pool.gpus[0], false);
    assert_int_equal(window(0), WINDOW);
    assert_int_equal(window(2), WINDOW);
    assert_int_equal(window(1), 0);
    leave(2);
    assert_int_equal(window(0), 0);
    join_at(1, 2, &pool.gpus[0], true); /* register mode wants the GPU as well */
    assert_int_equal(window(0), WINDOW);
    leave(0);
    assert_int_equal(window(2), 0);
}

/* Two sessions of one VM are others to each other. */
static void test_window_of_two_sessions(void **state)
{
    (void)state;
    make_pool(1, false);
    join_at(0, 0, &pool.gpus[0], false);
    join_at(0, 1, &pool.gpus[0], false);
    assert_int_equal(window(0), WINDOW);
    assert_int_equal(window(1), WINDOW);
    leave(0);
    assert_int_equal(window(1), 0);
}

/* A VM in ring mode has a worker for register mode too, which nobody uses. */
static void test_window_beside_ones_own_register_mode(void **state)
{
    (void)state;
    make_pool(1, false);
    join_at(0, 0, &pool.gpus[0], true);
    assert_int_equal(window(0), 0);
    join_at(0, 1, &pool.gpus[0], false);
    assert_int_equal(window(1), 0);
    assert_int_equal(window(0), WINDOW);
    join_at(0, 2, &pool.gpus[0], false);
    assert_int_equal(window(1), WINDOW);
    assert_int_equal(window(2), WINDOW);
    leave(2);
    assert_int_equal(window(1), 0);
    leave(1);
    assert_int_equal(window(0), 0);
}

static void test_window_that_is_configured_anew(void **state)
{
    (void)state;
    make_pool(2, false);
    join_at(0, 0, &pool.gpus[0], false);
    join_at(1, 1, &pool.gpus[0], false);
    join_at(1, 2, &pool.gpus[1], false);
    config.window_ns = 5 * WINDOW;
    config.slice_ns = 7 * NS_PER_MS;
    pool_configure(&pool, &config, 3 * NS_PER_S);
    assert_int_equal(window(0), 5 * WINDOW);
    assert_int_equal(window(1), 5 * WINDOW);
    assert_int_equal(window(2), 0);
    for (unsigned i = 0; i < 2; i++) {
        for (unsigned j = 0; j < VGPU_ENGINES; j++) {
            assert_int_equal(pool.gpus[i].engines[j].rules.slice_ns, 7 * NS_PER_MS);
            assert_int_equal(pool.gpus[i].engines[j].rules.limit_ns, 3 * NS_PER_S);
        }
    }
}

/* Accounts ------------------------------------------------------------------------------------ */

static void test_account_survives_its_workers(void **state)
{
    struct pool_account *account;

    (void)state;
    make_pool(2, false);
    join(0, 0);
    account = workers[0].head.account;
    account->engines[0].used_ns = 12345;
    leave(0);
    assert_int_equal(account->worker_count, 0);
    assert_ptr_equal(pool_account(&accounts[0], &pool.gpus[0], &high), account);
    assert_int_equal(account->engines[0].used_ns, 12345);
    assert_int_equal(account->engines[0].weight, ARBITER_WEIGHT); /* as it was made */
    /* On the other GPU it has another one. */
    assert_ptr_not_equal(pool_account(&accounts[0], &pool.gpus[1], &high), account);
    join(0, 1);
    assert_ptr_equal(workers[1].head.account, account);
}

static void test_priority_and_weight_of_all_accounts(void **state)
{
    (void)state;
    make_pool(2, false);
    join(0, 0);
    join(0, 1);
    pool_set_accounts(accounts[0], &(struct pool_standing){VGPU_PRIORITY_HIGH, 7, true}, NS_PER_S);
    for (unsigned i = 0; i < 2; i++) {
        for (unsigned j = 0; j < VGPU_ENGINES; j++) {
            assert_int_equal(workers[i].head.account->engines[j].priority, VGPU_PRIORITY_HIGH);
            assert_int_equal(workers[i].head.account->engines[j].weight, 7);
            assert_true(workers[i].head.account->engines[j].paused);
        }
    }
}

/* Messages ------------------------------------------------------------------------------------ */

static int tell(unsigned number, uint32_t type, uint32_t engine)
{
    const struct vgpu_link_msg msg = {.type = type, .engine = engine};

    return pool_message(&workers[number].head, &msg, NS_PER_S);
}

static void test_each_engine_has_its_turn(void **state)
{
    (void)state;
    make_pool(1, false);
    join(0, 0);
    join(1, 1);
    assert_false(pool_busy(&workers[0].head));
    assert_int_equal(tell(0, VGPU_LINK_ASK, VGPU_ENGINE_TO_DEVICE), 0);
    assert_int_equal(grants[VGPU_ENGINE_TO_DEVICE], 1);
    assert_int_equal(workers[0].page.turn[VGPU_ENGINE_TO_DEVICE].state, VGPU_TURN_RUNNING);
    assert_true(pool_busy(&workers[0].head));
    assert_false(pool_waits(&workers[0].head));
    /* Another one is another worker's for the asking. */
    assert_int_equal(tell(1, VGPU_LINK_ASK, VGPU_ENGINE_COMPUTE), 0);
    assert_int_equal(grants[VGPU_ENGINE_COMPUTE], 1);
    assert_int_equal(tell(1, VGPU_LINK_ASK, VGPU_ENGINE_TO_DEVICE), 0);
    assert_int_equal(grants[VGPU_ENGINE_TO_DEVICE], 1);
    assert_true(pool_waits(&workers[1].head));
    assert_int_not_equal(pool_deadline(&pool.gpus[0]), 0);
    workers[0].page.turn[VGPU_ENGINE_TO_DEVICE].state = VGPU_TURN_CLOSED;
    assert_int_equal(tell(0, VGPU_LINK_DONE, VGPU_ENGINE_TO_DEVICE), 0);
    assert_int_equal(grants[VGPU_ENGINE_TO_DEVICE], 2);
    assert_false(pool_waits(&workers[1].head));
    /* A worker's end returns all that it had. */
    assert_int_equal(tell(0, VGPU_LINK_ASK, VGPU_ENGINE_COMPUTE), 0);
    leave(1);
    assert_int_equal(grants[VGPU_ENGINE_COMPUTE], 2);
}

static void test_messages_that_cannot_be(void **state)
{
    static const uint32_t types[] = {VGPU_LINK_ASK, VGPU_LINK_YIELD, VGPU_LINK_DONE,
                                     VGPU_LINK_KEPT};
    static const uint32_t engines[] = {VGPU_ENGINES, 4, UINT32_MAX};
    static const uint32_t others[] = {0, VGPU_LINK_READY, VGPU_LINK_TURN, VGPU_LINK_FINISH,
                                      8, UINT32_MAX};

    (void)state;
    make_pool(1, false);
    join(0, 0);
    for (unsigned i = 0; i < 4; i++) {
        for (unsigned j = 0; j < 3; j++) {
            assert_int_equal(tell(0, types[i], engines[j]), -EPROTO);
        }
    }
    for (unsigned i = 0; i < sizeof(others) / sizeof(others[0]); i++) {
        assert_int_equal(tell(0, others[i], VGPU_ENGINE_COMPUTE), -EPROTO);
    }
    for (unsigned i = 1; i < 4; i++) {
        assert_int_equal(tell(0, types[i], VGPU_ENGINE_COMPUTE), -EPROTO); /* none was granted */
    }
    leave(0);
    leave(0); /* twice does nothing */
    assert_int_equal(tell(0, VGPU_LINK_ASK, VGPU_ENGINE_COMPUTE), -EPROTO);
    assert_false(pool_busy(&workers[0].head));
    assert_false(pool_waits(&workers[0].head));
}

/* Of exactly its size, so that a member beyond the last engine's is found. */
static void test_engine_beyond_the_last(void **state)
{
    static struct vgpu_turn_page page;
    struct pool_worker *worker = calloc(1, sizeof(*worker));
    const struct vgpu_link_msg ask = {.type = VGPU_LINK_ASK, .engine = VGPU_ENGINES};

    (void)state;
    make_pool(1, false);
    worker->page = &page;
    worker->granted = on_granted;
    worker->alerted = worker->expired = ignore;
    worker->sliced = on_sliced;
    pool_join(worker, pool_account(&accounts[0], &pool.gpus[0], &low));
    assert_int_equal(pool_message(worker, &ask, NS_PER_S), -EPROTO);
    pool_leave(worker, NS_PER_S);
    free(worker);
}

static void test_paused_pool_grants_nothing(void **state)
{
    (void)state;
    make_pool(2, false);
    join(0, 0);
    join(1, 1);
    pool_pause(&pool, NS_PER_S);
    assert_true(pool.paused);
    for (unsigned i = 0; i < 2; i++) {
        for (unsigned j = 0; j < VGPU_ENGINES; j++) {
            assert_int_equal(tell(i, VGPU_LINK_ASK, j), 0);
            assert_int_equal(grants[j], 0);
        }
    }
    pool_resume(&pool, NS_PER_S);
    assert_false(pool.paused);
    for (unsigned j = 0; j < VGPU_ENGINES; j++) {
        assert_int_equal(grants[j], 2);
    }
}

/* Time slices and contexts ------------------------------------------------------------------- */

static void set_band(unsigned vm, const struct pool_standing *standing)
{
    pool_set_accounts(accounts[vm], standing, NS_PER_S);
}

static uint32_t slice(unsigned number)
{
    return workers[number].page.terms.slice_us;
}

/* While one makes its context, those of lower bands than the highest; register mode is none. */
static void test_slices_below_a_higher_band(void **state)
{
    (void)state;
    make_pool(2, false);
    join_at(0, 0, &pool.gpus[0], false);
    join_at(0, 5, &pool.gpus[0], true);
    pool_open(&workers[5].head, NS_PER_S);
    join_at(1, 1, &pool.gpus[0], false);
    join_at(2, 2, &pool.gpus[0], true);
    join_at(3, 3, &pool.gpus[1], false);
    set_band(0, &low);
    set_band(2, &high);
    set_band(3, &high);
    assert_in_range(slice(0), 1, 1000);
    assert_int_equal(slice(1) + slice(2) + slice(3), 0);
    assert_int_equal(workers[0].sliced, 1);
    assert_int_equal(workers[1].sliced, 0);
    set_band(1, &high);
    join_at(2, 4, &pool.gpus[0], false);
    set_band(2, &usual);
    assert_in_range(slice(4), slice(0) + 1, 1000);
    leave(1);
    assert_int_equal(slice(4), 0);
    assert_in_range(slice(0), 1, 1000);
    join_at(1, 1, &pool.gpus[0], false);
    pool_opened(&workers[5].head, NS_PER_S);
    assert_int_equal(slice(0) + slice(1) + slice(4), 0);
    assert_int_equal(workers[0].sliced, 2);
    pool_open(&workers[4].head, NS_PER_S);
    assert_in_range(slice(0), 1, 1000);
    leave(4);
    assert_int_equal(slice(0), 0);
}

static void open_at(unsigned vm, unsigned number, uint64_t now_ns)
{
    join_at(vm, number, &pool.gpus[0], false);
    pool_open(&workers[number].head, now_ns);
}

static void test_contexts_at_once(void **state)
{
    (void)state;
    make_pool(1, false);
    for (unsigned i = 0; i < 4; i++) {
        open_at(i, i, NS_PER_S);
        assert_int_equal(workers[i].opened, 1);
    }
    assert_int_equal(pool_deadline(&pool.gpus[0]), 0);
}

static void test_one_context_at_a_time_below_a_higher_band(void **state)
{
    (void)state;
    make_pool(1, false);
    /* The account comes with the first worker. */
    for (unsigned vm = 0; vm < 4; vm++) {
        join_at(vm, vm, &pool.gpus[0], true);
    }
    set_band(0, &high);
    set_band(3, &low);
    open_at(0, 4, NS_PER_S);
    open_at(3, 5, NS_PER_S);
    open_at(1, 6, NS_PER_S + 1);
    open_at(2, 7, NS_PER_S + 2);
    assert_int_equal(workers[4].opened, 1);
    assert_int_equal(workers[5].opened + workers[6].opened + workers[7].opened, 0);
    assert_int_equal(pool_deadline(&pool.gpus[0]), 11 * NS_PER_S);
    pool_opened(&workers[4].head, NS_PER_S);
    assert_int_equal(workers[6].opened, 1);
    assert_int_equal(workers[5].opened + workers[7].opened, 0);
    /* One that ends on the way is as good as made. */
    leave(6);
    assert_int_equal(workers[7].opened, 1);
    assert_int_equal(workers[5].opened, 0);
    /* Nobody waits for ever, and each is told once. */
    pool_tick(&pool.gpus[0], 11 * NS_PER_S - 1);
    assert_int_equal(workers[5].opened, 0);
    pool_tick(&pool.gpus[0], 11 * NS_PER_S);
    assert_int_equal(workers[5].opened, 1);
    pool_tick(&pool.gpus[0], 12 * NS_PER_S);
    pool_opened(&workers[5].head, 12 * NS_PER_S);
    pool_opened(&workers[7].head, 12 * NS_PER_S);
    assert_int_equal(workers[5].opened + workers[7].opened, 2);
    assert_int_equal(pool_deadline(&pool.gpus[0]), 0);
}

/* Nobody waits for ever, whoever comes meanwhile; and no tick comes to nothing. */
static void test_contexts_of_a_low_one_behind_others(void **state)
{
    (void)state;
    make_pool(1, false);
    for (unsigned vm = 0; vm < 3; vm++) {
        join_at(vm, vm, &pool.gpus[0], true);
    }
    set_band(0, &high);
    set_band(1, &low);
    open_at(0, 4, NS_PER_S);
    open_at(1, 5, NS_PER_S);
    open_at(2, 6, 8 * NS_PER_S);
    pool_tick(&pool.gpus[0], 11 * NS_PER_S);
    assert_int_equal(workers[5].opened, 1);
    assert_int_equal(workers[6].opened, 0);
    assert_int_equal(pool_deadline(&pool.gpus[0]), 18 * NS_PER_S);
    /* The reason has gone: the rest need not wait. */
    set_band(0, &low);
    set_band(2, &low);
    assert_int_equal(workers[6].opened, 1);
}

/* At random ---------------------------------------------------------------------------------- */

static void check_counts(void)
{
    for (unsigned g = 0; g < pool.gpu_count; g++) {
        unsigned there = 0;

        for (unsigned i = 0; i < WORKERS; i++) {
            there += workers[i].head.gpu == &pool.gpus[g];
        }
        assert_int_equal(pool.gpus[g].worker_count, there);
        for (unsigned i = 0; i < WORKERS; i++) {
            const struct pool_worker *w = &workers[i].head;
            bool others = false;

            for (unsigned j = 0; w->gpu == &pool.gpus[g] && j < WORKERS; j++) {
                const struct pool_worker *o = &workers[j].head;

                others = others || (o->gpu == w->gpu && o != w &&
                                    (o->vm_id != w->vm_id || !o->register_mode));
            }
            if (w->gpu == &pool.gpus[g]) {
                assert_int_equal(window(i), others ? WINDOW : 0);
            }
        }
    }
}

static void test_workers_that_come_and_go(void **state)
{
    unsigned seed = 1;

    (void)state;
    make_pool(3, false);
    for (int i = 0; i < 20000; i++) {
        const unsigned number = (unsigned)rand_r(&seed) % WORKERS;
        const unsigned vm = number / 2;
        const int where = place(vm);

        if (workers[number].head.gpu) {
            leave(number);
        } else {
            for (unsigned g = 0; g < 3; g++) {
                assert_true(pool.gpus[where].worker_count <= pool.gpus[g].worker_count);
            }
            join_at(vm, number, &pool.gpus[where], number % 2 == 0);
        }
        check_counts();
    }
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(test_least_loaded_of_three),
        TEST(test_own_workers_break_ties),
        TEST(test_gpus_have_the_drivers_numbers),
        TEST(test_exclusive_pool),
        TEST(test_window_when_others_are_there),
        TEST(test_window_of_two_sessions),
        TEST(test_window_beside_ones_own_register_mode),
        TEST(test_window_that_is_configured_anew),
        TEST(test_account_survives_its_workers),
        TEST(test_priority_and_weight_of_all_accounts),
        TEST(test_each_engine_has_its_turn),
        TEST(test_messages_that_cannot_be),
        TEST(test_engine_beyond_the_last),
        TEST(test_paused_pool_grants_nothing),
        TEST(test_slices_below_a_higher_band),
        TEST(test_contexts_at_once),
        TEST(test_one_context_at_a_time_below_a_higher_band),
        TEST(test_contexts_of_a_low_one_behind_others),
        TEST(test_workers_that_come_and_go),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
