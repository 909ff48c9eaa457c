/* SPDX-License-Identifier: MIT */
/*
 * Executable graphs that are changed after they were made.
 *
 * Tests: guest/libcuda/calls/exec.c, guest/libcuda/model/exec.c, guest/libcuda/model/plan.c,
 * guest/libcuda/model/gate.c, guest/libcuda/calls/node.c
 */
#include "tests/cuda/graph-check.h"

static void launch(CUgraphExec exec, CUstream stream)
{
    GOOD(cuGraphLaunch(exec, stream));
    GOOD(cuStreamSynchronize(stream));
}

/* Later launches take the new parameters; what runs already, and the graph, keep the old ones. */
static void test_exec_kernel_parameters(void)
{
    const CUdeviceptr words = device_alloc(400), copy = device_alloc(400);
    const CUstream stream = stream_create(CU_STREAM_NON_BLOCKING);
    const CUgraph graph = graph_create();
    const CUgraphNode node = add_fill(graph, add_spin(graph, NULL, 200), words, 100, 1);
    const CUgraphExec exec = instantiate(graph);
    CUDA_KERNEL_NODE_PARAMS seen = {0};
    struct call call;

    GOOD(cuGraphLaunch(exec, stream));
    GOOD(cuMemcpyDtoDAsync(copy, words, 400, stream));
    call_fill(&call, words, 100, 2);
    GOOD(cuGraphExecKernelNodeSetParams(exec, node, &call.params));
    launch(exec, stream);
    expect_words(copy, 100, 1);
    expect_words(words, 100, 2);
    GOOD(cuGraphKernelNodeGetParams(node, &seen));
    EXPECT(*(uint32_t *)seen.kernelParams[2] == 1, "%u", *(uint32_t *)seen.kernelParams[2]);
}

/* Of the graph it comes from, not of another one. */
static void test_exec_parameters_of_other_node(void)
{
    const CUdeviceptr words = device_alloc(400);
    const CUgraph graph = graph_create(), other = graph_create();
    const CUgraphNode node = add_fill(other, NULL, words, 100, 1);
    CUgraphExec exec;
    struct call call;

    add_fill(graph, NULL, words, 100, 1);
    exec = instantiate(graph);
    call_fill(&call, words, 100, 2);
    RESULT(cuGraphExecKernelNodeSetParams(exec, node, &call.params), CUDA_ERROR_INVALID_VALUE);
    launch(exec, NULL);
    expect_words(words, 100, 1);
}

static void test_exec_memset_parameters(void)
{
    const CUdeviceptr words = device_alloc(800);
    const CUgraph graph = graph_create();
    CUDA_MEMSET_NODE_PARAMS set = {
        .dst = words, .value = 1, .elementSize = WORD, .width = 100, .height = 1};
    CUgraphNode node = NULL;
    CUgraphExec exec;

    GOOD(cuMemsetD32(words, 0, 200));
    GOOD(cuGraphAddMemsetNode(&node, graph, NULL, 0, &set, context));
    exec = instantiate(graph);
    set.dst = words + 400;
    set.value = 2;
    GOOD(cuGraphExecMemsetNodeSetParams(exec, node, &set, context));
    launch(exec, NULL);
    expect_words(words, 100, 0);
    expect_words(words + 400, 100, 2);
}

static void test_exec_memcpy_parameters(void)
{
    const CUdeviceptr words = device_alloc(800), to = device_alloc(400);
    const CUgraph graph = graph_create();
    CUDA_MEMCPY3D copy = {.srcMemoryType = CU_MEMORYTYPE_DEVICE,
                          .srcDevice = words,
                          .srcPitch = 400,
                          .srcHeight = 1,
                          .dstMemoryType = CU_MEMORYTYPE_DEVICE,
                          .dstDevice = to,
                          .dstPitch = 400,
                          .dstHeight = 1,
                          .WidthInBytes = 400,
                          .Height = 1,
                          .Depth = 1};
    CUgraphNode node = NULL;
    CUgraphExec exec;

    GOOD(cuMemsetD32(words, 1, 100));
    GOOD(cuMemsetD32(words + 400, 2, 100));
    GOOD(cuGraphAddMemcpyNode(&node, graph, NULL, 0, &copy, context));
    exec = instantiate(graph);
    launch(exec, NULL);
    expect_words(to, 100, 1);
    copy.srcDevice = words + 400;
    GOOD(cuGraphExecMemcpyNodeSetParams(exec, node, &copy, context));
    launch(exec, NULL);
    expect_words(to, 100, 2);
}

