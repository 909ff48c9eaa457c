/* SPDX-License-Identifier: MIT */
/*
 * A worker process: it is started, placed on a GPU, listened to, ended and reaped here. A `struct
 * process` has one worker at a time and outlives it: the turn page, the sums and the waits are
 * those of all its workers, one after another.
 *
 *   none       `pid` is 0. process_start() chooses a GPU, joins its arbiters, and has it launched.
 *   starting   It is told OPEN, soon or when others have made their contexts; within START_LIMIT_NS
 *              from then on READY has to come.
 *   ready      READY has come. The worker asks for turns and returns them, by messages.
 *   condemned  process_kill() has killed it. Its messages are ignored until it is reaped.
 *
 * A worker outlives its mediator where its descriptors are kept (keep.h), and the next one adopts
 * it: it is told RESYNC and answers STATE. What it has said of turns before that does not count.
 *
 * A worker may crash, exit or be killed by the mediator; the rest is the same. The launcher reaps
 * it and says so, and worker_ended() takes it out of the pool, adds its counters to the sums and
 * tells the owner. So code that wants a worker to end kills it and returns. There are two
 * exceptions: an owner that goes itself (process_abandon()), and a worker that could not be watched
 * (process_start()).
 *
 * A worker counts as hostile. Its messages are checked against the mediator's own state, its
 * counters are not allowed to fall, and its text is made printable.
 *
 * This file does not know the purpose of a worker, and does not start one again: vm.c and queue.c
 * do. Turns are decided by arbiter.c.
 */
#include "mediator/process.h"

#include <errno.h>
#include <inttypes.h>
#include <linux/futex.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "common/clock.h"
#include "common/fdmsg.h"
#include "common/log.h"
#include "common/shared.h"
#include "mediator/chores.h"
#include "mediator/keep.h"
#include "mediator/launcher.h"
#include "mediator/printable.h"
#include "mediator/vm-memory.h"

/* A GPU context takes a fraction of a second; a driver that hangs takes for ever. */
#define START_LIMIT_NS (60 * NS_PER_S)
/* Arguments that every worker gets, and an owner's own. */
#define ARGUMENTS_MAX 24u
/* More than a socket holds. */
#define LAST_MESSAGES 4096u

struct process *process_of_worker(const struct pool_worker *worker)
{
    return LIST_OWNER((uintptr_t)worker, struct process, worker);
}

/*
 * An arbiter knows members only. The members of a worker are an array by engine, so the engine's
 * number leads back to the first of them, and from there to the worker and the process.
 */
static struct process *process_of_member(const struct arbiter_member *member)
{
    const struct arbiter_member *first = member - member->arbiter->engine;

    return process_of_worker(LIST_OWNER((uintptr_t)first, struct pool_worker, members));
}

static const char *process_label(const struct process *process)
{
    return process->ops->label(process);
}

/* Lines that the VM has caused: it has a budget. */
#define process_log(process, level, ...)                                                           \
    log_line_within((process)->ops->log(process), level, __VA_ARGS__)

/* Messages ---------------------------------------------------------------------------- */

void process_send(struct process *process, enum vgpu_link_type type, uint32_t engine)
{
    const struct vgpu_link_msg msg = {.type = type, .engine = engine};

    /* A full socket is a worker that does not read: its turn's limit ends it. */
    if (fdmsg_send(process->link, &msg, sizeof(msg), NULL, 0) < 0) {
        log_debug("%s: worker %d does not listen", process_label(process), (int)process->kept->pid);
    }
}

int process_answer(struct process *process, const struct vgpu_link_msg *msg, int fd)
{
    return fdmsg_send(process->link, msg, sizeof(*msg), &fd, fd >= 0) < 0 ? -EPROTO : 0;
}

static void limit_start(struct process *process)
{
    sd_event_source_set_time_relative(process->timer, START_LIMIT_NS / NS_PER_US);
    sd_event_source_set_enabled(process->timer, SD_EVENT_ONESHOT);
}

/*
 * A turn may be granted before it begins: then granted_ns lies in the future, and the time until
 * then counts as waiting too.
 */
static void on_granted(struct arbiter_member *member)
{
    struct process *process = process_of_member(member);

    histogram_add(&process->waits, member->granted_ns - member->asked_ns);
    process_send(process, VGPU_LINK_TURN, member->arbiter->engine);
}

