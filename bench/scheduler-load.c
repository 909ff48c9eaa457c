/* SPDX-License-Identifier: MIT */
/*
 * The processes that bench/scheduler measures: each loads a GPU, by a session of a VM of its own
 * or, without --socket, by CUDA itself.
 *
 *   scheduler-load [OPTION VALUE...] hog | graphs | copies
 *   scheduler-load [OPTION VALUE...] jobs COUNT
 *   scheduler-load [OPTION VALUE...] idle
 *   scheduler-load calibrate US...
 *
 * --socket PATH, --vm N, --priority low|medium|high: how the VM presents itself. --us and --amount:
 * how long a kernel takes, and how that is told to it: the rounds of load.cu's kernel, or the
 * nanoseconds of the built-in one where there is no GPU.
 *
 * A load prints "ready" when it has warmed up, and waits for a line with two times of the monotonic
 * clock in nanoseconds: it counts from the first to the second, or to SIGTERM where that is 0.
 *
 *   hog        launches for ever, some 64 kernels ahead, or 4 of long ones; prints "done KERNELS
 *              NANOSECONDS", where there is a GPU with the part of a kernel that is done
 *   graphs     a hog whose pieces are graphs of 1,000 kernels in a row, which take --us together
 *   copies     a hog whose pieces are copies of 4 GiB, to the device and there. Both are by CUDA
 *              alone, without --socket: by whichever library of that name is found
 *   jobs       a job is 50 launches and one synchronise; after it a pause of 0 to 10 ms at random,
 *              or as --pause says. Prints "jobs US:FIRST...", what each took, and its first kernel
 *   idle       has a session and does nothing
 *   calibrate  prints "US AMOUNT MEASURED" for each time, by CUDA itself
 */
#include <dlfcn.h>
#include <inttypes.h>
#include <pthread.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <unistd.h>

#include "common/clock.h"
#include "guest/libvgpu/vgpu.h"
#include "worker/backend-cuda/cuda-driver.h"

#define JOB_KERNELS 50u
#define PAUSE_MAX_US 10000u
#define AHEAD 64u      /* kernels that a hog is ahead, at least */
#define GROUP_US 2000u /* of kernels between two events of a hog, at most */
#define GROUP_MAX 32u  /* kernels */
#define GROUPS_MIN 4u  /* that a hog is ahead */
#define LONG_US 20000u /* kernels of which a hog is no more ahead */
#define LONG_ROUNDS                                                                                \
    65536u           /* of a kernel whose warps each say how far they are; as load.cu has it */
#define THREADS 256u /* of a block */
#define BLOCKS_PER_PROCESSOR 8u
#define WARM_UP_KERNELS 10u
#define WARM_UP_NS (NS_PER_MS * 500) /* before a calibration */
#define ATTEMPTS 6u                  /* of a calibration to come nearer */
#define NODES 1000u                  /* of a graph */
#define COPY_BYTES (UINT64_C(4) << 30)

extern const char load_ptx[];

/* What the kernel takes. */
struct params {
    uint64_t out, rounds, progress, base;
};

/*
 * Rounds that kernels have done so far; the GPU stores it, for each warp or in the first word alone
 * (load.cu). NULL where the CPU computes.
 */
static uint64_t *progress;
static unsigned warps;
static uint64_t launched; /* rounds */

static struct options {
    struct vgpu_host_options host;
    uint64_t us, amount, pause_us;
} options = {
    .host = {.pool = 'A', .priority = VGPU_PRIORITY_MEDIUM, .shm_size = UINT64_C(16) << 20},
    .us = 100,
    .amount = 100000};

static volatile sig_atomic_t stopped;
static char name[64]; /* in messages */

static void on_signal(int number)
{
    (void)number;
    stopped = 1;
}

static void die(const char *what, const char *why)
{
    fprintf(stderr, "%s: %s: %s\n", name, what, why);
    exit(1);
}

/* Two ways to the GPU -------------------------------------------------------------------- */

struct way {
    void (*open)(void);
    void (*launch)(uint64_t amount);
    void (*record)(unsigned event);
    void (*wait)(unsigned event);
    void (*sync)(void);
    void (*close)(void);
};

static struct {
    struct vgpu_session *session;
    struct vgpu_launch launch;
    uint64_t out, events[AHEAD];
    bool gpu; /* computes, not the CPU */
} ours;

