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

#include "common/fdmsg.h"
#include "common/log.h"
#include "protocol/vgpu-worker.h"

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

    do {
        poll(&link, 1, -1);
        n = fdmsg_recv(VGPU_WORKER_FD_LINK, &msg, sizeof(msg), fds, &count);
    } while (n == -EAGAIN);
    fdmsg_close(fds, &count);
    if (n != (ssize_t)sizeof(msg) || msg.type != VGPU_LINK_OPEN) {
        exit(EXIT_FAILURE);
    }
}

int worker_send_ready(const struct vgpu_device_info *info, bool can_be_off)
{
    struct vgpu_link_msg msg = {.type = VGPU_LINK_READY,
                                .value = info->backend,
                                .flags = can_be_off ? VGPU_READY_CAN_BE_OFF : 0};
    ssize_t n;

    snprintf(msg.text, sizeof(msg.text), "%s", info->name);
    n = fdmsg_send(VGPU_WORKER_FD_LINK, &msg, sizeof(msg), NULL, 0);
    return n < 0 ? (int)n : 0;
}
