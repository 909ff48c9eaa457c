/* SPDX-License-Identifier: MIT */
/*
 * A session beside CUDA itself, in one run: the figures of ring mode from a host process.
 *
 *   session-bench SOCKET
 *
 * Each row is measured by turns, both sides in each turn, and shows the medians over the turns.
 * Without a GPU the rows of the session alone are shown.
 */
#include <dlfcn.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "common/clock.h"
#include "guest/libvgpu/vgpu.h"
#include "worker/backend-cuda/cuda-api.h"

#define TURNS 5u
#define CALLS 4000u      /* in a turn */
#define LAUNCHES 100000u /* in a turn */
#define COPIES 8u        /* in a turn */
#define BIG (UINT64_C(256) << 20)

extern const char cuda_kernels_ptx[];

static struct vgpu_session *s;
static struct cuda_api cu;
/* What the worker does in other ways. */
static struct {
    CUresult (*MemcpyHtoD)(CUdeviceptr to, const void *from, size_t bytes);
    CUresult (*MemcpyDtoH)(void *to, CUdeviceptr from, size_t bytes);
    CUresult (*StreamSynchronize)(CUstream stream);
} waiting;
static bool native; /* there is a GPU to compare with */

/* The two sides of every row. */
struct side {
    const char *name;
    uint64_t stream, function, empty;
    uint64_t device;   /* BIG bytes */
    uint8_t *pinned;   /* likewise */
    uint8_t *pageable; /* likewise */
    CUfunction cu_function, cu_empty;
    CUstream cu_stream;
};
static struct side ours, theirs;

static void die(const char *what, const char *why)
{
    fprintf(stderr, "session-bench: %s: %s\n", what, why);
    exit(1);
}

