/* SPDX-License-Identifier: MIT */
/* The calls that cuda-bench times: those that programs make most, of each kind. */
#include "bench/cuda-bench.h"

#define WORD 4u
/* Calls that are timed together. */
#define BATCH 32u
#define FEW 8u

/* Answered where they are made ---------------------------------------------------------------- */

static CUresult driver_version(struct side *s)
{
    int version;

    return s->cu.DriverGetVersion(&version);
}

static CUresult proc_address(struct side *s)
{
    CUdriverProcAddressQueryResult status;
    void *function;

    return s->cu.GetProcAddress("cuMemcpyDtoHAsync", &function, 12000, CU_GET_PROC_ADDRESS_DEFAULT,
                                &status);
}

static CUresult device_get(struct side *s)
{
    CUdevice device;

    return s->cu.DeviceGet(&device, 0);
}

static CUresult device_attribute(struct side *s)
{
    int value;

    return s->cu.DeviceGetAttribute(&value, CU_DEVICE_ATTRIBUTE_MULTIPROCESSOR_COUNT, s->device);
}

static CUresult primary_state(struct side *s)
{
    unsigned flags;
    int active;

    return s->cu.DevicePrimaryCtxGetState(s->device, &flags, &active);
}

static CUresult get_current(struct side *s)
{
    CUcontext context;

    return s->cu.CtxGetCurrent(&context);
}

static CUresult set_current(struct side *s)
{
    return s->cu.CtxSetCurrent(s->context);
}

static CUresult push_pop(struct side *s)
{
    CUcontext context;
    const CUresult r = s->cu.CtxPushCurrent(s->context);

    return r == CUDA_SUCCESS ? s->cu.CtxPopCurrent(&context) : r;
}

static CUresult context_device(struct side *s)
{
    CUdevice device;

    return s->cu.CtxGetDevice(&device);
}

static CUresult module_function(struct side *s)
{
    CUfunction function;

    return s->cu.ModuleGetFunction(&function, s->module, "vadd");
}

static CUresult library_kernel(struct side *s)
{
    CUkernel kernel;

    return s->cu.LibraryGetKernel(&kernel, s->library, "vadd");
}

static CUresult kernel_function(struct side *s)
{
    CUfunction function;

    return s->cu.KernelGetFunction(&function, s->kernel);
}

static CUresult function_attribute(struct side *s)
{
    int value;

    return s->cu.FuncGetAttribute(&value, CU_FUNC_ATTRIBUTE_MAX_THREADS_PER_BLOCK, s->add);
}

static CUresult pointer_type(struct side *s)
{
    CUmemorytype type;

    return s->cu.PointerGetAttribute(&type, CU_POINTER_ATTRIBUTE_MEMORY_TYPE, s->memory + MIB);
}

static CUresult host_device_pointer(struct side *s)
{
    CUdeviceptr device;

    return s->cu.MemHostGetDevicePointer(&device, s->pinned, 0);
}

static CUresult stream_priority(struct side *s)
{
    int priority;

    return s->cu.StreamGetPriority(s->streams[0], &priority);
}

static CUresult is_capturing(struct side *s)
{
    CUstreamCaptureStatus status;

    return s->cu.StreamIsCapturing(s->streams[0], &status);
}

static CUresult exchange_mode(struct side *s)
{
    CUstreamCaptureMode mode = CU_STREAM_CAPTURE_MODE_RELAXED;

    return s->cu.ThreadExchangeStreamCaptureMode(&mode);
}

/* Posted work, and questions after it --------------------------------------------------------- */

static CUresult launch(struct side *s)
{
    uint64_t ns = 0;
    void *params[] = {&ns};

    return s->cu.LaunchKernel(s->empty, 1, 1, 1, 1, 1, 1, 0, s->streams[0], params, NULL);
}

static CUresult launch_4(struct side *s)
{
    CUdeviceptr a = s->memory, b = a + WORD, sum = b + WORD;
    uint64_t count = 1;
    void *params[] = {&a, &b, &sum, &count};

    return s->cu.LaunchKernel(s->add, 1, 1, 1, 32, 1, 1, 0, s->streams[0], params, NULL);
}

static CUresult launch_ex(struct side *s)
{
    const CUlaunchConfig config = {1, 1, 1, 1, 1, 1, 0, s->streams[0], NULL, 0};
    uint64_t ns = 0;
    void *params[] = {&ns};

    return s->cu.LaunchKernelEx(&config, s->empty, params, NULL);
}

static CUresult to_async_4k(struct side *s)
{
    return s->cu.MemcpyHtoDAsync(s->memory, s->pinned, 4 * KIB, s->streams[0]);
}

static CUresult to_async_1m(struct side *s)
{
    return s->cu.MemcpyHtoDAsync(s->memory, s->pinned, MIB, s->streams[0]);
}

