/* SPDX-License-Identifier: MIT */
/*
 * How long work will take: what is learned from what was measured, and what is forgotten.
 *
 * Tests: worker/predict.c
 */
#include "common/clock.h"
#include "tests/unit/unit.h"
#include "worker/predict.h"

static struct predictor predictor;

static int set_up(void **state)
{
    (void)state;
    predictor = (struct predictor){0};
    return 0;
}

static void test_new_kind_is_guessed(void **state)
{
    struct prediction *p = predict_find(&predictor, 7, 1000);

    (void)state;
    assert_int_equal(p->kind, 7);
    assert_int_equal(p->ns, 1000);
    assert_int_equal(p->part, 0);
    assert_false(p->measured);
    p->part = 3;
    /* The guess is for the first time. */
    assert_ptr_equal(predict_find(&predictor, 7, 5), p);
    assert_int_equal(p->ns, 1000);
    assert_int_equal(p->part, 3);
}

static void test_two_kinds_at_one_place(void **state)
{
    struct prediction *p = predict_find(&predictor, 7, 1000);

    (void)state;
    predict_learn(p, 50);
    p->part = 3;
    assert_ptr_equal(predict_find(&predictor, 7 + PREDICT_PLACES, 2000), p);
    assert_int_equal(p->ns, 2000);
    assert_int_equal(p->part, 0);
    assert_false(p->measured);
    assert_ptr_equal(predict_find(&predictor, 7, 1000), p);
    assert_false(p->measured);
}

static void test_first_measure_takes_the_place_of_the_guess(void **state)
{
    struct prediction *p = predict_find(&predictor, 7, NS_PER_MS);

    (void)state;
    predict_learn(p, 30 * NS_PER_US);
    assert_int_equal(p->ns, 30 * NS_PER_US);
    p = predict_find(&predictor, 8, NS_PER_MS);
    predict_learn(p, NS_PER_S);
    assert_int_equal(p->ns, NS_PER_S);
}

/* Who is slower than expected makes others wait. */
static void test_rises_at_once_and_falls_slowly(void **state)
{
    struct prediction *p = predict_find(&predictor, 7, 1000);
    uint64_t before;

    (void)state;
    predict_learn(p, 1000);
    predict_learn(p, 3000);
    assert_true(p->ns >= 2000);
    assert_true(p->ns <= 3000);
    for (int i = 0; i < 20; i++) {
        predict_learn(p, 3000);
    }
    assert_in_range(p->ns, 2990, 3000);
    before = p->ns;
    predict_learn(p, 1000);
    assert_in_range(p->ns, before - 300, before - 100);
    for (int i = 0; i < 100; i++) {
        predict_learn(p, 1000);
    }
    assert_in_range(p->ns, 1000, 1010);
}

static void test_extremes(void **state)
{
    static const uint64_t values[] = {
        0,        1,         2,          3,         1000,           NS_PER_S,
        1u << 31, 1ul << 40, UINT64_MAX, INT64_MAX, UINT64_MAX - 1, 1ul << 63,
    };
    const size_t count = sizeof(values) / sizeof(values[0]);

    (void)state;
    for (size_t i = 0; i < count * count; i++) {
        struct prediction *p = predict_find(&predictor, i + 1, values[i % count]);

        for (int j = 0; j < 3; j++) {
            predict_learn(p, values[i / count]);
            assert_true(p->ns <= UINT64_C(1) << 40);
            assert_true(p->measured);
        }
    }
}

static void test_kinds_are_apart(void **state)
{
    enum { COUNT = 4096 };
    static uint64_t kinds[COUNT];
    unsigned places[PREDICT_PLACES] = {0};
    unsigned most = 0;

    (void)state;
    /* As small changes of a function's grid make them. */
    for (uint64_t i = 0; i < COUNT; i++) {
        kinds[i] = predict_kind(predict_kind(0x7f0012345678 + (i / 64) * 16, i % 8), i / 8 % 8);
        assert_int_not_equal(kinds[i], 0);
        for (uint64_t j = 0; j < i; j++) {
            assert_int_not_equal(kinds[i], kinds[j]);
        }
        if (++places[kinds[i] % PREDICT_PLACES] > most) {
            most = places[kinds[i] % PREDICT_PLACES];
        }
    }
    assert_true(most < 5 * COUNT / PREDICT_PLACES);
    assert_int_not_equal(predict_kind(predict_kind(1, 2), 3), predict_kind(predict_kind(1, 3), 2));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup(test_new_kind_is_guessed, set_up),
        cmocka_unit_test_setup(test_two_kinds_at_one_place, set_up),
        cmocka_unit_test_setup(test_first_measure_takes_the_place_of_the_guess, set_up),
        cmocka_unit_test_setup(test_rises_at_once_and_falls_slowly, set_up),
        cmocka_unit_test_setup(test_extremes, set_up),
        cmocka_unit_test_setup(test_kinds_are_apart, set_up),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
