/* SPDX-License-Identifier: MIT */
/*
 * A session's work on the GPU: how much of it may be there at a time, what is learned from it, and
 * what it costs to watch. The test plays the GPU, whose streams finish what they are told to.
 *
 * Tests: worker/flight*.c
 */
#include <stdlib.h>
#include <string.h>

#include "common/clock.h"
#include "tests/unit/unit.h"
#include "worker/flight.h"

#define WINDOW (100 * NS_PER_US)
#define START NS_PER_S
#define STREAMS 128

/* The GPU ------------------------------------------------------------------------------------- */

struct gpu_stream {
    uint64_t submitted, done; /* pieces */
};

static struct {
    struct gpu head;
    struct gpu_stream streams[STREAMS]; /* the first one is the default one */
    unsigned fences, fence_calls;       /* that are held; made so far */
    bool no_fences;                     /* none can be made */
} gpu;

static struct vgpu_turn_page page;
static struct flight flight;
static struct predictor predictor;
static uint64_t now;

static struct gpu_stream *real(struct gpu_stream *stream)
{
    return stream ? stream : &gpu.streams[0];
}

static enum vgpu_gpu_error poll_until(const struct gpu_stream *stream, uint64_t position)
{
    if (gpu.head.lost != VGPU_GPU_SUCCESS) {
        return gpu.head.lost;
    }
    return stream->done >= position ? VGPU_GPU_SUCCESS : VGPU_GPU_NOT_READY;
}

static enum vgpu_gpu_error fake_fence(struct gpu *g, struct gpu_stream *stream,
                                      struct gpu_fence *fence)
{
    (void)g;
    gpu.fence_calls++;
    if (gpu.no_fences || gpu.head.lost != VGPU_GPU_SUCCESS) {
        return VGPU_GPU_OUT_OF_MEMORY;
    }
    *fence = (struct gpu_fence){.mark = real(stream), .position = real(stream)->submitted};
    gpu.fences++;
    return VGPU_GPU_SUCCESS;
}

static enum vgpu_gpu_error fake_fence_poll(struct gpu *g, const struct gpu_fence *fence)
{
    (void)g;
    return poll_until(fence->mark, fence->position);
}

static void fake_fence_release(struct gpu *g, struct gpu_fence *fence)
{
    (void)g;
    assert_non_null(fence->mark);
    fence->mark = NULL;
    gpu.fences--;
}

static enum vgpu_gpu_error fake_stream_poll(struct gpu *g, struct gpu_stream *stream)
{
    (void)g;
    return poll_until(real(stream), real(stream)->submitted);
}

static const struct gpu_ops fake_ops = {
    .fence = fake_fence,
    .fence_poll = fake_fence_poll,
    .fence_release = fake_fence_release,
    .stream_poll = fake_stream_poll,
};

static int set_up(void **state)
{
    (void)state;
    memset(&gpu, 0, sizeof(gpu));
    memset(&page, 0, sizeof(page));
    memset(&predictor, 0, sizeof(predictor));
    gpu.head.ops = &fake_ops;
    page.terms.window_ns = WINDOW;
    now = START;
    flight_init(&flight, &gpu.head, &page);
    return 0;
}

static int tear_down(void **state)
{
    (void)state;
    flight_release(&flight);
    return gpu.fences != 0;
}

/* Number 0 is the default one. */
static struct gpu_stream *stream(unsigned number)
{
    return number == 0 ? NULL : &gpu.streams[number];
}

/* Pieces ------------------------------------------------------------------------------------- */

static struct flight_piece piece_in(unsigned number, uint64_t ns)
{
    return (struct flight_piece){
        .engine = VGPU_ENGINE_COMPUTE, .stream = stream(number), .ns = ns, .part = PREDICT_WHOLE};
}

static bool may(uint64_t ns)
{
    const struct flight_piece piece = piece_in(0, ns);

    return flight_may(&flight, &piece, now);
}

static void add_piece(const struct flight_piece *piece)
{
    assert_true(flight_may(&flight, piece, now));
    real(piece->stream)->submitted++;
    flight_add(&flight, piece, now);
}

static void add(uint64_t ns)
{
    const struct flight_piece piece = piece_in(0, ns);

    add_piece(&piece);
}

