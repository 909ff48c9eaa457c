/* SPDX-License-Identifier: MIT */
/*
 * What entries of api/ name in their lines `is` and `captured`: a function for each family of calls
 * that differ in their arguments alone. Pointers that the entry gives are not NULL, and the stream,
 * by its handle, is one that may be used; with `captured_` in front it is one that is captured, and
 * the work becomes a node.
 */
#ifndef VGPU_GUEST_LIBCUDA_CALLS_FAMILIES_H
#define VGPU_GUEST_LIBCUDA_CALLS_FAMILIES_H

#include <limits.h>
#include <stdbool.h>
#include <stddef.h>

#include "api/cuda-types.h"

struct stream;

/*
 * Copies of a line of bytes. copy_any() goes by what the addresses are, the others by their names.
 * One between contexts is one on the device.
 */
CUresult copy_any(CUdeviceptr to, CUdeviceptr from, size_t bytes, uint64_t stream);
CUresult copy_to_device(CUdeviceptr to, const void *from, size_t bytes, uint64_t stream);
CUresult copy_from_device(void *to, CUdeviceptr from, size_t bytes, uint64_t stream);
CUresult copy_on_device(CUdeviceptr to, CUdeviceptr from, size_t bytes, uint64_t stream);
CUresult copy_between(CUdeviceptr to, CUcontext to_context, CUdeviceptr from,
                      CUcontext from_context, size_t bytes, uint64_t stream);
CUresult captured_between(CUdeviceptr to, CUcontext to_context, CUdeviceptr from,
                          CUcontext from_context, size_t bytes, uint64_t stream);

/* Copies of rows; captured_line() is for both. */
CUresult copy_rows(CUDA_MEMCPY3D copy, uint64_t stream);
CUresult copy_rows_between(const CUDA_MEMCPY3D_PEER *copy, uint64_t stream);
CUresult captured_line(CUDA_MEMCPY3D copy, uint64_t stream);
CUresult captured_rows_between(const CUDA_MEMCPY3D_PEER *copy, uint64_t stream);

/*
 * Copies of lines in a batch: `count` of them; `attributes` hold from the copies `starts` on.
 * Unless it is NULL, *failed becomes the number of a copy that was wrong.
 */
struct copy_batch {
    const CUdeviceptr *to, *from;
    const size_t *sizes; /* bytes */
    size_t count;
    const CUmemcpyAttributes *attributes;
    const size_t *starts;
    size_t attribute_count;
    size_t *failed;
};

/* The same of boxes, each with its own attributes. */
struct box_batch {
    const CUDA_MEMCPY3D_BATCH_OP *ops;
    size_t count;
    unsigned long long flags; /* 0 */
    size_t *failed;
};

/* Posts them, or makes nodes of them, each behind the one before. */
CUresult copy_batch(struct copy_batch batch, uint64_t stream, bool captured);
CUresult copy_boxes(struct box_batch batch, uint64_t stream, bool captured);

/* Hints about managed memory, and places as they were said before there was CUmemLocation. */
CUmemLocation managed_place(CUdevice device);
CUresult managed_advise(CUdeviceptr address, size_t bytes, CUmem_advise advice,
                        CUmemLocation place);
CUresult managed_prefetch(CUdeviceptr address, size_t bytes, CUmemLocation place, unsigned flags,
                          uint64_t stream);

/* Waits for a stream when what was submitted to it, `r`, went well. */
CUresult and_wait(CUresult r, uint64_t stream);

/* Fills `count` elements of 1, 2 or 4 bytes, or `height` rows of `width` of them. */
CUresult fill_line(CUdeviceptr to, unsigned value, unsigned element, size_t count, uint64_t stream);
CUresult fill_rows(CUdeviceptr to, size_t pitch, unsigned value, unsigned element, size_t width,
                   size_t height, struct stream *stream);
CUresult captured_fill(CUdeviceptr to, size_t pitch, unsigned value, unsigned element, size_t width,
                       size_t height, uint64_t stream);

/* Words that a stream waits for and writes. */
/* Whether a stream can wait for a word there, or write it: `bytes` are 4 or 8. */
enum word { WORD_WAIT, WORD_WRITE };
CUresult word_check(uint64_t address, uint64_t bytes, unsigned flags, enum word word);
CUresult word_batch(uint64_t stream, unsigned count, const CUstreamBatchMemOpParams *operations,
                    unsigned flags);

/* Memory that is allocated or freed in a graph. */
CUresult captured_alloc(CUdeviceptr *address, size_t bytes, CUmemoryPool pool, uint64_t stream);
CUresult captured_free(CUdeviceptr address, uint64_t stream);

/* A function of the program's; an event. */
CUresult captured_host(CUhostFn function, void *argument, uint64_t stream);
CUresult captured_record(CUevent event, uint64_t stream);
CUresult captured_record_with(CUevent event, uint64_t stream, unsigned flags);

/* What may be added to the count of a user object, and taken away. */
static inline bool count_valid(unsigned count)
{
    return count > 0 && count <= INT_MAX;
}

/* What nodes of kernels do, in a graph and in an executable one. */
CUresult add_kernel_node(CUgraphNode *node, CUgraph graph, const CUgraphNode *follows, size_t count,
                         CUDA_KERNEL_NODE_PARAMS params);
CUresult change_kernel_node(CUgraphNode node, CUDA_KERNEL_NODE_PARAMS params);
CUresult change_launched_kernel(CUgraphExec exec, CUgraphNode node, CUDA_KERNEL_NODE_PARAMS params);

/* The nodes of a graph in *count places, or how many there are; with `roots` those behind none. */
CUresult list_nodes(CUgraph graph, CUgraphNode *nodes, size_t *count, bool roots);

/* How many clusters of a launch fit; with `active` 0 how large one may be. */
CUresult ask_clusters(int *result, CUfunction function, const CUlaunchConfig *config,
                      unsigned active);

/* What another process has exported. */
CUresult ipc_open_memory(CUdeviceptr *address, const CUipcMemHandle *handle, unsigned flags);
CUresult ipc_open_event(CUevent *event, const CUipcEventHandle *handle);

/* Unloads a module, which a library is too. */
CUresult unload_module(CUmodule module);

#endif
