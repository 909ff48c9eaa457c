/* SPDX-License-Identifier: MIT */
/*
 * What may not happen while a stream captures, and what becomes of the capture if it does.
 *
 * Tests: guest/libcuda/calls/capture.c, guest/libcuda/model/capture.c, guest/libcuda/model/branch.c
 */
#include "tests/cuda/graph-check.h"

#include <pthread.h>

/* Whether the driver goes on with it then is left open. */
static void end_any(CUstream stream)
{
    CUgraph graph = NULL;

    ONE_OF(cuStreamEndCapture(stream, &graph), CUDA_SUCCESS, CUDA_ERROR_STREAM_CAPTURE_INVALIDATED);
    expect_status(stream, CU_STREAM_CAPTURE_STATUS_NONE);
}

static void in_another_thread(void *(*work)(void *), void *argument)
{
    pthread_t thread;

    EXPECT(pthread_create(&thread, NULL, work, argument) == 0, "no thread");
    pthread_join(thread, NULL);
}

static void test_end_without_capture(void)
{
    CUgraph graph = NULL;

    RESULT(cuStreamEndCapture(stream_create(0), &graph), CUDA_ERROR_ILLEGAL_STATE);
    EXPECT(graph == NULL, "a graph");
}

static void test_legacy_stream_does_not_capture(void)
{
    const CUstreamCaptureMode mode = CU_STREAM_CAPTURE_MODE_GLOBAL;
    const CUdeviceptr word = device_alloc(4);

    RESULT(cuStreamBeginCapture(NULL, mode), CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED);
    RESULT(cuStreamBeginCapture(CU_STREAM_LEGACY, mode), CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED);
    fill(word, 1, 1, NULL);
    expect_words(word, 1, 1);
}

static void test_capture_in_a_capture(void)
{
    const CUstream stream = stream_create(0);

    begin_capture(stream);
    RESULT(cuStreamBeginCapture(stream, CU_STREAM_CAPTURE_MODE_GLOBAL), CUDA_ERROR_ILLEGAL_STATE);
    end_any(stream);
}

static void test_capture_in_no_mode(void)
{
    const CUstream stream = stream_create(0);

    RESULT(cuStreamBeginCapture(stream, (CUstreamCaptureMode)7), CUDA_ERROR_INVALID_VALUE);
    expect_status(stream, CU_STREAM_CAPTURE_STATUS_NONE);
}

static void test_capture_without_join(void)
{
    const CUstream stream = stream_create(0), other = stream_create(0);
    const CUevent fork = event_create(CU_EVENT_DISABLE_TIMING);
    const CUdeviceptr word = device_alloc(4);

    begin_capture(stream);
    GOOD(cuEventRecord(fork, stream));
    GOOD(cuStreamWaitEvent(other, fork, 0));
    fill(word, 1, 1, other);
    expect_no_graph(stream, CUDA_ERROR_STREAM_CAPTURE_UNJOINED);
    expect_status(other, CU_STREAM_CAPTURE_STATUS_NONE);
    fill(word, 1, 2, other);
    GOOD(cuStreamSynchronize(other));
    expect_words(word, 1, 2);
}

static void test_end_in_a_joined_stream(void)
{
    const CUstream stream = stream_create(0), other = stream_create(0);
    const CUevent event = event_create(CU_EVENT_DISABLE_TIMING);
    CUgraph graph = NULL;

    begin_capture(stream);
    GOOD(cuEventRecord(event, stream));
    GOOD(cuStreamWaitEvent(other, event, 0));
    RESULT(cuStreamEndCapture(other, &graph), CUDA_ERROR_STREAM_CAPTURE_UNMATCHED);
    EXPECT(graph == NULL, "a graph");
    ONE_OF(cuStreamEndCapture(stream, &graph), CUDA_SUCCESS, CUDA_ERROR_STREAM_CAPTURE_INVALIDATED,
           CUDA_ERROR_STREAM_CAPTURE_UNJOINED);
    expect_status(stream, CU_STREAM_CAPTURE_STATUS_NONE);
    expect_status(other, CU_STREAM_CAPTURE_STATUS_NONE);
}

