/* SPDX-License-Identifier: MIT */
/*
 * The driver transport: the guest driver's device file (protocol/vgpu-driver.h), for sessions and
 * for register mode.
 *
 * Each session and each register-mode handle opens the file for itself, which gives it a queue, and
 * asks for a part of the arena. Both are mapped from the file. The registers cannot be mapped: what
 * they say comes with VGPU_IOC_INFO and VGPU_IOC_STATUS.
 *
 * There are no locks and no list of parts here, unlike in pci-device.c. The driver keeps book, and
 * gives queue and part back when the file and its mappings are gone, however the process ended.
 */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <unistd.h>

#include "guest/libvgpu/internal.h"
#include "protocol/vgpu-driver.h"

/* Where the driver core lists the device files of a PCI function. */
#define DEVICES "/sys/bus/pci/devices"

struct driver_vgpu {
    struct vgpu head;
    int file;
    struct vgpu_driver_info info;
};

struct driver_port {
    struct vgpu_port head;
    int file;
};

/*
 * While the driver serves the device at 0000:00:04.0, sysfs has a folder 0000:00:04.0/vgpu with a
 * folder vgpu0 in it; the device file is /dev/vgpu0 then.
 */
bool vgpu_driver_path(const char *address, char *path, unsigned size)
{
    static const char *const classes[] = {"misc", "vgpu"};

    for (size_t i = 0; i < sizeof(classes) / sizeof(classes[0]); i++) {
        char name[128];
        const struct dirent *entry;
        bool found = false;
        DIR *directory;

        snprintf(name, sizeof(name), DEVICES "/%.31s/%s", address, classes[i]);
        directory = opendir(name);
        while (directory && !found && (entry = readdir(directory)) != NULL) {
            found = strncmp(entry->d_name, "vgpu", 4) == 0 && strlen(entry->d_name) < 32;
            if (found) {
                snprintf(path, size, "/dev/%.31s", entry->d_name);
            }
        }
        if (directory) {
            closedir(directory);
        }
        if (found) {
            return true;
        }
    }
    return false;
}

/*
 * A result for a failed ioctl, by errno as protocol/vgpu-driver.h has it. `what` completes "the
 * device has not ...".
 */
static int driver_failed(const char *what)
{
    switch (errno) {
    case EIO:
        return vgpu_fail_offline();
    case ETIMEDOUT:
        return vgpu_fail(VGPU_TIMED_OUT, "the device has not %s in time", what);
    case EBUSY:
    case ENOSPC:
        return vgpu_fail(VGPU_BUSY, "the device has not %s: others use all of it", what);
    case EPERM:
    case EACCES:
        return vgpu_fail(VGPU_NO_PERMISSION, "the device has not %s: %s", what, strerror(errno));
    default:
        return vgpu_fail(VGPU_SYSTEM, "the device has not %s: %s", what, strerror(errno));
    }
}

/* Opens the device file; a descriptor, or a result. */
static int open_file(const char *address, struct vgpu_driver_info *info)
{
    char path[64] = "";
    int fd, r;

    /*
     * If the driver has gone since the caller looked for it, the path stays empty and open() fails.
     * O_NONBLOCK is for read() in driver_port_wait().
     */
    vgpu_driver_path(address, path, sizeof(path));
    fd = open(path, O_RDWR | O_CLOEXEC | O_NONBLOCK);
    if (fd < 0) {
        if (errno == EBUSY) {
            return vgpu_fail(VGPU_BUSY, "all queues of '%s' are in use by other sessions", path);
        }
        if (errno == EACCES || errno == EPERM) {
            return vgpu_fail(VGPU_NO_PERMISSION,
                             "cannot open '%s': %s; root may, and the group that 60-vgpu.rules "
                             "names",
                             path, strerror(errno));
        }
        return vgpu_fail(VGPU_SYSTEM, "cannot open '%s': %s", path, strerror(errno));
    }
    if (ioctl(fd, VGPU_IOC_INFO, info) < 0) {
        r = driver_failed("told what it is");
        close(fd);
        return r;
    }
    if (info->driver_version != VGPU_DRIVER_VERSION || info->version >> 16 != VGPU_VERSION_MAJOR) {
        close(fd);
        return vgpu_fail(VGPU_INCOMPATIBLE,
                         "'%s' is driver version %u for protocol %u, this program knows %u and %u",
                         path, info->driver_version, info->version >> 16, VGPU_DRIVER_VERSION,
                         VGPU_VERSION_MAJOR);
    }
    return fd;
}

