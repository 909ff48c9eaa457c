/* SPDX-License-Identifier: MIT */
/*
 * Libraries and their kernels, which need no context, and what functions say of themselves.
 *
 * Tests: guest/libcuda/calls/module.c
 */
#include "tests/cuda/check.h"

#include <string.h>

static CUlibrary load(const char *ptx)
{
    CUlibrary library = NULL;
    const CUresult result = cuLibraryLoadData(&library, ptx, NULL, NULL, 0, NULL, NULL, 0);

    if (result == CUDA_ERROR_NOT_SUPPORTED && on_cpu() && ptx != kernels_ptx) {
        skip("no compiler for PTX here");
    }
    check_result("cuLibraryLoadData(&library, ptx, ...)", result, CUDA_SUCCESS);
    return library;
}

static CUkernel kernel_of(CUlibrary library, const char *name)
{
    CUkernel found = NULL;

    GOOD(cuLibraryGetKernel(&found, library, name));
    EXPECT(found, "none");
    return found;
}

/* Fills 100 words with `value` by that function. */
static void fills(CUfunction function, uint32_t value)
{
    CUdeviceptr words = device_alloc(400);
    uint64_t count = 100;
    void *arguments[] = {&words, &count, &value};

    GOOD(cuLaunchKernel(function, 2, 1, 1, 32, 1, 1, 0, NULL, arguments, NULL));
    expect_words(words, count, value);
    GOOD(cuMemFree(words));
}

static void test_library_without_a_context(void)
{
    CUkernel found;

    start_driver();
    found = kernel_of(load(kernels_ptx), "fill");
    start();
    fills((CUfunction)found, 4);
}

static void test_function_of_a_kernel(void)
{
    const CUlibrary library = load(kernels_ptx);
    CUfunction function = NULL;

    GOOD(cuKernelGetFunction(&function, kernel_of(library, "fill")));
    fills(function, 5);
    fills((CUfunction)kernel_of(library, "fill"), 6);
    GOOD(cuLibraryUnload(library));
}

static void test_module_of_a_library(void)
{
    CUmodule module = NULL;
    CUfunction function = NULL;

    GOOD(cuLibraryGetModule(&module, load(kernels_ptx)));
    GOOD(cuModuleGetFunction(&function, module, "fill"));
    fills(function, 7);
}

static void test_no_such_kernel(void)
{
    const CUlibrary library = load(kernels_ptx);
    CUkernel found = NULL;

    RESULT(cuLibraryGetKernel(&found, library, "nothing"), CUDA_ERROR_NOT_FOUND);
    GOOD(cuLibraryUnload(library));
}

static void test_variable_of_a_library(void)
{
    const CUlibrary library = load(own_ptx);
    CUdeviceptr counter = 0;
    size_t bytes = 0;

    GOOD(cuLibraryGetGlobal(&counter, &bytes, library, "counter"));
    EXPECT(bytes == 4, "%zu bytes", bytes);
    expect_words(counter, 1, 5);
    RESULT(cuLibraryGetGlobal(&counter, &bytes, library, "nothing"), CUDA_ERROR_NOT_FOUND);
}

static void test_kernel_attributes(void)
{
    const CUkernel found = kernel_of(load(kernels_ptx), "vadd");
    int value = 0;

    GOOD(cuKernelGetAttribute(&value, CU_FUNC_ATTRIBUTE_MAX_THREADS_PER_BLOCK, found, device));
    RESULT(cuKernelGetAttribute(NULL, CU_FUNC_ATTRIBUTE_MAX_THREADS_PER_BLOCK, found, device),
           CUDA_ERROR_INVALID_VALUE);
    EXPECT(value >= 32 && value <= attribute(CU_DEVICE_ATTRIBUTE_MAX_THREADS_PER_BLOCK), "%d",
           value);
}

static int of(CUfunction function, CUfunction_attribute which)
{
    int value = -1;

    GOOD(cuFuncGetAttribute(&value, which, function));
    return value;
}

