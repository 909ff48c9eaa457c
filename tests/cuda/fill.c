/* SPDX-License-Identifier: MIT */
/*
 * cuMemset in all its widths.
 *
 * Tests: guest/libcuda/calls/fill.c, guest/libcuda/model/box.c
 */
#include "tests/cuda/check.h"

#define BYTES 4096

/* The bytes [start, end) repeat `value`, of `width` bytes; all others are 0xee. */
static void expect_fill(CUdeviceptr at, size_t start, size_t end, uint32_t value, size_t width)
{
    uint8_t bytes[BYTES];

    GOOD(cuMemcpyDtoH(bytes, at, sizeof(bytes)));
    for (size_t i = 0; i < sizeof(bytes); i++) {
        const bool inside = i >= start && i < end;
        const uint8_t wanted = inside ? (uint8_t)(value >> 8 * ((i - start) % width)) : 0xee;

        EXPECT(bytes[i] == wanted, "%#x instead of %#x at %zu", bytes[i], wanted, i);
    }
}

static CUdeviceptr clean(CUdeviceptr at)
{
    GOOD(cuMemsetD8(at, 0xee, BYTES));
    return at;
}

static void test_fill_of_each_width(void)
{
    const CUdeviceptr at = clean(device_alloc(BYTES));

    expect_fill(at, 0, 0, 0, 1);
    GOOD(cuMemsetD8(at + 3, 0xab, 1001));
    expect_fill(at, 3, 1004, 0xab, 1);
    GOOD(cuMemsetD16(clean(at) + 6, 0x1234, 501));
    expect_fill(at, 6, 1008, 0x1234, 2);
    GOOD(cuMemsetD32(clean(at) + 4, 0xdeadbeef, 1023));
    expect_fill(at, 4, BYTES, 0xdeadbeef, 4);
}

static void test_fill_asynchronously(void)
{
    const CUstream stream = stream_create(0);
    const CUdeviceptr at = clean(device_alloc(BYTES));

    spin(50, stream);
    GOOD(cuMemsetD8Async(at, 1, BYTES, stream));
    GOOD(cuMemsetD16Async(at, 0x0202, BYTES / 2, stream));
    GOOD(cuMemsetD32Async(at, 0xeeeeeeee, BYTES / 4, stream));
    GOOD(cuMemsetD8Async(at + 1, 5, 7, stream));
    GOOD(cuStreamSynchronize(stream));
    expect_fill(at, 1, 8, 5, 1);
}

static void test_fill_of_misaligned_words(void)
{
    const CUdeviceptr at = device_alloc(BYTES);

    RESULT(cuMemsetD32(at + 2, 1, 4), CUDA_ERROR_INVALID_VALUE);
    RESULT(cuMemsetD16(at + 1, 1, 4), CUDA_ERROR_INVALID_VALUE);
}

/* Three rows of `count` values each; what is between them stays. */
static void expect_rows(CUdeviceptr at, size_t pitch, size_t bytes, uint32_t value, size_t width)
{
    uint8_t row[BYTES];

    for (size_t y = 0; y < 3; y++) {
        GOOD(cuMemcpyDtoH(row, at + y * pitch, bytes + 1));
        for (size_t x = 0; x < bytes; x++) {
            EXPECT(row[x] == (uint8_t)(value >> 8 * (x % width)), "%#x at (%zu, %zu)", row[x], x,
                   y);
        }
        EXPECT(row[bytes] == 0xee, "%#x behind row %zu", row[bytes], y);
    }
}

static void test_fill_of_rows(void)
{
    CUdeviceptr at = 0;
    size_t pitch = 0;

    GOOD(cuMemAllocPitch(&at, &pitch, 200, 4, 4));
    GOOD(cuMemsetD8(at, 0xee, 4 * pitch));
    GOOD(cuMemsetD2D8(at, pitch, 0x11, 77, 3));
    expect_rows(at, pitch, 77, 0x11, 1);
    GOOD(cuMemsetD2D16(at, pitch, 0x2233, 40, 3));
    expect_rows(at, pitch, 80, 0x2233, 2);
    GOOD(cuMemsetD2D32(at, pitch, 0x44556677, 30, 3));
    expect_rows(at, pitch, 120, 0x44556677, 4);
}

static void test_fill_of_rows_asynchronously(void)
{
    const CUstream stream = stream_create(CU_STREAM_NON_BLOCKING);
    CUdeviceptr at = 0;
    size_t pitch = 0;

    GOOD(cuMemAllocPitch(&at, &pitch, 200, 4, 4));
    GOOD(cuMemsetD2D8Async(at, pitch, 0xee, 200, 4, stream));
    GOOD(cuMemsetD2D16Async(at, pitch, 0x2233, 20, 3, stream));
    GOOD(cuMemsetD2D32Async(at, pitch, 0x99aabbcc, 25, 3, stream));
    GOOD(cuStreamSynchronize(stream));
    expect_rows(at, pitch, 100, 0x99aabbcc, 4);
}

const struct test fill_tests[] = {
    {"fill_of_each_width", test_fill_of_each_width, false},
    {"fill_asynchronously", test_fill_asynchronously, false},
    {"fill_of_misaligned_words", test_fill_of_misaligned_words, false},
    {"fill_of_rows", test_fill_of_rows, false},
    {"fill_of_rows_asynchronously", test_fill_of_rows_asynchronously, false},
    {0},
};
