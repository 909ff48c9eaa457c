/* SPDX-License-Identifier: MIT */
/*
 * A worker that sleeps although something was posted, because the guest saw too late that it would:
 * a thread that waits rings again.
 *
 * The worker is a port whose `parked` becomes odd only after the thread has looked there, and that
 * answers when it is rung for.
 *
 * Tests: guest/libvgpu/session.c
 */
#include <unistd.h>

#include "common/shared.h"
#include "guest/libvgpu/session.h"
#include "tests/unit/unit.h"

#define PATIENCE_S 120u /* for what takes 30 ms */

static _Alignas(4096) struct vgpu_queue queue;
static unsigned rings;

static uint32_t port_status(struct vgpu_port *port)
{
    (void)port;
    shared_store(&queue.parked, 1);
    return VGPU_QUEUE_RUNNING;
}

static void port_kick(struct vgpu_port *port)
{
    const uint32_t tail = shared_load(&queue.tail);
    struct vgpu_command command;

    (void)port;
    rings++;
    memcpy(&command, queue.ring + shared_load(&queue.head), sizeof(command));
    shared_store(&queue.head, tail);
    shared_store(&queue.parked, 2);
    shared_store_release(&queue.slots[command.slot - 1].sequence, command.sequence);
}

static void test_rings_again(void **state)
{
    static const struct vgpu_port_ops ops = {.status = port_status, .kick = port_kick};
    struct vgpu_port port = {.ops = &ops, .queue = &queue};
    struct vgpu_session session = {
        .port = &port,
        .free_slots = UINT64_MAX,
        .ring_mutex = PTHREAD_MUTEX_INITIALIZER,
        .wait_mutex = PTHREAD_MUTEX_INITIALIZER,
        .wait_cond = PTHREAD_COND_INITIALIZER,
    };
    const struct command command = {.opcode = VGPU_CMD_NOP, .body = ""};

    (void)state;
    alarm(PATIENCE_S);
    assert_int_equal(session_call(&session, &command, NULL, 0), VGPU_OK);
    alarm(0);
    assert_int_equal(rings, 1);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_rings_again),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