static void test_exec_host_parameters(void)
{
    const CUgraph graph = graph_create();
    unsigned calls[2] = {0};
    CUDA_HOST_NODE_PARAMS params = {.fn = count_call, .userData = &calls[0]};
    CUgraphNode node = NULL;
    CUgraphExec exec;

    GOOD(cuGraphAddHostNode(&node, graph, NULL, 0, &params));
    exec = instantiate(graph);
    launch(exec, NULL);
    params.userData = &calls[1];
    GOOD(cuGraphExecHostNodeSetParams(exec, node, &params));
    launch(exec, NULL);
    launch(exec, NULL);
    EXPECT(calls[0] == 1 && calls[1] == 2, "%u and %u calls", calls[0], calls[1]);
}

/* Two kernels, one behind the other. */
static CUgraph graph_of_two(CUdeviceptr words, uint32_t value)
{
    const CUgraph graph = graph_create();

    add_fill(graph, add_fill(graph, NULL, words, 100, value), words, 50, value + 1);
    return graph;
}

static void test_update(void)
{
    const CUdeviceptr words = device_alloc(400);
    const CUgraph newer = graph_of_two(words, 10);
    const CUgraphExec exec = instantiate(graph_of_two(words, 1));
    CUgraphExecUpdateResultInfo info = {.result = CU_GRAPH_EXEC_UPDATE_ERROR};

    GOOD(cuGraphExecUpdate(exec, newer, &info));
    EXPECT(info.result == CU_GRAPH_EXEC_UPDATE_SUCCESS, "%d", (int)info.result);
    GOOD(cuGraphDestroy(newer));
    launch(exec, NULL);
    expect_words(words, 50, 11);
    expect_words(words + 200, 50, 10);
}

/* Nothing of it is taken over then. */
static void test_update_to_more_nodes(void)
{
    const CUdeviceptr words = device_alloc(400);
    const CUgraph newer = graph_of_two(words, 10);
    const CUgraphExec exec = instantiate(graph_of_two(words, 1));
    CUgraphExecUpdateResultInfo info = {.result = CU_GRAPH_EXEC_UPDATE_SUCCESS};

    add_empty(newer, NULL);
    RESULT(cuGraphExecUpdate(exec, newer, &info), CUDA_ERROR_GRAPH_EXEC_UPDATE_FAILURE);
    EXPECT(info.result == CU_GRAPH_EXEC_UPDATE_ERROR_TOPOLOGY_CHANGED, "%d", (int)info.result);
    EXPECT(info.errorNode == NULL, "a node");
    launch(exec, NULL);
    expect_words(words, 50, 2);
    expect_words(words + 200, 50, 1);
}

static void test_update_to_other_edges(void)
{
    const CUdeviceptr words = device_alloc(400);
    const CUgraph newer = graph_create();
    const CUgraphExec exec = instantiate(graph_of_two(words, 1));
    CUgraphExecUpdateResultInfo info = {.result = CU_GRAPH_EXEC_UPDATE_SUCCESS};

    add_fill(newer, NULL, words, 50, 10);
    add_fill(newer, NULL, words + 200, 50, 10);
    RESULT(cuGraphExecUpdate(exec, newer, &info), CUDA_ERROR_GRAPH_EXEC_UPDATE_FAILURE);
    EXPECT(info.result == CU_GRAPH_EXEC_UPDATE_ERROR_TOPOLOGY_CHANGED, "%d", (int)info.result);
    launch(exec, NULL);
    expect_words(words, 50, 2);
}

static void test_update_to_other_type(void)
{
    const CUdeviceptr words = device_alloc(400);
    const CUgraph graph = graph_create(), newer = graph_create();
    const CUDA_MEMSET_NODE_PARAMS set = {
        .dst = words, .value = 9, .elementSize = WORD, .width = 100, .height = 1};
    CUgraphExecUpdateResultInfo info = {.result = CU_GRAPH_EXEC_UPDATE_SUCCESS};
    CUgraphNode node = NULL;
    CUgraphExec exec;

    add_fill(graph, NULL, words, 100, 1);
    exec = instantiate(graph);
    GOOD(cuGraphAddMemsetNode(&node, newer, NULL, 0, &set, context));
    RESULT(cuGraphExecUpdate(exec, newer, &info), CUDA_ERROR_GRAPH_EXEC_UPDATE_FAILURE);
    EXPECT(info.result == CU_GRAPH_EXEC_UPDATE_ERROR_NODE_TYPE_CHANGED, "%d", (int)info.result);
    EXPECT(info.errorNode == node, "another node");
    launch(exec, NULL);
    expect_words(words, 100, 1);
}

