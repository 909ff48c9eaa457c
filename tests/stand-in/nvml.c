/* SPDX-License-Identifier: MIT */
/*
 * A stand-in for NVIDIA's management library, as the gauge loads it: one GPU, that of driver.c,
 * with values that do not change. STAND_IN_NVML in the environment makes it fail: "init" to start,
 * "end" to live on when its sensors are read for the third time; "hang" has it start for ever.
 */
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define EXPORTED __attribute__((visibility("default")))

#define UUID "GPU-" /* and 36 characters, whatever they are */

static int device; /* its address is the handle */

static int fails(const char *what)
{
    const char *wanted = getenv("STAND_IN_NVML");

    return wanted && strcmp(wanted, what) == 0;
}

EXPORTED int nvmlInit_v2(void)
{
    while (fails("hang")) {
        pause();
    }
    return fails("init") ? 18 : 0;
}

EXPORTED int nvmlSystemGetDriverVersion(char *text, unsigned size)
{
    snprintf(text, size, "555.42.01");
    return 0;
}

EXPORTED int nvmlDeviceGetHandleByUUID(const char *uuid, void **handle)
{
    if (strncmp(uuid, UUID, sizeof(UUID) - 1) != 0 || strlen(uuid) != 40) {
        return 6;
    }
    *handle = &device;
    return 0;
}

#define NUMBER(name, number)                                                                       \
    EXPORTED int name(const void *handle, unsigned *value)                                         \
    {                                                                                              \
        *value = (number);                                                                         \
        return handle == &device ? 0 : 2;                                                          \
    }

NUMBER(nvmlDeviceGetNumGpuCores, 16896)
NUMBER(nvmlDeviceGetArchitecture, 9)
NUMBER(nvmlDeviceGetBrand, 14)
NUMBER(nvmlDeviceGetMemoryBusWidth, 6016)
NUMBER(nvmlDeviceGetMaxPcieLinkGeneration, 5)
NUMBER(nvmlDeviceGetMaxPcieLinkWidth, 16)
NUMBER(nvmlDeviceGetPowerManagementDefaultLimit, 700000)
NUMBER(nvmlDeviceGetPowerUsage, 76500)
NUMBER(nvmlDeviceGetEnforcedPowerLimit, 650000)
NUMBER(nvmlDeviceGetPerformanceState, 2)

EXPORTED int nvmlDeviceGetTemperature(const void *handle, unsigned sensor, unsigned *value)
{
    static int asked;

    if (fails("end") && ++asked == 3) {
        raise(SIGSEGV);
    }
    *value = 41;
    return handle == &device && sensor == 0 ? 0 : 2;
}

/* Of the GPU, and of its memory; in percent. */
EXPORTED int nvmlDeviceGetUtilizationRates(const void *handle, unsigned rates[2])
{
    rates[0] = 37;
    rates[1] = 12;
    return handle != &device ? 2 : fails("busy") ? 3 : 0;
}

/* In all, free, used; in bytes. */
EXPORTED int nvmlDeviceGetMemoryInfo(const void *handle, unsigned long long memory[3])
{
    memory[0] = 1024ull << 20;
    memory[1] = 724ull << 20;
    memory[2] = 300ull << 20;
    return handle == &device ? 0 : 2;
}

EXPORTED int nvmlDeviceGetPowerManagementLimitConstraints(const void *handle, unsigned *least,
                                                          unsigned *most)
{
    *least = 200000;
    *most = 700000;
    return handle == &device ? 0 : 2;
}

EXPORTED int nvmlDeviceGetMaxClockInfo(const void *handle, unsigned clock, unsigned *mhz)
{
    *mhz = 1000 + clock;
    return handle == &device ? 0 : 2;
}

/* No video clock. */
EXPORTED int nvmlDeviceGetClockInfo(const void *handle, unsigned clock, unsigned *mhz)
{
    *mhz = 300 + clock;
    return handle == &device && clock < 3 ? 0 : 3;
}
