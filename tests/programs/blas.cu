// SPDX-License-Identifier: MIT
// Matrix products by cuBLAS, in float and in bf16. Exit codes: 0 right, 1 not.
#include <cmath>
#include <cstdio>
#include <vector>

#include <cublas_v2.h>
#include <cuda_bf16.h>

int main()
{
    const int n = 256;
    std::vector<float> a(n * n), c(n * n);
    std::vector<__nv_bfloat16> half(n * n), product(n * n);
    const float one = 1, zero = 0;
    cublasHandle_t blas;
    double wanted = 0;
    int version = 0, status;
    void *memory[4];

    status = cublasCreate(&blas);
    if (status != 0 || cublasGetVersion(blas, &version) != 0) {
        std::fprintf(stderr, "cublasCreate: %d\n", status);
        return 1;
    }
    std::printf("cuBLAS %d\n", version);
    for (int i = 0; i < n * n; i++) {
        a[i] = i % 7;
        half[i] = __float2bfloat16(a[i]);
    }
    for (void *&each : memory) {
        cudaMalloc(&each, n * n * sizeof(float));
    }
    cudaMemcpy(memory[0], a.data(), n * n * sizeof(float), cudaMemcpyHostToDevice);
    cudaMemcpy(memory[2], half.data(), n * n * 2, cudaMemcpyHostToDevice);
    status = cublasSgemm(blas, CUBLAS_OP_N, CUBLAS_OP_N, n, n, n, &one, (float *)memory[0], n,
                         (float *)memory[0], n, &zero, (float *)memory[1], n);
    if (status == 0) {
        status = cublasGemmEx(blas, CUBLAS_OP_N, CUBLAS_OP_N, n, n, n, &one, memory[2], CUDA_R_16BF,
                              n, memory[2], CUDA_R_16BF, n, &zero, memory[3], CUDA_R_16BF, n,
                              CUBLAS_COMPUTE_32F, CUBLAS_GEMM_DEFAULT);
    }
    cudaMemcpy(c.data(), memory[1], n * n * sizeof(float), cudaMemcpyDeviceToHost);
    cudaMemcpy(product.data(), memory[3], n * n * 2, cudaMemcpyDeviceToHost);
    for (int k = 0; k < n; k++) {
        wanted += a[k * n] * a[k];
    }
    if (status != 0 || std::fabs(c[0] - wanted) > 1 ||
        std::fabs(__bfloat162float(product[0]) - wanted) > wanted / 100) {
        std::fprintf(stderr, "status %d, %g and %g instead of %g\n", status, c[0],
                     __bfloat162float(product[0]), wanted);
        return 1;
    }
    return 0;
}
