/* SPDX-License-Identifier: MIT */
/*
 * Several threads at once, and threads with little stack.
 *
 * Tests: guest/libcuda/state/object.c, guest/libcuda/model/stream.c, guest/libcuda/wire/call.c
 */
#include "tests/cuda/check.h"

#include <pthread.h>
#include <string.h>

#define THREADS 8
#define ROUNDS 50
#define COUNT 5000
#define LITTLE_STACK ((size_t)48 << 10) /* bytes; what pools of threads leave of their 64 KiB */

static pthread_t threads[THREADS];

static void in_threads(void *(*work)(void *))
{
    for (uintptr_t i = 0; i < THREADS; i++) {
        EXPECT(pthread_create(&threads[i], NULL, work, (void *)i) == 0, "no thread");
    }
    for (int i = 0; i < THREADS; i++) {
        pthread_join(threads[i], NULL);
    }
}

/* Bytes there and back, and a sum, all in a stream and memory of this thread's own. */
static void *copies_and_kernels(void *number)
{
    const uint32_t seed = (uint32_t)(uintptr_t)number;
    uint8_t from[4 * COUNT], to[4 * COUNT];
    CUdeviceptr one, other, sum;
    CUstream stream;

    GOOD(cuCtxSetCurrent(context));
    stream = stream_create(seed % 2 ? CU_STREAM_NON_BLOCKING : CU_STREAM_DEFAULT);
    for (uint32_t i = 0; i < ROUNDS; i++) {
        one = device_alloc(sizeof(from));
        other = device_alloc(sizeof(from));
        sum = device_alloc(8);
        pattern(from, sizeof(from), seed * 1000 + i);
        GOOD(cuMemcpyHtoDAsync(one, from, sizeof(from), stream));
        GOOD(cuMemcpyDtoDAsync(other, one, sizeof(from), stream));
        GOOD(cuMemcpyDtoHAsync(to, other, sizeof(to), stream));
        fill(one, COUNT, seed, stream);
        GOOD(cuMemsetD32Async(sum, 0, 2, stream));
        reduce(one, COUNT, sum, stream);
        GOOD(cuStreamSynchronize(stream));
        EXPECT(memcmp(from, to, sizeof(from)) == 0, "other bytes in round %u", i);
        expect_words(sum, 1, COUNT * seed);
        GOOD(cuMemFree(one));
        GOOD(cuMemFree(other));
        GOOD(cuMemFree(sum));
    }
    GOOD(cuStreamDestroy(stream));
    return NULL;
}

static void test_threads_with_streams_of_their_own(void)
{
    warm_up();
    in_threads(copies_and_kernels);
}

static CUstream shared_stream;
static CUdeviceptr shared_words, shared_sum;

static void *add_in_shared_stream(void *nothing)
{
    GOOD(cuCtxSetCurrent(context));
    for (int i = 0; i < 500; i++) {
        reduce(shared_words, 10, shared_sum, shared_stream);
    }
    return nothing;
}

static void test_threads_sharing_a_stream(void)
{
    warm_up();
    shared_stream = stream_create(0);
    shared_words = device_alloc(40);
    shared_sum = device_alloc(8);
    GOOD(cuMemsetD32(shared_words, 1, 10));
    GOOD(cuMemsetD32(shared_sum, 0, 2));
    in_threads(add_in_shared_stream);
    GOOD(cuStreamSynchronize(shared_stream));
    expect_words(shared_sum, 1, THREADS * 500 * 10);
}

static void *use_per_thread_stream(void *number)
{
    const uint32_t value = (uint32_t)(uintptr_t)number;

    GOOD(cuCtxSetCurrent(context));
    for (int i = 0; i < ROUNDS; i++) {
        const CUdeviceptr words = shared_words + WORD * COUNT * value;

        fill(words, COUNT, value + 1, CU_STREAM_PER_THREAD);
        GOOD(cuStreamSynchronize(CU_STREAM_PER_THREAD));
        expect_words(words, COUNT, value + 1);
    }
    return NULL;
}

static void test_threads_with_default_streams(void)
{
    warm_up();
    shared_words = device_alloc(WORD * COUNT * THREADS);
    in_threads(use_per_thread_stream);
}

