/* SPDX-License-Identifier: MIT */
/*
 * In which order calls come among other commands, which engine's turn they wait for, and how long
 * they are expected to take.
 *
 * Tests: worker/order.c, worker/estimate.c, worker/command.c, worker/ring-session.c
 */
#include "common/clock.h"
#include "tests/unit/api-fixture.h"
#include "worker/estimate.h"
#include "worker/ring-session.h"

/* Order --------------------------------------------------------------------------------------- */

static void close_turn(enum vgpu_engine engine)
{
    *turn_word(engine) = VGPU_TURN_CLOSED;
}

static void post_box(uint32_t slot, uint64_t kind, uint64_t stream)
{
    const uint64_t to = kind == VGPU_COPY_FROM_DEVICE ? arena_at(0) : 0x7000;
    const uint64_t from = kind == VGPU_COPY_TO_DEVICE ? arena_at(0) : 0x8000;
    const struct box box = {to, 16, 1, from, 16, 1, 16, 1, 1, kind, stream};

    begin_box(&box);
    post_it(slot);
}

/* Those that are free pass what waits; others that are ordered wait behind it. */
static void test_calls_behind_work_that_waits(void **state)
{
    (void)state;
    close_turn(VGPU_ENGINE_COMPUTE);
    post_box(0, VGPU_COPY_ON_DEVICE, 0);
    BEGIN(HELLO, 1);
    post_it(1);
    BEGIN(SET_CACHE, 2);
    post_it(2);
    BEGIN(UPLOAD_BEGIN, 4);
    post_it(3);
    BEGIN(STREAM_CREATE, 0, 0);
    post_it(4);
    assert_int_equal(steps(), 0);
    assert_true(answered(1) && answered(3) && answered(4));
    assert_false(answered(2));
    assert_int_equal(seen.number, 0);
    assert_string_equal(fake_log(), "");
    *turn_word(VGPU_ENGINE_COMPUTE) = VGPU_TURN_RUNNING;
    assert_int_equal(steps(), 0);
    assert_int_equal(result_of(2), VGPU_GPU_SUCCESS); /* when it is submitted, not done */
    assert_int_equal(seen.number, 2);
    assert_string_equal(fake_log(), "copy rows");
}

/* A load may take long: it passes work that waits where nobody else is there. */
static void test_load_behind_work_that_waits(void **state)
{
    for (int window = 0; window < 2; window++) {
        again(state);
        fixture.turn_page.terms.window_ns = window ? WINDOW : 0;
        test_clock_ns = NS_PER_S;
        close_turn(VGPU_ENGINE_COMPUTE);
        post_box(0, VGPU_COPY_ON_DEVICE, 0);
        BEGIN(UPLOAD_BEGIN, 4);
        post_it(1);
        BEGIN(IMAGE_LOAD, 0, 0, 0);
        post_it(2);
        assert_int_equal(steps(), 0);
        assert_true(answered(1));
        assert_int_equal(answered(2), !window);
        *turn_word(VGPU_ENGINE_COMPUTE) = VGPU_TURN_RUNNING;
        assert_int_equal(steps(), 0);
        assert_int_equal(answered(2), !window); /* until nothing is on the GPU */
        fake_finish();
        test_clock_ns += NS_PER_MS;
        assert_int_equal(steps(), 0);
        assert_int_equal(result_of(2), VGPU_GPU_SUCCESS);
    }
}

/*
 * Nor does it wait for a stream that waits for the program: what the program does next may be what
 * lets the stream go on.
 */
static void test_load_beside_a_stream_that_waits_for_the_program(void **state)
{
    const uint64_t stream = make(VGPU_CMD_STREAM_CREATE, 0);

    (void)state;
    test_clock_ns = NS_PER_S;
    BEGIN(WAIT_VALUE_32, stream, arena_at(0), 1, 0);
    post_it(0);
    BEGIN(UPLOAD_BEGIN, 4);
    post_it(1);
    BEGIN(IMAGE_LOAD, 0, 0, 0);
    post_it(2);
    assert_int_equal(steps(), 0);
    assert_int_equal(fixture.session.flight.gates, 1);
    assert_true(answered(1));
    assert_int_equal(result_of(2), VGPU_GPU_SUCCESS);
}

