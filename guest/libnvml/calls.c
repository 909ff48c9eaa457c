/* SPDX-License-Identifier: MIT */
/*
 * The functions of NVML that are more than one value of the card's, see devices.h. Arguments that
 * are NULL, and what is not a device's handle, are INVALID_ARGUMENT; NVML's own checks are these
 * two.
 */
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <time.h>
#include <unistd.h>

#include "guest/libnvml/devices.h"
#include "guest/libnvml/nvml-calls.h"

/* By this the host's side tells that it has found this library in place of NVIDIA's. */
extern const int vgpu_nvml;
const int vgpu_nvml = 1;

#define PID_TEXT 64

/* Beginning and end ------------------------------------------------------------------------- */

nvmlReturn_t nvmlInitWithFlags(unsigned int flags)
{
    return devices_begin(flags);
}

nvmlReturn_t nvmlInit_v2(void)
{
    return devices_begin(0);
}

nvmlReturn_t nvmlInit(void)
{
    return devices_begin(0);
}

nvmlReturn_t nvmlShutdown(void)
{
    return devices_end();
}

const char *nvmlErrorString(nvmlReturn_t result)
{
    static const char *const texts[] = {
        [NVML_SUCCESS] = "Success",
        [NVML_ERROR_UNINITIALIZED] = "Uninitialized",
        [NVML_ERROR_INVALID_ARGUMENT] = "Invalid Argument",
        [NVML_ERROR_NOT_SUPPORTED] = "Not Supported",
        [NVML_ERROR_NO_PERMISSION] = "Insufficient Permissions",
        [NVML_ERROR_ALREADY_INITIALIZED] = "Already Initialized",
        [NVML_ERROR_NOT_FOUND] = "Not Found",
        [NVML_ERROR_INSUFFICIENT_SIZE] = "Insufficient Size",
        [NVML_ERROR_INSUFFICIENT_POWER] = "Insufficient External Power",
        [NVML_ERROR_DRIVER_NOT_LOADED] = "Driver Not Loaded",
        [NVML_ERROR_TIMEOUT] = "Timeout",
        [NVML_ERROR_IRQ_ISSUE] = "Interrupt Request Issue",
        [NVML_ERROR_LIBRARY_NOT_FOUND] = "NVML Shared Library Not Found",
        [NVML_ERROR_FUNCTION_NOT_FOUND] = "Function Not Found",
        [NVML_ERROR_CORRUPTED_INFOROM] = "Corrupted infoROM",
        [NVML_ERROR_GPU_IS_LOST] = "GPU is lost",
        [NVML_ERROR_RESET_REQUIRED] = "GPU requires reset",
        [NVML_ERROR_OPERATING_SYSTEM] = "Operating System Error",
        [NVML_ERROR_LIB_RM_VERSION_MISMATCH] = "Driver/library version mismatch",
        [NVML_ERROR_IN_USE] = "In use by another client",
        [NVML_ERROR_MEMORY] = "Insufficient Memory",
        [NVML_ERROR_NO_DATA] = "No data",
        [NVML_ERROR_VGPU_ECC_NOT_SUPPORTED] = "vGPU ECC not supported",
        [NVML_ERROR_FREQ_NOT_SUPPORTED] = "Frequency not supported",
        [NVML_ERROR_INSUFFICIENT_RESOURCES] = "Insufficient Resources",
        [NVML_ERROR_ARGUMENT_VERSION_MISMATCH] = "Argument Version Mismatch",
        [NVML_ERROR_DEPRECATED] = "Deprecated",
        [NVML_ERROR_NOT_READY] = "Not Ready",
        [NVML_ERROR_GPU_NOT_FOUND] = "GPU Not Found",
        [NVML_ERROR_INVALID_STATE] = "Invalid State",
    };
    const unsigned number = (unsigned)result;
    const char *text = number < sizeof(texts) / sizeof(texts[0]) ? texts[number] : NULL;

    return text ? text : "Unknown Error";
}

/* The system ---------------------------------------------------------------------------------- */

/* What is said of the system is said of the first device that tells. */
static nvmlReturn_t look_at_first(struct look *look)
{
    nvmlReturn_t r = NVML_ERROR_INVALID_ARGUMENT;
    nvmlDevice_t device;
    unsigned count;

    if (devices_count(&count) != NVML_SUCCESS) {
        return NVML_ERROR_UNINITIALIZED;
    }
    for (unsigned i = 0; i < count; i++) {
        r = devices_handle(i, &device);
        r = r == NVML_SUCCESS ? devices_look(device, look) : r;
        if (r == NVML_SUCCESS) {
            return r;
        }
    }
    return count == 0 ? NVML_ERROR_NOT_SUPPORTED : r;
}

