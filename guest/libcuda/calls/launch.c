/* SPDX-License-Identifier: MIT */
/*
 * Launches of kernels and of functions of the program's. cuLaunchKernel() is the call that programs
 * make most often: what it adds to model/kernel.c is a look at whether its stream is captured.
 */

#include <limits.h>

#include "guest/libcuda/calls/families.h"
#include "guest/libcuda/calls/guest-calls.h"
#include "guest/libcuda/model/callback.h"
#include "guest/libcuda/model/capture.h"
#include "guest/libcuda/model/kernel.h"
#include "guest/libcuda/model/module.h"
#include "guest/libcuda/model/stream.h"
#include "guest/libcuda/model/work.h"
#include "guest/libcuda/state/state.h"
#include "guest/libcuda/wire/wire-calls.h"

/* Launches a kernel in a stream, or has it captured there. */
static CUresult launch_in(const struct launch *launch, const struct stream *stream)
{
    const uint64_t handle = stream->object.handle; /* the stream may be gone after the launch */
    CUresult r;

    if (stream_captured(stream)) {
        struct work work = {.type = CU_GRAPH_NODE_TYPE_KERNEL};

        return capture_add(handle, kernel_make(launch, &work.kernel), &work);
    }
    /* The default stream is refused while streams are captured that wait for it. */
    r = stream_allows(stream);
    if (r == CUDA_SUCCESS) {
        r = launch_kernel(launch, handle);
    }
    return cuda.launch_blocking ? and_wait(r, handle) : r;
}

CUresult guest_cuLaunchKernel(CUfunction function, unsigned int grid_x, unsigned int grid_y,
                              unsigned int grid_z, unsigned int block_x, unsigned int block_y,
                              unsigned int block_z, unsigned int shared_bytes,
                              struct stream *stream, void **params, void **extra)
{
    return launch_in(
        &(struct launch){
            .function = function,
            .shape = {{grid_x, grid_y, grid_z}, {block_x, block_y, block_z}, shared_bytes},
            .params = params,
            .extra = extra,
        },
        stream);
}

/* The attributes of the three dimensions follow each other. */
static unsigned dimension_most(CUdevice_attribute of_x, unsigned dimension)
{
    return (unsigned)cuda.attributes[of_x + dimension];
}

/*
 * Whether all blocks fit the GPU at once, as those of a cooperative launch must: they wait for each
 * other, and blocks that do not run yet would be waited for in vain. CUDA tells that at once, so
 * the host is asked, which makes this launch slower than others. The products cannot overflow with
 * sizes that the GPU has, and others are refused by the launch itself afterwards.
 */
static CUresult check_cooperative(CUfunction function, const struct shape *shape)
{
    const uint64_t blocks = (uint64_t)shape->grid[0] * shape->grid[1] * shape->grid[2];
    const uint64_t threads = (uint64_t)shape->block[0] * shape->block[1] * shape->block[2];
    int each = 0;
    CUresult r;

    for (unsigned i = 0; i < 3; i++) {
        if (shape->grid[i] > dimension_most(CU_DEVICE_ATTRIBUTE_MAX_GRID_DIM_X, i) ||
            shape->block[i] > dimension_most(CU_DEVICE_ATTRIBUTE_MAX_BLOCK_DIM_X, i)) {
            return CUDA_ERROR_INVALID_VALUE;
        }
    }
    if (threads == 0 || threads > INT_MAX) {
        return CUDA_ERROR_INVALID_VALUE;
    }
    r = call_cuOccupancyMaxActiveBlocksPerMultiprocessor(&each, function, (int)threads,
                                                         shape->shared_bytes);
    if (r == CUDA_SUCCESS &&
        blocks >
            (uint64_t)each * (unsigned)cuda.attributes[CU_DEVICE_ATTRIBUTE_MULTIPROCESSOR_COUNT]) {
        r = CUDA_ERROR_COOPERATIVE_LAUNCH_TOO_LARGE;
    }
    return r;
}

/*
 * Attributes go to the host as their bytes. Some hold a handle of an event, or ask for a node's
 * handle, which mean nothing there; these are refused.
 */
