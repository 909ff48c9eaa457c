/* SPDX-License-Identifier: MIT */
/* Graphs and what follows what in them, see graph.h. */
#include "guest/libcuda/model/graph.h"

#include <stdlib.h>
#include <string.h>

#include "guest/libcuda/state/local.h"
#include "guest/libcuda/state/state.h"

struct graph *graph_find(CUgraph graph)
{
    return local_find(LOCAL_GRAPH, (uint64_t)(uintptr_t)graph);
}

struct node *node_find(CUgraphNode node)
{
    return local_find(LOCAL_NODE, (uint64_t)(uintptr_t)node);
}

CUgraph graph_handle(const struct graph *graph)
{
    return graph ? (CUgraph)(uintptr_t)graph->handle : NULL;
}

CUgraphNode node_handle(const struct node *node)
{
    return node ? (CUgraphNode)(uintptr_t)node->handle : NULL;
}

/* Making and freeing -------------------------------------------------------------------------- */

struct graph *graph_new(void)
{
    struct graph *graph = calloc(1, sizeof(*graph));

    if (graph) {
        graph->handle = local_add(LOCAL_GRAPH, graph);
        graph->last = &graph->first;
    }
    if (graph && graph->handle == 0) {
        free(graph);
        return NULL;
    }
    return graph;
}

void work_free(struct work *work)
{
    if (work->type == CU_GRAPH_NODE_TYPE_KERNEL) {
        kernel_free(&work->kernel);
    } else if (work->type == CU_GRAPH_NODE_TYPE_GRAPH) {
        graph_free(work->child);
    }
}

static void free_node(struct node *node)
{
    work_free(&node->work);
    local_drop(node->handle);
    free(node->follows);
    free(node);
}

void graph_free(struct graph *graph)
{
    struct node *next;

    for (struct node *node = graph->first; node; node = next) {
        next = node->next;
        free_node(node);
    }
    local_drop(graph->handle);
    free(graph);
}

CUresult node_follow(struct node *node, struct node *before)
{
    if (node->follow_count == node->follow_room) {
        const size_t room = 2 * node->follow_room + 2;
        struct node **more = realloc(node->follows, room * sizeof(struct node *));

        if (!more) {
            return CUDA_ERROR_OUT_OF_MEMORY;
        }
        node->follows = more;
        node->follow_room = room;
    }
    node->follows[node->follow_count++] = before;
    before->followers++;
    return CUDA_SUCCESS;
}

void stop_following(struct node *node, struct node *before)
{
    size_t kept = 0;

    for (size_t i = 0; i < node->follow_count; i++) {
        if (node->follows[i] != before) {
            node->follows[kept++] = node->follows[i];
        }
    }
    before->followers -= node->follow_count - kept;
    node->follow_count = kept;
}

bool node_follows(const struct node *node, const struct node *before)
{
    for (size_t i = 0; i < node->follow_count; i++) {
        if (node->follows[i] == before) {
            return true;
        }
    }
    return false;
}

static CUresult follow_all(struct node *node, struct node *const *before, size_t count)
{
    CUresult r = CUDA_SUCCESS;

    for (size_t i = 0; r == CUDA_SUCCESS && i < count; i++) {
        if (!before[i] || before[i]->graph != node->graph || node_follows(node, before[i])) {
            return CUDA_ERROR_INVALID_VALUE;
        }
        r = node_follow(node, before[i]);
    }
    return r;
}

CUresult graph_add(struct graph *graph, const struct work *work, struct node *const *follows,
                   size_t count, struct node **node)
{
    static uint64_t last_id;
    struct node *made = calloc(1, sizeof(*made));
    CUresult r;

    if (!made) {
        return CUDA_ERROR_OUT_OF_MEMORY;
    }
    made->graph = graph;
    made->handle = local_add(LOCAL_NODE, made);
    r = made->handle != 0 ? follow_all(made, follows, count) : CUDA_ERROR_OUT_OF_MEMORY;
    if (r != CUDA_SUCCESS) {
        local_drop(made->handle);
        while (made->follow_count > 0) {
            stop_following(made, made->follows[0]);
        }
        free(made->follows);
        free(made);
        return r;
    }
    made->id = __atomic_add_fetch(&last_id, 1, __ATOMIC_RELAXED);
    made->work = *work;
    *graph->last = made;
    graph->last = &made->next;
    graph->count++;
    *node = made;
    return CUDA_SUCCESS;
}

/* What a kernel's launch has of attributes stays: they are not among its parameters. */
void node_change(struct node *node, struct work *work)
{
    if (work->type == CU_GRAPH_NODE_TYPE_KERNEL) {
        const struct kernel_work old = node->work.kernel;

        node->work.kernel.attributes = work->kernel.attributes;
        work->kernel.attributes = old.attributes;
        work->kernel.attribute_count = old.attribute_count;
    }
    work_free(&node->work);
    node->work = *work;
}

static CUresult copy_work(const struct work *from, struct work *work)
{
    *work = *from;
    if (from->type == CU_GRAPH_NODE_TYPE_KERNEL) {
        return kernel_copy(&from->kernel, &work->kernel);
    }
    if (from->type == CU_GRAPH_NODE_TYPE_GRAPH) {
        work->child = graph_copy(from->child);
        if (!work->child) {
            return CUDA_ERROR_OUT_OF_MEMORY;
        }
        work->child->inner = true;
    }
    return CUDA_SUCCESS;
}

