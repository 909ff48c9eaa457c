/* SPDX-License-Identifier: MIT */
/*
 * Graphs as they are made, updated and launched on a GPU that has no graphs of its own: their nodes
 * are carried out one by one. The GPU is a fake that notes what it is asked for.
 *
 * Tests: worker/exec-graph*.c
 */
#include <string.h>

#include "tests/unit/graph-fixture.h"
#include "worker/api-calls.h"

#define WAIT_EQUAL 1 /* of CUstreamWaitValue_flags */

struct gpu_stream {
    int dummy;
};

/* What was asked for. */
static struct {
    char log[256];
    struct gpu_rows rows;
    struct gpu_fill_rows fill;
    const struct gpu_launch *launch;
    uint64_t word, value;
    unsigned flags;
    struct gpu_stream *stream;
    enum vgpu_gpu_error next; /* what it ends with, once */
} seen;

static struct gpu_stream stream;
static struct gpu_calls calls;

static enum vgpu_gpu_error note(const char *what)
{
    const enum vgpu_gpu_error error = seen.next;

    seen.next = VGPU_GPU_SUCCESS;
    assert_true(strlen(seen.log) + strlen(what) < sizeof(seen.log));
    strcat(seen.log, what);
    return error;
}

/* Compares the notes, and begins new ones. */
static void assert_noted(const char *what)
{
    assert_string_equal(seen.log, what);
    seen.log[0] = '\0';
}

static enum vgpu_gpu_error see_launch(struct gpu *gpu, struct gpu_function *function,
                                      const struct gpu_launch *launch, struct gpu_stream *on)
{
    assert_ptr_equal(gpu, &graphs.gpu);
    assert_ptr_equal(function, &graph_function);
    seen.launch = launch;
    seen.stream = on;
    return note("kernel ");
}

static enum vgpu_gpu_error see_copy(struct gpu *gpu, const struct gpu_rows *rows,
                                    struct gpu_stream *on)
{
    (void)gpu;
    seen.rows = *rows;
    seen.stream = on;
    return note("copy ");
}

static enum vgpu_gpu_error see_fill(struct gpu *gpu, const struct gpu_fill_rows *fill,
                                    struct gpu_stream *on)
{
    (void)gpu;
    seen.fill = *fill;
    seen.stream = on;
    return note("fill ");
}

static enum vgpu_gpu_error see_write(struct gpu *gpu, struct gpu_stream *on, CUdeviceptr address,
                                     uint32_t value, unsigned flags)
{
    (void)gpu;
    seen.stream = on;
    seen.word = address;
    seen.value = value;
    seen.flags = flags;
    return note("write ");
}

static enum vgpu_gpu_error see_wait(struct gpu *gpu, struct gpu_stream *on, CUdeviceptr address,
                                    uint32_t value, unsigned flags)
{
    see_write(gpu, on, address, value, flags);
    seen.log[strlen(seen.log) - strlen("write ")] = '\0';
    return note("wait ");
}

static int set_up(void **state)
{
    const int r = graphs_set_up(state);

    memset(&seen, 0, sizeof(seen));
    calls.cuStreamWriteValue32_v2 = see_write;
    calls.cuStreamWaitValue32_v2 = see_wait;
    graphs.gpu.calls = &calls;
    graphs.ops.launch = see_launch;
    graphs.ops.copy_rows = see_copy;
    graphs.ops.fill_rows = see_fill;
    return r;
}

/* Launches all of it, and returns in how many steps. */
static unsigned launch(struct graph *graph)
{
    uint64_t place = 0;
    bool again = true;
    unsigned steps = 0;

    while (again) {
        again = false;
        assert_int_equal(graph_launch(&graphs.gpu, graph, &stream, &place, &again),
                         VGPU_GPU_SUCCESS);
        steps++;
    }
    return steps;
}

static const struct vgpu_graph_copy box = {
    .to = GRAPH_DEVICE,
    .to_pitch = 64,
    .to_rows = 4,
    .from = GRAPH_DEVICE + 65536,
    .from_pitch = 32,
    .from_rows = 5,
    .width = 16,
    .height = 3,
    .depth = 3,
    .kind = VGPU_COPY_ON_DEVICE,
};
static const struct vgpu_graph_fill rows = {
    .to = GRAPH_DEVICE, .pitch = 64, .width = 8, .height = 4, .value = 7, .element = 2};

/* Node by node ------------------------------------------------------------------------------- */

static void test_nodes_in_their_order(void **state)
{
    struct graph *graph;

    (void)state;
    encoding_kernel(graphs.function, "p", 1);
    encoding_begin(VGPU_GRAPH_NOTHING, NULL, 0);
    encoding_copy(&box);
    encoding_gate(graph_arena(8));
    encoding_fill(&rows);
    graph = encoding_graph();
    assert_int_equal(launch(graph), 1 + 1 + 3 + 3 + 1);
    assert_noted("kernel copy copy copy write wait write fill ");
    assert_int_equal(launch(graph), 9);
    assert_noted("kernel copy copy copy write wait write fill ");
    assert_ptr_equal(seen.stream, &stream);
    graph_free(&graphs.needs, graph);
}

