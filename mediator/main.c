/* SPDX-License-Identifier: MIT */
/*
 * vgpu-mediator: shares this host's GPUs among VMs. This file has the options, the sockets, the
 * signals and the event loop; mediator.h lists the other parts.
 *
 * The start has this order: the configuration is checked before anything is changed, the GPUs are
 * looked for before anybody is let in, and the sockets are opened last, but for those that a
 * mediator before has left: what connects there meanwhile waits. So a client that can connect finds
 * a mediator that is ready, or about to be.
 *
 * SIGTERM or SIGINT stops: nobody attaches any more, sessions end, register mode finishes the
 * requests that run, and the loop ends with the last worker, or after STOP_LIMIT_NS. A second
 * signal ends it at once. Any other end is none for the VMs: the next mediator adopts them, where
 * somebody keeps their descriptors (keep.h). SIGUSR2 is for that: it just ends the process.
 */
#include <errno.h>
#include <fcntl.h>
#include <getopt.h>
#include <inttypes.h>
#include <limits.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <systemd/sd-daemon.h>
#include <unistd.h>

#include "common/clock.h"
#include "common/fdmsg.h"
#include "common/log.h"
#include "common/sanitized.h"
#include "common/unixaddr.h"
#include "common/version.h"
#include "mediator/adopt.h"
#include "mediator/cards.h"
#include "mediator/chores.h"
#include "mediator/client.h"
#include "mediator/confine.h"
#include "mediator/control.h"
#include "mediator/keep.h"
#include "mediator/launcher.h"
#include "mediator/listen.h"
#include "mediator/mediator.h"
#include "mediator/metrics.h"
#include "mediator/probe.h"
#include "mediator/process.h"
#include "mediator/reload.h"
#include "mediator/users.h"
#include "mediator/vm.h"

/* How long running requests may take to finish when the mediator is stopped. */
#define STOP_LIMIT_NS (20 * NS_PER_S)
/*
 * Descriptors for the VMs that are attached, and for all that can come with one message: the kernel
 * closes what it finds no number for, and the event loop would wait. Of few descriptors, half.
 */
#define FDS_KEPT 320
/* Connections that a socket takes in a second; the rest wait in its backlog. */
#define ACCEPTS_PER_S 500u
#define USEC_PER_S UINT64_C(1000000)
#define ACCEPT_LOG_NS (10 * NS_PER_S) /* between two lines about connections not accepted */

struct options {
    const char *config; /* NULL: the default one */
    int listen_fd;      /* -1: none inherited by number */
    bool check;
};

static void usage(FILE *out)
{
    fputs("usage: vgpu-mediator [--config FILE] [--check-config] [--listen-fd N] [--debug]\n"
          "\n"
          "Shares this host's NVIDIA GPUs among virtual machines that have a vGPU stub.\n"
          "\n"
          "  --config FILE   read FILE instead of " RELOAD_DEFAULT_FILE "\n"
          "  --check-config  say what is wrong in the configuration, and end\n"
          "  --listen-fd N   accept VMs on the inherited listening socket N\n"
          "  --debug         log more\n"
          "  --help          print this text\n"
          "  --version       print the version\n"
          "\n"
          "Exit codes: 0 stopped by a signal, 1 failed, 2 wrong usage or configuration.\n",
          out);
}

static void parse_options(int argc, char **argv, struct options *o)
{
    static const struct option longs[] = {
        {"config", required_argument, NULL, 'c'},
        {"check-config", no_argument, NULL, 'k'},
        {"listen-fd", required_argument, NULL, 'l'},
        {"debug", no_argument, NULL, 'd'},
        {"help", no_argument, NULL, 'h'},
        {"version", no_argument, NULL, 'V'},
        {NULL, 0, NULL, 0},
    };
    char *end;
    int c;

    while ((c = getopt_long(argc, argv, "", longs, NULL)) != -1) {
        switch (c) {
        case 'c':
            o->config = optarg;
            break;
        case 'k':
            o->check = true;
            break;
        case 'l':
            o->listen_fd = (int)strtol(optarg, &end, 10);
            if (end == optarg || *end != '\0' || o->listen_fd < 0) {
                log_error("--listen-fd is '%s', must be a descriptor's number", optarg);
                exit(2);
            }
            break;
        case 'd':
            log_set_level(LOG_LEVEL_DEBUG);
            break;
        case 'h':
            usage(stdout);
            exit(0);
        case 'V':
            puts("vgpu-mediator " VGPU_PACKAGE_VERSION);
            exit(0);
        default:
            usage(stderr);
            exit(2);
        }
    }
    if (optind != argc) {
        usage(stderr);
        exit(2);
    }
}

