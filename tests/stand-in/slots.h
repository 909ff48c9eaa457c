/* SPDX-License-Identifier: MIT */
/* Where the stand-in driver has its tables with STAND_IN_SLOTS, see driver.c. */
#ifndef VGPU_TESTS_STAND_IN_SLOTS_H
#define VGPU_TESTS_STAND_IN_SLOTS_H

#include <stdint.h>

/* Not 2: where each session loads it twice, every second one would be for the sessions. */
#define SLOTS 3u
#define SLOT_BYTES (3 * 4096u) /* a page for each table, one for the function */

/* Where neither programs nor libraries are put, as both grow down from the top. */
static inline uint64_t slot_address(unsigned slot)
{
    return UINT64_C(0x6e1200000000) + slot * UINT64_C(0x100000);
}

#endif
