/* SPDX-License-Identifier: MIT */
/*
 * The PCI transport: the stub's BARs through sysfs (Linux Documentation/PCI/
 * sysfs-pci.rst), without a kernel module.
 *
 * Processes agree by locks on the register BAR's file, which end with the open file that holds
 * them. Register mode has a flock. Byte N of the open-file-description locks (fcntl(2)) is queue
 * N's, held while a session lasts; the byte behind them is the register-mode client's, held while
 * it has a part of the arena; the next one guards the control block's list of parts. A queue or
 * part whose lock nobody holds has lost its process, and whoever comes next gives it back.
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

#define LOCK_REGISTER_MODE VGPU_MAX_QUEUES
#define LOCK_CONTROL (VGPU_MAX_QUEUES + 1)
#define NO_QUEUE UINT32_MAX

/* An open device. */
struct pci_device {
    char address[VGPU_ADDRESS_SIZE];
    int file;                /* the register BAR's; holds the locks */
    volatile uint32_t *regs; /* NULL until mapped */
};

struct pci_vgpu {
    struct vgpu head;
    struct pci_device device;
};

struct pci_port {
    struct vgpu_port head;
    struct pci_device device;
    int shm;        /* the shared memory's file */
    uint32_t queue; /* NO_QUEUE until taken */
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

/* Registers and locks -------------------------------------------------------------------- */

static uint32_t get(const struct pci_device *device, uint32_t offset)
{
    return device->regs[offset / 4];
}

/* Takes (F_WRLCK) or gives (F_UNLCK) the lock of a byte; false when somebody has it. */
static bool lock_byte(const struct pci_device *device, uint32_t byte, short type)
{
    struct flock lock = {.l_type = type, .l_whence = SEEK_SET, .l_start = (off_t)byte, .l_len = 1};

    return fcntl(device->file, F_OFD_SETLK, &lock) == 0;
}

/* The same, waiting a while. */
static int wait_for_byte(const struct pci_device *device, uint32_t byte)
{
    const uint64_t start = clock_ns();
    uint64_t waited = 0;

    while (!lock_byte(device, byte, F_WRLCK)) {
        if (waited > LOCK_LIMIT_NS) {
            return vgpu_fail(VGPU_BUSY, "device %s is in use by another process", device->address);
        }
        vgpu_pause(waited);
        waited = clock_ns() - start;
    }
    return VGPU_OK;
}

static void close_device(struct pci_device *device)
{
    if (device->regs) {
        munmap((void *)(uintptr_t)device->regs, VGPU_REGS_SIZE);
    }
    if (device->file >= 0) {
        close(device->file);
    }
}

/* Switches the device's memory on, which no driver has done. */
static int enable(const struct pci_device *device)
{
    char path[128];
    int fd;

    if (read_attribute(device->address, "enable") != 0) {
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

static int map_regs(struct pci_device *device)
{
    void *regs = mmap(NULL, VGPU_REGS_SIZE, PROT_READ | PROT_WRITE, MAP_SHARED, device->file, 0);

    if (regs == MAP_FAILED) {
        return vgpu_fail(VGPU_SYSTEM, "cannot map the registers of device %s: %s", device->address,
                         strerror(errno));
    }
    device->regs = regs;
    if (get(device, VGPU_REG_MAGIC) != VGPU_MAGIC) {
        return vgpu_fail(VGPU_INCOMPATIBLE, "device %s reads 0x%08x where a vGPU has its mark",
                         device->address, get(device, VGPU_REG_MAGIC));
    }
    if (get(device, VGPU_REG_VERSION) >> 16 != VGPU_VERSION_MAJOR) {
        return vgpu_fail(VGPU_INCOMPATIBLE, "device %s speaks protocol version %u, this program %u",
                         device->address, get(device, VGPU_REG_VERSION) >> 16, VGPU_VERSION_MAJOR);
    }
    return VGPU_OK;
}

/* Opens the register BAR's file; `device` is empty. */
static int open_file(struct pci_device *device, const char *address)
{
    char path[128];

    snprintf(device->address, sizeof(device->address), "%s", address);
    device->file = open(device_path(address, "resource0", path), O_RDWR | O_CLOEXEC);
    if (device->file < 0) {
        const int error = errno;

        return vgpu_fail(error == EACCES || error == EPERM ? VGPU_NO_PERMISSION : VGPU_SYSTEM,
                         "cannot open '%s': %s", path, strerror(error));
    }
    return VGPU_OK;
}

/* Opens the shared memory's file; a descriptor, or a result. */
static int open_shm(const struct pci_device *device)
{
    char path[128];
    int fd;

    /* Write-combining where there is a choice: stores then go out in whole lines. */
    fd = open(device_path(device->address, "resource2_wc", path), O_RDWR | O_CLOEXEC);
    if (fd < 0) {
        fd = open(device_path(device->address, "resource2", path), O_RDWR | O_CLOEXEC);
    }
    return fd >= 0 ? fd
                   : vgpu_fail(errno == EACCES ? VGPU_NO_PERMISSION : VGPU_SYSTEM,
                               "cannot open '%s': %s", path, strerror(errno));
}

/* Queues and parts ----------------------------------------------------------------------- */

static uint32_t queue_status(void *context, uint32_t queue)
{
    const struct pci_device *device = context;
    const uint32_t status = get(device, VGPU_REG_QUEUE_STATUS + 4 * queue);

    return get(device, VGPU_REG_STATUS) == VGPU_STATUS_OFFLINE &&
                   vgpu_queue_state(status) == VGPU_QUEUE_RUNNING
               ? VGPU_QUEUE_ENDED | VGPU_QUEUE_END_MEDIATOR << 8 | (status & 0xffff0000u)
               : status;
}

static void queue_control(void *context, uint32_t queue, uint32_t action)
{
    ((struct pci_device *)context)->regs[(VGPU_REG_QUEUE_CONTROL + 4 * queue) / 4] = action;
}

static bool queue_offline(void *context)
{
    return get(context, VGPU_REG_STATUS) == VGPU_STATUS_OFFLINE;
}

static int act(struct pci_device *device, uint32_t queue, uint32_t action, uint32_t *status)
{
    const struct vgpu_queue_access access = {
        .status = queue_status,
        .control = queue_control,
        .offline = queue_offline,
        .context = device,
    };

    return vgpu_queue_act(&access, queue, action, status);
}

static uint32_t queue_count(const struct pci_device *device)
{
    const uint32_t queues = get(device, VGPU_REG_NUM_QUEUES);

    return queues < VGPU_MAX_QUEUES ? queues : VGPU_MAX_QUEUES;
}

/* Closes a queue whose process is gone, or about to go; its lock is this process's. */
static int close_queue(struct pci_device *device, uint32_t queue)
{
    uint32_t status = get(device, VGPU_REG_QUEUE_STATUS + 4 * queue);

    /* Without a mediator there is no worker either. */
    if (vgpu_queue_state(status) == VGPU_QUEUE_FREE || queue_offline(device)) {
        return VGPU_OK;
    }
    return act(device, queue, VGPU_QUEUE_CLOSE, &status);
}

/*
 * Gives back what has lost its process. With the control lock; `own` is not looked at, since a
 * lock of one's own is no obstacle. Returns how many queues were closed.
 */
static unsigned reap(struct pci_device *device, struct vgpu_control *control, uint32_t own)
{
    const uint32_t queues = queue_count(device);
    unsigned closed = 0;

    for (uint32_t i = 0; i <= VGPU_MAX_QUEUES; i++) {
        const bool open = i < queues &&
                          vgpu_queue_state(get(device, VGPU_REG_QUEUE_STATUS + 4 * i)) !=
                              VGPU_QUEUE_FREE;

        if (i == own || (!open && control->parts[i].size == 0) || !lock_byte(device, i, F_WRLCK)) {
            continue;
        }
        /* A worker that does not end may still use its part. */
        if (!open || close_queue(device, i) == VGPU_OK) {
            control->parts[i].size = 0;
            closed += open;
        }
        lock_byte(device, i, F_UNLCK);
    }
    return closed;
}

/* Takes a part of the arena for the holder of a lock. With the control lock. */
static int take_part(struct pci_device *device, struct vgpu_control *control, uint32_t holder,
                     uint64_t shm_size, uint64_t size, unsigned share, struct vgpu_arena_part *part)
{
    struct vgpu_arena_part taken[VGPU_MAX_QUEUES + 1];
    const struct vgpu_arena_request request = {
        .start = vgpu_arena_offset(shm_size, queue_count(device)),
        .end = shm_size,
        .taken = taken,
        .count = VGPU_MAX_QUEUES + 1,
        .size = size,
        .share = share,
    };

    memcpy(taken, control->parts, sizeof(taken));
    taken[holder].size = 0;
    if (!vgpu_arena_choose(&request, part)) {
        return vgpu_fail(VGPU_BUSY, "device %s has no free part of %llu bytes in its shared memory",
                         device->address, (unsigned long long)size);
    }
    control->parts[holder] = *part;
    return VGPU_OK;
}

static struct vgpu_control *map_control(int shm)
{
    void *control = mmap(NULL, VGPU_CONTROL_SIZE, PROT_READ | PROT_WRITE, MAP_SHARED, shm, 0);

    if (control == MAP_FAILED) {
        vgpu_fail(VGPU_SYSTEM, "cannot map the shared memory: %s", strerror(errno));
        return NULL;
    }
    return control;
}

static uint64_t shm_size_of(const struct pci_device *device)
{
    return get(device, VGPU_REG_SHM_SIZE_LO) | (uint64_t)get(device, VGPU_REG_SHM_SIZE_HI) << 32;
}

/* Register mode -------------------------------------------------------------------------- */

static uint32_t pci_read(struct vgpu *vgpu, uint32_t offset)
{
    const uint32_t value = get(&((struct pci_vgpu *)vgpu)->device, offset);

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
    ((struct pci_vgpu *)vgpu)->device.regs[offset / 4] = value;
}

/* Finds the part for a device that has queues; without, all of the memory is the caller's. */
static int find_part(struct pci_device *device, int shm, struct vgpu_arena_part *part)
{
    struct vgpu_control *control;
    int r;

    *part = (struct vgpu_arena_part){.size = shm_size_of(device)};
    if (queue_count(device) == 0) {
        return VGPU_OK;
    }
    control = map_control(shm);
    if (!control) {
        return VGPU_SYSTEM;
    }
    r = wait_for_byte(device, LOCK_CONTROL);
    if (r == VGPU_OK) {
        reap(device, control, LOCK_REGISTER_MODE);
        /* The register mode's flock keeps others off this lock. */
        lock_byte(device, LOCK_REGISTER_MODE, F_WRLCK);
        r = take_part(device, control, LOCK_REGISTER_MODE, shm_size_of(device), 0, 2, part);
        lock_byte(device, LOCK_CONTROL, F_UNLCK);
    }
    munmap(control, VGPU_CONTROL_SIZE);
    return r;
}

static void *pci_map_shm(struct vgpu *vgpu)
{
    struct pci_device *device = &((struct pci_vgpu *)vgpu)->device;
    struct vgpu_arena_part part;
    const int fd = open_shm(device);
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
    close(fd);
    return shm;
}

static void pci_close(struct vgpu *vgpu)
{
    struct pci_vgpu *pci = (struct pci_vgpu *)vgpu;

    if (vgpu->shm) {
        munmap(vgpu->shm, vgpu->shm_size);
    }
    close_device(&pci->device);
    free(pci);
}

static const struct vgpu_transport pci_transport = {
    .comes_back = true,
    .read = pci_read,
    .write = pci_write,
    .map_shm = pci_map_shm,
    .close = pci_close,
};

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

static int open_device(struct pci_vgpu *pci, const char *address)
{
    int r = open_file(&pci->device, address);

    if (r == VGPU_OK) {
        r = take_lock(&pci->device);
    }
    if (r == VGPU_OK) {
        r = enable(&pci->device);
    }
    return r == VGPU_OK ? map_regs(&pci->device) : r;
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
    char chosen[VGPU_ADDRESS_SIZE], path[64];
    struct pci_vgpu *pci;
    int r = vgpu_choose_address(address, chosen);

    if (r != VGPU_OK) {
        return r;
    }
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

/* Sessions ------------------------------------------------------------------------------- */

static int port_map(struct vgpu_port *port, void *address)
{
    void *arena = mmap(address, port->arena_size, PROT_READ | PROT_WRITE,
                       MAP_SHARED | MAP_FIXED_NOREPLACE, ((struct pci_port *)port)->shm,
                       (off_t)port->arena_offset);

    if (arena == MAP_FAILED) {
        return -errno;
    }
    port->arena = arena;
    return 0;
}

static int port_start(struct vgpu_port *port, uint32_t *status)
{
    struct pci_port *pci = (struct pci_port *)port;
    struct vgpu_control *control = map_control(pci->shm);

    if (!control) {
        return VGPU_SYSTEM;
    }
    control->claims[pci->queue] = (struct vgpu_claim){
        .arena_address = (uint64_t)(uintptr_t)port->arena,
        .arena_offset = port->arena_offset,
        .arena_size = port->arena_size,
    };
    __atomic_thread_fence(__ATOMIC_SEQ_CST);
    munmap(control, VGPU_CONTROL_SIZE);
    return act(&pci->device, pci->queue, VGPU_QUEUE_OPEN, status);
}

static uint32_t port_status(struct vgpu_port *port)
{
    struct pci_port *pci = (struct pci_port *)port;

    return queue_status(&pci->device, pci->queue);
}

static void port_kick(struct vgpu_port *port)
{
    struct pci_port *pci = (struct pci_port *)port;

    pci->device.regs[(VGPU_REG_QUEUE_DOORBELL + 4 * pci->queue) / 4] = 1;
}

/* The part stays taken while a worker may use it; whoever comes next sees to that. */
static void give_part(struct pci_port *pci)
{
    struct vgpu_control *control;

    if (pci->queue == NO_QUEUE || close_queue(&pci->device, pci->queue) != VGPU_OK) {
        return;
    }
    control = map_control(pci->shm);
    if (control) {
        control->parts[pci->queue].size = 0;
        munmap(control, VGPU_CONTROL_SIZE);
    }
}

static void port_close(struct vgpu_port *port)
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
    close_device(&pci->device);
    free(pci);
}

static const struct vgpu_port_ops pci_port_ops = {
    .map = port_map,
    .start = port_start,
    .status = port_status,
    .kick = port_kick,
    .close = port_close,
};

/* Takes the first queue that nobody has. With the control lock. */
static int take_queue(struct pci_port *pci)
{
    const uint32_t queues = queue_count(&pci->device);

    for (uint32_t i = 0; i < queues; i++) {
        if (lock_byte(&pci->device, i, F_WRLCK)) {
            pci->queue = i;
            return VGPU_OK;
        }
    }
    if (queue_offline(&pci->device)) {
        return vgpu_fail(VGPU_OFFLINE, "the device is offline: no mediator is running on the host");
    }
    return vgpu_fail(VGPU_BUSY, "all %u queues of device %s are in use", queues,
                     pci->device.address);
}

/* Takes a queue and a part. With the control lock. */
static int take_both(struct pci_port *pci, struct vgpu_control *control, uint64_t arena_size)
{
    struct vgpu_arena_part part;
    int r;

    reap(&pci->device, control, NO_QUEUE);
    r = take_queue(pci);
    if (r != VGPU_OK) {
        return r;
    }
    r = take_part(&pci->device, control, pci->queue, shm_size_of(&pci->device), arena_size, 4,
                  &part);
    pci->head.arena_offset = part.offset;
    pci->head.arena_size = part.size;
    return r;
}

static int set_up_port(struct pci_port *pci, const char *address, uint64_t arena_size)
{
    struct vgpu_control *control;
    void *queue;
    int r = open_file(&pci->device, address);

    if (r == VGPU_OK) {
        r = enable(&pci->device);
    }
    if (r == VGPU_OK) {
        r = map_regs(&pci->device);
    }
    if (r != VGPU_OK) {
        return r;
    }
    pci->shm = open_shm(&pci->device);
    control = pci->shm < 0 ? NULL : map_control(pci->shm);
    if (!control) {
        return pci->shm < 0 ? pci->shm : VGPU_SYSTEM;
    }
    r = wait_for_byte(&pci->device, LOCK_CONTROL);
    if (r == VGPU_OK) {
        r = take_both(pci, control, arena_size);
        lock_byte(&pci->device, LOCK_CONTROL, F_UNLCK);
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
    pci->queue = NO_QUEUE;
    r = set_up_port(pci, address, arena_size);
    if (r != VGPU_OK) {
        port_close(&pci->head);
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

    *count = 0;
    if (r != VGPU_OK || vgpu_driver_path(chosen, path, sizeof(path))) {
        return r;
    }
    r = open_file(&device, chosen);
    if (r == VGPU_OK) {
        r = enable(&device);
    }
    if (r == VGPU_OK) {
        r = map_regs(&device);
    }
    if (r == VGPU_OK) {
        shm = open_shm(&device);
        control = shm < 0 ? NULL : map_control(shm);
        r = control ? wait_for_byte(&device, LOCK_CONTROL) : VGPU_SYSTEM;
    }
    if (r == VGPU_OK) {
        *count = reap(&device, control, NO_QUEUE);
        lock_byte(&device, LOCK_CONTROL, F_UNLCK);
    }
    if (control) {
        munmap(control, VGPU_CONTROL_SIZE);
    }
    if (shm >= 0) {
        close(shm);
    }
    close_device(&device);
    return r;
}
