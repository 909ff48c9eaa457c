/* SPDX-License-Identifier: MIT */
/*
 * Puts something of the library's at an address that is given: where the host's driver has the same
 * thing, since NVIDIA's runtime library looks at the address as well as at what lies there.
 */
#ifndef VGPU_GUEST_LIBCUDA_STATE_PLACE_H
#define VGPU_GUEST_LIBCUDA_STATE_PLACE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define PLACES_MAX 4u /* at a time */

struct place {
    uint64_t address;
    const void *content;
    size_t bytes; /* at most a page's */
};

/*
 * Maps the pages around all places, which can be read and executed from then on, with their
 * content. They stay for good: whoever was told of them does not tell when it forgets them. False,
 * with nothing mapped, where a page is in use or none can be had.
 */
bool place_all(const struct place *places, unsigned count);

#endif
