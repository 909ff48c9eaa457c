/* SPDX-License-Identifier: MIT */
/*
 * Copies and fills in rows that a guest calls for: which boxes are refused, at the ends of the
 * arena and where sizes and distances wrap. How they are carried out is in test-api-pieces.c.
 *
 * Tests: worker/do-work.c, worker/rows.c
 */
#include "tests/unit/api-fixture.h"

#define HUGE_NUMBER (UINT64_C(1) << 63)

static enum vgpu_gpu_error copy_box(const struct box *box)
{
    begin_box(box);
    return call_it();
}

static void test_boxes_that_cannot_be(void **state)
{
    const uint64_t device = 0x7000, arena = arena_at(4096);
    const struct box good[] = {
        {device, 16, 4, arena, 16, 4, 8, 3, 2, VGPU_COPY_TO_DEVICE, 0},
        {arena, 16, 4, device, 16, 4, 8, 3, 2, VGPU_COPY_FROM_DEVICE, 0},
        {device, 16, 4, device + 4096, 16, 4, 8, 3, 2, VGPU_COPY_ON_DEVICE, 0},
    };
    /* What is wrong with a side, of either kind. */
    const struct {
        uint64_t address, pitch, rows;
    } sides[] = {
        {arena, 7, 4}, /* the pitch */
        {arena, 0, 4},
        {arena, 16, 2}, /* the rows */
        {arena, 16, 0},
        {arena, HUGE_NUMBER, 4}, /* pitch times rows */
        {arena, UINT64_MAX / 6 + 1, 4},
        {arena, 16, HUGE_NUMBER}, /* rows times pitch */
        {arena, 16, UINT64_MAX},  /* rows plus height */
        {arena, 16, UINT64_MAX - 2},
        {UINT64_MAX - 20, 16, 4}, /* the address wraps */
        {UINT64_MAX, 16, 4},
    };

    (void)state;
    for (int kind = 0; kind < 3; kind++) {
        assert_int_equal(copy_box(&good[kind]), VGPU_GPU_SUCCESS);
        assert_int_equal(seen.rows[seen.row_count - 1].kind, kind + 1);
    }
    fake_log();
    for (size_t i = 0; i < sizeof(sides) / sizeof(sides[0]); i++) {
        for (int kind = 0; kind < 3; kind++) {
            struct box box = good[kind];

            box.to = box.kind == VGPU_COPY_TO_DEVICE && i < 9 ? box.to : sides[i].address;
            box.to_pitch = sides[i].pitch;
            box.to_rows = sides[i].rows;
            assert_int_equal(copy_box(&box), VGPU_GPU_INVALID_VALUE);
            box = good[kind];
            box.from = box.kind == VGPU_COPY_FROM_DEVICE && i < 9 ? box.from : sides[i].address;
            box.from_pitch = sides[i].pitch;
            box.from_rows = sides[i].rows;
            assert_int_equal(copy_box(&box), VGPU_GPU_INVALID_VALUE);
        }
    }
    assert_string_equal(fake_log(), "");
}

static void test_boxes_of_no_kind(void **state)
{
    static const uint64_t kinds[] = {0, 4, UINT32_MAX, UINT64_C(1) << 32 | 1};
    struct box box = {0x7000, 16, 4, 0x8000, 16, 4, 8, 3, 2, 0, 0};

    (void)state;
    for (size_t i = 0; i < sizeof(kinds) / sizeof(kinds[0]); i++) {
        box.kind = kinds[i];
        assert_int_equal(copy_box(&box), VGPU_GPU_INVALID_VALUE);
    }
    assert_string_equal(fake_log(), "");
}

static void test_boxes_of_nothing(void **state)
{
    (void)state;
    for (int i = 0; i < 3; i++) {
        struct box box = {0, 0, 0, 0, 0, 0, 8, 3, 2, VGPU_COPY_TO_DEVICE, 0};

        *(i == 0 ? &box.width : i == 1 ? &box.height : &box.depth) = 0;
        assert_int_equal(copy_box(&box), VGPU_GPU_SUCCESS);
    }
    assert_string_equal(fake_log(), "");
}

