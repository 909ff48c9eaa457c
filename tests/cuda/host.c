/* SPDX-License-Identifier: MIT */
/*
 * Pinned host memory, allocated and registered, and what kernels make of it.
 *
 * Tests: guest/libcuda/calls/memory.c, guest/libcuda/model/memory.c, guest/libcuda/wire/pinned.c
 */
#include "tests/cuda/check.h"

#include <stdlib.h>
#include <string.h>

#define MIB ((size_t)1 << 20)
#define PAGE ((size_t)4096)

static CUdeviceptr seen_by_device(void *memory)
{
    CUdeviceptr address = 0;

    GOOD(cuMemHostGetDevicePointer(&address, memory, 0));
    EXPECT(address, "none");
    return address;
}

static void test_host_alloc_and_free(void)
{
    for (size_t bytes = 1; bytes <= 16 * MIB; bytes *= 16) {
        void *memory = NULL;

        GOOD(cuMemAllocHost(&memory, bytes));
        memset(memory, 1, bytes);
        GOOD(cuMemFreeHost(memory));
    }
}

static void test_host_flags(void)
{
    const unsigned wanted = CU_MEMHOSTALLOC_PORTABLE | CU_MEMHOSTALLOC_DEVICEMAP;
    unsigned flags = 0;
    void *memory = NULL;

    GOOD(cuMemHostAlloc(&memory, PAGE, wanted));
    GOOD(cuMemHostGetFlags(&flags, memory));
    EXPECT((flags & wanted) == wanted, "%#x", flags);
    RESULT(cuMemHostAlloc(&memory, PAGE, 0x100), CUDA_ERROR_INVALID_VALUE);
}

static void test_host_free_of_other_memory(void)
{
    void *memory = malloc(PAGE);

    RESULT(cuMemFreeHost(memory), CUDA_ERROR_INVALID_VALUE);
    free(memory);
}

static void test_kernel_writes_pinned_memory(void)
{
    uint32_t *words = host_alloc(PAGE);

    fill(seen_by_device(words), 1024, 9, NULL);
    GOOD(cuCtxSynchronize());
    EXPECT(words[0] == 9 && words[1023] == 9, "%u and %u", words[0], words[1023]);
    GOOD(cuMemFreeHost(words));
}

/* With unified addressing the host's address is the device's. */
static void test_kernel_takes_host_address(void)
{
    uint32_t *words = NULL;
    void *memory = NULL;

    GOOD(cuMemAllocHost(&memory, PAGE));
    words = memory;
    EXPECT(seen_by_device(words) == (CUdeviceptr)(uintptr_t)words, "another address");
    fill((CUdeviceptr)(uintptr_t)words, 1024, 11, NULL);
    GOOD(cuCtxSynchronize());
    EXPECT(words[0] == 11 && words[1023] == 11, "%u and %u", words[0], words[1023]);
    GOOD(cuMemFreeHost(words));
}

static void test_kernel_reads_pinned_memory(void)
{
    const CUdeviceptr sum = device_alloc(8);
    uint32_t *words = host_alloc(4 * PAGE);

    GOOD(cuMemsetD32(sum, 0, 2));
    for (uint32_t round = 1; round <= 3; round++) {
        for (uint32_t i = 0; i < PAGE; i++) {
            words[i] = round;
        }
        reduce(seen_by_device(words), PAGE, sum, NULL);
        GOOD(cuCtxSynchronize());
    }
    expect_words(sum, 1, 6 * PAGE);
    GOOD(cuMemFreeHost(words));
}

static void test_many_pinned_pieces(void)
{
    void *pieces[32];

    for (uint32_t i = 0; i < 32; i++) {
        pieces[i] = host_alloc(MIB);
        pattern(pieces[i], MIB, i);
    }
    for (uint32_t i = 0; i < 32; i++) {
        EXPECT(is_pattern(pieces[i], MIB, i), "another's bytes in piece %u", i);
        GOOD(cuMemFreeHost(pieces[i]));
    }
}

