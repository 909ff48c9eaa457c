/* SPDX-License-Identifier: MIT */
/*
 * The driver's private tables, each as an array. In most of them the first word is the size in
 * bytes, so that a library sees what an older driver lacks.
 *
 * They have ids and no names. Here is what each is for, as far as it was seen with the libraries of
 * CUDA 13.0 on driver 580, and as public projects tell. An entry that no library was seen to call
 * says, once, that it is not served; and a table ends with the last entry that is served. Without
 * the tables that are not here libraries were seen to go on: f8cff951 (another way to begin),
 * 69a28e9f (asked for by JAX when it starts) and da9151d3 (by the run-time compiler).
 */
#ifndef VGPU_GUEST_LIBCUDA_CALLS_TABLE_LIST_H
#define VGPU_GUEST_LIBCUDA_CALLS_TABLE_LIST_H

#include "guest/libcuda/state/state.h"

/* Entries of each. */
enum {
    TABLE_RUNTIME = 13,
    TABLE_STORAGE = 4,
    TABLE_CONTEXTS = 4,
    TABLE_TOOLS = 7,
    TABLE_THREADS = 3,
    TABLE_NUMBERS = 52,
    TABLE_FUNCTIONS = 8,
    TABLE_PLACES = 14,
};

/* For the runtime library: loads modules out of programs, finds the primary context; 6bd5fb6c. */
extern const void *const table_runtime[TABLE_RUNTIME];

/* Its values by context and key, model/storage.h; c693336e. Without a size, and NULL at the end. */
extern const void *const table_storage[TABLE_STORAGE];

/* What kind of context one is; 263e8860. */
extern const void *const table_contexts[TABLE_CONTEXTS];

/* Where tools (debuggers, profilers) switch on to be told of calls: none is; a094798c. */
extern const void *const table_tools[TABLE_TOOLS];

/* The calling thread's context; 42d85a81. */
extern const void *const table_threads[TABLE_THREADS];

/* Numbers of contexts and streams: cuBLAS finds what it keeps for them by these; 21318c60. */
extern const void *const table_numbers[TABLE_NUMBERS];

/* The functions of a module, for cuFFT; 6e163fbe. */
extern const void *const table_functions[TABLE_FUNCTIONS];

/* Where the GPU's multiprocessors lie, for cuBLAS; 1734dc26. */
extern const void *const table_places[TABLE_PLACES];

/* In the place of entries that nobody was seen to call. */
#define NOT_SERVED(table, id)                                                                      \
    static CUresult table##_other(void)                                                            \
    {                                                                                              \
        return REFUSE("an entry of the driver's private table " id);                               \
    }

#endif
