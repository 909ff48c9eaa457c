/* SPDX-License-Identifier: MIT */
/*
 * Copies and fills in rows that are carried out in pieces, so that others get the GPU between them:
 * the pieces are the whole, each byte once, in its order.
 *
 * Tests: worker/do-work.c, worker/estimate.c
 */
#include "common/clock.h"
#include "tests/unit/api-fixture.h"
#include "worker/estimate.h"
#include "worker/ring-session.h"

/* Runs what was posted for slot 1 to its end, on a GPU that finishes now and then. */
static void finish_slot_1(bool window_changes)
{
    for (unsigned i = 0; !answered(1); i++) {
        assert_true(i < 10000);
        if (window_changes) {
            fixture.turn_page.terms.window_ns = random_below(2) ? WINDOW : 0;
        }
        assert_true(ring_session_step(&fixture.session) >= 0);
        test_clock_ns += NS_PER_MS;
        fake_finish();
        fake_log();
    }
    assert_int_equal(result_of(1), VGPU_GPU_SUCCESS);
}

/* What is to come next of a box, row by row. */
struct cursor {
    uint64_t slice, row, offset;
};

static void advance(struct cursor *cursor, uint64_t bytes, uint64_t width, uint64_t height)
{
    cursor->offset += bytes;
    if (cursor->offset == width) {
        cursor->offset = 0;
        cursor->row++;
    }
    if (cursor->row == height) {
        cursor->row = 0;
        cursor->slice++;
    }
}

/* Whether the pieces that the GPU got are the whole box, each byte once, in its order. */
static void check_pieces(const struct box *box, bool window)
{
    struct cursor c = {0, 0, 0};

    for (unsigned i = 0; i < seen.row_count; i++) {
        const struct gpu_rows *piece = &seen.rows[i];

        assert_int_equal(piece->kind, box->kind);
        assert_true(piece->rows > 0 && piece->width > 0);
        assert_true(!window || piece->width * piece->rows <= ESTIMATE_COPY_PIECE);
        for (uint64_t row = 0; row < piece->rows; row++) {
            const uint64_t to = (c.slice * box->to_rows + c.row) * box->to_pitch + c.offset;
            const uint64_t from = (c.slice * box->from_rows + c.row) * box->from_pitch + c.offset;

            if (c.slice >= box->depth || piece->width > box->width - c.offset ||
                piece->to + row * piece->to_pitch != box->to + to ||
                piece->from + row * piece->from_pitch != box->from + from) {
                fail_msg("piece %u, its row %llu", i, (unsigned long long)row);
            }
            advance(&c, piece->width, box->width, box->height);
        }
    }
    assert_int_equal(c.slice, box->depth);
    assert_int_equal(c.row + c.offset, 0);
}

static void run_box(void **state, const struct box *box, int window)
{
    again(state);
    test_clock_ns = NS_PER_S;
    fixture.turn_page.terms.window_ns = window != 0 ? WINDOW : 0;
    begin_box(box);
    post_it(1);
    finish_slot_1(window == 2);
    check_pieces(box, window == 1);
    assert_int_equal(fixture.turn_page.counters.requests, 1);
}

static void test_pieces_are_the_whole(void **state)
{
    static const uint64_t piece = ESTIMATE_COPY_PIECE;
    static const struct {
        uint64_t width, height, depth;
    } sizes[] = {
        {ESTIMATE_COPY_PIECE - 1, 3, 2},
        {ESTIMATE_COPY_PIECE, 3, 2},
        {ESTIMATE_COPY_PIECE + 1, 3, 2},
        {ESTIMATE_COPY_PIECE / 2, 5, 2},
        {ESTIMATE_COPY_PIECE / 2 + 1, 5, 2},
        {ESTIMATE_COPY_PIECE * 2, 2, 3},
        {ESTIMATE_COPY_PIECE * 2 + 5, 2, 3},
        {1000, 10000, 3},
        {1, ESTIMATE_COPY_PIECE + 3, 2},
        {4096, 1024, 1},
        {4096, 1025, 3},
        {1, 1, 40},
        {64, 1, 1},
    };

    for (size_t i = 0; i < sizeof(sizes) / sizeof(sizes[0]); i++) {
        const uint64_t height = sizes[i].height;

        for (int window = 0; window < 3; window++) {
            const struct box box = {
                1 << 12,    sizes[i].width + 24, height + 1, UINT64_C(1) << 40, sizes[i].width,
                height + 3, sizes[i].width,      height,     sizes[i].depth,    VGPU_COPY_ON_DEVICE,
                0};

            run_box(state, &box, window);
            if (sizes[i].width <= piece && window == 0) {
                assert_int_equal(seen.row_count, sizes[i].depth);
            }
        }
    }
}

static void test_pieces_of_any_box(void **state)
{
    for (int i = 0; i < 300; i++) {
        const uint64_t width = 1 + random_below(random_below(2) ? ESTIMATE_COPY_PIECE * 3 : 99999);
        const uint64_t most = 60 * ESTIMATE_COPY_PIECE / width; /* rows in all, for the memory */
        const uint64_t depth = 1 + random_below(4);
        const uint64_t height = 1 + random_below(most / depth > 20 ? most / depth : 20);
        const struct box box = {random_below(UINT64_C(1) << 40),
                                width + random_below(1000),
                                height + random_below(10),
                                random_below(UINT64_C(1) << 40),
                                width + random_below(1000),
                                height + random_below(10),
                                width,
                                height,
                                depth,
                                VGPU_COPY_ON_DEVICE,
                                0};

        run_box(state, &box, (int)random_below(3));
    }
}

