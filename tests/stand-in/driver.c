/* SPDX-License-Identifier: MIT */
/*
 * A stand-in for NVIDIA's driver: a libcuda.so.1 that the worker loads where there is no GPU. It
 * computes nothing. Each function of worker/backend-cuda/cuda-api.h is there and succeeds (rest.c);
 * those that a session begins with give answers that fit together; and what is asked of the
 * private tables is answered so that a program can check whether it came all the way from here:
 *
 *   self-test   the first word is made of the arguments, getpid() and pthread_self(), the second of
 *               the addresses of the two tables and of the function
 *   places      two lists, 0 to 65 and 65 to 0
 *   printing    kernels by the name "print" print a line each, "flood" more than a pipe holds, and
 *               "assert" fails; the driver writes as NVIDIA's does
 *   tensor map  the rank, the address, the first size and stride, the last step; then the process
 *
 * With STAND_IN_SLOTS=FILE the tables lie at one of a few addresses by turns: each process that
 * loads this adds a byte to the file, and its length tells which it is.
 */
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "common/driver-tables.h"
#include "tests/stand-in/slots.h"
#include "worker/backend-cuda/cuda-api.h"

#define EXPORTED __attribute__((visibility("default")))
#define PAIRS 66u /* of multiprocessors */

/* The device ----------------------------------------------------------------------------------- */

EXPORTED CUresult cuDriverGetVersion(int *version)
{
    *version = 13000;
    return CUDA_SUCCESS;
}

EXPORTED CUresult cuGetErrorName(CUresult error, const char **name)
{
    static char text[32];

    snprintf(text, sizeof(text), "error %d", (int)error);
    *name = text;
    return CUDA_SUCCESS;
}

EXPORTED CUresult cuDeviceGetCount(int *count)
{
    *count = 1;
    return CUDA_SUCCESS;
}

EXPORTED CUresult cuDeviceGet(CUdevice *device, int ordinal)
{
    *device = ordinal;
    return CUDA_SUCCESS;
}

EXPORTED CUresult cuCtxGetDevice(CUdevice *device)
{
    return cuDeviceGet(device, 0);
}

EXPORTED CUresult cuDeviceGetName(char *name, int length, CUdevice device)
{
    (void)device;
    snprintf(name, (size_t)length, "stand-in");
    return CUDA_SUCCESS;
}

EXPORTED CUresult cuDeviceGetAttribute(int *value, CUdevice_attribute attribute, CUdevice device)
{
    (void)device;
    *value = attribute == CU_DEVICE_ATTRIBUTE_MULTIPROCESSOR_COUNT ? 2 * (int)PAIRS : 9;
    return CUDA_SUCCESS;
}

EXPORTED CUresult cuDeviceTotalMem_v2(size_t *bytes, CUdevice device)
{
    (void)device;
    *bytes = (size_t)1 << 30;
    return CUDA_SUCCESS;
}

EXPORTED CUresult cuDeviceGetUuid(CUuuid *uuid, CUdevice device)
{
    (void)device;
    memset(uuid, 0x5a, sizeof(*uuid));
    return CUDA_SUCCESS;
}

EXPORTED CUresult cuDeviceGetPCIBusId(char *id, int length, CUdevice device)
{
    (void)device;
    snprintf(id, (size_t)length, "0000:01:00.0");
    return CUDA_SUCCESS;
}

EXPORTED CUresult cuModuleLoadDataEx(CUmodule *module, const void *image, unsigned count,
                                     CUjit_option *options, void **values)
{
    static int loaded;

    (void)image;
    (void)count;
    (void)options;
    (void)values;
    *module = (CUmodule)&loaded;
    return CUDA_SUCCESS;
}

/* Printing ------------------------------------------------------------------------------------- */

#define FLOOD_LINES 20000

/* What was launched and is not written yet; whether an assertion has failed. */
static unsigned printed_lines, floods;
static bool failed;

/* The handle is where its name is kept. */
EXPORTED CUresult cuModuleGetFunction(CUfunction *function, CUmodule module, const char *name)
{
    (void)module;
    *function = (CUfunction)(uintptr_t)strdup(name);
    return *function ? CUDA_SUCCESS : CUDA_ERROR_OUT_OF_MEMORY;
}

EXPORTED CUresult cuFuncGetParamInfo(CUfunction function, size_t index, size_t *offset,
                                     size_t *size)
{
    (void)function;
    (void)index;
    (void)offset;
    (void)size;
    return CUDA_ERROR_INVALID_VALUE;
}

EXPORTED CUresult cuFuncGetAttribute(int *value, CUfunction_attribute attribute,
                                     CUfunction function)
{
    (void)function;
    *value = attribute == CU_FUNC_ATTRIBUTE_MAX_THREADS_PER_BLOCK ? 1024 : 0;
    return CUDA_SUCCESS;
}

