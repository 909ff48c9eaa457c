/* SPDX-License-Identifier: MIT */
/*
 * The worker for register mode: serves one VM's register page.
 *
 * One thread, one epoll set: the link to the mediator, the doorbell, the backend's event.
 * After an answer whose doorbell came soon after the one before, the loop polls for a
 * while instead of sleeping: a guest in a dialogue is answered without a wake-up, an idle
 * one costs nothing.
 */
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdbool.h>
#include <string.h>
#include <sys/epoll.h>

#include "common/clock.h"
#include "common/fdmsg.h"
#include "common/log.h"
#include "common/memfd.h"
#include "common/shared.h"
#include "protocol/vgpu-attach.h"
#include "worker/isolation.h"
#include "worker/worker.h"

/* Beside what registers.h has: nothing has asked for the device for long enough. */
#define REGISTERS_REST 2

/* How long to poll after an answer, in a dialogue. */
#define SPIN_NS (200 * NS_PER_US)
/*
 * The pause between an answer and the next doorbell that makes polling worth it. It includes
 * this worker's own wake-up, which takes 100 us and more where idle processors sleep.
 */
#define DIALOGUE_NS (500 * NS_PER_US)

struct worker {
    struct registers registers;
    int epoll;
    int link;
    bool finishing;     /* exit as soon as nothing runs */
    uint64_t rest_ns;   /* as the options have it */
    uint64_t active_ns; /* when there was something to do last */
    bool dialogue;      /* the last doorbell came soon after the answer before it */
    struct pace doorbells;
};

/* Which descriptor an epoll event is about. */
enum source { SOURCE_LINK, SOURCE_DOORBELL, SOURCE_BACKEND };

/*
 * One worker at a time serves a register page. A record lock belongs to its process and ends with
 * it, so the wait is for the end of a predecessor that was killed. Without it both could answer the
 * same request.
 */
static int lock_page(int memfd, uint64_t shm_size)
{
    struct flock lock = {
        .l_type = F_WRLCK,
        .l_whence = SEEK_SET,
        .l_start = (off_t)vgpu_regs_page_offset(shm_size),
        .l_len = VGPU_REGS_SIZE,
    };
    int r;

    do {
        r = fcntl(memfd, F_SETLKW, &lock);
    } while (r < 0 && errno == EINTR);
    return r < 0 ? -errno : 0;
}

static int register_worker_watch(int epoll, int operation, int fd, uint32_t events, uint32_t source)
{
    struct epoll_event event = {.events = events, .data.u32 = source};

    return epoll_ctl(epoll, operation, fd, &event) < 0 ? -errno : 0;
}

/* The doorbell is listened to while the page is idle, the backend always. */
static int listen_doorbell(struct worker *w, bool on)
{
    return register_worker_watch(w->epoll, EPOLL_CTL_MOD, w->registers.doorbell, on ? EPOLLIN : 0,
                                 SOURCE_DOORBELL);
}

/* Answers a RESYNC, where one has come. */
static int tell_register_state(const struct worker *w)
{
    uint32_t turns[VGPU_ENGINES];

    for (unsigned i = 0; i < VGPU_ENGINES; i++) {
        turns[i] = turn_tell(&w->registers.turns[i]);
    }
    return worker_send_state(turns);
}

/* A turn may have been granted by the mediator before, whose message did not come any more. */
static int hear_resync(struct worker *w, uint32_t number)
{
    int r;

    worker_note_resync(number);
    r = tell_register_state(w);
    for (unsigned i = 0; r == 0 && i < VGPU_ENGINES; i++) {
        r = registers_turn(&w->registers, i);
    }
    return r;
}

/* Returns 0, or -errno when the link is lost or talks nonsense. */
static int register_worker_handle_link(struct worker *w)
{
    struct vgpu_link_msg msg;
    int fds[FDMSG_MAX];
    size_t count = 0;
    const ssize_t n = fdmsg_recv(w->link, &msg, sizeof(msg), fds, &count);

    fdmsg_close(fds, &count);
    if (n == -EAGAIN) {
        return 0;
    }
    if (n <= 0) {
        return n < 0 ? (int)n : -EPIPE;
    }
    if (n == (ssize_t)sizeof(msg) && msg.type == VGPU_LINK_FINISH) {
        w->finishing = true;
        return 0;
    }
    if (n == (ssize_t)sizeof(msg) && msg.type == VGPU_LINK_TURN) {
        return registers_turn(&w->registers, msg.engine);
    }
    if (n == (ssize_t)sizeof(msg) && msg.type == VGPU_LINK_RESYNC) {
        return hear_resync(w, msg.value);
    }
    /* Said again by another mediator. */
    return n == (ssize_t)sizeof(msg) && msg.type == VGPU_LINK_OPEN ? 0 : -EPROTO;
}

