/* SPDX-License-Identifier: MIT */
/*
 * Managed memory: the host and kernels have it by one address, what is said of it is remembered,
 * and calls about it refuse what is none.
 *
 * Tests: guest/libcuda/calls/managed.c, guest/libcuda/calls/memory.c, guest/libcuda/calls/pointer.c
 */
#include "tests/cuda/check.h"

#include <string.h>

#define COUNT 10000u /* words */

static uint32_t *managed_alloc(size_t bytes)
{
    CUdeviceptr address = 0;

    GOOD(cuMemAllocManaged(&address, bytes, CU_MEM_ATTACH_GLOBAL));
    EXPECT(address % 256 == 0, "at 0x%llx", (unsigned long long)address);
    return (uint32_t *)(uintptr_t)address;
}

static CUdeviceptr address_of(const void *memory)
{
    return (CUdeviceptr)(uintptr_t)memory;
}

/* To and fro, without a copy: kernels see what the host wrote, and the host what they did. */
static void test_managed_both_sides(void)
{
    uint32_t *words = managed_alloc(COUNT * WORD);
    long long *sum = (long long *)(void *)managed_alloc(8);

    for (unsigned turn = 1; turn <= 3; turn++) {
        *sum = 0;
        for (unsigned i = 0; i < COUNT; i++) {
            words[i] = i * turn;
        }
        reduce(address_of(words), COUNT, address_of(sum), NULL);
        GOOD(cuCtxSynchronize());
        EXPECT(*sum == (long long)turn * COUNT * (COUNT - 1) / 2, "turn %u: %lld", turn, *sum);
        fill(address_of(words), COUNT, turn, NULL);
        GOOD(cuCtxSynchronize());
        for (unsigned i = 0; i < COUNT; i++) {
            EXPECT(words[i] == turn, "turn %u, word %u: %u", turn, i, words[i]);
        }
    }
    GOOD(cuMemFree(address_of(words)));
    GOOD(cuMemFree(address_of(sum)));
    RESULT(cuMemFree(address_of(sum)), CUDA_ERROR_INVALID_VALUE);
}

/* By each kind of copy, on either side of it. */
static void test_managed_copies(void)
{
    static uint8_t plain[4096];
    uint8_t *one = (uint8_t *)managed_alloc(4096), *other = (uint8_t *)managed_alloc(4096);
    const CUdeviceptr there = device_alloc(4096);

    pattern(plain, 4096, 1);
    GOOD(cuMemcpyHtoD(address_of(one), plain, 4096));
    GOOD(cuCtxSynchronize());
    EXPECT(is_pattern(one, 4096, 1), "HtoD");
    GOOD(cuMemcpyDtoD(there, address_of(one), 4096));
    GOOD(cuMemcpyDtoH(other, there, 4096));
    EXPECT(is_pattern(other, 4096, 1), "DtoD and DtoH");
    pattern(one, 4096, 2);
    GOOD(cuMemcpy(there, address_of(one), 4096));
    GOOD(cuMemcpy(address_of(other), there, 4096));
    GOOD(cuCtxSynchronize());
    EXPECT(is_pattern(other, 4096, 2), "to the device and back");
    pattern(one, 4096, 3);
    GOOD(cuMemcpy(address_of(other), address_of(one), 4096));
    GOOD(cuCtxSynchronize());
    EXPECT(is_pattern(other, 4096, 3), "from one to the other");
    GOOD(cuMemsetD8(address_of(other), 7, 4096));
    GOOD(cuCtxSynchronize());
    EXPECT(other[0] == 7 && other[4095] == 7, "%u, %u", other[0], other[4095]);
    RESULT(cuMemcpyHtoD(address_of(one) + 1, plain, 4096), CUDA_ERROR_INVALID_VALUE);
}

static void test_managed_pointers(void)
{
    uint8_t *memory = (uint8_t *)managed_alloc(5000);
    const CUdeviceptr inside = address_of(memory + 100);
    unsigned type = 0, managed = 0;
    CUdeviceptr device_pointer = 0, base = 0;
    void *host_pointer = NULL;
    size_t bytes = 0;

    GOOD(cuPointerGetAttribute(&managed, CU_POINTER_ATTRIBUTE_IS_MANAGED, inside));
    GOOD(cuPointerGetAttribute(&type, CU_POINTER_ATTRIBUTE_MEMORY_TYPE, inside));
    GOOD(cuPointerGetAttribute(&device_pointer, CU_POINTER_ATTRIBUTE_DEVICE_POINTER, inside));
    GOOD(cuPointerGetAttribute(&host_pointer, CU_POINTER_ATTRIBUTE_HOST_POINTER, inside));
    GOOD(cuMemGetAddressRange(&base, &bytes, inside));
    EXPECT(managed == 1 && type == CU_MEMORYTYPE_DEVICE, "managed %u, type %u", managed, type);
    EXPECT(device_pointer == inside && host_pointer == memory + 100, "0x%llx, %p",
           (unsigned long long)device_pointer, host_pointer);
    EXPECT(base == address_of(memory) && bytes == 5000, "%zu bytes", bytes);
    GOOD(cuPointerGetAttribute(&managed, CU_POINTER_ATTRIBUTE_IS_MANAGED, device_alloc(8)));
    EXPECT(managed == 0, "device memory is not");
    /* Freed as device memory, and from its start. */
    RESULT(cuMemFreeHost(memory), CUDA_ERROR_INVALID_VALUE);
    RESULT(cuMemFree(inside), CUDA_ERROR_INVALID_VALUE);
    RESULT(cuMemHostRegister(memory, 4096, 0), CUDA_ERROR_INVALID_VALUE);
    RESULT(cuMemHostGetDevicePointer(&device_pointer, memory, 0), CUDA_ERROR_INVALID_VALUE);
    GOOD(cuMemFree(address_of(memory)));
    RESULT(cuPointerGetAttribute(&managed, CU_POINTER_ATTRIBUTE_IS_MANAGED, inside),
           CUDA_ERROR_INVALID_VALUE);
}