static CUresult check_attributes(const CUlaunchConfig *config, CUfunction function,
                                 const struct shape *shape)
{
    CUresult r = CUDA_SUCCESS;

    for (unsigned i = 0; r == CUDA_SUCCESS && i < config->numAttrs; i++) {
        const CUlaunchAttribute *attribute = &config->attrs[i];

        switch (attribute->id) {
        case CU_LAUNCH_ATTRIBUTE_PROGRAMMATIC_EVENT:
        case CU_LAUNCH_ATTRIBUTE_LAUNCH_COMPLETION_EVENT:
        case CU_LAUNCH_ATTRIBUTE_DEVICE_UPDATABLE_KERNEL_NODE:
            r = REFUSE("a launch attribute with an event or a node of a graph");
            break;
        case CU_LAUNCH_ATTRIBUTE_COOPERATIVE:
            r = attribute->value.cooperative ? check_cooperative(function, shape) : CUDA_SUCCESS;
            break;
        default:
            break;
        }
    }
    return r;
}

CUresult guest_cuLaunchKernelEx(const CUlaunchConfig *config, CUfunction function, void **params,
                                void **extra, CUstream default_stream)
{
    struct stream *stream;
    struct launch l;
    CUresult r;

    if (config->numAttrs > 0 && !config->attrs) {
        return CUDA_ERROR_INVALID_VALUE;
    }
    l = (struct launch){
        .function = function,
        .shape = {{config->gridDimX, config->gridDimY, config->gridDimZ},
                  {config->blockDimX, config->blockDimY, config->blockDimZ},
                  config->sharedMemBytes},
        .params = params,
        .extra = extra,
        .attributes = config->attrs,
        .attribute_count = config->numAttrs,
    };
    r = check_attributes(config, function, &l.shape);
    if (r == CUDA_SUCCESS) {
        /*
         * The stream is in a structure, so the exported function could not find it: it hands over
         * which default stream its variant means.
         */
        r = stream_find(config->hStream ? config->hStream : default_stream, &stream);
    }
    return r == CUDA_SUCCESS ? launch_in(&l, stream) : r;
}

/* An attribute of a launch says the same as this older call. */
CUresult guest_cuLaunchCooperativeKernel(CUfunction function, unsigned int grid_x,
                                         unsigned int grid_y, unsigned int grid_z,
                                         unsigned int block_x, unsigned int block_y,
                                         unsigned int block_z, unsigned int shared_bytes,
                                         CUstream stream, void **params)
{
    CUlaunchAttribute attribute = {.id = CU_LAUNCH_ATTRIBUTE_COOPERATIVE,
                                   .value = {.cooperative = 1}};
    const CUlaunchConfig config = {
        .gridDimX = grid_x,
        .gridDimY = grid_y,
        .gridDimZ = grid_z,
        .blockDimX = block_x,
        .blockDimY = block_y,
        .blockDimZ = block_z,
        .sharedMemBytes = shared_bytes,
        .hStream = stream,
        .attrs = &attribute,
        .numAttrs = 1,
    };

    return function_find(function) ? guest_cuLaunchKernelEx(&config, function, params, NULL, stream)
                                   : CUDA_ERROR_INVALID_HANDLE;
}

CUresult captured_host(CUhostFn function, void *argument, uint64_t stream)
{
    const CUDA_HOST_NODE_PARAMS host = {.fn = function, .userData = argument};
    struct work work;

    return capture_add(stream, work_host(&host, &work), &work);
}

/* cuLaunchHostFunc() functions get no stream, so none is kept. */
CUresult guest_cuLaunchHostFunc(struct stream *stream, CUhostFn function, void *argument)
{
    const CUresult r = stream_allows(stream);

    if (r != CUDA_SUCCESS) {
        return r;
    }
    return stream_add_callback(stream, NULL,
                               (struct callback){.function = function, .argument = argument});
}

/*
 * The callback is told its stream as the program calls it, CU_STREAM_PER_THREAD say, hence this
 * call gets what the program passed. CUDA does not let it be captured.
 */
CUresult guest_cuStreamAddCallback(CUstream stream, CUstreamCallback callback, void *argument,
                                   unsigned int flags)
{
    struct stream *known;
    CUresult r;

    if (flags != 0) {
        return CUDA_ERROR_INVALID_VALUE;
    }
    r = stream_usable(stream, &known);
    return r == CUDA_SUCCESS ? stream_add_callback(
                                   known, stream,
                                   (struct callback){.with_status = callback, .argument = argument})
                             : r;
}