/* The text is empty where the host does not know it. */
static nvmlReturn_t give_known_string(const struct look *look, const char *value, char *to,
                                      unsigned size)
{
    return value[0] ? give_string(look, VGPU_KNOWN_DEVICE, value, to, size)
                    : NVML_ERROR_NOT_SUPPORTED;
}

nvmlReturn_t nvmlSystemGetDriverVersion(char *version, unsigned int length)
{
    struct look look;
    const nvmlReturn_t r = look_at_first(&look);

    if (!version) {
        return NVML_ERROR_INVALID_ARGUMENT;
    }
    return r == NVML_SUCCESS ? give_known_string(&look, look.card.facts.driver, version, length)
                             : r;
}

/* Of which release it is: that of CUDA, and of the driver. */
nvmlReturn_t nvmlSystemGetNVMLVersion(char *version, unsigned int length)
{
    char text[64];
    struct look look;
    const nvmlReturn_t r = look_at_first(&look);

    if (!version) {
        return NVML_ERROR_INVALID_ARGUMENT;
    }
    if (r != NVML_SUCCESS) {
        return r;
    }
    if (!look.card.facts.driver[0]) {
        return NVML_ERROR_NOT_SUPPORTED;
    }
    snprintf(text, sizeof(text), "%" PRIu32 ".%s", look.card.facts.cuda / 1000,
             look.card.facts.driver);
    return give_string(&look, VGPU_KNOWN_DEVICE, text, version, length);
}

nvmlReturn_t nvmlSystemGetCudaDriverVersion(int *version)
{
    struct look look;
    const nvmlReturn_t r = look_at_first(&look);

    if (!version) {
        return NVML_ERROR_INVALID_ARGUMENT;
    }
    return r == NVML_SUCCESS
               ? give_number(&look, VGPU_KNOWN_DEVICE, look.card.facts.cuda, (unsigned *)version)
               : r;
}

nvmlReturn_t nvmlSystemGetCudaDriverVersion_v2(int *version)
{
    return nvmlSystemGetCudaDriverVersion(version);
}

static ssize_t read_proc(unsigned pid, const char *file, char *text, size_t size)
{
    char path[PID_TEXT];
    ssize_t n;
    int fd;

    snprintf(path, sizeof(path), "/proc/%u/%s", pid, file);
    fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0) {
        return -1;
    }
    n = read(fd, text, size - 1);
    close(fd);
    text[n > 0 ? n : 0] = '\0';
    return n;
}

int process_name(unsigned pid, char *name, unsigned size)
{
    char text[1024];

    /* A kernel thread, or a process that is about to end, has no command line. */
    if (read_proc(pid, "cmdline", text, sizeof(text)) <= 0) {
        if (read_proc(pid, "comm", text, sizeof(text)) <= 0) {
            return 0;
        }
        text[strcspn(text, "\n")] = '\0';
    }
    snprintf(name, size, "%s", text);
    return 1;
}

nvmlReturn_t nvmlSystemGetProcessName(unsigned int pid, char *name, unsigned int length)
{
    unsigned count;
    const nvmlReturn_t r = devices_count(&count);

    if (r != NVML_SUCCESS) {
        return r;
    }
    if (!name || length == 0) {
        return NVML_ERROR_INVALID_ARGUMENT;
    }
    return process_name(pid, name, length) ? NVML_SUCCESS : NVML_ERROR_NOT_FOUND;
}

/* Devices -------------------------------------------------------------------------------------- */

nvmlReturn_t nvmlDeviceGetCount_v2(unsigned int *count)
{
    return count ? devices_count(count) : NVML_ERROR_INVALID_ARGUMENT;
}

nvmlReturn_t nvmlDeviceGetCount(unsigned int *count)
{
    return nvmlDeviceGetCount_v2(count);
}

nvmlReturn_t nvmlDeviceGetHandleByIndex_v2(unsigned int index, nvmlDevice_t *device)
{
    unsigned count;

    if (!device) {
        return devices_count(&count) == NVML_SUCCESS ? NVML_ERROR_INVALID_ARGUMENT
                                                     : NVML_ERROR_UNINITIALIZED;
    }
    return devices_handle(index, device);
}

