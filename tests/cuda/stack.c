/* SPDX-License-Identifier: MIT */
/*
 * The stack of current contexts that each thread has, and created contexts on it.
 *
 * Tests: guest/libcuda/calls/context.c, guest/libcuda/model/context.c
 */
#include "tests/cuda/check.h"

#include <pthread.h>

static CUcontext current(void)
{
    CUcontext top = NULL;

    GOOD(cuCtxGetCurrent(&top));
    return top;
}

static void test_push_and_pop(void)
{
    CUcontext popped = NULL;

    GOOD(cuCtxPushCurrent(context));
    EXPECT(current() == context, "another one");
    GOOD(cuCtxPopCurrent(&popped));
    EXPECT(popped == context, "another one");
    EXPECT(current() == context, "another one");
    GOOD(cuCtxPopCurrent(&popped));
    EXPECT(popped == context, "another one");
    EXPECT(current() == NULL, "one left");
}

static void test_pop_from_empty_stack(void)
{
    CUcontext popped = NULL;

    GOOD(cuCtxSetCurrent(NULL));
    RESULT(cuCtxPopCurrent(&popped), CUDA_ERROR_INVALID_CONTEXT);
}

static void test_set_current_replaces_the_top(void)
{
    CUcontext created = NULL, popped = NULL;

    SUPPORTED(create_context(&created, 0));
    EXPECT(current() == created, "another one");
    GOOD(cuCtxSetCurrent(context));
    EXPECT(current() == context, "another one");
    GOOD(cuCtxPopCurrent(&popped));
    EXPECT(current() == context, "another one below");
    GOOD(cuCtxSetCurrent(NULL));
    EXPECT(current() == NULL, "one left");
    GOOD(cuCtxSetCurrent(NULL));
    GOOD(cuCtxDestroy(created));
}

static void test_created_context_is_pushed(void)
{
    CUcontext created = NULL;

    SUPPORTED(create_context(&created, 0));
    EXPECT(created && created != context, "the primary one");
    EXPECT(current() == created, "another one");
    GOOD(cuCtxDestroy(created));
    EXPECT(current() == context, "another one");
}

static void test_created_context_flags(void)
{
    CUcontext created = NULL;
    unsigned flags = 0;

    SUPPORTED(create_context(&created, CU_CTX_SCHED_YIELD));
    GOOD(cuCtxGetFlags(&flags));
    EXPECT((flags & CU_CTX_SCHED_MASK) == CU_CTX_SCHED_YIELD, "%#x", flags);
    GOOD(cuCtxDestroy(created));
    RESULT(create_context(&created, 0x10000), CUDA_ERROR_INVALID_VALUE);
}

static void test_created_context_computes(void)
{
    const uint32_t value = 77;
    uint64_t count = 1000;
    CUcontext created = NULL, owner = NULL;
    CUmodule module = NULL;
    CUfunction function = NULL;
    CUdeviceptr words;
    void *arguments[] = {&words, &count, (void *)&value};

    SUPPORTED(create_context(&created, 0));
    words = device_alloc(4 * count);
    GOOD(cuPointerGetAttribute(&owner, CU_POINTER_ATTRIBUTE_CONTEXT, words));
    EXPECT(owner == created, "another context's");
    GOOD(cuModuleLoadData(&module, kernels_ptx));
    GOOD(cuModuleGetFunction(&function, module, "fill"));
    GOOD(cuLaunchKernel(function, 4, 1, 1, 64, 1, 1, 0, NULL, arguments, NULL));
    expect_words(words, count, value);
    GOOD(cuCtxDestroy(created));
    fill(device_alloc(64), 16, 1, NULL);
    GOOD(cuCtxSynchronize());
}

static void test_created_contexts_have_ids(void)
{
    unsigned long long one = 0, other = 0;
    CUcontext created = NULL;

    SUPPORTED(create_context(&created, 0));
    GOOD(cuCtxGetId(context, &one));
    GOOD(cuCtxGetId(created, &other));
    EXPECT(one != other, "%llu twice", one);
    GOOD(cuCtxDestroy(created));
}

static void *in_another_thread(void *words)
{
    CUdeviceptr address = 0;

    EXPECT(current() == NULL, "the first thread's");
    RESULT(cuMemAlloc(&address, 16), CUDA_ERROR_INVALID_CONTEXT);
    GOOD(cuCtxPushCurrent(context));
    expect_words(*(CUdeviceptr *)words, 16, 5);
    GOOD(cuCtxPopCurrent(NULL));
    EXPECT(current() == NULL, "one left");
    return NULL;
}

static void test_stack_of_another_thread(void)
{
    CUdeviceptr words = device_alloc(64);
    pthread_t thread;

    GOOD(cuMemsetD32(words, 5, 16));
    pthread_create(&thread, NULL, in_another_thread, &words);
    pthread_join(thread, NULL);
    EXPECT(current() == context, "the other thread changed it");
}

const struct test stack_tests[] = {
    {"push_and_pop", test_push_and_pop, false},
    {"pop_from_empty_stack", test_pop_from_empty_stack, false},
    {"set_current_replaces_the_top", test_set_current_replaces_the_top, false},
    {"created_context_is_pushed", test_created_context_is_pushed, false},
    {"created_context_flags", test_created_context_flags, false},
    {"created_context_computes", test_created_context_computes, false},
    {"created_contexts_have_ids", test_created_contexts_have_ids, false},
    {"stack_of_another_thread", test_stack_of_another_thread, false},
    {0},
};
