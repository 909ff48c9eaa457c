/* SPDX-License-Identifier: MIT */
/*
 * Rates that a VM may not exceed: so many events in a second, a few of them at once. Pure.
 */
#ifndef VGPU_WORKER_PACE_H
#define VGPU_WORKER_PACE_H

#include <stdint.h>

#include "common/clock.h"

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
    /* It is further ahead where the rate was lower until now. */
    return ahead - burst < interval ? ahead - burst : interval;
}

/* One happens. */
static inline void pace_count(struct pace *pace, uint32_t rate, uint64_t now_ns)
{
    if (rate != 0) {
        pace->next_ns = (pace->next_ns > now_ns ? pace->next_ns : now_ns) + NS_PER_S / rate;
    }
}

#endif
