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
 *   an event of its shared file: number 5
 *   EXPORT (event, "5")      -> key
 *   announce: takes word 9, current[5] = 1 << 10 | 9
 *   its stream stores that in word[9]
 *                                                  IMPORT key -> "5" and the file, which it maps
 *                                                  the event's number is current[5]
 *                                                  its stream waits for word[9] >= 1 << 10 | 9
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
    int link; /* to the mediator */
    int file; /* the session's shared file, or -1: nothing is shared */
    bool sent;
    struct shared_file *files;        /* that are mapped, its own too */
    struct exported_memory *exported; /* of mem_alloc()'s */
    struct imported_memory *imported;
    unsigned event_count;
    uint64_t events[VGPU_SHARED_EVENTS / 64]; /* bit N: its own event N exists */
};

/*
 * Makes a shared file, sealed, with nothing in it. Returns the descriptor or -errno. Its memory is
 * taken when something is stored there.
 */
int sharing_make_file(void);

/* The file becomes the session's; -1: it has none, and exports nothing. */
void sharing_init(struct ring_session *session, int link, int file);

/*
 * The memory that began here was freed. Where it was exported, it is withdrawn, and whether the
 * VM has it back is up to who has imported it.
 */
void sharing_memory_freed(struct ring_session *session, uint64_t address);

/* Unmaps what no event of the session's is in any more, when nothing is on the GPU. */
void sharing_drop_unused(struct ring_session *session);

/* Forgets all; the mediator does its part when the process ends. */
void sharing_release(struct ring_session *session);

#endif
