/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * vGPU stub: the PCI device through which a guest hands GPU work to the mediator.
 *
 * Theory of operation
 * -------------------
 * The device holds no policy and parses nothing. At attach the mediator hands it a
 * sealed memfd and eventfds (protocol/vgpu-attach.h). BAR2 maps the first part of the
 * memfd; the page behind it, the register page, is mapped here and holds the registers
 * that the worker changes. A doorbell is an ioeventfd, a completion an irqfd with KVM
 * and a handler in the main loop with TCG, so no request passes through the main loop
 * on its way to the worker. Register mode and each command queue (protocol/vgpu-queue.h)
 * have one of either; what goes through a queue's ring this device never sees.
 *
 * STATUS is where the pieces meet. With an ioeventfd the device does not see the
 * doorbell, so after one STATUS may still show the last request's outcome. A read
 * therefore looks whether the doorbell's eventfd is readable, which means BUSY, and
 * only then at the page. The worker stores BUSY in the page before it clears the
 * eventfd, so one of the two always shows it.
 *
 * The mediator may be absent when QEMU starts, and may come and go: descriptors and
 * mappings made at the first attach stay and are handed to the next mediator. While
 * there is none STATUS reads OFFLINE, and doorbells end here, ignored.
 *
 * A queue is opened and closed by the mediator, which counts in QUEUE_STATUS what it has
 * dealt with. There is at most one uncounted message for each queue, so that no guest can
 * fill the socket and stop its own processor in a write to it.
 *
 * The VM can be saved and migrated while the guest has no queue open: see "Migration".
 *
 * One file serves QEMU 7.2 to 10.x; what differs between them is in the section
 * "QEMU versions".
 */
#include "qemu/osdep.h"

#include <poll.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/un.h>

#include "qapi/error.h"
#include "qemu/cutils.h"
#include "qemu/error-report.h"
#include "qemu/event_notifier.h"
#include "qemu/log.h"
#include "qemu/module.h"
#include "qemu/timer.h"
#include "qemu/units.h"
#include "chardev/char-fe.h"
#include "chardev/char-socket.h"
#include "hw/pci/msi.h"
#include "hw/pci/msix.h"
#include "hw/qdev-properties-system.h"
#include "hw/qdev-properties.h"
#include "io/channel-socket.h"
#include "migration/blocker.h"
#include "migration/qemu-file-types.h"
#include "migration/vmstate.h"
#include "qom/object.h"

#include "vgpu-attach.h"
#include "vgpu-queue.h"
#include "vgpu-regs.h"

/* QEMU versions -------------------------------------------------------------------- */

#if __has_include("hw/pci/pci_device.h")
#include "hw/pci/pci_device.h"
#else
#include "hw/pci/pci.h"
#endif

#if __has_include("system/kvm.h")
#include "system/kvm.h"
#include "system/runstate.h"
#include "system/system.h"
#else
#include "sysemu/kvm.h"
#include "sysemu/runstate.h"
#include "sysemu/sysemu.h"
#endif

#define QEMU_AT_LEAST(major, minor)                                                                \
    (QEMU_VERSION_MAJOR > (major) ||                                                               \
     (QEMU_VERSION_MAJOR == (major) && QEMU_VERSION_MINOR >= (minor)))

#if !QEMU_AT_LEAST(10, 2)
typedef CharBackend CharFrontend;
#endif

/*
 * Whether QEMU itself connects this chardev again, by its option `reconnect`.
 */
static bool chr_reconnects(const SocketChardev *socket)
{
#if QEMU_AT_LEAST(9, 2)
    return socket->reconnect_time_ms != 0;
#else
    return socket->reconnect_time != 0;
#endif
}

/*
 * From 8.2 on the reason is QEMU's: it is freed, and *reason set to NULL, when
 * the blocker goes or cannot be added. Before that it stays the caller's.
 */
static int add_blocker(Error **reason, Error **errp)
{
#if QEMU_AT_LEAST(8, 2)
    return migrate_add_blocker(reason, errp);
#else
    return migrate_add_blocker(*reason, errp);
#endif
}

static void del_blocker(Error **reason)
{
#if QEMU_AT_LEAST(8, 2)
    migrate_del_blocker(reason);
#else
    migrate_del_blocker(*reason);
    error_free(*reason);
    *reason = NULL;
#endif
}

#if QEMU_AT_LEAST(10, 0)
#define PROPERTY_LIST static const Property
#define PROPERTY_LIST_END
#else
#define PROPERTY_LIST static Property
#define PROPERTY_LIST_END DEFINE_PROP_END_OF_LIST(),
#endif

#if QEMU_AT_LEAST(10, 1)
#define CLASS_DATA const void
#else
#define CLASS_DATA void
#endif

/*
 * A preloaded object cannot add to the trace events that a distribution's QEMU was built
 * with; there the events are empty.
 */
#ifdef VGPU_STUB_PRELOAD
#define trace_vgpu_stub_hello(...) ((void)0)
#define trace_vgpu_stub_attached(...) ((void)0)
#define trace_vgpu_stub_refused(...) ((void)0)
#define trace_vgpu_stub_detached(...) ((void)0)
#define trace_vgpu_stub_reset(...) ((void)0)
#define trace_vgpu_stub_reset_done(...) ((void)0)
#define trace_vgpu_stub_bad_access(...) ((void)0)
#define trace_vgpu_stub_doorbell_offline(...) ((void)0)
#define trace_vgpu_stub_queue(...) ((void)0)
#else
#include "trace.h"
#endif

/* State ---------------------------------------------------------------------------- */

#define TYPE_VGPU_STUB "vgpu-stub"
OBJECT_DECLARE_SIMPLE_TYPE(VgpuStub, VGPU_STUB)

/* How long the start of QEMU may wait for a connected mediator's answer. */
#define HANDSHAKE_TIMEOUT_MS 1000
/* How often a lost mediator is looked for, where the chardev does not do it. */
#define RECONNECT_MS 1000
/*
 * How long saving may wait, for a queue that is being closed and for a request that runs. QEMU's
 * main loop waits with it.
 */
#define STOP_TIMEOUT_MS 5000
/* How often it is looked whether what is in the way of saving has gone. */
#define UNBLOCK_MS 1000
/* Command queues, where the user names no number and there is room for as many. */
#define QUEUES_DEFAULT 16
#define QUEUES_UNSET UINT32_MAX
/* Doorbells, and interrupts likewise, at most: of register mode, then of each queue. */
#define CHANNELS_MAX (1 + VGPU_MAX_QUEUES)

/*
 * The link to the mediator.
 *
 * A new connection leads from OFFLINE to HELLO_SENT, ATTACHED to COLLECTING,
 * and the last of the descriptors to ATTACHED. The end of the connection, a
 * refusal and an answer that cannot be used lead back to OFFLINE, from
 * anywhere.
 *
 * Only in ATTACHED are doorbells wired and RESET and QUEUE sent; in all others
 * STATUS is OFFLINE. Descriptors and mappings of an earlier attach stay in all.
 */
typedef enum {
    LINK_OFFLINE,    /* not connected, or refused: nothing may be sent but a HELLO */
    LINK_HELLO_SENT, /* waiting for ATTACHED or REFUSED */
    LINK_COLLECTING, /* ATTACHED has come, not all of its descriptors */
    LINK_ATTACHED,   /* descriptors valid, a mediator watches over the worker */
} VgpuLink;

typedef struct {
    EventNotifier notifier;
    VgpuStub *stub;
    int virq;    /* KVM route, -1 without */
    bool irqfd;  /* KVM signals the guest by itself */
} VgpuVector;

struct VgpuStub {
    PCIDevice parent_obj;

    /* Properties. */
    CharFrontend chr;
    uint32_t vm_id;
    char *pool_name;
    char *priority_name;
    uint64_t shm_size;
    uint32_t queues;
    bool ioeventfd;

    /* Identity: as the properties ask, then as the mediator grants. */
    uint32_t pool;
    uint32_t priority;

    /* Link to the mediator. */
    VgpuLink link;
    uint32_t serial; /* of the HELLO or RESET that an answer is expected to */
    uint32_t mediator_flags; /* VGPU_ATTACHED_* */
    struct vgpu_msg rx;
    size_t rx_len;
    /* Those collected since ATTACHED, then those that came with rx, however many. */
    int rx_fds[VGPU_ATTACH_FDS_MAX + VGPU_MSG_FDS_MAX];
    unsigned rx_fds_collected;
    unsigned rx_fd_count; /* of both kinds */
    QEMUTimer *reconnect;
    char *last_refusal; /* to print a reason once, not at each try */

    /* From the first attach until unplug. */
    int memfd; /* -1 before */
    struct vgpu_regs_page *page;
    MemoryRegion ram;
    EventNotifier doorbell[CHANNELS_MAX];
    VgpuVector vector[CHANNELS_MAX];
    bool doorbells_wired;
    bool irqfds_on;

    bool reset_pending;     /* RESET sent, or to be sent at the next attach */
    uint32_t reset_flags;   /* VGPU_RESET_*, of the one that is pending */
    bool queue_since_reset; /* a QUEUE message followed that one */
    int32_t uncounted[VGPU_MAX_QUEUES]; /* count when QUEUE was last sent; -1: not sent */

