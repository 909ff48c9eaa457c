/* SPDX-License-Identifier: MIT */
/* Work for the nodes of graphs, made from what a program says. */
#ifndef VGPU_GUEST_LIBCUDA_MODEL_WORK_H
#define VGPU_GUEST_LIBCUDA_MODEL_WORK_H

#include "guest/libcuda/model/graph.h"

/*
 * Each checks what the program says and makes *work of it, which is freed by work_free(), or
 * becomes a node's. Where it fails nothing is to be freed.
 */
CUresult work_kernel(const CUDA_KERNEL_NODE_PARAMS *params, struct work *work);
CUresult work_copy(const CUDA_MEMCPY3D *copy, struct work *work);
CUresult work_fill(const CUDA_MEMSET_NODE_PARAMS *params, struct work *work);
CUresult work_host(const CUDA_HOST_NODE_PARAMS *params, struct work *work);
CUresult work_alloc(CUDA_MEM_ALLOC_NODE_PARAMS *params, struct work *work);
CUresult work_free_memory(CUdeviceptr address, struct work *work);
CUresult work_of(CUgraphNodeParams *params, struct work *work);

CUresult work_child(CUgraph graph, struct work *work);

/* The first version's structure has no more than this. */
CUDA_KERNEL_NODE_PARAMS kernel_params(const CUDA_KERNEL_NODE_PARAMS_v1 *params);

#endif
