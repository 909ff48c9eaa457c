/* SPDX-License-Identifier: MIT */
/*
 * What a pointer is: answered from the table of areas, without the host. Programs ask this often,
 * to tell device memory from their own.
 */

#include <string.h>

#include "guest/libcuda/calls/guest-calls.h"
#include "guest/libcuda/model/memory.h"
#include "guest/libcuda/state/state.h"

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

/*
 * All values are made as 64 bits; of those with 4 bytes the caller copies the low ones, which come
 * first on the machines that this runs on. What is not named here is 0: device 0, no handles to
 * export.
 */
static CUresult pointer_attribute(const struct memory *area, CUpointer_attribute attribute,
                                  uint64_t address, uint64_t *value)
{
    *value = 0;
    switch (attribute) {
    case CU_POINTER_ATTRIBUTE_CONTEXT:
        *value = (uint64_t)(uintptr_t)area->context;
        break;
    case CU_POINTER_ATTRIBUTE_MEMORY_TYPE:
        *value = area->kind >= MEMORY_HOST && area->kind != MEMORY_MANAGED ? CU_MEMORYTYPE_HOST
                                                                           : CU_MEMORYTYPE_DEVICE;
        break;
    case CU_POINTER_ATTRIBUTE_SYNC_MEMOPS:
    case CU_POINTER_ATTRIBUTE_IS_MANAGED:
        *value = area->kind == MEMORY_MANAGED;
        break;
    case CU_POINTER_ATTRIBUTE_DEVICE_POINTER:
        *value = address;
        /* The GPU does not reach memory that was only registered. */
        return area->kind == MEMORY_REGISTERED ? CUDA_ERROR_INVALID_VALUE : CUDA_SUCCESS;
    case CU_POINTER_ATTRIBUTE_HOST_POINTER:
        *value = address;
        /* And this process does not reach the device's. */
        return area->kind < MEMORY_HOST ? CUDA_ERROR_INVALID_VALUE : CUDA_SUCCESS;
    case CU_POINTER_ATTRIBUTE_BUFFER_ID:
    case CU_POINTER_ATTRIBUTE_MEMORY_BLOCK_ID:
        *value = area->id;
        break;
    case CU_POINTER_ATTRIBUTE_RANGE_START_ADDR:
        /* Of mapped memory it is the reserved range, which may hold several mappings. */
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
    case CU_POINTER_ATTRIBUTE_IS_LEGACY_CUDA_IPC_CAPABLE:
        *value = area->kind == MEMORY_DEVICE;
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

/*
 * Attributes that a pointer does not have are 0. Unlike the call for one attribute this takes any
 * pointer: programs use it to find out whether one is CUDA's, by its type (0: it is not) or its
 * device (-2: it has none). And it takes it from any thread, with a context or without: the one
 * that PyTorch's DataLoader pins memory in begins with this call.
 */
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

/*
 * SYNC_MEMOPS asks that synchronous copies of this memory always are. They are here, so there is
 * nothing to set. CUDA lets no other attribute be set.
 */
CUresult guest_cuPointerSetAttribute(const void *value, CUpointer_attribute attribute,
                                     CUdeviceptr address)
{
    struct memory area;

    return value && attribute == CU_POINTER_ATTRIBUTE_SYNC_MEMOPS && memory_find(address, &area)
               ? CUDA_SUCCESS
               : CUDA_ERROR_INVALID_VALUE;
}
