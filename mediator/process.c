/* SPDX-License-Identifier: MIT */
/* A worker process, see process.h. */
#include "process.h"

#include <ctype.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include "clock.h"
#include "fdmsg.h"
#include "log.h"
#include "memory.h"

/* A GPU context takes a fraction of a second; a driver that hangs takes for ever. */
#define START_LIMIT_NS (60 * NS_PER_S)
/* Arguments that every worker gets, and an owner's own. */
#define ARGUMENTS_MAX 24u

struct process *process_of_member(struct pool_member *member)
{
    return (struct process *)((char *)member - offsetof(struct process, member));
}

static const char *label(const struct process *process)
{
    return process->ops->label(process);
}

void process_printable(char *to, size_t size, const char *from)
{
    size_t i;

    for (i = 0; i + 1 < size && from[i] != '\0'; i++) {
        to[i] = isprint((unsigned char)from[i]) ? from[i] : '?';
    }
    to[i] = '\0';
}

/* Messages ---------------------------------------------------------------------------- */

void process_send(struct process *process, enum vgpu_link_type type)
{
    const struct vgpu_link_msg msg = {.type = type};

    /* A full socket is a worker that does not read: its turn's limit ends it. */
    if (fdmsg_send(process->link, &msg, sizeof(msg), NULL, 0) < 0) {
        log_debug("%s: worker %d does not listen", label(process), (int)process->pid);
    }
}

static void send_turn(struct pool_member *member)
{
    process_send(process_of_member(member), VGPU_LINK_TURN);
}

static void take_ready(struct process *process, struct vgpu_link_msg *msg)
{
    msg->text[sizeof(msg->text) - 1] = '\0';
    process_printable(process->device, sizeof(process->device), msg->text);
    process->ready = true;
    sd_event_source_set_enabled(process->timer, SD_EVENT_OFF);
    log_debug("%s: worker %d ready after %" PRIu64 " ms on %s", label(process), (int)process->pid,
              (clock_ns() - process->started_ns) / NS_PER_MS, process->device);
    process->ops->ready(process);
}

/* Returns 0, or -EPROTO when the worker does what it may not. */
static int take_message(struct process *process, struct vgpu_link_msg *msg)
{
    int r;

    if (process->condemned) {
        /* Its READY must not answer for the next one's. */
        return 0;
    }
    switch (msg->type) {
    case VGPU_LINK_READY:
        if (process->ready) {
            return -EPROTO;
        }
        take_ready(process, msg);
        return 0;
    case VGPU_LINK_ASK:
        r = pool_ask(&process->member, clock_ns());
        break;
    case VGPU_LINK_DONE:
        r = pool_done(&process->member, msg->value != 0, clock_ns());
        break;
    default:
        return -EPROTO;
    }
    mediator_watch_pool(process->mediator, process->pool);
    return r;
}

static int on_link(sd_event_source *source, int fd, uint32_t events, void *context)
{
    struct process *process = context;
    struct vgpu_link_msg msg;
    int fds[FDMSG_MAX];
    size_t count = 0;
    const ssize_t n = fdmsg_recv(fd, &msg, sizeof(msg), fds, &count);

    (void)events;
    fdmsg_close(fds, &count);
    if (n == -EAGAIN) {
        return 0;
    }
    if (n == (ssize_t)sizeof(msg) && take_message(process, &msg) == 0) {
        return 0;
    }
    if (n > 0) {
        log_warning("%s: worker %d broke the protocol (message of %zd bytes, type %" PRIu32 "); "
                    "ending it",
                    label(process), (int)process->pid, n, msg.type);
        kill(process->pid, SIGKILL);
    }
    /* Its end is handled when it is reaped. */
    sd_event_source_set_enabled(source, SD_EVENT_OFF);
    return 0;
}

/* Starting and ending ----------------------------------------------------------------- */

/* Takes back all that belongs to the running process. */
static void forget(struct process *process)
{
    process->link_source = sd_event_source_disable_unref(process->link_source);
    process->child_source = sd_event_source_disable_unref(process->child_source);
    if (process->link >= 0) {
        close(process->link);
        process->link = -1;
    }
    process->pid = 0;
    process->ready = false;
    process->condemned = false;
    sd_event_source_set_enabled(process->timer, SD_EVENT_OFF);
    pool_leave(&process->member, clock_ns());
    mediator_watch_pool(process->mediator, process->pool);
}

static int on_child(sd_event_source *source, const siginfo_t *info, void *context)
{
    struct process *process = context;
    const bool condemned = process->condemned;

    (void)source;
    if (!condemned && !process->mediator->stopping) {
        if (info->si_code == CLD_EXITED) {
            log_warning("%s: worker %d ended with exit code %d", label(process), (int)process->pid,
                        info->si_status);
        } else {
            log_warning("%s: worker %d was killed by signal %d (%s)", label(process),
                        (int)process->pid, info->si_status, strsignal(info->si_status));
        }
    }
    process->was_busy = pool_busy(&process->member);
    forget(process);
    process->ops->ended(process, info, condemned);
    return 0;
}

static int on_timer(sd_event_source *source, uint64_t usec, void *context)
{
    struct process *process = context;

    (void)source;
    (void)usec;
    log_error("%s: worker %d has not started up within %" PRIu64 " s; ending it", label(process),
              (int)process->pid, START_LIMIT_NS / NS_PER_S);
    kill(process->pid, SIGKILL);
    return 0;
}

