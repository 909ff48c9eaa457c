/* SPDX-License-Identifier: MIT */
/*
 * Graphs as a guest calls for them: an encoding that is brought over, the handle of what is made of
 * it, launches among other work, and what a session leaves. What encodings may be is in
 * test-graph-encoding.c.
 *
 * Tests: worker/api-host*.c, worker/exec-graph*.c
 */
#include <string.h>

#include "tests/unit/graph-fixture.h"
#include "tests/unit/guest-call.h"

struct gpu_graph {
    int dummy;
};

static const struct vgpu_graph_fill words = {
    .to = FAKE_ADDRESS, .pitch = 64, .width = 8, .height = 4, .element = 4};

static struct {
    struct gpu_ops ops;
    struct gpu_graph graph;
    unsigned made, updated, launched, destroyed;
} own;

static enum vgpu_gpu_error own_make(struct gpu *gpu, const struct gpu_graph_node *nodes,
                                    uint32_t count, struct gpu_graph **graph)
{
    (void)gpu;
    (void)nodes;
    (void)count;
    own.made++;
    *graph = &own.graph;
    return VGPU_GPU_SUCCESS;
}

static enum vgpu_gpu_error own_update(struct gpu *gpu, struct gpu_graph *graph,
                                      const struct gpu_graph_node *nodes, uint32_t count)
{
    (void)gpu;
    (void)nodes;
    (void)count;
    assert_ptr_equal(graph, &own.graph);
    own.updated++;
    return VGPU_GPU_SUCCESS;
}

static enum vgpu_gpu_error own_launch(struct gpu *gpu, struct gpu_graph *graph,
                                      struct gpu_stream *stream)
{
    (void)gpu;
    (void)stream;
    assert_ptr_equal(graph, &own.graph);
    own.launched++;
    return VGPU_GPU_SUCCESS;
}

static void own_destroy(struct gpu *gpu, struct gpu_graph *graph)
{
    (void)gpu;
    assert_ptr_equal(graph, &own.graph);
    own.destroyed++;
}

static int set_up(void **state)
{
    const int r = fixture_set_up(state);

    encoding_clear();
    return r;
}

/* The same, where the GPU has graphs of its own. */
static int set_up_own(void **state)
{
    const int r = set_up(state);

    memset(&own, 0, sizeof(own));
    own.ops = *fake.head.ops;
    own.ops.graph_make = own_make;
    own.ops.graph_update = own_update;
    own.ops.graph_launch = own_launch;
    own.ops.graph_destroy = own_destroy;
    fake.head.ops = &own.ops;
    return r;
}

/* Brings the encoding over. */
static void bring(void)
{
    const uint64_t at = (uint64_t)(uintptr_t)fixture.arena + 4096;

    memcpy(fixture.arena + 4096, graphs.encoding.bytes, graphs.encoding.used);
    assert_int_equal(CALL(CALL_UPLOAD_BEGIN, graphs.encoding.used), VGPU_GPU_SUCCESS);
    assert_int_equal(CALL(CALL_UPLOAD_WRITE, 0, at, graphs.encoding.used), VGPU_GPU_SUCCESS);
    memset(fixture.arena + 4096, 0xee, graphs.encoding.used);
}

static uint64_t make_graph(void)
{
    bring();
    assert_int_equal(CALL(CALL_GRAPH_MAKE, graphs.encoding.count), VGPU_GPU_SUCCESS);
    assert_int_not_equal(result_word(), 0);
    return result_word();
}

/* Images ------------------------------------------------------------------------------------- */

static void test_make_without_an_image(void **state)
{
    (void)state;
    assert_int_equal(CALL(CALL_GRAPH_MAKE, 1), VGPU_GPU_INVALID_VALUE);
    assert_int_equal(CALL(CALL_GRAPH_MAKE, UINT32_MAX), VGPU_GPU_INVALID_VALUE);
    /* A graph of no nodes needs none. */
    assert_int_equal(CALL(CALL_GRAPH_MAKE, 0), VGPU_GPU_SUCCESS);
    assert_int_equal(CALL(CALL_GRAPH_LAUNCH, result_word(), 0), VGPU_GPU_SUCCESS);
    assert_string_equal(fake_log(), "");
}

