/* SPDX-License-Identifier: MIT */
/*
 * The card: what a VM's GPU is and does, to be read without a session and without asking the host.
 *
 * The mediator stores it in the register page (vgpu-regs.h) as often as it has something new, each
 * second at most. A guest reads it by words from VGPU_REG_CARD on. `sequence` is odd while the rest
 * is being stored: who reads an even number before and after the rest, and the same, has read one
 * card. It is 0 until there is one, and stays 0 on hosts that know of none.
 *
 * The same facts and sensors are in the gauge page, which a process without a guest, the gauge,
 * fills in for the mediator (vgpu-worker.h). There, too, each entry has a `sequence`.
 *
 * Later versions use what is reserved, or add to the end of the card: bytes beyond the `size` that
 * the host says are 0.
 */
#ifndef VGPU_PROTOCOL_VGPU_CARD_H
#define VGPU_PROTOCOL_VGPU_CARD_H

#include "vgpu-regs.h"

/* Which of the facts and sensors are known, in `known`. */
#define VGPU_KNOWN_DEVICE (1u << 0) /* all facts but those that follow */
#define VGPU_KNOWN_PCI (1u << 1)    /* pci_device, pci_subsystem */
#define VGPU_KNOWN_CORES (1u << 2)  /* cores, architecture, brand, bus_width */
#define VGPU_KNOWN_LINK (1u << 3)   /* link_generation, link_width */
#define VGPU_KNOWN_CLOCKS (1u << 4) /* clock_max */
#define VGPU_KNOWN_LIMITS (1u << 5) /* power_least, power_most, power_default */
#define VGPU_KNOWN_ECC (1u << 6)    /* ecc */
#define VGPU_KNOWN_BOARD (1u << 7)  /* vbios */
/* Sensors: where the host lets the VM see them. */
#define VGPU_KNOWN_BUSY (1u << 16)        /* busy, memory_busy */
#define VGPU_KNOWN_TEMPERATURE (1u << 17) /* temperature */
#define VGPU_KNOWN_POWER (1u << 18)       /* power */
#define VGPU_KNOWN_POWER_LIMIT (1u << 19) /* power_limit */
#define VGPU_KNOWN_CLOCK (1u << 20)       /* clock */
#define VGPU_KNOWN_STATE (1u << 21)       /* state */
#define VGPU_KNOWN_FAN (1u << 22)         /* fan */
#define VGPU_KNOWN_MEMORY (1u << 23)      /* memory_used */
#define VGPU_KNOWN_ENERGY (1u << 24)      /* energy */
#define VGPU_KNOWN_FACTS 0xffffu
#define VGPU_KNOWN_SENSORS (~VGPU_KNOWN_FACTS)

/* Clocks, by NVML's numbers (nvmlClockType_t). */
enum vgpu_clock {
    VGPU_CLOCK_GRAPHICS = 0,
    VGPU_CLOCK_SM = 1,
    VGPU_CLOCK_MEMORY = 2,
    VGPU_CLOCK_VIDEO = 3,
};
#define VGPU_CLOCKS 4u

/* What does not change while the host's driver is loaded. Texts are NUL-terminated, of ASCII. */
struct vgpu_gpu_facts {
    char name[64];          /* as CUDA tells it */
    uint8_t uuid[16];       /* likewise */
    char bus_id[16];        /* likewise: "0000:06:00.0" */
    char driver[32];        /* version of the host's driver: "580.159.04"; empty: not known */
    uint32_t cuda;          /* CUDA version of the driver: 13000; 0 on the CPU */
    uint32_t compute;       /* compute capability, major << 16 | minor; 0 on the CPU */
    uint32_t processors;    /* multiprocessors; 1 on the CPU */
    uint32_t cores;         /* CUDA cores */
    uint64_t memory;        /* bytes of device memory of the whole card */
    uint32_t pci_device;    /* device << 16 | vendor */
    uint32_t pci_subsystem; /* likewise */
    uint32_t architecture;  /* nvmlDeviceArchitecture_t */
    uint32_t brand;         /* nvmlBrandType_t */
    uint32_t bus_width;     /* of the memory, in bits */
    uint32_t link_generation, link_width; /* PCI Express, the most that card and slot can */
    uint32_t clock_max[VGPU_CLOCKS];      /* MHz, by enum vgpu_clock */
    uint32_t power_least, power_most;     /* mW: what its limit may be set to */
    uint32_t power_default;               /* mW: the limit unless set */
    uint32_t ecc;                         /* 1: error correction is on */
    char vbios[32];
    uint8_t reserved[68]; /* 0 */
};

/* What changes all the time, of the whole card, whoever uses it. */
struct vgpu_gpu_sensors {
    uint32_t busy;               /* percent of the last moments in which a kernel ran */
    uint32_t memory_busy;        /* percent in which memory was read or written */
    uint32_t temperature;        /* degrees Celsius */
    uint32_t power;              /* mW */
    uint32_t power_limit;        /* mW, as enforced now */
    uint32_t clock[VGPU_CLOCKS]; /* MHz, by enum vgpu_clock */
    uint32_t state;              /* performance state: 0 is the fastest */
    uint32_t fan;                /* percent */
    uint32_t reserved;           /* 0 */
    uint64_t memory_used;        /* bytes */
    uint64_t energy;             /* mJ since the driver was loaded */
    uint64_t reserved2[4];       /* 0 */
};

/* Of a session, which a process of the guest has. */
struct vgpu_card_session {
    uint32_t memory;        /* device memory in units of VGPU_CARD_UNIT, rounded up */
    uint32_t busy_permille; /* of the last interval, in which its kernels ran */
};
#define VGPU_CARD_UNIT 4096u /* bytes */

/* Engines of a GPU. */
enum vgpu_engine {
    VGPU_ENGINE_COMPUTE = 0,
    VGPU_ENGINE_TO_DEVICE = 1,
    VGPU_ENGINE_FROM_DEVICE = 2,
};
#define VGPU_ENGINES 3u

struct vgpu_card {
    uint32_t sequence; /* as above */
    uint32_t size;     /* bytes of this structure that the host knows */
    uint32_t backend;  /* VGPU_FEATURE_BACKEND_CPU or VGPU_FEATURE_BACKEND_GPU */
    uint32_t known;    /* VGPU_KNOWN_* */
    struct vgpu_gpu_facts facts;
    struct vgpu_gpu_sensors sensors;
    uint64_t memory_total; /* bytes that the VM may have: its quota, or the whole card */
    uint64_t memory_used;  /* bytes that it has */
    uint32_t
        busy_permille[VGPU_ENGINES]; /* of the last interval, in which the VM's work was there */
    uint32_t interval_ms; /* how long that was when this card was made; 0: none is over yet */
    struct vgpu_card_session session[VGPU_MAX_QUEUES]; /* by queue */
};

static_assert(sizeof(struct vgpu_gpu_facts) == 312, "ABI");
static_assert(sizeof(struct vgpu_gpu_sensors) == 96, "ABI");
static_assert(offsetof(struct vgpu_card, facts) == 16, "ABI");
static_assert(offsetof(struct vgpu_card, sensors) == 328, "ABI");
static_assert(offsetof(struct vgpu_card, memory_total) == 424, "ABI");
static_assert(offsetof(struct vgpu_card, session) == 456, "ABI");
static_assert(sizeof(struct vgpu_card) == 968, "ABI");
static_assert(sizeof(struct vgpu_card) <= VGPU_CARD_MAX, "fits its window");

#endif
