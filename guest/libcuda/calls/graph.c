/* SPDX-License-Identifier: MIT */
/* Graphs and their edges, as programs make and read them. */

#include <stdlib.h>
#include <string.h>

#include "guest/libcuda/calls/guest-calls.h"
#include "guest/libcuda/model/graph.h"
#include "guest/libcuda/state/state.h"

CUresult guest_cuGraphCreate(CUgraph *graph, unsigned int flags)
{
    struct graph *made;

    if (flags != 0) {
        return CUDA_ERROR_INVALID_VALUE;
    }
    made = graph_new();
    *graph = graph_handle(made);
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

    if (!known) {
        return CUDA_ERROR_INVALID_VALUE;
    }
    *clone = graph_handle(graph_copy(known));
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
    *node = node_handle(twin);
    return CUDA_SUCCESS;
}

CUresult guest_cuGraphDestroyNode(CUgraphNode node)
{
    struct node *known = node_find(node);

    if (!known) {
        return CUDA_ERROR_INVALID_VALUE;
    }
    graph_remove(known);
    return CUDA_SUCCESS;
}

/* Lists --------------------------------------------------------------------------------------- */

/* Gives as many as there is room for; with NULL how many there are. */
struct list {
    CUgraphNode *nodes, *second;
    size_t room, count;
};

static void put_number(struct list *list, const struct node *node, const struct node *second)
{
    if (list->nodes && list->count < list->room) {
        list->nodes[list->count] = node_handle(node);
        if (list->second) {
            list->second[list->count] = node_handle(second);
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

/* Edges --------------------------------------------------------------------------------------- */

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
