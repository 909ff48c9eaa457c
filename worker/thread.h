/* SPDX-License-Identifier: MIT */
/* A worker's threads beside the main one. */
#ifndef VGPU_WORKER_THREAD_H
#define VGPU_WORKER_THREAD_H

#include <pthread.h>

/*
 * Starts a thread that ends with the process, with a small stack of 256 KiB. `argument` stays the
 * caller's, and has to be there as long. Returns 0 or -errno.
 */
static inline int thread_start(void *(*run)(void *argument), void *argument)
{
    pthread_attr_t attributes;
    pthread_t thread;
    int r;

    pthread_attr_init(&attributes);
    pthread_attr_setdetachstate(&attributes, PTHREAD_CREATE_DETACHED);
    pthread_attr_setstacksize(&attributes, 256u << 10);
    r = pthread_create(&thread, &attributes, run, argument);
    pthread_attr_destroy(&attributes);
    return -r;
}

#endif
