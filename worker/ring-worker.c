/* SPDX-License-Identifier: MIT */
/*
 * The worker for a queue: serves one guest process in ring mode.
 *
 * One thread. While there are commands, and for a while after, it looks at the ring and at
 * what is pending without sleeping, and now and then at its descriptors. Then it parks: the
 * doorbell or the mediator wakes it. With work on the GPU it looks on longer, as CUDA does by
 * default, and then only naps, for a small part of the time that the work has taken already. That
 * is cheaper than to have the GPU's driver tell: the stream would stand still until the driver's
 * thread has woken up.
 */
#include <errno.h>
#include <inttypes.h>
#include <poll.h>
#include <sched.h>
#include <stdbool.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <time.h>

#include "common/clock.h"
#include "common/eventfds.h"
#include "common/fdmsg.h"
#include "common/log.h"
#include "common/map-at.h"
#include "common/memfd.h"
#include "common/shared.h"
#include "protocol/vgpu-attach.h"
#include "worker/isolation.h"
#include "worker/ring-session.h"
#include "worker/worker.h"

/* How long to look for commands after the last one, and for the end of work. */
#define SPIN_IDLE_NS (100 * NS_PER_US)
#define SPIN_WORK_NS (10 * NS_PER_MS)
#define SPIN_TURN_NS (400 * NS_PER_US)    /* for a turn that was asked for, or is announced */
#define SPIN_PATIENT_NS (200 * NS_PER_US) /* for work, when the last one took longer than that */
/* Nothing to do for so long: time to ask the driver what is done, and for what kernels printed. */
#define SETTLE_NS (5 * NS_PER_US)
#define SETTLE_AGAIN_NS NS_PER_MS
#define SPIN_LOOKS 16u /* at the ring alone, before all is looked at again */
/* From then on other processes that want the processor come first. */
#define YIELD_NS (200 * NS_PER_US)
/* How often the descriptors are looked at meanwhile. */
#define LOOK_NS (50 * NS_PER_US)
/* How long a nap is: this part of the time waited, and at most that. */
#define NAP_PART 64u
#define NAP_MAX_NS NS_PER_MS
/* What waking up from one may take. */
#define WAKE_NS (100 * NS_PER_US)
#define FOR_EVER UINT64_MAX

struct ring_worker {
    struct ring_session session;
    bool patient;       /* the last work took longer than is looked on for */
    uint64_t active_ns; /* when something was done last */
    struct printed printed;
    struct preempt preempt;
    uint64_t settle_ns; /* when the driver may be asked about what is done, for the next time */
    uint64_t looked_ns; /* when the descriptors were looked at last */
    struct pace doorbells;
};

/* The exit code for a session that ends by itself. */
static int end_code(enum vgpu_queue_end end)
{
    return VGPU_WORKER_EXIT_END + (int)end;
}

/* Descriptors ------------------------------------------------------------------------------ */

/* Answers a RESYNC that came with this number, or before; 0: none came now. */
static int tell_ring_state(const struct ring_worker *w, uint32_t number)
{
    uint32_t turns[VGPU_ENGINES];

    if (number != 0) {
        worker_note_resync(number);
    }
    for (unsigned i = 0; i < VGPU_ENGINES; i++) {
        turns[i] = turn_tell(&w->session.turns.engines[i].turn);
    }
    return worker_send_state(turns);
}

/* Returns 0, or -errno when the link is lost or talks nonsense. */
static int ring_worker_handle_link(struct ring_worker *w)
{
    struct vgpu_link_msg msg;
    int fds[FDMSG_MAX];
    size_t count = 0;
    const ssize_t n = fdmsg_recv(VGPU_WORKER_FD_LINK, &msg, sizeof(msg), fds, &count);

    fdmsg_close(fds, &count);
    if (n == -EAGAIN) {
        return 0;
    }
    if (n <= 0) {
        return n < 0 ? (int)n : -EPIPE;
    }
    if (n != (ssize_t)sizeof(msg)) {
        return -EPIPE;
    }
    switch (msg.type) {
    case VGPU_LINK_TURN:
        /*
         * The words and the ring are looked at in each round anyway. The message is there to wake
         * this worker, which looks on without naps for the moment to come, since the turn is near.
         */
        w->active_ns = clock_ns();
        return 0;
    case VGPU_LINK_RESYNC: /* all of them hear it at once: who has nothing to do sleeps on */
        return tell_ring_state(w, msg.value);
    case VGPU_LINK_OPEN: /* said again by another mediator */
        return 0;
    default:
        return -EPIPE;
    }
}

