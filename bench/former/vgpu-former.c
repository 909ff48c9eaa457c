/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The former path, to measure against: a doorbell is handled in QEMU's main loop, which
 * sends it through a socket to a daemon, whose answer comes back through the main loop
 * into a register. Built into the minimal QEMU alone, never into a package.
 */
#include "qemu/osdep.h"
#include "qapi/error.h"
#include "qemu/main-loop.h"
#include "qemu/module.h"
#include "chardev/char-fe.h"
#include "hw/pci/pci.h"
#include "hw/qdev-properties-system.h"
#include "hw/qdev-properties.h"
#include "qom/object.h"
#include "vgpu-former.h"

#define TYPE_VGPU_FORMER "vgpu-former"
OBJECT_DECLARE_SIMPLE_TYPE(VgpuFormer, VGPU_FORMER)

struct VgpuFormer {
    PCIDevice parent_obj;
    CharBackend chr;
    MemoryRegion regs;
    QEMUBH *bh;
    uint32_t doorbell;
    uint32_t reply;
    uint32_t rx;
    unsigned rx_len;
};

static void vgpu_former_bh(void *opaque)
{
    VgpuFormer *s = opaque;

    qemu_chr_fe_write_all(&s->chr, (const uint8_t *)&s->doorbell, sizeof(s->doorbell));
}

static int vgpu_former_can_receive(void *opaque)
{
    return sizeof(uint32_t) - VGPU_FORMER(opaque)->rx_len;
}

static void vgpu_former_receive(void *opaque, const uint8_t *buf, int size)
{
    VgpuFormer *s = opaque;

    memcpy((uint8_t *)&s->rx + s->rx_len, buf, size);
    s->rx_len += size;
    if (s->rx_len == sizeof(s->rx)) {
        s->rx_len = 0;
        s->reply = s->rx;
    }
}

static uint64_t vgpu_former_read(void *opaque, hwaddr addr, unsigned size)
{
    VgpuFormer *s = opaque;

    return addr == VGPU_FORMER_REPLY ? s->reply : 0;
}

static void vgpu_former_write(void *opaque, hwaddr addr, uint64_t value, unsigned size)
{
    VgpuFormer *s = opaque;

    if (addr == VGPU_FORMER_DOORBELL) {
        s->doorbell = value;
        qemu_bh_schedule(s->bh);
    }
}

static const MemoryRegionOps vgpu_former_ops = {
    .read = vgpu_former_read,
    .write = vgpu_former_write,
    .endianness = DEVICE_LITTLE_ENDIAN,
    .valid = { .min_access_size = 4, .max_access_size = 4 },
};

static void vgpu_former_realize(PCIDevice *dev, Error **errp)
{
    VgpuFormer *s = VGPU_FORMER(dev);

    memory_region_init_io(&s->regs, OBJECT(s), &vgpu_former_ops, s, "vgpu-former", 4096);
    pci_register_bar(dev, 0, PCI_BASE_ADDRESS_SPACE_MEMORY, &s->regs);
    s->bh = qemu_bh_new(vgpu_former_bh, s);
    qemu_chr_fe_set_handlers(&s->chr, vgpu_former_can_receive, vgpu_former_receive, NULL, NULL, s,
                             NULL, true);
}

static void vgpu_former_exit(PCIDevice *dev)
{
    qemu_bh_delete(VGPU_FORMER(dev)->bh);
}

static Property vgpu_former_properties[] = {
    DEFINE_PROP_CHR("chardev", VgpuFormer, chr),
    DEFINE_PROP_END_OF_LIST(),
};

static void vgpu_former_class_init(ObjectClass *klass, void *data)
{
    DeviceClass *dc = DEVICE_CLASS(klass);
    PCIDeviceClass *pc = PCI_DEVICE_CLASS(klass);

    pc->realize = vgpu_former_realize;
    pc->exit = vgpu_former_exit;
    pc->vendor_id = VGPU_FORMER_VENDOR_ID;
    pc->device_id = VGPU_FORMER_DEVICE_ID;
    pc->class_id = PCI_CLASS_OTHERS;
    dc->hotpluggable = false;
    device_class_set_props(dc, vgpu_former_properties);
}

static const TypeInfo vgpu_former_info = {
    .name = TYPE_VGPU_FORMER,
    .parent = TYPE_PCI_DEVICE,
    .instance_size = sizeof(VgpuFormer),
    .class_init = vgpu_former_class_init,
    .interfaces = (InterfaceInfo[]) { { INTERFACE_CONVENTIONAL_PCI_DEVICE }, { } },
};

static void vgpu_former_register_types(void)
{
    type_register_static(&vgpu_former_info);
}

type_init(vgpu_former_register_types)
