/* SPDX-License-Identifier: MIT */
/*
 * Values by context, see storage.h. A list is enough: a process has one or two contexts, and a copy
 * of the runtime library or two. Each looks when it first sees a context, and at every call of the
 * few programs that use several.
 */
#include "guest/libcuda/model/storage.h"

#include <pthread.h>
#include <stdlib.h>

struct stored {
    struct stored *next;
    const struct context *context;
    void *key, *value;
    storage_end_fn end;
};

static pthread_mutex_t mutex = PTHREAD_MUTEX_INITIALIZER;
static struct stored *all;

/* The link to it, or to NULL at the end; with the mutex. */
static struct stored **find_link(const struct context *context, const void *key)
{
    struct stored **link = &all;

    while (*link && ((*link)->context != context || (*link)->key != key)) {
        link = &(*link)->next;
    }
    return link;
}

CUresult storage_put(const struct context *context, void *key, void *value, storage_end_fn end)
{
    struct stored *made = calloc(1, sizeof(*made)), **link;
    bool there;

    if (!made) {
        return CUDA_ERROR_OUT_OF_MEMORY;
    }
    *made = (struct stored){.context = context, .key = key, .value = value, .end = end};
    pthread_mutex_lock(&mutex);
    link = find_link(context, key);
    there = *link != NULL;
    if (!there) {
        *link = made;
    }
    pthread_mutex_unlock(&mutex);
    if (there) {
        free(made);
    }
    return there ? CUDA_ERROR_INVALID_HANDLE : CUDA_SUCCESS;
}

CUresult storage_drop(const struct context *context, const void *key)
{
    struct stored **link, *known;

    pthread_mutex_lock(&mutex);
    link = find_link(context, key);
    known = *link;
    if (known) {
        *link = known->next;
    }
    pthread_mutex_unlock(&mutex);
    free(known);
    return known ? CUDA_SUCCESS : CUDA_ERROR_INVALID_HANDLE;
}

CUresult storage_get(const struct context *context, const void *key, void **value)
{
    const struct stored *known;

    pthread_mutex_lock(&mutex);
    known = *find_link(context, key);
    *value = known ? known->value : NULL;
    pthread_mutex_unlock(&mutex);
    return known ? CUDA_SUCCESS : CUDA_ERROR_INVALID_HANDLE;
}

struct stored *storage_take(const struct context *context)
{
    struct stored **link = &all, *taken = NULL;

    pthread_mutex_lock(&mutex);
    while (*link) {
        struct stored *stored = *link;

        if (stored->context == context) {
            *link = stored->next;
            stored->next = taken;
            taken = stored;
        } else {
            link = &stored->next;
        }
    }
    pthread_mutex_unlock(&mutex);
    return taken;
}

void storage_end(struct stored *taken)
{
    while (taken) {
        struct stored *stored = taken;

        taken = stored->next;
        if (stored->end) {
            stored->end((CUcontext)stored->context, stored->key, stored->value);
        }
        free(stored);
    }
}
