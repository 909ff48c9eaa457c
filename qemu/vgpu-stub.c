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
 * on its way to the worker.
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
#include "qom/object.h"

#include "vgpu-attach.h"
#include "vgpu-regs.h"

/* QEMU versions -------------------------------------------------------------------- */

#if __has_include("hw/pci/pci_device.h")
#include "hw/pci/pci_device.h"
#else
#include "hw/pci/pci.h"
#endif

#if __has_include("system/kvm.h")
#include "system/kvm.h"
#include "system/system.h"
#else
#include "sysemu/kvm.h"
#include "sysemu/sysemu.h"
#endif

#define QEMU_AT_LEAST(major, minor)                                                                \
    (QEMU_VERSION_MAJOR > (major) ||                                                               \
     (QEMU_VERSION_MAJOR == (major) && QEMU_VERSION_MINOR >= (minor)))

#if !QEMU_AT_LEAST(10, 2)
typedef CharBackend CharFrontend;
#endif

static bool chr_reconnects(const SocketChardev *socket)
{
#if QEMU_AT_LEAST(9, 2)
    return socket->reconnect_time_ms != 0;
#else
    return socket->reconnect_time != 0;
#endif
}

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

typedef enum {
    LINK_OFFLINE,    /* not connected, or refused: nothing may be sent but a HELLO */
    LINK_HELLO_SENT, /* waiting for ATTACHED or REFUSED */
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
    bool ioeventfd;

    /* Identity: as the properties ask, then as the mediator grants. */
    uint32_t pool;
    uint32_t priority;

    /* Link to the mediator. */
    VgpuLink link;
    uint32_t serial; /* of the HELLO or RESET that an answer is expected to */
    struct vgpu_msg rx;
    size_t rx_len;
    int rx_fds[VGPU_ATTACH_FDS_MAX];
    unsigned rx_fd_count;
    QEMUTimer *reconnect;
    char *last_refusal; /* to print a reason once, not at each try */

    /* From the first attach until unplug. */
    int memfd; /* -1 before */
    struct vgpu_regs_page *page;
    MemoryRegion ram;
    EventNotifier doorbell;
    VgpuVector vector[VGPU_ATTACH_VECTORS];
    bool doorbell_wired;
    bool irqfds_on;

    bool reset_pending; /* RESET sent, or to be sent at the next attach */

    MemoryRegion regs;
    MemoryRegion shm;
    uint32_t bad_accesses;
    Error *migration_blocker;
};

static const char *const priority_names[VGPU_PRIORITIES] = { "low", "medium", "high" };

/* Doorbell ------------------------------------------------------------------------- */

/* The ioeventfd is there only while attached: otherwise a doorbell ends in this device. */
static void vgpu_stub_wire_doorbell(VgpuStub *s, bool on)
{
    if (!s->ioeventfd || s->doorbell_wired == on) {
        return;
    }
    s->doorbell_wired = on;
    /* Size 4: TCG compares the size of the access exactly. */
    if (on) {
        memory_region_add_eventfd(&s->regs, VGPU_REG_DOORBELL, 4, false, 0, &s->doorbell);
    } else {
        memory_region_del_eventfd(&s->regs, VGPU_REG_DOORBELL, 4, false, 0, &s->doorbell);
    }
}

