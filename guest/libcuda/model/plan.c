/* SPDX-License-Identifier: MIT */
/*
 * Graphs as the wire has them, see plan.h and protocol/vgpu-graph.h.
 *
 * The encoding is written node by node behind each other, each with the numbers of those that it
 * follows. These are lower than its own, so the host can check and make one after another. It is
 * one piece of memory that grows, and structures in it are addressed by offsets, as realloc() may
 * move it.
 *
 * An error does not stop the writing at once: it is noted in the writer, what follows writes
 * nothing or something useless, and nothing is sent. That spares a check behind each of the many
 * small steps.
 */
#include "guest/libcuda/model/plan.h"

#include <stdlib.h>
#include <string.h>

#include "guest/libcuda/model/graph.h"
#include "guest/libcuda/model/image.h"
#include "guest/libcuda/wire/upload.h"
#include "guest/libcuda/wire/wire-calls.h"

/*
 * What goes to the host, `bytes` of it, in `room`. `nodes` counts what is written, child graphs'
 * nodes and joins included, and is the number of the next one.
 */
struct writer {
    uint8_t *encoding;
    size_t bytes, room;
    uint32_t nodes;
    struct gates *gates;
    CUresult error; /* the first one */
};

/*
 * Room for so many bytes and the padding behind them, all zero; NULL when memory is short. Zero,
 * since padding goes to the host, and reserved fields have to be 0. All begins at multiples of 8,
 * which is what the host's decoder relies on to read structures in place.
 */
static void *plan_reserve(struct writer *w, size_t bytes)
{
    const size_t padded = (bytes + 7) & ~(size_t)7;
    void *place;

    if (!w->encoding || w->bytes + padded > w->room) {
        const size_t room = 2 * w->room + padded + 4096;
        uint8_t *more = realloc(w->encoding, room);

        if (!more) {
            w->error = CUDA_ERROR_OUT_OF_MEMORY;
            return NULL;
        }
        w->encoding = more;
        w->room = room;
    }
    place = w->encoding + w->bytes;
    memset(place, 0, padded);
    w->bytes += padded;
    return place;
}

static void plan_append(struct writer *w, const void *bytes, size_t count)
{
    void *place = count > 0 ? plan_reserve(w, count) : NULL;

    if (place) {
        memcpy(place, bytes, count);
    }
}

/* Nodes that another follows, by their numbers. */
struct numbers {
    uint32_t *number;
    size_t count, room;
};

static void add_number(struct writer *w, struct numbers *numbers, uint32_t number)
{
    if (numbers->count == numbers->room) {
        const size_t room = 2 * numbers->room + 8;
        uint32_t *more = realloc(numbers->number, room * sizeof(*more));

        if (!more) {
            w->error = CUDA_ERROR_OUT_OF_MEMORY;
            return;
        }
        numbers->number = more;
        numbers->room = room;
    }
    numbers->number[numbers->count++] = number;
}

/*
 * As in a launch by itself, but with no stream: which one it is, is known when the graph is
 * launched.
 */
static void write_kernel(struct writer *w, const struct kernel_work *work)
{
    const struct vgpu_cmd_launch kernel = {
        .function = (uint64_t)(uintptr_t)work->function,
        .grid = {work->shape.grid[0], work->shape.grid[1], work->shape.grid[2]},
        .block = {work->shape.block[0], work->shape.block[1], work->shape.block[2]},
        .shared_bytes = work->shape.shared_bytes,
        .param_bytes = work->param_bytes,
        .attributes = work->attribute_count,
    };

    plan_append(w, &kernel, sizeof(kernel));
    plan_append(w, work->attributes, work->attribute_count * sizeof(*work->attributes));
    plan_append(w, work->params, work->param_bytes);
}

/*
 * How the host has a node. A copy or fill of nothing is nothing: the host refuses those as nodes.
 * So is one that is disabled, which keeps its place in the order. Of a child graph that is disabled
 * nothing is left but this.
 */
