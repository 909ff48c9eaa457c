/* SPDX-License-Identifier: MIT */
/*
 * The default streams: the legacy one, which blocking streams wait for, and each thread's own.
 *
 * Tests: guest/libcuda/model/stream.c
 */
#include "tests/cuda/check.h"

#include <pthread.h>

static void test_legacy_stream_waits_for_blocking_streams(void)
{
    const CUstream blocking = stream_create(CU_STREAM_DEFAULT);
    const CUdeviceptr word = device_alloc(4);

    warm_up();
    spin(1000, blocking);
    fill(word, 1, 1, NULL);
    RESULT(cuStreamQuery(NULL), CUDA_ERROR_NOT_READY);
    GOOD(cuStreamSynchronize(NULL));
    GOOD(cuStreamQuery(blocking));
}

static void test_blocking_streams_wait_for_legacy_stream(void)
{
    const CUstream blocking = stream_create(CU_STREAM_DEFAULT);
    const CUdeviceptr word = device_alloc(4);

    warm_up();
    spin(1000, NULL);
    fill(word, 1, 1, blocking);
    RESULT(cuStreamQuery(blocking), CUDA_ERROR_NOT_READY);
    GOOD(cuStreamSynchronize(blocking));
    GOOD(cuStreamQuery(NULL));
}

static void test_legacy_stream_passes_others(void)
{
    const CUstream passed = stream_create(CU_STREAM_NON_BLOCKING);
    const CUdeviceptr word = device_alloc(4);

    needs_gpu("the CPU does one stream's work at a time");
    warm_up();
    spin(2000, passed);
    fill(word, 1, 1, NULL);
    GOOD(cuStreamSynchronize(NULL));
    RESULT(cuStreamQuery(passed), CUDA_ERROR_NOT_READY);
    GOOD(cuStreamSynchronize(passed));
}

static void test_others_pass_legacy_stream(void)
{
    const CUstream other = stream_create(CU_STREAM_NON_BLOCKING);
    const CUdeviceptr word = device_alloc(4);

    needs_gpu("the CPU does one stream's work at a time");
    warm_up();
    spin(2000, NULL);
    fill(word, 1, 1, other);
    GOOD(cuStreamSynchronize(other));
    RESULT(cuStreamQuery(NULL), CUDA_ERROR_NOT_READY);
    GOOD(cuStreamSynchronize(NULL));
}

static void test_legacy_handle(void)
{
    warm_up();
    spin(1000, CU_STREAM_LEGACY);
    RESULT(cuStreamQuery(NULL), CUDA_ERROR_NOT_READY);
    GOOD(cuStreamSynchronize(CU_STREAM_LEGACY));
    GOOD(cuStreamQuery(NULL));
}

static void test_per_thread_handle(void)
{
    const CUdeviceptr words = device_alloc(400);

    fill(words, 100, 6, CU_STREAM_PER_THREAD);
    GOOD(cuStreamSynchronize(CU_STREAM_PER_THREAD));
    expect_words(words, 100, 6);
}

static void test_legacy_stream_waits_for_per_thread_stream(void)
{
    const CUdeviceptr word = device_alloc(4);

    warm_up();
    spin(1000, CU_STREAM_PER_THREAD);
    RESULT(cuStreamQuery(CU_STREAM_PER_THREAD), CUDA_ERROR_NOT_READY);
    fill(word, 1, 1, NULL);
    GOOD(cuStreamSynchronize(NULL));
    GOOD(cuStreamQuery(CU_STREAM_PER_THREAD));
}

static void *in_another_thread(void *nothing)
{
    GOOD(cuCtxSetCurrent(context));
    GOOD(cuStreamQuery(CU_STREAM_PER_THREAD));
    return nothing;
}

static void test_per_thread_stream_is_the_threads_own(void)
{
    pthread_t thread;

    warm_up();
    spin(2000, CU_STREAM_PER_THREAD);
    pthread_create(&thread, NULL, in_another_thread, NULL);
    pthread_join(thread, NULL);
    RESULT(cuStreamQuery(CU_STREAM_PER_THREAD), CUDA_ERROR_NOT_READY);
    GOOD(cuStreamSynchronize(CU_STREAM_PER_THREAD));
}

/* The entry points for programs that are built with a default stream for each thread. */
static void test_per_thread_entry_points(void)
{
    const cuuint64_t per_thread = CU_GET_PROC_ADDRESS_PER_THREAD_DEFAULT_STREAM;
    CUresult (*launch)(CUfunction, unsigned, unsigned, unsigned, unsigned, unsigned, unsigned,
                       unsigned, CUstream, void **, void **) = NULL;
    CUresult (*query)(CUstream) = NULL, (*synchronize)(CUstream) = NULL;
    uint64_t ns = UINT64_C(1000000000);
    void *arguments[] = {&ns};

    warm_up();
    GOOD(cuGetProcAddress("cuLaunchKernel", (void **)&launch, 12000, per_thread, NULL));
    GOOD(cuGetProcAddress("cuStreamQuery", (void **)&query, 12000, per_thread, NULL));
    GOOD(cuGetProcAddress("cuStreamSynchronize", (void **)&synchronize, 12000, per_thread, NULL));
    EXPECT(launch && query && synchronize, "none");
    GOOD(launch(kernel("spin"), 1, 1, 1, 1, 1, 1, 0, NULL, arguments, NULL));
    RESULT(query(NULL), CUDA_ERROR_NOT_READY);
    RESULT(cuStreamQuery(CU_STREAM_PER_THREAD), CUDA_ERROR_NOT_READY);
    GOOD(synchronize(NULL));
    GOOD(cuStreamQuery(CU_STREAM_PER_THREAD));
}

const struct test default_tests[] = {
    {"legacy_stream_waits_for_blocking_streams", test_legacy_stream_waits_for_blocking_streams,
     false},
    {"blocking_streams_wait_for_legacy_stream", test_blocking_streams_wait_for_legacy_stream,
     false},
    {"legacy_stream_passes_others", test_legacy_stream_passes_others, false},
    {"others_pass_legacy_stream", test_others_pass_legacy_stream, false},
    {"legacy_handle", test_legacy_handle, false},
    {"per_thread_handle", test_per_thread_handle, false},
    {"legacy_stream_waits_for_per_thread_stream", test_legacy_stream_waits_for_per_thread_stream,
     false},
    {"per_thread_stream_is_the_threads_own", test_per_thread_stream_is_the_threads_own, false},
    {"per_thread_entry_points", test_per_thread_entry_points, false},
    {0},
};
