/* SPDX-License-Identifier: MIT */
/*
 * Textures and surfaces: kernels read and write through them.
 *
 * Tests: guest/libcuda/model/texture.c, worker/api-array.c, worker/backend-cuda/array.c
 */
#include "tests/cuda/check.h"

#include <string.h>

#define WIDTH 16u
#define HEIGHT 8u

static CUfunction function_of(const char *name)
{
    CUmodule module;
    CUfunction function;

    GOOD(cuModuleLoadData(&module, own_ptx));
    GOOD(cuModuleGetFunction(&function, module, name));
    return function;
}

/* An array of floats, numbered from 0. */
static CUarray numbered(unsigned flags)
{
    const CUDA_ARRAY3D_DESCRIPTOR shape = {.Width = WIDTH,
                                           .Height = HEIGHT,
                                           .Format = CU_AD_FORMAT_FLOAT,
                                           .NumChannels = 1,
                                           .Flags = flags};
    float values[WIDTH * HEIGHT];
    CUDA_MEMCPY2D copy = {.srcMemoryType = CU_MEMORYTYPE_HOST,
                          .srcHost = values,
                          .srcPitch = WIDTH * sizeof(float),
                          .dstMemoryType = CU_MEMORYTYPE_ARRAY,
                          .WidthInBytes = WIDTH * sizeof(float),
                          .Height = HEIGHT};

    for (unsigned i = 0; i < WIDTH * HEIGHT; i++) {
        values[i] = (float)i;
    }
    GOOD(cuArray3DCreate(&copy.dstArray, &shape));
    GOOD(cuMemcpy2D(&copy));
    return copy.dstArray;
}

static void check_sampled(CUtexObject texture, float more)
{
    const CUdeviceptr there = device_alloc(WIDTH * HEIGHT * sizeof(float));
    float got[WIDTH * HEIGHT];
    void *parameters[] = {(void *)(uintptr_t)&there, &texture};

    GOOD(cuLaunchKernel(function_of("sample"), 1, 1, 1, WIDTH, HEIGHT, 1, 0, NULL, parameters,
                        NULL));
    GOOD(cuMemcpyDtoH(got, there, sizeof(got)));
    for (unsigned i = 0; i < WIDTH * HEIGHT; i++) {
        EXPECT(got[i] == (float)i + more, "%u: %g", i, (double)got[i]);
    }
}

static const CUDA_TEXTURE_DESC clamped = {
    .addressMode = {CU_TR_ADDRESS_MODE_CLAMP, CU_TR_ADDRESS_MODE_CLAMP, CU_TR_ADDRESS_MODE_CLAMP}};

static void test_texture_of_an_array(void)
{
    CUDA_RESOURCE_DESC resource = {.resType = CU_RESOURCE_TYPE_ARRAY}, told;
    CUDA_TEXTURE_DESC sampling;
    CUDA_RESOURCE_VIEW_DESC view;
    CUtexObject texture = 0;

    needs_gpu("textures are the GPU's");
    resource.res.array.hArray = numbered(0);
    GOOD(cuTexObjectCreate(&texture, &resource, &clamped, NULL));
    check_sampled(texture, 0);
    GOOD(cuTexObjectGetResourceDesc(&told, texture));
    EXPECT(told.resType == CU_RESOURCE_TYPE_ARRAY &&
               told.res.array.hArray == resource.res.array.hArray,
           "another array");
    GOOD(cuTexObjectGetTextureDesc(&sampling, texture));
    EXPECT(sampling.addressMode[0] == CU_TR_ADDRESS_MODE_CLAMP, "not clamped");
    memset(&view, 0x55, sizeof(view));
    GOOD(cuTexObjectGetResourceViewDesc(&view, texture));
    EXPECT(view.lastLayer == 0x55555555, "there is no view, and %u is written", view.lastLayer);
    GOOD(cuTexObjectDestroy(texture));
    GOOD(cuArrayDestroy(resource.res.array.hArray));
}

/* Halfway between two texels of a column. */
static void test_texture_between_texels(void)
{
    CUDA_RESOURCE_DESC resource = {.resType = CU_RESOURCE_TYPE_PITCH2D};
    CUDA_TEXTURE_DESC linear = clamped;
    float values[WIDTH * HEIGHT];
    CUtexObject texture = 0;
    CUdeviceptr memory;
    size_t pitch;
    CUDA_MEMCPY2D copy = {.srcMemoryType = CU_MEMORYTYPE_HOST,
                          .srcHost = values,
                          .srcPitch = WIDTH * sizeof(float),
                          .dstMemoryType = CU_MEMORYTYPE_DEVICE,
                          .WidthInBytes = WIDTH * sizeof(float),
                          .Height = HEIGHT};

    needs_gpu("textures are the GPU's");
    for (unsigned i = 0; i < WIDTH * HEIGHT; i++) {
        values[i] = (float)i + 0.25f;
    }
    GOOD(cuMemAllocPitch(&memory, &pitch, copy.WidthInBytes, HEIGHT, 4));
    copy.dstDevice = memory;
    copy.dstPitch = pitch;
    GOOD(cuMemcpy2D(&copy));
    resource.res.pitch2D.devPtr = memory;
    resource.res.pitch2D.format = CU_AD_FORMAT_FLOAT;
    resource.res.pitch2D.numChannels = 1;
    resource.res.pitch2D.width = WIDTH;
    resource.res.pitch2D.height = HEIGHT;
    resource.res.pitch2D.pitchInBytes = pitch;
    linear.filterMode = CU_TR_FILTER_MODE_LINEAR;
    GOOD(cuTexObjectCreate(&texture, &resource, &linear, NULL));
    check_sampled(texture, 0.25f);
    GOOD(cuTexObjectDestroy(texture));
}

