/* SPDX-License-Identifier: MIT */
/*
 * A vGPU by the PCI transport: the stub's BARs through sysfs (Linux Documentation/PCI/
 * sysfs-pci.rst), without a kernel module.
 *
 * Processes agree by locks on the register BAR's file, which end with the open file that holds
 * them. Register mode has a flock. Byte N of the open-file-description locks (fcntl(2)) is queue
 * N's, held while a session lasts; the byte behind them is the register-mode client's, held while
 * it has a part of the arena; the next one guards the control block's list of parts. A queue or
 * part whose lock nobody holds has lost its process, and the next process gives it back.
 */
#include "guest/libvgpu/pci-device.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "common/clock.h"

#define DEVICES "/sys/bus/pci/devices"
#define LOCK_LIMIT_NS (30 * NS_PER_S) /* somebody may be closing many queues */

/* Builds the path of a file of a device; `name` is one of ours, and short. */
static const char *device_path(const char *address, const char *name, char path[128])
{
    snprintf(path, 128, DEVICES "/%.31s/%s", address, name);
    return path;
}

/* The number in an attribute such as `vendor`; 0 when it cannot be read. */
static unsigned long read_sysfs_attribute(const char *address, const char *name)
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
    return read_sysfs_attribute(address, "vendor") == VGPU_PCI_VENDOR_ID &&
           read_sysfs_attribute(address, "device") == VGPU_PCI_DEVICE_ID;
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
    /* readdir() has no order: users are to see the same list each time. */
    qsort(addresses, count < max ? count : max, VGPU_ADDRESS_SIZE, compare_addresses);
    return count;
}

/* Registers and locks -------------------------------------------------------------------- */

/*
 * Locks of the open file, not of the process: two sessions of one process keep each other off too,
 * and a process that closes another descriptor of this file does not lose them.
 */
bool pci_lock_byte(const struct pci_device *device, uint32_t byte, short type)
{
    struct flock lock = {.l_type = type, .l_whence = SEEK_SET, .l_start = (off_t)byte, .l_len = 1};

    return fcntl(device->file, F_OFD_SETLK, &lock) == 0;
}

/* It polls, since F_OFD_SETLKW has no time limit. */
int pci_wait_for_byte(const struct pci_device *device, uint32_t byte)
{
    const uint64_t start = clock_ns();
    uint64_t waited = 0;

    while (!pci_lock_byte(device, byte, F_WRLCK)) {
        if (waited > LOCK_LIMIT_NS) {
            return vgpu_fail(VGPU_BUSY, "device %s is in use by another process", device->address);
        }
        vgpu_pause(waited);
        waited = clock_ns() - start;
    }
    return VGPU_OK;
}

/* The locks of queues and parts go with the file. */
void pci_close_device(struct pci_device *device)
{
    if (device->regs) {
        munmap((void *)(uintptr_t)device->regs, VGPU_REGS_SIZE);
    }
    if (device->file >= 0) {
        close(device->file);
    }
}

