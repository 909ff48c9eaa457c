/* SPDX-License-Identifier: MIT */
/* What tests of all areas do first: a context, memory, streams, the kernels of kernels.ptx. */
#include "tests/cuda/check.h"

#include <string.h>
#include <time.h>

CUdevice device;
CUcontext context;

void start_driver(void)
{
    GOOD(cuInit(0));
    GOOD(cuDeviceGet(&device, 0));
}

void start(void)
{
    start_driver();
    GOOD(cuDevicePrimaryCtxRetain(&context, device));
    GOOD(cuCtxSetCurrent(context));
}

bool on_cpu(void)
{
    char name[256] = "";

    return cuDeviceGetName(name, sizeof(name), device) == CUDA_SUCCESS &&
           strncmp(name, "CPU", 3) == 0;
}

void needs_gpu(const char *why)
{
    if (on_cpu()) {
        skip("%s", why);
    }
}

/* The second form of cuCtxCreate, by whatever name the header knows it now. */
CUresult create_context(CUcontext *created, unsigned flags)
{
    CUresult (*call)(CUcontext *, unsigned, CUdevice) = NULL;

    GOOD(cuGetProcAddress("cuCtxCreate", (void **)&call, 3020, 0, NULL));
    EXPECT(call, "no cuCtxCreate");
    return call(created, flags, device);
}

int attribute(CUdevice_attribute which)
{
    int value = -1;

    GOOD(cuDeviceGetAttribute(&value, which, device));
    return value;
}

CUfunction kernel(const char *name)
{
    static CUmodule module;
    CUfunction function = NULL;

    if (!module) {
        GOOD(cuModuleLoadData(&module, kernels_ptx));
    }
    GOOD(cuModuleGetFunction(&function, module, name));
    return function;
}

CUmodule load_module(const char *ptx)
{
    CUmodule module = NULL;
    const CUresult result = cuModuleLoadData(&module, ptx);

    if (result == CUDA_ERROR_NOT_SUPPORTED && on_cpu()) {
        skip("no compiler for PTX here");
    }
    check_result("cuModuleLoadData(&module, ptx)", result, CUDA_SUCCESS);
    return module;
}

CUmodule load_own_module(void)
{
    return load_module(own_ptx);
}

CUdeviceptr device_alloc(size_t bytes)
{
    CUdeviceptr address = 0;

    GOOD(cuMemAlloc(&address, bytes));
    return address;
}

void *host_alloc(size_t bytes)
{
    void *memory = NULL;

    GOOD(cuMemHostAlloc(&memory, bytes, CU_MEMHOSTALLOC_PORTABLE | CU_MEMHOSTALLOC_DEVICEMAP));
    memset(memory, 0, bytes);
    return memory;
}

CUstream stream_create(unsigned flags)
{
    CUstream stream = NULL;

    GOOD(cuStreamCreate(&stream, flags));
    return stream;
}

CUevent event_create(unsigned flags)
{
    CUevent event = NULL;

    GOOD(cuEventCreate(&event, flags));
    return event;
}

void fill(CUdeviceptr to, uint64_t count, uint32_t value, CUstream stream)
{
    void *arguments[] = {&to, &count, &value};

    GOOD(cuLaunchKernel(kernel("fill"), 16, 1, 1, 128, 1, 1, 0, stream, arguments, NULL));
}

void spin(unsigned ms, CUstream stream)
{
    uint64_t ns = ms * UINT64_C(1000000);
    void *arguments[] = {&ns};

    GOOD(cuLaunchKernel(kernel("spin"), 1, 1, 1, 1, 1, 1, 0, stream, arguments, NULL));
}

void reduce(CUdeviceptr from, uint64_t count, CUdeviceptr sum, CUstream stream)
{
    void *arguments[] = {&from, &count, &sum};

    GOOD(cuLaunchKernel(kernel("reduce_sum"), 4, 1, 1, 64, 1, 1, 0, stream, arguments, NULL));
}

void warm_up(void)
{
    const CUdeviceptr word = device_alloc(16);

    fill(word, 4, 0, NULL);
    spin(1, NULL);
    reduce(word, 1, word + 8, NULL);
    GOOD(cuCtxSynchronize());
    GOOD(cuMemFree(word));
}

static uint8_t next(uint32_t *seed)
{
    *seed = *seed * 1664525u + 1013904223u;
    return (uint8_t)(*seed >> 24);
}

void pattern(uint8_t *bytes, size_t count, uint32_t seed)
{
    for (size_t i = 0; i < count; i++) {
        bytes[i] = next(&seed);
    }
}

bool is_pattern(const uint8_t *bytes, size_t count, uint32_t seed)
{
    for (size_t i = 0; i < count; i++) {
        if (bytes[i] != next(&seed)) {
            return false;
        }
    }
    return true;
}

void expect_words(CUdeviceptr from, size_t count, uint32_t value)
{
    uint32_t words[1024] = {0}; /* little, for threads with little stack */

    while (count > 0) {
        const size_t part = count < 1024 ? count : 1024;

        GOOD(cuMemcpyDtoH(words, from, 4 * part));
        for (size_t i = 0; i < part; i++) {
            EXPECT(words[i] == value, "%#x instead of %#x", words[i], value);
        }
        from += 4 * part;
        count -= part;
    }
}

double now_ms(void)
{
    struct timespec t;

    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec * 1e3 + (double)t.tv_nsec / 1e6;
}
