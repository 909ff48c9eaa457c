/* SPDX-License-Identifier: MIT */
/*
 * Addresses of device memory are the host's, and could be the program's own as well. So they are
 * reserved in this process: nothing is mapped there, and nothing of the program's will be.
 */
#ifndef VGPU_GUEST_LIBCUDA_STATE_RESERVE_H
#define VGPU_GUEST_LIBCUDA_STATE_RESERVE_H

#include <stdbool.h>
#include <stdint.h>

/*
 * Reserves [address, address + bytes) for good: device memory comes and goes there. False when
 * something of the program's is there already.
 */
bool reserve_addresses(uint64_t address, uint64_t bytes);

/* Gives all of them back: the library is unloaded. */
void reservations_end(void);

#endif
