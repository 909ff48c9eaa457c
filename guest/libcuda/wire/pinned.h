/* SPDX-License-Identifier: MIT */
/* Memory in the arena: the host and the GPU reach it at the same address. */
#ifndef VGPU_GUEST_LIBCUDA_WIRE_PINNED_H
#define VGPU_GUEST_LIBCUDA_WIRE_PINNED_H

#include <stdint.h>

/* So many bytes, given back by vgpu_pinned_free(); NULL when there is none left. */
void *memory_pinned(uint64_t bytes);

#endif
