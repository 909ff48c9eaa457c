/* SPDX-License-Identifier: MIT */
/* Graphs that were made executable. */
#ifndef VGPU_GUEST_LIBCUDA_EXEC_H
#define VGPU_GUEST_LIBCUDA_EXEC_H

#include "guest/libcuda/context.h"

/* Destroys those of a context. */
void exec_release(const struct context *context);

#endif
