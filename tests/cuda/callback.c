/* SPDX-License-Identifier: MIT */
/*
 * Functions of the host as work in a stream. They may call nothing of CUDA.
 *
 * Tests: guest/libcuda/model/callback.c, guest/libcuda/calls/launch.c
 */
#include "tests/cuda/check.h"

#include <pthread.h>
#include <unistd.h>

struct look {
    const uint32_t *words;
    uint32_t seen[2];
};

static void look_at_words(void *argument)
{
    struct look *look = argument;

    look->seen[0] = look->words[0];
    look->seen[1] = look->words[999];
}

static void expect_look(CUstream stream)
{
    uint32_t *words = host_alloc(4000);
    struct look look = {.words = words};
    const CUdeviceptr source = device_alloc(4000);

    spin(100, stream);
    fill(source, 1000, 1, stream);
    GOOD(cuMemcpyDtoHAsync(words, source, 4000, stream));
    GOOD(cuLaunchHostFunc(stream, look_at_words, &look));
    fill((CUdeviceptr)(uintptr_t)words, 1000, 2, stream);
    GOOD(cuStreamSynchronize(stream));
    EXPECT(look.seen[0] == 1 && look.seen[1] == 1, "%u and %u", look.seen[0], look.seen[1]);
    EXPECT(words[0] == 2 && words[999] == 2, "%u and %u", words[0], words[999]);
    GOOD(cuMemFreeHost(words));
}

static void test_host_function_between_kernels(void)
{
    expect_look(stream_create(CU_STREAM_NON_BLOCKING));
}

static void test_host_function_in_default_streams(void)
{
    expect_look(NULL);
    expect_look(CU_STREAM_PER_THREAD);
}

/* What the host writes there, the next kernel reads. */
static void write_words(void *argument)
{
    uint32_t *words = argument;

    usleep(50000);
    for (uint32_t i = 0; i < 1000; i++) {
        words[i] = 3;
    }
}

static void test_kernel_after_host_function(void)
{
    const CUstream stream = stream_create(0);
    const CUdeviceptr sum = device_alloc(8);
    uint32_t *words = host_alloc(4000);

    GOOD(cuMemsetD32Async(sum, 0, 2, stream));
    GOOD(cuLaunchHostFunc(stream, write_words, words));
    reduce((CUdeviceptr)(uintptr_t)words, 1000, sum, stream);
    GOOD(cuStreamSynchronize(stream));
    expect_words(sum, 1, 3000);
    GOOD(cuMemFreeHost(words));
}

static uint32_t order[200], called;

static void note(void *argument)
{
    order[called++] = (uint32_t)(uintptr_t)argument;
}

static void test_host_functions_in_order(void)
{
    const CUstream stream = stream_create(0);
    const CUdeviceptr word = device_alloc(4);

    for (uintptr_t i = 0; i < 200; i++) {
        if (i % 3 == 0) {
            fill(word, 1, 1, stream);
        }
        GOOD(cuLaunchHostFunc(stream, note, (void *)i));
    }
    GOOD(cuStreamSynchronize(stream));
    EXPECT(called == 200, "%u calls", called);
    for (uint32_t i = 0; i < 200; i++) {
        EXPECT(order[i] == i, "number %u at %u", order[i], i);
    }
}

static int may_go;

static void wait_for_go(void *unused)
{
    (void)unused;
    while (!__atomic_load_n(&may_go, __ATOMIC_ACQUIRE)) {
        usleep(1000);
    }
}

/* Many that wait behind one hold up no other call. */
static void test_many_waiting_host_functions(void)
{
    const CUstream stream = stream_create(CU_STREAM_NON_BLOCKING);
    size_t available, total;

    called = 0;
    GOOD(cuLaunchHostFunc(stream, wait_for_go, NULL));
    for (uintptr_t i = 0; i < 200; i++) {
        GOOD(cuLaunchHostFunc(stream, note, (void *)i));
    }
    GOOD(cuMemGetInfo(&available, &total));
    EXPECT(called == 0, "%u calls", called);
    __atomic_store_n(&may_go, 1, __ATOMIC_RELEASE);
    GOOD(cuStreamSynchronize(stream));
    EXPECT(called == 200, "%u calls", called);
}

static void wait_a_second(void *done)
{
    sleep(1);
    *(volatile int *)done = 1;
}

