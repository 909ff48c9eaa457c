/* SPDX-License-Identifier: MIT */
/*
 * Memory that is taken and given back in the order of a stream.
 *
 * Tests: guest/libcuda/calls/mempool.c, guest/libcuda/model/mempool.c
 */
#include "tests/cuda/pool-check.h"

#define WORDS (MIB / WORD)

static CUdeviceptr take(size_t bytes, CUstream stream)
{
    CUdeviceptr address = 0;

    GOOD(cuMemAllocAsync(&address, bytes, stream));
    return address;
}

/* Without pools the call says so, as the attribute does. */
static void test_async_alloc_and_free(void)
{
    const CUstream stream = stream_create(CU_STREAM_NON_BLOCKING);
    CUdeviceptr words = 0;

    if (attribute(CU_DEVICE_ATTRIBUTE_MEMORY_POOLS_SUPPORTED) != 1) {
        RESULT(cuMemAllocAsync(&words, 4096, stream), CUDA_ERROR_NOT_SUPPORTED);
        needs_pools();
    }
    for (uint32_t i = 1; i <= 100; i++) {
        words = take(WORD * i, stream);
        fill(words, i, i, stream);
        GOOD(cuStreamSynchronize(stream));
        expect_words(words, i, i);
        GOOD(cuMemFreeAsync(words, stream));
    }
}

static void test_async_alloc_in_default_streams(void)
{
    const CUstream streams[] = {NULL, CU_STREAM_LEGACY, CU_STREAM_PER_THREAD};

    needs_pools();
    for (uint32_t i = 0; i < 3; i++) {
        const CUdeviceptr words = take(4000, streams[i]);

        fill(words, 1000, i, streams[i]);
        GOOD(cuStreamSynchronize(streams[i]));
        expect_words(words, 1000, i);
        GOOD(cuMemFreeAsync(words, streams[i]));
        GOOD(cuStreamSynchronize(streams[i]));
    }
}

static void test_async_alloc_of_nothing(void)
{
    CUdeviceptr address = 0;

    needs_pools();
    ONE_OF(cuMemAllocAsync(&address, 0, NULL), CUDA_SUCCESS, CUDA_ERROR_INVALID_VALUE);
    RESULT(cuMemAllocAsync(NULL, 16, NULL), CUDA_ERROR_INVALID_VALUE);
}

static void test_async_alloc_of_too_much(void)
{
    const CUstream stream = stream_create(0);
    CUdeviceptr address = 0;

    needs_pools();
    RESULT(cuMemAllocAsync(&address, (size_t)1 << 46, stream), CUDA_ERROR_OUT_OF_MEMORY);
    GOOD(cuMemFreeAsync(take(16, stream), stream));
    GOOD(cuStreamSynchronize(stream));
}

static void test_async_allocations_do_not_overlap(void)
{
    const CUstream streams[] = {stream_create(CU_STREAM_NON_BLOCKING), stream_create(0)};
    CUdeviceptr pieces[64];

    needs_pools();
    for (uint32_t i = 0; i < 64; i++) {
        pieces[i] = take(1000, streams[i % 2]);
        EXPECT(pieces[i] % 256 == 0, "%#llx", pieces[i]);
        fill(pieces[i], 250, i, streams[i % 2]);
    }
    GOOD(cuCtxSynchronize());
    for (uint32_t i = 0; i < 64; i++) {
        expect_words(pieces[i], 250, i);
        GOOD(cuMemFreeAsync(pieces[i], streams[1 - i % 2]));
    }
}

/* Memory that was freed in a stream is whole until the stream comes there. */
static void expect_no_early_reuse(CUstream first, CUstream second)
{
    const CUdeviceptr sum = device_alloc(8);
    CUdeviceptr words, others;

    needs_pools();
    warm_up();
    GOOD(cuMemsetD32(sum, 0, 2));
    GOOD(cuCtxSynchronize());
    words = take(4 * MIB, first);
    fill(words, 4 * WORDS, 1, first);
    spin(200, first);
    reduce(words, 4 * WORDS, sum, first);
    GOOD(cuMemFreeAsync(words, first));
    others = take(4 * MIB, second);
    fill(others, 4 * WORDS, 2, second);
    GOOD(cuCtxSynchronize());
    expect_words(sum, 1, 4 * WORDS);
    expect_words(others, 4 * WORDS, 2);
}

static void test_async_free_is_in_order(void)
{
    const CUstream stream = stream_create(CU_STREAM_NON_BLOCKING);

    expect_no_early_reuse(stream, stream);
}

static void test_async_memory_of_two_streams(void)
{
    const CUstream stream = stream_create(CU_STREAM_NON_BLOCKING);

    expect_no_early_reuse(stream, stream_create(CU_STREAM_NON_BLOCKING));
}

