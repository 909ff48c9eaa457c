/* SPDX-License-Identifier: MIT */
/*
 * Encodings of graphs as graph_make() takes them: what each kind of node is decoded to, and what
 * can be wrong with the row of nodes. What can be wrong with a node of a kind is in
 * test-graph-nodes.c.
 *
 * Tests: worker/exec-graph*.c
 */
#include <stdlib.h>
#include <string.h>

#include "tests/unit/graph-fixture.h"

static void add_kernel_with_attributes(uint32_t count, CUlaunchAttributeID id)
{
    CUlaunchAttribute attributes[4];

    assert_true(count <= 4);
    memset(attributes, 0, sizeof(attributes));
    for (uint32_t i = 0; i < count; i++) {
        attributes[i].id = i + 1 == count ? id : CU_LAUNCH_ATTRIBUTE_PRIORITY;
    }
    encoding_kernel(graphs.function, NULL, 0)->attributes = count;
    encoding_put(attributes, count * sizeof(attributes[0]));
}

static const struct vgpu_graph_copy on_device = {
    .to = GRAPH_DEVICE,
    .to_pitch = 64,
    .to_rows = 4,
    .from = GRAPH_DEVICE + 65536,
    .from_pitch = 32,
    .from_rows = 3,
    .width = 16,
    .height = 3,
    .depth = 2,
    .kind = VGPU_COPY_ON_DEVICE,
};
static const struct vgpu_graph_fill words = {
    .to = GRAPH_DEVICE, .pitch = 64, .width = 8, .height = 4, .value = 0x01020304, .element = 4};

/* One of each kind, with things between. */
static void add_all_kinds(void)
{
    static const uint32_t follows[] = {0, 1, 3};

    encoding_begin(VGPU_GRAPH_NOTHING, NULL, 0);
    encoding_kernel(graphs.function, "parameters", 11);
    encoding_copy(&on_device);
    encoding_fill(&words);
    encoding_begin(VGPU_GRAPH_NOTHING, follows, 3);
    encoding_gate(graph_arena(GRAPH_ARENA - 4));
    add_kernel_with_attributes(3, CU_LAUNCH_ATTRIBUTE_COOPERATIVE);
}

/* What is right ------------------------------------------------------------------------------ */

static void check_nodes(const struct gpu_graph_node *nodes)
{
    static const uint32_t follows[] = {0, 1, 3};
    static const uint32_t kinds[] = {VGPU_GRAPH_NOTHING, VGPU_GRAPH_KERNEL,  VGPU_GRAPH_COPY,
                                     VGPU_GRAPH_FILL,    VGPU_GRAPH_NOTHING, VGPU_GRAPH_GATE,
                                     VGPU_GRAPH_KERNEL};
    const struct gpu_launch *launch = &nodes[1].kernel.launch;

    for (size_t i = 0; i < sizeof(kinds) / sizeof(kinds[0]); i++) {
        assert_int_equal(nodes[i].kind, kinds[i]);
        assert_int_equal(nodes[i].follow_count, i == 4 ? 3 : 0);
    }
    assert_ptr_equal(nodes[1].kernel.function, &graph_function);
    assert_int_equal(launch->shape->grid[2], 1);
    assert_int_equal(launch->attribute_count, 0);
    assert_int_equal(launch->param_bytes, 11);
    assert_memory_equal(launch->params, "parameters", 11);
    assert_memory_equal(&nodes[2].copy, &on_device, sizeof(on_device));
    assert_memory_equal(&nodes[3].fill, &words, sizeof(words));
    assert_memory_equal(nodes[4].follows, follows, sizeof(follows));
    assert_true(nodes[5].gate == graph_arena(GRAPH_ARENA - 4));
    launch = &nodes[6].kernel.launch;
    assert_int_equal(launch->attribute_count, 3);
    assert_int_equal(launch->attributes[0].id, CU_LAUNCH_ATTRIBUTE_PRIORITY);
    assert_int_equal(launch->attributes[2].id, CU_LAUNCH_ATTRIBUTE_COOPERATIVE);
    assert_int_equal(launch->param_bytes, 0);
}

