/* SPDX-License-Identifier: MIT */
/*
 * The built-in operations on the GPU. `scripts/make-ptx` compiles this file to kernels.ptx,
 * which is checked in, so that building needs no CUDA toolkit.
 *
 * The results equal those of backend-cpu bit for bit: wrapping integer sums, IEEE sums
 * without flush to zero, 0x7fffffff for every NaN.
 */
#include <stdint.h>

extern "C" __global__ void add_int32(const uint32_t *a, const uint32_t *b, uint32_t *sum,
                                     uint64_t count)
{
    const uint64_t step = (uint64_t)gridDim.x * blockDim.x;

    for (uint64_t i = (uint64_t)blockIdx.x * blockDim.x + threadIdx.x; i < count; i += step) {
        sum[i] = a[i] + b[i];
    }
}

extern "C" __global__ void add_float32(const float *a, const float *b, uint32_t *sum,
                                       uint64_t count)
{
    const uint64_t step = (uint64_t)gridDim.x * blockDim.x;

    for (uint64_t i = (uint64_t)blockIdx.x * blockDim.x + threadIdx.x; i < count; i += step) {
        const float result = __fadd_rn(a[i], b[i]);

        sum[i] = isnan(result) ? 0x7fffffffu : __float_as_uint(result);
    }
}
