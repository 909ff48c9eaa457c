/* SPDX-License-Identifier: MIT */
/*
 * libnvidia-ml.so.1 for guests: what its files share.
 *
 *   calls.list         which functions of NVML there are, and what becomes of each
 *   generate.py        makes of it the exported functions, and docs/nvml.md's table
 *   nvml-types.h       NVML's values and structures
 *   devices.c          the devices, and how what is known of them is kept up to date
 *   calls.c            the functions that are more than one value
 *   private-table.c    what nvidia-smi asks for besides
 *
 * All that is told comes from the card (protocol/vgpu-card.h), which is read without a session. So
 * a program that only looks takes nothing of the GPU, and of no queue.
 */
#ifndef VGPU_GUEST_LIBNVML_DEVICES_H
#define VGPU_GUEST_LIBNVML_DEVICES_H

#include <stdbool.h>
#include <stdint.h>

#include "guest/libnvml/nvml-types.h"
#include "guest/libvgpu/vgpu.h"

#define NVML_DEVICES_MAX 16u

/* What is known of a device, at most CARD_AGE_NS old. */
struct look {
    unsigned index;
    struct vgpu_card card;
    int32_t owners[VGPU_MAX_QUEUES]; /* process ids by queue; 0: none */
};

/* A process of this guest that has the GPU. */
struct gpu_process {
    uint64_t memory; /* bytes of device memory, of all its sessions */
    unsigned pid;
    unsigned busy; /* percent */
};

nvmlReturn_t devices_begin(unsigned flags);
nvmlReturn_t devices_end(void);

/* UNINITIALIZED, or SUCCESS with how many devices there are. */
nvmlReturn_t devices_count(unsigned *count);

/* The handle of a device. UNINITIALIZED, INVALID_ARGUMENT, or why it cannot be opened. */
nvmlReturn_t devices_handle(unsigned index, nvmlDevice_t *device);

/*
 * UNINITIALIZED; INVALID_ARGUMENT for what is no handle; GPU_IS_LOST without a mediator; NOT_READY
 * where the host has told nothing yet; LIB_RM_VERSION_MISMATCH where it does not tell.
 */
nvmlReturn_t devices_look(nvmlDevice_t device, struct look *look);

/* `r`, or where that is SUCCESS and the arguments are `wrong`, INVALID_ARGUMENT. */
static inline nvmlReturn_t or_invalid(nvmlReturn_t r, bool wrong)
{
    return r == NVML_SUCCESS && wrong ? NVML_ERROR_INVALID_ARGUMENT : r;
}

/* Each process once, with the sum of its sessions. `found` has room for VGPU_MAX_QUEUES. */
unsigned devices_processes(const struct look *look, struct gpu_process *found);

/* For generated functions: the value goes to *to where `known` is 0 or all of it is known. */
nvmlReturn_t give_number(const struct look *look, uint32_t known, uint64_t value, unsigned *to);
nvmlReturn_t give_string(const struct look *look, uint32_t known, const char *value, char *to,
                         unsigned size);
/* What is not served: says so only of an initialised library. */
nvmlReturn_t refuse_call(void);

/* The table that nvidia-smi asks for by its id; NULL: there is none of this id. */
const void *private_table(const unsigned char id[16]);

/* "0000:06:00.0" of the card, in parts. False where the host does not tell. */
int parse_bus_id(const char *text, unsigned *domain, unsigned *bus, unsigned *device);

/* Writes the first argument of a process's command line, or its name. False: there is no such. */
int process_name(unsigned pid, char *name, unsigned size);

#endif
