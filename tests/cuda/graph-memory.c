/* SPDX-License-Identifier: MIT */
/*
 * Memory that graphs allocate and free, by nodes and by captured calls; and what the program may do
 * with what a graph has allocated.
 *
 * Tests: guest/libcuda/model/graph-memory.c, guest/libcuda/calls/graph-memory.c
 */
#include "tests/cuda/graph-check.h"

#define COUNT 1000u

static CUDA_MEM_ALLOC_NODE_PARAMS words(size_t count)
{
    return (CUDA_MEM_ALLOC_NODE_PARAMS){
        .poolProps = {.allocType = CU_MEM_ALLOCATION_TYPE_PINNED,
                      .location = {.type = CU_MEM_LOCATION_TYPE_DEVICE, .id = device}},
        .bytesize = count * WORD,
    };
}

/* Allocates COUNT words, fills them and adds them to a sum; *after is the last node. */
static CUdeviceptr add_use(CUgraph graph, CUdeviceptr sum, CUgraphNode *alloc, CUgraphNode *after)
{
    CUDA_MEM_ALLOC_NODE_PARAMS params = words(COUNT);

    GOOD(cuGraphAddMemAllocNode(alloc, graph, NULL, 0, &params));
    EXPECT(params.dptr != 0, "no address");
    *after = add_reduce(graph, add_fill(graph, *alloc, params.dptr, COUNT, 3), params.dptr, COUNT,
                        sum);
    return params.dptr;
}

static void test_memory_of_a_graph(void)
{
    const CUstream stream = stream_create(CU_STREAM_NON_BLOCKING);
    const CUdeviceptr sum = zero_sum();
    const CUgraph graph = graph_create();
    CUDA_MEM_ALLOC_NODE_PARAMS params;
    CUgraphNode alloc, use, release;
    CUdeviceptr address, freed;
    CUgraphExec exec;

    warm_up();
    address = add_use(graph, sum, &alloc, &use);
    GOOD(cuGraphAddMemFreeNode(&release, graph, &use, 1, address));
    EXPECT(type_of(alloc) == CU_GRAPH_NODE_TYPE_MEM_ALLOC, "%d", (int)type_of(alloc));
    EXPECT(type_of(release) == CU_GRAPH_NODE_TYPE_MEM_FREE, "%d", (int)type_of(release));
    GOOD(cuGraphMemAllocNodeGetParams(alloc, &params));
    GOOD(cuGraphMemFreeNodeGetParams(release, &freed));
    EXPECT(params.dptr == address && params.bytesize == COUNT * WORD, "%zu", params.bytesize);
    EXPECT(freed == address, "0x%llx", (unsigned long long)freed);
    exec = instantiate(graph);
    for (unsigned i = 1; i <= 3; i++) {
        GOOD(cuGraphLaunch(exec, stream));
        GOOD(cuStreamSynchronize(stream));
        expect_words(sum, 1, 3 * COUNT * i);
    }
    /* The graph has freed it. */
    RESULT(cuMemFree(address), CUDA_ERROR_INVALID_VALUE);
    GOOD(cuGraphExecDestroy(exec));
    GOOD(cuGraphDestroy(graph));
}

/* What a graph does not free is the program's; when that frees it the graph can be launched. */
static void test_memory_that_outlives_a_launch(void)
{
    const CUstream stream = stream_create(CU_STREAM_NON_BLOCKING);
    const CUdeviceptr sum = zero_sum();
    const CUgraph graph = graph_create();
    CUgraphNode alloc, use;
    CUdeviceptr address;
    CUgraphExec exec;

    warm_up();
    address = add_use(graph, sum, &alloc, &use);
    exec = instantiate(graph);
    GOOD(cuGraphLaunch(exec, stream));
    GOOD(cuStreamSynchronize(stream));
    expect_words(address, COUNT, 3);
    RESULT(cuGraphLaunch(exec, stream), CUDA_ERROR_INVALID_VALUE);
    GOOD(cuMemFree(address));
    GOOD(cuGraphLaunch(exec, stream));
    GOOD(cuMemFreeAsync(address, stream));
    GOOD(cuGraphLaunch(exec, stream));
    GOOD(cuStreamSynchronize(stream));
    expect_words(sum, 1, 3 * COUNT * 3);
    /* It outlives the graph too. */
    GOOD(cuGraphExecDestroy(exec));
    GOOD(cuGraphDestroy(graph));
    expect_words(address, COUNT, 3);
    GOOD(cuMemFree(address));
}

