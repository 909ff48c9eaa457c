/* SPDX-License-Identifier: MIT */
/*
 * vgpu-keeper: keeps what outlives a mediator where there is no systemd, or where that is not to do
 * it. It starts the mediator, keeps the descriptors that it is given (FDSTORE=1 of sd_notify(3)),
 * and when the mediator ends starts the next one with them (sd_listen_fds(3)), as systemd's
 * descriptor store does. So a mediator has one way to survive, and this is a service manager with
 * one service.
 *
 *   the mediator ends       it is started again, whatever is at its path by now: another release,
 *                           say. Not where it was told to stop, or says by exit code 0 that it was
 *                           done, or if the first one says by 2 that its configuration is wrong or
 *                           by 127 that it cannot be run: then this ends too, with that code.
 *   SIGTERM, SIGINT         passed on; the mediator stops, its sessions end, and so does this
 *   SIGUSR2                 the mediator is ended by it, and the next one takes over: an upgrade
 *   SIGHUP                  passed on: the mediator reads its configuration again
 *
 * Workers are the mediator's launcher's children, and become this process's when that is gone, as
 * nobody else is left to reap them. At the end those that are still there are killed.
 *
 * Messages come over a socket that no other user can reach, and are taken from the mediator alone:
 * the kernel tells who has sent one. What is kept is never looked at. Mediators that end soon after
 * each other are started less often, and past --start-limit within a minute this gives up, as the
 * mediator's unit does.
 */
#include <errno.h>
#include <fcntl.h>
#include <getopt.h>
#include <inttypes.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

#include "common/clock.h"
#include "common/log.h"
#include "common/version.h"

#define FIRST_PASSED_FD 3 /* SD_LISTEN_FDS_START */
#define NAME_SIZE 256u    /* of a descriptor, with its NUL, as systemd has it */
#define STATE_SIZE 4096u  /* of a message */
#define FDS_PER_MESSAGE 253
#define PASSED_MOST 65536 /* descriptors, as far as the limit on them allows */
#define STARTS_MOST 20u
#define STARTS_TIME_NS (60 * NS_PER_S)
/* After so many mediators in a row that have lived for less, the next ones are started later. */
#define SHORT_LIVES 3u
#define GOOD_LIFE_NS NS_PER_S
#define START_DELAY_MS 100
/* After one that could not start though one before it could. */
#define AGAIN_S 1
#define CLOSERS 4u
#define END_TRIES 100 /* to kill those that are left, with a millisecond in between */

struct kept {
    char name[NAME_SIZE];
    int fd;
};

static struct {
    char **command;
    int notify;     /* the socket that messages come from */
    int signals;    /* a descriptor of them */
    int closing[2]; /* a pipe of descriptors that are to be closed */
    char directory[32], address[48];
    pid_t mediator;
    uint64_t started_ns;
    unsigned short_lives; /* in a row, of mediators */
    unsigned long limit;  /* of starts within STARTS_TIME_NS; 0: none */
    unsigned long starts; /* since then: */
    uint64_t counted_ns;
    bool stopping;
    bool was_ready;    /* a mediator has been, and so may be the next one */
    struct kept *kept; /* in the order in which they came */
    size_t count, room;
    int lowest; /* number of a descriptor that is kept: as many can be as there are below it */
} keeper;

static void usage(FILE *out)
{
    fputs("usage: vgpu-keeper [--start-limit N] [--] COMMAND [ARGUMENT...]\n"
          "\n"
          "Runs vgpu-mediator, and keeps its VMs and sessions while it is restarted, for hosts\n"
          "without systemd. COMMAND is the mediator's path.\n"
          "\n"
          "  --start-limit N  give up when it was started N times within a minute; 0: never, and\n"
          "                   it is always started at once; 20 unless set\n"
          "  --help           print this text\n"
          "  --version        print the version\n"
          "\n"
          "SIGTERM stops the mediator and this program, and ends the sessions. SIGUSR2 replaces\n"
          "the mediator by what is at its path now, and ends none. SIGHUP has it read its\n"
          "configuration again.\n"
          "\n"
          "Exit codes: the mediator's; 1 if it cannot be started or ends again and again.\n",
          out);
}

