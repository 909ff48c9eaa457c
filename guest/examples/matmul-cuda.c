/* SPDX-License-Identifier: MIT */
/*
 * An example of a program for CUDA's driver API: multiplies two matrices with a kernel that it
 * brings along, and checks the product on the CPU. It knows nothing of vGPUs, and is built as for a
 * machine with a card; the kernel's text is made by scripts/embed:
 *
 *   scripts/embed matmul_ptx matmul.ptx >matmul.ptx.c
 *   cc matmul-cuda.c matmul.ptx.c -lcuda
 *
 *   matmul-cuda [SIZE [ROUNDS]]
 *
 * The entries are small whole numbers, so that every sum is exact. Exit codes: 0 all products are
 * right, 1 one is wrong, 2 wrong usage, 3 CUDA has failed.
 */
#include <cuda.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define TILE 16u /* of the kernel */
#define ENTRIES 8

extern const char matmul_ptx[];

static void check(CUresult result, const char *what)
{
    const char *name = "unknown error";

    if (result != CUDA_SUCCESS) {
        cuGetErrorName(result, &name);
        fprintf(stderr, "matmul-cuda: %s: %s\n", what, name);
        exit(3);
    }
}

#define CHECK(call) check(call, #call)

struct matrices {
    float *host[3]; /* a, b, product */
    CUdeviceptr device[3];
    unsigned n;
};

static void make(struct matrices *m, unsigned n)
{
    const size_t bytes = sizeof(float) * n * n;

    m->n = n;
    for (int i = 0; i < 3; i++) {
        void *memory;

        CHECK(cuMemAllocHost(&memory, bytes));
        m->host[i] = memory;
        CHECK(cuMemAlloc(&m->device[i], bytes));
    }
}

static void draw(float *matrix, unsigned n)
{
    static unsigned state = 1;

    for (size_t i = 0; i < (size_t)n * n; i++) {
        state = state * 1664525u + 1013904223u;
        matrix[i] = (float)((state >> 16) % ENTRIES);
    }
}

/* The time that the GPU took, in milliseconds. */
static float multiply(struct matrices *m, CUfunction function, CUstream stream)
{
    const size_t bytes = sizeof(float) * m->n * m->n;
    void *params[] = {&m->device[0], &m->device[1], &m->device[2], &m->n};
    CUevent start, end;
    float ms = 0;

    CHECK(cuEventCreate(&start, CU_EVENT_DEFAULT));
    CHECK(cuEventCreate(&end, CU_EVENT_DEFAULT));
    CHECK(cuMemcpyHtoDAsync(m->device[0], m->host[0], bytes, stream));
    CHECK(cuMemcpyHtoDAsync(m->device[1], m->host[1], bytes, stream));
    CHECK(cuEventRecord(start, stream));
    CHECK(cuLaunchKernel(function, m->n / TILE, m->n / TILE, 1, TILE, TILE, 1, 0, stream, params,
                         NULL));
    CHECK(cuEventRecord(end, stream));
    CHECK(cuMemcpyDtoHAsync(m->host[2], m->device[2], bytes, stream));
    CHECK(cuStreamSynchronize(stream));
    CHECK(cuEventElapsedTime(&ms, start, end));
    CHECK(cuEventDestroy(start));
    CHECK(cuEventDestroy(end));
    return ms;
}

/* Each row's sum is the sum of the products of a row of one and the sums of the other's rows. */
static int right(const struct matrices *m)
{
    const unsigned n = m->n;
    double *sums = calloc(n, sizeof(*sums));
    int same = sums != NULL;

    for (size_t i = 0; same && i < (size_t)n * n; i++) {
        sums[i / n] += (double)m->host[1][i];
    }
    for (size_t row = 0; same && row < n; row++) {
        double wanted = 0, came = 0;

        for (size_t i = 0; i < n; i++) {
            wanted += (double)m->host[0][row * n + i] * sums[i];
            came += (double)m->host[2][row * n + i];
        }
        same = came == wanted;
    }
    free(sums);
    return same;
}

static int run(unsigned n, unsigned rounds)
{
    struct matrices m;
    CUmodule module;
    CUfunction function;
    CUstream stream;
    CUdevice device;
    CUcontext context;
    char name[64];
    float ms = 0;

    CHECK(cuInit(0));
    CHECK(cuDeviceGet(&device, 0));
    CHECK(cuDeviceGetName(name, sizeof(name), device));
    CHECK(cuDevicePrimaryCtxRetain(&context, device));
    CHECK(cuCtxSetCurrent(context));
    CHECK(cuModuleLoadData(&module, matmul_ptx));
    CHECK(cuModuleGetFunction(&function, module, "matmul"));
    CHECK(cuStreamCreate(&stream, CU_STREAM_NON_BLOCKING));
    make(&m, n);
    for (unsigned round = 1; round <= rounds; round++) {
        draw(m.host[0], n);
        draw(m.host[1], n);
        ms += multiply(&m, function, stream);
        if (!right(&m)) {
            printf("matmul-cuda: product %u of %u x %u is WRONG\n", round, n, n);
            return 1;
        }
    }
    printf("matmul-cuda: %u products of %u x %u right, %.3f ms each on %s\n", rounds, n, n,
           (double)ms / rounds, name);
    CHECK(cuDevicePrimaryCtxRelease(device));
    return 0;
}

int main(int argc, char **argv)
{
    const unsigned long n = argc > 1 ? strtoul(argv[1], NULL, 10) : 1024;
    const unsigned long rounds = argc > 2 ? strtoul(argv[2], NULL, 10) : 1;

    if (argc > 3 || n == 0 || n % TILE != 0 || n > 8192 || rounds == 0 || rounds > 1000000) {
        fputs("usage: matmul-cuda [SIZE [ROUNDS]]\n"
              "SIZE is a multiple of 16, at most 8192; the defaults are 1024 and 1 round\n",
              stderr);
        return 2;
    }
    return run((unsigned)n, (unsigned)rounds);
}
