/* SPDX-License-Identifier: MIT */
/*
 * What sessions export to each other, see exports.h. Nothing here takes longer where there is more
 * of it, but for the end of a session.
 */
#include "mediator/exports.h"

#include <errno.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>

/* One thing that is exported; it is there until it is withdrawn and nobody holds it. */
struct export
{
    struct list_entry entry; /* of its exporter's */
    struct sharer *sharer;   /* NULL: withdrawn */
    struct vgpu_export share;
    struct list_entry imports;
};

/* That a sharer has it, so many times. */
struct import {
    struct list_entry entry; /* of the sharer's */
    struct list_entry other; /* of the export's: one for each sharer */
    struct sharer *sharer;
    struct export *export;
    uint32_t times;
};

/* Where a key leads. A free place has the number of the next free one. */
struct place {
    struct export *export;
    uint32_t next_free;
};

struct exports {
    unsigned references;
    struct place *place; /* `room` of them, `used` have been taken before */
    uint32_t room, used, free;
    uint64_t sessions; /* numbers given out */
};

#define NO_PLACE UINT32_MAX

static struct import *import_of(struct list_entry *entry)
{
    return LIST_OWNER(entry, struct import, entry);
}

static struct export *export_of(struct list_entry *entry)
{
    return LIST_OWNER(entry, struct export, entry);
}

struct exports *exports_new(void)
{
    struct exports *domain = calloc(1, sizeof(*domain));

    if (domain) {
        domain->references = 1;
        domain->free = NO_PLACE;
    }
    return domain;
}

struct exports *exports_ref(struct exports *domain)
{
    domain->references++;
    return domain;
}

void exports_unref(struct exports *domain)
{
    if (domain && --domain->references == 0) {
        free(domain->place);
        free(domain);
    }
}

void sharer_init(struct sharer *sharer, struct exports *domain, const void *account)
{
    *sharer = (struct sharer){.domain = domain,
                              .account = account,
                              .session = ++domain->sessions,
                              .events = -1,
                              .memory = -1};
    list_init(&sharer->exports);
    list_init(&sharer->imports);
}

/* Keys ------------------------------------------------------------------------------------- */

/* A free place's number; NO_PLACE when memory is short. */
static uint32_t take_key_place(struct exports *domain)
{
    const uint32_t room = domain->room == 0 ? 16 : 2 * domain->room;
    const uint32_t number = domain->free;
    struct place *more;

    if (number != NO_PLACE) {
        domain->free = domain->place[number].next_free;
        return number;
    }
    if (domain->used == domain->room) {
        more = realloc(domain->place, room * sizeof(*more));
        if (!more) {
            return NO_PLACE;
        }
        domain->place = more;
        domain->room = room;
    }
    return domain->used++;
}

/* Gives the export a place and a key; false when that cannot be. */
static bool place_export(struct exports *domain, struct export *export)
{
    const size_t random = sizeof(export->share.key) - sizeof(uint32_t);
    uint8_t *key = export->share.key;
    uint32_t number;

    if (getrandom(key + sizeof(number), random, 0) != (ssize_t)random) {
        return false;
    }
    number = take_key_place(domain);
    if (number == NO_PLACE) {
        return false;
    }
    memcpy(key, &number, sizeof(number));
    domain->place[number].export = export;
    return true;
}

/* What has this key, withdrawn or not; NULL: nothing. */
static struct export *find_export(const struct exports *domain, const uint8_t *key)
{
    struct export *export;
    uint32_t number;

    memcpy(&number, key, sizeof(number));
    export = number < domain->used ? domain->place[number].export : NULL;
    return export && memcmp(export->share.key, key, sizeof(export->share.key)) == 0 ? export : NULL;
}

static void remove_export(struct exports *domain, struct export *export)
{
    uint32_t number;

    memcpy(&number, export->share.key, sizeof(number));
    domain->place[number] = (struct place){.next_free = domain->free};
    domain->free = number;
    free(export);
}

/* Exporting -------------------------------------------------------------------------------- */

int sharer_export(struct sharer *sharer, struct vgpu_export *share)
{
    struct export *export;

    if ((share->kind != VGPU_EXPORT_MEMORY && share->kind != VGPU_EXPORT_EVENT) ||
        (share->kind == VGPU_EXPORT_EVENT && share->bytes != 0)) {
        return -EPROTO;
    }
    if (sharer->export_count >= VGPU_EXPORTS_MAX) {
        return VGPU_LINK_FULL;
    }
    export = calloc(1, sizeof(*export));
    if (export) {
        export->share = *share;
    }
    if (!export || !place_export(sharer->domain, export)) {
        free(export);
        return VGPU_LINK_FULL;
    }
    export->sharer = sharer;
    list_init(&export->imports);
    list_add_before(&sharer->exports, &export->entry);
    sharer->export_count++;
    memcpy(share->key, export->share.key, sizeof(share->key));
    return VGPU_LINK_DONE_WELL;
}

/* Nobody exports it any more; returns the bytes that are nobody's with it. */
static uint64_t disown_export(struct sharer *sharer, struct export *export)
{
    const uint64_t bytes = export->share.bytes;

    list_remove(&export->entry);
    sharer->export_count--;
    export->sharer = NULL;
    if (!list_empty(&export->imports)) {
        return 0;
    }
    remove_export(sharer->domain, export);
    return bytes;
}