#define GOOD(call)                                                                                 \
    do {                                                                                           \
        if ((call) != VGPU_OK) {                                                                   \
            die(#call, vgpu_last_message());                                                       \
        }                                                                                          \
    } while (0)

static void our_open(void)
{
    const struct vgpu_session_options session = {.host = &options.host};
    struct vgpu_device_info info;
    uint64_t module;

    GOOD(vgpu_session_open(&session, &ours.session));
    GOOD(vgpu_session_info(ours.session, &info));
    ours.gpu = info.backend == VGPU_FEATURE_BACKEND_GPU;
    GOOD(vgpu_mem_alloc(ours.session, 4, &ours.out));
    if (ours.gpu) {
        void *memory;

        warps = info.processors * BLOCKS_PER_PROCESSOR * THREADS / 32;
        GOOD(vgpu_pinned_alloc(ours.session, warps * sizeof(*progress), &memory));
        progress = memory;
        GOOD(vgpu_module_load(ours.session, load_ptx, strlen(load_ptx), &module));
        ours.launch.grid[0] = info.processors * BLOCKS_PER_PROCESSOR;
        ours.launch.block[0] = THREADS;
    } else {
        GOOD(vgpu_module_builtin(ours.session, &module));
    }
    GOOD(
        vgpu_function_get(ours.session, module, ours.gpu ? "work" : "spin", &ours.launch.function));
    GOOD(vgpu_stream_create(ours.session, VGPU_STREAM_NON_BLOCKING, &ours.launch.stream));
    for (unsigned i = 0; i < AHEAD; i++) {
        GOOD(vgpu_event_create(ours.session, VGPU_EVENT_NO_TIMING, &ours.events[i]));
    }
}

static void our_launch(uint64_t amount)
{
    const struct params params = {ours.out, amount, (uintptr_t)progress, launched};

    launched += amount;
    if (ours.gpu) {
        GOOD(vgpu_launch(ours.session, &ours.launch, &params, sizeof(params)));
    } else {
        GOOD(vgpu_launch(ours.session, &ours.launch, &amount, sizeof(amount)));
    }
}

static void our_record(unsigned event)
{
    GOOD(vgpu_event_record(ours.session, ours.events[event], ours.launch.stream));
}

static void our_wait(unsigned event)
{
    GOOD(vgpu_event_sync(ours.session, ours.events[event]));
}

static void our_sync(void)
{
    GOOD(vgpu_stream_sync(ours.session, ours.launch.stream));
}

static void our_close(void)
{
    vgpu_session_close(ours.session);
}

static const struct way our_way = {our_open, our_launch, our_record, our_wait, our_sync, our_close};

static struct {
    CUfunction function;
    CUstream stream;
    CUevent events[AHEAD];
    CUdeviceptr out;
    unsigned blocks;
    /* What the worker does in other ways. */
    CUresult (*event_synchronize)(CUevent event);
    CUresult (*stream_synchronize)(CUstream stream);
} theirs;

#define CUDA(call, arguments) CHECK_CUDA(cu.call arguments, "cu" #call)
#define CHECK_CUDA(result, what)                                                                   \
    do {                                                                                           \
        const CUresult result_ = (result);                                                         \
        if (result_ != CUDA_SUCCESS) {                                                             \
            die(what, cuda_error_name(result_));                                                   \
        }                                                                                          \
    } while (0)

static void their_open(void)
{
    struct vgpu_device_info info;
    char why[256];
    void *library;
    CUmodule module;
    int count;

    if (cuda_init(why, sizeof(why), &count) < 0) {
        die("CUDA", why);
    }
    if (cuda_open_device(0, &info) < 0) {
        die("GPU 0", "no context");
    }
    library = dlopen("libcuda.so.1", RTLD_NOW);
    *(void **)&theirs.event_synchronize = dlsym(library, "cuEventSynchronize");
    *(void **)&theirs.stream_synchronize = dlsym(library, "cuStreamSynchronize");
    theirs.blocks = info.processors * BLOCKS_PER_PROCESSOR;
    CUDA(ModuleLoadData, (&module, load_ptx));
    CUDA(ModuleGetFunction, (&theirs.function, module, "work"));
    CUDA(StreamCreate, (&theirs.stream, CU_STREAM_NON_BLOCKING));
    CUDA(MemAlloc, (&theirs.out, 4));
    warps = theirs.blocks * THREADS / 32;
    CUDA(MemHostAlloc, ((void **)&progress, warps * sizeof(*progress), CU_MEMHOSTALLOC_DEVICEMAP));
    for (unsigned i = 0; i < AHEAD; i++) {
        CUDA(EventCreate, (&theirs.events[i], CU_EVENT_DISABLE_TIMING));
    }
}

static void their_launch(uint64_t amount)
{
    struct params params = {theirs.out, amount, (uintptr_t)progress, launched};
    void *args[] = {&params.out, &params.rounds, &params.progress, &params.base};

    launched += amount;
    CUDA(LaunchKernel,
         (theirs.function, theirs.blocks, 1, 1, THREADS, 1, 1, 0, theirs.stream, args, NULL));
}

static void their_record(unsigned event)
{
    CUDA(EventRecord, (theirs.events[event], theirs.stream));
}

static void their_wait(unsigned event)
{
    CHECK_CUDA(theirs.event_synchronize(theirs.events[event]), "cuEventSynchronize");
}

static void their_sync(void)
{
    CHECK_CUDA(theirs.stream_synchronize(theirs.stream), "cuStreamSynchronize");
}

static void their_close(void)
{
}

static const struct way their_way = {their_open, their_launch, their_record,
                                     their_wait, their_sync,   their_close};

/* Pieces that are no single kernels. They tell no progress: what is done is counted. */

static CUgraphExec graph;

static void graphs_open(void)
{
    struct params params = {.rounds = options.amount / NODES};
    CUdeviceptr unread;
    CUgraphNode node = NULL;
    CUgraph made;

    their_open();
    progress = NULL;
    params.out = theirs.out;
    CUDA(MemAlloc, (&unread, warps * sizeof(*progress)));
    params.progress = unread;
    CUDA(GraphCreate, (&made, 0));
    for (unsigned i = 0; i < NODES; i++) {
        void *arguments[] = {&params.out, &params.rounds, &params.progress, &params.base};
        const CUgraphNode before = node;
        const CUDA_KERNEL_NODE_PARAMS_v1 kernel = {
            .func = theirs.function,
            .gridDimX = theirs.blocks,
            .gridDimY = 1,
            .gridDimZ = 1,
            .blockDimX = THREADS,
            .blockDimY = 1,
            .blockDimZ = 1,
            .kernelParams = arguments,
        };

        CUDA(GraphAddKernelNode, (&node, made, &before, before != NULL, &kernel));
    }
    CUDA(GraphInstantiateWithFlags, (&graph, made, 0));
}

static void graphs_launch(uint64_t amount)
{
    (void)amount;
    CUDA(GraphLaunch, (graph, theirs.stream));
}

static struct {
    void *host;
    CUdeviceptr from, to;
} copies;

static void copies_open(void)
{
    their_open();
    progress = NULL;
    CUDA(MemHostAlloc, (&copies.host, COPY_BYTES, 0));
    CUDA(MemAlloc, (&copies.from, COPY_BYTES));
    CUDA(MemAlloc, (&copies.to, COPY_BYTES));
}

static void copies_launch(uint64_t amount)
{
    (void)amount;
    CUDA(MemcpyHtoDAsync, (copies.from, copies.host, COPY_BYTES, theirs.stream));
    CUDA(MemcpyDtoDAsync, (copies.to, copies.from, COPY_BYTES, theirs.stream));
}

static const struct way graphs_way = {graphs_open, graphs_launch, their_record,
                                      their_wait,  their_sync,    their_close};
static const struct way copies_way = {copies_open, copies_launch, their_record,
                                      their_wait,  their_sync,    their_close};
static const struct way *way;

/* Loads ---------------------------------------------------------------------------------- */

/* Time from when on and until when it counts. */
struct span {
    uint64_t start, end;
};

static struct span ready(void)
{
    struct span span;
    char line[128];

    /* Of a millisecond at most: what is loaded and learned is the same. */
    for (unsigned i = 0; i < WARM_UP_KERNELS; i++) {
        way->launch(options.us > 1000 ? options.amount / options.us * 1000 : options.amount);
    }
    way->sync();
    puts("ready");
    fflush(stdout);
    if (!fgets(line, sizeof(line), stdin) ||
        sscanf(line, "%" SCNu64 " %" SCNu64, &span.start, &span.end) != 2) {
        die("standard input", "wants two times in nanoseconds");
    }
    if (span.end == 0) {
        span.end = UINT64_MAX;
    }
    return span;
}

static void sleep_until(uint64_t ns)
{
    const struct timespec time = {.tv_sec = (time_t)(ns / NS_PER_S),
                                  .tv_nsec = (long)(ns % NS_PER_S)};

    clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &time, NULL);
}