static bool vgpu_stub_doorbell_pending(VgpuStub *s)
{
    struct pollfd p = { .fd = event_notifier_get_fd(&s->doorbell), .events = POLLIN };

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

static void vgpu_stub_interrupt(EventNotifier *n)
{
    VgpuVector *v = container_of(n, VgpuVector, notifier);
    PCIDevice *dev = PCI_DEVICE(v->stub);

    if (event_notifier_test_and_clear(n) && msix_enabled(dev)) {
        msix_notify(dev, v - v->stub->vector);
    }
}

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

static void vgpu_stub_vector_mask(PCIDevice *dev, unsigned i)
{
    VgpuVector *v = &VGPU_STUB(dev)->vector[i];

    if (v->irqfd) {
        kvm_irqchip_remove_irqfd_notifier_gsi(kvm_state, &v->notifier, v->virq);
        v->irqfd = false;
    }
}

static void vgpu_stub_vector_poll(PCIDevice *dev, unsigned first, unsigned end)
{
    VgpuStub *s = VGPU_STUB(dev);

    for (unsigned i = first; i < MIN(end, VGPU_ATTACH_VECTORS); i++) {
        if (msix_is_masked(dev, i) && event_notifier_test_and_clear(&s->vector[i].notifier)) {
            msix_set_pending(dev, i);
        }
    }
}

static void vgpu_stub_release_routes(VgpuStub *s)
{
    for (unsigned i = 0; i < VGPU_ATTACH_VECTORS; i++) {
        VgpuVector *v = &s->vector[i];

        vgpu_stub_vector_mask(PCI_DEVICE(s), i);
        if (v->virq >= 0) {
            kvm_irqchip_release_virq(kvm_state, v->virq);
            v->virq = -1;
            event_notifier_set_handler(&v->notifier, vgpu_stub_interrupt);
        }
    }
}

static void vgpu_stub_irqfds_on(VgpuStub *s)
{
    PCIDevice *dev = PCI_DEVICE(s);

    s->irqfds_on = true;
    for (unsigned i = 0; i < VGPU_ATTACH_VECTORS; i++) {
        KVMRouteChange c = kvm_irqchip_begin_route_changes(kvm_state);
        int virq = kvm_irqchip_add_msi_route(&c, i, dev);

        if (virq < 0) {
            /* The handler in the main loop goes on to serve this vector. */
            warn_report("vgpu-stub: VM %" PRIu32 ": no KVM route for vector %u: %s", s->vm_id, i,
                        strerror(-virq));
            continue;
        }
        kvm_irqchip_commit_route_changes(&c);
        s->vector[i].virq = virq;
        event_notifier_set_handler(&s->vector[i].notifier, NULL);
    }
    if (msix_set_vector_notifiers(dev, vgpu_stub_vector_unmask, vgpu_stub_vector_mask,
                                  vgpu_stub_vector_poll) < 0) {
        warn_report("vgpu-stub: VM %" PRIu32 ": KVM refused the interrupt's eventfd; interrupts "
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

static void vgpu_stub_send(VgpuStub *s, uint32_t type, struct vgpu_msg *msg)
{
    /* Unique over all devices: a device plugged anew on a connection sees old answers. */
    static uint32_t last_serial;

    msg->magic = VGPU_MSG_MAGIC;
    msg->version = VGPU_VERSION;
    msg->type = type;
    msg->serial = s->serial = ++last_serial;
    /* A failed write shows as CHR_EVENT_CLOSED, which takes the device offline. */
    qemu_chr_fe_write_all(&s->chr, (const uint8_t *)msg, sizeof(*msg));
}

static void vgpu_stub_send_hello(VgpuStub *s)
{
    struct vgpu_msg msg = { 0 };
    const char *name = qemu_get_vm_name();

    msg.hello.vm_id = s->vm_id;
    msg.hello.pool = (unsigned char)s->pool_name[0];
    msg.hello.priority = s->priority;
    for (unsigned i = 0; i < VGPU_PRIORITIES; i++) {
        if (!strcmp(s->priority_name, priority_names[i])) {
            msg.hello.priority = i;
        }
    }
    msg.hello.vectors = VGPU_ATTACH_VECTORS;
    msg.hello.shm_size = s->shm_size;
    g_strlcpy(msg.hello.name, name ? name : "", sizeof(msg.hello.name));
    if (s->memfd >= 0) {
        int fds[VGPU_ATTACH_FDS] = { s->memfd, event_notifier_get_fd(&s->doorbell) };

        for (unsigned i = 0; i < VGPU_ATTACH_VECTORS; i++) {
            fds[2 + i] = event_notifier_get_fd(&s->vector[i].notifier);
        }
        msg.hello.flags = VGPU_HELLO_HANDOVER;
        qemu_chr_fe_set_msgfds(&s->chr, fds, VGPU_ATTACH_FDS);
    }
    s->rx_len = 0;
    s->link = LINK_HELLO_SENT;
    trace_vgpu_stub_hello(s->vm_id, s->memfd >= 0);
    vgpu_stub_send(s, VGPU_MSG_HELLO, &msg);
}

/*
 * Takes the descriptors of the first attach. On success they belong to the device; on
 * failure the caller closes them.
 */
static bool vgpu_stub_map(VgpuStub *s, const int *fds, Error **errp)
{
    const int seals = F_SEAL_SHRINK | F_SEAL_GROW;
    Error *err = NULL;
    struct stat st;
    void *page;
    int ram_fd;

    /* Unsealed, it could be truncated under QEMU, whose next access would be a SIGBUS. */
    if ((fcntl(fds[0], F_GET_SEALS) & seals) != seals) {
        error_setg(errp, "the mediator's memory is not sealed");
        return false;
    }
    if (fstat(fds[0], &st) || (uint64_t)st.st_size != vgpu_memfd_size(s->shm_size)) {
        error_setg(errp, "the mediator's memory has %" PRIi64 " bytes, expected %" PRIu64,
                   (int64_t)st.st_size, vgpu_memfd_size(s->shm_size));
        return false;
    }
    page = mmap(NULL, VGPU_REGS_SIZE, PROT_READ | PROT_WRITE, MAP_SHARED, fds[0],
                vgpu_regs_page_offset(s->shm_size));
    if (page == MAP_FAILED) {
        error_setg_errno(errp, errno, "cannot map the register page");
        return false;
    }
    ram_fd = fcntl(fds[0], F_DUPFD_CLOEXEC, 0);
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
    memory_region_add_subregion(&s->shm, 0, &s->ram);

    s->memfd = fds[0];
    s->page = page;
    vgpu_stub_init_notifier(&s->doorbell, fds[1]);
    for (unsigned i = 0; i < VGPU_ATTACH_VECTORS; i++) {
        VgpuVector *v = &s->vector[i];

        vgpu_stub_init_notifier(&v->notifier, fds[2 + i]);
        event_notifier_set_handler(&v->notifier, vgpu_stub_interrupt);
    }
    return true;
}

/* Asks for the running request to be dropped; while offline, at the next attach. */
static void vgpu_stub_request_reset(VgpuStub *s)
{
    bool ask = s->link == LINK_ATTACHED;

    trace_vgpu_stub_reset(s->vm_id, ask);
    s->reset_pending = true;
    if (ask) {
        struct vgpu_msg msg = { 0 };

        vgpu_stub_send(s, VGPU_MSG_RESET, &msg);
    }
}

static void vgpu_stub_close_rx_fds(VgpuStub *s)
{
    while (s->rx_fd_count) {
        close(s->rx_fds[--s->rx_fd_count]);
    }
}

static void vgpu_stub_refused(VgpuStub *s, const char *reason)
{
    trace_vgpu_stub_refused(s->vm_id, reason);
    vgpu_stub_wire_doorbell(s, false);
    s->link = LINK_OFFLINE;
    if (g_strcmp0(reason, s->last_refusal)) {
        g_free(s->last_refusal);
        s->last_refusal = g_strdup(reason);
    }
}

static void vgpu_stub_attached(VgpuStub *s, const struct vgpu_attached *a, Error **errp)
{
    unsigned expected = s->memfd < 0 ? VGPU_ATTACH_FDS : 0;

    if (a->shm_size != s->shm_size || a->vectors != VGPU_ATTACH_VECTORS) {
        error_setg(errp, "the mediator offered %" PRIu64 " bytes and %" PRIu32 " vectors, not "
                   "%" PRIu64 " and %u", a->shm_size, a->vectors, s->shm_size,
                   VGPU_ATTACH_VECTORS);
        return;
    }
    if (s->rx_fd_count != expected) {
        error_setg(errp, "the mediator sent %u descriptors, not %u; the chardev must be a Unix "
                   "socket", s->rx_fd_count, expected);
        return;
    }
    if (s->memfd < 0) {
        if (!vgpu_stub_map(s, s->rx_fds, errp)) {
            return;
        }
        s->rx_fd_count = 0;
    }
    s->pool = a->pool;
    s->priority = a->priority;
    s->link = LINK_ATTACHED;
    g_clear_pointer(&s->last_refusal, g_free);
    vgpu_stub_wire_doorbell(s, true);
    vgpu_stub_update_interrupts(s);
    trace_vgpu_stub_attached(s->vm_id, (char)s->pool, s->priority);
    if (s->reset_pending) {
        vgpu_stub_request_reset(s);
    }
}

/* Acts on the message in s->rx. A refusal or an unusable answer is in @errp. */
static void vgpu_stub_message(VgpuStub *s, Error **errp)
{
    struct vgpu_msg *m = &s->rx;

    if (m->magic != VGPU_MSG_MAGIC || m->version >> 16 != VGPU_VERSION_MAJOR) {
        error_setg(errp, "the peer is no mediator of protocol version %u (magic 0x%08" PRIx32
                   ", version 0x%08" PRIx32 ")", VGPU_VERSION_MAJOR, m->magic, m->version);
        vgpu_stub_refused(s, error_get_pretty(*errp));
    } else if (m->serial != s->serial) {
        /* The answer to a device that was unplugged from this connection. */
    } else if (m->type == VGPU_MSG_ATTACHED && s->link == LINK_HELLO_SENT) {
        vgpu_stub_attached(s, &m->attached, errp);
        if (s->link != LINK_ATTACHED) {
            vgpu_stub_refused(s, error_get_pretty(*errp));
        }
    } else if (m->type == VGPU_MSG_REFUSED && s->link == LINK_HELLO_SENT) {
        m->refused.reason[sizeof(m->refused.reason) - 1] = '\0';
        error_setg(errp, "the mediator refused VM %" PRIu32 ": %s", s->vm_id, m->refused.reason);
        vgpu_stub_refused(s, error_get_pretty(*errp));
    } else if (m->type == VGPU_MSG_RESET_DONE) {
        s->reset_pending = false;
        trace_vgpu_stub_reset_done(s->vm_id);
    }
    vgpu_stub_close_rx_fds(s);
}

static void vgpu_stub_take_fds(VgpuStub *s)
{
    int fds[VGPU_ATTACH_FDS_MAX];
    int n = qemu_chr_fe_get_msgfds(&s->chr, fds, VGPU_ATTACH_FDS_MAX);

    for (int i = 0; i < n; i++) {
        if (s->rx_fd_count < VGPU_ATTACH_FDS_MAX) {
            s->rx_fds[s->rx_fd_count++] = fds[i];
        } else {
            close(fds[i]);
        }
    }
}

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
    memcpy((uint8_t *)&s->rx + s->rx_len, buf, size);
    s->rx_len += size;
    if (s->rx_len < sizeof(s->rx)) {
        return;
    }
    s->rx_len = 0;
    vgpu_stub_message(s, &err);
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

static void vgpu_stub_event(void *opaque, QEMUChrEvent event)
{
    VgpuStub *s = opaque;

    if (event == CHR_EVENT_OPENED && s->link == LINK_OFFLINE) {
        vgpu_stub_send_hello(s);
    } else if (event == CHR_EVENT_CLOSED) {
        if (s->link == LINK_ATTACHED) {
            trace_vgpu_stub_detached(s->vm_id);
            vgpu_stub_wire_doorbell(s, false);
        }
        s->link = LINK_OFFLINE;
        s->rx_len = 0;
        vgpu_stub_close_rx_fds(s);
        if (vgpu_stub_reconnects(s)) {
            timer_mod(s->reconnect, qemu_clock_get_ms(QEMU_CLOCK_REALTIME) + RECONNECT_MS);
        }
    }
}

/*
 * The handshake with a mediator that is connected already, so that a refusal can
 * stop QEMU's start with its reason. One that does not answer in time is heard later.
 */
static bool vgpu_stub_handshake(VgpuStub *s, Error **errp)
{
    int64_t end = g_get_monotonic_time() + HANDSHAKE_TIMEOUT_MS * 1000;
    SocketChardev *socket = vgpu_stub_socket(s);

    if (!socket) {
        error_setg(errp, "vgpu-stub: property 'chardev': must be a socket");
        return false;
    }
    vgpu_stub_send_hello(s);
    while (s->link == LINK_HELLO_SENT && qemu_chr_fe_backend_open(&s->chr)) {
        int64_t left = MAX(end - g_get_monotonic_time(), 0) / 1000;
        struct pollfd p = { .fd = socket->sioc->fd, .events = POLLIN };
        Error *err = NULL;

        int queued = 0;

        if (poll(&p, 1, left) == 1 && ioctl(p.fd, FIONREAD, &queued) == 0 && queued > 0 &&
            queued < (int)sizeof(s->rx) && left > 0) {
            /* Reading blocks until the whole message is there, so that is awaited here. */
            g_usleep(1000);
            continue;
        }
        if (!(p.revents & (POLLIN | POLLHUP)) || (queued > 0 && queued < (int)sizeof(s->rx))) {
            warn_report("vgpu-stub: VM %" PRIu32 ": the mediator has not answered within %d ms; "
                        "the device stays offline until it does", s->vm_id,
                        HANDSHAKE_TIMEOUT_MS);
            return true;
        }
        if (qemu_chr_fe_read_all(&s->chr, (uint8_t *)&s->rx, sizeof(s->rx)) != sizeof(s->rx)) {
            /* It went away; it may come back, as at any other time. */
            s->link = LINK_OFFLINE;
            return true;
        }
        vgpu_stub_take_fds(s);
        vgpu_stub_message(s, &err);
        if (err) {
            error_propagate_prepend(errp, err, "vgpu-stub: ");
            return false;
        }
    }
    return true;
}

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

static uint32_t vgpu_stub_features(VgpuStub *s)
{
    uint32_t backend = VGPU_FEATURE_BACKEND_CPU | VGPU_FEATURE_BACKEND_GPU;

    if (!s->page) {
        return VGPU_FEATURE_MSIX;
    }
    return VGPU_FEATURE_SHM | VGPU_FEATURE_MSIX | (qatomic_read(&s->page->features) & backend);
}

/* Whether the word at @addr is in [@start, @start + @size). */
static bool in_buffer(hwaddr addr, uint32_t start, uint32_t size)
{
    return addr >= start && addr < start + size;
}

/* A word of the register page, or NULL while there is none. */
static uint32_t *vgpu_stub_word(VgpuStub *s, hwaddr addr)
{
    return s->page ? (uint32_t *)((uint8_t *)s->page + addr) : NULL;
}

static bool vgpu_stub_good_access(VgpuStub *s, bool write, hwaddr addr, unsigned size)
{
    if (size == 4 && addr % 4 == 0) {
        return true;
    }
    s->bad_accesses++;
    trace_vgpu_stub_bad_access(write, addr, size);
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
    case VGPU_REG_CONTROL:
        return s->reset_pending ? VGPU_CONTROL_RESET : 0;
    case VGPU_REG_REQUEST_LEN:
    case VGPU_REG_RESPONSE_LEN:
    case VGPU_REG_ERROR:
    case VGPU_REG_GENERATION:
        break;
    default:
        if (!in_buffer(addr, VGPU_REG_REQUEST, VGPU_REQUEST_MAX) &&
            !in_buffer(addr, VGPU_REG_RESPONSE, VGPU_RESPONSE_MAX)) {
            return 0;
        }
    }
    word = vgpu_stub_word(s, addr);
    return word ? qatomic_read(word) : 0;
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
        /* Reached while offline, and with ioeventfd=off. */
        if (s->link == LINK_ATTACHED) {
            event_notifier_set(&s->doorbell);
        } else {
            trace_vgpu_stub_doorbell_offline(s->vm_id);
        }
    } else if (addr == VGPU_REG_CONTROL) {
        if ((value & VGPU_CONTROL_RESET) && !s->reset_pending && s->memfd >= 0) {
            vgpu_stub_request_reset(s);
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
    return true;
}

/* Undoes vgpu_stub_realize(), from wherever it got to. */
static void vgpu_stub_exit(PCIDevice *dev)
{
    VgpuStub *s = VGPU_STUB(dev);

    if (s->link != LINK_OFFLINE) {
        struct vgpu_msg msg = { 0 };

        vgpu_stub_send(s, VGPU_MSG_BYE, &msg);
        s->link = LINK_OFFLINE;
    }
    qemu_chr_fe_set_handlers(&s->chr, NULL, NULL, NULL, NULL, NULL, NULL, true);
    timer_free(s->reconnect);
    s->reconnect = NULL;
    vgpu_stub_close_rx_fds(s);
    if (s->irqfds_on) {
        vgpu_stub_irqfds_off(s);
    }
    vgpu_stub_wire_doorbell(s, false);
    if (s->memfd >= 0) {
        for (unsigned i = 0; i < VGPU_ATTACH_VECTORS; i++) {
            event_notifier_set_handler(&s->vector[i].notifier, NULL);
            event_notifier_cleanup(&s->vector[i].notifier);
        }
        event_notifier_cleanup(&s->doorbell);
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
    for (unsigned i = 0; i < VGPU_ATTACH_VECTORS; i++) {
        s->vector[i].stub = s;
        s->vector[i].virq = -1;
    }
    error_setg(&s->migration_blocker, "vgpu-stub: VM %" PRIu32 " computes on this host's GPU, "
               "whose state cannot be migrated; unplug the device first", s->vm_id);
    if (add_blocker(&s->migration_blocker, errp) < 0) {
        error_free(s->migration_blocker);
        s->migration_blocker = NULL;
        return;
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
    if (msix_init_exclusive_bar(dev, VGPU_ATTACH_VECTORS, VGPU_BAR_MSIX, errp)) {
        del_blocker(&s->migration_blocker);
        return;
    }
    for (unsigned i = 0; i < VGPU_ATTACH_VECTORS; i++) {
        msix_vector_use(dev, i);
    }
    s->reconnect = timer_new_ms(QEMU_CLOCK_REALTIME, vgpu_stub_reconnect, s);
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

    /* MSI-X was switched off by the PCI core. */
    vgpu_stub_update_interrupts(s);
    for (unsigned i = 0; i < VGPU_ATTACH_VECTORS; i++) {
        msix_vector_use(PCI_DEVICE(dev), i);
    }
    /* The reset at QEMU's start finds nothing to drop and leaves the worker alone. */
    if (s->page && (s->page->request_len || s->page->status != VGPU_STATUS_IDLE ||
                    vgpu_stub_doorbell_pending(s))) {
        s->page->request_len = 0;
        memset(s->page->request, 0, sizeof(s->page->request));
        if (!s->reset_pending) {
            vgpu_stub_request_reset(s);
        }
    }
}

static void vgpu_stub_write_config(PCIDevice *dev, uint32_t addr, uint32_t value, int len)
{
    pci_default_write_config(dev, addr, value, len);
    vgpu_stub_update_interrupts(VGPU_STUB(dev));
}

static char *vgpu_stub_get_state(Object *obj, Error **errp)
{
    static const char *const names[] = { "offline", "attaching", "attached" };

    return g_strdup(names[VGPU_STUB(obj)->link]);
}

static void vgpu_stub_instance_init(Object *obj)
{
    VgpuStub *s = VGPU_STUB(obj);

    object_property_add_uint32_ptr(obj, "bad-accesses", &s->bad_accesses, OBJ_PROP_FLAG_READ);
}

PROPERTY_LIST vgpu_stub_properties[] = {
    DEFINE_PROP_CHR("chardev", VgpuStub, chr),
    DEFINE_PROP_UINT32("vm-id", VgpuStub, vm_id, 0),
    DEFINE_PROP_STRING("pool", VgpuStub, pool_name),
    DEFINE_PROP_STRING("priority", VgpuStub, priority_name),
    DEFINE_PROP_SIZE("shm", VgpuStub, shm_size, 256 * MiB),
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
    dc->desc = "vGPU stub: GPU work for the host's mediator";
    dc->user_creatable = true;
    set_bit(DEVICE_CATEGORY_MISC, dc->categories);
#if QEMU_AT_LEAST(9, 2)
    device_class_set_legacy_reset(dc, vgpu_stub_reset);
#else
    dc->reset = vgpu_stub_reset;
#endif
    device_class_set_props(dc, vgpu_stub_properties);
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
