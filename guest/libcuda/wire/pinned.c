/* SPDX-License-Identifier: MIT */
/*
 * Memory in the arena, see pinned.h. When the arena is full libvgpu gives ordinary memory, for
 * copies that get slower then but work. Here it is for the GPU or the worker to reach, so that is
 * given back.
 */
#include "guest/libcuda/wire/pinned.h"

#include "guest/libcuda/state/state.h"
#include "guest/libvgpu/session.h"

void *memory_pinned(uint64_t bytes)
{
    void *memory = NULL;

    if (vgpu_pinned_alloc(cuda.session, bytes, &memory) == VGPU_OK &&
        vgpu_is_pinned(cuda.session, memory)) {
        return memory;
    }
    vgpu_pinned_free(cuda.session, memory);
    return NULL;
}
