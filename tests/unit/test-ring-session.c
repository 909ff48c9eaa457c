/* SPDX-License-Identifier: MIT */
/*
 * A ring session: the order of commands, what waits and what does not, which failures are
 * reported when, and turns.
 *
 * Tests: worker/ring-session.c, worker/turns.c, worker/order.c, worker/pending.c
 */
#include <errno.h>
#include <string.h>
#include <sys/socket.h>

#include "common/clock.h"
#include "tests/unit/ring-fixture.h"
#include "tests/unit/unit.h"

static void post_work(void)
{
    post_fill(0, 0x7000, 1, 4);
}

/* A guest that makes streams, gives them work and forgets them: nothing is lost, nor piled up. */
static void test_streams_that_are_destroyed_with_work(void **state)
{
    (void)state;
    post_work();
    for (int i = 0; i < 1024; i++) {
        post_value(VGPU_CMD_STREAM_DESTROY, 0, make(VGPU_CMD_STREAM_CREATE, 0));
        assert_int_equal(steps(), 0);
    }
    assert_int_equal(fake.streams, 1024);
    post(VGPU_CMD_NOP, 1, NULL, 0);
    assert_int_equal(steps(), 0);
    assert_false(answered(1));
    fake_finish();
    assert_int_equal(steps(), 0);
    assert_true(answered(1));
    assert_int_equal(fake.streams, 0);
}

/* Order and waiting -------------------------------------------------------------------------- */

static void test_commands_are_carried_out_in_their_order(void **state)
{
    (void)state;
    post_value(VGPU_CMD_MEM_ALLOC, 1, 64);
    post_copy(VGPU_COPY_ON_DEVICE, 0x7000, 0x8000, 4, 0);
    post_work();
    post(VGPU_CMD_MODULE_BUILTIN, 2, NULL, 0);
    post_copy(VGPU_COPY_ON_DEVICE, 0x7000, 0x8000, 4, 0);
    assert_int_equal(steps(), 0);
    assert_string_equal(fake_log(), "alloc copy fill module copy");
    assert_int_equal(result_of(1), VGPU_GPU_SUCCESS);
    assert_int_equal(result_of(2), VGPU_GPU_SUCCESS);
}

static void test_sync_does_not_hold_up_what_follows(void **state)
{
    (void)state;
    post_work();
    post(VGPU_CMD_SYNC, 1, NULL, 0);
    post_value(VGPU_CMD_STREAM_SYNC, 2, 0);
    post(VGPU_CMD_MEM_INFO, 3, NULL, 0);
    post_work();
    assert_int_equal(steps(), 0);
    assert_false(answered(1));
    assert_false(answered(2));
    assert_int_equal(result_of(3), VGPU_GPU_SUCCESS);
    assert_string_equal(fake_log(), "fill fill");
    /* What was posted behind it does not count. */
    fake.done = 1;
    assert_int_equal(steps(), 0);
    assert_int_equal(result_of(1), VGPU_GPU_SUCCESS);
    assert_int_equal(result_of(2), VGPU_GPU_SUCCESS);
}

static void test_sync_with_nothing_to_wait_for(void **state)
{
    (void)state;
    assert_int_equal(call(VGPU_CMD_SYNC, NULL, 0), VGPU_GPU_SUCCESS);
    assert_int_equal(call_value(VGPU_CMD_STREAM_SYNC, 0), VGPU_GPU_SUCCESS);
}

static void test_free_and_unload_wait_for_the_work_before_them(void **state)
{
    const uint64_t module = make_module();

    (void)state;
    fake_log();
    post_work();
    post_value(VGPU_CMD_MEM_FREE, 1, 0x7000);
    post_value(VGPU_CMD_MODULE_UNLOAD, 2, module);
    assert_int_equal(steps(), 0);
    assert_string_equal(fake_log(), "fill");
    assert_false(answered(1));
    assert_false(answered(2));
    fake_finish();
    assert_int_equal(steps(), 0);
    assert_string_equal(fake_log(), "free unload");
    assert_int_equal(result_of(1), VGPU_GPU_SUCCESS);
    assert_int_equal(result_of(2), VGPU_GPU_SUCCESS);
}

static void test_guest_that_uses_a_slot_twice(void **state)
{
    (void)state;
    post_work();
    post(VGPU_CMD_SYNC, 5, NULL, 0);
    post(VGPU_CMD_NOP, 5, NULL, 0);
    assert_int_equal(steps(), -EPROTO);
}

static void test_slot_is_free_again_once_answered(void **state)
{
    (void)state;
    for (int i = 0; i < 3; i++) {
        post_work();
        post(VGPU_CMD_SYNC, 5, NULL, 0);
        assert_int_equal(steps(), 0);
        assert_false(answered(5));
        fake_finish();
        assert_int_equal(steps(), 0);
        assert_true(answered(5));
    }
}

static void test_all_slots_pending(void **state)
{
    (void)state;
    post_work();
    for (uint32_t slot = 1; slot <= VGPU_SLOTS; slot++) {
        post(VGPU_CMD_SYNC, slot, NULL, 0);
    }
    assert_int_equal(steps(), 0);
    assert_int_equal(fake.fences, VGPU_SLOTS);
    fake_finish();
    assert_int_equal(steps(), 0);
    for (uint32_t slot = 1; slot <= VGPU_SLOTS; slot++) {
        assert_int_equal(result_of(slot), VGPU_GPU_SUCCESS);
    }
    assert_int_equal(fake.fences, 0);
}

/* Whoever floods the ring from one thread does not keep another from its answer. */
static void test_flood_does_not_hold_up_what_is_pending(void **state)
{
    (void)state;
    post_work();
    post(VGPU_CMD_SYNC, 1, NULL, 0);
    assert_int_equal(steps(), 0);
    fake_finish();
    for (int i = 0; i < 5000; i++) {
        post(VGPU_CMD_NOP, 0, NULL, 0);
    }
    assert_int_equal(ring_session_step(&fixture.session), 1);
    assert_true(answered(1));
    assert_int_not_equal(fixture.queue->head, fixture.queue->tail);
    assert_int_equal(steps(), 0);
    assert_int_equal(fixture.queue->head, fixture.queue->tail);
}

static void test_no_command_while_there_is_no_room(void **state)
{
    (void)state;
    fake.full = true;
    post(VGPU_CMD_NOP, 1, NULL, 0);
    post_work();
    assert_int_equal(steps(), 0);
    assert_false(answered(1));
    assert_string_equal(fake_log(), "");
    fake.full = false;
    assert_int_equal(steps(), 0);
    assert_int_equal(result_of(1), VGPU_GPU_SUCCESS);
    assert_string_equal(fake_log(), "fill");
    assert_int_equal(fixture.turn_page.counters.requests, 2);
}

static void test_release_of_a_session_that_waits(void **state)
{
    (void)state;
    make(VGPU_CMD_STREAM_CREATE, 0);
    post_work();
    post(VGPU_CMD_SYNC, 1, NULL, 0);
    post_value(VGPU_CMD_MEM_FREE, 2, 0x7000);
    assert_int_equal(steps(), 0);
    assert_int_equal(fake.fences, 4); /* for each, of the default stream and the other */
    /* fixture_tear_down() finds out whether they are given back. */
}

static void test_ring_with_no_command_ends_the_session(void **state)
{
    (void)state;
    post_work();
    fixture.queue->tail += 1;
    assert_int_equal(steps(), -EPROTO);
}

/* What came before a command that is none has been answered all the same. */
static void test_answers_before_the_end(void **state)
{
    (void)state;
    post(VGPU_CMD_NOP, 1, NULL, 0);
    post(VGPU_CMD_NOP, VGPU_SLOTS + 1, NULL, 0);
    assert_int_equal(steps(), -EPROTO);
    assert_int_equal(result_of(1), VGPU_GPU_SUCCESS);
}

/* Failures ----------------------------------------------------------------------------------- */

