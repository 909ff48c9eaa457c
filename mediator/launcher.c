/* SPDX-License-Identifier: MIT */
/*
 * The launcher and its protocol, see launcher.h.
 *
 * Messages go over a SOCK_SEQPACKET pair. START has a worker's arguments and its descriptors, and
 * is answered by STARTED, in order; KILL has a process id. USER has a name and a number, and is
 * answered by USER with that number, by a child of the launcher's that asks libc. ADMIT has a file
 * with the users who may reach the attach socket, and is answered by ADMITTED. When a worker has
 * ended the launcher says ENDED, with the number of its start: process ids are used again. It waits
 * for nothing but the socket and its children, and ends with the socket. Workers do not end with
 * it: the next mediator's launcher is told of them by ADOPT, with a pidfd and the number of the
 * start. They are not its children, so that it learns of their end, but not how they ended.
 *
 * The mediator is what guests could take over, and so is not trusted with more than this: to start
 * workers, as the configuration was at the start, and to kill those. In particular it has no say in
 * which program that is, and as whom it runs. It adopts before it has heard a guest, and says
 * SETTLED then: afterwards no pidfd, which anybody could have sent it, is taken any more.
 */
#include "mediator/launcher.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <limits.h>
#include <poll.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "common/clock.h"
#include "common/fdmsg.h"
#include "common/log.h"
#include "mediator/access.h"
#include "mediator/users.h"
#include "protocol/vgpu-worker.h"

#define ARGUMENTS_MAX 32u
/* The launcher's end, beside the standard descriptors. */
#define KEPT_FD 3

/* How long a user is looked up, and when whoever does so ends. */
#define USER_LIMIT_MS 5000
#define USER_END_S 10u

/* How long another is, once one has taken so long; and for how long that is so. */
#define USER_AGAIN_MS 100
#define USER_AGAIN_NS (60 * NS_PER_S)
/* Users who may reach the socket. */
#define ADMITTED_MAX 65536u
/* Numbers of adopted workers begin here. */
#define ADOPTED_STARTS (UINT64_C(1) << 63)
/* Between two tries where the kernel is short of memory. */
#define SHORT_MS 1

enum order_type {
    ORDER_START = 1,
    ORDER_KILL = 2,
    ORDER_USER = 3,
    ORDER_ADMIT = 4,
    ORDER_ADOPT = 5,
    ORDER_SETTLED = 6,
};
enum word_type { WORD_STARTED = 1, WORD_ENDED = 2, WORD_USER = 3, WORD_ADMITTED = 4 };

/* mediator -> launcher */
struct order {
    uint32_t type;  /* enum order_type */
    int32_t pid;    /* KILL, ADOPT; USER: the number of the question */
    uint32_t used;  /* START, USER: bytes of `text`; ADMIT: users in the file */
    uint64_t start; /* ADOPT: its number, which no start has */
    char text[LAUNCHER_TEXT];
};

/* launcher -> mediator */
struct word {
    uint32_t type;               /* enum word_type */
    int32_t pid;                 /* STARTED: or -errno; USER: the number of the question */
    int32_t code, status;        /* ENDED */
    uint32_t found, user, group; /* USER */
    uint64_t start;              /* STARTED, ENDED: its number */
};

/*
 * Sends as soon as that can be done: a message that is lost would be waited for. Returns 0, or
 * -errno when the other end is gone. `meanwhile` is called while the socket is full; or NULL.
 */
static int send_all(int socket, const void *message, size_t size, const int *fds, size_t count,
                    int (*meanwhile)(void))
{
    struct pollfd either = {.fd = socket, .events = POLLOUT | (meanwhile ? POLLIN : 0)};
    ssize_t n;
    int r = 0;

    while (r >= 0 && (n = fdmsg_send(socket, message, size, fds, count)) < 0) {
        if (n == -EAGAIN) {
            poll(&either, 1, -1);
            r = meanwhile ? meanwhile() : 0;
        } else if (n == -ENOBUFS || n == -ENOMEM) {
            poll(NULL, 0, SHORT_MS);
        } else {
            r = (int)n;
        }
    }
    return r < 0 ? r : 0;
}

/* The launcher -------------------------------------------------------------------------- */

struct child {
    pid_t pid;
    int adopted; /* a pidfd of another launcher's worker, or -1 */
    uint64_t start;
};