nvmlReturn_t nvmlDeviceGetHandleByIndex(unsigned int index, nvmlDevice_t *device)
{
    return nvmlDeviceGetHandleByIndex_v2(index, device);
}

/* "06:00.0" has the domain 0; a GPU is function 0. */
int parse_bus_id(const char *text, unsigned *domain, unsigned *bus, unsigned *device)
{
    unsigned function = 0;
    int end = 0;

    if (sscanf(text, "%x:%x:%x.%u%n", domain, bus, device, &function, &end) != 4) {
        *domain = 0;
        if (sscanf(text, "%x:%x.%u%n", bus, device, &function, &end) != 3) {
            return 0;
        }
    }
    return text[end] == '\0' && function == 0;
}

static void uuid_of(const struct vgpu_gpu_facts *facts, char text[48])
{
    const uint8_t *b = facts->uuid;

    snprintf(text, 48, "GPU-%02x%02x%02x%02x-%02x%02x-%02x%02x-%02x%02x-%02x%02x%02x%02x%02x%02x",
             b[0], b[1], b[2], b[3], b[4], b[5], b[6], b[7], b[8], b[9], b[10], b[11], b[12], b[13],
             b[14], b[15]);
}

static int has_bus_id(const struct look *look, const char *wanted)
{
    unsigned a[3], b[3];

    return parse_bus_id(wanted, &a[0], &a[1], &a[2]) &&
           parse_bus_id(look->card.facts.bus_id, &b[0], &b[1], &b[2]) &&
           memcmp(a, b, sizeof(a)) == 0;
}

static int has_uuid(const struct look *look, const char *wanted)
{
    char uuid[48];

    uuid_of(&look->card.facts, uuid);
    return strcasecmp(uuid, wanted) == 0;
}

static nvmlReturn_t find_device(int (*is)(const struct look *look, const char *wanted),
                                const char *wanted, nvmlDevice_t *device)
{
    nvmlReturn_t found = NVML_ERROR_NOT_FOUND;
    unsigned count;
    const nvmlReturn_t r = or_invalid(devices_count(&count), !wanted || !device);

    if (r != NVML_SUCCESS) {
        return r;
    }
    for (unsigned i = 0; i < count; i++) {
        struct look look;
        nvmlDevice_t one;
        nvmlReturn_t asked = devices_handle(i, &one);

        asked = asked == NVML_SUCCESS ? devices_look(one, &look) : asked;
        if (asked == NVML_SUCCESS && is(&look, wanted)) {
            *device = one;
            return NVML_SUCCESS;
        }
        /* It may be one that does not tell. */
        found = asked != NVML_SUCCESS ? asked : found;
    }
    return found;
}

nvmlReturn_t nvmlDeviceGetHandleByUUID(const char *uuid, nvmlDevice_t *device)
{
    return find_device(has_uuid, uuid, device);
}

nvmlReturn_t nvmlDeviceGetHandleByPciBusId_v2(const char *id, nvmlDevice_t *device)
{
    unsigned parts[3];

    if (id && !parse_bus_id(id, &parts[0], &parts[1], &parts[2])) {
        id = NULL;
    }
    return find_device(has_bus_id, id, device);
}

nvmlReturn_t nvmlDeviceGetHandleByPciBusId(const char *id, nvmlDevice_t *device)
{
    return nvmlDeviceGetHandleByPciBusId_v2(id, device);
}

nvmlReturn_t nvmlDeviceGetUUID(nvmlDevice_t device, char *uuid, unsigned int length)
{
    char text[48];
    struct look look;
    const nvmlReturn_t r = or_invalid(devices_look(device, &look), !uuid);

    if (r != NVML_SUCCESS) {
        return r;
    }
    uuid_of(&look.card.facts, text);
    return give_string(&look, VGPU_KNOWN_DEVICE, text, uuid, length);
}

nvmlReturn_t nvmlDeviceGetCudaComputeCapability(nvmlDevice_t device, int *major, int *minor)
{
    struct look look;
    const nvmlReturn_t r = or_invalid(devices_look(device, &look), !major || !minor);

    if (r != NVML_SUCCESS) {
        return r;
    }
    if (!(look.card.known & VGPU_KNOWN_DEVICE)) {
        return NVML_ERROR_NOT_SUPPORTED;
    }
    *major = (int)(look.card.facts.compute >> 16);
    *minor = (int)(look.card.facts.compute & 0xffff);
    return NVML_SUCCESS;
}

