/* SPDX-License-Identifier: MIT */
/*
 * Pools of memory: which one serves, how much it holds, when it gives memory back.
 *
 * Tests: guest/libcuda/calls/mempool.c, guest/libcuda/model/mempool.c, guest/libcuda/model/block.c,
 * guest/libcuda/model/spare.c
 */
#include "tests/cuda/pool-check.h"

void needs_pools(void)
{
    if (attribute(CU_DEVICE_ATTRIBUTE_MEMORY_POOLS_SUPPORTED) != 1) {
        skip("no memory pools, as the attribute says");
    }
}

static CUmemPoolProps properties(void)
{
    return (CUmemPoolProps){.allocType = CU_MEM_ALLOCATION_TYPE_PINNED,
                            .handleTypes = CU_MEM_HANDLE_TYPE_NONE,
                            .location = {.type = CU_MEM_LOCATION_TYPE_DEVICE, .id = device}};
}

CUmemoryPool pool_create(void)
{
    const CUmemPoolProps props = properties();
    CUmemoryPool pool = NULL;

    needs_pools();
    GOOD(cuMemPoolCreate(&pool, &props));
    return pool;
}

static CUmemoryPool default_pool(void)
{
    CUmemoryPool pool = NULL;

    needs_pools();
    GOOD(cuDeviceGetDefaultMemPool(&pool, device));
    return pool;
}

CUdeviceptr take_from(CUmemoryPool pool, size_t bytes, CUstream stream)
{
    CUdeviceptr address = 0;

    GOOD(cuMemAllocFromPoolAsync(&address, bytes, pool, stream));
    return address;
}

cuuint64_t ask_pool(CUmemoryPool pool, CUmemPool_attribute which)
{
    cuuint64_t value = 77;

    GOOD(cuMemPoolGetAttribute(pool, which, &value));
    return value;
}

CUmemoryPool pool_of(CUdeviceptr address)
{
    CUmemoryPool pool = NULL;

    GOOD(cuPointerGetAttribute(&pool, CU_POINTER_ATTRIBUTE_MEMPOOL_HANDLE, address));
    return pool;
}

/* All that ever was in it is free, and the host knows it. */
static void use_and_free(CUmemoryPool pool, size_t bytes)
{
    const CUstream stream = stream_create(CU_STREAM_NON_BLOCKING);

    GOOD(cuMemFreeAsync(take_from(pool, bytes, stream), stream));
    GOOD(cuStreamSynchronize(stream));
    GOOD(cuStreamDestroy(stream));
}

static CUdeviceptr take_from_current(void)
{
    CUdeviceptr address = 0;

    GOOD(cuMemAllocAsync(&address, 4096, NULL));
    return address;
}

static void test_pool_of_device(void)
{
    const CUmemoryPool standard = default_pool(), own = pool_create();
    CUmemoryPool current = NULL;

    GOOD(cuDeviceGetMemPool(&current, device));
    EXPECT(current == standard, "another pool");
    EXPECT(pool_of(take_from_current()) == standard, "memory of another pool");
    GOOD(cuDeviceSetMemPool(device, own));
    GOOD(cuDeviceGetMemPool(&current, device));
    EXPECT(current == own, "another pool");
    EXPECT(pool_of(take_from_current()) == own, "memory of another pool");
    EXPECT(pool_of(take_from(standard, 4096, NULL)) == standard, "memory of another pool");
    GOOD(cuMemPoolDestroy(own));
    GOOD(cuDeviceGetMemPool(&current, device));
    EXPECT(current == standard, "another pool");
    EXPECT(pool_of(take_from_current()) == standard, "memory of another pool");
}

static void test_default_pool_stays(void)
{
    const CUmemoryPool standard = default_pool();

    ONE_OF(cuMemPoolDestroy(standard), CUDA_ERROR_INVALID_VALUE, CUDA_ERROR_NOT_PERMITTED,
           CUDA_ERROR_NOT_SUPPORTED, CUDA_ERROR_INVALID_HANDLE);
    EXPECT(default_pool() == standard, "another pool");
    use_and_free(standard, MIB);
}

