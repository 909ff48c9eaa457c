/* SPDX-License-Identifier: MIT */
/*
 * What the parts of cuda-bench share: a side, which is one of the two libraries with what was made
 * in it, and the rows, which are the calls that are timed on either side.
 */
#ifndef VGPU_BENCH_CUDA_BENCH_H
#define VGPU_BENCH_CUDA_BENCH_H

#include <stdbool.h>
#include <stdint.h>

#include "api/cuda-types.h"

#define KIB ((size_t)1 << 10)
#define MIB ((size_t)1 << 20)
#define DEVICE_BYTES (4 * MIB)

/* member, symbol with the version that has this signature, parameters */
#define SIDE_CALLS(X)                                                                              \
    X(Init, "cuInit", (unsigned flags))                                                            \
    X(DriverGetVersion, "cuDriverGetVersion", (int *version))                                      \
    X(GetErrorName, "cuGetErrorName", (CUresult error, const char **name))                         \
    X(GetProcAddress, "cuGetProcAddress_v2",                                                       \
      (const char *symbol, void **function, int version, cuuint64_t flags,                         \
       CUdriverProcAddressQueryResult *status))                                                    \
    X(DeviceGet, "cuDeviceGet", (CUdevice * device, int ordinal))                                  \
    X(DeviceGetName, "cuDeviceGetName", (char *name, int length, CUdevice device))                 \
    X(DeviceGetAttribute, "cuDeviceGetAttribute",                                                  \
      (int *value, CUdevice_attribute attribute, CUdevice device))                                 \
    X(DevicePrimaryCtxRetain, "cuDevicePrimaryCtxRetain", (CUcontext * context, CUdevice device))  \
    X(DevicePrimaryCtxGetState, "cuDevicePrimaryCtxGetState",                                      \
      (CUdevice device, unsigned *flags, int *active))                                             \
    X(CtxGetCurrent, "cuCtxGetCurrent", (CUcontext * context))                                     \
    X(CtxSetCurrent, "cuCtxSetCurrent", (CUcontext context))                                       \
    X(CtxPushCurrent, "cuCtxPushCurrent_v2", (CUcontext context))                                  \
    X(CtxPopCurrent, "cuCtxPopCurrent_v2", (CUcontext * context))                                  \
    X(CtxGetDevice, "cuCtxGetDevice", (CUdevice * device))                                         \
    X(CtxSynchronize, "cuCtxSynchronize", (void))                                                  \
    X(ModuleLoadData, "cuModuleLoadData", (CUmodule * module, const void *image))                  \
    X(ModuleGetFunction, "cuModuleGetFunction",                                                    \
      (CUfunction * function, CUmodule module, const char *name))                                  \
    X(FuncGetAttribute, "cuFuncGetAttribute",                                                      \
      (int *value, CUfunction_attribute attribute, CUfunction function))                           \
    X(LibraryLoadData, "cuLibraryLoadData",                                                        \
      (CUlibrary * library, const void *code, CUjit_option *jit, void **jit_values,                \
       unsigned jit_count, CUlibraryOption *options, void **values, unsigned count))               \
    X(LibraryGetKernel, "cuLibraryGetKernel",                                                      \
      (CUkernel * kernel, CUlibrary library, const char *name))                                    \
    X(KernelGetFunction, "cuKernelGetFunction", (CUfunction * function, CUkernel kernel))          \
    X(OccupancyMaxActiveBlocks, "cuOccupancyMaxActiveBlocksPerMultiprocessor",                     \
      (int *blocks, CUfunction function, int block_size, size_t shared_bytes))                     \
    X(MemGetInfo, "cuMemGetInfo_v2", (size_t * free, size_t * total))                              \
    X(MemAlloc, "cuMemAlloc_v2", (CUdeviceptr * address, size_t bytes))                            \
    X(MemFree, "cuMemFree_v2", (CUdeviceptr address))                                              \
    X(MemAllocAsync, "cuMemAllocAsync", (CUdeviceptr * address, size_t bytes, CUstream stream))    \
    X(MemFreeAsync, "cuMemFreeAsync", (CUdeviceptr address, CUstream stream))                      \
    X(MemHostAlloc, "cuMemHostAlloc", (void **address, size_t bytes, unsigned flags))              \
    X(MemFreeHost, "cuMemFreeHost", (void *address))                                               \
    X(MemHostGetDevicePointer, "cuMemHostGetDevicePointer_v2",                                     \
      (CUdeviceptr * device, void *host, unsigned flags))                                          \
    X(PointerGetAttribute, "cuPointerGetAttribute",                                                \
      (void *value, CUpointer_attribute attribute, CUdeviceptr address))                           \
    X(MemcpyHtoD, "cuMemcpyHtoD_v2", (CUdeviceptr to, const void *from, size_t bytes))             \
    X(MemcpyDtoH, "cuMemcpyDtoH_v2", (void *to, CUdeviceptr from, size_t bytes))                   \
    X(MemcpyHtoDAsync, "cuMemcpyHtoDAsync_v2",                                                     \
      (CUdeviceptr to, const void *from, size_t bytes, CUstream stream))                           \
    X(MemcpyDtoHAsync, "cuMemcpyDtoHAsync_v2",                                                     \
      (void *to, CUdeviceptr from, size_t bytes, CUstream stream))                                 \
    X(MemcpyDtoDAsync, "cuMemcpyDtoDAsync_v2",                                                     \
      (CUdeviceptr to, CUdeviceptr from, size_t bytes, CUstream stream))                           \
    X(MemsetD8Async, "cuMemsetD8Async",                                                            \
      (CUdeviceptr to, unsigned char value, size_t count, CUstream stream))                        \
    X(MemsetD32Async, "cuMemsetD32Async",                                                          \
      (CUdeviceptr to, unsigned value, size_t count, CUstream stream))                             \
    X(StreamCreate, "cuStreamCreate", (CUstream * stream, unsigned flags))                         \
    X(StreamDestroy, "cuStreamDestroy_v2", (CUstream stream))                                      \
    X(StreamGetPriority, "cuStreamGetPriority", (CUstream stream, int *priority))                  \
    X(StreamIsCapturing, "cuStreamIsCapturing", (CUstream stream, CUstreamCaptureStatus * status)) \
    X(ThreadExchangeStreamCaptureMode, "cuThreadExchangeStreamCaptureMode",                        \
      (CUstreamCaptureMode * mode))                                                                \
    X(StreamWaitEvent, "cuStreamWaitEvent", (CUstream stream, CUevent event, unsigned flags))      \
    X(StreamSynchronize, "cuStreamSynchronize", (CUstream stream))                                 \
    X(StreamQuery, "cuStreamQuery", (CUstream stream))                                             \
    X(EventCreate, "cuEventCreate", (CUevent * event, unsigned flags))                             \
    X(EventDestroy, "cuEventDestroy_v2", (CUevent event))                                          \
    X(EventRecord, "cuEventRecord", (CUevent event, CUstream stream))                              \
    X(EventQuery, "cuEventQuery", (CUevent event))                                                 \
    X(EventSynchronize, "cuEventSynchronize", (CUevent event))                                     \
    X(EventElapsedTime, "cuEventElapsedTime", (float *milliseconds, CUevent start, CUevent end))   \
    X(LaunchKernel, "cuLaunchKernel",                                                              \
      (CUfunction function, unsigned grid_x, unsigned grid_y, unsigned grid_z, unsigned block_x,   \
       unsigned block_y, unsigned block_z, unsigned shared_bytes, CUstream stream, void **params,  \
       void **extra))                                                                              \
    X(LaunchKernelEx, "cuLaunchKernelEx",                                                          \
      (const CUlaunchConfig *config, CUfunction function, void **params, void **extra))

