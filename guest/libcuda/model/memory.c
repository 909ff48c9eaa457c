/* SPDX-License-Identifier: MIT */
/*
 * What addresses mean, see memory.h.
 *
 * All areas are in one array, ascending, so that one is found in some steps: each copy and fill
 * asks. Adding one moves those behind it, which is cheap next to the call to the host that
 * allocates it. The mutex is held for a look at the table and nothing else; areas are handed out as
 * copies, since one may go as soon as it is released.
 */
#include "guest/libcuda/model/memory.h"

#include <pthread.h>
#include <stdlib.h>
#include <string.h>

#include "guest/libcuda/state/reserve.h"
#include "guest/libcuda/state/state.h"
#include "guest/libvgpu/session.h"

static pthread_mutex_t mutex = PTHREAD_MUTEX_INITIALIZER;
static struct memory *areas; /* by ascending addresses; none overlap */
static size_t area_count, area_room;
static uint64_t last_id;

/*
 * The first area that ends behind an address: the one in which it lies, if there is one, or the
 * next. With the mutex.
 */
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
    /* Also what makes cuMemHostRegister() fail for memory that is registered in part. */
    if (i < area_count && areas[i].address < area.address + area.bytes) {
        added = false;
    } else if (area_count == area_room) {
        const size_t room = 2 * area_room + 64;
        struct memory *more = realloc(areas, room * sizeof(*more));

        added = more != NULL;
        if (more) {
            areas = more;
            area_room = room;
        }
    }
    if (added) {
        memmove(&areas[i + 1], &areas[i], (area_count++ - i) * sizeof(*areas));
        areas[i] = area;
        /*
         * For CU_POINTER_ATTRIBUTE_BUFFER_ID: programs that keep something for an allocation tell
         * by it that another one has the same address now.
         */
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

/* One pass: there may be many variables. Other areas have no owner, or a handle of another type. */
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
    /* Mappings lie within the range as wholes: the caller has checked that. */
    for (size_t i = first_area_behind(address);
         i < area_count && areas[i].address < address + bytes; i++) {
        areas[i].flags = access;
    }
    pthread_mutex_unlock(&mutex);
}

void memory_set_hints(uint64_t address, const struct memory_hints *hints)
{
    size_t i;

    pthread_mutex_lock(&mutex);
    i = first_area_behind(address);
    if (i < area_count && areas[i].address == address) {
        areas[i].hints = *hints;
    }
    pthread_mutex_unlock(&mutex);
}

bool memory_is_device(uint64_t address)
{
    struct memory area;

    return memory_find(address, &area) && area.kind <= MEMORY_GLOBAL;
}

/*
 * How many bytes there are from an address on, at least `bytes` or all. Allocations that happen to
 * be neighbours are not one: a copy across their border is an error with CUDA. Mappings are, since
 * programs put them side by side to let an array grow. Memory in the arena counts as well: the GPU
 * has it at the same address. Registered memory does not, the GPU does not reach that. With the
 * mutex.
 */
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

/* One at a time, because what follows for it may wait for the host. */
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

/*
 * The host chooses addresses in its own process, where those of this one may be free. An allocation
 * in such a place is kept until another was made, as the driver would give the same place again,
 * and only then freed. After PLACES attempts the last one has to do: it works, as addresses that
 * are device memory are looked up here before they are taken for the program's own.
 */
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

void memory_end(void)
{
    free(areas);
    areas = NULL;
    area_count = area_room = 0;
}