/* Of this kind, as it is predicted. */
static void add_kind(struct prediction *prediction)
{
    struct flight_piece piece = piece_in(0, prediction->ns);

    piece.prediction = prediction;
    add_piece(&piece);
}

/* So many pieces more of a stream are done. */
static void finish(unsigned number, uint64_t count)
{
    struct gpu_stream *s = &gpu.streams[number];

    s->done = count < s->submitted - s->done ? s->done + count : s->submitted;
}

static void finish_all(void)
{
    for (unsigned i = 0; i < STREAMS; i++) {
        gpu.streams[i].done = gpu.streams[i].submitted;
    }
}

/* All is done after so long. */
static void pass(uint64_t ns)
{
    now += ns;
    finish_all();
    flight_poll(&flight, now);
    assert_true(flight_idle(&flight));
    assert_int_equal(page.counters.in_flight, 0);
}

/* The window --------------------------------------------------------------------------------- */

static void test_alone_much_is_in_flight(void **state)
{
    (void)state;
    page.terms.window_ns = 0;
    for (unsigned i = 0; i < FLIGHT_PIECES; i++) {
        add(1000);
    }
    assert_false(may(1)); /* the driver has no room for more */
    assert_int_equal(page.counters.in_flight, FLIGHT_PIECES);
}

/* Whoever comes later waits for it, and ends who does not end. */
static void test_alone_not_minutes_are_in_flight(void **state)
{
    unsigned count = 0;

    (void)state;
    page.terms.window_ns = 0;
    while (may(100 * NS_PER_MS)) {
        add(100 * NS_PER_MS);
        count++;
    }
    assert_int_equal(count, 51); /* 5 s, and one more */
    now += 101 * NS_PER_MS;
    assert_true(may(100 * NS_PER_MS));
}

/* The next one is submitted just before the last one ends. */
static void test_long_kernels_go_one_by_one(void **state)
{
    (void)state;
    add(10 * WINDOW);
    for (int i = 0; i < 5; i++) {
        assert_false(may(1));
        /* It may be over by an eighth of its time earlier. */
        assert_int_equal(flight_next(&flight, now), 9 * WINDOW - 10 * WINDOW / 8);
        now += 9 * WINDOW - 1;
        assert_false(may(1));
        assert_int_equal(flight_next(&flight, now), 0);
        now += 1;
        add(10 * WINDOW);
        assert_int_equal(flight_remaining(&flight, VGPU_ENGINE_COMPUTE, now), 11 * WINDOW);
        assert_false(may(1));
        now += WINDOW;
        assert_false(may(1));
        finish(0, 1);
        assert_true(flight_poll(&flight, now));
        assert_false(flight_poll(&flight, now));
        assert_int_equal(flight_remaining(&flight, VGPU_ENGINE_COMPUTE, now), 10 * WINDOW);
    }
}

static void test_short_kernels_go_in_a_row(void **state)
{
    unsigned count = 0;

    (void)state;
    while (may(WINDOW / 10)) {
        add(WINDOW / 10);
        count++;
    }
    assert_int_equal(count, 11); /* a window, and one piece more */
    /* As time passes there is room for one after the other. */
    for (int i = 0; i < 5; i++) {
        now += WINDOW / 10 - 1;
        assert_false(may(1));
        now += 1;
        add(WINDOW / 10);
        assert_false(may(1));
    }
}

static void test_window_that_changes(void **state)
{
    (void)state;
    page.terms.window_ns = 0;
    add(10 * WINDOW);
    add(10 * WINDOW);
    page.terms.window_ns = WINDOW;
    assert_false(may(1));
    page.terms.window_ns = 20 * WINDOW;
    assert_true(may(1));
    page.terms.window_ns = 0;
    assert_true(may(1));
}

/* Whoever says too little has two of them on the GPU, however long they take. */
static void test_wrong_prediction_puts_two_in_flight(void **state)
{
    unsigned count = 0;

    (void)state;
    for (int i = 0; i < 1000; i++) {
        if (may(2 * WINDOW)) {
            add(2 * WINDOW);
            count++;
        }
        flight_poll(&flight, now);
        now += WINDOW;
    }
    assert_int_equal(count, 2);
}