/* Copies the nodes, and notes for each in `number` which one its copy is. */
static CUresult copy_nodes(struct graph *copy, const struct graph *graph, struct node **copies)
{
    CUresult r = CUDA_SUCCESS;
    uint32_t count = 0;

    for (struct node *node = graph->first; r == CUDA_SUCCESS && node; node = node->next) {
        struct work work;

        r = copy_work(&node->work, &work);
        if (r != CUDA_SUCCESS) {
            break;
        }
        r = graph_add(copy, &work, NULL, 0, &copies[count]);
        if (r != CUDA_SUCCESS) {
            work_free(&work);
            break;
        }
        copies[count]->id = node->id;
        copies[count]->disabled = node->disabled;
        node->place = count++;
    }
    return r;
}

struct graph *graph_copy(const struct graph *graph)
{
    struct node **copies = calloc(graph->count + 1, sizeof(struct node *));
    struct graph *copy = graph_new();
    CUresult r = copies && copy ? copy_nodes(copy, graph, copies) : CUDA_ERROR_OUT_OF_MEMORY;

    for (struct node *node = graph->first; r == CUDA_SUCCESS && node; node = node->next) {
        for (size_t i = 0; r == CUDA_SUCCESS && i < node->follow_count; i++) {
            r = node_follow(copies[node->place], copies[node->follows[i]->place]);
        }
    }
    free(copies);
    if (r != CUDA_SUCCESS && copy) {
        graph_free(copy);
        copy = NULL;
    }
    return copy;
}

struct node *graph_twin(const struct graph *graph, const struct node *node)
{
    struct node *twin = graph->first;

    while (twin && twin->id != node->id) {
        twin = twin->next;
    }
    return twin;
}

void graph_remove(struct node *node)
{
    struct graph *graph = node->graph;
    struct node **place;

    place = &graph->first;
    while (*place != node) {
        place = &(*place)->next;
    }
    *place = node->next;
    if (graph->last == &node->next) {
        graph->last = place;
    }
    graph->count--;
    for (struct node *other = graph->first; other; other = other->next) {
        stop_following(other, node);
    }
    while (node->follow_count > 0) {
        stop_following(node, node->follows[0]);
    }
    free_node(node);
}

/* Order --------------------------------------------------------------------------------------- */

/* For each node, from starts[its place] on, those that follow it. */
struct followers {
    size_t *starts;
    struct node **nodes;
};

static bool find_followers(struct graph *graph, struct followers *f)
{
    size_t edges = 0, sum = 0;
    uint32_t place = 0;

    for (struct node *node = graph->first; node; node = node->next) {
        node->place = place++;
        node->left = (uint32_t)node->follow_count;
        edges += node->follow_count;
    }
    f->starts = calloc(graph->count + 2, sizeof(size_t));
    f->nodes = calloc(edges + 1, sizeof(struct node *));
    if (!f->starts || !f->nodes) {
        return false;
    }
    for (struct node *node = graph->first; node; node = node->next) {
        for (size_t i = 0; i < node->follow_count; i++) {
            f->starts[node->follows[i]->place + 2]++;
        }
    }
    for (size_t i = 0; i < graph->count; i++) {
        sum += f->starts[i + 2];
        f->starts[i + 2] = sum;
    }
    for (struct node *node = graph->first; node; node = node->next) {
        for (size_t i = 0; i < node->follow_count; i++) {
            f->nodes[f->starts[node->follows[i]->place + 1]++] = node;
        }
    }
    return true;
}

CUresult graph_order(struct graph *graph, struct node ***order)
{
    struct node **done = calloc(graph->count + 1, sizeof(struct node *));
    struct followers f = {0};
    CUresult r = done && find_followers(graph, &f) ? CUDA_SUCCESS : CUDA_ERROR_OUT_OF_MEMORY;
    size_t count = 0;

    for (struct node *node = graph->first; r == CUDA_SUCCESS && node; node = node->next) {
        if (node->left == 0) {
            done[count++] = node;
        }
    }
    for (size_t i = 0; r == CUDA_SUCCESS && i < count; i++) {
        for (size_t k = f.starts[done[i]->place]; k < f.starts[done[i]->place + 1]; k++) {
            if (--f.nodes[k]->left == 0) {
                done[count++] = f.nodes[k];
            }
        }
    }
    free(f.starts);
    free(f.nodes);
    if (r == CUDA_SUCCESS && count < graph->count) {
        r = CUDA_ERROR_INVALID_VALUE;
    }
    if (r != CUDA_SUCCESS) {
        free(done);
        return r;
    }
    for (uint32_t i = 0; i < count; i++) {
        done[i]->place = i;
    }
    *order = done;
    return CUDA_SUCCESS;
}

CUresult check_edges(const CUgraphEdgeData *edges, size_t count)
{
    static const CUgraphEdgeData ordinary;

    for (size_t i = 0; edges && i < count; i++) {
        if (memcmp(&edges[i], &ordinary, sizeof(ordinary)) != 0) {
            return REFUSE("an edge of a graph with data");
        }
    }
    return CUDA_SUCCESS;
}
