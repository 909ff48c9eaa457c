/* SPDX-License-Identifier: MIT */
/* Taking work off the GPU, see preempt.h. */
#include "worker/preempt.h"

#include <errno.h>
#include <linux/futex.h>
#include <poll.h>
#include <stdlib.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "common/clock.h"
#include "common/fdmsg.h"
#include "common/log.h"
#include "common/shared.h"
#include "worker/gpu.h"
#include "worker/thread.h"

/* Says that the work is off, as it was told with this count; 0: that it cannot be. */
static void say_off(const struct preempt *p, uint32_t count)
{
    const struct vgpu_link_msg msg = {
        .type = VGPU_LINK_OFF, .value = count, .engine = VGPU_ENGINE_COMPUTE};

    while (fdmsg_send(p->link, &msg, sizeof(msg), NULL, 0) == -EAGAIN) {
        poll(&(struct pollfd){.fd = p->link, .events = POLLOUT}, 1, -1);
    }
}

/* Waits until the word is another one. The page is shared, and so the futex is not private. */
static uint32_t await_order(const struct preempt *p, uint32_t seen)
{
    uint32_t *word = &p->page->turn[VGPU_ENGINE_COMPUTE].off;
    uint32_t count;

    while ((count = shared_load_acquire(word)) == seen) {
        syscall(SYS_futex, word, FUTEX_WAIT, seen, NULL, NULL, 0);
    }
    return count;
}

static void note_off(struct preempt *p, bool off)
{
    const uint64_t since = p->since_ns, now = clock_ns();

    if (!off) {
        shared_store64(&p->off_ns, p->off_ns + (now - since));
    }
    /* Partner: preempt_off_ns(). Who sees that it is on sees how long it was off. */
    shared_store64_release(&p->since_ns, off ? now : 0);
}

/* Work that is off and cannot be put back would never end, and nobody would wait for it. */
static void end_unless_on(const struct preempt *p, bool off)
{
    if (off || !p->gpu->ops->set_off(p->gpu, false)) {
        log_error("what was taken off the GPU cannot be put back, and so the session ends; "
                  "'preempt = no' in the mediator's configuration leaves work on the GPU");
        _exit(EXIT_FAILURE);
    }
}

/* Where the driver sets none, its own stays: what is to be off is turned off nevertheless. */
static void set_slice(const struct preempt *p, uint32_t *seen)
{
    const uint32_t us = shared_load(&p->page->terms.slice_us);

    if (us != *seen && p->gpu->ops->set_slice) {
        p->gpu->ops->set_slice(p->gpu, us);
    }
    *seen = us;
}

/*
 * Orders that follow each other before one is carried out cancel each other. A slice is of use to
 * those who wait meanwhile, but setting one takes a third as long as turning off: that comes first.
 */
static void *obey_orders(void *argument)
{
    struct preempt *p = argument;
    uint32_t count = 0, slice_us = 0;
    bool off = false;

    set_slice(p, &slice_us);
    for (;;) {
        bool wanted;

        count = await_order(p, count);
        wanted = count & 1;
        if (wanted != off) {
            if (!p->gpu->ops->set_off(p->gpu, wanted)) {
                /* A part of it may be off. */
                end_unless_on(p, off);
                break;
            }
            off = wanted;
            note_off(p, off);
        }
        if (off) {
            say_off(p, count);
        }
        set_slice(p, &slice_us);
    }
    say_off(p, 0);
    return NULL;
}

int preempt_start(struct preempt *p, struct vgpu_turn_page *page, struct gpu *gpu, int link)
{
    *p = (struct preempt){.page = page, .gpu = gpu, .link = link};
    return thread_start(obey_orders, p);
}

bool preempt_is_off(const struct preempt *p)
{
    return shared_load64_acquire(&p->since_ns) != 0;
}

uint64_t preempt_off_ns(const struct preempt *p)
{
    return shared_load64(&p->off_ns);
}