/*
 * This is the same message as for a grant. It says only that the word is worth a look; the worker
 * sees there whether it has the turn already or has to be awake for it soon.
 */
static void on_alerted(struct arbiter_member *member)
{
    process_send(process_of_member(member), VGPU_LINK_TURN, member->arbiter->engine);
}

static void on_expired(struct arbiter_member *member)
{
    struct process *process = process_of_member(member);

    process->ops->expired(process);
}

/* The worker's thread waits for the word as a futex: to wake it costs no message. */
static void store_off_count(struct process *process)
{
    uint32_t *word = &process->worker.page->turn[VGPU_ENGINE_COMPUTE].off;

    shared_store_release(word, process->kept->off_count);
    syscall(SYS_futex, word, FUTEX_WAKE, 1, NULL, NULL, 0);
}

static void on_turn_off(struct arbiter_member *member, bool off)
{
    struct process *process = process_of_member(member);

    process->kept->off_count++;
    if ((process->kept->off_count & 1) != off) {
        process->kept->off_count++;
    }
    store_off_count(process);
}

/* It waits for that word alone, and so is told by it that something else is new. */
static void on_sliced(struct pool_worker *worker)
{
    struct process *process = process_of_worker(worker);

    process->kept->off_count += 2;
    store_off_count(process);
}

/* Until then it has done little, and waited: its time to start up begins now. */
static void on_open(struct pool_worker *worker)
{
    struct process *process = process_of_worker(worker);

    limit_start(process);
    process_send(process, VGPU_LINK_OPEN, 0);
    /* Told twice does no harm, and not at all does. */
    process->kept->opened = true;
}

/* It may have been told something else since; then another OFF follows, or none. */
static void take_off(struct process *process, uint32_t count)
{
    if (count == 0) {
        process->kept->can_be_off = false;
        pool_can_be_off(&process->worker, false);
        process_log(process, LOG_LEVEL_WARNING,
                    "%s: the driver does not take the work of worker %d off the GPU any more",
                    process_label(process), (int)process->kept->pid);
    } else if (count == process->kept->off_count) {
        process->kept->preemptions += pool_off(&process->worker, clock_ns());
        mediator_watch_gpu(process->mediator, process->worker.gpu);
    }
}

/* `name` is text of the worker's; `flags` are VGPU_READY_*. */
static void take_ready(struct process *process, const char *name, uint32_t flags)
{
    /* A worker that has no device may not know its name yet. */
    printable_copy(process->kept->device, sizeof(process->kept->device),
                   name[0] ? name : process->mediator->computes_on);
    pool_opened(&process->worker, clock_ns());
    /* One that was not told to be ready for it lies. */
    process->kept->can_be_off = process->kept->may_be_off && (flags & VGPU_READY_CAN_BE_OFF) != 0;
    pool_can_be_off(&process->worker, process->kept->can_be_off);
    sd_event_source_set_enabled(process->timer, SD_EVENT_OFF);
    log_debug("%s: worker %d ready after %" PRIu64 " ms on %s", process_label(process),
              (int)process->kept->pid, (clock_ns() - process->kept->started_ns) / NS_PER_MS,
              process->kept->device);
    process->ops->ready(process);
    /* With this the next mediator knows that all of the above was done. */
    process->kept->ready = true;
}

/*
 * An adopted worker says how it stands. One that was not asked, or not with this number, has said
 * it to another mediator. READY may have been read by that one, whose last moment it was.
 */
static int take_state(struct process *process, struct vgpu_link_msg *msg)
{
    int r;

    if (process->resync == 0 || msg->value != process->resync) {
        return 0;
    }
    process->resync = 0;
    msg->state.name[sizeof(msg->state.name) - 1] = '\0';
    if (!process->kept->ready) {
        take_ready(process, msg->state.name, msg->flags);
    }
    r = pool_resync(&process->worker, &msg->state, clock_ns());
    mediator_watch_gpu(process->mediator, process->worker.gpu);
    mediator_adopted(process->mediator);
    return r;
}

static bool is_giving_back(const struct vgpu_link_msg *msg)
{
    return msg->type == VGPU_LINK_RELEASE || msg->type == VGPU_LINK_WITHDRAW;
}

/*
 * What does not count of an adopted worker before its STATE: that tells of turns, and what it asks
 * for is asked again behind it.
 */
