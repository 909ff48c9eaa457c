/* SPDX-License-Identifier: MIT */
/*
 * Graphs on the cuda backend: the driver's own, made node by node. The nodes come decoded and
 * checked (exec-graph.c): numbers of nodes lead to earlier ones, host memory lies in the arena,
 * shapes and attributes are what they may be.
 *
 * From the nodes a plan is made, the driver's CUgraph, and of that an executable graph; the plan is
 * destroyed again. An update makes a plan anew and has the driver bring the executable one up to
 * it, which costs less than to make that anew; where the driver does not like that, it is made
 * anew. What was launched goes on in either case: that is the driver's promise.
 *
 * All calls are looked up together: a driver that lacks one of them has no graphs here, and the
 * guest gets NOT_SUPPORTED when it makes one.
 */
#include <stdlib.h>
#include <string.h>

#include "worker/backend-cuda/cuda-api.h"
#include "worker/backend-cuda/cuda-driver.h"
#include "worker/backend-cuda/raw.h"
#include "worker/gpu.h"

#define GATE_OPS 3u

struct gpu_graph {
    CUgraphExec exec;
    bool launched; /* once at least since it was made or updated */
};

/* Nodes -------------------------------------------------------------------------------------- */

/* What a node is added to, and behind which others. */
struct place {
    struct gpu *gpu;
    CUgraph graph;
    CUcontext context;
    const CUgraphNode *follows;
    size_t count;
};

/*
 * The driver copies the parameters while it adds the node, so the encoding need not outlive it. An
 * attribute to be ignored, which a program may use to fill up its array, is none of a node's.
 */
static CUresult add_kernel(const struct place *place, const struct gpu_graph_node *node,
                           CUgraphNode *made)
{
    const struct gpu_launch *launch = &node->kernel.launch;
    size_t bytes = launch->param_bytes;
    void *extra[] = {CU_LAUNCH_PARAM_BUFFER_POINTER, (void *)(uintptr_t)launch->params,
                     CU_LAUNCH_PARAM_BUFFER_SIZE, &bytes, CU_LAUNCH_PARAM_END};
    CUDA_KERNEL_NODE_PARAMS_v1 params = {
        .func = cuda_raw_function(place->gpu, node->kernel.function),
        .gridDimX = launch->shape->grid[0],
        .gridDimY = launch->shape->grid[1],
        .gridDimZ = launch->shape->grid[2],
        .blockDimX = launch->shape->block[0],
        .blockDimY = launch->shape->block[1],
        .blockDimZ = launch->shape->block[2],
        .sharedMemBytes = launch->shape->shared_bytes,
    };
    CUresult error;

    /* The driver takes the buffer's size on trust. */
    if (!cuda_params_fit(node->kernel.function, &bytes)) {
        return CUDA_ERROR_INVALID_VALUE;
    }
    params.extra = bytes > 0 ? extra : NULL;
    error = cu.GraphAddKernelNode(made, place->graph, place->follows, place->count, &params);
    for (uint32_t i = 0; error == CUDA_SUCCESS && i < launch->attribute_count; i++) {
        if (launch->attributes[i].id != CU_LAUNCH_ATTRIBUTE_IGNORE) {
            error = cu.GraphKernelNodeSetAttribute(*made, launch->attributes[i].id,
                                                   &launch->attributes[i].value);
        }
    }
    return error;
}

static CUresult add_copy(const struct place *place, const struct vgpu_graph_copy *copy,
                         CUgraphNode *made)
{
    /* A copy of one row may have any pitches: they do not matter, but the driver looks at them. */
    const bool line = copy->height == 1 && copy->depth == 1;
    const CUDA_MEMCPY3D params = {
        .srcMemoryType = copy->kind == VGPU_COPY_TO_DEVICE ? CU_MEMORYTYPE_HOST
                                                           : CU_MEMORYTYPE_DEVICE,
        .srcHost = (const void *)(uintptr_t)copy->from,
        .srcDevice = copy->from,
        .srcPitch = line ? copy->width : copy->from_pitch,
        .srcHeight = line ? 1 : copy->from_rows,
        .dstMemoryType = copy->kind == VGPU_COPY_FROM_DEVICE ? CU_MEMORYTYPE_HOST
                                                             : CU_MEMORYTYPE_DEVICE,
        .dstHost = (void *)(uintptr_t)copy->to,
        .dstDevice = copy->to,
        .dstPitch = line ? copy->width : copy->to_pitch,
        .dstHeight = line ? 1 : copy->to_rows,
        .WidthInBytes = copy->width,
        .Height = copy->height,
        .Depth = copy->depth,
    };

    return cu.GraphAddMemcpyNode(made, place->graph, place->follows, place->count, &params,
                                 place->context);
}

/* A fill of one row may have any pitch, as above. */
static CUresult add_fill(const struct place *place, const struct vgpu_graph_fill *fill,
                         CUgraphNode *made)
{
    const CUDA_MEMSET_NODE_PARAMS params = {
        .dst = fill->to,
        .pitch = fill->height == 1 ? 0 : fill->pitch,
        .value = fill->value,
        .elementSize = fill->element,
        .width = fill->width,
        .height = fill->height,
    };

    return cu.GraphAddMemsetNode(made, place->graph, place->follows, place->count, &params,
                                 place->context);
}

/*
 * A gate as protocol/vgpu-graph.h has it, in one node: the word becomes 1, the guest makes it 2
 * when its function is done, and it becomes 0, for the next launch.
 */
