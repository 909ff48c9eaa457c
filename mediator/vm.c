/* SPDX-License-Identifier: MIT */
/* An attached VM and its worker process, see vm.h. */
#include "vm.h"

#include <ctype.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include "client.h"
#include "clock.h"
#include "fdmsg.h"
#include "log.h"
#include "memory.h"

/* Between the starts of two workers: for resets, and for the first failure. */
#define START_INTERVAL_NS (50 * NS_PER_MS)
#define START_DELAY_MAX_NS (5 * NS_PER_S)
/* A GPU context takes a fraction of a second; a driver that hangs takes for ever. */
#define START_LIMIT_NS (60 * NS_PER_S)
/* Workers in a row that may end on one request before it is answered with an error. */
#define FAILURES_MAX 2u
/* An idle worker that lived this long did not end on the request that it was started with. */
#define GOOD_LIFE_NS (5 * NS_PER_S)

static int start_worker(struct vm *vm);

struct vm *vm_find(struct mediator *mediator, uint32_t id)
{
    for (struct vm *vm = mediator->vms; vm; vm = vm->next) {
        if (vm->id == id) {
            return vm;
        }
    }
    return NULL;
}

struct vm *vm_of_member(struct pool_member *member)
{
    return (struct vm *)((char *)member - offsetof(struct vm, member));
}

/* Text from outside, for logs and tables. */
static void copy_printable(char *to, size_t size, const char *from)
{
    size_t i;

    for (i = 0; i + 1 < size && from[i] != '\0'; i++) {
        to[i] = isprint((unsigned char)from[i]) ? from[i] : '?';
    }
    to[i] = '\0';
}

/* Messages to and from the worker ---------------------------------------------------- */

static void send_link(struct vm *vm, enum vgpu_link_type type)
{
    const struct vgpu_link_msg msg = {.type = type};

    /* A full socket is a worker that does not read: its turn's limit ends it. */
    if (fdmsg_send(vm->link, &msg, sizeof(msg), NULL, 0) < 0) {
        log_debug("VM %" PRIu32 ": worker %d does not listen", vm->id, (int)vm->pid);
    }
}

static void send_turn(struct pool_member *member)
{
    send_link(vm_of_member(member), VGPU_LINK_TURN);
}

static void worker_ready(struct vm *vm, struct vgpu_link_msg *msg)
{
    msg->text[sizeof(msg->text) - 1] = '\0';
    copy_printable(vm->device, sizeof(vm->device), msg->text);
    vm->ready = true;
    vm->takeover = NULL;
    sd_event_source_set_enabled(vm->timer, SD_EVENT_OFF);
    log_debug("VM %" PRIu32 ": worker %d ready after %" PRIu64 " ms on %s", vm->id, (int)vm->pid,
              (clock_ns() - vm->started_ns) / NS_PER_MS, vm->device);
    if (vm->reset_asked) {
        vm->reset_asked = false;
        client_reset_done(vm->client, vm->reset_serial);
    }
}

/* Returns 0, or -EPROTO when the worker does what it may not. */
static int worker_message(struct vm *vm, struct vgpu_link_msg *msg)
{
    int r;

    if (vm->replacing) {
        /* Its READY must not answer for the next one's. */
        return 0;
    }
    switch (msg->type) {
    case VGPU_LINK_READY:
        if (vm->ready) {
            return -EPROTO;
        }
        worker_ready(vm, msg);
        return 0;
    case VGPU_LINK_ASK:
        r = pool_ask(&vm->member, clock_ns());
        break;
    case VGPU_LINK_DONE:
        r = pool_done(&vm->member, msg->value != 0, clock_ns());
        break;
    default:
        return -EPROTO;
    }
    mediator_watch_pool(vm->mediator, vm->pool);
    return r;
}