static void test_image_is_for_one_graph(void **state)
{
    uint64_t graph;

    (void)state;
    encoding_fill(&words);
    graph = make_graph();
    assert_int_equal(CALL(CALL_GRAPH_MAKE, 1), VGPU_GPU_INVALID_VALUE);
    assert_int_equal(CALL(CALL_GRAPH_UPDATE, graph, 1), VGPU_GPU_INVALID_VALUE);
    /* And for one try. */
    bring();
    assert_int_equal(CALL(CALL_GRAPH_MAKE, 2), VGPU_GPU_INVALID_VALUE);
    assert_int_equal(CALL(CALL_GRAPH_MAKE, 1), VGPU_GPU_INVALID_VALUE);
    bring();
    assert_int_equal(CALL(CALL_GRAPH_UPDATE, graph, 2), VGPU_GPU_INVALID_VALUE);
    assert_int_equal(CALL(CALL_GRAPH_UPDATE, graph, 1), VGPU_GPU_INVALID_VALUE);
    assert_int_equal(CALL(CALL_GRAPH_LAUNCH, graph, 0), VGPU_GPU_SUCCESS);
    assert_string_equal(fake_log(), "fill rows");
}

/* Handles ------------------------------------------------------------------------------------ */

static void test_handles_of_graphs(void **state)
{
    const uint64_t stream = make(VGPU_CMD_STREAM_CREATE, 0);
    uint64_t graph;

    (void)state;
    encoding_fill(&words);
    graph = make_graph();
    {
        const uint64_t wrong[] = {0, stream, graph ^ 1, graph ^ UINT64_C(1) << 40, UINT64_MAX};

        for (size_t i = 0; i < sizeof(wrong) / sizeof(wrong[0]); i++) {
            assert_int_equal(CALL(CALL_GRAPH_LAUNCH, wrong[i], 0), VGPU_GPU_INVALID_HANDLE);
            assert_int_equal(CALL(CALL_GRAPH_UPDATE, wrong[i], 1), VGPU_GPU_INVALID_HANDLE);
            assert_int_equal(CALL(CALL_GRAPH_DESTROY, wrong[i]), VGPU_GPU_INVALID_HANDLE);
        }
    }
    assert_int_equal(CALL(CALL_GRAPH_LAUNCH, graph, graph), VGPU_GPU_INVALID_HANDLE);
    assert_string_equal(fake_log(), "");
    assert_int_equal(CALL(CALL_GRAPH_LAUNCH, graph, stream), VGPU_GPU_SUCCESS);
    assert_string_equal(fake_log(), "fill rows");
}

static void test_destroyed_graphs(void **state)
{
    uint64_t first, second;

    (void)state;
    encoding_fill(&words);
    first = make_graph();
    assert_int_equal(CALL(CALL_GRAPH_DESTROY, first), VGPU_GPU_SUCCESS);
    assert_int_equal(CALL(CALL_GRAPH_DESTROY, first), VGPU_GPU_INVALID_HANDLE);
    second = make_graph();
    assert_int_not_equal(first, second);
    assert_int_equal(CALL(CALL_GRAPH_LAUNCH, first, 0), VGPU_GPU_INVALID_HANDLE);
    assert_int_equal(CALL(CALL_GRAPH_UPDATE, first, 1), VGPU_GPU_INVALID_HANDLE);
    assert_int_equal(CALL(CALL_GRAPH_LAUNCH, second, 0), VGPU_GPU_SUCCESS);
    /* Their places are used again. */
    for (unsigned i = 0; i < 1000; i++) {
        assert_int_equal(CALL(CALL_GRAPH_DESTROY, second), VGPU_GPU_SUCCESS);
        second = make_graph();
    }
    assert_true(fixture.session.handles.count <= 64);
}

static void test_too_many_handles(void **state)
{
    static int object;

    (void)state;
    while (handles_add(&fixture.session.handles, HANDLE_FUNCTION, &object, 1) != 0) {
    }
    encoding_fill(&words);
    bring();
    assert_int_equal(CALL(CALL_GRAPH_MAKE, 1), VGPU_GPU_OUT_OF_MEMORY);
    assert_true(own.made == 1 && own.destroyed == 1);
}

/* Launches ----------------------------------------------------------------------------------- */

