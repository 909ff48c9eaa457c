/* SPDX-License-Identifier: MIT */
/*
 * What both kinds of worker ask for at their start, see worker.h. The descriptors lie where the
 * mediator has put them (protocol/vgpu-worker.h).
 */
#include "worker/worker.h"

#include <errno.h>
#include <inttypes.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "common/fdmsg.h"
#include "common/log.h"
#include "common/shared.h"
#include "protocol/vgpu-worker.h"
#include "worker/thread.h"

/* What the mediator was told at last, and what it asks for now; 0: nothing. */
static struct vgpu_link_msg ready;
static uint32_t resync;

void *worker_map(int fd, uint64_t size, uint64_t offset, const char *what)
{
    void *address = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED, fd, (off_t)offset);

    if (address == MAP_FAILED) {
        log_error("cannot map the %s of %" PRIu64 " bytes: %s", what, size, strerror(errno));
        exit(1);
    }
    return address;
}

struct vgpu_account_page *worker_account(void)
{
    struct vgpu_account_page *page = worker_map(VGPU_WORKER_FD_ACCOUNT, VGPU_ACCOUNT_PAGE_SIZE, 0,
                                                "account page");

    static_assert(sizeof(struct log_budget) == sizeof(page->log), "what it has room for");
    log_limit((struct log_budget *)(void *)page->log);
    return page;
}

void worker_await_open(void)
{
    struct pollfd link = {.fd = VGPU_WORKER_FD_LINK, .events = POLLIN};
    struct vgpu_link_msg msg;
    int fds[FDMSG_MAX];
    size_t count = 0;
    ssize_t n;

    for (;;) {
        poll(&link, 1, -1);
        n = fdmsg_recv(VGPU_WORKER_FD_LINK, &msg, sizeof(msg), fds, &count);
        fdmsg_close(fds, &count);
        if (n == -EAGAIN) {
            continue;
        }
        if (n != (ssize_t)sizeof(msg)) {
            exit(EXIT_FAILURE);
        }
        if (msg.type == VGPU_LINK_OPEN) {
            return;
        }
        if (msg.type != VGPU_LINK_RESYNC) {
            exit(EXIT_FAILURE);
        }
        /* It is answered when there is something to say. */
        worker_note_resync(msg.value);
    }
}

static int worker_send(const struct vgpu_link_msg *msg)
{
    const ssize_t n = fdmsg_send(VGPU_WORKER_FD_LINK, msg, sizeof(*msg), NULL, 0);

    return n < 0 ? (int)n : 0;
}

void worker_name_gpu(const struct options *options, struct vgpu_device_info *info)
{
    if (options->gpu_name) {
        memset(info->name, 0, sizeof(info->name));
        snprintf(info->name, sizeof(info->name), "%s", options->gpu_name);
    }
}

int worker_send_ready(const struct vgpu_device_info *info, bool can_be_off)
{
    ready = (struct vgpu_link_msg){.type = VGPU_LINK_READY,
                                   .value = info->backend,
                                   .flags = can_be_off ? VGPU_READY_CAN_BE_OFF : 0};
    snprintf(ready.text, sizeof(ready.text), "%s", info->name);
    return worker_send(&ready);
}

void worker_note_resync(uint32_t number)
{
    resync = number;
}

int worker_send_state(const uint32_t turns[VGPU_ENGINES])
{
    struct vgpu_link_msg msg = {.type = VGPU_LINK_STATE, .value = resync, .flags = ready.flags};

    if (resync == 0) {
        return 0;
    }
    resync = 0;
    memcpy(msg.state.turn, turns, sizeof(msg.state.turn));
    memcpy(msg.state.name, ready.text, sizeof(msg.state.name) - 1);
    return worker_send(&msg);
}

int worker_note_end(struct vgpu_turn_page *page, int code)
{
    shared_store(&page->exit_code, (uint32_t)code);
    return code;
}

static void *await_hangup(void *argument)
{
    struct pollfd link = {.fd = VGPU_WORKER_FD_LINK};

    (void)argument;
    /* Nothing is asked for: it is told of the end alone. */
    while (poll(&link, 1, -1) <= 0 || (link.revents & POLLHUP) == 0) {
        link.revents = 0;
    }
    _exit(EXIT_FAILURE);
}

int worker_watch_link(void)
{
    const int r = thread_start(await_hangup, NULL);

    if (r < 0) {
        log_error("no thread that waits for the mediator's end: %s", strerror(-r));
    }
    return r;
}