static bool is_for_another(const struct vgpu_link_msg *msg)
{
    return msg->type == VGPU_LINK_ASK || msg->type == VGPU_LINK_DONE ||
           msg->type == VGPU_LINK_YIELD || msg->type == VGPU_LINK_KEPT ||
           msg->type == VGPU_LINK_EXPORT || msg->type == VGPU_LINK_IMPORT;
}

/*
 * Reads what an ended worker has sent and nobody has read: memory that it has counted off already
 * is else lost to its VM. It sends no more, or is about to end.
 */
static void take_last_messages(struct process *process)
{
    struct vgpu_link_msg msg;
    int fds[FDMSG_MAX];
    size_t count = 0;
    unsigned read = 0;

    while (process->link >= 0 && read++ < LAST_MESSAGES &&
           fdmsg_recv(process->link, &msg, sizeof(msg), fds, &count) == (ssize_t)sizeof(msg)) {
        if (is_giving_back(&msg) && process->ops->shares) {
            process->ops->shares(process, &msg, fds, &count);
        }
        fdmsg_close(fds, &count);
    }
    fdmsg_close(fds, &count);
}

/*
 * Returns 0, or -EPROTO when the worker does what it may not. Descriptors that came with the
 * message and are kept are taken off the list.
 */
static int take_message(struct process *process, struct vgpu_link_msg *msg, int *fds, size_t *count)
{
    int r;

    if (process->kept->condemned) {
        /* Its READY must not answer for the next one's. What is given back is given back. */
        if (is_giving_back(msg) && process->ops->shares) {
            process->ops->shares(process, msg, fds, count);
        }
        return 0;
    }
    if (process->resync != 0 && is_for_another(msg)) {
        return 0;
    }
    if (msg->type == VGPU_LINK_READY) {
        if (process->kept->ready) {
            return -EPROTO;
        }
        /* The text comes from the worker, which may have left out the NUL. */
        msg->text[sizeof(msg->text) - 1] = '\0';
        take_ready(process, msg->text, msg->flags);
        return 0;
    }
    if (msg->type == VGPU_LINK_STATE) {
        return take_state(process, msg);
    }
    if (msg->type == VGPU_LINK_OFF) {
        take_off(process, msg->value);
        return 0;
    }
    if (msg->type >= VGPU_LINK_EXPORT && msg->type <= VGPU_LINK_WITHDRAW) {
        return process->ops->shares && process->kept->ready
                   ? process->ops->shares(process, msg, fds, count)
                   : -EPROTO;
    }
    /* The message may move turns of other workers on this GPU, and so its next deadline. */
    r = pool_message(&process->worker, msg, clock_ns());
    mediator_watch_gpu(process->mediator, process->worker.gpu);
    return r;
}

static int on_link(sd_event_source *source, int fd, uint32_t events, void *context)
{
    struct process *process = context;
    struct vgpu_link_msg msg;
    int fds[FDMSG_MAX];
    size_t count = 0;
    ssize_t n;
    bool good;

    (void)events;
    mediator_works_for(process->mediator, process->worker.vm_id);
    /*
     * What is given back is said once, and asks for no answer: it is taken out of the socket when
     * it is carried out, so that a mediator that ends in between leaves it for the next.
     */
    n = recv(fd, &msg, sizeof(msg), MSG_PEEK | MSG_DONTWAIT);
    if (n == (ssize_t)sizeof(msg) && is_giving_back(&msg)) {
        struct vgpu_link_msg taken;

        good = take_message(process, &msg, fds, &count) == 0;
        fdmsg_recv(fd, &taken, sizeof(taken), fds, &count);
    } else {
        n = fdmsg_recv(fd, &msg, sizeof(msg), fds, &count);
        good = n == (ssize_t)sizeof(msg) && take_message(process, &msg, fds, &count) == 0;
    }
    /* Those that nobody wanted. */
    fdmsg_close(fds, &count);
    if (n == -EAGAIN || good) {
        return 0;
    }
    if (n > 0) {
        /*
         * process_kill() is not used: it is for ends that the mediator wants. This end is a failure
         * of the worker. It is counted, and delays the next start in register mode.
         */
        process_log(process, LOG_LEVEL_WARNING,
                    "%s: worker %d broke the protocol (message of %zd bytes, type %" PRIu32 "); "
                    "ending it",
                    process_label(process), (int)process->kept->pid, n, msg.type);
        launcher_kill(process->kept->pid);
    }
    /* Its end is handled when it is reaped. */
    sd_event_source_set_enabled(source, SD_EVENT_OFF);
    return 0;
}

