/* SPDX-License-Identifier: MIT */
/* The clock that code under test sees: the real one, or one that its test sets. */
#ifndef VGPU_TESTS_UNIT_TEST_CLOCK_H
#define VGPU_TESTS_UNIT_TEST_CLOCK_H

#include <stdint.h>

extern uint64_t test_clock_ns; /* what clock_ns() returns; 0: the real time */

#endif
