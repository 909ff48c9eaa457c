/* SPDX-License-Identifier: MIT */
/*
 * Sessions by sysfs: a queue and a part of the arena, held by locks.
 *
 * To open one: lock the control block, give back what dead processes have left, lock the first
 * queue that is free, note a part for it, unlock the control block. The queue's lock is held as
 * long as the port lives. When the process dies the lock is free, and the next process finds the
 * worker and the part that were left (pci_reap() in pci-device.c).
 *
 * There is no interrupt by this way: threads that wait poll. Nor is there any protection: all of
 * BAR2 is open to this process, and it keeps to its part by good manners.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "guest/libvgpu/pci-device.h"

struct pci_port {
    struct vgpu_port head;
    struct pci_device device;
    int shm;        /* the shared memory's file */
    uint32_t queue; /* PCI_NO_QUEUE until taken */
};

static int pci_port_map(struct vgpu_port *port, void *address)
{
    return vgpu_port_map_arena(port, ((struct pci_port *)port)->shm, port->arena_offset, address);
}

static int pci_port_start(struct vgpu_port *port, uint32_t *status)
{
    struct pci_port *pci = (struct pci_port *)port;
    struct vgpu_control *control = pci_map_control(pci->shm);

    if (!control) {
        return VGPU_SYSTEM;
    }
    control->claims[pci->queue] = (struct vgpu_claim){
        .arena_address = (uint64_t)(uintptr_t)port->arena,
        .arena_offset = port->arena_offset,
        .arena_size = port->arena_size,
    };
    /*
     * The claim, which may be write-combined, goes out before OPEN does: the worker reads it once,
     * at its start.
     */
    __atomic_thread_fence(__ATOMIC_SEQ_CST);
    munmap(control, VGPU_CONTROL_SIZE);
    return pci_act(&pci->device, pci->queue, VGPU_QUEUE_OPEN, status);
}

static uint32_t pci_port_status(struct vgpu_port *port)
{
    struct pci_port *pci = (struct pci_port *)port;

    return pci_queue_status(&pci->device, pci->queue);
}

/* Any value wakes the worker; with KVM the write is an eventfd's, and QEMU does not see it. */
static void pci_port_kick(struct vgpu_port *port)
{
    struct pci_port *pci = (struct pci_port *)port;

    pci->device.regs[(VGPU_REG_QUEUE_DOORBELL + 4 * pci->queue) / 4] = 1;
}

/*
 * Ends the worker, then gives the part back. If the worker does not end, or if it cannot be told
 * to, the part stays taken, since the worker may still write to it: pci_reap() of the next process
 * sees to that.
 */
static void give_part(struct pci_port *pci)
{
    struct vgpu_control *control;

    if (pci->queue == PCI_NO_QUEUE || pci_close_queue(&pci->device, pci->queue) != VGPU_OK) {
        return;
    }
    control = pci_map_control(pci->shm);
    if (control) {
        control->parts[pci->queue].size = 0;
        control->owners[pci->queue] = 0;
        munmap(control, VGPU_CONTROL_SIZE);
    }
}

/*
 * Also for a port that is set up in part. The lock of the queue goes with the file, last: from then
 * on another process may have the queue.
 */
static void pci_port_close(struct vgpu_port *port)
{
    struct pci_port *pci = (struct pci_port *)port;

    give_part(pci);
    if (port->arena) {
        munmap(port->arena, port->arena_size);
    }
    if (port->queue) {
        munmap(port->queue, VGPU_QUEUE_SIZE);
    }
    if (pci->shm >= 0) {
        close(pci->shm);
    }
    pci_close_device(&pci->device);
    free(pci);
}

/*
 * The registers and the file stay, for threads that still ring or look. So the lock of the queue,
 * which is closed, is held until the process ends.
 */
static void pci_port_hang_up(struct vgpu_port *port)
{
    give_part((struct pci_port *)port);
}

static const struct vgpu_port_ops pci_port_ops = {
    .map = pci_port_map,
    .start = pci_port_start,
    .status = pci_port_status,
    .kick = pci_port_kick,
    .hang_up = pci_port_hang_up,
    .close = pci_port_close,
};

/* Takes the first queue that nobody has. With the control lock. */
static int take_queue(struct pci_port *pci)
{
    const uint32_t queues = pci_queue_count(&pci->device);

    for (uint32_t i = 0; i < queues; i++) {
        const uint32_t state = vgpu_queue_state(pci_queue_status(&pci->device, i));

        /*
         * STARTING or RUNNING and not locked: a worker that could not be ended yet. One that is
         * FREE may belong to a process that has not opened it yet, which the lock tells.
         */
        if ((state == VGPU_QUEUE_FREE || state == VGPU_QUEUE_ENDED) &&
            pci_lock_byte(&pci->device, i, F_WRLCK)) {
            pci->queue = i;
            return VGPU_OK;
        }
    }
    if (pci_offline(&pci->device)) {
        return vgpu_fail_offline();
    }
    return vgpu_fail(VGPU_BUSY, "all %u queues of device %s are in use by other sessions", queues,
                     pci->device.address);
}

