/* SPDX-License-Identifier: MIT */
/*
 * Puts something of the library's at an address that is given: where the host's driver has the same
 * thing, since NVIDIA's runtime library looks at the address as well as at what lies there.
 */
#ifndef VGPU_GUEST_LIBCUDA_STATE_PLACE_H
#define VGPU_GUEST_LIBCUDA_STATE_PLACE_H

#include <stddef.h>
#include <stdint.h>

#define PLACE_MOST 4u /* at a time */

struct place {
    uint64_t address;
    const void *content;
    size_t bytes; /* at most a page's */
};

enum placed {
    PLACE_DONE,
    PLACE_TAKEN,   /* something else is there, or can be nowhere */
    PLACE_REFUSED, /* this process may not have memory that it can execute */
};

/*
 * Maps the pages around all places, which can be read and executed from then on, with their
 * content; once in a process. They stay as long as the library, since whoever was told of them does
 * not tell when it forgets them. Nothing is mapped where that fails.
 */
enum placed place_all(const struct place *places, unsigned count);
/* Unmaps them: the library is unloaded, and so nobody was told. */
void places_end(void);

#endif
