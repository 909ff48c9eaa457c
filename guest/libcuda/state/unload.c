/* SPDX-License-Identifier: MIT */
/*
 * Unloading told from exit(), see unload.h.
 *
 * exit() is made to post a semaphore. A handler that is of no object, as the LSB has it of
 * __cxa_atexit(), is called by exit() alone, and before any destructor. It is a function of libc's,
 * and the semaphore is left to the process: both have to be there when this library is gone.
 *
 * A library in a namespace of its own (dlmopen()) has a libc of its own, whose handlers the
 * program's exit() does not know. There nothing is watched.
 */
#include "guest/libcuda/state/unload.h"

#include <dlfcn.h>
#include <link.h>
#include <semaphore.h>
#include <stdlib.h>

static sem_t *exiting; /* posted by exit(); NULL where that is not watched */

static bool in_first_namespace(void)
{
    Dl_info own;
    struct link_map *map;
    Lmid_t space;

    return dladdr1(&exiting, &own, (void **)&map, RTLD_DL_LINKMAP) != 0 &&
           dlinfo(map, RTLD_DI_LMID, &space) == 0 && space == LM_ID_BASE;
}

void unload_watch(void)
{
    extern int __cxa_atexit(void (*handler)(void *), void *argument, void *object);
    sem_t *semaphore = in_first_namespace() ? malloc(sizeof(*semaphore)) : NULL;

    if (semaphore && sem_init(semaphore, 0, 0) == 0 &&
        __cxa_atexit((void (*)(void *))(void (*)(void))sem_post, semaphore, NULL) == 0) {
        exiting = semaphore;
    } else {
        free(semaphore);
    }
}

bool unload_under_way(void)
{
    int posts = 1;

    return exiting && sem_getvalue(exiting, &posts) == 0 && posts == 0;
}
