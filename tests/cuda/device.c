/* SPDX-License-Identifier: MIT */
/*
 * Devices: how many, which, and what they say of themselves.
 *
 * Tests: guest/libcuda/calls/device.c, guest/libcuda/model/device.c
 */
#include "tests/cuda/check.h"

#include <stdio.h>
#include <string.h>

#define NO_SUCH_DEVICE 9999

static void test_count_and_get(void)
{
    int count = 0;

    GOOD(cuDeviceGetCount(&count));
    EXPECT(count >= 1, "%d", count);
    for (int i = 0; i < count; i++) {
        CUdevice found = -1;

        GOOD(cuDeviceGet(&found, i));
        EXPECT(found == i, "%d for %d", found, i);
    }
}

static void test_no_such_ordinal(void)
{
    CUdevice found = 0;
    int count = 0;

    GOOD(cuDeviceGetCount(&count));
    RESULT(cuDeviceGet(&found, count), CUDA_ERROR_INVALID_DEVICE);
    RESULT(cuDeviceGet(&found, -1), CUDA_ERROR_INVALID_DEVICE);
}

static void test_no_such_device(void)
{
    CUcontext retained = NULL;
    char name[100] = "";
    size_t bytes = 0;
    int value = 0;

    RESULT(cuDeviceGetName(name, sizeof(name), NO_SUCH_DEVICE), CUDA_ERROR_INVALID_DEVICE);
    RESULT(cuDeviceTotalMem(&bytes, NO_SUCH_DEVICE), CUDA_ERROR_INVALID_DEVICE);
    RESULT(cuDeviceGetAttribute(&value, CU_DEVICE_ATTRIBUTE_WARP_SIZE, NO_SUCH_DEVICE),
           CUDA_ERROR_INVALID_DEVICE);
    RESULT(cuDevicePrimaryCtxRetain(&retained, NO_SUCH_DEVICE), CUDA_ERROR_INVALID_DEVICE);
}

static void test_name(void)
{
    char name[256], start_of_it[8];

    memset(name, 0x55, sizeof(name));
    memset(start_of_it, 0x55, sizeof(start_of_it));
    GOOD(cuDeviceGetName(name, sizeof(name), device));
    EXPECT(memchr(name, '\0', sizeof(name)) && name[0] != '\0', "no name");
    GOOD(cuDeviceGetName(start_of_it, 3, device));
    EXPECT(strncmp(start_of_it, name, 2) == 0, "%.2s of %s", start_of_it, name);
    EXPECT(start_of_it[3] == 0x55, "more than 3 bytes");
}

static void test_uuid(void)
{
    const CUuuid none = {{0}};
    CUuuid one = {{0}}, other = {{0}};

    GOOD(cuDeviceGetUuid(&one, device));
    GOOD(cuDeviceGetUuid(&other, device));
    EXPECT(memcmp(&one, &other, sizeof(one)) == 0, "two");
    EXPECT(memcmp(&one, &none, sizeof(one)) != 0, "zeros");
}

static void test_pci_id_and_back(void)
{
    char id[32] = "";
    CUdevice found = -1;

    GOOD(cuDeviceGetPCIBusId(id, sizeof(id), device));
    GOOD(cuDeviceGetByPCIBusId(&found, id));
    EXPECT(found == device, "%d for %s", found, id);
    ONE_OF(cuDeviceGetByPCIBusId(&found, "ffff:fe:1d.0"), CUDA_ERROR_INVALID_DEVICE,
           CUDA_ERROR_INVALID_VALUE);
}

static void test_pci_attributes(void)
{
    unsigned domain = 0, bus = 0, slot = 0;
    char id[32] = "";

    GOOD(cuDeviceGetPCIBusId(id, sizeof(id), device));
    EXPECT(sscanf(id, "%x:%x:%x", &domain, &bus, &slot) == 3, "%s", id);
    EXPECT(attribute(CU_DEVICE_ATTRIBUTE_PCI_DOMAIN_ID) == (int)domain, "%s", id);
    EXPECT(attribute(CU_DEVICE_ATTRIBUTE_PCI_BUS_ID) == (int)bus, "%s", id);
    EXPECT(attribute(CU_DEVICE_ATTRIBUTE_PCI_DEVICE_ID) == (int)slot, "%s", id);
}

