/* SPDX-License-Identifier: MIT */
/*
 * What sessions export to each other, see exports.h. What takes longer where there is more of it:
 * the end of a session and its restoring, finding a free entry in a record, a message that is heard
 * again, and finding the import of one of many sessions that have the same thing.
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
    struct export_entry *entry_kept; /* of its exporter's record; NULL: none */
};

/* That a sharer has it, so many times. */
struct import {
    struct list_entry entry; /* of the sharer's */
    struct list_entry other; /* of the export's: one for each sharer */
    struct sharer *sharer;
    struct export *export;
    uint32_t times;
    struct export_entry *entry_kept;
};

/* Where a key leads. A free place has the numbers of the free ones beside it in their list. */
struct place {
    struct export *export;
    uint32_t next_free, previous_free;
};

struct exports {
    unsigned references;
    struct place *place; /* `room` of them, `used` have been taken before */
    uint32_t room, used, free;
    uint64_t sessions; /* numbers given out */
};

#define NO_PLACE UINT32_MAX
/* Places that a record may name: all sessions of 4096 VMs' could not take as many. */
#define PLACES_MAX (1u << 24)

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

static void begin_sharer(struct sharer *sharer, struct exports *domain, const void *account,
                         struct export_record *kept)
{
    *sharer = (struct sharer){
        .domain = domain, .account = account, .events = -1, .memory = -1, .kept = kept};
    list_init(&sharer->exports);
    list_init(&sharer->imports);
}

void sharer_init(struct sharer *sharer, struct exports *domain, const void *account,
                 struct export_record *kept)
{
    begin_sharer(sharer, domain, account, kept);
    sharer->session = ++domain->sessions;
    if (kept) {
        kept->session = sharer->session;
    }
}

/* The record -------------------------------------------------------------------------------- */

static uint32_t entry_times(const struct export_entry *entry)
{
    return (uint32_t)__atomic_load_n(&entry->state, __ATOMIC_ACQUIRE);
}

static uint32_t entry_number(const struct export_entry *entry)
{
    return (uint32_t)(__atomic_load_n(&entry->state, __ATOMIC_ACQUIRE) >> 32);
}

/* The one store by which a message is carried out, as the next mediator sees it. */
static void set_entry(struct export_entry *entry, uint32_t times, uint32_t number)
{
    if (entry) {
        __atomic_store_n(&entry->state, (uint64_t)number << 32 | times, __ATOMIC_RELEASE);
    }
}

/* The first free entry: there is one, as the counts are limited. So few pages are ever touched. */
static struct export_entry *take_entry(struct export_entry *entries, uint32_t *used)
{
    uint32_t i = 0;

    while (i < *used && entry_times(&entries[i]) != 0) {
        i++;
    }
    *used = i < *used ? *used : i + 1;
    return &entries[i];
}

/*
 * Whether the message with this number, or a later one, has come before: to another mediator, or
 * from a worker that lies.
 */
static bool was_heard(struct sharer *sharer, uint32_t number)
{
    if (number != 0 && (int32_t)(number - sharer->heard) <= 0 && sharer->heard != 0) {
        return true;
    }
    sharer->heard = number;
    return false;
}

/* Whether the entry is as the message with this number has left it. */
static bool is_made_by(const struct export_entry *entry, uint32_t number)
{
    return entry && number != 0 && entry_number(entry) == number;
}

/* Keys ------------------------------------------------------------------------------------- */

/* Makes room for one more; false when memory is short. */
static bool more_places(struct exports *domain)
{
    const uint32_t room = domain->room == 0 ? 16 : 2 * domain->room;
    struct place *more;

    if (domain->used < domain->room) {
        return true;
    }
    more = realloc(domain->place, room * sizeof(*more));
    if (more) {
        domain->place = more;
        domain->room = room;
    }
    return more != NULL;
}

