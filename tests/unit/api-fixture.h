/* SPDX-License-Identifier: MIT */
/*
 * What the tests of calls over a ring share: putting a call together, and what the fake GPU of
 * ring-fixture.h was asked for.
 */
#ifndef VGPU_TESTS_UNIT_API_FIXTURE_H
#define VGPU_TESTS_UNIT_API_FIXTURE_H

#include "common/clock.h"
#include "tests/unit/ring-fixture.h"
#include "tests/unit/unit.h"
#include "worker/api-calls.h"

#define SLOT VGPU_SLOTS /* that call() uses */
#define REMEMBERED 256u /* pieces */
#define WINDOW (100 * NS_PER_US)
#define ROOM (VGPU_COMMAND_MAX - sizeof(struct vgpu_command) - sizeof(struct vgpu_cmd_call))

/* As in api/. */
enum {
    HELLO = 1,
    DEVICE_ATTRIBUTES = 2,
    FUNCTION_ATTRIBUTES = 4,
    MODULE_GLOBAL = 5,
    UPLOAD_BEGIN = 6,
    UPLOAD_WRITE = 7,
    IMAGE_LOAD = 8,
    DEVICE_IDENTITY = 13,
    SET_LIMIT = 330,
    GET_CACHE = 332,
    SET_CACHE = 333,
    PRIORITY_RANGE = 336,
    OCCUPANCY = 450,
    STREAM_GET_ATTRIBUTE = 617,
    STREAM_SET_ATTRIBUTE = 618,
    WAIT_VALUE_32 = 619,
    WAIT_VALUE_64 = 620,
    WRITE_VALUE_32 = 621,
    WRITE_VALUE_64 = 622,
    /* Commands of their own, put together from words as if they were calls. */
    STREAM_CREATE = 1000, /* flags, priority */
    COPY_3D,              /* struct box */
    LAUNCH_EX,            /* struct launch, numbers of attributes and of bytes of parameters */
    FILL_ROWS,            /* address, pitch, value, element, width, rows, stream */
};

/* The call that is put together. */
struct body {
    struct vgpu_cmd_call call;
    uint8_t arguments[ROOM];
};
extern struct body body;

/* Adds bytes to its arguments, and zeros up to the next word. */
void put(const void *bytes, size_t count);
void put_word(uint64_t value);

/* Starts a call without arguments, or with words. */
void begin(uint32_t id);
void begin_with(uint32_t id, const uint64_t *words, size_t count);

#define WORDS(...)                                                                                 \
    (const uint64_t[])                                                                             \
    {                                                                                              \
        __VA_ARGS__                                                                                \
    }
#define BEGIN(id, ...) begin_with(id, WORDS(__VA_ARGS__), sizeof(WORDS(__VA_ARGS__)) / 8)

/* Posts it for a slot, 0 for none. */
void post_it(uint32_t slot);

/* Posts it for SLOT and returns what came of it, at once. */
enum vgpu_gpu_error call_it(void);

#define CALL(...) (BEGIN(__VA_ARGS__), call_it())

/* Posts it for slot 1, waits for it and for its work, on a GPU that takes its time. */
enum vgpu_gpu_error run_it(void);

const struct vgpu_slot *answer(void);

/* A word of the results in the slot. */
uint64_t back(unsigned place);

uint64_t arena_at(uint64_t offset);

/* The same numbers in each run. */
uint64_t random_below(uint64_t limit);

/* The device's memory as it is now. */
void read_device(uint64_t device, uint64_t bytes, uint8_t *into);

struct launch {
    uint64_t function, grid[3], block[3], shared, stream;
};

void begin_launch(const struct launch *launch, const CUlaunchAttribute *attributes, uint32_t count,
                  const void *params, uint32_t param_bytes);

/* The arguments of copy_3d, in their order. */
struct box {
    uint64_t to, to_pitch, to_rows, from, from_pitch, from_rows, width, height, depth, kind, stream;
};

void begin_box(const struct box *box);

/* What the GPU was asked for. */
struct seen {
    struct gpu_ops ops; /* the fake GPU's, but for those below */
    const struct gpu_ops *fake;
    struct gpu_calls calls;
    struct gpu_rows rows[REMEMBERED];
    struct gpu_fill_rows fills[REMEMBERED];
    unsigned row_count, fill_count;
    CUlaunchAttribute attributes[2];
    uint32_t attribute_count, param_bytes;
    int32_t priority;
    uint8_t image[8192];
    CUjit_option options[4];
    uint64_t values[4];
    uint32_t option_count, info_bytes, error_bytes;
    char name[16];
    int number;
    bool least, greatest;
    enum vgpu_engine engine;
};
extern struct seen seen;

/* For cmocka, with a fake GPU that fills in `seen`. */
int api_set_up(void **state);

/* Ends the session and sets up another one. */
void again(void **state);

#define TEST(name) cmocka_unit_test_setup_teardown(name, api_set_up, fixture_tear_down)
#define CPU_TEST(name) cmocka_unit_test_setup_teardown(name, fixture_set_up_cpu, fixture_tear_down)

#endif
