/* SPDX-License-Identifier: MIT */
/*
 * Calls of api/ that are about memory: what is freed at leisure, and addresses and memory apart
 * from each other. Memory counts against the VM's from when it is created until neither a handle
 * nor a mapping holds it, whatever the guest says of either.
 */
#include <stdlib.h>

#include "common/clock.h"
#include "common/shared.h"
#include "worker/api-calls.h"
#include "worker/ring-session.h"

/* Of addresses that are reserved; the driver has less. */
#define ALIGNMENT_MAX (UINT64_C(1) << 40)
#define COMPRESSION_MAX UINT8_MAX
/* Mappings of a session: what is mapped twice costs the GPU tables, and no quota. */
#define MAPPINGS_MAX 65536u

struct allocation {
    uint64_t memory; /* what the backend calls it */
    uint64_t bytes;
    unsigned references; /* its handle, and mappings */
};

struct mapping {
    struct mapping *next;
    uint64_t address;
    struct allocation *allocation;
};

/* Dropped memory ----------------------------------------------------------------------------- */

void memory_free_dropped(struct ring_session *s)
{
    if (s->memory.dropped.count == 0) {
        return;
    }
    ring_session_poll_flight(s);
    while (s->memory.dropped.count > 0 && flight_idle(&s->flight) && s->gpu->ops->room(s->gpu)) {
        const uint64_t address = s->memory.dropped.address[--s->memory.dropped.count];

        if (s->gpu->ops->mem_free(s->gpu, address) == VGPU_GPU_SUCCESS) {
            sharing_memory_freed(s, address);
        }
    }
}

enum vgpu_gpu_error host_memory_drop(struct api_serve *serve, CUdeviceptr address)
{
    struct session_memory *memory = &serve->session->memory;

    /* There are no more to drop than were allocated. */
    if (memory->dropped.count >= memory->ledger.count) {
        return VGPU_GPU_INVALID_VALUE;
    }
    if (memory->dropped.count == memory->dropped.room) {
        const size_t room = 2 * memory->dropped.room + 16;
        uint64_t *more = realloc(memory->dropped.address, room * sizeof(*more));

        if (!more) {
            return VGPU_GPU_OUT_OF_MEMORY;
        }
        memory->dropped.address = more;
        memory->dropped.room = room;
    }
    memory->dropped.address[memory->dropped.count++] = address;
    return VGPU_GPU_SUCCESS;
}

/* Addresses ---------------------------------------------------------------------------------- */

enum vgpu_gpu_error host_address_reserve(struct api_serve *serve, CUdeviceptr *address,
                                         size_t bytes, size_t alignment, CUdeviceptr wanted)
{
    uint64_t made = 0;
    enum vgpu_gpu_error error;

    if (!serve->gpu->ops->range_reserve) {
        return VGPU_GPU_NOT_SUPPORTED;
    }
    if (bytes == 0 || alignment > ALIGNMENT_MAX || (alignment & (alignment - 1)) != 0) {
        return VGPU_GPU_INVALID_VALUE;
    }
    error = serve->gpu->ops->range_reserve(serve->gpu, bytes, alignment, wanted, &made);
    *address = made;
    return error;
}

enum vgpu_gpu_error host_address_free(struct api_serve *serve, CUdeviceptr address, size_t bytes)
{
    return serve->gpu->ops->range_free ? serve->gpu->ops->range_free(serve->gpu, address, bytes)
                                       : VGPU_GPU_NOT_SUPPORTED;
}

/* Memory ------------------------------------------------------------------------------------- */

static void drop_reference(struct ring_session *s, struct allocation *allocation)
{
    if (--allocation->references == 0) {
        ledger_return(&s->memory.ledger, allocation->bytes);
        free(allocation);
    }
}

