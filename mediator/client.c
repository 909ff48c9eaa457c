/* SPDX-License-Identifier: MIT */
/*
 * Connections on the attach socket. Each is read message by message and never beyond the end of
 * one, so that descriptors belong to the message they came with. attach.c decides about each
 * message; this file acts, and answers the client.
 *
 *   ATTACH_NEW       connected, or back here after BYE. HELLO has to come within HELLO_LIMIT_NS of
 *                    connecting; after a BYE there is no limit, and the connection is closed when
 *                    room is needed.
 *   ATTACH_HANDOVER  HELLO has come with the first 16 of more descriptors. FDS brings the others,
 *                    within HELLO_LIMIT_NS.
 *   ATTACH_ATTACHED  the client has a VM, which ends with the connection.
 *   ATTACH_REFUSED   the client was told why. Its further messages are dropped. The connection is
 *                    closed REFUSED_LINGER_NS later: if it were closed at once, the client's end of
 *                    the socket could lose the reason.
 *
 * A VM that is attached outlives the mediator where its descriptors are kept (keep.h), and so does
 * its connection. So that no message is lost with a mediator, those of an attached client are
 * looked at, carried out, and only then taken out of the socket. A mediator that ends in between
 * leaves a message that is carried out twice: RESET replaces the worker again; OPEN and CLOSE find
 * the queue as they want it, and count once more, which moves the count as well as once.
 *
 * Nothing waits for a client. One that does not take its answer is disconnected, and descriptors
 * that it has sent are closed by chores.c.
 *
 * Caveat: code of a VM may call back here with its client (tell_done()). Such a function may
 * not destroy the client, and so the VM that called. It shuts the socket down; the event loop then
 * finds the end of file and destroys both.
 */
#include "mediator/client.h"

#include <errno.h>
#include <inttypes.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "common/clock.h"
#include "common/fdmsg.h"
#include "common/log.h"
#include "mediator/attach.h"
#include "mediator/chores.h"
#include "mediator/vm-memory.h"
#include "mediator/vm.h"

#define HELLO_LIMIT_NS (10 * NS_PER_S) /* from connecting to the first complete HELLO */
#define REFUSED_LINGER_NS NS_PER_S
#define CHOSEN_IDS 1000000u            /* from here on, for host processes that say no number */
#define REFUSAL_LOG_NS (10 * NS_PER_S) /* between two lines about one user's refusals */
#define USERS_LOGGED 16u
#define USERS_COUNTED 16u
#define USER_LINES 1000u /* hundreds of VMs may come at once */
/* Connections beyond those with a VM: on their way in, or refused. */
#define CLIENTS_SPARE 32u
/* Of those, by users who may attach nothing. */
#define STRANGERS_MAX 8u
/* Of those without a VM, by one user who may: half of the room, and this at least. */
#define SILENT_MIN 8u

#define FEW_DESCRIPTORS                                                                            \
    "the mediator has no descriptors left for another VM: raise its limit on open files "          \
    "(LimitNOFILE)"

struct client {
    struct client *next, **place; /* place: what points here */
    struct mediator *mediator;
    int fd;
    struct ucred peer;
    struct attach_progress progress;
    bool untold;   /* ATTACHED is to be sent when the VM's stores are done */
    bool ended;    /* is only to be closed */
    bool left;     /* has said BYE: kept for a device that may be plugged in again */
    struct vm *vm; /* in ATTACH_ATTACHED */
    sd_event_source *source, *timer;
    struct vgpu_msg rx;
    size_t rx_length;
    int rx_fds[FDMSG_MAX]; /* that came with the message in rx */
    size_t rx_fd_count;
    struct vgpu_msg hello;        /* that is being answered */
    int fds[VGPU_ATTACH_FDS_MAX]; /* progress.fds of them, handed over so far */
};

/*
 * What a user may cause by coming and going. Of few users at a time, so that nobody fills it with
 * names; one who is forgotten begins anew.
 */
static struct log_budget *user_log(const struct client *client)
{
    static struct {
        uid_t user;
        struct log_budget budget;
    } users[USERS_LOGGED];
    static unsigned next;
    const uid_t user = client->peer.uid;
    unsigned i;

