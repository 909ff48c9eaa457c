/* SPDX-License-Identifier: MIT */
/*
 * Register mode by sysfs: the registers of BAR0 as request.c reads and writes them.
 *
 * There is one set of registers for the whole guest, so one client at a time has them, by a flock
 * on the register BAR's file; it ends with the process. A part of the arena is taken only when
 * vgpu_shm() asks for one, under the locks of pci-device.c, since sessions need theirs.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

#include "common/clock.h"
#include "guest/libvgpu/pci-device.h"

#define LOCK_LIMIT_NS (5 * NS_PER_S)

struct pci_vgpu {
    struct vgpu head;
    struct pci_device device;
};

static uint32_t pci_read(struct vgpu *vgpu, uint32_t offset)
{
    const uint32_t value = pci_get(&((struct pci_vgpu *)vgpu)->device, offset);

    if (offset == VGPU_REG_STATUS) {
        /*
         * Loads of the result from write-combining memory could run ahead of this one. Partner: the
         * worker stores STATUS behind all that it has computed.
         */
        __atomic_thread_fence(__ATOMIC_SEQ_CST);
    }
    return value;
}

static void pci_write(struct vgpu *vgpu, uint32_t offset, uint32_t value)
{
    /*
     * What was written to the shared memory, maybe write-combined, goes out before the doorbell:
     * the worker computes on it as soon as that is rung.
     */
    __atomic_thread_fence(__ATOMIC_SEQ_CST);
    ((struct pci_vgpu *)vgpu)->device.regs[offset / 4] = value;
}

/*
 * Takes a part of the arena: half of the largest that is free, so that sessions have room too. On a
 * device without queues there are no sessions, and all of the memory is the caller's.
 */
static int find_part(struct pci_device *device, int shm, struct vgpu_arena_part *part)
{
    struct vgpu_control *control;
    int r;

    *part = (struct vgpu_arena_part){.size = pci_shm_size_of(device)};
    if (!(pci_get(device, VGPU_REG_FEATURES) & VGPU_FEATURE_SHM)) {
        return vgpu_fail(VGPU_OFFLINE,
                         "device %s has no memory as long as no mediator has been "
                         "there",
                         device->address);
    }
    if (pci_queue_count(device) == 0) {
        return VGPU_OK;
    }
    control = pci_map_control(shm);
    if (!control) {
        return VGPU_SYSTEM;
    }
    r = pci_wait_for_byte(device, PCI_LOCK_CONTROL);
    if (r == VGPU_OK) {
        pci_reap(device, control, PCI_LOCK_REGISTER_MODE);
        /*
         * This cannot fail: the flock keeps other clients off. It tells pci_reap() that this one
         * lives, and ends with the file.
         */
        pci_lock_byte(device, PCI_LOCK_REGISTER_MODE, F_WRLCK);
        r = pci_take_part(device, control, PCI_LOCK_REGISTER_MODE, 0, 2, part);
        pci_lock_byte(device, PCI_LOCK_CONTROL, F_UNLCK);
    }
    munmap(control, VGPU_CONTROL_SIZE);
    return r;
}

static void *pci_map_shm(struct vgpu *vgpu)
{
    struct pci_device *device = &((struct pci_vgpu *)vgpu)->device;
    struct vgpu_arena_part part;
    const int fd = pci_open_shm(device);
    void *shm = NULL;

    if (fd < 0) {
        return NULL;
    }
    if (find_part(device, fd, &part) == VGPU_OK) {
        shm = mmap(NULL, part.size, PROT_READ | PROT_WRITE, MAP_SHARED, fd, (off_t)part.offset);
        if (shm == MAP_FAILED) {
            vgpu_fail(VGPU_SYSTEM, "cannot map %llu bytes of shared memory: %s",
                      (unsigned long long)part.size, strerror(errno));
            shm = NULL;
        }
        vgpu->shm_offset = part.offset;
        vgpu->shm_size = part.size;
    }
    /* The mapping lasts without it. */
    close(fd);
    return shm;
}

static void pci_close(struct vgpu *vgpu)
{
    struct pci_vgpu *pci = (struct pci_vgpu *)vgpu;

    if (vgpu->shm) {
        munmap(vgpu->shm, vgpu->shm_size);
    }
    pci_close_device(&pci->device);
    free(pci);
}

static const struct vgpu_transport pci_transport = {
    .comes_back = true,
    .read = pci_read,
    .write = pci_write,
    .map_shm = pci_map_shm,
    .close = pci_close,
};

/* It tries again and again, since flock() has no time limit. */
static int take_lock(const struct pci_device *device)
{
    const struct timespec pause = {.tv_nsec = (long)(10 * NS_PER_MS)};
    const uint64_t start = clock_ns();

    while (flock(device->file, LOCK_EX | LOCK_NB) < 0) {
        if (errno != EWOULDBLOCK && errno != EINTR) {
            return vgpu_fail(VGPU_SYSTEM, "cannot lock device %s: %s", device->address,
                             strerror(errno));
        }
        if (clock_ns() - start > LOCK_LIMIT_NS) {
            return vgpu_fail(VGPU_BUSY, "device %s is in use by another process", device->address);
        }
        nanosleep(&pause, NULL);
    }
    return VGPU_OK;
}

/* The lock comes before anything is touched: another client may have a request running. */
static int open_device(struct pci_vgpu *pci, const char *address)
{
    int r = pci_open_file(&pci->device, address);

    if (r == VGPU_OK) {
        r = take_lock(&pci->device);
    }
    if (r == VGPU_OK) {
        r = pci_enable(&pci->device);
    }
    return r == VGPU_OK ? pci_map_regs(&pci->device) : r;
}

int vgpu_open(const char *address, struct vgpu **vgpu)
{
    char chosen[VGPU_ADDRESS_SIZE], path[64];
    struct pci_vgpu *pci;
    int r = vgpu_choose_address(address, chosen);

    if (r != VGPU_OK) {
        return r;
    }
    /* Where the driver serves the device, the kernel lets nobody map its BARs. */
    if (vgpu_driver_path(chosen, path, sizeof(path))) {
        return vgpu_open_driver(chosen, vgpu);
    }
    pci = calloc(1, sizeof(*pci));
    if (!pci) {
        return vgpu_fail(VGPU_SYSTEM, "out of memory");
    }
    pci->head.transport = &pci_transport;
    pci->head.timeout_ms = VGPU_DEFAULT_TIMEOUT_MS;
    r = open_device(pci, chosen);
    if (r != VGPU_OK) {
        pci_close(&pci->head);
        return r;
    }
    *vgpu = &pci->head;
    return VGPU_OK;
}
