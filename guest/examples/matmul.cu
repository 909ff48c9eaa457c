/* SPDX-License-Identifier: MIT */
/* The kernel of matmul.c; `scripts/make-ptx` compiles it to matmul.ptx, which is checked in. */
#define TILE 16

/* product = a * b, all n x n, row by row; n is a multiple of TILE. */
extern "C" __global__ void matmul(const float *a, const float *b, float *product, unsigned n)
{
    __shared__ float tile_a[TILE][TILE], tile_b[TILE][TILE];
    const unsigned row = blockIdx.y * TILE + threadIdx.y;
    const unsigned column = blockIdx.x * TILE + threadIdx.x;
    float sum = 0;

    for (unsigned k = 0; k < n; k += TILE) {
        tile_a[threadIdx.y][threadIdx.x] = a[row * n + k + threadIdx.x];
        tile_b[threadIdx.y][threadIdx.x] = b[(k + threadIdx.y) * n + column];
        __syncthreads();
        for (unsigned i = 0; i < TILE; i++) {
            sum += tile_a[threadIdx.y][i] * tile_b[i][threadIdx.x];
        }
        __syncthreads();
    }
    product[row * n + column] = sum;
}
