/* SPDX-License-Identifier: MIT */
/*
 * vgpu-worker: computes for one VM. The mediator starts it with its descriptors in place
 * (protocol/vgpu-worker.h), and ends it with SIGKILL whenever it likes.
 *
 * One thread, one epoll set: the link to the mediator, the doorbell, the backend's event.
 * After an answer whose doorbell came soon after the one before, the loop polls for a
 * while instead of sleeping: a guest in a dialogue is answered without a wake-up, an idle
 * one costs nothing.
 */
#include <errno.h>
#include <fcntl.h>
#include <getopt.h>
#include <inttypes.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/mman.h>
#include <unistd.h>

#include "clock.h"
#include "fdmsg.h"
#include "isolation.h"
#include "log.h"
#include "memfd.h"
#include "session.h"
#include "version.h"
#include "vgpu-attach.h"

/* How long to poll after an answer. */
#define SPIN_NS (200 * NS_PER_US)
/*
 * The pause between an answer and the next doorbell that makes polling worth it. It includes
 * this worker's own wake-up, which takes 100 us and more where idle processors sleep.
 */
#define DIALOGUE_NS (500 * NS_PER_US)

struct options {
    enum backend_kind backend;
    int device;
    uint64_t shm_size;
    enum session_takeover takeover;
    enum vgpu_error error;
    uid_t user;
    gid_t group;
};

struct worker {
    struct session session;
    int epoll;
    int link;
    bool finishing; /* exit as soon as nothing runs */
    bool dialogue;  /* the last doorbell came soon after the answer before it */
};

/* Which descriptor an epoll event is about. */
enum source { SOURCE_LINK, SOURCE_DOORBELL, SOURCE_BACKEND };

static void usage(FILE *out)
{
    fputs("usage: vgpu-worker --probe\n"
          "       vgpu-worker --shm-size BYTES [--backend auto|cpu|cuda] [--device N]\n"
          "                   [--takeover resume|discard|fail:CODE] [--user UID:GID]\n"
          "\n"
          "The second form is for vgpu-mediator, which passes descriptors along.\n"
          "\n"
          "  --probe    print what would compute: \"cuda N\" and a line with each GPU's name,\n"
          "             or \"cpu\" and the reason why there is no GPU\n"
          "  --help     print this text\n"
          "  --version  print the version\n",
          out);
}

static int probe(void)
{
    char text[256];
    const int count = backend_count_gpus(text, sizeof(text));

    if (count == 0) {
        printf("cpu %s\n", text);
        return 0;
    }
    printf("cuda %d\n", count);
    for (int i = 0; i < count; i++) {
        if (backend_gpu_name(i, text, sizeof(text)) < 0) {
            snprintf(text, sizeof(text), "(no name)");
        }
        printf("%s\n", text);
    }
    return 0;
}

static bool parse_backend(const char *text, enum backend_kind *kind)
{
    static const char *const names[] = {
        [BACKEND_AUTO] = "auto", [BACKEND_CPU] = "cpu", [BACKEND_CUDA] = "cuda"};

    for (unsigned i = 0; i < sizeof(names) / sizeof(names[0]); i++) {
        if (strcmp(text, names[i]) == 0) {
            *kind = (enum backend_kind)i;
            return true;
        }
    }
    return false;
}

static bool parse_takeover(const char *text, struct options *o)
{
    unsigned code;

    if (strcmp(text, "resume") == 0) {
        o->takeover = SESSION_RESUME;
    } else if (strcmp(text, "discard") == 0) {
        o->takeover = SESSION_DISCARD;
    } else if (sscanf(text, "fail:%u", &code) == 1 && code > 0 && code < VGPU_ERROR_COUNT) {
        o->takeover = SESSION_FAIL;
        o->error = (enum vgpu_error)code;
    } else {
        return false;
    }
    return true;
}