nvmlReturn_t nvmlDeviceOnSameBoard(nvmlDevice_t one, nvmlDevice_t other, int *same)
{
    struct look look;
    nvmlReturn_t r = devices_look(one, &look);

    r = r == NVML_SUCCESS ? devices_look(other, &look) : r;
    if (r != NVML_SUCCESS || !same) {
        return r != NVML_SUCCESS ? r : NVML_ERROR_INVALID_ARGUMENT;
    }
    *same = one == other;
    return NVML_SUCCESS;
}

/* A device reaches its own memory, and so far no other's. NCCL asks for both. */
nvmlReturn_t nvmlDeviceGetP2PStatus(nvmlDevice_t one, nvmlDevice_t other, unsigned int kind,
                                    unsigned int *status)
{
    int same = 0;
    const nvmlReturn_t r = or_invalid(nvmlDeviceOnSameBoard(one, other, &same), !status);

    (void)kind;
    if (r != NVML_SUCCESS) {
        return r;
    }
    *status = same ? NVML_P2P_STATUS_OK : NVML_P2P_STATUS_NOT_SUPPORTED;
    return NVML_SUCCESS;
}

/* PCI ------------------------------------------------------------------------------------------ */

/* As CUDA has it, the host's address: programs compare the two. */
nvmlReturn_t nvmlDeviceGetPciInfo_v3(nvmlDevice_t device, nvmlPciInfo_t *pci)
{
    struct look look;
    const nvmlReturn_t r = or_invalid(devices_look(device, &look), !pci);

    if (r != NVML_SUCCESS) {
        return r;
    }
    *pci = (nvmlPciInfo_t){.pciDeviceId = look.card.facts.pci_device,
                           .pciSubSystemId = look.card.facts.pci_subsystem};
    if (!parse_bus_id(look.card.facts.bus_id, &pci->domain, &pci->bus, &pci->device)) {
        return NVML_ERROR_NOT_SUPPORTED;
    }
    snprintf(pci->busIdLegacy, sizeof(pci->busIdLegacy), "%04X:%02X:%02X.0", pci->domain & 0xffff,
             pci->bus & 0xff, pci->device & 0xff);
    snprintf(pci->busId, sizeof(pci->busId), "%08X:%02X:%02X.0", pci->domain, pci->bus,
             pci->device);
    return NVML_SUCCESS;
}

nvmlReturn_t nvmlDeviceGetPciInfo_v2(nvmlDevice_t device, nvmlPciInfo_v2_t *pci)
{
    nvmlPciInfo_t now;
    const nvmlReturn_t r = or_invalid(nvmlDeviceGetPciInfo_v3(device, &now), !pci);

    if (r != NVML_SUCCESS) {
        return r;
    }
    *pci = (nvmlPciInfo_v2_t){.domain = now.domain,
                              .bus = now.bus,
                              .device = now.device,
                              .pciDeviceId = now.pciDeviceId,
                              .pciSubSystemId = now.pciSubSystemId};
    memcpy(pci->busId, now.busIdLegacy, sizeof(pci->busId));
    return NVML_SUCCESS;
}

nvmlReturn_t nvmlDeviceGetPciInfo(nvmlDevice_t device, nvmlPciInfo_v2_t *pci)
{
    return nvmlDeviceGetPciInfo_v2(device, pci);
}

nvmlReturn_t nvmlDeviceGetPciInfoExt(nvmlDevice_t device, nvmlPciInfoExt_t *pci)
{
    nvmlPciInfo_t now;
    const nvmlReturn_t r = or_invalid(nvmlDeviceGetPciInfo_v3(device, &now), !pci);

    if (r != NVML_SUCCESS) {
        return r;
    }
    if (pci->version != NVML_VERSION(*pci, 1)) {
        return NVML_ERROR_ARGUMENT_VERSION_MISMATCH;
    }
    *pci = (nvmlPciInfoExt_t){.version = pci->version,
                              .domain = now.domain,
                              .bus = now.bus,
                              .device = now.device,
                              .pciDeviceId = now.pciDeviceId,
                              .pciSubSystemId = now.pciSubSystemId,
                              /* 3D controller */
                              .baseClass = 3,
                              .subClass = 2};
    memcpy(pci->busId, now.busId, sizeof(pci->busId));
    return NVML_SUCCESS;
}

/* Memory and use ------------------------------------------------------------------------------- */

