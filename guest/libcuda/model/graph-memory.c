/* SPDX-License-Identifier: MIT */
/* Memory that graphs allocate, see graph-memory.h. All are in one list: there are few. */
#include "guest/libcuda/model/graph-memory.h"

#include <pthread.h>
#include <stdlib.h>

#include "guest/libcuda/model/graph.h"
#include "guest/libcuda/model/memory.h"
#include "guest/libcuda/model/mempool.h"
#include "guest/libcuda/state/state.h"
#include "guest/libcuda/wire/wire-calls.h"

struct graph_memory {
    struct graph_memory *next;
    CUDA_MEM_ALLOC_NODE_PARAMS said;
    unsigned references; /* nodes */
    bool had;            /* by the program: a launch has allocated it, and nobody has freed it */
};

static pthread_mutex_t mutex = PTHREAD_MUTEX_INITIALIZER; /* of all here */
static struct graph_memory *memories;
static struct graph_memory_sums now, peak;

/* With the mutex. */
static void note_peak(void)
{
    peak.reserved = now.reserved > peak.reserved ? now.reserved : peak.reserved;
    peak.used = now.used > peak.used ? now.used : peak.used;
}

static void set_had(struct graph_memory *memory, bool had)
{
    if (memory->had != had) {
        memory->had = had;
        now.used = had ? now.used + memory->said.bytesize : now.used - memory->said.bytesize;
        note_peak();
    }
}

/* With the mutex; NULL when there is none. */
static struct graph_memory *find_memory(CUdeviceptr address)
{
    struct graph_memory *memory = memories;

    while (memory && memory->said.dptr != address) {
        memory = memory->next;
    }
    return memory;
}

/* Making and freeing -------------------------------------------------------------------------- */

static bool is_for_device(const CUDA_MEM_ALLOC_NODE_PARAMS *params)
{
    const CUmemPoolProps *props = &params->poolProps;

    return params->bytesize > 0 && props->allocType == CU_MEM_ALLOCATION_TYPE_PINNED &&
           props->handleTypes == CU_MEM_HANDLE_TYPE_NONE &&
           props->location.type == CU_MEM_LOCATION_TYPE_DEVICE && props->location.id == 0;
}

CUresult graph_memory_new(CUDA_MEM_ALLOC_NODE_PARAMS *params, struct graph_memory **memory)
{
    struct graph_memory *made;
    uint64_t address = 0;
    CUresult r;

    if (!is_for_device(params)) {
        return CUDA_ERROR_INVALID_VALUE;
    }
    made = calloc(1, sizeof(*made));
    r = made ? memory_allocate(params->bytesize, &address) : CUDA_ERROR_OUT_OF_MEMORY;
    if (made && r == CUDA_ERROR_OUT_OF_MEMORY && pool_give_up()) {
        r = memory_allocate(params->bytesize, &address);
    }
    /* Of no context: a graph is not a context's, and neither is its memory. */
    if (r == CUDA_SUCCESS &&
        !memory_add(
            (struct memory){.address = address, .bytes = params->bytesize, .kind = MEMORY_GRAPH})) {
        call_memory_drop(address);
        r = CUDA_ERROR_OUT_OF_MEMORY;
    }
    if (r != CUDA_SUCCESS) {
        free(made);
        return r;
    }
    params->dptr = address;
    *made = (struct graph_memory){.said = *params, .references = 1};
    /* Whom it may concern there is none: all that is the device's is for this one. */
    made->said.accessDescs = NULL;
    made->said.accessDescCount = 0;
    pthread_mutex_lock(&mutex);
    made->next = memories;
    memories = made;
    now.reserved += params->bytesize;
    note_peak();
    pthread_mutex_unlock(&mutex);
    *memory = made;
    return CUDA_SUCCESS;
}

void graph_memory_ref(struct graph_memory *memory)
{
    pthread_mutex_lock(&mutex);
    memory->references++;
    pthread_mutex_unlock(&mutex);
}

/*
 * Frees it where no node refers to it and the program does not have it. By the host, when the GPU
 * does nothing: launches that are under way go on. After the session's end all has gone with it.
 * With the mutex.
 */
