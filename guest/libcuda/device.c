/* SPDX-License-Identifier: MIT */
/* The device. All that is asked here is answered without the host, see entry.c for what it knows.
 */
#include "guest/libcuda/device.h"

#include <limits.h>
#include <stdio.h>
#include <string.h>
#include <strings.h>

#include "guest/libcuda/entry.h"

/* What the GPU can do and this library does not serve. */
static const CUdevice_attribute not_served[] = {
    CU_DEVICE_ATTRIBUTE_MANAGED_MEMORY,
    CU_DEVICE_ATTRIBUTE_PAGEABLE_MEMORY_ACCESS,
    CU_DEVICE_ATTRIBUTE_CONCURRENT_MANAGED_ACCESS,
    CU_DEVICE_ATTRIBUTE_CAN_USE_HOST_POINTER_FOR_REGISTERED_MEM,
    CU_DEVICE_ATTRIBUTE_PAGEABLE_MEMORY_ACCESS_USES_HOST_PAGE_TABLES,
    CU_DEVICE_ATTRIBUTE_DIRECT_MANAGED_MEM_ACCESS_FROM_HOST,
    CU_DEVICE_ATTRIBUTE_HANDLE_TYPE_POSIX_FILE_DESCRIPTOR_SUPPORTED,
    CU_DEVICE_ATTRIBUTE_GPU_DIRECT_RDMA_WITH_CUDA_VMM_SUPPORTED,
    CU_DEVICE_ATTRIBUTE_SPARSE_CUDA_ARRAY_SUPPORTED,
    CU_DEVICE_ATTRIBUTE_READ_ONLY_HOST_REGISTER_SUPPORTED,
    CU_DEVICE_ATTRIBUTE_TIMELINE_SEMAPHORE_INTEROP_SUPPORTED,
    CU_DEVICE_ATTRIBUTE_GPU_DIRECT_RDMA_SUPPORTED,
    CU_DEVICE_ATTRIBUTE_MEMPOOL_SUPPORTED_HANDLE_TYPES,
    CU_DEVICE_ATTRIBUTE_DEFERRED_MAPPING_CUDA_ARRAY_SUPPORTED,
    CU_DEVICE_ATTRIBUTE_DMA_BUF_SUPPORTED,
    CU_DEVICE_ATTRIBUTE_IPC_EVENT_SUPPORTED,
    CU_DEVICE_ATTRIBUTE_HANDLE_TYPE_FABRIC_SUPPORTED,
    CU_DEVICE_ATTRIBUTE_UNIFIED_FUNCTION_POINTERS,
    CU_DEVICE_ATTRIBUTE_MULTICAST_SUPPORTED,
    CU_DEVICE_ATTRIBUTE_COOPERATIVE_MULTI_DEVICE_LAUNCH,
    CU_DEVICE_ATTRIBUTE_GENERIC_COMPRESSION_SUPPORTED,
    CU_DEVICE_ATTRIBUTE_MAX_PERSISTING_L2_CACHE_SIZE,
    CU_DEVICE_ATTRIBUTE_GPU_DIRECT_RDMA_FLUSH_WRITES_OPTIONS,
    CU_DEVICE_ATTRIBUTE_TENSOR_MAP_ACCESS_SUPPORTED,
    CU_DEVICE_ATTRIBUTE_MEM_DECOMPRESS_ALGORITHM_MASK,
    CU_DEVICE_ATTRIBUTE_MEM_DECOMPRESS_MAXIMUM_LENGTH,
    CU_DEVICE_ATTRIBUTE_HOST_NUMA_VIRTUAL_MEMORY_MANAGEMENT_SUPPORTED,
    CU_DEVICE_ATTRIBUTE_HOST_NUMA_MEMORY_POOLS_SUPPORTED,
    CU_DEVICE_ATTRIBUTE_HOST_NUMA_MULTINODE_IPC_SUPPORTED,
    CU_DEVICE_ATTRIBUTE_HOST_MEMORY_POOLS_SUPPORTED,
    CU_DEVICE_ATTRIBUTE_HOST_VIRTUAL_MEMORY_MANAGEMENT_SUPPORTED,
    CU_DEVICE_ATTRIBUTE_HOST_ALLOC_DMA_BUF_SUPPORTED,
};

