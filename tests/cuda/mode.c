/* SPDX-License-Identifier: MIT */
/*
 * The modes of captures and of threads, which say who may call what cannot be captured while a
 * stream captures, and the legacy stream meanwhile.
 *
 * Tests: guest/libcuda/calls/capture.c, guest/libcuda/model/capture.c
 */
#include "tests/cuda/graph-check.h"

#include <pthread.h>

#define GLOBAL CU_STREAM_CAPTURE_MODE_GLOBAL
#define THREAD_LOCAL CU_STREAM_CAPTURE_MODE_THREAD_LOCAL
#define RELAXED CU_STREAM_CAPTURE_MODE_RELAXED

static CUstreamCaptureMode exchange(CUstreamCaptureMode mode)
{
    GOOD(cuThreadExchangeStreamCaptureMode(&mode));
    return mode;
}

static CUresult try_alloc(void)
{
    CUdeviceptr address = 0;

    return cuMemAlloc(&address, 4096);
}

/* The capture goes on, and its work runs when it is launched. */
static void expect_alive(CUstream stream)
{
    const CUstreamCaptureMode mode = exchange(RELAXED);
    const CUdeviceptr words = device_alloc(400);
    CUgraph graph;

    exchange(mode);
    fill(words, 100, 4, stream);
    graph = end_capture(stream);
    run_graph(graph, stream);
    expect_words(words, 100, 4);
}

static void *alloc_is_refused(void *nothing)
{
    GOOD(cuCtxSetCurrent(context));
    RESULT(try_alloc(), CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED);
    return nothing;
}

static void *alloc_is_served(void *mode)
{
    const CUstreamCaptureMode wanted = *(const CUstreamCaptureMode *)mode;

    GOOD(cuCtxSetCurrent(context));
    EXPECT(exchange(wanted) == GLOBAL, "another mode in a new thread");
    GOOD(try_alloc());
    return NULL;
}

static void in_another_thread(void *(*work)(void *), CUstreamCaptureMode mode)
{
    pthread_t thread;

    EXPECT(pthread_create(&thread, NULL, work, &mode) == 0, "no thread");
    pthread_join(thread, NULL);
}

static void test_mode_of_thread(void)
{
    EXPECT(exchange(RELAXED) == GLOBAL, "another mode at first");
    EXPECT(exchange(THREAD_LOCAL) == RELAXED, "another mode");
    EXPECT(exchange(GLOBAL) == THREAD_LOCAL, "another mode");
    EXPECT(exchange(GLOBAL) == GLOBAL, "another mode");
}

static void test_alloc_in_global_capture(void)
{
    const CUstream stream = stream_create(CU_STREAM_NON_BLOCKING);

    begin_in_mode(stream, GLOBAL);
    RESULT(try_alloc(), CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED);
    expect_invalidated(stream);
    GOOD(try_alloc());
}

static void test_alloc_in_local_capture(void)
{
    const CUstream stream = stream_create(CU_STREAM_NON_BLOCKING);

    begin_in_mode(stream, THREAD_LOCAL);
    RESULT(try_alloc(), CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED);
    expect_invalidated(stream);
}

static void test_alloc_in_relaxed_capture(void)
{
    const CUstream stream = stream_create(CU_STREAM_NON_BLOCKING);

    begin_in_mode(stream, RELAXED);
    GOOD(try_alloc());
    expect_alive(stream);
}

static void test_alloc_in_relaxed_thread(void)
{
    const CUstream stream = stream_create(CU_STREAM_NON_BLOCKING);

    begin_in_mode(stream, GLOBAL);
    EXPECT(exchange(RELAXED) == GLOBAL, "another mode");
    GOOD(try_alloc());
    EXPECT(exchange(GLOBAL) == RELAXED, "another mode");
    expect_alive(stream);
}

/* The capture of another thread counts only if it is global, and only for a global thread. */
static void test_alloc_beside_a_capture(void)
{
    const CUstream stream = stream_create(CU_STREAM_NON_BLOCKING);

    begin_in_mode(stream, GLOBAL);
    in_another_thread(alloc_is_served, RELAXED);
    in_another_thread(alloc_is_served, THREAD_LOCAL);
    expect_alive(stream);
    begin_in_mode(stream, THREAD_LOCAL);
    in_another_thread(alloc_is_served, GLOBAL);
    expect_alive(stream);
    begin_in_mode(stream, RELAXED);
    in_another_thread(alloc_is_served, GLOBAL);
    expect_alive(stream);
    begin_in_mode(stream, GLOBAL);
    in_another_thread(alloc_is_refused, GLOBAL);
    expect_invalidated(stream);
}