    MemoryRegion regs;
    MemoryRegion shm;
    uint32_t bad_accesses;

    /* Migration, see there. */
    Error *migration_blocker;
    QEMUTimer *unblock;
    VMChangeStateEntry *run_state;
    uint32_t stop_serial;
    bool stop_sent;  /* STOP, without a CONTINUE since */
    bool stopped;    /* it was answered */
    bool loaded;     /* memory and page are another VM's, or of another time */
    bool attached;   /* saved: there is a page, and memory */
    bool doorbell_up; /* saved: a request was rung for and not taken */
    uint8_t saved_page[VGPU_REGS_SIZE];
};

static const char *const priority_names[VGPU_PRIORITIES] = { "low", "medium", "high" };

static void vgpu_stub_update_blocker(VgpuStub *s);

/* Doorbell ------------------------------------------------------------------------- */

/* Of register mode and of each queue: as many doorbells as interrupt vectors. */
static unsigned vgpu_stub_channels(const VgpuStub *s)
{
    return vgpu_attach_vectors(s->queues);
}

/* The ioeventfds are there only while attached: otherwise a doorbell ends in this device. */
static void vgpu_stub_wire_doorbells(VgpuStub *s, bool on)
{
    if (!s->ioeventfd || s->doorbells_wired == on) {
        return;
    }
    s->doorbells_wired = on;
    /* One change of the guest's memory map, not one for each doorbell. */
    memory_region_transaction_begin();
    for (unsigned i = 0; i < vgpu_stub_channels(s); i++) {
        hwaddr addr = i == 0 ? VGPU_REG_DOORBELL : VGPU_REG_QUEUE_DOORBELL + 4 * (i - 1);

        /* Size 4: TCG compares the size of the access exactly. */
        if (on) {
            memory_region_add_eventfd(&s->regs, addr, 4, false, 0, &s->doorbell[i]);
        } else {
            memory_region_del_eventfd(&s->regs, addr, 4, false, 0, &s->doorbell[i]);
        }
    }
    memory_region_transaction_commit();
}

/* A doorbell that comes to this device: while offline, and with ioeventfd=off. */
static void vgpu_stub_ring(VgpuStub *s, unsigned channel)
{
    if (s->link == LINK_ATTACHED) {
        event_notifier_set(&s->doorbell[channel]);
    } else {
        trace_vgpu_stub_doorbell_offline(s->vm_id);
    }
}

/* Whether a request in register mode was rung for and not yet taken. */
static bool vgpu_stub_doorbell_pending(VgpuStub *s)
{
    struct pollfd p = { .fd = event_notifier_get_fd(&s->doorbell[0]), .events = POLLIN };

    return poll(&p, 1, 0) == 1;
}

/*
 * Takes the mediator's eventfd. Others hold it too and could empty or fill it at any moment:
 * without O_NONBLOCK, which QEMU's sockets clear on what they receive, that would stop QEMU.
 */
static void vgpu_stub_init_notifier(EventNotifier *n, int fd)
{
    g_unix_set_fd_nonblocking(fd, true, NULL);
    event_notifier_init_fd(n, fd);
}

/* Interrupts ----------------------------------------------------------------------- */

/*
 * A completion that arrives in the main loop: with TCG, and with KVM for a
 * vector that has no route. While MSI-X is off the guest polls, and the signal
 * is dropped.
 */
static void vgpu_stub_interrupt(EventNotifier *n)
{
    VgpuVector *v = container_of(n, VgpuVector, notifier);
    PCIDevice *dev = PCI_DEVICE(v->stub);

    if (event_notifier_test_and_clear(n) && msix_enabled(dev)) {
        msix_notify(dev, v - v->stub->vector);
    }
}

/*
 * The guest may have changed address and data while the vector was masked, so
 * the route is brought up to date before KVM may signal by it.
 */
static int vgpu_stub_vector_unmask(PCIDevice *dev, unsigned i, MSIMessage msg)
{
    VgpuVector *v = &VGPU_STUB(dev)->vector[i];
    int ret;

    if (v->virq < 0 || v->irqfd) {
        return 0;
    }
    ret = kvm_irqchip_update_msi_route(kvm_state, v->virq, msg, dev);
    if (ret < 0) {
        return ret;
    }
    kvm_irqchip_commit_routes(kvm_state);
    ret = kvm_irqchip_add_irqfd_notifier_gsi(kvm_state, &v->notifier, NULL, v->virq);
    v->irqfd = ret >= 0;
    return ret < 0 ? ret : 0;
}

/*
 * A signal now stays in the eventfd. KVM finds it there when the vector is
 * unmasked, and vgpu_stub_vector_poll() when the guest asks before that.
 */
static void vgpu_stub_vector_mask(PCIDevice *dev, unsigned i)
{
    VgpuVector *v = &VGPU_STUB(dev)->vector[i];

    if (v->irqfd) {
        kvm_irqchip_remove_irqfd_notifier_gsi(kvm_state, &v->notifier, v->virq);
        v->irqfd = false;
    }
}

/*
 * The guest is about to read the pending bits. A signal for a masked vector is
 * in its eventfd and nowhere else, so it is moved to its bit first.
 */
static void vgpu_stub_vector_poll(PCIDevice *dev, unsigned first, unsigned end)
{
    VgpuStub *s = VGPU_STUB(dev);

    for (unsigned i = first; i < MIN(end, vgpu_stub_channels(s)); i++) {
        if (msix_is_masked(dev, i) && event_notifier_test_and_clear(&s->vector[i].notifier)) {
            msix_set_pending(dev, i);
        }
    }
}

/* Vectors that had a route are served by the handler in the main loop again. */
static void vgpu_stub_release_routes(VgpuStub *s)
{
    for (unsigned i = 0; i < vgpu_stub_channels(s); i++) {
        VgpuVector *v = &s->vector[i];

        vgpu_stub_vector_mask(PCI_DEVICE(s), i);
        if (v->virq >= 0) {
            kvm_irqchip_release_virq(kvm_state, v->virq);
            v->virq = -1;
            event_notifier_set_handler(&v->notifier, vgpu_stub_interrupt);
        }
    }
}

/*
 * Gives each vector a route in KVM. The irqfds come with the unmasking of
 * vectors; for those that are unmasked now msix_set_vector_notifiers() calls
 * that too.
 */
static void vgpu_stub_irqfds_on(VgpuStub *s)
{
    KVMRouteChange c = kvm_irqchip_begin_route_changes(kvm_state);
    PCIDevice *dev = PCI_DEVICE(s);

    s->irqfds_on = true;
    for (unsigned i = 0; i < vgpu_stub_channels(s); i++) {
        int virq = kvm_irqchip_add_msi_route(&c, i, dev);

        if (virq < 0) {
            /* The handler in the main loop goes on to serve this vector. */
            warn_report("vgpu-stub: VM %" PRIu32 ": no KVM route for vector %u: %s", s->vm_id, i,
                        strerror(-virq));
            continue;
        }
        s->vector[i].virq = virq;
        event_notifier_set_handler(&s->vector[i].notifier, NULL);
    }
    kvm_irqchip_commit_route_changes(&c);
    if (msix_set_vector_notifiers(dev, vgpu_stub_vector_unmask, vgpu_stub_vector_mask,
                                  vgpu_stub_vector_poll) < 0) {
        warn_report("vgpu-stub: VM %" PRIu32 ": KVM refused an interrupt's eventfd; interrupts "
                    "go through QEMU's main loop", s->vm_id);
        s->irqfds_on = false;
        vgpu_stub_release_routes(s);
    }
}

static void vgpu_stub_irqfds_off(VgpuStub *s)
{
    s->irqfds_on = false;
    msix_unset_vector_notifiers(PCI_DEVICE(s));
    vgpu_stub_release_routes(s);
}

/* Follows the guest's switching of MSI-X; the worker signals only while it is on. */
static void vgpu_stub_update_interrupts(VgpuStub *s)
{
    bool on = msix_enabled(PCI_DEVICE(s));

    if (s->memfd < 0) {
        return;
    }
    qatomic_set(&s->page->irq_wanted, on);
    if (kvm_msi_via_irqfd_enabled() && on != s->irqfds_on) {
        if (on) {
            vgpu_stub_irqfds_on(s);
        } else {
            vgpu_stub_irqfds_off(s);
        }
    }
}

/* Link to the mediator ------------------------------------------------------------- */

/* Unique over all devices: a device plugged anew on a connection sees old answers. */
static uint32_t vgpu_stub_new_serial(void)
{
    static uint32_t last;

    return ++last;
}

/* A serial for a message whose answer is from now on the one that is expected. */
static uint32_t vgpu_stub_expect_answer(VgpuStub *s)
{
    s->serial = vgpu_stub_new_serial();
    return s->serial;
}

/*
 * Sends a whole message. A full socket stops the caller, which may be a
 * processor of the guest: so a guest can cause only few messages that are not
 * yet answered.
 */