/* What is kept ----------------------------------------------------------------------------- */

/*
 * What is closed may take long: a client's socket has in it what the client has sent. Threads do
 * that, and take their numbers from a pipe.
 */
static void *close_what_comes(void *argument)
{
    int fd;

    (void)argument;
    while (read(keeper.closing[0], &fd, sizeof(fd)) == (ssize_t)sizeof(fd)) {
        close(fd);
    }
    return NULL;
}

/* Where all of them are busy with others', and the pipe is full, it stays open. */
static void close_elsewhere(int fd)
{
    if (write(keeper.closing[1], &fd, sizeof(fd)) != (ssize_t)sizeof(fd)) {
        log_error("descriptor %d stays open: %s", fd, strerror(errno));
    }
}

static int start_closers(void)
{
    pthread_t thread;
    int r = pipe2(keeper.closing, O_CLOEXEC) < 0 ||
                    fcntl(keeper.closing[1], F_SETFL, O_NONBLOCK) < 0
                ? -errno
                : 0;

    for (unsigned i = 0; r == 0 && i < CLOSERS; i++) {
        r = -pthread_create(&thread, NULL, close_what_comes, NULL);
    }
    return r;
}

static void drop_kept(const char *name)
{
    size_t left = 0;

    for (size_t i = 0; i < keeper.count; i++) {
        if (strcmp(keeper.kept[i].name, name) == 0) {
            close_elsewhere(keeper.kept[i].fd);
        } else {
            keeper.kept[left++] = keeper.kept[i];
        }
    }
    keeper.count = left;
}

/* The descriptor is this program's from here on. */
static void keep_descriptor(const char *name, int came)
{
    /* Out of the way of the numbers that a mediator is to find them at. */
    const int fd = fcntl(came, F_DUPFD_CLOEXEC, keeper.lowest);

    close(came);
    if (fd < 0) {
        log_error("'%s' is not kept: %s", name, strerror(errno));
        return;
    }
    if (keeper.count + FIRST_PASSED_FD >= (size_t)keeper.lowest) {
        log_error("'%s' is not kept: there are %zu already; raise the limit on open files", name,
                  keeper.count);
        close(fd);
        return;
    }
    if (keeper.count == keeper.room) {
        const size_t room = 2 * keeper.room + 64;
        struct kept *more = realloc(keeper.kept, room * sizeof(*more));

        if (!more) {
            log_error("out of memory: '%s' is not kept", name);
            close(fd);
            return;
        }
        keeper.kept = more;
        keeper.room = room;
    }
    snprintf(keeper.kept[keeper.count].name, NAME_SIZE, "%s", name);
    keeper.kept[keeper.count++].fd = fd;
}

/* Copies the value of a line NAME=VALUE in a message; false where there is none. */
static bool state_value(const char *state, const char *name, char *value, size_t size)
{
    const size_t length = strlen(name);

    for (const char *line = state; line; line = strchr(line, '\n')) {
        line += *line == '\n';
        if (strncmp(line, name, length) == 0 && line[length] == '=') {
            snprintf(value, size, "%.*s", (int)strcspn(line + length + 1, "\n"), line + length + 1);
            return true;
        }
    }
    return false;
}

/* What is neither kept nor dropped is a mediator's word to systemd, and nothing to this program. */
static void take_notify(const char *state, const int *fds, size_t count)
{
    char value[NAME_SIZE], name[NAME_SIZE] = "stored";

    state_value(state, "FDNAME", name, sizeof(name));
    /* As sd_listen_fds_with_names(3) parts them. */
    name[strcspn(name, ":")] = '\0';
    if (state_value(state, "READY", value, sizeof(value))) {
        keeper.was_ready = true;
    }
    if (state_value(state, "FDSTOREREMOVE", value, sizeof(value))) {
        drop_kept(name);
    } else if (state_value(state, "FDSTORE", value, sizeof(value))) {
        for (size_t i = 0; i < count; i++) {
            keep_descriptor(name, fds[i]);
        }
        return;
    }
    for (size_t i = 0; i < count; i++) {
        close_elsewhere(fds[i]);
    }
}

