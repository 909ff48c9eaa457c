/* SPDX-License-Identifier: MIT */
/*
 * What kernels print is on the program's standard output when it has synchronised, and what is said
 * of failed assertions on its standard error.
 *
 * Tests: worker/printed.c, worker/backend-cuda/printing.c, guest/libvgpu/printed.c
 */
#include "tests/cuda/check.h"

#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#define HEAD ".version 6.0\n.target sm_50\n.address_size 64\n"
#define LINES 20000u
#define PATIENCE_MS 20000

/*
 * say(count) prints a number in so many lines. then_wait(word) prints and waits for the word to
 * become another than 0.
 */
static const char kernels[] = HEAD
    ".extern .func (.param .b32 r) vprintf(.param .b64 format, .param .b64 values);\n"
    ".global .align 1 .b8 text[9] = {115, 97, 121, 32, 37, 100, 33, 10, 0};\n"
    ".visible .entry say(.param .u32 count)\n"
    "{\n"
    "  .local .align 8 .b8 depot[8];\n"
    "  .reg .b32 %r<5>; .reg .b64 %rd<5>; .reg .pred %p;\n"
    "  ld.param.u32 %r1, [count];\n"
    "  mov.u32 %r2, 0;\n"
    "  mov.u64 %rd1, depot; cvta.local.u64 %rd2, %rd1;\n"
    "  mov.u64 %rd3, text; cvta.global.u64 %rd4, %rd3;\n"
    "again:\n"
    "  st.local.u32 [depot], %r2;\n"
    "  { .param .b64 a; .param .b64 b; .param .b32 c;\n"
    "    st.param.b64 [a], %rd4; st.param.b64 [b], %rd2;\n"
    "    call.uni (c), vprintf, (a, b); ld.param.b32 %r3, [c]; }\n"
    "  add.u32 %r2, %r2, 1;\n"
    "  setp.lt.u32 %p, %r2, %r1;\n"
    "  @%p bra again;\n"
    "  ret;\n"
    "}\n"
    ".visible .entry then_wait(.param .u64 word)\n"
    "{\n"
    "  .local .align 8 .b8 depot[8];\n"
    "  .reg .b32 %r<5>; .reg .b64 %rd<6>; .reg .pred %p;\n"
    "  mov.u64 %rd1, depot; cvta.local.u64 %rd2, %rd1;\n"
    "  mov.u64 %rd3, text; cvta.global.u64 %rd4, %rd3;\n"
    "  mov.u32 %r2, 7;\n"
    "  st.local.u32 [depot], %r2;\n"
    "  { .param .b64 a; .param .b64 b; .param .b32 c;\n"
    "    st.param.b64 [a], %rd4; st.param.b64 [b], %rd2;\n"
    "    call.uni (c), vprintf, (a, b); ld.param.b32 %r3, [c]; }\n"
    "  ld.param.u64 %rd5, [word];\n"
    "again:\n"
    "  ld.volatile.u32 %r1, [%rd5];\n"
    "  setp.eq.u32 %p, %r1, 0;\n"
    "  @%p bra again;\n"
    "  ret;\n"
    "}\n";

static const char asserting[] = HEAD
    ".extern .func __assertfail(.param .b64 m, .param .b64 f, .param .b32 l, .param .b64 n,\n"
    "  .param .b64 s);\n"
    ".global .align 1 .b8 message[6] = {120, 32, 62, 32, 48, 0};\n"
    ".global .align 1 .b8 file[7] = {107, 101, 114, 46, 99, 117, 0};\n"
    ".global .align 1 .b8 name[4] = {98, 97, 100, 0};\n"
    ".visible .entry bad()\n"
    "{\n"
    "  .reg .b64 %rd<4>;\n"
    "  mov.u64 %rd1, message; cvta.global.u64 %rd1, %rd1;\n"
    "  mov.u64 %rd2, file; cvta.global.u64 %rd2, %rd2;\n"
    "  mov.u64 %rd3, name; cvta.global.u64 %rd3, %rd3;\n"
    "  { .param .b64 a; .param .b64 b; .param .b32 c; .param .b64 d; .param .b64 e;\n"
    "    st.param.b64 [a], %rd1; st.param.b64 [b], %rd2; st.param.b32 [c], 31;\n"
    "    st.param.b64 [d], %rd3; st.param.b64 [e], 1;\n"
    "    call.uni __assertfail, (a, b, c, d, e); }\n"
    "  ret;\n"
    "}\n";