static struct {
    struct launcher_fixed fixed;
    int socket;
    struct child *children; /* not reaped yet */
    size_t count, room;
    int epoll;    /* the socket, and a pidfd of each adopted one; `data` is its start, or 0 */
    bool settled; /* nothing is adopted any more */
    uint64_t starts;
    pid_t asking; /* looks up a user; 0: nobody */
    int32_t question;
} launcher;

/* The mediator reads them whenever it waits for anything, so this does not wait for long. */
static void say_word(const struct word *word)
{
    send_all(launcher.socket, word, sizeof(*word), NULL, 0, NULL);
}

/* With a pidfd of the worker, or -1. */
static void say_started(pid_t pid, int pidfd)
{
    const struct word word = {.type = WORD_STARTED, .pid = pid, .start = launcher.starts};

    send_all(launcher.socket, &word, sizeof(word), &pidfd, pidfd >= 0, NULL);
}

/* In the child, between fork and exec. Only async-signal-safe calls. */
static _Noreturn void exec_worker(char *const argv[], const int fds[])
{
    int high[LAUNCHER_FDS];
    sigset_t none;

    signal(SIGINT, SIG_DFL);
    signal(SIGTERM, SIG_DFL);
    signal(SIGHUP, SIG_DFL);
    signal(SIGCHLD, SIG_DFL);
    sigemptyset(&none);
    sigprocmask(SIG_SETMASK, &none, NULL);
    /*
     * All descriptors first move out of the way of the numbers 3 to 8. If the link were 4 and the
     * memfd 3, dup2() of the link to 3 would close the memfd. The second dup2() also clears
     * close-on-exec, so that the worker inherits these descriptors and no others.
     */
    for (size_t i = 0; i < LAUNCHER_FDS; i++) {
        high[i] = fcntl(fds[i], F_DUPFD_CLOEXEC, VGPU_WORKER_FD_ACCOUNT + 1);
    }
    for (size_t i = 0; i < LAUNCHER_FDS; i++) {
        if (high[i] < 0 || dup2(high[i], VGPU_WORKER_FD_LINK + (int)i) < 0) {
            _exit(126);
        }
    }
    /* A shell uses the same exit codes: 126 for a failed start, 127 for a missing program. */
    execv(launcher.fixed.worker, argv);
    _exit(LAUNCHER_NOT_RUN);
}

/*
 * The worker's arguments from a message; false when they are none. The user is the launcher's to
 * say; getopt takes beginnings of options too.
 */
static bool read_arguments(struct order *order, const char *argv[ARGUMENTS_MAX], char *user,
                           size_t size)
{
    size_t count = 0, at = 0;

    if (order->used > sizeof(order->text) ||
        (order->used > 0 && order->text[order->used - 1] != '\0')) {
        return false;
    }
    argv[count++] = "vgpu-worker";
    while (at < order->used) {
        if (count + 3 >= ARGUMENTS_MAX || strncmp(&order->text[at], "--u", 3) == 0) {
            return false;
        }
        argv[count++] = &order->text[at];
        at += strlen(&order->text[at]) + 1;
    }
    if (launcher.fixed.user != (uid_t)-1) {
        snprintf(user, size, "%u:%u", launcher.fixed.user, launcher.fixed.group);
        argv[count++] = "--user";
        argv[count++] = user;
    }
    argv[count] = NULL;
    return true;
}

/* Room for one child more. */
static bool grow_children(void)
{
    struct child *children;

    if (launcher.count < launcher.room) {
        return true;
    }
    children = realloc(launcher.children, (2 * launcher.room + 64) * sizeof(*children));
    if (children) {
        launcher.children = children;
        launcher.room = 2 * launcher.room + 64;
    }
    return children != NULL;
}

static pid_t fork_worker(struct order *order, const int fds[], size_t count)
{
    const char *argv[ARGUMENTS_MAX];
    char user[32];
    pid_t pid;

    if (count != LAUNCHER_FDS || !read_arguments(order, argv, user, sizeof(user))) {
        return -EPROTO;
    }
    if (!grow_children()) {
        return -ENOMEM;
    }
    pid = fork();
    if (pid == 0) {
        exec_worker((char *const *)(uintptr_t)argv, fds);
    }
    if (pid > 0) {
        launcher.children[launcher.count++] = (struct child){pid, -1, ++launcher.starts};
    }
    return pid < 0 ? -errno : pid;
}