static void hear_doorbell(struct ring_worker *w)
{
    struct vgpu_turn_page *page = w->session.page;

    eventfds_clear(VGPU_WORKER_FD_DOORBELL);
    page->counters.doorbells++;
    pace_count(&w->doorbells, shared_load(&page->terms.doorbells), clock_ns());
}

/*
 * Waits for the descriptors, at most `limit_ns`, and handles them. A doorbell that is rung more
 * often than its VM may is not listened to for a while. Returns 0 or -errno.
 */
static int ring_worker_look(struct ring_worker *w, uint64_t limit_ns)
{
    struct pollfd fds[] = {
        {.fd = VGPU_WORKER_FD_LINK, .events = POLLIN},
        {.fd = VGPU_WORKER_FD_DOORBELL, .events = POLLIN},
    };
    const uint64_t deaf = pace_wait(&w->doorbells, shared_load(&w->session.page->terms.doorbells),
                                    clock_ns());
    const uint64_t owed = interrupt_serve(&w->session.ring.interrupt);
    struct timespec limit;
    int n;

    limit_ns = deaf != 0 && deaf < limit_ns ? deaf : limit_ns;
    limit_ns = owed != 0 && owed < limit_ns ? owed : limit_ns;
    limit.tv_sec = (time_t)(limit_ns / NS_PER_S);
    limit.tv_nsec = (long)(limit_ns % NS_PER_S);
    n = ppoll(fds, deaf != 0 ? 1 : 2, limit_ns == FOR_EVER ? NULL : &limit, NULL);
    w->looked_ns = clock_ns();
    if (n <= 0) {
        return n < 0 && errno != EINTR ? -errno : 0;
    }
    if (fds[1].revents != 0) {
        hear_doorbell(w);
    }
    return fds[0].revents != 0 ? ring_worker_handle_link(w) : 0;
}

/* Serving ---------------------------------------------------------------------------------- */

/* With work on the GPU, or waiting for room there: a nap, in which commands may come. */
static int ring_worker_nap(struct ring_worker *w, uint64_t limit_ns)
{
    struct ring_session *s = &w->session;
    int r;

    if (!ring_park(&s->ring) && ring_session_takes(s)) {
        return 0;
    }
    r = ring_worker_look(w, limit_ns < NAP_MAX_NS ? limit_ns : NAP_MAX_NS);
    ring_unpark(&s->ring);
    return r;
}

static int sleep_until_woken(struct ring_worker *w)
{
    int r;

    if (!ring_park(&w->session.ring) && ring_session_takes(&w->session)) {
        return 0;
    }
    r = ring_worker_look(w, FOR_EVER);
    ring_unpark(&w->session.ring);
    return r;
}

/*
 * Nothing could be done just now: looks on for a while, then sleeps. Returns 0 or -errno of the
 * link. The cases, in this order:
 *
 *   only the mediator can help    a turn was asked for and nothing is on the GPU: its message wakes
 *   work is known to be long      naps until shortly before it is expected to end
 *   longer than one looks on      sleeps for the doorbell when there is no work; else naps, each
 *                                 for a 64th of the time waited so far
 *   otherwise                     looks on, from 200 us on letting others run in between
 */
static int wait_for_more(struct ring_worker *w)
{
    struct ring_session *s = &w->session;
    const uint64_t now = clock_ns();
    const uint64_t waited = now - w->active_ns;
    const uint64_t next = ring_session_next(s, now);
    const bool quiet = ring_session_quiet(s);
    const uint64_t spin = quiet ? SPIN_IDLE_NS : w->patient ? SPIN_PATIENT_NS : SPIN_WORK_NS;

    if (waited >= SETTLE_NS && now >= w->settle_ns && flight_idle(&s->flight)) {
        w->settle_ns = now + SETTLE_AGAIN_NS;
        if (s->gpu->unconfirmed) {
            s->gpu->ops->confirm(s->gpu);
        }
        ring_session_print(s, true);
    }
    if (ring_session_waits_for_turn(s) && waited >= SPIN_TURN_NS) {
        return sleep_until_woken(w);
    }
    if (next > 2 * WAKE_NS && waited >= YIELD_NS) {
        return ring_worker_nap(w, next - WAKE_NS);
    }
    if (waited >= spin && next == 0) {
        w->patient = w->patient || !quiet;
        return quiet ? sleep_until_woken(w) : ring_worker_nap(w, waited / NAP_PART);
    }
    if (now - w->looked_ns >= LOOK_NS) {
        return ring_worker_look(w, 0);
    }
    if (waited >= YIELD_NS) {
        sched_yield();
        return 0;
    }
    /* Mostly it is a command that comes next: for that alone there is little to look at. */
    for (unsigned i = 0; i < (quiet ? SPIN_LOOKS : 1) && !ring_posted(&s->ring); i++) {
        __builtin_ia32_pause();
    }
    return 0;
}