static void test_nodes_of_all_kinds(void **state)
{
    struct graph *graph;

    (void)state;
    add_all_kinds();
    graph = encoding_graph();
    assert_null(graph->made);
    assert_int_equal(graph->count, 7);
    check_nodes(graph->nodes);
    graph_free(&graphs.needs, graph);
}

static void test_graph_of_nothing(void **state)
{
    struct graph *graph = NULL;

    (void)state;
    assert_int_equal(graph_make(&graphs.needs, NULL, 0, 0, &graph), VGPU_GPU_SUCCESS);
    graph_free(&graphs.needs, graph);
    /* Without an encoding its size says nothing. */
    assert_int_equal(graph_make(&graphs.needs, NULL, 4096, 1, &graph), VGPU_GPU_INVALID_VALUE);
    encoding_begin(VGPU_GRAPH_NOTHING, NULL, 0);
    assert_taken();
}

/* The row of nodes --------------------------------------------------------------------------- */

static void test_truncated_images(void **state)
{
    (void)state;
    add_all_kinds();
    assert_taken();
    for (uint32_t bytes = 0; bytes < graphs.encoding.used; bytes++) {
        assert_int_equal(encoding_take(bytes, graphs.encoding.count), VGPU_GPU_INVALID_VALUE);
    }
}

static void test_bytes_behind_the_nodes(void **state)
{
    (void)state;
    add_all_kinds();
    memset(graphs.encoding.bytes + graphs.encoding.used, 0, 64);
    for (uint32_t more = 1; more <= 64; more++) {
        assert_int_equal(encoding_take(graphs.encoding.used + more, graphs.encoding.count),
                         VGPU_GPU_INVALID_VALUE);
    }
}

static void test_other_counts_of_nodes(void **state)
{
    static const uint32_t counts[] = {
        0, 1, 6, 8, VGPU_GRAPH_NODES_MAX, VGPU_GRAPH_NODES_MAX + 1, 1u << 31, UINT32_MAX};

    (void)state;
    add_all_kinds();
    for (size_t i = 0; i < sizeof(counts) / sizeof(counts[0]); i++) {
        assert_int_equal(encoding_take(graphs.encoding.used, counts[i]), VGPU_GPU_INVALID_VALUE);
    }
}

/* The encoding has room for one more: it is the limit that refuses it. */
static void test_most_nodes(void **state)
{
    static const struct vgpu_graph_node node = {.bytes = sizeof(node)};

    (void)state;
    for (uint32_t count = VGPU_GRAPH_NODES_MAX; count <= VGPU_GRAPH_NODES_MAX + 1; count++) {
        const bool right = count == VGPU_GRAPH_NODES_MAX;
        struct vgpu_graph_node *nodes = calloc(count, sizeof(*nodes));
        struct graph *graph = NULL;

        assert_non_null(nodes);
        for (uint32_t i = 0; i < count; i++) {
            nodes[i] = node;
        }
        assert_int_equal(
            graph_make(&graphs.needs, (uint8_t *)nodes, count * sizeof(*nodes), count, &graph),
            right ? VGPU_GPU_SUCCESS : VGPU_GPU_INVALID_VALUE);
        if (right) {
            graph_free(&graphs.needs, graph);
        } else {
            free(nodes);
        }
    }
}

/* Every length but its own, of the node of each kind. */
static void test_lengths_of_nodes(void **state)
{
    (void)state;
    add_all_kinds();
    for (uint32_t at = 0; at < graphs.encoding.used;) {
        struct vgpu_graph_node *node = (void *)(graphs.encoding.bytes + at);
        const uint32_t right = node->bytes;

        for (uint32_t bytes = 0; bytes < right + 64; bytes++) {
            node->bytes = bytes;
            assert_int_equal(encoding_take_all() == VGPU_GPU_SUCCESS, bytes == right);
        }
        node->bytes = right;
        REFUSED_AT(node->bytes, UINT32_MAX - 7);
        REFUSED_AT(node->bytes, 1u << 31);
        at += right;
    }
}

/* The last node is whole, but not a multiple of 8 long, and nothing is behind it. */
static void test_length_that_is_no_multiple(void **state)
{
    (void)state;
    for (uint32_t less = 1; less < 8; less++) {
        encoding_clear();
        encoding_kernel(graphs.function, "many parameters", 16 - less)->param_bytes = 16 - less;
        graphs.encoding.node->bytes -= less;
        assert_int_equal(encoding_take(graphs.encoding.used - less, 1), VGPU_GPU_INVALID_VALUE);
    }
}

