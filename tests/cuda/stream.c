/* SPDX-License-Identifier: MIT */
/*
 * Streams: making them, asking them, and the order of work in them.
 *
 * Tests: guest/libcuda/calls/stream.c, guest/libcuda/model/stream.c, guest/libcuda/calls/words.c
 */
#include "tests/cuda/check.h"

#include <string.h>

static void test_stream_flags(void)
{
    unsigned flags = 77;
    CUstream stream = NULL;

    GOOD(cuStreamGetFlags(stream_create(CU_STREAM_DEFAULT), &flags));
    EXPECT(flags == CU_STREAM_DEFAULT, "%#x", flags);
    GOOD(cuStreamGetFlags(stream_create(CU_STREAM_NON_BLOCKING), &flags));
    EXPECT(flags == CU_STREAM_NON_BLOCKING, "%#x", flags);
    RESULT(cuStreamCreate(&stream, 0x80), CUDA_ERROR_INVALID_VALUE);
}

static void expect_priority(int asked, int wanted)
{
    CUstream stream = NULL;
    int priority = 77;

    GOOD(cuStreamCreateWithPriority(&stream, CU_STREAM_NON_BLOCKING, asked));
    GOOD(cuStreamGetPriority(stream, &priority));
    EXPECT(priority == wanted, "%d for %d", priority, asked);
    GOOD(cuStreamDestroy(stream));
}

static void test_stream_priorities(void)
{
    int least = 77, greatest = 77;

    GOOD(cuCtxGetStreamPriorityRange(&least, &greatest));
    EXPECT(greatest <= least, "%d to %d", least, greatest);
    expect_priority(least, least);
    expect_priority(greatest, greatest);
    expect_priority(greatest - 100, greatest);
    expect_priority(least + 100, least);
}

static void test_query_while_a_kernel_runs(void)
{
    const CUstream stream = stream_create(CU_STREAM_NON_BLOCKING);

    warm_up();
    GOOD(cuStreamQuery(stream));
    spin(1000, stream);
    RESULT(cuStreamQuery(stream), CUDA_ERROR_NOT_READY);
    GOOD(cuStreamSynchronize(stream));
    GOOD(cuStreamQuery(stream));
}

static void test_stream_synchronize_waits(void)
{
    const CUstream stream = stream_create(0);
    double begun;

    warm_up();
    begun = now_ms();
    spin(100, stream);
    spin(100, stream);
    GOOD(cuStreamSynchronize(stream));
    EXPECT(now_ms() - begun >= 195, "%g ms", now_ms() - begun);
}

/* A stream that was destroyed ends its work first. */
static void test_destroy_with_work_pending(void)
{
    const CUdeviceptr words = device_alloc(400);
    const CUstream stream = stream_create(CU_STREAM_NON_BLOCKING);

    warm_up();
    spin(300, stream);
    fill(words, 100, 8, stream);
    GOOD(cuStreamDestroy(stream));
    GOOD(cuCtxSynchronize());
    expect_words(words, 100, 8);
}

static void test_work_in_order(void)
{
    const CUdeviceptr words = device_alloc(400);
    const CUstream stream = stream_create(0);

    for (uint32_t i = 1; i <= 500; i++) {
        fill(words, 100, i, stream);
    }
    GOOD(cuStreamSynchronize(stream));
    expect_words(words, 100, 500);
}

static void test_stream_waits_for_event(void)
{
    const CUstream one = stream_create(CU_STREAM_NON_BLOCKING);
    const CUstream other = stream_create(CU_STREAM_NON_BLOCKING);
    const CUevent event = event_create(CU_EVENT_DISABLE_TIMING);
    const CUdeviceptr words = device_alloc(400);
    uint32_t *copy = host_alloc(400);

    warm_up();
    spin(300, one);
    fill(words, 100, 13, one);
    GOOD(cuEventRecord(event, one));
    GOOD(cuStreamWaitEvent(other, event, 0));
    GOOD(cuMemcpyDtoHAsync(copy, words, 400, other));
    GOOD(cuStreamSynchronize(other));
    EXPECT(copy[0] == 13 && copy[99] == 13, "%u and %u", copy[0], copy[99]);
    GOOD(cuMemFreeHost(copy));
}

static void test_wait_for_unrecorded_event(void)
{
    const CUstream stream = stream_create(0);

    GOOD(cuStreamWaitEvent(stream, event_create(0), 0));
    GOOD(cuStreamSynchronize(stream));
}

/* The wait is for what was recorded last, before the call. */
static void test_wait_is_for_the_last_record(void)
{
    const CUstream one = stream_create(CU_STREAM_NON_BLOCKING);
    const CUstream other = stream_create(CU_STREAM_NON_BLOCKING);
    const CUevent event = event_create(CU_EVENT_DISABLE_TIMING);

    needs_gpu("the CPU does one stream's work at a time");
    warm_up();
    GOOD(cuEventRecord(event, one));
    GOOD(cuStreamWaitEvent(other, event, 0));
    spin(2000, one);
    GOOD(cuEventRecord(event, one));
    GOOD(cuStreamSynchronize(other));
    RESULT(cuStreamQuery(one), CUDA_ERROR_NOT_READY);
    GOOD(cuStreamSynchronize(one));
}

