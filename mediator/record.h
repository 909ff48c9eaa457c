/* SPDX-License-Identifier: MIT */
/*
 * What the mediator knows and nobody else could tell: it lies in memory that outlives the process,
 * a memfd for each VM and one for the host, which a store keeps (keep.h). Nothing is copied there:
 * these fields are where the mediator works, so that none can be forgotten at a crash. The next
 * mediator maps them and goes on (adopt.h).
 *
 * What is not here is asked of the workers (turns, protocol/vgpu-worker.h), lies in memory that is
 * theirs too (counters, device memory), or is forgotten: virtual times and credits of the
 * scheduler, histograms.
 *
 * Records are the mediator's and the store's alone: no worker and no guest has one. Fields are only
 * added, in room that is zero until then; with any other change the version is another one, and
 * sessions do not outlive that upgrade.
 */
#ifndef VGPU_MEDIATOR_RECORD_H
#define VGPU_MEDIATOR_RECORD_H

#include <stdbool.h>
#include <stdint.h>

#include "mediator/config.h"
#include "mediator/probe.h"
#include "protocol/vgpu-attach.h"
#include "protocol/vgpu-queue.h"
#include "protocol/vgpu-worker.h"

#define RECORD_MAGIC UINT64_C(0x314b505547504756)
#define RECORD_VERSION 1u
/* A VM for which so many mediators in a row have crashed is ended, not adopted. */
#define RECORD_BLAMES_MAX 3u
/* So many of those are remembered: they may not attach for a while. */
#define RECORD_ENDED 8u

struct record_header {
    uint64_t magic;
    uint32_t version;
    /* Mediators in a row that have crashed while working for it, or ended adopting it. */
    uint16_t crashes, adoptions;
};

/* Of a worker; those of its predecessors in the same place, where it says so. */
struct process_record {
    int32_t pid;           /* 0 while there is none */
    uint32_t link_version; /* VGPU_LINK_VERSION of who started it */
    uint32_t gpu;          /* number of its GPU, as the driver counts */
    uint32_t off_count;    /* so often it was told to be off or on; odd: off */
    bool opened;           /* it was told OPEN */
    bool ready;            /* it has said READY */
    bool can_be_off;       /* with that */
    bool may_be_off;       /* its work is to be taken off the GPU, if it says that it can be */
    bool condemned;        /* killed on purpose: it is not heard any more */
    uint8_t unused[3];
    uint64_t started_ns;
    uint64_t starts;           /* so far */
    uint64_t failures;         /* ends that nobody had asked for, so far */
    uint64_t preemptions;      /* so often its work was taken off the GPU */
    uint64_t answered;         /* what the last worker had answered when it ended */
    struct vgpu_counters past; /* of all workers before the one that runs */
    uint64_t past_gpu_ns[CONFIG_DEVICES][VGPU_ENGINES];     /* past.gpu_ns by the pool's GPUs */
    char device[sizeof(((struct vgpu_link_msg *)0)->text)]; /* printable */
    uint64_t reserved[4];                                   /* 0 */
};

struct queue_record {
    bool used;       /* the mediator has a queue for this */
    bool closing;    /* the worker was killed for CLOSE */
    bool wanted;     /* to be started, when the one before is gone or the delay over */
    bool shares;     /* it has exported to others, or imported, and nobody has kept what */
    uint32_t state;  /* enum vgpu_queue_state */
    uint32_t end;    /* enum vgpu_queue_end */
    uint32_t reason; /* for which the worker was killed, likewise; NONE: it was not, or for CLOSE */
    uint32_t count;  /* actions so far */
    uint32_t failures; /* starts in a row that did not get to READY */
    bool booked;       /* it has exported to others, or imported, and its book is kept */
    uint8_t unused[7];
    uint64_t reserved; /* 0 */
    struct process_record worker;
};

