/* SPDX-License-Identifier: MIT */
/*
 * Processes: forking before and after cuInit, and ending with work pending.
 *
 * Tests: guest/libcuda/calls/library.c
 */
#include "tests/cuda/check.h"

#include <stdlib.h>
#include <sys/wait.h>
#include <unistd.h>

/* Runs `work` in a child process. */
static pid_t fork_for(void (*work)(void))
{
    const pid_t pid = fork();

    EXPECT(pid >= 0, "no process");
    if (pid == 0) {
        alarm(60);
        work();
        _exit(0);
    }
    return pid;
}

static void expect_exit(pid_t pid)
{
    int status = -1;

    EXPECT(waitpid(pid, &status, 0) == pid, "nothing");
    EXPECT(WIFEXITED(status) && WEXITSTATUS(status) == 0, "status %#x", (unsigned)status);
}

static void compute(void)
{
    const CUdeviceptr words = device_alloc(400);

    fill(words, 100, (uint32_t)getpid(), NULL);
    expect_words(words, 100, (uint32_t)getpid());
    GOOD(cuMemFree(words));
}

/* A process that was forked after cuInit has no CUDA, not even by another cuInit. */
static void call_in_vain(void)
{
    CUdeviceptr address = 0;
    int count = 0;

    EXPECT(cuInit(0) != CUDA_SUCCESS, "success");
    RESULT(cuDeviceGetCount(&count), CUDA_ERROR_NOT_INITIALIZED);
    RESULT(cuCtxSetCurrent(context), CUDA_ERROR_NOT_INITIALIZED);
    RESULT(cuMemAlloc(&address, 16), CUDA_ERROR_NOT_INITIALIZED);
}

static void test_fork_after_init(void)
{
    compute();
    expect_exit(fork_for(call_in_vain));
    compute();
}

static void do_nothing(void)
{
}

/* The child's end does nothing to what the parent has. */
static void test_work_pending_across_fork(void)
{
    const CUdeviceptr words = device_alloc(400);
    const CUstream stream = stream_create(0);

    warm_up();
    spin(300, stream);
    fill(words, 100, 19, stream);
    expect_exit(fork_for(do_nothing));
    GOOD(cuStreamSynchronize(stream));
    expect_words(words, 100, 19);
}

static void start_and_compute(void)
{
    start();
    compute();
    exit(0);
}

static void test_fork_before_init(void)
{
    const pid_t pid = fork_for(start_and_compute);

    start();
    for (int i = 0; i < 20; i++) {
        compute();
    }
    expect_exit(pid);
}

static void *const *private_table(const char *id)
{
    const void *table = NULL;

    GOOD(cuGetExportTable(&table, (const CUuuid *)(const void *)id));
    return table;
}

#define RUNTIME_TABLE "\x6b\xd5\xfb\x6c\x5b\xf4\xe7\x4a\x89\x87\xd9\x39\x12\xfd\x9d\xf9"
#define TEST_TABLE "\xd4\x08\x20\x55\xbd\xe6\x70\x4b\x8d\x34\xba\x12\x3c\x66\xe1\xf2"

/* What NVIDIA's runtime library does before cuInit() leaves a child free to use CUDA. */
static void test_fork_before_init_and_after_tables(void)
{
    pid_t pid;

    EXPECT(private_table(RUNTIME_TABLE), "none");
    pid = fork_for(start_and_compute);
    start();
    compute();
    expect_exit(pid);
}

static void test_driver_in_child(void)
{
    uint64_t answer[2];

    ((CUresult(*)(unsigned, uint64_t, uint64_t *))private_table(TEST_TABLE)[1])(13002, 1, answer);
}

/* And whatever a child of a process with CUDA calls there does nothing to its parent. */
static void test_private_tables_in_a_child(void)
{
    compute();
    expect_exit(fork_for(test_driver_in_child));
    compute();
}

static void exit_with_work(void)
{
    start();
    warm_up();
    spin(500, NULL);
    spin(500, stream_create(CU_STREAM_NON_BLOCKING));
    exit(0);
}

static void test_exit_with_work_pending(void)
{
    expect_exit(fork_for(exit_with_work));
}

static void die_with_work(void)
{
    start();
    warm_up();
    spin(500, NULL);
    _exit(0);
}

static void test_sudden_end_with_work_pending(void)
{
    expect_exit(fork_for(die_with_work));
    start();
    compute();
}

const struct test process_tests[] = {
    {"fork_after_init", test_fork_after_init, false},
    {"work_pending_across_fork", test_work_pending_across_fork, false},
    {"fork_before_init", test_fork_before_init, true},
    {"fork_before_init_and_after_tables", test_fork_before_init_and_after_tables, true},
    {"private_tables_in_a_child", test_private_tables_in_a_child, false},
    {"exit_with_work_pending", test_exit_with_work_pending, true},
    {"sudden_end_with_work_pending", test_sudden_end_with_work_pending, true},
    {0},
};