static void write_text(int file, const char *text)
{
    size_t left = strlen(text);

    while (left > 0) {
        const ssize_t n = write(file, text, left);

        if (n < 0) {
            abort();
        }
        text += n;
        left -= (size_t)n;
    }
}

static CUresult state_of_work(void)
{
    return failed ? CUDA_ERROR_ASSERT : CUDA_SUCCESS;
}

EXPORTED CUresult cuLaunchKernel(CUfunction function, unsigned grid_x, unsigned grid_y,
                                 unsigned grid_z, unsigned block_x, unsigned block_y,
                                 unsigned block_z, unsigned shared_bytes, CUstream stream,
                                 void **parameters, void **extra)
{
    const char *name = (const char *)function;

    (void)grid_x;
    (void)grid_y;
    (void)grid_z;
    (void)block_x;
    (void)block_y;
    (void)block_z;
    (void)shared_bytes;
    (void)stream;
    (void)parameters;
    (void)extra;
    printed_lines += strcmp(name, "print") == 0;
    floods += strcmp(name, "flood") == 0;
    failed = failed || strcmp(name, "assert") == 0;
    return CUDA_SUCCESS;
}

/* What synchronises writes what was printed. */
EXPORTED CUresult cuStreamSynchronize(CUstream stream)
{
    char line[64];

    (void)stream;
    for (; printed_lines > 0; printed_lines--) {
        write_text(STDOUT_FILENO, "a line of a kernel\n");
    }
    for (; floods > 0; floods--) {
        for (int i = 0; i < FLOOD_LINES; i++) {
            snprintf(line, sizeof(line), "line %d of many\n", i);
            write_text(STDOUT_FILENO, line);
        }
    }
    return state_of_work();
}

/* A query writes of failed assertions alone. */
EXPORTED CUresult cuStreamQuery(CUstream stream)
{
    static bool written;

    (void)stream;
    if (failed && !written) {
        written = true;
        write_text(STDERR_FILENO, "kernel.cu:7: assertion failed\n");
    }
    return state_of_work();
}

/* Words that are written in a stream, of which each is idle. */
EXPORTED CUresult cuMemHostAlloc(void **address, size_t bytes, unsigned flags)
{
    (void)flags;
    *address = calloc(1, bytes);
    return *address ? CUDA_SUCCESS : CUDA_ERROR_OUT_OF_MEMORY;
}

EXPORTED CUresult cuStreamBatchMemOp_v2(CUstream stream, unsigned count,
                                        struct mem_op_params *operations, unsigned flags)
{
    (void)stream;
    (void)flags;
    for (unsigned i = 0; i < count && !failed; i++) {
        __atomic_store_n((uint32_t *)(uintptr_t)operations[i].address,
                         (uint32_t)operations[i].value, __ATOMIC_RELEASE);
    }
    return state_of_work();
}

/* Private tables ------------------------------------------------------------------------------- */

static uint64_t test_address;
static const void **runtime_table, **test_table;

static CUresult self_test(uint32_t version, uint64_t time, uint64_t answer[2])
{
    answer[0] = version ^ time << 8 ^ (uint64_t)getpid() << 40 ^ (uint64_t)pthread_self();
    answer[1] = (uintptr_t)runtime_table + 3 * (uintptr_t)test_table + 5 * test_address;
    return CUDA_SUCCESS;
}

static CUresult places_get(char **first, char **second)
{
    *first = malloc(PAIRS);
    *second = malloc(PAIRS);
    if (!*first || !*second) {
        return CUDA_ERROR_OUT_OF_MEMORY;
    }
    for (unsigned i = 0; i < PAIRS; i++) {
        (*first)[i] = (char)i;
        (*second)[i] = (char)(PAIRS - 1 - i);
    }
    return CUDA_SUCCESS;
}

/* Which of the addresses this process has; a test that cannot be so does not go on. */
static unsigned take_slot(const char *path)
{
    struct stat status;
    const int file = open(path, O_WRONLY | O_APPEND | O_CREAT | O_CLOEXEC, 0600);

    if (file < 0 || fstat(file, &status) < 0 || write(file, "x", 1) != 1) {
        fprintf(stderr, "stand-in: %s: %s\n", path, strerror(errno));
        abort();
    }
    close(file);
    return (unsigned)status.st_size % SLOTS;
}