static void test_memory_freed_at_the_next_launch(void)
{
    const CUstream stream = stream_create(CU_STREAM_NON_BLOCKING);
    const CUdeviceptr sum = zero_sum();
    const CUgraph graph = graph_create();
    CUgraphNode alloc, use;
    CUgraphExec exec;

    warm_up();
    add_use(graph, sum, &alloc, &use);
    GOOD(
        cuGraphInstantiateWithFlags(&exec, graph, CUDA_GRAPH_INSTANTIATE_FLAG_AUTO_FREE_ON_LAUNCH));
    for (unsigned i = 0; i < 3; i++) {
        GOOD(cuGraphLaunch(exec, stream));
    }
    GOOD(cuStreamSynchronize(stream));
    expect_words(sum, 1, 3 * COUNT * 3);
    GOOD(cuGraphExecDestroy(exec));
}

/* One graph allocates, another frees. */
static void test_memory_between_graphs(void)
{
    const CUstream stream = stream_create(CU_STREAM_NON_BLOCKING);
    const CUdeviceptr sum = zero_sum();
    const CUgraph first = graph_create(), second = graph_create();
    CUgraphNode alloc, use, release;
    CUdeviceptr address;
    CUgraphExec allocates, frees;

    warm_up();
    address = add_use(first, sum, &alloc, &use);
    GOOD(cuGraphAddMemFreeNode(&release, second, NULL, 0, address));
    allocates = instantiate(first);
    frees = instantiate(second);
    for (unsigned i = 0; i < 2; i++) {
        GOOD(cuGraphLaunch(allocates, stream));
        GOOD(cuGraphLaunch(frees, stream));
    }
    GOOD(cuStreamSynchronize(stream));
    expect_words(sum, 1, 3 * COUNT * 2);
}

/* Also when the graph that has allocated it is gone. */
static void test_memory_freed_after_its_graph(void)
{
    const CUstream stream = stream_create(CU_STREAM_NON_BLOCKING);
    const CUdeviceptr sum = zero_sum();
    const CUgraph first = graph_create(), second = graph_create();
    CUgraphNode alloc, use, release;
    CUdeviceptr address;
    CUgraphExec exec, frees;

    warm_up();
    address = add_use(first, sum, &alloc, &use);
    GOOD(cuGraphAddMemFreeNode(&release, second, NULL, 0, address));
    exec = instantiate(first);
    frees = instantiate(second);
    GOOD(cuGraphLaunch(exec, stream));
    GOOD(cuStreamSynchronize(stream));
    GOOD(cuGraphExecDestroy(exec));
    GOOD(cuGraphDestroy(first));
    expect_words(address, COUNT, 3);
    GOOD(cuGraphLaunch(frees, stream));
    GOOD(cuStreamSynchronize(stream));
    RESULT(cuMemFree(address), CUDA_ERROR_INVALID_VALUE);
}

static void test_captured_memory(void)
{
    const CUstream stream = stream_create(CU_STREAM_NON_BLOCKING);
    const CUdeviceptr sum = zero_sum();
    CUdeviceptr address = 0;
    CUgraphExec exec;
    CUgraph graph;

    begin_capture(stream);
    GOOD(cuMemAllocAsync(&address, COUNT * WORD, stream));
    fill(address, COUNT, 5, stream);
    reduce(address, COUNT, sum, stream);
    GOOD(cuMemFreeAsync(address, stream));
    graph = end_capture(stream);
    EXPECT(node_count(graph) == 4 && edge_count(graph) == 3, "%zu nodes", node_count(graph));
    exec = instantiate(graph);
    for (unsigned i = 1; i <= 2; i++) {
        GOOD(cuGraphLaunch(exec, stream));
        GOOD(cuStreamSynchronize(stream));
        expect_words(sum, 1, 5 * COUNT * i);
    }
}

static uint64_t graph_bytes(CUgraphMem_attribute which)
{
    cuuint64_t bytes = 0;

    GOOD(cuDeviceGetGraphMemAttribute(device, which, &bytes));
    return bytes;
}

