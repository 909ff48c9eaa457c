/* SPDX-License-Identifier: MIT */
/*
 * Copies of runs of bytes.
 *
 * Tests: guest/libcuda/calls/copy.c
 */
#include "tests/cuda/check.h"

#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define MIB ((size_t)1 << 20)

static void test_copies_there_and_back(void)
{
    static const size_t sizes[] = {1, 3, 4, 255, 4096, 65537, MIB + 1, 5 * MIB + 7};

    for (size_t i = 0; i < sizeof(sizes) / sizeof(sizes[0]); i++) {
        const CUdeviceptr at = device_alloc(sizes[i]);
        uint8_t *bytes = malloc(sizes[i]);

        pattern(bytes, sizes[i], (uint32_t)i);
        GOOD(cuMemcpyHtoD(at, bytes, sizes[i]));
        memset(bytes, 0, sizes[i]);
        GOOD(cuMemcpyDtoH(bytes, at, sizes[i]));
        EXPECT(is_pattern(bytes, sizes[i], (uint32_t)i), "other bytes, of %zu", sizes[i]);
        GOOD(cuMemFree(at));
        free(bytes);
    }
}

/* Only the bytes in question change, wherever they start. */
static void test_copies_at_odd_offsets(void)
{
    static const size_t offsets[] = {1, 2, 7, 63, 4093};
    const CUdeviceptr at = device_alloc(16384);
    uint8_t from[1001], to[16384];

    pattern(from, sizeof(from), 3);
    for (size_t i = 0; i < sizeof(offsets) / sizeof(offsets[0]); i++) {
        const size_t end = offsets[i] + sizeof(from);

        GOOD(cuMemsetD8(at, 0xee, sizeof(to)));
        GOOD(cuMemcpyHtoD(at + offsets[i], from, sizeof(from)));
        GOOD(cuMemcpyDtoH(to, at, sizeof(to)));
        EXPECT(is_pattern(to + offsets[i], sizeof(from), 3), "other bytes at %zu", offsets[i]);
        EXPECT(to[offsets[i] - 1] == 0xee && to[end] == 0xee, "changes around %zu", offsets[i]);
        memset(to, 0, sizeof(to));
        GOOD(cuMemcpyDtoH(to + 1, at + offsets[i], sizeof(from)));
        EXPECT(is_pattern(to + 1, sizeof(from), 3), "other bytes from %zu", offsets[i]);
        EXPECT(to[0] == 0 && to[1 + sizeof(from)] == 0, "changes around the bytes");
    }
}

static void test_copies_on_device(void)
{
    const CUdeviceptr from = device_alloc(MIB), to = device_alloc(MIB);
    uint8_t *bytes = malloc(MIB);

    pattern(bytes, MIB, 4);
    GOOD(cuMemcpyHtoD(from, bytes, MIB));
    GOOD(cuMemcpyDtoD(to, from, MIB));
    memset(bytes, 0, MIB);
    GOOD(cuMemcpyDtoH(bytes, to, MIB));
    EXPECT(is_pattern(bytes, MIB, 4), "other bytes");
    GOOD(cuMemcpyDtoD(to + 3, from, 77));
    GOOD(cuMemcpyDtoH(bytes, to + 3, 77));
    EXPECT(is_pattern(bytes, 77, 4), "other bytes at an odd offset");
    free(bytes);
}

static void test_copies_of_nothing(void)
{
    const CUdeviceptr at = device_alloc(16);
    uint8_t byte = 5;

    GOOD(cuMemcpyHtoD(at, &byte, 0));
    GOOD(cuMemcpyDtoH(&byte, at, 0));
    GOOD(cuMemcpyDtoD(at + 8, at, 0));
    EXPECT(byte == 5, "%u", byte);
}

static void test_large_pageable_copy(void)
{
    const size_t size = 64 * MIB;
    const CUdeviceptr at = device_alloc(size);
    uint8_t *bytes = malloc(size);

    pattern(bytes, size, 5);
    GOOD(cuMemcpyHtoD(at, bytes, size));
    memset(bytes, 0, size);
    GOOD(cuMemcpyDtoH(bytes, at, size));
    EXPECT(is_pattern(bytes, size, 5), "other bytes");
    free(bytes);
}

static void test_large_pinned_copy(void)
{
    const size_t size = 64 * MIB;
    const CUdeviceptr at = device_alloc(size);
    const CUstream stream = stream_create(CU_STREAM_NON_BLOCKING);
    uint8_t *bytes = host_alloc(size);

    pattern(bytes, size, 6);
    GOOD(cuMemcpyHtoDAsync(at, bytes, size, stream));
    GOOD(cuStreamSynchronize(stream));
    memset(bytes, 0, size);
    GOOD(cuMemcpyDtoHAsync(bytes, at, size, stream));
    GOOD(cuStreamSynchronize(stream));
    EXPECT(is_pattern(bytes, size, 6), "other bytes");
    GOOD(cuMemFreeHost(bytes));
}

static void test_asynchronous_pageable_copies(void)
{
    const size_t size = 3 * MIB + 5;
    const CUdeviceptr one = device_alloc(size), other = device_alloc(size);
    const CUstream stream = stream_create(0);
    uint8_t *from = malloc(size), *to = malloc(size);

    pattern(from, size, 7);
    GOOD(cuMemcpyHtoDAsync(one, from, size, stream));
    GOOD(cuMemcpyDtoDAsync(other, one, size, stream));
    GOOD(cuMemcpyDtoHAsync(to, other, size, stream));
    GOOD(cuStreamSynchronize(stream));
    EXPECT(is_pattern(to, size, 7), "other bytes");
    free(from);
    free(to);
}