static int handle_doorbell(struct worker *w)
{
    struct registers *s = &w->registers;
    const uint64_t before = s->published_ns;
    const uint64_t now = clock_ns();

    /* A guest that asks again soon will probably do so once more. */
    w->dialogue = before != 0 && now - before < DIALOGUE_NS;
    s->turn_page->counters.doorbells++;
    pace_count(&w->doorbells, shared_load(&s->turn_page->terms.doorbells), now);
    return registers_doorbell(s);
}

static int handle_source(struct worker *w, enum source source)
{
    switch (source) {
    case SOURCE_LINK:
        return register_worker_handle_link(w);
    case SOURCE_DOORBELL:
        return w->registers.state == REGISTERS_IDLE ? handle_doorbell(w) : 0;
    case SOURCE_BACKEND:
        return w->registers.state == REGISTERS_RUNNING ? registers_backend(&w->registers) : 0;
    }
    return 0;
}

/* Where epoll should give up at once: shortly after an answer in a dialogue. */
static bool register_worker_spinning(const struct worker *w)
{
    return w->dialogue && w->registers.state == REGISTERS_IDLE &&
           clock_ns() < w->registers.published_ns + SPIN_NS;
}

/* In how many ns the device is to be given back, if nothing comes until then. */
static uint64_t rest_left(const struct worker *w)
{
    const uint64_t idle = clock_ns() - w->active_ns;

    return idle < w->rest_ns ? w->rest_ns - idle : 0;
}

/*
 * In how many ms something is to be done that no descriptor tells, -1: never. Less than a
 * millisecond becomes 0, which is to poll: a turn that is about to begin is worth that. *deaf: the
 * doorbell is rung more often than the VM may, and is not listened to until then.
 */
static int wait_limit(struct worker *w, bool *deaf)
{
    struct registers *s = &w->registers;
    const uint64_t pace = pace_wait(&w->doorbells, shared_load(&s->turn_page->terms.doorbells),
                                    clock_ns());
    const uint64_t wait = clock_earlier(clock_earlier(interrupt_serve(&s->interrupt), pace),
                                        registers_wait(s));

    *deaf = pace != 0;
    if (wait != 0) {
        return (int)(wait / NS_PER_MS);
    }
    if (register_worker_spinning(w)) {
        return 0;
    }
    /* Rounded up, so that it is over then. */
    return w->rest_ns == 0 ? -1 : (int)(rest_left(w) / NS_PER_MS) + 1;
}

/* Serves until told to finish, or there is a reason for another worker. */
static int register_worker_serve(struct worker *w)
{
    bool listening = true;
    int r = 0;

    while (r == 0) {
        struct epoll_event event;
        bool deaf, listen;
        int limit, n;

        /* A request that waits for a turn stays in the journal, for the next mediator's worker. */
        if (w->finishing && w->registers.state != REGISTERS_RUNNING) {
            interrupt_flush(&w->registers.interrupt);
            return 0;
        }
        limit = wait_limit(w, &deaf);
        listen = w->registers.state == REGISTERS_IDLE && !deaf;
        if (listen != listening) {
            r = listen_doorbell(w, listen);
            if (r < 0) {
                break;
            }
            listening = listen;
        }
        n = epoll_wait(w->epoll, &event, 1, limit);
        if (n != 0 || w->registers.state != REGISTERS_IDLE) {
            w->active_ns = clock_ns();
        } else if (w->rest_ns != 0 && rest_left(w) == 0) {
            interrupt_flush(&w->registers.interrupt);
            return REGISTERS_REST;
        }
        if (n < 0 && errno != EINTR) {
            r = -errno;
        } else if (n == 1) {
            r = handle_source(w, (enum source)event.data.u32);
        } else {
            r = registers_look(&w->registers);
        }
    }
    return r;
}

