/* SPDX-License-Identifier: MIT */
/* Interrupts of a VM, see interrupt.h. */
#include "worker/interrupt.h"

#include "common/clock.h"
#include "common/eventfds.h"
#include "common/shared.h"

uint64_t interrupt_serve(struct interrupt *i)
{
    const uint32_t rate = i->page ? shared_load(&i->page->terms.interrupts) : 0;
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