static void test_no_pool(void)
{
    CUmemoryPool pool = NULL;
    CUdeviceptr address = 0;

    needs_pools();
    RESULT(cuMemPoolCreate(&pool, NULL), CUDA_ERROR_INVALID_VALUE);
    ONE_OF(cuMemPoolDestroy(NULL), CUDA_ERROR_INVALID_VALUE, CUDA_ERROR_INVALID_HANDLE);
    ONE_OF(cuMemPoolTrimTo(NULL, 0), CUDA_ERROR_INVALID_VALUE, CUDA_ERROR_INVALID_HANDLE);
    ONE_OF(cuDeviceSetMemPool(device, NULL), CUDA_ERROR_INVALID_VALUE, CUDA_ERROR_INVALID_HANDLE);
    ONE_OF(cuMemAllocFromPoolAsync(&address, MIB, NULL, NULL), CUDA_ERROR_INVALID_VALUE,
           CUDA_ERROR_INVALID_HANDLE);
}

static void test_pool_of_bad_properties(void)
{
    CUmemPoolProps props = properties();
    CUmemoryPool pool = NULL;

    needs_pools();
    props.allocType = CU_MEM_ALLOCATION_TYPE_INVALID;
    RESULT(cuMemPoolCreate(&pool, &props), CUDA_ERROR_INVALID_VALUE);
    props = properties();
    props.location.type = CU_MEM_LOCATION_TYPE_INVALID;
    RESULT(cuMemPoolCreate(&pool, &props), CUDA_ERROR_INVALID_VALUE);
    props = properties();
    props.location.id = 4096;
    ONE_OF(cuMemPoolCreate(&pool, &props), CUDA_ERROR_INVALID_VALUE, CUDA_ERROR_INVALID_DEVICE);
}

static void test_pool_of_limited_size(void)
{
    const CUstream stream = stream_create(0);
    CUmemPoolProps props = properties();
    CUmemoryPool pool = NULL;
    CUdeviceptr address = 0;

    needs_pools();
    props.maxSize = 64 * MIB;
    GOOD(cuMemPoolCreate(&pool, &props));
    RESULT(cuMemAllocFromPoolAsync(&address, 256 * MIB, pool, stream), CUDA_ERROR_OUT_OF_MEMORY);
    GOOD(cuMemFreeAsync(take_from(pool, 32 * MIB, stream), stream));
    GOOD(cuStreamSynchronize(stream));
}

static void test_used_memory_of_pool(void)
{
    const CUmemoryPool pool = pool_create();
    const CUstream stream = stream_create(0);
    CUdeviceptr pieces[3];
    cuuint64_t all, zero = 0;

    EXPECT(ask_pool(pool, CU_MEMPOOL_ATTR_USED_MEM_CURRENT) == 0, "used already");
    EXPECT(ask_pool(pool, CU_MEMPOOL_ATTR_USED_MEM_HIGH) == 0, "used before");
    for (int i = 0; i < 3; i++) {
        pieces[i] = take_from(pool, 4 * MIB, stream);
    }
    all = ask_pool(pool, CU_MEMPOOL_ATTR_USED_MEM_CURRENT);
    EXPECT(all >= 12 * MIB && all < 16 * MIB, "%llu", (unsigned long long)all);
    GOOD(cuMemFreeAsync(pieces[0], stream));
    GOOD(cuMemFreeAsync(pieces[1], stream));
    GOOD(cuStreamSynchronize(stream));
    EXPECT(ask_pool(pool, CU_MEMPOOL_ATTR_USED_MEM_CURRENT) == all / 3, "another part of it");
    EXPECT(ask_pool(pool, CU_MEMPOOL_ATTR_USED_MEM_HIGH) == all, "another peak");
    GOOD(cuMemPoolSetAttribute(pool, CU_MEMPOOL_ATTR_USED_MEM_HIGH, &zero));
    EXPECT(ask_pool(pool, CU_MEMPOOL_ATTR_USED_MEM_HIGH) <= all / 3, "the old peak");
    GOOD(cuMemFreeAsync(pieces[2], stream));
    GOOD(cuStreamSynchronize(stream));
    EXPECT(ask_pool(pool, CU_MEMPOOL_ATTR_USED_MEM_CURRENT) == 0, "still used");
}