/* Several streams ---------------------------------------------------------------------------- */

static void test_streams_as_far_as_they_fill_the_gpu(void **state)
{
    struct flight_piece piece;

    (void)state;
    for (unsigned i = 1; i <= 4; i++) {
        piece = piece_in(i, 10 * WINDOW);
        piece.part = PREDICT_WHOLE / 4;
        add_piece(&piece);
    }
    piece = piece_in(5, 10 * WINDOW);
    piece.part = 1;
    assert_false(flight_may(&flight, &piece, now));
    /* Nor in the default one; nor a second one behind each. */
    piece.stream = NULL;
    assert_false(flight_may(&flight, &piece, now));
    piece.stream = stream(1);
    assert_false(flight_may(&flight, &piece, now));
    /* A copy is no matter of theirs. */
    piece = piece_in(5, 10 * WINDOW);
    piece.engine = VGPU_ENGINE_TO_DEVICE;
    assert_true(flight_may(&flight, &piece, now));
    /* When one has ended there is room for one of its size. */
    finish(3, 1);
    flight_poll(&flight, now);
    piece = piece_in(5, 10 * WINDOW);
    piece.part = PREDICT_WHOLE / 4;
    assert_true(flight_may(&flight, &piece, now));
    piece.part++;
    assert_false(flight_may(&flight, &piece, now));
}

static void test_streams_that_are_about_to_end(void **state)
{
    struct flight_piece piece = piece_in(1, 10 * WINDOW);

    (void)state;
    add_piece(&piece);
    piece.stream = stream(2);
    assert_false(flight_may(&flight, &piece, now));
    now += 9 * WINDOW - 1;
    assert_false(flight_may(&flight, &piece, now));
    now += 1;
    assert_true(flight_may(&flight, &piece, now));
}

static void test_more_streams_than_are_watched(void **state)
{
    struct flight_piece piece;

    (void)state;
    for (unsigned i = 1; i <= FLIGHT_SEGMENTS; i++) {
        piece = piece_in(i, 10);
        piece.part = 1;
        add_piece(&piece);
    }
    piece = piece_in(FLIGHT_SEGMENTS + 1, 10);
    piece.part = 1;
    assert_false(flight_may(&flight, &piece, now));
    finish(7, 1);
    flight_poll(&flight, now);
    assert_true(flight_may(&flight, &piece, now));
    assert_int_equal(gpu.fence_calls, 0);
}

/* Learning ----------------------------------------------------------------------------------- */

static void test_learns_from_what_was_measured(void **state)
{
    struct prediction *p = predict_find(&predictor, 7, NS_PER_MS);

    (void)state;
    add_kind(p);
    assert_false(may(1)); /* not known: one at a time */
    pass(5 * NS_PER_US);
    assert_int_equal(p->ns, 5 * NS_PER_US);
    add_kind(p);
    assert_true(may(1));
    pass(5 * NS_PER_US);
}

static void test_learns_nothing_when_disturbed(void **state)
{
    struct prediction *p = predict_find(&predictor, 7, NS_PER_US);

    (void)state;
    add_kind(p);
    flight_disturb(&flight);
    pass(NS_PER_S);
    assert_int_equal(p->ns, NS_PER_US);
    assert_false(p->measured);
    /* That was then. */
    add_kind(p);
    pass(2 * NS_PER_US);
    assert_int_equal(p->ns, 2 * NS_PER_US);
}

/* Another kind has the place by then. */
static void test_learns_nothing_about_another_kind(void **state)
{
    struct prediction *p = predict_find(&predictor, 7, NS_PER_US);

    (void)state;
    add_kind(p);
    assert_ptr_equal(predict_find(&predictor, 7 + PREDICT_PLACES, 33), p);
    pass(NS_PER_S);
    assert_int_equal(p->ns, 33);
    assert_false(p->measured);
}