static CUresult to_async_pageable(struct side *s)
{
    return s->cu.MemcpyHtoDAsync(s->memory, s->pageable, 4 * KIB, s->streams[0]);
}

static CUresult from_async_4k(struct side *s)
{
    return s->cu.MemcpyDtoHAsync(s->pinned, s->memory, 4 * KIB, s->streams[0]);
}

static CUresult from_async_1m(struct side *s)
{
    return s->cu.MemcpyDtoHAsync(s->pinned, s->memory, MIB, s->streams[0]);
}

static CUresult within_async(struct side *s)
{
    return s->cu.MemcpyDtoDAsync(s->memory, s->memory + MIB, 4 * KIB, s->streams[0]);
}

static CUresult fill_8(struct side *s)
{
    return s->cu.MemsetD8Async(s->memory, 1, 4 * KIB, s->streams[0]);
}

static CUresult fill_32(struct side *s)
{
    return s->cu.MemsetD32Async(s->memory, 1, KIB, s->streams[0]);
}

static CUresult alloc_async(struct side *s)
{
    CUdeviceptr address;
    const CUresult r = s->cu.MemAllocAsync(&address, MIB, s->streams[0]);

    return r == CUDA_SUCCESS ? s->cu.MemFreeAsync(address, s->streams[0]) : r;
}

static CUresult record(struct side *s)
{
    return s->cu.EventRecord(s->events[0], s->streams[0]);
}

static CUresult wait_done(struct side *s)
{
    return s->cu.StreamWaitEvent(s->streams[1], s->events[0], CU_EVENT_WAIT_DEFAULT);
}

static CUresult record_and_wait(struct side *s)
{
    const CUresult r = record(s);

    return r == CUDA_SUCCESS ? wait_done(s) : r;
}

static CUresult query_event(struct side *s)
{
    return s->cu.EventQuery(s->events[0]);
}

static CUresult query_stream(struct side *s)
{
    return s->cu.StreamQuery(s->streams[0]);
}

/* Calls that wait ----------------------------------------------------------------------------- */

static CUresult sync_stream(struct side *s)
{
    return s->cu.StreamSynchronize(s->streams[0]);
}

static CUresult sync_context(struct side *s)
{
    return s->cu.CtxSynchronize();
}

static CUresult launch_and_sync(struct side *s)
{
    const CUresult r = launch(s);

    return r == CUDA_SUCCESS ? sync_stream(s) : r;
}

static CUresult record_and_sync(struct side *s)
{
    const CUresult r = record(s);

    return r == CUDA_SUCCESS ? s->cu.EventSynchronize(s->events[0]) : r;
}

static CUresult elapsed(struct side *s)
{
    float milliseconds;

    return s->cu.EventElapsedTime(&milliseconds, s->timed[0], s->timed[1]);
}

static CUresult to_4(struct side *s)
{
    return s->cu.MemcpyHtoD(s->memory, s->pageable, WORD);
}

static CUresult to_4k(struct side *s)
{
    return s->cu.MemcpyHtoD(s->memory, s->pageable, 4 * KIB);
}

static CUresult from_4(struct side *s)
{
    return s->cu.MemcpyDtoH(s->pageable, s->memory, WORD);
}

static CUresult from_4k(struct side *s)
{
    return s->cu.MemcpyDtoH(s->pageable, s->memory, 4 * KIB);
}

static CUresult alloc(struct side *s)
{
    CUdeviceptr address;
    const CUresult r = s->cu.MemAlloc(&address, MIB);

    return r == CUDA_SUCCESS ? s->cu.MemFree(address) : r;
}

static CUresult host_alloc(struct side *s)
{
    void *address;
    const CUresult r = s->cu.MemHostAlloc(&address, 64 * KIB, 0);

    return r == CUDA_SUCCESS ? s->cu.MemFreeHost(address) : r;
}

static CUresult memory_info(struct side *s)
{
    size_t free, total;

    return s->cu.MemGetInfo(&free, &total);
}

static CUresult stream_create(struct side *s)
{
    CUstream stream;
    const CUresult r = s->cu.StreamCreate(&stream, CU_STREAM_NON_BLOCKING);

    return r == CUDA_SUCCESS ? s->cu.StreamDestroy(stream) : r;
}

static CUresult event_create(struct side *s)
{
    CUevent event;
    const CUresult r = s->cu.EventCreate(&event, CU_EVENT_DISABLE_TIMING);

    return r == CUDA_SUCCESS ? s->cu.EventDestroy(event) : r;
}

static CUresult occupancy(struct side *s)
{
    int blocks;

    return s->cu.OccupancyMaxActiveBlocks(&blocks, s->add, 256, 0);
}

