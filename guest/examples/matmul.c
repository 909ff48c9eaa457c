/* SPDX-License-Identifier: MIT */
/*
 * An example of a program that uses its vGPU: multiplies two matrices with a kernel that it
 * brings along, and checks the product on the CPU.
 *
 *   matmul [--size N] [--rounds N] [--socket PATH]
 *
 * The entries are small whole numbers, so that every sum is exact. The check is Freivalds': the
 * product times a random vector must be one matrix times the other times that vector. A
 * wrong product passes it less often than once in 2^31 rounds; each round draws new matrices.
 *
 * Exit codes: 0 all products are right, 1 one is wrong, 2 wrong usage, 3 no vGPU or it failed.
 */
#include <inttypes.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "vgpu.h"

#define TILE 16u /* of the kernel */
#define ENTRY_MAX 7

extern const char matmul_ptx[];

static struct vgpu_session *session;
static uint64_t random_state;

static void check(int result, const char *what)
{
    if (result != VGPU_OK) {
        fprintf(stderr, "matmul: %s: %s\n", what, vgpu_last_message());
        exit(3);
    }
}

/* xorshift64*: different for each process. */
static uint64_t next_random(void)
{
    random_state ^= random_state >> 12;
    random_state ^= random_state << 25;
    random_state ^= random_state >> 27;
    return random_state * UINT64_C(2685821657736338717);
}

static void draw(float *matrix, uint32_t n)
{
    for (uint64_t i = 0; i < (uint64_t)n * n; i++) {
        matrix[i] = (float)((int)(next_random() >> 40) % (ENTRY_MAX + 1));
    }
}

/* to = matrix * from */
static void times(const float *matrix, const int64_t *from, int64_t *to, uint32_t n)
{
    for (uint64_t row = 0; row < n; row++) {
        to[row] = 0;
        for (uint64_t i = 0; i < n; i++) {
            to[row] += (int64_t)matrix[row * n + i] * from[i];
        }
    }
}

static bool right(const float *a, const float *b, const float *product, uint32_t n)
{
    int64_t *x = calloc(4 * (size_t)n, sizeof(*x));
    int64_t *bx = x + n, *abx = bx + n, *px = abx + n;
    bool same = x != NULL;

    for (uint32_t i = 0; same && i < n; i++) {
        x[i] = (int64_t)(next_random() >> 33);
    }
    if (same) {
        times(b, x, bx, n);
        times(a, bx, abx, n);
        times(product, x, px, n);
        same = memcmp(abx, px, n * sizeof(*x)) == 0;
    }
    free(x);
    return same;
}

struct buffers {
    float *host[3]; /* a, b, product */
    uint64_t device[3];
};

static double now_ms(void)
{
    struct timespec t;

    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec * 1e3 + (double)t.tv_nsec / 1e6;
}

/* One product; what it took, copies included, in milliseconds. */
static double multiply(const struct buffers *buffers, uint64_t function, uint32_t n)
{
    const uint64_t bytes = 4ull * n * n;
    const struct vgpu_launch launch = {
        .function = function, .grid = {n / TILE, n / TILE}, .block = {TILE, TILE}};
    const struct {
        uint64_t a, b, product;
        uint32_t n;
    } params = {buffers->device[0], buffers->device[1], buffers->device[2], n};
    const double start = now_ms();

    check(vgpu_copy_to(session, buffers->device[0], buffers->host[0], bytes), "copy to the GPU");
    check(vgpu_copy_to(session, buffers->device[1], buffers->host[1], bytes), "copy to the GPU");
    check(vgpu_launch(session, &launch, &params, 28), "launch");
    check(vgpu_copy_from(session, buffers->host[2], buffers->device[2], bytes),
          "copy from the GPU");
    return now_ms() - start;
}

static int run(uint32_t n, unsigned rounds)
{
    const uint64_t bytes = 4ull * n * n;
    struct vgpu_device_info info;
    struct buffers buffers = {0};
    uint64_t module, function;
    double ms = 0;

    check(vgpu_session_info(session, &info), "device");
    check(vgpu_module_load(session, matmul_ptx, strlen(matmul_ptx), &module), "load the kernel");
    check(vgpu_function_get(session, module, "matmul", &function), "find the kernel");
    for (int i = 0; i < 3; i++) {
        void *memory;

        check(vgpu_pinned_alloc(session, bytes, &memory), "memory");
        buffers.host[i] = memory;
        check(vgpu_mem_alloc(session, bytes, &buffers.device[i]), "memory of the GPU");
    }
    for (unsigned round = 1; round <= rounds; round++) {
        draw(buffers.host[0], n);
        draw(buffers.host[1], n);
        memset(buffers.host[2], 0xff, bytes);
        ms += multiply(&buffers, function, n);
        if (!right(buffers.host[0], buffers.host[1], buffers.host[2], n)) {
            printf("matmul: product %u of %" PRIu32 " x %" PRIu32 " is WRONG\n", round, n, n);
            return 1;
        }
    }
    printf("matmul: %u products of %" PRIu32 " x %" PRIu32 " right, %.1f ms each on %s\n", rounds,
           n, n, ms / rounds, info.name);
    return 0;
}

int main(int argc, char **argv)
{
    struct vgpu_host_options host = {
        .pool = 'A', .priority = VGPU_PRIORITY_MEDIUM, .shm_size = UINT64_C(256) << 20};
    struct vgpu_session_options options = {0};
    unsigned long n = 2048, rounds = 1;
    bool known = argc % 2 == 1;
    int r;

    for (int i = 1; known && i < argc; i += 2) {
        if (strcmp(argv[i], "--size") == 0) {
            n = strtoul(argv[i + 1], NULL, 10);
        } else if (strcmp(argv[i], "--rounds") == 0) {
            rounds = strtoul(argv[i + 1], NULL, 10);
        } else if (strcmp(argv[i], "--socket") == 0) {
            host.socket = argv[i + 1];
            options.host = &host;
        } else {
            known = false;
        }
    }
    if (!known || n == 0 || n % TILE != 0 || n > 8192 || rounds == 0) {
        fputs("usage: matmul [--size N] [--rounds N] [--socket PATH]\n"
              "N is a multiple of 16, at most 8192; the defaults are 2048 and 1 round\n",
              stderr);
        return 2;
    }
    random_state = ((uint64_t)getpid() << 32 ^ (uint64_t)time(NULL)) | 1;
    check(vgpu_session_open(&options, &session), "no session");
    r = run((uint32_t)n, (unsigned)rounds);
    vgpu_session_close(session);
    return r;
}
