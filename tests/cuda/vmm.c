/* SPDX-License-Identifier: MIT */
/*
 * Addresses and memory taken apart from each other, and mapped by the program itself.
 *
 * Tests: guest/libcuda/calls/mapping.c, guest/libcuda/state/reserve.c
 */
#include "tests/cuda/check.h"

#define WORDS(bytes) ((bytes) / WORD)

static CUmemAllocationProp properties(void)
{
    return (CUmemAllocationProp){.type = CU_MEM_ALLOCATION_TYPE_PINNED,
                                 .requestedHandleTypes = CU_MEM_HANDLE_TYPE_NONE,
                                 .location = {.type = CU_MEM_LOCATION_TYPE_DEVICE, .id = device}};
}

/* Of sizes and addresses. Skips the test where the device maps nothing. */
static size_t granularity(void)
{
    const CUmemAllocationProp prop = properties();
    size_t bytes = 0;

    if (attribute(CU_DEVICE_ATTRIBUTE_VIRTUAL_MEMORY_MANAGEMENT_SUPPORTED) != 1) {
        skip("no mapping of memory, as the attribute says");
    }
    GOOD(cuMemGetAllocationGranularity(&bytes, &prop, CU_MEM_ALLOC_GRANULARITY_MINIMUM));
    EXPECT(bytes >= 4096 && bytes % 4096 == 0, "%zu bytes", bytes);
    return bytes;
}

static CUdeviceptr reserve(size_t bytes)
{
    CUdeviceptr address = 0;

    GOOD(cuMemAddressReserve(&address, bytes, 0, 0, 0));
    EXPECT(address != 0, "no address");
    return address;
}

static CUmemGenericAllocationHandle create(size_t bytes)
{
    const CUmemAllocationProp prop = properties();
    CUmemGenericAllocationHandle handle = 0;

    GOOD(cuMemCreate(&handle, bytes, &prop, 0));
    return handle;
}

static CUresult grant(CUdeviceptr address, size_t bytes)
{
    const CUmemAccessDesc access = {.location = {.type = CU_MEM_LOCATION_TYPE_DEVICE, .id = device},
                                    .flags = CU_MEM_ACCESS_FLAGS_PROT_READWRITE};

    return cuMemSetAccess(address, bytes, &access, 1);
}

static void map(CUdeviceptr address, size_t bytes, CUmemGenericAllocationHandle handle)
{
    GOOD(cuMemMap(address, bytes, 0, handle, 0));
    GOOD(grant(address, bytes));
}

/* New memory there, which nothing but the mapping keeps. */
static void map_new(CUdeviceptr address, size_t bytes)
{
    const CUmemGenericAllocationHandle handle = create(bytes);

    map(address, bytes, handle);
    GOOD(cuMemRelease(handle));
}

static size_t free_memory(void)
{
    size_t available = 0, total = 0;

    GOOD(cuMemGetInfo(&available, &total));
    return available;
}

static void test_granularity(void)
{
    const size_t least = granularity();
    const CUmemAllocationProp prop = properties();
    size_t best = 0;

    EXPECT((least & (least - 1)) == 0, "%zu", least);
    GOOD(cuMemGetAllocationGranularity(&best, &prop, CU_MEM_ALLOC_GRANULARITY_RECOMMENDED));
    EXPECT(best >= least && best % least == 0, "%zu and %zu", least, best);
    RESULT(cuMemGetAllocationGranularity(NULL, &prop, CU_MEM_ALLOC_GRANULARITY_MINIMUM),
           CUDA_ERROR_INVALID_VALUE);
}

static void test_mapped_memory(void)
{
    const size_t bytes = granularity();
    const CUdeviceptr words = reserve(bytes), sum = device_alloc(8);
    const CUmemGenericAllocationHandle handle = create(bytes);

    EXPECT(words % bytes == 0, "%#llx", words);
    map(words, bytes, handle);
    GOOD(cuMemsetD32(sum, 0, 2));
    fill(words, WORDS(bytes), 3, NULL);
    reduce(words, WORDS(bytes), sum, NULL);
    expect_words(words, WORDS(bytes), 3);
    expect_words(sum, 1, (uint32_t)(3 * WORDS(bytes)));
    GOOD(cuMemUnmap(words, bytes));
    GOOD(cuMemRelease(handle));
    GOOD(cuMemAddressFree(words, bytes));
}

