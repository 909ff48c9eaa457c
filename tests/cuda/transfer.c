/* SPDX-License-Identifier: MIT */
/*
 * Copies in graphs from and to memory that is not page-locked, and between two places of it: they
 * take what is there when the graph comes to them, each time that it is launched.
 *
 * Tests: guest/libcuda/model/transfer.c, guest/libcuda/model/plan.c, guest/libcuda/model/gate.c
 */
#include "tests/cuda/check.h"

#include <stdlib.h>
#include <string.h>

#define BYTES 10000u

static uint8_t from[BYTES], to[BYTES];

static CUDA_MEMCPY3D line(CUmemorytype to_type, CUdeviceptr to_address, CUmemorytype from_type,
                          CUdeviceptr from_address, size_t bytes)
{
    CUDA_MEMCPY3D copy = {.srcMemoryType = from_type,
                          .dstMemoryType = to_type,
                          .WidthInBytes = bytes,
                          .Height = 1,
                          .Depth = 1};

    copy.srcHost = from_type == CU_MEMORYTYPE_HOST ? (void *)(uintptr_t)from_address : NULL;
    copy.srcDevice = from_address;
    copy.dstHost = to_type == CU_MEMORYTYPE_HOST ? (void *)(uintptr_t)to_address : NULL;
    copy.dstDevice = to_address;
    return copy;
}

static CUgraphExec executable(CUgraph graph)
{
    CUgraphExec exec;

    GOOD(cuGraphInstantiateWithFlags(&exec, graph, 0));
    GOOD(cuGraphDestroy(graph));
    return exec;
}

static void launch_and_wait(CUgraphExec exec, CUstream stream)
{
    GOOD(cuGraphLaunch(exec, stream));
    GOOD(cuStreamSynchronize(stream));
}

/* To the device, there to another place, and back: by nodes. */
static void test_pageable_nodes(void)
{
    const CUdeviceptr one = device_alloc(BYTES), other = device_alloc(BYTES);
    const CUstream stream = stream_create(CU_STREAM_NON_BLOCKING);
    const CUDA_MEMCPY3D there = line(CU_MEMORYTYPE_DEVICE, one, CU_MEMORYTYPE_HOST,
                                     (CUdeviceptr)(uintptr_t)from, BYTES);
    const CUDA_MEMCPY3D across = line(CU_MEMORYTYPE_DEVICE, other, CU_MEMORYTYPE_DEVICE, one,
                                      BYTES);
    const CUDA_MEMCPY3D back = line(CU_MEMORYTYPE_HOST, (CUdeviceptr)(uintptr_t)to,
                                    CU_MEMORYTYPE_DEVICE, other, BYTES);
    CUDA_MEMCPY3D said;
    CUgraphNode nodes[3];
    CUgraphExec exec;
    CUgraph graph;

    GOOD(cuGraphCreate(&graph, 0));
    GOOD(cuGraphAddMemcpyNode(&nodes[0], graph, NULL, 0, &there, context));
    GOOD(cuGraphAddMemcpyNode(&nodes[1], graph, &nodes[0], 1, &across, context));
    GOOD(cuGraphAddMemcpyNode(&nodes[2], graph, &nodes[1], 1, &back, context));
    GOOD(cuGraphMemcpyNodeGetParams(nodes[2], &said));
    EXPECT(said.dstHost == to && said.srcDevice == other, "%p", said.dstHost);
    exec = executable(graph);
    for (uint32_t turn = 1; turn <= 3; turn++) {
        pattern(from, BYTES, turn);
        memset(to, 0, BYTES);
        launch_and_wait(exec, stream);
        EXPECT(is_pattern(to, BYTES, turn), "turn %u", turn);
    }
    GOOD(cuGraphExecDestroy(exec));
}

