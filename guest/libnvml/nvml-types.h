/* SPDX-License-Identifier: MIT */
/*
 * NVML as programs see it: the values and structures of NVIDIA's management library that this one
 * uses, after NVIDIA's reference manual. Written by hand; where NVIDIA's header is installed, a
 * test compares sizes and values.
 */
#ifndef VGPU_GUEST_LIBNVML_NVML_TYPES_H
#define VGPU_GUEST_LIBNVML_NVML_TYPES_H

#include <assert.h>

typedef enum nvmlReturn_enum {
    NVML_SUCCESS = 0,
    NVML_ERROR_UNINITIALIZED = 1,
    NVML_ERROR_INVALID_ARGUMENT = 2,
    NVML_ERROR_NOT_SUPPORTED = 3,
    NVML_ERROR_NO_PERMISSION = 4,
    NVML_ERROR_ALREADY_INITIALIZED = 5,
    NVML_ERROR_NOT_FOUND = 6,
    NVML_ERROR_INSUFFICIENT_SIZE = 7,
    NVML_ERROR_INSUFFICIENT_POWER = 8,
    NVML_ERROR_DRIVER_NOT_LOADED = 9,
    NVML_ERROR_TIMEOUT = 10,
    NVML_ERROR_IRQ_ISSUE = 11,
    NVML_ERROR_LIBRARY_NOT_FOUND = 12,
    NVML_ERROR_FUNCTION_NOT_FOUND = 13,
    NVML_ERROR_CORRUPTED_INFOROM = 14,
    NVML_ERROR_GPU_IS_LOST = 15,
    NVML_ERROR_RESET_REQUIRED = 16,
    NVML_ERROR_OPERATING_SYSTEM = 17,
    NVML_ERROR_LIB_RM_VERSION_MISMATCH = 18,
    NVML_ERROR_IN_USE = 19,
    NVML_ERROR_MEMORY = 20,
    NVML_ERROR_NO_DATA = 21,
    NVML_ERROR_VGPU_ECC_NOT_SUPPORTED = 22,
    NVML_ERROR_INSUFFICIENT_RESOURCES = 23,
    NVML_ERROR_FREQ_NOT_SUPPORTED = 24,
    NVML_ERROR_ARGUMENT_VERSION_MISMATCH = 25,
    NVML_ERROR_DEPRECATED = 26,
    NVML_ERROR_NOT_READY = 27,
    NVML_ERROR_GPU_NOT_FOUND = 28,
    NVML_ERROR_INVALID_STATE = 29,
    NVML_ERROR_UNKNOWN = 999,
} nvmlReturn_t;

typedef struct nvmlDevice_st *nvmlDevice_t;
typedef struct nvmlEventSet_st *nvmlEventSet_t;

#define NVML_INIT_FLAG_NO_GPUS 1u
#define NVML_VALUE_NOT_AVAILABLE_64 (~0ull)
#define NVML_NO_INSTANCE 0xffffffffu /* of a GPU that is not divided (MIG) */

/* Of structures that begin with a version: their size, and above it a number. */
#define NVML_VERSION(type, number) ((unsigned)sizeof(type) | (unsigned)(number) << 24)

typedef struct nvmlUtilization_st {
    unsigned int gpu, memory; /* percent */
} nvmlUtilization_t;

typedef struct nvmlMemory_st {
    unsigned long long total, free, used; /* bytes */
} nvmlMemory_t;

typedef struct nvmlMemory_v2_st {
    unsigned int version; /* 2 */
    unsigned long long total, reserved, free, used;
} nvmlMemory_v2_t;

/* As it was before the functions got a _v3, it ended with pciDeviceId, or with four more words. */
typedef struct nvmlPciInfo_st {
    char busIdLegacy[16];
    unsigned int domain, bus, device;
    unsigned int pciDeviceId; /* device << 16 | vendor */
    unsigned int pciSubSystemId;
    char busId[32];
} nvmlPciInfo_t;

typedef struct nvmlPciInfo_v2_st {
    char busId[16];
    unsigned int domain, bus, device;
    unsigned int pciDeviceId, pciSubSystemId;
    unsigned int reserved[4];
} nvmlPciInfo_v2_t;

typedef struct nvmlPciInfoExt_st {
    unsigned int version; /* 1 */
    unsigned int domain, bus, device;
    unsigned int pciDeviceId, pciSubSystemId;
    unsigned int baseClass, subClass;
    char busId[32];
} nvmlPciInfoExt_t;

typedef struct nvmlProcessInfo_v1_st {
    unsigned int pid;
    unsigned long long usedGpuMemory; /* bytes */
} nvmlProcessInfo_v1_t;

typedef struct nvmlProcessInfo_v2_st {
    unsigned int pid;
    unsigned long long usedGpuMemory;
    unsigned int gpuInstanceId, computeInstanceId;
} nvmlProcessInfo_v2_t;

typedef struct nvmlProcessUtilizationSample_st {
    unsigned int pid;
    unsigned long long timeStamp;                   /* us since 1970 */
    unsigned int smUtil, memUtil, encUtil, decUtil; /* percent */
} nvmlProcessUtilizationSample_t;

typedef struct nvmlTemperature_st {
    unsigned int version; /* 1 */
    unsigned int sensorType;
    int temperature; /* degrees Celsius */
} nvmlTemperature_t;

typedef union nvmlValue_st {
    double dVal;
    unsigned int uiVal;
    unsigned long long ullVal;
} nvmlValue_t;
#define NVML_VALUE_TYPE_UNSIGNED_INT 1u
#define NVML_VALUE_TYPE_UNSIGNED_LONG_LONG 3u

#define NVML_FI_DEV_TOTAL_ENERGY_CONSUMPTION 83u /* mJ */
#define NVML_FI_DEV_POWER_AVERAGE 185u           /* mW */
#define NVML_FI_DEV_POWER_INSTANT 186u           /* mW */

typedef struct nvmlFieldValue_st {
    unsigned int fieldId, scopeId;
    long long timestamp; /* us since 1970 */
    long long latencyUsec;
    unsigned int valueType;
    nvmlReturn_t nvmlReturn;
    nvmlValue_t value;
} nvmlFieldValue_t;

#define NVML_P2P_STATUS_OK 0u
#define NVML_P2P_STATUS_NOT_SUPPORTED 5u

#define NVML_GPU_VIRTUALIZATION_MODE_VGPU 2u
#define NVML_FEATURE_ENABLED 1u

static_assert(sizeof(nvmlMemory_v2_t) == 40, "ABI");
static_assert(sizeof(nvmlPciInfo_t) == 68, "ABI");
static_assert(sizeof(nvmlPciInfo_v2_t) == 52, "ABI");
static_assert(sizeof(nvmlPciInfoExt_t) == 64, "ABI");
static_assert(sizeof(nvmlProcessInfo_v1_t) == 16, "ABI");
static_assert(sizeof(nvmlProcessInfo_v2_t) == 24, "ABI");
static_assert(sizeof(nvmlProcessUtilizationSample_t) == 32, "ABI");
static_assert(sizeof(nvmlFieldValue_t) == 40, "ABI");

#endif
