/* SPDX-License-Identifier: MIT */
/*
 * The cpu backend: sums at the edges of their types, short and long, in place.
 *
 * Tests: worker/backend.c, worker/backend-cpu/cpu.c
 */
#include <errno.h>
#include <math.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>

#include "tests/unit/unit.h"
#include "worker/backend.h"

static struct backend *backend;

static int set_up(void **state)
{
    char why[256];

    (void)state;
    return backend_open(BACKEND_CPU, 0, NULL, 0, &backend, why, sizeof(why));
}

static int tear_down(void **state)
{
    (void)state;
    backend_close(backend);
    return 0;
}

static void run(const struct backend_job *job)
{
    struct pollfd p = {.fd = backend->event_fd, .events = POLLIN};
    int r = backend_start(backend, job);

    while (r == -EINPROGRESS) {
        assert_int_equal(poll(&p, 1, -1), 1);
        r = backend_finish(backend);
    }
    assert_int_equal(r, 0);
}

static void test_int32_wraps(void **state)
{
    const int32_t a[] = {2, INT32_MAX, INT32_MIN, -1}, b[] = {3, 1, -1, 1};
    int32_t sum[4];

    (void)state;
    run(&(struct backend_job){.type = VGPU_TYPE_INT32, .count = 4, .a = a, .b = b, .sum = sum});
    assert_int_equal(sum[0], 5);
    assert_int_equal(sum[1], INT32_MIN);
    assert_int_equal(sum[2], INT32_MAX);
    assert_int_equal(sum[3], 0);
}

static void test_float32_edges(void **state)
{
    const float a[] = {1.5F, INFINITY, 1e-45F, 3.4e38F, NAN},
                b[] = {2.25F, -INFINITY, 1e-45F, 3.4e38F, 1.0F};
    uint32_t sum[5];

    (void)state;
    run(&(struct backend_job){.type = VGPU_TYPE_FLOAT32, .count = 5, .a = a, .b = b, .sum = sum});
    assert_int_equal(sum[0], 0x40700000); /* 3.75 */
    assert_int_equal(sum[1], 0x7fffffff); /* the one NaN */
    assert_int_equal(sum[2], 2);          /* subnormals are not flushed */
    assert_int_equal(sum[3], 0x7f800000); /* infinity */
    assert_int_equal(sum[4], 0x7fffffff);
}

static void test_long_and_in_place(void **state)
{
    const uint64_t count = 1000003;
    uint32_t *a = malloc(count * 4), *b = malloc(count * 4);

    (void)state;
    for (uint32_t i = 0; i < count; i++) {
        a[i] = i;
        b[i] = 7 * i;
    }
    run(&(struct backend_job){.type = VGPU_TYPE_INT32, .count = count, .a = a, .b = b, .sum = a});
    for (uint32_t i = 0; i < count; i++) {
        if (a[i] != 8 * i) {
            fail_msg("element %u is %u", i, a[i]);
        }
    }
    free(a);
    free(b);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_int32_wraps, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_float32_edges, set_up, tear_down),
        cmocka_unit_test_setup_teardown(test_long_and_in_place, set_up, tear_down),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