/* The same of a captured stream, with a kernel in between. */
static void test_captured_pageable_copies(void)
{
    const CUdeviceptr words = device_alloc(64 * WORD), sum = device_alloc(8);
    const CUstream stream = stream_create(CU_STREAM_NON_BLOCKING);
    static uint32_t numbers[64];
    static long long result;
    CUgraphExec exec;
    CUgraph graph;

    warm_up();
    GOOD(cuStreamBeginCapture(stream, CU_STREAM_CAPTURE_MODE_GLOBAL));
    GOOD(cuMemcpyHtoDAsync(words, numbers, sizeof(numbers), stream));
    GOOD(cuMemsetD32Async(sum, 0, 2, stream));
    reduce(words, 64, sum, stream);
    GOOD(cuMemcpyDtoHAsync(&result, sum, 8, stream));
    GOOD(cuStreamEndCapture(stream, &graph));
    exec = executable(graph);
    for (uint32_t turn = 1; turn <= 3; turn++) {
        for (unsigned i = 0; i < 64; i++) {
            numbers[i] = turn * i;
        }
        launch_and_wait(exec, stream);
        EXPECT(result == turn * 63 * 32, "turn %u: %lld", turn, result);
    }
}

/* Rows of an image, on both sides wider than what is copied: what lies between stays. */
static void test_pageable_rows(void)
{
    const CUdeviceptr there = device_alloc(BYTES);
    const CUstream stream = stream_create(CU_STREAM_NON_BLOCKING);
    CUDA_MEMCPY3D copy = {.srcMemoryType = CU_MEMORYTYPE_HOST,
                          .srcHost = from,
                          .srcXInBytes = 10,
                          .srcY = 2,
                          .srcPitch = 100,
                          .dstMemoryType = CU_MEMORYTYPE_DEVICE,
                          .dstDevice = there,
                          .dstPitch = 64,
                          .WidthInBytes = 50,
                          .Height = 20,
                          .Depth = 1};
    CUDA_MEMCPY3D back = {.srcMemoryType = CU_MEMORYTYPE_DEVICE,
                          .srcDevice = there,
                          .srcPitch = 64,
                          .dstMemoryType = CU_MEMORYTYPE_HOST,
                          .dstHost = to,
                          .dstPitch = 70,
                          .WidthInBytes = 50,
                          .Height = 20,
                          .Depth = 1};
    CUgraphNode nodes[2];
    CUgraph graph;

    GOOD(cuGraphCreate(&graph, 0));
    GOOD(cuGraphAddMemcpyNode(&nodes[0], graph, NULL, 0, &copy, context));
    GOOD(cuGraphAddMemcpyNode(&nodes[1], graph, &nodes[0], 1, &back, context));
    pattern(from, BYTES, 5);
    memset(to, 0xee, BYTES);
    launch_and_wait(executable(graph), stream);
    for (unsigned row = 0; row < 20; row++) {
        EXPECT(memcmp(&to[row * 70], &from[(row + 2) * 100 + 10], 50) == 0, "row %u", row);
        EXPECT(to[row * 70 + 50] == 0xee && to[row * 70 + 69] == 0xee, "behind row %u", row);
    }
}

/* Between two places of the host's memory, behind a copy whose result it takes. */
static void test_host_to_host(void)
{
    uint8_t *pinned = host_alloc(BYTES);
    const CUdeviceptr there = device_alloc(BYTES);
    const CUstream stream = stream_create(CU_STREAM_NON_BLOCKING);
    const CUDA_MEMCPY3D first = line(CU_MEMORYTYPE_HOST, (CUdeviceptr)(uintptr_t)pinned,
                                     CU_MEMORYTYPE_DEVICE, there, BYTES);
    const CUDA_MEMCPY3D second = line(CU_MEMORYTYPE_HOST, (CUdeviceptr)(uintptr_t)to,
                                      CU_MEMORYTYPE_HOST, (CUdeviceptr)(uintptr_t)pinned, BYTES);
    CUgraphNode nodes[2];
    CUgraph graph;

    pattern(from, BYTES, 9);
    GOOD(cuMemcpyHtoD(there, from, BYTES));
    GOOD(cuGraphCreate(&graph, 0));
    GOOD(cuGraphAddMemcpyNode(&nodes[0], graph, NULL, 0, &first, context));
    GOOD(cuGraphAddMemcpyNode(&nodes[1], graph, &nodes[0], 1, &second, context));
    launch_and_wait(executable(graph), stream);
    EXPECT(is_pattern(to, BYTES, 9), "not what the first copy brought");
}

