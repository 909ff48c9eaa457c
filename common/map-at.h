/* SPDX-License-Identifier: MIT */
/*
 * Memory at a given address or, where something is mapped there already, not at all. Plain
 * MAP_FIXED would put it in the place of the program's own code or stack, say.
 */
#ifndef VGPU_COMMON_MAP_AT_H
#define VGPU_COMMON_MAP_AT_H

#include <errno.h>
#include <stddef.h>
#include <sys/mman.h>
#include <sys/types.h>

/* Not in every libc's headers. */
#ifndef MAP_FIXED_NOREPLACE
#define MAP_FIXED_NOREPLACE 0x100000
#endif

/*
 * mmap() of `bytes` bytes at `address`, which is not NULL. Returns 0 or a negative errno, -EEXIST
 * where something else is there.
 */
static inline int map_at(void *address, size_t bytes, int protection, int flags, int file,
                         off_t offset)
{
    void *got = mmap(address, bytes, protection, flags | MAP_FIXED_NOREPLACE, file, offset);

    if (got == MAP_FAILED) {
        return -errno;
    }
    /* Kernels before 4.17 take the address for a wish, which they did not grant: it is in use. */
    if (got != address) {
        munmap(got, bytes);
        return -EEXIST;
    }
    return 0;
}

#endif