/*
 * A probe takes a second, and while VMs of the mediator before are there, their workers hold the
 * driver as it was.
 */
static int ask_probe(const struct mediator *m, struct probe *probe)
{
    struct host_record *kept = m->kept;
    uint32_t vm = 0;
    int r;

    if (kept->probed && keep_next_vm(&vm)) {
        *probe = kept->probe;
        return 0;
    }
    r = probe_gpus(m->config.worker, probe);
    if (r == 0) {
        kept->probe = *probe;
        kept->probed = 1;
    }
    return r;
}

/*
 * Finds out whether a GPU or the CPU computes. Returns 0 or -errno, logged. A GPU that the
 * configuration names and the host does not have is an error now, and not when the first worker
 * starts there.
 */
static int look_for_gpus(struct mediator *m)
{
    struct probe probe = {.can_preempt = true, .name = "the configuration says 'backend = cpu'"};
    const char *text = probe.name;
    int count;

    if (m->config.backend != CONFIG_BACKEND_CPU) {
        const int r = ask_probe(m, &probe);

        if (r < 0) {
            return r;
        }
    }
    count = probe.gpus;
    m->can_preempt = probe.can_preempt;
    m->has_gpu = count > 0;
    if (count == 0 && m->config.backend == CONFIG_BACKEND_CUDA) {
        log_error("the configuration says 'backend = cuda', but there is no GPU: %s", text);
        return -ENODEV;
    }
    /* Where the CPU computes, the numbers of GPUs mean nothing. */
    for (unsigned i = 0; count > 0 && i < CONFIG_POOLS; i++) {
        for (unsigned j = 0; j < m->pools[i].gpu_count; j++) {
            if (m->pools[i].gpus[j].number >= (uint32_t)count) {
                log_error("pool %c has GPU %" PRIu32 ", but this host has %d, counted from 0",
                          'A' + (int)i, m->pools[i].gpus[j].number, count);
                return -ENODEV;
            }
        }
    }
    if (count > 0) {
        snprintf(m->computes_on, sizeof(m->computes_on), "%s", text);
        log_info("computing on %d GPU%s: %s", count, count > 1 ? "s, the first is" : "", text);
    } else {
        snprintf(m->computes_on, sizeof(m->computes_on), "the CPU (%s)", text);
        log_info("no GPU: computing on the CPU (%s)", text);
    }
    if (!m->config.preempt) {
        log_info("kernels that run stay on the GPU: the configuration says 'preempt = no'");
    } else if (!m->can_preempt) {
        log_info("kernels that run stay on the GPU: %s", probe.no_preempt);
    } else {
        log_info("kernels that run are taken off %s where others come first",
                 count > 0 ? "the GPU" : "the processor");
    }
    return 0;
}

/*
 * The errors that are not logged are none of this host's: the client has gone again, or there was
 * none. Others, a lack of descriptors say, come again with each look at the socket; a line now and
 * then will do.
 */
static void log_accept_failure(void)
{
    static uint64_t last_ns; /* when a line was written */
    const uint64_t now = clock_ns();

    if (errno == EAGAIN || errno == ECONNABORTED || errno == EINTR) {
        return;
    }
    if (last_ns == 0 || now - last_ns >= ACCEPT_LOG_NS) {
        last_ns = now;
        log_error("cannot accept connections: %s", strerror(errno));
    }
}

/*
 * Accepts a connection, or -1. Descriptors are given out from the lowest number on, so a high one
 * says that few are left: those are for the workers of VMs that are attached.
 */