static void test_first_failure_is_reported_once(void **state)
{
    static const uint32_t synchronising[] = {VGPU_CMD_SYNC, VGPU_CMD_STREAM_SYNC,
                                             VGPU_CMD_EVENT_SYNC};
    const uint64_t event = make(VGPU_CMD_EVENT_CREATE, 0);

    (void)state;
    for (int i = 0; i < 3; i++) {
        const struct vgpu_cmd_value body = {.value = i == 2 ? event : 0};
        const uint32_t bytes = i == 0 ? 0 : sizeof(body);

        post_copy(VGPU_COPY_ON_DEVICE, 1, 2, 3, 999); /* no such stream */
        post_fill(0, 0x7000, 1, 3);                   /* no such width */
        /* One that answers for itself alone, and one that is no failure. */
        assert_int_equal(call(VGPU_CMD_NOP, NULL, 0), VGPU_GPU_SUCCESS);
        assert_int_equal(call_value(VGPU_CMD_MEM_FREE, 0x7000), VGPU_GPU_SUCCESS);
        assert_int_equal(call(synchronising[i], &body, bytes), VGPU_GPU_INVALID_HANDLE);
        assert_int_equal(call(synchronising[i], &body, bytes), VGPU_GPU_SUCCESS);
    }
}

static void test_failure_with_a_slot_is_not_reported_again(void **state)
{
    (void)state;
    post_fill(1, 0x7000, 1, 3);
    assert_int_equal(steps(), 0);
    assert_int_equal(result_of(1), VGPU_GPU_INVALID_VALUE);
    assert_int_equal(call(VGPU_CMD_SYNC, NULL, 0), VGPU_GPU_SUCCESS);
}

/* Posted behind the sync, but before it is answered: one of the two reports it. */
static void test_failure_while_a_sync_waits(void **state)
{
    (void)state;
    post_work();
    post(VGPU_CMD_SYNC, 1, NULL, 0);
    post_fill(0, 0x7000, 1, 3);
    assert_int_equal(steps(), 0);
    assert_false(answered(1));
    fake_finish();
    assert_int_equal(steps(), 0);
    assert_int_equal(result_of(1), VGPU_GPU_INVALID_VALUE);
    assert_int_equal(call(VGPU_CMD_SYNC, NULL, 0), VGPU_GPU_SUCCESS);
}

static void test_failure_of_the_gpu_is_deferred_too(void **state)
{
    (void)state;
    fake.next = VGPU_GPU_OUT_OF_MEMORY;
    post_work();
    assert_int_equal(call(VGPU_CMD_SYNC, NULL, 0), VGPU_GPU_OUT_OF_MEMORY);
    assert_int_equal(fixture.turn_page.counters.errors, 1);
    assert_int_equal(fixture.turn_page.counters.requests, 2);
}

static void test_lost_context_fails_all_that_waits_and_comes(void **state)
{
    const uint64_t event = make(VGPU_CMD_EVENT_CREATE, 0);
    const uint64_t module = make_module();

    (void)state;
    post_work();
    post_pair(VGPU_CMD_EVENT_RECORD, 0, event, 0);
    post(VGPU_CMD_SYNC, 1, NULL, 0);
    post_value(VGPU_CMD_STREAM_SYNC, 2, 0);
    post_value(VGPU_CMD_EVENT_SYNC, 3, event);
    post_value(VGPU_CMD_MEM_FREE, 4, 0x7000);
    post_value(VGPU_CMD_MODULE_UNLOAD, 5, module);
    assert_int_equal(steps(), 0);
    fake.head.lost = VGPU_GPU_ILLEGAL_ADDRESS;
    assert_int_equal(steps(), 0);
    for (uint32_t slot = 1; slot <= 5; slot++) {
        assert_int_equal(result_of(slot), VGPU_GPU_ILLEGAL_ADDRESS);
    }
    assert_int_equal(fake.fences, 0);
    for (int i = 0; i < 2; i++) {
        assert_int_equal(call(VGPU_CMD_SYNC, NULL, 0), VGPU_GPU_ILLEGAL_ADDRESS);
        assert_int_equal(call_value(VGPU_CMD_STREAM_SYNC, 0), VGPU_GPU_ILLEGAL_ADDRESS);
        assert_int_equal(call_value(VGPU_CMD_STREAM_QUERY, 0), VGPU_GPU_ILLEGAL_ADDRESS);
        assert_int_equal(call_value(VGPU_CMD_EVENT_SYNC, event), VGPU_GPU_ILLEGAL_ADDRESS);
        assert_int_equal(call_value(VGPU_CMD_MEM_ALLOC, 64), VGPU_GPU_ILLEGAL_ADDRESS);
        assert_int_equal(call_value(VGPU_CMD_MEM_FREE, 0x7000), VGPU_GPU_ILLEGAL_ADDRESS);
    }
    assert_true(ring_session_quiet(&fixture.session)); /* the turn is not kept for what is lost */
}

/* Turns -------------------------------------------------------------------------------------- */

/* One piece of work for an engine, which the others leave alone. */
static void post_for(enum vgpu_engine engine)
{
    const uint64_t arena = (uint64_t)(uintptr_t)fixture.arena;

    switch (engine) {
    case VGPU_ENGINE_TO_DEVICE:
        post_copy(VGPU_COPY_TO_DEVICE, 0x7000, arena, 64, 0);
        break;
    case VGPU_ENGINE_FROM_DEVICE:
        post_copy(VGPU_COPY_FROM_DEVICE, arena, 0x7000, 64, 0);
        break;
    default:
        post_work();
    }
}

static void assert_word(enum vgpu_turn turn)
{
    assert_int_equal(*turn_word(VGPU_ENGINE_COMPUTE), turn);
}

static void set_word(enum vgpu_turn turn)
{
    *turn_word(VGPU_ENGINE_COMPUTE) = turn;
}

/* Has a turn granted with the word as given, and one piece of work submitted in it. */
static void enter_granted_turn(enum vgpu_turn turn)
{
    set_word(VGPU_TURN_CLOSED);
    post_work();
    assert_int_equal(steps(), 0);
    assert_true(sent_is(VGPU_LINK_ASK, VGPU_ENGINE_COMPUTE));
    set_word(turn);
    assert_int_equal(steps(), 0);
    assert_string_equal(fake_log(), "fill");
}

/* All that was submitted takes this long, and the session sees its end. */
static void pass(uint64_t ns)
{
    test_clock_ns += ns;
    fake_finish();
    assert_int_equal(steps(), 0);
}

static void test_open_turn_needs_no_mediator(void **state)
{
    (void)state;
    for (unsigned i = 0; i < VGPU_ENGINES; i++) {
        const enum vgpu_engine engine = (enum vgpu_engine)i;

        post_for(engine);
        assert_int_equal(steps(), 0);
        for (unsigned j = 0; j < VGPU_ENGINES; j++) {
            assert_int_equal(*turn_word((enum vgpu_engine)j),
                             j == i ? VGPU_TURN_RUNNING : VGPU_TURN_OPEN);
        }
        assert_false(ring_session_quiet(&fixture.session));
        fake_finish();
        assert_int_equal(steps(), 0);
        assert_int_equal(*turn_word(engine), VGPU_TURN_OPEN);
        assert_true(ring_session_quiet(&fixture.session));
        assert_int_equal(sent(), 0);
        assert_true(fixture.turn_page.counters.gpu_ns[i] > 0);
        assert_int_equal(fixture.turn_page.counters.turns[i], 1);
    }
}

static void test_closed_turn_is_asked_for_once(void **state)
{
    (void)state;
    set_word(VGPU_TURN_CLOSED);
    post_work();
    post(VGPU_CMD_SYNC, 1, NULL, 0);
    post(VGPU_CMD_NOP, 2, NULL, 0);
    for (int i = 0; i < 3; i++) {
        assert_int_equal(steps(), 0);
    }
    assert_true(sent_is(VGPU_LINK_ASK, VGPU_ENGINE_COMPUTE));
    assert_int_equal(sent(), 0);
    assert_string_equal(fake_log(), "");
    assert_false(answered(1)); /* it has to wait for the work */
    assert_true(answered(2));
    assert_false(ring_session_quiet(&fixture.session));
    assert_true(ring_session_waits_for_turn(&fixture.session));

    set_word(VGPU_TURN_RUNNING);
    assert_int_equal(steps(), 0);
    assert_string_equal(fake_log(), "fill");
    assert_false(answered(1));
    assert_int_equal(sent(), 0);

    fake_finish();
    assert_int_equal(steps(), 0);
    assert_int_equal(result_of(1), VGPU_GPU_SUCCESS);
    assert_word(VGPU_TURN_OPEN);
    assert_true(sent_is(VGPU_LINK_KEPT, VGPU_ENGINE_COMPUTE)); /* it was asked for, and stays */
    assert_string_equal(fake_log(), "");                       /* once only */
    assert_int_equal(sent(), 0);
}