/* The backend; at rest none, and what the last worker that had one said of it. */
static int open_backend(struct worker *w, const struct options *o, char *why, size_t why_size)
{
    static struct backend resting = {.event_fd = -1};
    struct registers *s = &w->registers;
    int r;

    if (!o->resting) {
        worker_await_open();
        r = backend_open(o->backend, o->device, s->shm, s->shm_size, &s->backend, why, why_size);
        if (r == 0) {
            /* As the card is called: the next worker may be told another name, or none. */
            s->turn_page->device = s->backend->info;
            worker_name_gpu(o, &s->backend->info);
            w->rest_ns = o->rest_ns;
        }
        return r;
    }
    resting.info = s->turn_page->device;
    resting.info.name[sizeof(resting.info.name) - 1] = '\0';
    /* Without one it is not known yet what there is. */
    if (resting.info.name[0] != '\0') {
        worker_name_gpu(o, &resting.info);
    }
    resting.info.backend = o->backend == BACKEND_CUDA ? VGPU_FEATURE_BACKEND_GPU
                                                      : VGPU_FEATURE_BACKEND_CPU;
    s->backend = &resting;
    return 0;
}

static int register_worker_start(struct worker *w, const struct options *o)
{
    struct registers *s = &w->registers;
    char why[256];
    int r = isolation_early(VGPU_WORKER_FD_ACCOUNT);

    if (r < 0) {
        return r;
    }
    w->link = s->link = VGPU_WORKER_FD_LINK;
    s->doorbell = VGPU_WORKER_FD_DOORBELL;
    s->interrupt.fd = VGPU_WORKER_FD_IRQ;
    s->shm_size = o->shm_size;
    r = memfd_check(VGPU_WORKER_FD_MEMFD, vgpu_memfd_size(o->shm_size));
    if (r < 0) {
        log_error("the VM's memory is not sealed or has another size than %" PRIu64 " bytes",
                  vgpu_memfd_size(o->shm_size));
        return r;
    }
    s->shm = worker_map(VGPU_WORKER_FD_MEMFD, o->shm_size, 0, "shared memory");
    s->page = worker_map(VGPU_WORKER_FD_MEMFD, VGPU_REGS_SIZE, vgpu_regs_page_offset(o->shm_size),
                         "register page");
    s->turn_page = worker_map(VGPU_WORKER_FD_TURN, VGPU_TURN_PAGE_SIZE, 0, "turn page");
    s->interrupt.page = s->turn_page;
    worker_account();
    r = open_backend(w, o, why, sizeof(why));
    if (r < 0) {
        log_error("%s", why);
        return r;
    }
    r = worker_watch_link();
    if (r < 0) {
        return r;
    }
    r = lock_page(VGPU_WORKER_FD_MEMFD, o->shm_size);
    if (r < 0) {
        log_error("cannot lock the register page: %s", strerror(-r));
        return r;
    }
    w->epoll = epoll_create1(EPOLL_CLOEXEC);
    if (w->epoll < 0 ||
        register_worker_watch(w->epoll, EPOLL_CTL_ADD, w->link, EPOLLIN, SOURCE_LINK) < 0 ||
        register_worker_watch(w->epoll, EPOLL_CTL_ADD, s->doorbell, EPOLLIN, SOURCE_DOORBELL) < 0 ||
        (!o->resting && register_worker_watch(w->epoll, EPOLL_CTL_ADD, s->backend->event_fd,
                                              EPOLLIN, SOURCE_BACKEND) < 0)) {
        log_error("epoll: %s", strerror(errno));
        return -errno;
    }
    w->active_ns = clock_ns();
    return isolation_final(o->user, o->group,
                           !o->resting && s->backend->info.backend == VGPU_FEATURE_BACKEND_GPU);
}

int register_worker(const struct options *o)
{
    static struct worker worker;
    int r;

    if (register_worker_start(&worker, o) < 0) {
        return 1;
    }
    /* First what was owed or is to be dropped: READY tells the stub that a reset is done. */
    r = registers_start(&worker.registers, o->takeover, o->error);
    if (r == 0) {
        r = worker_send_ready(&worker.registers.backend->info, false);
    }
    if (r == 0) {
        r = tell_register_state(&worker);
    }
    if (r == 0) {
        r = register_worker_serve(&worker);
    }
    /* The end of the link is the mediator's end, which it has logged itself. */
    if (r < 0 && r != -EPIPE && r != -ECONNRESET) {
        log_error("ended: %s", strerror(-r));
    }
    switch (r) {
    case 0:
        return 0;
    case REGISTERS_WAKE:
        return worker_note_end(worker.registers.turn_page, VGPU_WORKER_EXIT_WAKE);
    case REGISTERS_REST:
        return worker_note_end(worker.registers.turn_page, VGPU_WORKER_EXIT_REST);
    default:
        return 1;
    }
}
