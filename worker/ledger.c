/* SPDX-License-Identifier: MIT */
/*
 * Device memory of a session and its VM: the VM's account is one number in a page that its workers
 * share, the session's own sum is a counter in its turn page, and a hash table here remembers how
 * much is behind each address, since a guest frees by address alone.
 *
 * When a worker ends, however it does, the mediator takes its counter off the account. So the
 * account is raised before the counter and lowered after it: a worker that is killed in between
 * leaves the account too high, and its VM has some bytes less until it is detached. The other way
 * round it would have more than its quota.
 */
#include "worker/ledger.h"

#include <stdlib.h>

#include "common/shared.h"

#define ROOM_MIN 64u

/*
 * A compare-and-swap rather than an addition that is taken back when it was too much: another
 * session's allocation that fits would fail meanwhile.
 */
bool ledger_reserve(struct ledger *l, uint64_t bytes)
{
    uint64_t used = shared_load64(&l->account->used);

    do {
        const uint64_t limit = shared_load64(&l->account->limit);

        if (bytes > UINT64_MAX - used || (limit != 0 && used + bytes > limit)) {
            return false;
        }
    } while (!__atomic_compare_exchange_n(&l->account->used, &used, used + bytes, false,
                                          __ATOMIC_SEQ_CST, __ATOMIC_RELAXED));
    l->counters->memory += bytes;
    return true;
}

/* The counter first: see above. */
void ledger_return(struct ledger *l, uint64_t bytes)
{
    l->counters->memory -= bytes;
    __atomic_sub_fetch(&l->account->used, bytes, __ATOMIC_SEQ_CST);
}

static size_t ledger_place(const struct ledger *l, uint64_t address)
{
    /* Addresses are multiples of 256 at least; the multiplier is 2^64 over the golden ratio. */
    return (size_t)(address * UINT64_C(0x9e3779b97f4a7c15) >> 32) & (l->room - 1);
}

/*
 * The address's place, or the free one where it would be. Ends, since at most half of the table is
 * used (ledger_note()).
 */
static size_t ledger_find(const struct ledger *l, uint64_t address)
{
    size_t i = ledger_place(l, address);

    while (l->entries[i].address != 0 && l->entries[i].address != address) {
        i = (i + 1) & (l->room - 1);
    }
    return i;
}

static bool ledger_grow(struct ledger *l)
{
    struct ledger bigger = {.room = l->room == 0 ? ROOM_MIN : l->room * 2};

    bigger.entries = calloc(bigger.room, sizeof(bigger.entries[0]));
    if (!bigger.entries) {
        return false;
    }
    for (size_t i = 0; i < l->room; i++) {
        if (l->entries[i].address != 0) {
            bigger.entries[ledger_find(&bigger, l->entries[i].address)] = l->entries[i];
        }
    }
    free(l->entries);
    l->entries = bigger.entries;
    l->room = bigger.room;
    return true;
}

bool ledger_note(struct ledger *l, uint64_t address, uint64_t bytes)
{
    if (l->count * 2 >= l->room && !ledger_grow(l)) {
        return false;
    }
    l->entries[ledger_find(l, address)] = (struct ledger_entry){address, bytes};
    l->count++;
    return true;
}

/*
 * Those behind a place that becomes free move up, so that each is found from its own place on:
 * ledger_find() stops at the first free one. An entry may move to the gap unless its own place lies
 * behind that, counted round the table's end.
 */
static void close_gap(struct ledger *l, size_t gap)
{
    const size_t mask = l->room - 1;

    for (size_t i = (gap + 1) & mask; l->entries[i].address != 0; i = (i + 1) & mask) {
        const size_t own = ledger_place(l, l->entries[i].address);

        if (((i - own) & mask) >= ((i - gap) & mask)) {
            l->entries[gap] = l->entries[i];
            gap = i;
        }
    }
    l->entries[gap] = (struct ledger_entry){0};
}

uint64_t ledger_bytes(const struct ledger *l, uint64_t address)
{
    if (l->room == 0 || address == 0) {
        return 0;
    }
    /* A free place has 0 bytes. */
    return l->entries[ledger_find(l, address)].bytes;
}

/* Forgets an address that was noted; returns its bytes, 0 where it was not, or not any more. */
static uint64_t ledger_forget(struct ledger *l, uint64_t address)
{
    const uint64_t bytes = ledger_bytes(l, address);

    if (bytes != 0) {
        close_gap(l, ledger_find(l, address));
        l->count--;
    }
    return bytes;
}

/*
 * Called when the GPU has freed the memory. An address that was not noted, or is freed a second
 * time, changes nothing.
 */
void ledger_free(struct ledger *l, uint64_t address)
{
    ledger_return(l, ledger_forget(l, address));
}

void ledger_hand_over(struct ledger *l, uint64_t address)
{
    l->counters->memory -= ledger_forget(l, address);
}

void ledger_limit(const struct ledger *l, uint64_t *free_bytes, uint64_t *total)
{
    const uint64_t limit = shared_load64(&l->account->limit);
    const uint64_t used = shared_load64(&l->account->used);
    /* The limit may have been lowered below what is used. */
    const uint64_t left = used < limit ? limit - used : 0;

    if (limit == 0) {
        return;
    }
    *total = limit < *total ? limit : *total;
    *free_bytes = left < *free_bytes ? left : *free_bytes;
}

void ledger_release(struct ledger *l)
{
    free(l->entries);
    l->entries = NULL;
    l->count = l->room = 0;
}