/* Fills in *o; ends the process on --help, --version, --probe and mistakes. */
static void parse_options(int argc, char **argv, struct options *o)
{
    static const struct option longs[] = {
        {"probe", no_argument, NULL, 'p'},
        {"shm-size", required_argument, NULL, 's'},
        {"backend", required_argument, NULL, 'b'},
        {"device", required_argument, NULL, 'd'},
        {"takeover", required_argument, NULL, 't'},
        {"user", required_argument, NULL, 'u'},
        {"help", no_argument, NULL, 'h'},
        {"version", no_argument, NULL, 'V'},
        {NULL, 0, NULL, 0},
    };
    bool good = true;
    int c;

    while (good && (c = getopt_long(argc, argv, "", longs, NULL)) != -1) {
        switch (c) {
        case 'p':
            exit(probe());
        case 's':
            o->shm_size = strtoull(optarg, NULL, 10);
            break;
        case 'b':
            good = parse_backend(optarg, &o->backend);
            break;
        case 'd':
            o->device = atoi(optarg);
            break;
        case 't':
            good = parse_takeover(optarg, o);
            break;
        case 'u':
            good = sscanf(optarg, "%u:%u", &o->user, &o->group) == 2;
            break;
        case 'h':
            usage(stdout);
            exit(0);
        case 'V':
            puts("vgpu-worker " VGPU_PACKAGE_VERSION);
            exit(0);
        default:
            good = false;
        }
    }
    if (!good || optind != argc || !vgpu_shm_size_valid(o->shm_size)) {
        usage(stderr);
        exit(2);
    }
}

static void *map(int fd, uint64_t size, uint64_t offset, const char *what)
{
    void *address = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED, fd, (off_t)offset);

    if (address == MAP_FAILED) {
        log_error("cannot map the %s of %" PRIu64 " bytes: %s", what, size, strerror(errno));
        exit(1);
    }
    return address;
}

/*
 * One worker at a time serves a register page. A record lock belongs to its process and
 * ends with it, so the wait is for the end of a predecessor that was killed.
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

static int watch(struct worker *w, int fd, enum source source)
{
    struct epoll_event event = {.events = EPOLLIN, .data.u32 = source};

    return epoll_ctl(w->epoll, EPOLL_CTL_ADD, fd, &event) < 0 ? -errno : 0;
}

/* The doorbell is listened to while the session is idle, the backend always. */
static int listen_doorbell(struct worker *w, bool on)
{
    struct epoll_event event = {.events = on ? EPOLLIN : 0, .data.u32 = SOURCE_DOORBELL};

    return epoll_ctl(w->epoll, EPOLL_CTL_MOD, w->session.doorbell, &event) < 0 ? -errno : 0;
}

static int send_ready(struct worker *w)
{
    const struct backend *backend = w->session.backend;
    struct vgpu_link_msg msg = {.type = VGPU_LINK_READY, .value = backend->info.backend};
    ssize_t n;

    snprintf(msg.text, sizeof(msg.text), "%s", backend->info.name);
    n = fdmsg_send(w->link, &msg, sizeof(msg), NULL, 0);
    return n < 0 ? (int)n : 0;
}

/* Returns 0, or -errno when the link is lost or talks nonsense. */
static int handle_link(struct worker *w)
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
    if (n == (ssize_t)sizeof(msg) && msg.type == VGPU_LINK_TURN &&
        w->session.state == SESSION_WAITING) {
        return session_turn(&w->session);
    }
    return -EPROTO;
}

static int handle_doorbell(struct worker *w)
{
    struct session *s = &w->session;
    const uint64_t before = s->published_ns;
    const uint64_t now = clock_ns();

    /* A guest that asks again soon will probably do so once more. */
    w->dialogue = before != 0 && now - before < DIALOGUE_NS;
    return session_doorbell(s);
}

static int handle(struct worker *w, enum source source)
{
    switch (source) {
    case SOURCE_LINK:
        return handle_link(w);
    case SOURCE_DOORBELL:
        return w->session.state == SESSION_IDLE ? handle_doorbell(w) : 0;
    case SOURCE_BACKEND:
        return w->session.state == SESSION_RUNNING ? session_backend(&w->session) : 0;
    }
    return 0;
}