static void free_place(struct exports *domain, uint32_t number)
{
    domain->place[number] = (struct place){.next_free = domain->free, .previous_free = NO_PLACE};
    if (domain->free != NO_PLACE) {
        domain->place[domain->free].previous_free = number;
    }
    domain->free = number;
}

static void take_free_place(struct exports *domain, uint32_t number)
{
    const struct place *place = &domain->place[number];

    if (place->next_free != NO_PLACE) {
        domain->place[place->next_free].previous_free = place->previous_free;
    }
    if (place->previous_free != NO_PLACE) {
        domain->place[place->previous_free].next_free = place->next_free;
    } else {
        domain->free = place->next_free;
    }
}

/* A free place's number; NO_PLACE when memory is short. */
static uint32_t take_key_place(struct exports *domain)
{
    const uint32_t number = domain->free;

    if (number != NO_PLACE) {
        take_free_place(domain, number);
        return number;
    }
    return more_places(domain) ? domain->used++ : NO_PLACE;
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
    free_place(domain, number);
    free(export);
}

/* Exporting -------------------------------------------------------------------------------- */

static void own_export(struct sharer *sharer, struct export *export)
{
    export->sharer = sharer;
    list_add_before(&sharer->exports, &export->entry);
    sharer->export_count++;
}

/* What the same message has exported already; NULL: nothing. */
static struct export *find_same(const struct sharer *sharer, const struct vgpu_export *share,
                                uint32_t number)
{
    for (struct list_entry *e = sharer->exports.next; e != &sharer->exports; e = e->next) {
        struct export *export = export_of(e);

        if (is_made_by(export->entry_kept, number) && export->share.kind == share->kind &&
            export->share.bytes == share->bytes &&
            memcmp(export->share.name, share->name, sizeof(share->name)) == 0) {
            return export;
        }
    }
    return NULL;
}

int sharer_export(struct sharer *sharer, struct vgpu_export *share, uint32_t number)
{
    struct export *export;

    export = was_heard(sharer, number) ? find_same(sharer, share, number) : NULL;
    if (export) {
        memcpy(share->key, export->share.key, sizeof(share->key));
        return VGPU_LINK_DONE_WELL;
    }
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
    list_init(&export->imports);
    own_export(sharer, export);
    if (sharer->kept) {
        export->entry_kept = take_entry(sharer->kept->exports, &sharer->kept->exports_used);
        export->entry_kept->share = export->share;
        set_entry(export->entry_kept, 1, number);
    }
    memcpy(share->key, export->share.key, sizeof(share->key));
    return VGPU_LINK_DONE_WELL;
}

/* Nobody exports it any more; returns the bytes that are nobody's with it. */
static uint64_t disown_export(struct sharer *sharer, struct export *export, uint32_t number)
{
    const uint64_t bytes = export->share.bytes;

    set_entry(export->entry_kept, 0, number);
    export->entry_kept = NULL;
    list_remove(&export->entry);
    sharer->export_count--;
    export->sharer = NULL;
    if (!list_empty(&export->imports)) {
        return 0;
    }
    remove_export(sharer->domain, export);
    return bytes;
}