#define GOOD(call)                                                                                 \
    do {                                                                                           \
        if ((call) != VGPU_OK) {                                                                   \
            die(#call, vgpu_last_message());                                                       \
        }                                                                                          \
    } while (0)

#define CUDA(call, arguments) CHECK_CUDA(cu.call arguments, "cu" #call)
#define WAITING(call, arguments) CHECK_CUDA(waiting.call arguments, "cu" #call)
#define CHECK_CUDA(result, what)                                                                   \
    do {                                                                                           \
        if ((result) != CUDA_SUCCESS) {                                                            \
            die(what, "failed");                                                                   \
        }                                                                                          \
    } while (0)

/* Parameters of vadd. */
struct add {
    uint64_t a, b, sum, count;
};

static int compare(const void *a, const void *b)
{
    const double x = *(const double *)a, y = *(const double *)b;

    return x < y ? -1 : x > y;
}

static double median(double *values, size_t count)
{
    qsort(values, count, sizeof(values[0]), compare);
    return values[count / 2];
}

static double us_since(uint64_t start)
{
    return (double)(clock_ns() - start) / 1e3;
}

/* One call of each kind, on either side --------------------------------------------------- */

static void ping(void)
{
    GOOD(vgpu_session_ping(s));
}

static void our_launch(void)
{
    const struct vgpu_launch launch = {.function = ours.empty, .stream = ours.stream};
    const uint64_t none = 0;

    GOOD(vgpu_launch(s, &launch, &none, sizeof(none)));
}

static void their_launch(void)
{
    uint64_t none = 0;
    void *args[] = {&none};

    CUDA(LaunchKernel, (theirs.cu_empty, 1, 1, 1, 1, 1, 1, 0, theirs.cu_stream, args, NULL));
}

static void our_add(void)
{
    const struct add add = {ours.device, ours.device + 4, ours.device + 8, 1};
    const struct vgpu_launch launch = {
        .function = ours.function, .stream = ours.stream, .block = {32}};

    GOOD(vgpu_copy_to_async(s, ours.device, ours.pinned, 8, ours.stream));
    GOOD(vgpu_launch(s, &launch, &add, sizeof(add)));
    GOOD(vgpu_copy_from_async(s, ours.pinned + 8, ours.device + 8, 4, ours.stream));
    GOOD(vgpu_stream_sync(s, ours.stream));
}

static void their_add(void)
{
    struct add add = {theirs.device, theirs.device + 4, theirs.device + 8, 1};
    void *args[] = {&add.a, &add.b, &add.sum, &add.count};

    CUDA(MemcpyHtoDAsync, (theirs.device, theirs.pinned, 8, theirs.cu_stream));
    CUDA(LaunchKernel, (theirs.cu_function, 1, 1, 1, 32, 1, 1, 0, theirs.cu_stream, args, NULL));
    CUDA(MemcpyDtoHAsync, (theirs.pinned + 8, theirs.device + 8, 4, theirs.cu_stream));
    WAITING(StreamSynchronize, (theirs.cu_stream));
}

static void our_sync(void)
{
    GOOD(vgpu_stream_sync(s, ours.stream));
}

static void their_sync(void)
{
    WAITING(StreamSynchronize, (theirs.cu_stream));
}

static void our_copy(bool pinned, bool to_device)
{
    uint8_t *memory = pinned ? ours.pinned : ours.pageable;

    if (to_device) {
        GOOD(vgpu_copy_to(s, ours.device, memory, BIG));
    } else {
        GOOD(vgpu_copy_from(s, memory, ours.device, BIG));
    }
}

static void their_copy(bool pinned, bool to_device)
{
    uint8_t *memory = pinned ? theirs.pinned : theirs.pageable;

    if (to_device) {
        WAITING(MemcpyHtoD, (theirs.device, memory, BIG));
    } else {
        WAITING(MemcpyDtoH, (memory, theirs.device, BIG));
    }
}

/* Rows ------------------------------------------------------------------------------------ */

/* The median time of `call`; every `every` calls `between` is made, untimed. */
static double time_calls(void (*call)(void), void (*between)(void), unsigned every)
{
    static double us[CALLS];

    for (unsigned i = 0; i < CALLS; i++) {
        const uint64_t start = clock_ns();

        call();
        us[i] = us_since(start);
        if (between && i % every == every - 1) {
            between();
        }
    }
    return median(us, CALLS);
}

static double launch_rate(void (*launch)(void), void (*sync)(void))
{
    const uint64_t start = clock_ns();

    for (unsigned i = 0; i < LAUNCHES; i++) {
        launch();
    }
    sync();
    return LAUNCHES / us_since(start) * 1e3;
}

static void row(const char *what, const char *unit, double *our, double *their)
{
    const double x = median(our, TURNS), y = native && their ? median(their, TURNS) : 0;

    printf("%-44s %10.2f", what, x);
    if (y > 0) {
        printf(" %10.2f %s %8.3f\n", y, unit, x / y);
    } else {
        printf(" %10s %s %8s\n", "-", unit, "-");
    }
    fflush(stdout);
}

static void small_calls(void)
{
    double a[TURNS], b[TURNS];

    for (unsigned t = 0; t < TURNS; t++) {
        a[t] = time_calls(ping, NULL, 0);
    }
    row("no-op round trip", "us  ", a, NULL);
    for (unsigned t = 0; t < TURNS; t++) {
        a[t] = time_calls(our_add, NULL, 0);
        b[t] = native ? time_calls(their_add, NULL, 0) : 0;
    }
    row("vector add of 1: H2D + launch + D2H + sync", "us  ", a, b);
    for (unsigned t = 0; t < TURNS; t++) {
        a[t] = time_calls(our_launch, our_sync, 200);
        b[t] = native ? time_calls(their_launch, their_sync, 200) : 0;
    }
    row("a launch as the caller sees it", "us  ", a, b);
    for (unsigned t = 0; t < TURNS; t++) {
        a[t] = launch_rate(our_launch, our_sync);
        b[t] = native ? launch_rate(their_launch, their_sync) : 0;
    }
    row("launches", "k/s ", a, b);
}

/* The median rate of a few copies, one behind the other; the first finds a sleeping worker. */
static double copy_rate(void (*copy)(bool pinned, bool to_device), bool pinned, bool to_device)
{
    double rate[COPIES];

    for (unsigned i = 0; i < COPIES; i++) {
        const uint64_t start = clock_ns();

        copy(pinned, to_device);
        rate[i] = (double)BIG / us_since(start) / 1e3;
    }
    return median(rate, COPIES);
}

static void big_copies(void)
{
    for (int i = 0; i < 4; i++) {
        const bool pinned = i < 2, to_device = i % 2 == 0;
        double a[TURNS], b[TURNS];
        char what[64];

        for (unsigned t = 0; t < TURNS; t++) {
            a[t] = copy_rate(our_copy, pinned, to_device);
            b[t] = native ? copy_rate(their_copy, pinned, to_device) : 0;
        }
        snprintf(what, sizeof(what), "%s, 256 MiB, %s", to_device ? "H2D" : "D2H",
                 pinned ? "pinned" : "pageable");
        row(what, "GB/s", a, b);
    }
}

/* Set-up ---------------------------------------------------------------------------------- */

static void open_ours(const char *socket)
{
    const struct vgpu_host_options host = {.socket = socket,
                                           .vm_id = 3000000u + (uint32_t)getpid(),
                                           .pool = 'A',
                                           .priority = VGPU_PRIORITY_HIGH,
                                           .shm_size = 4 * BIG};
    struct vgpu_device_info info;
    uint64_t module;
    void *memory;

    GOOD(vgpu_session_open(&(struct vgpu_session_options){.host = &host}, &s));
    GOOD(vgpu_session_info(s, &info));
    native = info.backend == VGPU_FEATURE_BACKEND_GPU;
    printf("on %s\n%-44s %10s %10s %4s %8s\n", info.name, "", "session", "CUDA", "", "ratio");
    GOOD(vgpu_stream_create(s, VGPU_STREAM_NON_BLOCKING, &ours.stream));
    GOOD(vgpu_module_builtin(s, &module));
    GOOD(vgpu_function_get(s, module, "vadd", &ours.function));
    GOOD(vgpu_function_get(s, module, "spin", &ours.empty));
    GOOD(vgpu_mem_alloc(s, BIG, &ours.device));
    GOOD(vgpu_pinned_alloc(s, BIG, &memory));
    if (!vgpu_is_pinned(s, memory)) {
        die("vgpu_pinned_alloc", "not in the arena");
    }
    ours.pinned = memory;
    ours.pageable = malloc(BIG);
    memset(ours.pinned, 1, BIG);
    memset(ours.pageable, 1, BIG);
}

static void open_theirs(void)
{
    static const struct {
        const char *symbol;
        size_t offset;
    } calls[] = {
#define CUDA_SYMBOL(member, symbol, parameters) {symbol, offsetof(struct cuda_api, member)},
        CUDA_CALLS(CUDA_SYMBOL)
#undef CUDA_SYMBOL
    };
    void *library = dlopen("libcuda.so.1", RTLD_NOW), *memory;
    CUdevice device;
    CUcontext context;
    CUmodule module;
    CUdeviceptr address;

    for (size_t i = 0; library && i < sizeof(calls) / sizeof(calls[0]); i++) {
        void *call = dlsym(library, calls[i].symbol);

        memcpy((char *)&cu + calls[i].offset, &call, sizeof(call));
    }
    if (!library) {
        die("libcuda.so.1", "cannot be loaded");
    }
    *(void **)&waiting.MemcpyHtoD = dlsym(library, "cuMemcpyHtoD_v2");
    *(void **)&waiting.MemcpyDtoH = dlsym(library, "cuMemcpyDtoH_v2");
    *(void **)&waiting.StreamSynchronize = dlsym(library, "cuStreamSynchronize");
    CUDA(Init, (0));
    CUDA(DeviceGet, (&device, 0));
    CUDA(DevicePrimaryCtxRetain, (&context, device));
    CUDA(CtxSetCurrent, (context));
    CUDA(ModuleLoadData, (&module, cuda_kernels_ptx));
    CUDA(ModuleGetFunction, (&theirs.cu_function, module, "vadd"));
    CUDA(ModuleGetFunction, (&theirs.cu_empty, module, "spin"));
    CUDA(StreamCreate, (&theirs.cu_stream, CU_STREAM_NON_BLOCKING));
    CUDA(MemAlloc, (&address, BIG));
    theirs.device = address;
    CUDA(MemHostAlloc, (&memory, BIG, 0));
    theirs.pinned = memory;
    theirs.pageable = malloc(BIG);
    memset(theirs.pinned, 1, BIG);
    memset(theirs.pageable, 1, BIG);
}

int main(int argc, char **argv)
{
    if (argc != 2) {
        fputs("usage: session-bench SOCKET\n", stderr);
        return 2;
    }
    open_ours(argv[1]);
    if (native) {
        open_theirs();
    }
    small_calls();
    big_copies();
    vgpu_session_close(s);
    return 0;
}
