/* SPDX-License-Identifier: MIT */
/*
 * The worker's side of a ring: what is taken, what is refused, and when it sleeps. The test plays
 * a guest process, a good one or one that lies about all that it may write.
 *
 * Tests: worker/ring.c
 */
#include "worker/ring.h"

#include <poll.h>
#include <string.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "tests/unit/guest-side.h"
#include "tests/unit/unit.h"

#define HEADER ((uint32_t)sizeof(struct vgpu_command))

static _Alignas(4096) struct vgpu_queue queue;
static struct ring_command command;
static struct ring ring;
static struct guest_side guest;

static int set_up(void **state)
{
    (void)state;
    memset(&queue, 0, sizeof(queue));
    /* Blocking, as QEMU leaves it. */
    ring_init(&ring, &queue, eventfd(0, 0));
    guest = (struct guest_side){.queue = &queue};
    return ring.interrupt.fd < 0 ? -1 : 0;
}

static int tear_down(void **state)
{
    (void)state;
    return close(ring.interrupt.fd);
}

/* As if so many bytes had been posted and taken before. */
static void begin_at(uint32_t position)
{
    ring.head = ring.tail = queue.head = queue.tail = guest.tail = position;
}

/* Posts a header alone, whatever it says, and claims that so many bytes lie behind the head. */
static void post_header(struct vgpu_command header, uint32_t posted)
{
    memcpy(queue.ring + guest.tail % VGPU_RING_SIZE, &header, sizeof(header));
    queue.tail = guest.tail + posted;
}

/* The ring holds no command, and nothing of it is taken. */
static void assert_bad(void)
{
    const uint32_t head = queue.head;

    assert_int_equal(ring_take(&ring, &command), RING_BAD);
    assert_int_equal(queue.head, head);
    assert_int_equal(ring_take(&ring, &command), RING_BAD);
}

static bool irq_pending(void)
{
    struct pollfd p = {.fd = ring.interrupt.fd, .events = POLLIN};

    return poll(&p, 1, 0) == 1;
}

/* Taking ----------------------------------------------------------------------------------- */

static void test_empty_ring(void **state)
{
    (void)state;
    assert_int_equal(ring_take(&ring, &command), RING_EMPTY);
    assert_int_equal(queue.head, 0);
}

static void test_one_command(void **state)
{
    const struct vgpu_cmd_pair body = {.first = 0x1122334455667788, .second = 42};
    const uint32_t sequence = guest_post(&guest, VGPU_CMD_STREAM_WAIT, 7, &body, sizeof(body));

    (void)state;
    assert_int_equal(ring_take(&ring, &command), RING_COMMAND);
    assert_int_equal(command.header.opcode, VGPU_CMD_STREAM_WAIT);
    assert_int_equal(command.header.slot, 7);
    assert_int_equal(command.header.length, 32);
    assert_int_equal(command.header.sequence, sequence);
    assert_memory_equal(command.body, &body, sizeof(body));
    assert_int_equal(queue.head, 32);
    assert_int_equal(ring_take(&ring, &command), RING_EMPTY);
}

static void test_commands_come_in_their_order(void **state)
{
    (void)state;
    for (uint32_t i = 1; i <= 3; i++) {
        guest_post(&guest, VGPU_CMD_NOP, i, NULL, 0);
    }
    for (uint32_t i = 1; i <= 3; i++) {
        assert_int_equal(ring_take(&ring, &command), RING_COMMAND);
        assert_int_equal(command.header.slot, i);
        assert_int_equal(queue.head, i * HEADER);
    }
    assert_int_equal(ring_take(&ring, &command), RING_EMPTY);
}

static void test_command_as_large_as_may_be(void **state)
{
    static uint8_t body[VGPU_COMMAND_MAX - sizeof(struct vgpu_command)];

    (void)state;
    memset(body, 0xa5, sizeof(body));
    guest_post(&guest, VGPU_CMD_LAUNCH, 0, body, sizeof(body));
    assert_int_equal(ring_take(&ring, &command), RING_COMMAND);
    assert_int_equal(command.header.length, VGPU_COMMAND_MAX);
    assert_memory_equal(command.body, body, sizeof(body));
}

