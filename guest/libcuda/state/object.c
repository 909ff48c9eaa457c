/* SPDX-License-Identifier: MIT */
/*
 * Objects by their handles, see object.h.
 *
 * The worker gives its handles indexes that are small and are used again, so a table by index is
 * dense. Two steps, chunks that are made when needed and stay, let it grow while other
 * threads look into it without a lock. 64 chunks of 1,024 are as many handles as a session may have
 * on the host.
 *
 * All objects are in one list besides, to find those of a context when it ends.
 */
#include "guest/libcuda/state/object.h"

#include <pthread.h>
#include <stdlib.h>

#include "protocol/vgpu-queue.h"

/* A table in two steps: it grows without moving what others look at. */
#define CHUNK 1024u
#define CHUNKS 64u

static struct object **chunks[CHUNKS];
static struct object *all;
static pthread_mutex_t mutex = PTHREAD_MUTEX_INITIALIZER;

/* The place for a handle, NULL when there is none yet. */
static struct object **object_place(uint64_t handle)
{
    const uint32_t index = vgpu_handle_index(handle);
    struct object **chunk;

    if (index >= CHUNK * CHUNKS) {
        return NULL;
    }
    /* Pairs with the release in make_place(): who sees the chunk sees that it is empty. */
    chunk = __atomic_load_n(&chunks[index / CHUNK], __ATOMIC_ACQUIRE);
    return chunk ? &chunk[index % CHUNK] : NULL;
}

/* Makes the place's chunk, with the mutex. */
static struct object **make_place(uint64_t handle)
{
    const uint32_t index = vgpu_handle_index(handle);
    struct object **chunk;

    if (index >= CHUNK * CHUNKS || object_place(handle)) {
        return object_place(handle);
    }
    chunk = calloc(CHUNK, sizeof(struct object *));
    if (!chunk) {
        return NULL;
    }
    __atomic_store_n(&chunks[index / CHUNK], chunk, __ATOMIC_RELEASE);
    return object_place(handle);
}

/*
 * The place may still hold an object that was destroyed on the host and is about to be dropped here
 * by another thread: the host has given its index to this one already. It is overwritten, and
 * object_drop() leaves the place alone then.
 */
bool object_add(struct object *object, uint64_t handle, struct context *context)
{
    struct object **place;

    object->handle = handle;
    object->context = context;
    pthread_mutex_lock(&mutex);
    place = make_place(handle);
    if (place) {
        object->next = all;
        object->before = &all;
        if (all) {
            all->before = &object->next;
        }
        all = object;
        __atomic_store_n(place, object, __ATOMIC_RELEASE);
    }
    pthread_mutex_unlock(&mutex);
    return place != NULL;
}

void *object_find(enum handle_type type, uint64_t handle)
{
    struct object **place = object_place(handle);
    struct object *object = place ? __atomic_load_n(place, __ATOMIC_ACQUIRE) : NULL;

    /*
     * The whole handle is compared, its generation too: an index alone may be that of a later
     * object.
     */
    return object && object->handle == handle && vgpu_handle_type(handle) == (uint32_t)type ? object
                                                                                            : NULL;
}

void object_drop(struct object *object)
{
    struct object **place;

    pthread_mutex_lock(&mutex);
    place = object_place(object->handle);
    /* Otherwise a newer object has the place, see object_add(). */
    if (place && *place == object) {
        __atomic_store_n(place, NULL, __ATOMIC_RELEASE);
    }
    *object->before = object->next;
    if (object->next) {
        object->next->before = object->before;
    }
    pthread_mutex_unlock(&mutex);
    free(object);
}

/* From the front, for each one: contexts end rarely, and what is found is dropped next. */
void *object_of(const struct context *context, enum handle_type type)
{
    struct object *object;

    pthread_mutex_lock(&mutex);
    object = all;
    while (object &&
           (object->context != context || vgpu_handle_type(object->handle) != (uint32_t)type)) {
        object = object->next;
    }
    pthread_mutex_unlock(&mutex);
    return object;
}

void objects_end(void)
{
    while (all) {
        struct object *next = all->next;

        free(all);
        all = next;
    }
    for (unsigned i = 0; i < CHUNKS; i++) {
        free(chunks[i]);
        chunks[i] = NULL;
    }
}
