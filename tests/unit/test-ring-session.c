/* SPDX-License-Identifier: MIT */
/*
 * A ring session: the order of commands, what waits and what does not, which failures are
 * reported when, and turns.
 */
#include <errno.h>
#include <string.h>
#include <sys/socket.h>

#include "clock.h"
#include "ring-fixture.h"
#include "unit.h"

static void post_work(void)
{
    post_fill(0, 0x7000, 1, 4);
}

/* Its compiler may take seconds, and others wait for the GPU. */
static void test_turn_is_not_kept_while_a_module_is_loaded(void **state)
{
    (void)state;
    post_work();
    assert_int_equal(steps(), 0);
    assert_int_equal(fixture.turn_page.turn, VGPU_TURN_RUNNING);
    make_module();
    assert_int_equal(fake.turn_at_load, VGPU_TURN_RUNNING); /* the GPU works */
    fake_finish();
    make_module();
    assert_int_equal(fake.turn_at_load, VGPU_TURN_OPEN);
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
    assert_false(ring_session_quiet(&fixture.session));
    fake.full = false;
    assert_int_equal(steps(), 0);
    assert_int_equal(result_of(1), VGPU_GPU_SUCCESS);
    assert_string_equal(fake_log(), "fill");
    assert_int_equal(fixture.turn_page.requests, 2);
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
    assert_int_equal(fixture.turn_page.errors, 1);
    assert_int_equal(fixture.turn_page.requests, 2);
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
    fake.lost = VGPU_GPU_ILLEGAL_ADDRESS;
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

static void test_open_turn_needs_no_mediator(void **state)
{
    (void)state;
    post_work();
    assert_int_equal(steps(), 0);
    assert_int_equal(fixture.turn_page.turn, VGPU_TURN_RUNNING);
    assert_false(ring_session_quiet(&fixture.session));
    fake_finish();
    assert_int_equal(steps(), 0);
    assert_int_equal(fixture.turn_page.turn, VGPU_TURN_OPEN);
    assert_true(ring_session_quiet(&fixture.session));
    assert_int_equal(sent(NULL), 0);
    assert_true(fixture.turn_page.busy_ns > 0);
}

static void test_closed_turn_is_asked_for_once(void **state)
{
    uint32_t value = 9;

    (void)state;
    fixture.turn_page.turn = VGPU_TURN_CLOSED;
    post_work();
    post(VGPU_CMD_NOP, 1, NULL, 0);
    for (int i = 0; i < 3; i++) {
        assert_int_equal(steps(), 0);
    }
    assert_int_equal(sent(NULL), VGPU_LINK_ASK);
    assert_int_equal(sent(NULL), 0);
    assert_string_equal(fake_log(), "");
    assert_false(answered(1)); /* nothing overtakes */
    assert_false(ring_session_quiet(&fixture.session));

    fixture.turn_page.turn = VGPU_TURN_RUNNING;
    assert_int_equal(ring_session_turn(&fixture.session), 0);
    assert_int_equal(steps(), 0);
    assert_string_equal(fake_log(), "fill");
    assert_int_equal(result_of(1), VGPU_GPU_SUCCESS);
    assert_int_equal(sent(NULL), 0);

    fake_finish();
    assert_int_equal(steps(), 0);
    assert_int_equal(fixture.turn_page.turn, VGPU_TURN_OPEN);
    assert_int_equal(sent(&value), VGPU_LINK_DONE); /* it was asked for */
    assert_int_equal(value, 0);                     /* and stays */
    assert_string_equal(fake_log(), "");            /* once only */
    assert_int_equal(sent(NULL), 0);
}

static void test_what_waits_is_answered_without_a_turn(void **state)
{
    (void)state;
    post_work();
    post(VGPU_CMD_SYNC, 1, NULL, 0);
    assert_int_equal(steps(), 0);
    fixture.turn_page.turn = VGPU_TURN_RECALLED;
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
    const uint64_t stream = make(VGPU_CMD_STREAM_CREATE, 0);

    (void)state;
    fixture.turn_page.turn = VGPU_TURN_CLOSED;
    make(VGPU_CMD_MEM_ALLOC, 64);
    make_function(make_module(), "spin");
    post_pair(VGPU_CMD_EVENT_RECORD, 0, event, stream);
    post_pair(VGPU_CMD_STREAM_WAIT, 0, stream, event);
    assert_int_equal(call(VGPU_CMD_SYNC, NULL, 0), VGPU_GPU_SUCCESS);
    assert_int_equal(call_value(VGPU_CMD_MEM_FREE, 0x7000), VGPU_GPU_SUCCESS);
    assert_int_equal(sent(NULL), 0);
    assert_int_equal(fixture.turn_page.turn, VGPU_TURN_CLOSED);
}

static void test_recall_while_running(void **state)
{
    uint32_t value = 9;

    (void)state;
    post_work();
    assert_int_equal(steps(), 0);
    fixture.turn_page.turn = VGPU_TURN_RECALLED;
    post_copy(VGPU_COPY_ON_DEVICE, 0x7000, 0x8000, 4, 0);
    assert_int_equal(steps(), 0);
    assert_string_equal(fake_log(), "fill"); /* no more of it */
    assert_int_equal(fixture.turn_page.turn, VGPU_TURN_RECALLED);
    assert_int_equal(sent(NULL), 0);

    fake_finish();
    assert_int_equal(steps(), 0);
    assert_int_equal(fixture.turn_page.turn, VGPU_TURN_CLOSED);
    assert_int_equal(sent(&value), VGPU_LINK_DONE);
    assert_int_equal(value, 1); /* returned */
    /* What is held asks for the next turn. */
    assert_int_equal(steps(), 0);
    assert_int_equal(sent(NULL), VGPU_LINK_ASK);
    assert_int_equal(sent(NULL), 0);
    assert_string_equal(fake_log(), "");

    fixture.turn_page.turn = VGPU_TURN_RUNNING;
    assert_int_equal(ring_session_turn(&fixture.session), 0);
    assert_int_equal(steps(), 0);
    assert_string_equal(fake_log(), "copy");
}

static void test_recall_with_nothing_left_to_do(void **state)
{
    uint32_t value = 9;

    (void)state;
    post_work();
    assert_int_equal(steps(), 0);
    fixture.turn_page.turn = VGPU_TURN_RECALLED;
    fake_finish();
    assert_int_equal(steps(), 0);
    assert_int_equal(fixture.turn_page.turn, VGPU_TURN_CLOSED);
    assert_int_equal(sent(&value), VGPU_LINK_DONE);
    assert_int_equal(value, 1);
    assert_int_equal(sent(NULL), 0);
    assert_true(ring_session_quiet(&fixture.session));
}

/* Has a turn granted that others wait for already, with one command under way. */
static void enter_granted_turn(void)
{
    fixture.turn_page.turn = VGPU_TURN_CLOSED;
    post_work();
    assert_int_equal(steps(), 0);
    assert_int_equal(sent(NULL), VGPU_LINK_ASK);
    fixture.turn_page.turn = VGPU_TURN_RUNNING;
    assert_int_equal(ring_session_turn(&fixture.session), 0);
    assert_int_equal(steps(), 0);
    assert_string_equal(fake_log(), "fill");
    fixture.turn_page.turn = VGPU_TURN_RECALLED;
}

/* A turn that was waited for is worth more than one command. */
static void test_granted_turn_lasts_a_while(void **state)
{
    uint64_t start;

    (void)state;
    enter_granted_turn();
    do {
        /* A busy machine may not come to it in that millisecond. */
        assert_true(fake.submitted < 1000);
        fake_log();
        post_work();
        start = fixture.session.turn_ns = clock_ns();
        assert_int_equal(steps(), 0);
    } while (clock_ns() - start >= NS_PER_MS);
    assert_true(strlen(fake_log()) > 0);
    assert_false(fixture.session.held);
}

static void test_granted_turn_does_not_last_longer(void **state)
{
    uint32_t value = 9;

    (void)state;
    enter_granted_turn();
    fixture.session.turn_ns = clock_ns() - 2 * NS_PER_MS;
    post_work();
    assert_int_equal(steps(), 0);
    assert_string_equal(fake_log(), "");
    assert_true(fixture.session.held);
    fake_finish();
    assert_int_equal(ring_session_step(&fixture.session), 0);
    assert_int_equal(sent(&value), VGPU_LINK_DONE);
    assert_int_equal(value, 1);
}

/* With work done and a command held for want of room, the turn is still of use. */
static void test_turn_is_kept_for_a_command_that_waits_for_room(void **state)
{
    (void)state;
    post_work();
    assert_int_equal(steps(), 0);
    fake.full = true;
    post_work();
    fake_finish();
    assert_int_equal(steps(), 0);
    assert_int_equal(fixture.turn_page.turn, VGPU_TURN_RUNNING);
    fixture.turn_page.turn = VGPU_TURN_RECALLED;
    assert_int_equal(steps(), 0);
    assert_int_equal(fixture.turn_page.turn, VGPU_TURN_CLOSED);
    assert_int_equal(sent(NULL), VGPU_LINK_DONE);
}

static void test_turn_that_nobody_asked_for(void **state)
{
    (void)state;
    assert_int_equal(ring_session_turn(&fixture.session), -EPROTO);
    post_work();
    assert_int_equal(steps(), 0);
    assert_int_equal(ring_session_turn(&fixture.session), -EPROTO);
}

static void test_mediator_that_is_gone(void **state)
{
    int r;

    (void)state;
    fixture.turn_page.turn = VGPU_TURN_CLOSED;
    shutdown(fixture.mediator, SHUT_RDWR);
    post_work();
    r = steps();
    assert_true(r < 0);
    assert_int_not_equal(r, -EPROTO); /* which would blame the guest */
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
    assert_int_equal(s->turn_state, RING_TURN_NONE);
    assert_false(ring_session_quiet(s));
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
        TEST(test_recall_while_running),
        TEST(test_recall_with_nothing_left_to_do),
        TEST(test_granted_turn_lasts_a_while),
        TEST(test_granted_turn_does_not_last_longer),
        TEST(test_turn_is_kept_for_a_command_that_waits_for_room),
        TEST(test_turn_that_nobody_asked_for),
        TEST(test_mediator_that_is_gone),
        TEST(test_session_is_quiet_only_without_anything_to_do),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