void device_tell_truth(void)
{
    for (unsigned i = 0; i < sizeof(not_served) / sizeof(not_served[0]); i++) {
        if (cuda.attributes[not_served[i]] != INT_MIN) {
            cuda.attributes[not_served[i]] = 0;
        }
    }
}

CUresult guest_cuDeviceGet(CUdevice *device, int ordinal)
{
    if (!device) {
        return CUDA_ERROR_INVALID_VALUE;
    }
    if (!device_valid(ordinal)) {
        return CUDA_ERROR_INVALID_DEVICE;
    }
    *device = ordinal;
    return CUDA_SUCCESS;
}

CUresult guest_cuDeviceGetCount(int *count)
{
    if (!count) {
        return CUDA_ERROR_INVALID_VALUE;
    }
    *count = 1;
    return CUDA_SUCCESS;
}

/* Copies a text that is cut where there is no room for it. */
static CUresult give_text(char *to, int length, const char *text, CUdevice device)
{
    if (!to || length <= 0) {
        return CUDA_ERROR_INVALID_VALUE;
    }
    if (!device_valid(device)) {
        return CUDA_ERROR_INVALID_DEVICE;
    }
    snprintf(to, (size_t)length, "%s", text);
    return CUDA_SUCCESS;
}

CUresult guest_cuDeviceGetName(char *name, int length, CUdevice device)
{
    return give_text(name, length, cuda.name, device);
}

CUresult guest_cuDeviceGetPCIBusId(char *id, int length, CUdevice device)
{
    return give_text(id, length, cuda.pci_bus_id, device);
}

CUresult guest_cuDeviceGetByPCIBusId(CUdevice *device, const char *id)
{
    unsigned domain = 0, bus, slot, function = 0, own[4];
    const char *form = id && strchr(id, '.') ? "%x:%x:%x.%x" : "%x:%x:%x";
    int fields;

    if (!device || !id) {
        return CUDA_ERROR_INVALID_VALUE;
    }
    fields = sscanf(id, form, &domain, &bus, &slot, &function);
    if (fields < 3) {
        domain = 0;
        if (sscanf(id, "%x:%x.%x", &bus, &slot, &function) < 2) {
            return CUDA_ERROR_INVALID_VALUE;
        }
    }
    if (sscanf(cuda.pci_bus_id, "%x:%x:%x.%x", &own[0], &own[1], &own[2], &own[3]) != 4 ||
        domain != own[0] || bus != own[1] || slot != own[2] || function != own[3]) {
        return CUDA_ERROR_INVALID_DEVICE;
    }
    *device = 0;
    return CUDA_SUCCESS;
}

CUresult guest_cuDeviceGetUuid_v2(CUuuid *uuid, CUdevice device)
{
    if (!uuid) {
        return CUDA_ERROR_INVALID_VALUE;
    }
    if (!device_valid(device)) {
        return CUDA_ERROR_INVALID_DEVICE;
    }
    *uuid = cuda.uuid;
    return CUDA_SUCCESS;
}

CUresult guest_cuDeviceGetUuid(CUuuid *uuid, CUdevice device)
{
    return guest_cuDeviceGetUuid_v2(uuid, device);
}

/* Of Windows. */
CUresult guest_cuDeviceGetLuid(char *luid, unsigned int *node_mask, CUdevice device)
{
    (void)luid;
    (void)node_mask;
    return device_valid(device) ? CUDA_ERROR_NOT_SUPPORTED : CUDA_ERROR_INVALID_DEVICE;
}

CUresult guest_cuDeviceTotalMem_v2(size_t *bytes, CUdevice device)
{
    if (!bytes) {
        return CUDA_ERROR_INVALID_VALUE;
    }
    if (!device_valid(device)) {
        return CUDA_ERROR_INVALID_DEVICE;
    }
    *bytes = cuda.total_memory;
    return CUDA_SUCCESS;
}

CUresult guest_cuDeviceGetAttribute(int *value, CUdevice_attribute attribute, CUdevice device)
{
    if (!value || (unsigned)attribute >= ATTRIBUTES || cuda.attributes[attribute] == INT_MIN) {
        return CUDA_ERROR_INVALID_VALUE;
    }
    if (!device_valid(device)) {
        return CUDA_ERROR_INVALID_DEVICE;
    }
    *value = cuda.attributes[attribute];
    return CUDA_SUCCESS;
}

