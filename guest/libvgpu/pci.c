/* SPDX-License-Identifier: MIT */
/*
 * The PCI transport: the stub's BARs through sysfs (Linux Documentation/PCI/
 * sysfs-pci.rst), without a kernel module. The lock is a flock on the register BAR's
 * file, so it ends with the process that holds it.
 */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "clock.h"
#include "internal.h"

#define DEVICES "/sys/bus/pci/devices"
#define LOCK_LIMIT_NS (5 * NS_PER_S)

struct pci_vgpu {
    struct vgpu head;
    char address[VGPU_ADDRESS_SIZE];
    int lock; /* the register BAR's file */
    volatile uint32_t *regs;
};

/* Builds the path of a file of a device; `name` is one of ours, and short. */
static const char *device_path(const char *address, const char *name, char path[128])
{
    snprintf(path, 128, DEVICES "/%.31s/%s", address, name);
    return path;
}

/* The number in an attribute such as `vendor`; 0 when it cannot be read. */
static unsigned long read_attribute(const char *address, const char *name)
{
    char path[128], text[32] = "";
    const int fd = open(device_path(address, name, path), O_RDONLY | O_CLOEXEC);

    if (fd < 0) {
        return 0;
    }
    if (read(fd, text, sizeof(text) - 1) < 0) {
        text[0] = '\0';
    }
    close(fd);
    return strtoul(text, NULL, 0);
}

static bool is_vgpu(const char *address)
{
    return read_attribute(address, "vendor") == VGPU_PCI_VENDOR_ID &&
           read_attribute(address, "device") == VGPU_PCI_DEVICE_ID;
}

static int compare_addresses(const void *a, const void *b)
{
    return strcmp(a, b);
}

unsigned vgpu_list(char addresses[][VGPU_ADDRESS_SIZE], unsigned max)
{
    DIR *directory = opendir(DEVICES);
    const struct dirent *entry;
    unsigned count = 0;

    while (directory && (entry = readdir(directory)) != NULL) {
        if (entry->d_name[0] == '.' || strlen(entry->d_name) >= VGPU_ADDRESS_SIZE ||
            !is_vgpu(entry->d_name)) {
            continue;
        }
        if (count < max) {
            snprintf(addresses[count], VGPU_ADDRESS_SIZE, "%.31s", entry->d_name);
        }
        count++;
    }
    if (directory) {
        closedir(directory);
    }
    qsort(addresses, count < max ? count : max, VGPU_ADDRESS_SIZE, compare_addresses);
    return count;
}

static uint32_t pci_read(struct vgpu *vgpu, uint32_t offset)
{
    const uint32_t value = ((struct pci_vgpu *)vgpu)->regs[offset / 4];

    if (offset == VGPU_REG_STATUS) {
        /* Loads of the result from write-combining memory could run ahead of this one. */
        __atomic_thread_fence(__ATOMIC_SEQ_CST);
    }
    return value;
}

static void pci_write(struct vgpu *vgpu, uint32_t offset, uint32_t value)
{
    /* What was written to the shared memory, maybe write-combined, goes first. */
    __atomic_thread_fence(__ATOMIC_SEQ_CST);
    ((struct pci_vgpu *)vgpu)->regs[offset / 4] = value;
}

