/* SPDX-License-Identifier: MIT */
/* Device memory, and memory of the program's that the GPU reaches. */

#include <stdio.h>

#include "guest/libcuda/calls/guest-calls.h"
#include "guest/libcuda/model/capture.h"
#include "guest/libcuda/model/memory.h"
#include "guest/libcuda/model/mempool.h"
#include "guest/libcuda/model/spare.h"
#include "guest/libcuda/state/state.h"
#include "guest/libcuda/wire/pinned.h"
#include "guest/libvgpu/session.h"

/* Rows of a pitched allocation begin at multiples of this, as NVIDIA's driver has it. */
#define PITCH UINT64_C(512)

/* Device memory ------------------------------------------------------------------------------- */

CUresult guest_cuMemGetInfo_v2(size_t *available, size_t *total)
{
    uint64_t free_bytes = 0, all = 0;
    CUresult r;

    r = result_of(vgpu_mem_info(cuda.session, &free_bytes, &all));
    *available = free_bytes + spare_bytes();
    *total = all;
    return r;
}

CUresult guest_cuMemAlloc_v2(CUdeviceptr *address, size_t bytes)
{
    uint64_t made = 0;
    CUresult r;

    if (!address || bytes == 0) {
        return CUDA_ERROR_INVALID_VALUE;
    }
    r = capture_allows();
    if (r != CUDA_SUCCESS) {
        return r;
    }
    r = memory_allocate(bytes, &made);
    if (r == CUDA_ERROR_OUT_OF_MEMORY && pool_give_up()) {
        r = memory_allocate(bytes, &made);
    }
    if (r != CUDA_SUCCESS) {
        return r;
    }
    if (!memory_add((struct memory){.address = made,
                                    .bytes = bytes,
                                    .context = context_current(),
                                    .kind = MEMORY_DEVICE})) {
        vgpu_mem_free(cuda.session, made);
        return CUDA_ERROR_OUT_OF_MEMORY;
    }
    *address = made;
    return CUDA_SUCCESS;
}

CUresult guest_cuMemAllocPitch_v2(CUdeviceptr *address, size_t *pitch, size_t width, size_t height,
                                  unsigned int element)
{
    const size_t row = (width + PITCH - 1) & ~(size_t)(PITCH - 1);
    size_t bytes;
    CUresult r;

    if (!address || !pitch || width == 0 || height == 0 ||
        (element != 4 && element != 8 && element != 16) || row < width ||
        __builtin_mul_overflow(row, height, &bytes)) {
        return CUDA_ERROR_INVALID_VALUE;
    }
    r = guest_cuMemAlloc_v2(address, bytes);
    if (r == CUDA_SUCCESS) {
        *pitch = row;
    }
    return r;
}

/* The host's worker cannot have this process's page faults. */
CUresult guest_cuMemAllocManaged(CUdeviceptr *address, size_t bytes, unsigned int flags)
{
    (void)address;
    (void)bytes;
    (void)flags;
    return REFUSE("cuMemAllocManaged");
}

CUresult guest_cuMemFree_v2(CUdeviceptr address)
{
    struct memory area;
    CUresult r;

    if (address == 0) {
        return CUDA_SUCCESS;
    }
    if (!memory_find(address, &area) || area.address != address ||
        (area.kind != MEMORY_DEVICE && area.kind != MEMORY_POOLED)) {
        return CUDA_ERROR_INVALID_VALUE;
    }
    r = capture_allows();
    if (r != CUDA_SUCCESS) {
        return r;
    }
    /* First, so that who gets the address next is not forgotten. */
    memory_drop(address);
    if (area.kind == MEMORY_POOLED) {
        r = result_of(vgpu_session_sync(cuda.session));
        pool_return(&area);
        return r;
    }
    return result_of(vgpu_mem_free(cuda.session, address));
}

CUresult guest_cuMemGetAddressRange_v2(CUdeviceptr *base, size_t *bytes, CUdeviceptr address)
{
    struct memory area;

    if (!memory_find(address, &area) || area.kind == MEMORY_REGISTERED) {
        return CUDA_ERROR_NOT_FOUND;
    }
    if (base) {
        *base = area.address;
    }
    if (bytes) {
        *bytes = area.bytes;
    }
    return CUDA_SUCCESS;
}

/* The program's own --------------------------------------------------------------------------- */