static void test_turns_of_the_engines_are_apart(void **state)
{
    (void)state;
    *turn_word(VGPU_ENGINE_TO_DEVICE) = VGPU_TURN_CLOSED;
    post_work();
    post_for(VGPU_ENGINE_TO_DEVICE);
    assert_int_equal(steps(), 0);
    assert_string_equal(fake_log(), "fill");
    assert_true(sent_is(VGPU_LINK_ASK, VGPU_ENGINE_TO_DEVICE));
    assert_false(ring_session_waits_for_turn(&fixture.session)); /* the other engine works */
    fake_finish();
    assert_int_equal(steps(), 0);
    assert_word(VGPU_TURN_OPEN);
    assert_true(ring_session_waits_for_turn(&fixture.session));
    *turn_word(VGPU_ENGINE_TO_DEVICE) = VGPU_TURN_WANTED;
    assert_int_equal(steps(), 0);
    assert_string_equal(fake_log(), "copy");
    assert_int_equal(sent(), 0);
}

static void test_what_waits_is_answered_without_a_turn(void **state)
{
    (void)state;
    post_work();
    post(VGPU_CMD_SYNC, 1, NULL, 0);
    assert_int_equal(steps(), 0);
    set_word(VGPU_TURN_STOPPED);
    post_work();
    assert_int_equal(steps(), 0);
    fake_finish();
    assert_int_equal(steps(), 0);
    assert_int_equal(result_of(1), VGPU_GPU_SUCCESS);
    assert_string_equal(fake_log(), "fill");
}

static void test_commands_that_are_no_work_need_no_turn(void **state)
{
    const uint64_t event = make(VGPU_CMD_EVENT_CREATE, 0);
    const uint64_t address = make(VGPU_CMD_MEM_ALLOC, 64);

    (void)state;
    for (unsigned i = 0; i < VGPU_ENGINES; i++) {
        *turn_word((enum vgpu_engine)i) = VGPU_TURN_CLOSED;
    }
    make(VGPU_CMD_MEM_ALLOC, 64);
    make(VGPU_CMD_STREAM_CREATE, 0);
    make_function(make_module(), "spin");
    assert_int_equal(call_value(VGPU_CMD_EVENT_QUERY, event), VGPU_GPU_SUCCESS);
    assert_int_equal(call(VGPU_CMD_SYNC, NULL, 0), VGPU_GPU_SUCCESS);
    assert_int_equal(call_value(VGPU_CMD_MEM_FREE, address), VGPU_GPU_SUCCESS);
    assert_int_equal(sent(), 0);
    assert_word(VGPU_TURN_CLOSED);
}

/* They stand in a stream like work: a fleet of them would go around the limit on commands. */
static void test_records_and_waits_need_the_compute_turn(void **state)
{
    const uint64_t event = make(VGPU_CMD_EVENT_CREATE, 0);
    const uint64_t stream = make(VGPU_CMD_STREAM_CREATE, 0);

    (void)state;
    fake_log();
    set_word(VGPU_TURN_CLOSED);
    post_pair(VGPU_CMD_EVENT_RECORD, 0, event, stream);
    post_pair(VGPU_CMD_STREAM_WAIT, 0, stream, event);
    assert_int_equal(steps(), 0);
    assert_true(sent_is(VGPU_LINK_ASK, VGPU_ENGINE_COMPUTE));
    assert_string_equal(fake_log(), "");
    set_word(VGPU_TURN_RUNNING);
    assert_int_equal(steps(), 0);
    assert_string_equal(fake_log(), "record wait");
    assert_true(sent_is(VGPU_LINK_KEPT, VGPU_ENGINE_COMPUTE));
}

/* The turn is given up at once, and over when its work is. */
static void test_stopped_turn_submits_nothing_more(void **state)
{
    (void)state;
    post_work();
    assert_int_equal(steps(), 0);
    set_word(VGPU_TURN_STOPPED);
    post_copy(VGPU_COPY_ON_DEVICE, 0x7000, 0x8000, 4, 0);
    assert_int_equal(steps(), 0);
    assert_string_equal(fake_log(), "fill"); /* no more of it */
    assert_word(VGPU_TURN_CLOSED);
    assert_true(sent_is(VGPU_LINK_YIELD, VGPU_ENGINE_COMPUTE));
    assert_int_equal(sent(), 0);
    assert_false(ring_session_quiet(&fixture.session));

    fake_finish();
    assert_int_equal(ring_session_step(&fixture.session), 1);
    assert_true(sent_is(VGPU_LINK_DONE, VGPU_ENGINE_COMPUTE));
    /* What is held asks for the next turn. */
    assert_int_equal(steps(), 0);
    assert_true(sent_is(VGPU_LINK_ASK, VGPU_ENGINE_COMPUTE));
    assert_int_equal(sent(), 0);
    assert_string_equal(fake_log(), "");

    set_word(VGPU_TURN_RUNNING);
    assert_int_equal(steps(), 0);
    assert_string_equal(fake_log(), "copy");
}

static void test_stopped_turn_with_nothing_left_to_do(void **state)
{
    (void)state;
    post_work();
    assert_int_equal(steps(), 0);
    set_word(VGPU_TURN_STOPPED);
    fake_finish();
    assert_int_equal(steps(), 0);
    assert_word(VGPU_TURN_CLOSED);
    assert_true(sent_is(VGPU_LINK_DONE, VGPU_ENGINE_COMPUTE));
    assert_int_equal(sent(), 0);
    assert_true(ring_session_quiet(&fixture.session));
}

/* Stopped before it began: it is returned unused, and asked for again. */
static void test_turn_that_is_granted_stopped(void **state)
{
    (void)state;
    set_word(VGPU_TURN_CLOSED);
    post_work();
    assert_int_equal(steps(), 0);
    assert_true(sent_is(VGPU_LINK_ASK, VGPU_ENGINE_COMPUTE));
    set_word(VGPU_TURN_STOPPED);
    assert_int_equal(steps(), 0);
    assert_true(sent_is(VGPU_LINK_DONE, VGPU_ENGINE_COMPUTE));
    assert_int_equal(steps(), 0);
    assert_true(sent_is(VGPU_LINK_ASK, VGPU_ENGINE_COMPUTE));
    assert_int_equal(sent(), 0);
    assert_string_equal(fake_log(), "");
}

#define WINDOW (100 * NS_PER_US)

/* The next worker is told when to submit, so that its work is there just when this one's ends. */
static void test_yield_tells_when_the_next_may_submit(void **state)
{
    (void)state;
    test_clock_ns = NS_PER_S;
    fixture.turn_page.terms.window_ns = WINDOW;
    enter_granted_turn(VGPU_TURN_RUNNING);
    fixture.session.flight.first->predicted_ns = 10 * WINDOW;
    test_clock_ns += WINDOW;
    set_word(VGPU_TURN_STOPPED);
    assert_int_equal(steps(), 0);
    assert_true(sent_is(VGPU_LINK_YIELD, VGPU_ENGINE_COMPUTE));
    assert_int_equal(fixture.message.from_ns, NS_PER_S + 10 * WINDOW - WINDOW / 2);
    /* One that has overrun is about to end at any moment. */
    pass(NS_PER_MS);
    assert_true(sent_is(VGPU_LINK_DONE, VGPU_ENGINE_COMPUTE));
    enter_granted_turn(VGPU_TURN_RUNNING);
    test_clock_ns += NS_PER_S;
    set_word(VGPU_TURN_STOPPED);
    assert_int_equal(steps(), 0);
    assert_true(sent_is(VGPU_LINK_YIELD, VGPU_ENGINE_COMPUTE));
    assert_int_equal(fixture.message.from_ns, test_clock_ns);
}

/* The work of whoever was before is about to end by then, and not earlier. */
static void test_nothing_is_submitted_before_its_time(void **state)
{
    (void)state;
    test_clock_ns = NS_PER_S;
    fixture.turn_page.turn[VGPU_ENGINE_COMPUTE].from_ns = NS_PER_S + WINDOW;
    fixture.turn_page.turn[VGPU_ENGINE_COMPUTE].until_ns = 2 * NS_PER_S;
    set_word(VGPU_TURN_CLOSED);
    post_work();
    assert_int_equal(steps(), 0);
    assert_true(sent_is(VGPU_LINK_ASK, VGPU_ENGINE_COMPUTE));
    set_word(VGPU_TURN_SHARED);
    assert_int_equal(steps(), 0);
    assert_string_equal(fake_log(), "");
    assert_int_equal(ring_session_next(&fixture.session, test_clock_ns), WINDOW);
    assert_false(ring_session_waits_for_turn(&fixture.session));
    assert_false(ring_session_quiet(&fixture.session));
    test_clock_ns += WINDOW - 1;
    assert_int_equal(steps(), 0);
    assert_string_equal(fake_log(), "");
    test_clock_ns += 1;
    assert_int_equal(steps(), 0);
    assert_string_equal(fake_log(), "fill");
    assert_int_equal(sent(), 0);
}

