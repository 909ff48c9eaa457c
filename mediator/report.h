/* SPDX-License-Identifier: MIT */
/*
 * What a VM and its workers have done, for vgpuctl and the metrics alike. Counters are sums over
 * all workers so far, those of sessions that have ended too: none falls while its VM is attached.
 */
#ifndef VGPU_MEDIATOR_REPORT_H
#define VGPU_MEDIATOR_REPORT_H

#include "mediator/histogram.h"
#include "mediator/process.h"
#include "mediator/vm.h"

/* A process's, or a VM's. All but `waits` is what the workers claim: for display. */
struct report {
    struct vgpu_counters counters; /* memory and in_flight are those of now */
    uint64_t starts;               /* of workers */
    uint64_t failures;             /* their ends that nobody had asked for */
    uint64_t preemptions;          /* so often their work was taken off the GPU */
    struct histogram waits;        /* for turns that had to be asked for */
};

struct report report_process(struct process *process);

/* The worker for register mode and all sessions. */
struct report report_vm(struct vm *vm);

/* Bytes of device memory that the VM has allocated. */
uint64_t report_memory(const struct vm *vm);

/* How long the VM's workers were on an engine of its pool's GPU with this index. */
uint64_t report_gpu_ns(struct vm *vm, unsigned gpu, enum vgpu_engine engine);

/* Whether the VM has ever had a worker there. */
bool report_has_gpu(const struct vm *vm, unsigned gpu);

/*
 * "starting", also while there is none, "off": its work is off the GPU, "waiting" for a turn,
 * "running", "idle".
 */
const char *report_state(const struct process *process);

/* By enum vgpu_engine, for people. */
extern const char *const report_engines[VGPU_ENGINES];

#endif
