/* SPDX-License-Identifier: MIT */
/*
 * NVIDIA's management library as the gauge uses it, see gauge.h.
 *
 * The declarations are our own, after NVIDIA's reference manual of NVML. Functions that a driver
 * does not have, and what a GPU does not know of itself, are left out of what is known; nothing of
 * that is an error. Only functions that ask are called.
 */
#include <dlfcn.h>
#include <errno.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>

#include "common/log.h"
#include "worker/gauge.h"

typedef int nvml_result; /* 0: success */
typedef struct nvml_device_of *nvml_device;

struct nvml_utilization {
    unsigned gpu, memory;
};
struct nvml_memory {
    unsigned long long total, free, used;
};
struct nvml_pci {
    char bus_id_legacy[16];
    unsigned domain, bus, device, pci_device, pci_subsystem;
    char bus_id[32];
};

/* member, symbol, parameters */
#define NVML_CALLS(X)                                                                              \
    X(Init, "nvmlInit_v2", (void))                                                                 \
    X(DriverVersion, "nvmlSystemGetDriverVersion", (char *text, unsigned size))                    \
    X(ByUuid, "nvmlDeviceGetHandleByUUID", (const char *uuid, nvml_device *device))                \
    X(Pci, "nvmlDeviceGetPciInfo_v3", (nvml_device device, struct nvml_pci * pci))                 \
    X(Cores, "nvmlDeviceGetNumGpuCores", (nvml_device device, unsigned *value))                    \
    X(Architecture, "nvmlDeviceGetArchitecture", (nvml_device device, unsigned *value))            \
    X(Brand, "nvmlDeviceGetBrand", (nvml_device device, unsigned *value))                          \
    X(BusWidth, "nvmlDeviceGetMemoryBusWidth", (nvml_device device, unsigned *value))              \
    X(LinkGeneration, "nvmlDeviceGetMaxPcieLinkGeneration", (nvml_device device, unsigned *value)) \
    X(LinkWidth, "nvmlDeviceGetMaxPcieLinkWidth", (nvml_device device, unsigned *value))           \
    X(ClockMost, "nvmlDeviceGetMaxClockInfo",                                                      \
      (nvml_device device, unsigned clock, unsigned *value))                                       \
    X(PowerLimits, "nvmlDeviceGetPowerManagementLimitConstraints",                                 \
      (nvml_device device, unsigned *least, unsigned *most))                                       \
    X(PowerDefault, "nvmlDeviceGetPowerManagementDefaultLimit",                                    \
      (nvml_device device, unsigned *value))                                                       \
    X(Ecc, "nvmlDeviceGetEccMode", (nvml_device device, unsigned *now, unsigned *pending))         \
    X(Vbios, "nvmlDeviceGetVbiosVersion", (nvml_device device, char *text, unsigned size))         \
    X(Utilization, "nvmlDeviceGetUtilizationRates",                                                \
      (nvml_device device, struct nvml_utilization * rates))                                       \
    X(Temperature, "nvmlDeviceGetTemperature",                                                     \
      (nvml_device device, unsigned sensor, unsigned *value))                                      \
    X(Power, "nvmlDeviceGetPowerUsage", (nvml_device device, unsigned *value))                     \
    X(PowerLimit, "nvmlDeviceGetEnforcedPowerLimit", (nvml_device device, unsigned *value))        \
    X(Clock, "nvmlDeviceGetClockInfo", (nvml_device device, unsigned clock, unsigned *value))      \
    X(State, "nvmlDeviceGetPerformanceState", (nvml_device device, unsigned *value))               \
    X(Fan, "nvmlDeviceGetFanSpeed", (nvml_device device, unsigned *value))                         \
    X(Memory, "nvmlDeviceGetMemoryInfo", (nvml_device device, struct nvml_memory * memory))        \
    X(Energy, "nvmlDeviceGetTotalEnergyConsumption",                                               \
      (nvml_device device, unsigned long long *value))

#define NVML_MEMBER(member, symbol, parameters) nvml_result(*member) parameters;
static struct {
    NVML_CALLS(NVML_MEMBER)
} nvml;

#define NVML_SYMBOL(member, symbol, parameters) {symbol, offsetof(__typeof__(nvml), member)},
static const struct {
    const char *name;
    size_t offset;
} symbols[] = {NVML_CALLS(NVML_SYMBOL)};

static nvml_device devices[VGPU_GAUGES]; /* NULL: not found */

/* Whether the driver has the function, and it has answered. */
#define ASK(member, ...) (nvml.member && nvml.member(__VA_ARGS__) == 0)

static int nvml_load(void)
{
    void *library = dlopen("libnvidia-ml.so.1", RTLD_NOW | RTLD_LOCAL);
    nvml_result r;

    if (!library) {
        log_info("no sensors of the GPU: %s", dlerror());
        return -ENODEV;
    }
    if (dlsym(library, "vgpu_nvml")) {
        log_warning("no sensors of the GPU: the libnvidia-ml.so.1 that is found is vGPU's own, "
                    "which is for guests; take its folder out of the linker's path");
        return -ENODEV;
    }
    /* Copied as bytes: C has no conversion from an object's pointer to a function's. */
    for (size_t i = 0; i < sizeof(symbols) / sizeof(symbols[0]); i++) {
        void *address = dlsym(library, symbols[i].name);

        memcpy((char *)&nvml + symbols[i].offset, &address, sizeof(address));
    }
    r = nvml.Init ? nvml.Init() : -1;
    if (r != 0 || !nvml.ByUuid) {
        log_warning("no sensors of the GPU: NVIDIA's management library does not start (error %d)",
                    r);
        return -ENODEV;
    }
    return 0;
}

