/* SPDX-License-Identifier: MIT */
/*
 * Launches: what the kernel gets, and launches that cannot be.
 *
 * Tests: guest/libcuda/calls/launch.c, guest/libcuda/model/kernel.c
 */
#include "tests/cuda/check.h"

#include <stdlib.h>

static void test_vadd(void)
{
    static const unsigned grids[][2] = {{1, 1}, {7, 33}, {64, 256}, {1000, 128}};
    uint64_t count = 100001;
    const CUdeviceptr a = device_alloc(4 * count), b = device_alloc(4 * count);
    const CUdeviceptr sum = device_alloc(4 * count);
    float *x = malloc(4 * count), *y = malloc(4 * count), *z = malloc(4 * count);
    void *arguments[] = {(void *)&a, (void *)&b, (void *)&sum, &count};

    for (uint64_t i = 0; i < count; i++) {
        x[i] = (float)i * 0.25f;
        y[i] = (float)(count - i) * 3.0f;
    }
    GOOD(cuMemcpyHtoD(a, x, 4 * count));
    GOOD(cuMemcpyHtoD(b, y, 4 * count));
    for (size_t g = 0; g < sizeof(grids) / sizeof(grids[0]); g++) {
        GOOD(cuMemsetD32(sum, 0, count));
        GOOD(cuLaunchKernel(kernel("vadd"), grids[g][0], 1, 1, grids[g][1], 1, 1, 0, NULL,
                            arguments, NULL));
        GOOD(cuMemcpyDtoH(z, sum, 4 * count));
        for (uint64_t i = 0; i < count; i++) {
            EXPECT(z[i] == x[i] + y[i], "%g + %g = %g", (double)x[i], (double)y[i], (double)z[i]);
        }
    }
    free(x);
    free(y);
    free(z);
}

static void test_reduce_sum(void)
{
    const CUdeviceptr words = device_alloc(WORD * 100000), sum = device_alloc(8);

    fill(words, 100000, 7, NULL);
    GOOD(cuMemsetD32(sum, 0, 2));
    reduce(words, 100000, sum, NULL);
    reduce(words, 100, sum, NULL);
    expect_words(sum, 1, 700700);
}

/* The parameters of fill, as they lie in memory. */
struct fill_parameters {
    uint64_t to, count;
    uint32_t value;
};

static void test_parameters_in_a_buffer(void)
{
    const CUdeviceptr words = device_alloc(400);
    struct fill_parameters parameters = {words, 100, 17};
    size_t size = 20;
    void *extra[] = {CU_LAUNCH_PARAM_BUFFER_POINTER, &parameters, CU_LAUNCH_PARAM_BUFFER_SIZE,
                     &size, CU_LAUNCH_PARAM_END};

    GOOD(cuLaunchKernel(kernel("fill"), 2, 1, 1, 32, 1, 1, 0, NULL, NULL, extra));
    expect_words(words, 100, 17);
}

static void test_parameters_given_twice(void)
{
    uint64_t ns = 1;
    size_t size = 8;
    void *arguments[] = {&ns};
    void *extra[] = {CU_LAUNCH_PARAM_BUFFER_POINTER, &ns, CU_LAUNCH_PARAM_BUFFER_SIZE, &size,
                     CU_LAUNCH_PARAM_END};

    RESULT(cuLaunchKernel(kernel("spin"), 1, 1, 1, 1, 1, 1, 0, NULL, arguments, extra),
           CUDA_ERROR_INVALID_VALUE);
}

/* The launch has taken the parameters over when it returns. */
static void test_parameters_are_copied(void)
{
    CUdeviceptr words = device_alloc(400);
    const CUstream stream = stream_create(0);
    uint64_t count = 100;
    uint32_t value = 1;
    void *arguments[] = {&words, &count, &value};
    const CUdeviceptr wanted = words;

    warm_up();
    spin(200, stream);
    GOOD(cuLaunchKernel(kernel("fill"), 1, 1, 1, 32, 1, 1, 0, stream, arguments, NULL));
    value = 2;
    count = 0;
    words = 0;
    GOOD(cuStreamSynchronize(stream));
    expect_words(wanted, 100, 1);
}

