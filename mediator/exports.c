/* SPDX-License-Identifier: MIT */
/* What sessions export to each other, see exports.h. */
#include "mediator/exports.h"

#include <errno.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>

/* One thing that is exported; it is there until it is withdrawn and nobody holds it. */
struct export
{
    struct export *next;   /* of its exporter's */
    struct sharer *sharer; /* NULL: withdrawn */
    struct vgpu_export share;
    uint32_t held; /* imports, of sharers with its account */
};

struct import {
    struct import *next;
    struct export *export;
};

struct exports {
    unsigned references;
    struct export **place; /* `room` of them; NULL: free */
    uint32_t room, used;
    uint32_t next;     /* where to look for a free one */
    uint64_t sessions; /* numbers given out */
};

struct exports *exports_new(void)
{
    struct exports *domain = calloc(1, sizeof(*domain));

    if (domain) {
        domain->references = 1;
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
    *sharer = (struct sharer){.domain = domain, .account = account, .file = -1};
}

/* Keys ------------------------------------------------------------------------------------- */

/* Doubles the places when all are taken. */
static bool exports_make_room(struct exports *domain)
{
    const uint32_t room = domain->room == 0 ? 16 : 2 * domain->room;
    struct export **more;

    if (domain->used < domain->room) {
        return true;
    }
    more = realloc(domain->place, room * sizeof(struct export *));
    if (!more) {
        return false;
    }
    memset(more + domain->room, 0, (room - domain->room) * sizeof(struct export *));
    domain->place = more;
    domain->next = domain->room;
    domain->room = room;
    return true;
}

/* Gives the export a place and a key. There is a free place. */
static bool exports_place(struct exports *domain, struct export *export)
{
    uint8_t *key = export->share.key;

    while (domain->place[domain->next]) {
        domain->next = (domain->next + 1) % domain->room;
    }
    memcpy(key, &domain->next, sizeof(domain->next));
    if (getrandom(key + sizeof(domain->next), sizeof(export->share.key) - sizeof(domain->next),
                  0) != (ssize_t)(sizeof(export->share.key) - sizeof(domain->next))) {
        return false;
    }
    domain->place[domain->next] = export;
    domain->used++;
    return true;
}

/* What has this key, withdrawn or not; NULL: nothing. */
static struct export *exports_find(const struct exports *domain, const uint8_t *key)
{
    struct export *export;
    uint32_t place;

    memcpy(&place, key, sizeof(place));
    export = place < domain->room ? domain->place[place] : NULL;
    return export && memcmp(export->share.key, key, sizeof(export->share.key)) == 0 ? export : NULL;
}

static void exports_remove(struct exports *domain, struct export *export)
{
    uint32_t place;

    memcpy(&place, export->share.key, sizeof(place));
    domain->place[place] = NULL;
    domain->used--;
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
    if (!export || !exports_make_room(sharer->domain) || !exports_place(sharer->domain, export)) {
        free(export);
        return VGPU_LINK_FULL;
    }
    if (sharer->session == 0) {
        sharer->session = ++sharer->domain->sessions;
    }
    export->sharer = sharer;
    export->next = sharer->exports;
    sharer->exports = export;
    sharer->export_count++;
    memcpy(share->key, export->share.key, sizeof(share->key));
    return VGPU_LINK_DONE_WELL;
}

/* It is off its exporter's list; returns the bytes that are nobody's with it. */
static uint64_t exports_disown(struct exports *domain, struct export *export)
{
    const uint64_t bytes = export->share.bytes;

    export->sharer = NULL;
    if (export->held > 0) {
        return 0;
    }
    exports_remove(domain, export);
    return bytes;
}

int sharer_withdraw(struct sharer *sharer, const struct vgpu_export *share, uint64_t *freed)
{
    struct export **place = &sharer->exports;
    struct export *export = exports_find(sharer->domain, share->key);

    *freed = 0;
    if (!export || export->sharer != sharer) {
        return -EPROTO;
    }
    while (*place != export) {
        place = &(*place)->next;
    }
    *place = export->next;
    sharer->export_count--;
    *freed = exports_disown(sharer->domain, export);
    return 0;
}

/* Importing -------------------------------------------------------------------------------- */

int sharer_import(struct sharer *sharer, struct vgpu_export *share, int *file)
{
    struct export *export = exports_find(sharer->domain, share->key);
    struct import *import;

    *file = -1;
    if (!export || !export->sharer || export->share.kind != share->kind) {
        return VGPU_LINK_UNKNOWN;
    }
    if (export->sharer == sharer) {
        return VGPU_LINK_OWN;
    }
    *share = export->share;
    share->foreign = export->sharer->account != sharer->account;
    share->session = export->sharer->session;
    *file = export->sharer->file;
    if (share->kind == VGPU_EXPORT_EVENT || share->foreign) {
        return VGPU_LINK_DONE_WELL;
    }
    import = sharer->import_count < VGPU_EXPORTS_MAX ? calloc(1, sizeof(*import)) : NULL;
    if (!import) {
        return VGPU_LINK_FULL;
    }
    *import = (struct import){.next = sharer->imports, .export = export};
    sharer->imports = import;
    sharer->import_count++;
    export->held++;
    return VGPU_LINK_DONE_WELL;
}

/* Takes the import off the list; returns the bytes that are nobody's with it. */
static uint64_t sharer_drop_import(struct sharer *sharer, struct import **place)
{
    struct import *import = *place;
    struct export *export = import->export;
    uint64_t freed = 0;

    *place = import->next;
    sharer->import_count--;
    free(import);
    if (--export->held == 0 && !export->sharer) {
        freed = export->share.bytes;
        exports_remove(sharer->domain, export);
    }
    return freed;
}

int sharer_release(struct sharer *sharer, const struct vgpu_export *share, uint64_t *freed)
{
    struct import **place = &sharer->imports;
    const struct export *export = exports_find(sharer->domain, share->key);

    *freed = 0;
    while (*place && (*place)->export != export) {
        place = &(*place)->next;
    }
    if (!export || !*place) {
        return -EPROTO;
    }
    *freed = sharer_drop_import(sharer, place);
    return 0;
}

int sharer_leave(struct sharer *sharer, uint64_t *kept, uint64_t *freed)
{
    const int file = sharer->file;

    *kept = *freed = 0;
    while (sharer->imports) {
        *freed += sharer_drop_import(sharer, &sharer->imports);
    }
    while (sharer->exports) {
        struct export *export = sharer->exports;
        const uint64_t bytes = export->share.bytes;

        sharer->exports = export->next;
        /* What nobody has is in the counter of the worker, with which it goes. */
        if (exports_disown(sharer->domain, export) == 0) {
            *kept += bytes;
        }
    }
    sharer->export_count = 0;
    sharer->session = 0;
    sharer->file = -1;
    return file;
}