int nvml_open(const struct vgpu_gpu_facts *facts, unsigned count)
{
    const int r = nvml_load();

    for (unsigned i = 0; r == 0 && i < count; i++) {
        const uint8_t *b = facts[i].uuid;
        char uuid[48];

        snprintf(uuid, sizeof(uuid),
                 "GPU-%02x%02x%02x%02x-%02x%02x-%02x%02x-%02x%02x-%02x%02x%02x%02x%02x%02x", b[0],
                 b[1], b[2], b[3], b[4], b[5], b[6], b[7], b[8], b[9], b[10], b[11], b[12], b[13],
                 b[14], b[15]);
        if (nvml.ByUuid(uuid, &devices[i]) != 0) {
            devices[i] = NULL;
        }
    }
    return r;
}

/* Clocks that a GPU does not have are 0. */
static uint32_t ask_clocks(nvml_result (*ask)(nvml_device, unsigned, unsigned *),
                           nvml_device device, uint32_t known, uint32_t *mhz)
{
    uint32_t found = 0;

    for (unsigned i = 0; ask && i < VGPU_CLOCKS; i++) {
        if (ask(device, i, &mhz[i]) == 0) {
            found = known;
        } else {
            mhz[i] = 0;
        }
    }
    return found;
}

uint32_t nvml_facts(unsigned device, struct vgpu_gpu_facts *facts)
{
    const nvml_device d = devices[device];
    struct nvml_pci pci = {0};
    unsigned pending;
    uint32_t known = 0;

    if (!d) {
        return 0;
    }
    if (!ASK(DriverVersion, facts->driver, sizeof(facts->driver))) {
        facts->driver[0] = '\0';
    }
    if (ASK(Pci, d, &pci)) {
        facts->pci_device = pci.pci_device;
        facts->pci_subsystem = pci.pci_subsystem;
        known |= VGPU_KNOWN_PCI;
    }
    if (ASK(Cores, d, &facts->cores) && ASK(Architecture, d, &facts->architecture) &&
        ASK(Brand, d, &facts->brand) && ASK(BusWidth, d, &facts->bus_width)) {
        known |= VGPU_KNOWN_CORES;
    }
    if (ASK(LinkGeneration, d, &facts->link_generation) && ASK(LinkWidth, d, &facts->link_width)) {
        known |= VGPU_KNOWN_LINK;
    }
    known |= ask_clocks(nvml.ClockMost, d, VGPU_KNOWN_CLOCKS, facts->clock_max);
    if (ASK(PowerLimits, d, &facts->power_least, &facts->power_most) &&
        ASK(PowerDefault, d, &facts->power_default)) {
        known |= VGPU_KNOWN_LIMITS;
    }
    if (ASK(Ecc, d, &facts->ecc, &pending)) {
        known |= VGPU_KNOWN_ECC;
    }
    if (ASK(Vbios, d, facts->vbios, sizeof(facts->vbios))) {
        known |= VGPU_KNOWN_BOARD;
    }
    return known;
}

uint32_t nvml_sensors(unsigned device, struct vgpu_gpu_sensors *sensors)
{
    const nvml_device d = devices[device];
    struct nvml_utilization rates = {0};
    struct nvml_memory memory = {0};
    unsigned long long energy = 0;
    uint32_t known = 0;

    if (!d) {
        return 0;
    }
    if (ASK(Utilization, d, &rates)) {
        sensors->busy = rates.gpu;
        sensors->memory_busy = rates.memory;
        known |= VGPU_KNOWN_BUSY;
    }
    if (ASK(Temperature, d, 0, &sensors->temperature)) {
        known |= VGPU_KNOWN_TEMPERATURE;
    }
    if (ASK(Power, d, &sensors->power)) {
        known |= VGPU_KNOWN_POWER;
    }
    if (ASK(PowerLimit, d, &sensors->power_limit)) {
        known |= VGPU_KNOWN_POWER_LIMIT;
    }
    known |= ask_clocks(nvml.Clock, d, VGPU_KNOWN_CLOCK, sensors->clock);
    if (ASK(State, d, &sensors->state)) {
        known |= VGPU_KNOWN_STATE;
    }
    if (ASK(Fan, d, &sensors->fan)) {
        known |= VGPU_KNOWN_FAN;
    }
    if (ASK(Memory, d, &memory)) {
        sensors->memory_used = memory.used;
        known |= VGPU_KNOWN_MEMORY;
    }
    if (ASK(Energy, d, &energy)) {
        sensors->energy = energy;
        known |= VGPU_KNOWN_ENERGY;
    }
    return known;
}