static enum vgpu_graph_kind kind_of(const struct node *node)
{
    if (node->disabled) {
        return VGPU_GRAPH_NOTHING;
    }
    switch (node->work.type) {
    case CU_GRAPH_NODE_TYPE_KERNEL:
        return VGPU_GRAPH_KERNEL;
    case CU_GRAPH_NODE_TYPE_MEMCPY:
        return node->work.copy.plan.width > 0 ? VGPU_GRAPH_COPY : VGPU_GRAPH_NOTHING;
    case CU_GRAPH_NODE_TYPE_MEMSET:
        return node->work.fill.plan.width > 0 ? VGPU_GRAPH_FILL : VGPU_GRAPH_NOTHING;
    case CU_GRAPH_NODE_TYPE_HOST:
        return VGPU_GRAPH_GATE;
    default:
        return VGPU_GRAPH_NOTHING;
    }
}

/*
 * Writes a node, and returns its number; `part` is what the kind has, NULL for nothing. Its length
 * is known when all of it is there, so the head is written again at the end, at its offset: the
 * place may have moved.
 */
static uint32_t write_node(struct writer *w, enum vgpu_graph_kind kind, const void *part,
                           const struct numbers *follows)
{
    const size_t start = w->bytes;
    struct vgpu_graph_node head = {.kind = (uint32_t)kind, .follows = (uint32_t)follows->count};

    plan_append(w, &head, sizeof(head));
    plan_append(w, follows->number, follows->count * sizeof(*follows->number));
    switch (kind) {
    case VGPU_GRAPH_KERNEL:
        write_kernel(w, part);
        break;
    case VGPU_GRAPH_COPY:
        plan_append(w, part, sizeof(struct vgpu_graph_copy));
        break;
    case VGPU_GRAPH_FILL:
        plan_append(w, part, sizeof(struct vgpu_graph_fill));
        break;
    case VGPU_GRAPH_GATE:
        plan_append(w, part, sizeof(struct vgpu_graph_gate));
        break;
    default:
        break;
    }
    if (w->error == CUDA_SUCCESS) {
        head.bytes = (uint32_t)(w->bytes - start);
        memcpy(w->encoding + start, &head, sizeof(head));
    }
    return w->nodes++;
}

/*
 * A gate, for a function of the program's or a transfer, which becomes the gate's. The host gets a
 * word's address, not the function's. Most graphs have none, so gates are made with the first one.
 */
static uint32_t write_gate(struct writer *w, const CUDA_HOST_NODE_PARAMS *host,
                           struct transfer *transfer, const struct numbers *follows)
{
    struct vgpu_graph_gate gate = {0};

    if (!w->gates) {
        w->gates = gates_new();
    }
    if (!w->gates || !gates_add(w->gates, host, transfer, &gate.address)) {
        transfer_free(transfer, true);
        w->error = CUDA_ERROR_OUT_OF_MEMORY;
    }
    return write_node(w, VGPU_GRAPH_GATE, &gate, follows);
}

/* A copy of which this process does a part: before the GPU's, behind it, or all. */
static uint32_t write_transfer(struct writer *w, const struct copy_work *copy,
                               const struct numbers *follows)
{
    struct vgpu_graph_copy plan;
    struct vgpu_graph_fill note;
    struct transfer *transfer = transfer_new(copy, &plan);
    const CUDA_HOST_NODE_PARAMS host = {.fn = transfer_run, .userData = transfer};
    uint32_t last;
    const struct numbers behind = {.number = &last, .count = 1};

    if (!transfer) {
        w->error = CUDA_ERROR_OUT_OF_MEMORY;
        return w->nodes++;
    }
    if (copy->way == COPY_BY_GPU) {
        last = write_node(w, VGPU_GRAPH_COPY, &plan, follows);
        return write_gate(w, &host, transfer, &behind);
    }
    /* Before the gate has the transfer, which goes with it when memory is short. */
    if (!transfer_note(transfer, &note)) {
        return write_gate(w, &host, transfer, follows);
    }
    last = write_gate(w, &host, transfer, follows);
    last = write_node(w, VGPU_GRAPH_COPY, &plan, &behind);
    return write_node(w, VGPU_GRAPH_FILL, &note, &behind);
}