/* Counters --------------------------------------------------------------------------------- */

/*
 * Reads a worker's counter. The worker may raise it. If it lowers it, the value that is shown
 * stays. `most` is the highest value that can be true.
 */
static void read_counter(uint64_t *seen, const uint64_t *claim, uint64_t most)
{
    const uint64_t value = shared_load64(claim);

    if (value > *seen) {
        *seen = value < most ? value : most;
    }
}

struct vgpu_counters process_counters(struct process *process)
{
    const struct vgpu_counters *page = &process->worker.page->counters;
    struct vgpu_counters *seen = &process->seen;

    read_counter(&seen->requests, &page->requests, UINT64_MAX);
    read_counter(&seen->errors, &page->errors, UINT64_MAX);
    read_counter(&seen->elements, &page->elements, UINT64_MAX);
    read_counter(&seen->doorbells, &page->doorbells, UINT64_MAX);
    read_counter(&seen->interrupts, &page->interrupts, UINT64_MAX);
    read_counter(&seen->faults, &page->faults, UINT64_MAX);
    for (unsigned i = 0; i < VGPU_ENGINES; i++) {
        /* No longer than it lives. */
        read_counter(&seen->gpu_ns[i], &page->gpu_ns[i], clock_ns() - process->kept->started_ns);
        read_counter(&seen->turns[i], &page->turns[i], UINT64_MAX);
    }
    /* These two rise and fall, so any value is taken. They are for display alone. */
    seen->memory = shared_load64(&page->memory);
    seen->in_flight = shared_load64(&page->in_flight);
    return *seen;
}

/*
 * The sum stops at the highest number. If wrong claims made it wrap round, the counter would seem
 * to fall.
 */
static void add_counter(uint64_t *to, uint64_t from)
{
    *to = from < UINT64_MAX - *to ? *to + from : UINT64_MAX;
}

void process_add_counters(struct vgpu_counters *to, const struct vgpu_counters *from)
{
    add_counter(&to->requests, from->requests);
    add_counter(&to->errors, from->errors);
    add_counter(&to->elements, from->elements);
    add_counter(&to->doorbells, from->doorbells);
    add_counter(&to->interrupts, from->interrupts);
    add_counter(&to->faults, from->faults);
    for (unsigned i = 0; i < VGPU_ENGINES; i++) {
        add_counter(&to->gpu_ns[i], from->gpu_ns[i]);
        add_counter(&to->turns[i], from->turns[i]);
    }
}

struct vgpu_counters process_totals(struct process *process)
{
    struct vgpu_counters sum = process_counters(process);

    process_add_counters(&sum, &process->kept->past);
    return sum;
}

void process_gpu_times(struct process *process, unsigned gpu, uint64_t ns[VGPU_ENGINES])
{
    const struct vgpu_counters counters = process_counters(process);
    const bool there = process->worker.gpu == &process->pool->gpus[gpu];

    for (unsigned i = 0; i < VGPU_ENGINES; i++) {
        ns[i] = process->kept->past_gpu_ns[gpu][i] + (there ? counters.gpu_ns[i] : 0);
    }
}

uint64_t process_gpu_ns(struct process *process, unsigned gpu, enum vgpu_engine engine)
{
    uint64_t ns = process->kept->past_gpu_ns[gpu][engine];

    /* Time stays with the GPU where it was spent. The next worker may be placed on another. */
    if (process->worker.gpu == &process->pool->gpus[gpu]) {
        ns += process_counters(process).gpu_ns[engine];
    }
    return ns;
}

/*
 * To be called when a worker has ended and has left the pool; pool_leave() keeps `account`, so that
 * the GPU is still known here. The counters of the worker go into the sums. Its device memory goes
 * back to its VM's account, because a worker that was killed could not do that itself. Then the
 * page is cleared for the next worker.
 */
static void keep_totals(struct process *process)
{
    struct vgpu_counters *counters = &process->worker.page->counters;
    const long gpu = process->worker.account->gpu - process->pool->gpus;
    uint64_t memory;

    process->kept->answered = counters->requests;
    process->kept->past = process_totals(process);
    for (unsigned i = 0; i < VGPU_ENGINES; i++) {
        process->kept->past_gpu_ns[gpu][i] += process->seen.gpu_ns[i];
    }
    process->kept->past.memory = 0;
    process->kept->past.in_flight = 0;
    /* It is nobody's from here on, should the mediator end now: not given back twice. */
    memory = shared_load64(&counters->memory);
    shared_store64(&counters->memory, 0);
    process->ops->freed(process, memory);
    memset(counters, 0, sizeof(*counters));
    memset(&process->seen, 0, sizeof(process->seen));
}

