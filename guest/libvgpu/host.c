/* SPDX-License-Identifier: MIT */
/*
 * The host transport: this process attaches to the mediator by itself and does what the stub does
 * for a guest (qemu/vgpu-stub.c). To the mediator it is a VM of its own.
 *
 * It sends HELLO and gets the descriptors that QEMU would get. It maps the register page, so that
 * registers are read and written there; a doorbell is a write to its eventfd; a reset, and opening
 * a queue, are messages. A session has one queue and all of the arena to itself.
 *
 * Unlike the stub it takes no interrupts in register mode, and it does not reconnect. When the
 * connection ends, the device is offline for good, and the mediator ends the worker.
 */
#include <errno.h>
#include <poll.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#include "common/clock.h"
#include "common/eventfds.h"
#include "common/fdmsg.h"
#include "common/memfd.h"
#include "common/shared.h"
#include "common/unixaddr.h"
#include "guest/libvgpu/internal.h"
#include "protocol/vgpu-attach.h"

/* A host where many processes begin at once, each with a worker, takes its time. */
#define ATTACH_LIMIT_MS 60000
/* How long a mediator that closes the connection without a word is tried again. */
#define RETRY_LIMIT_NS (10 * NS_PER_S)
#define RETRY_PAUSE_NS (100 * NS_PER_MS)

struct host_vgpu {
    struct vgpu head;
    int socket;
    uint32_t gone; /* 1: the mediator has closed it; set by any thread */
    int fds[FDMSG_MAX];
    size_t fd_count; /* vgpu_attach_fds() when attached */
    bool unheard;    /* the mediator has closed the connection without a word */
    uint32_t queues; /* 0, or 1 for a session */
    struct vgpu_attached attached;
    struct vgpu_regs_page *page;
    uint32_t reset_serial; /* of the RESET whose answer is awaited; 0: none */
    uint32_t last_serial;
};

/*
 * Takes an answer to a reset, if one came. False when the mediator is gone. All threads of a
 * session call this to learn that. After the attach the mediator has no other answers, so any other
 * message is dropped, and descriptors that come with it are closed.
 */
static bool look_at_socket(struct host_vgpu *host)
{
    struct vgpu_msg msg;
    int fds[FDMSG_MAX];
    size_t count = 0;
    ssize_t n;

    if (host->socket < 0 || shared_load(&host->gone) != 0) {
        return false;
    }
    n = fdmsg_recv(host->socket, &msg, sizeof(msg), fds, &count);
    fdmsg_close(fds, &count);
    if (n == (ssize_t)sizeof(msg) && msg.type == VGPU_MSG_RESET_DONE &&
        msg.serial == host->reset_serial) {
        host->reset_serial = 0;
    }
    if (n == 0 || (n < 0 && n != -EAGAIN)) {
        shared_store(&host->gone, 1);
        return false;
    }
    return true;
}

/*
 * In the stub's order: offline, then the eventfd, then the page. The worker stores BUSY before it
 * clears the eventfd, so one of the last two tells of a request from the doorbell on.
 */
static uint32_t read_status(struct host_vgpu *host)
{
    if (!look_at_socket(host)) {
        return VGPU_STATUS_OFFLINE;
    }
    if (host->reset_serial != 0 || eventfds_ready(host->fds[VGPU_ATTACH_DOORBELL])) {
        return VGPU_STATUS_BUSY;
    }
    /* Partner: the store-release of STATUS in the worker. */
    return shared_load_acquire(&host->page->status);
}

static uint32_t *page_word(struct host_vgpu *host, uint32_t offset)
{
    return (uint32_t *)((uint8_t *)host->page + offset);
}

