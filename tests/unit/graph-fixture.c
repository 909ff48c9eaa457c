/* SPDX-License-Identifier: MIT */
/* Encodings of graphs for tests, see graph-fixture.h. */
#include "tests/unit/graph-fixture.h"

#include <stdlib.h>
#include <string.h>

struct graph_fixture graphs;
int graph_function;

int graphs_set_up(void **state)
{
    (void)state;
    memset(&graphs, 0, sizeof(graphs));
    graphs.gpu.ops = &graphs.ops;
    graphs.gpu.arena = (struct gpu_arena){graphs.arena, GRAPH_ARENA};
    graphs.needs = (struct graph_needs){
        .gpu = &graphs.gpu, .handles = &graphs.handles, .sum = &graphs.sum};
    graphs.function = handles_add(&graphs.handles, HANDLE_FUNCTION, &graph_function, 1);
    return graphs.function == 0;
}

int graphs_tear_down(void **state)
{
    (void)state;
    handles_release(&graphs.handles);
    return 0;
}

uint64_t graph_arena(uint64_t offset)
{
    return (uint64_t)(uintptr_t)graphs.arena + offset;
}

void encoding_clear(void)
{
    graphs.encoding.used = graphs.encoding.count = 0;
}

void *encoding_put(const void *bytes, size_t count)
{
    struct graph_encoding *encoding = &graphs.encoding;
    const uint32_t padded = (uint32_t)(count + 7) & ~7u;
    uint8_t *at = encoding->bytes + encoding->used;

    assert_true(encoding->used + padded <= sizeof(encoding->bytes));
    if (count > 0) {
        memset(at, 0, padded);
        memcpy(at, bytes, count);
    }
    encoding->used += padded;
    encoding->node->bytes += padded;
    return at;
}

struct vgpu_graph_node *encoding_begin(uint32_t kind, const uint32_t *follows, uint32_t count)
{
    struct graph_encoding *encoding = &graphs.encoding;

    encoding->node = (void *)(encoding->bytes + encoding->used);
    *encoding->node = (struct vgpu_graph_node){
        .kind = kind, .bytes = sizeof(*encoding->node), .follows = count};
    encoding->used += (uint32_t)sizeof(*encoding->node);
    encoding->count++;
    encoding_put(follows, count * sizeof(*follows));
    return encoding->node;
}

struct vgpu_graph_copy *encoding_copy(const struct vgpu_graph_copy *copy)
{
    encoding_begin(VGPU_GRAPH_COPY, NULL, 0);
    return encoding_put(copy, sizeof(*copy));
}

struct vgpu_graph_fill *encoding_fill(const struct vgpu_graph_fill *fill)
{
    encoding_begin(VGPU_GRAPH_FILL, NULL, 0);
    return encoding_put(fill, sizeof(*fill));
}

struct vgpu_graph_gate *encoding_gate(uint64_t address)
{
    const struct vgpu_graph_gate gate = {.address = address};

    encoding_begin(VGPU_GRAPH_GATE, NULL, 0);
    return encoding_put(&gate, sizeof(gate));
}

struct vgpu_cmd_launch *encoding_kernel(uint64_t function, const void *params, uint32_t param_bytes)
{
    const struct vgpu_cmd_launch kernel = {
        .function = function,
        .grid = {1, 1, 1},
        .block = {1, 1, 1},
        .param_bytes = param_bytes,
    };
    struct vgpu_cmd_launch *at;

    encoding_begin(VGPU_GRAPH_KERNEL, NULL, 0);
    at = encoding_put(&kernel, sizeof(kernel));
    encoding_put(params, param_bytes);
    return at;
}

uint8_t *encoding_bytes(size_t bytes)
{
    uint8_t *copy = malloc(bytes);

    assert_true(bytes == 0 || copy);
    memcpy(copy, graphs.encoding.bytes, bytes);
    return copy;
}

enum vgpu_gpu_error encoding_take(size_t bytes, uint32_t count)
{
    uint8_t *taken = encoding_bytes(bytes);
    struct graph *graph = NULL;
    const enum vgpu_gpu_error error = graph_make(&graphs.needs, taken, bytes, count, &graph);

    if (error == VGPU_GPU_SUCCESS) {
        graph_free(&graphs.needs, graph);
    } else {
        assert_null(graph);
        free(taken);
    }
    return error;
}

enum vgpu_gpu_error encoding_take_all(void)
{
    return encoding_take(graphs.encoding.used, graphs.encoding.count);
}

struct graph *encoding_graph(void)
{
    const size_t bytes = graphs.encoding.used;
    struct graph *graph = NULL;

    assert_int_equal(
        graph_make(&graphs.needs, encoding_bytes(bytes), bytes, graphs.encoding.count, &graph),
        VGPU_GPU_SUCCESS);
    return graph;
}

enum vgpu_gpu_error encoding_update(struct graph *graph)
{
    const size_t bytes = graphs.encoding.used;
    uint8_t *taken = encoding_bytes(bytes);
    const enum vgpu_gpu_error error = graph_update(&graphs.needs, graph, taken, bytes,
                                                   graphs.encoding.count);

    if (error != VGPU_GPU_SUCCESS) {
        free(taken);
    }
    return error;
}
