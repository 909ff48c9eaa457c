/* SPDX-License-Identifier: MIT */
/*
 * A register page that a hostile guest has filled, before a session with the cpu backend:
 * whatever it says, there is an answer, and no access outside the shared memory. The first
 * byte tells how the request arrives: by the doorbell, or (odd) as the journal, in the state of
 * the next byte, of a worker that is taken over. Then come four bytes of length, and the request.
 *
 * Tests: worker/registers*.c, worker/request.c
 */
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>

#include "worker/registers.h"

#define SHM (1u << 20)

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static struct backend *backend;
static uint8_t *shm; /* of exactly its size, so that a byte beyond is found */
static int doorbell, irq;

static void set_up(void)
{
    char why[256];

    if (backend_open(BACKEND_CPU, 0, NULL, 0, &backend, why, sizeof(why)) < 0) {
        abort();
    }
    shm = calloc(1, SHM);
    doorbell = eventfd(0, EFD_NONBLOCK);
    irq = eventfd(0, EFD_NONBLOCK);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static struct vgpu_regs_page page;
    struct vgpu_turn_page turn = {
        .turn = {{VGPU_TURN_OPEN}, {VGPU_TURN_OPEN}, {VGPU_TURN_OPEN}},
    };
    struct registers session;
    bool takeover;
    uint8_t *to;

    if (!backend) {
        set_up();
    }
    if (size < 6) {
        return 0;
    }
    memset(&page, 0, sizeof(page));
    takeover = data[0] & 1;
    to = takeover ? page.journal.request : page.request;
    memcpy(takeover ? &page.journal.length : &page.request_len, data + 2, 4);
    memcpy(to, data + 6, size - 6 < VGPU_REQUEST_MAX ? size - 6 : VGPU_REQUEST_MAX);
    page.journal.state = takeover ? data[1] : VGPU_JOURNAL_EMPTY;
    page.status = takeover ? VGPU_STATUS_BUSY : VGPU_STATUS_IDLE;
    session = (struct registers){
        .page = &page,
        .shm = shm,
        .shm_size = SHM,
        .doorbell = doorbell,
        .interrupt = {.fd = irq, .page = &turn},
        .backend = backend,
        .turn_page = &turn,
        .link = -1,
    };
    if (registers_start(&session, REGISTERS_RESUME, VGPU_ERROR_NONE) < 0) {
        abort();
    }
    if (!takeover) {
        eventfd_write(doorbell, 1);
        if (registers_doorbell(&session) < 0) {
            abort();
        }
    }
    while (session.state == REGISTERS_RUNNING) {
        struct pollfd p = {.fd = backend->event_fd, .events = POLLIN};

        poll(&p, 1, -1);
        registers_backend(&session);
    }
    if (page.status != VGPU_STATUS_COMPLETE && page.status != VGPU_STATUS_ERROR) {
        abort();
    }
    return 0;
}
