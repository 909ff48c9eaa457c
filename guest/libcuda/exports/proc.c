/* SPDX-License-Identifier: MIT */
/*
 * How programs find functions by name, see proc.h.
 *
 * cuGetProcAddress() is given a name without its version, "cuMemAlloc" say, and the version of CUDA
 * that the program was made for, 12040 for 12.4. It gets the newest function of that name which
 * that version has: cuMemAlloc_v2 there, since 3.2. So a program keeps the functions that it was
 * compiled for when the library gets newer.
 */
#include "guest/libcuda/exports/proc.h"

#include <stdbool.h>
#include <string.h>

#include "guest/libcuda/calls/guest-calls.h"

/* The first entry of a name, or NULL. Names are sorted as strcmp() has it (emit_guest.py). */
static const struct entry *find_entry(const struct entries *entries, const char *name)
{
    unsigned low = 0, high = entries->count;

    while (low < high) {
        const unsigned middle = (low + high) / 2;

        if (strcmp(entries->entry[middle].name, name) < 0) {
            low = middle + 1;
        } else {
            high = middle;
        }
    }
    return low < entries->count && strcmp(entries->entry[low].name, name) == 0
               ? &entries->entry[low]
               : NULL;
}

/*
 * The newest function of a name that a version of CUDA has. Versions ascend, so the last that is
 * not too new stays. `own`: the variant whose default stream is the thread's own, where there is
 * one; it may have come with a later version than the function.
 */
static void *find_proc(const struct entries *entries, const struct entry *entry, int version,
                       bool own)
{
    const char *name = entry->name;
    void *found = NULL;

    for (; entry < entries->entry + entries->count && strcmp(entry->name, name) == 0; entry++) {
        if (entry->version <= version) {
            found = own && entry->own_version != 0 && entry->own_version <= version
                        ? entry->own
                        : entry->function;
        }
    }
    return found;
}

/*
 * Flags say which default stream the program wants. Without any it is the stream of the function
 * that was called: cuGetProcAddress_v2_ptsz() hands out variants with the thread's own.
 */
CUresult guest_cuGetProcAddress_v2(const char *symbol, void **function, int version,
                                   cuuint64_t flags, CUdriverProcAddressQueryResult *status,
                                   CUstream default_stream, const struct entries *entries)
{
    const bool own = (flags & CU_GET_PROC_ADDRESS_PER_THREAD_DEFAULT_STREAM) != 0 ||
                     (flags == CU_GET_PROC_ADDRESS_DEFAULT &&
                      default_stream == CU_STREAM_PER_THREAD);
    CUdriverProcAddressQueryResult found = CU_GET_PROC_ADDRESS_SUCCESS;
    const struct entry *entry;

    if (version < 0 ||
        (flags & ~(cuuint64_t)(CU_GET_PROC_ADDRESS_LEGACY_STREAM |
                               CU_GET_PROC_ADDRESS_PER_THREAD_DEFAULT_STREAM)) != 0) {
        return CUDA_ERROR_INVALID_VALUE;
    }
    entry = find_entry(entries, symbol);
    *function = entry ? find_proc(entries, entry, version, own) : NULL;
    if (!*function) {
        found = entry ? CU_GET_PROC_ADDRESS_VERSION_NOT_SUFFICIENT
                      : CU_GET_PROC_ADDRESS_SYMBOL_NOT_FOUND;
    }
    if (status) {
        *status = found;
    }
    return CUDA_SUCCESS;
}

/* The form of before, which has no status to tell why there is none. */
CUresult guest_cuGetProcAddress(const char *symbol, void **function, int version, cuuint64_t flags,
                                const struct entries *entries)
{
    const CUresult r = guest_cuGetProcAddress_v2(symbol, function, version, flags, NULL,
                                                 CU_STREAM_LEGACY, entries);

    return r == CUDA_SUCCESS && !*function ? CUDA_ERROR_NOT_FOUND : r;
}
