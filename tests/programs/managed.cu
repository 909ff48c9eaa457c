// SPDX-License-Identifier: MIT
// What a first program does: managed memory that both sides use, hints about it, and a kernel that
// prints. Its output goes through a file, to see that what the kernel printed is there before what
// is printed behind it. Exit codes: 0 right, 1 not.
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <unistd.h>

static void check(cudaError_t error, const char *what)
{
    if (error != cudaSuccess) {
        std::fprintf(stderr, "%s: %d %s\n", what, (int)error, cudaGetErrorString(error));
        std::exit(1);
    }
}
#define CHECK(call) check(call, #call)

__global__ void add(int n, const float *x, float *y)
{
    for (int i = blockIdx.x * blockDim.x + threadIdx.x; i < n; i += blockDim.x * gridDim.x) {
        y[i] = x[i] + y[i];
    }
}

__global__ void hello(int n)
{
    printf("thread %d of %d: %s\n", threadIdx.x, n, threadIdx.x == 0 ? "first" : "another");
}

// Whether the program's standard output, which is a file meanwhile, is this text.
static bool prints(void (*run)(), const char *expected)
{
    char got[4096] = "";
    FILE *file = std::tmpfile();
    const int before = dup(STDOUT_FILENO);

    std::fflush(stdout);
    dup2(fileno(file), STDOUT_FILENO);
    run();
    std::printf("done\n");
    std::fflush(stdout);
    dup2(before, STDOUT_FILENO);
    close(before);
    return pread(fileno(file), got, sizeof(got) - 1, 0) >= 0 && std::strcmp(got, expected) == 0;
}

static void say_hello()
{
    hello<<<1, 3>>>(3);
    CHECK(cudaDeviceSynchronize());
}

int main()
{
    const int n = 1 << 20;
    int runtime = 0, wrong = 0;
    float *x, *y;

    CHECK(cudaRuntimeGetVersion(&runtime));
    std::printf("CUDA %d.%d\n", runtime / 1000, runtime % 1000 / 10);
    CHECK(cudaMallocManaged(&x, n * sizeof(float)));
    CHECK(cudaMallocManaged(&y, n * sizeof(float)));
    for (int i = 0; i < n; i++) {
        x[i] = 1;
        y[i] = 2;
    }
    for (int turn = 0; turn < 3; turn++) {
        add<<<256, 256>>>(n, x, y);
        CHECK(cudaGetLastError());
        CHECK(cudaDeviceSynchronize());
        for (int i = 0; i < n; i++) {
            wrong += y[i] != 3 + turn;
        }
    }
    CHECK(cudaFree(x));
    CHECK(cudaFree(y));
    if (!prints(say_hello, "thread 0 of 3: first\nthread 1 of 3: another\n"
                           "thread 2 of 3: another\ndone\n")) {
        std::fprintf(stderr, "the kernel's text is not there, or not in its place\n");
        wrong++;
    }
    return wrong != 0;
}
