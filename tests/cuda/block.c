/* SPDX-License-Identifier: MIT */
/*
 * Copies of blocks: rows of bytes with gaps between them, in two and three dimensions.
 *
 * Tests: guest/libcuda/calls/copy.c, guest/libcuda/model/box.c
 */
#include "tests/cuda/check.h"

#include <string.h>

#define WIDTH 29
#define HEIGHT 5
#define PITCH 37 /* of the host's rows */

static uint8_t source[PITCH * (HEIGHT + 3)], target[PITCH * (HEIGHT + 3)];

static CUdeviceptr rows(size_t *pitch)
{
    CUdeviceptr at = 0;

    GOOD(cuMemAllocPitch(&at, pitch, WIDTH + 8, HEIGHT + 4, 4));
    GOOD(cuMemsetD8(at, 0xee, *pitch * (HEIGHT + 4)));
    pattern(source, sizeof(source), 1);
    memset(target, 0xdd, sizeof(target));
    return at;
}

/* The block of `source` at (2, 1) is now in `target` at (3, 2), and nothing else. */
static void expect_block(void)
{
    for (size_t y = 0; y < HEIGHT + 3; y++) {
        for (size_t x = 0; x < PITCH; x++) {
            const bool inside = x >= 3 && x < 3 + WIDTH && y >= 2 && y < 2 + HEIGHT;
            const uint8_t wanted = inside ? source[(y - 1) * PITCH + x - 1] : 0xdd;

            EXPECT(target[y * PITCH + x] == wanted, "%#x at (%zu, %zu)", target[y * PITCH + x], x,
                   y);
        }
    }
}

/* From `source` at (2, 1) to the device at (5, 3), and from there to `target` at (3, 2). */
static CUDA_MEMCPY2D to_device(CUdeviceptr at, size_t pitch)
{
    return (CUDA_MEMCPY2D){.srcXInBytes = 2,
                           .srcY = 1,
                           .srcMemoryType = CU_MEMORYTYPE_HOST,
                           .srcHost = source,
                           .srcPitch = PITCH,
                           .dstXInBytes = 5,
                           .dstY = 3,
                           .dstMemoryType = CU_MEMORYTYPE_DEVICE,
                           .dstDevice = at,
                           .dstPitch = pitch,
                           .WidthInBytes = WIDTH,
                           .Height = HEIGHT};
}

static CUDA_MEMCPY2D from_device(CUdeviceptr at, size_t pitch)
{
    return (CUDA_MEMCPY2D){.srcXInBytes = 5,
                           .srcY = 3,
                           .srcMemoryType = CU_MEMORYTYPE_DEVICE,
                           .srcDevice = at,
                           .srcPitch = pitch,
                           .dstXInBytes = 3,
                           .dstY = 2,
                           .dstMemoryType = CU_MEMORYTYPE_HOST,
                           .dstHost = target,
                           .dstPitch = PITCH,
                           .WidthInBytes = WIDTH,
                           .Height = HEIGHT};
}

static void test_rows_there_and_back(void)
{
    size_t pitch = 0;
    const CUdeviceptr at = rows(&pitch);
    const CUDA_MEMCPY2D there = to_device(at, pitch), back = from_device(at, pitch);
    uint8_t byte = 0;

    GOOD(cuMemcpy2D(&there));
    GOOD(cuMemcpy2D(&back));
    expect_block();
    GOOD(cuMemcpyDtoH(&byte, at + 3 * pitch + 4, 1));
    EXPECT(byte == 0xee, "%#x beside the block", byte);
}

static void test_rows_asynchronously(void)
{
    const CUstream stream = stream_create(0);
    size_t pitch = 0;
    const CUdeviceptr at = rows(&pitch);
    const CUDA_MEMCPY2D there = to_device(at, pitch), back = from_device(at, pitch);

    GOOD(cuMemcpy2DAsync(&there, stream));
    GOOD(cuMemcpy2DAsync(&back, stream));
    GOOD(cuStreamSynchronize(stream));
    expect_block();
}

/* Between pitches that no cuMemAllocPitch gave. */
static void test_rows_on_device(void)
{
    const size_t odd = WIDTH + 12;
    const CUdeviceptr packed = device_alloc(odd * (HEIGHT + 4));
    size_t pitch = 0;
    const CUdeviceptr at = rows(&pitch);
    const CUDA_MEMCPY2D there = to_device(at, pitch), back = from_device(packed, odd);
    CUDA_MEMCPY2D across = to_device(packed, odd);

    across.srcMemoryType = CU_MEMORYTYPE_DEVICE;
    across.srcHost = NULL;
    across.srcDevice = at;
    across.srcPitch = pitch;
    across.srcXInBytes = 5;
    across.srcY = 3;
    GOOD(cuMemcpy2D(&there));
    GOOD(cuMemcpy2DUnaligned(&across));
    GOOD(cuMemcpy2DUnaligned(&back));
    expect_block();
}

static void test_rows_on_host(void)
{
    CUDA_MEMCPY2D copy = to_device(0, 0);

    pattern(source, sizeof(source), 1);
    memset(target, 0xdd, sizeof(target));
    copy.dstMemoryType = CU_MEMORYTYPE_HOST;
    copy.dstHost = target;
    copy.dstPitch = PITCH;
    copy.dstXInBytes = 3;
    copy.dstY = 2;
    GOOD(cuMemcpy2D(&copy));
    expect_block();
}

