/* SPDX-License-Identifier: MIT */
/*
 * Device memory: taking it, giving it back, how much there is.
 *
 * Tests: guest/libcuda/calls/memory.c, guest/libcuda/model/memory.c
 */
#include <sys/mman.h>

#include "tests/cuda/check.h"

#define MIB ((size_t)1 << 20)

static void test_alloc_and_free(void)
{
    CUdeviceptr words;

    for (uint32_t i = 1; i <= 100; i++) {
        words = device_alloc(WORD * i);
        GOOD(cuMemsetD32(words, i, i));
        expect_words(words, i, i);
        GOOD(cuMemFree(words));
    }
}

static void test_alloc_of_nothing(void)
{
    CUdeviceptr address = 0;

    RESULT(cuMemAlloc(&address, 0), CUDA_ERROR_INVALID_VALUE);
    RESULT(cuMemAlloc(NULL, 16), CUDA_ERROR_INVALID_VALUE);
}

static void test_alloc_of_too_much(void)
{
    CUdeviceptr address = 0;

    RESULT(cuMemAlloc(&address, (size_t)1 << 46), CUDA_ERROR_OUT_OF_MEMORY);
    GOOD(cuMemFree(device_alloc(16)));
}

static void test_free_twice(void)
{
    const CUdeviceptr address = device_alloc(4 * MIB);

    GOOD(cuMemFree(address));
    RESULT(cuMemFree(address), CUDA_ERROR_INVALID_VALUE);
}

static void test_free_inside(void)
{
    const CUdeviceptr address = device_alloc(4 * MIB);

    RESULT(cuMemFree(address + 256), CUDA_ERROR_INVALID_VALUE);
    GOOD(cuMemFree(address));
}

