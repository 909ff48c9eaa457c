/*
 * Prototype "vGPU stub": registers in BAR0, memfd in BAR2, MSI-X in BAR4.
 * Doorbells are ioeventfds, interrupts are irqfds (KVM) or main loop handlers (TCG).
 */
#include "qemu/osdep.h"
#include "qapi/error.h"
#include "qemu/error-report.h"
#include "qemu/event_notifier.h"
#include "qemu/main-loop.h"
#include "qemu/module.h"
#include "hw/pci/pci.h"
#include "hw/pci/msi.h"
#include "hw/pci/msix.h"
#include "hw/qdev-properties.h"
#include "hw/qdev-properties-system.h"
#include "migration/blocker.h"
#include "sysemu/kvm.h"
#include "chardev/char-fe.h"
#include "qom/object.h"
#include "vgpu_proto.h"

#define TYPE_VGPU "vgpu-former"
OBJECT_DECLARE_SIMPLE_TYPE(VGPUState, VGPU)

typedef struct { VGPUState *s; int virq; bool irqfd; bool routed; EventNotifier n; } VGPUVec;

struct VGPUState {
    PCIDevice parent_obj;
    CharBackend chr;
    bool ioeventfd;
    MemoryRegion bar0, bar2;
    struct vgpu_hello h;
    EventNotifier db[VGPU_MAX_DB];
    VGPUVec vec[VGPU_MAX_VEC];
    uint32_t cstatus, cpend;
    QEMUBH *bh;
    struct vgpu_cmsg rx; unsigned rxn;
    bool irqfd_on;
    Error *blocker;
};

static void vgpu_csend(VGPUState *s, uint32_t val)
{
    struct vgpu_cmsg m = { 1, val };
    qemu_chr_fe_write_all(&s->chr, (uint8_t *)&m, sizeof(m));
}
static void vgpu_bh(void *o) { VGPUState *s = o; vgpu_csend(s, s->cpend); }

static uint64_t vgpu_read(void *o, hwaddr a, unsigned size)
{
    VGPUState *s = o;
    switch (a) {
    case R_ID:     return 0x56475055;
    case R_REV:    return 2;
    case R_SHM_LO: return (uint32_t)s->h.shm_size;
    case R_SHM_HI: return s->h.shm_size >> 32;
    case R_NVEC:   return s->h.n_vec;
    case R_CSTATUS:return s->cstatus;
    }
    return 0;
}
static void vgpu_write(void *o, hwaddr a, uint64_t v, unsigned size)
{
    VGPUState *s = o;
    switch (a) {
    case R_CDOORBELL:    vgpu_csend(s, v); break;
    case R_CDOORBELL_BH: s->cpend = v; qemu_bh_schedule(s->bh); break;
    case R_IRQTEST:      if (v < s->h.n_vec) msix_notify(PCI_DEVICE(s), v); break;
    default:
        if (a >= R_DB(0) && a < R_DB(s->h.n_db)) /* only with ioeventfd=off */
            event_notifier_set(&s->db[(a - R_DB(0)) / 4]);
    }
}
static const MemoryRegionOps vgpu_ops = {
    .read = vgpu_read, .write = vgpu_write, .endianness = DEVICE_LITTLE_ENDIAN,
    .valid = { .min_access_size = 4, .max_access_size = 4 },
    .impl = { .min_access_size = 4, .max_access_size = 4 },
};