static void vgpu_stub_send(VgpuStub *s, uint32_t type, uint32_t serial, struct vgpu_msg *msg)
{
    msg->magic = VGPU_MSG_MAGIC;
    msg->version = VGPU_VERSION;
    msg->type = type;
    msg->serial = serial;
    /* A failed write shows as CHR_EVENT_CLOSED, which takes the device offline. */
    qemu_chr_fe_write_all(&s->chr, (const uint8_t *)msg, sizeof(*msg));
}

/* Sends a HELLO with the descriptors of an earlier attach, and those too many for it behind it. */
static void vgpu_stub_send_handover(VgpuStub *s, struct vgpu_msg *hello)
{
    uint32_t serial = vgpu_stub_expect_answer(s);
    unsigned count = vgpu_attach_fds(s->queues);
    int fds[VGPU_ATTACH_FDS_MAX];

    fds[VGPU_ATTACH_MEMFD] = s->memfd;
    for (unsigned i = 0; i < vgpu_stub_channels(s); i++) {
        fds[VGPU_ATTACH_DOORBELL + i] = event_notifier_get_fd(&s->doorbell[i]);
        fds[vgpu_attach_irq(s->queues) + i] = event_notifier_get_fd(&s->vector[i].notifier);
    }
    hello->hello.flags = VGPU_HELLO_HANDOVER;
    for (unsigned i = 0; i < count; i += VGPU_MSG_FDS_MAX) {
        struct vgpu_msg more = { 0 };

        qemu_chr_fe_set_msgfds(&s->chr, fds + i, MIN(count - i, VGPU_MSG_FDS_MAX));
        vgpu_stub_send(s, i == 0 ? VGPU_MSG_HELLO : VGPU_MSG_FDS, serial, i == 0 ? hello : &more);
    }
}

static void vgpu_stub_send_hello(VgpuStub *s)
{
    struct vgpu_msg msg = { 0 };
    const char *name = qemu_get_vm_name();

    msg.hello.vm_id = s->vm_id;
    /*
     * The properties again, and not s->pool and s->priority: the last mediator
     * has granted those, and they may be less.
     */
    msg.hello.pool = (unsigned char)s->pool_name[0];
    msg.hello.priority = s->priority;
    for (unsigned i = 0; i < VGPU_PRIORITIES; i++) {
        if (!strcmp(s->priority_name, priority_names[i])) {
            msg.hello.priority = i;
        }
    }
    msg.hello.vectors = vgpu_attach_vectors(s->queues);
    msg.hello.queues = s->queues;
    msg.hello.shm_size = s->shm_size;
    g_strlcpy(msg.hello.name, name ? name : "", sizeof(msg.hello.name));
    if (qemu_uuid_set) {
        memcpy(msg.hello.uuid, qemu_uuid.data, sizeof(msg.hello.uuid));
    }
    s->rx_len = 0;
    s->link = LINK_HELLO_SENT;
    trace_vgpu_stub_hello(s->vm_id, s->memfd >= 0);
    if (s->memfd >= 0) {
        vgpu_stub_send_handover(s, &msg);
    } else {
        vgpu_stub_send(s, VGPU_MSG_HELLO, vgpu_stub_expect_answer(s), &msg);
    }
}

static bool vgpu_stub_check_memfd(VgpuStub *s, int memfd, Error **errp)
{
    const int seals = F_SEAL_SHRINK | F_SEAL_GROW;
    struct stat st;

    /* Unsealed, it could be truncated under QEMU, whose next access would be a SIGBUS. */
    if ((fcntl(memfd, F_GET_SEALS) & seals) != seals) {
        error_setg(errp, "the mediator's memory is not sealed");
        return false;
    }
    if (fstat(memfd, &st) || (uint64_t)st.st_size != vgpu_memfd_size(s->shm_size)) {
        error_setg(errp, "the mediator's memory has %" PRIi64 " bytes, expected %" PRIu64,
                   (int64_t)st.st_size, vgpu_memfd_size(s->shm_size));
        return false;
    }
    return true;
}

/*
 * Takes the descriptors of the first attach. On success they belong to the device; on
 * failure the caller closes them.
 */
static bool vgpu_stub_map(VgpuStub *s, const int *fds, Error **errp)
{
    int memfd = fds[VGPU_ATTACH_MEMFD];
    Error *err = NULL;
    void *page;
    int ram_fd;

    if (!vgpu_stub_check_memfd(s, memfd, errp)) {
        return false;
    }
    page = mmap(NULL, VGPU_REGS_SIZE, PROT_READ | PROT_WRITE, MAP_SHARED, memfd,
                vgpu_regs_page_offset(s->shm_size));
    if (page == MAP_FAILED) {
        error_setg_errno(errp, errno, "cannot map the register page");
        return false;
    }
    /*
     * The memory region closes this one when it goes. The other is kept, for
     * the next mediator.
     */
    ram_fd = fcntl(memfd, F_DUPFD_CLOEXEC, 0);
    if (ram_fd < 0) {
        error_setg_errno(errp, errno, "cannot duplicate the memory's descriptor");
        munmap(page, VGPU_REGS_SIZE);
        return false;
    }
    memory_region_init_ram_from_fd(&s->ram, OBJECT(s), "vgpu-stub-ram", s->shm_size, RAM_SHARED,
                                   ram_fd, 0, &err);
    if (err) {
        error_propagate(errp, err);
        close(ram_fd);
        munmap(page, VGPU_REGS_SIZE);
        return false;
    }
    /*
     * Not guest RAM: this is what a dump of that goes by, here and nowhere else. A dump would read
     * all of it, and so have memory allocated that nobody has touched.
     */
    memory_region_set_nonvolatile(&s->ram, true);
    /* It covers the region that reads 0, which BAR2 has been until now. */
    memory_region_add_subregion(&s->shm, 0, &s->ram);

    s->memfd = memfd;
    s->page = page;
    for (unsigned i = 0; i < vgpu_stub_channels(s); i++) {
        EventNotifier *irq = &s->vector[i].notifier;

        vgpu_stub_init_notifier(&s->doorbell[i], fds[VGPU_ATTACH_DOORBELL + i]);
        vgpu_stub_init_notifier(irq, fds[vgpu_attach_irq(s->queues) + i]);
        event_notifier_set_handler(irq, vgpu_stub_interrupt);
    }
    return true;
}

/*
 * Asks for the running request to be dropped, with VGPU_RESET_QUEUES for the queues too; while
 * offline, at the next attach. One that is pending already is asked for again with it.
 */
static void vgpu_stub_request_reset(VgpuStub *s, uint32_t flags)
{
    bool ask = s->link == LINK_ATTACHED;

    trace_vgpu_stub_reset(s->vm_id, ask);
    s->reset_pending = true;
    s->reset_flags |= flags;
    s->queue_since_reset = false;
    if (ask) {
        struct vgpu_msg msg = { .reset.flags = s->reset_flags };

        vgpu_stub_send(s, VGPU_MSG_RESET, vgpu_stub_expect_answer(s), &msg);
    }
}

/* Closes what came with the last message, but not what is being collected. */
static void vgpu_stub_close_rx_fds(VgpuStub *s)
{
    while (s->rx_fd_count > s->rx_fds_collected) {
        close(s->rx_fds[--s->rx_fd_count]);
    }
}

/* No connection, or one of no use: back to where only a HELLO may be sent. */
static void vgpu_stub_offline(VgpuStub *s)
{
    vgpu_stub_wire_doorbells(s, false);
    s->link = LINK_OFFLINE;
    s->rx_len = 0;
    s->rx_fds_collected = 0;
    vgpu_stub_close_rx_fds(s);
    vgpu_stub_update_blocker(s);
}

/* A reason is kept, so that it is printed once and not at each new try. */
static void vgpu_stub_refused(VgpuStub *s, const char *reason)
{
    trace_vgpu_stub_refused(s->vm_id, reason);
    vgpu_stub_offline(s);
    if (g_strcmp0(reason, s->last_refusal)) {
        g_free(s->last_refusal);
        s->last_refusal = g_strdup(reason);
    }
}

static void vgpu_stub_go_online(VgpuStub *s)
{
    s->link = LINK_ATTACHED;
    g_clear_pointer(&s->last_refusal, g_free);
    /* What an earlier connection carried is either counted or lost. */
    for (unsigned i = 0; i < s->queues; i++) {
        s->uncounted[i] = -1;
    }
    /* Of a STOP that another one had this mediator knows nothing; what was loaded it finds. */
    s->stop_sent = s->loaded = false;
    vgpu_stub_wire_doorbells(s, true);
    vgpu_stub_update_interrupts(s);
    vgpu_stub_update_blocker(s);
    trace_vgpu_stub_attached(s->vm_id, (char)s->pool, s->priority);
    /*
     * It was asked for while offline, or its answer was lost with a mediator.
     */
    if (s->reset_pending) {
        vgpu_stub_request_reset(s, 0);
    }
}