/* What outlives the mediator ---------------------------------------------------------------- */

static const char *kept_name(const struct process *process, char what)
{
    return keep_name_worker(process->worker.vm_id, process->place, what);
}

static void keep_fd(const struct process *process, char what, int fd)
{
    if (process->lasting && fd >= 0) {
        keep_put(kept_name(process, what), fd);
    }
}

static void drop_fd(const struct process *process, char what)
{
    if (process->lasting) {
        keep_drop(kept_name(process, what));
    }
}

void process_keep(struct process *process)
{
    process->lasting = true;
    keep_fd(process, 't', process->turn_fd);
    keep_fd(process, 'l', process->link);
    keep_fd(process, 'p', process->pidfd);
}

/* The other end of the link sees the end of file, though a store has it too. */
static void drop_process(struct process *process)
{
    if (process->link >= 0) {
        drop_fd(process, 'l');
        chores_hang_up(process->link);
        process->link = -1;
    }
    if (process->pidfd >= 0) {
        drop_fd(process, 'p');
        close(process->pidfd);
        process->pidfd = -1;
    }
}

/* Starting and ending ----------------------------------------------------------------- */

/*
 * Takes back all that belongs to the process that has ended; afterwards there is none, as before
 * process_start(). The GPU is noted first, because pool_leave() clears it. Its timer is set last,
 * because leaving the pool may grant turns to others.
 */
static void process_forget(struct process *process)
{
    struct pool_gpu *gpu = process->worker.gpu;

    process->link_source = sd_event_source_disable_unref(process->link_source);
    take_last_messages(process);
    drop_process(process);
    list_remove(&process->entry);
    sd_event_source_set_enabled(process->timer, SD_EVENT_OFF);
    pool_leave(&process->worker, clock_ns());
    keep_totals(process);
    process->kept->ready = false;
    process->kept->condemned = false;
    process->kept->pid = 0;
    mediator_watch_gpu(process->mediator, gpu);
    if (process->resync != 0) {
        process->resync = 0;
        mediator_adopted(process->mediator);
    }
}

int process_exit_code(const struct process *process)
{
    /* Any number may stand there. */
    return (int)(shared_load(&process->worker.page->exit_code) & 0xff);
}

/* What is known of a worker's end: of an adopted one what it has said itself, if anything. */
static siginfo_t end_of_worker(const struct process *process, const siginfo_t *told)
{
    siginfo_t info = *told;

    if (told->si_code == 0 && process_exit_code(process) != 0) {
        info.si_code = CLD_EXITED;
        info.si_status = process_exit_code(process);
    }
    return info;
}

static void reap_process(struct process *process, const siginfo_t *info)
{
    const bool condemned = process->kept->condemned;
    const bool meant = process->ops->meant && process->ops->meant(process, info);
    const bool not_run = info->si_code == CLD_EXITED && info->si_status == LAUNCHER_NOT_RUN;

    if (!condemned && !meant && !process->mediator->stopping) {
        process->kept->failures++;
        if (info->si_code == CLD_EXITED) {
            process_log(process, LOG_LEVEL_WARNING, "%s: worker %d ended with exit code %d%s%s",
                        process_label(process), (int)process->kept->pid, info->si_status,
                        not_run ? ": it cannot be run, see 'worker' in the configuration, " : "",
                        not_run ? process->mediator->config.worker : "");
        } else if (info->si_code == 0) {
            process_log(process, LOG_LEVEL_WARNING,
                        "%s: worker %d has ended; another mediator had started it, and so it is "
                        "not known how",
                        process_label(process), (int)process->kept->pid);
        } else {
            process_log(process, LOG_LEVEL_WARNING, "%s: worker %d was killed by signal %d (%s)",
                        process_label(process), (int)process->kept->pid, info->si_status,
                        strsignal(info->si_status));
        }
    }
    /* This comes first: once it has left the pool it has no turn and waits for none. */
    process->was_busy = pool_busy(&process->worker);
    process_forget(process);
    /* This comes last: the owner may start the next worker in the same record. */
    process->ops->ended(process, info, condemned, meant);
}

