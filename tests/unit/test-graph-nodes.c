/* SPDX-License-Identifier: MIT */
/*
 * What can be wrong with a node of each kind in an encoding of a graph: its numbers, its addresses,
 * and what wraps when it is worked out.
 *
 * Tests: worker/exec-graph*.c
 */
#include <string.h>

#include "tests/unit/graph-fixture.h"

/* Kernels ------------------------------------------------------------------------------------ */

static void test_shapes_of_kernels(void **state)
{
    struct vgpu_cmd_launch *kernel;

    (void)state;
    kernel = encoding_kernel(graphs.function, "params", 7);
    assert_taken();
    for (int i = 0; i < 3; i++) {
        REFUSED_AT(kernel->grid[i], 0);
        REFUSED_AT(kernel->block[i], 0);
    }
    for (int i = 0; i < 3; i++) {
        kernel->grid[i] = kernel->block[i] = UINT32_MAX;
    }
    assert_taken();
}

static void test_functions_of_kernels(void **state)
{
    struct vgpu_cmd_launch *kernel;
    const uint64_t module = handles_add(&graphs.handles, HANDLE_MODULE, &graph_function, 0);
    const uint64_t wrong[] = {0, module, graphs.function ^ UINT64_C(1) << 40, UINT64_MAX};

    (void)state;
    kernel = encoding_kernel(graphs.function, NULL, 0);
    for (size_t i = 0; i < sizeof(wrong) / sizeof(wrong[0]); i++) {
        kernel->function = wrong[i];
        assert_int_equal(encoding_take_all(), VGPU_GPU_INVALID_HANDLE);
    }
    kernel->function = graphs.function;
    assert_taken();
    handles_remove(&graphs.handles, graphs.function);
    assert_int_equal(encoding_take_all(), VGPU_GPU_INVALID_HANDLE);
}

static void test_parameters_of_kernels(void **state)
{
    static const uint8_t params[VGPU_PARAMS_MAX + 8];
    static const uint32_t wrong[] = {7, 17, 24, 1u << 31, UINT32_MAX - 7, UINT32_MAX};
    struct vgpu_cmd_launch *kernel;

    (void)state;
    kernel = encoding_kernel(graphs.function, params, 16);
    for (size_t i = 0; i < sizeof(wrong) / sizeof(wrong[0]); i++) {
        REFUSED_AT(kernel->param_bytes, wrong[i]);
    }
    for (uint32_t bytes = VGPU_PARAMS_MAX; bytes <= VGPU_PARAMS_MAX + 4; bytes++) {
        encoding_clear();
        encoding_kernel(graphs.function, params, bytes);
        assert_int_equal(encoding_take_all() == VGPU_GPU_SUCCESS, bytes == VGPU_PARAMS_MAX);
    }
}

static void test_attributes_that_are_not_plain(void **state)
{
    CUlaunchAttribute attributes[2];
    CUlaunchAttribute *put;
    unsigned plain = 0;

    (void)state;
    memset(attributes, 0, sizeof(attributes));
    encoding_kernel(graphs.function, NULL, 0)->attributes = 2;
    put = encoding_put(attributes, sizeof(attributes));
    assert_taken();
    for (unsigned id = 0; id < 300; id++) {
        /* Those that name an event or a node of a graph. */
        const bool handle = id == CU_LAUNCH_ATTRIBUTE_PROGRAMMATIC_EVENT ||
                            id == CU_LAUNCH_ATTRIBUTE_LAUNCH_COMPLETION_EVENT ||
                            id == CU_LAUNCH_ATTRIBUTE_DEVICE_UPDATABLE_KERNEL_NODE;
        enum vgpu_gpu_error error;

        put[id % 2].id = (CUlaunchAttributeID)id;
        error = encoding_take_all();
        put[id % 2].id = CU_LAUNCH_ATTRIBUTE_IGNORE;
        plain += error == VGPU_GPU_SUCCESS;
        assert_true(error == VGPU_GPU_NOT_SUPPORTED || (error == VGPU_GPU_SUCCESS && !handle));
    }
    assert_in_range(plain, 10, 14);
}

static void test_counts_of_attributes(void **state)
{
    static const uint32_t wrong[] = {0, 1, 3, 1u << 26, 1u << 31, UINT32_MAX};
    static const CUlaunchAttribute attributes[2];
    struct vgpu_cmd_launch *kernel;

    (void)state;
    kernel = encoding_kernel(graphs.function, NULL, 0);
    encoding_put(attributes, sizeof(attributes));
    kernel->attributes = 2;
    for (size_t i = 0; i < sizeof(wrong) / sizeof(wrong[0]); i++) {
        REFUSED_AT(kernel->attributes, wrong[i]);
    }
}

