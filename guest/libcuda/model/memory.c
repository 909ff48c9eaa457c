/* SPDX-License-Identifier: MIT */
/* What addresses mean, see memory.h. */
#include "guest/libcuda/model/memory.h"

#include <pthread.h>
#include <stdlib.h>
#include <string.h>

#include "guest/libcuda/state/reserve.h"
#include "guest/libcuda/state/state.h"
#include "guest/libvgpu/session.h"

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

bool memory_take(const struct context *context, struct memory *area)
{
    bool found;
    size_t i = 0;

    pthread_mutex_lock(&mutex);
    while (i < area_count && areas[i].context != context) {
        i++;
    }
    found = i < area_count;
    if (found) {
        *area = areas[i];
        memmove(&areas[i], &areas[i + 1], (--area_count - i) * sizeof(*areas));
    }
    pthread_mutex_unlock(&mutex);
    return found;
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