static void test_context_of_stream(void)
{
    const CUstream streams[] = {stream_create(0), NULL, CU_STREAM_LEGACY, CU_STREAM_PER_THREAD};

    for (size_t i = 0; i < sizeof(streams) / sizeof(streams[0]); i++) {
        CUcontext owner = NULL;

        GOOD(cuStreamGetCtx(streams[i], &owner));
        EXPECT(owner == context, "another one, of stream %zu", i);
    }
}

static void test_stream_ids(void)
{
    const CUstream one = stream_create(0), other = stream_create(0);
    unsigned long long ids[3] = {0};

    GOOD(cuStreamGetId(one, &ids[0]));
    GOOD(cuStreamGetId(one, &ids[1]));
    GOOD(cuStreamGetId(other, &ids[2]));
    EXPECT(ids[0] == ids[1] && ids[0] != ids[2], "%llu %llu %llu", ids[0], ids[1], ids[2]);
}

static void test_many_streams(void)
{
    const CUdeviceptr words = device_alloc(WORD * 100);
    CUstream streams[100];

    for (uint32_t i = 0; i < 100; i++) {
        streams[i] = stream_create(i % 2 ? CU_STREAM_NON_BLOCKING : CU_STREAM_DEFAULT);
        fill(words + WORD * i, 1, i, streams[i]);
    }
    for (uint32_t i = 0; i < 100; i++) {
        GOOD(cuStreamSynchronize(streams[i]));
        expect_words(words + WORD * i, 1, i);
        GOOD(cuStreamDestroy(streams[i]));
    }
}

/* The stream writes, waits for what it has written, and stands still until the program writes. */
static void test_words_in_a_batch(void)
{
    const CUdeviceptr memory = device_alloc(4096);
    uint32_t *word = host_alloc(4096), found[2] = {0};
    CUstreamBatchMemOpParams batch[4] = {{0}};
    CUstream stream = stream_create(CU_STREAM_NON_BLOCKING);

    memset(word, 0, 4096);
    batch[0].operation = CU_STREAM_MEM_OP_WRITE_VALUE_32;
    batch[0].writeValue.address = memory;
    batch[0].writeValue.value = 7;
    batch[1].operation = CU_STREAM_MEM_OP_WAIT_VALUE_32;
    batch[1].waitValue.address = memory;
    batch[1].waitValue.value = 7;
    batch[1].waitValue.flags = CU_STREAM_WAIT_VALUE_EQ;
    batch[2].operation = CU_STREAM_MEM_OP_WAIT_VALUE_32;
    batch[2].waitValue.address = (CUdeviceptr)(uintptr_t)word;
    batch[2].waitValue.value = 3;
    batch[3].operation = CU_STREAM_MEM_OP_WRITE_VALUE_32;
    batch[3].writeValue.address = memory + 4;
    batch[3].writeValue.value = 8;
    RESULT(cuStreamBatchMemOp(stream, 4, batch, 1), CUDA_ERROR_INVALID_VALUE);
    RESULT(cuStreamBatchMemOp(stream, 257, batch, 0), CUDA_ERROR_INVALID_VALUE);
    GOOD(cuStreamBatchMemOp(stream, 4, batch, 0));
    RESULT(cuStreamQuery(stream), CUDA_ERROR_NOT_READY);
    *(volatile uint32_t *)word = 3;
    GOOD(cuStreamSynchronize(stream));
    GOOD(cuMemcpyDtoH(found, memory, sizeof(found)));
    EXPECT(found[0] == 7 && found[1] == 8, "%u, %u", found[0], found[1]);
    GOOD(cuStreamBatchMemOp(stream, 0, NULL, 0));
}

const struct test stream_tests[] = {
    {"words_in_a_batch", test_words_in_a_batch, false},
    {"stream_flags", test_stream_flags, false},
    {"stream_priorities", test_stream_priorities, false},
    {"query_while_a_kernel_runs", test_query_while_a_kernel_runs, false},
    {"stream_synchronize_waits", test_stream_synchronize_waits, false},
    {"destroy_with_work_pending", test_destroy_with_work_pending, false},
    {"work_in_order", test_work_in_order, false},
    {"stream_waits_for_event", test_stream_waits_for_event, false},
    {"wait_for_unrecorded_event", test_wait_for_unrecorded_event, false},
    {"wait_is_for_the_last_record", test_wait_is_for_the_last_record, false},
    {"context_of_stream", test_context_of_stream, false},
    {"stream_ids", test_stream_ids, false},
    {"many_streams", test_many_streams, false},
    {0},
};
