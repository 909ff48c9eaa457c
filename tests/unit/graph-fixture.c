/* SPDX-License-Identifier: MIT */
/* Images of graphs for tests, see graph-fixture.h. */
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

void image_clear(void)
{
    graphs.image.used = graphs.image.count = 0;
}

void *image_put(const void *bytes, size_t count)
{
    struct graph_image *image = &graphs.image;
    const uint32_t padded = (uint32_t)(count + 7) & ~7u;
    uint8_t *at = image->bytes + image->used;

    assert_true(image->used + padded <= sizeof(image->bytes));
    if (count > 0) {
        memset(at, 0, padded);
        memcpy(at, bytes, count);
    }
    image->used += padded;
    image->node->bytes += padded;
    return at;
}

struct vgpu_graph_node *image_begin(uint32_t kind, const uint32_t *follows, uint32_t count)
{
    struct graph_image *image = &graphs.image;

    image->node = (void *)(image->bytes + image->used);
    *image->node = (struct vgpu_graph_node){
        .kind = kind, .bytes = sizeof(*image->node), .follows = count};
    image->used += (uint32_t)sizeof(*image->node);
    image->count++;
    image_put(follows, count * sizeof(*follows));
    return image->node;
}

struct vgpu_graph_copy *image_copy(const struct vgpu_graph_copy *copy)
{
    image_begin(VGPU_GRAPH_COPY, NULL, 0);
    return image_put(copy, sizeof(*copy));
}

struct vgpu_graph_fill *image_fill(const struct vgpu_graph_fill *fill)
{
    image_begin(VGPU_GRAPH_FILL, NULL, 0);
    return image_put(fill, sizeof(*fill));
}

struct vgpu_graph_gate *image_gate(uint64_t address)
{
    const struct vgpu_graph_gate gate = {.address = address};

    image_begin(VGPU_GRAPH_GATE, NULL, 0);
    return image_put(&gate, sizeof(gate));
}

struct vgpu_graph_kernel *image_kernel(uint64_t function, const void *params, uint32_t param_bytes)
{
    const struct vgpu_graph_kernel kernel = {
        .launch = {.function = function,
                   .grid = {1, 1, 1},
                   .block = {1, 1, 1},
                   .param_bytes = param_bytes},
    };
    struct vgpu_graph_kernel *at;

    image_begin(VGPU_GRAPH_KERNEL, NULL, 0);
    at = image_put(&kernel, sizeof(kernel));
    image_put(params, param_bytes);
    return at;
}

uint8_t *image_bytes(size_t bytes)
{
    uint8_t *copy = malloc(bytes);

    assert_true(bytes == 0 || copy);
    memcpy(copy, graphs.image.bytes, bytes);
    return copy;
}

enum vgpu_gpu_error image_take(size_t bytes, uint32_t count)
{
    uint8_t *taken = image_bytes(bytes);
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

enum vgpu_gpu_error image_take_all(void)
{
    return image_take(graphs.image.used, graphs.image.count);
}

struct graph *image_graph(void)
{
    const size_t bytes = graphs.image.used;
    struct graph *graph = NULL;

    assert_int_equal(
        graph_make(&graphs.needs, image_bytes(bytes), bytes, graphs.image.count, &graph),
        VGPU_GPU_SUCCESS);
    return graph;
}

enum vgpu_gpu_error image_update(struct graph *graph)
{
    const size_t bytes = graphs.image.used;
    uint8_t *taken = image_bytes(bytes);
    const enum vgpu_gpu_error error = graph_update(&graphs.needs, graph, taken, bytes,
                                                   graphs.image.count);

    if (error != VGPU_GPU_SUCCESS) {
        free(taken);
    }
    return error;
}
