/* SPDX-License-Identifier: MIT */
/* Graphs of work, see exec-graph.h. */
#include "worker/exec-graph.h"

#include <stdlib.h>
#include <string.h>

#include "worker/api-calls.h"
#include "worker/rows.h"

/* A place in a graph whose nodes are carried out one by one: the node, and a part of it. */
#define PLACE_PART_BITS 40
#define PLACE_PARTS (UINT64_C(1) << PLACE_PART_BITS)

/* Decoding ----------------------------------------------------------------------------------- */

/* What is left of an encoding, and of the node that is decoded. */
struct reader {
    const struct graph_needs *needs;
    const uint8_t *at;
    uint64_t left;
    enum vgpu_gpu_error error; /* the first one */
};

static void refuse_node(struct reader *reader, enum vgpu_gpu_error error)
{
    if (reader->error == VGPU_GPU_SUCCESS) {
        reader->error = error;
    }
}

/* The next bytes and the padding behind them; NULL when there are not as many. */
static const void *take_structure(struct reader *reader, uint64_t bytes)
{
    const uint64_t padded = (bytes + 7) & ~UINT64_C(7);
    const void *taken = reader->at;

    if (bytes > reader->left || padded > reader->left) {
        refuse_node(reader, VGPU_GPU_INVALID_VALUE);
        return NULL;
    }
    reader->at += padded;
    reader->left -= padded;
    return taken;
}

static void check_node(struct reader *reader, bool good)
{
    if (!good) {
        refuse_node(reader, VGPU_GPU_INVALID_VALUE);
    }
}

static void decode_kernel(struct reader *reader, struct gpu_graph_node *node)
{
    const struct vgpu_cmd_launch *shape = take_structure(reader, sizeof(*shape));
    struct gpu_launch *launch = &node->kernel.launch;

    if (!shape) {
        return;
    }
    check_node(reader,
               shape->attributes <= VGPU_ATTRIBUTES_MAX && shape->param_bytes <= VGPU_PARAMS_MAX);
    for (int i = 0; i < 3; i++) {
        check_node(reader, shape->grid[i] != 0 && shape->block[i] != 0);
    }
    node->kernel.function = handles_get(reader->needs->handles, HANDLE_FUNCTION, shape->function);
    if (!node->kernel.function) {
        refuse_node(reader, VGPU_GPU_INVALID_HANDLE);
    }
    launch->shape = shape;
    launch->attribute_count = (uint32_t)shape->attributes;
    launch->attributes = take_structure(reader, shape->attributes * sizeof(CUlaunchAttribute));
    launch->param_bytes = shape->param_bytes;
    launch->params = take_structure(reader, launch->param_bytes);
    for (uint32_t i = 0; reader->error == VGPU_GPU_SUCCESS && i < launch->attribute_count; i++) {
        if (!api_attribute_is_plain(launch->attributes[i].id)) {
            refuse_node(reader, VGPU_GPU_NOT_SUPPORTED);
        }
    }
}

static void decode_copy(struct reader *reader, struct gpu_graph_node *node)
{
    const struct gpu_arena *arena = &reader->needs->gpu->arena;
    const struct vgpu_graph_copy *copy = take_structure(reader, sizeof(*copy));

    if (!copy) {
        return;
    }
    node->copy = *copy;
    check_node(
        reader,
        copy->reserved == 0 && copy->kind >= VGPU_COPY_TO_DEVICE &&
            copy->kind <= VGPU_COPY_ON_DEVICE && copy->width > 0 && copy->height > 0 &&
            copy->depth > 0 && copy->depth < PLACE_PARTS &&
            rows_fit(arena, &(struct rows_side){copy->to, copy->to_pitch, copy->to_rows},
                     copy->kind == VGPU_COPY_FROM_DEVICE, copy->width, copy->height, copy->depth) &&
            rows_fit(arena, &(struct rows_side){copy->from, copy->from_pitch, copy->from_rows},
                     copy->kind == VGPU_COPY_TO_DEVICE, copy->width, copy->height, copy->depth));
}

static void decode_fill(struct reader *reader, struct gpu_graph_node *node)
{
    const struct vgpu_graph_fill *fill = take_structure(reader, sizeof(*fill));
    uint64_t bytes;

    if (!fill) {
        return;
    }
    node->fill = *fill;
    check_node(reader, (fill->element == 1 || fill->element == 2 || fill->element == 4) &&
                           fill->to % fill->element == 0 && fill->width > 0 && fill->height > 0 &&
                           (fill->height == 1 || fill->pitch % fill->element == 0) &&
                           !__builtin_mul_overflow(fill->width, fill->element, &bytes) &&
                           rows_fit(&reader->needs->gpu->arena,
                                    &(struct rows_side){fill->to, fill->pitch, fill->height}, false,
                                    bytes, fill->height, 1));
}

