/* SPDX-License-Identifier: MIT */
/*
 * What a pointer says of the memory behind it.
 *
 * Tests: guest/libcuda/calls/pointer.c
 */
#include "tests/cuda/check.h"

#include <stdlib.h>

#define BYTES ((size_t)4 << 20)

static CUdeviceptr address_of(const void *memory)
{
    return (CUdeviceptr)(uintptr_t)memory;
}

static unsigned memory_type(CUdeviceptr address)
{
    unsigned type = 0;

    GOOD(cuPointerGetAttribute(&type, CU_POINTER_ATTRIBUTE_MEMORY_TYPE, address));
    return type;
}

static void test_device_pointer(void)
{
    const CUdeviceptr address = device_alloc(BYTES);
    CUdeviceptr seen = 0;
    CUcontext owner = NULL;
    int ordinal = -1, managed = -1;

    EXPECT(memory_type(address) == CU_MEMORYTYPE_DEVICE, "%u", memory_type(address));
    EXPECT(memory_type(address + 77) == CU_MEMORYTYPE_DEVICE, "%u", memory_type(address + 77));
    GOOD(cuPointerGetAttribute(&seen, CU_POINTER_ATTRIBUTE_DEVICE_POINTER, address + 77));
    EXPECT(seen == address + 77, "%#llx for %#llx", seen, address + 77);
    GOOD(cuPointerGetAttribute(&owner, CU_POINTER_ATTRIBUTE_CONTEXT, address));
    EXPECT(owner == context, "another one");
    GOOD(cuPointerGetAttribute(&ordinal, CU_POINTER_ATTRIBUTE_DEVICE_ORDINAL, address));
    EXPECT(ordinal == device, "%d", ordinal);
    GOOD(cuPointerGetAttribute(&managed, CU_POINTER_ATTRIBUTE_IS_MANAGED, address));
    EXPECT(!managed, "managed");
}

static void test_range_of_pointer(void)
{
    const CUdeviceptr address = device_alloc(BYTES);
    CUdeviceptr start = 0;
    size_t bytes = 0;

    GOOD(cuPointerGetAttribute(&start, CU_POINTER_ATTRIBUTE_RANGE_START_ADDR, address + 999));
    EXPECT(start == address, "%#llx for %#llx", start, address);
    GOOD(cuPointerGetAttribute(&bytes, CU_POINTER_ATTRIBUTE_RANGE_SIZE, address + 999));
    EXPECT(bytes >= BYTES, "%zu", bytes);
}

static void test_host_pointer(void)
{
    char *memory = host_alloc(4096);
    void *seen = NULL;

    EXPECT(memory_type(address_of(memory + 5)) == CU_MEMORYTYPE_HOST, "another type");
    GOOD(cuPointerGetAttribute(&seen, CU_POINTER_ATTRIBUTE_HOST_POINTER, address_of(memory + 5)));
    EXPECT(seen == memory + 5, "%p for %p", seen, (void *)(memory + 5));
    GOOD(cuMemFreeHost(memory));
}

static void test_unknown_pointer(void)
{
    void *memory = malloc(4096);
    unsigned type = 0;

    RESULT(cuPointerGetAttribute(&type, CU_POINTER_ATTRIBUTE_MEMORY_TYPE, address_of(memory)),
           CUDA_ERROR_INVALID_VALUE);
    free(memory);
}

static void test_freed_pointer(void)
{
    const CUdeviceptr address = device_alloc(16 * BYTES);
    unsigned type = 0;

    GOOD(cuMemFree(address));
    RESULT(cuPointerGetAttribute(&type, CU_POINTER_ATTRIBUTE_MEMORY_TYPE, address),
           CUDA_ERROR_INVALID_VALUE);
}

static void test_several_attributes(void)
{
    CUpointer_attribute which[] = {CU_POINTER_ATTRIBUTE_MEMORY_TYPE,
                                   CU_POINTER_ATTRIBUTE_DEVICE_POINTER};
    const CUdeviceptr address = device_alloc(BYTES);
    void *memory = malloc(4096);
    CUdeviceptr seen = 0;
    unsigned type = 0;
    void *values[] = {&type, &seen};

    GOOD(cuPointerGetAttributes(2, which, values, address));
    EXPECT(type == CU_MEMORYTYPE_DEVICE && seen == address, "%u, %#llx", type, seen);
    /* No error for what is no pointer of CUDA's: the type is none. */
    GOOD(cuPointerGetAttributes(1, which, values, address_of(memory)));
    EXPECT(type == 0, "%u", type);
    free(memory);
}

static void test_attributes_without_a_context(void)
{
    CUpointer_attribute which[] = {CU_POINTER_ATTRIBUTE_MEMORY_TYPE};
    const CUdeviceptr address = device_alloc(BYTES);
    unsigned type = 0;
    void *values[] = {&type};

    GOOD(cuCtxSetCurrent(NULL));
    GOOD(cuPointerGetAttributes(1, which, values, address));
    EXPECT(type == CU_MEMORYTYPE_DEVICE, "%u", type);
}

static void test_buffer_ids(void)
{
    unsigned long long ids[3] = {0};
    const CUdeviceptr one = device_alloc(BYTES), other = device_alloc(BYTES);

    GOOD(cuPointerGetAttribute(&ids[0], CU_POINTER_ATTRIBUTE_BUFFER_ID, one));
    GOOD(cuPointerGetAttribute(&ids[1], CU_POINTER_ATTRIBUTE_BUFFER_ID, one + 100));
    GOOD(cuPointerGetAttribute(&ids[2], CU_POINTER_ATTRIBUTE_BUFFER_ID, other));
    EXPECT(ids[0] == ids[1] && ids[0] != ids[2], "%llu %llu %llu", ids[0], ids[1], ids[2]);
}

const struct test pointer_tests[] = {
    {"device_pointer", test_device_pointer, false},
    {"range_of_pointer", test_range_of_pointer, false},
    {"host_pointer", test_host_pointer, false},
    {"unknown_pointer", test_unknown_pointer, false},
    {"freed_pointer", test_freed_pointer, false},
    {"several_attributes", test_several_attributes, false},
    {"attributes_without_a_context", test_attributes_without_a_context, false},
    {"buffer_ids", test_buffer_ids, false},
    {0},
};