/* Products that wrap to something small. */
static void test_boxes_whose_size_wraps(void **state)
{
    static const struct {
        uint64_t width, height, depth;
    } sizes[] = {
        {1, UINT64_C(1) << 32, UINT64_C(1) << 32},
        {1, HUGE_NUMBER, 2},
        {2, HUGE_NUMBER, 1},
        {UINT64_C(1) << 33, UINT64_C(1) << 31, 1},
        {UINT64_MAX, 2, 1},
        {UINT64_MAX, 1, 2},
        {1, UINT64_MAX, UINT64_MAX},
        {UINT64_C(1) << 62, 2, 2},
        {8, 1, UINT64_C(1) << 61},
        {8, 1, HUGE_NUMBER + 1},
    };

    (void)state;
    for (size_t i = 0; i < sizeof(sizes) / sizeof(sizes[0]); i++) {
        for (uint64_t kind = 1; kind <= 3; kind++) {
            const uint64_t to = kind == VGPU_COPY_FROM_DEVICE ? arena_at(0) : 0x7000;
            const uint64_t from = kind == VGPU_COPY_TO_DEVICE ? arena_at(0) : 0x7000;
            struct box box = {to,
                              sizes[i].width,
                              sizes[i].height,
                              from,
                              sizes[i].width,
                              sizes[i].height,
                              sizes[i].width,
                              sizes[i].height,
                              sizes[i].depth,
                              kind,
                              0};

            assert_int_equal(copy_box(&box), VGPU_GPU_INVALID_VALUE);
            /* Pitches that would be too small, were the size not wrapped. */
            box.to_pitch = box.from_pitch = 0;
            assert_int_equal(copy_box(&box), VGPU_GPU_INVALID_VALUE);
        }
    }
    assert_string_equal(fake_log(), "");
}

/* Slices so far apart that their distances wrap to something small. */
static void test_slices_whose_distance_wraps(void **state)
{
    static const uint64_t rows[][2] = {
        /* rows, depth */
        {HUGE_NUMBER, 3},
        {HUGE_NUMBER / 2, 5},
        {HUGE_NUMBER + 4, 3},
        {HUGE_NUMBER / 8 + 4, 17},
    };

    (void)state;
    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        struct box box = {0x7000, 16, 4, arena_at(0), 16, rows[i][0], 8, 3, rows[i][1], 0, 0};

        box.kind = VGPU_COPY_TO_DEVICE;
        assert_int_equal(copy_box(&box), VGPU_GPU_INVALID_VALUE);
        box.kind = VGPU_COPY_ON_DEVICE;
        assert_int_equal(copy_box(&box), VGPU_GPU_INVALID_VALUE);
        box.from_rows = 4;
        box.to_rows = rows[i][0];
        assert_int_equal(copy_box(&box), VGPU_GPU_INVALID_VALUE);
    }
    assert_string_equal(fake_log(), "");
}