static void *pci_map_shm(struct vgpu *vgpu)
{
    struct pci_vgpu *pci = (struct pci_vgpu *)vgpu;
    char path[128];
    struct stat st;
    void *shm;
    int fd;

    /* Write-combining where there is a choice: stores then go out in whole lines. */
    fd = open(device_path(pci->address, "resource2_wc", path), O_RDWR | O_CLOEXEC);
    if (fd < 0) {
        fd = open(device_path(pci->address, "resource2", path), O_RDWR | O_CLOEXEC);
    }
    if (fd < 0 || fstat(fd, &st) < 0) {
        vgpu_fail(VGPU_SYSTEM, "cannot open '%s': %s", path, strerror(errno));
        if (fd >= 0) {
            close(fd);
        }
        return NULL;
    }
    shm = mmap(NULL, (size_t)st.st_size, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    close(fd);
    if (shm == MAP_FAILED) {
        vgpu_fail(VGPU_SYSTEM, "cannot map '%s': %s", path, strerror(errno));
        return NULL;
    }
    vgpu->shm_size = (uint64_t)st.st_size;
    return shm;
}

static void pci_close(struct vgpu *vgpu)
{
    struct pci_vgpu *pci = (struct pci_vgpu *)vgpu;

    if (vgpu->shm) {
        munmap(vgpu->shm, vgpu->shm_size);
    }
    if (pci->regs) {
        munmap((void *)(uintptr_t)pci->regs, VGPU_REGS_SIZE);
    }
    if (pci->lock >= 0) {
        close(pci->lock);
    }
    free(pci);
}

static const struct vgpu_transport pci_transport = {
    .comes_back = true,
    .read = pci_read,
    .write = pci_write,
    .map_shm = pci_map_shm,
    .close = pci_close,
};

/* Switches the device's memory on, which no driver has done. */
static int enable(struct pci_vgpu *pci)
{
    char path[128];
    int fd;

    if (read_attribute(pci->address, "enable") != 0) {
        return VGPU_OK;
    }
    fd = open(device_path(pci->address, "enable", path), O_WRONLY | O_CLOEXEC);
    if (fd < 0 || write(fd, "1", 1) != 1) {
        const int error = errno;

        if (fd >= 0) {
            close(fd);
        }
        return vgpu_fail(error == EACCES ? VGPU_NO_PERMISSION : VGPU_SYSTEM,
                         "cannot enable the device with '%s': %s", path, strerror(error));
    }
    close(fd);
    return VGPU_OK;
}

static int take_lock(struct pci_vgpu *pci)
{
    const struct timespec pause = {.tv_nsec = (long)(10 * NS_PER_MS)};
    const uint64_t start = clock_ns();

    while (flock(pci->lock, LOCK_EX | LOCK_NB) < 0) {
        if (errno != EWOULDBLOCK && errno != EINTR) {
            return vgpu_fail(VGPU_SYSTEM, "cannot lock device %s: %s", pci->address,
                             strerror(errno));
        }
        if (clock_ns() - start > LOCK_LIMIT_NS) {
            return vgpu_fail(VGPU_BUSY, "device %s is in use by another process", pci->address);
        }
        nanosleep(&pause, NULL);
    }
    return VGPU_OK;
}

static int map_regs(struct pci_vgpu *pci)
{
    void *regs = mmap(NULL, VGPU_REGS_SIZE, PROT_READ | PROT_WRITE, MAP_SHARED, pci->lock, 0);

    if (regs == MAP_FAILED) {
        return vgpu_fail(VGPU_SYSTEM, "cannot map the registers of device %s: %s", pci->address,
                         strerror(errno));
    }
    pci->regs = regs;
    if (pci->regs[VGPU_REG_MAGIC / 4] != VGPU_MAGIC) {
        return vgpu_fail(VGPU_INCOMPATIBLE, "device %s reads 0x%08x where a vGPU has its mark",
                         pci->address, pci->regs[VGPU_REG_MAGIC / 4]);
    }
    if (pci->regs[VGPU_REG_VERSION / 4] >> 16 != VGPU_VERSION_MAJOR) {
        return vgpu_fail(VGPU_INCOMPATIBLE, "device %s speaks protocol version %u, this program %u",
                         pci->address, pci->regs[VGPU_REG_VERSION / 4] >> 16, VGPU_VERSION_MAJOR);
    }
    return VGPU_OK;
}

static int open_device(struct pci_vgpu *pci)
{
    char path[128];
    int r;

    pci->lock = open(device_path(pci->address, "resource0", path), O_RDWR | O_CLOEXEC);
    if (pci->lock < 0) {
        const int error = errno;

        return vgpu_fail(error == EACCES || error == EPERM ? VGPU_NO_PERMISSION : VGPU_SYSTEM,
                         "cannot open '%s': %s", path, strerror(error));
    }
    r = take_lock(pci);
    if (r == VGPU_OK) {
        r = enable(pci);
    }
    return r == VGPU_OK ? map_regs(pci) : r;
}

/* The address to open: the one given, or the only one. */
static int choose(const char *wanted, char address[VGPU_ADDRESS_SIZE])
{
    char found[2][VGPU_ADDRESS_SIZE];
    unsigned count;

    if (wanted) {
        if (strlen(wanted) >= VGPU_ADDRESS_SIZE || !is_vgpu(wanted)) {
            return vgpu_fail(VGPU_NO_DEVICE, "there is no vGPU at PCI address '%s'", wanted);
        }
        snprintf(address, VGPU_ADDRESS_SIZE, "%s", wanted);
        return VGPU_OK;
    }
    count = vgpu_list(found, 2);
    if (count == 0) {
        return vgpu_fail(VGPU_NO_DEVICE,
                         "this machine has no vGPU (no PCI device %04x:%04x); the host adds one "
                         "with '-device vgpu-stub'",
                         VGPU_PCI_VENDOR_ID, VGPU_PCI_DEVICE_ID);
    }
    if (count > 1) {
        return vgpu_fail(VGPU_BAD_ARGUMENT, "this machine has %u vGPUs: say which, by PCI address",
                         count);
    }
    memcpy(address, found[0], VGPU_ADDRESS_SIZE);
    return VGPU_OK;
}

int vgpu_open(const char *address, struct vgpu **vgpu)
{
    char chosen[VGPU_ADDRESS_SIZE];
    struct pci_vgpu *pci;
    int r = choose(address, chosen);

    if (r != VGPU_OK) {
        return r;
    }
    pci = calloc(1, sizeof(*pci));
    if (!pci) {
        return vgpu_fail(VGPU_SYSTEM, "out of memory");
    }
    pci->head.transport = &pci_transport;
    pci->head.timeout_ms = VGPU_DEFAULT_TIMEOUT_MS;
    memcpy(pci->address, chosen, sizeof(chosen));
    r = open_device(pci);
    if (r != VGPU_OK) {
        pci_close(&pci->head);
        return r;
    }
    *vgpu = &pci->head;
    return VGPU_OK;
}
