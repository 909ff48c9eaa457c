/* SPDX-License-Identifier: MIT */
/*
 * What there is before cuInit, and cuInit itself.
 *
 * Tests: guest/libcuda/calls/library.c, guest/libcuda/state/state.c
 */
#include "tests/cuda/check.h"

#include <signal.h>
#include <stdlib.h>

#include <string.h>
#include <sys/time.h>

static void test_init_takes_no_flags(void)
{
    RESULT(cuInit(1), CUDA_ERROR_INVALID_VALUE);
}

static void test_init_twice(void)
{
    int count = 0;

    GOOD(cuInit(0));
    GOOD(cuInit(0));
    GOOD(cuDeviceGetCount(&count));
    EXPECT(count >= 1, "%d", count);
}

static void test_version_before_init(void)
{
    int before = 0, after = 0;

    GOOD(cuDriverGetVersion(&before));
    EXPECT(before >= 12000 && before % 10 == 0, "%d", before);
    GOOD(cuInit(0));
    GOOD(cuDriverGetVersion(&after));
    EXPECT(after == before, "%d and then %d", before, after);
    RESULT(cuDriverGetVersion(NULL), CUDA_ERROR_INVALID_VALUE);
}

static void test_devices_before_init(void)
{
    CUdevice found = 0;
    CUcontext retained = NULL;
    int count = 0;

    RESULT(cuDeviceGetCount(&count), CUDA_ERROR_NOT_INITIALIZED);
    RESULT(cuDeviceGet(&found, 0), CUDA_ERROR_NOT_INITIALIZED);
    RESULT(cuDevicePrimaryCtxRetain(&retained, 0), CUDA_ERROR_NOT_INITIALIZED);
}

static void test_memory_before_init(void)
{
    CUdeviceptr address = 0;
    size_t free_bytes = 0, total = 0;
    void *memory = NULL;

    RESULT(cuMemAlloc(&address, 16), CUDA_ERROR_NOT_INITIALIZED);
    RESULT(cuMemGetInfo(&free_bytes, &total), CUDA_ERROR_NOT_INITIALIZED);
    RESULT(cuMemAllocHost(&memory, 16), CUDA_ERROR_NOT_INITIALIZED);
}

static void test_context_before_init(void)
{
    CUcontext current = NULL;
    CUstream stream = NULL;
    CUevent event = NULL;

    RESULT(cuCtxGetCurrent(&current), CUDA_ERROR_NOT_INITIALIZED);
    RESULT(cuCtxSynchronize(), CUDA_ERROR_NOT_INITIALIZED);
    RESULT(cuStreamCreate(&stream, 0), CUDA_ERROR_NOT_INITIALIZED);
    RESULT(cuEventCreate(&event, 0), CUDA_ERROR_NOT_INITIALIZED);
}

static void test_error_names_before_init(void)
{
    const char *name = NULL;

    GOOD(cuGetErrorName(CUDA_ERROR_NOT_INITIALIZED, &name));
    EXPECT(strcmp(name, "CUDA_ERROR_NOT_INITIALIZED") == 0, "%s", name);
}

static void test_proc_addresses_before_init(void)
{
    CUresult (*init)(unsigned) = NULL;
    CUresult (*count_devices)(int *) = NULL;
    int count = 0;

    GOOD(cuGetProcAddress("cuInit", (void **)&init, 2000, 0, NULL));
    GOOD(cuGetProcAddress("cuDeviceGetCount", (void **)&count_devices, 2000, 0, NULL));
    EXPECT(init && count_devices, "none");
    RESULT(count_devices(&count), CUDA_ERROR_NOT_INITIALIZED);
    GOOD(init(0));
    GOOD(count_devices(&count));
    EXPECT(count >= 1, "%d", count);
}

static void do_nothing(int number)
{
    (void)number;
}

/* As a profiler sends them. */
static void test_init_among_signals(void)
{
    const struct sigaction handler = {.sa_handler = do_nothing, .sa_flags = SA_RESTART};
    const struct itimerval each = {{0, 50}, {0, 50}};

    EXPECT(sigaction(SIGALRM, &handler, NULL) == 0, "no handler");
    EXPECT(setitimer(ITIMER_REAL, &each, NULL) == 0, "no timer");
    start();
}

static void test_loading_mode(void)
{
    CUmoduleLoadingMode mode = 0;

    GOOD(cuModuleGetLoadingMode(&mode));
    EXPECT(mode == CU_MODULE_EAGER_LOADING || mode == CU_MODULE_LAZY_LOADING, "%d", (int)mode);
}

static void test_loading_mode_that_is_set(void)
{
    CUmoduleLoadingMode mode = 0;

    EXPECT(setenv("CUDA_MODULE_LOADING", "EAGER", 1) == 0, "no environment");
    start();
    GOOD(cuModuleGetLoadingMode(&mode));
    EXPECT(mode == CU_MODULE_EAGER_LOADING, "%d", (int)mode);
}

const struct test init_tests[] = {
    {"init_takes_no_flags", test_init_takes_no_flags, true},
    {"init_twice", test_init_twice, true},
    {"version_before_init", test_version_before_init, true},
    {"devices_before_init", test_devices_before_init, true},
    {"memory_before_init", test_memory_before_init, true},
    {"context_before_init", test_context_before_init, true},
    {"error_names_before_init", test_error_names_before_init, true},
    {"proc_addresses_before_init", test_proc_addresses_before_init, true},
    {"init_among_signals", test_init_among_signals, true},
    {"loading_mode_that_is_set", test_loading_mode_that_is_set, true},
    {"loading_mode", test_loading_mode, false},
    {0},
};