static struct span counted; /* the hog's */

static double rounds_done(void)
{
    const unsigned count = options.amount >= LONG_ROUNDS ? warps : 1;
    double sum = 0;

    for (unsigned i = 0; i < count; i++) {
        sum += (double)((const volatile uint64_t *)progress)[i];
    }
    return sum / count;
}

/* What a hog has done in its span, for a GPU: from the rounds at both ends of it. */
static void *measure_progress(void *unused)
{
    uint64_t start;
    double rounds;

    (void)unused;
    sleep_until(counted.start);
    start = clock_ns();
    rounds = rounds_done();
    while (!stopped && clock_ns() < counted.end) {
        const uint64_t left = counted.end - clock_ns();

        sleep_until(clock_ns() + (left < NS_PER_MS ? left : NS_PER_MS));
    }
    rounds = rounds_done() - rounds;
    printf("done %.3f %" PRIu64 "\n", rounds / (double)options.amount, clock_ns() - start);
    fflush(stdout);
    _exit(0);
}

static void hog(void)
{
    const uint64_t most = GROUP_US / options.us < GROUP_MAX ? GROUP_US / options.us : GROUP_MAX;
    const uint64_t group = most > 1 ? most : 1; /* kernels between two events */
    const uint64_t wanted = options.us >= LONG_US ? GROUPS_MIN : AHEAD;
    const unsigned groups = wanted / group > GROUPS_MIN ? (unsigned)(wanted / group)
                                                        : GROUPS_MIN; /* ahead */
    const struct span span = ready();
    uint64_t kernels = 0, first = clock_ns(), last = first;
    pthread_t thread;

    counted = span;
    if (progress && pthread_create(&thread, NULL, measure_progress, NULL) != 0) {
        die("hog", "no thread");
    }
    for (uint64_t i = 0; progress || (!stopped && last < span.end); i++) {
        const unsigned event = (unsigned)(i % groups);

        if (i >= groups) {
            uint64_t now;

            way->wait(event);
            now = clock_ns();
            if (now <= span.start) {
                first = now;
            } else if (now <= span.end) {
                kernels += group;
            }
            last = now;
        }
        for (uint64_t k = 0; k < group; k++) {
            way->launch(options.amount);
        }
        way->record(event);
    }
    first = first > span.start ? first : span.start;
    last = last < span.end ? last : span.end;
    printf("done %" PRIu64 " %" PRIu64 "\n", kernels, last - first);
}