static int on_link(sd_event_source *source, int fd, uint32_t events, void *context)
{
    struct vm *vm = context;
    struct vgpu_link_msg msg;
    int fds[FDMSG_MAX];
    size_t count = 0;
    const ssize_t n = fdmsg_recv(fd, &msg, sizeof(msg), fds, &count);

    (void)events;
    fdmsg_close(fds, &count);
    if (n == -EAGAIN) {
        return 0;
    }
    if (n == (ssize_t)sizeof(msg) && worker_message(vm, &msg) == 0) {
        return 0;
    }
    if (n > 0) {
        log_warning("VM %" PRIu32 ": worker %d broke the protocol (message of %zd bytes, type "
                    "%" PRIu32 "); ending it",
                    vm->id, (int)vm->pid, n, msg.type);
        kill(vm->pid, SIGKILL);
    }
    /* Its end is handled when it is reaped. */
    sd_event_source_set_enabled(source, SD_EVENT_OFF);
    return 0;
}

/* Starting and ending ---------------------------------------------------------------- */

static void release_worker(struct vm *vm)
{
    vm->link_source = sd_event_source_disable_unref(vm->link_source);
    vm->child_source = sd_event_source_disable_unref(vm->child_source);
    if (vm->link >= 0) {
        close(vm->link);
        vm->link = -1;
    }
    vm->pid = 0;
    vm->ready = false;
    sd_event_source_set_enabled(vm->timer, SD_EVENT_OFF);
    pool_leave(&vm->member, clock_ns());
    mediator_watch_pool(vm->mediator, vm->pool);
}

/* `delay_ns` from now. */
static void arm_timer(struct vm *vm, uint64_t delay_ns)
{
    sd_event_source_set_time_relative(vm->timer, delay_ns / NS_PER_US);
    sd_event_source_set_enabled(vm->timer, SD_EVENT_ONESHOT);
}

static uint64_t start_delay(const struct vm *vm, uint64_t now)
{
    uint64_t interval = START_INTERVAL_NS;

    for (unsigned i = 1; i < vm->failures && interval < START_DELAY_MAX_NS; i++) {
        interval *= 2;
    }
    if (interval > START_DELAY_MAX_NS) {
        interval = START_DELAY_MAX_NS;
    }
    return now - vm->started_ns >= interval ? 0 : vm->started_ns + interval - now;
}

static void start_later(struct vm *vm)
{
    const uint64_t delay = start_delay(vm, clock_ns());

    if (delay == 0 && start_worker(vm) == 0) {
        return;
    }
    arm_timer(vm, delay == 0 ? NS_PER_S : delay);
}

static int on_timer(sd_event_source *source, uint64_t usec, void *context)
{
    struct vm *vm = context;

    (void)source;
    (void)usec;
    if (vm->mediator->stopping) {
        return 0;
    }
    if (vm->pid == 0) {
        start_later(vm);
    } else if (!vm->ready) {
        log_error("VM %" PRIu32 ": worker %d has not started up within %" PRIu64 " s; ending it",
                  vm->id, (int)vm->pid, START_LIMIT_NS / NS_PER_S);
        kill(vm->pid, SIGKILL);
    }
    return 0;
}

static void log_end(const struct vm *vm, const siginfo_t *info)
{
    if (info->si_code == CLD_EXITED) {
        log_warning("VM %" PRIu32 ": worker %d ended with exit code %d; starting another", vm->id,
                    (int)vm->pid, info->si_status);
    } else {
        log_warning("VM %" PRIu32 ": worker %d was killed by signal %d (%s); starting another",
                    vm->id, (int)vm->pid, info->si_status, strsignal(info->si_status));
    }
}

static int on_child(sd_event_source *source, const siginfo_t *info, void *context)
{
    struct vm *vm = context;
    const bool expected = vm->replacing || vm->mediator->stopping;
    /* Did it get its first request done, or live long with nothing to do? */
    const bool good = vm->member.page->requests != vm->answered_before ||
                      (!pool_busy(&vm->member) && clock_ns() - vm->started_ns > GOOD_LIFE_NS);

    (void)source;
    if (!expected) {
        log_end(vm, info);
        vm->failures = good ? 1 : vm->failures + 1;
    }
    release_worker(vm);
    if (vm->mediator->stopping) {
        mediator_worker_gone(vm->mediator);
        return 0;
    }
    start_later(vm);
    return 0;
}