/* In the child, between fork and exec. Only async-signal-safe calls. */
static _Noreturn void exec_worker(const char *path, char *const argv[], const int fds[],
                                  size_t count)
{
    int high[8];
    sigset_t none;

    /* With the listening socket still open here, the next mediator would find it served. */
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    sigemptyset(&none);
    sigprocmask(SIG_SETMASK, &none, NULL);
    /* First out of the way of the numbers that they get. */
    for (size_t i = 0; i < count; i++) {
        high[i] = fcntl(fds[i], F_DUPFD_CLOEXEC, VGPU_WORKER_FD_TURN + 1);
    }
    for (size_t i = 0; i < count; i++) {
        if (high[i] < 0 || dup2(high[i], VGPU_WORKER_FD_LINK + (int)i) < 0) {
            _exit(126);
        }
    }
    execv(path, argv);
    _exit(127);
}

/* Forks the worker with its end of the link. Returns 0 or -errno. */
static int fork_worker(struct process *process, const struct process_start *start)
{
    static const char *const backends[] = {"auto", "cpu", "cuda"};
    const struct config *config = &process->mediator->config;
    /* Where a GPU was found, a worker that cannot use it has failed. */
    const bool cuda = config->backend == CONFIG_BACKEND_AUTO && process->mediator->has_gpu;
    const char *backend = backends[cuda ? CONFIG_BACKEND_CUDA : config->backend];
    char size[32], device[16], user[32];
    const char *argv[ARGUMENTS_MAX] = {"vgpu-worker", "--shm-size", size,  "--backend",
                                       backend,       "--device",   device};
    size_t count = 7;
    int pair[2];
    pid_t pid;

    snprintf(size, sizeof(size), "%" PRIu64, start->shm_size);
    snprintf(device, sizeof(device), "%d", process->pool->device);
    snprintf(user, sizeof(user), "%u:%u", config->worker_user, config->worker_group);
    if (config->worker_user != (uid_t)-1) {
        argv[count++] = "--user";
        argv[count++] = user;
    }
    for (size_t i = 0; start->arguments[i] && count + 1 < ARGUMENTS_MAX; i++) {
        argv[count++] = start->arguments[i];
    }
    if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, pair) < 0) {
        return -errno;
    }
    pid = fork();
    if (pid == 0) {
        const int fds[] = {pair[1], start->memfd, start->doorbell, start->irq, process->turn_fd};

        exec_worker(config->worker, (char *const *)(uintptr_t)argv, fds,
                    sizeof(fds) / sizeof(fds[0]));
    }
    close(pair[1]);
    if (pid < 0) {
        const int r = -errno;

        close(pair[0]);
        return r;
    }
    process->link = pair[0];
    process->pid = pid;
    return 0;
}

int process_start(struct process *process, const struct process_start *start)
{
    sd_event *event = process->mediator->event;
    int r;

    process->started_ns = clock_ns();
    process->starts++;
    r = fork_worker(process, start);
    if (r < 0) {
        log_error("%s: cannot start a worker: %s", label(process), strerror(-r));
        return r;
    }
    pool_join(process->pool, &process->member);
    r = sd_event_add_child(event, &process->child_source, process->pid, WEXITED, on_child, process);
    if (r >= 0) {
        r = sd_event_add_io(event, &process->link_source, process->link, EPOLLIN, on_link, process);
    }
    if (r < 0) {
        log_error("%s: cannot watch worker %d: %s", label(process), (int)process->pid,
                  strerror(-r));
        kill(process->pid, SIGKILL);
        waitpid(process->pid, NULL, 0);
        forget(process);
        return r;
    }
    sd_event_source_set_time_relative(process->timer, START_LIMIT_NS / NS_PER_US);
    sd_event_source_set_enabled(process->timer, SD_EVENT_ONESHOT);
    return 0;
}

void process_kill(struct process *process)
{
    if (process->pid != 0) {
        process->condemned = true;
        kill(process->pid, SIGKILL);
    }
}

static int on_orphan(sd_event_source *source, const siginfo_t *info, void *context)
{
    (void)info;
    /* The loop's own reference, the only one, would keep the source and its pidfd for good. */
    sd_event_source_set_floating(source, false);
    mediator_worker_gone(context);
    return 0;
}

/* Ends a worker whose owner goes. Its end can take a while: the driver tears a context down. */
static void abandon(struct process *process)
{
    const pid_t pid = process->pid;

    if (pid == 0) {
        return;
    }
    kill(pid, SIGKILL);
    forget(process);
    if (sd_event_add_child(process->mediator->event, NULL, pid, WEXITED, on_orphan,
                           process->mediator) < 0) {
        waitpid(pid, NULL, 0);
    }
}

int process_init(struct process *process, struct mediator *mediator, const struct process_ops *ops,
                 struct pool *pool, uint32_t vm_id, enum vgpu_priority priority)
{
    void *page;
    int r;

    memset(process, 0, sizeof(*process));
    r = memory_create_turn_page(&process->turn_fd, &page);
    if (r < 0) {
        return r;
    }
    process->mediator = mediator;
    process->ops = ops;
    process->pool = pool;
    process->link = -1;
    process->member.page = page;
    process->member.vm_id = vm_id;
    process->member.priority = priority;
    process->member.granted = send_turn;
    r = sd_event_add_time_relative(mediator->event, &process->timer, CLOCK_MONOTONIC, 0, 0,
                                   on_timer, process);
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
    abandon(process);
    sd_event_source_disable_unref(process->timer);
    munmap(process->member.page, VGPU_TURN_PAGE_SIZE);
    close(process->turn_fd);
}