static void test_calls_go_to_their_engines(void **state)
{
    static const struct {
        uint64_t kind; /* 0: no copy */
        enum vgpu_engine engine;
    } cases[] = {
        {VGPU_COPY_TO_DEVICE, VGPU_ENGINE_TO_DEVICE},
        {VGPU_COPY_FROM_DEVICE, VGPU_ENGINE_FROM_DEVICE},
        {VGPU_COPY_ON_DEVICE, VGPU_ENGINE_COMPUTE},
        {0, VGPU_ENGINE_COMPUTE},
    };

    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        again(state);
        for (unsigned e = 0; e < VGPU_ENGINES; e++) {
            close_turn((enum vgpu_engine)e);
        }
        if (cases[i].kind != 0) {
            post_box(1, cases[i].kind, 0);
        } else {
            BEGIN(FILL_ROWS, 0x7000, 16, 0, 4, 4, 2, 0);
            post_it(1);
        }
        assert_int_equal(steps(), 0);
        assert_true(sent_is(VGPU_LINK_ASK, cases[i].engine));
        assert_int_equal(sent(), 0);
        assert_false(answered(1));
        assert_string_equal(fake_log(), "");
        *turn_word(cases[i].engine) = VGPU_TURN_RUNNING;
        assert_int_equal(steps(), 0);
        assert_int_equal(result_of(1), VGPU_GPU_SUCCESS);
        assert_true(flight_busy(&fixture.session.flight, cases[i].engine));
    }
}

/* A copy of no kind reads no further than its own bytes to find its engine. */
static void test_short_copy_finds_no_engine(void **state)
{
    (void)state;
    close_turn(VGPU_ENGINE_COMPUTE);
    close_turn(VGPU_ENGINE_TO_DEVICE);
    post_box(0, VGPU_COPY_TO_DEVICE, 0);
    assert_int_equal(steps(), 0);
    assert_true(sent_is(VGPU_LINK_ASK, VGPU_ENGINE_TO_DEVICE));
    *turn_word(VGPU_ENGINE_TO_DEVICE) = VGPU_TURN_RUNNING;
    assert_int_equal(steps(), 0);
    BEGIN(WRITE_VALUE_32, 1, 2, 3);
    post_it(1);
    assert_int_equal(steps(), 0);
    assert_true(sent_is(VGPU_LINK_ASK, VGPU_ENGINE_COMPUTE));
}

static void test_stream_sync_waits_for_calls_in_its_stream(void **state)
{
    const uint64_t mine = make(VGPU_CMD_STREAM_CREATE, 0), other = make(VGPU_CMD_STREAM_CREATE, 0);

    (void)state;
    close_turn(VGPU_ENGINE_COMPUTE);
    post_box(0, VGPU_COPY_ON_DEVICE, mine); /* at the head */
    BEGIN(FILL_ROWS, 0x7000, 16, 0, 4, 4, 2, mine);
    post_it(0); /* behind it */
    post_value(VGPU_CMD_STREAM_SYNC, 1, mine);
    post_value(VGPU_CMD_STREAM_SYNC, 2, other);
    post_value(VGPU_CMD_STREAM_QUERY, 3, mine);
    post_value(VGPU_CMD_STREAM_QUERY, 4, other);
    post_value(VGPU_CMD_STREAM_SYNC, 5, 0);
    assert_int_equal(steps(), 0);
    assert_false(answered(1) || answered(5));
    assert_int_equal(result_of(2), VGPU_GPU_SUCCESS);
    assert_int_equal(result_of(3), VGPU_GPU_NOT_READY);
    assert_int_equal(result_of(4), VGPU_GPU_SUCCESS);
    *turn_word(VGPU_ENGINE_COMPUTE) = VGPU_TURN_RUNNING;
    assert_int_equal(steps(), 0);
    assert_string_equal(fake_log(), "copy rows fill rows");
    assert_false(answered(1) || answered(5));
    fake_finish();
    assert_int_equal(steps(), 0);
    assert_true(answered(1) && answered(5));
}

/* The same for a call that is at the head alone. */
static void test_stream_sync_and_the_call_at_the_head(void **state)
{
    const uint64_t mine = make(VGPU_CMD_STREAM_CREATE, 0), other = make(VGPU_CMD_STREAM_CREATE, 0);

    (void)state;
    close_turn(VGPU_ENGINE_TO_DEVICE);
    post_box(0, VGPU_COPY_TO_DEVICE, mine);
    post_value(VGPU_CMD_STREAM_SYNC, 1, mine);
    post_value(VGPU_CMD_STREAM_SYNC, 2, other);
    assert_int_equal(steps(), 0);
    assert_false(answered(1));
    assert_true(answered(2));
}