static void test_full_ring(void **state)
{
    uint32_t taken = 0;

    (void)state;
    for (uint32_t i = 0; i < VGPU_RING_SIZE / HEADER; i++) {
        guest_post(&guest, VGPU_CMD_NOP, 0, NULL, 0);
    }
    assert_int_equal(queue.tail, VGPU_RING_SIZE);
    while (ring_take(&ring, &command) == RING_COMMAND) {
        taken++;
    }
    assert_int_equal(taken, VGPU_RING_SIZE / HEADER);
    assert_int_equal(ring_take(&ring, &command), RING_EMPTY);
}

static void test_command_that_ends_where_the_ring_does(void **state)
{
    const struct vgpu_cmd_value body = {.value = 1};

    (void)state;
    begin_at(VGPU_RING_SIZE - 32);
    guest_post(&guest, VGPU_CMD_MEM_FREE, 1, &body, sizeof(body));
    guest_post(&guest, VGPU_CMD_NOP, 2, NULL, 0);
    assert_int_equal(ring_take(&ring, &command), RING_COMMAND);
    assert_memory_equal(command.body, &body, sizeof(body));
    assert_int_equal(ring_take(&ring, &command), RING_COMMAND);
    assert_int_equal(command.header.slot, 2);
    assert_int_equal(queue.head, VGPU_RING_SIZE + HEADER);
}

static void test_pad_is_skipped(void **state)
{
    const struct vgpu_cmd_value body = {.value = 99};

    (void)state;
    begin_at(VGPU_RING_SIZE - 16);
    guest_post(&guest, VGPU_CMD_MEM_FREE, 1, &body, sizeof(body));
    assert_int_equal(queue.tail, VGPU_RING_SIZE + 32);
    assert_int_equal(ring_take(&ring, &command), RING_COMMAND);
    assert_int_equal(command.header.opcode, VGPU_CMD_MEM_FREE);
    assert_memory_equal(command.body, &body, sizeof(body));
    assert_int_equal(queue.head, VGPU_RING_SIZE + 32);
}

/* Larger than a command may be: it is all of the ring's end, and is not copied. */
static void test_pad_with_nothing_behind_it(void **state)
{
    const struct vgpu_command pad = {.opcode = VGPU_CMD_PAD, .length = VGPU_RING_SIZE - 16};

    (void)state;
    begin_at(16);
    post_header(pad, pad.length);
    assert_int_equal(ring_take(&ring, &command), RING_EMPTY);
    assert_int_equal(queue.head, VGPU_RING_SIZE);
}

static void test_counters_that_wrap(void **state)
{
    const struct vgpu_cmd_value body = {.value = 5};

    (void)state;
    begin_at(0u - 48);
    for (uint32_t i = 1; i <= 4; i++) {
        guest_post(&guest, VGPU_CMD_MEM_FREE, i, &body, sizeof(body));
    }
    assert_int_equal(queue.tail, 96); /* 32, PAD of 16, then 3 from the start */
    for (uint32_t i = 1; i <= 4; i++) {
        assert_int_equal(ring_take(&ring, &command), RING_COMMAND);
        assert_int_equal(command.header.slot, i);
        assert_memory_equal(command.body, &body, sizeof(body));
    }
    assert_int_equal(queue.head, 96);
    assert_int_equal(ring_take(&ring, &command), RING_EMPTY);
}

/* As many commands as it takes to have the counters wrap, of all lengths. */
static void test_ring_goes_round_and_round(void **state)
{
    static uint8_t body[VGPU_COMMAND_MAX - sizeof(struct vgpu_command)];
    uint64_t posted = 0;

    (void)state;
    begin_at(0u - 20 * VGPU_RING_SIZE);
    for (uint32_t i = 0; posted < 40 * VGPU_RING_SIZE; i++) {
        const uint32_t bytes = (i * 7919) % (uint32_t)sizeof(body);

        memset(body, (int)i, bytes);
        posted += guest_needs(&guest, bytes);
        guest_post(&guest, VGPU_CMD_LAUNCH, i % (VGPU_SLOTS + 1), body, bytes);
        assert_int_equal(ring_take(&ring, &command), RING_COMMAND);
        assert_int_equal(command.header.length, guest_length(bytes));
        assert_int_equal(command.header.slot, i % (VGPU_SLOTS + 1));
        assert_memory_equal(command.body, body, bytes);
        assert_int_equal(queue.head, queue.tail);
    }
    assert_true(queue.head < 40 * VGPU_RING_SIZE);
}

