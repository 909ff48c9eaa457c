/* SPDX-License-Identifier: MIT */
/*
 * Handles of graphs and nodes: what is gone, of another type or made up is not found, and no memory
 * is read to find that out.
 *
 * Tests: guest/libcuda/state/local.c
 */
#include <stdlib.h>

#include "guest/libcuda/state/local.h"
#include "tests/unit/unit.h"

#define MANY 1000u

static void test_a_handle_finds_its_thing(void **state)
{
    int graph, node;
    const uint64_t first = local_add(LOCAL_GRAPH, &graph), second = local_add(LOCAL_NODE, &node);

    (void)state;
    assert_true(first != 0 && second != 0 && first != second);
    assert_ptr_equal(local_find(LOCAL_GRAPH, first), &graph);
    assert_ptr_equal(local_find(LOCAL_NODE, second), &node);
    assert_null(local_find(LOCAL_NODE, first));
    assert_null(local_find(LOCAL_GRAPH, second));
    local_drop(first);
    local_drop(second);
}

static void test_one_that_is_gone_is_not_found(void **state)
{
    int old, new;
    const uint64_t gone = local_add(LOCAL_GRAPH, &old);
    uint64_t next;

    (void)state;
    local_drop(gone);
    assert_null(local_find(LOCAL_GRAPH, gone));
    /* Its place is used again, and the old handle does not lead there. */
    next = local_add(LOCAL_GRAPH, &new);
    assert_int_equal((uint32_t)next, (uint32_t)gone);
    assert_null(local_find(LOCAL_GRAPH, gone));
    local_drop(gone);
    assert_ptr_equal(local_find(LOCAL_GRAPH, next), &new);
    local_drop(next);
}

static void test_what_is_made_up_is_not_found(void **state)
{
    int thing;
    const uint64_t handle = local_add(LOCAL_NODE, &thing);

    (void)state;
    assert_null(local_find(LOCAL_NODE, 0));
    assert_null(local_find(LOCAL_NODE, (uint64_t)LOCAL_NODE << 56));
    assert_null(local_find(LOCAL_NODE, (uint64_t)(uintptr_t)&thing));
    assert_null(local_find(LOCAL_NODE, UINT64_MAX));
    for (unsigned bit = 0; bit < 64; bit++) {
        assert_null(local_find(LOCAL_NODE, handle ^ UINT64_C(1) << bit));
    }
    local_drop(0);
    local_drop(handle);
}

static void test_many(void **state)
{
    static int things[MANY];
    static uint64_t handles[MANY];

    (void)state;
    for (unsigned i = 0; i < MANY; i++) {
        handles[i] = local_add(LOCAL_NODE, &things[i]);
        assert_int_not_equal(handles[i], 0);
    }
    for (unsigned i = 0; i < MANY; i += 2) {
        local_drop(handles[i]);
    }
    for (unsigned i = 0; i < MANY; i++) {
        assert_ptr_equal(local_find(LOCAL_NODE, handles[i]), i % 2 ? &things[i] : NULL);
    }
    for (unsigned i = 1; i < MANY; i += 2) {
        local_drop(handles[i]);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_a_handle_finds_its_thing),
        cmocka_unit_test(test_one_that_is_gone_is_not_found),
        cmocka_unit_test(test_what_is_made_up_is_not_found),
        cmocka_unit_test(test_many),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
