/* SPDX-License-Identifier: MIT */
/*
 * What is learned of CUDA's channels from its ioctls, and the control calls that are made on them.
 * There is no driver here: syscall() is this file's own, and answers as one would.
 *
 * Tests: worker/backend-cuda/channels.c
 */
#include <errno.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "tests/unit/unit.h"
#include "worker/backend-cuda/raw.h"

/* As NVIDIA's headers have them; the file under test says where. */
enum { FREE = 0x29, CONTROL = 0x2a, ALLOC = 0x2b };
enum { SUBDEVICE = 0x2080, GROUP = 0xa06c, CHANNEL = 0xc86f, DEVICE = 0x80 };
enum { COMPUTES = 1, COPIES = 9 };
#define DISABLE 0x2080110bu
#define SET_SLICE 0xa06c0103u
#define GET_SLICE 0xa06c0104u

struct alloc {
    uint32_t root, parent, object, class;
    uint64_t parameters, rights;
    uint32_t bytes, flags, status, pad;
};
struct freed {
    uint32_t root, parent, object, status;
};
struct control {
    uint32_t root, object, command, flags;
    uint64_t parameters;
    uint32_t bytes, status;
};
struct disable {
    uint8_t disable;
    uint32_t count;
    uint8_t only_scheduling, rewind;
    _Alignas(8) uint64_t event;
    uint32_t clients[64], channels[64];
};

#define FD 44
#define ROOT 0xc1d00001u
#define THE_SUBDEVICE 0x5c000003u

/* What the driver was asked, and what it answers. */
static struct {
    unsigned calls;      /* control calls */
    unsigned failures;   /* so many of the next ones fail */
    unsigned turned;     /* channels, by the calls that did not */
    uint32_t last[1024]; /* those, one after another */
    uint8_t disable;     /* of the last call */
    uint64_t slice_us;   /* of the only group */
    uint64_t told_us;    /* the last that was set */
    bool keeps_slice;    /* whatever it is told */
    uint32_t alloc_status;
} driver;

static uint32_t carry_out(const struct control *c)
{
    struct disable *d = (void *)(uintptr_t)c->parameters;
    uint64_t *us = (void *)(uintptr_t)c->parameters;

    assert_int_equal(c->root, ROOT);
    driver.calls++;
    if (driver.failures > 0) {
        driver.failures--;
        return 0x57;
    }
    switch (c->command) {
    case DISABLE:
        assert_int_equal(c->object, THE_SUBDEVICE);
        assert_int_equal(c->bytes, sizeof(*d));
        assert_in_range(d->count, 1, 64);
        assert_int_equal(d->only_scheduling + d->rewind + d->event, 0);
        driver.disable = d->disable;
        for (unsigned i = 0; i < d->count; i++) {
            assert_int_equal(d->clients[i], ROOT);
            driver.last[driver.turned++] = d->channels[i];
        }
        return 0;
    case SET_SLICE:
        assert_int_equal(c->bytes, 8);
        driver.told_us = *us;
        driver.slice_us = driver.keeps_slice ? driver.slice_us : *us;
        return 0;
    case GET_SLICE:
        assert_int_equal(c->bytes, 8);
        *us = driver.slice_us;
        return 0;
    default:
        fail_msg("control call 0x%x", c->command);
        return 1;
    }
}

/* What channels.c calls. */
long syscall(long number, ...)
{
    va_list arguments;
    unsigned long request;
    void *argument;
    int fd;

    va_start(arguments, number);
    fd = va_arg(arguments, int);
    request = va_arg(arguments, unsigned long);
    argument = va_arg(arguments, void *);
    va_end(arguments);
    assert_int_equal(number, SYS_ioctl);
    assert_int_equal(fd, FD);
    if (_IOC_NR(request) == CONTROL && argument) {
        struct control *c = argument;

        c->status = carry_out(c);
    } else if (_IOC_NR(request) == ALLOC && _IOC_SIZE(request) == sizeof(struct alloc)) {
        ((struct alloc *)argument)->status = driver.alloc_status;
    }
    return 0;
}

/* As CUDA's library does; the parameters of a group begin with its engine's place. */
static void alloc(uint32_t parent, uint32_t object, uint32_t class, uint32_t engine)
{
    uint32_t parameters[8] = {0, 0, 0, engine};
    struct alloc a = {.root = ROOT,
                      .parent = parent,
                      .object = object,
                      .class = class,
                      .parameters = (uintptr_t)parameters};

    assert_int_equal(ioctl(FD, _IOWR('F', ALLOC, struct alloc), &a), 0);
}

static void release(uint32_t object)
{
    struct freed f = {.root = ROOT, .object = object};

    assert_int_equal(ioctl(FD, _IOWR('F', FREE, struct freed), &f), 0);
}

static void make_group(uint32_t group, uint32_t engine, unsigned channels)
{
    alloc(DEVICE, group, GROUP, engine);
    for (unsigned i = 0; i < channels; i++) {
        alloc(group, group + 1 + i, CHANNEL, 0);
    }
}

static int set_up(void **state)
{
    (void)state;
    release(ROOT);
    memset(&driver, 0, sizeof(driver));
    driver.slice_us = 2048;
    alloc(ROOT, DEVICE, 0x80, 0);
    alloc(DEVICE, THE_SUBDEVICE, SUBDEVICE, 0);
    return 0;
}

