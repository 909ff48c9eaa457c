/* SPDX-License-Identifier: MIT */
/*
 * The mediator as a whole: what its parts share.
 *
 *   main.c     options, sockets, signals
 *   client.c   connections on the attach socket
 *   attach.c   what they may do
 *   vm.c       an attached VM, and its worker for register mode
 *   queue.c    a queue of a VM, and its worker
 *   process.c  a worker process
 *   pool.c     the GPUs, and who is on which
 *   arbiter.c  whose turn it is on an engine of one
 *   control.c  vgpuctl's socket; control-answer.c and control-describe.c what it says
 *   metrics.c  Prometheus's; metrics-page.c likewise
 *   report.c   the figures for both
 *   config.c   the configuration
 *   reload.c   and taking it over
 *   vm-memory.c  memfds and eventfds
 *
 * One thread, one event loop (sd-event). Nothing here loads CUDA or reads what a guest wrote.
 */
#ifndef VGPU_MEDIATOR_MEDIATOR_H
#define VGPU_MEDIATOR_MEDIATOR_H

#include <stdbool.h>
#include <systemd/sd-event.h>

#include "mediator/config.h"
#include "mediator/pool.h"

struct client;
struct vm;

struct mediator {
    struct config config;
    sd_event *event;
    const char *config_name;         /* of the file; NULL: the default one, which may be missing */
    struct pool pools[CONFIG_POOLS]; /* by letter; those with an id are valid */
    sd_event_source *gpu_timers[CONFIG_POOLS][CONFIG_DEVICES];
    struct vm *vms; /* attached, ascending ids */
    size_t vm_count;
    struct client *clients;
    size_t client_count;
    sd_event_source *attach_source, *control_source;
    sd_event_source *grace_timer; /* while stopping */
    uint64_t refusal_logged_ns;   /* when one was logged last, and whose it was */
    uid_t refusal_user;
    bool owns_listen, owns_control; /* bound by us: to be unlinked */
    bool stopping;
    char computes_on[192]; /* what computes, for people: a GPU's name or why there is none */
    bool has_gpu;
};

/* The pool with this letter; it is defined. */
struct pool *mediator_pool(struct mediator *mediator, uint32_t letter);

/* To be called after anything that may have moved a turn: sets the clock for the next. NULL: none.
 */
void mediator_watch_gpu(struct mediator *mediator, struct pool_gpu *gpu);

/* The same for all GPUs of a pool. */
void mediator_watch_pool(struct mediator *mediator, struct pool *pool);

/* Opens the attach socket, where it is the mediator's own, to whom the configuration lets attach.
 */
void mediator_open_to_users(struct mediator *mediator);

/* A worker has ended while stopping: ends the event loop when it was the last. */
void mediator_worker_gone(struct mediator *mediator);

#endif
