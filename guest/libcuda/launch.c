/* SPDX-License-Identifier: MIT */
/* Launches, and how many blocks of a kernel fit the GPU. */
#include <limits.h>
#include <stdlib.h>
#include <string.h>

#include "common/shared.h"
#include "guest/libcuda/capture.h"
#include "guest/libcuda/entry.h"
#include "guest/libcuda/launch.h"
#include "guest/libcuda/module.h"
#include "guest/libcuda/stream.h"
#include "guest/libvgpu/session.h"

/* Parameters --------------------------------------------------------------------------------- */

/* From pointers to each of them. */
static CUresult gather_params(const struct function *function, void *const *params, uint8_t *bytes)
{
    if (function->count == ~0u) {
        return REFUSE("kernelParams, with a driver on the host before CUDA 12.4");
    }
    memset(bytes, 0, function->bytes);
    for (uint32_t i = 0; i < function->count; i++) {
        if (!params[i]) {
            return CUDA_ERROR_INVALID_VALUE;
        }
        memcpy(bytes + function->parameters[i].offset, params[i], function->parameters[i].size);
    }
    return CUDA_SUCCESS;
}

/* From the buffer that `extra` tells of. */
static CUresult from_extra(void *const *extra, const uint8_t **bytes, uint32_t *count)
{
    const void *buffer = NULL;
    const size_t *size = NULL;

    while (*extra != CU_LAUNCH_PARAM_END) {
        if (extra[0] == CU_LAUNCH_PARAM_BUFFER_POINTER) {
            buffer = extra[1];
        } else if (extra[0] == CU_LAUNCH_PARAM_BUFFER_SIZE) {
            size = extra[1];
        } else {
            return CUDA_ERROR_INVALID_VALUE;
        }
        extra += 2;
    }
    if (!buffer || !size || *size > VGPU_PARAMS_MAX) {
        return CUDA_ERROR_INVALID_VALUE;
    }
    *bytes = buffer;
    *count = (uint32_t)*size;
    return CUDA_SUCCESS;
}

/*
 * The parameters' bytes, in `room` or where the program has them. Of a buffer that is longer than
 * the kernel wants, what it wants.
 */
static CUresult find_params(const struct function *function, void *const *params,
                            void *const *extra, uint8_t *room, const uint8_t **bytes,
                            uint32_t *count)
{
    CUresult r;

    if (params && extra) {
        return CUDA_ERROR_INVALID_VALUE;
    }
    if (extra) {
        r = from_extra(extra, bytes, count);
        if (r == CUDA_SUCCESS && function->count != ~0u) {
            if (*count < function->bytes) {
                return CUDA_ERROR_INVALID_VALUE;
            }
            *count = function->bytes;
        }
        return r;
    }
    *bytes = room;
    *count = function->bytes;
    if (!params) {
        return function->bytes == 0 && function->count != ~0u ? CUDA_SUCCESS
                                                              : CUDA_ERROR_INVALID_VALUE;
    }
    return gather_params(function, params, room);
}

/* What CUDA says of a shape at once --------------------------------------------------------- */

static CUresult check_shared(struct function *function, unsigned shared_bytes)
{
    int most = 0;
    CUresult r;

    if (shared_bytes == 0) {
        return CUDA_SUCCESS;
    }
    r = function_attribute(function, CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES, &most);
    return r == CUDA_SUCCESS && shared_bytes > (unsigned)most ? CUDA_ERROR_INVALID_VALUE : r;
}

static CUresult check_shape(struct function *function, const struct shape *shape)
{
    const int *limits = cuda.attributes;
    uint64_t threads = 1;

    for (int i = 0; i < 3; i++) {
        if (shape->grid[i] == 0 || shape->block[i] == 0 ||
            shape->grid[i] > (unsigned)limits[CU_DEVICE_ATTRIBUTE_MAX_GRID_DIM_X + i] ||
            shape->block[i] > (unsigned)limits[CU_DEVICE_ATTRIBUTE_MAX_BLOCK_DIM_X + i]) {
            return CUDA_ERROR_INVALID_VALUE;
        }
        threads *= shape->block[i];
    }
    if (threads > (unsigned)limits[CU_DEVICE_ATTRIBUTE_MAX_THREADS_PER_BLOCK]) {
        return CUDA_ERROR_INVALID_VALUE;
    }
    if (threads > function->max_threads) {
        return CUDA_ERROR_LAUNCH_OUT_OF_RESOURCES;
    }
    return check_shared(function, shape->shared_bytes);
}

/* Launches ------------------------------------------------------------------------------------- */

