// SPDX-License-Identifier: MIT
// A vector add as nvcc builds it, with what a small program uses besides: properties, a stream,
// events, a constant and a variable on the device. Exit codes: 0 right, 1 not.
#include <cstdio>
#include <cstdlib>
#include <vector>

static void check(cudaError_t error, const char *what)
{
    if (error != cudaSuccess) {
        std::fprintf(stderr, "%s: %d %s\n", what, (int)error, cudaGetErrorString(error));
        std::exit(1);
    }
}
#define CHECK(call) check(call, #call)

__constant__ int steps[4];
__device__ int counter;

__global__ void add(const float *a, const float *b, float *sum, int n)
{
    int i = blockIdx.x * blockDim.x + threadIdx.x;

    if (i < n) {
        sum[i] = a[i] + b[i];
    }
}

__global__ void count()
{
    atomicAdd(&counter, steps[1]);
}

int main()
{
    const int n = 1 << 20;
    const size_t bytes = n * sizeof(float);
    std::vector<float> operands(2 * n), sum(n);
    const int three[4] = {0, 3, 0, 0};
    int runtime = 0, counted = 0, wrong = 0;
    cudaEvent_t begin, end;
    cudaDeviceProp device;
    cudaStream_t stream;
    float *memory, ms = -1;

    CHECK(cudaRuntimeGetVersion(&runtime));
    CHECK(cudaGetDeviceProperties(&device, 0));
    std::printf("CUDA %d.%d\n", runtime / 1000, runtime % 1000 / 10);
    for (int i = 0; i < 2 * n; i++) {
        operands[i] = i % 1000;
    }
    CHECK(cudaMalloc(&memory, 3 * bytes));
    CHECK(cudaMemcpy(memory, operands.data(), 2 * bytes, cudaMemcpyHostToDevice));
    CHECK(cudaStreamCreate(&stream));
    CHECK(cudaEventCreate(&begin));
    CHECK(cudaEventCreate(&end));
    CHECK(cudaEventRecord(begin, stream));
    add<<<(n + 255) / 256, 256, 0, stream>>>(memory, memory + n, memory + 2 * n, n);
    CHECK(cudaGetLastError());
    CHECK(cudaEventRecord(end, stream));
    CHECK(cudaStreamSynchronize(stream));
    CHECK(cudaEventElapsedTime(&ms, begin, end));
    CHECK(cudaMemcpy(sum.data(), memory + 2 * n, bytes, cudaMemcpyDeviceToHost));
    for (int i = 0; i < n; i++) {
        wrong += sum[i] != operands[i] + operands[n + i];
    }
    CHECK(cudaMemcpyToSymbol(steps, three, sizeof(three)));
    count<<<2, 32>>>();
    CHECK(cudaMemcpyFromSymbol(&counted, counter, sizeof(counted)));
    CHECK(cudaDeviceReset());
    if (wrong != 0 || counted != 192 || ms <= 0) {
        std::fprintf(stderr, "%d sums wrong, counted %d, %g ms\n", wrong, counted, ms);
        return 1;
    }
    return 0;
}
