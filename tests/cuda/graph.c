/* SPDX-License-Identifier: MIT */
/*
 * Graphs that are built node by node: what is in them, and what they do.
 *
 * Tests: guest/libcuda/calls/graph.c, guest/libcuda/model/graph.c, guest/libcuda/state/local.c,
 * guest/libcuda/calls/node.c, guest/libcuda/model/work.c
 */
#include "tests/cuda/graph-check.h"

static bool contains(const CUgraphNode *nodes, size_t count, CUgraphNode node)
{
    for (size_t i = 0; i < count; i++) {
        if (nodes[i] == node) {
            return true;
        }
    }
    return false;
}

static CUDA_MEMCPY3D copy_of(CUdeviceptr to, CUdeviceptr from, size_t bytes)
{
    return (CUDA_MEMCPY3D){.srcMemoryType = CU_MEMORYTYPE_DEVICE,
                           .srcDevice = from,
                           .srcPitch = bytes,
                           .srcHeight = 1,
                           .dstMemoryType = CU_MEMORYTYPE_DEVICE,
                           .dstDevice = to,
                           .dstPitch = bytes,
                           .dstHeight = 1,
                           .WidthInBytes = bytes,
                           .Height = 1,
                           .Depth = 1};
}

static CUDA_MEMSET_NODE_PARAMS words_of(CUdeviceptr to, size_t count, unsigned value)
{
    return (CUDA_MEMSET_NODE_PARAMS){
        .dst = to, .value = value, .elementSize = WORD, .width = count, .height = 1};
}

static CUgraphNode add_host(CUgraph graph, CUgraphNode after, unsigned *calls)
{
    const CUDA_HOST_NODE_PARAMS params = {.fn = count_call, .userData = calls};
    CUgraphNode node = NULL;

    GOOD(cuGraphAddHostNode(&node, graph, &after, after ? 1 : 0, &params));
    return node;
}

static void test_graph_of_all_nodes(void)
{
    const CUdeviceptr words = device_alloc(400), copy = device_alloc(400), sum = zero_sum();
    const CUDA_MEMSET_NODE_PARAMS set = words_of(words, 100, 2);
    const CUDA_MEMCPY3D moved = copy_of(copy, words, 400);
    const CUgraph graph = graph_create(), inner = graph_create();
    CUgraphNode nodes[6];
    unsigned calls = 0;

    add_reduce(inner, NULL, copy, 100, sum);
    GOOD(cuGraphAddMemsetNode(&nodes[0], graph, NULL, 0, &set, context));
    GOOD(cuGraphAddMemcpyNode(&nodes[1], graph, &nodes[0], 1, &moved, context));
    GOOD(cuGraphAddChildGraphNode(&nodes[2], graph, &nodes[1], 1, inner));
    nodes[3] = add_host(graph, nodes[2], &calls);
    nodes[4] = add_empty(graph, nodes[3]);
    nodes[5] = add_fill(graph, nodes[4], words, 100, 9);
    EXPECT(type_of(nodes[0]) == CU_GRAPH_NODE_TYPE_MEMSET, "%d", (int)type_of(nodes[0]));
    EXPECT(type_of(nodes[1]) == CU_GRAPH_NODE_TYPE_MEMCPY, "%d", (int)type_of(nodes[1]));
    EXPECT(type_of(nodes[2]) == CU_GRAPH_NODE_TYPE_GRAPH, "%d", (int)type_of(nodes[2]));
    EXPECT(type_of(nodes[3]) == CU_GRAPH_NODE_TYPE_HOST, "%d", (int)type_of(nodes[3]));
    EXPECT(type_of(nodes[4]) == CU_GRAPH_NODE_TYPE_EMPTY, "%d", (int)type_of(nodes[4]));
    EXPECT(type_of(nodes[5]) == CU_GRAPH_NODE_TYPE_KERNEL, "%d", (int)type_of(nodes[5]));
    run_graph(graph, stream_create(0));
    expect_words(sum, 1, 200);
    expect_words(copy, 100, 2);
    expect_words(words, 100, 9);
    EXPECT(calls == 1, "%u calls", calls);
}