static bool watch_descriptor(int fd, uint64_t start)
{
    struct epoll_event event = {.events = EPOLLIN, .data.u64 = start};

    return epoll_ctl(launcher.epoll, EPOLL_CTL_ADD, fd, &event) == 0;
}

/* The number behind a name in a file of proc(5); -1: there is none. */
static int proc_number(const char *path, const char *format)
{
    FILE *file = fopen(path, "re");
    char line[128];
    int number = -1;

    while (file && number < 0 && fgets(line, sizeof(line), file)) {
        sscanf(line, format, &number);
    }
    if (file) {
        fclose(file);
    }
    return number;
}

/* Whether a process runs the worker's program, be that replaced by now. */
static bool runs_worker(pid_t pid)
{
    char path[64], program[PATH_MAX], worker[PATH_MAX];
    ssize_t n;

    snprintf(path, sizeof(path), "/proc/%d/exe", (int)pid);
    n = readlink(path, program, sizeof(program) - 1);
    if (n <= 0 || !realpath(launcher.fixed.worker, worker)) {
        return false;
    }
    program[n] = '\0';
    return strncmp(program, worker, strlen(worker)) == 0 &&
           (program[strlen(worker)] == '\0' || strcmp(&program[strlen(worker)], " (deleted)") == 0);
}

/*
 * Whether a pidfd is of that process, and that is one that this process could have started: a
 * mediator that was taken over could have put any descriptor into the store. A worker changes its
 * user when it has opened the GPU. Without root's rights nobody else's process can be killed.
 */
static bool is_worker(pid_t pid, int pidfd)
{
    char path[64];

    snprintf(path, sizeof(path), "/proc/self/fdinfo/%d", pidfd);
    if (pid <= 0 || proc_number(path, "Pid: %d") != pid) {
        return false;
    }
    snprintf(path, sizeof(path), "/proc/%d/status", (int)pid);
    return geteuid() != 0 || launcher.fixed.user == (uid_t)-1 ||
           proc_number(path, "Uid: %d") == (int)launcher.fixed.user || runs_worker(pid);
}

/*
 * It is no child of this process's, but may be killed by it, and its end is told: at once where it
 * cannot be adopted.
 */
static void adopt_worker(const struct order *order, const int *fds, size_t count)
{
    const bool may = !launcher.settled && count == 1 && is_worker(order->pid, fds[0]) &&
                     grow_children();
    const int pidfd = may ? fcntl(fds[0], F_DUPFD_CLOEXEC, 0) : -1;

    if (pidfd >= 0 && watch_descriptor(pidfd, order->start)) {
        launcher.children[launcher.count++] = (struct child){order->pid, pidfd, order->start};
        return;
    }
    if (pidfd >= 0) {
        close(pidfd);
    }
    say_word(&(struct word){.type = WORD_ENDED, .pid = order->pid, .start = order->start});
}

/* In a child, which may hang. */
static _Noreturn void answer_user(const struct order *order)
{
    struct word word = {.type = WORD_USER, .pid = order->pid};
    uid_t user;
    gid_t group;

    /* It has the socket, of which the mediator is to see the end. */
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    signal(SIGALRM, SIG_DFL);
    alarm(USER_END_S);
    if (users_ask_libc(order->text, &user, &group)) {
        word.found = 1;
        word.user = user;
        word.group = group;
    }
    say_word(&word);
    _exit(0);
}

static void look_up_user(const struct order *order)
{
    const bool good = order->used > 0 && order->used <= sizeof(order->text) &&
                      order->text[order->used - 1] == '\0';
    const pid_t pid = good ? fork() : -1;

    if (pid == 0) {
        answer_user(order);
    }
    launcher.asking = pid > 0 ? pid : 0;
    launcher.question = order->pid;
    if (pid < 0) {
        say_word(&(struct word){.type = WORD_USER, .pid = order->pid});
    }
}

/* The path was fixed before there were clients. */
static void admit_users(const struct order *order, const int *fds, size_t count)
{
    const size_t bytes = order->used * sizeof(uid_t);
    uid_t *users = order->used <= ADMITTED_MAX ? malloc(bytes + 1) : NULL;

    if (launcher.fixed.socket && users && count == 1 &&
        pread(fds[0], users, bytes, 0) == (ssize_t)bytes) {
        access_admit(launcher.fixed.socket, users, order->used);
    } else {
        log_warning("who may reach the attach socket stays as it is");
    }
    free(users);
    say_word(&(struct word){.type = WORD_ADMITTED});
}

