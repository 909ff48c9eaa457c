/* SPDX-License-Identifier: MIT */
/*
 * Whether rows and slices fit: at the ends of the arena to the byte, and where a product or a sum
 * on the way wraps. What is expected at random is worked out with more bits.
 *
 * Tests: worker/rows.c
 */
#include "tests/unit/unit.h"
#include "worker/rows.h"

#define ARENA_AT UINT64_C(0x10000)
#define ARENA_BYTES UINT64_C(1000)
#define AWAY UINT64_C(0x7f0000000000)

__extension__ typedef unsigned __int128 wide;

static const struct gpu_arena arena = {(uint8_t *)ARENA_AT, ARENA_BYTES};

static bool fits(uint64_t address, uint64_t pitch, uint64_t rows, uint64_t width, uint64_t height,
                 uint64_t depth)
{
    return rows_fit(&arena, &(struct rows_side){address, pitch, rows}, true, width, height, depth);
}

static bool fits_anywhere(uint64_t address, uint64_t pitch, uint64_t rows, uint64_t width,
                          uint64_t height, uint64_t depth)
{
    return rows_fit(&arena, &(struct rows_side){address, pitch, rows}, false, width, height, depth);
}

/* The arena ---------------------------------------------------------------------------------- */

static void test_one_row(void **state)
{
    (void)state;
    assert_true(fits(ARENA_AT, 0, 1, 1, 1, 1));
    assert_true(fits(ARENA_AT, 0, 1, ARENA_BYTES, 1, 1));
    assert_false(fits(ARENA_AT, 0, 1, ARENA_BYTES + 1, 1, 1));
    assert_true(fits(ARENA_AT + ARENA_BYTES - 1, 0, 1, 1, 1, 1));
    assert_false(fits(ARENA_AT + ARENA_BYTES, 0, 1, 1, 1, 1));
    assert_false(fits(ARENA_AT - 1, 0, 1, 1, 1, 1));
    assert_false(fits(ARENA_AT - 1, 0, 1, ARENA_BYTES, 1, 1));
    assert_false(fits(ARENA_AT, 0, 1, UINT64_MAX, 1, 1));
    assert_false(fits(ARENA_AT + 1, 0, 1, UINT64_MAX, 1, 1));
    assert_false(fits(0, 0, 1, 1, 1, 1));
    /* Outside of it all that is the caller's. */
    assert_true(fits_anywhere(0, 0, 1, ARENA_BYTES + 1, 1, 1));
    assert_true(fits_anywhere(AWAY, 0, 1, 1, 1, 1));
}

/* The last row ends with its width, not with its pitch. */
static void test_rows_to_the_end(void **state)
{
    (void)state;
    assert_true(fits(ARENA_AT, 100, 10, 100, 10, 1));
    assert_false(fits(ARENA_AT, 100, 10, 101, 10, 1));
    assert_true(fits(ARENA_AT + 50, 100, 10, 50, 10, 1));
    assert_false(fits(ARENA_AT + 51, 100, 10, 50, 10, 1));
    assert_false(fits(ARENA_AT + 50, 100, 10, 51, 10, 1));
    assert_false(fits(ARENA_AT + 50, 100, 11, 50, 11, 1));
    assert_false(fits(ARENA_AT + 50, 101, 10, 50, 10, 1));
    assert_false(fits(ARENA_AT - 1, 100, 10, 50, 10, 1));
}

/* The last slice ends with its last row, not with the rows to a next one. */
static void test_slices_to_the_end(void **state)
{
    (void)state;
    /* 3 slices, 3 rows apart, of 2 rows: the 8th row is the last. */
    assert_true(fits(ARENA_AT + 50, 125, 3, 75, 2, 3));
    assert_false(fits(ARENA_AT + 51, 125, 3, 75, 2, 3));
    assert_false(fits(ARENA_AT + 50, 125, 3, 76, 2, 3));
    assert_false(fits(ARENA_AT + 50, 125, 3, 75, 3, 3));
    assert_false(fits(ARENA_AT + 50, 125, 4, 75, 2, 3));
    assert_false(fits(ARENA_AT + 50, 125, 3, 75, 2, 4));
    assert_false(fits(ARENA_AT + 50, 126, 3, 75, 2, 3));
}

/* Pitches and heights ------------------------------------------------------------------------ */

static void test_pitches_below_the_width(void **state)
{
    (void)state;
    for (int in_arena = 0; in_arena < 2; in_arena++) {
        bool (*const fit)(uint64_t, uint64_t, uint64_t, uint64_t, uint64_t,
                          uint64_t) = in_arena ? fits : fits_anywhere;

        assert_true(fit(ARENA_AT, 10, 2, 10, 2, 1));
        assert_false(fit(ARENA_AT, 9, 2, 10, 2, 1));
        assert_false(fit(ARENA_AT, 0, 2, 10, 2, 1));
        assert_true(fit(ARENA_AT, 10, 1, 10, 1, 2));
        assert_false(fit(ARENA_AT, 9, 1, 10, 1, 2));
        /* It is of no use where there is but one row. */
        assert_true(fit(ARENA_AT, 0, 1, 10, 1, 1));
        assert_true(fit(ARENA_AT, 9, 1, 10, 1, 1));
    }
}

