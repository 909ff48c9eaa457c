/* SPDX-License-Identifier: MIT */
/*
 * NVIDIA's driver: loading it, and the device's context. See cuda-driver.h.
 *
 * The driver is looked up at run time, so that one worker serves hosts with and without it. The
 * calls of one table have to be there; newer ones are looked up too, and are NULL where a driver
 * lacks them, which is asked before they are used. All of it happens while files can still be
 * opened: later the worker is isolated, and the driver must have found what it needs.
 */
#include "worker/backend-cuda/cuda-driver.h"

#include <dlfcn.h>
#include <errno.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>

#include "common/log.h"
#include "worker/api-calls.h"
#include "worker/backend-cuda/raw.h"

/* The compiler for PTX, which the driver loads when it first needs it. */
#define JIT_LIBRARY "libnvidia-ptxjitcompiler.so.1"

struct cuda_api cu;
static bool cu_loaded;

/* Addresses are copied as bytes: C has no conversion from an object's pointer to a function's. */
bool cuda_look_up(void *library, void *table, const struct cuda_symbol *symbols, size_t count)
{
    bool all = true;

    for (size_t i = 0; i < count; i++) {
        void *address = dlsym(library, symbols[i].name);

        memcpy((char *)table + symbols[i].offset, &address, sizeof(address));
        all = all && address;
    }
    return all;
}

/* What is not in every release. */
static void load_optional(void *library)
{
    static const struct cuda_symbol calls[] = {
        {"cuFuncGetParamInfo", offsetof(struct cuda_api, FuncGetParamInfo)},
        {"cuLaunchKernelEx", offsetof(struct cuda_api, LaunchKernelEx)},
        {"cuOccupancyMaxPotentialClusterSize",
         offsetof(struct cuda_api, OccupancyMaxPotentialClusterSize)},
        {"cuOccupancyMaxActiveClusters", offsetof(struct cuda_api, OccupancyMaxActiveClusters)},
        {"cuStreamSetAttribute", offsetof(struct cuda_api, StreamSetAttribute)},
    };

    cuda_look_up(library, &cu, calls, sizeof(calls) / sizeof(calls[0]));
}

/*
 * Loads the driver once. -ENODEV when there is none, or one that is too old: `auto` takes the CPU
 * then. It is never unloaded.
 */
static int load_driver(char *why, size_t why_size)
{
    static const struct {
        const char *symbol;
        size_t offset;
    } calls[] = {
#define CUDA_SYMBOL(member, symbol, parameters) {symbol, offsetof(struct cuda_api, member)},
        CUDA_CALLS(CUDA_SYMBOL)
#undef CUDA_SYMBOL
    };
    void *library;

    if (cu_loaded) {
        return 0;
    }
    library = dlopen("libcuda.so.1", RTLD_NOW | RTLD_LOCAL);
    if (!library) {
        snprintf(why, why_size, "no NVIDIA driver: %s", dlerror());
        return -ENODEV;
    }
    for (size_t i = 0; i < sizeof(calls) / sizeof(calls[0]); i++) {
        void *address = dlsym(library, calls[i].symbol);

        if (!address) {
            snprintf(why, why_size, "the NVIDIA driver is too old: it lacks %s", calls[i].symbol);
            return -ENODEV;
        }
        memcpy((char *)&cu + calls[i].offset, &address, sizeof(address));
    }
    load_optional(library);
    cuda_calls_load(library);
    cuda_graph_load(library);
    cuda_mapping_load(library);
    /*
     * Here, since a worker cannot open files once it is isolated. It need not be there: without it
     * PTX cannot be compiled, and all else works.
     */
    dlopen(JIT_LIBRARY, RTLD_NOW | RTLD_LOCAL);
    cu_loaded = true;
    return 0;
}

/* Also for errors that are newer than the driver. */
const char *cuda_error_name(CUresult error)
{
    const char *name = NULL;

    if (cu.GetErrorName(error, &name) != CUDA_SUCCESS || !name) {
        name = "unknown CUDA error";
    }
    return name;
}

/* -ENOMEM is kept apart from all others: it leaves a backend usable. */
int cuda_failed(CUresult error, const char *what)
{
    log_error("%s: %s", what, cuda_error_name(error));
    return error == CUDA_ERROR_OUT_OF_MEMORY ? -ENOMEM : -EIO;
}

/* Everything that goes wrong here means that there is no GPU to compute on: -ENODEV. */
int cuda_init(char *why, size_t why_size, int *count)
{
    CUresult error;
    int r = load_driver(why, why_size);

    if (r < 0) {
        return r;
    }
    error = cu.Init(0);
    if (error == CUDA_SUCCESS) {
        error = cu.DeviceGetCount(count);
    }
    if (error == CUDA_SUCCESS && *count == 0) {
        error = CUDA_ERROR_NO_DEVICE;
    }
    if (error != CUDA_SUCCESS) {
        snprintf(why, why_size, "the NVIDIA driver reports %s", cuda_error_name(error));
        return -ENODEV;
    }
    return 0;
}

int backend_count_gpus(char *why, size_t why_size)
{
    int count = 0;

    why[0] = '\0';
    return cuda_init(why, why_size, &count) == 0 ? count : 0;
}

int backend_gpu_name(int device, char *name, size_t size)
{
    CUdevice handle;

    CHECK(DeviceGet, (&handle, device));
    CHECK(DeviceGetName, (name, (int)size, handle));
    return 0;
}

static int read_info(struct vgpu_device_info *info, CUdevice device)
{
    int major, minor, processors, version;
    size_t memory;

    CHECK(DriverGetVersion, (&version));
    CHECK(DeviceGetName, (info->name, (int)sizeof(info->name), device));
    CHECK(DeviceGetAttribute, (&major, CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR, device));
    CHECK(DeviceGetAttribute, (&minor, CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MINOR, device));
    CHECK(DeviceGetAttribute, (&processors, CU_DEVICE_ATTRIBUTE_MULTIPROCESSOR_COUNT, device));
    CHECK(DeviceTotalMem, (&memory, device));
    info->backend = VGPU_FEATURE_BACKEND_GPU;
    info->compute = (uint32_t)major << 16 | (uint32_t)minor;
    info->processors = (uint32_t)processors;
    info->driver = (uint32_t)version;
    info->memory_total = memory;
    return 0;
}

/*
 * The primary context, which the driver makes when it is first retained: that takes a fraction of a
 * second and some 500 MiB. It is not released: the process's end does that.
 */
int cuda_open_device(int device, struct vgpu_device_info *info)
{
    CUdevice handle;
    CUcontext context;
    int r;

    CHECK(DeviceGet, (&handle, device));
    r = read_info(info, handle);
    if (r < 0) {
        return r;
    }
    CHECK(DevicePrimaryCtxRetain, (&context, handle));
    CHECK(CtxSetCurrent, (context));
    return 0;
}
