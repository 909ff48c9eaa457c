/* SPDX-License-Identifier: MIT */
/*
 * The linker: a kernel in one image calls a function in another.
 *
 * Tests: guest/libcuda/model/link.c, guest/libcuda/model/jit-options.c, worker/api-link.c,
 * worker/backend-cuda/link.c, worker/backend-cuda/driver-options.c
 */
#include "tests/cuda/check.h"

#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define HEAD ".version 6.0\n.target sm_50\n.address_size 64\n"

static char caller[] = HEAD ".extern .func (.param .b32 out) twice(.param .b32 in);\n"
                            ".visible .entry doubled(.param .u64 to, .param .u32 value)\n"
                            "{\n"
                            "  .reg .b32 %r<3>; .reg .b64 %rd<3>;\n"
                            "  ld.param.u64 %rd1, [to];\n"
                            "  ld.param.u32 %r1, [value];\n"
                            "  { .param .b32 in; .param .b32 out;\n"
                            "    st.param.b32 [in], %r1;\n"
                            "    call (out), twice, (in);\n"
                            "    ld.param.b32 %r2, [out]; }\n"
                            "  cvta.to.global.u64 %rd2, %rd1;\n"
                            "  st.global.u32 [%rd2], %r2;\n"
                            "  ret;\n"
                            "}\n";
static char callee[] = HEAD ".visible .func (.param .b32 out) twice(.param .b32 in)\n"
                            "{\n"
                            "  .reg .b32 %r<3>;\n"
                            "  ld.param.b32 %r1, [in];\n"
                            "  add.u32 %r2, %r1, %r1;\n"
                            "  st.param.b32 [out], %r2;\n"
                            "  ret;\n"
                            "}\n";

static void check_doubled(const void *cubin)
{
    const CUdeviceptr there = device_alloc(WORD);
    CUmodule module;
    CUfunction function;
    unsigned value = 21, got = 0;
    void *parameters[] = {(void *)(uintptr_t)&there, &value};

    GOOD(cuModuleLoadData(&module, cubin));
    GOOD(cuModuleGetFunction(&function, module, "doubled"));
    GOOD(cuLaunchKernel(function, 1, 1, 1, 1, 1, 1, 0, NULL, parameters, NULL));
    GOOD(cuMemcpyDtoH(&got, there, WORD));
    EXPECT(got == 42, "%u", got);
    GOOD(cuModuleUnload(module));
}

static CUresult add(CUlinkState state, char *text, const char *name)
{
    return cuLinkAddData(state, CU_JIT_INPUT_PTX, text, strlen(text) + 1, name, 0, NULL, NULL);
}

static void test_link_two_images(void)
{
    CUlinkState state;
    void *cubin = NULL;
    size_t bytes = 0;

    needs_gpu("the host's driver links");
    GOOD(cuLinkCreate(0, NULL, NULL, &state));
    GOOD(add(state, caller, "caller"));
    GOOD(add(state, callee, NULL));
    GOOD(cuLinkComplete(state, &cubin, &bytes));
    EXPECT(bytes > 64 && memcmp(cubin, "\177ELF", 4) == 0, "%zu bytes are no cubin", bytes);
    check_doubled(cubin);
    GOOD(cuLinkDestroy(state));
}

/* By a file, and without asking for the length. */
static void test_link_a_file(void)
{
    char path[] = "/tmp/vgpu-link-XXXXXX";
    const int fd = mkstemp(path);
    CUlinkState state;
    void *cubin = NULL;
    size_t bytes = 0;

    needs_gpu("the host's driver links");
    EXPECT(fd >= 0 && write(fd, callee, strlen(callee)) == (ssize_t)strlen(callee), "no %s", path);
    GOOD(cuLinkCreate(0, NULL, NULL, &state));
    GOOD(cuLinkAddFile(state, CU_JIT_INPUT_PTX, path, 0, NULL, NULL));
    RESULT(cuLinkAddFile(state, CU_JIT_INPUT_PTX, "/nowhere", 0, NULL, NULL),
           CUDA_ERROR_FILE_NOT_FOUND);
    unlink(path);
    GOOD(add(state, caller, "caller"));
    GOOD(cuLinkComplete(state, &cubin, &bytes));
    check_doubled(cubin);
    GOOD(cuLinkDestroy(state));
}

/* What is wrong is in the log, where and by which name. */
static void test_link_log(void)
{
    static char log[4096], info[4096];
    CUjit_option options[] = {CU_JIT_ERROR_LOG_BUFFER, CU_JIT_ERROR_LOG_BUFFER_SIZE_BYTES,
                              CU_JIT_INFO_LOG_BUFFER, CU_JIT_INFO_LOG_BUFFER_SIZE_BYTES,
                              CU_JIT_LOG_VERBOSE};
    void *values[] = {log, (void *)sizeof(log), info, (void *)sizeof(info), (void *)1};
    CUlinkState state;
    void *cubin = NULL;
    size_t bytes = 0;

    needs_gpu("the host's driver links");
    GOOD(cuLinkCreate(5, options, values, &state));
    GOOD(add(state, caller, "caller"));
    EXPECT(cuLinkComplete(state, &cubin, &bytes) != CUDA_SUCCESS, "twice() is nowhere");
    EXPECT(strstr(log, "twice"), "the log: %s", log);
    GOOD(cuLinkDestroy(state));
}

static void test_wrong_links(void)
{
    CUlinkState state;
    size_t bytes;

    RESULT(cuLinkCreate(0, NULL, NULL, NULL), CUDA_ERROR_INVALID_VALUE);
    needs_gpu("the host's driver links");
    GOOD(cuLinkCreate(0, NULL, NULL, &state));
    EXPECT(cuLinkAddData(state, CU_JIT_INPUT_PTX, "no PTX", 7, "text", 0, NULL, NULL) !=
               CUDA_SUCCESS,
           "that is no PTX");
    RESULT(cuLinkAddData(state, CU_JIT_INPUT_PTX, NULL, 7, "text", 0, NULL, NULL),
           CUDA_ERROR_INVALID_VALUE);
    RESULT(cuLinkAddData(state, CU_JIT_INPUT_PTX, caller, 0, "text", 0, NULL, NULL),
           CUDA_ERROR_INVALID_VALUE);
    RESULT(cuLinkAddData(state, (CUjitInputType)17, caller, 7, "text", 0, NULL, NULL),
           CUDA_ERROR_INVALID_VALUE);
    RESULT(cuLinkComplete(state, NULL, &bytes), CUDA_ERROR_INVALID_VALUE);
    GOOD(cuLinkDestroy(state));
}

const struct test link_tests[] = {
    {"wrong_links", test_wrong_links, false},
    {"link_two_images", test_link_two_images, false},
    {"link_a_file", test_link_a_file, false},
    {"link_log", test_link_log, false},
    {NULL, NULL, false},
};