/* The device stays enabled: others may have mapped it by now. */
int pci_enable(const struct pci_device *device)
{
    char path[128];
    int fd;

    if (read_sysfs_attribute(device->address, "enable") != 0) {
        return VGPU_OK;
    }
    fd = open(device_path(device->address, "enable", path), O_WRONLY | O_CLOEXEC);
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

int pci_map_regs(struct pci_device *device)
{
    void *regs = mmap(NULL, VGPU_REGS_SIZE, PROT_READ | PROT_WRITE, MAP_SHARED, device->file, 0);

    if (regs == MAP_FAILED && errno == EPERM) {
        /* Whoever may open the file may map it, unless the kernel refuses that to everybody. */
        return vgpu_fail(VGPU_NO_PERMISSION,
                         "cannot map the registers of device %s: %s; a kernel under lockdown, as "
                         "with Secure Boot, lets no program do that: load the guest driver, vgpu",
                         device->address, strerror(errno));
    }
    if (regs == MAP_FAILED) {
        return vgpu_fail(VGPU_SYSTEM, "cannot map the registers of device %s: %s", device->address,
                         strerror(errno));
    }
    device->regs = regs;
    if (pci_get(device, VGPU_REG_MAGIC) != VGPU_MAGIC) {
        return vgpu_fail(VGPU_INCOMPATIBLE, "device %s reads 0x%08x where a vGPU has its mark",
                         device->address, pci_get(device, VGPU_REG_MAGIC));
    }
    if (pci_get(device, VGPU_REG_VERSION) >> 16 != VGPU_VERSION_MAJOR) {
        return vgpu_fail(VGPU_INCOMPATIBLE, "device %s speaks protocol version %u, this program %u",
                         device->address, pci_get(device, VGPU_REG_VERSION) >> 16,
                         VGPU_VERSION_MAJOR);
    }
    return VGPU_OK;
}

int pci_open_file(struct pci_device *device, const char *address)
{
    char path[128];

    snprintf(device->address, sizeof(device->address), "%s", address);
    device->file = open(device_path(address, "resource0", path), O_RDWR | O_CLOEXEC);
    if (device->file < 0) {
        const int error = errno;

        if (error == EACCES || error == EPERM) {
            return vgpu_fail(VGPU_NO_PERMISSION,
                             "cannot open '%s': %s; root may, and the group that 60-vgpu.rules "
                             "names",
                             path, strerror(error));
        }
        return vgpu_fail(VGPU_SYSTEM, "cannot open '%s': %s", path, strerror(error));
    }
    return VGPU_OK;
}

bool pci_has_shm(const struct pci_device *device)
{
    char path[128];

    /* The kernel makes no file of a BAR without an address; of a gone device it has none. */
    return access(device_path(device->address, "resource2", path), F_OK) == 0 ||
           access(device_path(device->address, "resource0", path), F_OK) != 0;
}

int pci_open_shm(const struct pci_device *device)
{
    char path[128];
    int fd, error;

    /* Write-combining where there is a choice: stores then go out in whole lines. */
    fd = open(device_path(device->address, "resource2_wc", path), O_RDWR | O_CLOEXEC);
    if (fd < 0) {
        fd = open(device_path(device->address, "resource2", path), O_RDWR | O_CLOEXEC);
    }
    error = errno;
    if (fd < 0 && error == ENOENT && !pci_has_shm(device)) {
        const unsigned long long mib = pci_shm_size_of(device) >> 20;

        return vgpu_fail(
            VGPU_SYSTEM,
            "the shared memory of device %s has no address: the bridge above it has no "
            "room for %llu MiB; give its port pref64-reserve=%lluM in QEMU, or use "
            "OVMF",
            device->address, mib, mib);
    }
    return fd >= 0 ? fd
                   : vgpu_fail(error == EACCES ? VGPU_NO_PERMISSION : VGPU_SYSTEM,
                               "cannot open '%s': %s", path, strerror(error));
}

/* Queues and parts ----------------------------------------------------------------------- */

uint32_t pci_queue_status(void *context, uint32_t queue)
{
    const struct pci_device *device = context;
    const uint32_t status = pci_get(device, VGPU_REG_QUEUE_STATUS + 4 * queue);

    /* A mediator that was killed could not store ENDED; its workers are gone with it. */
    if (vgpu_queue_state(status) == VGPU_QUEUE_RUNNING && pci_offline(device)) {
        return VGPU_QUEUE_ENDED | VGPU_QUEUE_END_MEDIATOR << 8 | (status & 0xffff0000u);
    }
    return status;
}

static void pci_queue_control(void *context, uint32_t queue, uint32_t action)
{
    ((struct pci_device *)context)->regs[(VGPU_REG_QUEUE_CONTROL + 4 * queue) / 4] = action;
}

static bool device_offline(void *context)
{
    return pci_offline(context);
}

int pci_act(struct pci_device *device, uint32_t queue, uint32_t action, uint32_t *status)
{
    const struct vgpu_queue_access access = {
        .status = pci_queue_status,
        .control = pci_queue_control,
        .offline = device_offline,
        .context = device,
    };

    return vgpu_queue_act(&access, queue, action, status);
}

/* More than there can be would lead beyond the control block's arrays. */
uint32_t pci_queue_count(const struct pci_device *device)
{
    const uint32_t queues = pci_get(device, VGPU_REG_NUM_QUEUES);

    return queues < VGPU_MAX_QUEUES ? queues : VGPU_MAX_QUEUES;
}

int pci_close_queue(struct pci_device *device, uint32_t queue)
{
    uint32_t status = pci_get(device, VGPU_REG_QUEUE_STATUS + 4 * queue);

    /* Without a mediator there is no worker either. */
    if (vgpu_queue_state(status) == VGPU_QUEUE_FREE || pci_offline(device)) {
        return VGPU_OK;
    }
    return pci_act(device, queue, VGPU_QUEUE_CLOSE, &status);
}

uint64_t pci_shm_size_of(const struct pci_device *device)
{
    return pci_get(device, VGPU_REG_SHM_SIZE_LO) | (uint64_t)pci_get(device, VGPU_REG_SHM_SIZE_HI)
                                                       << 32;
}

static bool is_open(const struct pci_device *device, uint32_t queue)
{
    return vgpu_queue_state(pci_get(device, VGPU_REG_QUEUE_STATUS + 4 * queue)) != VGPU_QUEUE_FREE;
}

unsigned pci_reap(struct pci_device *device, struct vgpu_control *control, uint32_t own)
{
    const uint32_t queues = pci_queue_count(device);
    uint64_t dead = 0; /* bit N: queue N was open without a process */

    /* Without queues there is no control block either. */
    if (queues == 0) {
        return 0;
    }
    /*
     * First all at once, since workers take their time to end; the wait is below. A lock that can
     * be taken has no living owner. Nobody takes a queue in between: that needs the control lock.
     */
    for (uint32_t i = 0; i < queues; i++) {
        if (i != own && is_open(device, i) && pci_lock_byte(device, i, F_WRLCK)) {
            dead |= UINT64_C(1) << i;
            pci_queue_control(device, i, VGPU_QUEUE_CLOSE);
            pci_lock_byte(device, i, F_UNLCK);
        }
    }
    for (uint32_t i = 0; i <= VGPU_MAX_QUEUES; i++) {
        const bool open = i < queues && is_open(device, i);

        /*
         * A part may be left where no queue is open: by a process that died before it had opened
         * its queue, or by the register-mode client, whose part is the last one and has no queue.
         */
        if (i == own || (!open && control->parts[i].size == 0) ||
            !pci_lock_byte(device, i, F_WRLCK)) {
            continue;
        }
        if (!open || pci_close_queue(device, i) == VGPU_OK) {
            control->parts[i].size = 0;
            control->owners[i] = 0;
        } else {
            /* A worker that does not end may still use its part, which stays taken. */
            dead &= ~(UINT64_C(1) << i);
        }
        pci_lock_byte(device, i, F_UNLCK);
    }
    return (unsigned)__builtin_popcountll(dead);
}

int pci_take_part(struct pci_device *device, struct vgpu_control *control, uint32_t holder,
                  uint64_t size, unsigned share, struct vgpu_arena_part *part)
{
    const uint64_t shm_size = pci_shm_size_of(device);
    struct vgpu_arena_part taken[VGPU_MAX_QUEUES + 1];
    const struct vgpu_arena_request request = {
        .start = vgpu_arena_offset(shm_size, pci_queue_count(device)),
        .end = shm_size,
        .taken = taken,
        .count = VGPU_MAX_QUEUES + 1,
        .size = size,
        .share = share,
    };

    /*
     * A copy: other processes can write to the list at any moment, in spite of the lock. A part
     * that is noted for `holder` was left by a former one.
     */
    memcpy(taken, control->parts, sizeof(taken));
    taken[holder].size = 0;
    if (!vgpu_arena_choose(&request, part)) {
        return vgpu_fail(VGPU_BUSY,
                         "device %s has no free part of %llu bytes in its %llu MiB of shared "
                         "memory",
                         device->address, (unsigned long long)size,
                         (unsigned long long)shm_size >> 20);
    }
    control->parts[holder] = *part;
    return VGPU_OK;
}

struct vgpu_control *pci_map_control(int shm)
{
    void *control = mmap(NULL, VGPU_CONTROL_SIZE, PROT_READ | PROT_WRITE, MAP_SHARED, shm, 0);

    if (control == MAP_FAILED) {
        vgpu_fail(VGPU_SYSTEM, "cannot map the shared memory: %s", strerror(errno));
        return NULL;
    }
    return control;
}

int vgpu_choose_address(const char *wanted, char address[VGPU_ADDRESS_SIZE])
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
    /* Two are enough to know that there is more than one. */
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
