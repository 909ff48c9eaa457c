/* SPDX-License-Identifier: MIT */
/*
 * Calls of CUDA's driver API where there is no GPU: enough for programs that use the built-in
 * kernels, and for tests of all that lies between. A call that is not in the table at the end is
 * NOT_SUPPORTED; the generated code has checked lengths and handles before anything here is called.
 *
 * The attributes are those of a small card with one multiprocessor, so that programs which choose
 * their grids by them choose sensible ones. An attribute of something that is not there is 0. Each
 * call answers with the error that has lost the context, if one has, as NVIDIA's driver does.
 */
#include <limits.h>
#include <stdio.h>
#include <string.h>

#include "worker/api-calls.h"
#include "worker/backend-cpu/cpu.h"

#define MAX_THREADS 1024
#define MAX_RESIDENT 2048 /* threads on the one multiprocessor */
#define MAX_SHARED_BYTES (48 << 10)

/* What this plays at: attribute, value. Those that are not here are 0. */
static const struct {
    CUdevice_attribute attribute;
    int value;
} attributes[] = {
    {CU_DEVICE_ATTRIBUTE_MAX_THREADS_PER_BLOCK, MAX_THREADS},
    {CU_DEVICE_ATTRIBUTE_MAX_BLOCK_DIM_X, MAX_THREADS},
    {CU_DEVICE_ATTRIBUTE_MAX_BLOCK_DIM_Y, MAX_THREADS},
    {CU_DEVICE_ATTRIBUTE_MAX_BLOCK_DIM_Z, 64},
    {CU_DEVICE_ATTRIBUTE_MAX_GRID_DIM_X, INT_MAX},
    {CU_DEVICE_ATTRIBUTE_MAX_GRID_DIM_Y, 65535},
    {CU_DEVICE_ATTRIBUTE_MAX_GRID_DIM_Z, 65535},
    {CU_DEVICE_ATTRIBUTE_MAX_SHARED_MEMORY_PER_BLOCK, MAX_SHARED_BYTES},
    {CU_DEVICE_ATTRIBUTE_TOTAL_CONSTANT_MEMORY, 64 << 10},
    {CU_DEVICE_ATTRIBUTE_WARP_SIZE, 32},
    {CU_DEVICE_ATTRIBUTE_MAX_PITCH, INT_MAX},
    {CU_DEVICE_ATTRIBUTE_MAX_REGISTERS_PER_BLOCK, 64 << 10},
    {CU_DEVICE_ATTRIBUTE_CLOCK_RATE, 1000000},
    {CU_DEVICE_ATTRIBUTE_TEXTURE_ALIGNMENT, 512},
    {CU_DEVICE_ATTRIBUTE_GPU_OVERLAP, 1},
    {CU_DEVICE_ATTRIBUTE_MULTIPROCESSOR_COUNT, 1},
    {CU_DEVICE_ATTRIBUTE_CAN_MAP_HOST_MEMORY, 1},
    {CU_DEVICE_ATTRIBUTE_MAX_THREADS_PER_MULTIPROCESSOR, MAX_RESIDENT},
    {CU_DEVICE_ATTRIBUTE_ASYNC_ENGINE_COUNT, 1},
    {CU_DEVICE_ATTRIBUTE_UNIFIED_ADDRESSING, 1},
    {CU_DEVICE_ATTRIBUTE_MANAGED_MEMORY, 1},
    {CU_DEVICE_ATTRIBUTE_STREAM_PRIORITIES_SUPPORTED, 0},
    {CU_DEVICE_ATTRIBUTE_MAX_SHARED_MEMORY_PER_MULTIPROCESSOR, MAX_SHARED_BYTES},
    {CU_DEVICE_ATTRIBUTE_MAX_REGISTERS_PER_MULTIPROCESSOR, 64 << 10},
    {CU_DEVICE_ATTRIBUTE_COOPERATIVE_LAUNCH, 1},
    {CU_DEVICE_ATTRIBUTE_MAX_SHARED_MEMORY_PER_BLOCK_OPTIN, MAX_SHARED_BYTES},
    {CU_DEVICE_ATTRIBUTE_MAX_BLOCKS_PER_MULTIPROCESSOR, MAX_RESIDENT},
    {CU_DEVICE_ATTRIBUTE_MEMORY_POOLS_SUPPORTED, 1},
    {CU_DEVICE_ATTRIBUTE_CAN_USE_64_BIT_STREAM_MEM_OPS, 1},
    {CU_DEVICE_ATTRIBUTE_CAN_USE_STREAM_WAIT_VALUE_NOR, 1},
    {CU_DEVICE_ATTRIBUTE_IPC_EVENT_SUPPORTED, 1},
};

