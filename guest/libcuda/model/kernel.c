/* SPDX-License-Identifier: MIT */
/*
 * Kernels on their way to the host, see kernel.h.
 *
 * This is the path that has to be short: a launch is written to the ring and nobody waits for an
 * answer. All that is needed to check it, a function's parameters and limits, was asked for when
 * the function was found, or is kept after the first time. Parameters are copied straight from the
 * program into the ring, by way of the stack, and without malloc unless they are many.
 */
#include "guest/libcuda/model/kernel.h"

#include <stdlib.h>
#include <string.h>

#include "common/shared.h"
#include "guest/libcuda/model/module.h"
#include "guest/libcuda/state/state.h"
#include "guest/libvgpu/room.h"
#include "guest/libvgpu/session.h"

/* Parameters ---------------------------------------------------------------------------------- */

/*
 * From pointers to each of them. Gaps between parameters are 0, so that no bytes of the library's
 * go to the host. Without offsets from the driver (cuFuncGetParamInfo() is of CUDA 12.4) nothing
 * says how much is behind a pointer.
 */
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

/*
 * From the buffer that `extra` tells of: pairs of a key and a value, in any order, up to END. The
 * value of the size is a pointer to it.
 */
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
            /* A shorter buffer would have the kernel read beyond it. */
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
        /*
         * Only a kernel without parameters may go without both; and it has to be known that it has
         * none.
         */
        return function->bytes == 0 && function->count != ~0u ? CUDA_SUCCESS
                                                              : CUDA_ERROR_INVALID_VALUE;
    }
    return gather_params(function, params, room);
}

/* What CUDA says of a shape at once ----------------------------------------------------------- */

/*
 * Only dynamic shared memory, in bytes. How much a kernel may have depends on its own static part,
 * and on cuFuncSetAttribute(), so it is asked of the function and not of the device.
 */
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

/*
 * CUDA refuses such a launch at once; the host would only report it later, when nobody knows which
 * launch it was. The attributes for X, Y and Z are consecutive numbers. Dimensions are compared
 * before they are multiplied, so that the product cannot overflow.
 */
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
    /* The GPU could run so many, but not with as many registers as this kernel uses. */
    if (threads > function->max_threads) {
        return CUDA_ERROR_LAUNCH_OUT_OF_RESOURCES;
    }
    return check_shared(function, shape->shared_bytes);
}

/* Launches ------------------------------------------------------------------------------------ */

/*
 * Posts it; what goes wrong with a launch is told by the next call that synchronises. The
 * attributes lie directly behind the structure, so both are one body, and parameters follow from
 * where they are.
 */
static CUresult launch_post(const struct launch *l, const struct function *function,
                            uint64_t stream, const uint8_t *params, uint32_t bytes)
{
    const struct shape *shape = &l->shape;
    const size_t attribute_bytes = l->attribute_count * sizeof(l->attributes[0]);
    const size_t body_bytes = sizeof(struct vgpu_cmd_launch) + attribute_bytes;
    struct room body;
    CUresult r;

    if (l->attribute_count > VGPU_ATTRIBUTES_MAX) {
        return CUDA_ERROR_INVALID_VALUE;
    }
    if (!room_open(&body, body_bytes)) {
        return CUDA_ERROR_OUT_OF_MEMORY;
    }
    *(struct vgpu_cmd_launch *)body.bytes = (struct vgpu_cmd_launch){
        .function = function->object.handle,
        .stream = stream,
        .grid = {shape->grid[0], shape->grid[1], shape->grid[2]},
        .block = {shape->block[0], shape->block[1], shape->block[2]},
        .shared_bytes = shape->shared_bytes,
        .param_bytes = bytes,
        .attributes = l->attribute_count,
    };
    if (attribute_bytes > 0) {
        memcpy(body.bytes + sizeof(struct vgpu_cmd_launch), l->attributes, attribute_bytes);
    }
    r = result_of(session_post(cuda.session, &(struct command){.opcode = VGPU_CMD_LAUNCH,
                                                               .body = body.bytes,
                                                               .body_bytes = (uint32_t)body_bytes,
                                                               .rest = params,
                                                               .rest_bytes = bytes}));
    room_close(&body);
    return r;
}

/*
 * The function that is launched, when its shape is one that the GPU has. A lost context is told
 * here: a posted command has no answer, and the program would go on launching into the void.
 */
static CUresult check_launch(const struct launch *l, struct function **function)
{
    *function = function_find(l->function);
    if (!*function) {
        return CUDA_ERROR_INVALID_HANDLE;
    }
    return shared_load(&cuda.lost) != CUDA_SUCCESS ? (CUresult)shared_load(&cuda.lost)
                                                   : check_shape(*function, &l->shape);
}

/*
 * Checks a launch and finds the bytes of its parameters, as find_params() has them. `room` is
 * opened, whatever the result is.
 */
static CUresult prepare_launch(const struct launch *l, struct function **function,
                               struct room *room, const uint8_t **bytes, uint32_t *count)
{
    const CUresult r = check_launch(l, function);

    if (!room_open(room, r == CUDA_SUCCESS ? (*function)->bytes : 0)) {
        return CUDA_ERROR_OUT_OF_MEMORY;
    }
    return r == CUDA_SUCCESS
               ? find_params(*function, l->params, l->extra, room->bytes, bytes, count)
               : r;
}

CUresult launch_kernel(const struct launch *l, uint64_t stream)
{
    struct function *function;
    struct room room;
    const uint8_t *bytes = NULL;
    uint32_t byte_count = 0;
    CUresult r = prepare_launch(l, &function, &room, &bytes, &byte_count);

    if (r == CUDA_SUCCESS) {
        r = launch_post(l, function, stream, bytes, byte_count);
    }
    room_close(&room);
    return r;
}

/* Launches for later -------------------------------------------------------------------------- */

void kernel_free(struct kernel_work *work)
{
    free(work->attributes);
    free(work->params);
    free(work->param_list);
}

/*
 * Copies of what a launch points to: CUDA has parameters read when a node is added, so the program
 * may reuse its memory. `param_list` is for cuGraphKernelNodeGetParams(), which hands out pointers
 * that stay good as long as the node is not changed. It is empty where parameters are not known.
 * Each allocation has a byte more, since one of 0 bytes may be NULL.
 */
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

/* Checked now, as CUDA does when the node is added, and not again at each launch of the graph. */
CUresult kernel_make(const struct launch *l, struct kernel_work *work)
{
    struct function *function;
    struct room room;
    const uint8_t *bytes = NULL;
    uint32_t byte_count = 0;
    CUresult r = prepare_launch(l, &function, &room, &bytes, &byte_count);

    if (r == CUDA_SUCCESS) {
        *work = (struct kernel_work){.function = l->function,
                                     .shape = l->shape,
                                     .attribute_count = l->attribute_count,
                                     .param_bytes = byte_count};
        r = keep_params(work, function, l->attributes, bytes);
    }
    room_close(&room);
    return r;
}

/* The function's module may have been unloaded since, and its list of parameters with it. */
CUresult kernel_copy(const struct kernel_work *from, struct kernel_work *work)
{
    const struct function *function = function_find(from->function);

    *work = *from;
    return function ? keep_params(work, function, from->attributes, from->params)
                    : CUDA_ERROR_INVALID_HANDLE;
}
