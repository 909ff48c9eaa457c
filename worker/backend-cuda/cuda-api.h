/* SPDX-License-Identifier: MIT */
/*
 * All of the CUDA driver API that the cuda backend calls, in one table that is loaded at run time:
 * the same worker runs where there is no driver. The part that is handed on for guests is generated
 * from api/ (cuda-forwarded.h).
 */
#ifndef VGPU_WORKER_BACKEND_CUDA_CUDA_API_H
#define VGPU_WORKER_BACKEND_CUDA_CUDA_API_H

#include <assert.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "api/cuda-types.h"
#include "worker/cuda-forwarded.h"

/* member, symbol with the version that has this signature, parameters; every driver has these */
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
    X(CtxGetCurrent, "cuCtxGetCurrent", (CUcontext * context))                                     \
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
    X(MemHostUnregister, "cuMemHostUnregister", (void *address))                                   \
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
    X(StreamSynchronize, "cuStreamSynchronize", (CUstream stream))                                 \
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

/*
 * As NVIDIA's documentation has it, for what writes and waits for words. Nothing of this comes
 * from the guest, so it is not in api/cuda-types.h.
 */
enum mem_op {
    MEM_OP_WAIT_VALUE_32 = 1,
    MEM_OP_WRITE_VALUE_32 = 2,
};
#define MEM_OP_WAIT_EQUAL 1u

struct mem_op_params {
    enum mem_op operation;
    CUdeviceptr address;
    uint64_t value;
    unsigned flags;
    uint64_t pad[2];
};
static_assert(sizeof(struct mem_op_params) == 48, "CUstreamBatchMemOpParams");

struct mem_op_node {
    CUcontext context;
    unsigned count;
    struct mem_op_params *params;
    unsigned flags;
};

/*
 * What single functions want. The launch configurations came with CUDA 11.8, tensor maps with 12.0
 * and 12.8, what tells of a function's parameters and a module's functions with 12.3 and 12.4.
 */
#define CUDA_NEWER_CALLS(X)                                                                        \
    X(FuncGetParamInfo, "cuFuncGetParamInfo",                                                      \
      (CUfunction function, size_t index, size_t * offset, size_t * size))                         \
    X(LaunchKernelEx, "cuLaunchKernelEx",                                                          \
      (const CUlaunchConfig *config, CUfunction function, void **parameters, void **extra))        \
    X(OccupancyMaxPotentialClusterSize, "cuOccupancyMaxPotentialClusterSize",                      \
      (int *size, CUfunction function, const CUlaunchConfig *config))                              \
    X(OccupancyMaxActiveClusters, "cuOccupancyMaxActiveClusters",                                  \
      (int *clusters, CUfunction function, const CUlaunchConfig *config))                          \
    X(StreamBatchMemOp, "cuStreamBatchMemOp_v2",                                                   \
      (CUstream stream, unsigned count, struct mem_op_params *operations, unsigned flags))         \
    X(StreamSetAttribute, "cuStreamSetAttribute",                                                  \
      (CUstream stream, CUstreamAttrID attribute, const CUstreamAttrValue *value))                 \
    X(GetExportTable, "cuGetExportTable", (const void **table, const CUuuid *id))                  \
    X(TensorMapEncodeTiled, "cuTensorMapEncodeTiled",                                              \
      (CUtensorMap * map, CUtensorMapDataType type, cuuint32_t rank, void *address,                \
       const cuuint64_t *sizes, const cuuint64_t *strides, const cuuint32_t *box,                  \
       const cuuint32_t *steps, CUtensorMapInterleave interleave, CUtensorMapSwizzle swizzle,      \
       CUtensorMapL2promotion promotion, CUtensorMapFloatOOBfill fill))                            \
    X(TensorMapEncodeIm2col, "cuTensorMapEncodeIm2col",                                            \
      (CUtensorMap * map, CUtensorMapDataType type, cuuint32_t rank, void *address,                \
       const cuuint64_t *sizes, const cuuint64_t *strides, const int *lower, const int *upper,     \
       cuuint32_t channels, cuuint32_t pixels, const cuuint32_t *steps,                            \
       CUtensorMapInterleave interleave, CUtensorMapSwizzle swizzle,                               \
       CUtensorMapL2promotion promotion, CUtensorMapFloatOOBfill fill))                            \
    X(TensorMapEncodeIm2colWide, "cuTensorMapEncodeIm2colWide",                                    \
      (CUtensorMap * map, CUtensorMapDataType type, cuuint32_t rank, void *address,                \
       const cuuint64_t *sizes, const cuuint64_t *strides, int lower, int upper,                   \
       cuuint32_t channels, cuuint32_t pixels, const cuuint32_t *steps,                            \
       CUtensorMapInterleave interleave, CUtensorMapIm2ColWideMode mode,                           \
       CUtensorMapSwizzle swizzle, CUtensorMapL2promotion promotion,                               \
       CUtensorMapFloatOOBfill fill))                                                              \
    X(TensorMapReplaceAddress, "cuTensorMapReplaceAddress", (CUtensorMap * map, void *address))    \
    X(ModuleGetFunctionCount, "cuModuleGetFunctionCount", (unsigned *count, CUmodule module))      \
    X(ModuleEnumerateFunctions, "cuModuleEnumerateFunctions",                                      \
      (CUfunction * functions, unsigned count, CUmodule module))                                   \
    X(PointerGetAttribute, "cuPointerGetAttribute",                                                \
      (void *value, CUpointer_attribute attribute, CUdeviceptr address))                           \
    X(DeviceGetTexture1DLinearMaxWidth, "cuDeviceGetTexture1DLinearMaxWidth",                      \
      (size_t * elements, CUarray_format format, unsigned channels, CUdevice device))              \
    X(FuncGetName, "cuFuncGetName", (const char **name, CUfunction function))

