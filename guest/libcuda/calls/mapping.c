/* SPDX-License-Identifier: MIT */
/*
 * Addresses and memory apart from each other: a program reserves the ones, creates the other, and
 * maps it there. The host does each as it is asked to; what may be mapped where is known here, so
 * that mistakes are answered as CUDA has it.
 */
#include <pthread.h>
#include <stdlib.h>

#include "guest/libcuda/calls/guest-calls.h"
#include "guest/libcuda/model/memory.h"
#include "guest/libcuda/model/mempool.h"
#include "guest/libcuda/state/object.h"
#include "guest/libcuda/state/reserve.h"
#include "guest/libcuda/state/state.h"
#include "guest/libcuda/wire/wire-calls.h"

/* Memory, which lasts while the program has a handle, or it is mapped. */
struct allocation {
    struct object object;
    uint64_t bytes;
    CUmemAllocationProp prop;
    unsigned handles, maps;
};

/* Addresses that were reserved. */
struct range {
    struct range *next;
    uint64_t address, bytes;
};

static pthread_mutex_t mutex = PTHREAD_MUTEX_INITIALIZER; /* of all that follows */
static struct range *ranges;
static size_t least, best; /* granularities; 0: not asked yet */

/* The range that holds all of these addresses; NULL when there is none. With the mutex. */
static struct range **find_range(uint64_t address, uint64_t bytes)
{
    struct range **place = &ranges;

    while (*place && (address < (*place)->address || bytes > (*place)->bytes ||
                      address - (*place)->address > (*place)->bytes - bytes)) {
        place = &(*place)->next;
    }
    return place;
}

static CUresult know_granularity(void)
{
    CUresult r = CUDA_SUCCESS;

    pthread_mutex_lock(&mutex);
    if (least == 0) {
        r = call_memory_granularity(&least, &best);
    }
    pthread_mutex_unlock(&mutex);
    return r;
}

/* Sizes and addresses are whole granules. */
static CUresult check_size(uint64_t address, uint64_t bytes)
{
    const CUresult r = know_granularity();

    if (r != CUDA_SUCCESS) {
        return r;
    }
    return bytes > 0 && bytes % least == 0 && address % least == 0 ? CUDA_SUCCESS
                                                                   : CUDA_ERROR_INVALID_VALUE;
}

static struct allocation *find_handle(CUmemGenericAllocationHandle handle)
{
    struct allocation *allocation = object_find(HANDLE_ALLOCATION, handle);

    return allocation && allocation->handles > 0 ? allocation : NULL;
}

/* CUDA lets a program release its handle while the memory is mapped. With the mutex. */
static CUresult drop_if_unused(struct allocation *allocation)
{
    const CUallocation handle = (CUallocation)(uintptr_t)allocation->object.handle;
    CUresult r;

    if (allocation->handles > 0 || allocation->maps > 0) {
        return CUDA_SUCCESS;
    }
    r = call_memory_release(handle);
    object_drop(&allocation->object);
    return r;
}

/* Memory of the device's that stays where it is, for this process alone. */
static CUresult check_prop(const CUmemAllocationProp *prop)
{
    if (!prop || prop->type == CU_MEM_ALLOCATION_TYPE_INVALID ||
        prop->location.type == CU_MEM_LOCATION_TYPE_INVALID) {
        return CUDA_ERROR_INVALID_VALUE;
    }
    if (prop->type != CU_MEM_ALLOCATION_TYPE_PINNED ||
        prop->location.type != CU_MEM_LOCATION_TYPE_DEVICE) {
        return REFUSE("cuMemCreate of memory that is not the device's");
    }
    /* Programs ask for descriptors in advance and may never need one; to export one is refused. */
    if (prop->requestedHandleTypes & ~(unsigned)CU_MEM_HANDLE_TYPE_POSIX_FILE_DESCRIPTOR) {
        return REFUSE("cuMemCreate for several processes");
    }
    return prop->location.id == 0 ? CUDA_SUCCESS : CUDA_ERROR_INVALID_DEVICE;
}

/* Addresses ----------------------------------------------------------------------------------- */

