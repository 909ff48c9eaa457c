/* SPDX-License-Identifier: MIT */
/* Graphs and what follows what in them, see graph.h. */
#include "guest/libcuda/graph.h"

#include <stdlib.h>
#include <string.h>

#include "guest/libcuda/entry.h"

/* A pointer that a program passes is taken for a graph, or a node, when this is there. */
#define GRAPH_MAGIC 0x67726170u
#define NODE_MAGIC 0x6e6f6465u

struct graph *graph_find(CUgraph graph)
{
    struct graph *known = (struct graph *)graph;

    return known && known->magic == GRAPH_MAGIC ? known : NULL;
}

struct node *node_find(CUgraphNode node)
{
    struct node *known = (struct node *)node;

    return known && known->magic == NODE_MAGIC ? known : NULL;
}

/* Making and freeing -------------------------------------------------------------------------- */

struct graph *graph_new(void)
{
    struct graph *graph = calloc(1, sizeof(*graph));

    if (graph) {
        graph->magic = GRAPH_MAGIC;
        graph->last = &graph->first;
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
    node->magic = 0;
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
    graph->magic = 0;
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

static void stop_following(struct node *node, struct node *before)
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

static bool node_follows(const struct node *node, const struct node *before)
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
    r = follow_all(made, follows, count);
    if (r != CUDA_SUCCESS) {
        while (made->follow_count > 0) {
            stop_following(made, made->follows[0]);
        }
        free(made->follows);
        free(made);
        return r;
    }
    made->magic = NODE_MAGIC;
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

/* What programs call -------------------------------------------------------------------------- */

CUresult guest_cuGraphCreate(CUgraph *graph, unsigned int flags)
{
    struct graph *made;

    if (!graph || flags != 0) {
        return CUDA_ERROR_INVALID_VALUE;
    }
    made = graph_new();
    *graph = (CUgraph)made;
    return made ? CUDA_SUCCESS : CUDA_ERROR_OUT_OF_MEMORY;
}

CUresult guest_cuGraphDestroy(CUgraph graph)
{
    struct graph *known = graph_find(graph);

    if (!known || known->inner) {
        return CUDA_ERROR_INVALID_VALUE;
    }
    graph_free(known);
    return CUDA_SUCCESS;
}

CUresult guest_cuGraphClone(CUgraph *clone, CUgraph graph)
{
    const struct graph *known = graph_find(graph);

    if (!clone || !known) {
        return CUDA_ERROR_INVALID_VALUE;
    }
    *clone = (CUgraph)graph_copy(known);
    return *clone ? CUDA_SUCCESS : CUDA_ERROR_OUT_OF_MEMORY;
}

CUresult guest_cuGraphNodeFindInClone(CUgraphNode *node, CUgraphNode original, CUgraph clone)
{
    const struct node *known = node_find(original);
    const struct graph *graph = graph_find(clone);
    struct node *twin = known && graph ? graph_twin(graph, known) : NULL;

    if (!node || !twin || twin == known) {
        return CUDA_ERROR_INVALID_VALUE;
    }
    *node = (CUgraphNode)twin;
    return CUDA_SUCCESS;
}

CUresult guest_cuGraphDestroyNode(CUgraphNode node)
{
    struct node *known = node_find(node);
    struct graph *graph = known ? known->graph : NULL;
    struct node **place;

    if (!known) {
        return CUDA_ERROR_INVALID_VALUE;
    }
    place = &graph->first;
    while (*place != known) {
        place = &(*place)->next;
    }
    *place = known->next;
    if (graph->last == &known->next) {
        graph->last = place;
    }
    graph->count--;
    for (struct node *other = graph->first; other; other = other->next) {
        stop_following(other, known);
    }
    while (known->follow_count > 0) {
        stop_following(known, known->follows[0]);
    }
    free_node(known);
    return CUDA_SUCCESS;
}

/* Gives as many as there is room for; with NULL how many there are. */
struct list {
    CUgraphNode *nodes, *second;
    size_t room, count;
};

static void put_number(struct list *list, const struct node *node, const struct node *second)
{
    if (list->nodes && list->count < list->room) {
        list->nodes[list->count] = (CUgraphNode)(uintptr_t)node;
        if (list->second) {
            list->second[list->count] = (CUgraphNode)(uintptr_t)second;
        }
    }
    list->count++;
}

/* What is behind the last one is NULL. */
static CUresult give_list(const struct list *list, CUgraphEdgeData *edges, size_t *count)
{
    const size_t given = list->count < list->room ? list->count : list->room;

    if (!list->nodes) {
        *count = list->count;
        return CUDA_SUCCESS;
    }
    for (size_t i = given; i < list->room; i++) {
        list->nodes[i] = NULL;
        if (list->second) {
            list->second[i] = NULL;
        }
    }
    if (edges) {
        memset(edges, 0, given * sizeof(*edges));
    }
    *count = given;
    return CUDA_SUCCESS;
}

CUresult guest_cuGraphGetNodes(CUgraph graph, CUgraphNode *nodes, size_t *count)
{
    const struct graph *known = graph_find(graph);
    struct list list = {.nodes = nodes, .room = count ? *count : 0};

    if (!known || !count) {
        return CUDA_ERROR_INVALID_VALUE;
    }
    for (const struct node *node = known->first; node; node = node->next) {
        put_number(&list, node, NULL);
    }
    return give_list(&list, NULL, count);
}

CUresult guest_cuGraphGetRootNodes(CUgraph graph, CUgraphNode *nodes, size_t *count)
{
    const struct graph *known = graph_find(graph);
    struct list list = {.nodes = nodes, .room = count ? *count : 0};

    if (!known || !count) {
        return CUDA_ERROR_INVALID_VALUE;
    }
    for (const struct node *node = known->first; node; node = node->next) {
        if (node->follow_count == 0) {
            put_number(&list, node, NULL);
        }
    }
    return give_list(&list, NULL, count);
}

CUresult guest_cuGraphGetEdges_v2(CUgraph graph, CUgraphNode *from, CUgraphNode *to,
                                  CUgraphEdgeData *edges, size_t *count)
{
    const struct graph *known = graph_find(graph);
    struct list list = {.nodes = from, .second = to, .room = count ? *count : 0};

    if (!known || !count || !from != !to) {
        return CUDA_ERROR_INVALID_VALUE;
    }
    for (const struct node *node = known->first; node; node = node->next) {
        for (size_t i = 0; i < node->follow_count; i++) {
            put_number(&list, node->follows[i], node);
        }
    }
    return give_list(&list, edges, count);
}

CUresult guest_cuGraphGetEdges(CUgraph graph, CUgraphNode *from, CUgraphNode *to, size_t *count)
{
    return guest_cuGraphGetEdges_v2(graph, from, to, NULL, count);
}

CUresult guest_cuGraphNodeGetDependencies_v2(CUgraphNode node, CUgraphNode *nodes,
                                             CUgraphEdgeData *edges, size_t *count)
{
    const struct node *known = node_find(node);
    struct list list = {.nodes = nodes, .room = count ? *count : 0};

    if (!known || !count) {
        return CUDA_ERROR_INVALID_VALUE;
    }
    for (size_t i = 0; i < known->follow_count; i++) {
        put_number(&list, known->follows[i], NULL);
    }
    return give_list(&list, edges, count);
}

CUresult guest_cuGraphNodeGetDependencies(CUgraphNode node, CUgraphNode *nodes, size_t *count)
{
    return guest_cuGraphNodeGetDependencies_v2(node, nodes, NULL, count);
}

CUresult guest_cuGraphNodeGetDependentNodes_v2(CUgraphNode node, CUgraphNode *nodes,
                                               CUgraphEdgeData *edges, size_t *count)
{
    const struct node *known = node_find(node);
    struct list list = {.nodes = nodes, .room = count ? *count : 0};

    if (!known || !count) {
        return CUDA_ERROR_INVALID_VALUE;
    }
    for (const struct node *other = known->graph->first; other; other = other->next) {
        if (node_follows(other, known)) {
            put_number(&list, other, NULL);
        }
    }
    return give_list(&list, edges, count);
}

CUresult guest_cuGraphNodeGetDependentNodes(CUgraphNode node, CUgraphNode *nodes, size_t *count)
{
    return guest_cuGraphNodeGetDependentNodes_v2(node, nodes, NULL, count);
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

/* Nothing is changed where one of them is wrong. */
static CUresult check_pairs(const struct graph *graph, const CUgraphNode *from,
                            const CUgraphNode *to, size_t count, bool there)
{
    if (!graph || (count > 0 && (!from || !to))) {
        return CUDA_ERROR_INVALID_VALUE;
    }
    for (size_t i = 0; i < count; i++) {
        const struct node *before = node_find(from[i]), *node = node_find(to[i]);

        if (!before || !node || before == node || before->graph != graph || node->graph != graph ||
            node_follows(node, before) != there) {
            return CUDA_ERROR_INVALID_VALUE;
        }
    }
    return CUDA_SUCCESS;
}

CUresult guest_cuGraphAddDependencies_v2(CUgraph graph, const CUgraphNode *from,
                                         const CUgraphNode *to, const CUgraphEdgeData *edges,
                                         size_t count)
{
    CUresult r = check_pairs(graph_find(graph), from, to, count, false);

    if (r == CUDA_SUCCESS) {
        r = check_edges(edges, count);
    }
    for (size_t i = 0; r == CUDA_SUCCESS && i < count; i++) {
        r = node_follow(node_find(to[i]), node_find(from[i]));
    }
    return r;
}

CUresult guest_cuGraphAddDependencies(CUgraph graph, const CUgraphNode *from, const CUgraphNode *to,
                                      size_t count)
{
    return guest_cuGraphAddDependencies_v2(graph, from, to, NULL, count);
}

CUresult guest_cuGraphRemoveDependencies_v2(CUgraph graph, const CUgraphNode *from,
                                            const CUgraphNode *to, const CUgraphEdgeData *edges,
                                            size_t count)
{
    CUresult r = check_pairs(graph_find(graph), from, to, count, true);

    if (r == CUDA_SUCCESS) {
        r = check_edges(edges, count);
    }
    for (size_t i = 0; r == CUDA_SUCCESS && i < count; i++) {
        stop_following(node_find(to[i]), node_find(from[i]));
    }
    return r;
}

CUresult guest_cuGraphRemoveDependencies(CUgraph graph, const CUgraphNode *from,
                                         const CUgraphNode *to, size_t count)
{
    return guest_cuGraphRemoveDependencies_v2(graph, from, to, NULL, count);
}
