/* SPDX-License-Identifier: MIT */
/*
 * NVIDIA's driver: loading it, and the device's context. See cuda-driver.h.
 *
 * The driver is looked up at run time, so that one worker serves hosts with and without it. The
 * calls of one group have to be there (cuda-api.h); newer ones are NULL where a driver lacks them,
 * which is asked before they are used. All of it happens while files can still be
 * opened: later the worker is isolated, and the driver must have found what it needs.
 */
#include "worker/backend-cuda/cuda-driver.h"

#include <dlfcn.h>
#include <errno.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>

#include "common/log.h"
#include "worker/gauge.h"

/* The compiler for PTX, which the driver loads when it first needs it. */
#define JIT_LIBRARY "libnvidia-ptxjitcompiler.so.1"

struct cuda_api cu;
static bool cu_loaded;

/* A function of the driver's, and where in struct cuda_api its address goes; bytes. */
struct cuda_symbol {
    const char *name;
    size_t offset;
};

#define CUDA_SYMBOL(member, symbol, parameters) {symbol, offsetof(struct cuda_api, member)},
#define CUDA_SYMBOLS(group, list)                                                                  \
    static const struct cuda_symbol symbols_##group[] = {list(CUDA_SYMBOL)};
CUDA_TABLE(CUDA_SYMBOLS)

static const struct {
    const struct cuda_symbol *symbol;
    size_t count;
} groups[CUDA_GROUPS] = {
#define CUDA_GROUP(group, list)                                                                    \
    [group] = {symbols_##group, sizeof(symbols_##group) / sizeof(struct cuda_symbol)},
    CUDA_TABLE(CUDA_GROUP)};

/*
 * Looks all functions up. Returns the name of a needed one that is not there, or NULL. Addresses
 * are copied as bytes: C has no conversion from an object's pointer to a function's.
 */
static const char *look_up(void *library)
{
    const char *missing = NULL;

    for (int group = 0; group < CUDA_GROUPS; group++) {
        for (size_t i = 0; i < groups[group].count; i++) {
            const struct cuda_symbol *symbol = &groups[group].symbol[i];
            void *address = dlsym(library, symbol->name);

            memcpy((char *)&cu + symbol->offset, &address, sizeof(address));
            cu.lacks[group] = cu.lacks[group] || !address;
            if (!address && group == CUDA_NEEDED && !missing) {
                missing = symbol->name;
            }
        }
    }
    return missing;
}

/*
 * Loads the driver once. -ENODEV when there is none, or one that is too old: `auto` takes the CPU
 * then. It is never unloaded.
 */
static int load_driver(char *why, size_t why_size)
{
    const char *missing;
    void *library;

    if (cu_loaded) {
        return 0;
    }
    library = dlopen("libcuda.so.1", RTLD_NOW | RTLD_LOCAL);
    if (!library) {
        snprintf(why, why_size, "no NVIDIA driver: %s", dlerror());
        return -ENODEV;
    }
    if (dlsym(library, "vgpu_cuda")) {
        snprintf(why, why_size,
                 "the libcuda.so.1 that is found is vGPU's own, which is for guests; "
                 "take its folder out of the linker's path");
        return -ENODEV;
    }
    missing = look_up(library);
    if (missing) {
        snprintf(why, why_size, "the NVIDIA driver is too old: it lacks %s", missing);
        return -ENODEV;
    }
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

uint32_t cuda_gpu_facts(int device, struct vgpu_gpu_facts *facts)
{
    struct vgpu_device_info info = {0};
    CUdevice handle;
    CUuuid uuid;

    if (cu.DeviceGet(&handle, device) != CUDA_SUCCESS || read_info(&info, handle) < 0 ||
        cu.DeviceGetUuid(&uuid, handle) != CUDA_SUCCESS ||
        cu.DeviceGetPCIBusId(facts->bus_id, (int)sizeof(facts->bus_id), handle) != CUDA_SUCCESS) {
        *facts = (struct vgpu_gpu_facts){0};
        return 0;
    }
    memcpy(facts->name, info.name, sizeof(facts->name));
    memcpy(facts->uuid, uuid.bytes, sizeof(facts->uuid));
    facts->cuda = info.driver;
    facts->compute = info.compute;
    facts->processors = info.processors;
    facts->memory = info.memory_total;
    return VGPU_KNOWN_DEVICE;
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

const uintptr_t *cuda_find_table(const char *id, unsigned words)
{
    const void *table = NULL;
    CUuuid uuid;

    memcpy(uuid.bytes, id, sizeof(uuid.bytes));
    if (!cu.GetExportTable || cu.GetExportTable(&table, &uuid) != CUDA_SUCCESS || !table ||
        *(const uintptr_t *)table < words * sizeof(uintptr_t)) {
        return NULL;
    }
    return table;
}