/* What stands in the place of a descriptor, and what that was. */
static int memory = -1, before = -1;

static void write_to_memory(int file)
{
    fflush(stdout);
    memory = memfd_create("printed", 0);
    before = dup(file);
    EXPECT(memory >= 0 && before >= 0 && dup2(memory, file) == file, "no file for descriptor %d",
           file);
}

static void write_again_to(int file)
{
    dup2(before, file);
    close(before);
}

static size_t written(void)
{
    return (size_t)lseek(memory, 0, SEEK_CUR);
}

/* Whether all that was written is this; before a message of this test's own could come between. */
static bool is_written(const char *text)
{
    static char got[4096];
    const size_t bytes = written();

    return bytes == strlen(text) && pread(memory, got, sizeof(got), 0) == (ssize_t)bytes &&
           memcmp(got, text, bytes) == 0;
}

static CUfunction function_of(const char *ptx, const char *name)
{
    CUfunction function;

    GOOD(cuModuleGetFunction(&function, load_module(ptx), name));
    return function;
}

static void say(CUfunction function, unsigned lines, CUstream stream)
{
    void *parameters[] = {&lines};

    GOOD(cuLaunchKernel(function, 1, 1, 1, 1, 1, 1, 0, stream, parameters, NULL));
}

enum way { BY_STREAM, BY_CONTEXT, BY_EVENT, BY_COPY, WAYS };

static void synchronise(enum way way, CUstream stream, CUevent event, CUdeviceptr word)
{
    unsigned got;

    switch (way) {
    case BY_STREAM:
        GOOD(cuStreamSynchronize(stream));
        break;
    case BY_CONTEXT:
        GOOD(cuCtxSynchronize());
        break;
    case BY_EVENT:
        GOOD(cuEventRecord(event, stream));
        GOOD(cuEventSynchronize(event));
        break;
    default:
        GOOD(cuMemcpyDtoH(&got, word, WORD));
        break;
    }
}

/* The second time tells of kernels that are known to print, the first of those that are not. */
static void test_print_and_synchronise(void)
{
    static const char *const texts[] = {"say 0!\n", "say 0!\nsay 1!\n"};
    const CUdeviceptr word = device_alloc(WORD);
    const CUstream stream = stream_create(CU_STREAM_DEFAULT);
    const CUevent event = event_create(CU_EVENT_DEFAULT);

    for (int way = 0; way < WAYS; way++) {
        const CUfunction function = function_of(kernels, "say");

        for (unsigned i = 0; i < 2; i++) {
            bool good;

            write_to_memory(STDOUT_FILENO);
            say(function, i + 1, way == BY_COPY ? NULL : stream);
            synchronise((enum way)way, stream, event, word);
            good = is_written(texts[i]);
            write_again_to(STDOUT_FILENO);
            EXPECT(good, "way %d, time %u: %zu bytes", way, i, written());
        }
    }
}