/* Takes what came with ATTACHED or an FDS message behind it; the last of them attaches. */
static void vgpu_stub_collect(VgpuStub *s, Error **errp)
{
    unsigned all = s->memfd < 0 ? vgpu_attach_fds(s->queues) : 0;
    unsigned expected = MIN(all, s->rx_fds_collected + VGPU_MSG_FDS_MAX);

    if (s->rx_fd_count != expected) {
        error_setg(errp, "the mediator sent %u descriptors, not %u; the chardev must be a Unix "
                   "socket", s->rx_fd_count, expected);
        return;
    }
    s->rx_fds_collected = s->rx_fd_count;
    if (s->rx_fds_collected < all) {
        return;
    }
    if (s->memfd < 0) {
        if (!vgpu_stub_map(s, s->rx_fds, errp)) {
            return;
        }
        s->rx_fds_collected = s->rx_fd_count = 0;
    }
    vgpu_stub_go_online(s);
}

/*
 * The sizes have to be those that were asked for: BAR2 and the vectors are
 * registered with them. Pool and priority are for the mediator to decide.
 */
static void vgpu_stub_attached(VgpuStub *s, const struct vgpu_attached *a, Error **errp)
{
    uint32_t vectors = vgpu_attach_vectors(s->queues);

    if (a->shm_size != s->shm_size || a->queues != s->queues || a->vectors != vectors) {
        error_setg(errp, "the mediator offered %" PRIu64 " bytes, %" PRIu32 " queues and %" PRIu32
                   " vectors, not %" PRIu64 ", %" PRIu32 " and %" PRIu32, a->shm_size, a->queues,
                   a->vectors, s->shm_size, s->queues, vectors);
        return;
    }
    s->pool = a->pool;
    s->priority = a->priority;
    s->mediator_flags = a->flags;
    s->link = LINK_COLLECTING;
    vgpu_stub_collect(s, errp);
}

/* Whether the answer to a HELLO, all of it, is still to come. */
static bool vgpu_stub_attaching(const VgpuStub *s)
{
    return s->link == LINK_HELLO_SENT || s->link == LINK_COLLECTING;
}

/* Acts on the message in s->rx. A refusal or an unusable answer is in @errp, never NULL. */
static void vgpu_stub_message(VgpuStub *s, Error **errp)
{
    struct vgpu_msg *m = &s->rx;

    if (m->magic != VGPU_MSG_MAGIC || m->version >> 16 != VGPU_VERSION_MAJOR) {
        error_setg(errp, "the peer is no mediator of protocol version %u (magic 0x%08" PRIx32
                   ", version 0x%08" PRIx32 ")", VGPU_VERSION_MAJOR, m->magic, m->version);
    } else if (m->type == VGPU_MSG_STOPPED) {
        s->stopped = s->stopped || m->serial == s->stop_serial;
    } else if (m->type == VGPU_MSG_ATTACHED && m->serial == 0 && s->link == LINK_ATTACHED) {
        /* Another mediator has taken over. */
        s->mediator_flags = m->attached.flags;
        vgpu_stub_update_blocker(s);
    } else if (m->serial != s->serial) {
        /* The answer to a device that was unplugged from this connection. */
    } else if (m->type == VGPU_MSG_ATTACHED && s->link == LINK_HELLO_SENT) {
        vgpu_stub_attached(s, &m->attached, errp);
    } else if (m->type == VGPU_MSG_FDS && s->link == LINK_COLLECTING) {
        vgpu_stub_collect(s, errp);
    } else if (m->type == VGPU_MSG_REFUSED && vgpu_stub_attaching(s)) {
        m->refused.reason[sizeof(m->refused.reason) - 1] = '\0';
        error_setg(errp, "the mediator refused VM %" PRIu32 ": %s", s->vm_id, m->refused.reason);
    } else if (m->type == VGPU_MSG_RESET_DONE) {
        s->reset_pending = false;
        s->reset_flags = 0;
        trace_vgpu_stub_reset_done(s->vm_id);
    }
    if (*errp) {
        vgpu_stub_refused(s, error_get_pretty(*errp));
    }
    vgpu_stub_close_rx_fds(s);
}

static void vgpu_stub_take_fds(VgpuStub *s)
{
    int fds[VGPU_MSG_FDS_MAX];
    int n = qemu_chr_fe_get_msgfds(&s->chr, fds, VGPU_MSG_FDS_MAX);

    for (int i = 0; i < n; i++) {
        if (s->rx_fd_count < ARRAY_SIZE(s->rx_fds)) {
            s->rx_fds[s->rx_fd_count++] = fds[i];
        } else {
            /* vgpu_stub_collect() finds that there were too many. */
            close(fds[i]);
        }
    }
}

/*
 * QEMU never reads beyond the end of a message, so that the descriptors which
 * it has then belong to that message.
 */
static int vgpu_stub_can_receive(void *opaque)
{
    VgpuStub *s = opaque;

    return sizeof(s->rx) - s->rx_len;
}

static void vgpu_stub_receive(void *opaque, const uint8_t *buf, int size)
{
    VgpuStub *s = opaque;
    g_autofree char *known = g_strdup(s->last_refusal);
    Error *err = NULL;

    vgpu_stub_take_fds(s);
    /*
     * More than there is room for comes where vgpu_stub_hear() has taken a part meanwhile: QEMU had
     * asked how much may come before that. It is the beginning of the next message.
     */
    while (size > 0 && !err) {
        int part = MIN(size, (int)(sizeof(s->rx) - s->rx_len));

        memcpy((uint8_t *)&s->rx + s->rx_len, buf, part);
        s->rx_len += part;
        buf += part;
        size -= part;
        if (s->rx_len == sizeof(s->rx)) {
            s->rx_len = 0;
            vgpu_stub_message(s, &err);
        }
    }
    if (err) {
        /* Whoever is at the other end is of no use; the next connection may be. */
        qemu_chr_fe_disconnect(&s->chr);
        if (g_strcmp0(known, s->last_refusal)) {
            error_reportf_err(err, "vgpu-stub: ");
        } else {
            error_free(err);
        }
    }
}

/* The socket behind the chardev; NULL when it is of another kind. */
static SocketChardev *vgpu_stub_socket(VgpuStub *s)
{
    Object *chr = object_dynamic_cast(OBJECT(qemu_chr_fe_get_driver(&s->chr)),
                                      TYPE_CHARDEV_SOCKET);

    return chr ? SOCKET_CHARDEV(chr) : NULL;
}

/*
 * Whether this device itself has to look for a lost mediator: its socket is a
 * client of a Unix path that QEMU would not connect again. An inherited descriptor has
 * no path to go back to.
 */
static bool vgpu_stub_reconnects(VgpuStub *s)
{
    SocketChardev *socket = vgpu_stub_socket(s);

    return socket && !socket->is_listen && !chr_reconnects(socket) && socket->addr &&
           socket->addr->type == SOCKET_ADDRESS_TYPE_UNIX;
}

/* Whether somebody listens and has room: a full backlog would block QEMU's own connect. */
static bool vgpu_stub_mediator_listens(VgpuStub *s)
{
    const char *path = vgpu_stub_socket(s)->addr->u.q_unix.path;
    struct sockaddr_un un = { .sun_family = AF_UNIX };
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    bool listens;

    g_strlcpy(un.sun_path, path, sizeof(un.sun_path));
    listens = fd >= 0 && connect(fd, (struct sockaddr *)&un, sizeof(un)) == 0;
    if (fd >= 0) {
        close(fd);
    }
    return listens;
}

static void vgpu_stub_reconnect(void *opaque)
{
    VgpuStub *s = opaque;

    /* Success arrives as CHR_EVENT_OPENED. */
    if (!qemu_chr_fe_backend_open(&s->chr) &&
        (!vgpu_stub_mediator_listens(s) || qemu_chr_fe_wait_connected(&s->chr, NULL) < 0)) {
        timer_mod(s->reconnect, qemu_clock_get_ms(QEMU_CLOCK_REALTIME) + RECONNECT_MS);
    }
}

/*
 * QEMU also tells of a connection that is open when the handlers are set. On
 * that one vgpu_stub_handshake() has said HELLO already; hence the look at the
 * link.
 */
static void vgpu_stub_event(void *opaque, QEMUChrEvent event)
{
    VgpuStub *s = opaque;

    if (event == CHR_EVENT_OPENED && s->link == LINK_OFFLINE) {
        vgpu_stub_send_hello(s);
    } else if (event == CHR_EVENT_CLOSED) {
        if (s->link == LINK_ATTACHED) {
            trace_vgpu_stub_detached(s->vm_id);
        }
        vgpu_stub_offline(s);
        if (vgpu_stub_reconnects(s)) {
            timer_mod(s->reconnect, qemu_clock_get_ms(QEMU_CLOCK_REALTIME) + RECONNECT_MS);
        }
    }
}

typedef enum {
    HEARD_MESSAGE,
    HEARD_NOTHING, /* in time */
    HEARD_END,     /* of the connection */
} VgpuHeard;

/*
 * Waits for the next message, or the rest of it, until @end, which is a time of
 * g_get_monotonic_time(), and acts on it. The link must be up.
 */