static void test_stream_is_busy_with_host_function(void)
{
    const CUstream stream = stream_create(0), other = stream_create(CU_STREAM_NON_BLOCKING);
    const CUevent event = event_create(CU_EVENT_DISABLE_TIMING);
    volatile int done = 0;

    GOOD(cuLaunchHostFunc(stream, wait_a_second, (void *)&done));
    GOOD(cuEventRecord(event, stream));
    RESULT(cuStreamQuery(stream), CUDA_ERROR_NOT_READY);
    GOOD(cuStreamWaitEvent(other, event, 0));
    GOOD(cuStreamSynchronize(other));
    EXPECT(done == 1, "%d", done);
    GOOD(cuStreamSynchronize(stream));
}

struct call {
    unsigned times;
    CUstream stream;
    CUresult status;
};

static void note_call(CUstream stream, CUresult status, void *argument)
{
    struct call *call = argument;

    call->times++;
    call->stream = stream;
    call->status = status;
}

static void sleep_for_a_while(void *argument)
{
    usleep(1500000);
    *(int *)argument = 1;
}

/* How long a function of the host takes is its own affair. */
static void test_long_host_function(void)
{
    const CUstream stream = stream_create(CU_STREAM_NON_BLOCKING);
    const CUdeviceptr word = device_alloc(4);
    int done = 0;

    fill(word, 1, 1, stream);
    GOOD(cuLaunchHostFunc(stream, sleep_for_a_while, &done));
    fill(word, 1, 2, stream);
    GOOD(cuStreamSynchronize(stream));
    EXPECT(done == 1, "not called");
    expect_words(word, 1, 2);
}

static void test_callback(void)
{
    const CUstream stream = stream_create(CU_STREAM_NON_BLOCKING);
    struct call call = {.status = CUDA_ERROR_UNKNOWN};

    spin(50, stream);
    GOOD(cuStreamAddCallback(stream, note_call, &call, 0));
    GOOD(cuStreamSynchronize(stream));
    EXPECT(call.times == 1, "%u times", call.times);
    EXPECT(call.stream == stream, "another stream");
    RESULT(call.status, CUDA_SUCCESS);
}

static void test_callback_flags(void)
{
    struct call call = {0};

    ONE_OF(cuStreamAddCallback(stream_create(0), note_call, &call, 1), CUDA_ERROR_INVALID_VALUE,
           CUDA_ERROR_NOT_SUPPORTED);
    GOOD(cuCtxSynchronize());
    EXPECT(call.times == 0, "%u times", call.times);
}

static void *load_in_thread(void *argument)
{
    CUmodule module;

    GOOD(cuCtxSetCurrent(context));
    GOOD(cuModuleLoadData(&module, kernels_ptx));
    return argument;
}

static void note_function(void *argument)
{
    *(int *)argument = 1;
}

/*
 * A function is due in one stream, another thread loads a module, and much is submitted to a second
 * stream: none of the three waits for another for ever.
 */
static void test_host_function_beside_a_load(void)
{
    const CUdeviceptr words = device_alloc(4000);
    CUstream first = stream_create(CU_STREAM_NON_BLOCKING), second = stream_create(1);
    int was_called = 0;
    pthread_t thread;

    warm_up();
    spin(300, first);
    GOOD(cuLaunchHostFunc(first, note_function, &was_called));
    EXPECT(pthread_create(&thread, NULL, load_in_thread, NULL) == 0, "no thread");
    for (int i = 0; i < 2000; i++) {
        fill(words, 10, 1, second);
    }
    GOOD(cuStreamSynchronize(second));
    GOOD(cuStreamSynchronize(first));
    EXPECT(was_called == 1, "%d", was_called);
    pthread_join(thread, NULL);
}

const struct test callback_tests[] = {
    {"host_function_beside_a_load", test_host_function_beside_a_load, false},
    {"host_function_between_kernels", test_host_function_between_kernels, false},
    {"host_function_in_default_streams", test_host_function_in_default_streams, false},
    {"kernel_after_host_function", test_kernel_after_host_function, false},
    {"host_functions_in_order", test_host_functions_in_order, false},
    {"many_waiting_host_functions", test_many_waiting_host_functions, false},
    {"stream_is_busy_with_host_function", test_stream_is_busy_with_host_function, false},
    {"long_host_function", test_long_host_function, false},
    {"callback", test_callback, false},
    {"callback_flags", test_callback_flags, false},
    {0},
};
