/* SPDX-License-Identifier: MIT */
/*
 * Prints what NVML says of each device, a line for each value, for tests that look at it: linked
 * with libnvidia-ml.so.1 as for a machine with a card. Runs with NVIDIA's library too.
 *
 *   nvml-check                 all of it
 *   nvml-check time COUNT      how long nvmlDeviceGetMemoryInfo() takes, the mean of COUNT, in ns
 */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/clock.h"
#include "guest/libnvml/nvml-calls.h"

#define PROCESSES 64

static int failed(const char *what, nvmlReturn_t r)
{
    printf("%s: %s\n", what, nvmlErrorString(r));
    return 1;
}

static void print_number(const char *what, nvmlReturn_t r, unsigned value)
{
    if (r == NVML_SUCCESS) {
        printf("%s %u\n", what, value);
    } else {
        failed(what, r);
    }
}

static void print_processes(nvmlDevice_t device)
{
    nvmlProcessInfo_v2_t infos[PROCESSES];
    unsigned count = PROCESSES;
    const nvmlReturn_t r = nvmlDeviceGetComputeRunningProcesses_v3(device, &count, infos);

    print_number("processes", r, count);
    for (unsigned i = 0; r == NVML_SUCCESS && i < count; i++) {
        char name[64] = "?";

        nvmlSystemGetProcessName(infos[i].pid, name, sizeof(name));
        printf("process %u %s %llu\n", infos[i].pid, name, infos[i].usedGpuMemory);
    }
}

static int print_device(nvmlDevice_t device)
{
    nvmlMemory_t memory;
    nvmlPciInfo_t pci;
    char text[96];
    unsigned value = 0;
    nvmlReturn_t r = nvmlDeviceGetName(device, text, sizeof(text));

    if (r != NVML_SUCCESS) {
        return failed("name", r);
    }
    printf("name %s\n", text);
    r = nvmlDeviceGetUUID(device, text, sizeof(text));
    puts(r == NVML_SUCCESS ? text : nvmlErrorString(r));
    r = nvmlDeviceGetPciInfo_v3(device, &pci);
    puts(r == NVML_SUCCESS ? pci.busId : nvmlErrorString(r));
    r = nvmlDeviceGetMemoryInfo(device, &memory);
    if (r != NVML_SUCCESS) {
        return failed("memory", r);
    }
    printf("memory %llu %llu\n", memory.total, memory.used);
    r = nvmlDeviceGetTemperature(device, 0, &value);
    print_number("temperature", r, value);
    r = nvmlDeviceGetPowerUsage(device, &value);
    print_number("power", r, value);
    print_processes(device);
    return 0;
}

/* Of a value that is known in the guest. */
static int print_time(nvmlDevice_t device, long count)
{
    const uint64_t start = clock_ns();
    nvmlMemory_t memory;

    for (long i = 0; i < count; i++) {
        if (nvmlDeviceGetMemoryInfo(device, &memory) != NVML_SUCCESS) {
            return 1;
        }
    }
    printf("%" PRIu64 " ns\n", (clock_ns() - start) / (uint64_t)count);
    return 0;
}

int main(int argc, char **argv)
{
    unsigned count = 0;
    nvmlDevice_t device;
    int code = 0;
    nvmlReturn_t r = nvmlInit_v2();

    if (r == NVML_SUCCESS) {
        r = nvmlDeviceGetCount_v2(&count);
    }
    if (r != NVML_SUCCESS) {
        return failed("nvmlInit", r);
    }
    printf("devices %u\n", count);
    for (unsigned i = 0; i < count; i++) {
        r = nvmlDeviceGetHandleByIndex_v2(i, &device);
        if (r != NVML_SUCCESS) {
            return failed("handle", r);
        }
        code |= argc == 3 && strcmp(argv[1], "time") == 0 ? print_time(device, atol(argv[2]))
                                                          : print_device(device);
    }
    return nvmlShutdown() == NVML_SUCCESS ? code : 1;
}
