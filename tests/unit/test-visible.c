/* SPDX-License-Identifier: MIT */
/*
 * CUDA_VISIBLE_DEVICES, with the values that were tried with NVIDIA's driver on a host with one
 * GPU, and what follows for several.
 *
 * Tests: guest/libcuda/model/visible.c
 */
#include <string.h>

#include "guest/libcuda/model/visible.h"
#include "tests/unit/unit.h"

#define DEVICES 3

static CUuuid uuids[DEVICES];
static int chosen[DEVICES];

/* The first begins as the driver's one did; the others differ from it early and late. */
static int set_up(void **state)
{
    static const unsigned char first[16] = {0x9a, 0x98, 0x79, 0x6f, 0x1c, 0x89, 0x38, 0x66,
                                            0xc9, 0xf0, 0x55, 0x9e, 0x8a, 0x72, 0xc5, 0x89};

    (void)state;
    for (int i = 0; i < DEVICES; i++) {
        memcpy(uuids[i].bytes, first, sizeof(first));
    }
    uuids[1].bytes[0] = 0x11;
    uuids[2].bytes[15] = 0x11;
    return 0;
}

#define FULL "GPU-9a98796f-1c89-3866-c9f0-559e8a72c589"

static void test_one_device(void **state)
{
    static const struct {
        const char *list;
        int found;
    } cases[] = {
        {"0", 1},
        {"", 0},
        {"-1", 0},
        {"0,0", -1},
        {"0,5", 1},
        {"5,0", 0},
        {" 0", 1},
        {"0 ", 1},
        {"0x0", 1},
        {"00", 1},
        {"+0", 1},
        {"abc", 0},
        {"0abc", 1},
        {"0,", 1},
        {",0", 0},
        {"-1,0", 0},
        {"0,-1", 1},
        {"GPU-", 0},
        {"GPU", 0},
        {"GPU-9a98", 1},
        {"GPU-9A98796F", 1},
        {FULL, 1},
        {FULL "," FULL, -1},
        {FULL ",0", 1},
        {"0," FULL, 1},
        {FULL "x", 1},
        {"GPU-0000", 0},
        {"MIG-1", 0},
        {"0;1", 1},
        {"NoDevFiles", 0},
        {"0,abc", 1},
        {"0,0,5", -1},
        {"0 0", 1},
        {FULL " 1", 1},
    };

    (void)state;
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        const int found = visible_choose(cases[i].list, uuids, 1, chosen);

        if (found != cases[i].found) {
            fail_msg("'%s': %d, not %d", cases[i].list, found, cases[i].found);
        }
        if (found == 1) {
            assert_int_equal(chosen[0], 0);
        }
        /* What has a device is not taken for a list that has none. */
        assert_true(found == 0 || visible_any(cases[i].list));
    }
}

static void test_order_of_several(void **state)
{
    (void)state;
    assert_int_equal(visible_choose("2,0", uuids, DEVICES, chosen), 2);
    assert_int_equal(chosen[0], 2);
    assert_int_equal(chosen[1], 0);
    assert_int_equal(visible_choose("2,1,0,2", uuids, DEVICES, chosen), -1);
    assert_int_equal(visible_choose("1,3,0", uuids, DEVICES, chosen), 1);
    assert_int_equal(visible_choose("gpu-11," FULL, uuids, DEVICES, chosen), 2);
    assert_int_equal(chosen[0], 1);
    assert_int_equal(chosen[1], 0);
}

static void test_lists_without_a_device(void **state)
{
    (void)state;
    assert_true(visible_any(NULL));
    assert_true(visible_any("7"));
    assert_true(visible_any("GPU-1"));
    assert_false(visible_any(""));
    assert_false(visible_any("-1"));
    assert_false(visible_any("none"));
    assert_int_equal(visible_choose("0", uuids, 0, chosen), 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup(test_one_device, set_up),
        cmocka_unit_test_setup(test_order_of_several, set_up),
        cmocka_unit_test(test_lists_without_a_device),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