static void *end_of_other_thread(void *stream)
{
    CUgraph graph = NULL;

    GOOD(cuCtxSetCurrent(context));
    RESULT(cuStreamEndCapture(stream, &graph), CUDA_ERROR_STREAM_CAPTURE_WRONG_THREAD);
    EXPECT(graph == NULL, "a graph");
    return NULL;
}

/* It is over all the same. */
static void test_end_in_wrong_thread(void)
{
    const CUstream stream = stream_create(0);
    CUgraph graph;

    begin_capture(stream);
    in_another_thread(end_of_other_thread, stream);
    RESULT(cuStreamEndCapture(stream, &graph), CUDA_ERROR_ILLEGAL_STATE);
    begin_in_mode(stream, CU_STREAM_CAPTURE_MODE_THREAD_LOCAL);
    in_another_thread(end_of_other_thread, stream);
    RESULT(cuStreamEndCapture(stream, &graph), CUDA_ERROR_ILLEGAL_STATE);
}

static void *end_relaxed(void *stream)
{
    GOOD(cuCtxSetCurrent(context));
    end_capture(stream);
    return NULL;
}

static void test_end_of_relaxed_capture_in_any_thread(void)
{
    const CUstream stream = stream_create(0);

    begin_in_mode(stream, CU_STREAM_CAPTURE_MODE_RELAXED);
    in_another_thread(end_relaxed, stream);
    expect_status(stream, CU_STREAM_CAPTURE_STATUS_NONE);
}

static void test_synchronize_in_capture(void)
{
    const CUstream stream = stream_create(0);

    begin_capture(stream);
    RESULT(cuStreamSynchronize(stream), CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED);
    expect_invalidated(stream);
}

static void test_query_in_capture(void)
{
    const CUstream stream = stream_create(CU_STREAM_NON_BLOCKING);

    begin_in_mode(stream, CU_STREAM_CAPTURE_MODE_RELAXED);
    RESULT(cuStreamQuery(stream), CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED);
    expect_invalidated(stream);
}

static void test_context_synchronize_in_capture(void)
{
    const CUstream stream = stream_create(CU_STREAM_NON_BLOCKING);

    begin_capture(stream);
    RESULT(cuCtxSynchronize(), CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED);
    expect_invalidated(stream);
}

static void nothing_of_stream(CUstream stream, CUresult status, void *argument)
{
    (void)stream;
    (void)status;
    (void)argument;
}

static void test_callback_in_capture(void)
{
    const CUstream stream = stream_create(0);

    begin_capture(stream);
    RESULT(cuStreamAddCallback(stream, nothing_of_stream, NULL, 0),
           CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED);
    expect_invalidated(stream);
}

static void test_work_after_invalidation(void)
{
    const CUstream stream = stream_create(0);
    const CUdeviceptr word = device_alloc(4);

    begin_capture(stream);
    RESULT(cuStreamQuery(stream), CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED);
    RESULT(cuMemsetD32Async(word, 1, 1, stream), CUDA_ERROR_STREAM_CAPTURE_INVALIDATED);
    expect_invalidated(stream);
}

static void test_captured_event(void)
{
    const CUstream stream = stream_create(0);
    const CUevent event = event_create(0);

    begin_in_mode(stream, CU_STREAM_CAPTURE_MODE_RELAXED);
    GOOD(cuEventRecord(event, stream));
    RESULT(cuEventQuery(event), CUDA_ERROR_CAPTURED_EVENT);
    end_any(stream);
    begin_in_mode(stream, CU_STREAM_CAPTURE_MODE_RELAXED);
    GOOD(cuEventRecord(event, stream));
    RESULT(cuEventSynchronize(event), CUDA_ERROR_CAPTURED_EVENT);
    end_any(stream);
    GOOD(cuEventRecord(event, stream));
    GOOD(cuEventSynchronize(event));
    GOOD(cuEventQuery(event));
}

