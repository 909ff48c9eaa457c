/* SPDX-License-Identifier: MIT */
/*
 * Copies and fills in rows on the cpu backend: each byte goes where it belongs, no other one.
 *
 * Tests: worker/do-work.c, worker/rows.c, worker/backend-cpu/
 */
#include <string.h>

#include "tests/unit/api-fixture.h"
#include "worker/estimate.h"
#include "worker/ring-session.h"

#define SIDE (32u << 10) /* bytes: of device memory, and of the arena's start */

static uint64_t any_box_side(uint64_t *pitch, uint64_t *rows, uint64_t width, uint64_t height,
                             uint64_t depth)
{
    uint64_t bytes;

    *pitch = width + random_below(20);
    *rows = height + random_below(3);
    bytes = ((depth - 1) * *rows + height - 1) * *pitch + width;
    assert_true(bytes <= SIDE / 2);
    return random_below(SIDE / 2 - bytes + 1);
}

static void copy_reference(uint8_t *to, const uint8_t *from, const struct box *box,
                           uint64_t to_start, uint64_t from_start)
{
    for (uint64_t z = 0; z < box->depth; z++) {
        for (uint64_t y = 0; y < box->height; y++) {
            for (uint64_t x = 0; x < box->width; x++) {
                to[to_start + (z * box->to_rows + y) * box->to_pitch + x] =
                    from[from_start + (z * box->from_rows + y) * box->from_pitch + x];
            }
        }
    }
}

/* Halves: what is read lies in the upper one, what is written in the lower one, of each side. */
static void test_bytes_of_boxes(void **state)
{
    static uint8_t arena[SIDE], device[SIDE], found[SIDE];
    const uint64_t memory = make(VGPU_CMD_MEM_ALLOC, SIDE);

    (void)state;
    for (size_t i = 0; i < SIDE; i++) {
        arena[i] = (uint8_t)random_below(256);
    }
    memcpy(fixture.arena, arena, SIDE);
    memcpy(device, arena, SIDE);
    post_copy(VGPU_COPY_TO_DEVICE, memory, arena_at(0), SIDE, 0);
    for (int i = 0; i < 400; i++) {
        const uint64_t width = 1 + random_below(60), height = 1 + random_below(9);
        const uint64_t depth = 1 + random_below(5);
        struct box box = {.width = width, .height = height, .depth = depth};
        uint64_t to, from;

        box.kind = 1 + random_below(3);
        fixture.turn_page.terms.window_ns = i % 2 ? WINDOW : 0;
        to = any_box_side(&box.to_pitch, &box.to_rows, width, height, depth);
        from = SIDE / 2 + any_box_side(&box.from_pitch, &box.from_rows, width, height, depth);
        box.to = (box.kind == VGPU_COPY_FROM_DEVICE ? arena_at(0) : memory) + to;
        box.from = (box.kind == VGPU_COPY_TO_DEVICE ? arena_at(0) : memory) + from;
        copy_reference(box.kind == VGPU_COPY_FROM_DEVICE ? arena : device,
                       box.kind == VGPU_COPY_TO_DEVICE ? arena : device, &box, to, from);
        begin_box(&box);
        assert_int_equal(run_it(), VGPU_GPU_SUCCESS);
        if (i % 20 == 19) {
            read_device(memory, SIDE, found);
            assert_memory_equal(found, device, SIDE);
            assert_memory_equal(fixture.arena, arena, SIDE);
        }
    }
}

/* Larger than a piece, from one part of the arena to another: it is device memory as well. */
static void test_bytes_of_large_boxes(void **state)
{
    static const uint64_t sizes[][2] = {
        {ESTIMATE_COPY_PIECE + 12345, 1}, {100003, 60}, {7, 700000}};
    const uint64_t half = FIXTURE_ARENA / 2;

    (void)state;
    for (uint64_t i = 0; i < half; i++) {
        fixture.arena[i] = (uint8_t)(i * 2654435761u >> 13);
    }
    fixture.turn_page.terms.window_ns = WINDOW;
    for (size_t i = 0; i < sizeof(sizes) / sizeof(sizes[0]); i++) {
        const uint64_t width = sizes[i][0], height = sizes[i][1];
        const struct box box = {
            arena_at(half), width + 1, height, arena_at(0),         width + 3, height,
            width,          height,    1,      VGPU_COPY_ON_DEVICE, 0};

        memset(fixture.arena + half, 0, half);
        begin_box(&box);
        assert_int_equal(run_it(), VGPU_GPU_SUCCESS);
        for (uint64_t row = 0; row < height; row++) {
            const uint8_t *to = fixture.arena + half + row * (width + 1);

            assert_true(memcmp(to, fixture.arena + row * (width + 3), width) == 0);
            assert_int_equal(to[width], 0);
        }
    }
}

static void test_bytes_of_fills(void **state)
{
    static uint8_t device[SIDE], found[SIDE];
    const uint64_t memory = make(VGPU_CMD_MEM_ALLOC, SIDE);

    (void)state;
    for (int i = 0; i < 200; i++) {
        const uint64_t element = UINT64_C(1) << random_below(3), width = 1 + random_below(50);
        const uint64_t height = 1 + random_below(20);
        const uint64_t pitch = (width + random_below(5)) * element;
        const uint64_t start = random_below(1000) * 4;
        const uint32_t value = (uint32_t)random_below(UINT64_C(1) << 32);

        for (uint64_t y = 0; y < height; y++) {
            for (uint64_t x = 0; x < width; x++) {
                memcpy(device + start + y * pitch + x * element, &value, element);
            }
        }
        BEGIN(FILL_ROWS, memory + start, pitch, value, element, width, height, 0);
        assert_int_equal(run_it(), VGPU_GPU_SUCCESS);
    }
    read_device(memory, SIDE, found);
    assert_memory_equal(found, device, SIDE);
}

/* A box that leaves the device's memory by a byte loses the context, and no byte is written. */
static void test_boxes_beyond_device_memory(void **state)
{
    const uint64_t bytes = (UINT64_C(2) * 4 + 3 - 1) * 16 + 8; /* of 3 slices of 4 rows */

    for (int off = -1; off <= 1; off++) {
        uint64_t memory;
        struct box box = {0, 16, 4, arena_at(0), 16, 4, 8, 3, 3, VGPU_COPY_TO_DEVICE, 0};

        fixture_tear_down(state);
        assert_int_equal(fixture_set_up_cpu(state), 0);
        memory = make(VGPU_CMD_MEM_ALLOC, 4096);
        box.from = arena_at(0);
        box.to = off < 0 ? memory - 1 : memory + 4096 - bytes + (uint64_t)off;
        begin_box(&box);
        assert_int_equal(run_it(), off == 0 ? VGPU_GPU_SUCCESS : VGPU_GPU_ILLEGAL_ADDRESS);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        CPU_TEST(test_bytes_of_boxes),
        CPU_TEST(test_bytes_of_large_boxes),
        CPU_TEST(test_bytes_of_fills),
        CPU_TEST(test_boxes_beyond_device_memory),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
