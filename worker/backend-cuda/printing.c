/* SPDX-License-Identifier: MIT */
/*
 * Having the driver write what kernels have printed (printed.h): it does so in each call that waits
 * for something, also for a stream that has nothing to do, where that costs 1.6 us on an H200. A
 * launch that is waited for takes 6 us there, so it is done where it is called for:
 *
 *   at first       when a function or a graph was launched for the first time
 *   each time      once anything was printed, or a module was loaded that calls vprintf(), as far
 *                  as that can be seen: images are often compressed
 *
 * What begins to print later in its life, from a compressed image, is seen when the worker is about
 * to sleep, or by the driver itself within 100 ms.
 */
#include <string.h>

#include "worker/backend-cuda/cuda-driver.h"
#include "worker/backend-cuda/raw.h"

/* By this name a kernel calls what prints, in PTX as in machine code. */
static const char printer[] = "vprintf";

bool cuda_may_print(const void *image, uint64_t bytes)
{
    return memmem(image, bytes, printer, sizeof(printer) - 1) != NULL;
}

bool cuda_print(struct gpu *gpu, bool all)
{
    struct printing *printing = cuda_printing(gpu);

    if (!printing->launched || !(all || gpu->fresh > 0 || gpu->prints)) {
        return false;
    }
    gpu->fresh -= gpu->fresh > 0;
    if (cuda_is_idle(gpu)) {
        printing->launched = false;
        gpu->fresh = 0;
    }
    /* Neither failure is news: a context that is lost has been found so by whoever waits. */
    if (!printing->none &&
        cu.StreamCreate(&printing->none, CU_STREAM_NON_BLOCKING) != CUDA_SUCCESS) {
        printing->none = NULL;
        return false;
    }
    cu.StreamSynchronize(printing->none);
    return true;
}