static void test_reserved_fields_of_nodes(void **state)
{
    (void)state;
    add_all_kinds();
    for (uint32_t at = 0; at < graphs.encoding.used;) {
        struct vgpu_graph_node *node = (void *)(graphs.encoding.bytes + at);

        REFUSED_AT(node->reserved, 1);
        REFUSED_AT(node->reserved, 1u << 31);
        at += node->bytes;
    }
}

static void test_unknown_kinds(void **state)
{
    static const uint32_t kinds[] = {VGPU_GRAPH_GATE + 1, 256, 1u << 31, UINT32_MAX};
    struct vgpu_graph_node *node;

    (void)state;
    node = encoding_begin(VGPU_GRAPH_NOTHING, NULL, 0);
    for (size_t i = 0; i < sizeof(kinds) / sizeof(kinds[0]); i++) {
        node->kind = kinds[i];
        assert_int_equal(encoding_take_all(), VGPU_GPU_NOT_SUPPORTED);
    }
}

/* What is wrong first is told, whatever is wrong behind it. */
static void test_first_error(void **state)
{
    struct vgpu_graph_node *unknown;

    (void)state;
    unknown = encoding_begin(VGPU_GRAPH_GATE + 1, NULL, 0);
    encoding_gate(1);
    assert_int_equal(encoding_take_all(), VGPU_GPU_NOT_SUPPORTED);
    unknown->reserved = 1;
    assert_refused();
}

/* What nodes follow -------------------------------------------------------------------------- */

static void test_nodes_follow_those_before(void **state)
{
    static const uint32_t follows[] = {0, 1};
    uint32_t *numbers;

    (void)state;
    encoding_begin(VGPU_GRAPH_NOTHING, NULL, 0);
    encoding_begin(VGPU_GRAPH_NOTHING, NULL, 0);
    numbers = (uint32_t *)(encoding_begin(VGPU_GRAPH_NOTHING, follows, 2) + 1);
    encoding_begin(VGPU_GRAPH_NOTHING, NULL, 0);
    assert_taken();
    for (int i = 0; i < 2; i++) {
        REFUSED_AT(numbers[i], 2);
        REFUSED_AT(numbers[i], 3);
        REFUSED_AT(numbers[i], 4);
        REFUSED_AT(numbers[i], UINT32_MAX);
    }
    /* The first has none before it. */
    encoding_clear();
    encoding_begin(VGPU_GRAPH_NOTHING, follows, 1);
    assert_refused();
}

static void test_counts_of_what_is_followed(void **state)
{
    static const uint32_t wrong[] = {0, 3, 4, 5, 1u << 29, 1u << 30, 3u << 30, UINT32_MAX};
    static const uint32_t follows[] = {0, 0};
    struct vgpu_graph_node *node;

    (void)state;
    encoding_begin(VGPU_GRAPH_NOTHING, NULL, 0);
    encoding_begin(VGPU_GRAPH_NOTHING, NULL, 0);
    node = encoding_begin(VGPU_GRAPH_NOTHING, follows, 2);
    encoding_begin(VGPU_GRAPH_NOTHING, NULL, 0);
    for (size_t i = 0; i < sizeof(wrong) / sizeof(wrong[0]); i++) {
        REFUSED_AT(node->follows, wrong[i]);
    }
    /* One number takes as many bytes as two. */
    node->follows = 1;
    assert_taken();
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, graphs_set_up, graphs_tear_down)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(test_nodes_of_all_kinds),
        TEST(test_graph_of_nothing),
        TEST(test_truncated_images),
        TEST(test_bytes_behind_the_nodes),
        TEST(test_other_counts_of_nodes),
        TEST(test_most_nodes),
        TEST(test_lengths_of_nodes),
        TEST(test_length_that_is_no_multiple),
        TEST(test_reserved_fields_of_nodes),
        TEST(test_unknown_kinds),
        TEST(test_first_error),
        TEST(test_nodes_follow_those_before),
        TEST(test_counts_of_what_is_followed),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