/* Where `pid` is among the children; `count` when it is none of them. */
static size_t find_child(pid_t pid)
{
    size_t i = 0;

    while (i < launcher.count && launcher.children[i].pid != pid) {
        i++;
    }
    return i;
}

/* One that has ended is not killed again: its number may be another process's by now. */
static void kill_worker(pid_t pid)
{
    const size_t place = find_child(pid);

    if (place == launcher.count) {
        return;
    }
    if (launcher.children[place].adopted >= 0) {
        syscall(SYS_pidfd_send_signal, launcher.children[place].adopted, SIGKILL, NULL, 0);
    } else {
        kill(pid, SIGKILL);
    }
}

static void take_order(struct order *order, const int *fds, size_t count)
{
    switch (order->type) {
    case ORDER_START: {
        const pid_t pid = fork_worker(order, fds, count);
        /* It is not reaped before this, and so the number is its own. */
        const int pidfd = pid > 0 ? (int)syscall(SYS_pidfd_open, pid, 0) : -1;

        say_started(pid, pidfd);
        if (pidfd >= 0) {
            close(pidfd);
        }
        break;
    }
    case ORDER_KILL:
        kill_worker(order->pid);
        break;
    case ORDER_ADOPT:
        adopt_worker(order, fds, count);
        break;
    case ORDER_SETTLED:
        launcher.settled = true;
        break;
    case ORDER_USER:
        look_up_user(order);
        break;
    case ORDER_ADMIT:
        admit_users(order, fds, count);
        break;
    default:
        break;
    }
}

/* False when the mediator is gone. */
static bool read_order(void)
{
    struct order order;
    int fds[FDMSG_MAX];
    size_t count = 0;
    const ssize_t n = fdmsg_recv(launcher.socket, &order, sizeof(order), fds, &count);

    if (n == (ssize_t)sizeof(order)) {
        take_order(&order, fds, count);
    }
    fdmsg_close(fds, &count);
    return n > 0 || n == -EAGAIN;
}

static void tell_end(const siginfo_t *info)
{
    const size_t place = find_child(info->si_pid);

    if (place < launcher.count) {
        const struct word word = {.type = WORD_ENDED,
                                  .pid = info->si_pid,
                                  .code = info->si_code,
                                  .status = info->si_status,
                                  .start = launcher.children[place].start};

        launcher.children[place] = launcher.children[--launcher.count];
        say_word(&word);
    } else if (info->si_pid == launcher.asking) {
        /* If it has answered, this is one answer too many, and is passed over. */
        launcher.asking = 0;
        say_word(&(struct word){.type = WORD_USER, .pid = launcher.question});
    }
}

static void reap_workers(void)
{
    siginfo_t info = {0};

    while (waitid(P_ALL, 0, &info, WEXITED | WNOHANG) == 0 && info.si_pid != 0) {
        tell_end(&info);
        info.si_pid = 0;
    }
}

/* How it ended its parent is told alone. */
static void adopted_ended(uint64_t start)
{
    for (size_t i = 0; i < launcher.count; i++) {
        const struct child child = launcher.children[i];

        if (child.start == start) {
            /* Others have it too, so that closing it does not end the watch. */
            epoll_ctl(launcher.epoll, EPOLL_CTL_DEL, child.adopted, NULL);
            close(child.adopted);
            launcher.children[i] = launcher.children[--launcher.count];
            say_word(&(struct word){.type = WORD_ENDED, .pid = child.pid, .start = child.start});
            return;
        }
    }
}

static void on_child_signal(int number)
{
    (void)number;
}