static void test_texture_of_memory(void)
{
    CUDA_RESOURCE_DESC resource = {.resType = CU_RESOURCE_TYPE_LINEAR};
    const CUdeviceptr memory = device_alloc(WIDTH * WORD), there = device_alloc(WIDTH * WORD);
    unsigned words[WIDTH], got[WIDTH];
    CUtexObject texture = 0;
    void *parameters[] = {(void *)(uintptr_t)&there, &texture};
    size_t widest = 0;

    needs_gpu("textures are the GPU's");
    for (unsigned i = 0; i < WIDTH; i++) {
        words[i] = 3 * i + 1;
    }
    GOOD(cuMemcpyHtoD(memory, words, sizeof(words)));
    resource.res.linear.devPtr = memory;
    resource.res.linear.format = CU_AD_FORMAT_UNSIGNED_INT32;
    resource.res.linear.numChannels = 1;
    resource.res.linear.sizeInBytes = sizeof(words);
    GOOD(cuTexObjectCreate(&texture, &resource, &clamped, NULL));
    GOOD(cuLaunchKernel(function_of("fetch"), 1, 1, 1, WIDTH, 1, 1, 0, NULL, parameters, NULL));
    GOOD(cuMemcpyDtoH(got, there, sizeof(got)));
    EXPECT(memcmp(got, words, sizeof(got)) == 0, "they differ");
    GOOD(cuTexObjectDestroy(texture));
    GOOD(cuDeviceGetTexture1DLinearMaxWidth(&widest, CU_AD_FORMAT_UNSIGNED_INT32, 1, device));
    EXPECT(widest >= 1 << 20, "%zu elements", widest);
}

static void test_surface(void)
{
    const CUarray array = numbered(CUDA_ARRAY3D_SURFACE_LDST);
    CUDA_RESOURCE_DESC resource = {.resType = CU_RESOURCE_TYPE_ARRAY, .res.array.hArray = array};
    CUDA_RESOURCE_DESC told;
    unsigned got[WIDTH * HEIGHT];
    CUsurfObject surface = 0;
    void *parameters[] = {&surface};
    CUDA_MEMCPY2D copy = {.srcMemoryType = CU_MEMORYTYPE_ARRAY,
                          .srcArray = array,
                          .dstMemoryType = CU_MEMORYTYPE_HOST,
                          .dstHost = got,
                          .dstPitch = WIDTH * WORD,
                          .WidthInBytes = WIDTH * WORD,
                          .Height = HEIGHT};

    needs_gpu("surfaces are the GPU's");
    GOOD(cuSurfObjectCreate(&surface, &resource));
    GOOD(cuLaunchKernel(function_of("mark"), 1, 1, 1, WIDTH, HEIGHT, 1, 0, NULL, parameters, NULL));
    GOOD(cuMemcpy2D(&copy));
    for (unsigned i = 0; i < WIDTH * HEIGHT; i++) {
        EXPECT(got[i] == 100 * (i / WIDTH) + i % WIDTH, "%u: %u", i, got[i]);
    }
    GOOD(cuSurfObjectGetResourceDesc(&told, surface));
    EXPECT(told.res.array.hArray == array, "another array");
    GOOD(cuSurfObjectDestroy(surface));
    GOOD(cuArrayDestroy(array));
}

static void test_wrong_textures(void)
{
    CUDA_RESOURCE_DESC resource = {.resType = CU_RESOURCE_TYPE_ARRAY};
    CUtexObject texture = 0;

    RESULT(cuTexObjectCreate(NULL, &resource, &clamped, NULL), CUDA_ERROR_INVALID_VALUE);
    RESULT(cuTexObjectCreate(&texture, NULL, &clamped, NULL), CUDA_ERROR_INVALID_VALUE);
    RESULT(cuTexObjectCreate(&texture, &resource, &clamped, NULL), CUDA_ERROR_INVALID_VALUE);
    GOOD(cuTexObjectDestroy(0));
    GOOD(cuSurfObjectDestroy(0x7777));
    resource.flags = 1;
    RESULT(cuTexObjectCreate(&texture, &resource, &clamped, NULL), CUDA_ERROR_INVALID_VALUE);
    needs_gpu("textures are the GPU's");
    resource.flags = 0;
    resource.resType = CU_RESOURCE_TYPE_LINEAR;
    resource.res.linear.devPtr = device_alloc(WORD) + 1; /* not aligned */
    resource.res.linear.format = CU_AD_FORMAT_UNSIGNED_INT32;
    resource.res.linear.numChannels = 1;
    resource.res.linear.sizeInBytes = WORD;
    EXPECT(cuTexObjectCreate(&texture, &resource, &clamped, NULL) != CUDA_SUCCESS, "not aligned");
}

const struct test texture_tests[] = {
    {"wrong_textures", test_wrong_textures, false},
    {"texture_of_an_array", test_texture_of_an_array, false},
    {"texture_between_texels", test_texture_between_texels, false},
    {"texture_of_memory", test_texture_of_memory, false},
    {"surface", test_surface, false},
    {NULL, NULL, false},
};
