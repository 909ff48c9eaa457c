/* SPDX-License-Identifier: MIT */
/*
 * Contexts: the primary one, what a context says of itself, and calls without one.
 *
 * Tests: guest/libcuda/calls/context.c, guest/libcuda/model/context.c
 */
#include "tests/cuda/check.h"

static unsigned active(void)
{
    unsigned flags = 0;
    int is = -1;

    GOOD(cuDevicePrimaryCtxGetState(device, &flags, &is));
    EXPECT(is == 0 || is == 1, "%d", is);
    return (unsigned)is;
}

static void test_primary_context_comes_and_goes(void)
{
    CUcontext one = NULL, current = NULL;

    start_driver();
    EXPECT(!active(), "active");
    GOOD(cuDevicePrimaryCtxRetain(&one, device));
    EXPECT(active(), "not active");
    GOOD(cuCtxGetCurrent(&current));
    EXPECT(current == NULL, "retaining made it current");
    GOOD(cuDevicePrimaryCtxRelease(device));
    EXPECT(!active(), "still active");
    RESULT(cuDevicePrimaryCtxRelease(device), CUDA_ERROR_INVALID_CONTEXT);
}

static void test_primary_context_is_one(void)
{
    CUcontext one = NULL, other = NULL;

    start_driver();
    GOOD(cuDevicePrimaryCtxRetain(&one, device));
    GOOD(cuDevicePrimaryCtxRetain(&other, device));
    EXPECT(one && one == other, "two");
    GOOD(cuDevicePrimaryCtxRelease(device));
    EXPECT(active(), "gone with the first release");
    GOOD(cuDevicePrimaryCtxRelease(device));
    EXPECT(!active(), "still there");
}

static void test_primary_context_again(void)
{
    start_driver();
    for (uint32_t i = 1; i <= 3; i++) {
        CUmodule module = NULL;
        CUdeviceptr words;

        GOOD(cuDevicePrimaryCtxRetain(&context, device));
        GOOD(cuCtxSetCurrent(context));
        GOOD(cuModuleLoadData(&module, kernels_ptx));
        words = device_alloc(64);
        GOOD(cuMemsetD32(words, i, 16));
        expect_words(words, 16, i);
        GOOD(cuCtxSetCurrent(NULL));
        GOOD(cuDevicePrimaryCtxRelease(device));
    }
}

static void test_primary_context_flags(void)
{
    unsigned flags = 0;
    int is = 0;

    start_driver();
    RESULT(cuDevicePrimaryCtxSetFlags(device, 0x10000), CUDA_ERROR_INVALID_VALUE);
    GOOD(cuDevicePrimaryCtxSetFlags(device, CU_CTX_SCHED_BLOCKING_SYNC));
    GOOD(cuDevicePrimaryCtxGetState(device, &flags, &is));
    EXPECT((flags & CU_CTX_SCHED_MASK) == CU_CTX_SCHED_BLOCKING_SYNC, "%#x", flags);
    start();
    GOOD(cuCtxGetFlags(&flags));
    EXPECT((flags & CU_CTX_SCHED_MASK) == CU_CTX_SCHED_BLOCKING_SYNC, "%#x", flags);
}

static void test_no_current_context(void)
{
    CUdeviceptr address = 0;
    CUstream stream = NULL;
    CUevent event = NULL;
    CUmodule module = NULL;
    CUdevice found = 0;

    GOOD(cuCtxSetCurrent(NULL));
    RESULT(cuMemAlloc(&address, 16), CUDA_ERROR_INVALID_CONTEXT);
    RESULT(cuCtxSynchronize(), CUDA_ERROR_INVALID_CONTEXT);
    RESULT(cuCtxGetDevice(&found), CUDA_ERROR_INVALID_CONTEXT);
    RESULT(cuStreamCreate(&stream, 0), CUDA_ERROR_INVALID_CONTEXT);
    RESULT(cuEventCreate(&event, 0), CUDA_ERROR_INVALID_CONTEXT);
    RESULT(cuModuleLoadData(&module, kernels_ptx), CUDA_ERROR_INVALID_CONTEXT);
}

static void test_memory_without_a_context(void)
{
    size_t free_bytes = 0, total = 0;
    uint32_t word = 0;
    const CUdeviceptr address = device_alloc(16);

    GOOD(cuCtxSetCurrent(NULL));
    RESULT(cuMemGetInfo(&free_bytes, &total), CUDA_ERROR_INVALID_CONTEXT);
    RESULT(cuMemcpyHtoD(address, &word, sizeof(word)), CUDA_ERROR_INVALID_CONTEXT);
}

