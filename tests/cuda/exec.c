/* SPDX-License-Identifier: MIT */
/*
 * Executable graphs: made from a graph, launched, changed.
 *
 * Tests: guest/libcuda/calls/exec.c, guest/libcuda/model/exec.c, guest/libcuda/model/plan.c,
 * guest/libcuda/model/graph.c
 */
#include "tests/cuda/graph-check.h"

static void test_graph_of_nothing(void)
{
    const CUgraph graph = graph_create();
    CUgraph refused = NULL;

    EXPECT(node_count(graph) == 0 && edge_count(graph) == 0, "%zu nodes", node_count(graph));
    run_graph(graph, NULL);
    run_graph(graph, stream_create(CU_STREAM_NON_BLOCKING));
    GOOD(cuGraphDestroy(graph));
    RESULT(cuGraphCreate(&refused, 1), CUDA_ERROR_INVALID_VALUE);
    RESULT(cuGraphCreate(NULL, 0), CUDA_ERROR_INVALID_VALUE);
}

static void test_no_graph(void)
{
    CUgraphNode node = NULL;
    CUgraphExec exec = NULL;
    size_t count = 0;

    ONE_OF(cuGraphAddEmptyNode(&node, NULL, NULL, 0), CUDA_ERROR_INVALID_VALUE,
           CUDA_ERROR_INVALID_HANDLE);
    ONE_OF(cuGraphInstantiateWithFlags(&exec, NULL, 0), CUDA_ERROR_INVALID_VALUE,
           CUDA_ERROR_INVALID_HANDLE);
    ONE_OF(cuGraphLaunch(NULL, NULL), CUDA_ERROR_INVALID_VALUE, CUDA_ERROR_INVALID_HANDLE);
    ONE_OF(cuGraphGetNodes(NULL, NULL, &count), CUDA_ERROR_INVALID_VALUE,
           CUDA_ERROR_INVALID_HANDLE);
    ONE_OF(cuGraphDestroy(NULL), CUDA_ERROR_INVALID_VALUE, CUDA_ERROR_INVALID_HANDLE);
    ONE_OF(cuGraphExecDestroy(NULL), CUDA_ERROR_INVALID_VALUE, CUDA_ERROR_INVALID_HANDLE);
    ONE_OF(cuGraphDestroyNode(NULL), CUDA_ERROR_INVALID_VALUE, CUDA_ERROR_INVALID_HANDLE);
    RESULT(cuGraphInstantiateWithFlags(NULL, graph_create(), 0), CUDA_ERROR_INVALID_VALUE);
}

static void test_graph_is_launched_1000_times(void)
{
    const CUdeviceptr words = device_alloc(400), sum = zero_sum();
    const CUstream stream = stream_create(CU_STREAM_NON_BLOCKING);
    const CUgraph graph = graph_create();
    CUgraphExec exec;

    add_reduce(graph, add_fill(graph, NULL, words, 100, 2), words, 100, sum);
    exec = instantiate(graph);
    for (int i = 0; i < 1000; i++) {
        GOOD(cuGraphLaunch(exec, stream));
    }
    GOOD(cuStreamSynchronize(stream));
    expect_words(sum, 1, 200000);
    GOOD(cuGraphExecDestroy(exec));
}

/* One after the other, though the streams are not ordered. */
static void test_exec_in_two_streams(void)
{
    const CUdeviceptr words = device_alloc(400), sum = zero_sum();
    const CUstream one = stream_create(CU_STREAM_NON_BLOCKING);
    const CUstream other = stream_create(CU_STREAM_NON_BLOCKING);
    const CUgraph graph = graph_create();
    CUgraphExec exec;
    double begun;

    add_reduce(graph, add_spin(graph, add_fill(graph, NULL, words, 100, 2), 150), words, 100, sum);
    exec = instantiate(graph);
    begun = now_ms();
    GOOD(cuGraphLaunch(exec, one));
    GOOD(cuGraphLaunch(exec, other));
    GOOD(cuStreamSynchronize(other));
    EXPECT(now_ms() - begun >= 295, "%g ms", now_ms() - begun);
    GOOD(cuStreamQuery(one));
    expect_words(sum, 1, 400);
}

static void test_several_execs_of_one_graph(void)
{
    const CUdeviceptr words = device_alloc(400), sum = zero_sum();
    const CUstream stream = stream_create(CU_STREAM_NON_BLOCKING);
    const CUgraph graph = graph_create();
    CUgraphExec execs[4];
    CUgraphNode first;

    first = add_fill(graph, NULL, words, 100, 1);
    for (int i = 0; i < 4; i++) {
        add_reduce(graph, first, words, 50, sum); /* the next one has a node more */
        execs[i] = instantiate(graph);
    }
    GOOD(cuGraphDestroy(graph)); /* they do not need it */
    for (int i = 3; i >= 0; i--) {
        GOOD(cuGraphLaunch(execs[i], stream));
        GOOD(cuStreamSynchronize(stream));
        GOOD(cuGraphExecDestroy(execs[i]));
    }
    expect_words(sum, 1, (4 + 3 + 2 + 1) * 50);
}