/* interrupts: mediator's eventfd -> main loop -> msix_notify (TCG, or MSI-X off) */
static void vgpu_vec_cb(EventNotifier *n)
{
    VGPUVec *v = container_of(n, VGPUVec, n);
    if (event_notifier_test_and_clear(n) && msix_enabled(PCI_DEVICE(v->s)))
        msix_notify(PCI_DEVICE(v->s), v - v->s->vec);
}
/* interrupts with KVM: mediator's eventfd -> irqfd */
static int vgpu_unmask(PCIDevice *d, unsigned i, MSIMessage msg)
{
    VGPUState *s = VGPU(d); VGPUVec *v = &s->vec[i]; int r;
    if (!v->routed || v->irqfd) return 0;
    r = kvm_irqchip_update_msi_route(kvm_state, v->virq, msg, d);
    if (r < 0) return r;
    kvm_irqchip_commit_routes(kvm_state);
    r = kvm_irqchip_add_irqfd_notifier_gsi(kvm_state, &v->n, NULL, v->virq);
    if (r >= 0) v->irqfd = true;
    return r < 0 ? r : 0;
}
static void vgpu_mask(PCIDevice *d, unsigned i)
{
    VGPUState *s = VGPU(d); VGPUVec *v = &s->vec[i];
    if (v->irqfd) { kvm_irqchip_remove_irqfd_notifier_gsi(kvm_state, &v->n, v->virq); v->irqfd = false; }
}
static void vgpu_poll(PCIDevice *d, unsigned a, unsigned b)
{
    VGPUState *s = VGPU(d);
    for (b = MIN(b, s->h.n_vec); a < b; a++)
        if (msix_is_masked(d, a) && event_notifier_test_and_clear(&s->vec[a].n))
            msix_set_pending(d, a);
}
static void vgpu_irqfd(VGPUState *s, bool on)
{
    PCIDevice *d = PCI_DEVICE(s); unsigned i;
    if (on == s->irqfd_on) return;
    s->irqfd_on = on;
    if (on) {
        for (i = 0; i < s->h.n_vec; i++) {
            KVMRouteChange c = kvm_irqchip_begin_route_changes(kvm_state);
            int r = kvm_irqchip_add_msi_route(&c, i, d);
            if (r < 0) { error_report("vgpu: no msi route"); continue; }
            kvm_irqchip_commit_route_changes(&c);
            s->vec[i].virq = r; s->vec[i].routed = true;
            event_notifier_set_handler(&s->vec[i].n, NULL);
        }
        msix_set_vector_notifiers(d, vgpu_unmask, vgpu_mask, vgpu_poll);
    } else {
        msix_unset_vector_notifiers(d);
        for (i = 0; i < s->h.n_vec; i++) {
            vgpu_mask(d, i);
            if (s->vec[i].routed) kvm_irqchip_release_virq(kvm_state, s->vec[i].virq);
            s->vec[i].routed = false;
            event_notifier_set_handler(&s->vec[i].n, vgpu_vec_cb);
        }
    }
}
static void vgpu_write_config(PCIDevice *d, uint32_t a, uint32_t v, int len)
{
    pci_default_write_config(d, a, v, len);
    if (kvm_msi_via_irqfd_enabled()) vgpu_irqfd(VGPU(d), msix_enabled(d));
}

static int vgpu_can_rx(void *o) { VGPUState *s = o; return sizeof(s->rx) - s->rxn; }
static void vgpu_rx(void *o, const uint8_t *b, int n)
{
    VGPUState *s = o;
    memcpy((uint8_t *)&s->rx + s->rxn, b, n); s->rxn += n;
    if (s->rxn == sizeof(s->rx)) { s->rxn = 0; s->cstatus = s->rx.val; }
}
static void vgpu_event(void *o, QEMUChrEvent e)
{
    if (e == CHR_EVENT_CLOSED) { VGPUState *s = o; s->cstatus = 0xdead; s->rxn = 0; }
}