static void test_wait_for_event_of_outside(void)
{
    const CUstream stream = stream_create(CU_STREAM_NON_BLOCKING);
    const CUevent event = event_create(CU_EVENT_DISABLE_TIMING);

    GOOD(cuEventRecord(event, stream_create(CU_STREAM_NON_BLOCKING)));
    begin_capture(stream);
    RESULT(cuStreamWaitEvent(stream, event, 0), CUDA_ERROR_STREAM_CAPTURE_ISOLATION);
    expect_invalidated(stream);
}

static void test_captures_do_not_merge(void)
{
    const CUstream one = stream_create(0), other = stream_create(0);
    const CUevent event = event_create(CU_EVENT_DISABLE_TIMING);

    begin_capture(one);
    GOOD(cuStreamBeginCapture(other, CU_STREAM_CAPTURE_MODE_GLOBAL));
    GOOD(cuEventRecord(event, one));
    RESULT(cuStreamWaitEvent(other, event, 0), CUDA_ERROR_STREAM_CAPTURE_MERGE);
    end_any(one);
    end_any(other);
}

static void test_destroy_in_capture(void)
{
    const CUstream stream = stream_create(0);
    CUresult result;

    begin_capture(stream);
    result = cuStreamDestroy(stream);
    ONE_OF(result, CUDA_SUCCESS, CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED);
    if (result == CUDA_SUCCESS) {
        GOOD(cuMemFree(device_alloc(4096)));
        GOOD(cuCtxSynchronize());
    } else {
        end_any(stream);
    }
}

/* A stream that was joined, destroyed before the end as programs do that make one for a while. */
static void test_destroy_a_joined_stream(void)
{
    const CUstream origin = stream_create(CU_STREAM_NON_BLOCKING);
    const CUstream other = stream_create(CU_STREAM_NON_BLOCKING);
    const CUevent event = event_create(CU_EVENT_DISABLE_TIMING);
    const CUdeviceptr words = device_alloc(400);
    CUgraph graph;

    begin_capture(origin);
    fill(words, 100, 1, origin);
    GOOD(cuEventRecord(event, origin));
    GOOD(cuStreamWaitEvent(other, event, 0));
    fill(words, 50, 2, other);
    GOOD(cuEventRecord(event, other));
    GOOD(cuStreamWaitEvent(origin, event, 0));
    GOOD(cuStreamDestroy(other));
    GOOD(cuEventDestroy(event));
    graph = end_capture(origin);
    EXPECT(node_count(graph) == 2, "%zu nodes", node_count(graph));
    run_graph(graph, origin);
    expect_words(words, 50, 2);
    expect_words(words + 50 * WORD, 50, 1);
}

const struct test isolation_tests[] = {
    {"end_without_capture", test_end_without_capture, false},
    {"legacy_stream_does_not_capture", test_legacy_stream_does_not_capture, false},
    {"capture_in_a_capture", test_capture_in_a_capture, false},
    {"capture_in_no_mode", test_capture_in_no_mode, false},
    {"capture_without_join", test_capture_without_join, false},
    {"end_in_a_joined_stream", test_end_in_a_joined_stream, false},
    {"end_in_wrong_thread", test_end_in_wrong_thread, false},
    {"end_of_relaxed_capture_in_any_thread", test_end_of_relaxed_capture_in_any_thread, false},
    {"synchronize_in_capture", test_synchronize_in_capture, false},
    {"query_in_capture", test_query_in_capture, false},
    {"context_synchronize_in_capture", test_context_synchronize_in_capture, false},
    {"callback_in_capture", test_callback_in_capture, false},
    {"work_after_invalidation", test_work_after_invalidation, false},
    {"captured_event", test_captured_event, false},
    {"wait_for_event_of_outside", test_wait_for_event_of_outside, false},
    {"captures_do_not_merge", test_captures_do_not_merge, false},
    {"destroy_in_capture", test_destroy_in_capture, false},
    {"destroy_a_joined_stream", test_destroy_a_joined_stream, false},
    {0},
};