/* What graphs are made with. */
#define CUDA_GRAPH_CALLS(X)                                                                        \
    X(GraphCreate, "cuGraphCreate", (CUgraph * graph, unsigned flags))                             \
    X(GraphDestroy, "cuGraphDestroy", (CUgraph graph))                                             \
    X(GraphAddKernelNode, "cuGraphAddKernelNode",                                                  \
      (CUgraphNode * node, CUgraph graph, const CUgraphNode *follows, size_t count,                \
       const CUDA_KERNEL_NODE_PARAMS_v1 *params))                                                  \
    X(GraphKernelNodeSetAttribute, "cuGraphKernelNodeSetAttribute",                                \
      (CUgraphNode node, CUlaunchAttributeID id, const CUlaunchAttributeValue *value))             \
    X(GraphAddMemcpyNode, "cuGraphAddMemcpyNode",                                                  \
      (CUgraphNode * node, CUgraph graph, const CUgraphNode *follows, size_t count,                \
       const CUDA_MEMCPY3D *copy, CUcontext context))                                              \
    X(GraphAddMemsetNode, "cuGraphAddMemsetNode",                                                  \
      (CUgraphNode * node, CUgraph graph, const CUgraphNode *follows, size_t count,                \
       const CUDA_MEMSET_NODE_PARAMS *fill, CUcontext context))                                    \
    X(GraphAddEmptyNode, "cuGraphAddEmptyNode",                                                    \
      (CUgraphNode * node, CUgraph graph, const CUgraphNode *follows, size_t count))               \
    X(GraphAddBatchMemOpNode, "cuGraphAddBatchMemOpNode",                                          \
      (CUgraphNode * node, CUgraph graph, const CUgraphNode *follows, size_t count,                \
       const struct mem_op_node *params))                                                          \
    X(GraphInstantiateWithFlags, "cuGraphInstantiateWithFlags",                                    \
      (CUgraphExec * exec, CUgraph graph, unsigned long long flags))                               \
    X(GraphExecUpdate, "cuGraphExecUpdate_v2",                                                     \
      (CUgraphExec exec, CUgraph graph, CUgraphExecUpdateResultInfo * info))                       \
    X(GraphExecDestroy, "cuGraphExecDestroy", (CUgraphExec exec))                                  \
    X(GraphLaunch, "cuGraphLaunch", (CUgraphExec exec, CUstream stream))

/* Arrays, textures, surfaces. */
#define CUDA_ARRAY_CALLS(X)                                                                        \
    X(Array3DCreate, "cuArray3DCreate_v2",                                                         \
      (CUarray * array, const CUDA_ARRAY3D_DESCRIPTOR *shape))                                     \
    X(ArrayDestroy, "cuArrayDestroy", (CUarray array))                                             \
    X(MipmappedArrayCreate, "cuMipmappedArrayCreate",                                              \
      (CUmipmappedArray * array, const CUDA_ARRAY3D_DESCRIPTOR *shape, unsigned levels))           \
    X(MipmappedArrayDestroy, "cuMipmappedArrayDestroy", (CUmipmappedArray array))                  \
    X(MipmappedArrayGetLevel, "cuMipmappedArrayGetLevel",                                          \
      (CUarray * level, CUmipmappedArray array, unsigned number))                                  \
    X(Memcpy3DAsync, "cuMemcpy3DAsync_v2", (const CUDA_MEMCPY3D *copy, CUstream stream))           \
    X(TexObjectCreate, "cuTexObjectCreate",                                                        \
      (CUtexObject * texture, const CUDA_RESOURCE_DESC *resource,                                  \
       const CUDA_TEXTURE_DESC *sampling, const CUDA_RESOURCE_VIEW_DESC *view))                    \
    X(TexObjectDestroy, "cuTexObjectDestroy", (CUtexObject texture))                               \
    X(SurfObjectCreate, "cuSurfObjectCreate",                                                      \
      (CUsurfObject * surface, const CUDA_RESOURCE_DESC *resource))                                \
    X(SurfObjectDestroy, "cuSurfObjectDestroy", (CUsurfObject surface))