static void worker_ended(struct process *process, const siginfo_t *told)
{
    const siginfo_t info = end_of_worker(process, told);

    mediator_works_for(process->mediator, process->worker.vm_id);
    reap_process(process, &info);
}

void process_ended(struct mediator *mediator, const siginfo_t *info, uint64_t start)
{
    struct list_entry *head = &mediator->workers;

    for (struct list_entry *e = head->next; e != head; e = e->next) {
        struct process *process = LIST_OWNER(e, struct process, entry);

        if (process->start == start) {
            worker_ended(process, info);
            break;
        }
    }
    /* Of one that was abandoned nobody else is told, and a mediator that stops may wait for it. */
    mediator_end_if_idle(mediator);
}

/*
 * A worker that does not start up has failed as if it had crashed: it is not condemned, so that
 * worker_ended() counts and logs its end.
 */
static int on_process_timer(sd_event_source *source, uint64_t usec, void *context)
{
    struct process *process = context;

    (void)source;
    (void)usec;
    process_log(process, LOG_LEVEL_ERROR,
                "%s: worker %d has not started up within %" PRIu64 " s; ending it",
                process_label(process), (int)process->kept->pid, START_LIMIT_NS / NS_PER_S);
    launcher_kill(process->kept->pid);
    return 0;
}

/*
 * Has the worker started, with its end of the link. Returns 0 or -errno.
 */
static int launch_worker(struct process *process, const struct process_start *start)
{
    static const char *const backends[] = {"auto", "cpu", "cuda"};
    const struct config *config = &process->mediator->config;
    /* Where a GPU was found, a worker that cannot use it has failed. */
    const bool cuda = config->backend == CONFIG_BACKEND_AUTO && process->mediator->has_gpu;
    const char *backend = backends[cuda ? CONFIG_BACKEND_CUDA : config->backend];
    const struct pool *pool = process->worker.account->gpu->pool;
    const char *gpu_name = config->pools[pool->id - 'A'].gpu_name;
    char size[32], device[16], name[sizeof("--gpu-name=") + CONFIG_GPU_NAME];
    const char *arguments[ARGUMENTS_MAX + 1] = {
        "--shm-size", size,   "--backend", backend,
        "--device",   device, "--label",   process_label(process)};
    size_t count = 8;
    int pair[2];
    pid_t pid;

    snprintf(size, sizeof(size), "%" PRIu64, start->shm_size);
    snprintf(device, sizeof(device), "%d", (int)process->worker.account->gpu->number);
    process->kept->may_be_off = start->preempt && mediator_preempts(process->mediator);
    if (process->kept->may_be_off) {
        arguments[count++] = "--preempt";
    }
    if (gpu_name[0] != '\0') {
        snprintf(name, sizeof(name), "--gpu-name=%s", gpu_name);
        arguments[count++] = name;
    }
    for (size_t i = 0; start->arguments[i] && count < ARGUMENTS_MAX; i++) {
        arguments[count++] = start->arguments[i];
    }
    if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, pair) < 0) {
        return -errno;
    }
    pid = launcher_start(arguments,
                         (const int[LAUNCHER_FDS]){pair[1], start->memfd, start->doorbell,
                                                   start->irq, process->turn_fd, start->account},
                         &process->start, &process->pidfd);
    close(pair[1]);
    if (pid < 0) {
        close(pair[0]);
        return (int)pid;
    }
    process->link = pair[0];
    /*
     * In this order: a worker that is not in the record is ended by the next mediator, or by the
     * end of its link. It has done nothing until it is told OPEN.
     */
    keep_fd(process, 'l', process->link);
    keep_fd(process, 'p', process->pidfd);
    process->kept->link_version = VGPU_LINK_VERSION;
    process->kept->gpu = process->worker.account->gpu->number;
    process->kept->pid = pid;
    list_add_before(&process->mediator->workers, &process->entry);
    return 0;
}

/*
 * Finds a GPU for the worker. Returns 0, -EBUSY when the pool has none for this VM, or -ENOMEM. The
 * VM's account on that GPU is made here if there is none yet. It stays when the worker has ended: a
 * VM must not lose its debts when it closes a session and opens the next.
 */