/* Equal pieces in one segment are one lesson: not one for each, on top of each other. */
static void test_equal_pieces_in_a_row_are_one_lesson(void **state)
{
    (void)state;
    for (unsigned count = 2; count <= FLIGHT_LEARNERS; count *= 2) {
        struct prediction *p = predict_find(&predictor, count, NS_PER_US);

        page.terms.window_ns = 0;
        for (unsigned i = 0; i < count; i++) {
            add_kind(p);
        }
        pass(10 * count * NS_PER_US); /* ten times as long */
        assert_in_range(p->ns, 9 * NS_PER_US, 11 * NS_PER_US);
        for (unsigned i = 0; i < count; i++) {
            add_kind(p);
        }
        pass(20 * count * NS_PER_US);
        assert_in_range(p->ns, 12 * NS_PER_US, 20 * NS_PER_US);
    }
}

/* The second one was submitted when the first one was not measured yet. */
static void test_two_of_an_unknown_kind_at_a_time(void **state)
{
    static const uint64_t lengths[] = {10 * NS_PER_US, 100 * NS_PER_MS};

    (void)state;
    for (unsigned i = 0; i < 2; i++) {
        struct prediction *p = predict_find(&predictor, 7 + i, NS_PER_MS);

        add_kind(p);
        now += NS_PER_MS - WINDOW;
        add_kind(p);
        now = now - (NS_PER_MS - WINDOW) + lengths[i];
        finish(0, 1);
        flight_poll(&flight, now);
        assert_in_range(p->ns, lengths[i] * 9 / 10, lengths[i] * 11 / 10);
        pass(lengths[i]);
        assert_in_range(p->ns, lengths[i] * 9 / 10, lengths[i] * 11 / 10);
    }
}

/* A long one and a short one in one segment: each is as wrong as both. */
static void test_different_pieces_in_a_row(void **state)
{
    struct prediction *a = predict_find(&predictor, 7, 20 * NS_PER_US);
    struct prediction *b = predict_find(&predictor, 8, 2 * NS_PER_US);

    (void)state;
    for (int i = 0; i < 2; i++) {
        add_kind(a);
        add_kind(b);
        pass((a->ns + b->ns) * (i == 0 ? 2 : 1));
        assert_in_range(a->ns, 39 * NS_PER_US, 41 * NS_PER_US);
        assert_in_range(b->ns, 3900, 4100);
    }
}

/* Whoever could not look for a while has seen two ends at once. */
static void test_ends_that_are_seen_late(void **state)
{
    struct prediction *p = predict_find(&predictor, 7, 80 * NS_PER_US);
    const uint64_t both = 160 * NS_PER_US;

    (void)state;
    for (int i = 0; i < 20; i++) {
        const uint64_t wait = p->ns > WINDOW ? p->ns - WINDOW : 0;

        add_kind(p);
        now += wait;
        add_kind(p);
        pass(both - wait);
        assert_in_range(p->ns, 80 * NS_PER_US, both);
    }
}

/* The first work of a turn, with what the GPU takes to turn to this process. */
static void have_a_turn(struct prediction *prediction, uint64_t ns)
{
    struct flight_piece piece = piece_in(0, prediction->ns);

    piece.prediction = prediction;
    piece.first = true;
    add_piece(&piece);
    pass(ns);
}

static void test_switch_is_no_part_of_the_work(void **state)
{
    const uint64_t work = 50 * NS_PER_US, turning = 300 * NS_PER_US;
    struct prediction *p = predict_find(&predictor, 7, work);
    struct flight_piece piece = piece_in(0, work);

    (void)state;
    add_kind(p);
    pass(work);
    for (int i = 0; i < 30; i++) {
        have_a_turn(p, work + turning);
    }
    assert_int_equal(p->ns, work);
    /* But of what others wait for. */
    piece.first = true;
    add_piece(&piece);
    assert_in_range(flight_remaining(&flight, VGPU_ENGINE_COMPUTE, now), work + turning / 2,
                    work + turning);
    pass(work + turning);
    /* Later there is nobody to turn from. */
    for (int i = 0; i < 30; i++) {
        have_a_turn(p, work);
    }
    assert_in_range(p->ns, work * 9 / 10, work);
}

/* The same where the work is long against the switch. */
static void test_switch_that_is_over(void **state)
{
    const uint64_t work = 2 * NS_PER_MS, turning = 300 * NS_PER_US;
    struct prediction *p = predict_find(&predictor, 7, work);

    (void)state;
    add_kind(p);
    pass(work);
    for (int i = 0; i < 30; i++) {
        have_a_turn(p, work + turning);
    }
    assert_int_equal(p->ns, work);
    for (int i = 0; i < 30; i++) {
        have_a_turn(p, work);
    }
    assert_in_range(p->ns, work * 9 / 10, work);
    assert_true(flight.switch_ns < turning / 4);
}

