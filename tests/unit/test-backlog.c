/* SPDX-License-Identifier: MIT */
/*
 * Commands that wait for their time: they come out as they went in, in order, against a model.
 *
 * Tests: worker/backlog.c
 */
#include <stdlib.h>
#include <string.h>

#include "tests/unit/unit.h"
#include "worker/backlog.h"

#define HEADER ((uint32_t)sizeof(struct vgpu_command))

static struct backlog backlog;
static struct ring_command command;

/* What is in there: its place in the row and all that follows from that. */
static struct {
    uint64_t first, count;
} model;
static uint32_t lengths[BACKLOG_COMMANDS];

static int set_up(void **state)
{
    (void)state;
    memset(&backlog, 0, sizeof(backlog));
    memset(&model, 0, sizeof(model));
    return 0;
}

static int tear_down(void **state)
{
    (void)state;
    backlog_release(&backlog);
    return 0;
}

static void add(uint16_t opcode, uint16_t slot, uint32_t length, uint64_t object)
{
    const uint64_t number = model.first + model.count++;

    command.header = (struct vgpu_command){
        .opcode = opcode, .slot = slot, .length = length, .sequence = (uint32_t)number};
    memset(command.body, (int)(number % 251), length - HEADER);
    lengths[number % BACKLOG_COMMANDS] = length;
    assert_true(backlog_has_room(&backlog));
    assert_true(backlog_add(
        &backlog, &command,
        &(struct command_facts){.key = {.stream = object}, .flags = (uint16_t)(1u << opcode)}));
}

static void take(void)
{
    const uint64_t number = model.first++;
    const uint32_t length = lengths[number % BACKLOG_COMMANDS];
    struct command_facts facts;

    model.count--;
    memset(&command, 0xff, sizeof(command));
    backlog_take(&backlog, &command, &facts);
    assert_int_equal(command.header.sequence, (uint32_t)number);
    assert_int_equal(command.header.length, length);
    assert_int_equal(facts.flags, (uint16_t)(1u << command.header.opcode));
    for (uint32_t i = 0; i < length - HEADER; i++) {
        assert_int_equal(command.body[i], number % 251);
    }
    if (length < VGPU_COMMAND_MAX) {
        assert_int_equal(command.body[length - HEADER], 0xff); /* no byte beyond */
    }
    assert_int_equal(backlog.count, model.count);
}

static void test_as_many_as_there_is_room_for(void **state)
{
    (void)state;
    for (int round = 0; round < 3; round++) {
        while (backlog_has_room(&backlog)) {
            add(VGPU_CMD_NOP, 0, HEADER, 0);
        }
        assert_int_equal(model.count, BACKLOG_COMMANDS);
        while (model.count > 0) {
            take();
        }
        while (backlog_has_room(&backlog)) {
            add(VGPU_CMD_LAUNCH, 0, VGPU_COMMAND_MAX, 0);
        }
        assert_int_equal(model.count, BACKLOG_BYTES / VGPU_COMMAND_MAX);
        while (model.count > 0) {
            take();
        }
    }
    assert_int_equal(backlog.used, 0);
}

static void test_any_lengths_go_round(void **state)
{
    unsigned seed = 1;

    (void)state;
    for (int i = 0; i < 20000; i++) {
        const unsigned choice = (unsigned)rand_r(&seed);
        const uint32_t most = choice % 8 == 0 ? VGPU_COMMAND_MAX - HEADER : 512;
        const uint32_t length = HEADER + (uint32_t)rand_r(&seed) % (most / VGPU_COMMAND_ALIGN + 1) *
                                             VGPU_COMMAND_ALIGN;

        if (backlog_has_room(&backlog) && choice / 8 % 100 < (i / 2000 % 2 ? 60 : 40)) {
            add(VGPU_CMD_LAUNCH, 0, length, 0);
        } else if (model.count > 0) {
            take();
        }
    }
    while (model.count > 0) {
        take();
    }
    assert_int_equal(backlog.used, 0);
}

static void test_what_is_there(void **state)
{
    const uint32_t fill = 1u << VGPU_CMD_FILL, copy = 1u << VGPU_CMD_COPY;

    (void)state;
    assert_int_equal(backlog_find(&backlog, UINT32_MAX, &(struct command_key){.stream = 0}), 0);
    add(VGPU_CMD_FILL, 3, 64, 7);
    add(VGPU_CMD_COPY, 64, 64, 8);
    add(VGPU_CMD_FILL, 0, 64, 7);
    assert_int_equal(backlog_find(&backlog, fill, &(struct command_key){.stream = 7}),
                     3); /* the last one */
    assert_int_equal(backlog_find(&backlog, copy, &(struct command_key){.stream = 8}), 2);
    assert_int_equal(backlog_find(&backlog, fill | copy, &(struct command_key){.stream = 8}), 2);
    assert_int_equal(backlog_find(&backlog, fill, &(struct command_key){.stream = 8}), 0);
    assert_int_equal(backlog_find(&backlog, copy, &(struct command_key){.stream = 7}), 0);
    assert_int_equal(backlog_find(&backlog, fill | copy, &(struct command_key){.stream = 9}), 0);
    assert_int_equal(backlog.slots, UINT64_C(1) << 2 | UINT64_C(1) << 63);
    take();
    assert_int_equal(backlog_find(&backlog, fill, &(struct command_key){.stream = 7}),
                     2); /* places move up */
    assert_int_equal(backlog_find(&backlog, copy, &(struct command_key){.stream = 8}), 1);
    assert_int_equal(backlog.slots, UINT64_C(1) << 63);
    take();
    assert_int_equal(backlog_find(&backlog, copy, &(struct command_key){.stream = 8}), 0);
    assert_int_equal(backlog.slots, 0);
    take();
    assert_int_equal(backlog_find(&backlog, fill, &(struct command_key){.stream = 7}), 0);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(test_as_many_as_there_is_room_for),
        TEST(test_any_lengths_go_round),
        TEST(test_what_is_there),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
