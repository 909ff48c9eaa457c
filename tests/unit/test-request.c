/* SPDX-License-Identifier: MIT */
/*
 * The request decoder: every opcode with every length, and operands at their limits.
 *
 * Tests: worker/request.c
 */
#include <string.h>

#include "tests/unit/unit.h"
#include "worker/request.h"

#define SHM (UINT64_C(1) << 20)

static _Alignas(16) uint8_t bytes[VGPU_REQUEST_MAX];
static struct request request;

static void header(uint32_t opcode, uint32_t type, uint64_t count)
{
    const struct vgpu_request_header h = {.opcode = opcode, .type = type, .count = count};

    memset(bytes, 0, sizeof(bytes));
    memcpy(bytes, &h, sizeof(h));
}

static void operands(uint64_t a, uint64_t b, uint64_t sum)
{
    const struct vgpu_add_shm add = {.a = a, .b = b, .sum = sum};

    memcpy(bytes + 16, &add, sizeof(add));
}

static enum vgpu_error decode(uint32_t length)
{
    return request_decode(bytes, length, SHM, &request);
}

static enum vgpu_error decode_shm(uint64_t count, uint64_t a, uint64_t b, uint64_t sum)
{
    header(VGPU_OP_ADD_SHM, VGPU_TYPE_INT32, count);
    operands(a, b, sum);
    return decode(40);
}

static void test_every_length(void **state)
{
    (void)state;
    for (uint32_t length = 0; length < 600; length++) {
        const enum vgpu_error too_short_or_long = length < 16 || length > 256
                                                      ? VGPU_ERROR_BAD_LENGTH
                                                      : VGPU_ERROR_NONE;

        header(VGPU_OP_ECHO, 0, 0);
        assert_int_equal(decode(length), too_short_or_long);
        header(VGPU_OP_DEVICE_INFO, 0, 0);
        assert_int_equal(decode(length), length == 16 ? VGPU_ERROR_NONE : VGPU_ERROR_BAD_LENGTH);
        header(VGPU_OP_ADD_SHM, VGPU_TYPE_FLOAT32, 1);
        operands(0, 4, 8);
        assert_int_equal(decode(length), length == 40 ? VGPU_ERROR_NONE : VGPU_ERROR_BAD_LENGTH);
        for (uint32_t count = 1; count <= VGPU_INLINE_MAX; count++) {
            header(VGPU_OP_ADD_INLINE, VGPU_TYPE_INT32, count);
            assert_int_equal(decode(length),
                             length == 16 + 8 * count ? VGPU_ERROR_NONE : VGPU_ERROR_BAD_LENGTH);
        }
    }
    assert_int_equal(decode(UINT32_MAX), VGPU_ERROR_BAD_LENGTH);
}

static void test_opcodes(void **state)
{
    static const uint32_t unknown[] = {0, 5, 6, 255, 0x80000000, UINT32_MAX};

    (void)state;
    for (size_t i = 0; i < sizeof(unknown) / sizeof(unknown[0]); i++) {
        header(unknown[i], 0, 0);
        assert_int_equal(decode(16), VGPU_ERROR_BAD_OPCODE);
    }
}

static void test_reserved(void **state)
{
    (void)state;
    header(VGPU_OP_ECHO, 1, 0);
    assert_int_equal(decode(16), VGPU_ERROR_BAD_RESERVED);
    header(VGPU_OP_ECHO, 0, 1);
    assert_int_equal(decode(16), VGPU_ERROR_BAD_RESERVED);
    header(VGPU_OP_DEVICE_INFO, 0, UINT64_MAX);
    assert_int_equal(decode(16), VGPU_ERROR_BAD_RESERVED);
}

static void test_types(void **state)
{
    (void)state;
    for (uint32_t type = 0; type < 10; type++) {
        const bool known = type == VGPU_TYPE_INT32 || type == VGPU_TYPE_FLOAT32;

        header(VGPU_OP_ADD_INLINE, type, 1);
        assert_int_equal(decode(24), known ? VGPU_ERROR_NONE : VGPU_ERROR_BAD_TYPE);
    }
}