/* Posts it; what goes wrong with a launch is told by the next call that synchronises. */
static CUresult launch_post(const struct launch *l, const struct function *function,
                            uint64_t stream, const uint8_t *params, uint32_t bytes)
{
    struct {
        struct vgpu_cmd_launch launch;
        CUlaunchAttribute attributes[VGPU_ATTRIBUTES_MAX];
    } body;
    const struct shape *shape = &l->shape;
    const size_t attribute_bytes = l->attribute_count * sizeof(body.attributes[0]);

    static_assert(offsetof(__typeof__(body), attributes) == sizeof(body.launch),
                  "no padding between");
    if (l->attribute_count > VGPU_ATTRIBUTES_MAX) {
        return CUDA_ERROR_INVALID_VALUE;
    }
    body.launch = (struct vgpu_cmd_launch){
        .function = function->object.handle,
        .stream = stream,
        .grid = {shape->grid[0], shape->grid[1], shape->grid[2]},
        .block = {shape->block[0], shape->block[1], shape->block[2]},
        .shared_bytes = shape->shared_bytes,
        .param_bytes = bytes,
        .attributes = l->attribute_count,
    };
    if (attribute_bytes > 0) {
        memcpy(body.attributes, l->attributes, attribute_bytes);
    }
    return result_of(session_post(
        cuda.session,
        &(struct command){.opcode = VGPU_CMD_LAUNCH,
                          .body = &body,
                          .body_bytes = (uint32_t)(sizeof(body.launch) + attribute_bytes),
                          .rest = params,
                          .rest_bytes = bytes}));
}

/* The function that is launched, when its shape is one that the GPU has. */
static CUresult check_launch(const struct launch *l, struct function **function)
{
    *function = function_find(l->function);
    if (!*function) {
        return CUDA_ERROR_INVALID_HANDLE;
    }
    return shared_load(&cuda.lost) != CUDA_SUCCESS ? (CUresult)shared_load(&cuda.lost)
                                                   : check_shape(*function, &l->shape);
}

static CUresult launch_kernel(const struct launch *l, CUstream stream)
{
    struct function *function;
    uint8_t room[VGPU_PARAMS_MAX];
    const uint8_t *bytes = NULL;
    uint32_t byte_count = 0;
    uint64_t handle;
    CUresult r;

    if (capture_takes(stream)) {
        return capture_kernel(stream, l);
    }
    r = stream_handle(stream, &handle);
    if (r == CUDA_SUCCESS) {
        r = check_launch(l, &function);
    }
    if (r == CUDA_SUCCESS) {
        r = find_params(function, l->params, l->extra, room, &bytes, &byte_count);
    }
    if (r != CUDA_SUCCESS) {
        return r;
    }
    return launch_post(l, function, handle, bytes, byte_count);
}

/* Launches for later ------------------------------------------------------------------------- */

void kernel_free(struct kernel_work *work)
{
    free(work->attributes);
    free(work->params);
    free(work->param_list);
}

/* Copies of what a launch points to, for a function whose parameters may be known. */
static CUresult keep_params(struct kernel_work *work, const struct function *function,
                            const CUlaunchAttribute *attributes, const uint8_t *params)
{
    const uint32_t listed = function->count == ~0u ? 0 : function->count;
    const size_t attribute_bytes = work->attribute_count * sizeof(*attributes);

    work->attributes = malloc(attribute_bytes + 1);
    work->params = malloc(work->param_bytes + 1);
    work->param_list = calloc(listed + 1, sizeof(void *));
    if (!work->attributes || !work->params || !work->param_list) {
        kernel_free(work);
        return CUDA_ERROR_OUT_OF_MEMORY;
    }
    if (attribute_bytes > 0) {
        memcpy(work->attributes, attributes, attribute_bytes);
    }
    memcpy(work->params, params, work->param_bytes);
    for (uint32_t i = 0; i < listed; i++) {
        work->param_list[i] = work->params + function->parameters[i].offset;
    }
    return CUDA_SUCCESS;
}

CUresult kernel_make(const struct launch *l, struct kernel_work *work)
{
    struct function *function;
    uint8_t room[VGPU_PARAMS_MAX];
    const uint8_t *bytes = NULL;
    uint32_t byte_count = 0;
    CUresult r = check_launch(l, &function);

    if (r == CUDA_SUCCESS) {
        r = find_params(function, l->params, l->extra, room, &bytes, &byte_count);
    }
    if (r != CUDA_SUCCESS) {
        return r;
    }
    *work = (struct kernel_work){.function = l->function,
                                 .shape = l->shape,
                                 .attribute_count = l->attribute_count,
                                 .param_bytes = byte_count};
    return keep_params(work, function, l->attributes, bytes);
}

