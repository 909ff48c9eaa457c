/* SPDX-License-Identifier: MIT */
/*
 * Watching: the card (vgpu-card.h), by whichever way leads to the registers.
 *
 * A watch takes nothing that sessions or register mode need. With the guest driver it is the device
 * file opened for reading alone, which takes no queue. By sysfs it is the registers without their
 * lock. On the host it is an attached process without a queue, whose card is its own: it tells of
 * the GPU, and not of what other processes have there.
 *
 * The card is copied word by word, and again where the host has stored another one meanwhile.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <unistd.h>

#include "common/clock.h"
#include "guest/libvgpu/internal.h"
#include "guest/libvgpu/pci-device.h"
#include "protocol/vgpu-driver.h"

/* A card is stored right behind the attach; and a host that dies in the middle of it comes back. */
#define FIRST_LIMIT_NS (500 * NS_PER_MS)

struct vgpu_watch {
    struct vgpu *host;            /* one of these three */
    int file;                     /* of the driver; -1: none */
    struct pci_device pci;        /* `regs` not NULL */
    struct vgpu_control *control; /* of sysfs: who has which queue; NULL: not known */
    bool no_memory;               /* of sysfs: BAR2 has no address */
};

static uint32_t watch_word(struct vgpu_watch *watch, uint32_t offset)
{
    return watch->host ? watch->host->transport->read(watch->host, offset)
                       : pci_get(&watch->pci, offset);
}

/* Whether what was read is one whole card. */
static bool read_once(struct vgpu_watch *watch, struct vgpu_card *card)
{
    const uint32_t sequence = watch_word(watch, VGPU_REG_CARD);
    uint32_t words[sizeof(*card) / 4];

    if (sequence == 0 || (sequence & 1) != 0) {
        return false;
    }
    /* x86 reads in order, and neither is the compiler free: each read is a call or volatile. */
    for (uint32_t i = 1; i < sizeof(words) / 4; i++) {
        words[i] = watch_word(watch, VGPU_REG_CARD + 4 * i);
    }
    words[0] = sequence;
    if (watch_word(watch, VGPU_REG_CARD) != sequence) {
        return false;
    }
    memcpy(card, words, sizeof(*card));
    return true;
}

/* All texts end, and nothing stands beyond what the host has said. */
static void tidy_card(struct vgpu_card *card)
{
    const uint32_t size = card->size < sizeof(*card) ? card->size : (uint32_t)sizeof(*card);

    memset((uint8_t *)card + size, 0, sizeof(*card) - size);
    card->facts.name[sizeof(card->facts.name) - 1] = '\0';
    card->facts.bus_id[sizeof(card->facts.bus_id) - 1] = '\0';
    card->facts.driver[sizeof(card->facts.driver) - 1] = '\0';
    card->facts.vbios[sizeof(card->facts.vbios) - 1] = '\0';
}

static int say_silent(uint32_t version)
{
    /* Minor 1 is the first that tells. */
    return (version & 0xffff) == 0
               ? vgpu_fail(VGPU_INCOMPATIBLE, "the host does not tell what its GPU is: its QEMU's "
                                              "device is older")
               : vgpu_fail(VGPU_TIMED_OUT,
                           "the host does not tell what its GPU is, or not yet: its "
                           "mediator is just starting, or is older");
}

static int read_registers(struct vgpu_watch *watch, struct vgpu_card *card)
{
    const bool whole = read_once(watch, card);

    /* What a mediator has left is not true any more. */
    if (watch_word(watch, VGPU_REG_STATUS) == VGPU_STATUS_OFFLINE) {
        return vgpu_fail_offline();
    }
    return whole ? VGPU_OK : say_silent(watch_word(watch, VGPU_REG_VERSION));
}

static int read_driver(struct vgpu_watch *watch, struct vgpu_card *card,
                       int32_t owners[VGPU_MAX_QUEUES])
{
    struct vgpu_driver_card answer;
    struct vgpu_driver_info info = {0};

    if (ioctl(watch->file, VGPU_IOC_CARD, &answer) < 0) {
        switch (errno) {
        case EIO:
            return vgpu_fail_offline();
        case ENODEV:
            return vgpu_fail(VGPU_NO_DEVICE, "the device is gone");
        case EAGAIN:
        case EINTR:
        case ETIMEDOUT:
            ioctl(watch->file, VGPU_IOC_INFO, &info);
            return say_silent(info.version);
        default:
            return vgpu_fail(VGPU_INCOMPATIBLE, "the guest driver does not tell what the GPU is: "
                                                "it is older");
        }
    }
    *card = answer.card;
    if (owners) {
        memcpy(owners, answer.owner, sizeof(answer.owner));
    }
    return VGPU_OK;
}

/* A process that has died has its number there until its queue is given back. */
static void read_owners(struct vgpu_watch *watch, int32_t owners[VGPU_MAX_QUEUES])
{
    const uint32_t queues = watch->control ? pci_queue_count(&watch->pci) : 0;

    for (uint32_t i = 0; i < VGPU_MAX_QUEUES; i++) {
        const bool runs = i < queues &&
                          vgpu_queue_state(pci_queue_status(&watch->pci, i)) == VGPU_QUEUE_RUNNING;

        owners[i] = runs ? *(volatile int32_t *)&watch->control->owners[i] : 0;
    }
}