/* `count` is how many attributes the guest knows, which may be fewer or more than these. */
static enum vgpu_gpu_error cpu_device_attributes(struct gpu *gpu, int *values, unsigned count)
{
    memset(values, 0, count * sizeof(*values));
    for (size_t i = 0; i < sizeof(attributes) / sizeof(attributes[0]); i++) {
        if ((unsigned)attributes[i].attribute < count) {
            values[attributes[i].attribute] = attributes[i].value;
        }
    }
    return gpu->lost;
}

/* With its NUL the first has the 16 bytes of a UUID. */
#define CPU_UUID "vGPU on the CPU"
#define CPU_BUS_ID "0000:00:00.0"

static enum vgpu_gpu_error cpu_device_identity(struct gpu *gpu, CUuuid *uuid, char *pci_bus_id)
{
    memcpy(uuid->bytes, CPU_UUID, sizeof(uuid->bytes));
    memcpy(pci_bus_id, CPU_BUS_ID, sizeof(CPU_BUS_ID));
    return gpu->lost;
}

void cpu_backend_facts(struct vgpu_gpu_facts *facts)
{
    snprintf(facts->name, sizeof(facts->name), CPU_NAME);
    snprintf(facts->driver, sizeof(facts->driver), "none");
    memcpy(facts->uuid, CPU_UUID, sizeof(facts->uuid));
    memcpy(facts->bus_id, CPU_BUS_ID, sizeof(CPU_BUS_ID));
    facts->processors = 1;
    facts->memory = CPU_GPU_MEMORY;
}

static enum vgpu_gpu_error cpu_function_attributes(struct gpu *gpu, int *values, unsigned count,
                                                   struct gpu_function *function)
{
    (void)function;
    memset(values, 0, count * sizeof(*values));
    /* The last one of these; a guest that asks for fewer than all gets zeros. */
    if (count > CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES) {
        values[CU_FUNC_ATTRIBUTE_MAX_THREADS_PER_BLOCK] = MAX_THREADS;
        values[CU_FUNC_ATTRIBUTE_NUM_REGS] = 1;
        values[CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES] = MAX_SHARED_BYTES;
    }
    return gpu->lost;
}

/* The built-in module has no global variables; where a function has the name, that is wrong. */
static enum vgpu_gpu_error cpu_module_global(struct gpu *gpu, CUdeviceptr *address, size_t *bytes,
                                             struct gpu_module *module, const char *name)
{
    struct vgpu_result_function info;
    struct gpu_function *function;

    (void)address;
    (void)bytes;
    if (gpu->lost != VGPU_GPU_SUCCESS) {
        return gpu->lost;
    }
    return gpu->ops->function_get(gpu, module, name, &function, &info) == VGPU_GPU_SUCCESS
               ? VGPU_GPU_INVALID_VALUE
               : VGPU_GPU_NOT_FOUND;
}

/* There is one priority. Either result may be unwanted, which is NULL. */
static enum vgpu_gpu_error cpu_priority_range(struct gpu *gpu, int *least, int *greatest)
{
    if (least) {
        *least = 0;
    }
    if (greatest) {
        *greatest = 0;
    }
    return gpu->lost;
}

/* Preferences, which change nothing here; a process has one session. */

static enum vgpu_gpu_error cpu_get_limit(struct gpu *gpu, size_t *value, CUlimit limit)
{
    if ((unsigned)limit > CU_LIMIT_MALLOC_HEAP_SIZE) {
        return (unsigned)limit <= CU_LIMIT_CIG_SHMEM_FALLBACK_ENABLED ? CUDA_ERROR_UNSUPPORTED_LIMIT
                                                                      : VGPU_GPU_INVALID_VALUE;
    }
    *value = cpu_limits[limit];
    return gpu->lost;
}

static enum vgpu_gpu_error cpu_get_cache(struct gpu *gpu, CUfunc_cache *config)
{
    *config = CU_FUNC_CACHE_PREFER_NONE;
    return gpu->lost;
}

/* Without effect, but a value that NVIDIA's driver would refuse is refused. */
static enum vgpu_gpu_error cpu_set_cache(struct gpu *gpu, CUfunc_cache config)
{
    return config < CU_FUNC_CACHE_PREFER_NONE || config > CU_FUNC_CACHE_PREFER_EQUAL
               ? VGPU_GPU_INVALID_VALUE
               : gpu->lost;
}

static enum vgpu_gpu_error cpu_set_function_cache(struct gpu *gpu, struct gpu_function *function,
                                                  CUfunc_cache config)
{
    (void)function;
    return cpu_set_cache(gpu, config);
}

/* Occupancy: as far as threads go. */

/*
 * As many as the threads of one multiprocessor allow: registers and shared memory are not what
 * limits these kernels.
 */
static enum vgpu_gpu_error cpu_active_blocks(struct gpu *gpu, int *blocks,
                                             struct gpu_function *function, int block_size,
                                             size_t shared_bytes)
{
    (void)function;
    if (block_size <= 0) {
        return VGPU_GPU_INVALID_VALUE;
    }
    *blocks = block_size <= MAX_THREADS && shared_bytes <= MAX_SHARED_BYTES
                  ? MAX_RESIDENT / block_size
                  : 0;
    return gpu->lost;
}