/* Lies about the tail ------------------------------------------------------------------------ */

static void test_tail_beyond_the_ring(void **state)
{
    static const uint32_t tails[] = {VGPU_RING_SIZE + 16, 1u << 31, 0u - 16};

    for (size_t i = 0; i < sizeof(tails) / sizeof(tails[0]); i++) {
        const struct vgpu_command nop = {.opcode = VGPU_CMD_NOP, .length = HEADER};

        tear_down(state);
        set_up(state);
        post_header(nop, tails[i]);
        assert_bad();
    }
}

static void test_tail_that_goes_back(void **state)
{
    (void)state;
    begin_at(64);
    queue.tail = 48;
    assert_bad();
}

static void test_tail_that_is_not_aligned(void **state)
{
    for (uint32_t odd = 1; odd < VGPU_COMMAND_ALIGN; odd++) {
        const struct vgpu_command nop = {.opcode = VGPU_CMD_NOP, .length = HEADER};

        tear_down(state);
        set_up(state);
        post_header(nop, HEADER + odd);
        assert_bad();
        tear_down(state);
        set_up(state);
        post_header(nop, odd);
        assert_bad();
    }
}

/* What was posted counts until it is taken, wherever the tail says it is meanwhile. */
static void test_tail_that_is_taken_back(void **state)
{
    (void)state;
    guest_post(&guest, VGPU_CMD_NOP, 1, NULL, 0);
    guest_post(&guest, VGPU_CMD_NOP, 2, NULL, 0);
    assert_int_equal(ring_take(&ring, &command), RING_COMMAND);
    queue.tail = 0;
    assert_int_equal(ring_take(&ring, &command), RING_COMMAND);
    assert_int_equal(command.header.slot, 2);
    assert_bad();
}

/* What the worker wrote it does not read back. */
static void test_guest_that_overwrites_the_workers_line(void **state)
{
    (void)state;
    guest_post(&guest, VGPU_CMD_NOP, 1, NULL, 0);
    queue.head = 0xdeadbee0;
    queue.parked = 77;
    assert_int_equal(ring_take(&ring, &command), RING_COMMAND);
    assert_int_equal(queue.head, HEADER);
    assert_true(ring_park(&ring));
    assert_int_equal(queue.parked, 1);
}

/* Lies in the header ------------------------------------------------------------------------- */

static void test_length_that_is_none(void **state)
{
    for (uint32_t length = 0; length <= 96; length++) {
        const struct vgpu_command nop = {.opcode = VGPU_CMD_NOP, .length = length};

        tear_down(state);
        set_up(state);
        post_header(nop, 64);
        if (length >= HEADER && length % VGPU_COMMAND_ALIGN == 0 && length <= 64) {
            assert_int_equal(ring_take(&ring, &command), RING_COMMAND);
            assert_int_equal(queue.head, length);
        } else {
            assert_bad(); /* too short, odd, or longer than what is posted */
        }
    }
}

static void test_length_near_2_to_the_32(void **state)
{
    const struct vgpu_command nop = {.opcode = VGPU_CMD_NOP, .length = 0u - 16};

    (void)state;
    post_header(nop, VGPU_RING_SIZE);
    assert_bad();
}

static void test_command_across_the_rings_end(void **state)
{
    const struct vgpu_command nop = {.opcode = VGPU_CMD_NOP, .length = 48};

    (void)state;
    begin_at(VGPU_RING_SIZE - 32);
    post_header(nop, 64);
    assert_bad();
}

static void test_command_larger_than_any(void **state)
{
    const struct vgpu_command launch = {.opcode = VGPU_CMD_LAUNCH,
                                        .length = VGPU_COMMAND_MAX + VGPU_COMMAND_ALIGN};

    (void)state;
    post_header(launch, VGPU_RING_SIZE);
    assert_bad();
}

static void test_reserved_word_that_is_set(void **state)
{
    for (uint32_t bit = 0; bit < 32; bit++) {
        const struct vgpu_command nop = {
            .opcode = VGPU_CMD_NOP, .length = HEADER, .reserved = 1u << bit};

        tear_down(state);
        set_up(state);
        post_header(nop, HEADER);
        assert_bad();
    }
}