/* A page for each of the three things, as they lie apart in the driver too. */
static void place_tables(void)
{
    const char *slots = getenv("STAND_IN_SLOTS");
    uint64_t wish = slots ? slot_address(take_slot(slots)) : 0;
    uint8_t *pages = mmap((void *)(uintptr_t)wish, SLOT_BYTES, PROT_READ | PROT_WRITE,
                          MAP_PRIVATE | MAP_ANONYMOUS | (wish ? MAP_FIXED_NOREPLACE : 0), -1, 0);

    if (pages == MAP_FAILED) {
        perror("stand-in: no place for the tables");
        abort();
    }
    runtime_table = (const void **)(pages + 64);
    test_table = (const void **)(pages + 4096 + 128);
    test_address = (uintptr_t)pages + 8192 + 16;
    runtime_table[0] = (void *)(uintptr_t)(13 * sizeof(void *));
    test_table[0] = (void *)(uintptr_t)(3 * sizeof(void *));
    /* It is the function's address to whoever looks, and the worker is to call self_test(). */
    test_table[1] = (void *)(uintptr_t)test_address;
    memcpy(pages + 8192 + 16, "\x48\xb8", 2);
    memcpy(pages + 8192 + 18, &(uint64_t){(uintptr_t)self_test}, 8);
    memcpy(pages + 8192 + 26, "\xff\xe0", 2);
    if (mprotect(pages + 8192, 4096, PROT_READ | PROT_EXEC) < 0) {
        perror("stand-in: no code for the tables");
        abort();
    }
}

EXPORTED CUresult cuInit(unsigned flags)
{
    (void)flags;
    if (!runtime_table) {
        place_tables();
    }
    return CUDA_SUCCESS;
}

EXPORTED CUresult cuGetExportTable(const void **table, const CUuuid *id)
{
    static const void *places[17];

    if (memcmp(id->bytes, DRIVER_TABLE_RUNTIME, DRIVER_TABLE_ID_BYTES) == 0) {
        *table = runtime_table;
    } else if (memcmp(id->bytes, DRIVER_TABLE_TEST, DRIVER_TABLE_ID_BYTES) == 0) {
        *table = test_table;
    } else if (memcmp(id->bytes, DRIVER_TABLE_PLACES, DRIVER_TABLE_ID_BYTES) == 0) {
        places[0] = (void *)sizeof(places);
        places[4] = (void *)places_get;
        *table = places;
    } else {
        *table = NULL;
        return CUDA_ERROR_INVALID_VALUE;
    }
    return CUDA_SUCCESS;
}

/* Tensor maps ---------------------------------------------------------------------------------- */

EXPORTED CUresult cuTensorMapEncodeTiled(CUtensorMap *map, CUtensorMapDataType type,
                                         cuuint32_t rank, void *address, const cuuint64_t *sizes,
                                         const cuuint64_t *strides, const cuuint32_t *box,
                                         const cuuint32_t *steps, CUtensorMapInterleave interleave,
                                         CUtensorMapSwizzle swizzle,
                                         CUtensorMapL2promotion promotion,
                                         CUtensorMapFloatOOBfill fill)
{
    const cuuint64_t said[16] = {
        rank,
        (uintptr_t)address,
        sizes[0],
        sizes[rank - 1],
        rank > 1 ? strides[rank - 2] : 0,
        box[0],
        box[rank - 1],
        steps[0],
        steps[rank - 1],
        type,
        interleave,
        swizzle,
        fill,
        promotion,
        0,
        (cuuint64_t)getpid(),
    };

    memcpy(map->opaque, said, sizeof(said));
    return CUDA_SUCCESS;
}

EXPORTED CUresult cuTensorMapEncodeIm2col(CUtensorMap *map, CUtensorMapDataType type,
                                          cuuint32_t rank, void *address, const cuuint64_t *sizes,
                                          const cuuint64_t *strides, const int *lower,
                                          const int *upper, cuuint32_t channels, cuuint32_t pixels,
                                          const cuuint32_t *steps, CUtensorMapInterleave interleave,
                                          CUtensorMapSwizzle swizzle,
                                          CUtensorMapL2promotion promotion,
                                          CUtensorMapFloatOOBfill fill)
{
    const cuuint64_t said[16] = {
        rank,
        (uintptr_t)address,
        sizes[0],
        strides[rank - 2],
        (cuuint64_t)lower[rank - 3],
        (cuuint64_t)upper[rank - 3],
        channels,
        pixels,
        steps[0],
        type,
        interleave,
        swizzle,
        fill,
        promotion,
        1,
        (cuuint64_t)getpid(),
    };

    memcpy(map->opaque, said, sizeof(said));
    return CUDA_SUCCESS;
}

EXPORTED CUresult cuTensorMapReplaceAddress(CUtensorMap *map, void *address)
{
    map->opaque[1] = (uintptr_t)address;
    return CUDA_SUCCESS;
}
