/* SPDX-License-Identifier: MIT */
/*
 * The vGPU stub as a guest sees it: PCI identity, the registers of BAR0, and the
 * register page behind them.
 *
 * Theory of operation
 * -------------------
 * BAR0 holds 4 KiB of 32-bit little-endian registers. Those that change while a
 * request runs (STATUS, ERROR, the two buffers, ...) do not live in QEMU but in
 * the register page, 4096 bytes that follow the shared memory in the VM's memfd,
 * each word at the same offset as in BAR0. QEMU's handlers and the worker both
 * map that page, so a request crosses from guest to worker without being copied
 * through a socket. The guest reaches the page only through QEMU's handlers: it is
 * not part of BAR2.
 *
 * This file depends on nothing but <stdint.h>: QEMU, the host programs and the
 * guest programs include it. docs/registers.md says the same for people who write
 * drivers of their own; tests/unit/abi.golden pins every number.
 */
#ifndef VGPU_PROTOCOL_VGPU_REGS_H
#define VGPU_PROTOCOL_VGPU_REGS_H

#include <assert.h>
#include <stddef.h>
#include <stdint.h>

/* Words are shared as they lie in memory, so host and guest must agree with the wire. */
static_assert(__BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__, "little-endian machines only");

/* PCI identity. */
#define VGPU_PCI_VENDOR_ID 0x1234u
#define VGPU_PCI_DEVICE_ID 0x0003u
#define VGPU_PCI_REVISION 0x02u
#define VGPU_PCI_CLASS 0x1200u /* processing accelerator */

/* Which BAR is what. BAR2 and BAR4 take two slots or one as PCI defines. */
#define VGPU_BAR_REGS 0
#define VGPU_BAR_SHM 2
#define VGPU_BAR_MSIX 4

#define VGPU_REGS_SIZE 4096u /* bytes, of BAR0 and of the register page */

#define VGPU_MAGIC 0x55504756u /* "VGPU", read as little-endian bytes */
#define VGPU_VERSION_MAJOR 2u
#define VGPU_VERSION_MINOR 2u /* 1: VGPU_REG_CARD; 2: HELLO has a UUID */
#define VGPU_VERSION (VGPU_VERSION_MAJOR << 16 | VGPU_VERSION_MINOR)

/* Register offsets in BAR0, in bytes. RO, RW and WO are the guest's access. */
#define VGPU_REG_MAGIC 0x00u           /* RO VGPU_MAGIC */
#define VGPU_REG_VERSION 0x04u         /* RO VGPU_VERSION */
#define VGPU_REG_POOL_ID 0x08u         /* RO pool, an upper-case ASCII letter */
#define VGPU_REG_PRIORITY 0x0Cu        /* RO enum vgpu_priority */
#define VGPU_REG_VM_ID 0x10u           /* RO number of the VM, as the host set it; not 0 */
#define VGPU_REG_FEATURES 0x14u        /* RO VGPU_FEATURE_* */
#define VGPU_REG_REQUEST_LEN 0x18u     /* RW bytes valid in the request buffer, 16 to 256 */
#define VGPU_REG_RESPONSE_LEN 0x1Cu    /* RO bytes valid in the response buffer */
#define VGPU_REG_DOORBELL 0x20u        /* WO any write runs the request buffer */
#define VGPU_REG_STATUS 0x24u          /* RO enum vgpu_status */
#define VGPU_REG_ERROR 0x28u           /* RO enum vgpu_error, when STATUS is 3 */
#define VGPU_REG_GENERATION 0x2Cu      /* RO counts the workers that served this device */
#define VGPU_REG_SHM_SIZE_LO 0x30u     /* RO bytes of shared memory in BAR2, low word */
#define VGPU_REG_SHM_SIZE_HI 0x34u     /* RO, high word */
#define VGPU_REG_NUM_QUEUES 0x38u      /* RO command queues, see vgpu-queue.h */
#define VGPU_REG_CONTROL 0x3Cu         /* RW VGPU_CONTROL_* */
#define VGPU_REG_REQUEST 0x100u        /* RW request buffer */
#define VGPU_REG_RESPONSE 0x200u       /* RO response buffer */
#define VGPU_REG_QUEUE_DOORBELL 0x400u /* WO a word per queue: wakes its parked worker */
#define VGPU_REG_QUEUE_STATUS 0x500u   /* RO a word per queue, see vgpu-queue.h */
#define VGPU_REG_QUEUE_CONTROL 0x600u  /* WO a word per queue, VGPU_QUEUE_OPEN or _CLOSE */
#define VGPU_REG_CARD 0xA00u           /* RO what the GPU is and does, see vgpu-card.h */

