/* SPDX-License-Identifier: MIT */
/*
 * Tensor maps in the worker: a rank or a form that the driver's arrays do not have room for never
 * gets there, and each form goes to its own function with its own arguments.
 *
 * Tests: worker/backend-cuda/tensor.c
 */
#include <string.h>

#include "protocol/vgpu-tensor.h"
#include "tests/unit/unit.h"
#include "worker/api-calls.h"
#include "worker/backend-cuda/cuda-driver.h"

/* They have the driver's parameters, and look at some. */
#pragma GCC diagnostic ignored "-Wunused-parameter"

static const char *encoded;
static cuuint32_t seen_rank;
static cuuint64_t seen_size, seen_stride;
static int seen_corners[2];

static CUresult see(CUtensorMap *map, const char *what, cuuint32_t rank, cuuint64_t size,
                    cuuint64_t stride)
{
    memset(map, 0x11, sizeof(*map));
    encoded = what;
    seen_rank = rank;
    seen_size = size;
    seen_stride = stride;
    return CUDA_SUCCESS;
}

static CUresult see_tiled(CUtensorMap *map, CUtensorMapDataType type, cuuint32_t rank,
                          void *address, const cuuint64_t *sizes, const cuuint64_t *strides,
                          const cuuint32_t *box, const cuuint32_t *steps,
                          CUtensorMapInterleave interleave, CUtensorMapSwizzle swizzle,
                          CUtensorMapL2promotion promotion, CUtensorMapFloatOOBfill fill)
{
    return see(map, "tiled", rank, sizes[rank - 1], rank > 1 ? strides[rank - 2] : 0);
}

static CUresult see_image(CUtensorMap *map, CUtensorMapDataType type, cuuint32_t rank,
                          void *address, const cuuint64_t *sizes, const cuuint64_t *strides,
                          const int *lower, const int *upper, cuuint32_t channels,
                          cuuint32_t pixels, const cuuint32_t *steps,
                          CUtensorMapInterleave interleave, CUtensorMapSwizzle swizzle,
                          CUtensorMapL2promotion promotion, CUtensorMapFloatOOBfill fill)
{
    seen_corners[0] = lower[rank - 3];
    seen_corners[1] = upper[rank - 3];
    return see(map, "image", rank, sizes[rank - 1], strides[rank - 2]);
}

static CUresult see_wide(CUtensorMap *map, CUtensorMapDataType type, cuuint32_t rank, void *address,
                         const cuuint64_t *sizes, const cuuint64_t *strides, int lower, int upper,
                         cuuint32_t channels, cuuint32_t pixels, const cuuint32_t *steps,
                         CUtensorMapInterleave interleave, CUtensorMapIm2ColWideMode mode,
                         CUtensorMapSwizzle swizzle, CUtensorMapL2promotion promotion,
                         CUtensorMapFloatOOBfill fill)
{
    seen_corners[0] = lower;
    seen_corners[1] = upper;
    return see(map, "wide", rank, sizes[rank - 1], strides[rank - 2]);
}

static CUresult see_move(CUtensorMap *map, void *address)
{
    map->opaque[3] += (uintptr_t)address;
    return CUDA_SUCCESS;
}

static int set_up(void **state)
{
    (void)state;
    cu.TensorMapEncodeTiled = see_tiled;
    cu.TensorMapEncodeIm2col = see_image;
    cu.TensorMapEncodeIm2colWide = see_wide;
    cu.TensorMapReplaceAddress = see_move;
    encoded = "";
    return 0;
}

static vgpu_tensor tensor_of(uint32_t form, uint32_t rank)
{
    return (vgpu_tensor){.form = form,
                         .rank = rank,
                         .sizes = {1, 2, 3, 4, 5},
                         .strides = {11, 12, 13, 14},
                         .lower = {-1, -2, -3},
                         .upper = {-4, -5, -6}};
}

static void test_ranks_and_forms(void **state)
{
    static const uint32_t forms[] = {0, 1, 2, 3, 4, UINT32_MAX};
    static const uint32_t ranks[] = {0, 1, 2, 3, 4, 5, 6, 7, 1u << 31, UINT32_MAX};
    static const char *const names[] = {"tiled", "image", "wide"};
    uint64_t map[16];

    for (size_t f = 0; f < sizeof(forms) / sizeof(forms[0]); f++) {
        for (size_t i = 0; i < sizeof(ranks) / sizeof(ranks[0]); i++) {
            const vgpu_tensor tensor = tensor_of(forms[f], ranks[i]);
            const bool good = forms[f] <= 2 && ranks[i] <= 5 && ranks[i] >= (forms[f] == 0 ? 1 : 3);

            set_up(state);
            assert_int_equal(cuda_tensor_map_encode(NULL, map, &tensor),
                             good ? VGPU_GPU_SUCCESS : VGPU_GPU_INVALID_VALUE);
            assert_string_equal(encoded, good ? names[forms[f]] : "");
            if (good) {
                assert_int_equal(seen_rank, ranks[i]);
                assert_int_equal(seen_size, ranks[i]);
                assert_int_equal(seen_stride, ranks[i] > 1 ? 9 + ranks[i] : 0);
                assert_int_equal(map[15], UINT64_C(0x1111111111111111));
            }
            if (good && forms[f] != 0) {
                assert_int_equal(seen_corners[0], forms[f] == 1 ? 2 - (int)ranks[i] : -1);
                assert_int_equal(seen_corners[1], forms[f] == 1 ? -1 - (int)ranks[i] : -4);
            }
        }
    }
}

static void test_another_address(void **state)
{
    uint64_t before[16] = {0, 1, 2, 3}, after[16] = {0};

    (void)state;
    assert_int_equal(cuda_tensor_map_move(NULL, after, before, 4096), VGPU_GPU_SUCCESS);
    assert_int_equal(after[3], 4099);
    assert_int_equal(after[2], 2);
    assert_int_equal(before[3], 3);
}

static void test_drivers_without_them(void **state)
{
    const vgpu_tensor tiled = tensor_of(0, 2), wide = tensor_of(2, 3);
    uint64_t map[16];

    (void)state;
    cu.TensorMapEncodeIm2colWide = NULL;
    assert_int_equal(cuda_tensor_map_encode(NULL, map, &wide), VGPU_GPU_NOT_SUPPORTED);
    assert_int_equal(cuda_tensor_map_encode(NULL, map, &tiled), VGPU_GPU_SUCCESS);
    cu.TensorMapEncodeTiled = NULL;
    assert_int_equal(cuda_tensor_map_encode(NULL, map, &tiled), VGPU_GPU_NOT_SUPPORTED);
    cu.TensorMapReplaceAddress = NULL;
    assert_int_equal(cuda_tensor_map_move(NULL, map, map, 0), VGPU_GPU_NOT_SUPPORTED);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup(test_ranks_and_forms, set_up),
        cmocka_unit_test_setup(test_another_address, set_up),
        cmocka_unit_test_setup(test_drivers_without_them, set_up),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
