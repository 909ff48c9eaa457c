/* SPDX-License-Identifier: MIT */
/*
 * What a ring session computes on where there is a GPU: the device's primary context in a process
 * of the session's own, through CUDA's driver API.
 *
 * What it can do is in the other files of this folder: stream.c, transfer.c, module.c, link.c,
 * array.c, graph.c, printing.c and mapping.c. Here is the table of it, and how it begins.
 *
 * Errors of the driver go to the guest as they are. After those that lose the context, every call
 * returns them again: that is the driver's doing.

 */

#include <errno.h>

#include "common/log.h"
#include "worker/api-calls.h"
#include "worker/backend-cuda/cuda-driver.h"
#include "worker/backend-cuda/raw.h"
#include "worker/gpu.h"

static enum vgpu_gpu_error cuda_set_limit(struct gpu *gpu, CUlimit limit, uint64_t value)
{
    (void)gpu;
    return cu.CtxSetLimit(limit, value);
}

/* What the driver has room for is more than a session may submit: flight.h. */
static bool cuda_room(struct gpu *gpu)
{
    (void)gpu;
    return true;
}

/* The process ends with its session; the driver then frees everything of it. */
static void cuda_gpu_close(struct gpu *gpu)
{
    (void)gpu;
}

static const struct gpu_ops cuda_ops = {
    .mem_info = cuda_mem_info,
    .mem_alloc = cuda_mem_alloc,
    .mem_free = cuda_mem_free,
    .range_reserve = cuda_range_reserve,
    .range_free = cuda_range_free,
    .memory_create = cuda_memory_create,
    .memory_release = cuda_memory_release,
    .memory_map = cuda_memory_map,
    .memory_unmap = cuda_memory_unmap,
    .copy = cuda_copy,
    .fill = cuda_fill,
    .copy_rows = cuda_copy_rows,
    .fill_rows = cuda_fill_rows,
    .module_load = cuda_module_load,
    .module_builtin = cuda_module_builtin,
    .module_unload = cuda_module_unload,
    .function_get = cuda_function_get,
    .function_param = cuda_function_param,
    .launch = cuda_launch,
    .launch_part = cuda_launch_part,
    .graph_make = cuda_graph_make,
    .graph_update = cuda_graph_update,
    .graph_launch = cuda_graph_launch,
    .graph_destroy = cuda_graph_destroy,
    .array_create = cuda_array_create,
    .array_destroy = cuda_array_destroy,
    .array_level = cuda_array_level,
    .array_copy = cuda_array_copy,
    .texture_create = cuda_texture_create,
    .texture_destroy = cuda_texture_destroy,
    .link_create = cuda_link_create,
    .link_add = cuda_link_add,
    .link_complete = cuda_link_complete,
    .link_destroy = cuda_link_destroy,
    .set_limit = cuda_set_limit,
    .stream_create = cuda_stream_create,
    .stream_destroy = cuda_stream_destroy,
    .stream_poll = cuda_stream_poll,
    .stream_wait = cuda_stream_wait,
    .event_create = cuda_event_create,
    .event_destroy = cuda_event_destroy,
    .event_record = cuda_event_record,
    .event_fence = cuda_event_fence,
    .event_query = cuda_event_query,
    .event_elapsed = cuda_event_elapsed,
    .fence = cuda_fence,
    .fence_poll = cuda_fence_poll,
    .fence_release = cuda_fence_release,
    .fence_answer = cuda_fence_answer,
    .fence_told = cuda_fence_told,
    .reach = cuda_reach,
    .unreach = cuda_unreach,
    .share_name = cuda_share_name,
    .share_open = cuda_share_open,
    .share_close = cuda_share_close,
    .confirm = cuda_confirm,
    .print = cuda_print,
    .set_off = cuda_set_off,
    .set_slice = cuda_set_slice,
    .room = cuda_room,
    .close = cuda_gpu_close,
};

/*
 * So that the copy engines, and kernels, reach the arena where it is. DEVICEMAP gives it the same
 * address on the GPU, by unified addressing.
 */
static void pin_arena(const struct gpu_arena *arena)
{
    const CUresult error = cu.MemHostRegister(arena->address, arena->size,
                                              CU_MEMHOSTREGISTER_DEVICEMAP);

    if (error != CUDA_SUCCESS) {
        /* Still correct, but for kernels that use pinned memory by its address. */
        log_warning("cuMemHostRegister of %llu bytes: %s; copies will be slow",
                    (unsigned long long)arena->size, cuda_error_name(error));
    }
}

/*
 * Has the driver load now what it needs for modules, while files can be opened: the built-in module
 * is PTX, so its compiler is among that.
 */
static int warm_up(struct gpu *gpu)
{
    struct gpu_module *module = NULL;
    const enum vgpu_gpu_error error = cuda_module_builtin(gpu, &module);

    if (error != VGPU_GPU_SUCCESS) {
        return cuda_failed((CUresult)error, "cuModuleLoadData");
    }
    cuda_module_unload(gpu, module);
    return 0;
}

int cuda_gpu_open(int device, const struct gpu_arena *arena, struct gpu **gpu, char *why,
                  size_t why_size)
{
    struct gpu *made;
    int count = 0;
    int r = cuda_init(why, why_size, &count);

    if (r < 0) {
        return r;
    }
    made = cuda_gpu_new();
    if (!made) {
        return -ENOMEM;
    }
    made->ops = &cuda_ops;
    made->calls = &cuda_calls;
    made->arena = *arena;
    made->file = -1;
    r = cuda_open_device(device, &made->info);
    if (r == 0) {
        pin_arena(arena);
        cuda_make_words(made);
        r = warm_up(made);
    }
    if (r < 0) {
        cuda_gpu_free(made);
        return r;
    }
    *gpu = made;
    return 0;
}
