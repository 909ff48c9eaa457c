/* SPDX-License-Identifier: MIT */
/* Graphs for tests: nodes that launch the kernels of kernels.ptx, and captures. */
#include "tests/cuda/graph-check.h"

static void call_kernel(struct call *call, const char *name, unsigned blocks, unsigned threads)
{
    for (int i = 0; i < 3; i++) {
        call->arguments[i] = &call->numbers[i];
    }
    call->params = (CUDA_KERNEL_NODE_PARAMS){.func = kernel(name),
                                             .gridDimX = blocks,
                                             .gridDimY = 1,
                                             .gridDimZ = 1,
                                             .blockDimX = threads,
                                             .blockDimY = 1,
                                             .blockDimZ = 1,
                                             .kernelParams = call->arguments};
}

/* The value is of 32 bits: the first half of a number, as numbers lie here. */
void call_fill(struct call *call, CUdeviceptr to, uint64_t count, uint32_t value)
{
    call->numbers[0] = to;
    call->numbers[1] = count;
    call->numbers[2] = value;
    call_kernel(call, "fill", 16, 128);
}

void call_reduce(struct call *call, CUdeviceptr from, uint64_t count, CUdeviceptr sum)
{
    call->numbers[0] = from;
    call->numbers[1] = count;
    call->numbers[2] = sum;
    call_kernel(call, "reduce_sum", 4, 64);
}

CUgraph graph_create(void)
{
    CUgraph graph = NULL;

    GOOD(cuGraphCreate(&graph, 0));
    EXPECT(graph, "no graph");
    return graph;
}

static CUgraphNode add_call(CUgraph graph, CUgraphNode after, const struct call *call)
{
    CUgraphNode node = NULL;

    GOOD(cuGraphAddKernelNode(&node, graph, &after, after ? 1 : 0, &call->params));
    EXPECT(node, "no node");
    return node;
}

CUgraphNode add_fill(CUgraph graph, CUgraphNode after, CUdeviceptr to, uint64_t count,
                     uint32_t value)
{
    struct call call;

    call_fill(&call, to, count, value);
    return add_call(graph, after, &call);
}

CUgraphNode add_reduce(CUgraph graph, CUgraphNode after, CUdeviceptr from, uint64_t count,
                       CUdeviceptr sum)
{
    struct call call;

    call_reduce(&call, from, count, sum);
    return add_call(graph, after, &call);
}

CUgraphNode add_spin(CUgraph graph, CUgraphNode after, unsigned ms)
{
    struct call call;

    call.numbers[0] = ms * UINT64_C(1000000);
    call_kernel(&call, "spin", 1, 1);
    return add_call(graph, after, &call);
}

CUgraphNode add_empty(CUgraph graph, CUgraphNode after)
{
    CUgraphNode node = NULL;

    GOOD(cuGraphAddEmptyNode(&node, graph, &after, after ? 1 : 0));
    EXPECT(node, "no node");
    return node;
}

void count_call(void *calls)
{
    ++*(unsigned *)calls;
}

CUgraphExec instantiate(CUgraph graph)
{
    CUgraphExec exec = NULL;

    GOOD(cuGraphInstantiateWithFlags(&exec, graph, 0));
    EXPECT(exec, "no executable graph");
    return exec;
}

void run_graph(CUgraph graph, CUstream stream)
{
    const CUgraphExec exec = instantiate(graph);

    GOOD(cuGraphLaunch(exec, stream));
    GOOD(cuStreamSynchronize(stream));
    GOOD(cuGraphExecDestroy(exec));
}

size_t node_count(CUgraph graph)
{
    size_t count = 77;

    GOOD(cuGraphGetNodes(graph, NULL, &count));
    return count;
}

size_t edge_count(CUgraph graph)
{
    size_t count = 77;

    GOOD(cuGraphGetEdges(graph, NULL, NULL, NULL, &count));
    return count;
}

CUgraphNodeType type_of(CUgraphNode node)
{
    CUgraphNodeType type = (CUgraphNodeType)77;

    GOOD(cuGraphNodeGetType(node, &type));
    return type;
}

CUdeviceptr zero_sum(void)
{
    const CUdeviceptr sum = device_alloc(8);

    GOOD(cuMemsetD32(sum, 0, 2));
    GOOD(cuCtxSynchronize());
    return sum;
}

void begin_in_mode(CUstream stream, CUstreamCaptureMode mode)
{
    warm_up();
    GOOD(cuStreamBeginCapture(stream, mode));
}

void begin_capture(CUstream stream)
{
    begin_in_mode(stream, CU_STREAM_CAPTURE_MODE_GLOBAL);
}

CUgraph end_capture(CUstream stream)
{
    CUgraph graph = NULL;

    GOOD(cuStreamEndCapture(stream, &graph));
    EXPECT(graph, "no graph");
    return graph;
}

void expect_status(CUstream stream, CUstreamCaptureStatus status)
{
    CUstreamCaptureStatus came = (CUstreamCaptureStatus)77;

    GOOD(cuStreamIsCapturing(stream, &came));
    EXPECT(came == status, "%d instead of %d", (int)came, (int)status);
}

void expect_no_graph(CUstream stream, CUresult reason)
{
    CUgraph graph = (CUgraph)(uintptr_t)1;
    CUdeviceptr words;

    RESULT(cuStreamEndCapture(stream, &graph), reason);
    EXPECT(graph == NULL, "a graph");
    expect_status(stream, CU_STREAM_CAPTURE_STATUS_NONE);
    words = device_alloc(400);
    fill(words, 100, 3, stream);
    GOOD(cuStreamSynchronize(stream));
    expect_words(words, 100, 3);
}

void expect_invalidated(CUstream stream)
{
    expect_status(stream, CU_STREAM_CAPTURE_STATUS_INVALIDATED);
    expect_no_graph(stream, CUDA_ERROR_STREAM_CAPTURE_INVALIDATED);
}