/* Estimates ----------------------------------------------------------------------------------- */

/* Runs the call that was begun, for so long. */
static void run_for(uint64_t ns)
{
    post_it(1);
    assert_int_equal(steps(), 0);
    test_clock_ns += ns;
    fake_finish();
    assert_int_equal(steps(), 0);
    assert_int_equal(result_of(1), VGPU_GPU_SUCCESS);
}

/* How long the call that was begun is expected to take. */
static uint64_t expected(enum vgpu_engine engine)
{
    uint64_t ns;

    *turn_word(engine) = VGPU_TURN_CLOSED;
    post_it(1);
    assert_int_equal(steps(), 0);
    ns = fixture.session.taken.piece.ns;
    *turn_word(engine) = VGPU_TURN_RUNNING;
    run_for(ns);
    return ns;
}

static bool about(uint64_t value, uint64_t wanted)
{
    return value > wanted - wanted / 8 && value < wanted + wanted / 8;
}

static void test_launches_are_known_by_their_weights(void **state)
{
    const uint64_t module = make_module();
    const uint64_t stream = make(VGPU_CMD_STREAM_CREATE, 0);
    struct launch launch = {make_function(module, "f"), {2, 2, 2}, {3, 3, 3}, 4, 0};
    const struct launch first = launch;

    (void)state;
    test_clock_ns = NS_PER_S;
    for (int i = 0; i < 20; i++) {
        begin_launch(&launch, NULL, 0, "12345678", 8);
        run_for(7 * NS_PER_MS);
    }
    begin_launch(&launch, NULL, 0, "12345678", 8);
    post_it(1);
    assert_int_equal(steps(), 0);
    assert_true(about(fixture.session.taken.piece.ns, 7 * NS_PER_MS));
    test_clock_ns += 7 * NS_PER_MS;
    fake_finish();
    assert_int_equal(steps(), 0);
    /* Its stream and its parameters have no weight. */
    launch.stream = stream;
    begin_launch(&launch, NULL, 0, "87654321", 4);
    post_it(1);
    assert_int_equal(steps(), 0);
    assert_true(about(fixture.session.taken.piece.ns, 7 * NS_PER_MS));
    test_clock_ns += 7 * NS_PER_MS;
    fake_finish();
    for (int i = 0; i < 7; i++) {
        launch = first;
        *(i < 3 ? &launch.grid[i] : i < 6 ? &launch.block[i - 3] : &launch.shared) += 1;
        begin_launch(&launch, NULL, 0, "12345678", 8);
        post_it(1);
        assert_int_equal(steps(), 0);
        assert_int_equal(fixture.session.taken.piece.ns, NS_PER_MS); /* a guess */
        fake_finish();
        assert_int_equal(steps(), 0);
    }
}

static void test_copies_are_guessed_by_their_size(void **state)
{
    static const uint64_t sizes[][4] = {
        /* width, height, depth, bytes or a piece */
        {1024, 1, 1, 1024},
        {1024, 16, 1, 16384},
        {1024, 16, 3, 49152},
        {ESTIMATE_COPY_PIECE, 1, 1, ESTIMATE_COPY_PIECE},
        {ESTIMATE_COPY_PIECE, 9, 9, ESTIMATE_COPY_PIECE},
    };

    (void)state;
    test_clock_ns = NS_PER_S;
    for (size_t i = 0; i < sizeof(sizes) / sizeof(sizes[0]); i++) {
        const uint64_t width = sizes[i][0], height = sizes[i][1];
        const struct box box = {0x7000, width, height, 0x8000,      width,
                                height, width, height, sizes[i][2], VGPU_COPY_ON_DEVICE,
                                0};

        begin_box(&box);
        assert_int_equal(expected(VGPU_ENGINE_COMPUTE), 10 * NS_PER_US + sizes[i][3] / 8);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(test_calls_behind_work_that_waits),
        TEST(test_load_behind_work_that_waits),
        TEST(test_load_beside_a_stream_that_waits_for_the_program),
        TEST(test_calls_go_to_their_engines),
        TEST(test_short_copy_finds_no_engine),
        TEST(test_stream_sync_waits_for_calls_in_its_stream),
        TEST(test_stream_sync_and_the_call_at_the_head),
        TEST(test_launches_are_known_by_their_weights),
        TEST(test_copies_are_guessed_by_their_size),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