static uint64_t memory_free(const struct vgpu_card *card)
{
    return card->memory_used < card->memory_total ? card->memory_total - card->memory_used : 0;
}

nvmlReturn_t nvmlDeviceGetMemoryInfo(nvmlDevice_t device, nvmlMemory_t *memory)
{
    struct look look;
    const nvmlReturn_t r = or_invalid(devices_look(device, &look), !memory);

    if (r != NVML_SUCCESS) {
        return r;
    }
    if (look.card.memory_total == 0) {
        return NVML_ERROR_NOT_SUPPORTED;
    }
    *memory = (nvmlMemory_t){.total = look.card.memory_total,
                             .free = memory_free(&look.card),
                             .used = look.card.memory_used};
    return NVML_SUCCESS;
}

nvmlReturn_t nvmlDeviceGetMemoryInfo_v2(nvmlDevice_t device, nvmlMemory_v2_t *memory)
{
    struct look look;
    const nvmlReturn_t r = or_invalid(devices_look(device, &look), !memory);

    if (r != NVML_SUCCESS) {
        return r;
    }
    if (memory->version != NVML_VERSION(*memory, 2)) {
        return NVML_ERROR_ARGUMENT_VERSION_MISMATCH;
    }
    if (look.card.memory_total == 0) {
        return NVML_ERROR_NOT_SUPPORTED;
    }
    *memory = (nvmlMemory_v2_t){.version = memory->version,
                                .total = look.card.memory_total,
                                .free = memory_free(&look.card),
                                .used = look.card.memory_used};
    return NVML_SUCCESS;
}

/* Of the GPU the VM's own share; of its memory the card's, where the host tells. */
nvmlReturn_t nvmlDeviceGetUtilizationRates(nvmlDevice_t device, nvmlUtilization_t *rates)
{
    struct look look;
    const nvmlReturn_t r = or_invalid(devices_look(device, &look), !rates);

    if (r != NVML_SUCCESS) {
        return r;
    }
    *rates = (nvmlUtilization_t){.gpu = look.card.busy_permille[0] / 10,
                                 .memory = look.card.sensors.memory_busy};
    return NVML_SUCCESS;
}

/* Sensors -------------------------------------------------------------------------------------- */

nvmlReturn_t nvmlDeviceGetTemperature(nvmlDevice_t device, unsigned int sensor,
                                      unsigned int *temperature)
{
    struct look look;
    const nvmlReturn_t r = or_invalid(devices_look(device, &look), !temperature || sensor != 0);

    if (r != NVML_SUCCESS) {
        return r;
    }
    return give_number(&look, VGPU_KNOWN_TEMPERATURE, look.card.sensors.temperature, temperature);
}

nvmlReturn_t nvmlDeviceGetTemperatureV(nvmlDevice_t device, nvmlTemperature_t *temperature)
{
    unsigned value;
    nvmlReturn_t r;

    if (!temperature) {
        return NVML_ERROR_INVALID_ARGUMENT;
    }
    if (temperature->version != NVML_VERSION(*temperature, 1)) {
        return NVML_ERROR_ARGUMENT_VERSION_MISMATCH;
    }
    r = nvmlDeviceGetTemperature(device, temperature->sensorType, &value);
    if (r == NVML_SUCCESS) {
        temperature->temperature = (int)value;
    }
    return r;
}

static nvmlReturn_t give_clock(nvmlDevice_t device, unsigned clock, int most, unsigned *mhz)
{
    struct look look;
    const nvmlReturn_t r = or_invalid(devices_look(device, &look), !mhz || clock >= VGPU_CLOCKS);

    if (r != NVML_SUCCESS) {
        return r;
    }
    return most ? give_number(&look, VGPU_KNOWN_CLOCKS, look.card.facts.clock_max[clock], mhz)
                : give_number(&look, VGPU_KNOWN_CLOCK, look.card.sensors.clock[clock], mhz);
}

nvmlReturn_t nvmlDeviceGetClockInfo(nvmlDevice_t device, unsigned int clock, unsigned int *mhz)
{
    return give_clock(device, clock, 0, mhz);
}

nvmlReturn_t nvmlDeviceGetMaxClockInfo(nvmlDevice_t device, unsigned int clock, unsigned int *mhz)
{
    return give_clock(device, clock, 1, mhz);
}