static void test_function_attributes(void)
{
    const CUfunction vadd = kernel("vadd");
    const int threads = of(vadd, CU_FUNC_ATTRIBUTE_MAX_THREADS_PER_BLOCK);
    int value = 0;

    EXPECT(threads >= 32 && threads <= attribute(CU_DEVICE_ATTRIBUTE_MAX_THREADS_PER_BLOCK), "%d",
           threads);
    EXPECT(of(vadd, CU_FUNC_ATTRIBUTE_SHARED_SIZE_BYTES) == 0, "some");
    EXPECT(of(vadd, CU_FUNC_ATTRIBUTE_LOCAL_SIZE_BYTES) >= 0, "less");
    EXPECT(of(vadd, CU_FUNC_ATTRIBUTE_NUM_REGS) >= 0, "less");
    EXPECT(of(vadd, CU_FUNC_ATTRIBUTE_PTX_VERSION) >= 0, "less");
    EXPECT(of(vadd, CU_FUNC_ATTRIBUTE_BINARY_VERSION) >= 0, "less");
    RESULT(cuFuncGetAttribute(&value, (CUfunction_attribute)10000, vadd), CUDA_ERROR_INVALID_VALUE);
}

static void test_most_dynamic_shared_memory(void)
{
    const int most = attribute(CU_DEVICE_ATTRIBUTE_MAX_SHARED_MEMORY_PER_BLOCK_OPTIN);
    const CUfunction_attribute which = CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES;
    const CUfunction vadd = kernel("vadd");

    SUPPORTED(cuFuncSetAttribute(vadd, which, most));
    EXPECT(of(vadd, which) == most, "another one");
    RESULT(cuFuncSetAttribute(vadd, which, most + 1), CUDA_ERROR_INVALID_VALUE);
}

static void test_function_cache_config(void)
{
    GOOD(cuFuncSetCacheConfig(kernel("vadd"), CU_FUNC_CACHE_PREFER_L1));
}

static void test_parameters_of_a_function(void)
{
    static const size_t sizes[] = {8, 8, 4};
    const CUfunction function = kernel("fill");
    size_t offset = 0, size = 0;

    for (size_t i = 0; i < 3; i++) {
        GOOD(cuFuncGetParamInfo(function, i, &offset, &size));
        EXPECT(offset == 8 * i && size == sizes[i], "%zu bytes at %zu", size, offset);
    }
    RESULT(cuFuncGetParamInfo(function, 3, &offset, &size), CUDA_ERROR_INVALID_VALUE);
}

static void test_parameter_that_is_a_struct(void)
{
    const CUmodule module = load_own_module();
    CUfunction function = NULL;
    size_t offset = 0, size = 0;

    GOOD(cuModuleGetFunction(&function, module, "sum_members"));
    GOOD(cuFuncGetParamInfo(function, 0, &offset, &size));
    EXPECT(offset == 0 && size == 24, "%zu bytes at %zu", size, offset);
    GOOD(cuFuncGetParamInfo(function, 1, &offset, NULL));
    EXPECT(offset == 24, "%zu", offset);
}

static void test_names_of_functions(void)
{
    const char *name = NULL;

    GOOD(cuFuncGetName(&name, kernel("reduce_sum")));
    EXPECT(strcmp(name, "reduce_sum") == 0, "%s", name);
    GOOD(cuKernelGetName(&name, kernel_of(load(kernels_ptx), "spin")));
    EXPECT(strcmp(name, "spin") == 0, "%s", name);
}

static void test_module_of_a_function(void)
{
    CUmodule module = NULL, found = NULL;
    CUfunction function = NULL;

    GOOD(cuModuleLoadData(&module, kernels_ptx));
    GOOD(cuModuleGetFunction(&function, module, "fill"));
    GOOD(cuFuncGetModule(&found, function));
    EXPECT(found == module, "another one");
}

static void test_names_of_nothing(void)
{
    const char *name;

    RESULT(cuFuncGetName(&name, NULL), CUDA_ERROR_INVALID_VALUE);
    RESULT(cuKernelGetName(&name, NULL), CUDA_ERROR_INVALID_VALUE);
}

const struct test library_tests[] = {
    {"names_of_nothing", test_names_of_nothing, false},
    {"library_without_a_context", test_library_without_a_context, true},
    {"function_of_a_kernel", test_function_of_a_kernel, false},
    {"module_of_a_library", test_module_of_a_library, false},
    {"no_such_kernel", test_no_such_kernel, false},
    {"variable_of_a_library", test_variable_of_a_library, false},
    {"kernel_attributes", test_kernel_attributes, false},
    {"function_attributes", test_function_attributes, false},
    {"most_dynamic_shared_memory", test_most_dynamic_shared_memory, false},
    {"function_cache_config", test_function_cache_config, false},
    {"parameters_of_a_function", test_parameters_of_a_function, false},
    {"parameter_that_is_a_struct", test_parameter_that_is_a_struct, false},
    {"names_of_functions", test_names_of_functions, false},
    {"module_of_a_function", test_module_of_a_function, false},
    {0},
};
