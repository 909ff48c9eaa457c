/* SPDX-License-Identifier: MIT */
/* Memory in the arena, see pinned.h. */
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