static uint32_t host_read(struct vgpu *vgpu, uint32_t offset)
{
    struct host_vgpu *host = (struct host_vgpu *)vgpu;

    switch (offset) {
    case VGPU_REG_MAGIC:
        return VGPU_MAGIC;
    case VGPU_REG_VERSION:
        return VGPU_VERSION;
    case VGPU_REG_POOL_ID:
        return host->attached.pool;
    case VGPU_REG_PRIORITY:
        return host->attached.priority;
    case VGPU_REG_VM_ID:
        return host->attached.vm_id;
    /* The bits of the backend are the worker's; that there is memory, the stub says by itself. */
    case VGPU_REG_FEATURES:
        return shared_load(&host->page->features) | VGPU_FEATURE_SHM;
    case VGPU_REG_SHM_SIZE_LO:
        return (uint32_t)vgpu->shm_size;
    case VGPU_REG_SHM_SIZE_HI:
        return (uint32_t)(vgpu->shm_size >> 32);
    case VGPU_REG_STATUS:
        return read_status(host);
    case VGPU_REG_CONTROL:
        look_at_socket(host);
        return host->reset_serial != 0 ? VGPU_CONTROL_RESET : 0;
    /* The page has each word at the same offset as BAR0. */
    default:
        return shared_load(page_word(host, offset));
    }
}

/*
 * Sends a message under a serial of its own, which an answer repeats. -EIO when not all of it went
 * out: the stream cannot be used after that.
 */
static int host_send_message(struct host_vgpu *host, uint32_t type, struct vgpu_msg *msg)
{
    ssize_t n;

    msg->magic = VGPU_MSG_MAGIC;
    msg->version = VGPU_VERSION;
    msg->type = type;
    msg->serial = ++host->last_serial;
    n = fdmsg_send(host->socket, msg, sizeof(*msg), NULL, 0);
    return n == (ssize_t)sizeof(*msg) ? 0 : -EIO;
}

static void host_write(struct vgpu *vgpu, uint32_t offset, uint32_t value)
{
    struct host_vgpu *host = (struct host_vgpu *)vgpu;
    struct vgpu_msg msg = {0};

    switch (offset) {
    case VGPU_REG_DOORBELL:
        eventfd_write(host->fds[VGPU_ATTACH_DOORBELL], 1);
        break;
    /* One reset at a time: a second one asks for what the first one does anyway. */
    case VGPU_REG_CONTROL:
        if (host->socket >= 0 && host->reset_serial == 0 &&
            host_send_message(host, VGPU_MSG_RESET, &msg) == 0) {
            host->reset_serial = host->last_serial;
        }
        break;
    default:
        shared_store(page_word(host, offset), value);
    }
}

static void *host_map_shm(struct vgpu *vgpu)
{
    struct host_vgpu *host = (struct host_vgpu *)vgpu;
    void *shm = mmap(NULL, vgpu->shm_size, PROT_READ | PROT_WRITE, MAP_SHARED, host->fds[0], 0);

    if (shm == MAP_FAILED) {
        vgpu_fail(VGPU_SYSTEM, "cannot map the shared memory: %s", strerror(errno));
        return NULL;
    }
    return shm;
}

/*
 * Gives back all but the structure, of which any part may be missing. With the connection's end the
 * mediator detaches this process and ends its worker.
 */
static void host_detach(struct host_vgpu *host)
{
    if (host->head.shm) {
        munmap(host->head.shm, host->head.shm_size);
    }
    if (host->page) {
        munmap(host->page, VGPU_REGS_SIZE);
    }
    fdmsg_close(host->fds, &host->fd_count);
    if (host->socket >= 0) {
        close(host->socket);
    }
}

static void host_close(struct vgpu *vgpu)
{
    struct host_vgpu *host = (struct host_vgpu *)vgpu;

    host_detach(host);
    free(host);
}

static const struct vgpu_transport host_transport = {
    .read = host_read,
    .write = host_write,
    .map_shm = host_map_shm,
    .close = host_close,
};

static int connect_socket(struct host_vgpu *host, const char *name)
{
    struct sockaddr_un address;
    const socklen_t length = unix_address(name, &address);

    if (length == 0) {
        return vgpu_fail(VGPU_BAD_ARGUMENT, "the socket's name '%s' is empty or too long", name);
    }
    /* It blocks in connect() alone: fdmsg_send() and fdmsg_recv() do not wait. */
    host->socket = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (host->socket < 0 || connect(host->socket, (const struct sockaddr *)&address, length) < 0) {
        const int error = errno;

        return vgpu_fail(error == EACCES ? VGPU_NO_PERMISSION : VGPU_OFFLINE,
                         "cannot reach the mediator at '%s': %s", name, strerror(error));
    }
    return VGPU_OK;
}