struct side {
    const char *name; /* of the side */
    struct {
#define SIDE_MEMBER(member, symbol, parameters) CUresult(*member) parameters;
        SIDE_CALLS(SIDE_MEMBER)
#undef SIDE_MEMBER
    } cu;
    const char *path; /* of the library */
    char device_name[256];
    CUdevice device;
    CUcontext context;
    CUmodule module;
    CUlibrary library;
    CUkernel kernel;
    CUfunction empty, add; /* `spin`, which is given no time, and `vadd` */
    CUstream streams[2];
    CUevent events[2];  /* without times, as most programs have them */
    CUevent timed[2];   /* recorded, and done */
    CUdeviceptr memory; /* DEVICE_BYTES */
    uint8_t *pinned;    /* MIB */
    uint8_t *pageable;  /* MIB */
};

/* How soon a call is expected to return. */
enum kind {
    KIND_GUEST, /* answered where it was made */
    KIND_ASYNC, /* posts work */
    KIND_SYNC,  /* waits for the GPU or the host, or asks it */
};

struct row {
    enum kind kind;
    const char *name;
    CUresult (*call)(struct side *side);
    unsigned batch; /* calls that are timed together, where one is too short for the clock */
};

extern const struct row rows[];
extern const unsigned row_count;

/*
 * Loads NATIVE, then OURS, and makes both ready. Whether there is a native side: its library can
 * be loaded, and finds a GPU. Whatever else fails ends the process.
 */
bool sides_open(struct side *ours, const char *path, struct side *native, const char *name);

/* The name of an error. */
const char *side_error(const struct side *side, CUresult error);

/* Ends the process when a call failed. */
void side_check(const struct side *side, const char *what, CUresult result);

void die(const char *what, const char *why);

/* A program of many launches on either side, by turns; prints a line. */
void run_program(struct side *const *sides, unsigned count);

/* Of an odd number of values, which it sorts. */
double median(double *values, unsigned count);

#endif