/* Register mode -------------------------------------------------------------------------- */

static uint32_t driver_read(struct vgpu *vgpu, uint32_t offset)
{
    struct driver_vgpu *own = (struct driver_vgpu *)vgpu;

    /*
     * One ioctl brings all registers, so each read costs as much. That serves vgpu_identify();
     * requests do not come this way. If it fails, the values of the last read stand.
     */
    ioctl(own->file, VGPU_IOC_INFO, &own->info);
    switch (offset) {
    case VGPU_REG_MAGIC:
        return VGPU_MAGIC;
    case VGPU_REG_VERSION:
        return own->info.version;
    case VGPU_REG_POOL_ID:
        return own->info.pool;
    case VGPU_REG_PRIORITY:
        return own->info.priority;
    case VGPU_REG_VM_ID:
        return own->info.vm_id;
    case VGPU_REG_FEATURES:
        return own->info.features;
    case VGPU_REG_GENERATION:
        return own->info.generation;
    case VGPU_REG_STATUS:
        return own->info.status;
    case VGPU_REG_NUM_QUEUES:
        return own->info.queues;
    case VGPU_REG_SHM_SIZE_LO:
        return (uint32_t)own->info.shm_size;
    case VGPU_REG_SHM_SIZE_HI:
        return (uint32_t)(own->info.shm_size >> 32);
    default:
        return 0;
    }
}

static void driver_write(struct vgpu *vgpu, uint32_t offset, uint32_t value)
{
    /* Requests and resets go through the calls below. */
    (void)vgpu;
    (void)offset;
    (void)value;
}

static void *driver_map_shm(struct vgpu *vgpu)
{
    struct driver_vgpu *own = (struct driver_vgpu *)vgpu;
    const uint64_t arena = vgpu_arena_offset(own->info.shm_size, own->info.queues);
    /*
     * Half of the arena, which is what sysfs gives when no session has a part. If so much is not
     * free, the driver's own choice: a quarter of the largest part that is.
     */
    struct vgpu_driver_arena part = {.size = (own->info.shm_size - arena) / 2};
    void *shm;

    if (ioctl(own->file, VGPU_IOC_ARENA, &part) < 0) {
        part.size = 0;
        if (ioctl(own->file, VGPU_IOC_ARENA, &part) < 0) {
            driver_failed("a free part of its shared memory");
            return NULL;
        }
    }
    shm = mmap(NULL, part.size, PROT_READ | PROT_WRITE, MAP_SHARED, own->file,
               (off_t)VGPU_DRIVER_MMAP_ARENA);
    if (shm == MAP_FAILED) {
        vgpu_fail(VGPU_SYSTEM, "cannot map %llu bytes of shared memory: %s",
                  (unsigned long long)part.size, strerror(errno));
        return NULL;
    }
    vgpu->shm_size = part.size;
    vgpu->shm_offset = part.offset;
    return shm;
}

/*
 * For the ioctls that wait for the host. A driver of an older version gives them up at a signal,
 * and they are made anew: it drops the request, or closes the queue that the start has left.
 */
static int driver_wait(int file, unsigned long command, void *argument)
{
    int r;

    do {
        r = ioctl(file, command, argument);
    } while (r < 0 && errno == EINTR);
    return r;
}

