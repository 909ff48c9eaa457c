/* SPDX-License-Identifier: MIT */
/*
 * The private tables of the driver: what NVIDIA's runtime library, which is in every program that
 * nvcc builds, asks of the driver beside the documented calls.
 */
#ifndef VGPU_GUEST_LIBCUDA_CALLS_TABLES_H
#define VGPU_GUEST_LIBCUDA_CALLS_TABLES_H

#include <stdint.h>

#include "api/cuda-types.h"
#include "guest/libcuda/state/place.h"

/* The table of an id, NULL when it is not served; with VGPU_VERBOSE that is said. */
const void *tables_find(const CUuuid *id);

/*
 * Puts the table for the runtime library and the self-test's where the host's driver has them, see
 * runtime_tables in api/private.api.
 */
enum placed tables_place(uint64_t runtime, uint64_t test, uint64_t function);

#endif
