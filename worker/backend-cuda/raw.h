/* SPDX-License-Identifier: MIT */
/* What NVIDIA's driver knows a session's objects by, for the calls that api/ hands on to it. */
#ifndef VGPU_CUDA_RAW_H
#define VGPU_CUDA_RAW_H

#include "../gpu.h"

/* The stream, which gets a piece of work now. */
CUstream cuda_submit(struct gpu *gpu, struct gpu_stream *stream);

CUstream cuda_raw_stream(struct gpu *gpu, struct gpu_stream *stream);
CUfunction cuda_raw_function(struct gpu *gpu, const struct gpu_function *function);
CUmodule cuda_raw_module(struct gpu *gpu, const struct gpu_module *module);

#endif