static void test_sums_of_memory(void)
{
    const CUstream stream = stream_create(CU_STREAM_NON_BLOCKING);
    const CUdeviceptr sum = zero_sum();
    const CUgraph graph = graph_create();
    cuuint64_t zero = 0;
    CUgraphNode alloc, use;
    CUdeviceptr address;
    CUgraphExec exec;

    warm_up();
    EXPECT(graph_bytes(CU_GRAPH_MEM_ATTR_USED_MEM_CURRENT) == 0, "at first");
    address = add_use(graph, sum, &alloc, &use);
    exec = instantiate(graph);
    GOOD(cuGraphLaunch(exec, stream));
    GOOD(cuStreamSynchronize(stream));
    EXPECT(graph_bytes(CU_GRAPH_MEM_ATTR_USED_MEM_CURRENT) >= COUNT * WORD, "allocated");
    EXPECT(graph_bytes(CU_GRAPH_MEM_ATTR_RESERVED_MEM_CURRENT) >= COUNT * WORD, "reserved");
    EXPECT(graph_bytes(CU_GRAPH_MEM_ATTR_USED_MEM_HIGH) >= COUNT * WORD, "at most");
    GOOD(cuMemFree(address));
    GOOD(cuDeviceSetGraphMemAttribute(device, CU_GRAPH_MEM_ATTR_USED_MEM_HIGH, &zero));
    EXPECT(graph_bytes(CU_GRAPH_MEM_ATTR_USED_MEM_HIGH) ==
               graph_bytes(CU_GRAPH_MEM_ATTR_USED_MEM_CURRENT),
           "reset to now");
    RESULT(cuDeviceSetGraphMemAttribute(device, CU_GRAPH_MEM_ATTR_USED_MEM_CURRENT, &zero),
           CUDA_ERROR_INVALID_VALUE);
    GOOD(cuGraphExecDestroy(exec));
    GOOD(cuGraphDestroy(graph));
    GOOD(cuDeviceGraphMemTrim(device));
    EXPECT(graph_bytes(CU_GRAPH_MEM_ATTR_RESERVED_MEM_CURRENT) == 0, "trimmed");
}

static void test_wrong_memory_nodes(void)
{
    const CUgraph graph = graph_create();
    CUDA_MEM_ALLOC_NODE_PARAMS params = words(0);
    const CUdeviceptr other = device_alloc(64);
    CUgraphNode node, alloc;

    RESULT(cuGraphAddMemAllocNode(&node, graph, NULL, 0, &params), CUDA_ERROR_INVALID_VALUE);
    params = words(8);
    params.poolProps.allocType = CU_MEM_ALLOCATION_TYPE_INVALID;
    RESULT(cuGraphAddMemAllocNode(&node, graph, NULL, 0, &params), CUDA_ERROR_INVALID_VALUE);
    params = words(8);
    RESULT(cuGraphAddMemAllocNode(&node, NULL, NULL, 0, &params), CUDA_ERROR_INVALID_VALUE);
    RESULT(cuGraphAddMemFreeNode(&node, graph, NULL, 0, other), CUDA_ERROR_INVALID_VALUE);
    RESULT(cuGraphAddMemFreeNode(&node, graph, NULL, 0, 0), CUDA_ERROR_INVALID_VALUE);
    GOOD(cuGraphAddMemAllocNode(&alloc, graph, NULL, 0, &params));
    GOOD(cuGraphAddMemFreeNode(&node, graph, &alloc, 1, params.dptr));
    RESULT(cuGraphAddMemFreeNode(&node, graph, &alloc, 1, params.dptr), CUDA_ERROR_INVALID_VALUE);
    RESULT(cuGraphMemFreeNodeGetParams(alloc, &params.dptr), CUDA_ERROR_INVALID_VALUE);
}

const struct test graph_memory_tests[] = {
    {"memory_of_a_graph", test_memory_of_a_graph, false},
    {"memory_that_outlives_a_launch", test_memory_that_outlives_a_launch, false},
    {"memory_freed_at_the_next_launch", test_memory_freed_at_the_next_launch, false},
    {"memory_between_graphs", test_memory_between_graphs, false},
    {"memory_freed_after_its_graph", test_memory_freed_after_its_graph, false},
    {"captured_memory", test_captured_memory, false},
    {"sums_of_memory", test_sums_of_memory, false},
    {"wrong_memory_nodes", test_wrong_memory_nodes, false},
    {NULL, NULL, false},
};
