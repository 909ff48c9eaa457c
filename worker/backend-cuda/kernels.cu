/* SPDX-License-Identifier: MIT */
/*
 * The built-in operations of register mode and the built-in module of ring mode on the GPU. `scripts/make-ptx` compiles this file to kernels.ptx,
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

/* The built-in module of ring mode, see protocol/vgpu-queue.h. */

extern "C" __global__ void vadd(const float *a, const float *b, float *sum, uint64_t count)
{
    const uint64_t step = (uint64_t)gridDim.x * blockDim.x;

    for (uint64_t i = (uint64_t)blockIdx.x * blockDim.x + threadIdx.x; i < count; i += step) {
        sum[i] = __fadd_rn(a[i], b[i]);
    }
}

extern "C" __global__ void fill(uint32_t *to, uint64_t count, uint32_t value)
{
    const uint64_t step = (uint64_t)gridDim.x * blockDim.x;

    for (uint64_t i = (uint64_t)blockIdx.x * blockDim.x + threadIdx.x; i < count; i += step) {
        to[i] = value;
    }
}

extern "C" __global__ void reduce_sum(const int32_t *from, uint64_t count, int64_t *sum)
{
    const uint64_t step = (uint64_t)gridDim.x * blockDim.x;
    int64_t own = 0;

    for (uint64_t i = (uint64_t)blockIdx.x * blockDim.x + threadIdx.x; i < count; i += step) {
        own += from[i];
    }
    if (own != 0) {
        atomicAdd((unsigned long long *)sum, (unsigned long long)own);
    }
}

extern "C" __global__ void spin(uint64_t ns)
{
    uint64_t start, now;

    asm volatile("mov.u64 %0, %globaltimer;" : "=l"(start));
    do {
        asm volatile("mov.u64 %0, %globaltimer;" : "=l"(now));
    } while (now - start < ns);
}