/* Nothing will be added: what is there lasts longer than the slice, and fills the window. */
static void test_shared_turn_whose_slice_is_used_up_is_yielded(void **state)
{
    (void)state;
    test_clock_ns = NS_PER_S;
    fixture.turn_page.terms.window_ns = WINDOW;
    fixture.turn_page.turn[VGPU_ENGINE_COMPUTE].until_ns = NS_PER_S + 10 * WINDOW;
    enter_granted_turn(VGPU_TURN_SHARED);
    fixture.session.flight.first->predicted_ns = 11 * WINDOW - 1;
    assert_int_equal(steps(), 0);
    assert_word(VGPU_TURN_SHARED);
    fixture.session.flight.first->predicted_ns = 11 * WINDOW;
    assert_int_equal(steps(), 0);
    assert_word(VGPU_TURN_CLOSED);
    assert_true(sent_is(VGPU_LINK_YIELD, VGPU_ENGINE_COMPUTE));
    assert_int_equal(fixture.message.from_ns, NS_PER_S + 11 * WINDOW - WINDOW / 2);
    assert_int_equal(sent(), 0);
}

/* In WANTED it goes on, however short: who waits then waits until it is idle. */
static void test_wanted_turn_is_not_yielded(void **state)
{
    (void)state;
    test_clock_ns = NS_PER_S;
    fixture.turn_page.terms.window_ns = WINDOW;
    enter_granted_turn(VGPU_TURN_WANTED);
    test_clock_ns += NS_PER_S;
    post_work();
    /* The one before takes longer than predicted; nothing is added behind it. */
    assert_int_equal(steps(), 0);
    assert_string_equal(fake_log(), "");
    assert_word(VGPU_TURN_WANTED);
    assert_int_equal(sent(), 0);
    pass(NS_PER_US);
    assert_int_equal(steps(), 0);
    assert_string_equal(fake_log(), "fill");
    assert_word(VGPU_TURN_WANTED);
    pass(NS_PER_US);
    assert_word(VGPU_TURN_CLOSED);
    assert_true(sent_is(VGPU_LINK_DONE, VGPU_ENGINE_COMPUTE));
    assert_int_equal(sent(), 0);
}

/* A turn that others wait for is worth its slice, and no more. */
static void test_shared_turn_lasts_for_its_slice(void **state)
{
    (void)state;
    test_clock_ns = NS_PER_S;
    fixture.turn_page.turn[VGPU_ENGINE_COMPUTE].until_ns = NS_PER_S + 10 * WINDOW;
    enter_granted_turn(VGPU_TURN_SHARED);
    for (int i = 0; i < 9; i++) {
        test_clock_ns += WINDOW;
        fake.done++; /* with two of them there, there is no pause */
        post_work();
        assert_int_equal(steps(), 0);
        assert_string_equal(fake_log(), "fill");
    }
    test_clock_ns = NS_PER_S + 10 * WINDOW;
    post_work();
    assert_int_equal(steps(), 0);
    assert_string_equal(fake_log(), "");
    assert_true(fixture.session.taken.held);
    assert_true(sent_is(VGPU_LINK_YIELD, VGPU_ENGINE_COMPUTE));
    fake_finish();
    assert_int_equal(ring_session_step(&fixture.session), 1);
    assert_true(sent_is(VGPU_LINK_DONE, VGPU_ENGINE_COMPUTE));
    assert_word(VGPU_TURN_CLOSED);
}

/* Whoever was granted late still gets one piece done, or it would never come to anything. */
static void test_one_piece_follows_a_grant_whose_slice_is_over(void **state)
{
    (void)state;
    test_clock_ns = NS_PER_S;
    fixture.turn_page.turn[VGPU_ENGINE_COMPUTE].until_ns = NS_PER_S - 1;
    enter_granted_turn(VGPU_TURN_SHARED);
    post_work();
    assert_int_equal(steps(), 0);
    assert_string_equal(fake_log(), "");
}

/* Launch, wait, launch, wait, with so long a pause in between. */
static void work_in_pairs(uint64_t pause_ns)
{
    for (int i = 0; i < 20; i++) {
        post_work();
        post(VGPU_CMD_SYNC, 1, NULL, 0);
        assert_int_equal(steps(), 0);
        pass(20 * NS_PER_US);
        assert_true(answered(1));
        test_clock_ns += pause_ns;
    }
    fake_log();
}

static void test_turn_is_kept_between_pieces_that_follow_soon(void **state)
{
    (void)state;
    test_clock_ns = NS_PER_S;
    work_in_pairs(10 * NS_PER_US);
    post_work();
    assert_int_equal(steps(), 0);
    set_word(VGPU_TURN_WANTED);
    for (int i = 0; i < 20; i++) {
        pass(20 * NS_PER_US);
        test_clock_ns += 10 * NS_PER_US;
        assert_int_equal(steps(), 0);
        assert_word(VGPU_TURN_WANTED);
        post_work();
        assert_int_equal(steps(), 0);
    }
    assert_int_equal(sent(), 0);
    /* None follows this time. */
    pass(20 * NS_PER_US);
    test_clock_ns += 59 * NS_PER_US;
    assert_int_equal(steps(), 0);
    assert_word(VGPU_TURN_WANTED);
    assert_false(ring_session_quiet(&fixture.session)); /* it looks on */
    test_clock_ns += NS_PER_US;
    assert_int_equal(steps(), 0);
    assert_word(VGPU_TURN_CLOSED);
    assert_true(sent_is(VGPU_LINK_DONE, VGPU_ENGINE_COMPUTE));
    assert_true(ring_session_quiet(&fixture.session));
}

static void test_turn_is_not_kept_between_pieces_with_long_pauses(void **state)
{
    (void)state;
    test_clock_ns = NS_PER_S;
    work_in_pairs(200 * NS_PER_US);
    post_work();
    assert_int_equal(steps(), 0);
    set_word(VGPU_TURN_WANTED);
    pass(20 * NS_PER_US);
    assert_word(VGPU_TURN_CLOSED);
    assert_true(sent_is(VGPU_LINK_DONE, VGPU_ENGINE_COMPUTE));
}

/* Or two who wait for each other wait for ever. */
static void test_turn_is_not_kept_while_another_is_waited_for(void **state)
{
    (void)state;
    test_clock_ns = NS_PER_S;
    work_in_pairs(10 * NS_PER_US);
    post_work();
    assert_int_equal(steps(), 0);
    set_word(VGPU_TURN_WANTED);
    *turn_word(VGPU_ENGINE_TO_DEVICE) = VGPU_TURN_CLOSED;
    pass(20 * NS_PER_US);
    assert_word(VGPU_TURN_WANTED);
    post_for(VGPU_ENGINE_TO_DEVICE);
    assert_int_equal(steps(), 0);
    assert_true(sent_is(VGPU_LINK_ASK, VGPU_ENGINE_TO_DEVICE));
    test_clock_ns += 60 * NS_PER_US;
    assert_int_equal(steps(), 0);
    assert_word(VGPU_TURN_CLOSED);
    assert_true(ring_session_waits_for_turn(&fixture.session));
}

static void test_mediator_that_is_gone(void **state)
{
    int r;

    (void)state;
    set_word(VGPU_TURN_CLOSED);
    shutdown(fixture.mediator, SHUT_RDWR);
    post_work();
    r = steps();
    assert_true(r < 0);
    assert_int_not_equal(r, -EPROTO); /* which would blame the guest */
    assert_int_not_equal(r, -ETIME);
}