/* Other memory in place of the first: page-locked, and again not. */
static void test_pageable_changes(void)
{
    uint8_t *pinned = host_alloc(BYTES), *other = malloc(BYTES);
    const CUdeviceptr there = device_alloc(BYTES);
    const CUstream stream = stream_create(CU_STREAM_NON_BLOCKING);
    uint8_t *sources[] = {pinned, other, from};
    CUDA_MEMCPY3D copy = line(CU_MEMORYTYPE_DEVICE, there, CU_MEMORYTYPE_HOST,
                              (CUdeviceptr)(uintptr_t)from, BYTES);
    CUgraphNode node;
    CUgraphExec exec;
    CUgraph graph;

    GOOD(cuGraphCreate(&graph, 0));
    GOOD(cuGraphAddMemcpyNode(&node, graph, NULL, 0, &copy, context));
    GOOD(cuGraphInstantiateWithFlags(&exec, graph, 0));
    for (uint32_t i = 0; i < 3; i++) {
        copy = line(CU_MEMORYTYPE_DEVICE, there, CU_MEMORYTYPE_HOST,
                    (CUdeviceptr)(uintptr_t)sources[i], BYTES);
        GOOD(cuGraphExecMemcpyNodeSetParams(exec, node, &copy, context));
        pattern(sources[i], BYTES, 20 + i);
        launch_and_wait(exec, stream);
        GOOD(cuMemcpyDtoH(to, there, BYTES));
        EXPECT(is_pattern(to, BYTES, 20 + i), "source %u", i);
    }
    GOOD(cuGraphNodeSetEnabled(exec, node, 0));
    pattern(from, BYTES, 99);
    launch_and_wait(exec, stream);
    GOOD(cuMemcpyDtoH(to, there, BYTES));
    EXPECT(is_pattern(to, BYTES, 22), "a node that is disabled has copied");
    free(other);
}

/* Launches that follow each other at once: each takes what is there in its turn. */
static void test_pageable_launches_in_a_row(void)
{
    const CUdeviceptr there = device_alloc(BYTES);
    const CUstream stream = stream_create(CU_STREAM_NON_BLOCKING);
    CUgraphExec exec;
    CUgraph graph;

    pattern(from, BYTES, 3);
    GOOD(cuStreamBeginCapture(stream, CU_STREAM_CAPTURE_MODE_GLOBAL));
    GOOD(cuMemcpyHtoDAsync(there, from, BYTES, stream));
    GOOD(cuMemcpyDtoHAsync(to, there, BYTES, stream));
    GOOD(cuStreamEndCapture(stream, &graph));
    exec = executable(graph);
    for (unsigned i = 0; i < 20; i++) {
        GOOD(cuGraphLaunch(exec, stream));
    }
    GOOD(cuStreamSynchronize(stream));
    EXPECT(is_pattern(to, BYTES, 3), "not copied");
    GOOD(cuGraphLaunch(exec, stream));
    GOOD(cuGraphExecDestroy(exec));
    GOOD(cuStreamSynchronize(stream));
}

const struct test transfer_tests[] = {
    {"pageable_nodes", test_pageable_nodes, false},
    {"captured_pageable_copies", test_captured_pageable_copies, false},
    {"pageable_rows", test_pageable_rows, false},
    {"host_to_host", test_host_to_host, false},
    {"pageable_changes", test_pageable_changes, false},
    {"pageable_launches_in_a_row", test_pageable_launches_in_a_row, false},
    {NULL, NULL, false},
};
