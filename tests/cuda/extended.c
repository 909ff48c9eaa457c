/* SPDX-License-Identifier: MIT */
/*
 * Launches of further kinds: cooperative ones, many in order, shapes and shared memory.
 *
 * Tests: guest/libcuda/calls/launch.c, guest/libcuda/calls/occupancy.c
 */
#include "tests/cuda/check.h"

#include <stdlib.h>

static void test_cooperative_launch(void)
{
    CUdeviceptr words = device_alloc(400);
    uint64_t count = 100;
    uint32_t value = 27;
    void *arguments[] = {&words, &count, &value};

    if (!attribute(CU_DEVICE_ATTRIBUTE_COOPERATIVE_LAUNCH)) {
        skip("no cooperative launches, as the attribute says");
    }
    SUPPORTED(cuLaunchCooperativeKernel(kernel("fill"), 2, 1, 1, 64, 1, 1, 0, NULL, arguments));
    expect_words(words, 100, 27);
    RESULT(cuLaunchCooperativeKernel(kernel("fill"), 1u << 20, 1, 1, 256, 1, 1, 0, NULL, arguments),
           CUDA_ERROR_COOPERATIVE_LAUNCH_TOO_LARGE);
}

/* One stream writes a number, the other adds it up before the first writes the next. */
static void test_many_launches_over_two_streams(void)
{
    const CUstream writer = stream_create(CU_STREAM_NON_BLOCKING);
    const CUstream reader = stream_create(CU_STREAM_NON_BLOCKING);
    const CUevent written = event_create(CU_EVENT_DISABLE_TIMING);
    const CUevent read = event_create(CU_EVENT_DISABLE_TIMING);
    const CUfunction fill_function = kernel("fill"), reduce_function = kernel("reduce_sum");
    CUdeviceptr word = device_alloc(4), sum = device_alloc(8);
    uint64_t count = 1;
    uint32_t value = 0;
    void *to_fill[] = {&word, &count, &value}, *to_reduce[] = {&word, &count, &sum};

    GOOD(cuMemsetD32(sum, 0, 2));
    GOOD(cuCtxSynchronize());
    for (value = 0; value < 5000; value++) {
        GOOD(cuStreamWaitEvent(writer, read, 0));
        GOOD(cuLaunchKernel(fill_function, 1, 1, 1, 1, 1, 1, 0, writer, to_fill, NULL));
        GOOD(cuEventRecord(written, writer));
        GOOD(cuStreamWaitEvent(reader, written, 0));
        GOOD(cuLaunchKernel(reduce_function, 1, 1, 1, 1, 1, 1, 0, reader, to_reduce, NULL));
        GOOD(cuEventRecord(read, reader));
    }
    GOOD(cuStreamSynchronize(reader));
    expect_words(sum, 1, 5000u * 4999u / 2u);
}

static void test_blocks_on_a_multiprocessor(void)
{
    const int resident = attribute(CU_DEVICE_ATTRIBUTE_MAX_THREADS_PER_MULTIPROCESSOR);
    int few = 0, many = 0;

    SUPPORTED(cuOccupancyMaxActiveBlocksPerMultiprocessor(&few, kernel("vadd"), 256, 0));
    EXPECT(few >= 1 && few * 256 <= resident, "%d blocks of 256", few);
    GOOD(cuOccupancyMaxActiveBlocksPerMultiprocessor(&many, kernel("vadd"), 64, 0));
    EXPECT(many >= few && many * 64 <= resident, "%d blocks of 64", many);
}

static void test_best_block_size(void)
{
    const int threads = attribute(CU_DEVICE_ATTRIBUTE_MAX_THREADS_PER_BLOCK);
    int grid = 0, block = 0;

    SUPPORTED(cuOccupancyMaxPotentialBlockSize(&grid, &block, kernel("vadd"), NULL, 0, 0));
    EXPECT(grid >= 1, "%d blocks", grid);
    EXPECT(block >= 1 && block <= threads, "%d threads", block);
    GOOD(cuOccupancyMaxPotentialBlockSize(&grid, &block, kernel("vadd"), NULL, 0, 64));
    EXPECT(block >= 1 && block <= 64, "%d threads, at most 64", block);
}

static CUfunction own_function(const char *name)
{
    CUfunction function = NULL;

    GOOD(cuModuleGetFunction(&function, load_own_module(), name));
    return function;
}

