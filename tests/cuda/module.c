/* SPDX-License-Identifier: MIT */
/*
 * Modules: loading them, what is wrong with some, and the functions and variables in them.
 *
 * Tests: guest/libcuda/calls/module.c, guest/libcuda/model/module.c, guest/libcuda/model/image.c,
 * guest/libcuda/wire/upload.c
 */
#include "tests/cuda/check.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static void test_load_and_unload(void)
{
    CUmodule module = NULL;
    CUfunction function = NULL;

    for (int i = 0; i < 3; i++) {
        GOOD(cuModuleLoadData(&module, kernels_ptx));
        GOOD(cuModuleGetFunction(&function, module, "vadd"));
        EXPECT(function, "none");
        GOOD(cuModuleUnload(module));
    }
}

static void test_no_such_function(void)
{
    CUmodule module = NULL;
    CUfunction function = NULL;

    GOOD(cuModuleLoadData(&module, kernels_ptx));
    RESULT(cuModuleGetFunction(&function, module, "nothing"), CUDA_ERROR_NOT_FOUND);
    RESULT(cuModuleGetFunction(&function, module, NULL), CUDA_ERROR_INVALID_VALUE);
}

static void test_same_module_twice(void)
{
    CUmodule one = NULL, other = NULL;
    CUfunction function = NULL;
    const CUdeviceptr words = device_alloc(64);
    uint64_t count = 16;
    uint32_t value = 3;
    void *arguments[] = {(void *)&words, &count, &value};

    GOOD(cuModuleLoadData(&one, kernels_ptx));
    GOOD(cuModuleLoadData(&other, kernels_ptx));
    EXPECT(one != other, "the same one");
    GOOD(cuModuleGetFunction(&function, other, "fill"));
    GOOD(cuModuleUnload(one));
    GOOD(cuLaunchKernel(function, 1, 1, 1, 16, 1, 1, 0, NULL, arguments, NULL));
    expect_words(words, count, value);
}

static void test_garbage_is_no_module(void)
{
    CUmodule module = NULL;
    const CUresult result = cuModuleLoadData(&module, "this is no module of any kind\n");

    if (result != CUDA_ERROR_NOT_SUPPORTED || !on_cpu()) {
        ONE_OF(result, CUDA_ERROR_INVALID_IMAGE, CUDA_ERROR_INVALID_PTX,
               CUDA_ERROR_NO_BINARY_FOR_GPU, CUDA_ERROR_INVALID_SOURCE,
               CUDA_ERROR_UNSUPPORTED_PTX_VERSION);
    }
    fill(device_alloc(64), 16, 1, NULL);
    GOOD(cuCtxSynchronize());
}

static const char broken_ptx[] = ".version 6.0\n.target sm_50\n.address_size 64\n"
                                 ".visible .entry broken()\n{\n\tno_such_instruction;\n}\n";

static void test_broken_ptx(void)
{
    char errors[4096] = "", infos[4096] = "";
    CUjit_option options[] = {CU_JIT_INFO_LOG_BUFFER, CU_JIT_INFO_LOG_BUFFER_SIZE_BYTES,
                              CU_JIT_ERROR_LOG_BUFFER, CU_JIT_ERROR_LOG_BUFFER_SIZE_BYTES};
    void *values[] = {infos, (void *)sizeof(infos), errors, (void *)sizeof(errors)};
    CUmodule module = NULL;

    load_own_module();
    RESULT(cuModuleLoadDataEx(&module, broken_ptx, 4, options, values), CUDA_ERROR_INVALID_PTX);
    EXPECT(memchr(errors, '\0', sizeof(errors)), "no end of the log");
    EXPECT(strstr(errors, "no_such_instruction"), "%s", errors);
}

static void test_load_with_options(void)
{
    char errors[4096] = "", infos[4096] = "";
    CUjit_option options[] = {CU_JIT_INFO_LOG_BUFFER,  CU_JIT_INFO_LOG_BUFFER_SIZE_BYTES,
                              CU_JIT_ERROR_LOG_BUFFER, CU_JIT_ERROR_LOG_BUFFER_SIZE_BYTES,
                              CU_JIT_LOG_VERBOSE,      CU_JIT_OPTIMIZATION_LEVEL};
    void *values[] = {infos,    (void *)sizeof(infos), errors, (void *)sizeof(errors), (void *)1,
                      (void *)2};
    CUmodule module = NULL;
    CUfunction function = NULL;

    GOOD(cuModuleLoadDataEx(&module, kernels_ptx, 6, options, values));
    GOOD(cuModuleGetFunction(&function, module, "fill"));
    EXPECT(memchr(infos, '\0', sizeof(infos)), "no end of the log of infos");
    EXPECT(memchr(errors, '\0', sizeof(errors)), "no end of the log of errors");
    GOOD(cuModuleLoadDataEx(&module, kernels_ptx, 0, NULL, NULL));
}