/* Serves until the session or the mediator ends; the exit code. */
static int ring_worker_serve(struct ring_worker *w)
{
    for (;;) {
        int r = ring_session_step(&w->session);
        if (r == -EPROTO) {
            log_warning("what the ring holds is no command; ending the session");
            return end_code(VGPU_QUEUE_END_BAD_RING);
        }
        if (r == -ETIME) {
            log_warning(
                "work on the GPU takes longer than the VM's max-kernel; ending the session");
            /*
             * Threads of the guest that wait are to have their answers, and their interrupt, before
             * this worker ends.
             */
            ring_session_fail(&w->session, VGPU_GPU_LAUNCH_TIMEOUT);
            interrupt_flush(&w->session.ring.interrupt);
            return end_code(VGPU_QUEUE_END_TIMEOUT);
        }
        if (r > 0) {
            const uint64_t now = clock_ns();

            w->patient = w->patient && now - w->active_ns >= SPIN_WORK_NS;
            w->active_ns = now;
            w->settle_ns = 0;
            r = w->active_ns - w->looked_ns >= LOOK_NS ? ring_worker_look(w, 0) : 0;
        } else if (r == 0) {
            r = wait_for_more(w);
        }
        if (r < 0) {
            /* The end of the link is the mediator's end, which it has logged itself. */
            return 1;
        }
    }
}

/* Starting --------------------------------------------------------------------------------- */

/*
 * Reads the claim, once, and checks it. Another process of the guest can change it at any moment;
 * the host believes it no further than that the part lies within the arena. The address is not
 * checked but for its range: whether it is free is seen when the part is mapped.
 */
static bool read_claim(const struct options *o, struct vgpu_claim *claim)
{
    struct vgpu_control *control = worker_map(VGPU_WORKER_FD_MEMFD, VGPU_CONTROL_SIZE, 0,
                                              "control block");
    const uint64_t first = vgpu_arena_offset(o->shm_size, o->queues);

    shared_copy_in(claim, &control->claims[o->queue], sizeof(*claim));
    munmap(control, VGPU_CONTROL_SIZE);
    return (claim->arena_address | claim->arena_offset | claim->arena_size) % 4096 == 0 &&
           claim->reserved == 0 && claim->arena_size > 0 && claim->arena_offset >= first &&
           claim->arena_offset <= o->shm_size &&
           claim->arena_size <= o->shm_size - claim->arena_offset && claim->arena_address != 0 &&
           claim->arena_address <= INT64_MAX - claim->arena_size;
}

/*
 * Maps the session's part of the arena where the guest process has it. The guest chooses the
 * address, which may be one that this process uses: then there is no session. The GPU's driver gets
 * the part from here, so this comes before gpu_open().
 */
static bool map_arena(const struct vgpu_claim *claim, struct gpu_arena *arena)
{
    void *wanted = (void *)(uintptr_t)claim->arena_address;
    const int r = map_at(wanted, claim->arena_size, PROT_READ | PROT_WRITE, MAP_SHARED,
                         VGPU_WORKER_FD_MEMFD, (off_t)claim->arena_offset);

    *arena = (struct gpu_arena){.address = wanted, .size = claim->arena_size};
    return r == 0;
}

/* Opens what the session works on. */
static enum vgpu_queue_end ring_worker_start(struct ring_worker *w, const struct options *o)
{
    struct ring_session *s = &w->session;
    struct vgpu_claim claim;
    struct gpu_arena arena;
    struct vgpu_queue *queue;
    struct gpu *gpu;
    char why[256];
    struct sharing_files files;
    int r;

