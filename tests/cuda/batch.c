/* SPDX-License-Identifier: MIT */
/*
 * Batches of copies: each does what it would do by itself, and a batch that is wrong is refused.
 *
 * Tests: guest/libcuda/calls/batch.c
 */
#include "tests/cuda/check.h"

#include <stdlib.h>
#include <string.h>

#define COPIES 4u
#define BYTES 4096u

/* As CUDA 13 has them: what cuda.h's names are depends on the header's version. */
typedef CUresult (*batch_fn)(CUdeviceptr *, CUdeviceptr *, size_t *, size_t, CUmemcpyAttributes *,
                             size_t *, size_t, CUstream);
typedef CUresult (*boxes_fn)(size_t, CUDA_MEMCPY3D_BATCH_OP *, unsigned long long, CUstream);

static void *function_of(const char *name)
{
    CUdriverProcAddressQueryResult found;
    void *function = NULL;

    if (cuGetProcAddress(name, &function, 13000, CU_GET_PROC_ADDRESS_DEFAULT, &found) !=
            CUDA_SUCCESS ||
        !function) {
        skip("this driver has no %s", name);
    }
    return function;
}

static CUmemcpyAttributes in_order(CUmemcpySrcAccessOrder order)
{
    return (CUmemcpyAttributes){.srcAccessOrder = order};
}

/* There from four kinds of memory, and back: the second half is read during the call. */
static void test_batch_of_lines(void)
{
    const batch_fn batch = (batch_fn)function_of("cuMemcpyBatchAsync");
    const CUstream stream = stream_create(CU_STREAM_NON_BLOCKING);
    uint8_t *from[COPIES] = {malloc(BYTES), host_alloc(BYTES), malloc(BYTES), host_alloc(BYTES)};
    uint8_t *back = malloc(BYTES);
    CUdeviceptr there[COPIES], sources[COPIES], inner[2];
    size_t sizes[COPIES], starts[] = {0, 2};
    CUmemcpyAttributes attributes[] = {in_order(CU_MEMCPY_SRC_ACCESS_ORDER_STREAM),
                                       in_order(CU_MEMCPY_SRC_ACCESS_ORDER_DURING_API_CALL)};

    for (unsigned i = 0; i < COPIES; i++) {
        there[i] = device_alloc(BYTES);
        sources[i] = (CUdeviceptr)(uintptr_t)from[i];
        sizes[i] = BYTES - i;
        pattern(from[i], BYTES, i);
    }
    GOOD(batch(there, sources, sizes, COPIES, attributes, starts, 2, stream));
    memset(from[2], 0, BYTES);
    memset(from[3], 0, BYTES);
    GOOD(cuStreamSynchronize(stream));
    for (unsigned i = 0; i < COPIES; i++) {
        GOOD(cuMemcpyDtoH(back, there[i], sizes[i]));
        EXPECT(is_pattern(back, sizes[i], i), "copy %u", i);
    }
    /* On the device, and to the host. */
    inner[0] = there[1];
    inner[1] = (CUdeviceptr)(uintptr_t)from[1];
    sources[0] = there[0];
    sources[1] = there[0];
    sizes[0] = sizes[1] = 1000;
    GOOD(batch(inner, sources, sizes, 2, attributes, starts, 1, stream));
    GOOD(cuStreamSynchronize(stream));
    EXPECT(is_pattern(from[1], 1000, 0), "to the host");
    GOOD(cuMemcpyDtoH(back, there[1], 1000));
    EXPECT(is_pattern(back, 1000, 0), "on the device");
}

static void test_wrong_batches(void)
{
    const batch_fn batch = (batch_fn)function_of("cuMemcpyBatchAsync");
    const CUstream stream = stream_create(CU_STREAM_NON_BLOCKING);
    CUdeviceptr to[] = {device_alloc(BYTES), device_alloc(BYTES)};
    CUdeviceptr from[] = {device_alloc(BYTES), device_alloc(BYTES)};
    size_t sizes[] = {64, 64}, starts[] = {0, 1}, late[] = {1, 2}, twice[] = {0, 0};
    CUmemcpyAttributes good[] = {in_order(CU_MEMCPY_SRC_ACCESS_ORDER_ANY),
                                 in_order(CU_MEMCPY_SRC_ACCESS_ORDER_ANY)};
    CUmemcpyAttributes none[] = {in_order(CU_MEMCPY_SRC_ACCESS_ORDER_INVALID)};

    GOOD(batch(to, from, sizes, 2, good, starts, 2, stream));
    RESULT(batch(to, from, sizes, 2, good, starts, 1, NULL), CUDA_ERROR_INVALID_VALUE);
    RESULT(batch(to, from, sizes, 0, good, starts, 1, stream), CUDA_ERROR_INVALID_VALUE);
    RESULT(batch(to, from, sizes, 2, good, starts, 0, stream), CUDA_ERROR_INVALID_VALUE);
    RESULT(batch(to, from, sizes, 2, none, starts, 1, stream), CUDA_ERROR_INVALID_VALUE);
    RESULT(batch(to, from, sizes, 2, good, late, 2, stream), CUDA_ERROR_INVALID_VALUE);
    RESULT(batch(to, from, sizes, 2, good, twice, 2, stream), CUDA_ERROR_INVALID_VALUE);
    RESULT(batch(NULL, from, sizes, 2, good, starts, 1, stream), CUDA_ERROR_INVALID_VALUE);
}

/* Rows of an image there, with gaps, and back without. */
static void test_batch_of_boxes(void)
{
    const boxes_fn boxes = (boxes_fn)function_of("cuMemcpy3DBatchAsync");
    const CUstream stream = stream_create(CU_STREAM_NON_BLOCKING);
    const CUdeviceptr there = device_alloc(BYTES);
    uint8_t *from = malloc(BYTES), *back = malloc(BYTES);
    CUDA_MEMCPY3D_BATCH_OP op = {.extent = {50, 10, 2},
                                 .srcAccessOrder = CU_MEMCPY_SRC_ACCESS_ORDER_STREAM};

    pattern(from, BYTES, 4);
    op.src.type = op.dst.type = CU_MEMCPY_OPERAND_TYPE_POINTER;
    op.src.op.ptr.ptr = (CUdeviceptr)(uintptr_t)from;
    op.dst.op.ptr.ptr = there;
    op.dst.op.ptr.rowLength = 100;
    op.dst.op.ptr.layerHeight = 15;
    GOOD(boxes(1, &op, 0, stream));
    GOOD(cuStreamSynchronize(stream));
    GOOD(cuMemcpyDtoH(back, there, BYTES));
    for (unsigned slice = 0; slice < 2; slice++) {
        for (unsigned row = 0; row < 10; row++) {
            EXPECT(memcmp(&back[(slice * 15 + row) * 100], &from[(slice * 10 + row) * 50], 50) == 0,
                   "slice %u, row %u", slice, row);
        }
    }
    op.extent.width = 0;
    RESULT(boxes(1, &op, 0, stream), CUDA_ERROR_INVALID_VALUE);
    op.extent.width = 50;
    RESULT(boxes(1, &op, 1, stream), CUDA_ERROR_INVALID_VALUE);
    RESULT(boxes(1, &op, 0, NULL), CUDA_ERROR_INVALID_VALUE);
    RESULT(boxes(1, NULL, 0, stream), CUDA_ERROR_INVALID_VALUE);
}

const struct test batch_tests[] = {
    {"batch_of_lines", test_batch_of_lines, false},
    {"wrong_batches", test_wrong_batches, false},
    {"batch_of_boxes", test_batch_of_boxes, false},
    {NULL, NULL, false},
};