#define VGPU_REQUEST_MAX 256u  /* bytes in the request buffer */
#define VGPU_RESPONSE_MAX 256u /* bytes in the response buffer */
#define VGPU_CARD_MAX 1536u    /* bytes from VGPU_REG_CARD on */
#define VGPU_MAX_QUEUES 64u

/* FEATURES. One backend bit is set once a worker has started: it computes on the CPU or a GPU. */
#define VGPU_FEATURE_SHM (1u << 0)         /* BAR2 is backed by memory */
#define VGPU_FEATURE_MSIX (1u << 1)        /* vector 0: register mode; 1 + N: queue N */
#define VGPU_FEATURE_QUEUES (1u << 2)      /* NUM_QUEUES is not 0 */
#define VGPU_FEATURE_BACKEND_CPU (1u << 8) /* no GPU: the host's CPU computes */
#define VGPU_FEATURE_BACKEND_GPU (1u << 9) /* a GPU of the host computes */

/* CONTROL: writing RESET drops the request that runs; the bit reads 1 until that is done. */
#define VGPU_CONTROL_RESET (1u << 0)

/*
 * STATUS. BUSY holds from the doorbell until the response is there, without a gap: a guest that
 * rings and then reads never sees the state of the request before. OFFLINE takes precedence over
 * all others.
 */
enum vgpu_status {
    VGPU_STATUS_IDLE = 0,     /* nothing was asked since reset */
    VGPU_STATUS_BUSY = 1,     /* a request waits or runs, or a reset is under way */
    VGPU_STATUS_COMPLETE = 2, /* the response buffer holds the result */
    VGPU_STATUS_ERROR = 3,    /* ERROR says why */
    VGPU_STATUS_OFFLINE = 4,  /* no mediator; doorbells are ignored */
};

/* PRIORITY: the band of the scheduler; a higher one is served first. */
enum vgpu_priority {
    VGPU_PRIORITY_LOW = 0,
    VGPU_PRIORITY_MEDIUM = 1,
    VGPU_PRIORITY_HIGH = 2,
};
#define VGPU_PRIORITIES 3u

/* ERROR: value, name, text. The values are wire ABI. */
#define VGPU_ERRORS(X)                                                                             \
    X(0, NONE, "no error")                                                                         \
    X(1, BAD_LENGTH, "REQUEST_LEN does not fit the opcode")                                        \
    X(2, BAD_OPCODE, "unknown opcode")                                                             \
    X(3, BAD_TYPE, "unknown element type")                                                         \
    X(4, BAD_COUNT, "the element count is zero or too large")                                      \
    X(5, BAD_ALIGNMENT, "an offset is not a multiple of 4")                                        \
    X(6, BAD_RANGE, "a vector does not lie within the shared memory")                              \
    X(7, BAD_OVERLAP, "the result overlaps an operand without being the same vector")              \
    X(8, BAD_RESERVED, "a reserved field is not zero")                                             \
    X(9, BACKEND, "the GPU or its driver failed; the mediator's log says how")                     \
    X(10, NO_MEMORY, "not enough GPU memory")                                                      \
    X(11, WORKER_LOST, "the host process that served the request died twice on it or midway")      \
    X(12, TIMEOUT, "the request ran longer than the host allows")

enum vgpu_error {
#define VGPU_ERROR_ENUM(value, name, text) VGPU_ERROR_##name = (value),
    VGPU_ERRORS(VGPU_ERROR_ENUM)
#undef VGPU_ERROR_ENUM
};
#define VGPU_ERROR_COUNT 13u

/* How far the request that was taken last has come; the next worker acts by it. */
enum vgpu_journal_state {
    VGPU_JOURNAL_EMPTY = 0,    /* none, or answered */
    VGPU_JOURNAL_ACCEPTED = 1, /* copied and valid; nothing was done for it yet */
    VGPU_JOURNAL_STARTED = 2,  /* may have changed the shared memory; safe to run again */
    VGPU_JOURNAL_ONCE = 3,     /* the same, but must not run again */
};

/*
 * The request in flight, kept where it outlives the worker: QEMU holds the memfd, so the next
 * worker, even the next mediator's, finds it and finishes it. Written by workers alone; a worker
 * that takes over validates it like a guest's bytes, for QEMU could write here too.
 */