/* The program gets nothing of its own there, even if it asks for it. */
static void test_addresses_are_the_devices(void)
{
    const size_t bytes = 64 * MIB;
    const CUdeviceptr address = device_alloc(bytes);

    for (size_t at = 0; at < bytes; at += 4 * MIB) {
        void *wanted = (void *)(uintptr_t)((address + at) & ~(CUdeviceptr)4095);
        void *got = mmap(wanted, 4096, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

        EXPECT(got != MAP_FAILED && got != wanted, "%p", got);
    }
}

static void test_alignment(void)
{
    static const size_t sizes[] = {1, 3, 100, 257, 4097, 100000};

    for (size_t i = 0; i < sizeof(sizes) / sizeof(sizes[0]); i++) {
        const CUdeviceptr address = device_alloc(sizes[i]);

        EXPECT(address % 256 == 0, "%#llx", address);
    }
}

static void test_allocations_do_not_overlap(void)
{
    CUdeviceptr pieces[64];

    for (uint32_t i = 0; i < 64; i++) {
        pieces[i] = device_alloc(1000);
        GOOD(cuMemsetD32(pieces[i], i, 250));
    }
    for (uint32_t i = 0; i < 64; i++) {
        expect_words(pieces[i], 250, i);
    }
}

static void test_freed_memory_comes_back(void)
{
    size_t free_bytes = 0, total = 0;

    GOOD(cuMemGetInfo(&free_bytes, &total));
    for (int i = 0; i < 24; i++) {
        GOOD(cuMemFree(device_alloc(free_bytes / 8)));
    }
}

static void test_info_follows_allocations(void)
{
    size_t before = 0, during = 0, after = 0, total = 0, same_total = 0;
    CUdeviceptr address;

    GOOD(cuMemGetInfo(&before, &total));
    address = device_alloc(64 * MIB);
    GOOD(cuMemGetInfo(&during, &same_total));
    EXPECT(same_total == total, "%zu and %zu", total, same_total);
    EXPECT(during + 64 * MIB <= before, "%zu, of %zu before", during, before);
    GOOD(cuMemFree(address));
    GOOD(cuMemGetInfo(&after, &total));
    EXPECT(after >= during + 64 * MIB, "%zu, of %zu before", after, before);
}

static void test_pitch(void)
{
    static const size_t widths[] = {1, 100, 512, 1000};

    for (size_t i = 0; i < sizeof(widths) / sizeof(widths[0]); i++) {
        CUdeviceptr address = 0;
        size_t pitch = 0;

        GOOD(cuMemAllocPitch(&address, &pitch, widths[i], 7, 4));
        EXPECT(pitch >= widths[i] && pitch % 16 == 0, "%zu for %zu", pitch, widths[i]);
        EXPECT(address % 256 == 0, "%#llx", address);
        GOOD(cuMemsetD8(address, 0x5a, 7 * pitch));
        GOOD(cuMemFree(address));
    }
}

static void test_address_range(void)
{
    const CUdeviceptr address = device_alloc(4 * MIB);
    CUdeviceptr base = 0;
    size_t bytes = 0;

    GOOD(cuMemGetAddressRange(&base, &bytes, address + 1234));
    EXPECT(base == address, "%#llx for %#llx", base, address);
    EXPECT(bytes >= 4 * MIB, "%zu bytes", bytes);
    GOOD(cuMemGetAddressRange(NULL, &bytes, address));
    GOOD(cuMemGetAddressRange(&base, NULL, address));
    ONE_OF(cuMemGetAddressRange(&base, &bytes, 0x10), CUDA_ERROR_NOT_FOUND,
           CUDA_ERROR_INVALID_VALUE);
}

static void test_free_waits_for_kernels(void)
{
    const CUstream stream = stream_create(CU_STREAM_NON_BLOCKING);
    const CUdeviceptr words = device_alloc(4 * MIB), sums = device_alloc(8);
    uint32_t sum[2] = {0};

    GOOD(cuMemsetD32(words, 1, MIB));
    GOOD(cuMemsetD32(sums, 0, 2));
    GOOD(cuCtxSynchronize());
    spin(200, stream);
    reduce(words, MIB, sums, stream);
    GOOD(cuMemFree(words));
    GOOD(cuCtxSynchronize());
    GOOD(cuMemcpyDtoH(sum, sums, sizeof(sum)));
    EXPECT(sum[0] == MIB && sum[1] == 0, "%u", sum[0]);
}

/* Without managed memory the call says so, as the attribute does. */
static void test_managed_memory(void)
{
    const bool managed = attribute(CU_DEVICE_ATTRIBUTE_MANAGED_MEMORY) == 1;
    CUdeviceptr address = 0;
    uint32_t *words;
    int is = 0;

    if (!managed) {
        RESULT(cuMemAllocManaged(&address, 4096, CU_MEM_ATTACH_GLOBAL), CUDA_ERROR_NOT_SUPPORTED);
        skip("no managed memory, as the attribute says");
    }
    GOOD(cuMemAllocManaged(&address, 4096, CU_MEM_ATTACH_GLOBAL));
    GOOD(cuPointerGetAttribute(&is, CU_POINTER_ATTRIBUTE_IS_MANAGED, address));
    EXPECT(is, "not managed");
    words = (uint32_t *)(uintptr_t)address; /* the host may use the address as well */
    words[0] = 1;
    fill(address + 4, 1023, 2, NULL);
    GOOD(cuCtxSynchronize());
    EXPECT(words[0] == 1 && words[1] == 2 && words[1023] == 2, "%u %u %u", words[0], words[1],
           words[1023]);
    GOOD(cuMemFree(address));
}

const struct test memory_tests[] = {
    {"alloc_and_free", test_alloc_and_free, false},
    {"alloc_of_nothing", test_alloc_of_nothing, false},
    {"alloc_of_too_much", test_alloc_of_too_much, false},
    {"free_twice", test_free_twice, false},
    {"free_inside", test_free_inside, false},
    {"addresses_are_the_devices", test_addresses_are_the_devices, false},
    {"alignment", test_alignment, false},
    {"allocations_do_not_overlap", test_allocations_do_not_overlap, false},
    {"freed_memory_comes_back", test_freed_memory_comes_back, false},
    {"info_follows_allocations", test_info_follows_allocations, false},
    {"pitch", test_pitch, false},
    {"address_range", test_address_range, false},
    {"free_waits_for_kernels", test_free_waits_for_kernels, false},
    {"managed_memory", test_managed_memory, false},
    {0},
};