static void *registrable(size_t bytes)
{
    void *memory = NULL;

    if (!attribute(CU_DEVICE_ATTRIBUTE_HOST_REGISTER_SUPPORTED)) {
        skip("no registering of host memory, as the attribute says");
    }
    EXPECT(posix_memalign(&memory, PAGE, bytes) == 0, "no memory");
    return memory;
}

static void test_copies_through_registered_memory(void)
{
    const CUdeviceptr at = device_alloc(MIB);
    const CUstream stream = stream_create(0);
    uint8_t *memory = registrable(2 * MIB);

    GOOD(cuMemHostRegister(memory, 2 * MIB, CU_MEMHOSTREGISTER_PORTABLE));
    pattern(memory, MIB, 1);
    memset(memory + MIB, 0, MIB);
    GOOD(cuMemcpyHtoDAsync(at, memory, MIB, stream));
    GOOD(cuMemcpyDtoHAsync(memory + MIB, at, MIB, stream));
    GOOD(cuStreamSynchronize(stream));
    EXPECT(is_pattern(memory + MIB, MIB, 1), "other bytes");
    GOOD(cuMemHostUnregister(memory));
    free(memory);
}

static void test_register_twice(void)
{
    void *memory = registrable(16 * PAGE);

    GOOD(cuMemHostRegister(memory, 16 * PAGE, 0));
    RESULT(cuMemHostRegister(memory, 16 * PAGE, 0), CUDA_ERROR_HOST_MEMORY_ALREADY_REGISTERED);
    GOOD(cuMemHostUnregister(memory));
    RESULT(cuMemHostUnregister(memory), CUDA_ERROR_HOST_MEMORY_NOT_REGISTERED);
    GOOD(cuMemHostRegister(memory, 16 * PAGE, 0));
    GOOD(cuMemHostUnregister(memory));
    free(memory);
}

static void test_nothing_allocated_and_freed(void)
{
    void *memory = &memory;

    GOOD(cuMemHostAlloc(&memory, 0, 0));
    GOOD(cuMemFreeHost(memory));
    GOOD(cuMemAllocHost(&memory, 0));
    GOOD(cuMemFreeHost(NULL));
    GOOD(cuMemFree(0));
}

static void test_unregister_what_is_not_registered(void)
{
    char *memory = aligned_alloc(4096, 8192), *pinned = host_alloc(4096);

    RESULT(cuMemHostUnregister(NULL), CUDA_ERROR_INVALID_VALUE);
    RESULT(cuMemHostUnregister(pinned), CUDA_ERROR_INVALID_VALUE);
    RESULT(cuMemHostUnregister(memory), CUDA_ERROR_HOST_MEMORY_NOT_REGISTERED);
    if (attribute(CU_DEVICE_ATTRIBUTE_HOST_REGISTER_SUPPORTED)) {
        GOOD(cuMemHostRegister(memory, 8192, 0));
        RESULT(cuMemHostUnregister(memory + 4096), CUDA_ERROR_INVALID_VALUE);
        GOOD(cuMemHostUnregister(memory));
    }
    free(memory);
}

const struct test host_tests[] = {
    {"nothing_allocated_and_freed", test_nothing_allocated_and_freed, false},
    {"unregister_what_is_not_registered", test_unregister_what_is_not_registered, false},
    {"host_alloc_and_free", test_host_alloc_and_free, false},
    {"host_flags", test_host_flags, false},
    {"host_free_of_other_memory", test_host_free_of_other_memory, false},
    {"kernel_writes_pinned_memory", test_kernel_writes_pinned_memory, false},
    {"kernel_takes_host_address", test_kernel_takes_host_address, false},
    {"kernel_reads_pinned_memory", test_kernel_reads_pinned_memory, false},
    {"many_pinned_pieces", test_many_pinned_pieces, false},
    {"copies_through_registered_memory", test_copies_through_registered_memory, false},
    {"register_twice", test_register_twice, false},
    {0},
};