/* In the child, between fork and exec. Only async-signal-safe calls. */
static _Noreturn void exec_worker(const char *path, char *const argv[], const int fds[],
                                  size_t count)
{
    int high[8];
    sigset_t none;

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

/* Forks the worker with its end of the link; *link is the mediator's end. */
static int fork_worker(struct vm *vm, const char *takeover, int *link)
{
    static const char *const backends[] = {"auto", "cpu", "cuda"};
    const struct config *config = &vm->mediator->config;
    char size[32], device[16], user[32];
    char *const argv[] = {
        (char *)"vgpu-worker", (char *)"--shm-size", size, (char *)"--backend",
        (char *)(uintptr_t)backends[config->backend], (char *)"--device", device,
        (char *)"--takeover", (char *)(uintptr_t)takeover,
        /* The last pair is left out when the worker stays what the mediator is. */
        config->worker_user == (uid_t)-1 ? NULL : (char *)"--user", user, NULL};
    int pair[2];
    pid_t pid;

    snprintf(size, sizeof(size), "%" PRIu64, vm->shm_size);
    snprintf(device, sizeof(device), "%d", vm->pool->device);
    snprintf(user, sizeof(user), "%u:%u", config->worker_user, config->worker_group);
    if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, pair) < 0) {
        return -errno;
    }
    pid = fork();
    if (pid == 0) {
        const int fds[] = {pair[1], vm->fds[MEMORY_MEMFD], vm->fds[MEMORY_DOORBELL],
                           vm->fds[MEMORY_IRQ], vm->turn_fd};

        exec_worker(config->worker, argv, fds, sizeof(fds) / sizeof(fds[0]));
    }
    close(pair[1]);
    if (pid < 0) {
        const int r = -errno;

        close(pair[0]);
        return r;
    }
    *link = pair[0];
    vm->pid = pid;
    return 0;
}

static int start_worker(struct vm *vm)
{
    sd_event *event = vm->mediator->event;
    char fail[32];
    const char *takeover = vm->takeover ? vm->takeover : "resume";
    int r;

    if (!vm->takeover && vm->failures >= FAILURES_MAX) {
        snprintf(fail, sizeof(fail), "fail:%d", VGPU_ERROR_WORKER_LOST);
        takeover = fail;
    }
    vm->started_ns = clock_ns();
    vm->starts++;
    r = fork_worker(vm, takeover, &vm->link);
    if (r < 0) {
        log_error("VM %" PRIu32 ": cannot start a worker: %s", vm->id, strerror(-r));
        return r;
    }
    vm->replacing = false;
    vm->answered_before = vm->member.page->requests;
    if (takeover == fail) {
        /* The answer with the error is no progress of the worker's. */
        vm->answered_before++;
    }
    pool_join(vm->pool, &vm->member);
    r = sd_event_add_child(event, &vm->child_source, vm->pid, WEXITED, on_child, vm);
    if (r >= 0) {
        r = sd_event_add_io(event, &vm->link_source, vm->link, EPOLLIN, on_link, vm);
    }
    if (r < 0) {
        log_error("VM %" PRIu32 ": cannot watch worker %d: %s", vm->id, (int)vm->pid, strerror(-r));
        kill(vm->pid, SIGKILL);
        waitpid(vm->pid, NULL, 0);
        release_worker(vm);
        return r;
    }
    arm_timer(vm, START_LIMIT_NS);
    return 0;
}

static int on_orphan(sd_event_source *source, const siginfo_t *info, void *context)
{
    (void)info;
    /* The loop's own reference, the only one, would keep the source and its pidfd for good. */
    sd_event_source_set_floating(source, false);
    mediator_worker_gone(context);
    return 0;
}

