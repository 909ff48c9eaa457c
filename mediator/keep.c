/* SPDX-License-Identifier: MIT */
/* Descriptors that outlive the mediator, see keep.h. */
#include "mediator/keep.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <systemd/sd-daemon.h>
#include <unistd.h>

#include "common/log.h"

struct passed {
    char name[KEEP_NAME_SIZE];
    int fd; /* -1: taken */
};

/* Of all names together; the kernel's limit on a string less what is not a VM's. */
#define NAMES_MOST (120u << 10)

static struct {
    bool works;
    size_t reserved; /* bytes of names */
    struct passed *passed;
    size_t count;
} keep;

static int compare_passed(const void *one, const void *other)
{
    return strcmp(((const struct passed *)one)->name, ((const struct passed *)other)->name);
}

/*
 * A descriptor whose name is too long is none of ours, and stays open, as whoever passed it may
 * want. One that is passed twice is the same thing.
 */
void keep_open(void)
{
    const char *const store = getenv("FDSTORE");
    char **names = NULL;
    const int count = sd_listen_fds_with_names(1, &names);

    /* How many are kept systemd says from 254 on, and before that nothing: its unit has a store. */
    keep.works = getenv("NOTIFY_SOCKET") != NULL &&
                 (store ? strtoul(store, NULL, 10) > 0 : getenv("INVOCATION_ID") != NULL);
    keep.passed = count > 0 ? calloc((size_t)count, sizeof(*keep.passed)) : NULL;
    for (int i = 0; i < count; i++) {
        if (keep.passed && strlen(names[i]) < KEEP_NAME_SIZE) {
            struct passed *passed = &keep.passed[keep.count++];

            snprintf(passed->name, sizeof(passed->name), "%s", names[i]);
            passed->fd = SD_LISTEN_FDS_START + i;
        }
        free(names[i]);
    }
    free(names);
    if (keep.passed && keep.count > 0) {
        qsort(keep.passed, keep.count, sizeof(*keep.passed), compare_passed);
    }
}

bool keep_works(void)
{
    return keep.works;
}

/*
 * FDPOLL=0: otherwise the store would look for an end of each, and drop an eventfd that somebody
 * has filled, which is any guest's to do.
 */
void keep_put(const char *name, int fd)
{
    char state[64 + KEEP_NAME_SIZE];
    int r;

    if (!keep.works) {
        return;
    }
    snprintf(state, sizeof(state), "FDSTORE=1\nFDPOLL=0\nFDNAME=%s", name);
    r = sd_pid_notify_with_fds(0, 0, state, &fd, 1);
    if (r < 0) {
        log_warning("'%s' is not kept, and does not outlive this mediator: %s", name, strerror(-r));
    }
}

bool keep_reserve(size_t bytes)
{
    if (bytes > NAMES_MOST - keep.reserved) {
        return false;
    }
    keep.reserved += bytes;
    return true;
}

void keep_release(size_t bytes)
{
    keep.reserved -= bytes;
}

void keep_drop(const char *name)
{
    char state[64 + KEEP_NAME_SIZE];

    if (keep.works) {
        snprintf(state, sizeof(state), "FDSTOREREMOVE=1\nFDNAME=%s", name);
        sd_notify(0, state);
    }
}

int keep_take(const char *name)
{
    struct passed key, *found;
    int fd;

    snprintf(key.name, sizeof(key.name), "%s", name);
    found = keep.count > 0 ? bsearch(&key, keep.passed, keep.count, sizeof(key), compare_passed)
                           : NULL;
    if (!found) {
        return -1;
    }
    fd = found->fd;
    found->fd = -1;
    return fd;
}

/* The number in the name of a VM's record; 0: it is something else. */
static uint32_t vm_of_record(const char *name)
{
    char *rest;
    const unsigned long id = strtoul(name, &rest, 10);

    return name[0] >= '0' && name[0] <= '9' && strcmp(rest, ".r") == 0 && id <= UINT32_MAX
               ? (uint32_t)id
               : 0;
}

bool keep_next_vm(uint32_t *vm)
{
    uint32_t next = 0;

    for (size_t i = 0; i < keep.count; i++) {
        const struct passed *passed = &keep.passed[i];
        const uint32_t id = passed->fd >= 0 ? vm_of_record(passed->name) : 0;

        if (id > *vm && (next == 0 || id < next)) {
            next = id;
        }
    }
    if (next != 0) {
        *vm = next;
    }
    return next != 0;
}

/* Whether a name is one of keep.h's, and not that of a socket unit, which may have dots too. */
static bool is_own(const char *name)
{
    return strcmp(name, "host.r") == 0 || strncmp(name, "own.", 4) == 0 ||
           (name[0] >= '0' && name[0] <= '9');
}

int keep_take_lone(const char *but)
{
    struct passed *lone = NULL;
    int fd;

    for (size_t i = 0; i < keep.count; i++) {
        if (!is_own(keep.passed[i].name)) {
            if (lone) {
                return -1;
            }
            lone = &keep.passed[i];
        }
    }
    if (!lone || strcmp(lone->name, but) == 0) {
        return -1;
    }
    fd = lone->fd;
    lone->fd = -1;
    return fd;
}

unsigned keep_close_rest(void)
{
    unsigned closed = 0;

    for (size_t i = 0; i < keep.count; i++) {
        /* Others than ours are somebody's who knows why. */
        if (keep.passed[i].fd >= 0 && is_own(keep.passed[i].name)) {
            log_debug("'%s' was kept, and belongs to nothing", keep.passed[i].name);
            keep_drop(keep.passed[i].name);
            close(keep.passed[i].fd);
            closed++;
        }
    }
    free(keep.passed);
    keep.passed = NULL;
    keep.count = 0;
    return closed;
}

static char name_text[KEEP_NAME_SIZE];

const char *keep_name_vm(uint32_t vm, const char *what)
{
    snprintf(name_text, sizeof(name_text), "%" PRIu32 ".%s", vm, what);
    return name_text;
}

const char *keep_name_memory(uint32_t vm, uint32_t number)
{
    snprintf(name_text, sizeof(name_text), "%" PRIu32 ".%" PRIu32, vm, number);
    return name_text;
}

const char *keep_name_worker(uint32_t vm, uint32_t worker, char what)
{
    snprintf(name_text, sizeof(name_text), "%" PRIu32 ".w%" PRIu32 ".%c", vm, worker, what);
    return name_text;
}