/* One node, two behind it, and one behind these. */
static void test_graph_of_a_diamond(void)
{
    const CUdeviceptr words = device_alloc(400), one = zero_sum(), two = zero_sum();
    const CUgraph graph = graph_create();
    CUgraphNode first, arms[2], late, nodes[8];
    size_t count = 8;

    first = add_fill(graph, add_spin(graph, NULL, 20), words, 100, 1);
    arms[0] = add_reduce(graph, add_spin(graph, first, 50), words, 100, one);
    arms[1] = add_reduce(graph, first, words, 100, two);
    late = add_fill(graph, arms[0], words, 100, 5);
    GOOD(cuGraphAddDependencies(graph, &arms[1], &late, NULL, 1));
    GOOD(cuGraphNodeGetDependencies(late, nodes, NULL, &count));
    EXPECT(count == 2 && contains(nodes, 2, arms[0]) && contains(nodes, 2, arms[1]), "%zu", count);
    EXPECT(nodes[2] == NULL && nodes[7] == NULL, "more nodes");
    for (int i = 0; i < 10; i++) {
        run_graph(graph, stream_create(CU_STREAM_NON_BLOCKING));
    }
    expect_words(one, 1, 1000);
    expect_words(two, 1, 1000);
    expect_words(words, 100, 5);
}

static void test_nodes_and_edges(void)
{
    const CUgraph graph = graph_create();
    const CUgraphNode a = add_empty(graph, NULL), b = add_empty(graph, a);
    const CUgraphNode c = add_empty(graph, a), d = add_empty(graph, NULL);
    CUgraphNode nodes[6], from[6], to[6];
    size_t count = 6;

    EXPECT(node_count(graph) == 4 && edge_count(graph) == 2, "%zu nodes", node_count(graph));
    GOOD(cuGraphGetNodes(graph, nodes, &count));
    EXPECT(count == 4 && nodes[4] == NULL && nodes[5] == NULL, "%zu nodes", count);
    EXPECT(contains(nodes, 4, a) && contains(nodes, 4, b) && contains(nodes, 4, c) &&
               contains(nodes, 4, d),
           "other nodes");
    count = 6;
    GOOD(cuGraphGetRootNodes(graph, nodes, &count));
    EXPECT(count == 2 && nodes[2] == NULL, "%zu roots", count);
    EXPECT(contains(nodes, 2, a) && contains(nodes, 2, d), "other roots");
    count = 6;
    GOOD(cuGraphGetEdges(graph, from, to, NULL, &count));
    EXPECT(count == 2 && from[2] == NULL && to[2] == NULL, "%zu edges", count);
    EXPECT(from[0] == a && from[1] == a, "other edges");
    EXPECT(contains(to, 2, b) && contains(to, 2, c), "other edges");
    count = 6;
    GOOD(cuGraphNodeGetDependentNodes(a, nodes, NULL, &count));
    EXPECT(count == 2 && contains(nodes, 2, b) && contains(nodes, 2, c), "%zu", count);
    count = 6;
    GOOD(cuGraphNodeGetDependencies(d, NULL, NULL, &count));
    EXPECT(count == 0, "%zu", count);
    count = 1;
    GOOD(cuGraphGetNodes(graph, nodes, &count));
    EXPECT(count == 1, "%zu nodes in a place for one", count);
}

static void test_edges_come_and_go(void)
{
    const CUgraph graph = graph_create(), other = graph_create();
    const CUgraphNode a = add_empty(graph, NULL), b = add_empty(graph, NULL);
    const CUgraphNode stranger = add_empty(other, NULL);
    const CUgraphNode twice[] = {a, a};
    CUgraphNode node = NULL;

    GOOD(cuGraphAddDependencies(graph, &a, &b, NULL, 1));
    EXPECT(edge_count(graph) == 1, "%zu edges", edge_count(graph));
    RESULT(cuGraphAddDependencies(graph, &a, &b, NULL, 1), CUDA_ERROR_INVALID_VALUE);
    GOOD(cuGraphRemoveDependencies(graph, &a, &b, NULL, 1));
    EXPECT(edge_count(graph) == 0, "%zu edges", edge_count(graph));
    RESULT(cuGraphRemoveDependencies(graph, &a, &b, NULL, 1), CUDA_ERROR_INVALID_VALUE);
    RESULT(cuGraphAddDependencies(graph, &a, &stranger, NULL, 1), CUDA_ERROR_INVALID_VALUE);
    RESULT(cuGraphAddEmptyNode(&node, graph, &stranger, 1), CUDA_ERROR_INVALID_VALUE);
    RESULT(cuGraphAddEmptyNode(&node, graph, twice, 2), CUDA_ERROR_INVALID_VALUE);
    EXPECT(node_count(graph) == 2 && edge_count(graph) == 0, "%zu nodes", node_count(graph));
}