static int accept_connection(int socket, int most)
{
    int fd = accept4(socket, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);

    if (fd >= most) {
        chores_hang_up(fd);
        fd = -1;
        errno = EMFILE;
    }
    if (fd < 0) {
        log_accept_failure();
    }
    return fd;
}

/*
 * Takes one connection for each event, and ACCEPTS_PER_S at most: a flood of them leaves the loop
 * time for everything else. The socket does not block, and neither does anything that is done with
 * it.
 */
static int on_attach(sd_event_source *source, int fd, uint32_t events, void *context)
{
    const int client = accept_connection(fd, ((const struct mediator *)context)->fd_most);

    (void)source;
    (void)events;
    if (client >= 0) {
        client_create(context, client);
    }
    return 0;
}

static int on_control(sd_event_source *source, int fd, uint32_t events, void *context)
{
    const int client = accept_connection(fd, ((const struct mediator *)context)->fd_control_most);

    (void)source;
    (void)events;
    if (client >= 0) {
        control_create(context, client);
    }
    return 0;
}

/* Whether a socket is bound to this address: the configuration may have changed. */
static bool is_bound_to(int fd, const char *address)
{
    struct sockaddr_un wanted, bound = {0};
    const socklen_t length = unix_address(address, &wanted);
    socklen_t size = sizeof(bound);

    return length > 0 && getsockname(fd, (struct sockaddr *)&bound, &size) == 0 &&
           strncmp(&bound.sun_path[bound.sun_path[0] == '\0'],
                   &wanted.sun_path[wanted.sun_path[0] == '\0'], sizeof(bound.sun_path) - 1) == 0;
}

/*
 * Listens, or goes on where the mediator before did: what has connected meanwhile waits there.
 * `name` is that of the descriptor that is kept. Returns it or -errno, logged.
 */
static int listen_on(const char *name, const char *address, mode_t mode)
{
    int fd = keep_take(name);

    if (fd >= 0 && is_bound_to(fd, address)) {
        return fd;
    }
    if (fd >= 0) {
        keep_drop(name);
        chores_hang_up(fd);
    }
    fd = listen_at(address, mode);
    if (fd >= 0) {
        keep_put(name, fd);
    }
    return fd;
}

/*
 * Whether who may reach an inherited socket is the mediator's to say: it is open to nobody but its
 * owner, or a mediator before has said so of it. With another mode its owner has decided, as
 * systemd's unit can. It has to be where the configuration says, as the launcher sets the access of
 * that path.
 */
static bool is_left_to_mediator(struct mediator *m, int fd)
{
    const char *address = m->config.listen;
    struct stat st;

    if (address[0] == '@' || !is_bound_to(fd, address) || lstat(address, &st) < 0 ||
        !S_ISSOCK(st.st_mode)) {
        return false;
    }
    if ((st.st_mode & 077) != 0 && m->kept->ruled_socket != st.st_ino) {
        log_info("who may reach '%s' is as its mode %03o says, not as 'users' does", address,
                 (unsigned)st.st_mode & 0777);
        return false;
    }
    m->kept->ruled_socket = st.st_ino;
    return true;
}

/*
 * Opens both sockets, or takes those that systemd or a parent process has opened. Those stay
 * theirs: they are not unlinked at the end. Returns 0 or -errno, logged.
 */
static int open_sockets(struct mediator *m, const struct options *o)
{
    int attach = o->listen_fd >= 0 ? o->listen_fd : keep_take("attach");
    int control = keep_take("control");
    int r;

    /* A lone one is for attaching. */
    attach = attach < 0 && control < 0 ? keep_take_lone("control") : attach;
    if (attach < 0) {
        attach = listen_on("own.attach", m->config.listen, 0600);
        m->owns_listen = attach >= 0;
        m->rules_listen = m->owns_listen;
    } else if (sd_is_socket_unix(attach, SOCK_STREAM, 1, NULL, 0) <= 0) {
        log_error("descriptor %d is no listening Unix stream socket", attach);
        return -EINVAL;
    } else {
        m->rules_listen = is_left_to_mediator(m, attach);
    }
    mediator_open_to_users(m);
    if (attach < 0) {
        return attach;
    }
    if (control < 0) {
        /* Users who can open this socket may do everything: root, and the mediator's group. */
        control = listen_on("own.control", m->config.control, 0660);
        m->owns_control = control >= 0;
    }
    if (control < 0) {
        return control;
    }
    r = sd_event_add_io(m->event, &m->attach_source, attach, EPOLLIN, on_attach, m);
    if (r >= 0) {
        r = sd_event_add_io(m->event, &m->control_source, control, EPOLLIN, on_control, m);
    }
    if (r >= 0) {
        /* Also when accepting fails for want of descriptors, which leaves the socket readable. */
        sd_event_source_set_ratelimit(m->attach_source, USEC_PER_S, ACCEPTS_PER_S);
        sd_event_source_set_ratelimit(m->control_source, USEC_PER_S, ACCEPTS_PER_S);
    }
    return r;
}