/* Reads one message; false when there is none. */
static bool read_notify(void)
{
    char state[STATE_SIZE];
    union {
        struct cmsghdr align;
        char bytes[CMSG_SPACE(sizeof(struct ucred)) + CMSG_SPACE(FDS_PER_MESSAGE * sizeof(int))];
    } control;
    struct iovec part = {.iov_base = state, .iov_len = sizeof(state) - 1};
    struct msghdr msg = {.msg_iov = &part,
                         .msg_iovlen = 1,
                         .msg_control = &control,
                         .msg_controllen = sizeof(control)};
    const ssize_t n = recvmsg(keeper.notify, &msg, MSG_DONTWAIT | MSG_CMSG_CLOEXEC);
    int fds[FDS_PER_MESSAGE];
    size_t count = 0;
    pid_t sender = 0;

    if (n < 0) {
        return errno == EINTR;
    }
    for (struct cmsghdr *c = CMSG_FIRSTHDR(&msg); c; c = CMSG_NXTHDR(&msg, c)) {
        if (c->cmsg_level != SOL_SOCKET) {
            continue;
        }
        if (c->cmsg_type == SCM_CREDENTIALS) {
            sender = ((const struct ucred *)(const void *)CMSG_DATA(c))->pid;
        } else if (c->cmsg_type == SCM_RIGHTS) {
            count = (c->cmsg_len - CMSG_LEN(0)) / sizeof(int);
            memcpy(fds, CMSG_DATA(c), count * sizeof(int));
        }
    }
    state[n] = '\0';
    if (sender != keeper.mediator) {
        state[0] = '\0';
    }
    take_notify(state, fds, count);
    return true;
}

/* The mediator ------------------------------------------------------------------------------ */

/*
 * In a directory that nobody else may enter: with an abstract name anybody could fill the socket,
 * and keep the mediator waiting.
 */
static int open_notify(void)
{
    static const char *const roots[] = {"/run", "/tmp"};
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    const int on = 1;

    for (size_t i = 0; i < 2 && keeper.directory[0] == '\0'; i++) {
        snprintf(keeper.directory, sizeof(keeper.directory), "%s/vgpu-keeper-XXXXXX", roots[i]);
        if (!mkdtemp(keeper.directory)) {
            keeper.directory[0] = '\0';
        }
    }
    if (keeper.directory[0] == '\0') {
        return -errno;
    }
    snprintf(keeper.address, sizeof(keeper.address), "%s/notify", keeper.directory);
    memcpy(address.sun_path, keeper.address, sizeof(keeper.address));
    keeper.notify = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    if (keeper.notify < 0 ||
        bind(keeper.notify, (struct sockaddr *)&address, sizeof(address)) < 0 ||
        setsockopt(keeper.notify, SOL_SOCKET, SO_PASSCRED, &on, sizeof(on)) < 0) {
        return -errno;
    }
    return 0;
}

static void close_notify(void)
{
    unlink(keeper.address);
    rmdir(keeper.directory);
}

/* The descriptors at the numbers that sd_listen_fds(3) wants, and their names; never returns. */
static _Noreturn void run_mediator(void)
{
    char number[32], *names = NULL;
    sigset_t none;
    FILE *text;
    size_t size;

    text = open_memstream(&names, &size);
    for (size_t i = 0; i < keeper.count; i++) {
        if (keeper.kept[i].fd < 0 || dup2(keeper.kept[i].fd, FIRST_PASSED_FD + (int)i) < 0 ||
            !text) {
            log_error("cannot pass '%s': %s", keeper.kept[i].name, strerror(errno));
            _exit(1);
        }
        fprintf(text, "%s%s", i > 0 ? ":" : "", keeper.kept[i].name);
    }
    if (text) {
        fclose(text);
    }
    snprintf(number, sizeof(number), "%d", (int)getpid());
    setenv("LISTEN_PID", number, 1);
    snprintf(number, sizeof(number), "%zu", keeper.count);
    setenv("LISTEN_FDS", number, 1);
    setenv("LISTEN_FDNAMES", names ? names : "", 1);
    setenv("NOTIFY_SOCKET", keeper.address, 1);
    snprintf(number, sizeof(number), "%d", keeper.lowest);
    setenv("FDSTORE", number, 1);
    unsetenv("WATCHDOG_USEC");
    sigemptyset(&none);
    sigprocmask(SIG_SETMASK, &none, NULL);
    execvp(keeper.command[0], keeper.command);
    log_error("cannot run '%s': %s", keeper.command[0], strerror(errno));
    _exit(127);
}