/*
 * A session's book: what it has exported to others, and imported. An entry's state is one word, so
 * that it changes at once: how often the session has it, 0 being never, and from bit 32 on the
 * number of the message that has made it so.
 */
struct export_entry {
    uint64_t state;
    struct vgpu_export share;
};
struct export_record {
    struct record_header header;
    uint64_t session; /* its number among those that it shares with */
    /* Entries from these on were never used, and take no memory. */
    uint32_t exports_used, imports_used;
    uint64_t reserved[3]; /* 0 */
    struct export_entry exports[VGPU_EXPORTS_MAX], imports[VGPU_EXPORTS_MAX];
};

/* What the next worker for register mode is to do with an answer that is owed. */
enum record_takeover {
    TAKEOVER_RESUME,
    TAKEOVER_DISCARD, /* there was a reset */
    TAKEOVER_TIMEOUT, /* to be answered with that error */
};

struct vm_record {
    struct record_header header;

    /* Fixed while it is attached. */
    uint32_t id;
    uint32_t host;  /* a host process, not a VM */
    uint32_t user;  /* uid */
    int32_t peer;   /* process id of QEMU */
    uint32_t pool;  /* letter */
    uint32_t asked; /* enum vgpu_priority, what it asked for */
    uint32_t queues;
    uint32_t unused;
    uint64_t shm_size;
    uint64_t attached_ns;
    char name[sizeof(((struct vgpu_hello *)0)->name)]; /* printable */

    /* As it is now, and as the configuration had it when that was looked at last. */
    uint32_t paused;
    uint32_t priority;
    struct config_limits limits;
    struct config_limits configured;

    /* Register mode, see vm.h. */
    bool failing, resting, reset_asked, reset_again;
    uint32_t failures;
    uint32_t takeover; /* enum record_takeover */
    uint32_t reset_serial;
    uint64_t rest_ns;
    bool stopped;    /* by STOP, until CONTINUE */
    bool stop_asked; /* STOPPED is still to be said, with `stop_serial` */
    bool finishing;  /* the worker was told to end when it can */
    uint8_t known;   /* VGPU_ATTACHED_* that the client was told */
    uint32_t stop_serial;
    uint8_t uuid[sizeof(((struct vgpu_hello *)0)->uuid)];
    uint64_t reserved[13]; /* 0 */
    struct process_record worker;

    struct queue_record queue[VGPU_MAX_QUEUES];
};

/* Of all VMs together. */
struct host_record {
    struct record_header header;
    uint32_t generation; /* counts mediators, from 1; never 0 */
    uint32_t paused;     /* bit N: pool 'A' + N */
    /*
     * For whom the mediator is working; 0: for nobody. With one of the others it is to blame for
     * the end of a mediator: that was a crash of its own, or came while the VM was being adopted.
     */
    uint32_t working_for;
    bool crashed, adopting;
    uint8_t padding[2];
    /* When a mediator has made room for the next, by vgpuctl upgrade; 0: it died. */
    uint64_t leaving_ns;
    /* What the GPUs are; a probe takes a second, in which nobody would be let in. */
    uint32_t probed; /* this is known */
    struct probe probe;
    struct {
        uint64_t ns; /* when it was ended; 0: nobody was */
        uint32_t id;
        uint32_t unused;
    } ended[RECORD_ENDED]; /* VMs that were to blame */
    uint64_t drained[4];   /* GPUs: bit N % 64 of element N / 64 */
    uint64_t ruled_socket; /* inode of the inherited attach socket whose access is the mediator's */
    uint64_t reserved[11]; /* 0 */
};

/* Makes a record of so many bytes, all zero but its header. Returns 0 or -errno. */
int record_create(const char *name, size_t size, int *fd, void **record);

/* The HELLO by which it would attach as it is. */
void record_hello(const struct vm_record *record, struct vgpu_hello *hello);

/*
 * Maps a record that was kept. NULL when it is none of this layout; the descriptor stays the
 * caller's.
 */
void *record_open(int fd, size_t size);

#endif
