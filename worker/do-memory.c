/* SPDX-License-Identifier: MIT */
/*
 * Commands about the device and its memory. Bytes are reserved in the VM's account before the GPU
 * is asked, and given back when it refuses: all sessions of a VM together never have more than its
 * quota, not for a moment.
 */
#include "worker/command-rules.h"
#include "worker/ring-session.h"

/*
 * What an allocation takes of the VM's quota: what the GPU has to give for it at least, or the host
 * where the memory is in a file of its own.
 */
#define ALLOC_GRANULE UINT64_C(512)
#define PAGE UINT64_C(4096)

enum vgpu_gpu_error do_nop(struct execution *x)
{
    (void)x;
    return VGPU_GPU_SUCCESS;
}

enum vgpu_gpu_error do_device_info(struct execution *x)
{
    struct vgpu_device_info info = x->session->gpu->info;
    uint64_t free_bytes = info.memory_total;

    ledger_limit(&x->session->memory.ledger, &free_bytes, &info.memory_total);
    execution_answer(x, &info, sizeof(info));
    return VGPU_GPU_SUCCESS;
}

enum vgpu_gpu_error do_mem_info(struct execution *x)
{
    struct ring_session *s = x->session;
    struct vgpu_result_mem_info info = {0};
    enum vgpu_gpu_error error;

    memory_free_dropped(s);
    error = s->gpu->ops->mem_info(s->gpu, &info.free, &info.total);
    ledger_limit(&s->memory.ledger, &info.free, &info.total);
    execution_answer(x, &info, sizeof(info));
    return error;
}

enum vgpu_gpu_error do_mem_alloc(struct execution *x)
{
    const struct vgpu_cmd_value *command = x->body;
    struct ring_session *s = x->session;
    const uint64_t granule = s->gpu->file >= 0 ? PAGE : ALLOC_GRANULE;
    const uint64_t bytes = (command->value + granule - 1) & ~(granule - 1);
    uint64_t address = 0;
    enum vgpu_gpu_error error;

    if (command->value == 0) {
        return VGPU_GPU_INVALID_VALUE;
    }
    memory_free_dropped(s);
    /* 0: rounding has wrapped. */
    if (bytes == 0 || !ledger_reserve(&s->memory.ledger, bytes)) {
        return VGPU_GPU_OUT_OF_MEMORY;
    }
    error = s->gpu->ops->mem_alloc(s->gpu, command->value, &address);
    if (error == VGPU_GPU_SUCCESS && !ledger_note(&s->memory.ledger, address, bytes)) {
        s->gpu->ops->mem_free(s->gpu, address);
        error = VGPU_GPU_OUT_OF_MEMORY;
    }
    if (error != VGPU_GPU_SUCCESS) {
        ledger_return(&s->memory.ledger, bytes);
        return error;
    }
    execution_answer_value(x, address);
    return VGPU_GPU_SUCCESS;
}

/* When nothing is on the GPU: the driver would wait for that, and the worker with it. */
enum vgpu_gpu_error do_mem_free(struct execution *x)
{
    const struct vgpu_cmd_value *command = x->body;

    return pending_wait_for_all(x, PENDING_FREE, command->value);
}
