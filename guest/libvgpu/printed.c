/* SPDX-License-Identifier: MIT */
/*
 * What the session's kernels print, and what is said of their failed assertions: fetched from the
 * worker, and written to this process's standard output and error.
 *
 * CUDA's driver does it in calls that synchronise, before they return, and by itself now and then.
 * Here a thread that has its answer, whatever it asked for, looks at a count in the queue; one that
 * waits for long looks now and then. The text comes in pieces through the arena, or through the
 * slot where that is full.
 */
#include <errno.h>
#include <poll.h>
#include <unistd.h>

#include "guest/libvgpu/ring-calls.h"
#include "guest/libvgpu/session.h"

#define PIECE (64u << 10) /* bytes */

/* Whether this thread is in session_show(): the answers to what that asks call it again. */
static _Thread_local bool showing;

/*
 * As the driver writes: not through stdio, whose buffers are the program's. Where nobody reads any
 * more the text is lost, as there.
 */
static void write_all(int file, const uint8_t *text, uint32_t bytes)
{
    while (bytes > 0) {
        const ssize_t n = write(file, text, bytes);

        if (n >= 0) {
            text += n;
            bytes -= (uint32_t)n;
        } else if (errno == EAGAIN) {
            poll(&(struct pollfd){.fd = file, .events = POLLOUT}, 1, -1);
        } else if (errno != EINTR) {
            return;
        }
    }
}

/*
 * Fetches and writes what there is of one file, by a piece of the arena, or NULL; no more than
 * *left bytes and a piece, which become as many less: a kernel that goes on printing does not keep
 * this thread.
 */
static int show_file(struct vgpu_session *s, enum vgpu_printed_file file, uint8_t *piece,
                     uint32_t *left)
{
    const uint64_t to = (uint64_t)(uintptr_t)piece;
    const uint32_t room = piece ? PIECE : VGPU_PRINTED_SLOT;
    struct vgpu_result_printed result;
    int r;

    do {
        r = ring_printed(s, file, room, to, &result);
        if (r == VGPU_OK && result.bytes > room) {
            r = VGPU_INCOMPATIBLE;
        }
        if (r == VGPU_OK) {
            write_all((int)file, piece ? piece : result.text, result.bytes);
            *left -= result.bytes < *left ? result.bytes : *left;
        }
    } while (r == VGPU_OK && result.bytes > 0 && *left > 0);
    return r;
}

/*
 * With the mutex. The count is taken before the text: what comes meanwhile is fetched, or is there
 * when the count is looked at again. An answer's errno and message are not this matter's.
 */
static void show_all(struct vgpu_session *s)
{
    const int saved = errno;
    const uint32_t count = shared_load(&s->port->queue->printed);
    uint32_t left = count - shared_load(&s->shown);
    void *piece = NULL;
    int r;

    if (vgpu_pinned_alloc(s, PIECE, &piece) == VGPU_OK && !vgpu_is_pinned(s, piece)) {
        vgpu_pinned_free(s, piece);
        piece = NULL;
    }
    r = show_file(s, VGPU_PRINTED_OUT, piece, &left);
    if (r == VGPU_OK && left > 0) {
        show_file(s, VGPU_PRINTED_ERR, piece, &left);
    }
    vgpu_pinned_free(s, piece);
    shared_store(&s->shown, count);
    errno = saved;
}

void session_show(struct vgpu_session *s, bool wait)
{
    if (showing) {
        return;
    }
    if (wait) {
        pthread_mutex_lock(&s->show_mutex);
    } else if (pthread_mutex_trylock(&s->show_mutex) != 0) {
        return;
    }
    if (session_prints(s)) {
        showing = true;
        show_all(s);
        showing = false;
    }
    pthread_mutex_unlock(&s->show_mutex);
}