static _Noreturn void run_launcher(void)
{
    sigset_t child, waiting;

    /* What the mediator has inherited, listening sockets say, is none of this process's. */
    if (launcher.socket != KEPT_FD && dup3(launcher.socket, KEPT_FD, O_CLOEXEC) < 0) {
        _exit(1);
    }
    close_range(KEPT_FD + 1, ~0u, 0);
    launcher.socket = KEPT_FD;
    launcher.epoll = epoll_create1(EPOLL_CLOEXEC);
    if (launcher.epoll < 0 || !watch_descriptor(launcher.socket, 0)) {
        _exit(1);
    }
    prctl(PR_SET_NAME, "vgpu-launcher");
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    /* A terminal sends these to all; the mediator's end is this one's. */
    signal(SIGINT, SIG_IGN);
    signal(SIGTERM, SIG_IGN);
    signal(SIGHUP, SIG_IGN);
    signal(SIGCHLD, on_child_signal);
    /* SIGCHLD comes while this waits, and at no other time: none is missed. */
    sigemptyset(&child);
    sigaddset(&child, SIGCHLD);
    sigprocmask(SIG_BLOCK, &child, &waiting);
    sigdelset(&waiting, SIGCHLD);
    for (;;) {
        struct epoll_event event;

        reap_workers();
        if (epoll_pwait(launcher.epoll, &event, 1, -1, &waiting) != 1) {
            continue;
        }
        if (event.data.u64 != 0) {
            adopted_ended(event.data.u64);
        } else if (!read_order()) {
            _exit(0);
        }
    }
}

/* The mediator's side --------------------------------------------------------------------- */

static struct {
    int socket;
    bool lost;
    /* Ends that came before an answer. */
    struct word *ends;
    size_t count, room;
    int pidfd; /* that came with the last STARTED, or -1 */
} side = {.socket = -1, .pidfd = -1};

int launcher_open(const struct launcher_fixed *fixed)
{
    int pair[2];
    pid_t pid;

    if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, pair) < 0) {
        return -errno;
    }
    pid = fork();
    if (pid == 0) {
        close(pair[0]);
        launcher.fixed = *fixed;
        launcher.socket = pair[1];
        run_launcher();
    }
    close(pair[1]);
    if (pid < 0) {
        const int r = -errno;

        close(pair[0]);
        return r;
    }
    side.socket = pair[0];
    return side.socket;
}

/* Keeps an end for launcher_next_end(). Without memory the mediator cannot go on. */
static void keep_end(const struct word *word)
{
    if (side.count == side.room) {
        struct word *ends = realloc(side.ends, (2 * side.room + 16) * sizeof(*ends));

        if (!ends) {
            log_error("out of memory");
            abort();
        }
        side.ends = ends;
        side.room = 2 * side.room + 16;
    }
    side.ends[side.count++] = *word;
}

/*
 * Reads a word; ends are kept. Returns 1 for any other, 0 when there is none, or -EPIPE. A pidfd
 * that comes with it waits in `side` for whoever has asked for it.
 */
static int read_word(struct word *word)
{
    int fds[FDMSG_MAX];
    size_t count = 0;
    ssize_t n;

    /* Without room for the pidfd the word has come all the same. */
    while ((n = fdmsg_recv(side.socket, word, sizeof(*word), fds, &count)) ==
               (ssize_t)sizeof(*word) ||
           n == -EMSGSIZE) {
        if (count > 0) {
            side.pidfd = fds[--count];
        }
        if (word->type != WORD_ENDED) {
            return 1;
        }
        keep_end(word);
    }
    side.lost = n != -EAGAIN;
    return side.lost ? -EPIPE : 0;
}

/* Ends are kept, and an answer that comes now is one that nobody waits for any more. */
static int read_meanwhile(void)
{
    struct word word = {0};

    return read_word(&word);
}

/* Sends an order, and reads ends meanwhile: the launcher may wait for that. */
static int give_order(const struct order *order, const int *fds, size_t count)
{
    return send_all(side.socket, order, sizeof(*order), fds, count, read_meanwhile);
}

/*
 * Waits for an answer of this type, to this question if it is a user's, until then; 0: without a
 * limit. Others are late and are passed over. Returns 1, 0 when the time is over, or -EPIPE.
 */
static int await_word(enum word_type type, int32_t question, uint64_t end_ns, struct word *word)
{
    struct pollfd readable = {.fd = side.socket, .events = POLLIN};
    int r;

    while ((r = read_word(word)) >= 0) {
        const uint64_t now = clock_ns();

        if (r == 1 && word->type == (uint32_t)type &&
            (type != WORD_USER || word->pid == question)) {
            return 1;
        }
        if (end_ns != 0 && now >= end_ns) {
            return 0;
        }
        if (r == 0) {
            poll(&readable, 1, end_ns != 0 ? (int)((end_ns - now) / NS_PER_MS + 1) : -1);
        }
    }
    return r;
}