/*
 * Waits until there is something to receive, ATTACH_LIMIT_MS at most. Signals of the program's, a
 * profiler's timer say, interrupt poll() whatever their handlers ask for.
 */
static bool wait_for_message(struct host_vgpu *host)
{
    const uint64_t end = clock_ns() + ATTACH_LIMIT_MS * NS_PER_MS;
    struct pollfd p = {.fd = host->socket, .events = POLLIN};
    uint64_t now = clock_ns();
    int n = -1;

    while (n < 0 && now < end) {
        n = poll(&p, 1, (int)((end - now) / NS_PER_MS) + 1);
        if (n < 0 && errno != EINTR) {
            return false;
        }
        now = clock_ns();
    }
    return n == 1;
}

/*
 * Receives one whole message and its descriptors, which may come in several pieces. It waits up to
 * ATTACH_LIMIT_MS for each piece.
 */
static int receive_message(struct host_vgpu *host, struct vgpu_msg *msg)
{
    size_t length = 0;

    while (length < sizeof(*msg)) {
        ssize_t n;

        if (!wait_for_message(host)) {
            return vgpu_fail(VGPU_TIMED_OUT,
                             "the mediator has not answered within %d s: it is stopped or hangs, "
                             "or the host is overloaded",
                             ATTACH_LIMIT_MS / 1000);
        }
        n = fdmsg_recv(host->socket, (uint8_t *)msg + length, sizeof(*msg) - length, host->fds,
                       &host->fd_count);
        if (n <= 0) {
            host->unheard = length == 0;
            return vgpu_fail(VGPU_OFFLINE, "the mediator closed the connection");
        }
        length += (size_t)n;
    }
    return VGPU_OK;
}

static int host_attach(struct host_vgpu *host, const struct vgpu_host_options *options)
{
    struct vgpu_msg msg = {.hello = {
                               .flags = VGPU_HELLO_HOST,
                               .vm_id = options->vm_id,
                               .pool = (uint32_t)options->pool,
                               .priority = options->priority,
                               .vectors = vgpu_attach_vectors(host->queues),
                               .queues = host->queues,
                               .shm_size = options->shm_size,
                           }};
    int r;

    snprintf(msg.hello.name, sizeof(msg.hello.name), "%s", program_invocation_short_name);
    if (host_send_message(host, VGPU_MSG_HELLO, &msg) < 0) {
        host->unheard = true;
        return vgpu_fail(VGPU_OFFLINE, "the mediator closed the connection");
    }
    r = receive_message(host, &msg);
    if (r != VGPU_OK) {
        return r;
    }
    if (msg.magic != VGPU_MSG_MAGIC || msg.version >> 16 != VGPU_VERSION_MAJOR) {
        return vgpu_fail(VGPU_INCOMPATIBLE, "the mediator speaks another protocol version");
    }
    if (msg.type == VGPU_MSG_REFUSED) {
        /* The reason is the mediator's text; it is printed here. */
        msg.refused.reason[sizeof(msg.refused.reason) - 1] = '\0';
        return vgpu_fail(VGPU_NO_PERMISSION, "the mediator refused: %s", msg.refused.reason);
    }
    /* With another number of descriptors it would not be known which is which. */
    if (msg.type != VGPU_MSG_ATTACHED || host->fd_count != vgpu_attach_fds(host->queues)) {
        return vgpu_fail(VGPU_INCOMPATIBLE,
                         "the mediator answered with message %u and %zu "
                         "descriptors",
                         msg.type, host->fd_count);
    }
    host->attached = msg.attached;
    host->head.shm_size = options->shm_size;
    return VGPU_OK;
}