int vgpu_watch_card(struct vgpu_watch *watch, struct vgpu_card *card,
                    int32_t owners[VGPU_MAX_QUEUES])
{
    const uint64_t start = clock_ns();
    uint64_t waited = 0;
    int r;

    do {
        vgpu_pause(waited);
        r = watch->file >= 0 ? read_driver(watch, card, owners) : read_registers(watch, card);
        waited = clock_ns() - start;
    } while (r == VGPU_TIMED_OUT && waited < FIRST_LIMIT_NS);
    if (r == VGPU_OK) {
        tidy_card(card);
        if (owners && watch->file < 0) {
            read_owners(watch, owners);
        }
    }
    return r;
}

const char *vgpu_watch_way(const struct vgpu_watch *watch)
{
    return watch->host ? "mediator's socket" : watch->file >= 0 ? "guest driver" : "sysfs";
}

void vgpu_watch_identify(struct vgpu_watch *watch, struct vgpu_identity *identity)
{
    struct vgpu_driver_info info = {.status = VGPU_STATUS_OFFLINE};

    if (watch->file >= 0) {
        /* A device that is gone is offline for good. */
        ioctl(watch->file, VGPU_IOC_INFO, &info);
    } else {
        info = (struct vgpu_driver_info){
            .version = watch_word(watch, VGPU_REG_VERSION),
            .pool = watch_word(watch, VGPU_REG_POOL_ID),
            .priority = watch_word(watch, VGPU_REG_PRIORITY),
            .vm_id = watch_word(watch, VGPU_REG_VM_ID),
            .features = watch_word(watch, VGPU_REG_FEATURES),
            .generation = watch_word(watch, VGPU_REG_GENERATION),
            .queues = watch->host ? 0 : watch_word(watch, VGPU_REG_NUM_QUEUES),
            .status = watch_word(watch, VGPU_REG_STATUS),
            .shm_size = (uint64_t)watch_word(watch, VGPU_REG_SHM_SIZE_HI) << 32 |
                        watch_word(watch, VGPU_REG_SHM_SIZE_LO),
        };
    }
    *identity = (struct vgpu_identity){
        .version = info.version,
        .pool = info.pool,
        .priority = info.priority,
        .vm_id = info.vm_id,
        .features = info.features,
        .generation = info.generation,
        .queues = info.queues,
        .shm_size = watch->no_memory ? 0 : info.shm_size,
        .status = (enum vgpu_status)info.status,
    };
}

static int watch_pci(struct vgpu_watch *watch, const char *address)
{
    int shm, r = pci_open_file(&watch->pci, address);

    if (r == VGPU_OK) {
        r = pci_enable(&watch->pci);
    }
    if (r == VGPU_OK) {
        r = pci_map_regs(&watch->pci);
    }
    /* Who has which queue is of use, and nothing is without it. */
    watch->no_memory = r == VGPU_OK && !pci_has_shm(&watch->pci);
    shm = r == VGPU_OK && !watch->no_memory && pci_queue_count(&watch->pci) > 0
              ? pci_open_shm(&watch->pci)
              : -1;
    if (shm >= 0) {
        watch->control = pci_map_control(shm);
        close(shm);
    }
    return r;
}

static int watch_guest(struct vgpu_watch *watch, const char *wanted)
{
    char address[VGPU_ADDRESS_SIZE], path[64];
    int r = vgpu_choose_address(wanted, address);

    if (r != VGPU_OK) {
        return r;
    }
    if (!vgpu_driver_path(address, path, sizeof(path))) {
        return watch_pci(watch, address);
    }
    watch->file = open(path, O_RDONLY | O_CLOEXEC);
    if (watch->file >= 0) {
        return VGPU_OK;
    }
    switch (errno) {
    case EACCES:
    case EPERM:
        return vgpu_fail(VGPU_NO_PERMISSION,
                         "cannot open '%s': %s; root may, and whom 60-vgpu.rules lets read it",
                         path, strerror(errno));
    case ENODEV:
    case ENOENT:
    case ENXIO:
        return vgpu_fail(VGPU_NO_DEVICE, "the device of '%s' is gone", path);
    case EBUSY:
        return vgpu_fail(VGPU_INCOMPATIBLE,
                         "all queues of '%s' are in use, and its driver is too "
                         "old to be asked without one",
                         path);
    default:
        return vgpu_fail(VGPU_SYSTEM, "cannot open '%s': %s", path, strerror(errno));
    }
}

int vgpu_watch_open(const char *address, const struct vgpu_host_options *host,
                    struct vgpu_watch **watch)
{
    struct vgpu_watch *made = calloc(1, sizeof(*made));
    int r;

    if (!made) {
        return vgpu_fail(VGPU_SYSTEM, "out of memory");
    }
    made->file = -1;
    made->pci.file = -1;
    r = host ? vgpu_open_host(host, &made->host) : watch_guest(made, address);
    if (r != VGPU_OK) {
        vgpu_watch_close(made);
        return r;
    }
    *watch = made;
    return VGPU_OK;
}

void vgpu_watch_close(struct vgpu_watch *watch)
{
    if (!watch) {
        return;
    }
    vgpu_close(watch->host);
    if (watch->file >= 0) {
        close(watch->file);
    }
    if (watch->control) {
        munmap(watch->control, VGPU_CONTROL_SIZE);
    }
    pci_close_device(&watch->pci);
    free(watch);
}