/* Launches fill with that shape. */
static CUresult shaped(unsigned grid_x, unsigned grid_y, unsigned block_x, unsigned block_z,
                       unsigned shared)
{
    CUdeviceptr words = device_alloc(400);
    uint64_t count = 100;
    uint32_t value = 4;
    void *arguments[] = {&words, &count, &value};

    return cuLaunchKernel(kernel("fill"), grid_x, grid_y, 1, block_x, 1, block_z, shared, NULL,
                          arguments, NULL);
}

static void test_empty_grid(void)
{
    RESULT(shaped(0, 1, 32, 1, 0), CUDA_ERROR_INVALID_VALUE);
    RESULT(shaped(1, 0, 32, 1, 0), CUDA_ERROR_INVALID_VALUE);
    RESULT(shaped(1, 1, 0, 1, 0), CUDA_ERROR_INVALID_VALUE);
    RESULT(shaped(1, 1, 32, 0, 0), CUDA_ERROR_INVALID_VALUE);
}

static void test_block_too_large(void)
{
    const int threads = attribute(CU_DEVICE_ATTRIBUTE_MAX_THREADS_PER_BLOCK);
    const int depth = attribute(CU_DEVICE_ATTRIBUTE_MAX_BLOCK_DIM_Z);

    GOOD(shaped(1, 1, (unsigned)threads, 1, 0));
    RESULT(shaped(1, 1, (unsigned)threads + 1, 1, 0), CUDA_ERROR_INVALID_VALUE);
    RESULT(shaped(1, 1, (unsigned)threads, 2, 0), CUDA_ERROR_INVALID_VALUE);
    RESULT(shaped(1, 1, 1, (unsigned)depth + 1, 0), CUDA_ERROR_INVALID_VALUE);
}

static void test_too_much_shared_memory(void)
{
    const int most = attribute(CU_DEVICE_ATTRIBUTE_MAX_SHARED_MEMORY_PER_BLOCK_OPTIN);

    GOOD(shaped(1, 1, 32, 1, 1024));
    RESULT(shaped(1, 1, 32, 1, (unsigned)most + 1024), CUDA_ERROR_INVALID_VALUE);
}

static void test_bad_launch_does_no_harm(void)
{
    const CUdeviceptr words = device_alloc(400);

    RESULT(shaped(0, 1, 32, 1, 0), CUDA_ERROR_INVALID_VALUE);
    GOOD(cuCtxSynchronize());
    fill(words, 100, 5, NULL);
    expect_words(words, 100, 5);
}

static void test_no_function(void)
{
    ONE_OF(cuLaunchKernel(NULL, 1, 1, 1, 1, 1, 1, 0, NULL, NULL, NULL), CUDA_ERROR_INVALID_HANDLE,
           CUDA_ERROR_INVALID_VALUE);
}

static void test_launch_with_config(void)
{
    CUdeviceptr words = device_alloc(400);
    const CUstream stream = stream_create(0);
    const CUlaunchConfig config = {.gridDimX = 2,
                                   .gridDimY = 1,
                                   .gridDimZ = 1,
                                   .blockDimX = 64,
                                   .blockDimY = 1,
                                   .blockDimZ = 1,
                                   .hStream = stream};
    uint64_t count = 100;
    uint32_t value = 23;
    void *arguments[] = {&words, &count, &value};

    GOOD(cuLaunchKernelEx(&config, kernel("fill"), arguments, NULL));
    GOOD(cuStreamSynchronize(stream));
    expect_words(words, 100, 23);
}

static void test_launch_blocking(void)
{
    CUstream stream;

    EXPECT(setenv("CUDA_LAUNCH_BLOCKING", "1", 1) == 0, "no environment");
    start();
    stream = stream_create(CU_STREAM_NON_BLOCKING);
    spin(50, stream);
    GOOD(cuStreamQuery(stream));
}

const struct test launch_tests[] = {
    {"launch_blocking", test_launch_blocking, true},
    {"vadd", test_vadd, false},
    {"reduce_sum", test_reduce_sum, false},
    {"parameters_in_a_buffer", test_parameters_in_a_buffer, false},
    {"parameters_given_twice", test_parameters_given_twice, false},
    {"parameters_are_copied", test_parameters_are_copied, false},
    {"empty_grid", test_empty_grid, false},
    {"block_too_large", test_block_too_large, false},
    {"too_much_shared_memory", test_too_much_shared_memory, false},
    {"bad_launch_does_no_harm", test_bad_launch_does_no_harm, false},
    {"no_function", test_no_function, false},
    {"launch_with_config", test_launch_with_config, false},
    {0},
};