static void test_slot_that_does_not_exist(void **state)
{
    for (uint32_t slot = 0; slot <= UINT16_MAX; slot++) {
        const struct vgpu_command nop = {
            .opcode = VGPU_CMD_NOP, .length = HEADER, .slot = (uint16_t)slot};

        begin_at(0);
        post_header(nop, HEADER);
        assert_int_equal(ring_take(&ring, &command), slot <= VGPU_SLOTS ? RING_COMMAND : RING_BAD);
    }
    (void)state;
}

static void test_pad_that_wants_an_answer(void **state)
{
    const struct vgpu_command pad = {.opcode = VGPU_CMD_PAD, .length = 32, .slot = 1};

    (void)state;
    begin_at(VGPU_RING_SIZE - 32);
    post_header(pad, 32);
    assert_bad();
}

/* Two in a row could go on for ever. */
static void test_pad_of_the_whole_ring(void **state)
{
    const struct vgpu_command pad = {.opcode = VGPU_CMD_PAD, .length = VGPU_RING_SIZE};

    (void)state;
    begin_at(0);
    post_header(pad, VGPU_RING_SIZE);
    assert_bad();
}

static void test_pad_that_does_not_reach_the_end(void **state)
{
    const struct vgpu_command pad = {.opcode = VGPU_CMD_PAD, .length = 32};

    (void)state;
    begin_at(VGPU_RING_SIZE - 48);
    post_header(pad, 48);
    assert_bad();
}

static void test_pad_beyond_the_end(void **state)
{
    const struct vgpu_command pad = {.opcode = VGPU_CMD_PAD, .length = 64};

    (void)state;
    begin_at(VGPU_RING_SIZE - 48);
    post_header(pad, 96);
    assert_bad();
}

static void test_pad_that_is_not_all_posted(void **state)
{
    const struct vgpu_command pad = {.opcode = VGPU_CMD_PAD, .length = 48};

    (void)state;
    begin_at(VGPU_RING_SIZE - 48);
    post_header(pad, 32);
    assert_bad();
}

/* Answering ---------------------------------------------------------------------------------- */

static void test_answer(void **state)
{
    static const struct vgpu_slot untouched;
    const struct vgpu_command header = {.slot = VGPU_SLOTS, .sequence = 1234};
    uint8_t payload[VGPU_PAYLOAD_MAX];
    const struct vgpu_slot *slot = &queue.slots[VGPU_SLOTS - 1];

    (void)state;
    memset(payload, 0x5a, sizeof(payload));
    ring_answer(&ring, &header, VGPU_GPU_NOT_FOUND, payload, sizeof(payload));
    assert_int_equal(slot->sequence, 1234);
    assert_int_equal(slot->result, VGPU_GPU_NOT_FOUND);
    assert_int_equal(slot->length, sizeof(payload));
    assert_memory_equal(slot->payload, payload, sizeof(payload));
    for (uint32_t i = 0; i < VGPU_SLOTS - 1; i++) {
        assert_memory_equal(&queue.slots[i], &untouched, sizeof(untouched));
    }
    for (uint32_t i = 0; i < 64; i++) {
        assert_int_equal(queue.ring[i], 0); /* what lies behind the last slot */
    }
}

static void test_interrupt_only_while_it_is_waited_for(void **state)
{
    const struct vgpu_command header = {.slot = 1, .sequence = 1};
    eventfd_t value;

    (void)state;
    ring_answer(&ring, &header, VGPU_GPU_SUCCESS, NULL, 0);
    assert_false(irq_pending());
    queue.waiting = 1;
    ring_answer(&ring, &header, VGPU_GPU_SUCCESS, NULL, 0);
    assert_true(irq_pending());
    assert_int_equal(eventfd_read(ring.interrupt.fd, &value), 0);
    assert_int_equal(value, 1);
    queue.waiting = 0;
    ring_answer(&ring, &header, VGPU_GPU_SUCCESS, NULL, 0);
    assert_false(irq_pending());
}