static void test_two_mappings_are_one_buffer(void)
{
    const size_t bytes = granularity(), seam = bytes - 400;
    const CUdeviceptr words = reserve(2 * bytes), other = device_alloc(2 * bytes);
    const CUdeviceptr sum = device_alloc(8);
    uint8_t sent[800], seen[800];

    GOOD(cuMemMap(words, bytes, 0, create(bytes), 0));
    GOOD(cuMemMap(words + bytes, bytes, 0, create(bytes), 0));
    GOOD(grant(words, 2 * bytes));
    fill(words, WORDS(2 * bytes), 1, NULL);
    GOOD(cuMemsetD32(sum, 0, 2));
    reduce(words, WORDS(2 * bytes), sum, NULL);
    expect_words(sum, 1, (uint32_t)WORDS(2 * bytes));
    pattern(sent, sizeof(sent), 4);
    GOOD(cuMemcpyHtoD(words + seam, sent, sizeof(sent)));
    GOOD(cuMemcpyDtoD(other, words, 2 * bytes));
    GOOD(cuMemcpyDtoH(seen, other + seam, sizeof(seen)));
    EXPECT(is_pattern(seen, sizeof(seen), 4), "other bytes at the seam");
    GOOD(cuMemsetD32(words + seam, 6, 200));
    expect_words(words + seam, 200, 6);
    expect_words(words + seam + 800, 100, 1);
}

/* There is what was written at the first address, and what is written there from now on. */
static void test_memory_is_mapped_elsewhere(void)
{
    const size_t bytes = granularity();
    const CUdeviceptr one = reserve(bytes), other = reserve(2 * bytes);
    const CUmemGenericAllocationHandle handle = create(bytes);

    map(one, bytes, handle);
    fill(one, WORDS(bytes), 7, NULL);
    GOOD(cuCtxSynchronize());
    GOOD(cuMemUnmap(one, bytes));
    map(other + bytes, bytes, handle);
    expect_words(other + bytes, WORDS(bytes), 7);
    map(one, bytes, handle);
    fill(one, WORDS(bytes), 8, NULL);
    GOOD(cuCtxSynchronize());
    expect_words(other + bytes, WORDS(bytes), 8);
}

static void test_mapping_keeps_memory(void)
{
    const size_t bytes = granularity();
    const CUdeviceptr words = reserve(bytes);

    map_new(words, bytes);
    fill(words, WORDS(bytes), 8, NULL);
    map_new(reserve(bytes), bytes); /* the memory is not given to another one */
    expect_words(words, WORDS(bytes), 8);
}

static void test_unmapped_memory_comes_back(void)
{
    const size_t bytes = 64 * granularity(), before = free_memory();
    const CUdeviceptr words = reserve(bytes);
    const CUmemGenericAllocationHandle handle = create(bytes);
    size_t during;

    EXPECT(free_memory() + bytes <= before, "%zu, of %zu before", free_memory(), before);
    map(words, bytes, handle);
    during = free_memory();
    GOOD(cuMemRelease(handle));
    EXPECT(free_memory() < during + bytes, "%zu, of %zu before", free_memory(), during);
    GOOD(cuMemUnmap(words, bytes));
    EXPECT(free_memory() >= during + bytes, "%zu, of %zu before", free_memory(), during);
    GOOD(cuMemAddressFree(words, bytes));
}

/* As allocators with segments that grow do it: more addresses than there is memory. */
static void test_buffer_grows(void)
{
    const size_t bytes = granularity();
    size_t available = 0, total = 0, range;
    CUdeviceptr words, sum;

    GOOD(cuMemGetInfo(&available, &total));
    range = (total + total / 8) / bytes * bytes;
    words = reserve(range);
    sum = device_alloc(8);
    GOOD(cuMemsetD32(sum, 0, 2));
    for (uint32_t i = 0; i < 16; i++) {
        map_new(words + bytes * i, bytes);
        fill(words + bytes * i, WORDS(bytes), i, NULL);
    }
    reduce(words, WORDS(16 * bytes), sum, NULL);
    expect_words(sum, 1, (uint32_t)(WORDS(bytes) * 120));
    for (uint32_t i = 15; i >= 4; i--) {
        GOOD(cuMemUnmap(words + bytes * i, bytes));
    }
    expect_words(words + 3 * bytes, WORDS(bytes), 3);
    map_new(words + 4 * bytes, bytes);
    fill(words, WORDS(5 * bytes), 9, NULL);
    expect_words(words, WORDS(5 * bytes), 9);
    for (uint32_t i = 0; i < 5; i++) {
        GOOD(cuMemUnmap(words + bytes * i, bytes));
    }
    GOOD(cuMemAddressFree(words, range));
}

