/* SPDX-License-Identifier: MIT */
/*
 * What sessions export to each other: the mediator's book of it (protocol/vgpu-worker.h has the
 * messages). Sessions that find each other's exports are those of one VM, or of one user's host
 * processes, each of which is a VM of its own here.
 *
 * A key is the number of its place and random bytes, so that nobody finds one by trying, and who
 * has kept one does not get what has its place now.
 *
 * Memory that several sessions of a VM have counts once against the VM. While its exporter lives
 * and has not withdrawn it, it is in the exporter's counter; after that the mediator counts it,
 * until the last importer has released it. All functions that change that say how many bytes.
 *
 * A session's part is also in a record, where it has one (record.h), entry by entry, so that the
 * next mediator finds it. A message of a worker's has a number, with which the entry is stored that
 * it changes: so one that is heard twice, by two mediators, is carried out once.
 */
#ifndef VGPU_MEDIATOR_EXPORTS_H
#define VGPU_MEDIATOR_EXPORTS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "mediator/list.h"
#include "mediator/record.h"
#include "protocol/vgpu-worker.h"

/* What a domain has exported; it is its sharers' together. */
struct exports;

/* A session's part in it. */
struct sharer {
    struct exports *domain;
    const void *account; /* sessions with the same one are of one VM */
    uint64_t session;    /* its number in the domain, from 1 */
    int events, memory;  /* its files, or -1 */
    struct list_entry exports, imports;
    uint32_t export_count, import_count;
    struct export_record *kept; /* the caller's; or NULL */
    bool partial;               /* not all of that could be restored */
    uint32_t heard;             /* number of the last message */
};

/* NULL when memory is short. Each that has it calls exports_unref() in the end. */
struct exports *exports_new(void);
struct exports *exports_ref(struct exports *domain);
void exports_unref(struct exports *domain); /* NULL is allowed */

/*
 * A session without exports. To be called for each anew: it gets a number. `kept` is empty, or
 * NULL; it stays the caller's, and has to be there until sharer_leave().
 */
void sharer_init(struct sharer *sharer, struct exports *domain, const void *account,
                 struct export_record *kept);

/*
 * A session as another mediator's record has it; its files are the caller's to set. Sessions of a
 * domain may come in any order. Returns 0 or -errno; then a part of it is there.
 */
int sharer_restore(struct sharer *sharer, struct exports *domain, const void *account,
                   struct export_record *kept);

/*
 * Takes `*share` into the book, and fills in its key. The result is for the answer; a negative one
 * is -EPROTO: the worker does what it may not. `number` is the message's, 0 where it has none; so
 * with the following ones.
 */
int sharer_export(struct sharer *sharer, struct vgpu_export *share, uint32_t number);

/* Finds what has the key, fills in *share, and notes who has it. *file: its exporter's, or -1. */
int sharer_import(struct sharer *sharer, struct vgpu_export *share, int *file, uint32_t number);

/* One that it had imported is given back. *freed: bytes that are nobody's any more. -EPROTO or 0 */
int sharer_release(struct sharer *sharer, const struct vgpu_export *share, uint64_t *freed,
                   uint32_t number);

/* One that it had exported is gone. The same. */
int sharer_withdraw(struct sharer *sharer, const struct vgpu_export *share, uint64_t *freed,
                    uint32_t number);

/* Calls `visit` with each file of events that the session may have taken words in. */
void sharer_visit_events(const struct sharer *sharer,
                         void (*visit)(const struct sharer *sharer, int file));

/* A part of a file. */
struct extent {
    uint64_t start, bytes;
};

/* What an ended session leaves. */
struct estate {
    uint64_t kept;            /* bytes that its worker has counted and others still have */
    uint64_t freed;           /* bytes that nobody counts and nobody has any more */
    int events, memory;       /* its files, which are the caller's now, or -1 */
    struct extent *still_had; /* of `memory`: what others have, malloc's; ascending */
    size_t count;             /* so many; SIZE_MAX: memory was short, all of it may be had */
};

/* The session has ended: it has and exports nothing any more. Its record stays as it is. */
void sharer_leave(struct sharer *sharer, struct estate *estate);

#endif