/* Limits ------------------------------------------------------------------------------------- */

static void test_limit_on_commands(void **state)
{
    (void)state;
    page.terms.window_ns = 0;
    for (uint32_t limit = 1; limit < 40; limit++) {
        page.terms.commands = limit;
        for (uint32_t i = 0; i < limit; i++) {
            add(1);
        }
        assert_false(may(1));
        /* A slot is free before all is done. */
        finish(0, limit / 2 + 1);
        flight_poll(&flight, now);
        assert_true(may(1));
        pass(1);
    }
    page.terms.commands = UINT32_MAX;
    for (unsigned i = 0; i < FLIGHT_PIECES; i++) {
        add(1);
    }
    assert_false(may(1));
}

static void test_piece_that_takes_too_long(void **state)
{
    (void)state;
    page.terms.kernel_ns = NS_PER_MS;
    add(10);
    now += NS_PER_MS;
    assert_false(flight_overlong(&flight, now));
    assert_true(flight_overlong(&flight, now + 1));
    page.terms.kernel_ns = 0;
    assert_false(flight_overlong(&flight, now + NS_PER_S));
}

/* Many that take long together are none that takes too long. */
static void test_pieces_that_take_long_together(void **state)
{
    struct prediction prediction = {.kind = 1, .ns = NS_PER_MS / 2, .measured = true};

    (void)state;
    page.terms.window_ns = 0;
    page.terms.kernel_ns = NS_PER_MS;
    for (unsigned i = 0; i < FLIGHT_SEGMENTS; i++) {
        add_kind(&prediction);
    }
    for (unsigned i = 0; i < FLIGHT_SEGMENTS; i++) {
        assert_false(flight_overlong(&flight, now));
        now += NS_PER_MS - 1;
        finish(0, 1);
        flight_poll(&flight, now);
    }
    assert_true(flight_idle(&flight));
}

/* Of two streams one may have had to wait for the other. */
static void test_too_long_behind_another_stream(void **state)
{
    struct flight_piece piece = piece_in(1, 10);

    (void)state;
    page.terms.kernel_ns = NS_PER_MS;
    piece.part = 1;
    add_piece(&piece);
    piece.stream = stream(2);
    add_piece(&piece);
    now += NS_PER_MS;
    finish(1, 1);
    flight_poll(&flight, now);
    assert_false(flight_overlong(&flight, now + NS_PER_MS));
    assert_true(flight_overlong(&flight, now + NS_PER_MS + 1));
}

/* Whoever keeps another stream busy with small ones gains no time for the long one. */
static void test_too_long_beside_another_stream(void **state)
{
    struct flight_piece piece = piece_in(1, 10);

    (void)state;
    page.terms.kernel_ns = NS_PER_MS;
    piece.part = 1;
    add_piece(&piece);
    for (int i = 0; i < 300 && !flight_overlong(&flight, now); i++) {
        piece = piece_in(2, 10);
        piece.part = 1;
        add_piece(&piece);
        now += NS_PER_MS / 10;
        finish(2, 1);
        flight_poll(&flight, now);
    }
    assert_true(flight_overlong(&flight, now));
}

/* Gates -------------------------------------------------------------------------------------- */

static void add_gate(unsigned number)
{
    struct flight_piece piece = piece_in(number, 0);

    piece.part = 0;
    piece.gate = true;
    add_piece(&piece);
}

static void add_kernel(unsigned number, struct prediction *prediction)
{
    struct flight_piece piece = piece_in(number, prediction->ns);

    piece.prediction = prediction;
    piece.part = 1;
    add_piece(&piece);
}

static void test_gate_may_stand_for_long(void **state)
{
    struct prediction known = {.kind = 7, .ns = 10};

    (void)state;
    page.terms.kernel_ns = NS_PER_MS;
    add_gate(1);
    add_kernel(1, &known);
    now += NS_PER_S;
    assert_false(flight_overlong(&flight, now));
    /* From then on the kernel has its time. */
    finish(1, 1);
    flight_poll(&flight, now);
    assert_false(flight_overlong(&flight, now + NS_PER_MS));
    assert_true(flight_overlong(&flight, now + NS_PER_MS + 1));
}