static void test_addresses(void)
{
    const size_t bytes = granularity(), far = (size_t)1 << 30;
    CUdeviceptr address = 0;

    RESULT(cuMemAddressReserve(&address, 0, 0, 0, 0), CUDA_ERROR_INVALID_VALUE);
    RESULT(cuMemAddressReserve(&address, bytes + 1, 0, 0, 0), CUDA_ERROR_INVALID_VALUE);
    RESULT(cuMemAddressReserve(&address, bytes, 3 * bytes, 0, 0), CUDA_ERROR_INVALID_VALUE);
    RESULT(cuMemAddressReserve(&address, bytes, 0, 0, 1), CUDA_ERROR_INVALID_VALUE);
    RESULT(cuMemAddressReserve(NULL, bytes, 0, 0, 0), CUDA_ERROR_INVALID_VALUE);
    GOOD(cuMemAddressReserve(&address, bytes, far, 0, 0));
    EXPECT(address % far == 0, "%#llx", address);
    RESULT(cuMemAddressFree(address, 2 * bytes), CUDA_ERROR_INVALID_VALUE);
    GOOD(cuMemAddressFree(address, bytes));
    RESULT(cuMemAddressFree(address, bytes), CUDA_ERROR_INVALID_VALUE);
}

static void test_memory_of_bad_properties(void)
{
    const size_t bytes = granularity();
    CUmemAllocationProp prop = properties();
    CUmemGenericAllocationHandle handle = 0;

    RESULT(cuMemCreate(&handle, 0, &prop, 0), CUDA_ERROR_INVALID_VALUE);
    RESULT(cuMemCreate(&handle, bytes + bytes / 2, &prop, 0), CUDA_ERROR_INVALID_VALUE);
    RESULT(cuMemCreate(&handle, bytes, &prop, 1), CUDA_ERROR_INVALID_VALUE);
    RESULT(cuMemCreate(&handle, bytes, NULL, 0), CUDA_ERROR_INVALID_VALUE);
    RESULT(cuMemCreate(&handle, (size_t)1 << 46, &prop, 0), CUDA_ERROR_OUT_OF_MEMORY);
    prop.type = CU_MEM_ALLOCATION_TYPE_INVALID;
    RESULT(cuMemCreate(&handle, bytes, &prop, 0), CUDA_ERROR_INVALID_VALUE);
    prop = properties();
    prop.location.id = 4096;
    ONE_OF(cuMemCreate(&handle, bytes, &prop, 0), CUDA_ERROR_INVALID_VALUE,
           CUDA_ERROR_INVALID_DEVICE);
}

static void test_bad_mappings(void)
{
    const size_t bytes = granularity();
    const CUdeviceptr words = reserve(4 * bytes), other = device_alloc(4 * bytes);
    const CUmemGenericAllocationHandle one = create(bytes), two = create(2 * bytes);

    RESULT(cuMemMap(words + bytes / 2, bytes, 0, one, 0), CUDA_ERROR_INVALID_VALUE);
    ONE_OF(cuMemMap(words, bytes / 2, 0, one, 0), CUDA_ERROR_INVALID_VALUE,
           CUDA_ERROR_NOT_SUPPORTED);
    ONE_OF(cuMemMap(words, 2 * bytes, 0, one, 0), CUDA_ERROR_INVALID_VALUE,
           CUDA_ERROR_NOT_SUPPORTED);
    RESULT(cuMemMap(words + 3 * bytes, 2 * bytes, 0, two, 0), CUDA_ERROR_INVALID_VALUE);
    RESULT(cuMemMap(other, bytes, 0, one, 0), CUDA_ERROR_INVALID_VALUE);
    RESULT(cuMemMap(words, bytes, 0, one, 1), CUDA_ERROR_INVALID_VALUE);
    map(words, 2 * bytes, two);
    RESULT(cuMemMap(words + bytes, bytes, 0, one, 0), CUDA_ERROR_INVALID_VALUE);
    RESULT(cuMemUnmap(words, bytes), CUDA_ERROR_INVALID_VALUE);
    RESULT(grant(words, 3 * bytes), CUDA_ERROR_INVALID_VALUE);
    RESULT(cuMemFree(words), CUDA_ERROR_INVALID_VALUE);
    fill(words, WORDS(2 * bytes), 2, NULL);
    expect_words(words, WORDS(2 * bytes), 2);
}