static void test_exec_destroyed_while_it_runs(void)
{
    const CUdeviceptr words = device_alloc(400);
    const CUstream stream = stream_create(CU_STREAM_NON_BLOCKING);
    const CUgraph graph = graph_create();
    CUgraphExec exec;

    add_fill(graph, add_spin(graph, NULL, 500), words, 100, 7);
    exec = instantiate(graph);
    GOOD(cuGraphDestroy(graph));
    GOOD(cuGraphLaunch(exec, stream));
    RESULT(cuStreamQuery(stream), CUDA_ERROR_NOT_READY);
    GOOD(cuGraphExecDestroy(exec));
    GOOD(cuStreamSynchronize(stream));
    expect_words(words, 100, 7);
}

static void test_graph_in_order_with_other_work(void)
{
    const CUdeviceptr words = device_alloc(400), sum = zero_sum();
    const CUstream stream = stream_create(CU_STREAM_NON_BLOCKING);
    const CUgraph graph = graph_create();
    CUgraphExec exec;

    add_fill(graph, add_reduce(graph, NULL, words, 100, sum), words, 100, 5);
    exec = instantiate(graph);
    warm_up();
    spin(100, stream);
    fill(words, 100, 1, stream);
    GOOD(cuGraphLaunch(exec, stream)); /* adds 100 */
    reduce(words, 100, sum, stream);   /* adds 500 */
    GOOD(cuGraphLaunch(exec, stream)); /* adds 500 */
    GOOD(cuStreamSynchronize(stream));
    expect_words(sum, 1, 1100);
}

static void test_graph_of_many_nodes(void)
{
    const CUdeviceptr words = device_alloc(WORD * 500), sum = zero_sum();
    const CUgraph graph = graph_create();
    CUgraphNode last = NULL;

    for (uint32_t i = 0; i < 500; i++) {
        last = add_fill(graph, last, words + WORD * i, 500 - i, i);
    }
    add_reduce(graph, last, words, 500, sum);
    EXPECT(node_count(graph) == 501 && edge_count(graph) == 500, "%zu nodes", node_count(graph));
    run_graph(graph, NULL);
    expect_words(sum, 1, 500 * 499 / 2);
}

static void test_instantiate_with_params(void)
{
    const CUdeviceptr words = device_alloc(400);
    const CUstream stream = stream_create(0);
    const CUgraph graph = graph_create();
    CUDA_GRAPH_INSTANTIATE_PARAMS params = {.flags = CUDA_GRAPH_INSTANTIATE_FLAG_UPLOAD |
                                                     CUDA_GRAPH_INSTANTIATE_FLAG_USE_NODE_PRIORITY,
                                            .hUploadStream = stream,
                                            .result_out = CUDA_GRAPH_INSTANTIATE_ERROR};
    CUgraphExec exec = NULL;
    cuuint64_t flags = 77;

    add_fill(graph, NULL, words, 100, 3);
    GOOD(cuGraphInstantiateWithParams(&exec, graph, &params));
    EXPECT(params.result_out == CUDA_GRAPH_INSTANTIATE_SUCCESS, "%d", (int)params.result_out);
    EXPECT(params.hErrNode_out == NULL, "a node");
    GOOD(cuGraphExecGetFlags(exec, &flags));
    EXPECT((flags & ~(cuuint64_t)CUDA_GRAPH_INSTANTIATE_FLAG_USE_NODE_PRIORITY) == 0, "%#llx",
           (unsigned long long)flags);
    GOOD(cuGraphLaunch(exec, stream));
    GOOD(cuStreamSynchronize(stream));
    expect_words(words, 100, 3);
}

static void test_instantiate_flags(void)
{
    const CUgraph graph = graph_create();
    CUgraphExec exec = NULL;
    cuuint64_t flags = 77;

    GOOD(cuGraphExecGetFlags(instantiate(graph), &flags));
    EXPECT(flags == 0, "%#llx", (unsigned long long)flags);
    GOOD(
        cuGraphInstantiateWithFlags(&exec, graph, CUDA_GRAPH_INSTANTIATE_FLAG_AUTO_FREE_ON_LAUNCH));
    GOOD(cuGraphExecGetFlags(exec, &flags));
    EXPECT(flags == CUDA_GRAPH_INSTANTIATE_FLAG_AUTO_FREE_ON_LAUNCH, "%#llx",
           (unsigned long long)flags);
    RESULT(cuGraphInstantiateWithFlags(&exec, graph, 0x1000), CUDA_ERROR_INVALID_VALUE);
}

