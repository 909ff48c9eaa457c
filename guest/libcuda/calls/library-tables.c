/* SPDX-License-Identifier: MIT */
/* Tables that NVIDIA's libraries (cuBLAS, cuFFT) ask for, see table-list.h. */
#include <stdlib.h>

#include "guest/libcuda/calls/table-list.h"
#include "guest/libcuda/model/module.h"
#include "guest/libcuda/model/stream.h"
#include "guest/libcuda/wire/wire-calls.h"

/* Multiprocessors come in pairs; some hundred of them are on the largest GPU. */
#define PAIRS_MAX 1024u

/* Threads, contexts and streams by number ----------------------------------------------------- */

static CUresult threads_context(CUcontext *context)
{
    const CUresult r = enter_init();

    if (r != CUDA_SUCCESS || !context) {
        return r != CUDA_SUCCESS ? r : CUDA_ERROR_INVALID_VALUE;
    }
    *context = (CUcontext)context_top();
    return CUDA_SUCCESS;
}

NOT_SERVED(threads, "42d85a81")

const void *const table_threads[TABLE_THREADS] = {
    (void *)sizeof(table_threads),
    (void *)threads_other,
    (void *)threads_context,
};

static CUresult numbers_context(CUcontext context, uint64_t *number)
{
    const struct context *known;
    const CUresult r = enter_init();

    if (r != CUDA_SUCCESS || !number) {
        return r != CUDA_SUCCESS ? r : CUDA_ERROR_INVALID_VALUE;
    }
    known = context_find(context);
    if (!known) {
        return CUDA_ERROR_INVALID_CONTEXT;
    }
    *number = known->id;
    return CUDA_SUCCESS;
}

/*
 * What the driver has for a stream of the program's: here that is the stream itself, and for the
 * default stream the handle that stands for it.
 */
static CUresult numbers_of_stream(CUcontext context, CUstream stream, CUstream *found)
{
    struct stream *known;
    CUresult r = enter_init();

    if (r == CUDA_SUCCESS && !context_find(context)) {
        r = CUDA_ERROR_INVALID_CONTEXT;
    }
    if (r == CUDA_SUCCESS) {
        r = found ? stream_find(stream, &known) : CUDA_ERROR_INVALID_VALUE;
    }
    if (r == CUDA_SUCCESS) {
        *found = stream ? stream : CU_STREAM_LEGACY;
    }
    return r;
}

static CUresult numbers_stream(CUcontext context, CUstream found, uint64_t *number)
{
    struct stream *known;
    CUresult r = enter_init();

    (void)context;
    if (r == CUDA_SUCCESS) {
        r = number ? stream_find(found, &known) : CUDA_ERROR_INVALID_VALUE;
    }
    if (r == CUDA_SUCCESS) {
        *number = known->id;
    }
    return r;
}

NOT_SERVED(numbers, "21318c60")

const void *const table_numbers[TABLE_NUMBERS] = {
    [0] = (void *)sizeof(table_numbers), [1 ... 3] = (void *)numbers_other,
    [4] = (void *)numbers_context,       [5 ... 38] = (void *)numbers_other,
    [39] = (void *)numbers_stream,       [40 ... 50] = (void *)numbers_other,
    [51] = (void *)numbers_of_stream,
};

/* Functions of a module ------------------------------------------------------------------------ */

/* Calls the library's function with each function of the module. Returns how many there are. */
static unsigned functions_each(CUcontext context, CUmodule module,
                               void (*each)(void *argument, CUfunction function), void *argument)
{
    struct module *known = module_find(module);
    CUfunction *list = NULL;
    unsigned count = 0;

    (void)context;
    if (!each || enter_init() != CUDA_SUCCESS || module_count(known, &count) != CUDA_SUCCESS) {
        return 0;
    }
    list = calloc(count, sizeof(CUfunction));
    if (!list || module_list(known, list, count) != CUDA_SUCCESS) {
        count = 0;
    }
    for (unsigned i = 0; i < count; i++) {
        each(argument, list[i]);
    }
    free(list);
    return count;
}

NOT_SERVED(functions, "6e163fbe")

const void *const table_functions[TABLE_FUNCTIONS] = {
    [0] = (void *)sizeof(table_functions),
    [1 ... 6] = (void *)functions_other,
    [7] = (void *)functions_each,
};

/* Where multiprocessors lie -------------------------------------------------------------------- */

/* Two lists of a byte for each pair of multiprocessors, which are the caller's. */
static CUresult places_get(char **first, char **second)
{
    char *lists[2];
    uint32_t count = 0;
    CUresult r;

    r = first && second ? enter_init() : CUDA_ERROR_INVALID_VALUE;
    if (r != CUDA_SUCCESS) {
        return r;
    }
    lists[0] = malloc(PAIRS_MAX);
    lists[1] = malloc(PAIRS_MAX);
    r = lists[0] && lists[1] ? call_processor_places(&count, lists[0], lists[1], PAIRS_MAX)
                             : CUDA_ERROR_OUT_OF_MEMORY;
    if (r == CUDA_SUCCESS && (count == 0 || count > PAIRS_MAX)) {
        r = CUDA_ERROR_UNKNOWN;
    }
    if (r != CUDA_SUCCESS) {
        free(lists[0]);
        free(lists[1]);
        return r;
    }
    *first = lists[0];
    *second = lists[1];
    return CUDA_SUCCESS;
}

static CUresult places_free(char *first, char *second)
{
    free(first);
    free(second);
    return CUDA_SUCCESS;
}

NOT_SERVED(places, "1734dc26")

const void *const table_places[TABLE_PLACES] = {
    [0] = (void *)sizeof(table_places), [1 ... 3] = (void *)places_other, [4] = (void *)places_get,
    [5 ... 12] = (void *)places_other,  [13] = (void *)places_free,
};
