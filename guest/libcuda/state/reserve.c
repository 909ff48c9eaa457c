/* SPDX-License-Identifier: MIT */
/*
 * Reserved addresses, see reserve.h.
 *
 * Whole blocks of 2 MiB are reserved, as drivers allocate device memory in such: small allocations
 * in one block are one reservation. It is a mapping without access and without memory behind it
 * (PROT_NONE, NORESERVE), so it costs addresses only. It is kept when the device memory is freed,
 * since the driver gives the same addresses again and again, and asking costs a system call.
 *
 * What is reserved is a list of runs of blocks, ascending; neighbours are not joined.
 */
#include "guest/libcuda/state/reserve.h"

#include <errno.h>
#include <pthread.h>
#include <stdlib.h>

#include "common/map-at.h"

#define BLOCK_BITS 21

/* Reserved blocks, without gaps: a block from `first` on up to `end`. Ascending. */
struct run {
    uint64_t first, end;
};

static pthread_mutex_t mutex = PTHREAD_MUTEX_INITIALIZER; /* of all that follows */
static struct run *runs;
static size_t run_count, run_room;

/* The first run that ends behind a block: the one that has it, or the next. With the mutex. */
static size_t find_reserved(uint64_t block)
{
    size_t low = 0, high = run_count;

    while (low < high) {
        const size_t middle = (low + high) / 2;

        if (runs[middle].end <= block) {
            low = middle + 1;
        } else {
            high = middle;
        }
    }
    return low;
}

/*
 * Remembers blocks at a place of the list. Without memory for that they are reserved all the same;
 * the next who asks for them finds them taken, and asks the host for another place. With the mutex.
 */
static void add_run(size_t place, uint64_t first, uint64_t end)
{
    if (run_count == run_room) {
        const size_t room = 2 * run_room + 16;
        struct run *more = realloc(runs, room * sizeof(*more));

        if (!more) {
            return;
        }
        runs = more;
        run_room = room;
    }
    for (size_t i = run_count++; i > place; i--) {
        runs[i] = runs[i - 1];
    }
    runs[place] = (struct run){first, end};
}

/*
 * Blocks that are not reserved yet; false where something is mapped. For any other error, a limit
 * of the process say, it goes without: device memory is usable all the same, only the program may
 * get the address once more from mmap().
 */
static bool reserve_blocks(uint64_t first, uint64_t end)
{
    void *wanted = (void *)(uintptr_t)(first << BLOCK_BITS);
    const size_t bytes = (size_t)((end - first) << BLOCK_BITS);

    return map_anywhere_at(wanted, bytes, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE,
                           -1, 0) != -EEXIST;
}

bool reserve_addresses(uint64_t address, uint64_t bytes)
{
    /* Rounded up, `address` down: blocks that are used in part are reserved whole. */
    const uint64_t end = (address + bytes + (UINT64_C(1) << BLOCK_BITS) - 1) >> BLOCK_BITS;
    uint64_t block = address >> BLOCK_BITS;
    bool good = true;

    pthread_mutex_lock(&mutex);
    while (good && block < end) {
        const size_t place = find_reserved(block);
        const bool known = place < run_count && runs[place].first <= block;
        uint64_t next = end;

        /* Goes on behind what is reserved already. */
        if (known) {
            block = runs[place].end;
            continue;
        }
        /* Up to the next run, which is reserved already. */
        if (place < run_count && runs[place].first < end) {
            next = runs[place].first;
        }
        good = reserve_blocks(block, next);
        if (good) {
            add_run(place, block, next);
        }
        block = next;
    }
    pthread_mutex_unlock(&mutex);
    return good;
}

void reservations_end(void)
{
    pthread_mutex_lock(&mutex);
    for (size_t i = 0; i < run_count; i++) {
        munmap((void *)(uintptr_t)(runs[i].first << BLOCK_BITS),
               (size_t)((runs[i].end - runs[i].first) << BLOCK_BITS));
    }
    free(runs);
    runs = NULL;
    run_count = run_room = 0;
    pthread_mutex_unlock(&mutex);
}