    for (i = 0; i < USERS_LOGGED; i++) {
        if (users[i].user == user && users[i].budget.since_ns != 0) {
            return &users[i].budget;
        }
    }
    i = next++ % USERS_LOGGED;
    users[i].user = user;
    users[i].budget = (struct log_budget){.most = USER_LINES};
    return &users[i].budget;
}

static void drop_vm(struct client *client)
{
    if (client->vm) {
        log_line_within(user_log(client), LOG_LEVEL_INFO, "VM %" PRIu32 ": detached",
                        client->vm->id);
        vm_destroy(client->vm);
        client->vm = NULL;
        client->untold = false;
    }
}

void client_destroy(struct client *client)
{
    drop_vm(client);
    *client->place = client->next;
    if (client->next) {
        client->next->place = client->place;
    }
    client->mediator->client_count--;
    sd_event_source_disable_unref(client->source);
    sd_event_source_disable_unref(client->timer);
    fdmsg_close(client->rx_fds, &client->rx_fd_count);
    fdmsg_close(client->fds, &client->progress.fds);
    chores_hang_up(client->fd);
    free(client);
}

void client_hang_up(struct client *client)
{
    shutdown(client->fd, SHUT_RDWR);
}

/*
 * Returns 0 or -errno. A client that does not read its few answers is not worth waiting for. If a
 * part of a message was sent, that is an error too: its rest and the next message could not be told
 * apart.
 */
static int client_send_message(struct client *client, uint32_t type, uint32_t serial,
                               struct vgpu_msg *msg, const int *fds, size_t count)
{
    ssize_t n;

    msg->magic = VGPU_MSG_MAGIC;
    msg->version = VGPU_VERSION;
    msg->type = type;
    msg->serial = serial;
    n = fdmsg_send(client->fd, msg, sizeof(*msg), fds, count);
    if (n < 0) {
        return (int)n;
    }
    return n == (ssize_t)sizeof(*msg) ? 0 : -EIO;
}

static void tell_done(struct client *client, enum vgpu_msg_type what, uint32_t serial)
{
    struct vgpu_msg msg = {0};

    if (client_send_message(client, what, serial, &msg, NULL, 0) < 0) {
        /* Not destroyed here: the caller is that VM's own code. The end of file follows. */
        client_hang_up(client);
    }
}

static void close_later(struct client *client, uint64_t delay_ns)
{
    sd_event_source_set_time_relative(client->timer, delay_ns / NS_PER_US);
    sd_event_source_set_enabled(client->timer, SD_EVENT_ONESHOT);
}

/* A VM that was refused tries again each second; a line now and then will do. */
static void log_refusal(const struct client *client, const char *reason)
{
    static struct {
        uint64_t ns; /* when a line was written last */
        uid_t user;  /* and whose refusal it told */
    } last;
    const uint64_t now = clock_ns();
    const bool again = last.user == client->peer.uid && now - last.ns < REFUSAL_LOG_NS;

    log_line(again ? LOG_LEVEL_DEBUG : LOG_LEVEL_WARNING, "refused process %d of user %ld: %s",
             (int)client->peer.pid, (long)client->peer.uid, reason);
    if (!again) {
        last.ns = now;
        last.user = client->peer.uid;
    }
}

static void client_refuse(struct client *client, const char *reason)
{
    struct vgpu_msg msg = {0};

    client->mediator->refusals++;
    log_refusal(client, reason);
    drop_vm(client);
    client->progress.state = ATTACH_REFUSED;
    snprintf(msg.refused.reason, sizeof(msg.refused.reason), "%s", reason);
    client_send_message(client, VGPU_MSG_REFUSED, client->rx.serial, &msg, NULL, 0);
    fdmsg_close(client->fds, &client->progress.fds);
    /*
     * Only the sending side ends: the client finds the reason, then the end of file. Its messages
     * are still read, see the top.
     */
    shutdown(client->fd, SHUT_WR);
    close_later(client, REFUSED_LINGER_NS);
}

/*
 * Whether another client holds this VM. One whose peer is gone, which the event loop just
 * has not heard of yet, does not: QEMU reconnects at once after a connection breaks.
 */
static bool id_in_use(struct client *client, uint32_t vm_id)
{
    struct vm *vm = vm_find(client->mediator, vm_id);
    struct pollfd p = {.events = POLLRDHUP};

    if (!vm) {
        return false;
    }
    p.fd = vm->owner.client->fd;
    if (poll(&p, 1, 0) == 1 && (p.revents & (POLLRDHUP | POLLHUP | POLLERR))) {
        client_destroy(vm->owner.client);
        return false;
    }
    return true;
}