/* A node that is no graph. One that is disabled keeps its place in the order. */
static uint32_t write_work(struct writer *w, const struct node *node, const struct numbers *follows)
{
    const struct work *work = &node->work;
    const enum vgpu_graph_kind kind = kind_of(node);

    switch (kind) {
    case VGPU_GRAPH_KERNEL:
        return write_node(w, kind, &work->kernel, follows);
    case VGPU_GRAPH_COPY:
        return work->copy.way == COPY_DIRECT ? write_node(w, kind, &work->copy.plan, follows)
                                             : write_transfer(w, &work->copy, follows);
    case VGPU_GRAPH_FILL:
        return write_node(w, kind, &work->fill.plan, follows);
    case VGPU_GRAPH_GATE:
        return write_gate(w, &work->host, NULL, follows);
    default:
        return write_node(w, kind, NULL, follows);
    }
}

static void write_graph(struct writer *w, struct graph *graph, const struct numbers *before);

/*
 * The nodes of a graph within another, and one behind all of them. The wire has no graphs within
 * graphs. Example: A, then a child with B and C side by side, then D. It becomes A; B and C, which
 * follow A; a join J, which follows B and C; D, which follows J. Without J each follower of the
 * child would need an edge to every end of it.
 */
static uint32_t write_child(struct writer *w, struct graph *graph, const struct numbers *before)
{
    struct numbers ends = {0};
    uint32_t number;

    write_graph(w, graph, before);
    for (const struct node *node = graph->first; node; node = node->next) {
        if (node->followers == 0) {
            add_number(w, &ends, node->number);
        }
    }
    number = write_node(w, VGPU_GRAPH_NOTHING, NULL, graph->first ? &ends : before);
    free(ends.number);
    return number;
}

/*
 * The nodes of a graph; those that follow none follow the nodes that come `before` the graph.
 * Children are as deep as the program has nested them, and so is the recursion.
 */
static void write_graph(struct writer *w, struct graph *graph, const struct numbers *before)
{
    struct node **order = NULL;

    w->error = graph_order(graph, &order);
    for (size_t i = 0; w->error == CUDA_SUCCESS && i < graph->count; i++) {
        struct node *node = order[i];
        struct numbers follows = {0};

        for (size_t k = 0; k < node->follow_count; k++) {
            add_number(w, &follows, node->follows[k]->number);
        }
        if (w->error == CUDA_SUCCESS) {
            const struct numbers *behind = node->follow_count > 0 ? &follows : before;

            node->number = node->work.type == CU_GRAPH_NODE_TYPE_GRAPH && !node->disabled
                               ? write_child(w, node->work.child, behind)
                               : write_work(w, node, behind);
        }
        free(follows.number);
    }
    free(order);
}

/*
 * The upload and the call that takes it are under one lock: the host keeps one upload for a
 * session. All that can be done before is done before, so that others wait for the transfer only.
 * An empty graph has no bytes to bring over.
 */
CUresult plan_send(struct graph *graph, CUgraphExec *handle, struct gates **gates)
{
    static const struct numbers nothing;
    struct writer w = {.error = CUDA_SUCCESS};
    CUresult r;

    write_graph(&w, graph, &nothing);
    r = w.error;
    if (r == CUDA_SUCCESS) {
        upload_lock();
        r = w.bytes > 0 ? upload_send(w.encoding, w.bytes) : CUDA_SUCCESS;
        if (r == CUDA_SUCCESS) {
            r = *handle ? call_graph_update(*handle, w.nodes) : call_graph_make(handle, w.nodes);
        }
        upload_unlock();
    }
    free(w.encoding);
    if (r != CUDA_SUCCESS) {
        gates_end(w.gates);
        return r;
    }
    *gates = w.gates;
    return CUDA_SUCCESS;
}