static void free_unused(struct graph_memory *memory)
{
    struct graph_memory **place = &memories;

    if (memory->references > 0 || memory->had) {
        return;
    }
    while (*place != memory) {
        place = &(*place)->next;
    }
    *place = memory->next;
    now.reserved -= memory->said.bytesize;
    memory_drop(memory->said.dptr);
    if (enter_init() == CUDA_SUCCESS) {
        call_memory_drop(memory->said.dptr);
    }
    free(memory);
}

void graph_memory_unref(struct graph_memory *memory)
{
    pthread_mutex_lock(&mutex);
    memory->references--;
    free_unused(memory);
    pthread_mutex_unlock(&mutex);
}

CUDA_MEM_ALLOC_NODE_PARAMS graph_memory_params(const struct graph_memory *memory)
{
    return memory->said;
}

/* Having -------------------------------------------------------------------------------------- */

bool graph_memory_begins(CUdeviceptr address)
{
    bool found;

    pthread_mutex_lock(&mutex);
    found = find_memory(address) != NULL;
    pthread_mutex_unlock(&mutex);
    return found;
}

CUresult graph_memory_give_back(CUdeviceptr address)
{
    struct graph_memory *memory;
    CUresult r = CUDA_ERROR_INVALID_VALUE;

    pthread_mutex_lock(&mutex);
    memory = find_memory(address);
    if (memory && memory->had) {
        set_had(memory, false);
        free_unused(memory);
        r = CUDA_SUCCESS;
    }
    pthread_mutex_unlock(&mutex);
    return r;
}

/* Whether nodes that allocate find their memory free. With the mutex. */
static bool may_allocate(const struct graph *graph)
{
    for (const struct node *node = graph->first; node; node = node->next) {
        if (node->work.type == CU_GRAPH_NODE_TYPE_MEM_ALLOC && node->work.memory->had) {
            return false;
        }
        if (node->work.type == CU_GRAPH_NODE_TYPE_GRAPH && !may_allocate(node->work.child)) {
            return false;
        }
    }
    return true;
}

/*
 * Allocates all, then frees: within a graph the one that frees is behind the one that allocates,
 * whatever the order in which they were added. With the mutex.
 */
static void note_launch(const struct graph *graph, CUgraphNodeType type)
{
    for (const struct node *node = graph->first; node; node = node->next) {
        if (node->work.type == CU_GRAPH_NODE_TYPE_GRAPH) {
            note_launch(node->work.child, type);
        } else if (node->work.type == type && type == CU_GRAPH_NODE_TYPE_MEM_ALLOC) {
            set_had(node->work.memory, true);
        } else if (node->work.type == type) {
            struct graph_memory *memory = find_memory(node->work.freed);

            if (memory) {
                set_had(memory, false);
                free_unused(memory);
            }
        }
    }
}

CUresult graph_memory_check(const struct graph *graph)
{
    bool may;

    pthread_mutex_lock(&mutex);
    may = may_allocate(graph);
    pthread_mutex_unlock(&mutex);
    return may ? CUDA_SUCCESS : CUDA_ERROR_INVALID_VALUE;
}

void graph_memory_note_launch(const struct graph *graph)
{
    pthread_mutex_lock(&mutex);
    note_launch(graph, CU_GRAPH_NODE_TYPE_MEM_ALLOC);
    note_launch(graph, CU_GRAPH_NODE_TYPE_MEM_FREE);
    pthread_mutex_unlock(&mutex);
}

/* Sums ---------------------------------------------------------------------------------------- */

struct graph_memory_sums graph_memory_sum(void)
{
    struct graph_memory_sums sums;

    pthread_mutex_lock(&mutex);
    sums = now;
    pthread_mutex_unlock(&mutex);
    return sums;
}

struct graph_memory_sums graph_memory_peak(void)
{
    struct graph_memory_sums sums;

    pthread_mutex_lock(&mutex);
    sums = peak;
    pthread_mutex_unlock(&mutex);
    return sums;
}

void graph_memory_reset_peak(bool reserved)
{
    pthread_mutex_lock(&mutex);
    *(reserved ? &peak.reserved : &peak.used) = reserved ? now.reserved : now.used;
    pthread_mutex_unlock(&mutex);
}