/* Each thread writes its place: no place is missed, whatever the shape. */
static void test_grids_in_three_dimensions(void)
{
    static const unsigned shapes[][6] = {
        {1, 1, 1, 1, 1, 1}, {3, 1, 1, 100, 1, 1}, {2, 3, 4, 5, 6, 7}, {1, 7, 2, 1, 16, 2}};
    const CUfunction number = own_function("number");

    for (size_t i = 0; i < sizeof(shapes) / sizeof(shapes[0]); i++) {
        const unsigned *s = shapes[i];
        const size_t count = (size_t)s[0] * s[1] * s[2] * s[3] * s[4] * s[5];
        CUdeviceptr places = device_alloc(4 * count);
        uint32_t *seen = malloc(4 * count);
        void *arguments[] = {&places};

        GOOD(cuMemsetD32(places, 0xffffffff, count));
        GOOD(cuLaunchKernel(number, s[0], s[1], s[2], s[3], s[4], s[5], 0, NULL, arguments, NULL));
        GOOD(cuMemcpyDtoH(seen, places, 4 * count));
        for (size_t place = 0; place < count; place++) {
            EXPECT(seen[place] == place, "%#x at %zu, shape %zu", seen[place], place, i);
        }
        free(seen);
    }
}

static void test_parameter_by_value(void)
{
    struct {
        uint64_t a;
        uint32_t b;
        uint16_t c;
        uint64_t d;
    } members = {1000, 200, 30, UINT64_C(1) << 40};
    CUdeviceptr sum = device_alloc(8);
    void *arguments[] = {&members, &sum};
    uint64_t value = 0;

    GOOD(cuLaunchKernel(own_function("sum_members"), 1, 1, 1, 1, 1, 1, 0, NULL, arguments, NULL));
    GOOD(cuMemcpyDtoH(&value, sum, sizeof(value)));
    EXPECT(value == (UINT64_C(1) << 40) + 1230, "%#llx", (unsigned long long)value);
}

static CUresult reverse(CUfunction function, CUdeviceptr to, unsigned threads, unsigned shared)
{
    void *arguments[] = {&to};

    return cuLaunchKernel(function, 1, 1, 1, threads, 1, 1, shared, NULL, arguments, NULL);
}

static void test_dynamic_shared_memory(void)
{
    const CUfunction function = own_function("reverse");
    const CUdeviceptr to = device_alloc(512);
    uint32_t words[128] = {0};

    GOOD(reverse(function, to, 128, 4 * 128));
    GOOD(cuMemcpyDtoH(words, to, sizeof(words)));
    for (uint32_t i = 0; i < 128; i++) {
        EXPECT(words[i] == 127 - i, "%u at %u", words[i], i);
    }
}

/* More than every kernel may have, after asking for it. */
static void test_much_dynamic_shared_memory(void)
{
    const int most = attribute(CU_DEVICE_ATTRIBUTE_MAX_SHARED_MEMORY_PER_BLOCK_OPTIN);
    const CUfunction function = own_function("reverse");
    const CUdeviceptr to = device_alloc(512);

    if (most <= attribute(CU_DEVICE_ATTRIBUTE_MAX_SHARED_MEMORY_PER_BLOCK)) {
        skip("there is no more");
    }
    RESULT(reverse(function, to, 128, (unsigned)most), CUDA_ERROR_INVALID_VALUE);
    GOOD(cuFuncSetAttribute(function, CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES, most));
    GOOD(reverse(function, to, 128, (unsigned)most));
    GOOD(cuCtxSynchronize());
    expect_words(to + 508, 1, 0);
}

const struct test extended_tests[] = {
    {"cooperative_launch", test_cooperative_launch, false},
    {"many_launches_over_two_streams", test_many_launches_over_two_streams, false},
    {"blocks_on_a_multiprocessor", test_blocks_on_a_multiprocessor, false},
    {"best_block_size", test_best_block_size, false},
    {"grids_in_three_dimensions", test_grids_in_three_dimensions, false},
    {"parameter_by_value", test_parameter_by_value, false},
    {"dynamic_shared_memory", test_dynamic_shared_memory, false},
    {"much_dynamic_shared_memory", test_much_dynamic_shared_memory, false},
    {0},
};