/* How many channels were turned by that; -1: it says that it could not. */
static int turn(bool off)
{
    driver.turned = driver.calls = 0;
    if (!cuda_set_off(NULL, off)) {
        return -1;
    }
    assert_int_equal(driver.disable, off);
    return (int)driver.turned;
}

static void test_channels_that_compute(void **state)
{
    (void)state;
    assert_int_equal(turn(true), -1); /* none at all */
    make_group(0x1000, COMPUTES, 3);
    make_group(0x2000, COPIES, 4);
    make_group(0x3000, COMPUTES, 1);
    assert_int_equal(turn(true), 4);
    assert_int_equal(driver.calls, 1);
    assert_memory_equal(driver.last, ((uint32_t[]){0x1001, 0x1002, 0x1003, 0x3001}), 16);
    assert_int_equal(turn(false), 4);
}

static void test_more_than_a_call_takes(void **state)
{
    (void)state;
    make_group(0x1000, COMPUTES, 150);
    assert_int_equal(turn(true), 150);
    assert_int_equal(driver.calls, 3);
    for (unsigned i = 0; i < 150; i++) {
        assert_int_equal(driver.last[i], 0x1001 + i);
    }
}

static void test_what_is_freed(void **state)
{
    (void)state;
    make_group(0x1000, COMPUTES, 3);
    make_group(0x2000, COMPUTES, 2);
    release(0x1002);
    assert_int_equal(turn(true), 4);
    release(0x1000);
    assert_int_equal(turn(true), 2);
    /* Its place is used again. */
    make_group(0x3000, COMPUTES, 5);
    assert_int_equal(turn(true), 7);
    release(DEVICE);
    assert_int_equal(turn(true), -1);
}

static void test_what_the_driver_refuses(void **state)
{
    (void)state;
    driver.alloc_status = 0x51;
    make_group(0x1000, COMPUTES, 3);
    driver.alloc_status = 0;
    make_group(0x2000, COMPUTES, 1);
    assert_int_equal(turn(true), 1);
    /* A channel that goes meanwhile has one call fail; it is made again. */
    driver.failures = 1;
    assert_int_equal(turn(true), 1);
    assert_int_equal(driver.calls, 2);
    driver.failures = 2;
    assert_int_equal(turn(true), -1);
    assert_int_equal(driver.calls, 2);
}

static void test_other_ioctls(void **state)
{
    struct {
        struct alloc a;
        uint64_t more;
    } longer = {.a = {.root = ROOT, .object = 0x1001, .class = CHANNEL, .parent = 0x1000}};

    (void)state;
    make_group(0x1000, COMPUTES, 0);
    /* Of another size, of another driver, without an argument. */
    assert_int_equal(ioctl(FD, _IOC(_IOC_READ | _IOC_WRITE, 'F', ALLOC, sizeof(longer)), &longer),
                     0);
    assert_int_equal(ioctl(FD, _IOWR('G', ALLOC, struct alloc), &longer.a), 0);
    assert_int_equal(ioctl(FD, _IOWR('F', CONTROL, struct control), NULL), 0);
    assert_int_equal(turn(true), -1);
}

static void test_slices(void **state)
{
    (void)state;
    make_group(0x1000, COMPUTES, 1);
    make_group(0x2000, COPIES, 1);
    assert_true(cuda_set_slice(NULL, 200));
    assert_int_equal(driver.slice_us, 200);
    assert_int_equal(driver.calls, 3); /* what it was, the new one, what it is */
    assert_true(cuda_set_slice(NULL, 400));
    assert_int_equal(driver.slice_us, 400);
    assert_true(cuda_set_slice(NULL, 0));
    assert_int_equal(driver.slice_us, 2048);
}

/* These last: a table that is full stays unusable, and what was refused is not tried again. */

static void test_slice_that_has_no_effect(void **state)
{
    (void)state;
    make_group(0x1000, COMPUTES, 1);
    assert_true(cuda_set_slice(NULL, 100));
    driver.keeps_slice = true;
    assert_false(cuda_set_slice(NULL, 400));
    /* It has what it had at first, as far as it takes that. */
    assert_int_equal(driver.told_us, 2048);
    driver.calls = 0;
    assert_false(cuda_set_slice(NULL, 300));
    assert_int_equal(driver.calls, 0);
}

static void test_more_objects_than_places(void **state)
{
    (void)state;
    make_group(0x1000, COMPUTES, 500);
    assert_int_equal(turn(true), 500);
    make_group(0x8000, COMPUTES, 20);
    assert_int_equal(turn(true), -1);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup(test_channels_that_compute, set_up),
        cmocka_unit_test_setup(test_more_than_a_call_takes, set_up),
        cmocka_unit_test_setup(test_what_is_freed, set_up),
        cmocka_unit_test_setup(test_what_the_driver_refuses, set_up),
        cmocka_unit_test_setup(test_other_ioctls, set_up),
        cmocka_unit_test_setup(test_slices, set_up),
        cmocka_unit_test_setup(test_slice_that_has_no_effect, set_up),
        cmocka_unit_test_setup(test_more_objects_than_places, set_up),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