/* Where epoll should give up at once: shortly after an answer in a dialogue. */
static bool spinning(const struct worker *w)
{
    return w->dialogue && w->session.state == SESSION_IDLE &&
           clock_ns() < w->session.published_ns + SPIN_NS;
}

/* Serves until told to finish. Returns 0 or -errno. */
static int serve(struct worker *w)
{
    bool listening = true;
    int r = 0;

    while (r == 0) {
        const bool idle = w->session.state == SESSION_IDLE;
        struct epoll_event event;
        int n;

        if (w->finishing && w->session.state != SESSION_RUNNING) {
            return 0;
        }
        if (idle != listening) {
            r = listen_doorbell(w, idle);
            listening = idle;
        }
        n = epoll_wait(w->epoll, &event, 1, spinning(w) ? 0 : -1);
        if (n < 0 && errno != EINTR) {
            r = -errno;
        } else if (n == 1) {
            r = handle(w, (enum source)event.data.u32);
        }
    }
    return r;
}

static int start(struct worker *w, const struct options *o)
{
    struct session *s = &w->session;
    char why[256];
    int r = isolation_early(VGPU_WORKER_FD_TURN);

    if (r < 0) {
        return r;
    }
    w->link = s->turn.link = VGPU_WORKER_FD_LINK;
    s->doorbell = VGPU_WORKER_FD_DOORBELL;
    s->irq = VGPU_WORKER_FD_IRQ;
    s->shm_size = o->shm_size;
    r = memfd_check(VGPU_WORKER_FD_MEMFD, vgpu_memfd_size(o->shm_size));
    if (r < 0) {
        log_error("the VM's memory is not sealed or has another size than %" PRIu64 " bytes",
                  vgpu_memfd_size(o->shm_size));
        return r;
    }
    s->shm = map(VGPU_WORKER_FD_MEMFD, o->shm_size, 0, "shared memory");
    s->page = map(VGPU_WORKER_FD_MEMFD, VGPU_REGS_SIZE, vgpu_regs_page_offset(o->shm_size),
                  "register page");
    s->turn.page = map(VGPU_WORKER_FD_TURN, VGPU_TURN_PAGE_SIZE, 0, "turn page");
    r = backend_open(o->backend, o->device, s->shm, s->shm_size, &s->backend, why, sizeof(why));
    if (r < 0) {
        log_error("%s", why);
        return r;
    }
    r = lock_page(VGPU_WORKER_FD_MEMFD, o->shm_size);
    if (r < 0) {
        log_error("cannot lock the register page: %s", strerror(-r));
        return r;
    }
    w->epoll = epoll_create1(EPOLL_CLOEXEC);
    if (w->epoll < 0 || watch(w, w->link, SOURCE_LINK) < 0 ||
        watch(w, s->doorbell, SOURCE_DOORBELL) < 0 ||
        watch(w, s->backend->event_fd, SOURCE_BACKEND) < 0) {
        log_error("epoll: %s", strerror(errno));
        return -errno;
    }
    return isolation_final(o->user, o->group, s->backend->info.backend == VGPU_FEATURE_BACKEND_GPU);
}

int main(int argc, char **argv)
{
    static struct worker worker;
    struct options options = {.user = (uid_t)-1, .group = (gid_t)-1};
    int r;

    log_open("vgpu-worker");
    parse_options(argc, argv, &options);
    if (start(&worker, &options) < 0) {
        return 1;
    }
    /* First what was owed or is to be dropped: READY tells the stub that a reset is done. */
    r = session_start(&worker.session, options.takeover, options.error);
    if (r == 0) {
        r = send_ready(&worker);
    }
    if (r == 0) {
        r = serve(&worker);
    }
    /* The end of the link is the mediator's end, which it has logged itself. */
    if (r < 0 && r != -EPIPE && r != -ECONNRESET) {
        log_error("ended: %s", strerror(-r));
    }
    return r < 0 ? 1 : 0;
}
