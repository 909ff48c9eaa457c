/* SPDX-License-Identifier: MIT */
/* Making and mapping records, see record.h. */
#include "mediator/record.h"

#include <errno.h>
#include <stddef.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "common/memfd.h"

/* Offsets are part of the layout; a field that moves makes another version. */
static_assert(sizeof(struct process_record) == 712, "layout of version 1");
static_assert(sizeof(struct queue_record) == 752, "layout of version 1");
static_assert(offsetof(struct vm_record, queue) == 1112, "layout of version 1");
static_assert(sizeof(struct host_record) == 696, "layout of version 1");
static_assert(sizeof(struct export_entry) == 112, "layout of version 1");
static_assert(offsetof(struct export_record, exports) == 56, "layout of version 1");

int record_create(const char *name, size_t size, int *fd, void **record)
{
    const int memfd = memfd_make(name, size);
    void *map;

    if (memfd < 0) {
        return memfd;
    }
    map = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED, memfd, 0);
    if (map == MAP_FAILED) {
        const int r = -errno;

        close(memfd);
        return r;
    }
    *(struct record_header *)map = (struct record_header){.magic = RECORD_MAGIC,
                                                          .version = RECORD_VERSION};
    *fd = memfd;
    *record = map;
    return 0;
}

void *record_open(int fd, size_t size)
{
    const struct record_header *header;
    void *map;

    if (memfd_check(fd, size) < 0) {
        return NULL;
    }
    map = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    if (map == MAP_FAILED) {
        return NULL;
    }
    header = map;
    if (header->magic != RECORD_MAGIC || header->version != RECORD_VERSION) {
        munmap(map, size);
        return NULL;
    }
    return map;
}

void record_hello(const struct vm_record *record, struct vgpu_hello *hello)
{
    *hello = (struct vgpu_hello){.flags = record->host ? VGPU_HELLO_HOST : 0,
                                 .vm_id = record->id,
                                 .pool = record->pool,
                                 .priority = record->asked,
                                 .vectors = vgpu_attach_vectors(record->queues),
                                 .queues = record->queues,
                                 .shm_size = record->shm_size};
    memcpy(hello->name, record->name, sizeof(hello->name));
    memcpy(hello->uuid, record->uuid, sizeof(hello->uuid));
}