/*
 * A number for a host process that has said none: one that nobody has and that the configuration
 * does not name. The process's own number, which people know it by, is in it where this mediator
 * sees the process. It is no good as an identity: two containers have a process 1 each.
 */
static uint32_t choose_id(const struct client *client)
{
    uint32_t id = CHOSEN_IDS + (uint32_t)client->peer.pid;

    while (vm_find(client->mediator, id) ||
           config_find_vm(&client->mediator->config, &(struct identity){.id = id}) ||
           mediator_was_ended(client->mediator, id)) {
        id++;
    }
    return id;
}

/*
 * The descriptors for a new VM: the stub's, or new ones. Returns 0 or -errno with a reason. On
 * success `fds` are the caller's; client->fds is empty then, so that nothing is closed twice.
 */
static int take_memory(struct client *client, int fds[], char reason[ATTACH_REASON_SIZE])
{
    const struct vgpu_hello *hello = &client->hello.hello;
    const char *problem;
    int r;

    if (!(hello->flags & VGPU_HELLO_HANDOVER)) {
        r = memory_create(hello->vm_id, hello->shm_size, hello->queues, fds);
        if (r < 0) {
            snprintf(reason, ATTACH_REASON_SIZE, "cannot make shared memory: %s", strerror(-r));
        }
        return r;
    }
    problem = memory_check(hello->shm_size, hello->queues, client->fds);
    if (problem) {
        snprintf(reason, ATTACH_REASON_SIZE, "%s", problem);
        return -EINVAL;
    }
    memcpy(fds, client->fds, client->progress.fds * sizeof(fds[0]));
    client->progress.fds = 0;
    return 0;
}

/* Whether a new VM leaves enough descriptors for the workers of those that are attached. */
static bool leaves_enough(const struct mediator *mediator, const int fds[], uint32_t queues,
                          char reason[ATTACH_REASON_SIZE])
{
    for (uint32_t i = 0; i < vgpu_attach_fds(queues); i++) {
        if (fds[i] >= mediator->fd_most) {
            snprintf(reason, ATTACH_REASON_SIZE, "%s", FEW_DESCRIPTORS);
            return false;
        }
    }
    return true;
}

static void close_memory(const int fds[], uint32_t queues)
{
    for (uint32_t i = 0; i < vgpu_attach_fds(queues); i++) {
        chores_close(fds[i]);
    }
}

static void client_announce(const struct client *client, const struct attach_grant *grant,
                            bool handover)
{
    const struct vm *vm = client->vm;

    log_line_within(user_log(client), LOG_LEVEL_INFO,
                    "%s %" PRIu32 "%s%s%s: attached to pool %c at priority %s%s, %" PRIu64
                    " MiB shared, process %d of user %ld%s",
                    vm->host ? "host client" : "VM", vm->id, vm->name[0] ? " (" : "", vm->name,
                    vm->name[0] ? ")" : "", vm->pool->id, config_priority_name(grant->priority),
                    grant->lowered ? " (lowered)" : "", vm->shm_size >> 20, (int)vm->peer,
                    (long)vm->user, handover ? ", back with its memory" : "");
}

/*
 * Messages of an attached client stay in the socket until they are carried out. A part of one stays
 * there too, and is no reason to look again: the event loop tells that more has come, and not that
 * there is something. This makes it tell once for what is there.
 */
static void await_message(struct client *client)
{
    const bool attached = client->progress.state == ATTACH_ATTACHED;

    sd_event_source_set_io_events(client->source,
                                  attached ? EPOLLIN | EPOLLRDHUP | EPOLLET : EPOLLIN);
}

/* ATTACHED, and the descriptors of new memory: as many with it as a message takes. */
static int send_attached(struct client *client, struct vgpu_msg *msg, const int fds[])
{
    const uint32_t count = fds ? vgpu_attach_fds(client->vm->queues) : 0;
    uint32_t type = VGPU_MSG_ATTACHED, sent = 0;
    int r;

    do {
        const uint32_t left = count - sent;
        const uint32_t now = left < VGPU_MSG_FDS_MAX ? left : VGPU_MSG_FDS_MAX;

        r = client_send_message(client, type, client->hello.serial, msg, fds ? fds + sent : NULL,
                                now);
        sent += now;
        type = VGPU_MSG_FDS;
        *msg = (struct vgpu_msg){0};
    } while (r == 0 && sent < count);
    return r;
}

