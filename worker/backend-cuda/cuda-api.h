/* SPDX-License-Identifier: MIT */
/*
 * The part of the CUDA driver API that the cuda backend calls for itself, loaded at run time: the
 * same worker runs where there is no driver. What it hands on for guests is generated from api/.
 */
#ifndef VGPU_WORKER_BACKEND_CUDA_CUDA_API_H
#define VGPU_WORKER_BACKEND_CUDA_CUDA_API_H

#include <stddef.h>

#include "api/cuda-types.h"

/* member, symbol with the version that has this signature, parameters */
#define CUDA_CALLS(X)                                                                              \
    X(Init, "cuInit", (unsigned flags))                                                            \
    X(DriverGetVersion, "cuDriverGetVersion", (int *version))                                      \
    X(GetErrorName, "cuGetErrorName", (CUresult error, const char **name))                         \
    X(DeviceGetCount, "cuDeviceGetCount", (int *count))                                            \
    X(DeviceGet, "cuDeviceGet", (CUdevice * device, int ordinal))                                  \
    X(DeviceGetName, "cuDeviceGetName", (char *name, int length, CUdevice device))                 \
    X(DeviceGetAttribute, "cuDeviceGetAttribute",                                                  \
      (int *value, CUdevice_attribute attribute, CUdevice device))                                 \
    X(DeviceTotalMem, "cuDeviceTotalMem_v2", (size_t * bytes, CUdevice device))                    \
    X(DevicePrimaryCtxRetain, "cuDevicePrimaryCtxRetain", (CUcontext * context, CUdevice device))  \
    X(CtxSetCurrent, "cuCtxSetCurrent", (CUcontext context))                                       \
    X(CtxSetLimit, "cuCtxSetLimit", (CUlimit limit, size_t value))                                 \
    X(CtxGetDevice, "cuCtxGetDevice", (CUdevice * device))                                         \
    X(DeviceGetUuid, "cuDeviceGetUuid", (CUuuid * uuid, CUdevice device))                          \
    X(DeviceGetPCIBusId, "cuDeviceGetPCIBusId", (char *id, int length, CUdevice device))           \
    X(ModuleLoadData, "cuModuleLoadData", (CUmodule * module, const void *image))                  \
    X(ModuleLoadDataEx, "cuModuleLoadDataEx",                                                      \
      (CUmodule * module, const void *image, unsigned count, CUjit_option *options,                \
       void **values))                                                                             \
    X(ModuleGetGlobal, "cuModuleGetGlobal_v2",                                                     \
      (CUdeviceptr * address, size_t * bytes, CUmodule module, const char *name))                  \
    X(ModuleUnload, "cuModuleUnload", (CUmodule module))                                           \
    X(ModuleGetFunction, "cuModuleGetFunction",                                                    \
      (CUfunction * function, CUmodule module, const char *name))                                  \
    X(MemAlloc, "cuMemAlloc_v2", (CUdeviceptr * address, size_t bytes))                            \
    X(FuncGetAttribute, "cuFuncGetAttribute",                                                      \
      (int *value, CUfunction_attribute attribute, CUfunction function))                           \
    X(FuncSetAttribute, "cuFuncSetAttribute",                                                      \
      (CUfunction function, CUfunction_attribute attribute, int value))                            \
    X(MemGetInfo, "cuMemGetInfo_v2", (size_t * free, size_t * total))                              \
    X(MemFree, "cuMemFree_v2", (CUdeviceptr address))                                              \
    X(MemcpyDtoDAsync, "cuMemcpyDtoDAsync_v2",                                                     \
      (CUdeviceptr to, CUdeviceptr from, size_t bytes, CUstream stream))                           \
    X(MemsetD8Async, "cuMemsetD8Async",                                                            \
      (CUdeviceptr to, unsigned char value, size_t count, CUstream stream))                        \
    X(MemsetD16Async, "cuMemsetD16Async",                                                          \
      (CUdeviceptr to, unsigned short value, size_t count, CUstream stream))                       \
    X(MemsetD32Async, "cuMemsetD32Async",                                                          \
      (CUdeviceptr to, unsigned value, size_t count, CUstream stream))                             \
    X(MemHostAlloc, "cuMemHostAlloc", (void **address, size_t bytes, unsigned flags))              \
    X(MemHostRegister, "cuMemHostRegister_v2", (void *address, size_t bytes, unsigned flags))      \
    X(MemcpyHtoDAsync, "cuMemcpyHtoDAsync_v2",                                                     \
      (CUdeviceptr to, const void *from, size_t bytes, CUstream stream))                           \
    X(MemcpyDtoHAsync, "cuMemcpyDtoHAsync_v2",                                                     \
      (void *to, CUdeviceptr from, size_t bytes, CUstream stream))                                 \
    X(Memcpy2DAsync, "cuMemcpy2DAsync_v2", (const CUDA_MEMCPY2D *copy, CUstream stream))           \
    X(MemsetD2D8Async, "cuMemsetD2D8Async",                                                        \
      (CUdeviceptr to, size_t pitch, unsigned char value, size_t width, size_t height,             \
       CUstream stream))                                                                           \
    X(MemsetD2D16Async, "cuMemsetD2D16Async",                                                      \
      (CUdeviceptr to, size_t pitch, unsigned short value, size_t width, size_t height,            \
       CUstream stream))                                                                           \
    X(MemsetD2D32Async, "cuMemsetD2D32Async",                                                      \
      (CUdeviceptr to, size_t pitch, unsigned value, size_t width, size_t height,                  \
       CUstream stream))                                                                           \
    X(StreamCreate, "cuStreamCreate", (CUstream * stream, unsigned flags))                         \
    X(StreamCreateWithPriority, "cuStreamCreateWithPriority",                                      \
      (CUstream * stream, unsigned flags, int priority))                                           \
    X(StreamDestroy, "cuStreamDestroy_v2", (CUstream stream))                                      \
    X(StreamQuery, "cuStreamQuery", (CUstream stream))                                             \
    X(StreamWaitEvent, "cuStreamWaitEvent", (CUstream stream, CUevent event, unsigned flags))      \
    X(EventCreate, "cuEventCreate", (CUevent * event, unsigned flags))                             \
    X(EventDestroy, "cuEventDestroy_v2", (CUevent event))                                          \
    X(EventRecord, "cuEventRecord", (CUevent event, CUstream stream))                              \
    X(EventQuery, "cuEventQuery", (CUevent event))                                                 \
    X(EventElapsedTime, "cuEventElapsedTime", (float *milliseconds, CUevent start, CUevent end))   \
    X(OccupancyMaxActiveBlocksPerMultiprocessor, "cuOccupancyMaxActiveBlocksPerMultiprocessor",    \
      (int *blocks, CUfunction function, int threads, size_t shared_bytes))                        \
    X(LaunchHostFunc, "cuLaunchHostFunc", (CUstream stream, CUhostFn function, void *argument))    \
    X(LaunchKernel, "cuLaunchKernel",                                                              \
      (CUfunction function, unsigned grid_x, unsigned grid_y, unsigned grid_z, unsigned block_x,   \
       unsigned block_y, unsigned block_z, unsigned shared_bytes, CUstream stream,                 \
       void **parameters, void **extra))

struct cuda_api {
#define CUDA_MEMBER(member, symbol, parameters) CUresult(*member) parameters;
    CUDA_CALLS(CUDA_MEMBER)
#undef CUDA_MEMBER
    /* NULL with older drivers: from CUDA 12.4, 11.8, 11.7, 11.8, and 11.0. */
    CUresult (*FuncGetParamInfo)(CUfunction function, size_t index, size_t *offset, size_t *size);
    CUresult (*LaunchKernelEx)(const CUlaunchConfig *config, CUfunction function, void **parameters,
                               void **extra);
    CUresult (*OccupancyMaxPotentialClusterSize)(int *size, CUfunction function,
                                                 const CUlaunchConfig *config);
    CUresult (*OccupancyMaxActiveClusters)(int *clusters, CUfunction function,
                                           const CUlaunchConfig *config);
    CUresult (*StreamSetAttribute)(CUstream stream, CUstreamAttrID attribute,
                                   const CUstreamAttrValue *value);
};

#endif
