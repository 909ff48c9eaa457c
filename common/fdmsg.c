/* SPDX-License-Identifier: MIT */
/*
 * Messages with descriptors over Unix sockets, by SCM_RIGHTS.
 *
 * The kernel puts descriptors that come with a message into this process before anything of the
 * message can be looked at. So fdmsg_recv() hands all of them to the caller, also when it returns
 * an error, and the caller closes what it does not keep. Otherwise anybody who may write to a
 * socket could fill the table of descriptors.
 *
 * On a stream socket a message may arrive in several parts. Its descriptors come with its first
 * byte; so a caller that never reads beyond the end of a message knows which message they belong
 * to.
 */
#include "common/fdmsg.h"

#include <errno.h>
#include <stdint.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

/*
 * What Linux lets a message carry. There is room for all: the kernel would close the rest in
 * recvmsg(), and how long that takes is up to whoever sent them.
 */
#define SENT_MAX 253u

/* The control buffer, aligned as cmsg(3) asks. */
union control {
    char bytes[CMSG_SPACE(SENT_MAX * sizeof(int))];
    struct cmsghdr align;
};

static void close_plainly(int fd)
{
    close(fd);
}

static void (*close_fd)(int fd) = close_plainly;

void fdmsg_close_by(void (*function)(int fd))
{
    close_fd = function;
}

ssize_t fdmsg_send(int socket, const void *bytes, size_t length, const int *fds, size_t count)
{
    union control control;
    struct iovec iov = {.iov_base = (void *)(uintptr_t)bytes, .iov_len = length};
    struct msghdr msg = {.msg_iov = &iov, .msg_iovlen = 1};
    ssize_t n;

    /* More would be written behind the end of the control buffer. */
    if (count > FDMSG_MAX) {
        return -EINVAL;
    }
    if (count > 0) {
        memset(&control, 0, sizeof(control));
        msg.msg_control = control.bytes;
        msg.msg_controllen = CMSG_SPACE(count * sizeof(int));
        struct cmsghdr *c = CMSG_FIRSTHDR(&msg);
        c->cmsg_level = SOL_SOCKET;
        c->cmsg_type = SCM_RIGHTS;
        c->cmsg_len = CMSG_LEN(count * sizeof(int));
        memcpy(CMSG_DATA(c), fds, count * sizeof(int));
    }
    do {
        n = sendmsg(socket, &msg, MSG_NOSIGNAL | MSG_DONTWAIT);
    } while (n < 0 && errno == EINTR);
    return n < 0 ? -errno : n;
}

/* Moves the descriptors of one control message to `fds`; returns how many did not fit. */
static size_t take_fds(struct cmsghdr *c, int *fds, size_t *count)
{
    const size_t n = (c->cmsg_len - CMSG_LEN(0)) / sizeof(int);
    size_t left_over = 0;

    for (size_t i = 0; i < n; i++) {
        int fd;

        memcpy(&fd, CMSG_DATA(c) + i * sizeof(int), sizeof(int));
        if (*count < FDMSG_MAX) {
            fds[(*count)++] = fd;
        } else {
            close_fd(fd);
            left_over++;
        }
    }
    return left_over;
}

ssize_t fdmsg_recv(int socket, void *bytes, size_t length, int *fds, size_t *count)
{
    union control control;
    struct iovec iov = {.iov_base = bytes, .iov_len = length};
    struct msghdr msg = {
        .msg_iov = &iov,
        .msg_iovlen = 1,
        .msg_control = control.bytes,
        .msg_controllen = sizeof(control.bytes),
    };
    size_t left_over = 0;
    ssize_t n;

    do {
        n = recvmsg(socket, &msg, MSG_CMSG_CLOEXEC | MSG_DONTWAIT);
    } while (n < 0 && errno == EINTR);
    if (n < 0) {
        return -errno;
    }
    for (struct cmsghdr *c = CMSG_FIRSTHDR(&msg); c; c = CMSG_NXTHDR(&msg, c)) {
        if (c->cmsg_level == SOL_SOCKET && c->cmsg_type == SCM_RIGHTS) {
            left_over += take_fds(c, fds, count);
        }
    }
    /* With MSG_CTRUNC the kernel has closed those that the buffer had no room for. */
    if (left_over > 0 || (msg.msg_flags & MSG_CTRUNC)) {
        return -EMSGSIZE;
    }
    return n;
}

void fdmsg_close(int *fds, size_t *count)
{
    while (*count > 0) {
        close_fd(fds[--*count]);
    }
}