static void decode_gate(struct reader *reader, struct gpu_graph_node *node)
{
    const struct vgpu_graph_gate *gate = take_structure(reader, sizeof(*gate));

    if (gate) {
        node->gate = gate->address;
        check_node(reader, gate->address % 4 == 0 &&
                               gpu_in_arena(&reader->needs->gpu->arena, gate->address, 4));
    }
}

/* The node of this number. */
static void decode_node(struct reader *reader, uint32_t number, struct gpu_graph_node *node)
{
    const struct vgpu_graph_node *head = take_structure(reader, sizeof(*head));
    const uint64_t rest = reader->left;

    if (!head || head->bytes < sizeof(*head) || head->bytes - sizeof(*head) > rest ||
        head->bytes % 8 != 0 || head->reserved != 0) {
        refuse_node(reader, VGPU_GPU_INVALID_VALUE);
        return;
    }
    reader->left = head->bytes - sizeof(*head);
    node->kind = (enum vgpu_graph_kind)head->kind;
    node->follow_count = head->follows;
    check_node(reader, head->follows <= number);
    node->follows = take_structure(reader, (uint64_t)head->follows * sizeof(*node->follows));
    for (uint32_t i = 0; node->follows && i < node->follow_count; i++) {
        check_node(reader, node->follows[i] < number);
    }
    switch (head->kind) {
    case VGPU_GRAPH_NOTHING:
        break;
    case VGPU_GRAPH_KERNEL:
        decode_kernel(reader, node);
        break;
    case VGPU_GRAPH_COPY:
        decode_copy(reader, node);
        break;
    case VGPU_GRAPH_FILL:
        decode_fill(reader, node);
        break;
    case VGPU_GRAPH_GATE:
        decode_gate(reader, node);
        break;
    default:
        refuse_node(reader, VGPU_GPU_NOT_SUPPORTED);
    }
    check_node(reader, reader->left == 0);
    reader->left = rest - (head->bytes - sizeof(*head));
}

static enum vgpu_gpu_error decode_nodes(const struct graph_needs *needs, const uint8_t *encoding,
                                        uint64_t bytes, uint32_t count,
                                        struct gpu_graph_node **nodes)
{
    struct reader reader = {.needs = needs, .at = encoding, .left = encoding ? bytes : 0};
    struct gpu_graph_node *made;

    if (count > VGPU_GRAPH_NODES_MAX || count > reader.left / sizeof(struct vgpu_graph_node)) {
        return VGPU_GPU_INVALID_VALUE;
    }
    if (count > VGPU_GRAPH_NODES_MAX - needs->sum->nodes ||
        reader.left > GRAPH_BYTES_MAX - needs->sum->bytes) {
        return VGPU_GPU_OUT_OF_MEMORY;
    }
    made = calloc(count + 1, sizeof(*made));
    if (!made) {
        return VGPU_GPU_OUT_OF_MEMORY;
    }
    for (uint32_t i = 0; reader.error == VGPU_GPU_SUCCESS && i < count; i++) {
        decode_node(&reader, i, &made[i]);
    }
    check_node(&reader, reader.left == 0);
    if (reader.error != VGPU_GPU_SUCCESS) {
        free(made);
        return reader.error;
    }
    *nodes = made;
    return VGPU_GPU_SUCCESS;
}

/* Graphs ------------------------------------------------------------------------------------- */

/* The nodes are kept where the backend has made nothing of them. */
static void keep_node(const struct graph_needs *needs, struct graph *graph, uint8_t *encoding,
                      uint64_t bytes, struct gpu_graph_node *nodes, uint32_t count)
{
    needs->sum->nodes += count;
    needs->sum->nodes -= graph->count;
    needs->sum->bytes += bytes;
    needs->sum->bytes -= graph->bytes;
    graph->count = count;
    graph->bytes = bytes;
    if (graph->made) {
        free(encoding);
        free(nodes);
        return;
    }
    free(graph->encoding);
    free(graph->nodes);
    graph->encoding = encoding;
    graph->nodes = nodes;
}

enum vgpu_gpu_error graph_make(const struct graph_needs *needs, uint8_t *encoding, uint64_t bytes,
                               uint32_t count, struct graph **graph)
{
    const struct gpu_ops *ops = needs->gpu->ops;
    struct graph *made = calloc(1, sizeof(*made));
    struct gpu_graph_node *nodes = NULL;
    enum vgpu_gpu_error error;

    if (!made) {
        return VGPU_GPU_OUT_OF_MEMORY;
    }
    error = decode_nodes(needs, encoding, bytes, count, &nodes);
    if (error == VGPU_GPU_SUCCESS && ops->graph_make) {
        error = ops->graph_make(needs->gpu, nodes, count, &made->made);
    }
    if (error != VGPU_GPU_SUCCESS) {
        free(nodes);
        free(made);
        return error;
    }
    keep_node(needs, made, encoding, bytes, nodes, count);
    *graph = made;
    return VGPU_GPU_SUCCESS;
}

