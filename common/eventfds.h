/* SPDX-License-Identifier: MIT */
/*
 * Eventfds that others hold too. Whether they block cannot be relied on: O_NONBLOCK is shared
 * with all holders, and QEMU clears it on what it receives. So each access polls first.
 */
#ifndef VGPU_COMMON_EVENTFDS_H
#define VGPU_COMMON_EVENTFDS_H

#include <poll.h>
#include <stdbool.h>
#include <sys/eventfd.h>

/* Whether a signal is there to be taken. */
static inline bool eventfds_ready(int fd)
{
    struct pollfd p = {.fd = fd, .events = POLLIN};

    return poll(&p, 1, 0) == 1 && (p.revents & POLLIN) != 0;
}

/* Takes what was signalled, if anything. */
static inline void eventfds_clear(int fd)
{
    eventfd_t value;

    if (eventfds_ready(fd)) {
        eventfd_read(fd, &value);
    }
}

/* Signals. A full counter means that signals are pending anyway. */
static inline void eventfds_signal(int fd)
{
    struct pollfd p = {.fd = fd, .events = POLLOUT};

    if (poll(&p, 1, 0) == 1) {
        eventfd_write(fd, 1);
    }
}

#endif
