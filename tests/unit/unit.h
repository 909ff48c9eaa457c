/* SPDX-License-Identifier: MIT */
/* cmocka with the headers that it wants first. */
#ifndef VGPU_TESTS_UNIT_UNIT_H
#define VGPU_TESTS_UNIT_UNIT_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#endif
