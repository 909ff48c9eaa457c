/* SPDX-License-Identifier: MIT */
/*
 * The kernels of session-fault.c, each of which does what a kernel may not; `scripts/make-ptx`
 * compiles them to faults.ptx, which is checked in. All have the same parameter.
 */
#include <assert.h>
#include <stdint.h>

extern "C" __global__ void misaligned(uint64_t memory)
{
    *(volatile uint32_t *)(memory + 1) = 1;
}

extern "C" __global__ void failed_assert(uint64_t memory)
{
    assert(memory == 0);
}

extern "C" __global__ void trap(uint64_t memory)
{
    (void)memory;
    asm volatile("trap;");
}

/* Goes on where there is no code. */
extern "C" __global__ void jump(uint64_t memory)
{
    ((void (*)())memory)();
}

__device__ __noinline__ uint32_t descend(volatile uint32_t *memory, uint32_t depth)
{
    volatile uint32_t frame[64];

    frame[depth % 64] = *memory + depth;
    return descend(memory, depth + 1) + frame[depth % 64];
}

/* Recursion without an end. */
extern "C" __global__ void stack_overflow(uint64_t memory)
{
    volatile uint32_t *words = (volatile uint32_t *)memory;

    *words = descend(words, *words);
}

/* Far behind the end of what any block may have. */
extern "C" __global__ void shared_range(uint64_t memory)
{
    asm volatile("st.shared.u32 [%0], %1;" ::"r"(0x00f00000u), "r"((uint32_t)memory) : "memory");
}

/* Not for blocks of more than 64 threads. */
extern "C" __global__ void __launch_bounds__(64) few_threads(uint64_t memory)
{
    *(volatile uint32_t *)memory = 1;
}