/* Opens the gate that a stream stands at when nobody else has for long. */
static void *open_late(void *word)
{
    for (int i = 0; i < 2000 && __atomic_load_n((uint32_t *)word, __ATOMIC_RELAXED) == 0; i++) {
        usleep(5000);
    }
    return (void *)(uintptr_t)!__atomic_exchange_n((uint32_t *)word, 1, __ATOMIC_SEQ_CST);
}

/* Up to 1 MiB: the copy returns though its stream is not there yet, and has taken the bytes. */
static void test_pageable_copy_does_not_wait(void)
{
    static const size_t sizes[] = {4096, 65536, MIB};
    const CUdeviceptr at = device_alloc(MIB);
    const CUstream stream = stream_create(CU_STREAM_NON_BLOCKING);
    uint32_t *word = host_alloc(WORD);
    uint8_t *bytes = malloc(MIB), *back = malloc(MIB);
    pthread_t thread;
    void *late;

    for (unsigned i = 0; i < sizeof(sizes) / sizeof(sizes[0]); i++) {
        pattern(bytes, sizes[i], i);
        *word = 0;
        EXPECT(pthread_create(&thread, NULL, open_late, word) == 0, "no thread");
        GOOD(cuStreamWaitValue32_v2(stream, (CUdeviceptr)(uintptr_t)word, 1,
                                    CU_STREAM_WAIT_VALUE_GEQ));
        GOOD(cuMemcpyHtoDAsync(at, bytes, sizes[i], stream));
        memset(bytes, 0, sizes[i]);
        __atomic_store_n(word, 1, __ATOMIC_SEQ_CST);
        pthread_join(thread, &late);
        GOOD(cuStreamSynchronize(stream));
        EXPECT(!late, "%zu bytes were waited for", sizes[i]);
        GOOD(cuMemcpyDtoH(back, at, sizes[i]));
        EXPECT(is_pattern(back, sizes[i], i), "other bytes");
    }
    free(bytes);
    free(back);
}

static void test_copy_follows_kernels(void)
{
    const CUdeviceptr words = device_alloc(WORD * 1000);
    const CUstream stream = stream_create(0);
    uint32_t *copy = host_alloc(WORD * 1000);

    spin(100, stream);
    fill(words, 1000, 21, stream);
    GOOD(cuMemcpyDtoHAsync(copy, words, WORD * 1000, stream));
    fill(words, 1000, 22, stream);
    GOOD(cuStreamSynchronize(stream));
    EXPECT(copy[0] == 21 && copy[999] == 21, "%u and %u", copy[0], copy[999]);
    expect_words(words, 1000, 22);
    GOOD(cuMemFreeHost(copy));
}

static void test_synchronous_copy_follows_kernels(void)
{
    const CUdeviceptr word = device_alloc(4);
    uint32_t value = 1;

    spin(100, NULL);
    fill(word, 1, 31, NULL);
    GOOD(cuMemcpyDtoH(&value, word, 4));
    EXPECT(value == 31, "%u", value);
}

static void test_unified_copies(void)
{
    const CUdeviceptr one = device_alloc(4096), other = device_alloc(4096);
    uint8_t *pinned = host_alloc(4096), pageable[4096] = {0};
    const CUstream stream = stream_create(0);

    pattern(pinned, 4096, 8);
    GOOD(cuMemcpy(one, (CUdeviceptr)(uintptr_t)pinned, 4096));
    GOOD(cuMemcpy(other, one, 4096));
    GOOD(cuMemcpy((CUdeviceptr)(uintptr_t)pageable, other, 4096));
    EXPECT(is_pattern(pageable, 4096, 8), "other bytes in pageable memory");
    memset(pinned, 0, 4096);
    GOOD(cuMemcpyAsync((CUdeviceptr)(uintptr_t)pinned, other, 4096, stream));
    GOOD(cuStreamSynchronize(stream));
    EXPECT(is_pattern(pinned, 4096, 8), "other bytes in pinned memory");
    GOOD(cuMemFreeHost(pinned));
}

static void test_many_small_copies(void)
{
    const CUdeviceptr words = device_alloc(WORD * 2000);

    for (uint32_t i = 0; i < 2000; i++) {
        GOOD(cuMemcpyHtoD(words + WORD * i, &i, 4));
    }
    for (uint32_t i = 0; i < 2000; i++) {
        uint32_t value = 0;

        GOOD(cuMemcpyDtoH(&value, words + WORD * i, 4));
        EXPECT(value == i, "%u instead of %u", value, i);
    }
}

const struct test copy_tests[] = {
    {"copies_there_and_back", test_copies_there_and_back, false},
    {"copies_at_odd_offsets", test_copies_at_odd_offsets, false},
    {"copies_on_device", test_copies_on_device, false},
    {"copies_of_nothing", test_copies_of_nothing, false},
    {"large_pageable_copy", test_large_pageable_copy, false},
    {"large_pinned_copy", test_large_pinned_copy, false},
    {"pageable_copy_does_not_wait", test_pageable_copy_does_not_wait, false},
    {"asynchronous_pageable_copies", test_asynchronous_pageable_copies, false},
    {"copy_follows_kernels", test_copy_follows_kernels, false},
    {"synchronous_copy_follows_kernels", test_synchronous_copy_follows_kernels, false},
    {"unified_copies", test_unified_copies, false},
    {"many_small_copies", test_many_small_copies, false},
    {0},
};