CUresult guest_cuDeviceGetProperties(CUdevprop *properties, CUdevice device)
{
    const int *a = cuda.attributes;

    if (!properties) {
        return CUDA_ERROR_INVALID_VALUE;
    }
    if (!device_valid(device)) {
        return CUDA_ERROR_INVALID_DEVICE;
    }
    *properties = (CUdevprop){
        .maxThreadsPerBlock = a[CU_DEVICE_ATTRIBUTE_MAX_THREADS_PER_BLOCK],
        .maxThreadsDim = {a[CU_DEVICE_ATTRIBUTE_MAX_BLOCK_DIM_X],
                          a[CU_DEVICE_ATTRIBUTE_MAX_BLOCK_DIM_Y],
                          a[CU_DEVICE_ATTRIBUTE_MAX_BLOCK_DIM_Z]},
        .maxGridSize = {a[CU_DEVICE_ATTRIBUTE_MAX_GRID_DIM_X],
                        a[CU_DEVICE_ATTRIBUTE_MAX_GRID_DIM_Y],
                        a[CU_DEVICE_ATTRIBUTE_MAX_GRID_DIM_Z]},
        .sharedMemPerBlock = a[CU_DEVICE_ATTRIBUTE_MAX_SHARED_MEMORY_PER_BLOCK],
        .totalConstantMemory = a[CU_DEVICE_ATTRIBUTE_TOTAL_CONSTANT_MEMORY],
        .SIMDWidth = a[CU_DEVICE_ATTRIBUTE_WARP_SIZE],
        .memPitch = a[CU_DEVICE_ATTRIBUTE_MAX_PITCH],
        .regsPerBlock = a[CU_DEVICE_ATTRIBUTE_MAX_REGISTERS_PER_BLOCK],
        .clockRate = a[CU_DEVICE_ATTRIBUTE_CLOCK_RATE],
        .textureAlign = a[CU_DEVICE_ATTRIBUTE_TEXTURE_ALIGNMENT],
    };
    return CUDA_SUCCESS;
}

CUresult guest_cuDeviceComputeCapability(int *major, int *minor, CUdevice device)
{
    if (!major || !minor) {
        return CUDA_ERROR_INVALID_VALUE;
    }
    if (!device_valid(device)) {
        return CUDA_ERROR_INVALID_DEVICE;
    }
    *major = cuda.attributes[CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR];
    *minor = cuda.attributes[CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MINOR];
    return CUDA_SUCCESS;
}

/* As CUDA answers for one device: it is not a peer of its own. */
CUresult guest_cuDeviceCanAccessPeer(int *can, CUdevice device, CUdevice peer)
{
    if (!can) {
        return CUDA_ERROR_INVALID_VALUE;
    }
    if (!device_valid(device) || !device_valid(peer)) {
        return CUDA_ERROR_INVALID_DEVICE;
    }
    *can = 0;
    return CUDA_SUCCESS;
}

CUresult guest_cuDeviceGetP2PAttribute(int *value, CUdevice_P2PAttribute attribute, CUdevice from,
                                       CUdevice to)
{
    (void)value;
    (void)attribute;
    (void)from;
    (void)to;
    return CUDA_ERROR_INVALID_DEVICE;
}

CUresult guest_cuDeviceGetExecAffinitySupport(int *supported, CUexecAffinityType type,
                                              CUdevice device)
{
    if (!supported || type != CU_EXEC_AFFINITY_TYPE_SM_COUNT) {
        return CUDA_ERROR_INVALID_VALUE;
    }
    if (!device_valid(device)) {
        return CUDA_ERROR_INVALID_DEVICE;
    }
    *supported = 0;
    return CUDA_SUCCESS;
}

CUresult guest_cuFlushGPUDirectRDMAWrites(CUflushGPUDirectRDMAWritesTarget target,
                                          CUflushGPUDirectRDMAWritesScope scope)
{
    (void)target;
    (void)scope;
    return CUDA_ERROR_NOT_SUPPORTED;
}
