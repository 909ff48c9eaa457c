/* SPDX-License-Identifier: MIT */
/*
 * A program that is compiled with ThreadSanitizer: its mmap() has no memory but at addresses that
 * a program may have by it, and its exit handlers are not libc's. Two threads use the GPU, and
 * memory that it reaches. Exit code 0 where all went well.
 *
 * Tests: common/map-at.h, guest/libvgpu/open.c, guest/libcuda/state/reserve.c,
 * guest/libcuda/state/unload.c
 */
#include <pthread.h>
#include <stdlib.h>
#include <string.h>

#include <cuda.h>

#define BYTES ((size_t)1 << 20)

static void need(CUresult result)
{
    if (result != CUDA_SUCCESS) {
        exit(1);
    }
}

static void *use(void *nothing)
{
    CUcontext context = NULL;
    CUdeviceptr there = 0;
    void *from = NULL, *to = NULL;

    need(cuDevicePrimaryCtxRetain(&context, 0));
    need(cuCtxSetCurrent(context));
    need(cuMemAlloc(&there, BYTES));
    need(cuMemAllocHost(&from, BYTES));
    need(cuMemAllocHost(&to, BYTES));
    memset(from, 7, BYTES);
    need(cuMemcpyHtoDAsync(there, from, BYTES, NULL));
    need(cuMemcpyDtoHAsync(to, there, BYTES, NULL));
    need(cuCtxSynchronize());
    if (memcmp(from, to, BYTES) != 0) {
        exit(2);
    }
    return nothing;
}

int main(void)
{
    pthread_t thread;

    need(cuInit(0));
    if (pthread_create(&thread, NULL, use, NULL) != 0) {
        return 3;
    }
    use(NULL);
    pthread_join(thread, NULL);
    return 0;
}
