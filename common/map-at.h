/* SPDX-License-Identifier: MIT */
/*
 * Memory at a given address or, where something is mapped there already, not at all.
 *
 * Plain MAP_FIXED would put it in the place of the program's own code or stack, say, and
 * MAP_FIXED_NOREPLACE is unknown to kernels before 4.17 and to the mmap() that ThreadSanitizer puts
 * before the C library's, which makes it address 0. So the address is asked for as a wish, which is
 * granted where it is free; what is wanted then takes the place of what that has mapped.
 */
#ifndef VGPU_COMMON_MAP_AT_H
#define VGPU_COMMON_MAP_AT_H

#include <errno.h>
#include <stddef.h>
#include <sys/mman.h>
#include <sys/types.h>

/*
 * mmap() of `bytes` bytes at `address`, which is not NULL. Returns 0 or a negative errno, -EEXIST
 * where something else is there, or this process can have nothing there.
 */
static inline int map_at(void *address, size_t bytes, int protection, int flags, int file,
                         off_t offset)
{
    void *got = mmap(address, bytes, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    int r = 0;

    if (got == MAP_FAILED) {
        return -errno;
    }
    if (got != address) {
        r = -EEXIST;
    } else if (mmap(address, bytes, protection, flags | MAP_FIXED, file, offset) == MAP_FAILED) {
        r = -errno;
    }
    if (r < 0) {
        munmap(got, bytes);
    }
    return r;
}

#endif