static struct vgpu_msg attached_message(const struct vm *vm)
{
    return (struct vgpu_msg){.attached = {
                                 .flags = VGPU_ATTACHED_FLAGS,
                                 .vm_id = vm->id,
                                 .pool = (uint32_t)vm->pool->id,
                                 .priority = vm->priority,
                                 .vectors = vgpu_attach_vectors(vm->queues),
                                 .queues = vm->queues,
                                 .shm_size = vm->shm_size,
                             }};
}

/* `fds` are of new memory; NULL: it was handed over. */
static void tell_attached(struct client *client, const int fds[])
{
    struct vgpu_msg msg = attached_message(client->vm);

    client->untold = false;
    if (send_attached(client, &msg, fds) < 0 || client->rx_length != 0) {
        /* It is gone, or says something before it has its answer. The end of file follows. */
        client_hang_up(client);
        return;
    }
    /* Before this it says HELLO again where the mediator ends. */
    vm_keep_on(client->vm, client->fd);
    /* From now on it is read in another way. */
    await_message(client);
}

/* An adopted VM was told by another release's mediator what that knew. */
static void tell_news(struct client *client)
{
    struct vgpu_msg msg = attached_message(client->vm);

    if (client->vm->host || client->vm->kept->known == VGPU_ATTACHED_FLAGS) {
        return;
    }
    if (client_send_message(client, VGPU_MSG_ATTACHED, 0, &msg, NULL, 0) < 0) {
        client_hang_up(client);
    }
    client->vm->kept->known = VGPU_ATTACHED_FLAGS;
}

static void tell_stored(struct client *client)
{
    if (client->untold) {
        tell_attached(client, NULL);
    }
}

static void accept_vm(struct client *client, const struct attach_grant *grant, const int fds[])
{
    const struct vgpu_hello *hello = &client->hello.hello;
    const bool handover = (hello->flags & VGPU_HELLO_HANDOVER) != 0;

    /* The device is back: the connection must not be evicted any more. */
    client->left = false;
    client->vm->user = client->peer.uid;
    client->vm->peer = client->peer.pid;
    client->progress.state = ATTACH_ATTACHED;
    client->progress.queues = hello->queues;
    sd_event_source_set_enabled(client->timer, SD_EVENT_OFF);
    client_announce(client, grant, handover);
    /* Who is told that it is attached sees the sessions ended that were an earlier mediator's. */
    client->untold = handover && !status_page_settled(client->vm->status);
    if (!client->untold) {
        tell_attached(client, handover ? NULL : fds);
    }
}

/* Answers the HELLO in client->hello. */
static void handle_hello(struct client *client)
{
    struct mediator *mediator = client->mediator;
    const struct vgpu_hello *hello = &client->hello.hello;
    const struct vm_owner owner = {.client = client, .done = tell_done, .stored = tell_stored};
    struct attach_facts facts = {.user = client->peer.uid};
    struct attach_grant grant;
    char reason[ATTACH_REASON_SIZE];
    int fds[VGPU_ATTACH_FDS_MAX];
    int r;

    if (mediator->stopping) {
        client_refuse(client, "the mediator is stopping");
        return;
    }
    if (hello->vm_id == 0 && hello->flags == VGPU_HELLO_HOST) {
        client->hello.hello.vm_id = choose_id(client);
    }
    if (mediator_was_ended(mediator, client->hello.hello.vm_id)) {
        client_refuse(client, "mediators have crashed while they worked for this VM: it may attach "
                              "ten minutes after that");
        return;
    }
    /* This comes before vm_count, because it may detach a VM whose client has gone. */
    facts.id_in_use = id_in_use(client, hello->vm_id);
    facts.vm_count = mediator->vm_count;
    if (!attach_decide(&mediator->config, hello, &facts, &grant, reason) ||
        take_memory(client, fds, reason) < 0) {
        client_refuse(client, reason);
        return;
    }
    if (!leaves_enough(mediator, fds, hello->queues, reason)) {
        close_memory(fds, hello->queues);
        client_refuse(client, reason);
        return;
    }
    r = vm_create(mediator, &owner, hello, &grant, fds, &client->vm);
    if (r < 0) {
        /* vm_create() has failed, so the descriptors are still this function's. */
        close_memory(fds, hello->queues);
        if (r == -EBUSY) {
            snprintf(reason, sizeof(reason), "no GPU of pool %c is free: " POOL_NO_GPU,
                     (int)grant.pool);
        } else {
            snprintf(reason, sizeof(reason), "cannot start a worker: %s", strerror(-r));
        }
        client_refuse(client, reason);
        return;
    }
    accept_vm(client, &grant, fds);
}

