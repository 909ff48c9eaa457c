/* SPDX-License-Identifier: MIT */
/*
 * Device memory, and memory of the program's that the GPU reaches.
 *
 * Each allocation is the host's, and is noted in the table of model/memory.c, by which all other
 * calls know what an address is. Allocating and freeing may wait for the GPU, and CUDA forbids that
 * beside captures that do not allow it (capture_allows()).
 */

#include <stdio.h>

#include "guest/libcuda/calls/guest-calls.h"
#include "guest/libcuda/model/capture.h"
#include "guest/libcuda/model/graph-memory.h"
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
    /*
     * Spare chunks are the host's to free only when the GPU does nothing; a program that asks how
     * much there is left can have them at once, as pool_give_up() waits for that.
     */
    if (available) {
        *available = free_bytes + spare_bytes();
    }
    if (total) {
        *total = all;
    }
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

/*
 * CUDA chooses a pitch by the size of elements, which is 4, 8 or 16. PITCH is a multiple of all
 * three, so the size is checked and not used. `row < width`: it has wrapped.
 */
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

/*
 * Something may still use it: a posted copy, or a kernel. The arena would hand the bytes to
 * another.
 */
static CUresult free_in_arena(const struct memory *area)
{
    const CUresult r = result_of(vgpu_session_sync(cuda.session));

    memory_drop(area->address);
    vgpu_pinned_free(cuda.session, (void *)(uintptr_t)area->address);
    return r;
}

CUresult guest_cuMemFree_v2(CUdeviceptr address)
{
    struct memory area;
    CUresult r;

    if (address == 0) {
        return CUDA_SUCCESS;
    }
    /* Only where an allocation begins: CUDA frees by its base address and not by one within. */
    if (!memory_find(address, &area) || area.address != address ||
        (area.kind != MEMORY_DEVICE && area.kind != MEMORY_POOLED && area.kind != MEMORY_MANAGED &&
         area.kind != MEMORY_GRAPH)) {
        return CUDA_ERROR_INVALID_VALUE;
    }
    r = capture_allows();
    if (r != CUDA_SUCCESS) {
        return r;
    }
    if (area.kind == MEMORY_MANAGED) {
        return free_in_arena(&area);
    }
    if (area.kind == MEMORY_GRAPH) {
        r = result_of(vgpu_session_sync(cuda.session));
        return r == CUDA_SUCCESS ? graph_memory_give_back(address) : r;
    }
    /* First, so that the next owner of the address is not forgotten. */
    memory_drop(address);
    /* cuMemFree() of such memory synchronises, so no stream uses the block and any may have it. */
    if (area.kind == MEMORY_POOLED) {
        r = result_of(vgpu_session_sync(cuda.session));
        pool_return(&area);
        return r;
    }
    return result_of(vgpu_mem_free(cuda.session, address));
}

