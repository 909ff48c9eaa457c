/* SPDX-License-Identifier: MIT */
/* Copies and fills that are done later, in a graph: checked, and as the wire has them. */
#ifndef VGPU_GUEST_LIBCUDA_COPY_H
#define VGPU_GUEST_LIBCUDA_COPY_H

#include "api/cuda-types.h"
#include "protocol/vgpu-graph.h"

/* NOT_SUPPORTED where a side is the program's own memory and not page-locked. */
CUresult copy_plan(const CUDA_MEMCPY3D *copy, struct vgpu_graph_copy *plan);

/* Fills nothing where a dimension is 0; *plan is then all zero. So does copy_plan(). */
CUresult fill_plan(const CUDA_MEMSET_NODE_PARAMS *fill, struct vgpu_graph_fill *plan);

/* A copy of one line of bytes. */
CUDA_MEMCPY3D copy_line(CUmemorytype to_type, uint64_t to, CUmemorytype from_type, uint64_t from,
                        size_t bytes);

#endif
