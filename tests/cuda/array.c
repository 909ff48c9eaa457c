/* SPDX-License-Identifier: MIT */
/*
 * Arrays: what is made, what is told of it, and all copies from and to them. Also where there is no
 * GPU.
 *
 * Tests: guest/libcuda/model/array.c, guest/libcuda/model/box.c, worker/api-array.c,
 * worker/backend-cuda/array.c, worker/backend-cpu/array.c
 */
#include "tests/cuda/check.h"

#include <string.h>

#define WIDTH 37u
#define HEIGHT 11u
#define DEPTH 5u

static const CUDA_ARRAY3D_DESCRIPTOR flat = {
    .Width = WIDTH, .Height = HEIGHT, .Format = CU_AD_FORMAT_UNSIGNED_INT32, .NumChannels = 1};
static const CUDA_ARRAY3D_DESCRIPTOR deep = {.Width = WIDTH,
                                             .Height = HEIGHT,
                                             .Depth = DEPTH,
                                             .Format = CU_AD_FORMAT_UNSIGNED_INT8,
                                             .NumChannels = 4};

static CUarray array_of(const CUDA_ARRAY3D_DESCRIPTOR *shape)
{
    CUarray array = NULL;

    GOOD(cuArray3DCreate(&array, shape));
    return array;
}

static void number(unsigned *words, unsigned count, unsigned from)
{
    for (unsigned i = 0; i < count; i++) {
        words[i] = from + i;
    }
}

/* From or to `host`, whose rows have no gaps; all of the array. */
static CUDA_MEMCPY3D whole(CUarray array, void *host, bool to_array, unsigned depth)
{
    CUDA_MEMCPY3D copy = {.WidthInBytes = WIDTH * WORD, .Height = HEIGHT, .Depth = depth};

    copy.srcMemoryType = to_array ? CU_MEMORYTYPE_HOST : CU_MEMORYTYPE_ARRAY;
    copy.dstMemoryType = to_array ? CU_MEMORYTYPE_ARRAY : CU_MEMORYTYPE_HOST;
    copy.srcHost = to_array ? host : NULL;
    copy.dstHost = to_array ? NULL : host;
    copy.srcArray = to_array ? NULL : array;
    copy.dstArray = to_array ? array : NULL;
    copy.srcPitch = copy.dstPitch = WIDTH * WORD;
    copy.srcHeight = copy.dstHeight = HEIGHT;
    return copy;
}

static void test_array_is_described(void)
{
    const CUDA_ARRAY_DESCRIPTOR plain = {
        .Width = 100, .Height = 20, .Format = CU_AD_FORMAT_FLOAT, .NumChannels = 2};
    CUDA_ARRAY_DESCRIPTOR told;
    CUDA_ARRAY3D_DESCRIPTOR told3;
    CUarray array;

    GOOD(cuArrayCreate(&array, &plain));
    memset(&told, 0x55, sizeof(told));
    GOOD(cuArrayGetDescriptor(&told, array));
    EXPECT(told.Width == 100 && told.Height == 20 && told.Format == CU_AD_FORMAT_FLOAT &&
               told.NumChannels == 2,
           "%zu x %zu, %u of %#x", told.Width, told.Height, told.NumChannels,
           (unsigned)told.Format);
    GOOD(cuArrayDestroy(array));
    array = array_of(&deep);
    GOOD(cuArray3DGetDescriptor(&told3, array));
    EXPECT(told3.Width == WIDTH && told3.Height == HEIGHT && told3.Depth == DEPTH &&
               told3.NumChannels == 4 && told3.Flags == 0,
           "%zu x %zu x %zu", told3.Width, told3.Height, told3.Depth);
    GOOD(cuArrayDestroy(array));
}

static void test_wrong_arrays(void)
{
    CUDA_ARRAY3D_DESCRIPTOR shape = flat;
    CUarray array = NULL;

    RESULT(cuArray3DCreate(NULL, &flat), CUDA_ERROR_INVALID_VALUE);
    RESULT(cuArray3DCreate(&array, NULL), CUDA_ERROR_INVALID_VALUE);
    shape.NumChannels = 3;
    RESULT(cuArray3DCreate(&array, &shape), CUDA_ERROR_INVALID_VALUE);
    shape = flat;
    shape.Width = 0;
    RESULT(cuArray3DCreate(&array, &shape), CUDA_ERROR_INVALID_VALUE);
    shape = flat;
    shape.Format = (CUarray_format)0x77;
    RESULT(cuArray3DCreate(&array, &shape), CUDA_ERROR_INVALID_VALUE);
}

