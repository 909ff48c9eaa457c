/* SPDX-License-Identifier: MIT */
/*
 * Errors: their names, and those of kernels that go wrong, which the context does not survive.
 *
 * Tests: guest/libcuda/calls/library.c, guest/libcuda/state/state.c
 */
#include "tests/cuda/check.h"

#include <string.h>

static void test_names_of_errors(void)
{
    static const struct {
        CUresult error;
        const char *name;
    } errors[] = {
        {CUDA_SUCCESS, "CUDA_SUCCESS"},
        {CUDA_ERROR_INVALID_VALUE, "CUDA_ERROR_INVALID_VALUE"},
        {CUDA_ERROR_OUT_OF_MEMORY, "CUDA_ERROR_OUT_OF_MEMORY"},
        {CUDA_ERROR_NOT_INITIALIZED, "CUDA_ERROR_NOT_INITIALIZED"},
        {CUDA_ERROR_NO_DEVICE, "CUDA_ERROR_NO_DEVICE"},
        {CUDA_ERROR_INVALID_DEVICE, "CUDA_ERROR_INVALID_DEVICE"},
        {CUDA_ERROR_INVALID_IMAGE, "CUDA_ERROR_INVALID_IMAGE"},
        {CUDA_ERROR_INVALID_CONTEXT, "CUDA_ERROR_INVALID_CONTEXT"},
        {CUDA_ERROR_INVALID_PTX, "CUDA_ERROR_INVALID_PTX"},
        {CUDA_ERROR_FILE_NOT_FOUND, "CUDA_ERROR_FILE_NOT_FOUND"},
        {CUDA_ERROR_INVALID_HANDLE, "CUDA_ERROR_INVALID_HANDLE"},
        {CUDA_ERROR_NOT_FOUND, "CUDA_ERROR_NOT_FOUND"},
        {CUDA_ERROR_NOT_READY, "CUDA_ERROR_NOT_READY"},
        {CUDA_ERROR_ILLEGAL_ADDRESS, "CUDA_ERROR_ILLEGAL_ADDRESS"},
        {CUDA_ERROR_LAUNCH_TIMEOUT, "CUDA_ERROR_LAUNCH_TIMEOUT"},
        {CUDA_ERROR_LAUNCH_FAILED, "CUDA_ERROR_LAUNCH_FAILED"},
        {CUDA_ERROR_NOT_SUPPORTED, "CUDA_ERROR_NOT_SUPPORTED"},
        {CUDA_ERROR_UNKNOWN, "CUDA_ERROR_UNKNOWN"},
    };

    for (size_t i = 0; i < sizeof(errors) / sizeof(errors[0]); i++) {
        const char *name = NULL, *text = NULL;

        GOOD(cuGetErrorName(errors[i].error, &name));
        EXPECT(strcmp(name, errors[i].name) == 0, "%s", name);
        GOOD(cuGetErrorString(errors[i].error, &text));
        EXPECT(text && text[0] != '\0', "no text of %s", name);
    }
}

static void test_texts_of_errors(void)
{
    const char *text = NULL;

    GOOD(cuGetErrorString(CUDA_SUCCESS, &text));
    EXPECT(strcmp(text, "no error") == 0, "%s", text);
    GOOD(cuGetErrorString(CUDA_ERROR_INVALID_VALUE, &text));
    EXPECT(strcmp(text, "invalid argument") == 0, "%s", text);
    GOOD(cuGetErrorString(CUDA_ERROR_OUT_OF_MEMORY, &text));
    EXPECT(strcmp(text, "out of memory") == 0, "%s", text);
}

static void test_unknown_error(void)
{
    const char *text = "something";

    RESULT(cuGetErrorName((CUresult)12345, &text), CUDA_ERROR_INVALID_VALUE);
    EXPECT(text == NULL, "%s", text);
    text = "something";
    RESULT(cuGetErrorString((CUresult)12345, &text), CUDA_ERROR_INVALID_VALUE);
    EXPECT(text == NULL, "%s", text);
}

/* The context has ended: every call says so, and the device is still there. */
static void expect_sticky(CUresult error)
{
    CUdeviceptr address = 0;
    CUstream stream = NULL;
    int count = 0;

    RESULT(cuCtxSynchronize(), error);
    RESULT(cuStreamSynchronize(NULL), error);
    RESULT(cuMemAlloc(&address, 16), error);
    RESULT(cuStreamCreate(&stream, 0), error);
    GOOD(cuDeviceGetCount(&count));
}

static void store(CUdeviceptr to)
{
    CUfunction function = NULL;
    uint32_t value = 1;
    void *arguments[] = {&to, &value};

    GOOD(cuModuleGetFunction(&function, load_own_module(), "store"));
    GOOD(cuLaunchKernel(function, 1, 1, 1, 1, 1, 1, 0, NULL, arguments, NULL));
}

static void test_illegal_address(void)
{
    store(0x10);
    RESULT(cuCtxSynchronize(), CUDA_ERROR_ILLEGAL_ADDRESS);
    expect_sticky(CUDA_ERROR_ILLEGAL_ADDRESS);
}

static void test_illegal_address_seen_by_a_copy(void)
{
    const CUdeviceptr word = device_alloc(4);
    uint32_t value = 0;

    store(0x10);
    RESULT(cuMemcpyDtoH(&value, word, 4), CUDA_ERROR_ILLEGAL_ADDRESS);
    expect_sticky(CUDA_ERROR_ILLEGAL_ADDRESS);
}

/* A kernel of faults.ptx; all have one parameter, and a value other than 0 provokes the fault. */
static void provoke(const char *name)
{
    CUdeviceptr memory = device_alloc(4096);
    CUfunction function = NULL;
    void *arguments[] = {&memory};

    GOOD(cuModuleGetFunction(&function, load_module(faults_ptx), name));
    GOOD(cuLaunchKernel(function, 1, 1, 1, 1, 1, 1, 0, NULL, arguments, NULL));
}

static void test_misaligned_address(void)
{
    provoke("misaligned");
    RESULT(cuCtxSynchronize(), CUDA_ERROR_MISALIGNED_ADDRESS);
    expect_sticky(CUDA_ERROR_MISALIGNED_ADDRESS);
}

static void test_failed_assert(void)
{
    provoke("failed_assert");
    RESULT(cuCtxSynchronize(), CUDA_ERROR_ASSERT);
    expect_sticky(CUDA_ERROR_ASSERT);
}

static void test_trap(void)
{
    CUresult error;

    provoke("trap");
    error = cuCtxSynchronize();
    ONE_OF(error, CUDA_ERROR_LAUNCH_FAILED, CUDA_ERROR_ILLEGAL_INSTRUCTION, CUDA_ERROR_INVALID_PC);
    expect_sticky(error);
}

const struct test errors_tests[] = {
    {"names_of_errors", test_names_of_errors, true},
    {"texts_of_errors", test_texts_of_errors, true},
    {"unknown_error", test_unknown_error, true},
    {"illegal_address", test_illegal_address, false},
    {"illegal_address_seen_by_a_copy", test_illegal_address_seen_by_a_copy, false},
    {"misaligned_address", test_misaligned_address, false},
    {"failed_assert", test_failed_assert, false},
    {"trap", test_trap, false},
    {0},
};
