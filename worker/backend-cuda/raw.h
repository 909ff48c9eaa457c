/* SPDX-License-Identifier: MIT */
/*
 * What the files of this folder have for each other: how NVIDIA's driver knows a session's objects,
 * and their shares of gpu.h's operations, which that header explains.
 */
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

/* Whether nothing is on the GPU that is not known to be done. */
bool cuda_is_idle(struct gpu *gpu);

/* What is known of what kernels may have printed; printing.c. */
struct printing {
    bool launched; /* something was, since all was done and the driver was asked to write */
    CUstream none; /* a stream that never has work; NULL before it is needed */
};
/*
 * How often the driver is asked after the first launch of something. Once would do if it were known
 * to be done then; with work in several streams it seldom is.
 */
#define FRESH_PRINTS 8u
struct printing *cuda_printing(struct gpu *gpu);

/* To be called before a launch; *known is of what is launched, false at first. */
static inline void cuda_note_launch(struct gpu *gpu, bool *known)
{
    cuda_printing(gpu)->launched = true;
    gpu->fresh = *known ? gpu->fresh : FRESH_PRINTS;
    *known = true;
}

/* What a session computes on, without operations yet; NULL when memory is short. */
struct gpu *cuda_gpu_new(void);
void cuda_gpu_free(struct gpu *gpu);

/* Makes the words that the GPU writes, in a context that is there; marks do without too. */
void cuda_make_words(struct gpu *gpu);

/* stream.c */
enum vgpu_gpu_error cuda_stream_create(struct gpu *gpu, uint32_t flags, int32_t priority,
                                       struct gpu_stream **stream);
void cuda_stream_destroy(struct gpu *gpu, struct gpu_stream *stream);
enum vgpu_gpu_error cuda_stream_poll(struct gpu *gpu, struct gpu_stream *stream);
enum vgpu_gpu_error cuda_stream_wait(struct gpu *gpu, struct gpu_stream *stream,
                                     struct gpu_event *event);
enum vgpu_gpu_error cuda_event_create(struct gpu *gpu, uint32_t flags, struct gpu_event **event);
void cuda_event_destroy(struct gpu *gpu, struct gpu_event *event);
enum vgpu_gpu_error cuda_event_record(struct gpu *gpu, struct gpu_event *event,
                                      struct gpu_stream *stream);
enum vgpu_gpu_error cuda_event_fence(struct gpu *gpu, struct gpu_event *event,
                                     struct gpu_fence *fence);
enum vgpu_gpu_error cuda_event_query(struct gpu *gpu, struct gpu_event *event);
enum vgpu_gpu_error cuda_event_elapsed(struct gpu *gpu, struct gpu_event *start,
                                       struct gpu_event *end, float *milliseconds);
enum vgpu_gpu_error cuda_fence(struct gpu *gpu, struct gpu_stream *stream, struct gpu_fence *fence);
enum vgpu_gpu_error cuda_fence_poll(struct gpu *gpu, const struct gpu_fence *fence);
void cuda_fence_release(struct gpu *gpu, struct gpu_fence *fence);
bool cuda_fence_answer(struct gpu *gpu, struct gpu_fence *fence, uint32_t *word, uint32_t value);
void cuda_fence_told(struct gpu *gpu, const struct gpu_fence *fence);
bool cuda_reach(struct gpu *gpu, void *memory, uint64_t bytes);
void cuda_unreach(struct gpu *gpu, void *memory);
bool cuda_confirm(struct gpu *gpu);

/* transfer.c */
enum vgpu_gpu_error cuda_mem_info(struct gpu *gpu, uint64_t *free_bytes, uint64_t *total);
enum vgpu_gpu_error cuda_mem_alloc(struct gpu *gpu, uint64_t bytes, uint64_t *address);
enum vgpu_gpu_error cuda_mem_free(struct gpu *gpu, uint64_t address);
enum vgpu_gpu_error cuda_copy(struct gpu *gpu, const struct gpu_copy *copy,
                              struct gpu_stream *stream);
enum vgpu_gpu_error cuda_fill(struct gpu *gpu, const struct gpu_fill *fill,
                              struct gpu_stream *stream);
enum vgpu_gpu_error cuda_copy_rows(struct gpu *gpu, const struct gpu_rows *rows,
                                   struct gpu_stream *stream);
enum vgpu_gpu_error cuda_fill_rows(struct gpu *gpu, const struct gpu_fill_rows *fill,
                                   struct gpu_stream *stream);

/* module.c */
enum vgpu_gpu_error cuda_module_load(struct gpu *gpu, const void *image, uint64_t bytes,
                                     struct gpu_compile *compile, struct gpu_module **module);
