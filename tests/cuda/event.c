/* SPDX-License-Identifier: MIT */
/*
 * Events: when they were reached, and the time between two.
 *
 * Tests: guest/libcuda/calls/event.c, guest/libcuda/model/event.c
 */
#include "tests/cuda/check.h"

static void test_time_between_events(void)
{
    const CUstream stream = stream_create(0);
    const CUevent start = event_create(0), end = event_create(0);
    float ms = -1;

    warm_up();
    GOOD(cuEventRecord(start, stream));
    spin(20, stream);
    GOOD(cuEventRecord(end, stream));
    GOOD(cuEventSynchronize(end));
    GOOD(cuEventElapsedTime(&ms, start, end));
    EXPECT(ms >= 15 && ms <= 2000, "%g ms for 20", (double)ms);
}

static void test_event_before_its_record(void)
{
    const CUevent event = event_create(0);

    GOOD(cuEventQuery(event));
    GOOD(cuEventSynchronize(event));
    GOOD(cuEventDestroy(event));
}

static void test_event_behind_a_kernel(void)
{
    const CUstream stream = stream_create(CU_STREAM_NON_BLOCKING);
    const CUevent start = event_create(0), end = event_create(0);
    float ms = -1;

    warm_up();
    GOOD(cuEventRecord(start, stream));
    spin(1000, stream);
    GOOD(cuEventRecord(end, stream));
    RESULT(cuEventQuery(end), CUDA_ERROR_NOT_READY);
    RESULT(cuEventElapsedTime(&ms, start, end), CUDA_ERROR_NOT_READY);
    GOOD(cuEventSynchronize(end));
    GOOD(cuEventQuery(end));
    GOOD(cuEventQuery(start));
}

static void test_no_time_without_record(void)
{
    const CUevent one = event_create(0), other = event_create(0);
    float ms = -1;

    RESULT(cuEventElapsedTime(&ms, one, other), CUDA_ERROR_INVALID_HANDLE);
    GOOD(cuEventRecord(one, NULL));
    GOOD(cuCtxSynchronize());
    RESULT(cuEventElapsedTime(&ms, one, other), CUDA_ERROR_INVALID_HANDLE);
}

static void test_no_time_of_events_without_timing(void)
{
    const CUevent one = event_create(CU_EVENT_DISABLE_TIMING);
    const CUevent other = event_create(CU_EVENT_DISABLE_TIMING);
    float ms = -1;

    GOOD(cuEventRecord(one, NULL));
    GOOD(cuEventRecord(other, NULL));
    GOOD(cuEventSynchronize(other));
    RESULT(cuEventElapsedTime(&ms, one, other), CUDA_ERROR_INVALID_HANDLE);
}

static void test_record_again(void)
{
    const CUstream stream = stream_create(0);
    const CUevent start = event_create(0), end = event_create(0);
    float ms = -1;

    warm_up();
    GOOD(cuEventRecord(start, stream));
    spin(500, stream);
    GOOD(cuEventRecord(start, stream));
    GOOD(cuEventRecord(end, stream));
    GOOD(cuEventSynchronize(end));
    GOOD(cuEventElapsedTime(&ms, start, end));
    EXPECT(ms >= 0 && ms < 400, "%g ms", (double)ms);
}

static void test_event_flags(void)
{
    const CUstream stream = stream_create(0);
    const CUevent blocking = event_create(CU_EVENT_BLOCKING_SYNC);
    CUevent event = NULL;
    double begun;

    warm_up();
    begun = now_ms();
    spin(50, stream);
    GOOD(cuEventRecord(blocking, stream));
    GOOD(cuEventSynchronize(blocking));
    EXPECT(now_ms() - begun >= 48, "%g ms", now_ms() - begun);
    RESULT(cuEventCreate(&event, 0x100), CUDA_ERROR_INVALID_VALUE);
}

static void test_record_with_flags(void)
{
    const CUevent event = event_create(0);
    double begun;

    warm_up();
    begun = now_ms();
    spin(50, NULL);
    GOOD(cuEventRecordWithFlags(event, NULL, CU_EVENT_RECORD_DEFAULT));
    GOOD(cuEventSynchronize(event));
    EXPECT(now_ms() - begun >= 48, "%g ms", now_ms() - begun);
}

static void test_destroy_event_that_is_pending(void)
{
    const CUdeviceptr word = device_alloc(4);
    const CUstream one = stream_create(CU_STREAM_NON_BLOCKING);
    const CUstream other = stream_create(CU_STREAM_NON_BLOCKING);
    const CUevent event = event_create(0);

    warm_up();
    spin(300, one);
    fill(word, 1, 1, one);
    GOOD(cuEventRecord(event, one));
    GOOD(cuStreamWaitEvent(other, event, 0));
    GOOD(cuEventDestroy(event));
    fill(word, 1, 2, other);
    GOOD(cuStreamSynchronize(other));
    expect_words(word, 1, 2);
}

static void test_record_without_event(void)
{
    ONE_OF(cuEventRecord(NULL, NULL), CUDA_ERROR_INVALID_HANDLE, CUDA_ERROR_INVALID_VALUE);
}

static void test_many_events(void)
{
    const CUstream stream = stream_create(0);
    const CUdeviceptr word = device_alloc(4);
    CUevent events[200];

    for (uint32_t i = 0; i < 200; i++) {
        events[i] = event_create(CU_EVENT_DISABLE_TIMING);
        fill(word, 1, i, stream);
        GOOD(cuEventRecord(events[i], stream));
    }
    GOOD(cuEventSynchronize(events[199]));
    for (uint32_t i = 0; i < 200; i++) {
        GOOD(cuEventQuery(events[i]));
        GOOD(cuEventDestroy(events[i]));
    }
}

const struct test event_tests[] = {
    {"time_between_events", test_time_between_events, false},
    {"event_before_its_record", test_event_before_its_record, false},
    {"event_behind_a_kernel", test_event_behind_a_kernel, false},
    {"no_time_without_record", test_no_time_without_record, false},
    {"no_time_of_events_without_timing", test_no_time_of_events_without_timing, false},
    {"record_again", test_record_again, false},
    {"event_flags", test_event_flags, false},
    {"record_with_flags", test_record_with_flags, false},
    {"destroy_event_that_is_pending", test_destroy_event_that_is_pending, false},
    {"record_without_event", test_record_without_event, false},
    {"many_events", test_many_events, false},
    {0},
};
