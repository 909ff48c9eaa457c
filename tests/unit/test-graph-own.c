/* SPDX-License-Identifier: MIT */
/*
 * Graphs on a GPU that has them itself: it is given the nodes once, and all that is done with the
 * graph goes to it. It is a fake that notes what it is asked for.
 *
 * Tests: worker/exec-graph*.c
 */
#include <string.h>

#include "tests/unit/graph-fixture.h"

struct gpu_stream {
    int dummy;
};
struct gpu_graph {
    int dummy;
};

/* What was asked for. */
static struct {
    char log[256];
    enum vgpu_gpu_error next; /* what it ends with, once */
    struct gpu_graph *graph;
    struct gpu_stream *stream;
    uint32_t nodes;
    uint64_t last_gate; /* of the last node */
} seen;

static const struct vgpu_graph_fill words = {
    .to = GRAPH_DEVICE, .pitch = 64, .width = 8, .height = 4, .value = 7, .element = 4};
static struct gpu_stream stream;
static struct gpu_graph backend_graph;

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

static enum vgpu_gpu_error see_graph_make(struct gpu *gpu, const struct gpu_graph_node *nodes,
                                          uint32_t count, struct gpu_graph **graph)
{
    const enum vgpu_gpu_error error = note("make ");

    (void)gpu;
    seen.nodes = count;
    seen.last_gate = nodes[count - 1].gate;
    if (error == VGPU_GPU_SUCCESS) {
        *graph = &backend_graph;
    }
    return error;
}

static enum vgpu_gpu_error see_graph_update(struct gpu *gpu, struct gpu_graph *graph,
                                            const struct gpu_graph_node *nodes, uint32_t count)
{
    (void)gpu;
    seen.graph = graph;
    seen.nodes = count;
    seen.last_gate = nodes[count - 1].gate;
    return note("update ");
}

static enum vgpu_gpu_error see_graph_launch(struct gpu *gpu, struct gpu_graph *graph,
                                            struct gpu_stream *on)
{
    (void)gpu;
    seen.graph = graph;
    seen.stream = on;
    return note("launch ");
}

static void see_graph_destroy(struct gpu *gpu, struct gpu_graph *graph)
{
    (void)gpu;
    seen.graph = graph;
    note("destroy ");
}

static int set_up(void **state)
{
    const int r = graphs_set_up(state);

    memset(&seen, 0, sizeof(seen));
    graphs.ops.graph_make = see_graph_make;
    graphs.ops.graph_update = see_graph_update;
    graphs.ops.graph_launch = see_graph_launch;
    graphs.ops.graph_destroy = see_graph_destroy;
    return r;
}

/* One step, and whether it says that there is more. */
static bool step(struct graph *graph, uint64_t *place)
{
    bool again = false;

    assert_int_equal(graph_launch(&graphs.gpu, graph, &stream, place, &again), VGPU_GPU_SUCCESS);
    return again;
}

static void test_graph_of_its_own(void **state)
{
    struct graph *graph;
    uint64_t place = 5;

    (void)state;
    encoding_fill(&words);
    encoding_gate(graph_arena(32));
    graph = encoding_graph();
    assert_noted("make ");
    assert_int_equal(seen.nodes, 2);
    assert_int_equal(seen.last_gate, graph_arena(32));
    /* Nothing is kept of what the backend has. */
    assert_true(!graph->encoding && !graph->nodes);
    assert_false(step(graph, &place));
    assert_int_equal(place, 5);
    assert_false(step(graph, &place));
    assert_noted("launch launch ");
    assert_ptr_equal(seen.graph, &backend_graph);
    assert_ptr_equal(seen.stream, &stream);
    seen.graph = NULL;
    graph_free(&graphs.needs, graph);
    assert_ptr_equal(seen.graph, &backend_graph);
    assert_noted("destroy ");
}

static void test_update_of_its_own(void **state)
{
    struct graph *graph;
    uint64_t place = 0;

    (void)state;
    encoding_gate(graph_arena(0));
    graph = encoding_graph();
    assert_noted("make ");
    encoding_fill(&words);
    encoding_gate(graph_arena(64));
    assert_int_equal(encoding_update(graph), VGPU_GPU_SUCCESS);
    assert_ptr_equal(seen.graph, &backend_graph);
    assert_int_equal(seen.nodes, 3);
    assert_int_equal(seen.last_gate, graph_arena(64));
    assert_noted("update ");
    seen.next = VGPU_GPU_UNKNOWN;
    assert_int_equal(encoding_update(graph), VGPU_GPU_UNKNOWN);
    assert_noted("update ");
    /* What is wrong does not get there. */
    encoding_gate(graph_arena(1));
    assert_int_equal(encoding_update(graph), VGPU_GPU_INVALID_VALUE);
    assert_false(step(graph, &place));
    graph_free(&graphs.needs, graph);
    assert_noted("launch destroy ");
}

static void test_graph_that_the_gpu_refuses(void **state)
{
    (void)state;
    encoding_fill(&words);
    seen.next = VGPU_GPU_OUT_OF_MEMORY;
    assert_int_equal(encoding_take_all(), VGPU_GPU_OUT_OF_MEMORY);
    assert_noted("make ");
    encoding_gate(graph_arena(1));
    assert_refused();
    assert_noted("");
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, set_up, graphs_tear_down)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(test_graph_of_its_own),
        TEST(test_update_of_its_own),
        TEST(test_graph_that_the_gpu_refuses),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