static void jobs(uint64_t count)
{
    double *us = calloc(2 * count, sizeof(us[0]));
    const struct span span = ready();
    uint64_t done = 0;

    if (!us) {
        die("jobs", "out of memory");
    }
    sleep_until(span.start);
    while (done < count && !stopped && clock_ns() < span.end) {
        const uint64_t start = clock_ns();
        uint64_t pause_us = options.pause_us;

        way->launch(options.amount);
        way->record(0);
        for (unsigned i = 1; i < JOB_KERNELS; i++) {
            way->launch(options.amount);
        }
        way->wait(0);
        us[2 * done + 1] = (double)(clock_ns() - start) / 1e3;
        way->sync();
        us[2 * done++] = (double)(clock_ns() - start) / 1e3;
        pause_us = pause_us != 0 ? pause_us : (uint64_t)(random() % (PAUSE_MAX_US + 1));
        sleep_until(clock_ns() + pause_us * NS_PER_US);
    }
    printf("jobs");
    for (uint64_t i = 0; i < done; i++) {
        printf(" %.1f:%.1f", us[2 * i], us[2 * i + 1]);
    }
    printf("\n");
    free(us);
}

static void idle(void)
{
    ready();
    while (!stopped) {
        usleep(10000);
    }
    printf("done 0 0\n");
}

