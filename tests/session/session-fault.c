/* SPDX-License-Identifier: MIT */
/*
 * Provokes one fault in a session, checks what this process sees of it, and that it can open a
 * new session then, which computes what is right. For host processes.
 *
 *   session-fault --host SOCKET [--vm-id N] [--expect NUMBER] FAULT
 *   session-fault --native FAULT    the error that CUDA itself has for it, "native NUMBER"
 *   session-fault --list            the faults, a line each
 *
 * Which error a fault has depends on the GPU; --expect says that it must be this one, else all in
 * the table below will do. "killed" prints "kill" when the session's worker is to be killed.
 *
 * Prints "provoked NS seen NS RESULT" (monotonic clock in nanoseconds; the result's number, or
 * the reason for which the session ended), a line for each thing that is wrong, and "new session
 * after MS ms". Exit codes: 0 all is right, 1 not, 2 wrong usage or no session to begin with, 77
 * this fault cannot be had here.
 *
 * Tests: worker/backend-cpu/, worker/backend-cuda/, worker/ring-worker*.c
 */
#include <dlfcn.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "common/clock.h"
#include "common/shared.h"
#include "guest/libvgpu/session.h"
#include "tests/session/job.h"
#include "worker/backend-cuda/cuda-driver.h"

#define SKIPPED 77
#define PATIENCE_NS (60 * NS_PER_S)
#define PIECES 16u             /* of the GPU's memory, until it is used up */
#define NOWHERE UINT64_C(0x10) /* no device memory */
#define ENDLESS_NS (UINT64_MAX / 2)
#define PIECE_NS (300 * NS_PER_MS) /* of what a session does that will be killed */

/* CUDA's, which protocol/vgpu-queue.h does not name. */
#define HARDWARE_STACK_ERROR 714
#define INVALID_ADDRESS_SPACE 717

extern const char faults_ptx[];
static const char bad_image[] = "this is no module";

struct fault {
    const char *name;
    /* Provokes it; the result that tells. */
    int (*provoke)(const struct fault *fault);
    const char *kernel;      /* of faults.cu, for those that are one */
    unsigned threads;        /* of the kernel's block; 0: one */
    int expected[4];         /* errors of the GPU, one of which it is; 0: no more */
    enum vgpu_queue_end end; /* or why the session ends; NONE: it does not */
    bool harmless;           /* the context is still good then */
    CUresult (*native)(const struct fault *fault);
};

static struct vgpu_session *s;
static bool gpu; /* computes, not the CPU */
static uint64_t provoked, memory;
static unsigned failures;

