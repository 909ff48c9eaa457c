/* SPDX-License-Identifier: MIT */
/*
 * The kernel of session-long.c; `scripts/make-ptx` compiles it to long.ptx, which is checked in.
 *
 * Each thread has two chains of numbers, one in a register and one in shared memory, whose ends
 * tell whether anything was lost on the way. `out` has two words for each thread.
 */
#include <stdint.h>

#define FACTOR UINT64_C(6364136223846793005)
#define SUMMAND UINT64_C(1442695040888963407)
#define THREADS 256

extern "C" __global__ void chain(uint64_t *out, uint64_t rounds)
{
    __shared__ uint64_t kept[THREADS];
    const uint64_t thread = (uint64_t)blockIdx.x * blockDim.x + threadIdx.x;
    volatile uint64_t *mine = &kept[threadIdx.x];
    uint64_t x = thread;

    *mine = ~thread;
    for (uint64_t i = 0; i < rounds; i++) {
        x = x * FACTOR + SUMMAND;
        *mine = *mine * FACTOR + SUMMAND;
    }
    out[2 * thread] = x;
    out[2 * thread + 1] = *mine;
}

/* There is no such address. */
extern "C" __global__ void illegal(uint64_t *out, uint64_t rounds)
{
    out[rounds] = 1;
}