/* Each side that lies in the arena, around its ends: the last row has no pitch behind it. */
static void test_boxes_around_the_ends_of_the_arena(void **state)
{
    /* 2 slices of 4 rows, the last row of 8 bytes: 7 pitches and 8 bytes. */
    const uint64_t bytes = (4 + 3 - 1) * 16 + 8;
    const struct {
        uint64_t address;
        bool good;
    } cases[] = {
        {arena_at(0), true},
        {arena_at(0) - 1, false},
        {arena_at(0) - bytes, false},
        {arena_at(FIXTURE_ARENA - bytes), true},
        {arena_at(FIXTURE_ARENA - bytes) + 1, false},
        {arena_at(FIXTURE_ARENA - bytes) + 8, false},
        {arena_at(FIXTURE_ARENA), false},
        {0, false},
    };

    (void)state;
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        const enum vgpu_gpu_error result = cases[i].good ? VGPU_GPU_SUCCESS
                                                         : VGPU_GPU_INVALID_VALUE;
        struct box box = {0x7000, 16, 4, cases[i].address, 16, 4, 8, 3, 2, VGPU_COPY_TO_DEVICE, 0};

        assert_int_equal(copy_box(&box), result);
        box.to = cases[i].address;
        box.from = 0x7000;
        box.kind = VGPU_COPY_FROM_DEVICE;
        assert_int_equal(copy_box(&box), result);
        /* The device's side is the driver's to check. */
        box.kind = VGPU_COPY_TO_DEVICE;
        box.to = 0x7000;
        box.from = arena_at(0);
        assert_int_equal(copy_box(&box), VGPU_GPU_SUCCESS);
    }
}

/* A single row needs no pitch. */
static void test_box_of_one_row(void **state)
{
    const struct box box = {0x7000, 0, 1, arena_at(0), 3, 1, 100, 1, 1, VGPU_COPY_TO_DEVICE, 0};

    (void)state;
    assert_int_equal(copy_box(&box), VGPU_GPU_SUCCESS);
    assert_int_equal(seen.rows[0].width, 100);
    assert_int_equal(seen.rows[0].rows, 1);
}

/* Fills: to, pitch, value, element, width, height, stream. */
static void test_fills_that_cannot_be(void **state)
{
    static const uint64_t fills[][7] = {
        {0x7000, 16, 0, 0, 4, 2, 0},
        {0x7000, 16, 0, 3, 4, 2, 0},
        {0x7000, 16, 0, 8, 1, 2, 0},
        {0x7000, 16, 0, UINT32_MAX, 4, 2, 0},
        {0x7001, 16, 0, 2, 4, 2, 0},
        {0x7002, 16, 0, 4, 4, 2, 0},
        {0x7000, 18, 0, 4, 4, 2, 0}, /* rows out of line */
        {0x7000, 12, 0, 4, 4, 2, 0}, /* rows that overlap */
        {0x7000, 0, 0, 1, 1, 2, 0},
        {0x7000, HUGE_NUMBER, 0, 4, UINT64_C(1) << 62, 1, 0}, /* bytes of a row */
        {0x7000, 16, 0, 2, HUGE_NUMBER, 2, 0},
        {0x7000, HUGE_NUMBER, 0, 1, 4, 4, 0}, /* pitch times rows */
        {UINT64_MAX - 2, 16, 0, 1, 4, 1, 0},  /* the end */
    };

    (void)state;
    for (size_t i = 0; i < sizeof(fills) / sizeof(fills[0]); i++) {
        begin_with(FILL_ROWS, fills[i], 7);
        assert_int_equal(call_it(), VGPU_GPU_INVALID_VALUE);
    }
    assert_int_equal(CALL(FILL_ROWS, 0x7000, 16, 0, 4, 0, 2, 0), VGPU_GPU_SUCCESS);
    assert_int_equal(CALL(FILL_ROWS, 0x7000, 16, 0, 4, 4, 0, 0), VGPU_GPU_SUCCESS);
    assert_string_equal(fake_log(), "");
    assert_int_equal(CALL(FILL_ROWS, 0x7000, 3, 9, 4, 4, 1, 0), VGPU_GPU_SUCCESS); /* one row */
    assert_int_equal(fake.fills[0].value, 9);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(test_boxes_that_cannot_be),
        TEST(test_boxes_of_no_kind),
        TEST(test_boxes_of_nothing),
        TEST(test_boxes_whose_size_wraps),
        TEST(test_slices_whose_distance_wraps),
        TEST(test_boxes_around_the_ends_of_the_arena),
        TEST(test_box_of_one_row),
        TEST(test_fills_that_cannot_be),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
