/* SPDX-License-Identifier: MIT */
/*
 * Images of modules that a guest brings over in pieces: which writes are refused, with which
 * options and logs they are loaded, and that each is loaded once.
 *
 * Tests: worker/api-host*.c
 */
#include <string.h>

#include "tests/unit/api-fixture.h"
#include "worker/estimate.h"
#include "worker/ring-session.h"

/* Brings bytes over by way of the arena. */
static enum vgpu_gpu_error write_image(uint64_t offset, const void *bytes, uint64_t count)
{
    memset(fixture.arena + 4096, 0xee, 8192);
    memcpy(fixture.arena + 4096, bytes, count);
    return CALL(UPLOAD_WRITE, offset, arena_at(4096), count);
}

/* The result that the load itself has; the call is to succeed. */
static uint64_t load_image(void)
{
    assert_int_equal(CALL(IMAGE_LOAD, 0, 0, 0), VGPU_GPU_SUCCESS);
    return back(1);
}

static void test_images_in_pieces(void **state)
{
    static const uint64_t pieces[] = {1, 2, 3, 5, 7, 64, 333, 1001, 4000};
    static uint8_t bytes[4000 + 1];

    (void)state;
    for (size_t i = 0; i < sizeof(bytes) - 1; i++) {
        bytes[i] = (uint8_t)(1 + random_below(255));
    }
    for (size_t i = 0; i < sizeof(pieces) / sizeof(pieces[0]); i++) {
        const uint64_t size = sizeof(bytes) - 1;

        assert_int_equal(CALL(UPLOAD_BEGIN, size), VGPU_GPU_SUCCESS);
        /* From the last to the first: no byte but its own may be written. */
        for (uint64_t left = size; left > 0;) {
            const uint64_t at = left > pieces[i] ? left - pieces[i] : 0;

            assert_int_equal(write_image(at, bytes + at, left - at), VGPU_GPU_SUCCESS);
            left = at;
        }
        assert_int_equal(load_image(), CUDA_SUCCESS);
        assert_int_equal(call_value(VGPU_CMD_MODULE_UNLOAD, back(0)), VGPU_GPU_SUCCESS);
        assert_int_equal(fake.image_bytes, size);
        assert_memory_equal(seen.image, bytes, sizeof(bytes)); /* with the NUL */
    }
}

static void test_image_with_holes(void **state)
{
    (void)state;
    /* What another image has left is not in them. */
    assert_int_equal(CALL(UPLOAD_BEGIN, 16), VGPU_GPU_SUCCESS);
    assert_int_equal(write_image(0, "0123456789abcdef", 16), VGPU_GPU_SUCCESS);
    assert_int_equal(CALL(UPLOAD_BEGIN, 16), VGPU_GPU_SUCCESS);
    assert_int_equal(write_image(2, "xyz", 3), VGPU_GPU_SUCCESS);
    assert_int_equal(write_image(15, "!", 1), VGPU_GPU_SUCCESS);
    assert_int_equal(write_image(16, "", 0), VGPU_GPU_SUCCESS);
    assert_int_equal(load_image(), CUDA_SUCCESS);
    assert_int_equal(fake.image_bytes, 16);
    assert_memory_equal(seen.image, "\0\0xyz\0\0\0\0\0\0\0\0\0\0!", 17);
}

static void test_image_writes_that_cannot_be(void **state)
{
    const struct {
        uint64_t offset, from, bytes;
        bool good;
    } cases[] = {
        {0, arena_at(0), 64, true},
        {0, arena_at(FIXTURE_ARENA - 64), 64, true},
        {0, arena_at(FIXTURE_ARENA - 64), 61, true}, /* whole words are read */
        {64, arena_at(FIXTURE_ARENA), 0, true},
        {0, arena_at(0), 65, false},
        {1, arena_at(0), 64, false},
        {65, arena_at(0), 0, false},
        {UINT64_MAX, arena_at(0), 1, false},
        {UINT64_MAX, arena_at(0), 2, false},
        {4, arena_at(0), UINT64_MAX, false},
        {4, arena_at(0), UINT64_MAX - 2, false},
        {0, arena_at(1), 4, false},
        {0, arena_at(2), 4, false},
        {0, arena_at(0) - 4, 8, false},
        {0, arena_at(FIXTURE_ARENA - 4), 5, false},
        {0, arena_at(FIXTURE_ARENA), 1, false},
        {0, 0, 4, false},
        {0, UINT64_MAX - 3, 8, false},
        {0, (uint64_t)(uintptr_t)fixture.queue, 4, false},
    };

    (void)state;
    assert_int_equal(CALL(UPLOAD_WRITE, 0, arena_at(0), 4), VGPU_GPU_INVALID_VALUE); /* none yet */
    assert_int_equal(CALL(UPLOAD_WRITE, 0, arena_at(0), 0), VGPU_GPU_INVALID_VALUE);
    assert_int_equal(CALL(UPLOAD_BEGIN, 64), VGPU_GPU_SUCCESS);
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        assert_int_equal(CALL(UPLOAD_WRITE, cases[i].offset, cases[i].from, cases[i].bytes),
                         cases[i].good ? VGPU_GPU_SUCCESS : VGPU_GPU_INVALID_VALUE);
    }
}