/* Found when the edge is added or when the graph is made executable. */
static void test_cycle(void)
{
    const CUgraph graph = graph_create();
    const CUgraphNode a = add_empty(graph, NULL), b = add_empty(graph, a);
    const CUresult added = cuGraphAddDependencies(graph, &b, &a, NULL, 1);
    CUgraphExec exec = NULL;

    ONE_OF(added, CUDA_SUCCESS, CUDA_ERROR_INVALID_VALUE);
    if (added == CUDA_SUCCESS) {
        RESULT(cuGraphInstantiateWithFlags(&exec, graph, 0), CUDA_ERROR_INVALID_VALUE);
    }
    EXPECT(exec == NULL, "an executable graph");
}

static void test_destroyed_node(void)
{
    const CUdeviceptr words = device_alloc(400);
    const CUgraph graph = graph_create();
    const CUgraphNode a = add_fill(graph, NULL, words, 100, 1);
    const CUgraphNode b = add_fill(graph, a, words, 100, 2);

    add_fill(graph, b, words, 50, 3);
    GOOD(cuGraphDestroyNode(b));
    EXPECT(node_count(graph) == 2, "%zu nodes", node_count(graph));
    EXPECT(edge_count(graph) == 0, "%zu edges", edge_count(graph));
    run_graph(graph, NULL);
    expect_words(words + 200, 50, 1);
}

static void test_kernel_node_parameters(void)
{
    const CUdeviceptr words = device_alloc(800);
    const CUgraph graph = graph_create();
    const CUgraphNode node = add_fill(graph, NULL, words, 100, 1);
    CUDA_KERNEL_NODE_PARAMS seen = {0};
    struct call call;

    GOOD(cuGraphKernelNodeGetParams(node, &seen));
    EXPECT(seen.func == kernel("fill"), "another function");
    EXPECT(seen.gridDimX == 16 && seen.blockDimX == 128 && seen.blockDimZ == 1, "%u blocks of %u",
           seen.gridDimX, seen.blockDimX);
    EXPECT(*(CUdeviceptr *)seen.kernelParams[0] == words, "another address");
    EXPECT(*(uint32_t *)seen.kernelParams[2] == 1, "%u", *(uint32_t *)seen.kernelParams[2]);
    call_fill(&call, words + 400, 100, 2);
    call.params.gridDimX = 3;
    GOOD(cuMemsetD32(words, 0, 200));
    GOOD(cuGraphKernelNodeSetParams(node, &call.params));
    call.numbers[2] = 7; /* the node has taken the value over */
    GOOD(cuGraphKernelNodeGetParams(node, &seen));
    EXPECT(seen.gridDimX == 3, "%u blocks", seen.gridDimX);
    EXPECT(*(uint32_t *)seen.kernelParams[2] == 2, "%u", *(uint32_t *)seen.kernelParams[2]);
    run_graph(graph, NULL);
    expect_words(words, 100, 0);
    expect_words(words + 400, 100, 2);
}

/* The parameters of fill, as they lie in memory. */
struct fill_parameters {
    uint64_t to, count;
    uint32_t value;
};

static void test_kernel_node_of_a_buffer(void)
{
    const CUdeviceptr words = device_alloc(400);
    struct fill_parameters parameters = {words, 100, 17};
    size_t size = 20;
    void *extra[] = {CU_LAUNCH_PARAM_BUFFER_POINTER, &parameters, CU_LAUNCH_PARAM_BUFFER_SIZE,
                     &size, CU_LAUNCH_PARAM_END};
    const CUgraph graph = graph_create();
    CUgraphNode node = NULL;
    struct call call;

    call_fill(&call, words, 100, 1);
    call.params.extra = extra;
    RESULT(cuGraphAddKernelNode(&node, graph, NULL, 0, &call.params), CUDA_ERROR_INVALID_VALUE);
    call.params.kernelParams = NULL;
    GOOD(cuGraphAddKernelNode(&node, graph, NULL, 0, &call.params));
    parameters.value = 18;
    run_graph(graph, NULL);
    expect_words(words, 100, 17);
}

