/* SPDX-License-Identifier: MIT */
/*
 * Where the GPU's multiprocessors lie, which cuBLAS asks by a private table of the driver's: two
 * lists with a byte for each pair of multiprocessors. The driver allocates them by malloc() and
 * does not say how long they are; that there is one for each pair was seen on an H200.
 */
#include <malloc.h>
#include <stdlib.h>
#include <string.h>

#include "common/driver-tables.h"
#include "worker/api-calls.h"
#include "worker/backend-cuda/cuda-driver.h"

#define PLACES_GET 4u /* its number in the table */

static size_t smaller_of(size_t a, size_t b)
{
    return a < b ? a : b;
}

/* No more than there are pairs, and than was allocated: what is behind is this process's own. */
enum vgpu_gpu_error cuda_processor_places(struct gpu *gpu, uint32_t *count, char *first,
                                          char *second, unsigned most)
{
    const uintptr_t *table = cuda_find_table(DRIVER_TABLE_PLACES, PLACES_GET + 1);
    size_t pairs = smaller_of((gpu->info.processors + 1) / 2, most);
    CUresult (*get)(char **first, char **second);
    char *lists[2] = {NULL, NULL};
    CUresult error;

    if (!table) {
        return VGPU_GPU_NOT_SUPPORTED;
    }
    memcpy(&get, &table[PLACES_GET], sizeof(get));
    error = get(&lists[0], &lists[1]);
    if (error == CUDA_SUCCESS && (!lists[0] || !lists[1])) {
        error = CUDA_ERROR_UNKNOWN;
    }
    if (error == CUDA_SUCCESS) {
        pairs = smaller_of(pairs, malloc_usable_size(lists[0]));
        pairs = smaller_of(pairs, malloc_usable_size(lists[1]));
        memcpy(first, lists[0], pairs);
        memcpy(second, lists[1], pairs);
        *count = (uint32_t)pairs;
    }
    free(lists[0]);
    free(lists[1]);
    return error;
}
