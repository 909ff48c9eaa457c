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
 */
#ifndef VGPU_MEDIATOR_EXPORTS_H
#define VGPU_MEDIATOR_EXPORTS_H

#include <stdint.h>

#include "protocol/vgpu-worker.h"

/* What a domain has exported; it is its sharers' together. */
struct exports;

/* A session's part in it. */
struct sharer {
    struct exports *domain;
    const void *account;    /* sessions with the same one are of one VM */
    int file;               /* the session's shared file, or -1 */
    uint64_t session;       /* its number in the domain, from 1; 0: it has exported nothing */
    struct export *exports; /* `export_count` of them */
    struct import *imports; /* `import_count` */
    uint32_t export_count, import_count;
};

/* NULL when memory is short. Each that has it calls exports_unref() in the end. */
struct exports *exports_new(void);
struct exports *exports_ref(struct exports *domain);
void exports_unref(struct exports *domain); /* NULL is allowed */

/* A session without exports. */
void sharer_init(struct sharer *sharer, struct exports *domain, const void *account);

/*
 * Takes `*share` into the book, and fills in its key. The result is for the answer; a negative one
 * is -EPROTO: the worker does what it may not.
 */
int sharer_export(struct sharer *sharer, struct vgpu_export *share);

/* Finds what has the key, fills in *share, and notes who has it. *file: its exporter's, or -1. */
int sharer_import(struct sharer *sharer, struct vgpu_export *share, int *file);

/* One that it had imported is given back. *freed: bytes that are nobody's any more. -EPROTO or 0 */
int sharer_release(struct sharer *sharer, const struct vgpu_export *share, uint64_t *freed);

/* One that it had exported is gone. The same. */
int sharer_withdraw(struct sharer *sharer, const struct vgpu_export *share, uint64_t *freed);

/*
 * The session has ended: it has and exports nothing any more. *kept: bytes that its worker has
 * counted and others still have. *freed: bytes that nobody counts and nobody has any more. The file
 * is given back to the caller, or -1.
 */
int sharer_leave(struct sharer *sharer, uint64_t *kept, uint64_t *freed);

#endif
