/* SPDX-License-Identifier: MIT */
/*
 * Calls of api/ that the cuda backend does not simply hand on to the driver. Most are: the
 * generated cuda-calls.c asks the driver with what raw.h says of streams, functions and
 * modules. Here are those which ask the driver many times for one answer, or whose arguments hold
 * something that a guest must not choose: an attribute that is a handle or a pointer would be taken
 * for one of this process's.
 */
#include <limits.h>

#include "worker/api-calls.h"
#include "worker/backend-cuda/cuda-driver.h"
#include "worker/backend-cuda/raw.h"

/* More than there are; each costs a call of the driver's, and a guest says how many. */
#define ATTRIBUTES_MAX 1024u

/* The device of this process's context. */
static CUresult own_device(CUdevice *device)
{
    return cu.CtxGetDevice(device);
}

/*
 * All at once, so that the guest need not ask for each when it wants it. INT_MIN tells those that
 * the driver does not know: a newer guest may know more of them than the host's driver.
 */
enum vgpu_gpu_error cuda_device_attributes(struct gpu *gpu, int *values, unsigned count)
{
    CUdevice device;
    const CUresult error = own_device(&device);

    (void)gpu;
    if (count > ATTRIBUTES_MAX) {
        return VGPU_GPU_INVALID_VALUE;
    }
    for (unsigned i = 0; error == CUDA_SUCCESS && i < count; i++) {
        if (cu.DeviceGetAttribute(&values[i], (CUdevice_attribute)i, device) != CUDA_SUCCESS) {
            values[i] = INT_MIN;
        }
    }
    return error;
}

enum vgpu_gpu_error cuda_device_identity(struct gpu *gpu, CUuuid *uuid, char *pci_bus_id)
{
    CUdevice device;
    CUresult error = own_device(&device);

    (void)gpu;
    if (error == CUDA_SUCCESS) {
        error = cu.DeviceGetUuid(uuid, device);
    }
    return error != CUDA_SUCCESS ? error : cu.DeviceGetPCIBusId(pci_bus_id, 16, device);
}

/* The same; but any error other than of an unknown attribute is the function's or the context's. */
enum vgpu_gpu_error cuda_function_attributes(struct gpu *gpu, int *values, unsigned count,
                                             struct gpu_function *function)
{
    if (count > ATTRIBUTES_MAX) {
        return VGPU_GPU_INVALID_VALUE;
    }
    for (unsigned i = 0; i < count; i++) {
        const CUresult error = cu.FuncGetAttribute(&values[i], (CUfunction_attribute)i,
                                                   cuda_raw_function(gpu, function));

        if (error == CUDA_ERROR_INVALID_VALUE) {
            values[i] = INT_MIN;
        } else if (error != CUDA_SUCCESS) {
            return error;
        }
    }
    return VGPU_GPU_SUCCESS;
}

/* A managed variable would have pages of this process, which the guest cannot have. */
enum vgpu_gpu_error cuda_module_global(struct gpu *gpu, CUdeviceptr *address, size_t *bytes,
                                       struct gpu_module *module, const char *name)
{
    CUresult error = cu.ModuleGetGlobal(address, bytes, cuda_raw_module(gpu, module), name);
    unsigned managed = 0;

    if (error == CUDA_SUCCESS && cu.PointerGetAttribute &&
        cu.PointerGetAttribute(&managed, CU_POINTER_ATTRIBUTE_IS_MANAGED, *address) ==
            CUDA_SUCCESS &&
        managed) {
        error = CUDA_ERROR_NOT_SUPPORTED;
    }
    return error;
}

/*
 * The attributes come as the guest has them in memory: those that hold a handle are refused before
 * the driver sees them. NOT_SUPPORTED too where the driver is too old for clusters.
 */
enum vgpu_gpu_error cuda_occupancy_clusters(struct gpu *gpu, int *result,
                                            struct gpu_function *function, unsigned grid_x,
                                            unsigned grid_y, unsigned grid_z, unsigned block_x,
                                            unsigned block_y, unsigned block_z,
                                            unsigned shared_bytes, unsigned active,
                                            const CUlaunchAttribute *attributes, unsigned count)
{
    const CUlaunchConfig config = {
        .gridDimX = grid_x,
        .gridDimY = grid_y,
        .gridDimZ = grid_z,
        .blockDimX = block_x,
        .blockDimY = block_y,
        .blockDimZ = block_z,
        .sharedMemBytes = shared_bytes,
        .attrs = (CUlaunchAttribute *)(uintptr_t)attributes,
        .numAttrs = count,
    };
    CUresult (*const call)(int *, CUfunction,
                           const CUlaunchConfig *) = active ? cu.OccupancyMaxActiveClusters
                                                            : cu.OccupancyMaxPotentialClusterSize;

    for (unsigned i = 0; i < count; i++) {
        if (!api_attribute_is_plain(attributes[i].id)) {
            return VGPU_GPU_NOT_SUPPORTED;
        }
    }
    return call ? call(result, cuda_raw_function(gpu, function), &config) : VGPU_GPU_NOT_SUPPORTED;
}

enum vgpu_gpu_error cuda_function_set_attribute(struct gpu *gpu, struct gpu_function *function,
                                                CUfunction_attribute attribute, int value)
{
    /* The driver takes it for an index and looks at nothing. */
    if ((unsigned)attribute >= CU_FUNC_ATTRIBUTE_MAX) {
        return VGPU_GPU_INVALID_VALUE;
    }
    return cu.FuncSetAttribute(cuda_raw_function(gpu, function), attribute, value);
}

enum vgpu_gpu_error cuda_cuStreamSetAttribute(struct gpu *gpu, struct gpu_stream *stream,
                                              CUstreamAttrID attribute,
                                              const CUstreamAttrValue *value)
{
    if (!api_attribute_is_plain(attribute) || !cu.StreamSetAttribute) {
        return VGPU_GPU_NOT_SUPPORTED;
    }
    return cu.StreamSetAttribute(cuda_raw_stream(gpu, stream), attribute, value);
}