static void test_wrong_managed(void)
{
    CUdeviceptr address;

    RESULT(cuMemAllocManaged(&address, 0, CU_MEM_ATTACH_GLOBAL), CUDA_ERROR_INVALID_VALUE);
    RESULT(cuMemAllocManaged(&address, 64, 0), CUDA_ERROR_INVALID_VALUE);
    RESULT(cuMemAllocManaged(&address, 64, 3), CUDA_ERROR_INVALID_VALUE);
    RESULT(cuMemAllocManaged(&address, 64, CU_MEM_ATTACH_SINGLE), CUDA_ERROR_INVALID_VALUE);
    RESULT(cuMemAllocManaged(NULL, 64, CU_MEM_ATTACH_GLOBAL), CUDA_ERROR_INVALID_VALUE);
    GOOD(cuMemAllocManaged(&address, 64, CU_MEM_ATTACH_HOST));
    GOOD(cuMemFree(address));
    EXPECT(attribute(CU_DEVICE_ATTRIBUTE_MANAGED_MEMORY) == 1, "there is such memory");
}

/* The calls as they were first, which cuda.h has no more names for. */
typedef CUresult (*advise_fn)(CUdeviceptr, size_t, CUmem_advise, CUdevice);
typedef CUresult (*prefetch_fn)(CUdeviceptr, size_t, CUdevice, CUstream);

static void *first_version(const char *name)
{
    CUdriverProcAddressQueryResult found;
    void *function = NULL;

    GOOD(cuGetProcAddress(name, &function, 8000, CU_GET_PROC_ADDRESS_DEFAULT, &found));
    return function;
}

static int range_attribute(CUmem_range_attribute which, const void *memory, size_t bytes)
{
    int value = -77;

    GOOD(cuMemRangeGetAttribute(&value, 4, which, address_of(memory), bytes));
    return value;
}

static void test_managed_hints(void)
{
    const advise_fn advise = (advise_fn)first_version("cuMemAdvise");
    const prefetch_fn prefetch = (prefetch_fn)first_version("cuMemPrefetchAsync");
    const void *memory = managed_alloc(10000);
    const CUdeviceptr address = address_of(memory);
    int list[3], number = 0;
    void *data[] = {list, &number};
    size_t sizes[] = {sizeof(list), 4};
    CUmem_range_attribute which[] = {CU_MEM_RANGE_ATTRIBUTE_ACCESSED_BY,
                                     CU_MEM_RANGE_ATTRIBUTE_LAST_PREFETCH_LOCATION};

    EXPECT(range_attribute(CU_MEM_RANGE_ATTRIBUTE_READ_MOSTLY, memory, 10000) == 0, "nothing said");
    EXPECT(range_attribute(CU_MEM_RANGE_ATTRIBUTE_PREFERRED_LOCATION, memory, 10000) == -2, "none");
    EXPECT(range_attribute(CU_MEM_RANGE_ATTRIBUTE_ACCESSED_BY, memory, 10000) == -2, "nobody");
    GOOD(advise(address, 10000, CU_MEM_ADVISE_SET_READ_MOSTLY, device));
    GOOD(advise(address, 10000, CU_MEM_ADVISE_SET_PREFERRED_LOCATION, CU_DEVICE_CPU));
    GOOD(advise(address, 10000, CU_MEM_ADVISE_SET_ACCESSED_BY, device));
    EXPECT(range_attribute(CU_MEM_RANGE_ATTRIBUTE_READ_MOSTLY, memory, 10000) == 1, "said");
    EXPECT(range_attribute(CU_MEM_RANGE_ATTRIBUTE_PREFERRED_LOCATION, memory, 10000) == -1, "host");
    GOOD(advise(address, 10000, CU_MEM_ADVISE_SET_PREFERRED_LOCATION, device));
    EXPECT(range_attribute(CU_MEM_RANGE_ATTRIBUTE_PREFERRED_LOCATION, memory, 10000) == device,
           "device");
    GOOD(prefetch(address, 10000, device, NULL));
    GOOD(cuCtxSynchronize());
    GOOD(cuMemRangeGetAttributes(data, sizes, which, 2, address, 10000));
    EXPECT(list[0] == device && list[1] == -2 && list[2] == -2, "%d, %d, %d", list[0], list[1],
           list[2]);
    EXPECT(number == device, "prefetched to %d", number);
    GOOD(prefetch(address, 10000, CU_DEVICE_CPU, NULL));
    GOOD(advise(address, 10000, CU_MEM_ADVISE_UNSET_READ_MOSTLY, device));
    GOOD(advise(address, 10000, CU_MEM_ADVISE_UNSET_PREFERRED_LOCATION, device));
    GOOD(advise(address, 10000, CU_MEM_ADVISE_UNSET_ACCESSED_BY, device));
    EXPECT(range_attribute(CU_MEM_RANGE_ATTRIBUTE_READ_MOSTLY, memory, 10000) == 0, "taken back");
    EXPECT(range_attribute(CU_MEM_RANGE_ATTRIBUTE_PREFERRED_LOCATION, memory, 10000) == -2, "none");
}