CUresult kernel_copy(const struct kernel_work *from, struct kernel_work *work)
{
    const struct function *function = function_find(from->function);

    *work = *from;
    return function ? keep_params(work, function, from->attributes, from->params)
                    : CUDA_ERROR_INVALID_HANDLE;
}

/* What programs call ------------------------------------------------------------------------- */

CUresult guest_cuLaunchKernel(CUfunction function, unsigned int grid_x, unsigned int grid_y,
                              unsigned int grid_z, unsigned int block_x, unsigned int block_y,
                              unsigned int block_z, unsigned int shared_bytes, CUstream stream,
                              void **params, void **extra)
{
    return launch_kernel(
        &(struct launch){
            .function = function,
            .shape = {{grid_x, grid_y, grid_z}, {block_x, block_y, block_z}, shared_bytes},
            .params = params,
            .extra = extra,
        },
        stream);
}

/* Whether all blocks fit the GPU at once, as those of a cooperative launch must. */
static CUresult check_cooperative(CUfunction function, const struct shape *shape)
{
    const uint64_t blocks = (uint64_t)shape->grid[0] * shape->grid[1] * shape->grid[2];
    const uint64_t threads = (uint64_t)shape->block[0] * shape->block[1] * shape->block[2];
    int each = 0;
    CUresult r;

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
    struct launch l;
    CUresult r;

    if (!config || (config->numAttrs > 0 && !config->attrs)) {
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
    return r == CUDA_SUCCESS ? launch_kernel(&l, config->hStream ? config->hStream : default_stream)
                             : r;
}

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

    return guest_cuLaunchKernelEx(&config, function, params, NULL, stream);
}

/* How many fit --------------------------------------------------------------------------------- */

/*
 * The block size with which most threads are on the GPU; of several the largest. Sizes are whole
 * warps, but for a limit that is none.
 */
CUresult guest_cuOccupancyMaxPotentialBlockSizeWithFlags(int *min_grid, int *block_size,
                                                         CUfunction function,
                                                         CUoccupancyB2DSize shared_of,
                                                         size_t shared_bytes, int limit,
                                                         unsigned int flags)
{
    const struct function *known = function_find(function);
    const int warp = cuda.attributes[CU_DEVICE_ATTRIBUTE_WARP_SIZE];
    int most = 0, best_blocks = 0, best = 0, size;
    CUresult r = CUDA_SUCCESS;

    if (!min_grid || !block_size || !known || warp <= 0) {
        return known ? CUDA_ERROR_INVALID_VALUE : CUDA_ERROR_INVALID_HANDLE;
    }
    size = known->max_threads > INT_MAX ? INT_MAX : (int)known->max_threads;
    size = limit > 0 && limit < size ? limit : size;
    while (r == CUDA_SUCCESS && size > 0) {
        int blocks = 0;

        r = call_cuOccupancyMaxActiveBlocksPerMultiprocessorWithFlags(
            &blocks, function, size, shared_of ? shared_of(size) : shared_bytes, flags);
        if (blocks * size > most) {
            most = blocks * size;
            best_blocks = blocks;
            best = size;
        }
        size = (size - 1) / warp * warp;
    }
    *min_grid = best_blocks * cuda.attributes[CU_DEVICE_ATTRIBUTE_MULTIPROCESSOR_COUNT];
    *block_size = best;
    return r;
}

CUresult guest_cuOccupancyMaxPotentialBlockSize(int *min_grid, int *block_size, CUfunction function,
                                                CUoccupancyB2DSize shared_of, size_t shared_bytes,
                                                int limit)
{
    return guest_cuOccupancyMaxPotentialBlockSizeWithFlags(min_grid, block_size, function,
                                                           shared_of, shared_bytes, limit, 0);
}

static CUresult ask_clusters(int *result, CUfunction function, const CUlaunchConfig *config,
                             unsigned active)
{
    if (!config || (config->numAttrs > 0 && !config->attrs)) {
        return CUDA_ERROR_INVALID_VALUE;
    }
    return call_occupancy_clusters(result, function, config->gridDimX, config->gridDimY,
                                   config->gridDimZ, config->blockDimX, config->blockDimY,
                                   config->blockDimZ, config->sharedMemBytes, active, config->attrs,
                                   config->numAttrs);
}

CUresult guest_cuOccupancyMaxPotentialClusterSize(int *size, CUfunction function,
                                                  const CUlaunchConfig *config)
{
    return ask_clusters(size, function, config, 0);
}

CUresult guest_cuOccupancyMaxActiveClusters(int *clusters, CUfunction function,
                                            const CUlaunchConfig *config)
{
    return ask_clusters(clusters, function, config, 1);
}
