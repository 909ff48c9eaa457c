/* SPDX-License-Identifier: MIT */
/*
 * All that the worker wants of a driver and driver.c does not have: it succeeds and does nothing.
 * Built twice, once for what is handed on for guests (HANDED_ON): a function may be in both lists.
 */
#include "worker/backend-cuda/cuda-api.h"

#define SUCCEED(member, symbol, parameters)                                                        \
    __attribute__((weak, visibility("default")))                                                   \
    CUresult stand_in_##member parameters __asm__(symbol);                                         \
    CUresult stand_in_##member parameters                                                          \
    {                                                                                              \
        return CUDA_SUCCESS;                                                                       \
    }
#ifdef HANDED_ON
CUDA_FORWARDED_CALLS(SUCCEED)
#else
CUDA_CALLS(SUCCEED)
CUDA_NEWER_CALLS(SUCCEED)
CUDA_GRAPH_CALLS(SUCCEED)
CUDA_MAPPING_CALLS(SUCCEED)
CUDA_LINKER_CALLS(SUCCEED)
CUDA_ARRAY_CALLS(SUCCEED)
#endif
