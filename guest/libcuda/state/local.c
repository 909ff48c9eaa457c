/* SPDX-License-Identifier: MIT */
/*
 * Local handles, see local.h.
 *
 * The table is one array that grows. Places that are free form a list, last in first out: `next` of
 * each is the place behind it. A place counts its generation up when it is given back, so that the
 * handle that was there is not found any more; after 2^24 uses a place has had them all and begins
 * again.
 */
#include "guest/libcuda/state/local.h"

#include <pthread.h>
#include <stdbool.h>
#include <stdlib.h>

#define GENERATIONS 0xffffffu
#define NO_PLACE UINT32_MAX

struct place {
    void *thing; /* NULL: the place is free */
    uint32_t generation;
    uint32_t next; /* of a free one */
    enum local_type type;
};

static pthread_mutex_t mutex = PTHREAD_MUTEX_INITIALIZER; /* of all that follows */
static struct place *places;
static uint32_t place_count, place_room;
static uint32_t first_free = NO_PLACE;

/*
 * A free place, or NO_PLACE when memory is short. The last that was given back comes first, so the
 * table stays small; the generation tells its handles apart. With the mutex.
 */
static uint32_t take_place(void)
{
    uint32_t index = first_free;

    if (index != NO_PLACE) {
        first_free = places[index].next;
        return index;
    }
    if (place_count == place_room) {
        const uint32_t room = 2 * place_room + 64;
        struct place *more = room < NO_PLACE / 2 ? realloc(places, room * sizeof(*more)) : NULL;

        if (!more) {
            return NO_PLACE;
        }
        places = more;
        place_room = room;
    }
    places[place_count] = (struct place){.generation = 0};
    return place_count++;
}

/*
 * The place of a handle that is in use, NULL when it is not. Any number may come here: a place
 * beyond all, a generation that has passed, or the address of something else that a program has
 * cast. With the mutex.
 */
static struct place *place_behind(uint64_t handle)
{
    const uint64_t index = (handle & UINT32_MAX) - 1; /* of 0 beyond all */
    struct place *place = index < place_count ? &places[index] : NULL;

    return place && place->thing && place->generation == (handle >> 32 & GENERATIONS) &&
                   place->type == (enum local_type)(handle >> 56)
               ? place
               : NULL;
}

uint64_t local_add(enum local_type type, void *thing)
{
    uint64_t handle = 0;
    uint32_t index;

    pthread_mutex_lock(&mutex);
    index = take_place();
    if (index != NO_PLACE) {
        places[index].thing = thing;
        places[index].type = type;
        /*
         * The type is at least 1, so no handle is 0, and none is an address of this process: these
         * end below bit 56.
         */
        handle = (uint64_t)type << 56 | (uint64_t)places[index].generation << 32 | (index + 1);
    }
    pthread_mutex_unlock(&mutex);
    return handle;
}

void *local_find(enum local_type type, uint64_t handle)
{
    const struct place *place;
    void *thing = NULL;

    /* Without the lock: NULL is asked for often. */
    if (handle >> 56 != (uint64_t)type) {
        return NULL;
    }
    pthread_mutex_lock(&mutex);
    place = place_behind(handle);
    if (place) {
        thing = place->thing;
    }
    pthread_mutex_unlock(&mutex);
    return thing;
}

void local_drop(uint64_t handle)
{
    struct place *place;

    pthread_mutex_lock(&mutex);
    place = place_behind(handle);
    if (place) {
        place->thing = NULL;
        place->generation = (place->generation + 1) & GENERATIONS;
        place->next = first_free;
        first_free = (uint32_t)(place - places);
    }
    pthread_mutex_unlock(&mutex);
}
