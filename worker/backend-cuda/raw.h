/* SPDX-License-Identifier: MIT */
/* What NVIDIA's driver knows a session's objects by, for the calls that api/ hands on to it. */
#ifndef VGPU_WORKER_BACKEND_CUDA_RAW_H
#define VGPU_WORKER_BACKEND_CUDA_RAW_H

#include "worker/gpu.h"

/* The stream, which gets a piece of work now. */
CUstream cuda_submit(struct gpu *gpu, struct gpu_stream *stream);

CUstream cuda_raw_stream(struct gpu *gpu, struct gpu_stream *stream);
CUfunction cuda_raw_function(struct gpu *gpu, const struct gpu_function *function);
CUmodule cuda_raw_module(struct gpu *gpu, const struct gpu_module *module);

/* Whether so many bytes of parameters are the function's; they become as many as it wants. */
bool cuda_params_fit(const struct gpu_function *function, size_t *bytes);

/* graph.c: what it has of gpu.h, and what it looks up in the driver. */
void cuda_graph_load(void *library);
enum vgpu_gpu_error cuda_graph_make(struct gpu *gpu, const struct gpu_graph_node *nodes,
                                    uint32_t count, struct gpu_graph **graph);
enum vgpu_gpu_error cuda_graph_update(struct gpu *gpu, struct gpu_graph *graph,
                                      const struct gpu_graph_node *nodes, uint32_t count);
enum vgpu_gpu_error cuda_graph_launch(struct gpu *gpu, struct gpu_graph *graph,
                                      struct gpu_stream *stream);
void cuda_graph_destroy(struct gpu *gpu, struct gpu_graph *graph);

/* mapping.c, likewise. */
void cuda_mapping_load(void *library);
enum vgpu_gpu_error cuda_range_reserve(struct gpu *gpu, uint64_t bytes, uint64_t alignment,
                                       uint64_t wanted, uint64_t *address);
enum vgpu_gpu_error cuda_range_free(struct gpu *gpu, uint64_t address, uint64_t bytes);
enum vgpu_gpu_error cuda_memory_create(struct gpu *gpu, uint64_t bytes, uint32_t compression,
                                       uint64_t *memory);
enum vgpu_gpu_error cuda_memory_release(struct gpu *gpu, uint64_t memory);
enum vgpu_gpu_error cuda_memory_map(struct gpu *gpu, uint64_t address, uint64_t bytes,
                                    uint64_t memory);
enum vgpu_gpu_error cuda_memory_unmap(struct gpu *gpu, uint64_t address, uint64_t bytes);

#endif