/* Takes a queue and a part. With the control lock. */
static int take_both(struct pci_port *pci, struct vgpu_control *control, uint64_t arena_size)
{
    struct vgpu_arena_part part;
    int r;

    /*
     * Before the first mediator has come the device has no queues; with one, it may have none at
     * all.
     */
    if (pci_queue_count(&pci->device) == 0) {
        return pci_offline(&pci->device)
                   ? vgpu_fail_offline()
                   : vgpu_fail(VGPU_INCOMPATIBLE, "device %s has no queues: the host gave it none",
                               pci->device.address);
    }
    pci_reap(&pci->device, control, PCI_NO_QUEUE);
    r = take_queue(pci);
    if (r != VGPU_OK) {
        return r;
    }
    r = pci_take_part(&pci->device, control, pci->queue, arena_size, 4, &part);
    pci->head.arena_offset = part.offset;
    pci->head.arena_size = part.size;
    control->owners[pci->queue] = r == VGPU_OK ? getpid() : 0;
    return r;
}

static int pci_set_up_port(struct pci_port *pci, const char *address, uint64_t arena_size)
{
    struct vgpu_control *control;
    void *queue;
    int r = pci_open_file(&pci->device, address);

    if (r == VGPU_OK) {
        r = pci_enable(&pci->device);
    }
    if (r == VGPU_OK) {
        r = pci_map_regs(&pci->device);
    }
    if (r != VGPU_OK) {
        return r;
    }
    pci->shm = pci_open_shm(&pci->device);
    control = pci->shm < 0 ? NULL : pci_map_control(pci->shm);
    if (!control) {
        return pci->shm < 0 ? pci->shm : VGPU_SYSTEM;
    }
    /* From here to the unlock, one process of the guest at a time. */
    r = pci_wait_for_byte(&pci->device, PCI_LOCK_CONTROL);
    if (r == VGPU_OK) {
        r = take_both(pci, control, arena_size);
        pci_lock_byte(&pci->device, PCI_LOCK_CONTROL, F_UNLCK);
    }
    munmap(control, VGPU_CONTROL_SIZE);
    if (r != VGPU_OK) {
        return r;
    }
    queue = mmap(NULL, VGPU_QUEUE_SIZE, PROT_READ | PROT_WRITE, MAP_SHARED, pci->shm,
                 (off_t)vgpu_queue_offset(pci->queue));
    if (queue == MAP_FAILED) {
        return vgpu_fail(VGPU_SYSTEM, "cannot map the queue: %s", strerror(errno));
    }
    pci->head.queue = queue;
    return VGPU_OK;
}

int vgpu_port_open_pci(const char *address, uint64_t arena_size, struct vgpu_port **port)
{
    struct pci_port *pci = calloc(1, sizeof(*pci));
    int r;

    if (!pci) {
        return vgpu_fail(VGPU_SYSTEM, "out of memory");
    }
    pci->head.ops = &pci_port_ops;
    pci->device.file = -1;
    pci->shm = -1;
    pci->queue = PCI_NO_QUEUE;
    r = pci_set_up_port(pci, address, arena_size);
    if (r != VGPU_OK) {
        pci_port_close(&pci->head);
        return r;
    }
    *port = &pci->head;
    return VGPU_OK;
}

int vgpu_reap(const char *address, unsigned *count)
{
    char chosen[VGPU_ADDRESS_SIZE], path[64];
    struct pci_device device = {.file = -1};
    struct vgpu_control *control = NULL;
    int shm = -1;
    int r = vgpu_choose_address(address, chosen);

    /* With the guest driver there is nothing to reap. */
    *count = 0;
    if (r != VGPU_OK || vgpu_driver_path(chosen, path, sizeof(path))) {
        return r;
    }
    r = pci_open_file(&device, chosen);
    if (r == VGPU_OK) {
        r = pci_enable(&device);
    }
    if (r == VGPU_OK) {
        r = pci_map_regs(&device);
    }
    if (r == VGPU_OK) {
        shm = pci_open_shm(&device);
        control = shm < 0 ? NULL : pci_map_control(shm);
        r = shm < 0 ? shm : control ? pci_wait_for_byte(&device, PCI_LOCK_CONTROL) : VGPU_SYSTEM;
    }
    if (r == VGPU_OK) {
        *count = pci_reap(&device, control, PCI_NO_QUEUE);
        pci_lock_byte(&device, PCI_LOCK_CONTROL, F_UNLCK);
    }
    if (control) {
        munmap(control, VGPU_CONTROL_SIZE);
    }
    if (shm >= 0) {
        close(shm);
    }
    pci_close_device(&device);
    return r;
}