/* Copies ------------------------------------------------------------------------------------- */

/* 2 slices of 3 rows of 8 bytes: in the arena 16 bytes and 4 rows apart. */
#define BOX_BYTES (6 * 16 + 8)

static struct vgpu_graph_copy box(enum vgpu_copy_kind kind, uint64_t in_arena)
{
    struct vgpu_graph_copy copy = {
        .to = GRAPH_DEVICE,
        .to_pitch = 16,
        .to_rows = 4,
        .from = GRAPH_DEVICE + 65536,
        .from_pitch = 16,
        .from_rows = 4,
        .width = 8,
        .height = 3,
        .depth = 2,
        .kind = kind,
    };

    if (kind == VGPU_COPY_TO_DEVICE) {
        copy.from = in_arena;
    } else if (kind == VGPU_COPY_FROM_DEVICE) {
        copy.to = in_arena;
    }
    return copy;
}

static bool box_is_taken(enum vgpu_copy_kind kind, uint64_t in_arena)
{
    const struct vgpu_graph_copy copy = box(kind, in_arena);

    encoding_clear();
    encoding_copy(&copy);
    return encoding_take_all() == VGPU_GPU_SUCCESS;
}

static void test_copies_at_the_ends_of_the_arena(void **state)
{
    const uint64_t end = graph_arena(GRAPH_ARENA);

    (void)state;
    for (enum vgpu_copy_kind kind = VGPU_COPY_TO_DEVICE; kind <= VGPU_COPY_FROM_DEVICE; kind++) {
        assert_true(box_is_taken(kind, graph_arena(0)));
        assert_true(box_is_taken(kind, end - BOX_BYTES));
        assert_false(box_is_taken(kind, end - BOX_BYTES + 1));
        assert_false(box_is_taken(kind, graph_arena(0) - 1));
        assert_false(box_is_taken(kind, end));
        assert_false(box_is_taken(kind, GRAPH_DEVICE));
        assert_false(box_is_taken(kind, 0));
        assert_false(box_is_taken(kind, UINT64_MAX));
    }
}

/* Neither side of a copy on the device has to be in the arena, and the other side never. */
static void test_sides_that_are_not_in_the_arena(void **state)
{
    (void)state;
    assert_true(box_is_taken(VGPU_COPY_ON_DEVICE, 0));
    for (enum vgpu_copy_kind kind = VGPU_COPY_TO_DEVICE; kind <= VGPU_COPY_ON_DEVICE; kind++) {
        struct vgpu_graph_copy copy = box(kind, graph_arena(0));

        *(kind == VGPU_COPY_FROM_DEVICE ? &copy.from : &copy.to) = graph_arena(64);
        encoding_clear();
        encoding_copy(&copy);
        assert_taken();
    }
}

static void test_numbers_of_copies(void **state)
{
    const struct vgpu_graph_copy good = box(VGPU_COPY_ON_DEVICE, 0);
    struct vgpu_graph_copy *copy;

    (void)state;
    copy = encoding_copy(&good);
    assert_taken();
    REFUSED_AT(copy->reserved, 1);
    REFUSED_AT(copy->kind, VGPU_COPY_TO_DEVICE - 1);
    REFUSED_AT(copy->kind, VGPU_COPY_ON_DEVICE + 1);
    REFUSED_AT(copy->kind, UINT32_MAX);
    REFUSED_AT(copy->width, 0);
    REFUSED_AT(copy->height, 0);
    REFUSED_AT(copy->depth, 0);
    REFUSED_AT(copy->to_pitch, copy->width - 1);
    REFUSED_AT(copy->from_pitch, copy->width - 1);
    REFUSED_AT(copy->to_rows, copy->height - 1);
    REFUSED_AT(copy->from_rows, copy->height - 1);
    copy->to_pitch = copy->from_pitch = copy->width;
    copy->to_rows = copy->from_rows = copy->height;
    assert_taken();
}

