/* SPDX-License-Identifier: MIT */
/*
 * The clock of a test, see test-clock.h. It takes the place of libc's clock_gettime() in the whole
 * program; other clocks than the monotonic one stay as they are.
 */
#include "tests/unit/test-clock.h"

#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#include "common/clock.h"

uint64_t test_clock_ns;

int clock_gettime(clockid_t id, struct timespec *t)
{
    if (id == CLOCK_MONOTONIC && test_clock_ns != 0) {
        t->tv_sec = (time_t)(test_clock_ns / NS_PER_S);
        t->tv_nsec = (long)(test_clock_ns % NS_PER_S);
        return 0;
    }
    return (int)syscall(SYS_clock_gettime, id, t);
}