static int host_map_page(struct host_vgpu *host)
{
    void *page;

    /* In a file that could shrink any access to the mapping might raise SIGBUS. */
    if (memfd_check(host->fds[0], vgpu_memfd_size(host->head.shm_size)) < 0) {
        return vgpu_fail(VGPU_INCOMPATIBLE,
                         "the mediator's memory is not sealed or has a wrong size");
    }
    page = mmap(NULL, VGPU_REGS_SIZE, PROT_READ | PROT_WRITE, MAP_SHARED, host->fds[0],
                (off_t)vgpu_regs_page_offset(host->head.shm_size));
    if (page == MAP_FAILED) {
        return vgpu_fail(VGPU_SYSTEM, "cannot map the register page: %s", strerror(errno));
    }
    host->page = page;
    return VGPU_OK;
}

/*
 * Connects and attaches; `host` is empty but for its queues. A mediator that has too many
 * connections at the moment closes one without a word: that passes.
 */
static int connect_host(struct host_vgpu *host, const struct vgpu_host_options *options)
{
    const struct timespec pause = {.tv_nsec = RETRY_PAUSE_NS};
    const uint64_t start = clock_ns();
    uint64_t waited = 0;
    int r;

    host->head.transport = &host_transport;
    host->head.timeout_ms = VGPU_DEFAULT_TIMEOUT_MS;
    host->socket = -1;
    do {
        if (host->socket >= 0) {
            close(host->socket);
            host->socket = -1;
            nanosleep(&pause, NULL);
        }
        host->unheard = false;
        r = connect_socket(host, options->socket);
        if (r == VGPU_OK) {
            r = host_attach(host, options);
        }
        waited = clock_ns() - start;
    } while (host->unheard && waited < RETRY_LIMIT_NS);
    return r == VGPU_OK ? host_map_page(host) : r;
}

int vgpu_open_host(const struct vgpu_host_options *options, struct vgpu **vgpu)
{
    struct host_vgpu *host = calloc(1, sizeof(*host));
    int r;

    if (!host) {
        return vgpu_fail(VGPU_SYSTEM, "out of memory");
    }
    r = connect_host(host, options);
    if (r != VGPU_OK) {
        host_close(&host->head);
        return r;
    }
    *vgpu = &host->head;
    return VGPU_OK;
}

/* Sessions ------------------------------------------------------------------------------- */

/* The only queue of a host process. */
#define QUEUE 0u

struct host_port {
    struct vgpu_port head;
    struct host_vgpu host;
    uint8_t *control; /* control block and queue; NULL until mapped */
};

static uint32_t queue_status(void *context, uint32_t queue)
{
    const struct host_vgpu *host = context;

    /* Partner: the mediator's store-release. */
    return shared_load_acquire(&host->page->queue_status[queue]);
}

/*
 * A message that cannot be sent is one to a mediator that is gone, which vgpu_queue_act() finds
 * out.
 */
static void host_queue_control(void *context, uint32_t queue, uint32_t action)
{
    struct vgpu_msg msg = {.queue = {.queue = queue, .action = action}};

    host_send_message(context, VGPU_MSG_QUEUE, &msg);
}

static bool queue_offline(void *context)
{
    return !look_at_socket(context);
}

static int host_port_map(struct vgpu_port *port, void *address)
{
    return vgpu_port_map_arena(port, ((struct host_port *)port)->host.fds[VGPU_ATTACH_MEMFD],
                               port->arena_offset, address);
}

static int host_port_start(struct vgpu_port *port, uint32_t *status)
{
    struct host_port *own = (struct host_port *)port;
    const struct vgpu_queue_access access = {
        .status = queue_status,
        .control = host_queue_control,
        .offline = queue_offline,
        .context = &own->host,
    };

    /* This memory is not write-combining, and OPEN is a message: no fence, unlike in pci-port.c. */
    ((struct vgpu_control *)(void *)own->control)->claims[QUEUE] = (struct vgpu_claim){
        .arena_address = (uint64_t)(uintptr_t)port->arena,
        .arena_offset = port->arena_offset,
        .arena_size = port->arena_size,
    };
    return vgpu_queue_act(&access, QUEUE, VGPU_QUEUE_OPEN, status);
}

static uint32_t host_port_status(struct vgpu_port *port)
{
    struct host_port *own = (struct host_port *)port;
    const uint32_t status = queue_status(&own->host, QUEUE);

    /* A mediator that was killed could not store ENDED. */
    if (vgpu_queue_state(status) == VGPU_QUEUE_RUNNING && queue_offline(&own->host)) {
        return VGPU_QUEUE_ENDED | VGPU_QUEUE_END_MEDIATOR << 8;
    }
    return status;
}

