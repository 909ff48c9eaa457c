/* SPDX-License-Identifier: MIT */
/* An open vGPU by sysfs: what register mode (pci.c) and sessions (pci-port.c) share. */
#ifndef VGPU_GUEST_LIBVGPU_PCI_DEVICE_H
#define VGPU_GUEST_LIBVGPU_PCI_DEVICE_H

#include "guest/libvgpu/internal.h"

#define PCI_LOCK_REGISTER_MODE VGPU_MAX_QUEUES
#define PCI_LOCK_CONTROL (VGPU_MAX_QUEUES + 1)
#define PCI_NO_QUEUE UINT32_MAX

struct pci_device {
    char address[VGPU_ADDRESS_SIZE];
    int file;                /* the register BAR's; holds the locks; -1: none */
    volatile uint32_t *regs; /* NULL until mapped */
};

static inline uint32_t pci_get(const struct pci_device *device, uint32_t offset)
{
    return device->regs[offset / 4];
}

static inline bool pci_offline(const struct pci_device *device)
{
    return pci_get(device, VGPU_REG_STATUS) == VGPU_STATUS_OFFLINE;
}

/* Opens the register BAR's file; `device` is empty. This and the next two return a result. */
int pci_open_file(struct pci_device *device, const char *address);

/* Switches the device's memory on, which no driver has done. */
int pci_enable(const struct pci_device *device);

/* Maps the registers, and checks that they are a vGPU's. */
int pci_map_regs(struct pci_device *device);

void pci_close_device(struct pci_device *device);

/* Whether the shared memory has an address, for which a bridge may have no room. */
bool pci_has_shm(const struct pci_device *device);

/* Opens the shared memory's file; a descriptor, or a result. */
int pci_open_shm(const struct pci_device *device);

/* The control block; NULL with a message on failure. */
struct vgpu_control *pci_map_control(int shm);

uint64_t pci_shm_size_of(const struct pci_device *device);

/* How many queues there are. */
uint32_t pci_queue_count(const struct pci_device *device);

/* QUEUE_STATUS, where a session without a mediator has ended. `context` is a struct pci_device. */
uint32_t pci_queue_status(void *context, uint32_t queue);

/* As vgpu_queue_act(). */
int pci_act(struct pci_device *device, uint32_t queue, uint32_t action, uint32_t *status);

/* Takes (F_WRLCK) or gives (F_UNLCK) the lock of a byte; false when somebody has it. */
bool pci_lock_byte(const struct pci_device *device, uint32_t byte, short type);

/* Takes it, waiting a while. */
int pci_wait_for_byte(const struct pci_device *device, uint32_t byte);

/* Closes a queue whose process is gone, or about to go; its lock is this process's. */
int pci_close_queue(struct pci_device *device, uint32_t queue);

/*
 * Gives back what has lost its process. With the control lock; `own` is not looked at, since a
 * lock of one's own is no obstacle. Returns how many queues were closed.
 */
unsigned pci_reap(struct pci_device *device, struct vgpu_control *control, uint32_t own);

/*
 * Takes a part of the arena for the holder of a lock, of `size` bytes, or where that is 0 a
 * `share`th of the largest free stretch. With the control lock.
 */
int pci_take_part(struct pci_device *device, struct vgpu_control *control, uint32_t holder,
                  uint64_t size, unsigned share, struct vgpu_arena_part *part);

#endif