CUresult guest_cuMemHostAlloc(void **memory, size_t bytes, unsigned int flags)
{
    struct vgpu_session *s = cuda.session;
    static int said;

    if (!memory || bytes == 0 ||
        (flags & ~(unsigned)(CU_MEMHOSTALLOC_PORTABLE | CU_MEMHOSTALLOC_DEVICEMAP |
                             CU_MEMHOSTALLOC_WRITECOMBINED)) != 0) {
        return CUDA_ERROR_INVALID_VALUE;
    }
    *memory = memory_pinned(bytes);
    if (*memory && memory_add((struct memory){.address = (uint64_t)(uintptr_t)*memory,
                                              .bytes = bytes,
                                              .context = context_current(),
                                              .kind = MEMORY_HOST,
                                              .flags = flags | CU_MEMHOSTALLOC_DEVICEMAP})) {
        return CUDA_SUCCESS;
    }
    vgpu_pinned_free(s, *memory);
    *memory = NULL;
    if (__atomic_exchange_n(&said, 1, __ATOMIC_RELAXED) == 0) {
        fprintf(stderr,
                "libcuda (vGPU): no %zu bytes of page-locked memory left in this VM's "
                "shared memory; a larger one (shm; on the host VGPU_SHM_MIB) or part of it "
                "(VGPU_ARENA_MIB) helps\n",
                bytes);
    }
    return CUDA_ERROR_OUT_OF_MEMORY;
}

/* The area of this kind that begins at an address. */
static bool find_program_area(const void *memory, enum memory_kind kind, struct memory *area)
{
    return memory_find((uint64_t)(uintptr_t)memory, area) && area->kind == kind &&
           area->address == (uint64_t)(uintptr_t)memory;
}

CUresult guest_cuMemFreeHost(void *memory)
{
    struct memory area;
    CUresult r;

    if (!find_program_area(memory, MEMORY_HOST, &area)) {
        return CUDA_ERROR_INVALID_VALUE;
    }
    /* Something may still use it. */
    r = result_of(vgpu_session_sync(cuda.session));
    memory_drop(area.address);
    vgpu_pinned_free(cuda.session, memory);
    return r;
}

CUresult guest_cuMemHostGetDevicePointer_v2(CUdeviceptr *address, void *memory, unsigned int flags)
{
    struct memory area;

    if (!address || flags != 0 || !memory_find((uint64_t)(uintptr_t)memory, &area)) {
        return CUDA_ERROR_INVALID_VALUE;
    }
    if (area.kind == MEMORY_REGISTERED) {
        return REFUSE("cuMemHostGetDevicePointer of registered memory");
    }
    *address = (CUdeviceptr)(uintptr_t)memory;
    return area.kind == MEMORY_HOST ? CUDA_SUCCESS : CUDA_ERROR_INVALID_VALUE;
}

CUresult guest_cuMemHostGetFlags(unsigned int *flags, void *memory)
{
    struct memory area;

    if (!flags || !memory_find((uint64_t)(uintptr_t)memory, &area) || area.kind < MEMORY_HOST) {
        return CUDA_ERROR_INVALID_VALUE;
    }
    *flags = area.flags;
    return CUDA_SUCCESS;
}

/* Copies from and to it go through the arena, as from and to any other. */
CUresult guest_cuMemHostRegister_v2(void *memory, size_t bytes, unsigned int flags)
{
    const uint64_t address = (uint64_t)(uintptr_t)memory;

    if (!memory || bytes == 0 || address + bytes < address ||
        (flags & ~(unsigned)(CU_MEMHOSTREGISTER_PORTABLE | CU_MEMHOSTREGISTER_DEVICEMAP)) != 0) {
        return flags & (CU_MEMHOSTREGISTER_IOMEMORY | CU_MEMHOSTREGISTER_READ_ONLY)
                   ? CUDA_ERROR_NOT_SUPPORTED
                   : CUDA_ERROR_INVALID_VALUE;
    }
    return memory_add((struct memory){.address = address,
                                      .bytes = bytes,
                                      .context = context_current(),
                                      .kind = MEMORY_REGISTERED,
                                      .flags = flags})
               ? CUDA_SUCCESS
               : CUDA_ERROR_HOST_MEMORY_ALREADY_REGISTERED;
}

CUresult guest_cuMemHostUnregister(void *memory)
{
    struct memory area;

    if (!find_program_area(memory, MEMORY_REGISTERED, &area)) {
        return CUDA_ERROR_HOST_MEMORY_NOT_REGISTERED;
    }
    memory_drop(area.address);
    return CUDA_SUCCESS;
}