/* Puts the arguments behind each other. */
static bool pack_arguments(const char *const arguments[], struct order *order)
{
    for (size_t i = 0; arguments[i]; i++) {
        const size_t length = strlen(arguments[i]) + 1;

        if (length > sizeof(order->text) - order->used) {
            return false;
        }
        memcpy(&order->text[order->used], arguments[i], length);
        order->used += (uint32_t)length;
    }
    return true;
}

pid_t launcher_start(const char *const arguments[], const int fds[], uint64_t *start, int *pidfd)
{
    struct order order = {.type = ORDER_START};
    struct word word = {0};
    int r;

    if (!pack_arguments(arguments, &order)) {
        return -E2BIG;
    }
    side.pidfd = -1;
    r = give_order(&order, fds, LAUNCHER_FDS);
    r = r == 0 ? await_word(WORD_STARTED, 0, 0, &word) : r;
    if (r < 0) {
        return r;
    }
    *start = word.start;
    *pidfd = side.pidfd;
    return word.pid;
}

int launcher_adopt(pid_t pid, int pidfd, uint64_t *start)
{
    static uint64_t adopted;
    const struct order order = {
        .type = ORDER_ADOPT, .pid = pid, .start = ADOPTED_STARTS + ++adopted};

    *start = order.start;
    return give_order(&order, &pidfd, 1);
}

void launcher_settle(void)
{
    const struct order order = {.type = ORDER_SETTLED};

    give_order(&order, NULL, 0);
}

bool launcher_find_user(const char *name, uid_t *user, gid_t *group)
{
    static int32_t questions;
    static uint64_t late_ns; /* when one was not answered in time */
    struct order order = {.type = ORDER_USER, .pid = ++questions};
    const uint64_t now = clock_ns();
    /* A server that is down is waited for once, and not for each user of a configuration. */
    const bool again = late_ns != 0 && now - late_ns < USER_AGAIN_NS;
    const uint64_t limit_ms = again ? USER_AGAIN_MS : USER_LIMIT_MS;
    struct word word = {0};
    int r;

    if (!pack_arguments((const char *const[]){name, NULL}, &order)) {
        return false;
    }
    r = give_order(&order, NULL, 0);
    r = r == 0 ? await_word(WORD_USER, order.pid, now + limit_ms * NS_PER_MS, &word) : r;
    if (r == 0) {
        late_ns = clock_ns();
        log_warning("user '%s' was not looked up within %" PRIu64 " ms", name, limit_ms);
    }
    if (r <= 0 || !word.found) {
        return false;
    }
    *user = word.user;
    *group = word.group;
    return true;
}

void launcher_admit(const uid_t *users, size_t count)
{
    struct order order = {.type = ORDER_ADMIT, .used = (uint32_t)count};
    const size_t bytes = count * sizeof(*users);
    const int file = memfd_create("vgpu-users", MFD_CLOEXEC);
    struct word word = {0};

    if (file < 0 || count > ADMITTED_MAX || pwrite(file, users, bytes, 0) != (ssize_t)bytes) {
        log_warning("who may reach the attach socket stays: %s",
                    count > ADMITTED_MAX ? "too many users" : strerror(errno));
    } else if (give_order(&order, &file, 1) == 0) {
        await_word(WORD_ADMITTED, 0, 0, &word);
    }
    if (file >= 0) {
        close(file);
    }
}

void launcher_kill(pid_t pid)
{
    const struct order order = {.type = ORDER_KILL, .pid = pid};

    give_order(&order, NULL, 0);
}

int launcher_next_end(siginfo_t *info, uint64_t *start)
{
    struct word word = {0};

    if (side.count == 0) {
        read_word(&word);
    }
    if (side.count == 0) {
        return side.lost ? -EPIPE : 0;
    }
    word = side.ends[0];
    memmove(&side.ends[0], &side.ends[1], --side.count * sizeof(side.ends[0]));
    *info = (siginfo_t){.si_code = word.code};
    info->si_pid = word.pid;
    info->si_status = word.status;
    *start = word.start;
    return 1;
}

bool launcher_pending(void)
{
    return side.count > 0;
}
