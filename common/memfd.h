/* SPDX-License-Identifier: MIT */
/* What a shared memfd has to be before it is mapped. */
#ifndef VGPU_COMMON_MEMFD_H
#define VGPU_COMMON_MEMFD_H

#include <errno.h>
#include <fcntl.h>
#include <stdint.h>
#include <sys/stat.h>

/* Against truncation, which would turn an access to a mapping into a SIGBUS. */
#define MEMFD_SEALS (F_SEAL_SHRINK | F_SEAL_GROW)

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