static void test_counts(void **state)
{
    static const uint64_t bad[] = {
        0, VGPU_INLINE_MAX + 1, UINT32_MAX, UINT64_C(1) << 32, (UINT64_C(1) << 62) + 1, UINT64_MAX};

    (void)state;
    for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
        header(VGPU_OP_ADD_INLINE, VGPU_TYPE_INT32, bad[i]);
        assert_int_equal(decode(24), VGPU_ERROR_BAD_COUNT);
    }
    assert_int_equal(decode_shm(0, 0, 0, 0), VGPU_ERROR_BAD_COUNT);
    assert_int_equal(decode_shm(VGPU_SHM_MAX / 4 + 1, 0, 0, 0), VGPU_ERROR_BAD_COUNT);
    assert_int_equal(decode_shm(UINT64_MAX, 0, 0, 0), VGPU_ERROR_BAD_COUNT);
    assert_int_equal(decode_shm((UINT64_C(1) << 62) + 1, 0, 0, 0), VGPU_ERROR_BAD_COUNT);
}

static void test_ranges(void **state)
{
    static const uint64_t beyond[] = {SHM - 396,         SHM,           SHM + 4, UINT64_C(1) << 32,
                                      UINT64_C(1) << 63, UINT64_MAX - 3};

    (void)state;
    assert_int_equal(decode_shm(100, 0, 400, SHM - 400), VGPU_ERROR_NONE);
    assert_int_equal(decode_shm(SHM / 4, 0, 0, 0), VGPU_ERROR_NONE);
    assert_int_equal(decode_shm(SHM / 4 + 1, 0, 0, 0), VGPU_ERROR_BAD_RANGE);
    for (size_t i = 0; i < sizeof(beyond) / sizeof(beyond[0]); i++) {
        assert_int_equal(decode_shm(100, beyond[i], 0, 400), VGPU_ERROR_BAD_RANGE);
        assert_int_equal(decode_shm(100, 0, beyond[i], 400), VGPU_ERROR_BAD_RANGE);
        assert_int_equal(decode_shm(100, 0, 400, beyond[i]), VGPU_ERROR_BAD_RANGE);
    }
}

static void test_alignment(void **state)
{
    (void)state;
    for (uint64_t off = 1; off < 4; off++) {
        assert_int_equal(decode_shm(1, off, 16, 32), VGPU_ERROR_BAD_ALIGNMENT);
        assert_int_equal(decode_shm(1, 16, off, 32), VGPU_ERROR_BAD_ALIGNMENT);
        assert_int_equal(decode_shm(1, 16, 32, off), VGPU_ERROR_BAD_ALIGNMENT);
    }
}

static void test_overlap(void **state)
{
    (void)state;
    assert_int_equal(decode_shm(100, 0, 400, 0), VGPU_ERROR_NONE);
    assert_int_equal(decode_shm(100, 0, 400, 400), VGPU_ERROR_NONE);
    assert_int_equal(decode_shm(100, 0, 4, 800), VGPU_ERROR_NONE); /* operands may */
    assert_int_equal(decode_shm(100, 0, 400, 4), VGPU_ERROR_BAD_OVERLAP);
    assert_int_equal(decode_shm(100, 4, 800, 0), VGPU_ERROR_BAD_OVERLAP);
    assert_int_equal(decode_shm(100, 0, 800, 396), VGPU_ERROR_BAD_OVERLAP);
    assert_int_equal(decode_shm(100, 2000, 404, 800), VGPU_ERROR_BAD_OVERLAP);
}

static void test_what_may_run_twice(void **state)
{
    (void)state;
    decode_shm(1, 0, 4, 8);
    assert_true(request_repeatable(&request));
    decode_shm(1, 0, 4, 0);
    assert_false(request_repeatable(&request));
    decode_shm(1, 0, 4, 4);
    assert_false(request_repeatable(&request));
    assert_true(request_needs_turn(&request));
    header(VGPU_OP_ECHO, 0, 0);
    decode(16);
    assert_true(request_repeatable(&request));
    assert_false(request_needs_turn(&request));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_every_length),
        cmocka_unit_test(test_opcodes),
        cmocka_unit_test(test_reserved),
        cmocka_unit_test(test_types),
        cmocka_unit_test(test_counts),
        cmocka_unit_test(test_ranges),
        cmocka_unit_test(test_alignment),
        cmocka_unit_test(test_overlap),
        cmocka_unit_test(test_what_may_run_twice),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
