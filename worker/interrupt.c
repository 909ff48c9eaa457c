/* SPDX-License-Identifier: MIT */
/*
 * Interrupts of a VM at the rate that it is allowed, see interrupt.h. `owed` is one bit and not a
 * number: an interrupt says "look", and one look finds all that has happened. So a flood of answers
 * costs a VM at its limit no memory, and delays none for longer than one interval.
 *
 * Nobody here waits: the worker's loop asks interrupt_serve() how long it may sleep.
 */
#include "worker/interrupt.h"

#include "common/clock.h"
#include "common/eventfds.h"
#include "common/shared.h"

uint64_t interrupt_serve(struct interrupt *i)
{
    const uint32_t rate = i->page ? shared_load(&i->page->terms.interrupts) : 0;
    /* Without a limit, which is the customary case, the clock is not even read. */
    const uint64_t now = rate != 0 ? clock_ns() : 0;
    uint64_t wait;

    if (!i->owed) {
        return 0;
    }
    wait = pace_wait(&i->pace, rate, now);
    if (wait == 0) {
        i->owed = false;
        pace_count(&i->pace, rate, now);
        eventfds_signal(i->fd);
        if (i->page) {
            i->page->counters.interrupts++;
        }
    }
    return wait;
}

void interrupt_raise(struct interrupt *i)
{
    i->owed = true;
    interrupt_serve(i);
}

void interrupt_flush(struct interrupt *i)
{
    if (i->owed) {
        i->owed = false;
        eventfds_signal(i->fd);
    }
}