static void test_attributes_of_blocks(void)
{
    static const CUdevice_attribute dimensions[] = {CU_DEVICE_ATTRIBUTE_MAX_BLOCK_DIM_X,
                                                    CU_DEVICE_ATTRIBUTE_MAX_BLOCK_DIM_Y,
                                                    CU_DEVICE_ATTRIBUTE_MAX_BLOCK_DIM_Z};
    static const CUdevice_attribute grids[] = {CU_DEVICE_ATTRIBUTE_MAX_GRID_DIM_X,
                                               CU_DEVICE_ATTRIBUTE_MAX_GRID_DIM_Y,
                                               CU_DEVICE_ATTRIBUTE_MAX_GRID_DIM_Z};
    const int threads = attribute(CU_DEVICE_ATTRIBUTE_MAX_THREADS_PER_BLOCK);

    EXPECT(attribute(CU_DEVICE_ATTRIBUTE_WARP_SIZE) == 32, "another warp size");
    EXPECT(threads >= 256, "%d", threads);
    for (int i = 0; i < 3; i++) {
        const int block = attribute(dimensions[i]), grid = attribute(grids[i]);

        EXPECT(block >= 1 && block <= threads, "%d of %d threads in dimension %d", block, threads,
               i);
        EXPECT(grid >= 65535, "%d blocks in dimension %d", grid, i);
    }
}

static void test_attributes_of_multiprocessors(void)
{
    const int threads = attribute(CU_DEVICE_ATTRIBUTE_MAX_THREADS_PER_BLOCK);
    const int resident = attribute(CU_DEVICE_ATTRIBUTE_MAX_THREADS_PER_MULTIPROCESSOR);
    const int shared = attribute(CU_DEVICE_ATTRIBUTE_MAX_SHARED_MEMORY_PER_BLOCK);
    const int optin = attribute(CU_DEVICE_ATTRIBUTE_MAX_SHARED_MEMORY_PER_BLOCK_OPTIN);

    EXPECT(attribute(CU_DEVICE_ATTRIBUTE_MULTIPROCESSOR_COUNT) >= 1, "none");
    EXPECT(resident >= threads, "%d, of %d in a block", resident, threads);
    EXPECT(shared > 0 && optin >= shared, "%d and %d", shared, optin);
    EXPECT(attribute(CU_DEVICE_ATTRIBUTE_MAX_SHARED_MEMORY_PER_MULTIPROCESSOR) >= optin, "less");
    EXPECT(attribute(CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR) >= (on_cpu() ? 0 : 1), "none");
    EXPECT(attribute(CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MINOR) >= 0, "none");
}

static void test_unified_addressing(void)
{
    EXPECT(attribute(CU_DEVICE_ATTRIBUTE_UNIFIED_ADDRESSING) == 1, "none");
    EXPECT(attribute(CU_DEVICE_ATTRIBUTE_CAN_MAP_HOST_MEMORY) == 1, "none");
}

static void test_no_such_attribute(void)
{
    int value = 0;

    RESULT(cuDeviceGetAttribute(&value, (CUdevice_attribute)100000, device),
           CUDA_ERROR_INVALID_VALUE);
}

static void test_total_memory(void)
{
    size_t total = 0, free_bytes = 0, usable = 0;

    GOOD(cuDeviceTotalMem(&total, device));
    EXPECT(total > 0, "none");
    GOOD(cuMemGetInfo(&free_bytes, &usable));
    EXPECT(usable > 0 && usable <= total, "%zu of %zu", usable, total);
    EXPECT(free_bytes <= usable, "%zu of %zu", free_bytes, usable);
}

static void test_peer_of_itself(void)
{
    int can = -1;

    GOOD(cuDeviceCanAccessPeer(&can, device, device));
    EXPECT(can == 0 || can == 1, "%d", can);
    ONE_OF(cuCtxEnablePeerAccess(context, 0), CUDA_ERROR_INVALID_CONTEXT, CUDA_ERROR_INVALID_DEVICE,
           CUDA_ERROR_PEER_ACCESS_UNSUPPORTED);
}

const struct test device_tests[] = {
    {"count_and_get", test_count_and_get, false},
    {"no_such_ordinal", test_no_such_ordinal, false},
    {"no_such_device", test_no_such_device, false},
    {"name", test_name, false},
    {"uuid", test_uuid, false},
    {"pci_id_and_back", test_pci_id_and_back, false},
    {"pci_attributes", test_pci_attributes, false},
    {"attributes_of_blocks", test_attributes_of_blocks, false},
    {"attributes_of_multiprocessors", test_attributes_of_multiprocessors, false},
    {"unified_addressing", test_unified_addressing, false},
    {"no_such_attribute", test_no_such_attribute, false},
    {"total_memory", test_total_memory, false},
    {"peer_of_itself", test_peer_of_itself, false},
    {0},
};
