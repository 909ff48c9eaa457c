/* SPDX-License-Identifier: MIT */
/* What the files share that compute for a session where there is no GPU. */
#ifndef VGPU_WORKER_BACKEND_CPU_CPU_H
#define VGPU_WORKER_BACKEND_CPU_CPU_H

#include "worker/gpu.h"

struct gpu_calls;
extern const struct gpu_calls cpu_calls;

/* kernels.ptx, by scripts/embed. */
extern const char cuda_kernels_ptx[];

/* The functions of the built-in module by number; NULL behind the last. */
const char *cpu_function_name(unsigned index);

/* The context's limits, by CUlimit; a process has one session. */
extern size_t cpu_limits[CU_LIMIT_MALLOC_HEAP_SIZE + 1];

/* What a stream waits for, as CUDA's CUstreamWaitValue_flags. */
enum cpu_wait {
    CPU_WAIT_GEQ = 0, /* by the sign of the difference, so that it may wrap */
    CPU_WAIT_EQ = 1,
    CPU_WAIT_AND = 2,
    CPU_WAIT_NOR = 3,
};

struct cpu_word {
    uint64_t address, value;
    uint32_t width;     /* bytes: 4 or 8 */
    uint32_t condition; /* enum cpu_wait; 0 where it is written */
    bool write;
};

/* Has the stream wait for a word, or write it. */
enum vgpu_gpu_error cpu_word(struct gpu *gpu, const struct cpu_word *word,
                             struct gpu_stream *stream);

/* array.c */
enum vgpu_gpu_error cpu_array_create(struct gpu *gpu, const vgpu_array_shape *shape,
                                     struct gpu_array **array);
void cpu_array_destroy(struct gpu *gpu, struct gpu_array *array);
enum vgpu_gpu_error cpu_array_level(struct gpu *gpu, struct gpu_array *array, unsigned number,
                                    struct gpu_array **level);
enum vgpu_gpu_error cpu_array_copy(struct gpu *gpu, const struct gpu_array_copy *copy,
                                   struct gpu_stream *stream);

#endif