static void test_disabled_node(void)
{
    const CUdeviceptr words = device_alloc(400);
    const CUgraph graph = graph_create();
    const CUgraphNode first = add_fill(graph, NULL, words, 100, 1);
    const CUgraphNode second = add_fill(graph, first, words, 50, 2);
    const CUgraphExec exec = instantiate(graph);
    unsigned enabled = 77;

    GOOD(cuGraphNodeGetEnabled(exec, second, &enabled));
    EXPECT(enabled == 1, "%u", enabled);
    GOOD(cuGraphNodeSetEnabled(exec, second, 0));
    GOOD(cuGraphNodeGetEnabled(exec, second, &enabled));
    EXPECT(enabled == 0, "%u", enabled);
    launch(exec, NULL);
    expect_words(words, 100, 1);
    GOOD(cuGraphNodeSetEnabled(exec, second, 1));
    GOOD(cuGraphNodeSetEnabled(exec, first, 0));
    GOOD(cuMemsetD32(words, 0, 100));
    launch(exec, NULL);
    expect_words(words, 50, 2);
    expect_words(words + 200, 50, 0);
}

static void test_host_nodes_stay_enabled(void)
{
    const CUgraph graph = graph_create();
    unsigned calls = 0;
    const CUDA_HOST_NODE_PARAMS params = {.fn = count_call, .userData = &calls};
    CUgraphNode node = NULL;
    CUgraphExec exec;

    GOOD(cuGraphAddHostNode(&node, graph, NULL, 0, &params));
    exec = instantiate(graph);
    ONE_OF(cuGraphNodeSetEnabled(exec, node, 0), CUDA_ERROR_INVALID_VALUE,
           CUDA_ERROR_NOT_SUPPORTED);
    launch(exec, NULL);
    EXPECT(calls == 1, "%u calls", calls);
}

/* Changes of the graph do not reach what was made of it. */
static void test_exec_is_a_copy(void)
{
    const CUdeviceptr words = device_alloc(400);
    const CUgraph graph = graph_create();
    const CUgraphNode node = add_fill(graph, NULL, words, 100, 1);
    const CUgraphExec exec = instantiate(graph);
    struct call call;

    call_fill(&call, words, 100, 2);
    GOOD(cuGraphKernelNodeSetParams(node, &call.params));
    add_fill(graph, node, words, 100, 3);
    launch(exec, NULL);
    expect_words(words, 100, 1);
    GOOD(cuGraphDestroyNode(node));
    launch(exec, NULL);
    expect_words(words, 100, 1);
}

/* They are known by the nodes of the graph that was instantiated. */
static void test_nodes_after_an_update(void)
{
    const CUdeviceptr words = device_alloc(400);
    const CUgraph first = graph_create(), second = graph_create();
    const CUgraphNode node = add_fill(first, NULL, words, 100, 1);
    const CUgraphExec exec = instantiate(first);
    CUgraphExecUpdateResultInfo info;
    unsigned enabled = 77;

    add_fill(second, NULL, words, 100, 2);
    GOOD(cuGraphExecUpdate(exec, second, &info));
    GOOD(cuGraphNodeGetEnabled(exec, node, &enabled));
    EXPECT(enabled == 1, "%u", enabled);
    GOOD(cuGraphNodeSetEnabled(exec, node, 0));
    GOOD(cuMemsetD32(words, 9, 100));
    GOOD(cuGraphLaunch(exec, NULL));
    GOOD(cuCtxSynchronize());
    expect_words(words, 100, 9);
}

const struct test update_tests[] = {
    {"nodes_after_an_update", test_nodes_after_an_update, false},
    {"exec_kernel_parameters", test_exec_kernel_parameters, false},
    {"exec_parameters_of_other_node", test_exec_parameters_of_other_node, false},
    {"exec_memset_parameters", test_exec_memset_parameters, false},
    {"exec_memcpy_parameters", test_exec_memcpy_parameters, false},
    {"exec_host_parameters", test_exec_host_parameters, false},
    {"update", test_update, false},
    {"update_to_more_nodes", test_update_to_more_nodes, false},
    {"update_to_other_edges", test_update_to_other_edges, false},
    {"update_to_other_type", test_update_to_other_type, false},
    {"disabled_node", test_disabled_node, false},
    {"host_nodes_stay_enabled", test_host_nodes_stay_enabled, false},
    {"exec_is_a_copy", test_exec_is_a_copy, false},
    {0},
};
