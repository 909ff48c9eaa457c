/* SPDX-License-Identifier: MIT */
/*
 * User objects, see user-object.h.
 *
 * The program's function is called by a thread of its own. The one that gave the last of the count
 * back may hold a lock of the program's that the function takes; and what the object stands for may
 * be used by a graph that runs, which is waited for first.
 */
#include "guest/libcuda/model/user-object.h"

#include <pthread.h>
#include <stdint.h>
#include <stdlib.h>

#include "guest/libcuda/state/local.h"
#include "guest/libcuda/state/state.h"

struct user_object {
    uint64_t handle; /* what programs have as CUuserObject, see state/local.h */
    void *value;
    CUhostFn destroy;
    uint64_t count;
};

struct held {
    struct held *next;
    CUuserObject object;
    unsigned count;
};

static pthread_mutex_t mutex = PTHREAD_MUTEX_INITIALIZER; /* of all counts */

/* With the mutex. */
static struct user_object *find_user_object(CUuserObject object)
{
    return local_find(LOCAL_USER_OBJECT, (uint64_t)(uintptr_t)object);
}

CUresult user_object_new(void *value, CUhostFn destroy, unsigned count, CUuserObject *object)
{
    struct user_object *made = calloc(1, sizeof(*made));

    if (made) {
        *made = (struct user_object){.value = value, .destroy = destroy, .count = count};
        made->handle = local_add(LOCAL_USER_OBJECT, made);
    }
    if (!made || made->handle == 0) {
        free(made);
        return CUDA_ERROR_OUT_OF_MEMORY;
    }
    *object = (CUuserObject)(uintptr_t)made->handle;
    return CUDA_SUCCESS;
}

static void *end_user_object(void *argument)
{
    struct user_object *object = argument;

    if (enter_init() == CUDA_SUCCESS) {
        vgpu_session_sync(cuda.session);
    }
    object->destroy(object->value);
    free(object);
    return NULL;
}

CUresult user_object_retain(CUuserObject object, unsigned count)
{
    struct user_object *known;

    pthread_mutex_lock(&mutex);
    known = find_user_object(object);
    if (known) {
        known->count += count;
    }
    pthread_mutex_unlock(&mutex);
    return known ? CUDA_SUCCESS : CUDA_ERROR_INVALID_VALUE;
}

CUresult user_object_release(CUuserObject object, unsigned count)
{
    struct user_object *known;
    bool good, ends;

    pthread_mutex_lock(&mutex);
    known = find_user_object(object);
    good = known != NULL;
    if (good) {
        known->count -= count < known->count ? count : known->count;
    }
    ends = good && known->count == 0;
    if (ends) {
        local_drop(known->handle);
    }
    pthread_mutex_unlock(&mutex);
    if (ends && library_thread(end_user_object, known) != CUDA_SUCCESS) {
        end_user_object(known);
    }
    return good ? CUDA_SUCCESS : CUDA_ERROR_INVALID_VALUE;
}

/* What graphs hold ---------------------------------------------------------------------------- */

/* A graph is not for several threads at a time, so its list needs no lock. */
static struct held **find_held(struct held **held, CUuserObject object)
{
    while (*held && (*held)->object != object) {
        held = &(*held)->next;
    }
    return held;
}

CUresult held_add(struct held **held, CUuserObject object, unsigned count, bool moved)
{
    struct held **place = find_held(held, object);
    /* What is moved is the program's: to add nothing finds out whether there is such an object. */
    const CUresult r = user_object_retain(object, moved ? 0 : count);

    if (r != CUDA_SUCCESS) {
        return r;
    }
    if (!*place) {
        *place = calloc(1, sizeof(**place));
    }
    if (!*place) {
        user_object_release(object, moved ? 0 : count);
        return CUDA_ERROR_OUT_OF_MEMORY;
    }
    (*place)->object = object;
    (*place)->count += count;
    return CUDA_SUCCESS;
}

void held_take(struct held **held, CUuserObject object, unsigned count)
{
    struct held **place = find_held(held, object), *known = *place;

    if (!known) {
        return;
    }
    count = count < known->count ? count : known->count;
    known->count -= count;
    if (known->count == 0) {
        *place = known->next;
        free(known);
    }
    user_object_release(object, count);
}

bool held_copy(struct held **to, const struct held *from)
{
    for (; from; from = from->next) {
        if (held_add(to, from->object, from->count, false) != CUDA_SUCCESS) {
            held_end(*to);
            *to = NULL;
            return false;
        }
    }
    return true;
}

void held_end(struct held *held)
{
    struct held *next;

    for (; held; held = next) {
        next = held->next;
        user_object_release(held->object, held->count);
        free(held);
    }
}