/* A gate does not hide what comes behind it, when a limit comes later. */
static void test_kernels_behind_a_gate_are_no_gate(void **state)
{
    struct prediction known = {.kind = 7, .ns = 10};

    (void)state;
    add_kernel(1, &known);
    add_gate(1);
    for (int i = 0; i < 3; i++) {
        add_kernel(1, &known);
    }
    finish(1, 2);
    flight_poll(&flight, now);
    page.terms.kernel_ns = NS_PER_MS;
    assert_true(flight_overlong(&flight, now + 3 * NS_PER_MS + 1));
}

/* Gates that end one by one gain a long kernel beside them no time. */
static void test_gates_give_no_time(void **state)
{
    struct prediction known = {.kind = 7, .ns = 10};
    uint64_t begun;

    (void)state;
    page.terms.kernel_ns = 100 * NS_PER_MS;
    for (unsigned i = 0; i < FLIGHT_SEGMENTS - 2; i++) {
        add_gate(1);
    }
    add_kernel(2, &known);
    begun = now;
    while (!flight_overlong(&flight, now) && now - begun < NS_PER_S) {
        now += 90 * NS_PER_MS;
        finish(1, 1);
        flight_poll(&flight, now);
    }
    assert_in_range(now - begun, 0, 200 * NS_PER_MS);
}

/* What runs beside a gate may have waited for it. */
static void test_learns_nothing_beside_a_gate(void **state)
{
    struct prediction known = {.kind = 7, .ns = 10};

    (void)state;
    add_gate(1);
    add_kernel(2, &known);
    now += NS_PER_S;
    finish(1, 1);
    finish(2, 1);
    flight_poll(&flight, now);
    assert_int_equal(known.ns, 10);
    add_kernel(2, &known);
    now += NS_PER_MS;
    finish(2, 1);
    flight_poll(&flight, now);
    assert_in_range(known.ns, 11, NS_PER_MS);
}

/* Watching ----------------------------------------------------------------------------------- */

static void test_launches_that_are_waited_for_cost_no_fence(void **state)
{
    (void)state;
    for (int i = 0; i < 1000; i++) {
        add(WINDOW / 10);
        pass(WINDOW / 10);
    }
    assert_int_equal(gpu.fence_calls, 0);
}

static void test_what_is_long_costs_one_fence(void **state)
{
    (void)state;
    for (unsigned i = 1; i <= 10; i++) {
        add(WINDOW);
        assert_int_equal(gpu.fences, 1);
        pass(WINDOW);
        assert_int_equal(gpu.fence_calls, i);
        assert_int_equal(gpu.fences, 0);
    }
}

static void test_many_small_ones_cost_few_fences(void **state)
{
    (void)state;
    page.terms.window_ns = 0;
    for (unsigned i = 0; i < FLIGHT_PIECES; i++) {
        add(1);
    }
    assert_int_equal(gpu.fence_calls, FLIGHT_PIECES / FLIGHT_SEGMENT_PIECES);
    finish(0, FLIGHT_SEGMENT_PIECES - 1);
    assert_false(flight_poll(&flight, now));
    finish(0, 1);
    assert_true(flight_poll(&flight, now));
    assert_int_equal(page.counters.in_flight, FLIGHT_PIECES - FLIGHT_SEGMENT_PIECES);
    pass(1);
}

static void test_fence_that_cannot_be_made(void **state)
{
    (void)state;
    gpu.no_fences = true;
    add(10 * WINDOW);
    finish_all();
    assert_true(flight_poll(&flight, now));
    assert_true(flight_idle(&flight));
}

static void test_lost_context_ends_all(void **state)
{
    (void)state;
    add(10 * WINDOW);
    now += 9 * WINDOW;
    add(10 * WINDOW);
    gpu.head.lost = VGPU_GPU_ILLEGAL_ADDRESS;
    assert_true(flight_poll(&flight, now));
    assert_true(flight_idle(&flight));
    assert_int_equal(gpu.fences, 0);
    assert_int_equal(page.counters.in_flight, 0);
}