/* How often other addresses are asked for when the program has something of its own there. */
#define PLACES 8

/* Addresses that are reserved, if there are such. */
static CUresult reserve_range(CUdeviceptr *address, size_t bytes, size_t alignment,
                              CUdeviceptr wanted)
{
    CUdeviceptr taken[PLACES];
    unsigned count = 0;
    CUresult r = call_address_reserve(address, bytes, alignment, wanted);

    while (r == CUDA_SUCCESS && !reserve_addresses(*address, bytes) && count < PLACES) {
        taken[count++] = *address;
        r = call_address_reserve(address, bytes, alignment, 0);
    }
    if (r != CUDA_SUCCESS && count > 0) {
        *address = taken[--count];
        r = CUDA_SUCCESS;
    }
    while (count > 0) {
        call_address_free(taken[--count], bytes);
    }
    return r;
}

CUresult guest_cuMemAddressReserve(CUdeviceptr *address, size_t bytes, size_t alignment,
                                   CUdeviceptr wanted, unsigned long long flags)
{
    struct range *range;
    CUresult r = check_size(0, bytes);

    if (r == CUDA_SUCCESS && (!address || flags != 0 || (alignment & (alignment - 1)) != 0)) {
        r = CUDA_ERROR_INVALID_VALUE;
    }
    if (r != CUDA_SUCCESS) {
        return r;
    }
    range = calloc(1, sizeof(*range));
    if (!range) {
        return CUDA_ERROR_OUT_OF_MEMORY;
    }
    r = reserve_range(address, bytes, alignment, wanted);
    if (r != CUDA_SUCCESS) {
        free(range);
        return r;
    }
    range->address = *address;
    range->bytes = bytes;
    pthread_mutex_lock(&mutex);
    range->next = ranges;
    ranges = range;
    pthread_mutex_unlock(&mutex);
    return CUDA_SUCCESS;
}

/* They stay reserved in this process: the host may give them to the next range. */
CUresult guest_cuMemAddressFree(CUdeviceptr address, size_t bytes)
{
    CUresult r = CUDA_ERROR_INVALID_VALUE;
    struct range **place, *range;

    pthread_mutex_lock(&mutex);
    place = find_range(address, bytes);
    range = *place;
    if (range && range->address == address && range->bytes == bytes &&
        !memory_within(address, bytes)) {
        *place = range->next;
        free(range);
        r = call_address_free(address, bytes);
    }
    pthread_mutex_unlock(&mutex);
    return r;
}

/* Memory -------------------------------------------------------------------------------------- */

CUresult guest_cuMemGetAllocationGranularity(size_t *granularity, const CUmemAllocationProp *prop,
                                             CUmemAllocationGranularity_flags option)
{
    /* Of properties that say nothing yet the driver answers too. */
    const bool blank = prop && prop->type == CU_MEM_ALLOCATION_TYPE_INVALID &&
                       prop->location.type == CU_MEM_LOCATION_TYPE_INVALID;
    CUresult r = granularity && prop ? CUDA_SUCCESS : CUDA_ERROR_INVALID_VALUE;

    if (r == CUDA_SUCCESS && !blank) {
        r = check_prop(prop);
    }
    if (r == CUDA_SUCCESS && option > CU_MEM_ALLOC_GRANULARITY_RECOMMENDED) {
        r = CUDA_ERROR_INVALID_VALUE;
    }
    if (r == CUDA_SUCCESS) {
        r = know_granularity();
    }
    if (r == CUDA_SUCCESS) {
        *granularity = option == CU_MEM_ALLOC_GRANULARITY_MINIMUM ? least : best;
    }
    return r;
}