/* In steps of one command, none of which goes before the last is through. */
static void test_launch_goes_through_all_nodes(void **state)
{
    const uint64_t function = make_function(make_module(), "f");
    uint64_t graph;

    (void)state;
    fake_log();
    encoding_kernel(function, "params", 6);
    encoding_copy(&(struct vgpu_graph_copy){
        .to = FAKE_ADDRESS,
        .to_pitch = 16,
        .to_rows = 2,
        .from = FAKE_ADDRESS + 4096,
        .from_pitch = 16,
        .from_rows = 2,
        .width = 16,
        .height = 2,
        .depth = 2,
        .kind = VGPU_COPY_ON_DEVICE,
    });
    encoding_begin(VGPU_GRAPH_NOTHING, NULL, 0);
    encoding_fill(&words);
    graph = make_graph();
    for (unsigned i = 0; i < 2; i++) {
        POST(0, CALL_GRAPH_LAUNCH, graph, 0);
        post_fill(1, FAKE_ADDRESS, 4, 4);
        assert_int_equal(steps(), 0);
        assert_string_equal(fake_log(), "launch copy rows copy rows fill rows fill");
        assert_int_equal(result_of(1), VGPU_GPU_SUCCESS);
        fake_finish();
    }
}

static void test_launch_that_fails(void **state)
{
    uint64_t graph;

    (void)state;
    encoding_fill(&words);
    encoding_fill(&words);
    graph = make_graph();
    fake.next = VGPU_GPU_UNKNOWN;
    assert_int_equal(CALL(CALL_GRAPH_LAUNCH, graph, 0), VGPU_GPU_UNKNOWN);
    assert_string_equal(fake_log(), "fill rows");
    /* The next one begins at the begin. */
    assert_int_equal(CALL(CALL_GRAPH_LAUNCH, graph, 0), VGPU_GPU_SUCCESS);
    assert_string_equal(fake_log(), "fill rows fill rows");
}

static void test_update(void **state)
{
    uint64_t graph;

    (void)state;
    encoding_fill(&words);
    graph = make_graph();
    encoding_fill(&words);
    bring();
    assert_int_equal(CALL(CALL_GRAPH_UPDATE, graph, 2), VGPU_GPU_SUCCESS);
    assert_int_equal(CALL(CALL_GRAPH_LAUNCH, graph, 0), VGPU_GPU_SUCCESS);
    assert_string_equal(fake_log(), "fill rows fill rows");
    encoding_begin(VGPU_GRAPH_GATE + 1, NULL, 0);
    bring();
    assert_int_equal(CALL(CALL_GRAPH_UPDATE, graph, 3), VGPU_GPU_NOT_SUPPORTED);
    assert_int_equal(CALL(CALL_GRAPH_LAUNCH, graph, 0), VGPU_GPU_SUCCESS);
    assert_string_equal(fake_log(), "fill rows fill rows");
}

static void test_graphs_of_the_gpu(void **state)
{
    uint64_t graph;

    (void)state;
    encoding_fill(&words);
    encoding_fill(&words);
    graph = make_graph();
    bring();
    assert_int_equal(CALL(CALL_GRAPH_UPDATE, graph, 2), VGPU_GPU_SUCCESS);
    assert_int_equal(CALL(CALL_GRAPH_LAUNCH, graph, 0), VGPU_GPU_SUCCESS);
    assert_true(own.made == 1 && own.updated == 1 && own.launched == 1 && own.destroyed == 0);
    assert_int_equal(CALL(CALL_GRAPH_DESTROY, graph), VGPU_GPU_SUCCESS);
    assert_int_equal(own.destroyed, 1);
    assert_string_equal(fake_log(), "");
}

/* What a session leaves is freed with it. */
static void test_graphs_at_the_end(void **state)
{
    (void)state;
    encoding_fill(&words);
    make_graph();
    make_graph();
    bring();
}

static int tear_down_two(void **state)
{
    const int r = fixture_tear_down(state);

    return own.destroyed == 2 ? r : -1;
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, set_up, fixture_tear_down)
#define OWN_TEST(name) cmocka_unit_test_setup_teardown(name, set_up_own, fixture_tear_down)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(test_make_without_an_image),
        TEST(test_image_is_for_one_graph),
        TEST(test_handles_of_graphs),
        TEST(test_destroyed_graphs),
        OWN_TEST(test_too_many_handles),
        TEST(test_launch_goes_through_all_nodes),
        TEST(test_launch_that_fails),
        TEST(test_update),
        OWN_TEST(test_graphs_of_the_gpu),
        TEST(test_graphs_at_the_end),
        cmocka_unit_test_setup_teardown(test_graphs_at_the_end, set_up_own, tear_down_two),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
