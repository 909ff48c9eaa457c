/* SPDX-License-Identifier: MIT */
/* Allocations and what addresses mean, see memory.h. */
#include "guest/libcuda/memory.h"

#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "guest/libcuda/capture.h"
#include "guest/libcuda/entry.h"
#include "guest/libcuda/mempool.h"
#include "guest/libcuda/reserve.h"
#include "guest/libvgpu/session.h"

/* Rows of a pitched allocation begin at multiples of this, as NVIDIA's driver has it. */
#define PITCH UINT64_C(512)

static pthread_mutex_t mutex = PTHREAD_MUTEX_INITIALIZER;
static struct memory *areas; /* by ascending addresses; none overlap */
static size_t area_count, piece_room;
static uint64_t last_id;

/* The first area that ends behind an address. With the mutex. */
static size_t first_area_behind(uint64_t address)
{
    size_t low = 0, high = area_count;

    while (low < high) {
        const size_t middle = (low + high) / 2;

        if (areas[middle].address + areas[middle].bytes <= address) {
            low = middle + 1;
        } else {
            high = middle;
        }
    }
    return low;
}

bool memory_add(struct memory area)
{
    bool added = true;
    size_t i;

    pthread_mutex_lock(&mutex);
    i = first_area_behind(area.address);
    if (i < area_count && areas[i].address < area.address + area.bytes) {
        added = false;
    } else if (area_count == piece_room) {
        const size_t room = 2 * piece_room + 64;
        struct memory *more = realloc(areas, room * sizeof(*more));

        added = more != NULL;
        if (more) {
            areas = more;
            piece_room = room;
        }
    }
    if (added) {
        memmove(&areas[i + 1], &areas[i], (area_count++ - i) * sizeof(*areas));
        areas[i] = area;
        areas[i].id = ++last_id;
    }
    pthread_mutex_unlock(&mutex);
    return added;
}

bool memory_find(uint64_t address, struct memory *area)
{
    bool found;
    size_t i;

    pthread_mutex_lock(&mutex);
    i = first_area_behind(address);
    found = i < area_count && areas[i].address <= address;
    if (found) {
        *area = areas[i];
    }
    pthread_mutex_unlock(&mutex);
    return found;
}

void memory_drop(uint64_t address)
{
    size_t i;

    pthread_mutex_lock(&mutex);
    i = first_area_behind(address);
    if (i < area_count && areas[i].address == address) {
        memmove(&areas[i], &areas[i + 1], (--area_count - i) * sizeof(*areas));
    }
    pthread_mutex_unlock(&mutex);
}

void memory_forget_module(uint64_t module)
{
    size_t kept = 0;

    pthread_mutex_lock(&mutex);
    for (size_t i = 0; i < area_count; i++) {
        if (areas[i].owner != module) {
            areas[kept++] = areas[i];
        }
    }
    area_count = kept;
    pthread_mutex_unlock(&mutex);
}

bool memory_within(uint64_t address, uint64_t bytes)
{
    bool within;
    size_t i;

    pthread_mutex_lock(&mutex);
    i = first_area_behind(address);
    within = i < area_count && areas[i].address < address + bytes;
    pthread_mutex_unlock(&mutex);
    return within;
}

void memory_set_access(uint64_t address, uint64_t bytes, unsigned access)
{
    pthread_mutex_lock(&mutex);
    for (size_t i = first_area_behind(address);
         i < area_count && areas[i].address < address + bytes; i++) {
        areas[i].flags = access;
    }
    pthread_mutex_unlock(&mutex);
}

bool memory_is_device(uint64_t address)
{
    struct memory area;

    return memory_find(address, &area) && area.kind <= MEMORY_GLOBAL;
}

/* How many bytes there are from an address on, at least `bytes` or all; mapped areas in a row. */
static uint64_t bytes_from(uint64_t address, uint64_t bytes)
{
    uint64_t at = address;

    for (size_t i = first_area_behind(address);
         i < area_count && areas[i].address <= at && areas[i].kind != MEMORY_REGISTERED &&
         (at == address || areas[i].kind == MEMORY_MAPPED) && at - address < bytes;
         i++) {
        at = areas[i].address + areas[i].bytes;
        if (areas[i].kind != MEMORY_MAPPED) {
            break;
        }
    }
    return at - address;
}

