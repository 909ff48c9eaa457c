/* SPDX-License-Identifier: MIT */
/*
 * Finding the driver's private tables by their ids, see tables.h, and the one of the self-test:
 * each copy of NVIDIA's runtime library has the driver tested before it goes on, and the driver
 * behind this library is the host's. So the question goes there, and the answer comes from there
 * (worker/backend-cuda/self-test.c).
 */
#include "guest/libcuda/calls/tables.h"

#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "common/driver-tables.h"
#include "guest/libcuda/calls/table-list.h"
#include "guest/libcuda/state/place.h"
#include "guest/libcuda/wire/wire-calls.h"

#define STORAGE_ID "\xc6\x93\x33\x6e\x11\x21\xdf\x11\xa8\xc3\x68\xf3\x55\xd8\x95\x93"
#define CONTEXTS_ID "\x26\x3e\x88\x60\x7c\xd2\x61\x43\x92\xf6\xbb\xd5\x00\x6d\xfa\x7e"
#define TOOLS_ID "\xa0\x94\x79\x8c\x2e\x74\x2e\x74\x93\xf2\x08\x00\x20\x0c\x0a\x66"
#define THREADS_ID "\x42\xd8\x5a\x81\x23\xf6\xcb\x47\x82\x98\xf6\xe7\x8a\x3a\xec\xdc"
#define NUMBERS_ID "\x21\x31\x8c\x60\x97\x14\x32\x48\x8c\xa6\x41\xff\x73\x24\xc8\xf2"
#define FUNCTIONS_ID "\x6e\x16\x3f\xbe\xb9\x58\x44\x4d\x83\x5c\xe1\x82\xaf\xf1\x99\x1e"

/* The self-test -------------------------------------------------------------------------------- */

/* What came of tables_place(); DONE also where it was not called. */
static enum placed test_placed;

/* The user's only hint: what the runtime library says then is that of a broken installation. */
static CUresult test_fails(const char *why)
{
    static int said;

    if (__atomic_exchange_n(&said, 1, __ATOMIC_RELAXED) == 0) {
        fprintf(stderr, "libcuda (vGPU): NVIDIA's runtime library (cudart) cannot be served: %s\n",
                why);
    }
    return CUDA_ERROR_NOT_SUPPORTED;
}

/*
 * The three things that the driver cannot know on the host go along: process, thread, and by the
 * table's place the addresses.
 */
static CUresult self_test(uint32_t version, uint64_t time, uint64_t *answer)
{
    CUresult result = CUDA_ERROR_UNKNOWN, r;

    if (!answer) {
        return CUDA_ERROR_INVALID_VALUE;
    }
    if (test_placed == PLACE_TAKEN) {
        return test_fails("this process has something at the addresses of its tables");
    }
    if (test_placed == PLACE_REFUSED) {
        return test_fails(
            "this process may not have memory that it can execute (SELinux's execmem, "
            "systemd's MemoryDenyWriteExecute=)");
    }
    r = enter_session();
    if (r != CUDA_SUCCESS) {
        return r;
    }
    r = call_self_test(&result, answer, version, time, (uint32_t)getpid(),
                       (uint64_t)pthread_self());
    if (r == CUDA_ERROR_NOT_SUPPORTED) {
        return test_fails("the host has no NVIDIA driver, or a mediator older than this library");
    }
    return r == CUDA_SUCCESS ? result : r;
}

/* Switches the test on and off, for NVIDIA's tools. It costs nothing here while nobody asks. */
static CUresult test_switch(int on)
{
    (void)on;
    return CUDA_SUCCESS;
}

static const void *const test[3] = {
    (void *)sizeof(test),
    (void *)self_test,
    (void *)test_switch,
};

/* All of them ---------------------------------------------------------------------------------- */

enum { RUNTIME, TEST, TABLES = 9 };

static struct {
    const char *id;
    const void *table; /* where programs find it */
} known_tables[TABLES] = {
    [RUNTIME] = {DRIVER_TABLE_RUNTIME, table_runtime},
    [TEST] = {DRIVER_TABLE_TEST, test},
    {STORAGE_ID, table_storage},
    {CONTEXTS_ID, table_contexts},
    {TOOLS_ID, table_tools},
    {THREADS_ID, table_threads},
    {NUMBERS_ID, table_numbers},
    {FUNCTIONS_ID, table_functions},
    {DRIVER_TABLE_PLACES, table_places},
};

/*
 * One that no library needs: all of them go on without it. Said where the user has asked for more,
 * since a library that does not go on does not say why.
 */
static void say_unknown(const CUuuid *id)
{
    const uint8_t *bytes = (const uint8_t *)id->bytes;

    if (getenv("VGPU_VERBOSE")) {
        fprintf(stderr,
                "libcuda (vGPU): the driver's private table %02x%02x%02x%02x... is not served\n",
                bytes[0], bytes[1], bytes[2], bytes[3]);
    }
}

const void *tables_find(const CUuuid *id)
{
    for (unsigned i = 0; i < TABLES; i++) {
        if (memcmp(id->bytes, known_tables[i].id, DRIVER_TABLE_ID_BYTES) == 0) {
            return known_tables[i].table;
        }
    }
    say_unknown(id);
    return NULL;
}

/*
 * What lies at the self-test function's address: it goes on at self_test(). ENDBR64, for processors
 * that check where jumps lead; MOVABS its address to RAX; JMP RAX.
 */
struct jump {
    uint8_t code[6];
    uint8_t address[8];
    uint8_t end[2];
};

enum placed tables_place(uint64_t runtime_address, uint64_t test_address, uint64_t function)
{
    const uint64_t target = (uintptr_t)self_test;
    struct jump jump = {.code = {0xf3, 0x0f, 0x1e, 0xfa, 0x48, 0xb8}, .end = {0xff, 0xe0}};
    const void *moved[] = {test[0], (void *)(uintptr_t)function, test[2]};
    const struct place places[] = {
        {runtime_address, table_runtime, sizeof(table_runtime)},
        {test_address, moved, sizeof(moved)},
        {function, &jump, sizeof(jump)},
    };

    memcpy(jump.address, &target, sizeof(jump.address));
    test_placed = place_all(places, 3);
    if (test_placed == PLACE_DONE) {
        known_tables[RUNTIME].table = (const void *)(uintptr_t)runtime_address;
        known_tables[TEST].table = (const void *)(uintptr_t)test_address;
    }
    return test_placed;
}