/*
 * Keeps a HELLO and its descriptors, which came with it or with an FDS behind it. attach_check()
 * has counted the descriptors, so there is room for them.
 */
static void client_keep(struct client *client)
{
    if (client->rx.type == VGPU_MSG_HELLO) {
        client->hello = client->rx;
        client->progress.queues = client->rx.hello.queues;
    }
    memcpy(client->fds + client->progress.fds, client->rx_fds,
           client->rx_fd_count * sizeof(client->fds[0]));
    client->progress.fds += client->rx_fd_count;
    client->rx_fd_count = 0;
}

static void handle_message(struct client *client)
{
    char reason[ATTACH_REASON_SIZE];

    switch (attach_check(&client->progress, &client->rx, client->rx_fd_count, reason)) {
    case ATTACH_ACTION_MORE:
        client_keep(client);
        client->progress.state = ATTACH_HANDOVER;
        /* After a BYE too: it holds many descriptors until it is complete. */
        close_later(client, HELLO_LIMIT_NS);
        break;
    case ATTACH_ACTION_HELLO:
        client_keep(client);
        handle_hello(client);
        break;
    case ATTACH_ACTION_RESET:
        vm_reset(client->vm, client->rx.reset.flags, client->rx.serial);
        break;
    case ATTACH_ACTION_QUEUE:
        vm_act_on_queue(client->vm, client->rx.queue.queue, client->rx.queue.action);
        break;
    case ATTACH_ACTION_STOP:
        vm_stop(client->vm, client->rx.serial);
        break;
    case ATTACH_ACTION_CONTINUE:
        vm_continue(client->vm, client->rx.go_on.flags);
        break;
    case ATTACH_ACTION_BYE:
        drop_vm(client);
        client->progress.state = ATTACH_NEW;
        client->left = true;
        break;
    case ATTACH_ACTION_REFUSE:
        client_refuse(client, reason);
        break;
    }
    /* Only a message that was refused can have descriptors left. */
    fdmsg_close(client->rx_fds, &client->rx_fd_count);
}

/* What a refused client still sends is thrown away until it closes. */
static ssize_t client_drain(struct client *client)
{
    char bytes[VGPU_MSG_SIZE];
    const ssize_t n = fdmsg_recv(client->fd, bytes, sizeof(bytes), client->rx_fds,
                                 &client->rx_fd_count);

    fdmsg_close(client->rx_fds, &client->rx_fd_count);
    return n;
}

/*
 * Looks at the descriptors that have come: nothing but a VM's memory and eventfds is kept until a
 * message is complete, and nothing where few are left. A client that sent others is refused; false
 * then.
 */
static bool keeps_descriptors(struct client *client)
{
    for (size_t i = 0; i < client->rx_fd_count; i++) {
        const char *reason = client->rx_fds[i] >= client->mediator->fd_most ? FEW_DESCRIPTORS
                             : !memory_is_kind(client->rx_fds[i])
                                 ? "a descriptor came that is neither memory nor an eventfd"
                                 : NULL;

        if (reason) {
            fdmsg_close(client->rx_fds, &client->rx_fd_count);
            client_refuse(client, reason);
            return false;
        }
    }
    return true;
}

/*
 * Carries out the next message of an attached client, if it is there as a whole, and takes it out
 * of the socket then. `ended`: nothing comes any more. Returns as recv(2) does.
 */