static void vgpu_realize(PCIDevice *d, Error **errp)
{
    VGPUState *s = VGPU(d);
    int fds[16], nf, i, r; struct stat st;

    if (!qemu_chr_fe_backend_connected(&s->chr)) { error_setg(errp, "vgpu: needs chardev="); return; }
    r = qemu_chr_fe_read_all(&s->chr, (uint8_t *)&s->h, sizeof(s->h));
    nf = qemu_chr_fe_get_msgfds(&s->chr, fds, 16);
    if (r != sizeof(s->h) || s->h.magic != VGPU_HELLO_MAGIC || s->h.n_db > VGPU_MAX_DB ||
        s->h.n_vec > VGPU_MAX_VEC || nf != 1 + s->h.n_db + s->h.n_vec) {
        error_setg(errp, "vgpu: bad hello (%d bytes, %d fds)", r, nf); return;
    }
    if (fstat(fds[0], &st) || st.st_size < s->h.shm_size) { error_setg(errp, "vgpu: memfd too small"); return; }
    for (i = 0; i < s->h.n_db; i++) event_notifier_init_fd(&s->db[i], fds[1 + i]);

    memory_region_init_io(&s->bar0, OBJECT(s), &vgpu_ops, s, "vgpu-regs", 4096);
    pci_register_bar(d, 0, PCI_BASE_ADDRESS_SPACE_MEMORY, &s->bar0);
    if (s->ioeventfd) /* size must be that of the guest's access: TCG compares it */
        for (i = 0; i < s->h.n_db; i++)
            memory_region_add_eventfd(&s->bar0, R_DB(i), 4, false, 0, &s->db[i]);

    memory_region_init_ram_from_fd(&s->bar2, OBJECT(s), "vgpu-shm", s->h.shm_size,
                                   RAM_SHARED, fds[0], 0, errp);
    if (*errp) return;
    pci_register_bar(d, 2, PCI_BASE_ADDRESS_SPACE_MEMORY | PCI_BASE_ADDRESS_MEM_PREFETCH |
                     PCI_BASE_ADDRESS_MEM_TYPE_64, &s->bar2);
    if (msix_init_exclusive_bar(d, s->h.n_vec, 4, errp)) return;
    for (i = 0; i < s->h.n_vec; i++) {
        s->vec[i].s = s;
        event_notifier_init_fd(&s->vec[i].n, fds[1 + s->h.n_db + i]);
        g_unix_set_fd_nonblocking(fds[1 + s->h.n_db + i], true, NULL);
        event_notifier_set_handler(&s->vec[i].n, vgpu_vec_cb);
        msix_vector_use(d, i);
    }
    s->bh = qemu_bh_new(vgpu_bh, s);
    qemu_chr_fe_set_handlers(&s->chr, vgpu_can_rx, vgpu_rx, vgpu_event, NULL, s, NULL, true);
    error_setg(&s->blocker, "vgpu: not migratable");
    migrate_add_blocker(s->blocker, errp);
}
static void vgpu_exit(PCIDevice *d)
{
    VGPUState *s = VGPU(d); int i;
    if (kvm_msi_via_irqfd_enabled()) vgpu_irqfd(s, false);
    for (i = 0; i < s->h.n_vec; i++) event_notifier_set_handler(&s->vec[i].n, NULL);
    if (s->ioeventfd) for (i = 0; i < s->h.n_db; i++)
        memory_region_del_eventfd(&s->bar0, R_DB(i), 4, false, 0, &s->db[i]);
    msix_uninit_exclusive_bar(d);
    migrate_del_blocker(s->blocker); error_free(s->blocker);
    qemu_bh_delete(s->bh);
}
static void vgpu_reset(DeviceState *dev)
{
    VGPUState *s = VGPU(dev); int i;
    if (kvm_msi_via_irqfd_enabled()) vgpu_irqfd(s, false);
    s->cstatus = 0;
    for (i = 0; i < s->h.n_vec; i++) msix_vector_use(PCI_DEVICE(dev), i);
}
static Property vgpu_props[] = {
    DEFINE_PROP_CHR("chardev", VGPUState, chr),
    DEFINE_PROP_BOOL("ioeventfd", VGPUState, ioeventfd, true),
    DEFINE_PROP_END_OF_LIST(),
};
static void vgpu_class_init(ObjectClass *k, void *data)
{
    DeviceClass *dc = DEVICE_CLASS(k); PCIDeviceClass *pc = PCI_DEVICE_CLASS(k);
    pc->realize = vgpu_realize; pc->exit = vgpu_exit; pc->config_write = vgpu_write_config;
    pc->vendor_id = 0x1234; pc->device_id = 0x0003; pc->revision = 2;
    pc->class_id = PCI_CLASS_PROCESSOR_CO;
    dc->reset = vgpu_reset; dc->desc = "vGPU stub"; dc->hotpluggable = false;
    set_bit(DEVICE_CATEGORY_MISC, dc->categories);
    device_class_set_props(dc, vgpu_props);
}
static const TypeInfo vgpu_info = {
    .name = TYPE_VGPU, .parent = TYPE_PCI_DEVICE, .instance_size = sizeof(VGPUState),
    .class_init = vgpu_class_init,
    .interfaces = (InterfaceInfo[]) { { INTERFACE_PCIE_DEVICE }, { INTERFACE_CONVENTIONAL_PCI_DEVICE }, { } },
};
static void vgpu_register(void) { type_register_static(&vgpu_info); }
type_init(vgpu_register)