static void test_rows_of_arrays(void)
{
    static unsigned before[WIDTH * HEIGHT], after[WIDTH * HEIGHT];
    const CUarray array = array_of(&flat);
    CUDA_MEMCPY2D part = {.srcMemoryType = CU_MEMORYTYPE_ARRAY,
                          .srcArray = array,
                          .srcXInBytes = 3 * WORD,
                          .srcY = 2,
                          .dstMemoryType = CU_MEMORYTYPE_HOST,
                          .dstHost = after,
                          .dstPitch = 8 * WORD,
                          .WidthInBytes = 5 * WORD,
                          .Height = 4};
    CUDA_MEMCPY3D copy = whole(array, before, true, 1);

    number(before, WIDTH * HEIGHT, 1000);
    GOOD(cuMemcpy3D(&copy));
    GOOD(cuMemcpy2D(&part));
    for (unsigned row = 0; row < 4; row++) {
        for (unsigned i = 0; i < 5; i++) {
            const unsigned wanted = 1000 + (row + 2) * WIDTH + i + 3, got = after[row * 8 + i];

            EXPECT(got == wanted, "row %u, %u: %u and not %u", row, i, got, wanted);
        }
        EXPECT(after[row * 8 + 5] == 0, "the gap is written");
    }
    part.srcXInBytes = (WIDTH - 4) * WORD; /* one too far */
    RESULT(cuMemcpy2D(&part), CUDA_ERROR_INVALID_VALUE);
    GOOD(cuArrayDestroy(array));
}

/* Into an array, from there to another, by device memory back. */
static void test_slices_of_arrays(void)
{
    enum { COUNT = WIDTH * HEIGHT * DEPTH };
    static unsigned before[COUNT], after[COUNT];
    const CUarray one = array_of(&deep), other = array_of(&deep);
    const CUdeviceptr device_side = device_alloc(COUNT * WORD);
    CUDA_MEMCPY3D copy = whole(one, before, true, DEPTH);

    number(before, COUNT, 7);
    GOOD(cuMemcpy3D(&copy));
    copy.srcMemoryType = copy.dstMemoryType = CU_MEMORYTYPE_ARRAY;
    copy.srcArray = one;
    copy.dstArray = other;
    GOOD(cuMemcpy3D(&copy));
    copy.srcArray = other;
    copy.dstMemoryType = CU_MEMORYTYPE_DEVICE;
    copy.dstDevice = device_side;
    GOOD(cuMemcpy3D(&copy));
    GOOD(cuMemcpyDtoH(after, device_side, sizeof(after)));
    EXPECT(memcmp(before, after, sizeof(after)) == 0, "they differ");
    memset(after, 0, sizeof(after));
    copy = whole(other, after, false, DEPTH);
    GOOD(cuMemcpy3DAsync(&copy, NULL));
    GOOD(cuStreamSynchronize(NULL));
    EXPECT(memcmp(before, after, sizeof(after)) == 0, "they differ, straight from the array");
    GOOD(cuArrayDestroy(one));
    GOOD(cuArrayDestroy(other));
}

/* By offsets, in an array of one dimension; asynchronously from and to pinned memory. */
static void test_lines_of_arrays(void)
{
    const CUDA_ARRAY_DESCRIPTOR line = {
        .Width = 64, .Format = CU_AD_FORMAT_UNSIGNED_INT32, .NumChannels = 1};
    unsigned words[64], *pinned;
    CUarray one, other;
    const CUdeviceptr device_side = device_alloc(sizeof(words));

    GOOD(cuArrayCreate(&one, &line));
    GOOD(cuArrayCreate(&other, &line));
    GOOD(cuMemAllocHost((void **)&pinned, sizeof(words)));
    number(words, 64, 5);
    GOOD(cuMemcpyHtoA(one, 0, words, sizeof(words)));
    GOOD(cuMemcpyAtoA(other, 8 * WORD, one, 0, 16 * WORD));
    GOOD(cuMemcpyAtoD(device_side, other, 8 * WORD, 16 * WORD));
    GOOD(cuMemcpyDtoA(other, 32 * WORD, device_side, 16 * WORD));
    GOOD(cuMemcpyAtoHAsync(pinned, other, 32 * WORD, 16 * WORD, NULL));
    GOOD(cuStreamSynchronize(NULL));
    for (unsigned i = 0; i < 16; i++) {
        EXPECT(pinned[i] == 5 + i, "%u: %u", i, pinned[i]);
    }
    pinned[0] = 99;
    GOOD(cuMemcpyHtoAAsync(one, 63 * WORD, pinned, WORD, NULL));
    GOOD(cuMemcpyAtoH(words, one, 62 * WORD, 2 * WORD));
    EXPECT(words[0] == 67 && words[1] == 99, "%u %u", words[0], words[1]);
    RESULT(cuMemcpyAtoH(words, one, 63 * WORD, 2 * WORD), CUDA_ERROR_INVALID_VALUE);
    GOOD(cuArrayDestroy(one));
    GOOD(cuArrayDestroy(other));
}