/* `kind` 0 is the clock as it is; others are settings, which a guest has no part in. */
nvmlReturn_t nvmlDeviceGetClock(nvmlDevice_t device, unsigned int clock, unsigned int kind,
                                unsigned int *mhz)
{
    return kind == 0 ? give_clock(device, clock, 0, mhz) : refuse_call();
}

nvmlReturn_t nvmlDeviceGetPowerManagementLimitConstraints(nvmlDevice_t device, unsigned int *least,
                                                          unsigned int *most)
{
    struct look look;
    nvmlReturn_t r = or_invalid(devices_look(device, &look), !least || !most);

    if (r != NVML_SUCCESS) {
        return r;
    }
    r = give_number(&look, VGPU_KNOWN_LIMITS, look.card.facts.power_least, least);
    return r == NVML_SUCCESS
               ? give_number(&look, VGPU_KNOWN_LIMITS, look.card.facts.power_most, most)
               : r;
}

nvmlReturn_t nvmlDeviceGetTotalEnergyConsumption(nvmlDevice_t device, unsigned long long *energy)
{
    struct look look;
    const nvmlReturn_t r = or_invalid(devices_look(device, &look), !energy);

    if (r != NVML_SUCCESS) {
        return r;
    }
    if (!(look.card.known & VGPU_KNOWN_ENERGY)) {
        return NVML_ERROR_NOT_SUPPORTED;
    }
    *energy = look.card.sensors.energy;
    return NVML_SUCCESS;
}

nvmlReturn_t nvmlDeviceGetEccMode(nvmlDevice_t device, unsigned int *now, unsigned int *pending)
{
    struct look look;
    nvmlReturn_t r = or_invalid(devices_look(device, &look), !now || !pending);

    if (r != NVML_SUCCESS) {
        return r;
    }
    r = give_number(&look, VGPU_KNOWN_ECC, look.card.facts.ecc, now);
    return r == NVML_SUCCESS ? give_number(&look, VGPU_KNOWN_ECC, look.card.facts.ecc, pending) : r;
}

static unsigned long long now_us(void)
{
    struct timespec now;

    clock_gettime(CLOCK_REALTIME, &now);
    return (unsigned long long)now.tv_sec * 1000000 + (unsigned long long)now.tv_nsec / 1000;
}

static nvmlReturn_t give_field(const struct look *look, nvmlFieldValue_t *field)
{
    unsigned power = 0;

    field->timestamp = (long long)now_us();
    field->latencyUsec = 0;
    switch (field->fieldId) {
    case NVML_FI_DEV_TOTAL_ENERGY_CONSUMPTION:
        field->valueType = NVML_VALUE_TYPE_UNSIGNED_LONG_LONG;
        field->value.ullVal = look->card.sensors.energy;
        return look->card.known & VGPU_KNOWN_ENERGY ? NVML_SUCCESS : NVML_ERROR_NOT_SUPPORTED;
    case NVML_FI_DEV_POWER_AVERAGE:
    case NVML_FI_DEV_POWER_INSTANT:
        field->valueType = NVML_VALUE_TYPE_UNSIGNED_INT;
        /* Of the whole card; a scope is a part of it. */
        if (field->scopeId != 0) {
            return NVML_ERROR_NOT_SUPPORTED;
        }
        field->nvmlReturn = give_number(look, VGPU_KNOWN_POWER, look->card.sensors.power, &power);
        field->value.uiVal = power;
        return field->nvmlReturn;
    default:
        return NVML_ERROR_NOT_SUPPORTED;
    }
}

nvmlReturn_t nvmlDeviceGetFieldValues(nvmlDevice_t device, int count, nvmlFieldValue_t *values)
{
    struct look look;
    const nvmlReturn_t r = or_invalid(devices_look(device, &look), !values || count < 0);

    if (r != NVML_SUCCESS) {
        return r;
    }
    for (int i = 0; i < count; i++) {
        values[i].nvmlReturn = give_field(&look, &values[i]);
    }
    return NVML_SUCCESS;
}

/* Processors and memory that are near, of which a guest has but its own: all of them. */
nvmlReturn_t nvmlDeviceGetCpuAffinity(nvmlDevice_t device, unsigned int words, unsigned long *set)
{
    const long processors = sysconf(_SC_NPROCESSORS_CONF);
    const unsigned bits = 8 * sizeof(*set);
    struct look look;
    const nvmlReturn_t r = or_invalid(devices_look(device, &look), !set || words == 0);

    if (r != NVML_SUCCESS) {
        return r;
    }
    memset(set, 0, words * sizeof(*set));
    for (unsigned i = 0; (long)i < processors && i / bits < words; i++) {
        set[i / bits] |= 1ul << i % bits;
    }
    return NVML_SUCCESS;
}