static void test_rows_of_unified_memory(void)
{
    uint8_t *pinned = host_alloc(sizeof(target));
    size_t pitch = 0;
    const CUdeviceptr at = rows(&pitch);
    const CUDA_MEMCPY2D there = to_device(at, pitch);
    CUDA_MEMCPY2D back = from_device(at, pitch);

    memset(pinned, 0xdd, sizeof(target));
    back.srcMemoryType = back.dstMemoryType = CU_MEMORYTYPE_UNIFIED;
    back.dstHost = NULL;
    back.dstDevice = (CUdeviceptr)(uintptr_t)pinned;
    GOOD(cuMemcpy2D(&there));
    GOOD(cuMemcpy2D(&back));
    memcpy(target, pinned, sizeof(target));
    expect_block();
    GOOD(cuMemFreeHost(pinned));
}

static void test_rows_wider_than_pitch(void)
{
    size_t pitch = 0;
    const CUdeviceptr at = rows(&pitch);
    CUDA_MEMCPY2D copy = to_device(at, pitch);

    copy.srcPitch = WIDTH - 1;
    RESULT(cuMemcpy2D(&copy), CUDA_ERROR_INVALID_VALUE);
}

/* A box of 10 by 4 by 3 bytes; both sides of the copies have larger ones around it. */
static uint8_t boxes[2][6 * 6 * 16];

static CUDA_MEMCPY3D box_to_device(CUdeviceptr at)
{
    return (CUDA_MEMCPY3D){.srcXInBytes = 2,
                           .srcY = 1,
                           .srcZ = 2,
                           .srcMemoryType = CU_MEMORYTYPE_HOST,
                           .srcHost = boxes[0],
                           .srcPitch = 16,
                           .srcHeight = 6,
                           .dstXInBytes = 4,
                           .dstY = 1,
                           .dstZ = 1,
                           .dstMemoryType = CU_MEMORYTYPE_DEVICE,
                           .dstDevice = at,
                           .dstPitch = 512,
                           .dstHeight = 5,
                           .WidthInBytes = 10,
                           .Height = 4,
                           .Depth = 3};
}

static CUDA_MEMCPY3D box_from_device(CUdeviceptr at)
{
    CUDA_MEMCPY3D copy = box_to_device(0);

    copy.srcXInBytes = 4;
    copy.srcY = 1;
    copy.srcZ = 1;
    copy.srcMemoryType = CU_MEMORYTYPE_DEVICE;
    copy.srcHost = NULL;
    copy.srcDevice = at;
    copy.srcPitch = 512;
    copy.srcHeight = 5;
    copy.dstXInBytes = 3;
    copy.dstY = 2;
    copy.dstZ = 0;
    copy.dstMemoryType = CU_MEMORYTYPE_HOST;
    copy.dstDevice = 0;
    copy.dstHost = boxes[1];
    copy.dstPitch = 16;
    copy.dstHeight = 6;
    return copy;
}

static void expect_box(void)
{
    for (size_t i = 0; i < sizeof(boxes[1]); i++) {
        const size_t x = i % 16, y = i / 16 % 6, z = i / 96;
        const bool inside = x >= 3 && x < 13 && y >= 2 && z < 3;
        const uint8_t wanted = inside ? boxes[0][((z + 2) * 6 + y - 1) * 16 + x - 1] : 0xdd;

        EXPECT(boxes[1][i] == wanted, "%#x at (%zu, %zu, %zu)", boxes[1][i], x, y, z);
    }
}

static void test_boxes(void)
{
    const size_t bytes = 10240; /* 4 times 5 rows */
    const CUdeviceptr one = device_alloc(bytes), other = device_alloc(bytes);
    const CUDA_MEMCPY3D there = box_to_device(one), back = box_from_device(other);
    CUDA_MEMCPY3D across = box_from_device(one);

    pattern(boxes[0], sizeof(boxes[0]), 2);
    memset(boxes[1], 0xdd, sizeof(boxes[1]));
    across.dstXInBytes = 4;
    across.dstY = across.dstZ = 1;
    across.dstMemoryType = CU_MEMORYTYPE_DEVICE;
    across.dstHost = NULL;
    across.dstDevice = other;
    across.dstPitch = 512;
    across.dstHeight = 5;
    GOOD(cuMemcpy3D(&there));
    GOOD(cuMemcpy3D(&across));
    GOOD(cuMemcpy3D(&back));
    expect_box();
}

static void test_boxes_asynchronously(void)
{
    const CUdeviceptr at = device_alloc(10240);
    const CUDA_MEMCPY3D there = box_to_device(at), back = box_from_device(at);
    const CUstream stream = stream_create(CU_STREAM_NON_BLOCKING);

    pattern(boxes[0], sizeof(boxes[0]), 3);
    memset(boxes[1], 0xdd, sizeof(boxes[1]));
    GOOD(cuMemcpy3DAsync(&there, stream));
    GOOD(cuMemcpy3DAsync(&back, stream));
    GOOD(cuStreamSynchronize(stream));
    expect_box();
}

const struct test block_tests[] = {
    {"rows_there_and_back", test_rows_there_and_back, false},
    {"rows_asynchronously", test_rows_asynchronously, false},
    {"rows_on_device", test_rows_on_device, false},
    {"rows_on_host", test_rows_on_host, false},
    {"rows_of_unified_memory", test_rows_of_unified_memory, false},
    {"rows_wider_than_pitch", test_rows_wider_than_pitch, false},
    {"boxes", test_boxes, false},
    {"boxes_asynchronously", test_boxes_asynchronously, false},
    {0},
};
