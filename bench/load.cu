/* SPDX-License-Identifier: MIT */
/*
 * The kernel of scheduler-load.c; `scripts/make-ptx` compiles it to load.ptx, which is checked in.
 *
 * A fixed amount of arithmetic in registers: it takes its time of the GPU, however often it is
 * interrupted, which waiting for a clock would not.
 */
#include <stdint.h>

/* `out` is never written: xorshift does not reach 0 from another number. The compiler, which does
 * not know that, has to leave the loop as it is. */
extern "C" __global__ void work(uint32_t *out, uint64_t rounds)
{
    uint32_t x = blockIdx.x * blockDim.x + threadIdx.x + 1;

    for (uint64_t i = 0; i < rounds; i++) {
        x ^= x << 13;
        x ^= x >> 17;
        x ^= x << 5;
    }
    if (x == 0) {
        *out = x;
    }
}
