/* SPDX-License-Identifier: MIT */
/*
 * The driver's self-test for NVIDIA's runtime library, which sits in a process of the guest.
 *
 * Every program that nvcc has built carries a copy of the runtime library. Before that uses a
 * driver it has it tested: a function in one of the driver's private tables is called with a
 * version and the time, and answers with 16 bytes. The driver behind the guest's library is here,
 * so the question is handed on to it, and it answers for itself, whatever its version. How it comes
 * to its answer is not known here, and need not be.
 *
 * Two things belong to the question beside the arguments. Both have to be here as they are in the
 * process that asks, while the function runs:
 *
 *   the process and the thread    the driver asks libc, by getpid() and pthread_self(). Both are
 *                                 defined in this file as well, and what a program defines is found
 *                                 before what its libraries do. For the thread that runs the
 *                                 self-test they answer with the guest's numbers
 *   three addresses               of two tables and of the function: cuda_runtime_tables() tells
 *                                 where they are, and the guest's library puts its own at the same
 *                                 addresses
 *
 * The numbers come from the guest, who may give any. What stands for the thread is an address in
 * another process: a driver that looked behind it would crash the worker, and none was seen to.
 */
#include <pthread.h>
#include <stdbool.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "common/driver-tables.h"
#include "worker/api-calls.h"
#include "worker/backend-cuda/cuda-driver.h"

/* A sanitizer's own start calls these before it can look at what they do. */
#define INTERPOSED __attribute__((visibility("default"), no_sanitize("address", "thread")))

/* For whom the calling thread speaks, while it runs the self-test. */
static __thread struct {
    bool speaks;
    pid_t process;
    pthread_t thread;
} guest;

INTERPOSED pid_t getpid(void)
{
    return guest.speaks ? guest.process : (pid_t)syscall(SYS_getpid);
}

/* On x86-64 the thread pointer, whose first word is its own address. */
INTERPOSED pthread_t pthread_self(void)
{
    pthread_t own;

    __asm__("mov %%fs:0, %0" : "=r"(own));
    return guest.speaks ? guest.thread : own;
}

enum vgpu_gpu_error cuda_runtime_tables(struct gpu *gpu, uint64_t *runtime, uint64_t *test,
                                        uint64_t *function)
{
    const uintptr_t *runtime_table = cuda_find_table(DRIVER_TABLE_RUNTIME, 1);
    const uintptr_t *test_table = cuda_find_table(DRIVER_TABLE_TEST, 2);

    (void)gpu;
    if (!runtime_table || !test_table) {
        return VGPU_GPU_NOT_SUPPORTED;
    }
    *runtime = (uintptr_t)runtime_table;
    *test = (uintptr_t)test_table;
    *function = test_table[1];
    return VGPU_GPU_SUCCESS;
}

enum vgpu_gpu_error cuda_self_test(struct gpu *gpu, CUresult *result, uint64_t *answer,
                                   uint32_t version, uint64_t time, uint32_t process,
                                   uint64_t thread)
{
    const uintptr_t *table = cuda_find_table(DRIVER_TABLE_TEST, 2);
    CUresult (*test)(uint32_t version, uint64_t time, uint64_t answer[2]);

    (void)gpu;
    if (!table) {
        return VGPU_GPU_NOT_SUPPORTED;
    }
    /* As bytes: C has no conversion from a number to a function's address. */
    memcpy(&test, &table[1], sizeof(test));
    guest.process = (pid_t)process;
    guest.thread = (pthread_t)thread;
    guest.speaks = true;
    *result = test(version, time, answer);
    guest.speaks = false;
    return VGPU_GPU_SUCCESS;
}