static void host_port_kick(struct vgpu_port *port)
{
    eventfd_write(((struct host_port *)port)->host.fds[VGPU_ATTACH_DOORBELL + 1 + QUEUE], 1);
}

static void host_port_wait(struct vgpu_port *port, int timeout_ms)
{
    struct host_port *own = (struct host_port *)port;
    struct pollfd p = {.fd = own->host.fds[vgpu_attach_irq(1) + 1 + QUEUE], .events = POLLIN};
    eventfd_t value;

    /* The eventfd may be one that blocks, so it is read only when something is there. */
    if (poll(&p, 1, timeout_ms) == 1) {
        eventfd_read(p.fd, &value);
    }
}

/*
 * The mediator sees the connection's end and ends the worker. The socket is not closed: other
 * threads may be about to use its number, which the program could get for another file.
 */
static void host_port_hang_up(struct vgpu_port *port)
{
    shutdown(((struct host_port *)port)->host.socket, SHUT_RDWR);
}

static void host_port_close(struct vgpu_port *port)
{
    struct host_port *own = (struct host_port *)port;

    if (port->arena) {
        munmap(port->arena, port->arena_size);
    }
    if (own->control) {
        munmap(own->control, VGPU_CONTROL_SIZE + VGPU_QUEUE_SIZE);
    }
    /* No CLOSE is sent: with the connection's end the mediator ends the worker. */
    host_detach(&own->host);
    free(own);
}

static const struct vgpu_port_ops host_port_ops = {
    .map = host_port_map,
    .start = host_port_start,
    .status = host_port_status,
    .kick = host_port_kick,
    .wait = host_port_wait,
    .hang_up = host_port_hang_up,
    .close = host_port_close,
};

static int host_set_up_port(struct host_port *own, const struct vgpu_host_options *options,
                            uint64_t arena_size)
{
    const uint64_t first = vgpu_arena_offset(options->shm_size, 1);
    void *control;
    int r = connect_host(&own->host, options);

    if (r != VGPU_OK) {
        return r;
    }
    control = mmap(NULL, VGPU_CONTROL_SIZE + VGPU_QUEUE_SIZE, PROT_READ | PROT_WRITE, MAP_SHARED,
                   own->host.fds[VGPU_ATTACH_MEMFD], 0);
    if (control == MAP_FAILED) {
        return vgpu_fail(VGPU_SYSTEM, "cannot map the queue: %s", strerror(errno));
    }
    own->control = control;
    own->head.queue = (struct vgpu_queue *)(void *)(own->control + vgpu_queue_offset(QUEUE));
    own->head.arena_offset = first;
    /* All of it where no size is named: nobody else in this VM needs any. */
    own->head.arena_size = arena_size == 0 ? options->shm_size - first
                                           : (arena_size + 4095) & ~UINT64_C(4095);
    if (own->head.arena_size > options->shm_size - first) {
        return vgpu_fail(VGPU_BUSY, "%llu bytes do not fit shared memory of %llu bytes",
                         (unsigned long long)arena_size, (unsigned long long)options->shm_size);
    }
    return VGPU_OK;
}

int vgpu_port_open_host(const struct vgpu_host_options *options, uint64_t arena_size,
                        struct vgpu_port **port)
{
    struct host_port *own = calloc(1, sizeof(*own));
    int r;

    if (!own) {
        return vgpu_fail(VGPU_SYSTEM, "out of memory");
    }
    own->head.ops = &host_port_ops;
    own->host.queues = 1;
    own->host.socket = -1;
    r = vgpu_shm_size_valid(options->shm_size)
            ? host_set_up_port(own, options, arena_size)
            : vgpu_fail(VGPU_BAD_ARGUMENT,
                        "shared memory of %llu bytes is no power of two from "
                        "1 MiB to 64 GiB",
                        (unsigned long long)options->shm_size);
    if (r != VGPU_OK) {
        host_port_close(&own->head);
        return r;
    }
    *port = &own->head;
    return VGPU_OK;
}