nvmlReturn_t nvmlDeviceGetCpuAffinityWithinScope(nvmlDevice_t device, unsigned int words,
                                                 unsigned long *set, unsigned int scope)
{
    (void)scope;
    return nvmlDeviceGetCpuAffinity(device, words, set);
}

/* As the last, nodes of memory: a guest's device is at its first. */
nvmlReturn_t nvmlDeviceGetMemoryAffinity(nvmlDevice_t device, unsigned int words,
                                         unsigned long *set, unsigned int scope)
{
    struct look look;
    const nvmlReturn_t r = or_invalid(devices_look(device, &look), !set || words == 0);

    (void)scope;
    if (r != NVML_SUCCESS) {
        return r;
    }
    memset(set, 0, words * sizeof(*set));
    set[0] = 1;
    return NVML_SUCCESS;
}

/* Processes ------------------------------------------------------------------------------------ */

/*
 * *count is the room in `infos`, and becomes the number of processes. Entries are of one of two
 * sizes, which begin alike; those of no instance have that in the larger one.
 */
static nvmlReturn_t give_processes(nvmlDevice_t device, unsigned *count, void *infos, size_t size)
{
    struct gpu_process found[VGPU_MAX_QUEUES];
    struct look look;
    const nvmlReturn_t r = or_invalid(devices_look(device, &look),
                                      !count || (*count > 0 && !infos));
    unsigned number, room;

    if (r != NVML_SUCCESS) {
        return r;
    }
    number = devices_processes(&look, found);
    room = *count;
    *count = number;
    if (room < number) {
        return NVML_ERROR_INSUFFICIENT_SIZE;
    }
    for (unsigned i = 0; i < number; i++) {
        const nvmlProcessInfo_v2_t info = {.pid = found[i].pid,
                                           .usedGpuMemory = found[i].memory,
                                           .gpuInstanceId = NVML_NO_INSTANCE,
                                           .computeInstanceId = NVML_NO_INSTANCE};

        memcpy((char *)infos + i * size, &info, size);
    }
    return NVML_SUCCESS;
}

static nvmlReturn_t give_no_processes(nvmlDevice_t device, unsigned *count)
{
    struct look look;
    const nvmlReturn_t r = or_invalid(devices_look(device, &look), !count);

    if (r != NVML_SUCCESS) {
        return r;
    }
    *count = 0;
    return NVML_SUCCESS;
}

nvmlReturn_t nvmlDeviceGetComputeRunningProcesses(nvmlDevice_t device, unsigned int *count,
                                                  nvmlProcessInfo_v1_t *infos)
{
    return give_processes(device, count, infos, sizeof(*infos));
}

nvmlReturn_t nvmlDeviceGetComputeRunningProcesses_v2(nvmlDevice_t device, unsigned int *count,
                                                     nvmlProcessInfo_v2_t *infos)
{
    return give_processes(device, count, infos, sizeof(*infos));
}

nvmlReturn_t nvmlDeviceGetComputeRunningProcesses_v3(nvmlDevice_t device, unsigned int *count,
                                                     nvmlProcessInfo_v2_t *infos)
{
    return give_processes(device, count, infos, sizeof(*infos));
}

nvmlReturn_t nvmlDeviceGetGraphicsRunningProcesses(nvmlDevice_t device, unsigned int *count,
                                                   nvmlProcessInfo_v1_t *infos)
{
    (void)infos;
    return give_no_processes(device, count);
}

nvmlReturn_t nvmlDeviceGetGraphicsRunningProcesses_v2(nvmlDevice_t device, unsigned int *count,
                                                      nvmlProcessInfo_v2_t *infos)
{
    (void)infos;
    return give_no_processes(device, count);
}

nvmlReturn_t nvmlDeviceGetGraphicsRunningProcesses_v3(nvmlDevice_t device, unsigned int *count,
                                                      nvmlProcessInfo_v2_t *infos)
{
    (void)infos;
    return give_no_processes(device, count);
}

nvmlReturn_t nvmlDeviceGetMPSComputeRunningProcesses(nvmlDevice_t device, unsigned int *count,
                                                     nvmlProcessInfo_v1_t *infos)
{
    (void)infos;
    return give_no_processes(device, count);
}

