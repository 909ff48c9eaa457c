/* SPDX-License-Identifier: MIT */
/* What the tests of graphs share: those that are built node by node and those that are captured. */
#ifndef VGPU_TESTS_CUDA_GRAPH_CHECK_H
#define VGPU_TESTS_CUDA_GRAPH_CHECK_H

#include "tests/cuda/check.h"

/* The arguments of one kernel and the parameters of a node that launches it. */
struct call {
    uint64_t numbers[3];
    void *arguments[3];
    CUDA_KERNEL_NODE_PARAMS params;
};

/* The kernels of fill() and reduce(). */
void call_fill(struct call *call, CUdeviceptr to, uint64_t count, uint32_t value);
void call_reduce(struct call *call, CUdeviceptr from, uint64_t count, CUdeviceptr sum);

CUgraph graph_create(void);
/* Each new node depends on the node `after`, if there is one. */
CUgraphNode add_fill(CUgraph graph, CUgraphNode after, CUdeviceptr to, uint64_t count,
                     uint32_t value);
CUgraphNode add_reduce(CUgraph graph, CUgraphNode after, CUdeviceptr from, uint64_t count,
                       CUdeviceptr sum);
CUgraphNode add_spin(CUgraph graph, CUgraphNode after, unsigned ms);
CUgraphNode add_empty(CUgraph graph, CUgraphNode after);

/* A host function: *(unsigned *)calls += 1. */
void count_call(void *calls);

CUgraphExec instantiate(CUgraph graph);
/* Launches it once and waits for its end. */
void run_graph(CUgraph graph, CUstream stream);
size_t node_count(CUgraph graph);
size_t edge_count(CUgraph graph);
CUgraphNodeType type_of(CUgraphNode node);
/* Two words, of one sum. */
CUdeviceptr zero_sum(void);

/* With every kernel loaded; in the global mode where none is given. */
void begin_in_mode(CUstream stream, CUstreamCaptureMode mode);
void begin_capture(CUstream stream);
CUgraph end_capture(CUstream stream);
void expect_status(CUstream stream, CUstreamCaptureStatus status);
/* The capture ends without a graph for this reason, and the stream works again. */
void expect_no_graph(CUstream stream, CUresult reason);
void expect_invalidated(CUstream stream);

#endif