/* A guest that never takes its interrupts must not hold up its worker in write(). */
static void test_full_eventfd_does_not_block(void **state)
{
    const struct vgpu_command header = {.slot = 1, .sequence = 9};
    const eventfd_t full = UINT64_MAX - 1;
    eventfd_t value = 0;

    (void)state;
    assert_int_equal(eventfd_write(ring.interrupt.fd, full), 0);
    queue.waiting = 1;
    alarm(60); /* ends a test that hangs */
    ring_answer(&ring, &header, VGPU_GPU_SUCCESS, NULL, 0);
    alarm(0);
    assert_int_equal(queue.slots[0].sequence, 9);
    assert_int_equal(eventfd_read(ring.interrupt.fd, &value), 0);
    assert_true(value == full);
}

/* Sleeping ----------------------------------------------------------------------------------- */

static void test_park(void **state)
{
    (void)state;
    assert_int_equal(queue.parked, 0);
    assert_true(ring_park(&ring));
    assert_int_equal(queue.parked, 1);
    ring_unpark(&ring);
    assert_int_equal(queue.parked, 2);
    /* Awake already. */
    ring_unpark(&ring);
    assert_int_equal(queue.parked, 2);
    assert_true(ring_park(&ring));
    assert_int_equal(queue.parked, 3);
}

static void test_park_when_something_was_posted_meanwhile(void **state)
{
    (void)state;
    assert_int_equal(ring_take(&ring, &command), RING_EMPTY);
    guest_post(&guest, VGPU_CMD_NOP, 0, NULL, 0);
    assert_false(ring_park(&ring));
    assert_int_equal(queue.parked, 2); /* counted, so that a kick for 1 is not owed for 3 */
    assert_int_equal(ring_take(&ring, &command), RING_COMMAND);
    assert_true(ring_park(&ring));
    assert_int_equal(queue.parked, 3);
}

static void test_park_with_commands_left(void **state)
{
    (void)state;
    guest_post(&guest, VGPU_CMD_NOP, 0, NULL, 0);
    guest_post(&guest, VGPU_CMD_NOP, 0, NULL, 0);
    assert_int_equal(ring_take(&ring, &command), RING_COMMAND);
    assert_false(ring_park(&ring));
}

static void test_init_forgets_a_former_session(void **state)
{
    (void)state;
    queue.head = 4096;
    queue.parked = 3;
    ring_init(&ring, &queue, ring.interrupt.fd);
    assert_int_equal(queue.head, 0);
    assert_int_equal(queue.parked, 0);
    guest_post(&guest, VGPU_CMD_NOP, 1, NULL, 0);
    assert_int_equal(ring_take(&ring, &command), RING_COMMAND);
    assert_int_equal(queue.head, HEADER);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(test_empty_ring),
        TEST(test_one_command),
        TEST(test_commands_come_in_their_order),
        TEST(test_command_as_large_as_may_be),
        TEST(test_full_ring),
        TEST(test_command_that_ends_where_the_ring_does),
        TEST(test_pad_is_skipped),
        TEST(test_pad_with_nothing_behind_it),
        TEST(test_counters_that_wrap),
        TEST(test_ring_goes_round_and_round),
        TEST(test_tail_beyond_the_ring),
        TEST(test_tail_that_goes_back),
        TEST(test_tail_that_is_not_aligned),
        TEST(test_tail_that_is_taken_back),
        TEST(test_guest_that_overwrites_the_workers_line),
        TEST(test_length_that_is_none),
        TEST(test_length_near_2_to_the_32),
        TEST(test_command_across_the_rings_end),
        TEST(test_command_larger_than_any),
        TEST(test_reserved_word_that_is_set),
        TEST(test_slot_that_does_not_exist),
        TEST(test_pad_that_wants_an_answer),
        TEST(test_pad_of_the_whole_ring),
        TEST(test_pad_that_does_not_reach_the_end),
        TEST(test_pad_beyond_the_end),
        TEST(test_pad_that_is_not_all_posted),
        TEST(test_answer),
        TEST(test_interrupt_only_while_it_is_waited_for),
        TEST(test_full_eventfd_does_not_block),
        TEST(test_park),
        TEST(test_park_when_something_was_posted_meanwhile),
        TEST(test_park_with_commands_left),
        TEST(test_init_forgets_a_former_session),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