static ssize_t read_attached(struct client *client, bool ended)
{
    struct iovec part = {.iov_base = &client->rx, .iov_len = sizeof(client->rx)};
    struct msghdr look = {.msg_iov = &part, .msg_iovlen = 1};
    struct vgpu_msg taken;
    ssize_t n;

    mediator_works_for(client->mediator, client->vm->id);
    n = recvmsg(client->fd, &look, MSG_PEEK | MSG_DONTWAIT);
    if (n < 0) {
        return -errno;
    }
    /* There is no room for any, and so the kernel says that there are some. */
    if (look.msg_flags & MSG_CTRUNC) {
        client_refuse(client, "descriptors came with a message that has none");
        await_message(client);
        return n;
    }
    if (n != (ssize_t)sizeof(client->rx)) {
        return ended ? 0 : n;
    }
    handle_message(client);
    /* It may have been refused, which leaves the socket as it is, or said BYE. */
    n = fdmsg_recv(client->fd, &taken, sizeof(taken), client->rx_fds, &client->rx_fd_count);
    fdmsg_close(client->rx_fds, &client->rx_fd_count);
    await_message(client);
    return n;
}

/*
 * Reads once for each event, so that a client that sends without end does not keep the event loop
 * from the others.
 */
static int on_readable(sd_event_source *source, int fd, uint32_t events, void *context)
{
    struct client *client = context;
    ssize_t n;

    (void)source;
    /* Nobody is there any more, whatever was still said. */
    if (events & EPOLLHUP) {
        client_destroy(client);
        return 0;
    }
    if (client->progress.state == ATTACH_ATTACHED && !client->untold) {
        n = read_attached(client, (events & EPOLLRDHUP) != 0);
        if (n == 0 || (n < 0 && n != -EAGAIN && n != -EINTR)) {
            client_destroy(client);
        }
        return 0;
    }
    if (client->progress.state == ATTACH_REFUSED) {
        n = client_drain(client);
    } else {
        n = fdmsg_recv(fd, (uint8_t *)&client->rx + client->rx_length,
                       sizeof(client->rx) - client->rx_length, client->rx_fds,
                       &client->rx_fd_count);
    }
    if (n == -EAGAIN) {
        return 0;
    }
    if (client->progress.state != ATTACH_REFUSED && !keeps_descriptors(client)) {
        return 0;
    }
    /* The message may not be complete yet, but none has so many descriptors. */
    if (n == -EMSGSIZE && client->progress.state != ATTACH_REFUSED) {
        client_refuse(client, "more than 16 descriptors came with one message");
        return 0;
    }
    /* End of file, or an error: the VM goes with its connection. */
    if (n <= 0) {
        client_destroy(client);
        return 0;
    }
    if (client->progress.state == ATTACH_REFUSED) {
        return 0;
    }
    client->rx_length += (size_t)n;
    if (client->rx_length == sizeof(client->rx)) {
        client->rx_length = 0;
        handle_message(client);
    }
    return 0;
}

static int on_client_timer(sd_event_source *source, uint64_t usec, void *context)
{
    struct client *client = context;

    (void)source;
    (void)usec;
    if (client->progress.state != ATTACH_REFUSED) {
        log_line_within(user_log(client), LOG_LEVEL_WARNING,
                        "process %d of user %ld connected and sent no whole HELLO; closing",
                        (int)client->peer.pid, (long)client->peer.uid);
    }
    client_destroy(client);
    return 0;
}

/*
 * Has the oldest connection whose device was unplugged end, so that it goes when the event loop
 * comes to it; false when there is none.
 */
static bool client_evict(const struct mediator *mediator)
{
    struct client *oldest = NULL;

    /* New ones come first in the list. */
    for (struct client *client = mediator->clients; client; client = client->next) {
        oldest = client->left ? client : oldest;
    }
    if (oldest) {
        oldest->left = false;
        client_hang_up(oldest);
    }
    return oldest != NULL;
}

static bool is_silent(const struct client *client)
{
    return !client->vm && !client->left && !client->ended;
}

/*
 * Ends the oldest connection that says nothing of the user who has most of them, so that several
 * users together cannot keep others out either. False when there is none. Users beyond the first
 * few are not counted: then those have enough.
 */
static bool end_silent(const struct mediator *mediator)
{
    struct {
        uid_t user;
        unsigned count;
        struct client *oldest;
    } users[USERS_COUNTED] = {0}, *most = NULL;
    unsigned known = 0;

    /* New ones come first in the list. */
    for (struct client *client = mediator->clients; client; client = client->next) {
        unsigned i = 0;

        while (i < known && users[i].user != client->peer.uid) {
            i++;
        }
        if (!is_silent(client) || i == USERS_COUNTED) {
            continue;
        }
        known = i == known ? known + 1 : known;
        users[i].user = client->peer.uid;
        users[i].count++;
        users[i].oldest = client;
        most = !most || users[i].count > most->count ? &users[i] : most;
    }
    if (most) {
        /* The event loop finds the end of file. */
        most->oldest->ended = true;
        client_hang_up(most->oldest);
    }
    return most != NULL;
}

