/* SPDX-License-Identifier: MIT */
/*
 * Memory at a given address or, where something is mapped there already, not at all. Plain
 * MAP_FIXED would put it in the place of the program's own code or stack, say.
 *
 * The kernel is asked by itself, since the mmap() that ThreadSanitizer puts before the C library's
 * does not know MAP_FIXED_NOREPLACE, and makes the address 0. What a program is to read has to be
 * at an address that it can have by that mmap(), though: whether it can is tried with a page. (The
 * wish alone would not do for more: kernels 6.7 to 6.12 do not grant it for 2 MiB and more where
 * something else follows closely.)
 */
#ifndef VGPU_COMMON_MAP_AT_H
#define VGPU_COMMON_MAP_AT_H

#include <errno.h>
#include <stddef.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/types.h>
#include <unistd.h>

/* Not in every libc's headers. */
#ifndef MAP_FIXED_NOREPLACE
#define MAP_FIXED_NOREPLACE 0x100000
#endif

/* The same as map_at(), for what nobody reads: any address will do. */
static inline int map_anywhere_at(void *address, size_t bytes, int protection, int flags, int file,
                                  off_t offset)
{
    const long got = syscall(SYS_mmap, address, bytes, protection, flags | MAP_FIXED_NOREPLACE,
                             file, offset);

    if (got == -1) {
        return -errno;
    }
    /* Kernels before 4.17 take the address for a wish, which they did not grant: it is in use. */
    if ((void *)got != address) {
        munmap((void *)got, bytes);
        return -EEXIST;
    }
    return 0;
}

/*
 * mmap() of `bytes` bytes at `address`, which is not NULL. Returns 0 or a negative errno, -EEXIST
 * where something else is there, or this process can have nothing there.
 */
static inline int map_at(void *address, size_t bytes, int protection, int flags, int file,
                         off_t offset)
{
    void *tried = mmap(address, 4096, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

    if (tried == MAP_FAILED) {
        return -errno;
    }
    munmap(tried, 4096);
    return tried == address ? map_anywhere_at(address, bytes, protection, flags, file, offset)
                            : -EEXIST;
}

#endif