static VgpuHeard vgpu_stub_hear(VgpuStub *s, int64_t end, Error **errp)
{
    struct pollfd p = { .fd = vgpu_stub_socket(s)->sioc->fd, .events = POLLIN };

    while (s->rx_len < sizeof(s->rx)) {
        int left = MAX(end - g_get_monotonic_time(), 0) / 1000;
        int queued = 0, part;

        if (poll(&p, 1, left) != 1 || ioctl(p.fd, FIONREAD, &queued) < 0) {
            return HEARD_NOTHING;
        }
        /* No more than is there: reading blocks. Where nothing is there it is the end. */
        part = MIN(MAX(queued, 1), (int)(sizeof(s->rx) - s->rx_len));
        if (qemu_chr_fe_read_all(&s->chr, (uint8_t *)&s->rx + s->rx_len, part) != part) {
            vgpu_stub_offline(s);
            return HEARD_END;
        }
        vgpu_stub_take_fds(s);
        s->rx_len += part;
    }
    s->rx_len = 0;
    vgpu_stub_message(s, errp);
    return HEARD_MESSAGE;
}

/*
 * The handshake with a mediator that is connected already, so that a refusal can
 * stop QEMU's start with its reason. One that does not answer in time is heard later.
 */
static bool vgpu_stub_handshake(VgpuStub *s, Error **errp)
{
    int64_t end = g_get_monotonic_time() + HANDSHAKE_TIMEOUT_MS * 1000;

    if (!vgpu_stub_socket(s)) {
        error_setg(errp, "vgpu-stub: property 'chardev': must be a socket");
        return false;
    }
    /* The handlers are not set yet, so nobody else reads from the socket. */
    vgpu_stub_send_hello(s);
    while (vgpu_stub_attaching(s) && qemu_chr_fe_backend_open(&s->chr)) {
        Error *err = NULL;

        switch (vgpu_stub_hear(s, end, &err)) {
        case HEARD_NOTHING:
            warn_report("vgpu-stub: VM %" PRIu32 ": the mediator has not answered within %d ms; "
                        "the device stays offline until it does", s->vm_id,
                        HANDSHAKE_TIMEOUT_MS);
            return true;
        case HEARD_END:
            /* It went away; it may come back, as at any other time. */
            return true;
        case HEARD_MESSAGE:
            break;
        }
        if (err) {
            error_propagate_prepend(errp, err, "vgpu-stub: ");
            return false;
        }
    }
    return true;
}

/* Queues --------------------------------------------------------------------------- */

/* Acquire: pairs with the mediator's store of state, reason and count. */
static uint32_t vgpu_stub_queue_status(VgpuStub *s, unsigned queue)
{
    return qatomic_load_acquire(&s->page->queue_status[queue]);
}

/* Whether the last QUEUE message about a queue is still to be acted upon. */
static bool vgpu_stub_queue_uncounted(VgpuStub *s, unsigned queue)
{
    return s->uncounted[queue] == (int32_t)vgpu_queue_count(vgpu_stub_queue_status(s, queue));
}

/* Whether there is something that a guest's reset has to end: a session, or one being opened. */
static bool vgpu_stub_queues_used(VgpuStub *s)
{
    for (unsigned i = 0; i < s->queues; i++) {
        if (vgpu_queue_state(vgpu_stub_queue_status(s, i)) != VGPU_QUEUE_FREE ||
            vgpu_stub_queue_uncounted(s, i)) {
            return true;
        }
    }
    return false;
}

/*
 * Opens or closes a queue. Nothing happens while the message before about this
 * queue is not yet counted: the guest has to wait for that, docs/registers.md.
 */
static void vgpu_stub_control_queue(VgpuStub *s, unsigned queue, uint32_t action)
{
    struct vgpu_msg msg = { .queue = { .queue = queue, .action = action } };

    if (s->link != LINK_ATTACHED || vgpu_stub_queue_uncounted(s, queue)) {
        return;
    }
    s->uncounted[queue] = vgpu_queue_count(vgpu_stub_queue_status(s, queue));
    s->queue_since_reset = true;
    trace_vgpu_stub_queue(s->vm_id, queue, action);
    /* Serial 0, which no answer is matched with: that of a RESET may be outstanding. */
    vgpu_stub_send(s, VGPU_MSG_QUEUE, 0, &msg);
    vgpu_stub_update_blocker(s);
}

/* Migration ------------------------------------------------------------------------ */

/*
 * What a VM has here, once it has no queue open, is the register page, the memory of BAR2, and
 * whether register mode's doorbell is up. STOP has the mediator finish the request that runs; a
 * request that has not begun is in the page, and is begun by a worker of the other host. CONTINUE
 * is sent when the VM runs: here again, or there, where the page was filled with all that.
 *
 * The memory is part of the device's state, and goes when the VM stands. As guest RAM it would go
 * before, but by QEMU's own log of what is written there, and that does not see the workers; and it
 * would all be read, and so allocated.
 *
 * With a queue open there is a blocker, which says which. One that is opened while a migration runs
 * makes that fail.
 */

/* Why the state cannot be saved now; NULL: it can. To be freed. */
static char *vgpu_stub_obstacle(VgpuStub *s)
{
    g_autoptr(GString) open = NULL;

    if (s->memfd < 0) {
        return NULL; /* the guest has nothing here yet */
    }
    if (s->link != LINK_ATTACHED) {
        return g_strdup("no mediator is running, or it has refused the VM");
    }
    if (!(s->mediator_flags & VGPU_ATTACHED_STOPS)) {
        return g_strdup("its mediator is of an older release than this device; upgrade that");
    }
    for (unsigned i = 0; i < s->queues; i++) {
        uint32_t state = vgpu_queue_state(vgpu_stub_queue_status(s, i));

        if (state == VGPU_QUEUE_STARTING || state == VGPU_QUEUE_RUNNING ||
            vgpu_stub_queue_uncounted(s, i)) {
            if (!open) {
                open = g_string_new("");
            }
            g_string_append_printf(open, "%s%u", open->len ? ", " : "", i);
        }
    }
    return open ? g_strdup_printf("programs in the guest use the GPU (queues: %s); what they have "
                                  "there cannot be moved: end them first", open->str)
                : NULL;
}

/* Follows what is in the way. One cannot be added while a migration runs, or where none may be. */
static void vgpu_stub_update_blocker(VgpuStub *s)
{
    g_autofree char *why = NULL, *text = NULL;
    Error *err = NULL;

    if (!s->unblock) {
        return; /* not realized yet, or not any more */
    }
    why = vgpu_stub_obstacle(s);
    text = why ? g_strdup_printf("vgpu-stub: VM %" PRIu32 " cannot be saved or migrated: %s",
                                 s->vm_id, why) : NULL;
    if (s->migration_blocker &&
        (!text || strcmp(text, error_get_pretty(s->migration_blocker)) != 0)) {
        del_blocker(&s->migration_blocker);
    }
    if (text && !s->migration_blocker) {
        error_setg(&s->migration_blocker, "%s", text);
        if (add_blocker(&s->migration_blocker, &err) < 0) {
            error_free(err);
            error_free(s->migration_blocker);
            s->migration_blocker = NULL;
        }
    }
    if (text) {
        timer_mod(s->unblock, qemu_clock_get_ms(QEMU_CLOCK_REALTIME) + UNBLOCK_MS);
    } else {
        timer_del(s->unblock);
    }
}

static void vgpu_stub_on_unblock(void *opaque)
{
    vgpu_stub_update_blocker(opaque);
}

static int64_t vgpu_stub_stop_limit(void)
{
    return g_get_monotonic_time() + STOP_TIMEOUT_MS * 1000;
}

/* Has the mediator let go of memory and page, and waits for that. With the VM standing. */
static bool vgpu_stub_stop(VgpuStub *s, int64_t end, Error **errp)
{
    struct vgpu_msg msg = { 0 };

    s->stopped = false;
    s->stop_sent = true;
    s->stop_serial = vgpu_stub_new_serial();
    vgpu_stub_send(s, VGPU_MSG_STOP, s->stop_serial, &msg);
    while (!s->stopped && s->link == LINK_ATTACHED && qemu_chr_fe_backend_open(&s->chr)) {
        Error *err = NULL;

        if (vgpu_stub_hear(s, end, &err) == HEARD_NOTHING) {
            error_setg(errp, "its request has not ended within %d s; try again",
                       STOP_TIMEOUT_MS / 1000);
            return false;
        }
        if (err) {
            error_propagate(errp, err);
            qemu_chr_fe_disconnect(&s->chr);
            return false;
        }
    }
    if (!s->stopped) {
        error_setg(errp, "the mediator went away");
    }
    return s->stopped;
}

/* A queue that the guest has just closed is closed by the mediator, without QEMU. */
static void vgpu_stub_await_closing(VgpuStub *s, int64_t end)
{
    for (unsigned i = 0; s->memfd >= 0 && s->link == LINK_ATTACHED && i < s->queues; i++) {
        while (vgpu_stub_queue_uncounted(s, i) && g_get_monotonic_time() < end) {
            g_usleep(1000);
        }
    }
}

static int vgpu_stub_pre_save(void *opaque)
{
    VgpuStub *s = opaque;
    int64_t end = vgpu_stub_stop_limit();
    g_autofree char *why = NULL;
    Error *err = NULL;

    vgpu_stub_await_closing(s, end);
    why = vgpu_stub_obstacle(s);
    if (!why && s->memfd >= 0 && !vgpu_stub_stop(s, end, &err)) {
        why = g_strdup(error_get_pretty(err));
        error_free(err);
    }
    if (why) {
        error_report("vgpu-stub: VM %" PRIu32 " cannot be saved or migrated: %s", s->vm_id, why);
        return -EBUSY;
    }
    s->attached = s->memfd >= 0;
    s->doorbell_up = s->attached && vgpu_stub_doorbell_pending(s);
    if (s->attached) {
        memcpy(s->saved_page, s->page, sizeof(s->saved_page));
    }
    return 0;
}

