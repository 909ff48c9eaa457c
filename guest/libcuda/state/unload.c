/* SPDX-License-Identifier: MIT */
/*
 * Unloading told from exit(), see unload.h.
 *
 * exit() is made to post a semaphore. A handler that is of no object, as the LSB has it of
 * __cxa_atexit(), is called by exit() alone, and before any destructor. It is a function of libc's,
 * and the semaphore is left to the process: both have to be there when this library is gone. Both
 * functions are libc's own: ThreadSanitizer's __cxa_atexit(), which a program may have before it,
 * calls such a handler without its argument.
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

/* A function of a library that is loaded, which has to stay so. */
static void *own_function(const char *library, const char *name)
{
    void *handle = dlopen(library, RTLD_NOW | RTLD_NOLOAD);
    void *function = handle ? dlsym(handle, name) : NULL;

    if (handle) {
        dlclose(handle);
    }
    return function;
}

void unload_watch(void)
{
    int (*at_exit)(void (*handler)(void *), void *argument, void *object);
    void (*post)(void *);
    sem_t *semaphore = NULL;

    if (!in_first_namespace()) {
        return;
    }
    *(void **)&at_exit = own_function("libc.so.6", "__cxa_atexit");
    *(void **)&post = own_function("libc.so.6", "sem_post");
    /* Before glibc 2.34. */
    if (!post) {
        *(void **)&post = own_function("libpthread.so.0", "sem_post");
    }
    if (at_exit && post) {
        semaphore = malloc(sizeof(*semaphore));
    }
    if (semaphore && sem_init(semaphore, 0, 0) == 0 && at_exit(post, semaphore, NULL) == 0) {
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