static void test_session_is_quiet_only_without_anything_to_do(void **state)
{
    struct ring_session *s = &fixture.session;

    (void)state;
    assert_true(ring_session_quiet(s));
    post(VGPU_CMD_NOP, 1, NULL, 0);
    assert_int_equal(steps(), 0);
    assert_true(ring_session_quiet(s));
    post_work();
    assert_int_equal(steps(), 0);
    assert_false(ring_session_quiet(s)); /* work */
    post(VGPU_CMD_SYNC, 1, NULL, 0);
    fake_finish();
    assert_int_equal(steps(), 0);
    assert_true(ring_session_quiet(s));
    /* Pending, with no turn: an event is waited for that does not come. */
    fake.submitted++;
    post_value(VGPU_CMD_STREAM_SYNC, 1, 0);
    assert_int_equal(steps(), 0);
    assert_int_equal(s->turns.engines[VGPU_ENGINE_COMPUTE].state, TURNS_NONE);
    assert_false(ring_session_quiet(s));
}

/* Behind what waits -------------------------------------------------------------------------- */

/* Has a piece of work in a stream wait for its turn. */
static void have_work_wait(uint64_t stream)
{
    const struct vgpu_cmd_fill fill = {
        .address = 0x7000, .width = 1, .stream = stream, .element = 4, .rows = 1};

    set_word(VGPU_TURN_CLOSED);
    post(VGPU_CMD_FILL, 0, &fill, sizeof(fill));
    assert_int_equal(steps(), 0);
    assert_true(sent_is(VGPU_LINK_ASK, VGPU_ENGINE_COMPUTE));
    assert_string_equal(fake_log(), "");
}

/* A thread of the guest that has nothing to do with the work is not held up. */
static void test_what_does_not_depend_on_work_that_waits(void **state)
{
    const uint64_t a = make(VGPU_CMD_STREAM_CREATE, 0), b = make(VGPU_CMD_STREAM_CREATE, 0);
    const uint64_t event = make(VGPU_CMD_EVENT_CREATE, 0);

    (void)state;
    have_work_wait(a);
    assert_int_equal(call_value(VGPU_CMD_STREAM_QUERY, a), VGPU_GPU_NOT_READY);
    assert_int_equal(call_value(VGPU_CMD_STREAM_QUERY, 0), VGPU_GPU_NOT_READY);
    assert_int_equal(call_value(VGPU_CMD_STREAM_QUERY, b), VGPU_GPU_SUCCESS);
    assert_int_equal(call_value(VGPU_CMD_STREAM_SYNC, b), VGPU_GPU_SUCCESS);
    assert_int_equal(call_value(VGPU_CMD_EVENT_QUERY, event), VGPU_GPU_SUCCESS);
    assert_int_equal(call_value(VGPU_CMD_EVENT_SYNC, event), VGPU_GPU_SUCCESS);
    post_pair(VGPU_CMD_EVENT_RECORD, 0, event, b);
    assert_int_equal(call_value(VGPU_CMD_EVENT_QUERY, event), VGPU_GPU_NOT_READY);
    post_value(VGPU_CMD_EVENT_SYNC, 1, event);
    post_value(VGPU_CMD_STREAM_SYNC, 2, a);
    post_value(VGPU_CMD_FENCE, 3, a);
    post_value(VGPU_CMD_MEM_FREE, 4, 0x7000);
    post(VGPU_CMD_SYNC, 5, NULL, 0);
    assert_int_equal(steps(), 0);
    for (uint32_t slot = 1; slot <= 5; slot++) {
        assert_false(answered(slot));
    }
    set_word(VGPU_TURN_RUNNING);
    assert_int_equal(steps(), 0);
    assert_string_equal(fake_log(), "fill record");
    assert_false(answered(2));
    fake_finish();
    assert_int_equal(steps(), 0);
    for (uint32_t slot = 1; slot <= 5; slot++) {
        assert_int_equal(result_of(slot), VGPU_GPU_SUCCESS);
    }
    assert_string_equal(fake_log(), "free");
    assert_true(ring_session_quiet(&fixture.session));
}

/* A stream is not done before an event is recorded there. */
static void test_stream_with_a_record_that_waits(void **state)
{
    const uint64_t a = make(VGPU_CMD_STREAM_CREATE, 0), b = make(VGPU_CMD_STREAM_CREATE, 0);
    const uint64_t event = make(VGPU_CMD_EVENT_CREATE, 0);

    (void)state;
    have_work_wait(a);
    post_pair(VGPU_CMD_EVENT_RECORD, 0, event, b);
    assert_int_equal(call_value(VGPU_CMD_STREAM_QUERY, b), VGPU_GPU_NOT_READY);
    post_value(VGPU_CMD_STREAM_SYNC, 1, b);
    assert_int_equal(steps(), 0);
    assert_false(answered(1));
    set_word(VGPU_TURN_RUNNING);
    assert_int_equal(steps(), 0);
    fake_finish();
    assert_int_equal(steps(), 0);
    assert_int_equal(result_of(1), VGPU_GPU_SUCCESS);
    assert_int_equal(call_value(VGPU_CMD_EVENT_QUERY, event), VGPU_GPU_SUCCESS);
}

/* An engine that the window keeps work from is others' meanwhile. */
static void test_turn_is_not_asked_for_what_may_not_be_submitted(void **state)
{
    (void)state;
    test_clock_ns = NS_PER_S;
    fixture.turn_page.terms.window_ns = WINDOW;
    fixture.turn_page.turn[VGPU_ENGINE_FROM_DEVICE].state = VGPU_TURN_CLOSED;
    enter_granted_turn(VGPU_TURN_SHARED);
    post_copy(VGPU_COPY_FROM_DEVICE, (uint64_t)(uintptr_t)fixture.arena, 0x8000, 4, 0);
    while (flight_remaining(&fixture.session.flight, VGPU_ENGINE_COMPUTE, test_clock_ns) <=
           WINDOW) {
        fixture.session.flight.first->predicted_ns += WINDOW;
    }
    assert_int_equal(steps(), 0);
    assert_int_equal(fixture.session.turns.engines[VGPU_ENGINE_FROM_DEVICE].state, TURNS_NONE);
    fake_finish();
    assert_int_equal(steps(), 0);
    assert_int_equal(fixture.session.turns.engines[VGPU_ENGINE_FROM_DEVICE].state, TURNS_ASKED);
}

/* The driver would wait, and the worker with it, if it were asked to free beside work. */
static void test_memory_is_freed_when_nothing_is_under_way(void **state)
{
    (void)state;
    post_work();
    assert_int_equal(steps(), 0);
    post_value(VGPU_CMD_MEM_FREE, 1, 0x7000);
    assert_int_equal(steps(), 0);
    assert_string_equal(fake_log(), "fill");
    /* Nothing that comes later is submitted before it. */
    fixture.session.pending.settling = true;
    post_work();
    assert_int_equal(steps(), 0);
    assert_string_equal(fake_log(), "");
    fake_finish();
    assert_int_equal(steps(), 0);
    assert_string_equal(fake_log(), "free fill");
    assert_int_equal(result_of(1), VGPU_GPU_SUCCESS);
}

/* Behind what waits the same rules hold as in front of it. */
static void test_command_without_its_slot_behind_work_that_waits(void **state)
{
    static const uint32_t opcodes[] = {VGPU_CMD_STREAM_QUERY, VGPU_CMD_EVENT_QUERY,
                                       VGPU_CMD_STREAM_SYNC, VGPU_CMD_MEM_INFO, VGPU_CMD_SYNC};

    for (size_t i = 0; i < sizeof(opcodes) / sizeof(opcodes[0]); i++) {
        uint64_t event;
        int r;

        assert_int_equal(fixture_tear_down(state), 0);
        assert_int_equal(fixture_set_up(state), 0);
        event = make(VGPU_CMD_EVENT_CREATE, 0);
        have_work_wait(0);
        post_pair(VGPU_CMD_EVENT_RECORD, 0, event, 0);
        post_pair(opcodes[i], 0, opcodes[i] == VGPU_CMD_EVENT_QUERY ? event : 0, 0);
        r = steps();
        if (r == 0) {
            set_word(VGPU_TURN_RUNNING); /* it may come to light later */
            r = steps();
        }
        assert_int_equal(r, -EPROTO);
    }
}

static void test_slot_that_is_used_behind_work_that_waits(void **state)
{
    (void)state;
    have_work_wait(0);
    post_value(VGPU_CMD_STREAM_SYNC, 5, 0);
    assert_int_equal(steps(), 0);
    post(VGPU_CMD_NOP, 5, NULL, 0);
    assert_int_equal(steps(), -EPROTO);
}