/* False, logged: there were too many of them. */
static bool start_mediator(void)
{
    const struct timespec delay = {.tv_nsec = START_DELAY_MS * (long)NS_PER_MS};
    const uint64_t now = clock_ns();

    keeper.short_lives = now - keeper.started_ns < GOOD_LIFE_NS ? keeper.short_lives + 1 : 0;
    if (now - keeper.counted_ns >= STARTS_TIME_NS) {
        keeper.counted_ns = now;
        keeper.starts = 0;
    }
    if (keeper.limit != 0 && ++keeper.starts > keeper.limit) {
        log_error("the mediator was started %lu times within %" PRIu64 " s: see its own last "
                  "lines; giving up, and the sessions end",
                  keeper.limit, STARTS_TIME_NS / NS_PER_S);
        return false;
    }
    if (keeper.limit != 0 && keeper.short_lives >= SHORT_LIVES) {
        nanosleep(&delay, NULL);
    }
    keeper.started_ns = clock_ns();
    keeper.mediator = fork();
    if (keeper.mediator == 0) {
        run_mediator();
    }
    if (keeper.mediator < 0) {
        log_error("cannot start the mediator: %s", strerror(errno));
    }
    return keeper.mediator > 0;
}

/*
 * It could not start. Where one before it could, the configuration or the program is just being
 * replaced, or will be mended: the sessions wait for that.
 */
static int try_again(int code)
{
    if (!keeper.was_ready) {
        return code;
    }
    log_warning(
        "the mediator does not start (exit code %d): its own lines say what to mend; trying "
        "again each %d s",
        code, AGAIN_S);
    nanosleep(&(struct timespec){.tv_sec = AGAIN_S}, NULL);
    keeper.starts = 0;
    return start_mediator() ? -1 : 1;
}

/*
 * What it has said before its end is read first: a descriptor that it has had kept then is for the
 * next one. Returns the code that this program ends with, or -1 where another is to be started.
 */
static int mediator_ended(int status)
{
    while (read_notify()) {
    }
    keeper.mediator = 0;
    if (WIFEXITED(status) && (keeper.stopping || WEXITSTATUS(status) == 0)) {
        return WEXITSTATUS(status);
    }
    if (keeper.stopping) {
        return 1;
    }
    if (WIFEXITED(status) && (WEXITSTATUS(status) == 2 || WEXITSTATUS(status) == 127)) {
        return try_again(WEXITSTATUS(status));
    }
    if (WIFSIGNALED(status)) {
        log_warning("the mediator was ended by signal %d (%s); starting the next one",
                    WTERMSIG(status), strsignal(WTERMSIG(status)));
    } else {
        log_warning("the mediator has ended with exit code %d; starting the next one",
                    WEXITSTATUS(status));
    }
    return start_mediator() ? -1 : 1;
}

/* Others are workers, or launchers, whose parents are gone. */
static int reap_children(void)
{
    int code = -1, status;
    pid_t pid;

    while (code < 0 && (pid = waitpid(-1, &status, WNOHANG)) > 0) {
        if (pid == keeper.mediator) {
            code = mediator_ended(status);
        }
    }
    return code;
}

static int take_signal(void)
{
    struct signalfd_siginfo info;

    if (read(keeper.signals, &info, sizeof(info)) != (ssize_t)sizeof(info)) {
        return -1;
    }
    if (info.ssi_signo == SIGCHLD) {
        return reap_children();
    }
    keeper.stopping = keeper.stopping || info.ssi_signo == SIGTERM || info.ssi_signo == SIGINT;
    if (keeper.mediator > 0) {
        kill(keeper.mediator, (int)info.ssi_signo);
    }
    return -1;
}