static void test_memset_node_parameters(void)
{
    const CUdeviceptr bytes = device_alloc(4096);
    const CUgraph graph = graph_create();
    CUDA_MEMSET_NODE_PARAMS set = words_of(bytes, 100, 1), seen = {0};
    CUgraphNode node = NULL;

    GOOD(cuMemsetD8(bytes, 0, 4096));
    GOOD(cuGraphAddMemsetNode(&node, graph, NULL, 0, &set, context));
    set = (CUDA_MEMSET_NODE_PARAMS){
        .dst = bytes, .pitch = 512, .value = 0x55, .elementSize = 1, .width = 100, .height = 3};
    GOOD(cuGraphMemsetNodeSetParams(node, &set));
    GOOD(cuGraphMemsetNodeGetParams(node, &seen));
    EXPECT(seen.dst == bytes && seen.value == 0x55, "%#llx, %u", seen.dst, seen.value);
    EXPECT(seen.pitch == 512 && seen.elementSize == 1 && seen.width == 100 && seen.height == 3,
           "%zu, %u, %zu, %zu", seen.pitch, seen.elementSize, seen.width, seen.height);
    run_graph(graph, NULL);
    for (CUdeviceptr row = bytes; row < bytes + 3 * 512; row += 512) {
        expect_words(row, 25, 0x55555555);
        expect_words(row + 100, 103, 0);
    }
    set.elementSize = 3;
    RESULT(cuGraphAddMemsetNode(&node, graph, NULL, 0, &set, context), CUDA_ERROR_INVALID_VALUE);
}

static void test_memcpy_node_parameters(void)
{
    const CUdeviceptr from = device_alloc(800), to = device_alloc(800);
    CUDA_MEMCPY3D copy = copy_of(to, from, 400), seen = {0};
    const CUgraph graph = graph_create();
    CUgraphNode node = NULL;

    GOOD(cuMemsetD32(from, 1, 100));
    GOOD(cuMemsetD32(from + 400, 2, 100));
    GOOD(cuMemsetD32(to, 0, 200));
    GOOD(cuGraphAddMemcpyNode(&node, graph, NULL, 0, &copy, context));
    copy = copy_of(to + 200, from + 400, 200);
    GOOD(cuGraphMemcpyNodeSetParams(node, &copy));
    GOOD(cuGraphMemcpyNodeGetParams(node, &seen));
    EXPECT(seen.WidthInBytes == 200 && seen.Height == 1, "%zu bytes", seen.WidthInBytes);
    EXPECT(seen.srcDevice == from + 400 && seen.dstDevice == to + 200, "%#llx to %#llx",
           seen.srcDevice, seen.dstDevice);
    run_graph(graph, NULL);
    expect_words(to, 50, 0);
    expect_words(to + 200, 50, 2);
    expect_words(to + 400, 100, 0);
}

/* Part of each row of the host's, and back from there. */
static void test_memcpy_nodes_of_host_memory(void)
{
    const CUdeviceptr rows = device_alloc(4096);
    uint8_t *from = host_alloc(4096), *to = host_alloc(4096);
    const CUgraph graph = graph_create();
    CUDA_MEMCPY3D copy = copy_of(rows, 0, 100);
    CUgraphNode nodes[2];

    copy.srcMemoryType = CU_MEMORYTYPE_HOST;
    copy.srcHost = from;
    copy.srcPitch = 256;
    copy.srcHeight = copy.dstHeight = copy.Height = 3;
    GOOD(cuGraphAddMemcpyNode(&nodes[0], graph, NULL, 0, &copy, context));
    copy = copy_of(0, rows, 300);
    copy.dstMemoryType = CU_MEMORYTYPE_HOST;
    copy.dstHost = to;
    GOOD(cuGraphAddMemcpyNode(&nodes[1], graph, nodes, 1, &copy, context));
    for (uint32_t row = 0; row < 3; row++) {
        pattern(from + (size_t)256 * row, 100, row);
    }
    run_graph(graph, NULL);
    for (uint32_t row = 0; row < 3; row++) {
        EXPECT(is_pattern(to + (size_t)100 * row, 100, row), "other bytes in row %u", row);
    }
    GOOD(cuMemFreeHost(from));
    GOOD(cuMemFreeHost(to));
}

const struct test graph_tests[] = {
    {"graph_of_all_nodes", test_graph_of_all_nodes, false},
    {"graph_of_a_diamond", test_graph_of_a_diamond, false},
    {"nodes_and_edges", test_nodes_and_edges, false},
    {"edges_come_and_go", test_edges_come_and_go, false},
    {"cycle", test_cycle, false},
    {"destroyed_node", test_destroyed_node, false},
    {"kernel_node_parameters", test_kernel_node_parameters, false},
    {"kernel_node_of_a_buffer", test_kernel_node_of_a_buffer, false},
    {"memset_node_parameters", test_memset_node_parameters, false},
    {"memcpy_node_parameters", test_memcpy_node_parameters, false},
    {"memcpy_nodes_of_host_memory", test_memcpy_nodes_of_host_memory, false},
    {0},
};