/* Says what is wrong; the program goes on. */
#define EXPECT(condition, ...)                                                                     \
    do {                                                                                           \
        if (!(condition)) {                                                                        \
            failures++;                                                                            \
            printf("  line %d: %s: ", __LINE__, #condition);                                       \
            printf(__VA_ARGS__);                                                                   \
            printf("\n");                                                                          \
        }                                                                                          \
    } while (0)

static void need(int result, const char *what)
{
    if (result != VGPU_OK) {
        fprintf(stderr, "session-fault: %s: %s\n", what, vgpu_last_message());
        exit(2);
    }
}

static uint64_t builtin(const char *name)
{
    uint64_t module, function = 0;

    need(vgpu_module_builtin(s, &module), "built-in module");
    need(vgpu_function_get(s, module, name, &function), name);
    return function;
}

/* Faults ---------------------------------------------------------------------------------- */

/* A kernel of faults.cu, with memory full of what is no instruction. */
static int provoke_by_kernel(const struct fault *fault)
{
    struct vgpu_launch launch = {.block = {fault->threads}};
    uint64_t module;
    int r;

    if (!gpu) {
        return VGPU_GPU_NOT_SUPPORTED;
    }
    need(vgpu_module_load(s, faults_ptx, strlen(faults_ptx), &module), "faults.ptx");
    need(vgpu_function_get(s, module, fault->kernel, &launch.function), fault->kernel);
    need(vgpu_fill(s, memory, 0xff, 1, 4096, 0), "fill");
    need(vgpu_session_sync(s), "synchronise");
    provoked = clock_ns();
    r = vgpu_launch(s, &launch, &memory, sizeof(memory));
    return r == VGPU_OK ? vgpu_session_sync(s) : r;
}

/* All that the others do but the fault. */
static int provoke_nothing(const struct fault *fault)
{
    provoked = clock_ns();
    return gpu ? provoke_by_kernel(fault) : vgpu_session_sync(s);
}

static int provoke_illegal_address(const struct fault *fault)
{
    const struct vgpu_launch launch = {.function = builtin("fill"), .block = {32}};
    const struct {
        uint64_t to, count;
        uint32_t value, padding;
    } params = {.to = NOWHERE, .count = 100, .value = 1};
    int r;

    (void)fault;
    provoked = clock_ns();
    r = vgpu_launch(s, &launch, &params, 20);
    return r == VGPU_OK ? vgpu_session_sync(s) : r;
}

/* Takes all of the GPU that there is. */
static int provoke_endless(const struct fault *fault)
{
    const struct vgpu_launch launch = {.function = builtin("spin"), .grid = {1024}, .block = {256}};
    const uint64_t ns = ENDLESS_NS;
    int r;

    (void)fault;
    provoked = clock_ns();
    r = vgpu_launch(s, &launch, &ns, sizeof(ns));
    return r == VGPU_OK ? vgpu_session_sync(s) : r;
}

/* Has a kernel on the GPU until somebody kills the worker. */
static int provoke_kill(const struct fault *fault)
{
    const struct vgpu_launch launch = {.function = builtin("spin")};
    const uint64_t ns = PIECE_NS, start = clock_ns();
    int r = VGPU_OK;

    (void)fault;
    for (unsigned i = 0; r == VGPU_OK && clock_ns() - start < PATIENCE_NS; i++) {
        provoked = clock_ns();
        r = vgpu_launch(s, &launch, &ns, sizeof(ns));
        if (i == 0) {
            puts("kill");
            fflush(stdout);
        }
        r = r == VGPU_OK ? vgpu_session_sync(s) : r;
    }
    return r;
}

static int provoke_out_of_memory(const struct fault *fault)
{
    uint64_t unused, total = 0, piece;
    int r = VGPU_OK;

    (void)fault;
    need(vgpu_mem_info(s, &unused, &total), "memory");
    provoked = clock_ns();
    for (unsigned i = 0; r == VGPU_OK && i <= PIECES; i++) {
        r = vgpu_mem_alloc(s, total / PIECES, &piece);
    }
    return r;
}

static int provoke_bad_module(const struct fault *fault)
{
    uint64_t module;

    (void)fault;
    provoked = clock_ns();
    return vgpu_module_load(s, bad_image, sizeof(bad_image), &module);
}

/* Posts what is no command, as libvgpu never would. */
static int provoke_bad_ring(const struct fault *fault)
{
    struct vgpu_queue *queue = s->port->queue;

    (void)fault;
    memset(queue->ring + s->tail % VGPU_RING_SIZE, 0xff, VGPU_COMMAND_ALIGN);
    s->tail += VGPU_COMMAND_ALIGN;
    provoked = clock_ns();
    /* Partner: the load-acquire in the worker's ring_take(). */
    shared_store_release(&queue->tail, s->tail);
    s->port->ops->kick(s->port);
    return vgpu_session_sync(s);
}

/* The same by CUDA itself ----------------------------------------------------------------- */

static CUresult native_kernel(const struct fault *fault)
{
    void *library = dlopen("libcuda.so.1", RTLD_NOW);
    CUresult (*synchronize)(void) = (CUresult(*)(void))dlsym(library, "cuCtxSynchronize");
    CUdeviceptr address;
    CUmodule module;
    CUfunction function;
    void *args[] = {&address};
    CUresult r = cu.ModuleLoadData(&module, faults_ptx);

    r = r ? r : cu.ModuleGetFunction(&function, module, fault->kernel);
    r = r ? r : cu.MemAlloc(&address, 4096);
    r = r ? r : cu.MemsetD8Async(address, 0xff, 4096, NULL);
    r = r ? r : synchronize();
    if (r != CUDA_SUCCESS) {
        fprintf(stderr, "session-fault: CUDA itself: %s\n", cuda_error_name(r));
        exit(2);
    }
    r = cu.LaunchKernel(function, 1, 1, 1, fault->threads > 0 ? fault->threads : 1, 1, 1, 0, NULL,
                        args, NULL);
    return r ? r : synchronize();
}

static CUresult native_bad_module(const struct fault *fault)
{
    CUmodule module;

    (void)fault;
    return cu.ModuleLoadData(&module, bad_image);
}

#define KERNEL(name_, kernel_, ...)                                                                \
    .name = (name_), .provoke = provoke_by_kernel, .native = native_kernel, .kernel = (kernel_),   \
    .expected = {__VA_ARGS__}

static const struct fault faults[] = {
    {.name = "none", .provoke = provoke_nothing, .kernel = "few_threads", .harmless = true},
    {.name = "illegal-address",
     .provoke = provoke_illegal_address,
     .expected = {VGPU_GPU_ILLEGAL_ADDRESS}},
    {KERNEL("misaligned-address", "misaligned", VGPU_GPU_MISALIGNED_ADDRESS)},
    {KERNEL("assert", "failed_assert", VGPU_GPU_ASSERT)},
    {KERNEL("trap", "trap", VGPU_GPU_LAUNCH_FAILED, VGPU_GPU_ILLEGAL_INSTRUCTION,
            VGPU_GPU_INVALID_PC)},
    {KERNEL("jump", "jump", VGPU_GPU_INVALID_PC, VGPU_GPU_ILLEGAL_INSTRUCTION,
            VGPU_GPU_ILLEGAL_ADDRESS, VGPU_GPU_LAUNCH_FAILED)},
    {KERNEL("stack-overflow", "stack_overflow", VGPU_GPU_ILLEGAL_ADDRESS, HARDWARE_STACK_ERROR,
            VGPU_GPU_LAUNCH_FAILED)},
    {KERNEL("shared-range", "shared_range", VGPU_GPU_ILLEGAL_ADDRESS, HARDWARE_STACK_ERROR,
            INVALID_ADDRESS_SPACE, VGPU_GPU_LAUNCH_FAILED)},
    {KERNEL("too-many-threads", "few_threads", VGPU_GPU_LAUNCH_OUT_OF_RESOURCES,
            VGPU_GPU_INVALID_VALUE),
     .threads = 1024, .harmless = true},
    {.name = "endless",
     .provoke = provoke_endless,
     .expected = {VGPU_GPU_LAUNCH_TIMEOUT},
     .end = VGPU_QUEUE_END_TIMEOUT},
    {.name = "killed", .provoke = provoke_kill, .end = VGPU_QUEUE_END_LOST},
    {.name = "out-of-memory",
     .provoke = provoke_out_of_memory,
     .expected = {VGPU_GPU_OUT_OF_MEMORY},
     .harmless = true},
    {.name = "bad-module",
     .provoke = provoke_bad_module,
     .native = native_bad_module,
     .expected = {VGPU_GPU_INVALID_IMAGE, VGPU_GPU_INVALID_PTX},
     .harmless = true},
    {.name = "bad-ring", .provoke = provoke_bad_ring, .end = VGPU_QUEUE_END_BAD_RING},
};

/* What comes of them ---------------------------------------------------------------------- */

static bool computes(void)
{
    static struct job job;
    uint64_t wrong;
    int r = job_prepare(&job, s);

    job_draw(&job, (uint32_t)getpid());
    r = r ? r : job_run(&job);
    if (r != VGPU_OK) {
        printf("  a job fails: %s\n", vgpu_last_message());
        return false;
    }
    wrong = job_wrong(&job);
    if (wrong > 0) {
        printf("  a job has %llu wrong bytes\n", (unsigned long long)wrong);
    }
    return wrong == 0;
}

static bool is_expected(const struct fault *fault, int result, int must)
{
    if (must != 0 || (fault->expected[0] == 0 && fault->end == VGPU_QUEUE_END_NONE)) {
        return result == must;
    }
    if (result == VGPU_ENDED) {
        return fault->end != VGPU_QUEUE_END_NONE && vgpu_session_end(s) == fault->end;
    }
    for (unsigned i = 0; i < 4 && fault->expected[i] != 0; i++) {
        if (result == fault->expected[i]) {
            return true;
        }
    }
    return false;
}

/* Whether a later call has the same error, or the one that follows it. */
static bool stays(const struct fault *fault, int result, int later)
{
    return later == result || (later == VGPU_ENDED && fault->end != VGPU_QUEUE_END_NONE &&
                               vgpu_session_end(s) == fault->end);
}

/* The fault and what this session says of it. Returns false where there is no such fault. */
static bool suffer(const struct fault *fault, int must)
{
    const int result = fault->provoke(fault);
    const uint64_t seen = clock_ns();
    uint64_t address;

    if (result == VGPU_GPU_NOT_SUPPORTED && !gpu) {
        return false;
    }
    printf("provoked %llu seen %llu ", (unsigned long long)provoked, (unsigned long long)seen);
    if (result == VGPU_ENDED) {
        printf("%s\n", vgpu_queue_end_name(vgpu_session_end(s)));
    } else {
        printf("%d\n", result);
    }
    EXPECT(is_expected(fault, result, must), "%s: %s, which is not the error of %s",
           vgpu_result_name(result), result == VGPU_OK ? "no error" : vgpu_last_message(),
           fault->name);
    if (fault->harmless) {
        EXPECT(vgpu_session_sync(s) == VGPU_OK, "%s", vgpu_last_message());
        EXPECT(fault->provoke == provoke_out_of_memory || computes(), "the session is lost");
    } else {
        EXPECT(stays(fault, result, vgpu_session_sync(s)), "the next call does not say so");
        EXPECT(stays(fault, result, vgpu_mem_alloc(s, 4096, &address)),
               "an allocation does not say so");
    }
    return true;
}

static int open_session(const struct vgpu_session_options *options)
{
    struct vgpu_device_info info;
    int r = vgpu_session_open(options, &s);

    if (r == VGPU_OK) {
        r = vgpu_session_info(s, &info);
        gpu = r == VGPU_OK && info.backend == VGPU_FEATURE_BACKEND_GPU;
    }
    return r;
}

/* The mediator may still be busy with the end of the former session. */
static void recover(const struct vgpu_session_options *options)
{
    const uint64_t start = clock_ns();
    int r;

    vgpu_session_close(s);
    s = NULL;
    do {
        r = open_session(options);
    } while (r != VGPU_OK && clock_ns() - start < PATIENCE_NS && usleep(1000) == 0);
    EXPECT(r == VGPU_OK, "no new session: %s", vgpu_last_message());
    if (r == VGPU_OK) {
        EXPECT(computes(), "the new session does not compute");
        printf("new session after %.1f ms\n", (double)(clock_ns() - start) / 1e6);
    }
}

static int run(const struct fault *fault, const struct vgpu_host_options *host, int must)
{
    const struct vgpu_session_options options = {.host = host};

    need(open_session(&options), "no session");
    need(vgpu_mem_alloc(s, 4096, &memory), "memory");
    if (!suffer(fault, must)) {
        printf("no GPU, no such fault\n");
        return SKIPPED;
    }
    recover(&options);
    vgpu_session_close(s);
    return failures > 0;
}

static int run_native(const struct fault *fault)
{
    struct vgpu_device_info info;
    char why[256];
    int count;

    if (!fault->native) {
        printf("no native counterpart\n");
        return SKIPPED;
    }
    if (cuda_init(why, sizeof(why), &count) < 0) {
        printf("%s\n", why);
        return SKIPPED;
    }
    if (cuda_open_device(0, &info) < 0) {
        return 2;
    }
    printf("native %d\n", fault->native(fault));
    fflush(stdout);
    _exit(0);
}

static const struct fault *find_fault(const char *name)
{
    for (size_t i = 0; i < sizeof(faults) / sizeof(faults[0]); i++) {
        if (strcmp(faults[i].name, name) == 0) {
            return &faults[i];
        }
    }
    return NULL;
}

int main(int argc, char **argv)
{
    struct vgpu_host_options host = {.vm_id = 6000000u + (uint32_t)getpid(),
                                     .pool = 'A',
                                     .priority = VGPU_PRIORITY_MEDIUM,
                                     .shm_size = UINT64_C(16) << 20};
    const struct fault *fault = argc > 1 ? find_fault(argv[argc - 1]) : NULL;
    int must = 0, i = 1;

    if (argc == 2 && strcmp(argv[1], "--list") == 0) {
        for (size_t f = 0; f < sizeof(faults) / sizeof(faults[0]); f++) {
            puts(faults[f].name);
        }
        return 0;
    }
    if (argc == 3 && fault && strcmp(argv[1], "--native") == 0) {
        return run_native(fault);
    }
    for (; i + 2 < argc; i += 2) {
        if (strcmp(argv[i], "--host") == 0) {
            host.socket = argv[i + 1];
        } else if (strcmp(argv[i], "--vm-id") == 0) {
            host.vm_id = (uint32_t)strtoul(argv[i + 1], NULL, 10);
        } else if (strcmp(argv[i], "--expect") == 0) {
            must = (int)strtol(argv[i + 1], NULL, 10);
        } else {
            break;
        }
    }
    if (i + 1 != argc || !fault || !host.socket) {
        fputs("usage: session-fault --host SOCKET [--vm-id N] [--expect NUMBER] FAULT\n"
              "       session-fault --native FAULT\n"
              "       session-fault --list\n",
              stderr);
        return 2;
    }
    return run(fault, &host, must);
}