static void test_wrong_managed_hints(void)
{
    const advise_fn advise = (advise_fn)first_version("cuMemAdvise");
    const prefetch_fn prefetch = (prefetch_fn)first_version("cuMemPrefetchAsync");
    const CUdeviceptr address = address_of(managed_alloc(10000)), other = device_alloc(4096);
    int value[4];

    RESULT(advise(address, 20000, CU_MEM_ADVISE_SET_READ_MOSTLY, device), CUDA_ERROR_INVALID_VALUE);
    RESULT(advise(address, 0, CU_MEM_ADVISE_SET_READ_MOSTLY, device), CUDA_ERROR_INVALID_VALUE);
    RESULT(advise(other, 4096, CU_MEM_ADVISE_SET_READ_MOSTLY, device), CUDA_ERROR_INVALID_VALUE);
    RESULT(advise(address, 10000, (CUmem_advise)99, device), CUDA_ERROR_INVALID_VALUE);
    RESULT(prefetch(address, 20000, device, NULL), CUDA_ERROR_INVALID_VALUE);
    RESULT(prefetch(address, 0, device, NULL), CUDA_ERROR_INVALID_VALUE);
    RESULT(prefetch(other, 4096, device, NULL), CUDA_ERROR_INVALID_VALUE);
    RESULT(prefetch(address, 10000, 9, NULL), CUDA_ERROR_INVALID_DEVICE);
    RESULT(cuMemRangeGetAttribute(value, 8, CU_MEM_RANGE_ATTRIBUTE_READ_MOSTLY, address, 100),
           CUDA_ERROR_INVALID_VALUE);
    RESULT(cuMemRangeGetAttribute(value, 4, CU_MEM_RANGE_ATTRIBUTE_READ_MOSTLY, address, 20000),
           CUDA_ERROR_INVALID_VALUE);
    RESULT(cuMemRangeGetAttribute(value, 4, CU_MEM_RANGE_ATTRIBUTE_READ_MOSTLY, address, 0),
           CUDA_ERROR_INVALID_VALUE);
    RESULT(cuMemRangeGetAttribute(value, 4, CU_MEM_RANGE_ATTRIBUTE_READ_MOSTLY, other, 4),
           CUDA_ERROR_INVALID_VALUE);
}

static void test_managed_and_streams(void)
{
    const CUdeviceptr address = address_of(managed_alloc(10000));
    const CUstream stream = stream_create(CU_STREAM_DEFAULT);

    GOOD(cuStreamAttachMemAsync(stream, address, 0, CU_MEM_ATTACH_SINGLE));
    GOOD(cuStreamAttachMemAsync(stream, address, 10000, CU_MEM_ATTACH_GLOBAL));
    GOOD(cuStreamAttachMemAsync(stream, address, 0, CU_MEM_ATTACH_HOST));
    GOOD(cuStreamSynchronize(stream));
    RESULT(cuStreamAttachMemAsync(stream, address, 100, CU_MEM_ATTACH_GLOBAL),
           CUDA_ERROR_INVALID_VALUE);
    RESULT(cuStreamAttachMemAsync(NULL, address, 0, CU_MEM_ATTACH_SINGLE),
           CUDA_ERROR_INVALID_VALUE);
    RESULT(cuStreamAttachMemAsync(stream, address, 0, 3), CUDA_ERROR_INVALID_VALUE);
}

const struct test managed_tests[] = {
    {"managed_both_sides", test_managed_both_sides, false},
    {"managed_copies", test_managed_copies, false},
    {"managed_pointers", test_managed_pointers, false},
    {"wrong_managed", test_wrong_managed, false},
    {"managed_hints", test_managed_hints, false},
    {"wrong_managed_hints", test_wrong_managed_hints, false},
    {"managed_and_streams", test_managed_and_streams, false},
    {NULL, NULL, false},
};
