/* SPDX-License-Identifier: MIT */
/*
 * Encodings of graphs for tests, put together as a guest does: a node is begun, and what is put is
 * its own. A test that wants something wrong stores it in what it gets a pointer to. They are taken
 * by a GPU that has no operations but those that a test gives it.
 */
#ifndef VGPU_TESTS_UNIT_GRAPH_FIXTURE_H
#define VGPU_TESTS_UNIT_GRAPH_FIXTURE_H

#include "tests/unit/unit.h"
#include "worker/exec-graph.h"

#define GRAPH_ARENA 4096u                     /* bytes */
#define GRAPH_DEVICE UINT64_C(0x7f0000000000) /* an address that is not in the arena */

struct graph_encoding {
    _Alignas(8) uint8_t bytes[40960];
    uint32_t used, count;
    struct vgpu_graph_node *node; /* the last one */
};

struct graph_fixture {
    struct gpu_ops ops;
    struct gpu gpu;
    struct handles handles;
    struct graph_needs needs;
    struct graph_sum sum;
    uint64_t function; /* a handle of one */
    struct graph_encoding encoding;
    _Alignas(8) uint8_t arena[GRAPH_ARENA];
};
extern struct graph_fixture graphs;

/* The object of graphs.function. */
extern int graph_function;

/* For cmocka. */
int graphs_set_up(void **state);
int graphs_tear_down(void **state);

uint64_t graph_arena(uint64_t offset);

/* An encoding without nodes. */
void encoding_clear(void);

/* Nodes of graphs.encoding; all but the first follow none. What is put is padded. */
struct vgpu_graph_node *encoding_begin(uint32_t kind, const uint32_t *follows, uint32_t count);
void *encoding_put(const void *bytes, size_t count);
struct vgpu_graph_copy *encoding_copy(const struct vgpu_graph_copy *copy);
struct vgpu_graph_fill *encoding_fill(const struct vgpu_graph_fill *fill);
struct vgpu_graph_gate *encoding_gate(uint64_t address);

/* A kernel of one thread. */
struct vgpu_cmd_launch *encoding_kernel(uint64_t function, const void *params,
                                        uint32_t param_bytes);

/* The first bytes of the encoding, in memory of exactly that size: a sanitizer watches its end. */
uint8_t *encoding_bytes(size_t bytes);

/* What is said to those as so many nodes; the graph is freed again. And to the whole encoding. */
enum vgpu_gpu_error encoding_take(size_t bytes, uint32_t count);
enum vgpu_gpu_error encoding_take_all(void);

/* The graph of the whole encoding; fails the test when it is not made. */
struct graph *encoding_graph(void);

/* An update by the whole encoding. */
enum vgpu_gpu_error encoding_update(struct graph *graph);

#define assert_taken() assert_int_equal(encoding_take_all(), VGPU_GPU_SUCCESS)
#define assert_refused() assert_int_equal(encoding_take_all(), VGPU_GPU_INVALID_VALUE)

/* With a field at this value the encoding is refused; as it was it is taken. */
#define REFUSED_AT(field, value)                                                                   \
    do {                                                                                           \
        const uint64_t before_ = (field);                                                          \
        (field) = (value);                                                                         \
        assert_refused();                                                                          \
        (field) = before_;                                                                         \
        assert_taken();                                                                            \
    } while (0)

#endif