static void test_load_from_a_file(void)
{
    char path[] = P_tmpdir "/cuda-check-XXXXXX";
    const size_t length = strlen(kernels_ptx);
    const int fd = mkstemp(path);
    CUmodule module = NULL;
    CUfunction function = NULL;
    CUresult result;

    EXPECT(fd >= 0 && write(fd, kernels_ptx, length) == (ssize_t)length, "no file %s", path);
    close(fd);
    result = cuModuleLoad(&module, path);
    unlink(path);
    GOOD(result);
    GOOD(cuModuleGetFunction(&function, module, "reduce_sum"));
    GOOD(cuModuleUnload(module));
}

static void test_no_such_file(void)
{
    CUmodule module = NULL;

    RESULT(cuModuleLoad(&module, "/nonexistent/kernels.ptx"), CUDA_ERROR_FILE_NOT_FOUND);
}

static void test_variable_of_a_module(void)
{
    const CUmodule module = load_own_module();
    CUfunction count = NULL;
    CUdeviceptr counter = 0;
    size_t bytes = 0;
    uint32_t n = 1, value = 0;
    void *arguments[] = {&n};

    GOOD(cuModuleGetGlobal(&counter, &bytes, module, "counter"));
    EXPECT(counter && bytes == 4, "%zu bytes at %#llx", bytes, counter);
    GOOD(cuMemcpyDtoH(&value, counter, 4));
    EXPECT(value == 5, "%u at first", value);
    value = 100;
    GOOD(cuMemcpyHtoD(counter, &value, 4));
    GOOD(cuModuleGetFunction(&count, module, "count"));
    GOOD(cuLaunchKernel(count, 3, 1, 1, 32, 1, 1, 0, NULL, arguments, NULL));
    GOOD(cuMemcpyDtoH(&value, counter, 4));
    EXPECT(value == 196, "%u", value);
    RESULT(cuModuleGetGlobal(&counter, &bytes, module, "nothing"), CUDA_ERROR_NOT_FOUND);
}

static void test_constants_of_a_module(void)
{
    const CUmodule module = load_own_module();
    CUdeviceptr table = 0, to = device_alloc(16);
    uint32_t values[4] = {0};
    const uint32_t other[2] = {77, 88};
    CUfunction read_table = NULL;
    void *arguments[] = {&to};
    size_t bytes = 0;

    GOOD(cuModuleGetGlobal(&table, &bytes, module, "table"));
    EXPECT(bytes == 16, "%zu bytes", bytes);
    GOOD(cuMemcpyHtoD(table + 4, other, sizeof(other)));
    GOOD(cuModuleGetFunction(&read_table, module, "read_table"));
    GOOD(cuLaunchKernel(read_table, 1, 1, 1, 4, 1, 1, 0, NULL, arguments, NULL));
    GOOD(cuMemcpyDtoH(values, to, sizeof(values)));
    EXPECT(values[0] == 11 && values[1] == 77 && values[2] == 88 && values[3] == 44, "%u %u %u %u",
           values[0], values[1], values[2], values[3]);
}

/* Two modules of one image have variables of their own. */
static void test_variables_are_not_shared(void)
{
    const CUmodule one = load_own_module(), other = load_own_module();
    CUdeviceptr counter = 0, other_counter = 0;

    GOOD(cuModuleGetGlobal(&counter, NULL, one, "counter"));
    GOOD(cuModuleGetGlobal(&other_counter, NULL, other, "counter"));
    EXPECT(counter != other_counter, "one address");
    GOOD(cuMemsetD32(counter, 9, 1));
    expect_words(other_counter, 1, 5);
}

const struct test module_tests[] = {
    {"load_and_unload", test_load_and_unload, false},
    {"no_such_function", test_no_such_function, false},
    {"same_module_twice", test_same_module_twice, false},
    {"garbage_is_no_module", test_garbage_is_no_module, false},
    {"broken_ptx", test_broken_ptx, false},
    {"load_with_options", test_load_with_options, false},
    {"load_from_a_file", test_load_from_a_file, false},
    {"no_such_file", test_no_such_file, false},
    {"variable_of_a_module", test_variable_of_a_module, false},
    {"constants_of_a_module", test_constants_of_a_module, false},
    {"variables_are_not_shared", test_variables_are_not_shared, false},
    {0},
};