/*
 * The mediator has ended, and so what is left are workers and what starts them. What is kept is
 * closed with this process: it may take long, and nobody waits for it.
 */
static void end_descendants(void)
{
    char path[64];
    long child;
    FILE *file;

    snprintf(path, sizeof(path), "/proc/self/task/%d/children", (int)getpid());
    for (int i = 0; i < END_TRIES && waitpid(-1, NULL, WNOHANG) >= 0; i++) {
        file = fopen(path, "re");
        while (file && fscanf(file, "%ld", &child) == 1) {
            kill((pid_t)child, SIGKILL);
        }
        if (file) {
            fclose(file);
        }
        nanosleep(&(struct timespec){.tv_nsec = (long)NS_PER_MS}, NULL);
    }
}

static const int own_signals[] = {SIGTERM, SIGINT, SIGHUP, SIGUSR2, SIGCHLD};

/* Of all threads: they are read. Returns 0 or -errno. */
static int block_signals(void)
{
    sigset_t mask;

    sigemptyset(&mask);
    for (size_t i = 0; i < sizeof(own_signals) / sizeof(own_signals[0]); i++) {
        sigaddset(&mask, own_signals[i]);
    }
    sigprocmask(SIG_BLOCK, &mask, NULL);
    keeper.signals = signalfd(-1, &mask, SFD_CLOEXEC);
    return keeper.signals < 0 ? -errno : 0;
}

static int run_keeper(void)
{
    int code = -1;

    if (!start_mediator()) {
        return 1;
    }
    while (code < 0) {
        struct pollfd either[] = {{.fd = keeper.signals, .events = POLLIN},
                                  {.fd = keeper.notify, .events = POLLIN}};

        if (poll(either, 2, -1) <= 0) {
            continue;
        }
        if (either[1].revents != 0) {
            read_notify();
        }
        if (either[0].revents != 0) {
            code = take_signal();
        }
    }
    end_descendants();
    return code;
}

static void raise_keeper_limit(void)
{
    struct rlimit limit;

    keeper.lowest = FIRST_PASSED_FD;
    if (getrlimit(RLIMIT_NOFILE, &limit) == 0) {
        limit.rlim_cur = limit.rlim_max;
        setrlimit(RLIMIT_NOFILE, &limit);
        keeper.lowest = limit.rlim_cur < (rlim_t)PASSED_MOST * 2 ? (int)limit.rlim_cur / 2
                                                                 : PASSED_MOST;
    }
}

int main(int argc, char **argv)
{
    static const struct option longs[] = {
        {"start-limit", required_argument, NULL, 's'},
        {"help", no_argument, NULL, 'h'},
        {"version", no_argument, NULL, 'V'},
        {NULL, 0, NULL, 0},
    };
    char *end;
    int c, r;

    keeper.limit = STARTS_MOST;
    log_open("vgpu-keeper");
    /* '+': what follows the command is the mediator's. */
    while ((c = getopt_long(argc, argv, "+", longs, NULL)) != -1) {
        switch (c) {
        case 's':
            keeper.limit = strtoul(optarg, &end, 10);
            if (end == optarg || *end != '\0') {
                log_error("--start-limit is '%s', must be a number", optarg);
                return 2;
            }
            break;
        case 'h':
            usage(stdout);
            return 0;
        case 'V':
            puts("vgpu-keeper " VGPU_PACKAGE_VERSION);
            return 0;
        default:
            usage(stderr);
            return 2;
        }
    }
    if (optind == argc) {
        usage(stderr);
        return 2;
    }
    keeper.command = &argv[optind];
    log_times();
    raise_keeper_limit();
    r = open_notify();
    r = r == 0 ? block_signals() : r;
    r = r == 0 ? start_closers() : r;
    if (r < 0 || prctl(PR_SET_CHILD_SUBREAPER, 1) < 0) {
        log_error("cannot keep descriptors: %s", strerror(r < 0 ? -r : errno));
        r = 1;
    } else {
        r = run_keeper();
    }
    close_notify();
    return r;
}
