/* SPDX-License-Identifier: MIT */
/*
 * The table of functions that nvidia-smi asks NVIDIA's library for by an id, beside those that
 * everybody may call. What its entries are was found out by watching nvidia-smi 535, 550 and 580
 * use the library of driver 580: which it calls, with what arguments, and what it prints of the
 * answers. All three have the same numbers for the same things, so the table only grows at its end.
 * Its first word is its size in bytes.
 *
 * Served is what the processes come from, and the bus id by which nvidia-smi names a device. The
 * others answer NOT_SUPPORTED, for which it prints N/A.
 */
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include "guest/libnvml/devices.h"
#include "guest/libnvml/nvml-calls.h"

#define TABLE_ENTRIES 1024u /* with the size; more than any release asks for so far */
#define ENTRY_LOG 26u       /* told of each line that it prints */
#define ENTRY_MONITORED 72u
#define ENTRY_BUS_ID 81u
#define ENTRY_SAMPLES 145u
#define ENTRY_COMPUTE 213u
#define ENTRY_GRAPHICS 214u
#define ENTRY_MPS 215u
#define BUS_ID_SIZE 16u

/* A process, with its command line. */
struct named_process {
    nvmlProcessInfo_v2_t info;
    uint64_t protected_memory; /* bytes; 0 */
    char name[4096];
};
static_assert(sizeof(struct named_process) == 4128, "as it is there");

typedef nvmlReturn_t entry(void);

static nvmlReturn_t take_log(void)
{
    return NVML_SUCCESS;
}

/* Whether a device can be watched with dmon and pmon. */
static nvmlReturn_t give_monitored(nvmlDevice_t device, unsigned *yes)
{
    struct look look;
    const nvmlReturn_t r = or_invalid(devices_look(device, &look), !yes);

    if (r != NVML_SUCCESS) {
        return r;
    }
    *yes = 1;
    return NVML_SUCCESS;
}

/* `text` has room for BUS_ID_SIZE. */
static nvmlReturn_t give_bus_id(unsigned index, char *text)
{
    nvmlDevice_t device;
    nvmlPciInfo_t pci;
    nvmlReturn_t r = nvmlDeviceGetHandleByIndex_v2(index, &device);

    if (r == NVML_SUCCESS) {
        r = nvmlDeviceGetPciInfo_v3(device, &pci);
    }
    if (r == NVML_SUCCESS) {
        memcpy(text, pci.busIdLegacy, BUS_ID_SIZE);
    }
    return r;
}

static nvmlReturn_t give_named(nvmlDevice_t device, unsigned *count, struct named_process *infos)
{
    nvmlProcessInfo_v2_t found[VGPU_MAX_QUEUES];
    unsigned number = VGPU_MAX_QUEUES, room;
    const nvmlReturn_t r = or_invalid(
        nvmlDeviceGetComputeRunningProcesses_v3(device, &number, found), !count);

    if (r != NVML_SUCCESS) {
        return r;
    }
    room = infos ? *count : 0;
    *count = number;
    if (room < number) {
        return NVML_ERROR_INSUFFICIENT_SIZE;
    }
    for (unsigned i = 0; i < number; i++) {
        memset(&infos[i], 0, sizeof(infos[i]));
        infos[i].info = found[i];
        process_name(found[i].pid, infos[i].name, sizeof(infos[i].name));
    }
    return NVML_SUCCESS;
}

static nvmlReturn_t give_none(nvmlDevice_t device, unsigned *count, void *infos)
{
    return nvmlDeviceGetGraphicsRunningProcesses_v3(device, count, infos);
}

/*
 * Of processes' use of the GPU since a moment; how a sample looks is not known, and nvidia-smi pmon
 * has "-" for none.
 */
static nvmlReturn_t give_no_samples(void)
{
    return NVML_ERROR_NOT_FOUND;
}

static union {
    uintptr_t size;
    entry *function;
} table[TABLE_ENTRIES];

__attribute__((constructor)) static void fill_table(void)
{
    for (unsigned i = 1; i < TABLE_ENTRIES; i++) {
        table[i].function = refuse_call;
    }
    table[ENTRY_LOG].function = take_log;
    table[ENTRY_MONITORED].function = (entry *)(uintptr_t)give_monitored;
    table[ENTRY_BUS_ID].function = (entry *)(uintptr_t)give_bus_id;
    table[ENTRY_SAMPLES].function = give_no_samples;
    table[ENTRY_COMPUTE].function = (entry *)(uintptr_t)give_named;
    table[ENTRY_GRAPHICS].function = (entry *)(uintptr_t)give_none;
    table[ENTRY_MPS].function = (entry *)(uintptr_t)give_none;
    table[0].size = sizeof(table);
}

const void *private_table(const unsigned char id[16])
{
    static const unsigned char own[16] = {0xc4, 0xfe, 0x3e, 0x6c, 0xc9, 0x8f, 0x6c, 0x4e,
                                          0xa3, 0x27, 0xee, 0x69, 0x6e, 0x12, 0xf7, 0xc4};

    return memcmp(id, own, sizeof(own)) == 0 ? table : NULL;
}
