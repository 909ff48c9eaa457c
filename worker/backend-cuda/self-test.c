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
 * The numbers come from the guest, who may give any. The driver does not look behind them: what
 * stands for the thread is an address in another process, and was so whenever this was measured.
 */
#include <malloc.h>
#include <pthread.h>
#include <stdbool.h>
#include <stdlib.h>
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

/*
 * One of the driver's tables of functions, whose first word is its size in bytes. NULL where the
 * driver has none of that id, or none with a second word.
 */
static const uintptr_t *find_table(const char *id)
{
    const void *table = NULL;
    CUuuid uuid;

    memcpy(uuid.bytes, id, sizeof(uuid.bytes));
    if (!cu.GetExportTable || cu.GetExportTable(&table, &uuid) != CUDA_SUCCESS || !table ||
        *(const uintptr_t *)table < 2 * sizeof(uintptr_t)) {
        return NULL;
    }
    return table;
}

enum vgpu_gpu_error cuda_runtime_tables(struct gpu *gpu, uint64_t *runtime, uint64_t *test,
                                        uint64_t *function)
{
    const uintptr_t *runtime_table = find_table(DRIVER_TABLE_RUNTIME);
    const uintptr_t *test_table = find_table(DRIVER_TABLE_TEST);

    (void)gpu;
    if (!runtime_table || !test_table) {
        return VGPU_GPU_NOT_SUPPORTED;
    }
    *runtime = (uintptr_t)runtime_table;
    *test = (uintptr_t)test_table;
    *function = test_table[1];
    return VGPU_GPU_SUCCESS;
}

/*
 * Not of the self-test, but of a private table as well: cuBLAS asks where each pair of
 * multiprocessors lies. The driver allocates both lists and says nothing of their length, which the
 * size of the allocation tells: it is at most some bytes more.
 */
enum vgpu_gpu_error cuda_processor_places(struct gpu *gpu, uint32_t *count, char *first,
                                          char *second, unsigned most)
{
    const uintptr_t *table = find_table(DRIVER_TABLE_PLACES);
    CUresult (*get)(char **first, char **second);
    char *lists[2] = {NULL, NULL};
    CUresult error;
    size_t bytes;

    (void)gpu;
    if (!table || table[0] < 5 * sizeof(uintptr_t)) {
        return VGPU_GPU_NOT_SUPPORTED;
    }
    memcpy(&get, &table[4], sizeof(get));
    error = get(&lists[0], &lists[1]);
    if (error == CUDA_SUCCESS && lists[0] && lists[1]) {
        bytes = malloc_usable_size(lists[0]) < malloc_usable_size(lists[1])
                    ? malloc_usable_size(lists[0])
                    : malloc_usable_size(lists[1]);
        *count = (uint32_t)(bytes < most ? bytes : most);
        memcpy(first, lists[0], *count);
        memcpy(second, lists[1], *count);
    }
    free(lists[0]);
    free(lists[1]);
    return error;
}

enum vgpu_gpu_error cuda_self_test(struct gpu *gpu, CUresult *result, uint64_t *answer,
                                   uint32_t version, uint64_t time, uint32_t process,
                                   uint64_t thread)
{
    const uintptr_t *table = find_table(DRIVER_TABLE_TEST);
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