/* One step, and whether it says that there is more. */
static bool step(struct graph *graph, uint64_t *place)
{
    bool again = false;

    assert_int_equal(graph_launch(&graphs.gpu, graph, &stream, place, &again), VGPU_GPU_SUCCESS);
    return again;
}

static void test_what_nodes_ask_for(void **state)
{
    struct graph *graph;
    uint64_t place = 0;

    (void)state;
    encoding_kernel(graphs.function, "params", 6)->grid[1] = 5;
    encoding_fill(&rows);
    graph = encoding_graph();
    assert_true(step(graph, &place));
    assert_int_equal(seen.launch->shape->grid[1], 5);
    assert_int_equal(seen.launch->param_bytes, 6);
    assert_memory_equal(seen.launch->params, "params", 6);
    assert_false(step(graph, &place));
    assert_true(seen.fill.address == rows.to && seen.fill.pitch == rows.pitch);
    assert_true(seen.fill.width == rows.width && seen.fill.rows == rows.height);
    assert_true(seen.fill.value == rows.value && seen.fill.element == rows.element);
    graph_free(&graphs.needs, graph);
}

static void test_slices_of_copies(void **state)
{
    struct graph *graph;
    uint64_t place = 0;

    (void)state;
    encoding_copy(&box);
    graph = encoding_graph();
    for (uint64_t i = 0; i < box.depth; i++) {
        const bool again = step(graph, &place);

        assert_int_equal(again, i + 1 < box.depth);
        assert_int_equal(seen.rows.kind, box.kind);
        assert_int_equal(seen.rows.to, box.to + i * 4 * 64);
        assert_int_equal(seen.rows.from, box.from + i * 5 * 32);
        assert_true(seen.rows.to_pitch == 64 && seen.rows.from_pitch == 32);
        assert_true(seen.rows.width == 16 && seen.rows.rows == 3);
    }
    graph_free(&graphs.needs, graph);
}

static void test_parts_of_gates(void **state)
{
    static const unsigned values[] = {1, 2, 0};
    struct graph *graph;
    uint64_t place = 0;

    (void)state;
    encoding_gate(graph_arena(16));
    graph = encoding_graph();
    for (unsigned i = 0; i < 3; i++) {
        const bool again = step(graph, &place);

        assert_int_equal(again, i < 2);
        assert_int_equal(seen.word, graph_arena(16));
        assert_int_equal(seen.value, values[i]);
        assert_int_equal(seen.flags, i == 1 ? WAIT_EQUAL : 0);
    }
    assert_noted("write wait write ");
    graph_free(&graphs.needs, graph);
}

static void test_launch_behind_the_end(void **state)
{
    struct graph *graph;
    uint64_t place = 0;

    (void)state;
    graph = encoding_graph();
    assert_false(step(graph, &place));
    graph_free(&graphs.needs, graph);
    encoding_fill(&rows);
    graph = encoding_graph();
    assert_false(step(graph, &place));
    assert_false(step(graph, &place));
    assert_noted("fill ");
    graph_free(&graphs.needs, graph);
}

static void test_node_that_fails(void **state)
{
    struct graph *graph;
    uint64_t place = 0;
    bool again = false;

    (void)state;
    encoding_fill(&rows);
    encoding_fill(&rows);
    graph = encoding_graph();
    seen.next = VGPU_GPU_UNKNOWN;
    assert_int_equal(graph_launch(&graphs.gpu, graph, &stream, &place, &again), VGPU_GPU_UNKNOWN);
    assert_int_equal(launch(graph), 2);
    graph_free(&graphs.needs, graph);
}

static void test_update_of_nodes(void **state)
{
    struct graph *graph;

    (void)state;
    encoding_fill(&rows);
    graph = encoding_graph();
    encoding_clear();
    encoding_kernel(graphs.function, NULL, 0);
    encoding_copy(&box);
    assert_int_equal(encoding_update(graph), VGPU_GPU_SUCCESS);
    launch(graph);
    assert_noted("kernel copy copy copy ");
    /* One that is wrong leaves it as it is. */
    encoding_begin(VGPU_GRAPH_GATE + 1, NULL, 0);
    assert_int_equal(encoding_update(graph), VGPU_GPU_NOT_SUPPORTED);
    encoding_clear();
    encoding_fill(&rows)->width = 0;
    assert_int_equal(encoding_update(graph), VGPU_GPU_INVALID_VALUE);
    launch(graph);
    assert_noted("kernel copy copy copy ");
    graph_free(&graphs.needs, graph);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, set_up, graphs_tear_down)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(test_nodes_in_their_order),  TEST(test_what_nodes_ask_for),
        TEST(test_slices_of_copies),      TEST(test_parts_of_gates),
        TEST(test_launch_behind_the_end), TEST(test_node_that_fails),
        TEST(test_update_of_nodes),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