/* Calibration ---------------------------------------------------------------------------- */

/* What a kernel takes in a row of them, in microseconds: the least of some rows. */
static double measure(uint64_t amount, unsigned in_a_row)
{
    double least = 0;

    for (unsigned turn = 0; turn < 3; turn++) {
        const uint64_t start = clock_ns();
        double us;

        for (unsigned i = 0; i < in_a_row; i++) {
            way->launch(amount);
        }
        way->sync();
        us = (double)(clock_ns() - start) / 1e3 / in_a_row;
        if (turn == 0 || us < least) {
            least = us;
        }
    }
    return least;
}

/* Amounts are as good as proportional to time: a few corrections do. */
static void calibrate(uint64_t us)
{
    const unsigned in_a_row = us < 1000 ? 200 : 20;
    double amount = 100.0 * (double)us, measured = 0;

    for (unsigned i = 0; i < ATTEMPTS; i++) {
        measured = measure((uint64_t)amount, in_a_row);
        if (i + 1 < ATTEMPTS) {
            amount *= (double)us / measured;
        }
    }
    printf("%" PRIu64 " %" PRIu64 " %.2f\n", us, (uint64_t)amount, measured);
}

static void calibrate_all(int count, char **times)
{
    const uint64_t start = clock_ns();

    while (clock_ns() - start < WARM_UP_NS) {
        measure(10000, 10);
    }
    for (int i = 0; i < count; i++) {
        const uint64_t us = strtoull(times[i], NULL, 10);

        calibrate(us > 0 ? us : 1);
    }
}

/* ---------------------------------------------------------------------------------------- */

static bool set_option(const char *option, const char *value)
{
    static const char *const priorities[] = {"low", "medium", "high"};

    if (strcmp(option, "--socket") == 0) {
        options.host.socket = value;
    } else if (strcmp(option, "--vm") == 0) {
        options.host.vm_id = (uint32_t)strtoul(value, NULL, 10);
    } else if (strcmp(option, "--us") == 0) {
        options.us = strtoull(value, NULL, 10);
    } else if (strcmp(option, "--amount") == 0) {
        options.amount = strtoull(value, NULL, 10);
    } else if (strcmp(option, "--pause") == 0) {
        options.pause_us = strtoull(value, NULL, 10);
    } else if (strcmp(option, "--priority") == 0) {
        for (unsigned i = 0; i < 3; i++) {
            if (strcmp(value, priorities[i]) == 0) {
                options.host.priority = (enum vgpu_priority)i;
                return true;
            }
        }
        return false;
    } else {
        return false;
    }
    return true;
}

static const struct way *way_of(const char *role)
{
    if (strcmp(role, "graphs") == 0) {
        return &graphs_way;
    }
    if (strcmp(role, "copies") == 0) {
        return &copies_way;
    }
    return options.host.socket ? &our_way : &their_way;
}

int main(int argc, char **argv)
{
    bool known = true;
    int i = 1;

    for (; known && i + 1 < argc && strncmp(argv[i], "--", 2) == 0; i += 2) {
        known = set_option(argv[i], argv[i + 1]);
    }
    if (!known || i >= argc || options.us == 0) {
        fputs("usage: scheduler-load [OPTION VALUE...] hog | graphs | copies | jobs COUNT | idle | "
              "calibrate US...\n",
              stderr);
        return 2;
    }
    snprintf(name, sizeof(name), "scheduler-load (VM %" PRIu32 ")", options.host.vm_id);
    signal(SIGTERM, on_signal);
    /* A hog that nobody ends any more would spoil whatever is measured next. */
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    srandom((unsigned)getpid());
    way = way_of(argv[i]);
    way->open();
    if (strcmp(argv[i], "hog") == 0 || way == &graphs_way || way == &copies_way) {
        hog();
    } else if (strcmp(argv[i], "jobs") == 0 && i + 1 < argc) {
        jobs(strtoull(argv[i + 1], NULL, 10));
    } else if (strcmp(argv[i], "idle") == 0) {
        idle();
    } else if (strcmp(argv[i], "calibrate") == 0) {
        calibrate_all(argc - i - 1, argv + i + 1);
    } else {
        die(argv[i], "no such load, or what it needs is missing");
    }
    fflush(stdout);
    way->close();
    /* What a hog is ahead by need not be done. */
    _exit(0);
}
