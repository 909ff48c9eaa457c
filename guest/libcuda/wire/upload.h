/* SPDX-License-Identifier: MIT */
/*
 * Bytes that the host gets as a whole before the call that uses them: a module's image, a graph.
 * It has room for one such upload at a time.
 */
#ifndef VGPU_GUEST_LIBCUDA_WIRE_UPLOAD_H
#define VGPU_GUEST_LIBCUDA_WIRE_UPLOAD_H

#include <stdint.h>

#include "api/cuda-types.h"

/* Between these the upload is the caller's: to send one, and to make the call that takes it. */
void upload_lock(void);
void upload_unlock(void);

/* Sends `bytes` bytes. INVALID_IMAGE for none, OUT_OF_MEMORY when the arena is full. */
CUresult upload_send(const void *image, uint64_t bytes);

#endif
