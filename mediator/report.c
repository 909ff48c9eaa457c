/* SPDX-License-Identifier: MIT */
/*
 * The counters of a VM and of its workers, for vgpuctl and the metrics alike. A process's sums
 * cover all of its workers so far (process.c); a VM's are those of register mode and of all its
 * queues. A queue's record stays when its session has ended, and so do its counters.
 *
 * The counters are claims of the workers, so a sum of them stops at the highest number instead of
 * wrapping round. Waits, starts and failures are the mediator's own.
 */
#include "mediator/report.h"

#include "common/shared.h"

const char *const report_engines[VGPU_ENGINES] = {
    [VGPU_ENGINE_COMPUTE] = "compute",
    [VGPU_ENGINE_TO_DEVICE] = "to-device",
    [VGPU_ENGINE_FROM_DEVICE] = "from-device",
};

struct report report_process(struct process *process)
{
    return (struct report){
        .counters = process_totals(process),
        .starts = process->kept->starts,
        .failures = process->kept->failures,
        .preemptions = process->kept->preemptions,
        .waits = process->waits,
    };
}

static uint64_t capped_sum(uint64_t a, uint64_t b)
{
    return b < UINT64_MAX - a ? a + b : UINT64_MAX;
}

static void report_add(struct report *sum, const struct report *part)
{
    process_add_counters(&sum->counters, &part->counters);
    /* process_add_counters() leaves these two out: they are of now, and not counted up. */
    sum->counters.memory = capped_sum(sum->counters.memory, part->counters.memory);
    sum->counters.in_flight = capped_sum(sum->counters.in_flight, part->counters.in_flight);
    sum->starts += part->starts;
    sum->failures += part->failures;
    sum->preemptions += part->preemptions;
    histogram_merge(&sum->waits, &part->waits);
}

struct report report_vm(struct vm *vm)
{
    struct report sum = report_process(&vm->worker);

    for (uint32_t i = 0; i < vm->queues; i++) {
        if (vm->queue[i]) {
            const struct report part = report_process(&vm->queue[i]->worker);

            report_add(&sum, &part);
        }
    }
    return sum;
}

uint64_t report_memory(const struct vm *vm)
{
    return shared_load64(&vm->account->used);
}

uint64_t report_gpu_ns(struct vm *vm, unsigned gpu, enum vgpu_engine engine)
{
    uint64_t ns = process_gpu_ns(&vm->worker, gpu, engine);

    for (uint32_t i = 0; i < vm->queues; i++) {
        if (vm->queue[i]) {
            ns += process_gpu_ns(&vm->queue[i]->worker, gpu, engine);
        }
    }
    return ns;
}

/* An account is made when a worker is first placed on a GPU, and stays as long as the VM. */
bool report_has_gpu(const struct vm *vm, unsigned gpu)
{
    const struct pool_account *account = vm->accounts;

    while (account && account->gpu != &vm->pool->gpus[gpu]) {
        account = account->next;
    }
    return account != NULL;
}

const char *report_state(const struct process *process)
{
    if (!process->kept->ready) {
        return "starting";
    }
    if (pool_off_ns(&process->worker) != 0) {
        return "off";
    }
    if (pool_waits(&process->worker)) {
        return "waiting";
    }
    return pool_busy(&process->worker) ? "running" : "idle";
}