int sharer_withdraw(struct sharer *sharer, const struct vgpu_export *share, uint64_t *freed,
                    uint32_t number)
{
    struct export *export = find_export(sharer->domain, share->key);

    *freed = 0;
    if (was_heard(sharer, number)) {
        return 0;
    }
    if (!export || export->sharer != sharer) {
        return -EPROTO;
    }
    *freed = disown_export(sharer, export, number);
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

/* Without having it yet; NULL when memory is short. */
static struct import *add_import(struct sharer *sharer, struct export *export)
{
    struct import *import = calloc(1, sizeof(*import));

    if (import) {
        import->sharer = sharer;
        import->export = export;
        list_add_before(&sharer->imports, &import->entry);
        list_add_before(&export->imports, &import->other);
    }
    return import;
}

/* Notes that the sharer has it, once more. False: it has too much, or memory is short. */
static bool note_import(struct sharer *sharer, struct export *export, uint32_t number)
{
    struct import *import = find_import(sharer, export);

    if (sharer->import_count >= VGPU_EXPORTS_MAX) {
        return false;
    }
    if (!import) {
        import = add_import(sharer, export);
        if (!import) {
            return false;
        }
        if (sharer->kept) {
            import->entry_kept = take_entry(sharer->kept->imports, &sharer->kept->imports_used);
            import->entry_kept->share = export->share;
            /* So that no session gets this number while somebody knows it. */
            import->entry_kept->share.session = export->sharer->session;
        }
    }
    import->times++;
    sharer->import_count++;
    set_entry(import->entry_kept, import->times, number);
    return true;
}

/* The sharer has it no more; returns the bytes that are nobody's with it. */
static uint64_t drop_import(struct sharer *sharer, struct import *import, uint32_t number)
{
    struct export *export = import->export;
    uint64_t freed = 0;

    set_entry(import->entry_kept, 0, number);
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

/*
 * It was imported, and then withdrawn, before the answer was there. Memory cannot be opened any
 * more, and is released then; of an event there is nothing to release.
 */
static int answer_orphan(struct sharer *sharer, struct import *import, struct vgpu_export *share)
{
    if (import->export->share.kind == VGPU_EXPORT_EVENT) {
        drop_import(sharer, import, sharer->heard);
        return VGPU_LINK_UNKNOWN;
    }
    *share = import->export->share;
    return VGPU_LINK_DONE_WELL;
}

int sharer_import(struct sharer *sharer, struct vgpu_export *share, int *file, uint32_t number)
{
    struct export *export = find_export(sharer->domain, share->key);
    struct import *import = export && was_heard(sharer, number) ? find_import(sharer, export)
                                                                : NULL;
    const bool noted = import && is_made_by(import->entry_kept, number);

    *file = -1;
    if (noted && !export->sharer) {
        return answer_orphan(sharer, import, share);
    }
    if (!export || !export->sharer || export->share.kind != share->kind) {
        return VGPU_LINK_UNKNOWN;
    }
    if (export->sharer == sharer) {
        return VGPU_LINK_OWN;
    }
    if (!noted && is_noted(sharer, export) && !note_import(sharer, export, number)) {
        return VGPU_LINK_FULL;
    }
    *share = export->share;
    share->foreign = export->sharer->account != sharer->account;
    share->session = export->sharer->session;
    *file = share->kind == VGPU_EXPORT_EVENT ? export->sharer->events : export->sharer->memory;
    return VGPU_LINK_DONE_WELL;
}

int sharer_release(struct sharer *sharer, const struct vgpu_export *share, uint64_t *freed,
                   uint32_t number)
{
    const struct export *export = find_export(sharer->domain, share->key);
    struct import *import = export ? find_import(sharer, export) : NULL;

    *freed = 0;
    if (was_heard(sharer, number)) {
        return 0;
    }
    if (!import) {
        return -EPROTO;
    }
    if (import->times > 1) {
        import->times--;
        sharer->import_count--;
        set_entry(import->entry_kept, import->times, number);
        return 0;
    }
    *freed = drop_import(sharer, import, number);
    return 0;
}

/* Another mediator's ------------------------------------------------------------------------ */

/* The place that a key names becomes one that is taken; false when that cannot be. */
static bool take_named_place(struct exports *domain, uint32_t number)
{
    while (number >= domain->used) {
        if (number >= PLACES_MAX || !more_places(domain)) {
            return false;
        }
        free_place(domain, domain->used++);
    }
    if (domain->place[number].export) {
        return false;
    }
    take_free_place(domain, number);
    return true;
}

/*
 * What an entry is about: it is there already where a session that came before has imported it, or
 * exported. NULL when it cannot be.
 */
static struct export *restore_export(struct exports *domain, const struct vgpu_export *share)
{
    struct export *export = find_export(domain, share->key);
    uint32_t number;

    if (export) {
        return export;
    }
    memcpy(&number, share->key, sizeof(number));
    export = calloc(1, sizeof(*export));
    if (!export || !take_named_place(domain, number)) {
        free(export);
        return NULL;
    }
    export->share = *share;
    list_init(&export->imports);
    domain->place[number].export = export;
    return export;
}

static void forget_if_unused(struct exports *domain, struct export *export)
{
    if (!export->sharer && list_empty(&export->imports)) {
        remove_export(domain, export);
    }
}

static int restore_entry(struct sharer *sharer, struct export_entry *entry, bool exported)
{
    const uint32_t times = entry_times(entry);
    struct export *export;
    struct import *import;

    if (times > VGPU_EXPORTS_MAX) {
        return -EINVAL;
    }
    export = restore_export(sharer->domain, &entry->share);
    if (!export) {
        return -ENOMEM;
    }
    if (exported) {
        if (export->sharer) {
            return -EINVAL;
        }
        own_export(sharer, export);
        export->entry_kept = entry;
        return 0;
    }
    import = add_import(sharer, export);
    if (!import) {
        forget_if_unused(sharer->domain, export);
        return -ENOMEM;
    }
    import->times = times;
    import->entry_kept = entry;
    sharer->import_count += times;
    return 0;
}

/* A number that was given out: also that of a session which is gone, and which others know. */
static void note_session(struct exports *domain, uint64_t session)
{
    domain->sessions = session > domain->sessions ? session : domain->sessions;
}

static int restore_entries(struct sharer *sharer, struct export_entry *entries, uint32_t used,
                           bool exported)
{
    int r = used <= VGPU_EXPORTS_MAX ? 0 : -EINVAL;

    for (uint32_t i = 0; r == 0 && i < used; i++) {
        const uint32_t number = entry_number(&entries[i]);

        if (number != 0 && (sharer->heard == 0 || (int32_t)(number - sharer->heard) > 0)) {
            sharer->heard = number;
        }
        note_session(sharer->domain, entries[i].share.session);
        r = entry_times(&entries[i]) != 0 ? restore_entry(sharer, &entries[i], exported) : 0;
    }
    return r;
}

int sharer_restore(struct sharer *sharer, struct exports *domain, const void *account,
                   struct export_record *kept)
{
    int r;

    begin_sharer(sharer, domain, account, kept);
    sharer->session = kept->session;
    note_session(domain, kept->session);
    /* 0 is nobody's number: importers take it for their own. */
    r = kept->session != 0 ? restore_entries(sharer, kept->exports, kept->exports_used, true)
                           : -EINVAL;
    r = r == 0 ? restore_entries(sharer, kept->imports, kept->imports_used, false) : r;
    sharer->partial = r < 0;
    return r;
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

/*
 * The record stays as it is: it is the caller's, who ends it as a whole. A mediator that ends
 * before that is followed by one that does all of this.
 */
void sharer_leave(struct sharer *sharer, struct estate *estate)
{
    *estate = (struct estate){.events = sharer->events, .memory = sharer->memory};
    if (sharer->partial) {
        estate->count = SIZE_MAX; /* others may have more of it than is known */
    }
    for (struct list_entry *e = sharer->imports.next, *next; e != &sharer->imports; e = next) {
        next = e->next;
        import_of(e)->entry_kept = NULL;
        estate->freed += drop_import(sharer, import_of(e), 0);
    }
    for (struct list_entry *e = sharer->exports.next, *next; e != &sharer->exports; e = next) {
        struct export *export = export_of(e);

        next = e->next;
        export->entry_kept = NULL;
        /* What nobody has is in the counter of the worker, with which it goes. */
        if (!list_empty(&export->imports)) {
            estate->kept += export->share.bytes;
            note_extent(estate, &export->share);
        }
        disown_export(sharer, export, 0);
    }
    if (estate->count > 1 && estate->count != SIZE_MAX) {
        qsort(estate->still_had, estate->count, sizeof(*estate->still_had), compare_extents);
    }
    sharer->events = sharer->memory = -1;
}