static CUresult add_gate(const struct place *place, uint64_t address, CUgraphNode *made)
{
    struct mem_op_params ops[GATE_OPS] = {
        {.operation = MEM_OP_WRITE_VALUE_32, .address = address, .value = 1},
        {.operation = MEM_OP_WAIT_VALUE_32,
         .address = address,
         .value = 2,
         .flags = MEM_OP_WAIT_EQUAL},
        {.operation = MEM_OP_WRITE_VALUE_32, .address = address, .value = 0},
    };
    const struct mem_op_node params = {.context = place->context, .count = GATE_OPS, .params = ops};

    return cu.GraphAddBatchMemOpNode(made, place->graph, place->follows, place->count, &params);
}

static CUresult add_node(const struct place *place, const struct gpu_graph_node *node,
                         CUgraphNode *made)
{
    switch (node->kind) {
    case VGPU_GRAPH_KERNEL:
        return add_kernel(place, node, made);
    case VGPU_GRAPH_COPY:
        return add_copy(place, &node->copy, made);
    case VGPU_GRAPH_FILL:
        return add_fill(place, &node->fill, made);
    case VGPU_GRAPH_GATE:
        return add_gate(place, node->gate, made);
    default:
        return cu.GraphAddEmptyNode(made, place->graph, place->follows, place->count);
    }
}

/*
 * In the order of their numbers, so that all that a node follows are made already. One more of each
 * is allocated, since a graph may have no nodes and calloc() may then say NULL.
 */
static CUresult add_nodes(struct place *place, const struct gpu_graph_node *nodes, uint32_t count)
{
    CUgraphNode *made = calloc(count + 1, sizeof(CUgraphNode));
    CUgraphNode *follows = calloc(count + 1, sizeof(CUgraphNode));
    CUresult error = made && follows ? CUDA_SUCCESS : CUDA_ERROR_OUT_OF_MEMORY;

    for (uint32_t i = 0; error == CUDA_SUCCESS && i < count; i++) {
        if (nodes[i].follow_count > count) {
            error = CUDA_ERROR_INVALID_VALUE; /* one of them twice */
            break;
        }
        for (uint32_t k = 0; k < nodes[i].follow_count; k++) {
            follows[k] = made[nodes[i].follows[k]];
        }
        place->follows = follows;
        place->count = nodes[i].follow_count;
        error = add_node(place, &nodes[i], &made[i]);
    }
    free(made);
    free(follows);
    return error;
}

/* Makes the plan of these nodes, which is the caller's to destroy. */
static CUresult make_executable(struct gpu *gpu, const struct gpu_graph_node *nodes, uint32_t count,
                                CUgraph *graph)
{
    struct place place = {.gpu = gpu};
    CUresult error = !cu.lacks[CUDA_GRAPHS] ? cu.CtxGetCurrent(&place.context)
                                            : CUDA_ERROR_NOT_SUPPORTED;

    if (error == CUDA_SUCCESS) {
        error = cu.GraphCreate(&place.graph, 0);
    }
    if (error != CUDA_SUCCESS) {
        return error;
    }
    error = add_nodes(&place, nodes, count);
    if (error != CUDA_SUCCESS) {
        cu.GraphDestroy(place.graph);
        return error;
    }
    *graph = place.graph;
    return CUDA_SUCCESS;
}

/* Graphs ------------------------------------------------------------------------------------- */

enum vgpu_gpu_error cuda_graph_make(struct gpu *gpu, const struct gpu_graph_node *nodes,
                                    uint32_t count, struct gpu_graph **graph)
{
    struct gpu_graph *made = calloc(1, sizeof(*made));
    CUgraph plan = NULL;
    CUresult error = made ? make_executable(gpu, nodes, count, &plan) : CUDA_ERROR_OUT_OF_MEMORY;

    if (error == CUDA_SUCCESS) {
        error = cu.GraphInstantiateWithFlags(&made->exec, plan, 0);
        cu.GraphDestroy(plan);
    }
    if (error != CUDA_SUCCESS) {
        free(made);
        return (enum vgpu_gpu_error)error;
    }
    *graph = made;
    return VGPU_GPU_SUCCESS;
}

enum vgpu_gpu_error cuda_graph_update(struct gpu *gpu, struct gpu_graph *graph,
                                      const struct gpu_graph_node *nodes, uint32_t count)
{
    CUgraphExecUpdateResultInfo info;
    CUgraphExec exec = NULL;
    CUgraph plan = NULL;
    CUresult error = make_executable(gpu, nodes, count, &plan);

    if (error != CUDA_SUCCESS) {
        return (enum vgpu_gpu_error)error;
    }
    /*
     * Why it was refused is in `info`; whatever it was, a new one does. Only when that is there
     * does the old one go, so that a failure leaves the graph as it was.
     */
    if (cu.GraphExecUpdate(graph->exec, plan, &info) != CUDA_SUCCESS) {
        error = cu.GraphInstantiateWithFlags(&exec, plan, 0);
        if (error == CUDA_SUCCESS) {
            cu.GraphExecDestroy(graph->exec);
            graph->exec = exec;
        }
    }
    cu.GraphDestroy(plan);
    graph->launched = false;
    return (enum vgpu_gpu_error)error;
}

/* One piece of work, whatever is in it. There is a graph, so the driver has all the calls. */
enum vgpu_gpu_error cuda_graph_launch(struct gpu *gpu, struct gpu_graph *graph,
                                      struct gpu_stream *stream)
{
    cuda_note_launch(gpu, &graph->launched);
    return (enum vgpu_gpu_error)cu.GraphLaunch(graph->exec, cuda_submit(gpu, stream));
}

void cuda_graph_destroy(struct gpu *gpu, struct gpu_graph *graph)
{
    (void)gpu;
    cu.GraphExecDestroy(graph->exec);
    free(graph);
}
