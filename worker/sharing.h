/* SPDX-License-Identifier: MIT */
/*
 * What a session has together with others of its VM: memory that one has exported and others have
 * imported, and events that several record and wait for. Sessions find each other by way of the
 * mediator (protocol/vgpu-worker.h), which is asked, and answers at once: that is the one thing
 * that a worker waits for.
 *
 * An example. A process makes an event for several processes, records it, and gives its handle, the
 * key, to another, which has its own stream wait for it:
 *
 *   exporter's worker                              importer's worker
 *   an event of its file: number 5
 *   EXPORT (event, "5")      -> key
 *   announce: takes word 9, and current[5] = V,
 *   a value of that word
 *   its stream stores V in word[9]
 *                                                  IMPORT key -> "5" and the file, which it maps
 *                                                  the event's number is current[5], V
 *                                                  its stream waits for word[9] >= V
 *
 * Recording is in two steps, and so is waiting: the guest asks for the number, which is given out
 * at once, and then posts the store or the wait, which may have to wait for a turn. So who waits
 * waits for what was recorded when the program called, whatever both workers are doing.
 */
#ifndef VGPU_WORKER_SHARING_H
#define VGPU_WORKER_SHARING_H

#include <stdbool.h>
#include <stdint.h>

#include "protocol/vgpu-worker.h"

struct ring_session;

struct sharing {
    int link;   /* to the mediator */
    int events; /* the session's file of events, or -1: nothing is shared */
    int memory; /* of its device memory, or -1: that is the GPU's */
    /* Another mediator, with this number, asks for STATE while an answer is waited for. */
    void (*resync)(uint32_t number);
    bool sent_events, sent_memory;
    uint64_t session;                 /* its number, 0: not known yet */
    uint32_t number;                  /* of the last message about exports */
    struct shared_file *files;        /* of events, that are mapped; its own too */
    struct exported_memory *exported; /* of mem_alloc()'s */
    struct imported_memory *imported;
    uint64_t own[VGPU_SHARED_EVENTS / 64]; /* bit N: its own event N exists */
};

/* The files of a session. */
struct sharing_files {
    int events, memory; /* descriptors, or -1 */
};

/*
 * Makes them, sealed, with nothing in them; `memory` only where it is asked for. Returns 0 or
 * -errno; then both are -1. Their memory is taken when something is stored there.
 */
int sharing_make_files(bool memory, struct sharing_files *files);

/* The files become the session's. */
void sharing_init(struct ring_session *session, int link, const struct sharing_files *files);

/*
 * The memory that began here was freed. Where it was exported, it is withdrawn, and whether the
 * VM has it back is up to who has imported it.
 */
void sharing_memory_freed(struct ring_session *session, uint64_t address);

/* Unmaps what no event of the session's is in any more, when nothing is on the GPU. */
void sharing_drop_unused(struct ring_session *session);

/*
 * Forgets all. What is mapped stays, since streams may still wait for it: it goes with the process,
 * and the mediator does its part then.
 */
void sharing_release(struct ring_session *session);

#endif