static void test_access_to_mapping(void)
{
    const CUmemLocation here = {.type = CU_MEM_LOCATION_TYPE_DEVICE, .id = device};
    const size_t bytes = granularity();
    const CUdeviceptr words = reserve(2 * bytes);
    unsigned long long flags = 77;

    GOOD(cuMemMap(words, bytes, 0, create(bytes), 0));
    GOOD(cuMemGetAccess(&flags, &here, words));
    EXPECT(flags == CU_MEM_ACCESS_FLAGS_PROT_NONE, "%llu", flags);
    GOOD(grant(words, bytes));
    GOOD(cuMemGetAccess(&flags, &here, words));
    EXPECT(flags == CU_MEM_ACCESS_FLAGS_PROT_READWRITE, "%llu", flags);
    GOOD(cuMemUnmap(words, bytes));
    GOOD(cuMemMap(words, bytes, 0, create(bytes), 0));
    GOOD(cuMemGetAccess(&flags, &here, words));
    EXPECT(flags == CU_MEM_ACCESS_FLAGS_PROT_NONE, "%llu", flags);
}

static void test_handle_of_mapping(void)
{
    const size_t bytes = granularity();
    const CUdeviceptr words = reserve(bytes);
    const CUmemGenericAllocationHandle handle = create(bytes);
    CUmemGenericAllocationHandle seen = 0;
    CUmemAllocationProp prop = {0};

    RESULT(cuMemRetainAllocationHandle(&seen, (void *)(uintptr_t)words), CUDA_ERROR_INVALID_VALUE);
    map(words, bytes, handle);
    GOOD(cuMemRetainAllocationHandle(&seen, (void *)(uintptr_t)(words + 100)));
    EXPECT(seen == handle, "%#llx for %#llx", seen, handle);
    GOOD(cuMemRelease(handle));
    GOOD(cuMemGetAllocationPropertiesFromHandle(&prop, seen));
    EXPECT(prop.type == CU_MEM_ALLOCATION_TYPE_PINNED, "%d", (int)prop.type);
    EXPECT(prop.location.type == CU_MEM_LOCATION_TYPE_DEVICE && prop.location.id == device,
           "%d of type %d", prop.location.id, (int)prop.location.type);
    GOOD(cuMemUnmap(words, bytes));
    map(words, bytes, seen); /* the second reference kept it */
    GOOD(cuMemRelease(seen));
}

static void test_pointer_of_mapping(void)
{
    const size_t bytes = granularity();
    const CUdeviceptr words = reserve(2 * bytes);
    CUdeviceptr start = 0;
    size_t size = 0;
    unsigned type = 0;
    int ordinal = -1, mapped = 0;

    map_new(words + bytes, bytes);
    GOOD(cuPointerGetAttribute(&type, CU_POINTER_ATTRIBUTE_MEMORY_TYPE, words + bytes + 5));
    EXPECT(type == CU_MEMORYTYPE_DEVICE, "%u", type);
    GOOD(cuPointerGetAttribute(&ordinal, CU_POINTER_ATTRIBUTE_DEVICE_ORDINAL, words + bytes));
    EXPECT(ordinal == device, "%d", ordinal);
    GOOD(cuPointerGetAttribute(&mapped, CU_POINTER_ATTRIBUTE_MAPPED, words + bytes));
    EXPECT(mapped & 1, "not mapped");
    GOOD(cuPointerGetAttribute(&start, CU_POINTER_ATTRIBUTE_RANGE_START_ADDR, words + bytes + 5));
    EXPECT(start == words, "%#llx for %#llx", start, words);
    GOOD(cuPointerGetAttribute(&size, CU_POINTER_ATTRIBUTE_RANGE_SIZE, words + bytes));
    EXPECT(size == 2 * bytes, "%zu", size);
    GOOD(cuMemGetAddressRange(&start, &size, words + bytes + 5));
    EXPECT(start == words + bytes && size == bytes, "%#llx, %zu bytes", start, size);
}

const struct test vmm_tests[] = {
    {"granularity", test_granularity, false},
    {"mapped_memory", test_mapped_memory, false},
    {"two_mappings_are_one_buffer", test_two_mappings_are_one_buffer, false},
    {"memory_is_mapped_elsewhere", test_memory_is_mapped_elsewhere, false},
    {"mapping_keeps_memory", test_mapping_keeps_memory, false},
    {"unmapped_memory_comes_back", test_unmapped_memory_comes_back, false},
    {"buffer_grows", test_buffer_grows, false},
    {"addresses", test_addresses, false},
    {"memory_of_bad_properties", test_memory_of_bad_properties, false},
    {"bad_mappings", test_bad_mappings, false},
    {"access_to_mapping", test_access_to_mapping, false},
    {"handle_of_mapping", test_handle_of_mapping, false},
    {"pointer_of_mapping", test_pointer_of_mapping, false},
    {0},
};