static int driver_request(struct vgpu *vgpu, const void *request, uint32_t length, void *response,
                          uint32_t *response_length)
{
    struct driver_vgpu *own = (struct driver_vgpu *)vgpu;
    struct vgpu_driver_request call = {.length = length, .timeout_ms = vgpu->timeout_ms};

    memcpy(call.request, request, length);
    if (driver_wait(own->file, VGPU_IOC_REQUEST, &call) < 0) {
        return driver_failed("answered");
    }
    if (call.status != VGPU_STATUS_COMPLETE) {
        return vgpu_refused(vgpu, call.error);
    }
    if (call.response_length > VGPU_RESPONSE_MAX) {
        return vgpu_fail(VGPU_INCOMPATIBLE, "a response of %u bytes", call.response_length);
    }
    memcpy(response, call.response, call.response_length);
    *response_length = call.response_length;
    return VGPU_OK;
}

/* VGPU_IOC_RESET needs CAP_SYS_ADMIN: it drops whatever request runs, also another process's. */
static int driver_reset(struct vgpu *vgpu)
{
    return ioctl(((struct driver_vgpu *)vgpu)->file, VGPU_IOC_RESET) < 0
               ? driver_failed("been reset")
               : VGPU_OK;
}

static void driver_close(struct vgpu *vgpu)
{
    struct driver_vgpu *own = (struct driver_vgpu *)vgpu;

    if (vgpu->shm) {
        munmap(vgpu->shm, vgpu->shm_size);
    }
    close(own->file);
    free(own);
}

static const struct vgpu_transport driver_transport = {
    .comes_back = true,
    .read = driver_read,
    .write = driver_write,
    .map_shm = driver_map_shm,
    .request = driver_request,
    .reset = driver_reset,
    .close = driver_close,
};

int vgpu_open_driver(const char *address, struct vgpu **vgpu)
{
    struct driver_vgpu *own = calloc(1, sizeof(*own));

    if (!own) {
        return vgpu_fail(VGPU_SYSTEM, "out of memory");
    }
    own->head.transport = &driver_transport;
    own->head.timeout_ms = VGPU_DEFAULT_TIMEOUT_MS;
    own->file = open_file(address, &own->info);
    if (own->file < 0) {
        const int r = own->file;

        free(own);
        return r;
    }
    *vgpu = &own->head;
    return VGPU_OK;
}

/* Sessions ------------------------------------------------------------------------------- */

static int driver_port_map(struct vgpu_port *port, void *address)
{
    return vgpu_port_map_arena(port, ((struct driver_port *)port)->file, VGPU_DRIVER_MMAP_ARENA,
                               address);
}

static int driver_port_start(struct vgpu_port *port, uint32_t *status)
{
    struct vgpu_driver_start start = {.address = (uint64_t)(uintptr_t)port->arena};

    if (driver_wait(((struct driver_port *)port)->file, VGPU_IOC_START, &start) < 0) {
        return driver_failed("started the session");
    }
    *status = start.status;
    return VGPU_OK;
}

static uint32_t driver_port_status(struct vgpu_port *port)
{
    const int file = ((struct driver_port *)port)->file;
    struct vgpu_driver_info info;
    uint32_t status = 0;

    /* The device was unplugged or unbound, or driver_port_hang_up() has been here. */
    if (ioctl(file, VGPU_IOC_STATUS, &status) < 0) {
        return VGPU_QUEUE_ENDED | VGPU_QUEUE_END_LOST << 8;
    }
    /* A mediator that was killed could not store ENDED. Its workers have ended with it. */
    if (vgpu_queue_state(status) == VGPU_QUEUE_RUNNING && ioctl(file, VGPU_IOC_INFO, &info) == 0 &&
        info.status == VGPU_STATUS_OFFLINE) {
        return VGPU_QUEUE_ENDED | VGPU_QUEUE_END_MEDIATOR << 8 | (status & 0xffff0000u);
    }
    return status;
}

static void driver_port_kick(struct vgpu_port *port)
{
    ioctl(((struct driver_port *)port)->file, VGPU_IOC_KICK);
}