static void test_device_of_context(void)
{
    CUdevice found = -1;
    CUcontext current = NULL;

    GOOD(cuCtxGetDevice(&found));
    EXPECT(found == device, "%d", found);
    GOOD(cuCtxGetCurrent(&current));
    EXPECT(current == context, "another one");
}

static void test_api_version(void)
{
    unsigned version = 0;

    GOOD(cuCtxGetApiVersion(context, &version));
    EXPECT(version >= 3010, "%u", version);
}

static void test_context_id(void)
{
    unsigned long long id = 0, again = 0;

    GOOD(cuCtxGetId(context, &id));
    GOOD(cuCtxGetId(NULL, &again));
    EXPECT(id == again, "%llu and %llu", id, again);
}

static void test_limits(void)
{
    static const struct {
        CUlimit which;
        size_t value;
    } limits[] = {{CU_LIMIT_STACK_SIZE, 4096},
                  {CU_LIMIT_PRINTF_FIFO_SIZE, 2u << 20},
                  {CU_LIMIT_MALLOC_HEAP_SIZE, 16u << 20}};

    for (size_t i = 0; i < sizeof(limits) / sizeof(limits[0]); i++) {
        size_t value = 0;

        GOOD(cuCtxGetLimit(&value, limits[i].which));
        EXPECT(value > 0, "limit %d is zero", (int)limits[i].which);
        GOOD(cuCtxSetLimit(limits[i].which, limits[i].value));
        GOOD(cuCtxGetLimit(&value, limits[i].which));
        EXPECT(value >= limits[i].value, "%zu for limit %d", value, (int)limits[i].which);
    }
}

static void test_no_such_limit(void)
{
    size_t value = 0;

    ONE_OF(cuCtxGetLimit(&value, (CUlimit)0x7f), CUDA_ERROR_UNSUPPORTED_LIMIT,
           CUDA_ERROR_INVALID_VALUE);
    ONE_OF(cuCtxSetLimit(CU_LIMIT_DEV_RUNTIME_PENDING_LAUNCH_COUNT, 4096), CUDA_SUCCESS,
           CUDA_ERROR_UNSUPPORTED_LIMIT);
    ONE_OF(cuCtxSetLimit((CUlimit)0x7f, 1), CUDA_ERROR_UNSUPPORTED_LIMIT, CUDA_ERROR_INVALID_VALUE);
}

/* Where the sizes of cache and shared memory are fixed, nothing is preferred. */
static void test_cache_config(void)
{
    CUfunc_cache preferred = CU_FUNC_CACHE_PREFER_EQUAL;

    GOOD(cuCtxSetCacheConfig(CU_FUNC_CACHE_PREFER_L1));
    GOOD(cuCtxGetCacheConfig(&preferred));
    EXPECT(preferred == CU_FUNC_CACHE_PREFER_L1 || preferred == CU_FUNC_CACHE_PREFER_NONE, "%d",
           (int)preferred);
}

static void test_synchronize_waits(void)
{
    const CUstream one = stream_create(CU_STREAM_NON_BLOCKING), other = stream_create(0);
    double begun;

    spin(1, one);
    GOOD(cuCtxSynchronize());
    begun = now_ms();
    spin(300, one);
    spin(200, other);
    GOOD(cuCtxSynchronize());
    EXPECT(now_ms() - begun >= 290, "%g ms", now_ms() - begun);
    GOOD(cuStreamQuery(one));
    GOOD(cuStreamQuery(other));
}

const struct test context_tests[] = {
    {"primary_context_comes_and_goes", test_primary_context_comes_and_goes, true},
    {"primary_context_is_one", test_primary_context_is_one, true},
    {"primary_context_again", test_primary_context_again, true},
    {"primary_context_flags", test_primary_context_flags, true},
    {"no_current_context", test_no_current_context, false},
    {"memory_without_a_context", test_memory_without_a_context, false},
    {"device_of_context", test_device_of_context, false},
    {"api_version", test_api_version, false},
    {"context_id", test_context_id, false},
    {"limits", test_limits, false},
    {"no_such_limit", test_no_such_limit, false},
    {"cache_config", test_cache_config, false},
    {"synchronize_waits", test_synchronize_waits, false},
    {0},
};
