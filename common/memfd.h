/* SPDX-License-Identifier: MIT */
/* Shared memfds: how they are made, and what one has to be before it is mapped. */
#ifndef VGPU_COMMON_MEMFD_H
#define VGPU_COMMON_MEMFD_H

#include <errno.h>
#include <fcntl.h>
#include <stdint.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

/* Against truncation, which would turn an access to a mapping into a SIGBUS. */
#define MEMFD_SEALS (F_SEAL_SHRINK | F_SEAL_GROW)

/*
 * A memfd that nobody can resize: its mappings never raise SIGBUS. F_SEAL_SEAL keeps others from
 * adding a seal, against writing, say, with which the next worker could not map it. Returns it, or
 * -errno; it is the caller's.
 */
static inline int memfd_make(const char *name, uint64_t size)
{
    const int fd = memfd_create(name, MFD_CLOEXEC | MFD_ALLOW_SEALING);

    if (fd < 0) {
        return -errno;
    }
    if (ftruncate(fd, (off_t)size) < 0 || fcntl(fd, F_ADD_SEALS, MEMFD_SEALS | F_SEAL_SEAL) < 0) {
        const int r = -errno;

        close(fd);
        return r;
    }
    return fd;
}

/* 0; -EPERM when it is no memfd or not sealed; -EMSGSIZE when it has not `size` bytes. */
static inline int memfd_check(int fd, uint64_t size)
{
    const int seals = fcntl(fd, F_GET_SEALS);
    struct stat st;

    if (seals < 0 || (seals & MEMFD_SEALS) != MEMFD_SEALS) {
        return -EPERM;
    }
    return fstat(fd, &st) == 0 && (uint64_t)st.st_size == size ? 0 : -EMSGSIZE;
}

#endif