CUresult guest_cuMemCreate(CUmemGenericAllocationHandle *handle, size_t bytes,
                           const CUmemAllocationProp *prop, unsigned long long flags)
{
    struct allocation *made;
    CUallocation allocation = NULL;
    CUresult r = handle && flags == 0 ? check_prop(prop) : CUDA_ERROR_INVALID_VALUE;

    if (r == CUDA_SUCCESS) {
        r = check_size(0, bytes);
    }
    if (r != CUDA_SUCCESS) {
        return r;
    }
    made = calloc(1, sizeof(*made));
    if (!made) {
        return CUDA_ERROR_OUT_OF_MEMORY;
    }
    r = call_memory_create(&allocation, bytes, prop->allocFlags.compressionType);
    if (r == CUDA_ERROR_OUT_OF_MEMORY && pool_give_up()) {
        r = call_memory_create(&allocation, bytes, prop->allocFlags.compressionType);
    }
    if (r == CUDA_SUCCESS && !object_add(&made->object, (uint64_t)(uintptr_t)allocation, NULL)) {
        call_memory_release(allocation);
        r = CUDA_ERROR_OUT_OF_MEMORY;
    }
    if (r != CUDA_SUCCESS) {
        free(made);
        return r;
    }
    made->bytes = bytes;
    made->prop = *prop;
    made->handles = 1;
    *handle = made->object.handle;
    return CUDA_SUCCESS;
}

CUresult guest_cuMemRelease(CUmemGenericAllocationHandle handle)
{
    struct allocation *allocation;
    CUresult r = CUDA_ERROR_INVALID_VALUE;

    pthread_mutex_lock(&mutex);
    allocation = find_handle(handle);
    if (allocation) {
        allocation->handles--;
        r = drop_if_unused(allocation);
    }
    pthread_mutex_unlock(&mutex);
    return r;
}

CUresult guest_cuMemGetAllocationPropertiesFromHandle(CUmemAllocationProp *prop,
                                                      CUmemGenericAllocationHandle handle)
{
    const struct allocation *allocation;

    if (!prop) {
        return CUDA_ERROR_INVALID_VALUE;
    }
    pthread_mutex_lock(&mutex);
    allocation = find_handle(handle);
    if (allocation) {
        *prop = allocation->prop;
    }
    pthread_mutex_unlock(&mutex);
    return allocation ? CUDA_SUCCESS : CUDA_ERROR_INVALID_VALUE;
}

CUresult guest_cuMemRetainAllocationHandle(CUmemGenericAllocationHandle *handle, void *address)
{
    struct allocation *allocation = NULL;
    struct memory area;

    if (!handle || !memory_find((uint64_t)(uintptr_t)address, &area) ||
        area.kind != MEMORY_MAPPED) {
        return CUDA_ERROR_INVALID_VALUE;
    }
    pthread_mutex_lock(&mutex);
    allocation = object_find(HANDLE_ALLOCATION, area.owner);
    if (allocation) {
        allocation->handles++;
        *handle = area.owner;
    }
    pthread_mutex_unlock(&mutex);
    return allocation ? CUDA_SUCCESS : CUDA_ERROR_INVALID_VALUE;
}

/* Mapping ------------------------------------------------------------------------------------- */

/* With the mutex. */
static CUresult map_allocation(uint64_t address, uint64_t bytes,
                               CUmemGenericAllocationHandle handle)
{
    struct allocation *allocation = find_handle(handle);
    const struct range *range = *find_range(address, bytes);
    CUresult r;

    if (!allocation || !range || bytes > allocation->bytes || memory_within(address, bytes)) {
        return CUDA_ERROR_INVALID_VALUE;
    }
    if (bytes < allocation->bytes) {
        return REFUSE("cuMemMap of a part of the memory");
    }
    r = call_memory_map(address, bytes, (CUallocation)(uintptr_t)handle);
    if (r == CUDA_SUCCESS && !memory_add((struct memory){.address = address,
                                                         .bytes = bytes,
                                                         .owner = handle,
                                                         .range = range->address,
                                                         .range_bytes = range->bytes,
                                                         .kind = MEMORY_MAPPED})) {
        call_memory_unmap(address, bytes);
        r = CUDA_ERROR_OUT_OF_MEMORY;
    }
    allocation->maps += r == CUDA_SUCCESS;
    return r;
}