static int choose_gpu(struct process *process)
{
    struct pool_standing standing;
    struct pool_account **accounts = process->ops->accounts(process, &standing);
    struct pool_gpu *gpu = pool_place(process->pool, *accounts);

    if (!gpu) {
        /* What an operator has drained is tried again and again until it is there. */
        process_log(process, pool_has_drained(process->pool) ? LOG_LEVEL_DEBUG : LOG_LEVEL_WARNING,
                    "%s: no GPU of pool %c is free: " POOL_NO_GPU, process_label(process),
                    process->pool->id);
        return -EBUSY;
    }
    process->worker.account = pool_account(accounts, gpu, &standing);
    return process->worker.account ? 0 : -ENOMEM;
}

int process_start(struct process *process, const struct process_start *start)
{
    sd_event *event = process->mediator->event;
    int r = choose_gpu(process);

    if (r < 0) {
        return r;
    }
    process->kept->started_ns = clock_ns();
    process->kept->starts++;
    process->kept->off_count = 0;
    shared_store(&process->worker.page->exit_code, 0);
    process->kept->opened = false;
    process->kept->can_be_off = false;
    shared_store(&process->worker.page->turn[VGPU_ENGINE_COMPUTE].off, 0);
    /*
     * It joins before it is forked: its turn words and its window have to be right when it looks at
     * its page for the first time.
     */
    pool_join(&process->worker, process->worker.account);
    r = launch_worker(process, start);
    if (r < 0) {
        process_log(process, LOG_LEVEL_ERROR, "%s: cannot start a worker: %s",
                    process_label(process), strerror(-r));
        pool_leave(&process->worker, clock_ns());
        mediator_watch_gpu(process->mediator, process->worker.account->gpu);
        return r;
    }
    r = sd_event_add_io(event, &process->link_source, process->link, EPOLLIN, on_link, process);
    if (r < 0) {
        /* It was forked a moment ago, and nobody is told of its end. */
        process_log(process, LOG_LEVEL_ERROR, "%s: cannot watch worker %d: %s",
                    process_label(process), (int)process->kept->pid, strerror(-r));
        launcher_kill(process->kept->pid);
        process_forget(process);
        return r;
    }
    if (start->resting) {
        limit_start(process);
    } else {
        pool_open(&process->worker, process->kept->started_ns);
        mediator_watch_gpu(process->mediator, process->worker.gpu);
    }
    return 0;
}

/*
 * A second kill does no harm: the child keeps its process id until it is reaped. `condemned` tells
 * worker_ended() that this end is not a failure.
 */
void process_kill(struct process *process)
{
    if (process->kept->pid != 0) {
        process->kept->condemned = true;
        launcher_kill(process->kept->pid);
    }
}

/*
 * Ends a worker whose owner goes, and who is not told of its end. That can take a while: the driver
 * tears a context down.
 */
static void process_abandon(struct process *process)
{
    if (process->kept->pid != 0) {
        launcher_kill(process->kept->pid);
        process_forget(process);
    }
}

/* The page is made, or is one that was kept. */
static int map_turn_page(struct process *process, int fd, void **page)
{
    int r;

    if (fd < 0) {
        return memory_create_page("vgpu-turn", &process->turn_fd, page);
    }
    r = memory_map_page(fd, page);
    if (r < 0) {
        close(fd);
    }
    process->turn_fd = fd;
    return r;
}

int process_init(struct process *process, struct mediator *mediator, const struct process_ops *ops,
                 const struct process_place *place)
{
    void *page;
    int r;

    memset(process, 0, sizeof(*process));
    /*
     * All workers of this owner use this page, one after another. Limits that are stored there
     * while there is no worker hold for the next one.
     */
    r = map_turn_page(process, place->turn_fd, &page);
    if (r < 0) {
        return r;
    }
    process->mediator = mediator;
    process->ops = ops;
    process->kept = place->kept;
    process->pool = place->pool;
    process->place = place->place;
    process->lasting = place->turn_fd >= 0;
    process->link = process->pidfd = -1;
    process->worker.page = page;
    process->worker.vm_id = place->vm_id;
    process->worker.register_mode = place->place == 0;
    process->worker.granted = on_granted;
    process->worker.alerted = on_alerted;
    process->worker.expired = on_expired;
    process->worker.turn_off = on_turn_off;
    process->worker.sliced = on_sliced;
    process->worker.open = on_open;
    r = sd_event_add_time_relative(mediator->event, &process->timer, CLOCK_MONOTONIC, 0, 0,
                                   on_process_timer, process);
    if (r < 0) {
        munmap(page, VGPU_TURN_PAGE_SIZE);
        close(process->turn_fd);
        return r;
    }
    sd_event_source_set_enabled(process->timer, SD_EVENT_OFF);
    return 0;
}