static void test_stream_that_goes(void **state)
{
    struct flight_piece piece = piece_in(1, WINDOW);

    (void)state;
    add_piece(&piece);
    add_piece(&piece);
    piece.stream = stream(2);
    piece.engine = VGPU_ENGINE_FROM_DEVICE;
    add_piece(&piece);
    now += 2 * WINDOW;
    finish(1, 2);
    flight_forget(&flight, stream(1), now);
    assert_false(flight_busy(&flight, VGPU_ENGINE_COMPUTE));
    assert_true(flight_busy(&flight, VGPU_ENGINE_FROM_DEVICE));
    assert_int_equal(page.counters.in_flight, 1);
    flight_forget(&flight, stream(1), now); /* nothing is left of it */
    flight_forget(&flight, stream(2), now);
    assert_true(flight_idle(&flight));
    assert_int_equal(gpu.fences, 0);
    assert_int_equal(page.counters.gpu_ns[VGPU_ENGINE_COMPUTE], 2 * WINDOW);
}

/* Time --------------------------------------------------------------------------------------- */

static void test_time_of_an_engine_is_counted_once(void **state)
{
    struct flight_piece piece;

    (void)state;
    for (unsigned i = 1; i <= 4; i++) {
        piece = piece_in(i, WINDOW);
        piece.part = PREDICT_WHOLE / 4;
        add_piece(&piece);
    }
    for (unsigned i = 1; i <= 4; i++) {
        now += 1000;
        finish(i, 1);
        flight_poll(&flight, now);
        assert_int_equal(page.counters.gpu_ns[VGPU_ENGINE_COMPUTE], 1000 * i);
        assert_int_equal(flight.idle_ns[VGPU_ENGINE_COMPUTE], now);
    }
    now += NS_PER_S; /* nothing is there */
    add(10);
    pass(500);
    assert_int_equal(page.counters.gpu_ns[VGPU_ENGINE_COMPUTE], 4500);
    assert_int_equal(page.counters.gpu_ns[VGPU_ENGINE_TO_DEVICE], 0);
}

static void test_time_of_two_engines_in_one_stream(void **state)
{
    struct flight_piece piece = piece_in(0, 1000);

    (void)state;
    add_piece(&piece);
    piece.engine = VGPU_ENGINE_TO_DEVICE;
    piece.ns = 3000;
    add_piece(&piece);
    pass(8000);
    assert_int_equal(page.counters.gpu_ns[VGPU_ENGINE_COMPUTE], 2000);
    assert_int_equal(page.counters.gpu_ns[VGPU_ENGINE_TO_DEVICE], 6000);
}

/* At random ---------------------------------------------------------------------------------- */

#define SOME 6u /* streams */

static unsigned seed;

static unsigned any(unsigned below)
{
    return (unsigned)rand_r(&seed) % below;
}

static void add_any(void)
{
    struct flight_piece piece = piece_in(any(SOME), any(4) == 0 ? any(10 * WINDOW) : any(WINDOW));

    piece.engine = (enum vgpu_engine)any(VGPU_ENGINES);
    piece.part = any(4) == 0 ? PREDICT_WHOLE : 1 + any(PREDICT_WHOLE);
    piece.prediction = any(3) == 0 ? NULL : predict_find(&predictor, 1 + any(600), piece.ns);
    if (flight_may(&flight, &piece, now)) {
        add_piece(&piece);
    }
}

/* What the GPU has of a stream, against what is watched of it. */
static void check_stream(unsigned number, bool polled)
{
    const struct gpu_stream *s = &gpu.streams[number];
    const struct flight_segment *before = NULL;
    uint64_t first = 0, sum = 0;

    for (const struct flight_segment *e = flight.first; e; e = e->next) {
        if (e->stream != stream(number)) {
            continue;
        }
        assert_ptr_equal(e->before, before);
        assert_true(before == NULL || before->closed);
        assert_in_range(e->pieces, 1, FLIGHT_SEGMENT_PIECES);
        first = sum == 0 ? e->pieces : first;
        sum += e->pieces;
        before = e;
    }
    assert_true(s->submitted - s->done <= sum);
    if (polled) {
        assert_true(sum == 0 || s->submitted - s->done > sum - first);
    }
}