/* A compiler behind a piece that waits for its turn would keep that when it comes. */
static void test_slow_command_while_a_turn_is_asked_for(void **state)
{
    (void)state;
    fixture.turn_page.terms.window_ns = WINDOW;
    have_work_wait(0);
    post(VGPU_CMD_MODULE_BUILTIN, 1, NULL, 0);
    assert_int_equal(steps(), 0);
    assert_string_equal(fake_log(), "");
    assert_false(answered(1));
    set_word(VGPU_TURN_WANTED);
    assert_int_equal(steps(), 0);
    assert_string_equal(fake_log(), "fill");
    fake_finish();
    assert_int_equal(steps(), 0);
    assert_string_equal(fake_log(), "module");
    assert_int_equal(fake.turn_at_load, VGPU_TURN_CLOSED);
}

/* More than a session keeps is left in the ring, and none is lost or out of order. */
static void test_more_than_is_kept_behind_work_that_waits(void **state)
{
    unsigned posted = 0;

    (void)state;
    fake_log();
    have_work_wait(0);
    while (posted < 3 * BACKLOG_COMMANDS &&
           fixture.guest.tail - fixture.queue->head + 128 <= VGPU_RING_SIZE) {
        post_fill(0, 0x7000 + 4 * posted++, 1, 4);
        assert_int_equal(steps(), 0);
    }
    assert_true(posted > BACKLOG_COMMANDS);
    post(VGPU_CMD_SYNC, 1, NULL, 0);
    assert_int_equal(steps(), 0);
    assert_int_not_equal(fixture.queue->head, fixture.queue->tail);
    set_word(VGPU_TURN_RUNNING);
    do {
        fake.log[0] = '\0';
        fake_finish();
        assert_true(ring_session_step(&fixture.session) >= 0);
    } while (!answered(1));
    assert_int_equal(fake.submitted, posted + 1);
    for (unsigned i = 1; i < FAKE_COPIES; i++) {
        assert_int_equal(fake.fills[i].address, 0x7000 + 4 * (i - 1));
    }
    assert_int_equal(fixture.queue->head, fixture.queue->tail);
}

/* Slow commands ------------------------------------------------------------------------------ */

/* A compiler may take seconds, and others wait for the GPU. */
static void test_turn_is_not_kept_while_a_module_is_loaded(void **state)
{
    (void)state;
    post_work();
    assert_int_equal(steps(), 0);
    assert_word(VGPU_TURN_RUNNING);
    make_module();
    assert_int_equal(fake.turn_at_load, VGPU_TURN_RUNNING); /* the GPU works */
    fake_finish();
    make_module();
    assert_int_equal(fake.turn_at_load, VGPU_TURN_OPEN);
}

/* Meanwhile nobody looks whether its work is done, and the turn with it. */
static void test_slow_command_waits_for_its_work_when_others_are_there(void **state)
{
    (void)state;
    fixture.turn_page.terms.window_ns = WINDOW;
    post_work();
    post(VGPU_CMD_MODULE_BUILTIN, 1, NULL, 0);
    post(VGPU_CMD_NOP, 2, NULL, 0);
    assert_int_equal(steps(), 0);
    assert_string_equal(fake_log(), "fill");
    assert_false(answered(1));
    assert_true(answered(2));
    fake_finish();
    assert_int_equal(steps(), 0);
    assert_string_equal(fake_log(), "module");
    assert_int_equal(fake.turn_at_load, VGPU_TURN_OPEN);
    assert_int_equal(result_of(1), VGPU_GPU_SUCCESS);
    assert_int_equal(result_of(2), VGPU_GPU_SUCCESS);
}

/* Pieces ------------------------------------------------------------------------------------- */

#define COPY_PIECE (4u << 20)                /* bytes, as in estimate.h */
#define FILL_PIECE (64u << 20)               /* bytes */
#define LARGE (UINT64_C(2) * COPY_PIECE + 5) /* bytes */

static void test_large_copy_goes_in_pieces_when_others_are_there(void **state)
{
    const uint64_t arena = (uint64_t)(uintptr_t)fixture.arena;
    const struct vgpu_cmd_copy body = {
        .to = 0x7000, .from = arena, .bytes = LARGE, .kind = VGPU_COPY_TO_DEVICE};

    (void)state;
    test_clock_ns = NS_PER_S;
    fixture.turn_page.terms.window_ns = WINDOW;
    post(VGPU_CMD_COPY, 1, &body, sizeof(body));
    assert_int_equal(steps(), 0);
    assert_string_equal(fake_log(), "copy"); /* more than the window holds */
    assert_false(answered(1));
    /* Others come first between two pieces. */
    *turn_word(VGPU_ENGINE_TO_DEVICE) = VGPU_TURN_STOPPED;
    pass(NS_PER_MS);
    assert_true(sent_is(VGPU_LINK_DONE, VGPU_ENGINE_TO_DEVICE));
    assert_true(sent_is(VGPU_LINK_ASK, VGPU_ENGINE_TO_DEVICE));
    assert_string_equal(fake_log(), "");
    *turn_word(VGPU_ENGINE_TO_DEVICE) = VGPU_TURN_RUNNING;
    assert_int_equal(steps(), 0);
    assert_false(answered(1));
    pass(NS_PER_MS);
    assert_int_equal(result_of(1), VGPU_GPU_SUCCESS);
    assert_string_equal(fake_log(), "copy copy");
    assert_int_equal(fake.copy_count, 3);
    for (unsigned i = 0; i < 3; i++) {
        assert_int_equal(fake.copies[i].to, 0x7000 + i * COPY_PIECE);
        assert_int_equal(fake.copies[i].from, arena + i * COPY_PIECE);
        assert_int_equal(fake.copies[i].bytes, i < 2 ? COPY_PIECE : 5);
    }
    assert_int_equal(fixture.turn_page.counters.requests, 1);
}

static void test_large_copy_goes_in_one_when_nobody_is_there(void **state)
{
    (void)state;
    post_copy(VGPU_COPY_TO_DEVICE, 0x7000, (uint64_t)(uintptr_t)fixture.arena, LARGE, 0);
    assert_int_equal(steps(), 0);
    assert_string_equal(fake_log(), "copy");
    assert_int_equal(fake.copies[0].bytes, LARGE);
}

/* Somebody comes, or all leave, between two pieces. */
static void test_pieces_with_a_window_that_changes(void **state)
{
    (void)state;
    test_clock_ns = NS_PER_S;
    fixture.turn_page.terms.window_ns = WINDOW;
    post_copy(VGPU_COPY_TO_DEVICE, 0x7000, (uint64_t)(uintptr_t)fixture.arena, LARGE, 0);
    assert_int_equal(steps(), 0);
    fixture.turn_page.terms.window_ns = 0;
    assert_int_equal(steps(), 0);
    assert_int_equal(fake.copy_count, 2);
    assert_int_equal(fake.copies[1].from - fake.copies[0].from, COPY_PIECE);
    assert_int_equal(fake.copies[1].bytes, LARGE - COPY_PIECE);
}

static void test_large_fill_and_copy_on_the_device_go_in_pieces(void **state)
{
    (void)state;
    test_clock_ns = NS_PER_S;
    fixture.turn_page.terms.window_ns = WINDOW;
    post_fill(0, 0x7000, FILL_PIECE / 4 + 3, 4);
    assert_int_equal(steps(), 0);
    assert_int_equal(fake.fill_count, 1);
    pass(NS_PER_MS);
    assert_int_equal(fake.fill_count, 2);
    assert_int_equal(fake.fills[0].count, FILL_PIECE / 4);
    assert_int_equal(fake.fills[1].address, 0x7000 + FILL_PIECE);
    assert_int_equal(fake.fills[1].count, 3);
    pass(NS_PER_MS);
    post_copy(VGPU_COPY_ON_DEVICE, 0x7000, 0x8000, UINT64_C(2) * FILL_PIECE, 0);
    assert_int_equal(steps(), 0);
    pass(NS_PER_MS);
    assert_int_equal(fake.copy_count, 2);
    assert_int_equal(fake.copies[1].bytes, FILL_PIECE);
}