/* Registered memory has no device address here, see below. */
CUresult guest_cuMemGetAddressRange_v2(CUdeviceptr *base, size_t *bytes, CUdeviceptr address)
{
    struct memory area;

    /* Who wants to know nothing is not told that there is nothing. */
    if (!base && !bytes) {
        return CUDA_SUCCESS;
    }
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

/* Allocates memory of the arena. Where there is none left, a line on stderr says so, once. */
static CUresult allocate_in_arena(void **memory, size_t bytes, enum memory_kind kind,
                                  unsigned flags)
{
    static int said;

    *memory = memory_pinned(bytes);
    if (*memory && memory_add((struct memory){.address = (uint64_t)(uintptr_t)*memory,
                                              .bytes = bytes,
                                              .context = context_current(),
                                              .kind = kind,
                                              .flags = flags})) {
        return CUDA_SUCCESS;
    }
    vgpu_pinned_free(cuda.session, *memory);
    *memory = NULL;
    if (__atomic_exchange_n(&said, 1, __ATOMIC_RELAXED) == 0) {
        fprintf(stderr,
                "libcuda (vGPU): no %zu bytes of %s memory left in this VM's "
                "shared memory; a larger one (shm; on the host VGPU_SHM_MIB) or part of it "
                "(VGPU_ARENA_MIB) helps\n",
                bytes, kind == MEMORY_MANAGED ? "managed" : "page-locked");
    }
    return CUDA_ERROR_OUT_OF_MEMORY;
}

/*
 * Memory of the arena: it is mapped at the same address in the worker, and registered with the
 * driver there, so one pointer serves this process and the GPU. All of it is portable and mapped,
 * whatever the flags. WRITECOMBINED only asks for speed, and is ignored.
 */
CUresult guest_cuMemHostAlloc(void **memory, size_t bytes, unsigned int flags)
{
    if (!memory || (flags & ~(unsigned)(CU_MEMHOSTALLOC_PORTABLE | CU_MEMHOSTALLOC_DEVICEMAP |
                                        CU_MEMHOSTALLOC_WRITECOMBINED)) != 0) {
        return CUDA_ERROR_INVALID_VALUE;
    }
    /* Nothing is had at once, and given back by cuMemFreeHost(). */
    if (bytes == 0) {
        *memory = NULL;
        return CUDA_SUCCESS;
    }
    return allocate_in_arena(memory, bytes, MEMORY_HOST, flags | CU_MEMHOSTALLOC_DEVICEMAP);
}

/*
 * NVIDIA's driver moves managed memory when it is touched, by page faults of the processor and the
 * GPU. Those of this process are its own kernel's, and the host never sees them. So managed memory
 * is of the arena: both sides have it at one address at any time, and kernels reach it over the
 * bus. That is slower for kernels and otherwise right.
 */
CUresult guest_cuMemAllocManaged(CUdeviceptr *address, size_t bytes, unsigned int flags)
{
    void *memory = NULL;
    CUresult r;

    if (!address || bytes == 0 || (flags != CU_MEM_ATTACH_GLOBAL && flags != CU_MEM_ATTACH_HOST)) {
        return CUDA_ERROR_INVALID_VALUE;
    }
    r = capture_allows();
    if (r == CUDA_SUCCESS) {
        r = allocate_in_arena(&memory, bytes, MEMORY_MANAGED, flags);
    }
    if (r == CUDA_SUCCESS) {
        *address = (CUdeviceptr)(uintptr_t)memory;
    }
    return r;
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

    if (!memory) {
        return CUDA_SUCCESS;
    }
    return find_program_area(memory, MEMORY_HOST, &area) ? free_in_arena(&area)
                                                         : CUDA_ERROR_INVALID_VALUE;
}

/* The same address; also for one in the middle of an allocation. */
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

#define REGISTER_FLAGS 0xfu /* all that there are */

/*
 * The host's driver cannot reach this process's own pages. So registering is only noted: copies
 * from and to such memory go through the arena, as from and to any other, and are done with it when
 * they return. That is slower than with CUDA and otherwise right. Kernels could not use the memory,
 * so to ask for its device pointer is refused.
 */
CUresult guest_cuMemHostRegister_v2(void *memory, size_t bytes, unsigned int flags)
{
    const uint64_t address = (uint64_t)(uintptr_t)memory;
    struct memory area;

    if (memory_find(address, &area) && area.kind == MEMORY_MANAGED) {
        return CUDA_ERROR_INVALID_VALUE;
    }
    if (!memory || bytes == 0 || address + bytes < address ||
        (flags & ~(unsigned)(CU_MEMHOSTREGISTER_PORTABLE | CU_MEMHOSTREGISTER_DEVICEMAP)) != 0) {
        return memory && bytes > 0 && flags <= REGISTER_FLAGS &&
                       (flags & (CU_MEMHOSTREGISTER_IOMEMORY | CU_MEMHOSTREGISTER_READ_ONLY))
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

    /* CUDA tells memory that it knows, by another way or from its middle, from what it does not. */
    if (!memory || !memory_find((uint64_t)(uintptr_t)memory, &area)) {
        return memory ? CUDA_ERROR_HOST_MEMORY_NOT_REGISTERED : CUDA_ERROR_INVALID_VALUE;
    }
    if (!find_program_area(memory, MEMORY_REGISTERED, &area)) {
        return CUDA_ERROR_INVALID_VALUE;
    }
    memory_drop(area.address);
    return CUDA_SUCCESS;
}
