/* SPDX-License-Identifier: MIT */
/*
 * Draining GPUs, see drain.h. What is drained is said twice: in the pools, which place workers
 * (pool_place()), and in the host's record, by the GPU's number, for the next mediator.
 *
 * A session stays, since what it has on its GPU cannot be moved. Register mode has nothing there
 * between two requests: its worker finishes and is followed by one elsewhere, or, where all of its
 * pool is drained, by none until a GPU is used again.
 */
#include "mediator/drain.h"

#include <assert.h>
#include <errno.h>

#include "mediator/config-value.h"
#include "mediator/record.h"
#include "mediator/vm.h"

#define WORD_BITS 64u

static bool is_on(const struct process *process, uint32_t number)
{
    return process->worker.gpu && process->worker.gpu->number == number;
}

static int sessions_on(const struct mediator *mediator, uint32_t number)
{
    int count = 0;

    for (struct vm *vm = mediator->vms; vm; vm = vm->next) {
        for (uint32_t i = 0; i < vm->queues; i++) {
            count += vm->queue[i] && is_on(&vm->queue[i]->worker, number);
        }
    }
    return count;
}

static void note_drained(struct host_record *kept, uint32_t number, bool drained)
{
    uint64_t *word = &kept->drained[number / WORD_BITS];
    const uint64_t bit = UINT64_C(1) << number % WORD_BITS;

    static_assert(sizeof(kept->drained) * 8 >= CONFIG_GPUS_MAX, "a bit for each");
    *word = drained ? *word | bit : *word & ~bit;
}

/* In the pools; whether there is one that has it. */
static bool mark_drained(struct mediator *mediator, uint32_t number, bool drained)
{
    bool found = false;

    for (unsigned i = 0; i < CONFIG_POOLS; i++) {
        struct pool *pool = &mediator->pools[i];

        for (unsigned j = 0; pool->id != 0 && j < pool->gpu_count; j++) {
            if (pool->gpus[j].number == number) {
                pool->gpus[j].drained = drained;
                found = true;
            }
        }
    }
    return found;
}

int drain_gpu(struct mediator *mediator, uint32_t number, bool drained)
{
    if (!mark_drained(mediator, number, drained)) {
        return -ENOENT;
    }
    if (mediator->kept) {
        note_drained(mediator->kept, number, drained);
    }
    for (struct vm *vm = mediator->vms; drained && vm; vm = vm->next) {
        if (is_on(&vm->worker, number)) {
            vm_move(vm);
        }
    }
    return sessions_on(mediator, number);
}

void drain_adopt(const struct mediator *mediator, struct pool *pool)
{
    for (unsigned i = 0; i < pool->gpu_count; i++) {
        const uint32_t number = pool->gpus[i].number;

        pool->gpus[i].drained = (mediator->kept->drained[number / WORD_BITS] &
                                 UINT64_C(1) << number % WORD_BITS) != 0;
    }
}