/* The rest of it is not tried. */
static void test_piece_that_fails(void **state)
{
    const uint64_t arena = (uint64_t)(uintptr_t)fixture.arena;
    const struct vgpu_cmd_copy body = {
        .to = 0x7000, .from = arena, .bytes = LARGE, .kind = VGPU_COPY_TO_DEVICE};

    (void)state;
    test_clock_ns = NS_PER_S;
    fixture.turn_page.terms.window_ns = WINDOW;
    post(VGPU_CMD_COPY, 1, &body, sizeof(body));
    post_copy(VGPU_COPY_TO_DEVICE, 0x7000, arena, 8, 0);
    assert_int_equal(steps(), 0);
    fake.next = VGPU_GPU_INVALID_VALUE;
    pass(NS_PER_MS);
    assert_int_equal(result_of(1), VGPU_GPU_INVALID_VALUE);
    assert_string_equal(fake_log(), "copy copy copy");
    assert_int_equal(fake.copies[2].from, arena); /* from its own start */
    assert_int_equal(fake.copies[2].bytes, 8);
    assert_int_equal(fixture.turn_page.counters.requests, 2);
    assert_int_equal(fixture.turn_page.counters.errors, 1);
}

/* Predictions and terms ---------------------------------------------------------------------- */

static void post_launch(uint64_t function, uint32_t grid)
{
    const struct vgpu_cmd_launch body = {
        .function = function, .grid = {grid, 1, 1}, .block = {1, 1, 1}};

    post(VGPU_CMD_LAUNCH, 0, &body, sizeof(body));
}

static void test_window_opens_as_kernels_become_known(void **state)
{
    const uint64_t function = make_function(make_module(), "f");

    (void)state;
    fake_log();
    test_clock_ns = NS_PER_S;
    fixture.turn_page.terms.window_ns = WINDOW;
    for (int i = 0; i < 4; i++) {
        post_launch(function, 1);
    }
    for (int i = 0; i < 4; i++) {
        assert_int_equal(steps(), 0);
        assert_string_equal(fake_log(), i == 0 ? "launch" : i == 1 ? "launch launch launch" : "");
        pass(10 * NS_PER_US);
    }
    /* Of another shape it is another kernel. */
    post_launch(function, 2);
    post_launch(function, 2);
    assert_int_equal(steps(), 0);
    assert_string_equal(fake_log(), "launch");
}

static void test_failed_launch_teaches_nothing(void **state)
{
    const uint64_t function = make_function(make_module(), "f");

    (void)state;
    test_clock_ns = NS_PER_S;
    fixture.turn_page.terms.window_ns = WINDOW;
    for (int i = 0; i < 10; i++) {
        fake.next = VGPU_GPU_INVALID_VALUE;
        post_launch(function, 1);
        assert_int_equal(steps(), 0);
        assert_true(flight_idle(&fixture.session.flight));
    }
    assert_int_equal(fixture.turn_page.counters.in_flight, 0);
    assert_word(VGPU_TURN_OPEN);
    fake_log();
    post_launch(function, 1);
    post_launch(function, 1);
    assert_int_equal(steps(), 0);
    assert_string_equal(fake_log(), "launch"); /* still unknown */
    /* Nor is it counted behind one that runs. */
    fixture.turn_page.terms.window_ns = 0;
    assert_int_equal(steps(), 0);
    assert_int_equal(fixture.turn_page.counters.in_flight, 2);
    fake.next = VGPU_GPU_INVALID_VALUE;
    post_launch(function, 1);
    assert_int_equal(steps(), 0);
    assert_int_equal(fixture.turn_page.counters.in_flight, 2);
}

static void test_no_more_commands_than_the_terms_allow(void **state)
{
    (void)state;
    fixture.turn_page.terms.commands = 5;
    for (int i = 0; i < 20; i++) {
        post_work();
    }
    assert_int_equal(steps(), 0);
    assert_int_equal(fake.submitted, 5);
    assert_int_equal(fixture.turn_page.counters.in_flight, 5);
    fake_finish();
    assert_int_equal(steps(), 0);
    assert_int_equal(fake.submitted, 10);
}

static void test_work_that_takes_too_long(void **state)
{
    const struct vgpu_cmd_copy copy = {.to = 0x7000,
                                       .from = (uint64_t)(uintptr_t)fixture.arena,
                                       .bytes = 64,
                                       .kind = VGPU_COPY_TO_DEVICE};

    (void)state;
    test_clock_ns = NS_PER_S;
    fixture.turn_page.terms.kernel_ns = NS_PER_MS;
    post_work();
    post(VGPU_CMD_SYNC, 1, NULL, 0);
    post_value(VGPU_CMD_STREAM_SYNC, 2, 0);
    assert_int_equal(steps(), 0);
    test_clock_ns += NS_PER_MS;
    assert_int_equal(steps(), 0);
    /* One that waits for its turn, and one that waits for that. */
    *turn_word(VGPU_ENGINE_TO_DEVICE) = VGPU_TURN_CLOSED;
    post(VGPU_CMD_COPY, 3, &copy, sizeof(copy));
    post(VGPU_CMD_SYNC, 4, NULL, 0);
    assert_int_equal(steps(), 0);
    test_clock_ns += 1;
    assert_int_equal(steps(), -ETIME);
    for (uint32_t slot = 1; slot <= 4; slot++) {
        assert_false(answered(slot));
    }
    ring_session_fail(&fixture.session, VGPU_GPU_LAUNCH_TIMEOUT);
    for (uint32_t slot = 1; slot <= 4; slot++) {
        assert_int_equal(result_of(slot), VGPU_GPU_LAUNCH_TIMEOUT);
    }
}

/* One that is done in time is none of these, however late that is seen. */
static void test_work_whose_end_is_seen_late(void **state)
{
    (void)state;
    test_clock_ns = NS_PER_S;
    fixture.turn_page.terms.kernel_ns = NS_PER_MS;
    post_work();
    assert_int_equal(steps(), 0);
    pass(NS_PER_S);
}

static void test_lost_context_is_counted_once(void **state)
{
    (void)state;
    post_work();
    assert_int_equal(steps(), 0);
    fake.head.lost = VGPU_GPU_ILLEGAL_ADDRESS;
    for (int i = 0; i < 3; i++) {
        assert_int_equal(steps(), 0);
    }
    assert_int_equal(fixture.turn_page.counters.faults, 1);
    assert_int_equal(fixture.queue->lost, fake.head.lost);
    assert_word(VGPU_TURN_OPEN);
}

/* Quota -------------------------------------------------------------------------------------- */

static void test_memory_beyond_the_quota(void **state)
{
    const struct vgpu_slot *slot = &fixture.queue->slots[VGPU_SLOTS - 1];
    struct vgpu_result_mem_info memory;
    struct vgpu_device_info info;
    uint64_t first;

    (void)state;
    fixture.account.limit = 1536;
    fixture.account.used = 512; /* by another session of the VM */
    first = make(VGPU_CMD_MEM_ALLOC, 1);
    assert_int_equal(fixture.account.used, 1024); /* what the GPU gives at least */
    assert_int_equal(fixture.turn_page.counters.memory, 512);
    fake_log();
    assert_int_equal(call_value(VGPU_CMD_MEM_ALLOC, 513), VGPU_GPU_OUT_OF_MEMORY);
    assert_int_equal(call_value(VGPU_CMD_MEM_ALLOC, UINT64_MAX), VGPU_GPU_OUT_OF_MEMORY);
    assert_int_equal(call_value(VGPU_CMD_MEM_ALLOC, UINT64_MAX - 511), VGPU_GPU_OUT_OF_MEMORY);
    assert_string_equal(fake_log(), ""); /* the GPU is not even asked */
    assert_int_equal(call(VGPU_CMD_MEM_INFO, NULL, 0), VGPU_GPU_SUCCESS);
    memcpy(&memory, slot->payload, sizeof(memory));
    assert_int_equal(memory.total, 1536);
    assert_int_equal(memory.free, 512);
    assert_int_equal(call(VGPU_CMD_DEVICE_INFO, NULL, 0), VGPU_GPU_SUCCESS);
    memcpy(&info, slot->payload, sizeof(info));
    assert_int_equal(info.memory_total, 1536);
    assert_int_equal(fake.head.info.memory_total, FAKE_TOTAL);

    make(VGPU_CMD_MEM_ALLOC, 512);
    assert_int_equal(call_value(VGPU_CMD_MEM_ALLOC, 1), VGPU_GPU_OUT_OF_MEMORY);
    assert_int_equal(call_value(VGPU_CMD_MEM_FREE, first), VGPU_GPU_SUCCESS);
    make(VGPU_CMD_MEM_ALLOC, 512);
    assert_int_equal(fixture.account.used, 1536);
    assert_int_equal(fixture.turn_page.counters.memory, 1024);
}