/* What one thread made, another uses and gives back. */
static void *use_and_free(void *nothing)
{
    GOOD(cuCtxSetCurrent(context));
    GOOD(cuStreamSynchronize(shared_stream));
    expect_words(shared_words, 10, 3);
    GOOD(cuStreamDestroy(shared_stream));
    GOOD(cuMemFree(shared_words));
    return nothing;
}

static void test_handing_over_to_a_thread(void)
{
    shared_stream = stream_create(0);
    shared_words = device_alloc(40);
    fill(shared_words, 10, 3, shared_stream);
    pthread_create(&threads[0], NULL, use_and_free, NULL);
    pthread_join(threads[0], NULL);
}

static void *spin_in_own_stream(void *nothing)
{
    CUstream stream;

    GOOD(cuCtxSetCurrent(context));
    stream = stream_create(CU_STREAM_NON_BLOCKING);
    spin(1500, stream);
    GOOD(cuStreamSynchronize(stream));
    return nothing;
}

static void test_waiting_thread_holds_up_no_other(void)
{
    const CUstream stream = stream_create(CU_STREAM_NON_BLOCKING);
    const CUdeviceptr word = device_alloc(4);
    double begun;

    needs_gpu("the CPU does one stream's work at a time");
    warm_up();
    begun = now_ms();
    pthread_create(&threads[0], NULL, spin_in_own_stream, NULL);
    for (uint32_t i = 0; i < 100; i++) {
        fill(word, 1, i, stream);
        GOOD(cuStreamSynchronize(stream));
    }
    EXPECT(now_ms() - begun < 1400, "%g ms", now_ms() - begun);
    pthread_join(threads[0], NULL);
}

/* A launch with an attribute: attributes and parameters are on the stack at once. */
static void fill_first(CUdeviceptr words, uint32_t value, CUstream stream)
{
    uint64_t count = COUNT;
    void *arguments[] = {&words, &count, &value};
    CUlaunchAttribute priority = {.id = CU_LAUNCH_ATTRIBUTE_PRIORITY};
    const CUlaunchConfig config = {.gridDimX = 1,
                                   .gridDimY = 1,
                                   .gridDimZ = 1,
                                   .blockDimX = 64,
                                   .blockDimY = 1,
                                   .blockDimZ = 1,
                                   .hStream = stream,
                                   .attrs = &priority,
                                   .numAttrs = 1};

    GOOD(cuLaunchKernelEx(&config, kernel("fill"), arguments, NULL));
}

static void *work_with_little_stack(void *nothing)
{
    CUdeviceptr words;
    CUstream stream;
    CUgraph graph;
    CUgraphExec exec;

    GOOD(cuCtxSetCurrent(context));
    stream = stream_create(CU_STREAM_NON_BLOCKING);
    words = device_alloc(WORD * COUNT);
    fill_first(words, 1, stream);
    GOOD(cuStreamSynchronize(stream));
    expect_words(words, COUNT, 1);
    GOOD(cuStreamBeginCapture(stream, CU_STREAM_CAPTURE_MODE_THREAD_LOCAL));
    fill(words, COUNT, 2, stream);
    GOOD(cuStreamEndCapture(stream, &graph));
    GOOD(cuGraphInstantiate(&exec, graph, 0));
    GOOD(cuGraphLaunch(exec, stream));
    GOOD(cuStreamSynchronize(stream));
    expect_words(words, COUNT, 2);
    GOOD(cuGraphExecDestroy(exec));
    GOOD(cuGraphDestroy(graph));
    return nothing;
}

static void test_threads_with_little_stack(void)
{
    pthread_attr_t attributes;

    warm_up();
    EXPECT(pthread_attr_init(&attributes) == 0, "no attributes");
    EXPECT(pthread_attr_setstacksize(&attributes, LITTLE_STACK) == 0, "no such stack");
    EXPECT(pthread_create(&threads[0], &attributes, work_with_little_stack, NULL) == 0,
           "no thread");
    pthread_join(threads[0], NULL);
}

const struct test thread_tests[] = {
    {"threads_with_streams_of_their_own", test_threads_with_streams_of_their_own, false},
    {"threads_sharing_a_stream", test_threads_sharing_a_stream, false},
    {"threads_with_default_streams", test_threads_with_default_streams, false},
    {"handing_over_to_a_thread", test_handing_over_to_a_thread, false},
    {"waiting_thread_holds_up_no_other", test_waiting_thread_holds_up_no_other, false},
    {"threads_with_little_stack", test_threads_with_little_stack, false},
    {0},
};