static void check(bool polled)
{
    unsigned used = 0, free_ones = 0, closed = 0, pieces = 0;

    for (unsigned i = 0; i < SOME; i++) {
        check_stream(i, polled);
    }
    for (const struct flight_segment *s = flight.first; s; s = s->next) {
        used++;
        closed += s->closed;
        pieces += s->pieces;
        assert_true(s->next || s == flight.last);
    }
    for (const struct flight_segment *s = flight.free; s; s = s->next) {
        free_ones++;
    }
    assert_int_equal(used + free_ones, FLIGHT_SEGMENTS);
    assert_int_equal(gpu.fences, closed);
    assert_int_equal(flight.pieces, pieces);
    assert_int_equal(page.counters.in_flight, pieces);
}

static void change_terms(void)
{
    static const uint64_t windows[] = {0, WINDOW, WINDOW / 10, 10 * WINDOW};
    static const uint32_t commands[] = {0, 1, 10, 100};

    page.terms.window_ns = windows[any(4)];
    page.terms.commands = commands[any(4)];
    page.terms.kernel_ns = any(2) * NS_PER_MS;
}

static void one_step(void)
{
    const unsigned what = any(100);
    const unsigned number = any(SOME);

    if (what < 60) {
        add_any();
    } else if (what < 80) {
        finish(number, 1 + any(20));
    } else if (what < 82) {
        finish(number, UINT32_MAX);
        flight_forget(&flight, stream(number), now);
        check_stream(number, true);
    } else if (what < 83) {
        change_terms();
    } else if (what < 84) {
        flight_disturb(&flight);
    } else {
        now += any(WINDOW);
        flight_poll(&flight, now);
    }
    check(what >= 84);
}

static void test_anything_at_any_time(void **state)
{
    (void)state;
    for (seed = 1; seed < 20;) {
        const unsigned this = seed;

        for (int i = 0; i < 5000; i++) {
            one_step();
        }
        pass(1);
        check(true);
        for (unsigned i = 0; i < VGPU_ENGINES; i++) {
            assert_in_range(page.counters.gpu_ns[i], 1, now - START);
        }
        seed = this + 1;
    }
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(test_alone_much_is_in_flight),
        TEST(test_alone_not_minutes_are_in_flight),
        TEST(test_long_kernels_go_one_by_one),
        TEST(test_short_kernels_go_in_a_row),
        TEST(test_window_that_changes),
        TEST(test_wrong_prediction_puts_two_in_flight),
        TEST(test_streams_as_far_as_they_fill_the_gpu),
        TEST(test_streams_that_are_about_to_end),
        TEST(test_more_streams_than_are_watched),
        TEST(test_learns_from_what_was_measured),
        TEST(test_learns_nothing_when_disturbed),
        TEST(test_learns_nothing_about_another_kind),
        TEST(test_equal_pieces_in_a_row_are_one_lesson),
        TEST(test_two_of_an_unknown_kind_at_a_time),
        TEST(test_different_pieces_in_a_row),
        TEST(test_ends_that_are_seen_late),
        TEST(test_switch_is_no_part_of_the_work),
        TEST(test_switch_that_is_over),
        TEST(test_limit_on_commands),
        TEST(test_piece_that_takes_too_long),
        TEST(test_pieces_that_take_long_together),
        TEST(test_too_long_behind_another_stream),
        TEST(test_too_long_beside_another_stream),
        TEST(test_gate_may_stand_for_long),
        TEST(test_kernels_behind_a_gate_are_no_gate),
        TEST(test_gates_give_no_time),
        TEST(test_learns_nothing_beside_a_gate),
        TEST(test_launches_that_are_waited_for_cost_no_fence),
        TEST(test_what_is_long_costs_one_fence),
        TEST(test_many_small_ones_cost_few_fences),
        TEST(test_fence_that_cannot_be_made),
        TEST(test_lost_context_ends_all),
        TEST(test_stream_that_goes),
        TEST(test_time_of_an_engine_is_counted_once),
        TEST(test_time_of_two_engines_in_one_stream),
        TEST(test_anything_at_any_time),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
