/* SPDX-License-Identifier: MIT */
/*
 * Two libraries of one name in a process.
 *
 * The dynamic linker takes a name without a slash for any loaded library that calls itself so.
 * NVIDIA's is therefore loaded first, by name, and ours after it by its path. Neither is visible
 * to the other.
 */
#include <dlfcn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "bench/cuda-bench.h"

#define SIDE(call) side_check(side, "cu" #call, side->cu.call)

extern const char cuda_kernels_ptx[];

void die(const char *what, const char *why)
{
    fprintf(stderr, "cuda-bench: %s: %s\n", what, why);
    exit(1);
}

static void side_die(const struct side *side, const char *what, const char *why)
{
    fprintf(stderr, "cuda-bench: %s: %s: %s\n", side->name, what, why);
    exit(1);
}

const char *side_error(const struct side *side, CUresult error)
{
    const char *name = NULL;

    side->cu.GetErrorName(error, &name);
    return name ? name : "an error without a name";
}

void side_check(const struct side *side, const char *what, CUresult result)
{
    if (result != CUDA_SUCCESS) {
        side_die(side, what, side_error(side, result));
    }
}

/* All entry points, and the file they are in. */
static void *resolve(struct side *side, void *library)
{
    static const struct {
        const char *symbol;
        size_t offset;
    } calls[] = {
#define SIDE_SYMBOL(member, symbol, parameters) {symbol, offsetof(struct side, cu.member)},
        SIDE_CALLS(SIDE_SYMBOL)
#undef SIDE_SYMBOL
    };
    Dl_info file = {0};

    for (size_t i = 0; i < sizeof(calls) / sizeof(calls[0]); i++) {
        void *call = dlsym(library, calls[i].symbol);

        if (!call || dladdr(call, &file) == 0) {
            side_die(side, calls[i].symbol, "is not in the library");
        }
        memcpy((char *)side + calls[i].offset, &call, sizeof(call));
    }
    side->path = file.dli_fname;
    return file.dli_fbase;
}

static void load(struct side *ours, const char *path, struct side *native, const char *name)
{
    void *native_library = dlopen(name, RTLD_NOW | RTLD_LOCAL), *our_library;
    void *native_base = NULL;

    if (native_library) {
        native_base = resolve(native, native_library);
    } else {
        printf("native: none (%s)\n", dlerror());
    }
    our_library = dlopen(path, RTLD_NOW | RTLD_LOCAL);
    if (!our_library) {
        die("ours", dlerror());
    }
    if (our_library == native_library || resolve(ours, our_library) == native_base) {
        die(path, "is what the native library's name stands for, too");
    }
}

/* Streams and events as programs for speed make them, and two events that are done. */
static void make_queues(struct side *side)
{
    for (unsigned i = 0; i < 2; i++) {
        SIDE(StreamCreate(&side->streams[i], CU_STREAM_NON_BLOCKING));
        SIDE(EventCreate(&side->events[i], CU_EVENT_DISABLE_TIMING));
        SIDE(EventCreate(&side->timed[i], CU_EVENT_DEFAULT));
    }
    for (unsigned i = 0; i < 2; i++) {
        SIDE(EventRecord(side->events[i], side->streams[i]));
        SIDE(EventRecord(side->timed[i], side->streams[0]));
    }
    SIDE(CtxSynchronize());
}

static void make_memory(struct side *side)
{
    void *memory;

    SIDE(MemAlloc(&side->memory, DEVICE_BYTES));
    SIDE(MemHostAlloc(&memory, MIB, 0));
    side->pinned = memory;
    side->pageable = malloc(MIB);
    if (!side->pageable) {
        die(side->name, "out of memory");
    }
    memset(side->pinned, 1, MIB);
    memset(side->pageable, 1, MIB);
}

/* After cuInit(). */
static void open_side(struct side *side)
{
    SIDE(DeviceGet(&side->device, 0));
    SIDE(DeviceGetName(side->device_name, sizeof(side->device_name), side->device));
    SIDE(DevicePrimaryCtxRetain(&side->context, side->device));
    SIDE(CtxSetCurrent(side->context));
    SIDE(ModuleLoadData(&side->module, cuda_kernels_ptx));
    SIDE(ModuleGetFunction(&side->empty, side->module, "spin"));
    SIDE(ModuleGetFunction(&side->add, side->module, "vadd"));
    SIDE(LibraryLoadData(&side->library, cuda_kernels_ptx, NULL, NULL, 0, NULL, NULL, 0));
    SIDE(LibraryGetKernel(&side->kernel, side->library, "vadd"));
    make_queues(side);
    make_memory(side);
    printf("%s: %s, by %s\n", side->name, side->device_name, side->path);
}

bool sides_open(struct side *ours, const char *path, struct side *native, const char *name)
{
    CUresult result;

    ours->name = "ours";
    native->name = "native";
    load(ours, path, native, name);
    side_check(ours, "cuInit", ours->cu.Init(0));
    open_side(ours);
    if (!native->path) {
        return false;
    }
    result = native->cu.Init(0);
    if (result != CUDA_SUCCESS) {
        printf("native: none (cuInit of %s: error %d)\n", native->path, (int)result);
        return false;
    }
    open_side(native);
    return true;
}