enum vgpu_gpu_error host_memory_create(struct api_serve *serve, uint64_t *allocation, size_t bytes,
                                       unsigned compression)
{
    struct ring_session *s = serve->session;
    const struct gpu_ops *ops = s->gpu->ops;
    struct allocation *made;
    enum vgpu_gpu_error error;

    if (!ops->memory_create) {
        return VGPU_GPU_NOT_SUPPORTED;
    }
    if (bytes == 0 || compression > COMPRESSION_MAX) {
        return VGPU_GPU_INVALID_VALUE;
    }
    memory_free_dropped(s);
    made = calloc(1, sizeof(*made));
    if (!made || !ledger_reserve(&s->memory.ledger, bytes)) {
        free(made);
        return VGPU_GPU_OUT_OF_MEMORY;
    }
    made->bytes = bytes;
    made->references = 1;
    error = ops->memory_create(s->gpu, bytes, compression, &made->memory);
    if (error != VGPU_GPU_SUCCESS) {
        drop_reference(s, made);
        return error;
    }
    *allocation = handles_add(&s->handles, HANDLE_ALLOCATION, made, 0);
    if (*allocation == 0) {
        ops->memory_release(s->gpu, made->memory);
        drop_reference(s, made);
        return VGPU_GPU_OUT_OF_MEMORY;
    }
    return VGPU_GPU_SUCCESS;
}

/* Where it is mapped it stays. */
enum vgpu_gpu_error host_memory_release(struct api_serve *serve, struct allocation *allocation)
{
    struct ring_session *s = serve->session;
    const enum vgpu_gpu_error error = s->gpu->ops->memory_release(s->gpu, allocation->memory);

    if (error == VGPU_GPU_SUCCESS) {
        handles_remove(&s->handles, handles_find(&s->handles, HANDLE_ALLOCATION, allocation, 0));
        drop_reference(s, allocation);
    }
    return error;
}

/* All of the memory, or none: a part of it would be a mapping that this side cannot count. */
enum vgpu_gpu_error host_memory_map(struct api_serve *serve, CUdeviceptr address, size_t bytes,
                                    struct allocation *allocation)
{
    struct ring_session *s = serve->session;
    struct mapping *mapping = calloc(1, sizeof(*mapping));
    enum vgpu_gpu_error error;

    if (!mapping || bytes != allocation->bytes || s->memory.mapping_count >= MAPPINGS_MAX) {
        free(mapping);
        return bytes != allocation->bytes ? VGPU_GPU_INVALID_VALUE : VGPU_GPU_OUT_OF_MEMORY;
    }
    error = s->gpu->ops->memory_map(s->gpu, address, bytes, allocation->memory);
    if (error != VGPU_GPU_SUCCESS) {
        free(mapping);
        return error;
    }
    *mapping = (struct mapping){s->memory.mappings, address, allocation};
    s->memory.mappings = mapping;
    s->memory.mapping_count++;
    allocation->references++;
    return VGPU_GPU_SUCCESS;
}

/* Bytes of the mappings that lie within the addresses. */
static uint64_t bytes_mapped(const struct ring_session *s, uint64_t address, uint64_t bytes)
{
    uint64_t sum = 0;

    for (const struct mapping *m = s->memory.mappings; m; m = m->next) {
        if (m->address >= address && m->allocation->bytes <= bytes &&
            m->address - address <= bytes - m->allocation->bytes) {
            sum += m->allocation->bytes;
        }
    }
    return sum;
}

enum vgpu_gpu_error host_memory_unmap(struct api_serve *serve, CUdeviceptr address, size_t bytes)
{
    struct ring_session *s = serve->session;
    struct mapping **place = &s->memory.mappings;
    enum vgpu_gpu_error error;

    if (bytes == 0 || bytes_mapped(s, address, bytes) != bytes) {
        return VGPU_GPU_INVALID_VALUE;
    }
    error = s->gpu->ops->memory_unmap(s->gpu, address, bytes);
    while (error == VGPU_GPU_SUCCESS && *place) {
        struct mapping *mapping = *place;

        if (mapping->address < address || mapping->address - address >= bytes) {
            place = &mapping->next;
            continue;
        }
        *place = mapping->next;
        s->memory.mapping_count--;
        drop_reference(s, mapping->allocation);
        free(mapping);
    }
    return error;
}

/* What is created is still the VM's: the GPU frees it when the process has ended. */
void memory_release_all(struct ring_session *s)
{
    struct allocation *allocation;
    uint32_t position = 0;

    while (s->memory.mappings) {
        struct mapping *mapping = s->memory.mappings;

        s->memory.mappings = mapping->next;
        allocation = mapping->allocation;
        free(mapping);
        if (--allocation->references == 0) {
            free(allocation);
        }
    }
    while ((allocation = handles_next(&s->handles, HANDLE_ALLOCATION, &position)) != NULL) {
        free(allocation);
    }
    free(s->memory.dropped.address);
    ledger_release(&s->memory.ledger);
}
