/* SPDX-License-Identifier: MIT */
/*
 * Where the GPU's multiprocessors lie, which cuBLAS asks by a private table of the driver's: two
 * lists with a byte for each pair of multiprocessors. The driver allocates them by malloc() and
 * does not say how long they are; that there is one for each pair was seen on an H200. Where the
 * allocations are smaller that does not hold, and the lists are not handed on.
 */
#include <malloc.h>
#include <stdlib.h>
#include <string.h>

#include "common/driver-tables.h"
#include "worker/api-calls.h"
#include "worker/backend-cuda/cuda-driver.h"

#define PLACES_GET 4u /* its number in the table */

enum vgpu_gpu_error cuda_processor_places(struct gpu *gpu, uint32_t *count, char *first,
                                          char *second, unsigned most)
{
    const uintptr_t *table = cuda_find_table(DRIVER_TABLE_PLACES, PLACES_GET + 1);
    const uint32_t pairs = (gpu->info.processors + 1) / 2;
    CUresult (*get)(char **first, char **second);
    char *lists[2] = {NULL, NULL};
    CUresult error;

    if (!table) {
        return VGPU_GPU_NOT_SUPPORTED;
    }
    memcpy(&get, &table[PLACES_GET], sizeof(get));
    error = get(&lists[0], &lists[1]);
    /* Of NULL it is 0. */
    if (error == CUDA_SUCCESS &&
        (malloc_usable_size(lists[0]) < pairs || malloc_usable_size(lists[1]) < pairs)) {
        error = CUDA_ERROR_NOT_SUPPORTED;
    }
    if (error == CUDA_SUCCESS) {
        *count = pairs < most ? pairs : most;
        memcpy(first, lists[0], *count);
        memcpy(second, lists[1], *count);
    }
    free(lists[0]);
    free(lists[1]);
    return error;
}