static void test_slices_below_the_height(void **state)
{
    (void)state;
    assert_true(fits_anywhere(AWAY, 16, 3, 16, 3, 2));
    assert_false(fits_anywhere(AWAY, 16, 2, 16, 3, 2));
    assert_false(fits_anywhere(AWAY, 16, 0, 16, 1, 1));
    assert_false(fits_anywhere(AWAY, 16, 2, 16, 3, 1));
    assert_true(fits_anywhere(AWAY, 16, 1, 16, 1, 1));
}

/* What wraps --------------------------------------------------------------------------------- */

static void test_what_wraps(void **state)
{
    const uint64_t half = UINT64_C(1) << 63, quarter = UINT64_C(1) << 62;

    (void)state;
    /* Rows of all slices but the last. */
    assert_false(fits_anywhere(0, 1, half, 1, 1, 3));
    assert_false(fits_anywhere(0, 1, quarter, 1, 1, 5));
    assert_false(fits_anywhere(0, 1, 2, 1, 1, half + 1));
    /* With those of the last. */
    assert_false(fits_anywhere(0, 0, half + 1, 0, half + 1, 2));
    assert_true(fits_anywhere(0, 0, half, 0, half, 2));
    /* Rows and their pitch. */
    assert_false(fits_anywhere(0, half, 4, 1, 4, 1));
    assert_true(fits_anywhere(0, quarter, 3, 1, 3, 1));
    assert_false(fits_anywhere(0, 2, half + 1, 1, half + 1, 1));
    /* The address. */
    assert_true(fits_anywhere(UINT64_MAX - 32, 16, 2, 16, 2, 1));
    assert_false(fits_anywhere(UINT64_MAX - 31, 16, 2, 16, 2, 1));
    assert_false(fits_anywhere(half, quarter, 3, 1, 3, 1));
}

/* A sum that is small because it has wrapped is not taken for one that fits. */
static void test_what_wraps_into_the_arena(void **state)
{
    const uint64_t half = UINT64_C(1) << 63;

    (void)state;
    assert_false(fits(ARENA_AT, half, 3, 1, 3, 1));
    assert_false(fits(ARENA_AT, 1, half, 1, 1, 3));
    assert_false(fits(ARENA_AT, half, 1, 1, 1, 3));
    assert_false(fits(ARENA_AT, 16, UINT64_C(1) << 60, 16, 1, 2));
    assert_false(fits(ARENA_AT, UINT64_MAX, 2, 10, 2, 1));
    assert_false(fits(ARENA_AT, UINT64_MAX - 8, 2, 10, 2, 1));
    assert_false(fits(ARENA_AT + 100, UINT64_MAX - 99, 2, 10, 2, 1));
    assert_false(fits(ARENA_AT, 0, 1, UINT64_MAX - ARENA_AT + 1, 1, 1));
    assert_false(fits(ARENA_AT + 10, 0, 1, UINT64_MAX - 9, 1, 1));
}

/* At random ---------------------------------------------------------------------------------- */

static uint64_t random_word(void)
{
    static uint64_t state = 88172645463325252u;

    state ^= state << 13;
    state ^= state >> 7;
    state ^= state << 17;
    return state;
}

/* Small, or near a power of two. */
static uint64_t random_number(void)
{
    const uint64_t word = random_word();

    return word % 3 != 0 ? (word >> 8) % 12 + 1 : (UINT64_C(1) << (word >> 8) % 64) + word % 5 - 2;
}

static bool expected(const struct rows_side *side, bool in_arena, uint64_t width, uint64_t height,
                     uint64_t depth)
{
    const wide limit = UINT64_MAX;
    const wide pitches = (wide)side->rows * (depth - 1) + height - 1;
    const wide start = side->address;

    if (side->rows < height || ((height > 1 || depth > 1) && side->pitch < width) ||
        start + width > limit ||
        (side->pitch != 0 && pitches > (limit - start - width) / side->pitch)) {
        return false;
    }
    return !in_arena ||
           (start >= ARENA_AT && start + side->pitch * pitches + width <= ARENA_AT + ARENA_BYTES);
}

static void test_boxes_at_random(void **state)
{
    unsigned good = 0, in_arena_good = 0;

    (void)state;
    for (unsigned i = 0; i < 1000000; i++) {
        const bool near = random_word() % 2 == 0;
        const uint64_t height = random_number(), depth = random_number(), width = random_number();
        const struct rows_side side = {
            .address = near ? ARENA_AT + random_word() % 1100 - 50 : random_word(),
            .pitch = random_word() % 2 == 0 ? width + random_word() % 20 : random_number(),
            .rows = random_word() % 2 == 0 ? height : random_number(),
        };
        bool want;

        if (width == 0 || height == 0 || depth == 0) {
            continue;
        }
        want = expected(&side, near, width, height, depth);
        assert_int_equal(rows_fit(&arena, &side, near, width, height, depth), want);
        good += want;
        in_arena_good += want && near;
    }
    assert_in_range(in_arena_good, 1000, good - 1000);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_one_row),
        cmocka_unit_test(test_rows_to_the_end),
        cmocka_unit_test(test_slices_to_the_end),
        cmocka_unit_test(test_pitches_below_the_width),
        cmocka_unit_test(test_slices_below_the_height),
        cmocka_unit_test(test_what_wraps),
        cmocka_unit_test(test_what_wraps_into_the_arena),
        cmocka_unit_test(test_boxes_at_random),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
