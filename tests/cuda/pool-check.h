/* SPDX-License-Identifier: MIT */
/* What the tests of stream-ordered memory and of its pools share. */
#ifndef VGPU_TESTS_CUDA_POOL_CHECK_H
#define VGPU_TESTS_CUDA_POOL_CHECK_H

#include "tests/cuda/check.h"

#define MIB ((size_t)1 << 20)

/* Skips the test where the device has no pools. */
void needs_pools(void);
/* Of the device's memory, with no other wish. */
CUmemoryPool pool_create(void);
CUdeviceptr take_from(CUmemoryPool pool, size_t bytes, CUstream stream);
cuuint64_t ask_pool(CUmemoryPool pool, CUmemPool_attribute which);
/* The pool that the memory comes from. */
CUmemoryPool pool_of(CUdeviceptr address);

#endif
