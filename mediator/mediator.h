/* SPDX-License-Identifier: MIT */
/*
 * The mediator as a whole: what its parts share.
 *
 *   main.c     options, sockets, signals
 *   mediator.c what the parts below ask of the whole: the GPUs' timers, who may attach, the end
 *   client.c   connections on the attach socket
 *   attach.c   what they may do
 *   vm.c       an attached VM, and its worker for register mode
 *   queue.c    a queue of a VM, and its worker
 *   exports.c  what sessions export to each other
 *   process.c  a worker process
 *   launcher.c the process that starts them
 *   pool.c     the GPUs, and who is on which
 *   arbiter.c  whose turn it is on an engine of one
 *   cards.c    what VMs and operators are told of the GPUs
 *   control.c  vgpuctl's socket; control-answer.c and control-describe.c what it says
 *   metrics.c  Prometheus's; metrics-page.c likewise
 *   report.c   the figures for both
 *   config.c   the configuration
 *   reload.c   and taking it over
 *   vm-memory.c  memfds and eventfds
 *   chores.c   what the event loop does not wait for
 *   record.c   what outlives the mediator; keep.c the descriptors that do
 *   adopt.c    taking over what the mediator before has left
 *
 * One event loop (sd-event), in one thread; others do chores alone. Nothing here loads CUDA or
 * reads what a guest wrote.
 */
#ifndef VGPU_MEDIATOR_MEDIATOR_H
#define VGPU_MEDIATOR_MEDIATOR_H

#include <stdbool.h>
#include <sys/types.h>
#include <systemd/sd-event.h>

#include "mediator/config.h"
#include "mediator/list.h"
#include "mediator/pool.h"

/* Of timers that somebody waits for: sd-event's own, of 250 ms, is for what nobody does. */
#define TIMER_ACCURACY_US 1000u

struct cards;
struct client;
struct vm;

/*
 * Each line names the part that writes it; any may read.
 */
struct mediator {
    struct config config;            /* reload.c */
    const char *config_name;         /* main.c: of the file; NULL: the default, maybe missing */
    sd_event *event;                 /* main.c */
    struct pool pools[CONFIG_POOLS]; /* mediator.c, pool.c: by letter; those with an id are valid */
    sd_event_source *gpu_timers[CONFIG_POOLS][CONFIG_DEVICES]; /* mediator.c */
    struct vm *vms;                                            /* vm.c: attached, ascending ids */
    size_t vm_count;
    struct client *clients; /* client.c: the newest first */
    size_t client_count;
    struct cards *cards;       /* cards.c; NULL until opened */
    struct list_entry workers; /* process.c: those not reaped yet; a ring's head */
    sd_event_source *attach_source, *control_source; /* main.c */
    sd_event_source *grace_timer;                    /* main.c: while stopping */
    bool owns_listen, owns_control; /* main.c: bound by the mediator, which unlinks them */
    bool rules_listen;        /* main.c: who may reach the attach socket is the mediator's to say */
    bool stopping;            /* main.c */
    int launcher;             /* main.c: the socket to it */
    struct host_record *kept; /* adopt.c: what outlives the mediator, of all VMs together */
    uint32_t generation;      /* adopt.c: the number of this mediator; never 0 */
    unsigned unheard;         /* process.c: adopted workers that have not said STATE */
    sd_event_source *adopt_timer; /* adopt.c */
    unsigned carried;             /* adopt.c: sessions that were carried over to this mediator */
    uint64_t gap_ns;              /* adopt.c: for how long there was none; 0: not known */
    int fd_most;         /* main.c: descriptors from this number on are for VMs that are attached */
    int fd_control_most; /* and from this one on for nobody who asks either */
    uint64_t refusals;   /* client.c: connections that were refused, so far */
    uint64_t reloads;    /* reload.c: so far, whether taken over or not */
    uint64_t reload_failures; /* reload.c: of those, with mistakes in the configuration */
    bool misconfigured;       /* reload.c: the last one was such */
    uint64_t longest_ns;      /* main.c: that anything in the event loop has taken so far */
    char computes_on[192];    /* main.c, for people: a GPU's name or why there is none */
    bool has_gpu;             /* main.c */
    bool can_preempt;         /* main.c: the driver lets kernels be taken off the GPU */
};

/* After how much rest register mode gives its device back, in ns; 0: never. */
uint64_t mediator_rest_ns(const struct mediator *mediator);

/* Whether work that others wait for is taken off the GPU: where that can be and is wanted. */
bool mediator_preempts(const struct mediator *mediator);

/* The pool with this letter; it is defined. */
struct pool *mediator_pool(struct mediator *mediator, uint32_t letter);

/* Makes the pools of the configuration, each GPU with its timer. Returns 0 or -errno. */
int mediator_open_pools(struct mediator *mediator);
void mediator_close_pools(struct mediator *mediator);

/* To be called after anything that may have moved a turn: sets the GPU's timer. NULL: no GPU. */
void mediator_watch_gpu(struct mediator *mediator, struct pool_gpu *gpu);

/* The same for all GPUs of a pool. */
void mediator_watch_pool(struct mediator *mediator, struct pool *pool);

/*
 * Lets those users reach the attach socket whom the configuration names, where it is the mediator's
 * own. Peer credentials decide who may attach; others need not reach it.
 */
void mediator_open_to_users(struct mediator *mediator);

/* A worker has said how it stands, or has ended: when that was the last, the pools go on. */
void mediator_adopted(struct mediator *mediator);

/* The same, whoever has said so. */
void mediator_end_adoption(struct mediator *mediator);

/* From now on until the end of the event it works for this VM; 0: for none. */
void mediator_works_for(struct mediator *mediator, uint32_t vm);

/* A VM is ended for mediators that have crashed; it may not attach again for ten minutes. */
void mediator_note_ended(struct mediator *mediator, uint32_t vm);
bool mediator_was_ended(const struct mediator *mediator, uint32_t vm);

/* To be called when a pool is paused or goes on: the next mediator is to know. */
void mediator_note_pools(struct mediator *mediator);

/* While stopping: ends the event loop when no worker is left. */
void mediator_end_if_idle(struct mediator *mediator);

#endif