/* In the arena, to and from it, and one that fails in the middle. */
static void test_pieces_in_the_arena(void **state)
{
    const uint64_t width = ESTIMATE_COPY_PIECE + 4096;
    struct box box = {0x7000, width, 1, 0, width + 8, 1, width, 1, 3, VGPU_COPY_TO_DEVICE, 0};

    for (int kind = VGPU_COPY_TO_DEVICE; kind <= VGPU_COPY_FROM_DEVICE; kind++) {
        again(state);
        test_clock_ns = NS_PER_S;
        fixture.turn_page.terms.window_ns = WINDOW;
        box.kind = (uint64_t)kind;
        box.to = kind == VGPU_COPY_TO_DEVICE ? 0x7000 : arena_at(16);
        box.from = kind == VGPU_COPY_TO_DEVICE ? arena_at(16) : 0x7000;
        begin_box(&box);
        post_it(1);
        finish_slot_1(false);
        check_pieces(&box, true);
        assert_int_equal(seen.row_count, 6);
        assert_int_equal(seen.engine, kind == VGPU_COPY_TO_DEVICE ? VGPU_ENGINE_TO_DEVICE
                                                                  : VGPU_ENGINE_FROM_DEVICE);
    }
    again(state);
    test_clock_ns = NS_PER_S;
    fixture.turn_page.terms.window_ns = WINDOW;
    box.kind = VGPU_COPY_ON_DEVICE;
    box.to = box.from = 0x7000;
    begin_box(&box);
    post_it(1);
    assert_int_equal(steps(), 0);
    fake.next = VGPU_GPU_UNKNOWN;
    for (int i = 0; i < 10 && !answered(1); i++) {
        fake_finish();
        test_clock_ns += NS_PER_MS;
        assert_int_equal(steps(), 0);
    }
    assert_int_equal(result_of(1), VGPU_GPU_UNKNOWN);
    assert_true(seen.row_count < 6);
}

/* A call with a reply is carried out whole like any other. */
static void test_pieces_of_a_copy_with_a_reply(void **state)
{
    const uint64_t width = 2 * ESTIMATE_COPY_PIECE;
    const struct box box = {0x7000, width, 1, 0x7000, width, 1, width, 1, 1, VGPU_COPY_ON_DEVICE,
                            0};

    (void)state;
    begin_box(&box);
    body.call.reply = arena_at(0);
    body.call.reply_bytes = 8;
    post_it(1);
    assert_int_equal(steps(), 0);
    fake_finish();
    assert_int_equal(steps(), 0);
    if (result_of(1) == VGPU_GPU_SUCCESS) {
        check_pieces(&box, false);
    } else {
        assert_int_equal(result_of(1), VGPU_GPU_INVALID_VALUE);
        assert_int_equal(seen.row_count, 0);
    }
}

static void check_fill(uint64_t to, uint64_t pitch, uint64_t element, uint64_t width,
                       uint64_t height)
{
    struct cursor c = {0, 0, 0};

    for (unsigned i = 0; i < seen.fill_count; i++) {
        const struct gpu_fill_rows *piece = &seen.fills[i];

        assert_int_equal(piece->element, element);
        assert_int_equal(piece->value, 0x55);
        for (uint64_t row = 0; row < piece->rows; row++) {
            if (c.slice > 0 || piece->width * element > width * element - c.offset ||
                piece->address + row * piece->pitch != to + c.row * pitch + c.offset) {
                fail_msg("piece %u, its row %llu", i, (unsigned long long)row);
            }
            advance(&c, piece->width * element, width * element, height);
        }
    }
    assert_int_equal(c.slice, 1);
}

static void test_pieces_of_fills(void **state)
{
    static const uint64_t piece = ESTIMATE_FILL_PIECE;

    for (uint64_t element = 1; element <= 4; element *= 2) {
        const uint64_t sizes[][2] = {
            {piece / element - 1, 3},     {piece / element, 3}, {piece / element + 1, 3},
            {2 * piece / element + 3, 2}, {1000, 200000},       {1, 5},
        };

        for (size_t i = 0; i < sizeof(sizes) / sizeof(sizes[0]); i++) {
            const uint64_t pitch = sizes[i][0] * element + 8;
            const bool window = i % 2 == 0;

            again(state);
            test_clock_ns = NS_PER_S;
            fixture.turn_page.terms.window_ns = WINDOW;
            BEGIN(FILL_ROWS, 0x7000, pitch, 0x55, element, sizes[i][0], sizes[i][1], 0);
            post_it(1);
            finish_slot_1(window);
            check_fill(0x7000, pitch, element, sizes[i][0], sizes[i][1]);
        }
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(test_pieces_are_the_whole), TEST(test_pieces_of_any_box),
        TEST(test_pieces_in_the_arena),  TEST(test_pieces_of_a_copy_with_a_reply),
        TEST(test_pieces_of_fills),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