static void test_image_sizes(void **state)
{
    static const uint64_t wrong[] = {0, RING_UPLOAD_MAX + 1, UINT64_MAX, UINT64_MAX - 1};

    (void)state;
    for (size_t i = 0; i < sizeof(wrong) / sizeof(wrong[0]); i++) {
        assert_int_equal(CALL(UPLOAD_BEGIN, 4), VGPU_GPU_SUCCESS);
        assert_int_equal(CALL(UPLOAD_BEGIN, wrong[i]), VGPU_GPU_INVALID_VALUE);
        /* Then there is none, not even the one before. */
        assert_int_equal(CALL(IMAGE_LOAD, 0, 0, 0), VGPU_GPU_INVALID_VALUE);
    }
    assert_int_equal(CALL(UPLOAD_BEGIN, RING_UPLOAD_MAX), VGPU_GPU_SUCCESS);
    assert_int_equal(CALL(UPLOAD_WRITE, RING_UPLOAD_MAX - 1, arena_at(0), 1), VGPU_GPU_SUCCESS);
    assert_int_equal(CALL(UPLOAD_WRITE, RING_UPLOAD_MAX - 1, arena_at(0), 2),
                     VGPU_GPU_INVALID_VALUE);
}

static void test_image_is_loaded_once(void **state)
{
    (void)state;
    assert_int_equal(CALL(IMAGE_LOAD, 0, 0, 0), VGPU_GPU_INVALID_VALUE);
    assert_int_equal(CALL(UPLOAD_BEGIN, 4), VGPU_GPU_SUCCESS);
    assert_int_equal(load_image(), CUDA_SUCCESS);
    assert_int_equal(fake.modules, 1);
    make_function(back(0), "f");
    assert_int_equal(CALL(IMAGE_LOAD, 0, 0, 0), VGPU_GPU_INVALID_VALUE);
    /* One that the driver refuses is gone as well, and what it said comes back. */
    assert_int_equal(CALL(UPLOAD_BEGIN, 4), VGPU_GPU_SUCCESS);
    fake.next = VGPU_GPU_INVALID_PTX;
    assert_int_equal(load_image(), CUDA_ERROR_INVALID_PTX);
    assert_int_equal(back(0), 0);
    assert_int_equal(CALL(IMAGE_LOAD, 0, 0, 0), VGPU_GPU_INVALID_VALUE);
    assert_int_equal(fake.modules, 1);
}

static enum vgpu_gpu_error load_with(const CUjit_option *options, const uint64_t *values,
                                     unsigned count)
{
    BEGIN(IMAGE_LOAD, 0, 0, count);
    put(options, count * sizeof(options[0]));
    put(values, count * sizeof(values[0]));
    return call_it();
}

static void test_options_of_a_load(void **state)
{
    static const CUjit_option plain[] = {CU_JIT_MAX_REGISTERS, CU_JIT_OPTIMIZATION_LEVEL,
                                         CU_JIT_CACHE_MODE};
    static const uint64_t values[] = {32, 4, UINT64_MAX};

    (void)state;
    /* Pointers, results, and what is not known. */
    for (int option = -1; option < 64; option++) {
        switch (option) {
        case CU_JIT_INFO_LOG_BUFFER:
        case CU_JIT_INFO_LOG_BUFFER_SIZE_BYTES:
        case CU_JIT_ERROR_LOG_BUFFER:
        case CU_JIT_ERROR_LOG_BUFFER_SIZE_BYTES:
        case CU_JIT_WALL_TIME:
        case CU_JIT_GLOBAL_SYMBOL_NAMES:
        case CU_JIT_GLOBAL_SYMBOL_ADDRESSES:
        case -1:
        case 63: {
            const CUjit_option options[] = {plain[0], (CUjit_option)option};

            assert_int_equal(CALL(UPLOAD_BEGIN, 4), VGPU_GPU_SUCCESS);
            assert_int_equal(load_with(options, values, 2), VGPU_GPU_NOT_SUPPORTED);
            /* The image is given up. */
            assert_int_equal(load_with(plain, values, 3), VGPU_GPU_INVALID_VALUE);
            break;
        }
        default:
            break;
        }
    }
    assert_int_equal(fake.modules, 0);
    assert_int_equal(CALL(UPLOAD_BEGIN, 4), VGPU_GPU_SUCCESS);
    assert_int_equal(load_with(plain, values, 3), VGPU_GPU_SUCCESS);
    assert_int_equal(seen.option_count, 3);
    assert_memory_equal(seen.options, plain, sizeof(plain));
    assert_memory_equal(seen.values, values, sizeof(values));
}