/* The end of the loop is the end of the VMs, and so of their workers. */
static int on_grace_over(sd_event_source *source, uint64_t usec, void *context)
{
    struct mediator *m = context;

    (void)source;
    (void)usec;
    log_warning("requests still run after %" PRIu64 " s; ending them", STOP_LIMIT_NS / NS_PER_S);
    return sd_event_exit(m->event, 0);
}

/*
 * Finishes the requests that run. Those that wait stay in their journals, for the next mediator.
 * The control socket stays open meanwhile. A second signal does not wait for anything.
 */
static int on_stop(sd_event_source *source, const struct signalfd_siginfo *info, void *context)
{
    struct mediator *m = context;

    (void)source;
    (void)info;
    if (m->stopping) {
        return sd_event_exit(m->event, 0);
    }
    m->stopping = true;
    sd_notify(0, "STOPPING=1");
    log_info("stopping");
    sd_event_source_set_enabled(m->attach_source, SD_EVENT_OFF);
    /* Before the workers are told to finish: requests that wait get no turn any more. */
    for (unsigned i = 0; i < CONFIG_POOLS; i++) {
        pool_pause(&m->pools[i], clock_ns());
    }
    for (struct vm *vm = m->vms; vm; vm = vm->next) {
        vm_finish(vm);
    }
    mediator_end_if_idle(m);
    return sd_event_add_time_relative(m->event, &m->grace_timer, CLOCK_MONOTONIC,
                                      STOP_LIMIT_NS / NS_PER_US, 0, on_grace_over, m);
}

/*
 * Customary for reading the configuration again. systemd is told READY after mistakes too: the old
 * configuration goes on.
 */
static int on_hangup(sd_event_source *source, const struct signalfd_siginfo *info, void *context)
{
    (void)source;
    (void)info;
    sd_notify(0, "RELOADING=1");
    reload_again(context, NULL, NULL);
    sd_notify(0, "READY=1");
    return 0;
}

/* A VM takes up to 140 descriptors, and 4 a session; the customary 1024 are for select(2). */
static void raise_descriptor_limit(struct mediator *m)
{
    struct rlimit limit;

    m->fd_most = m->fd_control_most = INT_MAX;
    if (getrlimit(RLIMIT_NOFILE, &limit) == 0) {
        limit.rlim_cur = limit.rlim_max;
        setrlimit(RLIMIT_NOFILE, &limit);
        if (limit.rlim_cur < INT_MAX) {
            const int all = (int)limit.rlim_cur;
            const int kept = all / 2 < FDS_KEPT ? all / 2 : FDS_KEPT;

            m->fd_most = all - kept;
            m->fd_control_most = all - kept / 2;
        }
    }
}

/* Something was stored that somebody may wait for. */
static int on_stored(sd_event_source *source, int fd, uint32_t events, void *context)
{
    const struct mediator *m = context;

    (void)source;
    (void)fd;
    (void)events;
    chores_told();
    for (struct vm *vm = m->vms; vm; vm = vm->next) {
        vm_tell_stored(vm);
    }
    return 0;
}

static int set_up_chores(struct mediator *m)
{
    const int r = chores_open();

    fdmsg_close_by(chores_close);
    return r < 0 ? r : sd_event_add_io(m->event, NULL, r, EPOLLIN, on_stored, m);
}