static enum vgpu_gpu_error cpu_active_blocks_flags(struct gpu *gpu, int *blocks,
                                                   struct gpu_function *function, int block_size,
                                                   size_t shared_bytes, unsigned flags)
{
    return flags & ~(unsigned)CU_OCCUPANCY_DISABLE_CACHING_OVERRIDE
               ? VGPU_GPU_INVALID_VALUE
               : cpu_active_blocks(gpu, blocks, function, block_size, shared_bytes);
}

/* All of it, whatever the number of blocks: the kernels use none. */
static enum vgpu_gpu_error cpu_available_shared(struct gpu *gpu, size_t *bytes,
                                                struct gpu_function *function, int blocks,
                                                int block_size)
{
    (void)function;
    if (blocks <= 0 || block_size <= 0 || block_size > MAX_THREADS ||
        blocks > MAX_RESIDENT / block_size) {
        return VGPU_GPU_INVALID_VALUE;
    }
    *bytes = MAX_SHARED_BYTES;
    return gpu->lost;
}

/* Words that streams wait for and write: callbacks and the gates of graphs are made of them. */

/* The flags are the condition, enum cpu_wait; cpu_word() refuses others. */
static enum vgpu_gpu_error cpu_wait32(struct gpu *gpu, struct gpu_stream *stream,
                                      CUdeviceptr address, cuuint32_t value, unsigned flags)
{
    return cpu_word(gpu, &(struct cpu_word){address, value, 4, flags, false}, stream);
}

static enum vgpu_gpu_error cpu_wait64(struct gpu *gpu, struct gpu_stream *stream,
                                      CUdeviceptr address, cuuint64_t value, unsigned flags)
{
    return cpu_word(gpu, &(struct cpu_word){address, value, 8, flags, false}, stream);
}

static enum vgpu_gpu_error cpu_write32(struct gpu *gpu, struct gpu_stream *stream,
                                       CUdeviceptr address, cuuint32_t value, unsigned flags)
{
    /* The one flag there is lets writes pass others, which is allowed, not asked. */
    return flags > 1 ? VGPU_GPU_INVALID_VALUE
                     : cpu_word(gpu, &(struct cpu_word){address, value, 4, 0, true}, stream);
}

static enum vgpu_gpu_error cpu_write64(struct gpu *gpu, struct gpu_stream *stream,
                                       CUdeviceptr address, cuuint64_t value, unsigned flags)
{
    return flags > 1 ? VGPU_GPU_INVALID_VALUE
                     : cpu_word(gpu, &(struct cpu_word){address, value, 8, 0, true}, stream);
}

static enum vgpu_gpu_error cpu_module_functions(struct gpu *gpu, unsigned *count,
                                                struct gpu_module *module)
{
    (void)module;
    *count = 0;
    while (cpu_function_name(*count)) {
        ++*count;
    }
    return gpu->lost;
}

static enum vgpu_gpu_error cpu_module_function_name(struct gpu *gpu, uint32_t *length, char *name,
                                                    unsigned bytes, struct gpu_module *module,
                                                    unsigned index)
{
    const char *found = cpu_function_name(index);

    (void)module;
    if (!found) {
        return VGPU_GPU_INVALID_VALUE;
    }
    *length = (uint32_t)strlen(found);
    memcpy(name, found, *length < bytes ? *length : bytes);
    return gpu->lost;
}

/* Calls without a function here answer NOT_SUPPORTED. */
const struct gpu_calls cpu_calls = {
    .device_attributes = cpu_device_attributes,
    .device_identity = cpu_device_identity,
    .function_attributes = cpu_function_attributes,
    .module_global = cpu_module_global,
    .module_functions = cpu_module_functions,
    .module_function_name = cpu_module_function_name,
    .cuCtxGetLimit = cpu_get_limit,
    .cuCtxGetStreamPriorityRange = cpu_priority_range,
    .cuCtxGetCacheConfig = cpu_get_cache,
    .cuCtxSetCacheConfig = cpu_set_cache,
    .cuFuncSetCacheConfig = cpu_set_function_cache,
    .cuOccupancyMaxActiveBlocksPerMultiprocessor = cpu_active_blocks,
    .cuOccupancyMaxActiveBlocksPerMultiprocessorWithFlags = cpu_active_blocks_flags,
    .cuOccupancyAvailableDynamicSMemPerBlock = cpu_available_shared,
    .cuStreamWaitValue32_v2 = cpu_wait32,
    .cuStreamWaitValue64_v2 = cpu_wait64,
    .cuStreamWriteValue32_v2 = cpu_write32,
    .cuStreamWriteValue64_v2 = cpu_write64,
};
