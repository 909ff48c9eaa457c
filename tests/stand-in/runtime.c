/* SPDX-License-Identifier: MIT */
/*
 * A program that uses the driver as NVIDIA's runtime library does, with the stand-in driver behind
 * the worker (driver.c): the self-test's answers have to be right for this process, its threads and
 * the addresses that it sees.
 *
 *   stand-in-runtime            the self-test by two threads, tensor maps, places
 *   stand-in-runtime taken N    with something of its own where slot N has the tables
 *   stand-in-runtime launch F   launches kernel F and synchronises, up to its own line of text
 *
 * Exit codes: 0 all as it should be, 1 not, 3 the self-test is not served.
 */
#include <pthread.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include <cuda.h>

#include "common/driver-tables.h"
#include "tests/stand-in/slots.h"

typedef CUresult (*test_fn)(uint32_t version, uint64_t time, uint64_t answer[2]);

static void *const *runtime_table, *const *test_table;

static _Noreturn void fail(const char *format, ...)
{
    va_list arguments;

    va_start(arguments, format);
    vprintf(format, arguments);
    va_end(arguments);
    putchar('\n');
    exit(1);
}

static void *const *find_table(const char *id)
{
    const void *table = NULL;
    CUuuid uuid;
    CUresult r;

    memcpy(uuid.bytes, id, sizeof(uuid.bytes));
    r = cuGetExportTable(&table, &uuid);
    if (r != CUDA_SUCCESS || !table) {
        fail("cuGetExportTable: %d", (int)r);
    }
    return table;
}

static void test_as_this_thread(uint32_t version, uint64_t time)
{
    const test_fn test = (test_fn)test_table[1];
    uint64_t answer[2] = {0};
    const CUresult r = test(version, time, answer);
    const uint64_t first = version ^ time << 8 ^ (uint64_t)getpid() << 40 ^
                           (uint64_t)pthread_self();
    const uint64_t second = (uintptr_t)runtime_table + 3 * (uintptr_t)test_table +
                            5 * (uintptr_t)test_table[1];

    if (r == CUDA_ERROR_NOT_SUPPORTED) {
        exit(3);
    }
    if (r != CUDA_SUCCESS || answer[0] != first || answer[1] != second) {
        fail("self-test: %d, %llx %llx, not %llx %llx", (int)r, (unsigned long long)answer[0],
             (unsigned long long)answer[1], (unsigned long long)first, (unsigned long long)second);
    }
}

static void *test_in_thread(void *argument)
{
    (void)argument;
    test_as_this_thread(13000, 77);
    return NULL;
}

static void test_places(void)
{
    void *const *places = find_table(DRIVER_TABLE_PLACES);
    CUresult (*get)(char **, char **) = (CUresult(*)(char **, char **))places[4];
    CUresult (*give_back)(char *, char *) = (CUresult(*)(char *, char *))places[13];
    char *first = NULL, *second = NULL;
    const CUresult r = get(&first, &second);

    if (r != CUDA_SUCCESS) {
        fail("places: %d", (int)r);
    }
    for (int i = 0; i < 66; i++) {
        if (first[i] != i || second[i] != 65 - i) {
            fail("place %d: %d, %d", i, first[i], second[i]);
        }
    }
    give_back(first, second);
}

static void expect_words(const CUtensorMap *map, const cuuint64_t *words, unsigned count)
{
    for (unsigned i = 0; i < count; i++) {
        if (map->opaque[i] != words[i]) {
            fail("word %u of a tensor map: %llu, not %llu", i, (unsigned long long)map->opaque[i],
                 (unsigned long long)words[i]);
        }
    }
    /* The process that encoded it is the worker, also after it spoke for this one. */
    if (map->opaque[15] == (cuuint64_t)getpid() || map->opaque[15] == 0) {
        fail("encoded by process %llu", (unsigned long long)map->opaque[15]);
    }
}