void process_release(struct process *process)
{
    process_abandon(process);
    drop_fd(process, 't');
    sd_event_source_disable_unref(process->timer);
    /* This ends the mediator's mapping alone. A worker that is being killed has its own. */
    munmap(process->worker.page, VGPU_TURN_PAGE_SIZE);
    close(process->turn_fd);
}

/* Adopting ------------------------------------------------------------------------------- */

/* The account on the GPU that the worker is on; NULL where that is none of the pool's any more. */
static struct pool_account *adopted_account(struct process *process)
{
    struct pool_standing standing;
    struct pool_account **accounts = process->ops->accounts(process, &standing);

    for (unsigned i = 0; i < process->pool->gpu_count; i++) {
        if (process->pool->gpus[i].number == process->kept->gpu) {
            return pool_account(accounts, &process->pool->gpus[i], &standing);
        }
    }
    return NULL;
}

/* What is off goes on: the arbiter, which knows nothing of it, decides anew. */
static void turn_on_adopted(struct process *process)
{
    process->kept->off_count += process->kept->off_count & 1;
    store_off_count(process);
}

/* It has begun to make its context, or waits for being told to. */
static void go_on_starting(struct process *process)
{
    if (process->kept->opened) {
        limit_start(process);
        process_send(process, VGPU_LINK_OPEN, 0);
    } else {
        pool_open(&process->worker, clock_ns());
    }
}

/* There is no worker, or none that may go on: its link ends, and so does what is behind it. */
static void refuse_adopted(struct process *process)
{
    struct vgpu_counters *counters = &process->worker.page->counters;
    const uint64_t memory = shared_load64(&counters->memory);

    take_last_messages(process);
    drop_process(process);
    memset(counters, 0, sizeof(*counters));
    process->ops->freed(process, memory);
    process->kept->ready = process->kept->condemned = false;
    process->kept->pid = 0;
}

static bool may_adopt(struct process *process, struct pool_account *account)
{
    const struct process_record *kept = process->kept;

    if (!account || kept->link_version != VGPU_LINK_VERSION) {
        process_log(process, LOG_LEVEL_WARNING,
                    !account ? "%s: the GPU of worker %d is not in its pool any more; ending it"
                             : "%s: worker %d is of a release that this mediator does not know; "
                               "ending it",
                    process_label(process), (int)kept->pid);
        return false;
    }
    return sd_event_add_io(process->mediator->event, &process->link_source, process->link, EPOLLIN,
                           on_link, process) >= 0;
}

void process_adopt(struct process *process)
{
    struct process_record *kept = process->kept;
    const struct vgpu_link_msg msg = {.type = VGPU_LINK_RESYNC,
                                      .value = process->mediator->generation};
    struct pool_account *account = adopted_account(process);

    process->link = keep_take(kept_name(process, 'l'));
    process->pidfd = keep_take(kept_name(process, 'p'));
    if (kept->pid <= 0 || process->link < 0 || process->pidfd < 0 ||
        launcher_adopt(kept->pid, process->pidfd, &process->start) < 0) {
        refuse_adopted(process);
        return;
    }
    if (!may_adopt(process, account)) {
        launcher_kill(kept->pid);
        refuse_adopted(process);
        return;
    }
    list_add_before(&process->mediator->workers, &process->entry);
    pool_adopt(&process->worker, account, clock_ns());
    turn_on_adopted(process);
    pool_can_be_off(&process->worker, kept->can_be_off);
    process->resync = msg.value;
    process->mediator->unheard++;
    if (fdmsg_send(process->link, &msg, sizeof(msg), NULL, 0) == -EAGAIN) {
        process_log(process, LOG_LEVEL_WARNING,
                    "%s: worker %d has read nothing of its link for long; ending it",
                    process_label(process), (int)kept->pid);
        launcher_kill(kept->pid);
    }
    if (kept->condemned) {
        launcher_kill(kept->pid);
    } else if (!kept->ready) {
        go_on_starting(process);
    }
}

void process_doubt_unheard(struct mediator *mediator)
{
    struct list_entry *head = &mediator->workers;

    for (struct list_entry *e = head->next; e != head; e = e->next) {
        struct process *process = LIST_OWNER(e, struct process, entry);

        if (process->resync != 0) {
            pool_doubt(&process->worker, clock_ns());
        }
    }
}