/* Ends a worker whose VM goes. Its end can take a while: the driver tears a context down. */
static void abandon_worker(struct vm *vm)
{
    const pid_t pid = vm->pid;

    if (pid == 0) {
        return;
    }
    kill(pid, SIGKILL);
    release_worker(vm);
    if (sd_event_add_child(vm->mediator->event, NULL, pid, WEXITED, on_orphan, vm->mediator) < 0) {
        waitpid(pid, NULL, 0);
    }
}

/* The VM itself ---------------------------------------------------------------------- */

static void insert(struct mediator *mediator, struct vm *vm)
{
    struct vm **place = &mediator->vms;

    while (*place && (*place)->id < vm->id) {
        place = &(*place)->next;
    }
    vm->next = *place;
    *place = vm;
    mediator->vm_count++;
}

static void release(struct vm *vm)
{
    sd_event_source_disable_unref(vm->timer);
    if (vm->member.page) {
        munmap(vm->member.page, VGPU_TURN_PAGE_SIZE);
        close(vm->turn_fd);
    }
    free(vm);
}

int vm_create(struct mediator *mediator, struct client *client, const struct vgpu_hello *hello,
              const struct attach_grant *grant, const int fds[VGPU_ATTACH_FDS], struct vm **created)
{
    struct vm *vm = calloc(1, sizeof(*vm));
    void *page;
    int r;

    if (!vm) {
        return -ENOMEM;
    }
    r = memory_create_turn_page(&vm->turn_fd, &page);
    if (r < 0) {
        release(vm);
        return r;
    }
    vm->mediator = mediator;
    vm->client = client;
    vm->id = hello->vm_id;
    vm->host = (hello->flags & VGPU_HELLO_HOST) != 0;
    copy_printable(vm->name, sizeof(vm->name), hello->name);
    vm->shm_size = hello->shm_size;
    vm->attached_ns = clock_ns();
    vm->link = -1;
    vm->pool = mediator_pool(mediator, grant->pool);
    vm->member.page = page;
    vm->member.vm_id = vm->id;
    vm->member.priority = grant->priority;
    vm->member.granted = send_turn;
    memcpy(vm->fds, fds, sizeof(vm->fds));
    r = sd_event_add_time_relative(mediator->event, &vm->timer, CLOCK_MONOTONIC, 0, 0, on_timer,
                                   vm);
    if (r >= 0) {
        sd_event_source_set_enabled(vm->timer, SD_EVENT_OFF);
        r = start_worker(vm);
    }
    if (r < 0) {
        release(vm);
        return r;
    }
    insert(mediator, vm);
    *created = vm;
    return 0;
}

void vm_destroy(struct vm *vm)
{
    struct vm **place = &vm->mediator->vms;

    while (*place != vm) {
        place = &(*place)->next;
    }
    *place = vm->next;
    vm->mediator->vm_count--;
    abandon_worker(vm);
    for (size_t i = 0; i < VGPU_ATTACH_FDS; i++) {
        close(vm->fds[i]);
    }
    release(vm);
}

/* Replaces the worker; the next one begins with `takeover`. */
static void replace_worker(struct vm *vm, const char *takeover)
{
    vm->takeover = takeover;
    if (vm->pid != 0) {
        vm->replacing = true;
        kill(vm->pid, SIGKILL);
    }
}

void vm_reset(struct vm *vm, uint32_t serial)
{
    vm->reset_asked = true;
    vm->reset_serial = serial;
    vm->failures = 0;
    replace_worker(vm, "discard");
}

void vm_turn_expired(struct vm *vm)
{
    static const char fail[] = "fail:12";

    static_assert(VGPU_ERROR_TIMEOUT == 12, "as `fail` says");
    if (vm->takeover) {
        return; /* it is being ended already */
    }
    log_warning("VM %" PRIu32 ": a turn of more than %" PRIu64 " s while others wait; ending "
                "worker %d",
                vm->id, vm->mediator->config.turn_limit_ns / NS_PER_S, (int)vm->pid);
    replace_worker(vm, fail);
}

void vm_finish(struct vm *vm)
{
    if (vm->pid != 0) {
        send_link(vm, VGPU_LINK_FINISH);
    }
}