/* It prepares the launch, and runs nothing. */
static void test_upload(void)
{
    const CUdeviceptr words = device_alloc(400);
    const CUstream stream = stream_create(0);
    const CUgraph graph = graph_create();
    CUgraphExec exec;

    GOOD(cuMemsetD32(words, 1, 100));
    add_fill(graph, NULL, words, 100, 3);
    exec = instantiate(graph);
    GOOD(cuGraphUpload(exec, stream));
    GOOD(cuStreamSynchronize(stream));
    expect_words(words, 100, 1);
    GOOD(cuGraphLaunch(exec, stream));
    GOOD(cuStreamSynchronize(stream));
    expect_words(words, 100, 3);
}

static void test_clone(void)
{
    const CUdeviceptr words = device_alloc(400);
    const CUgraph graph = graph_create(), other = graph_create();
    const CUgraphNode node = add_fill(graph, NULL, words, 100, 1);
    const CUgraphNode second = add_empty(graph, node);
    CUgraph clone = NULL;
    CUgraphNode found = NULL;
    struct call call;

    GOOD(cuGraphClone(&clone, graph));
    EXPECT(clone && clone != graph, "the same graph");
    EXPECT(node_count(clone) == 2 && edge_count(clone) == 1, "%zu nodes", node_count(clone));
    GOOD(cuGraphNodeFindInClone(&found, second, clone));
    EXPECT(found && found != second, "the same node");
    EXPECT(type_of(found) == CU_GRAPH_NODE_TYPE_EMPTY, "%d", (int)type_of(found));
    RESULT(cuGraphNodeFindInClone(&found, node, other), CUDA_ERROR_INVALID_VALUE);
    call_fill(&call, words, 100, 2);
    GOOD(cuGraphKernelNodeSetParams(node, &call.params));
    run_graph(clone, NULL);
    expect_words(words, 100, 1);
    GOOD(cuGraphDestroy(graph));
    run_graph(clone, NULL);
}

/* The child is copied when the node is added; the copy may be changed in its place. */
static void test_child_graph(void)
{
    const CUdeviceptr words = device_alloc(400);
    const CUgraph graph = graph_create(), inner = graph_create();
    CUgraphNode node = NULL;
    CUgraph child = NULL;

    GOOD(cuMemsetD32(words, 0, 100));
    add_fill(inner, NULL, words, 50, 1);
    GOOD(cuGraphAddChildGraphNode(&node, graph, NULL, 0, inner));
    add_fill(inner, NULL, words + 200, 50, 2);
    GOOD(cuGraphDestroy(inner));
    GOOD(cuGraphChildGraphNodeGetGraph(node, &child));
    EXPECT(child && child != inner, "the same graph");
    EXPECT(node_count(child) == 1, "%zu nodes", node_count(child));
    run_graph(graph, NULL);
    expect_words(words, 50, 1);
    expect_words(words + 200, 50, 0);
    add_fill(child, NULL, words + 200, 50, 3);
    run_graph(graph, NULL);
    expect_words(words + 200, 50, 3);
}

static void test_host_node_parameters(void)
{
    const CUgraph graph = graph_create();
    unsigned calls[2] = {0};
    CUDA_HOST_NODE_PARAMS params = {.fn = count_call, .userData = &calls[0]}, seen = {0};
    CUgraphNode node = NULL;

    GOOD(cuGraphAddHostNode(&node, graph, NULL, 0, &params));
    run_graph(graph, NULL);
    params.userData = &calls[1];
    GOOD(cuGraphHostNodeSetParams(node, &params));
    GOOD(cuGraphHostNodeGetParams(node, &seen));
    EXPECT(seen.fn == count_call && seen.userData == &calls[1], "others");
    run_graph(graph, NULL);
    run_graph(graph, NULL);
    EXPECT(calls[0] == 1 && calls[1] == 2, "%u and %u calls", calls[0], calls[1]);
}

const struct test exec_tests[] = {
    {"graph_of_nothing", test_graph_of_nothing, false},
    {"no_graph", test_no_graph, false},
    {"graph_is_launched_1000_times", test_graph_is_launched_1000_times, false},
    {"exec_in_two_streams", test_exec_in_two_streams, false},
    {"several_execs_of_one_graph", test_several_execs_of_one_graph, false},
    {"exec_destroyed_while_it_runs", test_exec_destroyed_while_it_runs, false},
    {"graph_in_order_with_other_work", test_graph_in_order_with_other_work, false},
    {"graph_of_many_nodes", test_graph_of_many_nodes, false},
    {"instantiate_with_params", test_instantiate_with_params, false},
    {"instantiate_flags", test_instantiate_flags, false},
    {"upload", test_upload, false},
    {"clone", test_clone, false},
    {"child_graph", test_child_graph, false},
    {"host_node_parameters", test_host_node_parameters, false},
    {0},
};