nvmlReturn_t nvmlDeviceGetMPSComputeRunningProcesses_v2(nvmlDevice_t device, unsigned int *count,
                                                        nvmlProcessInfo_v2_t *infos)
{
    (void)infos;
    return give_no_processes(device, count);
}

nvmlReturn_t nvmlDeviceGetMPSComputeRunningProcesses_v3(nvmlDevice_t device, unsigned int *count,
                                                        nvmlProcessInfo_v2_t *infos)
{
    (void)infos;
    return give_no_processes(device, count);
}

/* One sample for each process, of this moment, whatever was seen last. */
nvmlReturn_t nvmlDeviceGetProcessUtilization(nvmlDevice_t device,
                                             nvmlProcessUtilizationSample_t *samples,
                                             unsigned int *count, unsigned long long last)
{
    struct gpu_process found[VGPU_MAX_QUEUES];
    struct look look;
    const nvmlReturn_t r = or_invalid(devices_look(device, &look), !count);
    unsigned number, room;

    (void)last;
    if (r != NVML_SUCCESS) {
        return r;
    }
    number = devices_processes(&look, found);
    room = samples ? *count : 0;
    *count = number;
    if (number == 0) {
        return NVML_ERROR_NOT_FOUND;
    }
    if (room < number) {
        return NVML_ERROR_INSUFFICIENT_SIZE;
    }
    for (unsigned i = 0; i < number; i++) {
        samples[i] = (nvmlProcessUtilizationSample_t){
            .pid = found[i].pid, .timeStamp = now_us(), .smUtil = found[i].busy};
    }
    return NVML_SUCCESS;
}

/* Events --------------------------------------------------------------------------------------- */

/* None ever comes, but programs make a set of them before they ask for anything. */
struct nvmlEventSet_st {
    unsigned unused;
};

nvmlReturn_t nvmlEventSetCreate(nvmlEventSet_t *set)
{
    unsigned count;
    const nvmlReturn_t r = or_invalid(devices_count(&count), !set);

    if (r != NVML_SUCCESS) {
        return r;
    }
    *set = calloc(1, sizeof(**set));
    return *set ? NVML_SUCCESS : NVML_ERROR_MEMORY;
}

nvmlReturn_t nvmlEventSetFree(nvmlEventSet_t set)
{
    unsigned count;
    const nvmlReturn_t r = or_invalid(devices_count(&count), !set);

    if (r != NVML_SUCCESS) {
        return r;
    }
    free(set);
    return NVML_SUCCESS;
}

nvmlReturn_t nvmlEventSetWait_v2(nvmlEventSet_t set, void *data, unsigned int timeout_ms)
{
    struct timespec left = {.tv_sec = timeout_ms / 1000,
                            .tv_nsec = (long)(timeout_ms % 1000) * 1000000};
    unsigned count;
    const nvmlReturn_t r = or_invalid(devices_count(&count), !set || !data);

    if (r != NVML_SUCCESS) {
        return r;
    }
    while (nanosleep(&left, &left) < 0 && errno == EINTR) {
    }
    return NVML_ERROR_TIMEOUT;
}

nvmlReturn_t nvmlEventSetWait(nvmlEventSet_t set, void *data, unsigned int timeout_ms)
{
    return nvmlEventSetWait_v2(set, data, timeout_ms);
}

/* Whatever kinds: `nvidia-smi -l` goes by it. */
nvmlReturn_t nvmlDeviceRegisterEvents(nvmlDevice_t device, unsigned long long types,
                                      nvmlEventSet_t set)
{
    struct look look;
    const nvmlReturn_t r = devices_look(device, &look);

    (void)types;
    return r != NVML_SUCCESS || set ? r : NVML_ERROR_INVALID_ARGUMENT;
}

nvmlReturn_t nvmlDeviceGetSupportedEventTypes(nvmlDevice_t device, unsigned long long *types)
{
    struct look look;
    const nvmlReturn_t r = or_invalid(devices_look(device, &look), !types);

    if (r != NVML_SUCCESS) {
        return r;
    }
    *types = 0;
    return NVML_SUCCESS;
}

nvmlReturn_t nvmlInternalGetExportTable(const void **table, const unsigned char *id)
{
    if (!table || !id) {
        return NVML_ERROR_INVALID_ARGUMENT;
    }
    *table = private_table(id);
    return *table ? NVML_SUCCESS : NVML_ERROR_NOT_FOUND;
}