enum vgpu_gpu_error cuda_module_builtin(struct gpu *gpu, struct gpu_module **module);
enum vgpu_gpu_error cuda_module_unload(struct gpu *gpu, struct gpu_module *module);
enum vgpu_gpu_error cuda_function_get(struct gpu *gpu, struct gpu_module *module, const char *name,
                                      struct gpu_function **function,
                                      struct vgpu_result_function *info);
enum vgpu_gpu_error cuda_function_param(struct gpu *gpu, struct gpu_function *function,
                                        uint64_t index, struct vgpu_result_param *param);
enum vgpu_gpu_error cuda_launch(struct gpu *gpu, struct gpu_function *function,
                                const struct gpu_launch *launch, struct gpu_stream *stream);
uint32_t cuda_launch_part(struct gpu *gpu, struct gpu_function *function,
                          const struct vgpu_cmd_launch *shape);

/* array.c */
enum vgpu_gpu_error cuda_array_create(struct gpu *gpu, const vgpu_array_shape *shape,
                                      struct gpu_array **array);
void cuda_array_destroy(struct gpu *gpu, struct gpu_array *array);
enum vgpu_gpu_error cuda_array_level(struct gpu *gpu, struct gpu_array *array, unsigned number,
                                     struct gpu_array **level);
enum vgpu_gpu_error cuda_array_copy(struct gpu *gpu, const struct gpu_array_copy *copy,
                                    struct gpu_stream *stream);
enum vgpu_gpu_error cuda_texture_create(struct gpu *gpu, const vgpu_texture *described,
                                        const struct gpu_array *array, uint64_t *texture);
enum vgpu_gpu_error cuda_texture_destroy(struct gpu *gpu, uint64_t texture, uint32_t form);

/* link.c */
enum vgpu_gpu_error cuda_link_create(struct gpu *gpu, const struct gpu_compile *compile,
                                     struct gpu_link **link);
enum vgpu_gpu_error cuda_link_add(struct gpu *gpu, struct gpu_link *link, CUjitInputType type,
                                  const void *data, uint64_t bytes, const char *name,
                                  struct gpu_compile *compile);
enum vgpu_gpu_error cuda_link_complete(struct gpu *gpu, struct gpu_link *link, const void **image,
                                       uint64_t *bytes, struct gpu_compile *compile);
void cuda_link_destroy(struct gpu *gpu, struct gpu_link *link);

/* graph.c */
enum vgpu_gpu_error cuda_graph_make(struct gpu *gpu, const struct gpu_graph_node *nodes,
                                    uint32_t count, struct gpu_graph **graph);
enum vgpu_gpu_error cuda_graph_update(struct gpu *gpu, struct gpu_graph *graph,
                                      const struct gpu_graph_node *nodes, uint32_t count);
enum vgpu_gpu_error cuda_graph_launch(struct gpu *gpu, struct gpu_graph *graph,
                                      struct gpu_stream *stream);
void cuda_graph_destroy(struct gpu *gpu, struct gpu_graph *graph);

/* channels.c */
bool cuda_set_off(struct gpu *gpu, bool off);
bool cuda_set_slice(struct gpu *gpu, uint32_t us);

/* printing.c */
bool cuda_print(struct gpu *gpu, bool all);
bool cuda_may_print(const void *image, uint64_t bytes);

/* mapping.c */
enum vgpu_gpu_error cuda_range_reserve(struct gpu *gpu, uint64_t bytes, uint64_t alignment,
                                       uint64_t wanted, uint64_t *address);
enum vgpu_gpu_error cuda_range_free(struct gpu *gpu, uint64_t address, uint64_t bytes);
enum vgpu_gpu_error cuda_memory_create(struct gpu *gpu, uint64_t bytes, uint32_t compression,
                                       uint64_t *memory);
enum vgpu_gpu_error cuda_memory_release(struct gpu *gpu, uint64_t memory);
enum vgpu_gpu_error cuda_memory_map(struct gpu *gpu, uint64_t address, uint64_t bytes,
                                    uint64_t memory);
enum vgpu_gpu_error cuda_memory_unmap(struct gpu *gpu, uint64_t address, uint64_t bytes);
enum vgpu_gpu_error cuda_share_name(struct gpu *gpu, uint64_t address, uint8_t name[64]);
enum vgpu_gpu_error cuda_share_open(struct gpu *gpu, const uint8_t name[64], uint64_t bytes,
                                    int file, uint64_t *address);
enum vgpu_gpu_error cuda_share_close(struct gpu *gpu, uint64_t address);

#endif