static void driver_port_wait(struct vgpu_port *port, int timeout_ms)
{
    struct pollfd p = {.fd = ((struct driver_port *)port)->file, .events = POLLIN};
    uint32_t count;

    /*
     * The thread that waited looks at its slot next, whatever the count is, and also if it could
     * not be read. The read is there so that the next poll() waits again.
     */
    if (poll(&p, 1, timeout_ms) == 1 && read(p.fd, &count, sizeof(count)) < 0) {
        return;
    }
}

/*
 * The driver closes the queue when the file and its mappings are gone; session_hang_up() replaces
 * these. The descriptor's number goes on to exist, as /dev/null: other threads may be about to use
 * it, and after a close() the number could be that of any file which the program opens next.
 */
static void driver_port_hang_up(struct vgpu_port *port)
{
    const int nothing = open("/dev/null", O_RDWR | O_CLOEXEC);

    if (nothing >= 0) {
        dup3(nothing, ((struct driver_port *)port)->file, O_CLOEXEC);
        close(nothing);
    }
}

/*
 * Also for a port that is set up in part. Unmapping and closing is all: with the last of them the
 * driver closes the queue and frees the part.
 */
static void driver_port_close(struct vgpu_port *port)
{
    struct driver_port *own = (struct driver_port *)port;

    if (port->arena) {
        munmap(port->arena, port->arena_size);
    }
    if (port->queue) {
        munmap(port->queue, VGPU_QUEUE_SIZE);
    }
    if (own->file >= 0) {
        close(own->file);
    }
    free(own);
}

static const struct vgpu_port_ops driver_port_ops = {
    .map = driver_port_map,
    .start = driver_port_start,
    .status = driver_port_status,
    .kick = driver_port_kick,
    .wait = driver_port_wait,
    .hang_up = driver_port_hang_up,
    .close = driver_port_close,
};

/*
 * For a queue that got no interrupt of its own, since the device had too few vectors: without
 * wait(), threads look at their slots in ever longer pauses.
 */
static const struct vgpu_port_ops polled_port_ops = {
    .map = driver_port_map,
    .start = driver_port_start,
    .status = driver_port_status,
    .kick = driver_port_kick,
    .hang_up = driver_port_hang_up,
    .close = driver_port_close,
};

static int driver_set_up_port(struct driver_port *own, const char *address, uint64_t arena_size)
{
    struct vgpu_driver_arena part = {.size = arena_size};
    struct vgpu_driver_info info = {0};
    void *queue;

    own->file = open_file(address, &info);
    if (own->file < 0) {
        return own->file;
    }
    own->head.ops = info.interrupts ? &driver_port_ops : &polled_port_ops;
    if (ioctl(own->file, VGPU_IOC_ARENA, &part) < 0) {
        return vgpu_fail(errno == ENOSPC ? VGPU_BUSY : VGPU_SYSTEM,
                         "device %s has no free part of %llu bytes in its %llu MiB of shared "
                         "memory: %s",
                         address, (unsigned long long)arena_size,
                         (unsigned long long)info.shm_size >> 20, strerror(errno));
    }
    own->head.arena_offset = part.offset;
    own->head.arena_size = part.size;
    queue = mmap(NULL, VGPU_QUEUE_SIZE, PROT_READ | PROT_WRITE, MAP_SHARED, own->file, 0);
    if (queue == MAP_FAILED) {
        return vgpu_fail(VGPU_SYSTEM, "cannot map the queue: %s", strerror(errno));
    }
    own->head.queue = queue;
    return VGPU_OK;
}

int vgpu_port_open_driver(const char *address, uint64_t arena_size, struct vgpu_port **port)
{
    struct driver_port *own = calloc(1, sizeof(*own));
    int r;

    if (!own) {
        return vgpu_fail(VGPU_SYSTEM, "out of memory");
    }
    /* For driver_port_close(), until the device has said whether it has an interrupt. */
    own->head.ops = &driver_port_ops;
    own->file = -1;
    r = driver_set_up_port(own, address, arena_size);
    if (r != VGPU_OK) {
        driver_port_close(&own->head);
        return r;
    }
    *port = &own->head;
    return VGPU_OK;
}