/* Workers that have ended; more may have been read while a start was waited for. */
static int on_ends(sd_event_source *source, int fd, uint32_t events, void *context)
{
    siginfo_t info;
    uint64_t start;
    int r;

    (void)source;
    (void)fd;
    (void)events;
    while ((r = launcher_next_end(&info, &start)) > 0) {
        if (!cards_ended(context, &info, start)) {
            process_ended(context, &info, start);
        }
    }
    if (r < 0) {
        log_error("the process that starts workers has ended, and so does this one: the next "
                  "mediator goes on");
        /* Not by the end of the loop, which is that of the VMs. */
        _exit(EXIT_FAILURE);
    }
    return 0;
}

static struct host_record *crash_record;

/* For the next mediator: a signal that comes from within, as a fault does, is a crash. */
static void on_crash(int number)
{
    crash_record->crashed = true;
    signal(number, SIG_DFL);
    raise(number);
}

static void watch_crashes(struct host_record *record)
{
    static const int signals[] = {SIGSEGV, SIGBUS, SIGILL, SIGFPE, SIGABRT};

    crash_record = record;
    /* A sanitizer has handlers of its own. */
    for (size_t i = 0; !SANITIZED && i < sizeof(signals) / sizeof(signals[0]); i++) {
        signal(signals[i], on_crash);
    }
}

static int set_up_events(struct mediator *m)
{
    sigset_t mask;
    int r = sd_event_default(&m->event);

    if (r < 0) {
        return r;
    }
    sigemptyset(&mask);
    sigaddset(&mask, SIGTERM);
    sigaddset(&mask, SIGINT);
    sigaddset(&mask, SIGHUP);
    /* The event loop reads these from descriptors. */
    sigprocmask(SIG_BLOCK, &mask, NULL);
    r = sd_event_add_signal(m->event, NULL, SIGTERM, on_stop, m);
    if (r >= 0) {
        r = sd_event_add_signal(m->event, NULL, SIGINT, on_stop, m);
    }
    if (r >= 0) {
        r = sd_event_add_signal(m->event, NULL, SIGHUP, on_hangup, m);
    }
    if (r >= 0) {
        /* Under systemd a mediator whose loop stands still is replaced. */
        r = sd_event_set_watchdog(m->event, true);
    }
    if (r >= 0) {
        r = set_up_chores(m);
    }
    if (r >= 0) {
        r = sd_event_add_io(m->event, NULL, m->launcher, EPOLLIN, on_ends, m);
    }
    return r < 0 ? r : mediator_open_pools(m);
}

/* Inherited ones go on without this mediator. */
static void end_socket(sd_event_source *source, bool owned, const char *name, const char *address)
{
    const int fd = source ? sd_event_source_get_io_fd(source) : -1;

    sd_event_source_disable_unref(source);
    if (owned) {
        keep_drop(name);
        listen_end(fd, address);
    }
}

static void release_mediator(struct mediator *m)
{
    /* VMs go first: their workers are in the pools, and their timers in the loop. */
    while (m->clients) {
        client_destroy(m->clients);
    }
    cards_close(m);
    mediator_close_pools(m);
    sd_event_source_disable_unref(m->grace_timer);
    end_socket(m->attach_source, m->owns_listen, "own.attach", m->config.listen);
    end_socket(m->control_source, m->owns_control, "own.control", m->config.control);
    sd_event_unref(m->event);
    config_free(&m->config);
}

/* As sd_event_loop(); and takes the time of each thing that is done in one go. */
static int run_loop(struct mediator *m)
{
    int r = 0;

    while (r >= 0 && sd_event_get_state(m->event) != SD_EVENT_FINISHED) {
        r = sd_event_prepare(m->event);
        if (r == 0) {
            r = sd_event_wait(m->event, UINT64_MAX);
        }
        if (r > 0) {
            const uint64_t start = clock_ns();
            uint64_t took;

            r = sd_event_dispatch(m->event);
            mediator_works_for(m, 0);
            took = clock_ns() - start;
            m->longest_ns = took > m->longest_ns ? took : m->longest_ns;
            if (r >= 0 && launcher_pending()) {
                r = on_ends(NULL, -1, 0, m);
            }
        }
    }
    if (r >= 0) {
        sd_event_get_exit_code(m->event, &r);
    }
    return r;
}

