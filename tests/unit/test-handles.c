/* SPDX-License-Identifier: MIT */
/*
 * Handles: a guest that invents them, keeps old ones, or asks for too many.
 *
 * Tests: worker/handles.c
 */
#include "worker/handles.h"

#include "tests/unit/unit.h"

static struct handles handles;
static int objects[8]; /* only their addresses matter */

static int set_up(void **state)
{
    (void)state;
    handles = (struct handles){0};
    return 0;
}

static int tear_down(void **state)
{
    (void)state;
    handles_release(&handles);
    return 0;
}

static uint64_t add(enum handle_type type, int object)
{
    return handles_add(&handles, type, &objects[object], 0);
}

static void test_handle_finds_its_object(void **state)
{
    const uint64_t a = add(HANDLE_STREAM, 0), b = add(HANDLE_EVENT, 1);

    (void)state;
    assert_int_not_equal(a, 0);
    assert_int_not_equal(b, 0);
    assert_int_not_equal(a, b);
    assert_ptr_equal(handles_get(&handles, HANDLE_STREAM, a), &objects[0]);
    assert_ptr_equal(handles_get(&handles, HANDLE_EVENT, b), &objects[1]);
}

static void test_handle_of_another_type(void **state)
{
    static const enum handle_type types[] = {HANDLE_MODULE, HANDLE_FUNCTION, HANDLE_STREAM,
                                             HANDLE_EVENT};

    (void)state;
    for (int made = 0; made < 4; made++) {
        const uint64_t handle = add(types[made], made);

        for (int asked = 0; asked < 4; asked++) {
            const void *expected = asked == made ? &objects[made] : NULL;
            const uint64_t forged = (handle & ~(UINT64_C(0xff) << 24)) | (uint64_t)types[asked]
                                                                             << 24;

            assert_ptr_equal(handles_get(&handles, types[asked], handle), expected);
            /* With the type of the asker written into it. */
            assert_ptr_equal(handles_get(&handles, types[asked], forged), expected);
        }
    }
}

static void test_handle_that_was_invented(void **state)
{
    const uint64_t handle = add(HANDLE_STREAM, 0);

    (void)state;
    assert_null(handles_get(&handles, HANDLE_STREAM, 0));
    assert_null(handles_get(&handles, HANDLE_STREAM, UINT64_MAX));
    /* Any bit that differs; of the index too, which reaches entries that are free or are not. */
    for (int bit = 0; bit < 64; bit++) {
        assert_null(handles_get(&handles, HANDLE_STREAM, handle ^ UINT64_C(1) << bit));
    }
    for (uint32_t place = 2; place <= handles.count + 2; place++) {
        assert_null(handles_get(&handles, HANDLE_STREAM, (handle & ~UINT64_C(0xffffff)) | place));
    }
}

static void test_handle_without_any_made(void **state)
{
    (void)state;
    assert_null(handles_get(&handles, HANDLE_STREAM, 0));
    assert_null(handles_get(&handles, HANDLE_STREAM, 1 | UINT64_C(3) << 24));
}

static void test_handle_that_was_given_back(void **state)
{
    uint64_t old[100];

    (void)state;
    for (int i = 0; i < 100; i++) {
        old[i] = add(HANDLE_STREAM, 0);
        handles_remove(&handles, old[i]);
        assert_null(handles_get(&handles, HANDLE_STREAM, old[i]));
    }
    /* The place is used again, under another generation. */
    add(HANDLE_STREAM, 1);
    for (int i = 0; i < 100; i++) {
        assert_null(handles_get(&handles, HANDLE_STREAM, old[i]));
    }
    assert_true(handles.count <= 64);
}

static void test_children_go_with_their_parent(void **state)
{
    const uint64_t first = add(HANDLE_MODULE, 0), second = add(HANDLE_MODULE, 1);
    const uint64_t a = handles_add(&handles, HANDLE_FUNCTION, &objects[2], first);
    const uint64_t b = handles_add(&handles, HANDLE_FUNCTION, &objects[3], second);
    const uint64_t c = handles_add(&handles, HANDLE_FUNCTION, &objects[4], first);
    const uint64_t stream = add(HANDLE_STREAM, 5);

    (void)state;
    handles_remove_children(&handles, first);
    assert_null(handles_get(&handles, HANDLE_FUNCTION, a));
    assert_null(handles_get(&handles, HANDLE_FUNCTION, c));
    assert_ptr_equal(handles_get(&handles, HANDLE_FUNCTION, b), &objects[3]);
    assert_ptr_equal(handles_get(&handles, HANDLE_MODULE, first), &objects[0]);
    assert_ptr_equal(handles_get(&handles, HANDLE_STREAM, stream), &objects[5]);
}

/* A module in the place of one that is gone does not get that one's functions. */
static void test_parent_of_an_older_generation(void **state)
{
    const uint64_t first = add(HANDLE_MODULE, 0);
    const uint64_t function = handles_add(&handles, HANDLE_FUNCTION, &objects[1], first);
    uint64_t second;

    (void)state;
    handles_remove(&handles, first);
    second = add(HANDLE_MODULE, 2);
    assert_int_equal(first & 0xffffff, second & 0xffffff);
    handles_remove_children(&handles, second);
    assert_ptr_equal(handles_get(&handles, HANDLE_FUNCTION, function), &objects[1]);
}

static void test_next_finds_all_of_a_type(void **state)
{
    uint32_t position = 0;
    unsigned found = 0;
    uint64_t gone;

    (void)state;
    for (int i = 0; i < 200; i++) {
        add(i % 2 == 0 ? HANDLE_STREAM : HANDLE_EVENT, i % 2);
    }
    gone = add(HANDLE_STREAM, 0);
    handles_remove(&handles, gone);
    for (void *object; (object = handles_next(&handles, HANDLE_STREAM, &position)) != NULL;) {
        assert_ptr_equal(object, &objects[0]);
        found++;
    }
    assert_int_equal(found, 100);
    assert_null(handles_next(&handles, HANDLE_STREAM, &position));
}

static void test_guest_that_asks_for_too_many(void **state)
{
    uint64_t last = 0;

    (void)state;
    for (uint32_t i = 0; i < HANDLES_MAX; i++) {
        last = add(HANDLE_EVENT, 0);
        assert_int_not_equal(last, 0);
    }
    assert_int_equal(add(HANDLE_EVENT, 1), 0);
    assert_ptr_equal(handles_get(&handles, HANDLE_EVENT, last), &objects[0]);
    handles_remove(&handles, last);
    last = add(HANDLE_EVENT, 2);
    assert_ptr_equal(handles_get(&handles, HANDLE_EVENT, last), &objects[2]);
    assert_int_equal(add(HANDLE_EVENT, 1), 0);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(test_handle_finds_its_object),       TEST(test_handle_of_another_type),
        TEST(test_handle_that_was_invented),      TEST(test_handle_without_any_made),
        TEST(test_handle_that_was_given_back),    TEST(test_children_go_with_their_parent),
        TEST(test_parent_of_an_older_generation), TEST(test_next_finds_all_of_a_type),
        TEST(test_guest_that_asks_for_too_many),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
