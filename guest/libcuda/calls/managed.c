/* SPDX-License-Identifier: MIT */
/*
 * What programs say of managed memory, which they do to have it where it is used next. Here it
 * stays where it is (cuMemAllocManaged() in memory.c), so these calls check what they are given as
 * NVIDIA's driver does, and remember it for those that ask.
 *
 * The driver remembers for each page, this library for an allocation: what is said of a part of one
 * holds for all of it.
 */
#include <string.h>

#include "guest/libcuda/calls/families.h"
#include "guest/libcuda/calls/guest-calls.h"
#include "guest/libcuda/model/device.h"
#include "guest/libcuda/model/memory.h"
#include "guest/libcuda/model/stream.h"
#include "guest/libcuda/state/state.h"

/* Bytes of an attribute, and of each element of the one that is a list. */
#define ATTRIBUTE_BYTES 4u

/* The allocation that has these bytes. */
static bool find_managed(CUdeviceptr address, size_t bytes, struct memory *area)
{
    return bytes > 0 && memory_find(address, area) && area->kind == MEMORY_MANAGED &&
           bytes <= area->bytes - (address - area->address);
}

/* SUCCESS for a place that there is. */
static CUresult check_place(CUmemLocation place, CUresult no_device)
{
    switch (place.type) {
    case CU_MEM_LOCATION_TYPE_DEVICE:
        return device_valid(place.id) ? CUDA_SUCCESS : no_device;
    case CU_MEM_LOCATION_TYPE_HOST:
    case CU_MEM_LOCATION_TYPE_HOST_NUMA:
    case CU_MEM_LOCATION_TYPE_HOST_NUMA_CURRENT:
        return CUDA_SUCCESS;
    default:
        return CUDA_ERROR_INVALID_VALUE;
    }
}

CUmemLocation managed_place(CUdevice device)
{
    return device == CU_DEVICE_CPU
               ? (CUmemLocation){.type = CU_MEM_LOCATION_TYPE_HOST}
               : (CUmemLocation){.type = CU_MEM_LOCATION_TYPE_DEVICE, .id = device};
}

/* Hints -------------------------------------------------------------------------------------- */

CUresult managed_advise(CUdeviceptr address, size_t bytes, CUmem_advise advice, CUmemLocation place)
{
    const bool on_device = place.type == CU_MEM_LOCATION_TYPE_DEVICE;
    struct memory_hints *hints;
    struct memory area;

    if (!find_managed(address, bytes, &area)) {
        return CUDA_ERROR_INVALID_VALUE;
    }
    hints = &area.hints;
    switch (advice) {
    case CU_MEM_ADVISE_SET_READ_MOSTLY:
    case CU_MEM_ADVISE_UNSET_READ_MOSTLY:
        hints->read_mostly = advice == CU_MEM_ADVISE_SET_READ_MOSTLY;
        break;
    case CU_MEM_ADVISE_UNSET_PREFERRED_LOCATION:
        hints->preferred = (CUmemLocation){0};
        break;
    case CU_MEM_ADVISE_SET_PREFERRED_LOCATION:
    case CU_MEM_ADVISE_SET_ACCESSED_BY:
    case CU_MEM_ADVISE_UNSET_ACCESSED_BY:
        if (check_place(place, CUDA_ERROR_INVALID_VALUE) != CUDA_SUCCESS) {
            return CUDA_ERROR_INVALID_VALUE;
        }
        if (advice == CU_MEM_ADVISE_SET_PREFERRED_LOCATION) {
            hints->preferred = place;
        } else {
            *(on_device ? &hints->by_device : &hints->by_host) = advice ==
                                                                 CU_MEM_ADVISE_SET_ACCESSED_BY;
        }
        break;
    default:
        return CUDA_ERROR_INVALID_VALUE;
    }
    memory_set_hints(area.address, hints);
    return CUDA_SUCCESS;
}

/* Nothing is posted to the stream, which is one that may be used. */
CUresult managed_prefetch(CUdeviceptr address, size_t bytes, CUmemLocation place, unsigned flags,
                          uint64_t stream)
{
    struct memory area;
    CUresult r;

    (void)stream;
    if (place.type == CU_MEM_LOCATION_TYPE_DEVICE && !device_valid(place.id)) {
        return CUDA_ERROR_INVALID_DEVICE;
    }
    if (flags != 0 || !find_managed(address, bytes, &area)) {
        return CUDA_ERROR_INVALID_VALUE;
    }
    r = check_place(place, CUDA_ERROR_INVALID_DEVICE);
    if (r == CUDA_SUCCESS) {
        area.hints.prefetched = place;
        memory_set_hints(area.address, &area.hints);
    }
    return r;
}

/* Asking for them ----------------------------------------------------------------------------- */

/* A place as a device's number: INVALID for none, and for a node of the host's. */
static int place_number(CUmemLocation place)
{
    switch (place.type) {
    case CU_MEM_LOCATION_TYPE_DEVICE:
        return place.id;
    case CU_MEM_LOCATION_TYPE_HOST:
        return CU_DEVICE_CPU;
    default:
        return CU_DEVICE_INVALID;
    }
}