/* The linker. */
#define CUDA_LINKER_CALLS(X)                                                                       \
    X(LinkCreate, "cuLinkCreate_v2",                                                               \
      (unsigned count, CUjit_option *options, void **values, CUlinkState *state))                  \
    X(LinkAddData, "cuLinkAddData_v2",                                                             \
      (CUlinkState state, CUjitInputType type, void *data, size_t bytes, const char *name,         \
       unsigned count, CUjit_option *options, void **values))                                      \
    X(LinkComplete, "cuLinkComplete", (CUlinkState state, void **image, size_t *bytes))            \
    X(LinkDestroy, "cuLinkDestroy", (CUlinkState state))

/* Memory of several processes. */
#define CUDA_SHARING_CALLS(X)                                                                      \
    X(IpcGetMemHandle, "cuIpcGetMemHandle", (CUipcMemHandle * handle, CUdeviceptr address))        \
    X(IpcOpenMemHandle, "cuIpcOpenMemHandle_v2",                                                   \
      (CUdeviceptr * address, CUipcMemHandle handle, unsigned flags))                              \
    X(IpcCloseMemHandle, "cuIpcCloseMemHandle", (CUdeviceptr address))

/* Addresses and memory apart from each other. */
#define CUDA_MAPPING_CALLS(X)                                                                      \
    X(MemAddressReserve, "cuMemAddressReserve",                                                    \
      (CUdeviceptr * address, size_t bytes, size_t alignment, CUdeviceptr wanted,                  \
       unsigned long long flags))                                                                  \
    X(MemAddressFree, "cuMemAddressFree", (CUdeviceptr address, size_t bytes))                     \
    X(MemCreate, "cuMemCreate",                                                                    \
      (CUmemGenericAllocationHandle * handle, size_t bytes, const CUmemAllocationProp *prop,       \
       unsigned long long flags))                                                                  \
    X(MemRelease, "cuMemRelease", (CUmemGenericAllocationHandle handle))                           \
    X(MemMap, "cuMemMap",                                                                          \
      (CUdeviceptr address, size_t bytes, size_t offset, CUmemGenericAllocationHandle handle,      \
       unsigned long long flags))                                                                  \
    X(MemUnmap, "cuMemUnmap", (CUdeviceptr address, size_t bytes))                                 \
    X(MemSetAccess, "cuMemSetAccess",                                                              \
      (CUdeviceptr address, size_t bytes, const CUmemAccessDesc *access, size_t count))            \
    X(MemGetAllocationGranularity, "cuMemGetAllocationGranularity",                                \
      (size_t * granularity, const CUmemAllocationProp *prop,                                      \
       CUmemAllocationGranularity_flags option))

/* Calls go together: a driver that lacks one of a group is not asked for the others. */
enum cuda_group {
    CUDA_NEEDED, /* without which there is no GPU */
    CUDA_NEWER,  /* each is asked for before it is used */
    CUDA_GRAPHS,
    CUDA_MAPPING,
    CUDA_SHARING,
    CUDA_LINKER,
    CUDA_ARRAYS,
    CUDA_FORWARDED, /* what is handed on for guests; each is asked for before it is used */
    CUDA_GROUPS,
};

/* group, list of X(member, symbol, parameters) */
#define CUDA_TABLE(G)                                                                              \
    G(CUDA_NEEDED, CUDA_CALLS)                                                                     \
    G(CUDA_NEWER, CUDA_NEWER_CALLS)                                                                \
    G(CUDA_GRAPHS, CUDA_GRAPH_CALLS)                                                               \
    G(CUDA_MAPPING, CUDA_MAPPING_CALLS)                                                            \
    G(CUDA_SHARING, CUDA_SHARING_CALLS)                                                            \
    G(CUDA_LINKER, CUDA_LINKER_CALLS)                                                              \
    G(CUDA_ARRAYS, CUDA_ARRAY_CALLS)                                                               \
    G(CUDA_FORWARDED, CUDA_FORWARDED_CALLS)

/* The driver's functions; NULL: it lacks one. */
struct cuda_api {
#define CUDA_MEMBER(member, symbol, parameters) CUresult(*member) parameters;
#define CUDA_MEMBERS(group, list) list(CUDA_MEMBER)
    CUDA_TABLE(CUDA_MEMBERS)
#undef CUDA_MEMBERS
#undef CUDA_MEMBER
    bool lacks[CUDA_GROUPS]; /* at least one of a group */
};

#endif