struct vgpu_journal {
    uint32_t state;                    /* enum vgpu_journal_state; store-release after the rest */
    uint32_t length;                   /* bytes valid in `request`, 16 to VGPU_REQUEST_MAX */
    uint8_t request[VGPU_REQUEST_MAX]; /* the copy that was checked, as vgpu-request.h has it */
};

/*
 * The register page. Offsets below 0x800, and those of the card, are those of BAR0; words that QEMU
 * answers from its own state (identity, sizes) are unused here. Each field has one writer: Q is
 * QEMU's handlers (or a host process that attached by itself), W the worker, M the mediator.
 */
struct vgpu_regs_page {
    uint8_t unused0[VGPU_REG_FEATURES];
    uint32_t features;     /* W: backend bits */
    uint32_t request_len;  /* Q: bytes valid in `request`; any number: the worker checks it */
    uint32_t response_len; /* W: bytes valid in `response`, at most VGPU_RESPONSE_MAX */
    uint32_t unused1;
    uint32_t status;     /* W: enum vgpu_status, never OFFLINE; store-release after the response */
    uint32_t error;      /* W: enum vgpu_error; NONE unless `status` is ERROR */
    uint32_t generation; /* W: incremented by each worker as it starts */
    uint8_t unused2[VGPU_REG_REQUEST - 0x30];
    uint8_t request[VGPU_REQUEST_MAX];   /* Q: as vgpu-request.h has it */
    uint8_t response[VGPU_RESPONSE_MAX]; /* W: likewise */
    uint8_t unused3[VGPU_REG_QUEUE_STATUS - 0x300];
    uint32_t queue_status[VGPU_MAX_QUEUES]; /* M: see vgpu-queue.h */
    uint8_t unused6[0x800 - 0x600];
    /* From here on to the card nothing is reachable through BAR0. */
    uint32_t irq_wanted; /* Q: 1: an answer signals the interrupt eventfd; 0: it does not */
    uint32_t unused4[15];
    struct vgpu_journal journal; /* W */
    uint8_t unused5[VGPU_REG_CARD - 0x840 - sizeof(struct vgpu_journal)];
    uint8_t card[VGPU_CARD_MAX]; /* M: struct vgpu_card */
};

static_assert(sizeof(struct vgpu_journal) == 264, "ABI");
static_assert(sizeof(struct vgpu_regs_page) == VGPU_REGS_SIZE, "ABI");
static_assert(offsetof(struct vgpu_regs_page, features) == VGPU_REG_FEATURES, "ABI");
static_assert(offsetof(struct vgpu_regs_page, request_len) == VGPU_REG_REQUEST_LEN, "ABI");
static_assert(offsetof(struct vgpu_regs_page, response_len) == VGPU_REG_RESPONSE_LEN, "ABI");
static_assert(offsetof(struct vgpu_regs_page, status) == VGPU_REG_STATUS, "ABI");
static_assert(offsetof(struct vgpu_regs_page, error) == VGPU_REG_ERROR, "ABI");
static_assert(offsetof(struct vgpu_regs_page, generation) == VGPU_REG_GENERATION, "ABI");
static_assert(offsetof(struct vgpu_regs_page, request) == VGPU_REG_REQUEST, "ABI");
static_assert(offsetof(struct vgpu_regs_page, response) == VGPU_REG_RESPONSE, "ABI");
static_assert(offsetof(struct vgpu_regs_page, queue_status) == VGPU_REG_QUEUE_STATUS, "ABI");
static_assert(offsetof(struct vgpu_regs_page, irq_wanted) == 0x800, "ABI");
static_assert(offsetof(struct vgpu_regs_page, journal) == 0x840, "ABI");
static_assert(offsetof(struct vgpu_regs_page, card) == VGPU_REG_CARD, "ABI");

/* Limits of the shared memory. Its size is a power of two, because that of a PCI BAR is. */
#define VGPU_SHM_MIN (1ull << 20) /* bytes */
#define VGPU_SHM_MAX (1ull << 36) /* bytes */

/* Whether a size can be that of BAR2. */
static inline int vgpu_shm_size_valid(uint64_t bytes)
{
    return bytes >= VGPU_SHM_MIN && bytes <= VGPU_SHM_MAX && (bytes & (bytes - 1)) == 0;
}

#endif
