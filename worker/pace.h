/* SPDX-License-Identifier: MIT */
/*
 * Rates that a VM may not exceed: so many events in a second, a few of them at once. Pure.
 *
 * Each event moves `next_ns` on by the time that it takes at the full rate. An event may happen
 * while `next_ns` is ahead of now by PACE_BURST - 1 such times at most. With 1,000 events a second,
 * at rest, 16 may happen at once; then `next_ns` is 16 ms ahead, and the next one waits for 1 ms,
 * until it is 15 ms ahead. After a rest of 16 ms there is room for 16 again, and never for more: a
 * VM cannot save up.
 */
#ifndef VGPU_WORKER_PACE_H
#define VGPU_WORKER_PACE_H

#include <stdint.h>

#include "common/clock.h"

/* Events that may happen at once: a few in a row are not slowed down by a limit. */
#define PACE_BURST 16u

/* Zero-initialised nothing has happened yet. */
struct pace {
    uint64_t next_ns; /* when the next event would be due at the full rate */
};

/* In how many ns an event may happen; 0: now. `rate` is in events a second; 0: no limit. */
static inline uint64_t pace_wait(const struct pace *pace, uint32_t rate, uint64_t now_ns)
{
    const uint64_t interval = rate == 0 ? 0 : NS_PER_S / rate;
    const uint64_t ahead = pace->next_ns > now_ns ? pace->next_ns - now_ns : 0;
    const uint64_t burst = interval * (PACE_BURST - 1);

    if (rate == 0 || ahead <= burst) {
        return 0;
    }
    /*
     * It is further ahead where the rate was lower until now: at 1 a second it may be 16 s ahead.
     * One interval of the new rate is waited for, not all that.
     */
    return ahead - burst < interval ? ahead - burst : interval;
}

/* An event happens. One that did not wait its time delays those after it. */
static inline void pace_count(struct pace *pace, uint32_t rate, uint64_t now_ns)
{
    if (rate != 0) {
        pace->next_ns = (pace->next_ns > now_ns ? pace->next_ns : now_ns) + NS_PER_S / rate;
    }
}

#endif