/* Has the mediator let go of what is to be filled, unless it has done so already. */
static int vgpu_stub_stop_to_load(VgpuStub *s)
{
    Error *err = NULL;

    if (s->memfd < 0 || (s->link == LINK_ATTACHED && s->stop_sent && s->stopped)) {
        return 0;
    }
    if (s->link != LINK_ATTACHED || !(s->mediator_flags & VGPU_ATTACHED_STOPS)) {
        error_report("vgpu-stub: VM %" PRIu32 " cannot be loaded: %s", s->vm_id,
                     s->link != LINK_ATTACHED ? "no mediator is running, or it has refused the VM"
                                              : "the mediator is of an older release");
        return -EINVAL;
    }
    if (!vgpu_stub_stop(s, vgpu_stub_stop_limit(), &err)) {
        error_reportf_err(err, "vgpu-stub: VM %" PRIu32 " cannot be loaded: ", s->vm_id);
        return -EBUSY;
    }
    return 0;
}

/* Before anything is filled. The queues of what was here are closed: the machine was reset. */
static int vgpu_stub_pre_load(void *opaque)
{
    VgpuStub *s = opaque;

    s->stop_sent = false;
    return vgpu_stub_stop_to_load(s);
}

static int vgpu_stub_post_load(void *opaque, int version_id)
{
    VgpuStub *s = opaque;
    uint32_t features, irq_wanted;
    int ret;

    if (!s->attached) {
        return 0;
    }
    /*
     * A mediator may have come while the state did: then its worker has seen a page without a
     * request, and is to look at this one.
     */
    ret = vgpu_stub_stop_to_load(s);
    if (ret < 0) {
        return ret;
    }
    /* These two are of this host, and of this device. */
    features = s->page->features;
    irq_wanted = s->page->irq_wanted;
    memcpy(s->page, s->saved_page, sizeof(s->saved_page));
    s->page->features = features;
    s->page->irq_wanted = irq_wanted;
    for (unsigned i = 0; i < s->queues; i++) {
        s->uncounted[i] = -1;
    }
    event_notifier_test_and_clear(&s->doorbell[0]);
    if (s->doorbell_up) {
        event_notifier_set(&s->doorbell[0]);
    }
    vgpu_stub_update_interrupts(s);
    /* One may have been on its way when the VM was saved. One too many says nothing new. */
    for (unsigned i = 0; i < vgpu_stub_channels(s); i++) {
        event_notifier_set(&s->vector[i].notifier);
    }
    s->loaded = true;
    vgpu_stub_update_blocker(s);
    return 0;
}

static void vgpu_stub_go_on(VgpuStub *s)
{
    struct vgpu_msg msg = { .go_on.flags = s->loaded ? VGPU_CONTINUE_LOADED : 0 };

    if (s->stop_sent && s->link == LINK_ATTACHED) {
        vgpu_stub_send(s, VGPU_MSG_CONTINUE, 0, &msg);
        s->stop_sent = s->loaded = false;
    }
}

static void vgpu_stub_run_state(void *opaque, bool running, RunState state)
{
    if (running) {
        vgpu_stub_go_on(opaque);
    }
}

/* The memory: pieces, each with its place and length in bytes, and a place that there is not. */
#define SHM_END UINT64_MAX
#define SHM_PAGE 4096u
#define SHM_PIECE_MAX (1u << 20)

/* The next piece at @offset or behind it that is not all zeros, up to @end; its length, or 0. */
static uint32_t vgpu_stub_next_piece(const uint8_t *ram, uint64_t *offset, uint64_t end)
{
    uint32_t length = 0;

    while (*offset < end && buffer_is_zero(ram + *offset, SHM_PAGE)) {
        *offset += SHM_PAGE;
    }
    while (*offset + length < end && length < SHM_PIECE_MAX &&
           !buffer_is_zero(ram + *offset + length, SHM_PAGE)) {
        length += SHM_PAGE;
    }
    return length;
}

/* Holes are not read: that would allocate them. */
static int vgpu_stub_put_shm(QEMUFile *f, void *pv, size_t size, const VMStateField *field,
                             JSONWriter *vmdesc)
{
    VgpuStub *s = pv;
    const uint8_t *ram = memory_region_get_ram_ptr(&s->ram);
    off_t data = 0, hole = 0;

    while ((data = lseek(s->memfd, hole, SEEK_DATA)) >= 0 && (uint64_t)data < s->shm_size) {
        uint64_t offset = ROUND_DOWN((uint64_t)data, SHM_PAGE);
        uint32_t length;

        hole = lseek(s->memfd, data, SEEK_HOLE);
        if (hole < 0) {
            break;
        }
        hole = MIN((uint64_t)hole, s->shm_size);
        while ((length = vgpu_stub_next_piece(ram, &offset, hole)) != 0) {
            qemu_put_be64(f, offset);
            qemu_put_be32(f, length);
            qemu_put_buffer(f, ram + offset, length);
            offset += length;
        }
    }
    if ((data < 0 || hole < 0) && errno != ENXIO) {
        error_report("vgpu-stub: VM %" PRIu32 ": cannot find what is in its memory: %s", s->vm_id,
                     strerror(errno));
        return -EIO;
    }
    qemu_put_be64(f, SHM_END);
    return 0;
}

static int vgpu_stub_get_shm(QEMUFile *f, void *pv, size_t size, const VMStateField *field)
{
    VgpuStub *s = pv;
    uint8_t *ram;
    uint64_t offset;

    if (s->memfd < 0) {
        error_report("vgpu-stub: VM %" PRIu32 " cannot be loaded: no mediator has taken it yet; "
                     "start the mediator first, or see why it has refused the VM", s->vm_id);
        return -ENODEV;
    }
    ram = memory_region_get_ram_ptr(&s->ram);
    if (fallocate(s->memfd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, 0, s->shm_size) < 0) {
        error_report("vgpu-stub: VM %" PRIu32 ": cannot empty its memory: %s", s->vm_id,
                     strerror(errno));
        return -EIO;
    }
    while ((offset = qemu_get_be64(f)) != SHM_END) {
        uint32_t length = qemu_get_be32(f);

        if (length == 0 || offset > s->shm_size || length > s->shm_size - offset) {
            error_report("vgpu-stub: VM %" PRIu32 ": what was saved has %" PRIu32 " bytes at offset "
                         "%" PRIu64 " of a memory of %" PRIu64, s->vm_id, length, offset,
                         s->shm_size);
            return -EINVAL;
        }
        if (qemu_get_buffer(f, ram + offset, length) != length) {
            return -EIO;
        }
    }
    return 0;
}

static const VMStateInfo vgpu_stub_shm_info = {
    .name = "vgpu-stub-shm",
    .get = vgpu_stub_get_shm,
    .put = vgpu_stub_put_shm,
};

static bool vgpu_stub_has_memory(void *opaque, int version_id)
{
    return ((VgpuStub *)opaque)->attached;
}

static const VMStateDescription vgpu_stub_vmstate = {
    .name = TYPE_VGPU_STUB,
    .version_id = 1,
    .minimum_version_id = 1,
    .pre_save = vgpu_stub_pre_save,
    .pre_load = vgpu_stub_pre_load,
    .post_load = vgpu_stub_post_load,
    .fields = (VMStateField[]) {
        /* First what says best why the rest would not fit. */
        VMSTATE_UINT32_EQUAL(vm_id, VgpuStub, "vgpu-stub: the device's vm-id differs"),
        VMSTATE_UINT64_EQUAL(shm_size, VgpuStub, "vgpu-stub: the device's shm differs"),
        VMSTATE_UINT32_EQUAL(queues, VgpuStub, "vgpu-stub: the device's queues differ"),
        VMSTATE_PCI_DEVICE(parent_obj, VgpuStub),
        VMSTATE_MSIX(parent_obj, VgpuStub),
        VMSTATE_BOOL(attached, VgpuStub),
        VMSTATE_BOOL(doorbell_up, VgpuStub),
        VMSTATE_BUFFER(saved_page, VgpuStub),
        {
            .name = "shm",
            .size = sizeof(VgpuStub),
            .info = &vgpu_stub_shm_info,
            .flags = VMS_SINGLE,
            .field_exists = vgpu_stub_has_memory,
        },
        VMSTATE_END_OF_LIST()
    },
};

/* Registers ------------------------------------------------------------------------ */

static uint32_t vgpu_stub_status(VgpuStub *s)
{
    if (s->link != LINK_ATTACHED) {
        return VGPU_STATUS_OFFLINE;
    }
    /* The page is read after the eventfd: see the top of this file. */
    if (s->reset_pending || vgpu_stub_doorbell_pending(s)) {
        return VGPU_STATUS_BUSY;
    }
    return qatomic_load_acquire(&s->page->status);
}

/*
 * Of the page only the backend bits count, which are the worker's. The others
 * are this device's own.
 */