enum vgpu_gpu_error graph_update(const struct graph_needs *needs, struct graph *graph,
                                 uint8_t *encoding, uint64_t bytes, uint32_t count)
{
    struct gpu_graph_node *nodes = NULL;
    enum vgpu_gpu_error error = decode_nodes(needs, encoding, bytes, count, &nodes);

    if (error == VGPU_GPU_SUCCESS && graph->made) {
        error = needs->gpu->ops->graph_update(needs->gpu, graph->made, nodes, count);
    }
    if (error != VGPU_GPU_SUCCESS) {
        free(nodes);
        return error;
    }
    keep_node(needs, graph, encoding, bytes, nodes, count);
    return VGPU_GPU_SUCCESS;
}

void graph_free(const struct graph_needs *needs, struct graph *graph)
{
    needs->sum->nodes -= graph->count;
    needs->sum->bytes -= graph->bytes;
    if (graph->made) {
        needs->gpu->ops->graph_destroy(needs->gpu, graph->made);
    }
    free(graph->encoding);
    free(graph->nodes);
    free(graph);
}

/* Launches ----------------------------------------------------------------------------------- */

#define GATE_PARTS 3u

static uint64_t parts_of(const struct gpu_graph_node *node)
{
    switch (node->kind) {
    case VGPU_GRAPH_COPY:
        return node->copy.depth;
    case VGPU_GRAPH_GATE:
        return GATE_PARTS;
    default:
        return 1;
    }
}

static enum vgpu_gpu_error copy_slice(struct gpu *gpu, const struct vgpu_graph_copy *copy,
                                      uint64_t slice, struct gpu_stream *stream)
{
    return gpu->ops->copy_rows(gpu,
                               &(struct gpu_rows){
                                   .kind = (enum vgpu_copy_kind)copy->kind,
                                   .to = copy->to + slice * copy->to_rows * copy->to_pitch,
                                   .to_pitch = copy->to_pitch,
                                   .from = copy->from + slice * copy->from_rows * copy->from_pitch,
                                   .from_pitch = copy->from_pitch,
                                   .width = copy->width,
                                   .rows = copy->height,
                               },
                               stream);
}

static enum vgpu_gpu_error fill_node_rows(struct gpu *gpu, const struct vgpu_graph_fill *fill,
                                          struct gpu_stream *stream)
{
    return gpu->ops->fill_rows(gpu,
                               &(struct gpu_fill_rows){
                                   .address = fill->to,
                                   .pitch = fill->pitch,
                                   .width = fill->width,
                                   .rows = fill->height,
                                   .value = fill->value,
                                   .element = fill->element,
                               },
                               stream);
}

/* The word becomes 1, somebody makes it 2, it becomes 0. */
static enum vgpu_gpu_error pass_gate(struct gpu *gpu, uint64_t address, uint64_t part,
                                     struct gpu_stream *stream)
{
    static const unsigned wait_equal = 1; /* of CUDA's CUstreamWaitValue_flags */

    switch (part) {
    case 0:
        return gpu->calls->cuStreamWriteValue32_v2(gpu, stream, address, 1, 0);
    case 1:
        return gpu->calls->cuStreamWaitValue32_v2(gpu, stream, address, 2, wait_equal);
    default:
        return gpu->calls->cuStreamWriteValue32_v2(gpu, stream, address, 0, 0);
    }
}

static enum vgpu_gpu_error carry_out_node(struct gpu *gpu, const struct gpu_graph_node *node,
                                          uint64_t part, struct gpu_stream *stream)
{
    switch (node->kind) {
    case VGPU_GRAPH_KERNEL:
        return gpu->ops->launch(gpu, node->kernel.function, &node->kernel.launch, stream);
    case VGPU_GRAPH_COPY:
        return copy_slice(gpu, &node->copy, part, stream);
    case VGPU_GRAPH_FILL:
        return fill_node_rows(gpu, &node->fill, stream);
    case VGPU_GRAPH_GATE:
        return pass_gate(gpu, node->gate, part, stream);
    default:
        return VGPU_GPU_SUCCESS;
    }
}

enum vgpu_gpu_error graph_launch(struct gpu *gpu, struct graph *graph, struct gpu_stream *stream,
                                 uint64_t *place, bool *again)
{
    const uint64_t number = *place >> PLACE_PART_BITS;
    const uint64_t part = *place & (PLACE_PARTS - 1);
    enum vgpu_gpu_error error;

    if (graph->made) {
        return gpu->ops->graph_launch(gpu, graph->made, stream);
    }
    if (number >= graph->count) {
        return VGPU_GPU_SUCCESS;
    }
    error = carry_out_node(gpu, &graph->nodes[number], part, stream);
    *place = part + 1 < parts_of(&graph->nodes[number]) ? *place + 1
                                                        : (number + 1) << PLACE_PART_BITS;
    *again = *place >> PLACE_PART_BITS < graph->count;
    return error;
}
