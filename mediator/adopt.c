/* SPDX-License-Identifier: MIT */
/* Taking over what the mediator before has left, see adopt.h. */
#include "mediator/adopt.h"

#include <errno.h>
#include <inttypes.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "common/clock.h"
#include "common/log.h"
#include "mediator/attach.h"
#include "mediator/client.h"
#include "mediator/drain.h"
#include "mediator/keep.h"
#include "mediator/launcher.h"
#include "mediator/vm.h"

/* Until when workers have to have said how they stand: busy ones take 50 us, sleeping ones 1 ms. */
#define ADOPT_WAIT_NS (20 * NS_PER_MS)
/* A mediator that has lived so long does not crash for what it has adopted. */
#define GOOD_LIFE_NS (120 * NS_PER_S)

int adopt_host(struct mediator *m)
{
    const int fd = keep_take("host.r");
    struct host_record *record = fd >= 0 ? record_open(fd, sizeof(*record)) : NULL;
    void *made;
    int r, made_fd;

    if (fd >= 0) {
        close(fd);
    }
    if (!record) {
        r = record_create("vgpu-host", sizeof(*record), &made_fd, &made);
        if (r < 0) {
            log_error("cannot make the host's record: %s", strerror(-r));
            return r;
        }
        record = made;
        keep_drop("host.r");
        keep_put("host.r", made_fd);
        close(made_fd);
    }
    m->kept = record;
    record->generation = record->generation + 1 != 0 ? record->generation + 1 : 1;
    m->generation = record->generation;
    return 0;
}

/* Whether the VM might attach as it is, by the configuration as that is now. */
static const char *may_go_on(const struct mediator *m, const struct vm_record *record)
{
    static char reason[ATTACH_REASON_SIZE];
    struct vgpu_hello hello;
    const struct attach_facts facts = {.user = record->user, .vm_count = m->vm_count};
    struct attach_grant grant;

    record_hello(record, &hello);
    return attach_decide(&m->config, &hello, &facts, &grant, reason) ? NULL : reason;
}

/* All have had their time. */
static int on_adopt_timer(sd_event_source *source, uint64_t usec, void *context)
{
    struct mediator *m = context;

    (void)source;
    (void)usec;
    process_doubt_unheard(m);
    mediator_end_adoption(m);
    return 0;
}

static int on_good_life(sd_event_source *source, uint64_t usec, void *context)
{
    const struct mediator *m = context;

    (void)usec;
    for (struct vm *vm = m->vms; vm; vm = vm->next) {
        vm->kept->header.crashes = 0;
    }
    sd_event_source_unref(source);
    return 0;
}

static int set_timer(struct mediator *m, sd_event_source **source, uint64_t ns,
                     sd_event_time_handler_t handler)
{
    return sd_event_add_time_relative(m->event, source, CLOCK_MONOTONIC, ns / NS_PER_US,
                                      TIMER_ACCURACY_US, handler, m);
}

/* Turns go on when all have been heard; without a timer at once. */
static void end_hold(struct mediator *m)
{
    if (m->unheard == 0 || set_timer(m, &m->adopt_timer, ADOPT_WAIT_NS, on_adopt_timer) < 0) {
        mediator_end_adoption(m);
    }
}

static void adopt_vm(struct mediator *m, uint32_t id, enum adopt_blame blame)
{
    struct vm *vm;
    int connection;

    mediator_works_for(m, id);
    if (vm_adopt(m, id, blame, may_go_on, &vm, &connection) == 0 &&
        client_adopt(m, connection, vm) < 0) {
        log_warning("VM %" PRIu32 ": its connection cannot be taken over; ending it", id);
    }
}

static void tell_adopted(struct mediator *m)
{
    const uint64_t now = clock_ns();

    for (const struct vm *vm = m->vms; vm; vm = vm->next) {
        m->carried += vm_session_count(vm);
    }
    /* Killed before it had left, it has left earlier than it said. */
    if (m->kept->leaving_ns != 0 && m->kept->leaving_ns < now) {
        m->gap_ns = now - m->kept->leaving_ns;
    }
    m->kept->leaving_ns = 0;
    if (m->vm_count > 0) {
        log_info("carried over: %zu VM%s, %u session%s", m->vm_count, m->vm_count == 1 ? "" : "s",
                 m->carried, m->carried == 1 ? "" : "s");
    }
}

void adopt_vms(struct mediator *m)
{
    const enum adopt_blame why = m->kept->adopting  ? ADOPT_BLAME_ADOPTION
                                 : m->kept->crashed ? ADOPT_BLAME_CRASH
                                                    : ADOPT_BLAME_NONE;
    const uint32_t blamed = m->kept->working_for;
    uint32_t id = 0;
    unsigned rest;

    m->kept->crashed = false;
    m->kept->adopting = true;

    for (unsigned i = 0; i < CONFIG_POOLS; i++) {
        if (m->pools[i].id != 0) {
            m->pools[i].paused = (m->kept->paused & 1u << i) != 0;
            drain_adopt(m, &m->pools[i]);
            pool_hold(&m->pools[i], clock_ns());
        }
    }
    while (keep_next_vm(&id)) {
        adopt_vm(m, id, id == blamed ? why : ADOPT_BLAME_NONE);
    }
    rest = keep_close_rest();
    if (rest > 0) {
        log_info("closed what was kept of something that had just begun or ended (descriptors: %u)",
                 rest);
    }
    launcher_settle();
    for (struct vm *vm = m->vms; vm; vm = vm->next) {
        mediator_works_for(m, vm->id);
        vm_go_on(vm);
        vm->kept->header.adoptions = 0;
    }
    mediator_works_for(m, 0);
    m->kept->adopting = false;
    end_hold(m);
    if (m->vms) {
        sd_event_source *source;

        set_timer(m, &source, GOOD_LIFE_NS, on_good_life);
    }
    tell_adopted(m);
}