static uint32_t vgpu_stub_features(VgpuStub *s)
{
    uint32_t backend = VGPU_FEATURE_BACKEND_CPU | VGPU_FEATURE_BACKEND_GPU;

    if (!s->page) {
        return VGPU_FEATURE_MSIX;
    }
    return VGPU_FEATURE_SHM | VGPU_FEATURE_MSIX | (s->queues ? VGPU_FEATURE_QUEUES : 0) |
           (qatomic_read(&s->page->features) & backend);
}

/* Whether the word at @addr is in [@start, @start + @size). */
static bool in_buffer(hwaddr addr, uint32_t start, uint32_t size)
{
    return addr >= start && addr < start + size;
}

/* Whether the word at @addr is that of an existing queue, in the array of words at @start. */
static bool in_queues(const VgpuStub *s, hwaddr addr, uint32_t start)
{
    return in_buffer(addr, start, 4 * s->queues);
}

/* A word of the register page, or NULL while there is none. */
static uint32_t *vgpu_stub_word(VgpuStub *s, hwaddr addr)
{
    return s->page ? (uint32_t *)((uint8_t *)s->page + addr) : NULL;
}

static void vgpu_stub_bad_access(VgpuStub *s, bool write, hwaddr addr, unsigned size)
{
    s->bad_accesses++;
    trace_vgpu_stub_bad_access(write, addr, size);
}

/* Accesses of any other width or alignment are counted and do nothing. */
static bool vgpu_stub_good_access(VgpuStub *s, bool write, hwaddr addr, unsigned size)
{
    if (size == 4 && addr % 4 == 0) {
        return true;
    }
    vgpu_stub_bad_access(s, write, addr, size);
    return false;
}

static uint64_t vgpu_stub_regs_read(void *opaque, hwaddr addr, unsigned size)
{
    VgpuStub *s = opaque;
    uint32_t *word;

    if (!vgpu_stub_good_access(s, false, addr, size)) {
        return 0;
    }
    switch (addr) {
    case VGPU_REG_MAGIC:
        return VGPU_MAGIC;
    case VGPU_REG_VERSION:
        return VGPU_VERSION;
    case VGPU_REG_POOL_ID:
        return s->pool;
    case VGPU_REG_PRIORITY:
        return s->priority;
    case VGPU_REG_VM_ID:
        return s->vm_id;
    case VGPU_REG_FEATURES:
        return vgpu_stub_features(s);
    case VGPU_REG_STATUS:
        return vgpu_stub_status(s);
    case VGPU_REG_SHM_SIZE_LO:
        return (uint32_t)s->shm_size;
    case VGPU_REG_SHM_SIZE_HI:
        return s->shm_size >> 32;
    case VGPU_REG_NUM_QUEUES:
        return s->page ? s->queues : 0;
    case VGPU_REG_CONTROL:
        return s->reset_pending ? VGPU_CONTROL_RESET : 0;
    case VGPU_REG_REQUEST_LEN:
    case VGPU_REG_RESPONSE_LEN:
    case VGPU_REG_ERROR:
    case VGPU_REG_GENERATION:
        break;
    default:
        if (!in_buffer(addr, VGPU_REG_REQUEST, VGPU_REQUEST_MAX) &&
            !in_buffer(addr, VGPU_REG_RESPONSE, VGPU_RESPONSE_MAX) &&
            !in_buffer(addr, VGPU_REG_CARD, VGPU_CARD_MAX) &&
            !in_queues(s, addr, VGPU_REG_QUEUE_STATUS)) {
            return 0;
        }
    }
    /* Who closes a queue waits for that here, and may then be migrated. */
    if (s->migration_blocker && in_queues(s, addr, VGPU_REG_QUEUE_STATUS)) {
        vgpu_stub_update_blocker(s);
    }
    word = vgpu_stub_word(s, addr);
    /* Acquire: pairs with the mediator's stores of QUEUE_STATUS and of the card. */
    return word ? qatomic_load_acquire(word) : 0;
}

static void vgpu_stub_regs_write(void *opaque, hwaddr addr, uint64_t value, unsigned size)
{
    VgpuStub *s = opaque;
    uint32_t *word = vgpu_stub_word(s, addr);

    if (!vgpu_stub_good_access(s, true, addr, size)) {
        return;
    }
    if (addr == VGPU_REG_REQUEST_LEN || in_buffer(addr, VGPU_REG_REQUEST, VGPU_REQUEST_MAX)) {
        if (word) {
            qatomic_set(word, value);
        }
    } else if (addr == VGPU_REG_DOORBELL) {
        vgpu_stub_ring(s, 0);
    } else if (in_queues(s, addr, VGPU_REG_QUEUE_DOORBELL)) {
        vgpu_stub_ring(s, 1 + (addr - VGPU_REG_QUEUE_DOORBELL) / 4);
    } else if (in_queues(s, addr, VGPU_REG_QUEUE_CONTROL)) {
        if (value == VGPU_QUEUE_OPEN || value == VGPU_QUEUE_CLOSE) {
            vgpu_stub_control_queue(s, (addr - VGPU_REG_QUEUE_CONTROL) / 4, value);
        } else {
            vgpu_stub_bad_access(s, true, addr, size);
        }
    } else if (addr == VGPU_REG_CONTROL) {
        /* One at a time: a guest must not fill the socket with resets. */
        if ((value & VGPU_CONTROL_RESET) && !s->reset_pending && s->memfd >= 0) {
            vgpu_stub_request_reset(s, 0);
        }
    }
}

/* All widths arrive here, so that a bad one is counted and reads 0. */
static const MemoryRegionOps vgpu_stub_regs_ops = {
    .read = vgpu_stub_regs_read,
    .write = vgpu_stub_regs_write,
    .endianness = DEVICE_LITTLE_ENDIAN,
    .valid = { .min_access_size = 1, .max_access_size = 8, .unaligned = true },
    .impl = { .min_access_size = 1, .max_access_size = 8, .unaligned = true },
};

static uint64_t vgpu_stub_absent_read(void *opaque, hwaddr addr, unsigned size)
{
    return 0;
}

static void vgpu_stub_absent_write(void *opaque, hwaddr addr, uint64_t value, unsigned size)
{
}

/* BAR2 before the first attach. */
static const MemoryRegionOps vgpu_stub_absent_ops = {
    .read = vgpu_stub_absent_read,
    .write = vgpu_stub_absent_write,
    .endianness = DEVICE_LITTLE_ENDIAN,
    .valid = { .min_access_size = 1, .max_access_size = 8, .unaligned = true },
    .impl = { .min_access_size = 1, .max_access_size = 8, .unaligned = true },
};

/* Device --------------------------------------------------------------------------- */

/* Expects a valid size of the shared memory, which has to hold the queues. */
static bool vgpu_stub_check_queues(VgpuStub *s, Error **errp)
{
    uint32_t most = vgpu_queues_max(s->shm_size);

    if (s->queues == QUEUES_UNSET) {
        s->queues = MIN(most, QUEUES_DEFAULT);
    }
    if (s->queues > most) {
        error_setg(errp, "vgpu-stub: property 'queues' is %" PRIu32 ", must be at most %" PRIu32
                   " with 'shm' of %" PRIu64 " MiB", s->queues, most,
                   (uint64_t)(s->shm_size / MiB));
        return false;
    }
    return true;
}

static bool vgpu_stub_check_properties(VgpuStub *s, Error **errp)
{
    if (!qemu_chr_fe_backend_connected(&s->chr)) {
        error_setg(errp, "vgpu-stub: property 'chardev' is missing: give the id of a -chardev "
                   "socket that leads to the mediator");
        return false;
    }
    if (s->vm_id == 0) {
        error_setg(errp, "vgpu-stub: property 'vm-id' is missing: give the VM's number, 1 or "
                   "more");
        return false;
    }
    if (!s->pool_name) {
        s->pool_name = g_strdup("A");
    }
    if (!s->priority_name) {
        s->priority_name = g_strdup("medium");
    }
    if (strlen(s->pool_name) != 1 || !g_ascii_isupper(s->pool_name[0])) {
        error_setg(errp, "vgpu-stub: property 'pool' is '%s', must be a letter from A to Z",
                   s->pool_name);
        return false;
    }
    for (s->priority = 0; s->priority < VGPU_PRIORITIES; s->priority++) {
        if (!strcmp(s->priority_name, priority_names[s->priority])) {
            break;
        }
    }
    if (s->priority == VGPU_PRIORITIES) {
        error_setg(errp, "vgpu-stub: property 'priority' is '%s', must be low, medium or high",
                   s->priority_name);
        return false;
    }
    if (!vgpu_shm_size_valid(s->shm_size)) {
        error_setg(errp, "vgpu-stub: property 'shm' is %" PRIu64 " bytes, must be a power of two "
                   "from %" PRIu64 " MiB to %" PRIu64 " GiB", s->shm_size,
                   (uint64_t)(VGPU_SHM_MIN / MiB), (uint64_t)(VGPU_SHM_MAX / GiB));
        return false;
    }
    s->pool = (unsigned char)s->pool_name[0];
    return vgpu_stub_check_queues(s, errp);
}

