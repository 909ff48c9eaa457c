/* SPDX-License-Identifier: MIT */
/* The descriptors that a VM, its QEMU and its worker share. */
#ifndef VGPU_MEDIATOR_VM_MEMORY_H
#define VGPU_MEDIATOR_VM_MEMORY_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "protocol/vgpu-attach.h"

/*
 * Makes a sealed memfd and the eventfds, vgpu_attach_fds() in all, in the order of the protocol.
 * Returns 0, and `fds` are the caller's; or -errno, and there are none.
 */
int memory_create(uint32_t vm_id, uint64_t shm_size, uint32_t queues, int fds[]);

/* Whether a descriptor is of a kind that VMs hand over: a sealable file or an eventfd. */
bool memory_is_kind(int fd);

/*
 * Whether descriptors that a stub brought from an earlier mediator are what they should
 * be: a sealed memfd of the right size, and eventfds. NULL, or what is wrong.
 */
const char *memory_check(uint64_t shm_size, uint32_t queues, const int fds[]);

/* Makes and maps a page of 4096 bytes; *fd is for workers. Both are the caller's. */
int memory_create_page(const char *name, int *fd, void **page);

/* Maps such a page that was kept. Returns 0 or -errno; the descriptor stays the caller's. */
int memory_map_page(int fd, void **page);

#endif