/* Of two limits, the GPU's and the quota, the lower one is told. */
static void test_quota_above_what_the_gpu_has(void **state)
{
    const struct vgpu_slot *slot = &fixture.queue->slots[VGPU_SLOTS - 1];
    struct vgpu_result_mem_info memory;

    (void)state;
    fixture.account.limit = 1 << 20;
    assert_int_equal(call(VGPU_CMD_MEM_INFO, NULL, 0), VGPU_GPU_SUCCESS);
    memcpy(&memory, slot->payload, sizeof(memory));
    assert_int_equal(memory.total, FAKE_TOTAL);
    assert_int_equal(memory.free, FAKE_FREE);
}

static void test_what_the_gpu_refuses_is_not_used(void **state)
{
    (void)state;
    fixture.account.limit = 1 << 20;
    fake.next = VGPU_GPU_OUT_OF_MEMORY;
    assert_int_equal(call_value(VGPU_CMD_MEM_ALLOC, 4096), VGPU_GPU_OUT_OF_MEMORY);
    assert_int_equal(fixture.account.used, 0);
    assert_int_equal(fixture.turn_page.counters.memory, 0);
}

/* Nor is what is not freed given back, or a guest could have it twice. */
static void test_memory_that_is_not_freed_stays_used(void **state)
{
    const uint64_t address = make(VGPU_CMD_MEM_ALLOC, 4096);

    (void)state;
    assert_int_equal(fixture.account.used, 4096);
    fake.next = VGPU_GPU_INVALID_VALUE;
    assert_int_equal(call_value(VGPU_CMD_MEM_FREE, address), VGPU_GPU_INVALID_VALUE);
    assert_int_equal(fixture.account.used, 4096);
    assert_int_equal(call_value(VGPU_CMD_MEM_FREE, address), VGPU_GPU_SUCCESS);
    assert_int_equal(fixture.account.used, 0);
}

/* Off the GPU --------------------------------------------------------------------------------- */

static struct preempt taken_off;
static const struct gpu_ops *fixture_ops;

/* As the thread does it. */
static void put_back(void)
{
    if (taken_off.since_ns != 0) {
        taken_off.off_ns += test_clock_ns - taken_off.since_ns;
        taken_off.since_ns = 0;
    }
}

static enum vgpu_gpu_error put_back_and_poll(struct gpu *gpu, const struct gpu_fence *fence)
{
    put_back();
    return fixture_ops->fence_poll(gpu, fence);
}

static void begin_to_be_off(void)
{
    test_clock_ns = NS_PER_S;
    taken_off = (struct preempt){0};
    fixture.session.preempt = &taken_off;
}

/* Whoever looks first at what has ended, a command that frees memory here, knows of it. */
static void test_time_off_is_not_used(void **state)
{
    uint64_t address;

    (void)state;
    begin_to_be_off();
    fixture.turn_page.terms.window_ns = 100000;
    address = make(VGPU_CMD_MEM_ALLOC, 64);
    post_work();
    post_value(VGPU_CMD_MEM_FREE, 1, address);
    assert_int_equal(steps(), 0);
    taken_off.since_ns = test_clock_ns;
    test_clock_ns += 10 * NS_PER_S;
    assert_int_equal(steps(), 0);
    put_back();
    test_clock_ns += NS_PER_MS;
    fake_finish();
    assert_int_equal(steps(), 0);
    assert_in_range(fixture.turn_page.counters.gpu_ns[VGPU_ENGINE_COMPUTE], 0, 2 * NS_PER_MS);
    fixture.session.preempt = NULL;
}

/* It goes on in the middle of a look at it: what was not shifted yet is not too long. */
static void test_put_back_while_it_is_looked_at(void **state)
{
    struct gpu_ops ops;

    (void)state;
    begin_to_be_off();
    fixture.turn_page.terms.kernel_ns = NS_PER_MS;
    post_work();
    assert_int_equal(steps(), 0);
    taken_off.since_ns = test_clock_ns;
    test_clock_ns += 10 * NS_PER_MS;
    assert_int_equal(steps(), 0);
    fixture_ops = fixture.session.gpu->ops;
    ops = *fixture_ops;
    ops.fence_poll = put_back_and_poll;
    fixture.session.gpu->ops = &ops;
    assert_int_equal(steps(), 0);
    assert_int_equal(taken_off.since_ns, 0);
    assert_int_equal(steps(), 0);
    fixture.session.gpu->ops = fixture_ops;
    fake_finish();
    assert_int_equal(steps(), 0);
    fixture.session.preempt = NULL;
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, fixture_set_up, fixture_tear_down)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(test_commands_are_carried_out_in_their_order),
        TEST(test_sync_does_not_hold_up_what_follows),
        TEST(test_sync_with_nothing_to_wait_for),
        TEST(test_free_and_unload_wait_for_the_work_before_them),
        TEST(test_guest_that_uses_a_slot_twice),
        TEST(test_slot_is_free_again_once_answered),
        TEST(test_all_slots_pending),
        TEST(test_flood_does_not_hold_up_what_is_pending),
        TEST(test_no_command_while_there_is_no_room),
        TEST(test_release_of_a_session_that_waits),
        TEST(test_ring_with_no_command_ends_the_session),
        TEST(test_answers_before_the_end),
        TEST(test_first_failure_is_reported_once),
        TEST(test_failure_with_a_slot_is_not_reported_again),
        TEST(test_failure_while_a_sync_waits),
        TEST(test_failure_of_the_gpu_is_deferred_too),
        TEST(test_lost_context_fails_all_that_waits_and_comes),
        TEST(test_turn_is_not_kept_while_a_module_is_loaded),
        TEST(test_streams_that_are_destroyed_with_work),
        TEST(test_open_turn_needs_no_mediator),
        TEST(test_closed_turn_is_asked_for_once),
        TEST(test_what_waits_is_answered_without_a_turn),
        TEST(test_commands_that_are_no_work_need_no_turn),
        TEST(test_turns_of_the_engines_are_apart),
        TEST(test_records_and_waits_need_the_compute_turn),
        TEST(test_stopped_turn_submits_nothing_more),
        TEST(test_stopped_turn_with_nothing_left_to_do),
        TEST(test_turn_that_is_granted_stopped),
        TEST(test_yield_tells_when_the_next_may_submit),
        TEST(test_nothing_is_submitted_before_its_time),
        TEST(test_shared_turn_whose_slice_is_used_up_is_yielded),
        TEST(test_wanted_turn_is_not_yielded),
        TEST(test_shared_turn_lasts_for_its_slice),
        TEST(test_one_piece_follows_a_grant_whose_slice_is_over),
        TEST(test_turn_is_kept_between_pieces_that_follow_soon),
        TEST(test_turn_is_not_kept_between_pieces_with_long_pauses),
        TEST(test_turn_is_not_kept_while_another_is_waited_for),
        TEST(test_mediator_that_is_gone),
        TEST(test_session_is_quiet_only_without_anything_to_do),
        TEST(test_what_does_not_depend_on_work_that_waits),
        TEST(test_stream_with_a_record_that_waits),
        TEST(test_turn_is_not_asked_for_what_may_not_be_submitted),
        TEST(test_memory_is_freed_when_nothing_is_under_way),
        TEST(test_command_without_its_slot_behind_work_that_waits),
        TEST(test_slot_that_is_used_behind_work_that_waits),
        TEST(test_slow_command_while_a_turn_is_asked_for),
        TEST(test_more_than_is_kept_behind_work_that_waits),
        TEST(test_slow_command_waits_for_its_work_when_others_are_there),
        TEST(test_large_copy_goes_in_pieces_when_others_are_there),
        TEST(test_large_copy_goes_in_one_when_nobody_is_there),
        TEST(test_pieces_with_a_window_that_changes),
        TEST(test_large_fill_and_copy_on_the_device_go_in_pieces),
        TEST(test_piece_that_fails),
        TEST(test_window_opens_as_kernels_become_known),
        TEST(test_failed_launch_teaches_nothing),
        TEST(test_no_more_commands_than_the_terms_allow),
        TEST(test_time_off_is_not_used),
        TEST(test_put_back_while_it_is_looked_at),
        TEST(test_work_that_takes_too_long),
        TEST(test_work_whose_end_is_seen_late),
        TEST(test_lost_context_is_counted_once),
        TEST(test_memory_beyond_the_quota),
        TEST(test_quota_above_what_the_gpu_has),
        TEST(test_what_the_gpu_refuses_is_not_used),
        TEST(test_memory_that_is_not_freed_stays_used),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