CUresult memory_check(uint64_t address, uint64_t bytes)
{
    bool good;

    if (bytes == 0) {
        return CUDA_SUCCESS;
    }
    pthread_mutex_lock(&mutex);
    good = bytes_from(address, bytes) >= bytes;
    pthread_mutex_unlock(&mutex);
    return good ? CUDA_SUCCESS : CUDA_ERROR_INVALID_VALUE;
}

static void free_area(const struct memory *area)
{
    if (area->kind == MEMORY_DEVICE) {
        vgpu_mem_free(cuda.session, area->address);
    } else if (area->kind == MEMORY_HOST) {
        vgpu_pinned_free(cuda.session, (void *)(uintptr_t)area->address);
    } else if (area->kind == MEMORY_POOLED) {
        pool_return(area);
    }
}

void memory_release_of(const struct context *context)
{
    struct memory area;
    bool found;

    do {
        size_t i = 0;

        pthread_mutex_lock(&mutex);
        while (i < area_count && areas[i].context != context) {
            i++;
        }
        found = i < area_count;
        if (found) {
            area = areas[i];
            memmove(&areas[i], &areas[i + 1], (--area_count - i) * sizeof(*areas));
        }
        pthread_mutex_unlock(&mutex);
        if (found) {
            free_area(&area);
        }
    } while (found);
}

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

/* How often another place is asked for when the program has something of its own there. */
#define PLACES 8

CUresult memory_allocate(uint64_t bytes, uint64_t *address)
{
    uint64_t taken[PLACES];
    unsigned count = 0;
    CUresult r;

    do {
        r = result_of(vgpu_mem_alloc(cuda.session, bytes, address));
        if (r != CUDA_SUCCESS || reserve_addresses(*address, bytes)) {
            break;
        }
        taken[count++] = *address;
    } while (count < PLACES);
    if (r != CUDA_SUCCESS && count > 0) {
        /* No room for two: the last one has to do. */
        *address = taken[--count];
        r = CUDA_SUCCESS;
    } else if (count == PLACES) {
        count--;
    }
    while (count > 0) {
        vgpu_mem_free(cuda.session, taken[--count]);
    }
    return r;
}

/* Device memory ------------------------------------------------------------------------------- */