static void test_copies_that_wrap(void **state)
{
    const struct vgpu_graph_copy good = box(VGPU_COPY_ON_DEVICE, 0);
    struct vgpu_graph_copy *copy;

    (void)state;
    copy = encoding_copy(&good);
    assert_taken();
    REFUSED_AT(copy->to, UINT64_MAX - BOX_BYTES + 1);
    REFUSED_AT(copy->from, UINT64_MAX - BOX_BYTES + 1);
    REFUSED_AT(copy->to_pitch, UINT64_C(1) << 62);
    REFUSED_AT(copy->from_pitch, UINT64_C(1) << 62);
    REFUSED_AT(copy->to_rows, UINT64_MAX - 2);
    REFUSED_AT(copy->from_rows, UINT64_MAX - 2);
    REFUSED_AT(copy->to_rows, UINT64_C(1) << 60);
    REFUSED_AT(copy->from_rows, UINT64_C(1) << 60);
    REFUSED_AT(copy->depth, UINT64_MAX);
    REFUSED_AT(copy->depth, UINT64_C(1) << 62);
    REFUSED_AT(copy->height, UINT64_MAX);
    REFUSED_AT(copy->width, UINT64_MAX);
}

/* Fills -------------------------------------------------------------------------------------- */

static void test_numbers_of_fills(void **state)
{
    static const uint32_t elements[] = {0, 3, 5, 8, 16, 1u << 31, UINT32_MAX};
    const struct vgpu_graph_fill good = {
        .to = GRAPH_DEVICE, .pitch = 64, .width = 16, .height = 4, .element = 4};
    struct vgpu_graph_fill *fill;

    (void)state;
    fill = encoding_fill(&good);
    assert_taken();
    for (size_t i = 0; i < sizeof(elements) / sizeof(elements[0]); i++) {
        REFUSED_AT(fill->element, elements[i]);
    }
    REFUSED_AT(fill->width, 0);
    REFUSED_AT(fill->height, 0);
    REFUSED_AT(fill->width, 17); /* more than the pitch */
    REFUSED_AT(fill->pitch, 60);
    REFUSED_AT(fill->width, UINT64_C(1) << 62); /* as bytes 0 */
    REFUSED_AT(fill->width, (UINT64_C(1) << 62) + 4);
    REFUSED_AT(fill->height, UINT64_MAX);
    REFUSED_AT(fill->height, UINT64_C(1) << 58);
    REFUSED_AT(fill->pitch, UINT64_C(1) << 63);
    REFUSED_AT(fill->to, UINT64_MAX - 199);
}

static void test_fills_that_are_misaligned(void **state)
{
    const struct vgpu_graph_fill good = {
        .to = GRAPH_DEVICE, .pitch = 64, .width = 8, .height = 4, .element = 4};
    struct vgpu_graph_fill *fill;

    (void)state;
    fill = encoding_fill(&good);
    for (uint32_t element = 1; element <= 4; element *= 2) {
        fill->element = element;
        for (uint32_t off = 0; off < 8; off++) {
            const bool right = off % element == 0;

            fill->to = GRAPH_DEVICE + off;
            assert_int_equal(encoding_take_all() == VGPU_GPU_SUCCESS, right);
            fill->to = GRAPH_DEVICE;
            fill->pitch = 64 + off;
            assert_int_equal(encoding_take_all() == VGPU_GPU_SUCCESS, right);
            fill->pitch = 64;
        }
    }
    /* Of one row the pitch does not matter. */
    fill->height = 1;
    fill->pitch = 3;
    assert_taken();
}

/* Gates -------------------------------------------------------------------------------------- */

static void test_addresses_of_gates(void **state)
{
    struct vgpu_graph_gate *gate;

    (void)state;
    gate = encoding_gate(graph_arena(0));
    assert_taken();
    for (uint64_t off = 1; off < 4; off++) {
        REFUSED_AT(gate->address, graph_arena(off));
    }
    REFUSED_AT(gate->address, graph_arena(0) - 4);
    REFUSED_AT(gate->address, graph_arena(GRAPH_ARENA));
    REFUSED_AT(gate->address, GRAPH_DEVICE);
    REFUSED_AT(gate->address, 0);
    REFUSED_AT(gate->address, UINT64_MAX - 3);
    gate->address = graph_arena(GRAPH_ARENA - 4);
    assert_taken();
    /* An arena that ends in the middle of a word. */
    graphs.gpu.arena.size -= 2;
    assert_refused();
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, graphs_set_up, graphs_tear_down)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(test_shapes_of_kernels),
        TEST(test_functions_of_kernels),
        TEST(test_parameters_of_kernels),
        TEST(test_attributes_that_are_not_plain),
        TEST(test_counts_of_attributes),
        TEST(test_copies_at_the_ends_of_the_arena),
        TEST(test_sides_that_are_not_in_the_arena),
        TEST(test_numbers_of_copies),
        TEST(test_copies_that_wrap),
        TEST(test_numbers_of_fills),
        TEST(test_fills_that_are_misaligned),
        TEST(test_addresses_of_gates),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
