/* SPDX-License-Identifier: MIT */
/*
 * vgpu-worker as a whole: main.c reads the options, register-worker.c serves a VM's register page,
 * ring-worker.c a queue, gauge.c no guest at all; worker.c has what they ask for at their start.
 * The mediator starts each with its descriptors in place (protocol/vgpu-worker.h), and ends it with
 * SIGKILL whenever it likes. When no mediator is there any more, and none can come, it ends by
 * itself.
 */
#ifndef VGPU_WORKER_WORKER_H
#define VGPU_WORKER_WORKER_H

#include <stdbool.h>
#include <sys/types.h>

#include "protocol/vgpu-worker.h"
#include "worker/backend.h"
#include "worker/registers.h"

struct options {
    enum backend_kind backend;
    int device;
    uint64_t shm_size; /* bytes */
    enum registers_takeover takeover;
    enum vgpu_error error; /* for REGISTERS_FAIL */
    bool resting;          /* register mode without a device */
    uint64_t rest_ns;      /* after which a device that nothing asks for is given back; 0: never */
    uid_t user;
    gid_t group;
    bool preempt;         /* its work may be taken off the GPU */
    const char *gpu_name; /* that the guest sees; NULL: what the card is called */
    bool gauge;           /* no guest's: it tells of the GPUs */
    bool sensors;         /* and of their sensors */
    uint32_t queues;      /* of the device; 0: serve the register page */
    uint32_t queue;       /* to serve */
};

/* Both return the process's exit code. */
int register_worker(const struct options *options);
int ring_worker(const struct options *options);

/* Maps a part of a shared memfd; ends the process when that fails. */
void *worker_map(int fd, uint64_t size, uint64_t offset, const char *what);

/* Maps the VM's account page, and logs within the VM's budget there from now on. */
struct vgpu_account_page *worker_account(void);

/* What computes has the name that the guest is to see. */
void worker_name_gpu(const struct options *options, struct vgpu_device_info *info);

/* Waits until the mediator lets it make its context; ends the process where it goes instead. */
void worker_await_open(void);

/*
 * Tells the mediator that this worker is ready, and whether it can take its work off the GPU.
 * Returns 0 or -errno.
 */
int worker_send_ready(const struct vgpu_device_info *info, bool can_be_off);

/*
 * Another mediator has said RESYNC with this number. It is answered by worker_send_state(), which
 * does nothing where there is none to be answered, with how each of the turns stands. Returns 0 or
 * -errno.
 */
void worker_note_resync(uint32_t number);
int worker_send_state(const uint32_t turns[VGPU_ENGINES]);

/* Notes that this process is about to exit with this code, and returns it. */
int worker_note_end(struct vgpu_turn_page *page, int code);

/*
 * Ends the process when nobody holds the other end of its link any more, whatever it is doing: a
 * thread waits for that. Returns 0 or -errno, logged.
 */
int worker_watch_link(void);

#endif