static void test_levels_of_arrays(void)
{
    CUDA_ARRAY3D_DESCRIPTOR shape = flat, told;
    CUmipmappedArray array;
    CUarray level[3], beyond;
    unsigned words[WIDTH / 4] = {0}, back[WIDTH / 4] = {0};

    RESULT(cuMipmappedArrayCreate(NULL, &shape, 3), CUDA_ERROR_INVALID_VALUE);
    GOOD(cuMipmappedArrayCreate(&array, &shape, 3));
    for (unsigned i = 0; i < 3; i++) {
        GOOD(cuMipmappedArrayGetLevel(&level[i], array, i));
        GOOD(cuArray3DGetDescriptor(&told, level[i]));
        EXPECT(told.Width == WIDTH >> i && told.Height == HEIGHT >> i, "level %u: %zu x %zu", i,
               told.Width, told.Height);
    }
    RESULT(cuMipmappedArrayGetLevel(&beyond, array, 3), CUDA_ERROR_INVALID_VALUE);
    GOOD(cuMipmappedArrayDestroy(array));
    GOOD(cuMipmappedArrayCreate(&array, &shape, 99)); /* 6: 37, 18, 9, 4, 2, 1 */
    GOOD(cuMipmappedArrayGetLevel(&level[2], array, 2));
    GOOD(cuMipmappedArrayGetLevel(&beyond, array, 5));
    RESULT(cuMipmappedArrayGetLevel(&beyond, array, 6), CUDA_ERROR_INVALID_VALUE);
    number(words, WIDTH / 4, 3);
    GOOD(cuMemcpyHtoA(level[2], 0, words, sizeof(words)));
    GOOD(cuMemcpyAtoH(back, level[2], 0, sizeof(back)));
    EXPECT(memcmp(words, back, sizeof(back)) == 0, "they differ");
    GOOD(cuMipmappedArrayDestroy(array));
}

static void test_arrays_count_as_memory(void)
{
    const CUDA_ARRAY_DESCRIPTOR large = {
        .Width = 4096, .Height = 4096, .Format = CU_AD_FORMAT_FLOAT, .NumChannels = 1};
    const CUDA_ARRAY_DESCRIPTOR line = {
        .Width = 131072, .Format = CU_AD_FORMAT_FLOAT, .NumChannels = 4};
    size_t before, with, after, total;
    CUarray array;

    GOOD(cuMemGetInfo(&before, &total));
    GOOD(cuArrayCreate(&array, &large));
    GOOD(cuMemGetInfo(&with, &total));
    EXPECT(before - with >= (size_t)64 << 20, "%zu bytes less", before - with);
    GOOD(cuArrayDestroy(array));
    GOOD(cuMemGetInfo(&after, &total));
    EXPECT(after > with, "%zu bytes, and %zu before", after, with);
    needs_gpu("a single row takes a tile of eight there");
    GOOD(cuArrayCreate(&array, &line));
    GOOD(cuMemGetInfo(&with, &total));
    EXPECT(after - with >= (size_t)16 << 20, "%zu bytes less", after - with);
    GOOD(cuArrayDestroy(array));
}

const struct test array_tests[] = {
    {"array_is_described", test_array_is_described, false},
    {"wrong_arrays", test_wrong_arrays, false},
    {"rows_of_arrays", test_rows_of_arrays, false},
    {"slices_of_arrays", test_slices_of_arrays, false},
    {"lines_of_arrays", test_lines_of_arrays, false},
    {"levels_of_arrays", test_levels_of_arrays, false},
    {"arrays_count_as_memory", test_arrays_count_as_memory, false},
    {NULL, NULL, false},
};
