/* SPDX-License-Identifier: MIT */
/*
 * The device. All that is asked here is answered without the host, from what cuInit() has asked
 * for: programs read dozens of attributes when they start.
 */

#include <limits.h>
#include <stdio.h>
#include <string.h>

#include "guest/libcuda/calls/guest-calls.h"
#include "guest/libcuda/model/device.h"
#include "guest/libcuda/state/state.h"

CUresult guest_cuDeviceGet(CUdevice *device, int ordinal)
{
    if (!device_valid(ordinal)) {
        return CUDA_ERROR_INVALID_DEVICE;
    }
    *device = ordinal;
    return CUDA_SUCCESS;
}

/* Copies a text that is cut where there is no room for it, with its NUL in any case. */
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

/*
 * CUDA takes [domain]:[bus]:[device].[function], the same without the function, and without the
 * domain. All numbers are hexadecimal. They are compared as numbers: "0000:01:00.0" is "0:1:0.0".
 */
CUresult guest_cuDeviceGetByPCIBusId(CUdevice *device, const char *id)
{
    unsigned domain = 0, bus, slot, function = 0, own[4];
    const char *form = id && strchr(id, '.') ? "%x:%x:%x.%x" : "%x:%x:%x";
    int fields;

    fields = sscanf(id, form, &domain, &bus, &slot, &function);
    /* Two numbers and a dot: the first form has taken the bus for a domain. */
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

/* A locally unique identifier is something of Windows. */
CUresult guest_cuDeviceGetLuid(char *luid, unsigned int *node_mask, CUdevice device)
{
    (void)luid;
    (void)node_mask;
    return device_valid(device) ? CUDA_ERROR_NOT_SUPPORTED : CUDA_ERROR_INVALID_DEVICE;
}

CUresult guest_cuDeviceGetAttribute(int *value, CUdevice_attribute attribute, CUdevice device)
{
    /* A negative one is too large as an unsigned number. */
    if (attribute == 0 || (unsigned)attribute >= ATTRIBUTES ||
        cuda.attributes[attribute] == INT_MIN) {
        return CUDA_ERROR_INVALID_VALUE;
    }
    if (!device_valid(device)) {
        return CUDA_ERROR_INVALID_DEVICE;
    }
    *value = cuda.attributes[attribute];
    return CUDA_SUCCESS;
}

/* The old structure that attributes have replaced; all of it is among them. */
CUresult guest_cuDeviceGetProperties(CUdevprop *properties, CUdevice device)
{
    const int *a = cuda.attributes;

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
    if (!device_valid(device) || !device_valid(peer)) {
        return CUDA_ERROR_INVALID_DEVICE;
    }
    *can = 0;
    return CUDA_SUCCESS;
}

/* No attribute of the device says that it could be asked for. */
CUresult guest_cuFlushGPUDirectRDMAWrites(CUflushGPUDirectRDMAWritesTarget target,
                                          CUflushGPUDirectRDMAWritesScope scope)
{
    return target == CU_FLUSH_GPU_DIRECT_RDMA_WRITES_TARGET_CURRENT_CTX &&
                   (scope == CU_FLUSH_GPU_DIRECT_RDMA_WRITES_TO_OWNER ||
                    scope == CU_FLUSH_GPU_DIRECT_RDMA_WRITES_TO_ALL_DEVICES)
               ? CUDA_ERROR_NOT_SUPPORTED
               : CUDA_ERROR_INVALID_VALUE;
}

/* See guest_cuCtxCreate_v3(). */
CUresult guest_cuDeviceGetExecAffinitySupport(int *supported, CUexecAffinityType type,
                                              CUdevice device)
{
    (void)type; /* none is, of those that are unknown too */
    if (!supported) {
        return CUDA_ERROR_INVALID_VALUE;
    }
    if (!device_valid(device)) {
        return CUDA_ERROR_INVALID_DEVICE;
    }
    *supported = 0;
    return CUDA_SUCCESS;
}