CUresult guest_cuMemGetInfo_v2(size_t *available, size_t *total)
{
    uint64_t free_bytes = 0, all = 0;
    CUresult r;

    if (!available || !total) {
        return CUDA_ERROR_INVALID_VALUE;
    }
    r = result_of(vgpu_mem_info(cuda.session, &free_bytes, &all));
    *available = free_bytes + pool_spare();
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

/* The program's own -------------------------------------------------------------------------- */

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

CUresult guest_cuMemAllocHost_v2(void **memory, size_t bytes)
{
    return guest_cuMemHostAlloc(memory, bytes, 0);
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

/* What a pointer is ------------------------------------------------------------------------- */

/* Bytes of an attribute's value; 0 for one that there is not. */
static size_t attribute_bytes(CUpointer_attribute attribute)
{
    switch (attribute) {
    case CU_POINTER_ATTRIBUTE_MEMORY_TYPE:
    case CU_POINTER_ATTRIBUTE_SYNC_MEMOPS:
    case CU_POINTER_ATTRIBUTE_IS_MANAGED:
    case CU_POINTER_ATTRIBUTE_DEVICE_ORDINAL:
    case CU_POINTER_ATTRIBUTE_IS_LEGACY_CUDA_IPC_CAPABLE:
    case CU_POINTER_ATTRIBUTE_MAPPED:
    case CU_POINTER_ATTRIBUTE_IS_GPU_DIRECT_RDMA_CAPABLE:
    case CU_POINTER_ATTRIBUTE_ACCESS_FLAGS:
        return 4;
    case CU_POINTER_ATTRIBUTE_CONTEXT:
    case CU_POINTER_ATTRIBUTE_DEVICE_POINTER:
    case CU_POINTER_ATTRIBUTE_HOST_POINTER:
    case CU_POINTER_ATTRIBUTE_BUFFER_ID:
    case CU_POINTER_ATTRIBUTE_RANGE_START_ADDR:
    case CU_POINTER_ATTRIBUTE_RANGE_SIZE:
    case CU_POINTER_ATTRIBUTE_ALLOWED_HANDLE_TYPES:
    case CU_POINTER_ATTRIBUTE_MEMPOOL_HANDLE:
    case CU_POINTER_ATTRIBUTE_MAPPING_SIZE:
    case CU_POINTER_ATTRIBUTE_MAPPING_BASE_ADDR:
    case CU_POINTER_ATTRIBUTE_MEMORY_BLOCK_ID:
        return 8;
    default:
        return 0;
    }
}

static CUresult pointer_attribute(const struct memory *area, CUpointer_attribute attribute,
                                  uint64_t address, uint64_t *value)
{
    *value = 0;
    switch (attribute) {
    case CU_POINTER_ATTRIBUTE_CONTEXT:
        *value = (uint64_t)(uintptr_t)area->context;
        break;
    case CU_POINTER_ATTRIBUTE_MEMORY_TYPE:
        *value = area->kind >= MEMORY_HOST ? CU_MEMORYTYPE_HOST : CU_MEMORYTYPE_DEVICE;
        break;
    case CU_POINTER_ATTRIBUTE_DEVICE_POINTER:
        *value = address;
        return area->kind == MEMORY_REGISTERED ? CUDA_ERROR_INVALID_VALUE : CUDA_SUCCESS;
    case CU_POINTER_ATTRIBUTE_HOST_POINTER:
        *value = address;
        return area->kind < MEMORY_HOST ? CUDA_ERROR_INVALID_VALUE : CUDA_SUCCESS;
    case CU_POINTER_ATTRIBUTE_BUFFER_ID:
    case CU_POINTER_ATTRIBUTE_MEMORY_BLOCK_ID:
        *value = area->id;
        break;
    case CU_POINTER_ATTRIBUTE_RANGE_START_ADDR:
        *value = area->range_bytes > 0 ? area->range : area->address;
        break;
    case CU_POINTER_ATTRIBUTE_RANGE_SIZE:
        *value = area->range_bytes > 0 ? area->range_bytes : area->bytes;
        break;
    case CU_POINTER_ATTRIBUTE_MAPPING_BASE_ADDR:
        *value = area->address;
        break;
    case CU_POINTER_ATTRIBUTE_MAPPING_SIZE:
        *value = area->bytes;
        break;
    case CU_POINTER_ATTRIBUTE_MEMPOOL_HANDLE:
        *value = (uint64_t)(uintptr_t)area->pool;
        break;
    case CU_POINTER_ATTRIBUTE_MAPPED:
        *value = 1;
        break;
    case CU_POINTER_ATTRIBUTE_ACCESS_FLAGS:
        *value = area->kind == MEMORY_MAPPED ? area->flags : CU_MEM_ACCESS_FLAGS_PROT_READWRITE;
        break;
    default:
        break;
    }
    return CUDA_SUCCESS;
}

CUresult guest_cuPointerGetAttribute(void *data, CUpointer_attribute attribute, CUdeviceptr address)
{
    const size_t bytes = attribute_bytes(attribute);
    struct memory area;
    uint64_t value;
    CUresult r;

    if (!data || bytes == 0 || !memory_find(address, &area)) {
        return CUDA_ERROR_INVALID_VALUE;
    }
    r = pointer_attribute(&area, attribute, address, &value);
    if (r == CUDA_SUCCESS) {
        memcpy(data, &value, bytes);
    }
    return r;
}

/* Attributes that a pointer does not have are 0. */
CUresult guest_cuPointerGetAttributes(unsigned int count, CUpointer_attribute *attributes,
                                      void **data, CUdeviceptr address)
{
    struct memory area;
    const bool found = memory_find(address, &area);

    if (count == 0 || !attributes || !data) {
        return CUDA_ERROR_INVALID_VALUE;
    }
    for (unsigned i = 0; i < count; i++) {
        const size_t bytes = attribute_bytes(attributes[i]);
        uint64_t value = 0;

        if (bytes == 0 || !data[i]) {
            return CUDA_ERROR_INVALID_VALUE;
        }
        if (found && pointer_attribute(&area, attributes[i], address, &value) != CUDA_SUCCESS) {
            value = 0;
        }
        if (!found && attributes[i] == CU_POINTER_ATTRIBUTE_DEVICE_ORDINAL) {
            value = (uint32_t)-2;
        }
        memcpy(data[i], &value, bytes);
    }
    return CUDA_SUCCESS;
}

/* Synchronous copies always are, so there is nothing to set. */
CUresult guest_cuPointerSetAttribute(const void *value, CUpointer_attribute attribute,
                                     CUdeviceptr address)
{
    struct memory area;

    return value && attribute == CU_POINTER_ATTRIBUTE_SYNC_MEMOPS && memory_find(address, &area)
               ? CUDA_SUCCESS
               : CUDA_ERROR_INVALID_VALUE;
}