static void test_reserved_memory_of_pool(void)
{
    const CUmemoryPool pool = pool_create();
    const CUstream stream = stream_create(0);
    const CUdeviceptr one = take_from(pool, 40 * MIB, stream);
    const cuuint64_t first = ask_pool(pool, CU_MEMPOOL_ATTR_RESERVED_MEM_CURRENT);
    CUdeviceptr other;
    cuuint64_t both, zero = 0;

    EXPECT(first >= 40 * MIB, "%llu", (unsigned long long)first);
    other = take_from(pool, 80 * MIB, stream);
    both = ask_pool(pool, CU_MEMPOOL_ATTR_RESERVED_MEM_CURRENT);
    EXPECT(both >= 120 * MIB, "%llu", (unsigned long long)both);
    EXPECT(ask_pool(pool, CU_MEMPOOL_ATTR_RESERVED_MEM_HIGH) == both, "another peak");
    GOOD(cuMemFreeAsync(one, stream));
    GOOD(cuMemFreeAsync(other, stream));
    GOOD(cuStreamSynchronize(stream));
    GOOD(cuMemPoolTrimTo(pool, 0));
    EXPECT(ask_pool(pool, CU_MEMPOOL_ATTR_RESERVED_MEM_CURRENT) == 0, "still reserved");
    EXPECT(ask_pool(pool, CU_MEMPOOL_ATTR_RESERVED_MEM_HIGH) == both, "another peak");
    GOOD(cuMemPoolSetAttribute(pool, CU_MEMPOOL_ATTR_RESERVED_MEM_HIGH, &zero));
    EXPECT(ask_pool(pool, CU_MEMPOOL_ATTR_RESERVED_MEM_HIGH) == 0, "the old peak");
}

static void test_peaks_are_reset_to_nothing_else(void)
{
    const CUmemoryPool pool = pool_create();
    cuuint64_t one = 1;

    RESULT(cuMemPoolSetAttribute(pool, CU_MEMPOOL_ATTR_RESERVED_MEM_HIGH, &one),
           CUDA_ERROR_INVALID_VALUE);
    RESULT(cuMemPoolSetAttribute(pool, CU_MEMPOOL_ATTR_USED_MEM_HIGH, &one),
           CUDA_ERROR_INVALID_VALUE);
}

/* Nothing is kept by default once the host has seen that it is free. */
static void test_pool_gives_memory_back(void)
{
    const CUmemoryPool pool = pool_create();
    size_t before = 0, after = 0, total = 0;

    EXPECT(ask_pool(pool, CU_MEMPOOL_ATTR_RELEASE_THRESHOLD) == 0, "another threshold");
    use_and_free(pool, 256 * MIB);
    GOOD(cuMemGetInfo(&before, &total));
    EXPECT(ask_pool(pool, CU_MEMPOOL_ATTR_RESERVED_MEM_CURRENT) == 0, "still reserved");
    take_from(pool, 256 * MIB, NULL);
    GOOD(cuMemGetInfo(&after, &total));
    EXPECT(after + 256 * MIB <= before, "%zu, of %zu before", after, before);
}

static void test_release_threshold(void)
{
    const CUmemoryPool pool = pool_create();
    cuuint64_t threshold = UINT64_MAX;

    GOOD(cuMemPoolSetAttribute(pool, CU_MEMPOOL_ATTR_RELEASE_THRESHOLD, &threshold));
    EXPECT(ask_pool(pool, CU_MEMPOOL_ATTR_RELEASE_THRESHOLD) == UINT64_MAX, "another one");
    use_and_free(pool, 64 * MIB);
    EXPECT(ask_pool(pool, CU_MEMPOOL_ATTR_RESERVED_MEM_CURRENT) >= 64 * MIB, "given back");
    GOOD(cuMemPoolTrimTo(pool, 32 * MIB));
    EXPECT(ask_pool(pool, CU_MEMPOOL_ATTR_RESERVED_MEM_CURRENT) >= 32 * MIB, "given back");
    GOOD(cuMemPoolTrimTo(pool, 0));
    EXPECT(ask_pool(pool, CU_MEMPOOL_ATTR_RESERVED_MEM_CURRENT) == 0, "still reserved");
}

static void test_trim_spares_what_is_used(void)
{
    const CUmemoryPool pool = pool_create();
    const CUdeviceptr words = take_from(pool, 4 * MIB, NULL);

    GOOD(cuMemsetD32(words, 6, MIB));
    GOOD(cuMemPoolTrimTo(pool, 0));
    EXPECT(ask_pool(pool, CU_MEMPOOL_ATTR_RESERVED_MEM_CURRENT) >= 4 * MIB, "given back");
    expect_words(words, MIB, 6);
}