CUresult guest_cuMemMap(CUdeviceptr address, size_t bytes, size_t offset,
                        CUmemGenericAllocationHandle handle, unsigned long long flags)
{
    CUresult r = flags == 0 && offset == 0 ? check_size(address, bytes) : CUDA_ERROR_INVALID_VALUE;

    if (r == CUDA_SUCCESS) {
        pthread_mutex_lock(&mutex);
        r = map_allocation(address, bytes, handle);
        pthread_mutex_unlock(&mutex);
    }
    return r;
}

/* Whether just whole mappings lie in a row: CUDA splits none when it unmaps. */
static bool are_mappings(uint64_t address, uint64_t bytes)
{
    const uint64_t end = address + bytes;
    struct memory area;

    while (address < end && memory_find(address, &area) && area.kind == MEMORY_MAPPED &&
           area.address == address && area.bytes <= end - address) {
        address += area.bytes;
    }
    return address == end;
}

/* Forgets mappings, and with them memory that nothing else holds. With the mutex. */
static CUresult forget_mappings(uint64_t address, uint64_t bytes)
{
    const uint64_t end = address + bytes;
    CUresult r = CUDA_SUCCESS;
    struct memory area;

    while (address < end && memory_find(address, &area)) {
        struct allocation *allocation = object_find(HANDLE_ALLOCATION, area.owner);

        memory_drop(address);
        address += area.bytes;
        if (allocation) {
            CUresult dropped;

            allocation->maps--;
            dropped = drop_if_unused(allocation);
            r = r == CUDA_SUCCESS ? dropped : r;
        }
    }
    return r;
}

CUresult guest_cuMemUnmap(CUdeviceptr address, size_t bytes)
{
    CUresult r = check_size(address, bytes);

    if (r != CUDA_SUCCESS) {
        return r;
    }
    pthread_mutex_lock(&mutex);
    r = are_mappings(address, bytes) ? call_memory_unmap(address, bytes) : CUDA_ERROR_INVALID_VALUE;
    if (r == CUDA_SUCCESS) {
        r = forget_mappings(address, bytes);
    }
    pthread_mutex_unlock(&mutex);
    return r;
}

/* Access -------------------------------------------------------------------------------------- */

/* With the mutex. */
static CUresult set_access(uint64_t address, uint64_t bytes, const CUmemAccessDesc *access)
{
    CUresult r;

    if (access->location.type != CU_MEM_LOCATION_TYPE_DEVICE) {
        return REFUSE("cuMemSetAccess for what is not the device");
    }
    if (access->location.id != 0) {
        return CUDA_ERROR_INVALID_DEVICE;
    }
    r = call_memory_access(address, bytes, access->flags);
    if (r == CUDA_SUCCESS) {
        memory_set_access(address, bytes, access->flags);
    }
    return r;
}

CUresult guest_cuMemSetAccess(CUdeviceptr address, size_t bytes, const CUmemAccessDesc *access,
                              size_t count)
{
    CUresult r = access && count > 0 ? check_size(address, bytes) : CUDA_ERROR_INVALID_VALUE;

    if (r != CUDA_SUCCESS) {
        return r;
    }
    pthread_mutex_lock(&mutex);
    r = are_mappings(address, bytes) ? CUDA_SUCCESS : CUDA_ERROR_INVALID_VALUE;
    for (size_t i = 0; r == CUDA_SUCCESS && i < count; i++) {
        r = set_access(address, bytes, &access[i]);
    }
    pthread_mutex_unlock(&mutex);
    return r;
}

CUresult guest_cuMemGetAccess(unsigned long long *flags, const CUmemLocation *location,
                              CUdeviceptr address)
{
    struct memory area;

    if (address != 0 && location->type == CU_MEM_LOCATION_TYPE_INVALID) {
        return CUDA_ERROR_INVALID_DEVICE;
    }
    if (!memory_find(address, &area) || area.kind != MEMORY_MAPPED) {
        return CUDA_ERROR_INVALID_VALUE;
    }
    *flags = location->type == CU_MEM_LOCATION_TYPE_DEVICE && location->id == 0
                 ? area.flags
                 : CU_MEM_ACCESS_FLAGS_PROT_NONE;
    return CUDA_SUCCESS;
}
