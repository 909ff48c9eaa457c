/* SPDX-License-Identifier: MIT */
/* Graphs that were made executable. */
#ifndef VGPU_EXEC_H
#define VGPU_EXEC_H

#include "context.h"

/* Destroys those of a context. */
void exec_release(const struct context *context);

#endif