/* Asking an event that has nothing to do with the capture is among what a mode forbids. */
static void test_event_query_beside_a_capture(void)
{
    const CUstream stream = stream_create(CU_STREAM_NON_BLOCKING);
    const CUevent event = event_create(CU_EVENT_DISABLE_TIMING);

    GOOD(cuEventRecord(event, NULL));
    begin_in_mode(stream, RELAXED);
    GOOD(cuEventQuery(event));
    expect_alive(stream);
    begin_in_mode(stream, GLOBAL);
    RESULT(cuEventQuery(event), CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED);
    expect_invalidated(stream);
}

/* It would have to wait for the captured work, which does not run. */
static void test_legacy_stream_beside_a_capture(void)
{
    const CUstream stream = stream_create(CU_STREAM_DEFAULT);
    const CUdeviceptr word = device_alloc(4);

    begin_in_mode(stream, GLOBAL);
    RESULT(cuMemsetD32Async(word, 1, 1, NULL), CUDA_ERROR_STREAM_CAPTURE_IMPLICIT);
    expect_invalidated(stream);
    begin_in_mode(stream, RELAXED);
    RESULT(cuMemsetD32Async(word, 1, 1, CU_STREAM_LEGACY), CUDA_ERROR_STREAM_CAPTURE_IMPLICIT);
    expect_invalidated(stream);
    GOOD(cuMemsetD32Async(word, 1, 1, NULL));
    expect_words(word, 1, 1);
}

static void test_legacy_stream_says_so(void)
{
    const CUstream stream = stream_create(CU_STREAM_DEFAULT);
    CUstreamCaptureStatus status = CU_STREAM_CAPTURE_STATUS_NONE;

    expect_status(NULL, CU_STREAM_CAPTURE_STATUS_NONE);
    begin_in_mode(stream, GLOBAL);
    RESULT(cuStreamIsCapturing(NULL, &status), CUDA_ERROR_STREAM_CAPTURE_IMPLICIT);
    RESULT(cuStreamGetCaptureInfo(NULL, &status, NULL, NULL, NULL, NULL, NULL),
           CUDA_ERROR_STREAM_CAPTURE_IMPLICIT);
    expect_status(stream, CU_STREAM_CAPTURE_STATUS_ACTIVE);
    expect_alive(stream);
    expect_status(NULL, CU_STREAM_CAPTURE_STATUS_NONE);
}

static void test_synchronous_copy_beside_a_capture(void)
{
    const CUstream stream = stream_create(CU_STREAM_DEFAULT);
    const CUdeviceptr word = device_alloc(4);
    const uint32_t value = 8;

    begin_in_mode(stream, GLOBAL);
    ONE_OF(cuMemcpyHtoD(word, &value, 4), CUDA_ERROR_STREAM_CAPTURE_IMPLICIT,
           CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED);
    expect_invalidated(stream);
}

/* A stream that does not block, captured in relaxed mode, holds up no other work. */
static void test_other_work_beside_a_capture(void)
{
    const CUstream stream = stream_create(CU_STREAM_NON_BLOCKING), other = stream_create(0);
    const CUdeviceptr words = device_alloc(1200), sum = zero_sum();
    const uint32_t value = 8;
    CUgraph graph;

    begin_in_mode(stream, RELAXED);
    GOOD(cuMemcpyHtoD(words, &value, 4));
    expect_words(words, 1, 8);
    fill(words + 400, 100, 2, NULL);
    fill(words + 800, 100, 3, other);
    reduce(words + 400, 200, sum, stream);
    GOOD(cuStreamSynchronize(other));
    GOOD(cuStreamSynchronize(NULL));
    expect_words(words + 400, 100, 2);
    expect_words(words + 800, 100, 3);
    expect_words(sum, 1, 0);
    graph = end_capture(stream);
    run_graph(graph, stream);
    expect_words(sum, 1, 500);
}

const struct test mode_tests[] = {
    {"mode_of_thread", test_mode_of_thread, false},
    {"alloc_in_global_capture", test_alloc_in_global_capture, false},
    {"alloc_in_local_capture", test_alloc_in_local_capture, false},
    {"alloc_in_relaxed_capture", test_alloc_in_relaxed_capture, false},
    {"alloc_in_relaxed_thread", test_alloc_in_relaxed_thread, false},
    {"alloc_beside_a_capture", test_alloc_beside_a_capture, false},
    {"event_query_beside_a_capture", test_event_query_beside_a_capture, false},
    {"legacy_stream_beside_a_capture", test_legacy_stream_beside_a_capture, false},
    {"legacy_stream_says_so", test_legacy_stream_says_so, false},
    {"synchronous_copy_beside_a_capture", test_synchronous_copy_beside_a_capture, false},
    {"other_work_beside_a_capture", test_other_work_beside_a_capture, false},
    {0},
};