    if (!read_claim(o, &claim)) {
        log_warning("the session's claim on the shared memory is wrong: %" PRIu64
                    " bytes at offset %" PRIu64 ", address 0x%" PRIx64,
                    claim.arena_size, claim.arena_offset, claim.arena_address);
        return VGPU_QUEUE_END_BAD_CLAIM;
    }
    if (!map_arena(&claim, &arena)) {
        return VGPU_QUEUE_END_ADDRESS;
    }
    worker_await_open();
    r = gpu_open(o->backend, o->device, &arena, &gpu, why, sizeof(why));
    if (r < 0) {
        log_error("cannot open what computes: %s", why[0] ? why : strerror(-r));
        return r == -ENOMEM ? VGPU_QUEUE_END_NO_MEMORY : VGPU_QUEUE_END_BACKEND;
    }
    worker_name_gpu(o, &gpu->info);
    /* Without it the session shares nothing with others, and all else works. */
    r = sharing_make_files(gpu->info.backend == VGPU_FEATURE_BACKEND_CPU, &files);
    if (r < 0) {
        log_warning("no files for what sessions share: %s", strerror(-r));
    }
    gpu->file = files.memory;
    queue = worker_map(VGPU_WORKER_FD_MEMFD, VGPU_QUEUE_SIZE, vgpu_queue_offset(o->queue), "queue");
    /* From here on the driver speaks to the guest; what it said before was the host's matter. */
    r = gpu->ops->print ? printed_divert(&w->printed, queue) : 0;
    if (r < 0) {
        log_error("no pipes for what kernels print: %s", strerror(-r));
        return VGPU_QUEUE_END_NO_MEMORY;
    }
    ring_session_init(
        s, &(struct ring_session_needs){
               .queue = queue,
               .irq = VGPU_WORKER_FD_IRQ,
               .gpu = gpu,
               .page = worker_map(VGPU_WORKER_FD_TURN, VGPU_TURN_PAGE_SIZE, 0, "turn page"),
               .account = worker_account(),
               .link = VGPU_WORKER_FD_LINK,
               .files = files,
               .printed = gpu->ops->print ? &w->printed : NULL,
           });
    return VGPU_QUEUE_END_NONE;
}

/* Starts the thread for what kernels print, which has given up all by now. */
static int ring_worker_watch(struct ring_worker *w)
{
    const int r = w->session.printed ? printed_watch(w->session.printed) : 0;

    if (r < 0) {
        log_error("no thread for what kernels print: %s", strerror(-r));
    }
    return r;
}

/* Starts the thread that takes work off the GPU, where the mediator has found that it can be. */
static int ring_worker_preempt(struct ring_worker *w, const struct options *o)
{
    struct vgpu_turn_page *page = w->session.page;
    int r = 0;

    if (o->preempt && w->session.gpu->ops->set_off) {
        r = preempt_start(&w->preempt, page, w->session.gpu, VGPU_WORKER_FD_LINK);
        w->session.preempt = &w->preempt;
    }
    if (r < 0) {
        log_error("no thread that takes work off the GPU: %s", strerror(-r));
    }
    return r;
}

static struct ring_worker worker;

/* Without a link the worker ends, as soon as it looks there. */
static void hear_ring_resync(uint32_t number)
{
    tell_ring_state(&worker, number);
}

int ring_worker(const struct options *o)
{
    enum vgpu_queue_end end;
    int code;

    if (isolation_early(VGPU_WORKER_FD_ACCOUNT) < 0) {
        return 1;
    }
    if (memfd_check(VGPU_WORKER_FD_MEMFD, vgpu_memfd_size(o->shm_size)) < 0) {
        log_error("the VM's memory is not sealed or has another size than %" PRIu64 " bytes",
                  vgpu_memfd_size(o->shm_size));
        return 1;
    }
    /* Naps are shorter than the customary slack. */
    prctl(PR_SET_TIMERSLACK, 1);
    end = ring_worker_start(&worker, o);
    if (end != VGPU_QUEUE_END_NONE) {
        return worker_note_end(worker_map(VGPU_WORKER_FD_TURN, VGPU_TURN_PAGE_SIZE, 0, "turn page"),
                               end_code(end));
    }
    worker.session.sharing.resync = hear_ring_resync;
    if (ring_worker_preempt(&worker, o) < 0 || worker_watch_link() < 0 ||
        isolation_final(o->user, o->group,
                        worker.session.gpu->info.backend == VGPU_FEATURE_BACKEND_GPU) < 0 ||
        ring_worker_watch(&worker) < 0 ||
        worker_send_ready(&worker.session.gpu->info, worker.session.preempt != NULL) < 0 ||
        tell_ring_state(&worker, 0) < 0) {
        return 1;
    }
    code = worker_note_end(worker.session.page, ring_worker_serve(&worker));
    ring_session_release(&worker.session);
    worker.session.gpu->ops->close(worker.session.gpu);
    return code;
}
