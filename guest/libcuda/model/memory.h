/* SPDX-License-Identifier: MIT */
/*
 * What addresses mean: device memory that the program has, and memory of its own that the GPU
 * reaches or that it has registered. An address that is device memory here is never taken for the
 * program's own, wherever that lies.
 */
#ifndef VGPU_GUEST_LIBCUDA_MODEL_MEMORY_H
#define VGPU_GUEST_LIBCUDA_MODEL_MEMORY_H

#include <stdbool.h>
#include <stdint.h>

#include "guest/libcuda/model/context.h"

enum memory_kind {
    MEMORY_DEVICE,     /* by cuMemAlloc() */
    MEMORY_POOLED,     /* by cuMemAllocAsync() */
    MEMORY_MAPPED,     /* by cuMemMap() */
    MEMORY_GRAPH,      /* by a node of a graph */
    MEMORY_SHARED,     /* another process's, by cuIpcOpenMemHandle() */
    MEMORY_GLOBAL,     /* a module's variable */
    MEMORY_HOST,       /* by cuMemHostAlloc(): in the arena, at the same address there */
    MEMORY_MANAGED,    /* by cuMemAllocManaged(): likewise */
    MEMORY_REGISTERED, /* the program's own */
};

/* What a program has said of managed memory; `type` 0 of a place is none. */
struct memory_hints {
    bool read_mostly, by_device, by_host; /* who has it mapped */
    CUmemLocation preferred, prefetched;
};

struct memory {
    uint64_t address, bytes;
    uint64_t id; /* no other area has had it */
    struct context *context;
    uint64_t owner;    /* handle of the module whose variable it is, or what is mapped; or 0 */
    struct pool *pool; /* where it is from; NULL: none */
    uint64_t range, range_bytes; /* of a mapped area: the addresses that were reserved */
    enum memory_kind kind;
    unsigned flags; /* of CUDA's, where it is the host's; access, where it is mapped */
    struct memory_hints hints;
};

/*
 * Allocates device memory where the program has nothing of its own, if there is such a place. It is
 * not remembered.
 */
CUresult memory_allocate(uint64_t bytes, uint64_t *address);

/* Remembers an area. False when memory is short, or there is one already in that place. */
bool memory_add(struct memory area);

/* The area in which an address lies; false when there is none. */
bool memory_find(uint64_t address, struct memory *area);

/* Forgets the area that begins at an address. */
void memory_drop(uint64_t address);

/* Forgets all, when the library is unloaded. */
void memory_end(void);

/* Changes the access of the mapped areas within [address, address + bytes). */
void memory_set_access(uint64_t address, uint64_t bytes, unsigned access);

/* Sets the hints of the area that begins at an address. */
void memory_set_hints(uint64_t address, const struct memory_hints *hints);

/* Forgets the variables of a module. */
void memory_forget_module(uint64_t module);

/* Whether any area lies within [address, address + bytes). */
bool memory_within(uint64_t address, uint64_t bytes);

/* Whether an address is device memory. */
bool memory_is_device(uint64_t address);

/*
 * INVALID_VALUE when [address, address + bytes) is not all device memory, or memory that the GPU
 * reaches: what CUDA says of such an address at once.
 */
CUresult memory_check(uint64_t address, uint64_t bytes);

/* Forgets any area of a context's, which *area is then. False when it has none. */
bool memory_take(const struct context *context, struct memory *area);

#endif