static void test_reuse_attributes(void)
{
    static const CUmemPool_attribute which[] = {CU_MEMPOOL_ATTR_REUSE_FOLLOW_EVENT_DEPENDENCIES,
                                                CU_MEMPOOL_ATTR_REUSE_ALLOW_OPPORTUNISTIC,
                                                CU_MEMPOOL_ATTR_REUSE_ALLOW_INTERNAL_DEPENDENCIES};
    const CUmemoryPool pool = pool_create();

    for (int i = 0; i < 3; i++) {
        int value = 77;

        GOOD(cuMemPoolGetAttribute(pool, which[i], &value));
        EXPECT(value == 1, "%d", value);
        value = 0;
        GOOD(cuMemPoolSetAttribute(pool, which[i], &value));
        value = 77;
        GOOD(cuMemPoolGetAttribute(pool, which[i], &value));
        EXPECT(value == 0, "%d", value);
    }
}

static void test_bad_attributes_of_pool(void)
{
    const CUmemoryPool pool = pool_create();
    cuuint64_t value = 0;

    RESULT(cuMemPoolGetAttribute(pool, (CUmemPool_attribute)99, &value), CUDA_ERROR_INVALID_VALUE);
    RESULT(cuMemPoolSetAttribute(pool, (CUmemPool_attribute)99, &value), CUDA_ERROR_INVALID_VALUE);
    RESULT(cuMemPoolSetAttribute(pool, CU_MEMPOOL_ATTR_USED_MEM_CURRENT, &value),
           CUDA_ERROR_INVALID_VALUE);
    RESULT(cuMemPoolGetAttribute(pool, CU_MEMPOOL_ATTR_RELEASE_THRESHOLD, NULL),
           CUDA_ERROR_INVALID_VALUE);
}

static void test_pool_destroyed_before_its_memory(void)
{
    const CUmemoryPool pool = pool_create();
    const CUstream stream = stream_create(0);
    const CUdeviceptr words = take_from(pool, 4 * MIB, stream);

    GOOD(cuMemPoolDestroy(pool));
    fill(words, MIB, 9, stream);
    GOOD(cuStreamSynchronize(stream));
    expect_words(words, MIB, 9);
    GOOD(cuMemFreeAsync(words, stream));
    GOOD(cuStreamSynchronize(stream));
}

static void test_access_to_pool(void)
{
    const CUmemoryPool pool = pool_create();
    CUmemLocation here = {.type = CU_MEM_LOCATION_TYPE_DEVICE, .id = device};
    CUmemAccessDesc wish = {.location = here, .flags = CU_MEM_ACCESS_FLAGS_PROT_READWRITE};
    CUmemAccess_flags flags = CU_MEM_ACCESS_FLAGS_PROT_NONE;

    GOOD(cuMemPoolGetAccess(&flags, pool, &here));
    EXPECT(flags == CU_MEM_ACCESS_FLAGS_PROT_READWRITE, "%d", (int)flags);
    GOOD(cuMemPoolSetAccess(pool, &wish, 1));
    flags = CU_MEM_ACCESS_FLAGS_PROT_NONE;
    GOOD(cuMemPoolGetAccess(&flags, pool, &here));
    EXPECT(flags == CU_MEM_ACCESS_FLAGS_PROT_READWRITE, "%d", (int)flags);
    wish.location.id = 4096;
    ONE_OF(cuMemPoolSetAccess(pool, &wish, 1), CUDA_ERROR_INVALID_VALUE, CUDA_ERROR_INVALID_DEVICE);
}

const struct test pool_tests[] = {
    {"pool_of_device", test_pool_of_device, false},
    {"default_pool_stays", test_default_pool_stays, false},
    {"no_pool", test_no_pool, false},
    {"pool_of_bad_properties", test_pool_of_bad_properties, false},
    {"pool_of_limited_size", test_pool_of_limited_size, false},
    {"used_memory_of_pool", test_used_memory_of_pool, false},
    {"reserved_memory_of_pool", test_reserved_memory_of_pool, false},
    {"peaks_are_reset_to_nothing_else", test_peaks_are_reset_to_nothing_else, false},
    {"pool_gives_memory_back", test_pool_gives_memory_back, false},
    {"release_threshold", test_release_threshold, false},
    {"trim_spares_what_is_used", test_trim_spares_what_is_used, false},
    {"reuse_attributes", test_reuse_attributes, false},
    {"bad_attributes_of_pool", test_bad_attributes_of_pool, false},
    {"pool_destroyed_before_its_memory", test_pool_destroyed_before_its_memory, false},
    {"access_to_pool", test_access_to_pool, false},
    {0},
};
