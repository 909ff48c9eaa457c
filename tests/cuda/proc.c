/* SPDX-License-Identifier: MIT */
/*
 * Entry points by name: cuGetProcAddress, as the CUDA runtime finds them, and dlsym.
 *
 * Tests: guest/libcuda/exports/proc.c
 */
#include "tests/cuda/check.h"

#include <dlfcn.h>

static void test_known_name(void)
{
    CUdriverProcAddressQueryResult status = CU_GET_PROC_ADDRESS_SYMBOL_NOT_FOUND;
    CUresult (*get_count)(int *) = NULL;
    int count = 0, same = 0;

    GOOD(cuGetProcAddress("cuDeviceGetCount", (void **)&get_count, 12000, 0, &status));
    EXPECT(get_count && status == CU_GET_PROC_ADDRESS_SUCCESS, "status %d", (int)status);
    GOOD(get_count(&count));
    GOOD(cuDeviceGetCount(&same));
    EXPECT(count == same, "%d instead of %d", count, same);
}

/* The name without "_v2" gives the second form from version 3.2 on. */
static void test_versioned_name(void)
{
    CUresult (*alloc)(CUdeviceptr *, size_t) = NULL, (*free_)(CUdeviceptr) = NULL;
    CUdeviceptr words = 0;

    GOOD(cuGetProcAddress("cuMemAlloc", (void **)&alloc, 3020, 0, NULL));
    GOOD(cuGetProcAddress("cuMemFree", (void **)&free_, 3020, 0, NULL));
    EXPECT(alloc && free_, "none");
    GOOD(alloc(&words, 4096));
    GOOD(cuMemsetD32(words, 7, 1024));
    expect_words(words, 1024, 7);
    GOOD(free_(words));
}

static void test_itself(void)
{
    CUresult (*itself)(const char *, void **, int, cuuint64_t,
                       CUdriverProcAddressQueryResult *) = NULL;
    void *init = NULL;

    GOOD(cuGetProcAddress("cuGetProcAddress", (void **)&itself, 12000, 0, NULL));
    EXPECT(itself, "none");
    GOOD(itself("cuInit", &init, 12000, 0, NULL));
    EXPECT(init, "none");
}

static void test_unknown_name(void)
{
    CUdriverProcAddressQueryResult status = CU_GET_PROC_ADDRESS_SUCCESS;
    void *found = &status;

    ONE_OF(cuGetProcAddress("cuNoSuchFunction", &found, 12000, 0, &status), CUDA_ERROR_NOT_FOUND,
           CUDA_SUCCESS);
    EXPECT(status == CU_GET_PROC_ADDRESS_SYMBOL_NOT_FOUND, "%d", (int)status);
    EXPECT(found == NULL, "%p", found);
}

static void test_name_of_a_later_version(void)
{
    CUdriverProcAddressQueryResult status = CU_GET_PROC_ADDRESS_SUCCESS;
    void *found = &status;

    ONE_OF(cuGetProcAddress("cuLibraryLoadData", &found, 11000, 0, &status), CUDA_ERROR_NOT_FOUND,
           CUDA_SUCCESS);
    EXPECT(status == CU_GET_PROC_ADDRESS_VERSION_NOT_SUFFICIENT, "%d", (int)status);
    EXPECT(found == NULL, "%p", found);
}

static void test_names_of_symbols(void)
{
    static const char *const names[] = {
        "cuInit",
        "cuGetProcAddress",
        "cuGetProcAddress_v2",
        "cuCtxCreate_v2",
        "cuCtxDestroy_v2",
        "cuMemAlloc_v2",
        "cuMemFree_v2",
        "cuMemcpyHtoD_v2",
        "cuMemcpyHtoD_v2_ptds",
        "cuMemcpyDtoHAsync_v2",
        "cuMemcpyDtoHAsync_v2_ptsz",
        "cuMemcpy_ptds",
        "cuMemcpyAsync_ptsz",
        "cuMemsetD8_v2_ptds",
        "cuMemsetD32Async_ptsz",
        "cuStreamDestroy_v2",
        "cuStreamSynchronize_ptsz",
        "cuStreamQuery_ptsz",
        "cuStreamWaitEvent_ptsz",
        "cuEventRecord_ptsz",
        "cuEventDestroy_v2",
        "cuLaunchKernel_ptsz",
        "cuLaunchKernelEx_ptsz",
        "cuLaunchHostFunc_ptsz",
        "cuLaunchCooperativeKernel_ptsz",
        "cuDevicePrimaryCtxRelease_v2",
        "cuDeviceTotalMem_v2",
        "cuModuleGetGlobal_v2",
    };

    for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++) {
        EXPECT(dlsym(RTLD_DEFAULT, names[i]), "no %s", names[i]);
    }
}

static void test_symbol_by_name(void)
{
    CUresult (*launch_host)(CUstream, CUhostFn, void *) = NULL;
    CUresult (*get_version)(int *) = NULL;
    int version = 0, same = 0;

    *(void **)&get_version = dlsym(RTLD_DEFAULT, "cuDriverGetVersion");
    *(void **)&launch_host = dlsym(RTLD_DEFAULT, "cuLaunchHostFunc_ptsz");
    EXPECT(get_version && launch_host, "none");
    GOOD(get_version(&version));
    GOOD(cuDriverGetVersion(&same));
    EXPECT(version == same, "%d instead of %d", version, same);
}

const struct test proc_tests[] = {
    {"known_name", test_known_name, false},
    {"versioned_name", test_versioned_name, false},
    {"itself", test_itself, false},
    {"unknown_name", test_unknown_name, false},
    {"name_of_a_later_version", test_name_of_a_later_version, false},
    {"names_of_symbols", test_names_of_symbols, false},
    {"symbol_by_name", test_symbol_by_name, false},
    {0},
};
