/* SPDX-License-Identifier: MIT */
/*
 * Tensor maps: what is wrong is refused as NVIDIA's driver does, and what is right is encoded.
 *
 * Tests: guest/libcuda/calls/tensor.c, worker/backend-cuda/tensor.c
 */
#include "tests/cuda/check.h"

#include <string.h>

/* A tensor of floats, 64 x 32, in boxes of 16 x 8. */
static const cuuint64_t sizes[] = {64, 32, 1, 1, 1}, strides[] = {256, 8192, 8192, 8192};
static const cuuint32_t box[] = {16, 8, 1, 1, 1}, steps[] = {1, 1, 1, 1, 1};

static CUresult tiled(CUtensorMap *map, unsigned rank, CUdeviceptr address)
{
    return cuTensorMapEncodeTiled(
        map, CU_TENSOR_MAP_DATA_TYPE_FLOAT32, rank, (void *)(uintptr_t)address, sizes, strides, box,
        steps, CU_TENSOR_MAP_INTERLEAVE_NONE, CU_TENSOR_MAP_SWIZZLE_NONE,
        CU_TENSOR_MAP_L2_PROMOTION_NONE, CU_TENSOR_MAP_FLOAT_OOB_FILL_NONE);
}

static void needs_maps(void)
{
    int supported = 0;

    needs_gpu("tensors are the driver's to describe");
    GOOD(cuDeviceGetAttribute(&supported, CU_DEVICE_ATTRIBUTE_TENSOR_MAP_ACCESS_SUPPORTED, device));
    if (!supported) {
        skip("this GPU has no tensor maps");
    }
}

static void test_wrong_tensors(void)
{
    CUtensorMap map;

    RESULT(tiled(NULL, 2, 4096), CUDA_ERROR_INVALID_VALUE);
    RESULT(tiled(&map, 0, 4096), CUDA_ERROR_INVALID_VALUE);
    RESULT(tiled(&map, 6, 4096), CUDA_ERROR_INVALID_VALUE);
    RESULT(cuTensorMapReplaceAddress(NULL, NULL), CUDA_ERROR_INVALID_VALUE);
    needs_maps();
    RESULT(tiled(&map, 2, 4097), CUDA_ERROR_INVALID_VALUE); /* not on 16 bytes */
}

static void test_tensor_map_of_an_address(void)
{
    const CUdeviceptr there = device_alloc(1 << 20);
    CUtensorMap map, other;

    needs_maps();
    memset(&map, 0x55, sizeof(map));
    for (unsigned rank = 1; rank <= 5; rank++) {
        GOOD(tiled(&map, rank, there));
    }
    GOOD(tiled(&map, 2, there));
    GOOD(tiled(&other, 2, there + 4096));
    EXPECT(memcmp(&map, &other, sizeof(map)) != 0, "the address is not in it");
    GOOD(cuTensorMapReplaceAddress(&map, (void *)(uintptr_t)(there + 4096)));
    EXPECT(memcmp(&map, &other, sizeof(map)) == 0, "they differ");
}

static void test_tensor_map_of_images(void)
{
    const cuuint64_t image[] = {32, 16, 16, 4};
    const cuuint64_t apart[] = {64, 1024, 16384};
    const int lower[] = {-1, -1}, upper[] = {-1, -1};
    const CUdeviceptr there = device_alloc(1 << 20);
    CUtensorMap map;

    needs_maps();
    GOOD(cuTensorMapEncodeIm2col(
        &map, CU_TENSOR_MAP_DATA_TYPE_FLOAT16, 4, (void *)(uintptr_t)there, image, apart, lower,
        upper, 32, 16, steps, CU_TENSOR_MAP_INTERLEAVE_NONE, CU_TENSOR_MAP_SWIZZLE_NONE,
        CU_TENSOR_MAP_L2_PROMOTION_NONE, CU_TENSOR_MAP_FLOAT_OOB_FILL_NONE));
    RESULT(cuTensorMapEncodeIm2col(&map, CU_TENSOR_MAP_DATA_TYPE_FLOAT16, 2,
                                   (void *)(uintptr_t)there, image, apart, lower, upper, 32, 16,
                                   steps, CU_TENSOR_MAP_INTERLEAVE_NONE, CU_TENSOR_MAP_SWIZZLE_NONE,
                                   CU_TENSOR_MAP_L2_PROMOTION_NONE,
                                   CU_TENSOR_MAP_FLOAT_OOB_FILL_NONE),
           CUDA_ERROR_INVALID_VALUE);
}

const struct test tensor_tests[] = {
    {"wrong_tensors", test_wrong_tensors, false},
    {"tensor_map_of_an_address", test_tensor_map_of_an_address, false},
    {"tensor_map_of_images", test_tensor_map_of_images, false},
    {NULL, NULL, false},
};
