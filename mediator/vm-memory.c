/* SPDX-License-Identifier: MIT */
/*
 * The descriptors that a VM, its QEMU and its workers share: a memfd and the eventfds, and pages
 * that the mediator shares with workers alone.
 *
 * The mediator makes the memory and QEMU keeps it. So after a restart of the mediator QEMU brings
 * the descriptors back, and they are checked as if they were a stranger's: memory that could be
 * truncated would kill with SIGBUS any process that has it mapped.
 */
#include "mediator/vm-memory.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "common/memfd.h"
#include "protocol/vgpu-worker.h"

int memory_create(uint32_t vm_id, uint64_t shm_size, uint32_t queues, int fds[])
{
    char name[32];
    size_t made = 0;

    snprintf(name, sizeof(name), "vgpu-vm-%u", vm_id);
    fds[VGPU_ATTACH_MEMFD] = memfd_make(name, vgpu_memfd_size(shm_size));
    if (fds[VGPU_ATTACH_MEMFD] < 0) {
        return fds[VGPU_ATTACH_MEMFD];
    }
    /* Whether they block is left to the holders, see common/eventfds.h. */
    for (made = 1; made < vgpu_attach_fds(queues); made++) {
        fds[made] = eventfd(0, EFD_CLOEXEC);
        if (fds[made] < 0) {
            const int r = -errno;

            while (made > 0) {
                close(fds[--made]);
            }
            return r;
        }
    }
    return 0;
}

/* The name of the descriptor's file tells. The kernel offers no other way to tell an eventfd. */
static int is_eventfd(int fd)
{
    static const char expected[] = "anon_inode:[eventfd]";
    char path[32], target[64];
    ssize_t n;

    snprintf(path, sizeof(path), "/proc/self/fd/%d", fd);
    n = readlink(path, target, sizeof(target));
    return n == (ssize_t)strlen(expected) && memcmp(target, expected, (size_t)n) == 0;
}

bool memory_is_kind(int fd)
{
    return fcntl(fd, F_GET_SEALS) >= 0 || is_eventfd(fd);
}

const char *memory_check(uint64_t shm_size, uint32_t queues, const int fds[])
{
    const int r = memfd_check(fds[VGPU_ATTACH_MEMFD], vgpu_memfd_size(shm_size));

    if (r == -EPERM) {
        return "the memory handed over is no memfd sealed against resizing";
    }
    if (r < 0) {
        return "the memory handed over has another size than the shared memory asked for";
    }
    for (size_t i = VGPU_ATTACH_DOORBELL; i < vgpu_attach_fds(queues); i++) {
        if (!is_eventfd(fds[i])) {
            return "a descriptor handed over as doorbell or interrupt is no eventfd";
        }
    }
    return NULL;
}

static_assert(VGPU_ACCOUNT_PAGE_SIZE == VGPU_TURN_PAGE_SIZE, "one size for both");

int memory_map_page(int fd, void **page)
{
    const int r = memfd_check(fd, VGPU_TURN_PAGE_SIZE);

    if (r < 0) {
        return r;
    }
    *page = mmap(NULL, VGPU_TURN_PAGE_SIZE, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    return *page == MAP_FAILED ? -errno : 0;
}

int memory_create_page(const char *name, int *fd, void **page)
{
    const int memfd = memfd_make(name, VGPU_TURN_PAGE_SIZE);
    int r;

    if (memfd < 0) {
        return memfd;
    }
    r = memory_map_page(memfd, page);
    if (r < 0) {
        close(memfd);
        return r;
    }
    *fd = memfd;
    return 0;
}