/* The number within places of its type. */
static int place_id(CUmemLocation place)
{
    return place.type == CU_MEM_LOCATION_TYPE_HOST_NUMA ? place.id : place_number(place);
}

/* A list: those who have the memory mapped, then INVALID up to its end. */
static void list_accessors(const struct memory_hints *hints, int *list, size_t count)
{
    size_t used = 0;

    if (hints->by_device && used < count) {
        list[used++] = 0;
    }
    if (hints->by_host && used < count) {
        list[used++] = CU_DEVICE_CPU;
    }
    while (used < count) {
        list[used++] = CU_DEVICE_INVALID;
    }
}

/* One that is a number, or -1 for one that there is not. */
static CUresult range_number(const struct memory_hints *hints, CUmem_range_attribute attribute,
                             int *number)
{
    switch (attribute) {
    case CU_MEM_RANGE_ATTRIBUTE_READ_MOSTLY:
        *number = hints->read_mostly;
        return CUDA_SUCCESS;
    case CU_MEM_RANGE_ATTRIBUTE_PREFERRED_LOCATION:
        *number = place_number(hints->preferred);
        return CUDA_SUCCESS;
    case CU_MEM_RANGE_ATTRIBUTE_LAST_PREFETCH_LOCATION:
        *number = place_number(hints->prefetched);
        return CUDA_SUCCESS;
    case CU_MEM_RANGE_ATTRIBUTE_PREFERRED_LOCATION_TYPE:
        *number = (int)hints->preferred.type;
        return CUDA_SUCCESS;
    case CU_MEM_RANGE_ATTRIBUTE_PREFERRED_LOCATION_ID:
        *number = place_id(hints->preferred);
        return CUDA_SUCCESS;
    case CU_MEM_RANGE_ATTRIBUTE_LAST_PREFETCH_LOCATION_TYPE:
        *number = (int)hints->prefetched.type;
        return CUDA_SUCCESS;
    case CU_MEM_RANGE_ATTRIBUTE_LAST_PREFETCH_LOCATION_ID:
        *number = place_id(hints->prefetched);
        return CUDA_SUCCESS;
    default:
        return CUDA_ERROR_INVALID_VALUE;
    }
}

CUresult guest_cuMemRangeGetAttribute(void *data, size_t data_bytes,
                                      CUmem_range_attribute attribute, CUdeviceptr address,
                                      size_t bytes)
{
    struct memory area;
    int number;
    CUresult r;

    if (data_bytes == 0 || data_bytes % ATTRIBUTE_BYTES != 0 ||
        !find_managed(address, bytes, &area)) {
        return CUDA_ERROR_INVALID_VALUE;
    }
    if (attribute == CU_MEM_RANGE_ATTRIBUTE_ACCESSED_BY) {
        list_accessors(&area.hints, data, data_bytes / ATTRIBUTE_BYTES);
        return CUDA_SUCCESS;
    }
    r = range_number(&area.hints, attribute, &number);
    if (r == CUDA_SUCCESS && data_bytes != ATTRIBUTE_BYTES) {
        r = CUDA_ERROR_INVALID_VALUE;
    }
    if (r == CUDA_SUCCESS) {
        memcpy(data, &number, sizeof(number));
    }
    return r;
}

CUresult guest_cuMemRangeGetAttributes(void **data, size_t *data_bytes,
                                       CUmem_range_attribute *attributes, size_t count,
                                       CUdeviceptr address, size_t bytes)
{
    CUresult r = count > 0 ? CUDA_SUCCESS : CUDA_ERROR_INVALID_VALUE;

    for (size_t i = 0; r == CUDA_SUCCESS && i < count; i++) {
        r = data[i] ? guest_cuMemRangeGetAttribute(data[i], data_bytes[i], attributes[i], address,
                                                   bytes)
                    : CUDA_ERROR_INVALID_VALUE;
    }
    return r;
}

/* Streams ------------------------------------------------------------------------------------- */

/*
 * Whose kernels may use the memory while the host does: here all may, at any time. Only a whole
 * allocation can be attached; 0 bytes are that too.
 */
CUresult guest_cuStreamAttachMemAsync(CUstream stream, CUdeviceptr address, size_t bytes,
                                      unsigned int flags)
{
    struct stream *known;
    struct memory area;
    const CUresult r = stream_find(stream, &known);

    if (r != CUDA_SUCCESS) {
        return r;
    }
    if ((flags != CU_MEM_ATTACH_GLOBAL && flags != CU_MEM_ATTACH_HOST &&
         flags != CU_MEM_ATTACH_SINGLE) ||
        (flags == CU_MEM_ATTACH_SINGLE && !stream) || !memory_find(address, &area) ||
        area.kind != MEMORY_MANAGED || area.address != address ||
        (bytes != 0 && bytes != area.bytes)) {
        return CUDA_ERROR_INVALID_VALUE;
    }
    return stream_allows(known);
}