static void test_async_free_in_another_stream(void)
{
    const CUstream one = stream_create(CU_STREAM_NON_BLOCKING);
    const CUstream other = stream_create(CU_STREAM_NON_BLOCKING);
    const CUevent event = event_create(CU_EVENT_DISABLE_TIMING);
    const CUmemoryPool pool = pool_create();
    const CUdeviceptr words = take_from(pool, 4 * MIB, one), sum = device_alloc(8);

    warm_up();
    GOOD(cuMemsetD32(sum, 0, 2));
    GOOD(cuCtxSynchronize());
    fill(words, 4 * WORDS, 3, one);
    spin(100, one);
    GOOD(cuEventRecord(event, one));
    GOOD(cuStreamWaitEvent(other, event, 0));
    reduce(words, 4 * WORDS, sum, other);
    GOOD(cuMemFreeAsync(words, other));
    GOOD(cuStreamSynchronize(other));
    expect_words(sum, 1, 3 * 4 * WORDS);
    EXPECT(ask_pool(pool, CU_MEMPOOL_ATTR_USED_MEM_CURRENT) == 0, "still in use");
}

static void test_async_memory_is_reused(void)
{
    const CUstream stream = stream_create(CU_STREAM_NON_BLOCKING);
    const CUmemoryPool pool = pool_create();
    cuuint64_t first;

    GOOD(cuMemFreeAsync(take_from(pool, 20 * MIB, stream), stream));
    first = ask_pool(pool, CU_MEMPOOL_ATTR_RESERVED_MEM_HIGH);
    EXPECT(first >= 20 * MIB, "%llu bytes", (unsigned long long)first);
    for (int i = 0; i < 1000; i++) {
        GOOD(cuMemFreeAsync(take_from(pool, 20 * MIB, stream), stream));
    }
    GOOD(cuStreamSynchronize(stream));
    EXPECT(ask_pool(pool, CU_MEMPOOL_ATTR_RESERVED_MEM_HIGH) == first, "more was reserved");
}

/* cuMemFree takes it as well, for a host that knows that nothing uses it. */
static void test_free_of_async_memory(void)
{
    const CUstream stream = stream_create(0);
    const CUmemoryPool pool = pool_create();
    const CUdeviceptr words = take_from(pool, MIB, stream);

    fill(words, WORDS, 5, stream);
    GOOD(cuStreamSynchronize(stream));
    expect_words(words, WORDS, 5);
    GOOD(cuMemFree(words));
    RESULT(cuMemFreeAsync(words, stream), CUDA_ERROR_INVALID_VALUE);
}

static void test_async_free_of_other_memory(void)
{
    const CUstream stream = stream_create(0);
    const CUdeviceptr words = device_alloc(4 * MIB);

    needs_pools();
    fill(words, WORDS, 5, stream);
    GOOD(cuMemFreeAsync(words, stream));
    GOOD(cuStreamSynchronize(stream));
    RESULT(cuMemFree(words), CUDA_ERROR_INVALID_VALUE);
}

static void test_async_free_twice(void)
{
    const CUstream stream = stream_create(0);
    CUdeviceptr address;

    needs_pools();
    address = take(MIB, stream);
    GOOD(cuMemFreeAsync(address, stream));
    RESULT(cuMemFreeAsync(address, stream), CUDA_ERROR_INVALID_VALUE);
    RESULT(cuMemFreeAsync(0x10, stream), CUDA_ERROR_INVALID_VALUE);
    GOOD(cuStreamSynchronize(stream));
}

static void test_async_pointer(void)
{
    const CUmemoryPool pool = pool_create();
    const CUdeviceptr address = take_from(pool, MIB, NULL);
    CUdeviceptr start = 0;
    size_t bytes = 0;
    unsigned type = 0;
    int ordinal = -1;

    GOOD(cuCtxSynchronize());
    GOOD(cuPointerGetAttribute(&type, CU_POINTER_ATTRIBUTE_MEMORY_TYPE, address + 5));
    EXPECT(type == CU_MEMORYTYPE_DEVICE, "%u", type);
    GOOD(cuPointerGetAttribute(&ordinal, CU_POINTER_ATTRIBUTE_DEVICE_ORDINAL, address));
    EXPECT(ordinal == device, "%d", ordinal);
    GOOD(cuPointerGetAttribute(&start, CU_POINTER_ATTRIBUTE_RANGE_START_ADDR, address + 5));
    EXPECT(start == address, "%#llx for %#llx", start, address);
    GOOD(cuPointerGetAttribute(&bytes, CU_POINTER_ATTRIBUTE_RANGE_SIZE, address));
    EXPECT(bytes >= MIB, "%zu", bytes);
    EXPECT(pool_of(address + 5) == pool, "another pool");
    EXPECT(pool_of(device_alloc(MIB)) == NULL, "a pool of what comes from none");
}

const struct test async_tests[] = {
    {"async_alloc_and_free", test_async_alloc_and_free, false},
    {"async_alloc_in_default_streams", test_async_alloc_in_default_streams, false},
    {"async_alloc_of_nothing", test_async_alloc_of_nothing, false},
    {"async_alloc_of_too_much", test_async_alloc_of_too_much, false},
    {"async_allocations_do_not_overlap", test_async_allocations_do_not_overlap, false},
    {"async_free_is_in_order", test_async_free_is_in_order, false},
    {"async_memory_of_two_streams", test_async_memory_of_two_streams, false},
    {"async_free_in_another_stream", test_async_free_in_another_stream, false},
    {"async_memory_is_reused", test_async_memory_is_reused, false},
    {"free_of_async_memory", test_free_of_async_memory, false},
    {"async_free_of_other_memory", test_async_free_of_other_memory, false},
    {"async_free_twice", test_async_free_twice, false},
    {"async_pointer", test_async_pointer, false},
    {0},
};