static void test_tensors(void)
{
    const cuuint64_t sizes[] = {11, 12, 13, 14, 15}, strides[] = {21, 22, 23, 24};
    const cuuint32_t box[] = {31, 32, 33, 34, 35}, steps[] = {41, 42, 43, 44, 45};
    const int lower[] = {-1, -2, -3}, upper[] = {-4, -5, -6};
    const cuuint64_t tiled[] = {5, 4096, 11, 15, 24, 31, 35, 41, 45, 7, 1, 2, 1, 3};
    const cuuint64_t image[] = {5, 4096, 11, 24, (cuuint64_t)-3, (cuuint64_t)-6, 51, 52, 41, 7, 1,
                                2, 1,    3,  1};
    const cuuint64_t moved[] = {5, 8192};
    CUtensorMap map;
    CUresult r;

    r = cuTensorMapEncodeTiled(&map, CU_TENSOR_MAP_DATA_TYPE_FLOAT32, 5, (void *)4096, sizes,
                               strides, box, steps, CU_TENSOR_MAP_INTERLEAVE_16B,
                               CU_TENSOR_MAP_SWIZZLE_64B, CU_TENSOR_MAP_L2_PROMOTION_L2_256B,
                               CU_TENSOR_MAP_FLOAT_OOB_FILL_NAN_REQUEST_ZERO_FMA);
    if (r != CUDA_SUCCESS) {
        fail("cuTensorMapEncodeTiled: %d", (int)r);
    }
    expect_words(&map, tiled, 14);
    r = cuTensorMapReplaceAddress(&map, (void *)8192);
    if (r != CUDA_SUCCESS) {
        fail("cuTensorMapReplaceAddress: %d", (int)r);
    }
    expect_words(&map, moved, 2);
    r = cuTensorMapEncodeIm2col(&map, CU_TENSOR_MAP_DATA_TYPE_FLOAT32, 5, (void *)4096, sizes,
                                strides, lower, upper, 51, 52, steps, CU_TENSOR_MAP_INTERLEAVE_16B,
                                CU_TENSOR_MAP_SWIZZLE_64B, CU_TENSOR_MAP_L2_PROMOTION_L2_256B,
                                CU_TENSOR_MAP_FLOAT_OOB_FILL_NAN_REQUEST_ZERO_FMA);
    if (r != CUDA_SUCCESS) {
        fail("cuTensorMapEncodeIm2col: %d", (int)r);
    }
    expect_words(&map, image, 15);
}

static void take_slot(unsigned slot)
{
    void *wish = (void *)(uintptr_t)slot_address(slot);

    if (mmap(wish, SLOT_BYTES, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED_NOREPLACE, -1,
             0) != wish) {
        fail("cannot take slot %u", slot);
    }
}

/* What the kernel prints has to be out before the line that this prints itself. */
static int launch(const char *name)
{
    static const char image[] = ".version 6.0\n.target sm_50\n.address_size 64\n";
    CUdevice device;
    CUcontext context;
    CUmodule module;
    CUfunction function;
    CUresult r = cuInit(0);

    if (r != CUDA_SUCCESS || cuDeviceGet(&device, 0) != CUDA_SUCCESS ||
        cuDevicePrimaryCtxRetain(&context, device) != CUDA_SUCCESS ||
        cuCtxSetCurrent(context) != CUDA_SUCCESS ||
        cuModuleLoadData(&module, image) != CUDA_SUCCESS ||
        cuModuleGetFunction(&function, module, name) != CUDA_SUCCESS) {
        fail("cannot begin: %d", (int)r);
    }
    r = cuLaunchKernel(function, 1, 1, 1, 1, 1, 1, 0, NULL, NULL, NULL);
    if (r != CUDA_SUCCESS) {
        fail("cuLaunchKernel: %d", (int)r);
    }
    r = cuCtxSynchronize();
    printf("synchronised: %d\n", (int)r);
    return 0;
}

int main(int argc, char **argv)
{
    pthread_t thread;
    CUresult r;

    if (argc == 3 && strcmp(argv[1], "launch") == 0) {
        return launch(argv[2]);
    }

    for (int i = 2; i < argc; i++) {
        take_slot((unsigned)atoi(argv[i]));
    }
    /* The order of the runtime library: tables first. */
    runtime_table = find_table(DRIVER_TABLE_RUNTIME);
    r = cuInit(0);
    if (r != CUDA_SUCCESS) {
        fail("cuInit: %d", (int)r);
    }
    test_table = find_table(DRIVER_TABLE_TEST);
    test_as_this_thread(13002, 1764374400);
    if (pthread_create(&thread, NULL, test_in_thread, NULL) != 0) {
        fail("no thread");
    }
    pthread_join(thread, NULL);
    test_places();
    test_tensors();
    test_as_this_thread(3, UINT64_MAX);
    return 0;
}