const struct row rows[] = {
    {KIND_GUEST, "cuDriverGetVersion", driver_version, BATCH},
    {KIND_GUEST, "cuGetProcAddress", proc_address, BATCH},
    {KIND_GUEST, "cuDeviceGet", device_get, BATCH},
    {KIND_GUEST, "cuDeviceGetAttribute", device_attribute, BATCH},
    {KIND_GUEST, "cuDevicePrimaryCtxGetState", primary_state, BATCH},
    {KIND_GUEST, "cuCtxGetCurrent", get_current, BATCH},
    {KIND_GUEST, "cuCtxSetCurrent", set_current, BATCH},
    {KIND_GUEST, "cuCtxPushCurrent + cuCtxPopCurrent", push_pop, BATCH},
    {KIND_GUEST, "cuCtxGetDevice", context_device, BATCH},
    {KIND_GUEST, "cuModuleGetFunction", module_function, BATCH},
    {KIND_GUEST, "cuLibraryGetKernel", library_kernel, BATCH},
    {KIND_GUEST, "cuKernelGetFunction", kernel_function, BATCH},
    {KIND_GUEST, "cuFuncGetAttribute", function_attribute, BATCH},
    {KIND_GUEST, "cuPointerGetAttribute", pointer_type, BATCH},
    {KIND_GUEST, "cuMemHostGetDevicePointer", host_device_pointer, BATCH},
    {KIND_GUEST, "cuStreamGetPriority", stream_priority, BATCH},
    {KIND_GUEST, "cuStreamIsCapturing", is_capturing, BATCH},
    {KIND_GUEST, "cuThreadExchangeStreamCaptureMode", exchange_mode, BATCH},
    {KIND_ASYNC, "cuLaunchKernel, empty", launch, FEW},
    {KIND_ASYNC, "cuLaunchKernel, 4 parameters", launch_4, FEW},
    {KIND_ASYNC, "cuLaunchKernelEx, empty", launch_ex, FEW},
    {KIND_ASYNC, "cuMemcpyHtoDAsync, pinned 4 KiB", to_async_4k, FEW},
    {KIND_ASYNC, "cuMemcpyHtoDAsync, pinned 1 MiB", to_async_1m, FEW},
    {KIND_ASYNC, "cuMemcpyHtoDAsync, pageable 4 KiB", to_async_pageable, 1},
    {KIND_ASYNC, "cuMemcpyDtoHAsync, pinned 4 KiB", from_async_4k, FEW},
    {KIND_ASYNC, "cuMemcpyDtoHAsync, pinned 1 MiB", from_async_1m, FEW},
    {KIND_ASYNC, "cuMemcpyDtoDAsync, 4 KiB", within_async, FEW},
    {KIND_ASYNC, "cuMemsetD8Async, 4 KiB", fill_8, FEW},
    {KIND_ASYNC, "cuMemsetD32Async, 4 KiB", fill_32, FEW},
    {KIND_ASYNC, "cuMemAllocAsync + cuMemFreeAsync, 1 MiB", alloc_async, FEW},
    {KIND_ASYNC, "cuEventRecord", record, BATCH},
    {KIND_ASYNC, "cuStreamWaitEvent, done", wait_done, BATCH},
    {KIND_ASYNC, "cuEventRecord + cuStreamWaitEvent", record_and_wait, BATCH},
    {KIND_SYNC, "cuEventQuery, done", query_event, BATCH},
    {KIND_SYNC, "cuStreamQuery, idle", query_stream, BATCH},
    {KIND_SYNC, "cuStreamSynchronize, idle", sync_stream, 1},
    {KIND_SYNC, "cuCtxSynchronize, idle", sync_context, 1},
    {KIND_SYNC, "cuLaunchKernel + cuStreamSynchronize", launch_and_sync, 1},
    {KIND_SYNC, "cuEventRecord + cuEventSynchronize", record_and_sync, 1},
    {KIND_SYNC, "cuEventElapsedTime", elapsed, 1},
    {KIND_SYNC, "cuMemcpyHtoD, 4 B", to_4, 1},
    {KIND_SYNC, "cuMemcpyHtoD, 4 KiB", to_4k, 1},
    {KIND_SYNC, "cuMemcpyDtoH, 4 B", from_4, 1},
    {KIND_SYNC, "cuMemcpyDtoH, 4 KiB", from_4k, 1},
    {KIND_SYNC, "cuMemAlloc + cuMemFree, 1 MiB", alloc, 1},
    {KIND_SYNC, "cuMemHostAlloc + cuMemFreeHost, 64 KiB", host_alloc, 1},
    {KIND_SYNC, "cuMemGetInfo", memory_info, 1},
    {KIND_SYNC, "cuStreamCreate + cuStreamDestroy", stream_create, 1},
    {KIND_SYNC, "cuEventCreate + cuEventDestroy", event_create, 1},
    {KIND_SYNC, "cuOccupancyMaxActiveBlocksPerMultiprocessor", occupancy, 1},
};

const unsigned row_count = sizeof(rows) / sizeof(rows[0]);