int sharer_withdraw(struct sharer *sharer, const struct vgpu_export *share, uint64_t *freed)
{
    struct export *export = find_export(sharer->domain, share->key);

    *freed = 0;
    if (!export || export->sharer != sharer) {
        return -EPROTO;
    }
    *freed = disown_export(sharer, export);
    return 0;
}

/* Importing -------------------------------------------------------------------------------- */

/* Whether it is noted who has it: memory that another account counts needs no note. */
static bool is_noted(const struct sharer *sharer, const struct export *export)
{
    return export->share.kind == VGPU_EXPORT_EVENT || export->sharer->account == sharer->account;
}

static struct import *find_import(const struct sharer *sharer, const struct export *export)
{
    for (struct list_entry *e = export->imports.next; e != &export->imports; e = e->next) {
        struct import *import = LIST_OWNER(e, struct import, other);

        if (import->sharer == sharer) {
            return import;
        }
    }
    return NULL;
}

/* Notes that the sharer has it, once more. False: it has too much, or memory is short. */
static bool note_import(struct sharer *sharer, struct export *export)
{
    struct import *import = find_import(sharer, export);

    if (sharer->import_count >= VGPU_EXPORTS_MAX) {
        return false;
    }
    if (!import) {
        import = calloc(1, sizeof(*import));
        if (!import) {
            return false;
        }
        import->sharer = sharer;
        import->export = export;
        list_add_before(&sharer->imports, &import->entry);
        list_add_before(&export->imports, &import->other);
    }
    import->times++;
    sharer->import_count++;
    return true;
}

int sharer_import(struct sharer *sharer, struct vgpu_export *share, int *file)
{
    struct export *export = find_export(sharer->domain, share->key);

    *file = -1;
    if (!export || !export->sharer || export->share.kind != share->kind) {
        return VGPU_LINK_UNKNOWN;
    }
    if (export->sharer == sharer) {
        return VGPU_LINK_OWN;
    }
    if (is_noted(sharer, export) && !note_import(sharer, export)) {
        return VGPU_LINK_FULL;
    }
    *share = export->share;
    share->foreign = export->sharer->account != sharer->account;
    share->session = export->sharer->session;
    *file = share->kind == VGPU_EXPORT_EVENT ? export->sharer->events : export->sharer->memory;
    return VGPU_LINK_DONE_WELL;
}

/* The sharer has it no more; returns the bytes that are nobody's with it. */
static uint64_t drop_import(struct sharer *sharer, struct import *import)
{
    struct export *export = import->export;
    uint64_t freed = 0;

    list_remove(&import->entry);
    list_remove(&import->other);
    sharer->import_count -= import->times;
    free(import);
    if (!export->sharer && list_empty(&export->imports)) {
        freed = export->share.bytes;
        remove_export(sharer->domain, export);
    }
    return freed;
}

int sharer_release(struct sharer *sharer, const struct vgpu_export *share, uint64_t *freed)
{
    const struct export *export = find_export(sharer->domain, share->key);
    struct import *import = export ? find_import(sharer, export) : NULL;

    *freed = 0;
    if (!import) {
        return -EPROTO;
    }
    if (import->times > 1) {
        import->times--;
        sharer->import_count--;
        return 0;
    }
    *freed = drop_import(sharer, import);
    return 0;
}

/* Leaving ---------------------------------------------------------------------------------- */

void sharer_visit_events(const struct sharer *sharer,
                         void (*visit)(const struct sharer *sharer, int file))
{
    if (sharer->events >= 0) {
        visit(sharer, sharer->events);
    }
    for (struct list_entry *e = sharer->imports.next; e != &sharer->imports; e = e->next) {
        const struct export *export = import_of(e)->export;

        if (export->share.kind == VGPU_EXPORT_EVENT && export->sharer &&
            export->sharer->events >= 0) {
            visit(sharer, export->sharer->events);
        }
    }
}

static int compare_extents(const void *one, const void *other)
{
    const struct extent *a = one, *b = other;

    return (a->start > b->start) - (a->start < b->start);
}

/* Adds what others have of the session's memory; its place is in its name. */
static void note_extent(struct estate *estate, const struct vgpu_export *share)
{
    struct extent *more;

    if (share->kind != VGPU_EXPORT_MEMORY || estate->memory < 0 || estate->count == SIZE_MAX) {
        return;
    }
    more = realloc(estate->still_had, (estate->count + 1) * sizeof(*more));
    if (!more) {
        estate->count = SIZE_MAX;
        return;
    }
    estate->still_had = more;
    memcpy(&more[estate->count].start, share->name, sizeof(more->start));
    more[estate->count++].bytes = share->bytes;
}

void sharer_leave(struct sharer *sharer, struct estate *estate)
{
    *estate = (struct estate){.events = sharer->events, .memory = sharer->memory};
    for (struct list_entry *e = sharer->imports.next, *next; e != &sharer->imports; e = next) {
        next = e->next;
        estate->freed += drop_import(sharer, import_of(e));
    }
    for (struct list_entry *e = sharer->exports.next, *next; e != &sharer->exports; e = next) {
        struct export *export = export_of(e);

        next = e->next;
        /* What nobody has is in the counter of the worker, with which it goes. */
        if (!list_empty(&export->imports)) {
            estate->kept += export->share.bytes;
            note_extent(estate, &export->share);
        }
        disown_export(sharer, export);
    }
    if (estate->count > 1 && estate->count != SIZE_MAX) {
        qsort(estate->still_had, estate->count, sizeof(*estate->still_had), compare_extents);
    }
    sharer->events = sharer->memory = -1;
}
