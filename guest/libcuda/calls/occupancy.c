/* SPDX-License-Identifier: MIT */
/*
 * How many blocks of a kernel fit the GPU. How many fit one multiprocessor the host's driver says,
 * for a function and a block size; what CUDA's library makes of that is worked out here.
 */

#include <limits.h>

#include "guest/libcuda/calls/families.h"
#include "guest/libcuda/calls/guest-calls.h"
#include "guest/libcuda/model/module.h"
#include "guest/libcuda/state/state.h"
#include "guest/libcuda/wire/wire-calls.h"

/*
 * The block size with which most threads are on the GPU; of several the largest. Sizes are whole
 * warps, but for a limit that is none: with a limit of 100 and warps of 32, they are 100, 96, 64
 * and 32. Each size is a question to the host, at most 32 of them with blocks of 1,024 threads.
 *
 * `shared_of` is the program's, and says how much dynamic shared memory a block of a size needs.
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

    if (!min_grid || !block_size || warp <= 0) {
        return CUDA_ERROR_INVALID_VALUE;
    }
    if (!known) {
        return CUDA_ERROR_INVALID_HANDLE;
    }
    size = known->max_threads > INT_MAX ? INT_MAX : (int)known->max_threads;
    size = limit > 0 && limit < size ? limit : size;
    while (r == CUDA_SUCCESS && size > 0) {
        int blocks = 0;

        r = call_cuOccupancyMaxActiveBlocksPerMultiprocessorWithFlags(
            &blocks, function, size, shared_of ? shared_of(size) : shared_bytes, flags);
        /* Larger sizes come first, so of equally good ones the first stays. */
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

CUresult ask_clusters(int *result, CUfunction function, const CUlaunchConfig *config,
                      unsigned active)
{
    if (config->numAttrs > 0 && !config->attrs) {
        return CUDA_ERROR_INVALID_VALUE;
    }
    return call_occupancy_clusters(result, function, config->gridDimX, config->gridDimY,
                                   config->gridDimZ, config->blockDimX, config->blockDimY,
                                   config->blockDimZ, config->sharedMemBytes, active, config->attrs,
                                   config->numAttrs);
}
