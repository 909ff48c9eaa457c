/* SPDX-License-Identifier: MIT */
/*
 * Which bucket holds what, sums of histograms, and percentiles as far as buckets tell.
 *
 * Tests: mediator/histogram.h
 */
#include "tests/unit/unit.h"

#include "mediator/histogram.h"

#define US UINT64_C(1000)

static void test_bounds(void **state)
{
    (void)state;
    assert_int_equal(histogram_bound_ns(0), US);
    assert_int_equal(histogram_bound_ns(1), 2 * US);
    assert_int_equal(histogram_bound_ns(10), 1024 * US);
    for (unsigned i = 1; i < HISTOGRAM_BUCKETS; i++) {
        assert_int_equal(histogram_bound_ns(i), 2 * histogram_bound_ns(i - 1));
    }
}

/* A bound itself is in its bucket, a nanosecond more is in the next. */
static void test_add(void **state)
{
    struct histogram h = {0};

    (void)state;
    histogram_add(&h, 0);
    assert_int_equal(h.count[0], 1);
    for (unsigned i = 0; i < HISTOGRAM_BUCKETS - 1; i++) {
        h = (struct histogram){0};
        histogram_add(&h, histogram_bound_ns(i));
        assert_int_equal(h.count[i], 1);
        histogram_add(&h, histogram_bound_ns(i) + 1);
        assert_int_equal(h.count[i + 1], 1);
        assert_int_equal(histogram_total(&h), 2);
        assert_int_equal(h.sum_ns, 2 * histogram_bound_ns(i) + 1);
    }
}

/* Whatever is longer than all bounds is in the last bucket. */
static void test_long(void **state)
{
    struct histogram h = {0};

    (void)state;
    histogram_add(&h, histogram_bound_ns(HISTOGRAM_BUCKETS - 1) + 1);
    histogram_add(&h, UINT64_MAX / 2);
    assert_int_equal(h.count[HISTOGRAM_BUCKETS - 1], 2);
    assert_int_equal(histogram_total(&h), 2);
}

static void test_merge(void **state)
{
    struct histogram a = {0}, b = {0};

    (void)state;
    histogram_add(&a, 3 * US);
    histogram_add(&b, 4 * US);
    histogram_add(&b, 100 * US);
    histogram_merge(&a, &b);
    assert_int_equal(a.count[2], 2);
    assert_int_equal(a.count[7], 1);
    assert_int_equal(histogram_total(&a), 3);
    assert_int_equal(a.sum_ns, 107 * US);
    /* What was added stays as it was. */
    assert_int_equal(histogram_total(&b), 2);
}

static void test_percentiles(void **state)
{
    struct histogram h = {0};

    (void)state;
    assert_int_equal(histogram_percentile_ns(&h, 50), 0);
    histogram_add(&h, 5 * US);
    assert_int_equal(histogram_percentile_ns(&h, 0), US);
    assert_int_equal(histogram_percentile_ns(&h, 1), 8 * US);
    assert_int_equal(histogram_percentile_ns(&h, 100), 8 * US);

    h = (struct histogram){0};
    for (unsigned i = 0; i < 98; i++) {
        histogram_add(&h, US);
    }
    histogram_add(&h, 1000 * US);
    histogram_add(&h, 30000 * US);
    assert_int_equal(histogram_percentile_ns(&h, 50), US);
    assert_int_equal(histogram_percentile_ns(&h, 98), US);
    assert_int_equal(histogram_percentile_ns(&h, 99), 1024 * US);
    assert_int_equal(histogram_percentile_ns(&h, 100), 32768 * US);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_bounds),      cmocka_unit_test(test_add),
        cmocka_unit_test(test_long),        cmocka_unit_test(test_merge),
        cmocka_unit_test(test_percentiles),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