static void test_print_in_a_graph(void)
{
    const CUfunction function = function_of(kernels, "say");
    const CUstream stream = stream_create(CU_STREAM_NON_BLOCKING);
    CUgraph graph;
    CUgraphExec exec;
    bool good;

    GOOD(cuStreamBeginCapture(stream, CU_STREAM_CAPTURE_MODE_GLOBAL));
    say(function, 1, stream);
    say(function, 2, stream);
    GOOD(cuStreamEndCapture(stream, &graph));
    GOOD(cuGraphInstantiateWithFlags(&exec, graph, 0));
    write_to_memory(STDOUT_FILENO);
    GOOD(cuGraphLaunch(exec, stream));
    GOOD(cuStreamSynchronize(stream));
    good = is_written("say 0!\nsay 0!\nsay 1!\n");
    write_again_to(STDOUT_FILENO);
    EXPECT(good, "%zu bytes", written());
}

/* More than goes through at a time; all of it, and in order. */
static void test_print_much(void)
{
    const CUfunction function = function_of(kernels, "say");
    char line[32], *text;
    size_t bytes, at = 0;

    write_to_memory(STDOUT_FILENO);
    say(function, LINES, NULL);
    GOOD(cuCtxSynchronize());
    bytes = written();
    write_again_to(STDOUT_FILENO);
    text = calloc(1, bytes + 1);
    EXPECT(text && pread(memory, text, bytes, 0) == (ssize_t)bytes, "%zu bytes", bytes);
    for (unsigned i = 0; i < LINES; i++) {
        const int length = snprintf(line, sizeof(line), "say %u!\n", i);

        EXPECT(strncmp(text + at, line, (size_t)length) == 0, "line %u of %u", i, LINES);
        at += (size_t)length;
    }
    EXPECT(at == bytes, "%zu bytes behind the last line", bytes - at);
    free(text);
}

static void *wait_for_all(void *argument)
{
    (void)argument;
    return (void *)(uintptr_t)(cuCtxSetCurrent(context) != CUDA_SUCCESS || cuCtxSynchronize());
}

/* A kernel that prints and goes on: who waits for it sees that before it ends. */
static void test_print_meanwhile(void)
{
    const CUfunction function = function_of(kernels, "then_wait");
    volatile unsigned *word = host_alloc(WORD);
    const CUdeviceptr address = (CUdeviceptr)(uintptr_t)word;
    void *parameters[] = {(void *)(uintptr_t)&address}, *result = NULL;
    double start = now_ms();
    pthread_t thread;
    bool good = false;

    *word = 0;
    write_to_memory(STDOUT_FILENO);
    GOOD(cuLaunchKernel(function, 1, 1, 1, 1, 1, 1, 0, NULL, parameters, NULL));
    EXPECT(pthread_create(&thread, NULL, wait_for_all, NULL) == 0, "no thread");
    while (!good && now_ms() - start < PATIENCE_MS) {
        usleep(1000);
        good = is_written("say 7!\n");
    }
    *word = 1;
    pthread_join(thread, &result);
    write_again_to(STDOUT_FILENO);
    EXPECT(good, "nothing before the kernel's end, %zu bytes behind it", written());
    EXPECT(!result, "it was not waited for");
}

static void test_failed_assertion(void)
{
    const CUfunction function = function_of(asserting, "bad");
    static char text[4096];
    CUresult r;

    write_to_memory(STDERR_FILENO);
    GOOD(cuLaunchKernel(function, 1, 1, 1, 2, 1, 1, 0, NULL, NULL, NULL));
    r = cuCtxSynchronize();
    EXPECT(pread(memory, text, sizeof(text) - 1, 0) >= 0, "nothing");
    write_again_to(STDERR_FILENO);
    RESULT(r, CUDA_ERROR_ASSERT);
    EXPECT(
        strstr(text, "ker.cu:31: bad: block: [0,0,0], thread: [1,0,0] Assertion `x > 0` failed."),
        "the text: %s", text);
}

const struct test printf_tests[] = {
    {"print_and_synchronise", test_print_and_synchronise, false},
    {"print_in_a_graph", test_print_in_a_graph, false},
    {"print_much", test_print_much, false},
    {"print_meanwhile", test_print_meanwhile, false},
    {"failed_assertion", test_failed_assertion, false},
    {NULL, NULL, false},
};
