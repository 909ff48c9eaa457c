/* SPDX-License-Identifier: MIT */
/* What kernels print, see printed.h. */
#include "worker/printed.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "common/log.h"
#include "common/shared.h"
#include "worker/thread.h"

/* So often one pipe is read before the other is looked at, and what is there is told. */
#define READS_MAX 64u

/* Keeping ------------------------------------------------------------------------------------- */

/* Reads what the pipe has, without waiting. Returns the bytes. */
static uint64_t read_pipe(struct printed_text *text)
{
    const uint64_t before = text->end;

    for (unsigned i = 0; i < READS_MAX; i++) {
        const uint64_t place = text->end % VGPU_PRINTED_KEPT;
        const ssize_t n = read(text->pipe, text->bytes + place, VGPU_PRINTED_KEPT - place);

        if (n <= 0) {
            break;
        }
        text->end += (uint64_t)n;
    }
    if (text->end - text->begin > VGPU_PRINTED_KEPT) {
        text->begin = text->end - VGPU_PRINTED_KEPT;
    }
    return text->end - before;
}

bool printed_read(struct printed *p)
{
    uint64_t bytes = 0;

    if (!p->open) {
        return false;
    }
    pthread_mutex_lock(&p->mutex);
    for (unsigned i = 0; i < VGPU_PRINTED_FILES; i++) {
        bytes += read_pipe(&p->texts[i]);
    }
    if (bytes > 0) {
        shared_store(&p->count, p->count + (uint32_t)bytes);
        /* Partner: the load-acquire of a guest that has its answer. */
        shared_store_release(&p->queue->printed, p->count);
    }
    pthread_mutex_unlock(&p->mutex);
    return bytes > 0;
}

uint32_t printed_take(struct printed *p, enum vgpu_printed_file file, void *to, uint32_t room)
{
    struct printed_text *text = &p->texts[file - 1];
    uint64_t place, count;

    if (!p->open) {
        return 0;
    }
    pthread_mutex_lock(&p->mutex);
    place = text->begin % VGPU_PRINTED_KEPT;
    count = text->end - text->begin;
    count = count < room ? count : room;
    count = count < VGPU_PRINTED_KEPT - place ? count : VGPU_PRINTED_KEPT - place;
    if (count > 0) {
        memcpy(to, text->bytes + place, count);
        text->begin += count;
    }
    if (text->begin == text->end) {
        /* From the start again, so that little text takes few pages. */
        text->begin = text->end = 0;
    }
    pthread_mutex_unlock(&p->mutex);
    return (uint32_t)count;
}

/* Pipes --------------------------------------------------------------------------------------- */

int printed_init(struct printed *p, const int pipes[VGPU_PRINTED_FILES], struct vgpu_queue *queue)
{
    /* Most sessions never print, and pages are there when they are written to. */
    uint8_t *bytes = malloc((size_t)VGPU_PRINTED_FILES * VGPU_PRINTED_KEPT);

    if (!bytes) {
        return -ENOMEM;
    }
    *p = (struct printed){.open = true, .bytes = bytes, .queue = queue};
    pthread_mutex_init(&p->mutex, NULL);
    for (unsigned i = 0; i < VGPU_PRINTED_FILES; i++) {
        p->texts[i].pipe = pipes[i];
        p->texts[i].bytes = bytes + (size_t)i * VGPU_PRINTED_KEPT;
    }
    return 0;
}

/* Puts a pipe's end to write to in the place of a descriptor; *end is the other one. */
static int make_pipe_of(int file, int *end)
{
    int ends[2];

    if (pipe2(ends, O_CLOEXEC) < 0) {
        return -errno;
    }
    /* The flag is of this end alone: whoever writes may have to wait for the thread. */
    if (fcntl(ends[0], F_SETFL, O_NONBLOCK) < 0 || dup2(ends[1], file) < 0) {
        return -errno;
    }
    close(ends[1]);
    *end = ends[0];
    return 0;
}

int printed_divert(struct printed *p, struct vgpu_queue *queue)
{
    /* Where the sanitizers of a test build report to, if there are any. */
    extern void __sanitizer_set_report_fd(void *file) __attribute__((weak));
    const int log = fcntl(STDERR_FILENO, F_DUPFD_CLOEXEC, STDERR_FILENO + 1);
    int ends[VGPU_PRINTED_FILES] = {-1, -1};
    int r = log < 0 ? -errno : 0;

    for (unsigned i = 0; r == 0 && i < VGPU_PRINTED_FILES; i++) {
        r = make_pipe_of(STDOUT_FILENO + (int)i, &ends[i]);
    }
    if (log >= 0) {
        log_set_file(log);
        if (__sanitizer_set_report_fd) {
            __sanitizer_set_report_fd((void *)(intptr_t)log);
        }
    }
    return r == 0 ? printed_init(p, ends, queue) : r;
}

static void *watch_pipes(void *argument)
{
    struct printed *p = argument;
    struct pollfd fds[VGPU_PRINTED_FILES];

    for (;;) {
        for (unsigned i = 0; i < VGPU_PRINTED_FILES; i++) {
            fds[i] = (struct pollfd){.fd = p->texts[i].pipe, .events = POLLIN};
        }
        if (poll(fds, VGPU_PRINTED_FILES, -1) > 0) {
            printed_read(p);
        }
    }
    return NULL;
}

/* The thread ends with the process. */
int printed_watch(struct printed *p)
{
    return thread_start(watch_pipes, p);
}

void printed_release(struct printed *p)
{
    for (unsigned i = 0; p->open && i < VGPU_PRINTED_FILES; i++) {
        close(p->texts[i].pipe);
    }
    free(p->bytes);
    *p = (struct printed){0};
}
