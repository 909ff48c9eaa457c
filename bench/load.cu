/* SPDX-License-Identifier: MIT */
/*
 * The kernel of scheduler-load.c; `scripts/make-ptx` compiles it to load.ptx, which is checked in.
 *
 * A fixed amount of arithmetic in registers: it takes its time of the GPU, however often it is
 * interrupted, which waiting for a clock would not.
 */
#include <stdint.h>

#define LONG_ROUNDS 65536 /* some 8 ms on an H200 */

/*
 * `out` is never written: xorshift does not reach 0 from another number. The compiler, which does
 * not know that, has to leave the loop as it is.
 *
 * `progress` tells how far the kernel is, `base` and the rounds done. In a long kernel each warp says
 * so for itself, since the older ones of a multiprocessor are far ahead of the others; of a short
 * one the first word says that it has ended.
 */
extern "C" __global__ void work(uint32_t *out, uint64_t rounds, volatile uint64_t *progress,
                                uint64_t base)
{
    const uint32_t thread = blockIdx.x * blockDim.x + threadIdx.x;
    const bool tells = rounds >= LONG_ROUNDS ? thread % 32 == 0 : thread == 0;
    uint32_t x = thread + 1;

    for (uint64_t i = 0; i < rounds; i++) {
        x ^= x << 13;
        x ^= x >> 17;
        x ^= x << 5;
        if ((i & (LONG_ROUNDS - 1)) == LONG_ROUNDS - 1 && tells) {
            progress[thread / 32] = base + i;
            __threadfence_system();
        }
    }
    if (tells) {
        progress[thread / 32] = base + rounds;
    }
    if (x == 0) {
        *out = x;
    }
}