/* Undoes vgpu_stub_realize(), from wherever it got to. */
static void vgpu_stub_exit(PCIDevice *dev)
{
    VgpuStub *s = VGPU_STUB(dev);

    /*
     * The connection may stay, for a device that is plugged in again: BYE tells
     * the mediator to let this one's VM go now.
     */
    if (s->link != LINK_OFFLINE) {
        struct vgpu_msg msg = { 0 };

        vgpu_stub_send(s, VGPU_MSG_BYE, vgpu_stub_expect_answer(s), &msg);
    }
    qemu_chr_fe_set_handlers(&s->chr, NULL, NULL, NULL, NULL, NULL, NULL, true);
    timer_free(s->reconnect);
    s->reconnect = NULL;
    qemu_del_vm_change_state_handler(s->run_state);
    timer_free(s->unblock);
    s->unblock = NULL;
    vgpu_stub_offline(s);
    if (s->irqfds_on) {
        vgpu_stub_irqfds_off(s);
    }
    if (s->memfd >= 0) {
        for (unsigned i = 0; i < vgpu_stub_channels(s); i++) {
            event_notifier_set_handler(&s->vector[i].notifier, NULL);
            event_notifier_cleanup(&s->vector[i].notifier);
            event_notifier_cleanup(&s->doorbell[i]);
        }
        memory_region_del_subregion(&s->shm, &s->ram);
        object_unparent(OBJECT(&s->ram));
        munmap(s->page, VGPU_REGS_SIZE);
        s->page = NULL;
        close(s->memfd);
        s->memfd = -1;
    }
    msix_uninit_exclusive_bar(dev);
    if (s->migration_blocker) {
        del_blocker(&s->migration_blocker);
    }
    g_clear_pointer(&s->last_refusal, g_free);
}

static void vgpu_stub_realize(PCIDevice *dev, Error **errp)
{
    VgpuStub *s = VGPU_STUB(dev);

    if (!vgpu_stub_check_properties(s, errp)) {
        return;
    }
    s->memfd = -1;
    for (unsigned i = 0; i < vgpu_stub_channels(s); i++) {
        s->vector[i].stub = s;
        s->vector[i].virq = -1;
    }

    memory_region_init_io(&s->regs, OBJECT(s), &vgpu_stub_regs_ops, s, "vgpu-stub-regs",
                          VGPU_REGS_SIZE);
    memory_region_init_io(&s->shm, OBJECT(s), &vgpu_stub_absent_ops, s, "vgpu-stub-shm",
                          s->shm_size);
    pci_register_bar(dev, VGPU_BAR_REGS, PCI_BASE_ADDRESS_SPACE_MEMORY, &s->regs);
    pci_register_bar(dev, VGPU_BAR_SHM,
                     PCI_BASE_ADDRESS_SPACE_MEMORY | PCI_BASE_ADDRESS_MEM_TYPE_64 |
                         PCI_BASE_ADDRESS_MEM_PREFETCH,
                     &s->shm);
    if (msix_init_exclusive_bar(dev, vgpu_stub_channels(s), VGPU_BAR_MSIX, errp)) {
        return;
    }
    for (unsigned i = 0; i < vgpu_stub_channels(s); i++) {
        msix_vector_use(dev, i);
    }
    /* Before the handshake: if that fails vgpu_stub_exit() frees the timer. */
    s->reconnect = timer_new_ms(QEMU_CLOCK_REALTIME, vgpu_stub_reconnect, s);
    s->unblock = timer_new_ms(QEMU_CLOCK_REALTIME, vgpu_stub_on_unblock, s);
    s->run_state = qemu_add_vm_change_state_handler(vgpu_stub_run_state, s);
    if (qemu_chr_fe_backend_open(&s->chr) && !vgpu_stub_handshake(s, errp)) {
        vgpu_stub_exit(dev);
        return;
    }
    qemu_chr_fe_set_handlers(&s->chr, vgpu_stub_can_receive, vgpu_stub_receive, vgpu_stub_event,
                             NULL, s, NULL, true);
    if (!qemu_chr_fe_backend_open(&s->chr) && vgpu_stub_reconnects(s)) {
        timer_mod(s->reconnect, qemu_clock_get_ms(QEMU_CLOCK_REALTIME) + RECONNECT_MS);
    }
}

static void vgpu_stub_reset(DeviceState *dev)
{
    VgpuStub *s = VGPU_STUB(dev);

    /*
     * A VM that was saved while it was suspended is woken by a reset. QEMU 7.2 says in no other way
     * that it runs.
     */
    if (runstate_is_running()) {
        vgpu_stub_go_on(s);
    }
    /* MSI-X was switched off by the PCI core. */
    vgpu_stub_update_interrupts(s);
    for (unsigned i = 0; i < vgpu_stub_channels(s); i++) {
        msix_vector_use(PCI_DEVICE(dev), i);
    }
    /* The reset at QEMU's start finds nothing to drop and leaves the worker alone. */
    if (s->page && (s->page->request_len || s->page->status != VGPU_STATUS_IDLE ||
                    vgpu_stub_doorbell_pending(s) || vgpu_stub_queues_used(s))) {
        s->page->request_len = 0;
        memset(s->page->request, 0, sizeof(s->page->request));
        /* One that is pending may be for less, or have gone before a queue was opened. */
        if (!(s->reset_flags & VGPU_RESET_QUEUES) || s->queue_since_reset) {
            vgpu_stub_request_reset(s, VGPU_RESET_QUEUES);
        }
    }
}

/* The guest switches MSI-X by a write to the configuration space. */
static void vgpu_stub_write_config(PCIDevice *dev, uint32_t addr, uint32_t value, int len)
{
    pci_default_write_config(dev, addr, value, len);
    vgpu_stub_update_interrupts(VGPU_STUB(dev));
}

static char *vgpu_stub_get_state(Object *obj, Error **errp)
{
    static const char *const names[] = {
        [LINK_OFFLINE] = "offline",
        [LINK_HELLO_SENT] = "attaching",
        [LINK_COLLECTING] = "attaching",
        [LINK_ATTACHED] = "attached",
    };

    return g_strdup(names[VGPU_STUB(obj)->link]);
}

static void vgpu_stub_instance_init(Object *obj)
{
    VgpuStub *s = VGPU_STUB(obj);

    s->queues = QUEUES_UNSET;
    object_property_add_uint32_ptr(obj, "bad-accesses", &s->bad_accesses, OBJ_PROP_FLAG_READ);
}

PROPERTY_LIST vgpu_stub_properties[] = {
    DEFINE_PROP_CHR("chardev", VgpuStub, chr),
    DEFINE_PROP_UINT32("vm-id", VgpuStub, vm_id, 0),
    DEFINE_PROP_STRING("pool", VgpuStub, pool_name),
    DEFINE_PROP_STRING("priority", VgpuStub, priority_name),
    DEFINE_PROP_SIZE("shm", VgpuStub, shm_size, 256 * MiB),
    DEFINE_PROP("queues", VgpuStub, queues, qdev_prop_uint32, uint32_t),
    DEFINE_PROP_BOOL("ioeventfd", VgpuStub, ioeventfd, true),
    PROPERTY_LIST_END
};

static void vgpu_stub_class_init(ObjectClass *klass, CLASS_DATA *data)
{
    DeviceClass *dc = DEVICE_CLASS(klass);
    PCIDeviceClass *pc = PCI_DEVICE_CLASS(klass);

    pc->realize = vgpu_stub_realize;
    pc->exit = vgpu_stub_exit;
    pc->config_write = vgpu_stub_write_config;
    pc->vendor_id = VGPU_PCI_VENDOR_ID;
    pc->device_id = VGPU_PCI_DEVICE_ID;
    pc->revision = VGPU_PCI_REVISION;
    pc->class_id = VGPU_PCI_CLASS;
    dc->vmsd = &vgpu_stub_vmstate;
    dc->desc = "vGPU stub: GPU work for the host's mediator";
    dc->user_creatable = true;
    set_bit(DEVICE_CATEGORY_MISC, dc->categories);
#if QEMU_AT_LEAST(9, 2)
    device_class_set_legacy_reset(dc, vgpu_stub_reset);
#else
    dc->reset = vgpu_stub_reset;
#endif
    device_class_set_props(dc, vgpu_stub_properties);
    object_class_property_set_description(klass, "queues", "command queues (default: "
                                          stringify(QUEUES_DEFAULT) ", or as many as 'shm' has "
                                          "room for)");
    object_class_property_add_str(klass, "state", vgpu_stub_get_state, NULL);
}

static const TypeInfo vgpu_stub_info = {
    .name = TYPE_VGPU_STUB,
    .parent = TYPE_PCI_DEVICE,
    .instance_size = sizeof(VgpuStub),
    .instance_init = vgpu_stub_instance_init,
    .class_init = vgpu_stub_class_init,
    .interfaces = (InterfaceInfo[]) {
        { INTERFACE_PCIE_DEVICE },
        { INTERFACE_CONVENTIONAL_PCI_DEVICE },
        { },
    },
};

static void vgpu_stub_register_types(void)
{
    type_register_static(&vgpu_stub_info);
}

type_init(vgpu_stub_register_types)
