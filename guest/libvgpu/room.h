/* SPDX-License-Identifier: MIT */
/*
 * Bytes for the time of one call: on the stack where they are few, as they nearly always are, else
 * from the heap. A command may have 40 KiB, a thread 64 KiB of stack and some of that used already:
 * what could be large is never an array of its largest size.
 */
#ifndef VGPU_GUEST_LIBVGPU_ROOM_H
#define VGPU_GUEST_LIBVGPU_ROOM_H

#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>

#define ROOM_FEW 1024u /* bytes; nearly all kernels have fewer bytes of parameters */

struct room {
    uint8_t *bytes; /* with the alignment that malloc() gives; not set to anything */
    _Alignas(max_align_t) uint8_t few[ROOM_FEW];
};

/* Room for `count` bytes, which room_close() gives back; NULL when there is no memory. */
static inline uint8_t *room_open(struct room *room, size_t count)
{
    room->bytes = count <= sizeof(room->few) ? room->few : malloc(count);
    return room->bytes;
}

/* After room_open(), even one that failed. */
static inline void room_close(struct room *room)
{
    if (room->bytes != room->few) {
        free(room->bytes);
    }
}

#endif