/* Of an absolute path, or of what a link leads to; NULL: none. To be freed. */
static char *directory_of(const char *path, bool follow)
{
    char *whole = follow ? realpath(path, NULL) : strdup(path);
    char *slash = whole && whole[0] == '/' ? strrchr(whole, '/') : NULL;

    if (!slash) {
        free(whole);
        return NULL;
    }
    slash[slash == whole] = '\0';
    return whole;
}

/* From here on nothing is opened but the configuration, when it is read again. */
static int confine_mediator(const struct mediator *m)
{
    const char *config = m->config_name ? m->config_name : RELOAD_DEFAULT_FILE;
    char *reads[] = {directory_of(config, false), directory_of(config, true)};
    char *sockets[] = {m->owns_listen ? directory_of(m->config.listen, false) : NULL,
                       m->owns_control ? directory_of(m->config.control, false) : NULL,
                       m->config.metrics ? directory_of(m->config.metrics, false) : NULL};
    const size_t read_count = sizeof(reads) / sizeof(reads[0]);
    const size_t socket_count = sizeof(sockets) / sizeof(sockets[0]);
    const int r = confine((const char *const *)reads, read_count, (const char *const *)sockets,
                          socket_count);

    for (size_t i = 0; i < read_count; i++) {
        free(reads[i]);
    }
    for (size_t i = 0; i < socket_count; i++) {
        free(sockets[i]);
    }
    return r;
}

/* What is closed of the standard descriptors would be somebody else's number: a socket's, say. */
static void open_standard(void)
{
    int fd = open("/dev/null", O_RDWR);

    while (fd >= 0 && fd <= STDERR_FILENO) {
        fd = open("/dev/null", O_RDWR);
    }
    if (fd >= 0) {
        close(fd);
    }
}

int main(int argc, char **argv)
{
    static struct mediator mediator;
    struct options options = {.listen_fd = -1};
    struct metrics *metrics = NULL;
    int r;

    open_standard();
    log_open("vgpu-mediator");
    keep_open();
    parse_options(argc, argv, &options);
    mediator.config_name = options.config;
    if (options.check) {
        return reload_check(&mediator, NULL, NULL) > 0 ? 2 : 0;
    }
    log_times();
    r = reload_first(&mediator);
    if (r > 0) {
        config_free(&mediator.config);
        return 2;
    }
    /* From here on there are side effects; with --check-config there were none. */
    raise_descriptor_limit(&mediator);
    list_init(&mediator.workers);
    mediator.launcher = launcher_open(
        &(struct launcher_fixed){.worker = mediator.config.worker,
                                 .user = mediator.config.worker_user,
                                 .group = mediator.config.worker_group,
                                 .socket = mediator.config.listen});
    if (mediator.launcher < 0) {
        log_error("cannot start the process that starts workers: %s", strerror(-mediator.launcher));
        config_free(&mediator.config);
        return 1;
    }
    users_ask(launcher_find_user);
    r = set_up_events(&mediator);
    if (r < 0) {
        log_error("cannot set up the event loop: %s", strerror(-r));
    } else {
        r = adopt_host(&mediator);
    }
    if (r >= 0) {
        watch_crashes(mediator.kept);
    }
    if (r >= 0) {
        r = look_for_gpus(&mediator);
    }
    if (r >= 0) {
        r = cards_open(&mediator);
    }
    if (r >= 0) {
        r = metrics_start(&mediator, &metrics);
    }
    if (r >= 0) {
        r = open_sockets(&mediator, &options);
    }
    if (r >= 0) {
        r = confine_mediator(&mediator);
    }
    if (r >= 0) {
        adopt_vms(&mediator);
        sd_notify(0, "READY=1");
        log_info("ready at %s",
                 mediator.owns_listen ? mediator.config.listen : "the inherited socket");
        r = run_loop(&mediator);
        if (r < 0) {
            log_error("the event loop has failed: %s; the next mediator goes on", strerror(-r));
            _exit(EXIT_FAILURE);
        }
    }
    metrics_stop(metrics);
    release_mediator(&mediator);
    chores_finish();
    return r < 0 ? 1 : 0;
}