static void test_number_of_options(void **state)
{
    static const uint64_t counts[] = {2, 1000, VGPU_COMMAND_MAX, VGPU_COMMAND_MAX + 1, UINT32_MAX};

    (void)state;
    assert_int_equal(CALL(UPLOAD_BEGIN, 4), VGPU_GPU_SUCCESS);
    for (size_t i = 0; i < sizeof(counts) / sizeof(counts[0]); i++) {
        /* One option and its value. */
        assert_int_equal(CALL(IMAGE_LOAD, 0, 0, counts[i], 0, 0), VGPU_GPU_INVALID_VALUE);
    }
    assert_int_equal(CALL(IMAGE_LOAD, 0, 0, 1, 0, 0), VGPU_GPU_SUCCESS);
}

static void test_logs_of_a_load(void **state)
{
    float wall_time;
    uint64_t word;

    (void)state;
    assert_int_equal(CALL(UPLOAD_BEGIN, 4), VGPU_GPU_SUCCESS);
    /* 40 bytes of other results, so 136 are left in the slot. */
    assert_int_equal(CALL(IMAGE_LOAD, 129, 8, 0), VGPU_GPU_INVALID_VALUE);
    assert_int_equal(CALL(IMAGE_LOAD, UINT32_MAX, UINT32_MAX, 0), VGPU_GPU_INVALID_VALUE);
    assert_int_equal(CALL(IMAGE_LOAD, 121, 7, 0), VGPU_GPU_SUCCESS);
    assert_int_equal(seen.info_bytes, 121);
    assert_int_equal(seen.error_bytes, 7);
    assert_int_equal(answer()->length, 176);
    assert_int_equal(back(3), 121);
    assert_int_equal(back(4), 7);
    word = back(2);
    memcpy(&wall_time, &word, sizeof(wall_time));
    assert_true(wall_time == 1.5f);
    assert_int_equal(answer()->payload[40 + 120], 'i');
    assert_int_equal(answer()->payload[40 + 121], 0);
    assert_memory_equal(answer()->payload + 40 + 128, "eeeeeee", 8);
}

/* On the cpu backend, whose compiler knows one text. */
static void test_built_in_text_is_loaded(void **state)
{
    extern const char cuda_kernels_ptx[];
    const uint64_t length = strlen(cuda_kernels_ptx);

    (void)state;
    for (uint64_t nul = 0; nul < 2; nul++) {
        assert_int_equal(CALL(UPLOAD_BEGIN, length + nul), VGPU_GPU_SUCCESS);
        for (uint64_t at = 0; at < length; at += 999) {
            const uint64_t bytes = length - at < 999 ? length - at : 999;

            assert_int_equal(write_image(at, cuda_kernels_ptx + at, bytes), VGPU_GPU_SUCCESS);
        }
        assert_int_equal(load_image(), CUDA_SUCCESS);
        make_function(back(0), "vadd");
    }
    assert_int_equal(CALL(UPLOAD_BEGIN, length), VGPU_GPU_SUCCESS);
    assert_int_equal(write_image(0, cuda_kernels_ptx, 999), VGPU_GPU_SUCCESS);
    assert_int_equal(load_image(), CUDA_ERROR_NOT_SUPPORTED);
    assert_int_equal(back(0), 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(test_images_in_pieces),
        TEST(test_image_with_holes),
        TEST(test_image_writes_that_cannot_be),
        TEST(test_image_sizes),
        TEST(test_image_is_loaded_once),
        TEST(test_options_of_a_load),
        TEST(test_number_of_options),
        TEST(test_logs_of_a_load),
        CPU_TEST(test_built_in_text_is_loaded),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