/*
 * Whether there is room for another connection of this user's. A connection that was evicted counts
 * until the event loop has closed it, so for a moment there may be one more than the limit. Nobody
 * can fill the table with connections that say nothing: users who may attach nothing have few
 * places, another has half of them, and where it is full nevertheless who has most loses one.
 */
static bool room_for(const struct mediator *mediator, uid_t user)
{
    const size_t room = mediator->config.max_vms + CLIENTS_SPARE;
    const bool known = attach_knows_user(&mediator->config, user);
    size_t strangers = 0, silent = 0, most = SILENT_MIN;

    /* A device that was unplugged may come back, but one that comes now is more important. */
    if (mediator->client_count >= room && !client_evict(mediator) &&
        !(known && end_silent(mediator))) {
        return false;
    }
    for (const struct client *client = mediator->clients; client; client = client->next) {
        strangers += !known && !attach_knows_user(&mediator->config, client->peer.uid);
        silent += is_silent(client) && client->peer.uid == user;
    }
    /* After a reload there may be more VMs than may be attached now. */
    if (mediator->vm_count + 2 * (size_t)SILENT_MIN < room) {
        most = (room - mediator->vm_count) / 2;
    }
    return known ? silent < most : strangers < STRANGERS_MAX;
}

/*
 * Makes the record of a connection. It is listed before anything can fail, so that client_destroy()
 * is right from then on. Returns 0 or -errno; then nothing is left but the socket, which is closed.
 */
static int make_client(struct mediator *mediator, int fd, const struct ucred *peer,
                       struct client **made)
{
    struct client *client = calloc(1, sizeof(*client));
    int r;

    if (!client) {
        chores_hang_up(fd);
        return -ENOMEM;
    }
    client->mediator = mediator;
    client->fd = fd;
    client->peer = *peer;
    client->next = mediator->clients;
    client->place = &mediator->clients;
    if (client->next) {
        client->next->place = &client->next;
    }
    mediator->clients = client;
    mediator->client_count++;
    r = sd_event_add_io(mediator->event, &client->source, fd, EPOLLIN, on_readable, client);
    if (r >= 0) {
        r = sd_event_add_time_relative(mediator->event, &client->timer, CLOCK_MONOTONIC,
                                       HELLO_LIMIT_NS / NS_PER_US, 0, on_client_timer, client);
    }
    if (r < 0) {
        client_destroy(client);
        return r;
    }
    *made = client;
    return 0;
}

/* The kernel noted this user at connect(2). Another process may hold the socket by now. */
static bool peer_of(int fd, struct ucred *peer)
{
    socklen_t length = sizeof(*peer);

    return getsockopt(fd, SOL_SOCKET, SO_PEERCRED, peer, &length) == 0;
}

int client_create(struct mediator *mediator, int fd)
{
    struct client *client;
    struct ucred peer;

    if (!peer_of(fd, &peer) || !room_for(mediator, peer.uid)) {
        log_debug("too many connections; closing one");
        chores_hang_up(fd);
        return -EMFILE;
    }
    return make_client(mediator, fd, &peer, &client);
}

int client_adopt(struct mediator *mediator, int fd, struct vm *vm)
{
    struct client *client = NULL;
    struct ucred peer;
    int r = -EINVAL;

    if (peer_of(fd, &peer) && peer.uid == vm->user) {
        r = make_client(mediator, fd, &peer, &client);
    } else {
        chores_hang_up(fd);
    }
    if (r < 0) {
        vm_destroy(vm);
        return r;
    }
    client->vm = vm;
    client->progress = (struct attach_progress){.state = ATTACH_ATTACHED, .queues = vm->queues};
    vm->owner = (struct vm_owner){.client = client, .done = tell_done, .stored = tell_stored};
    sd_event_source_set_enabled(client->timer, SD_EVENT_OFF);
    tell_news(client);
    await_message(client);
    return 0;
}
