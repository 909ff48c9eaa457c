/* SPDX-License-Identifier: MIT */
/*
 * Graphs and their edges, as programs make and read them. Handles are looked up before anything
 * else: one that is gone is INVALID_VALUE, and nobody looks at memory behind it.
 */

#include <stdlib.h>
#include <string.h>

#include "guest/libcuda/calls/families.h"
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

    /* A graph that belongs to a node goes with the node. */
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

    /* A copy has the id of its original, so the original's own graph is found out by comparing. */
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

/*
 * CUDA has all lists asked for in two steps: with NULL for how many there are, then with room for
 * so many. More than there is room for is left out; what is left of the room becomes NULL. `second`
 * is for edges, which have two nodes each.
 */
struct list {
    CUgraphNode *nodes, *second;
    size_t room, count;
};

static void put_node(struct list *list, const struct node *node, const struct node *second)
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

    if (list->room == 0 && (list->nodes || list->second || edges)) {
        return CUDA_ERROR_INVALID_VALUE;
    }
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
    /* No edge has data, and all zero is how CUDA says that. */
    if (edges) {
        memset(edges, 0, given * sizeof(*edges));
    }
    *count = given;
    return CUDA_SUCCESS;
}

CUresult list_nodes(CUgraph graph, CUgraphNode *nodes, size_t *count, bool roots)
{
    const struct graph *known = graph_find(graph);
    struct list list = {.nodes = nodes, .room = *count};

    if (!known) {
        return CUDA_ERROR_INVALID_VALUE;
    }
    for (const struct node *node = known->first; node; node = node->next) {
        if (!roots || node->follow_count == 0) {
            put_node(&list, node, NULL);
        }
    }
    return give_list(&list, NULL, count);
}

CUresult guest_cuGraphGetEdges_v2(CUgraph graph, CUgraphNode *from, CUgraphNode *to,
                                  CUgraphEdgeData *edges, size_t *count)
{
    const struct graph *known = graph_find(graph);
    struct list list = {.nodes = from, .second = to, .room = *count};

    /* Both ends are asked for or neither. */
    if (!known || !from != !to) {
        return CUDA_ERROR_INVALID_VALUE;
    }
    for (const struct node *node = known->first; node; node = node->next) {
        for (size_t i = 0; i < node->follow_count; i++) {
            put_node(&list, node->follows[i], node);
        }
    }
    return give_list(&list, edges, count);
}

CUresult guest_cuGraphNodeGetDependencies_v2(CUgraphNode node, CUgraphNode *nodes,
                                             CUgraphEdgeData *edges, size_t *count)
{
    const struct node *known = node_find(node);
    struct list list = {.nodes = nodes, .room = *count};

    if (!known) {
        return CUDA_ERROR_INVALID_VALUE;
    }
    for (size_t i = 0; i < known->follow_count; i++) {
        put_node(&list, known->follows[i], NULL);
    }
    return give_list(&list, edges, count);
}

/* Edges are kept at their ends, so all nodes are looked through. */
CUresult guest_cuGraphNodeGetDependentNodes_v2(CUgraphNode node, CUgraphNode *nodes,
                                               CUgraphEdgeData *edges, size_t *count)
{
    const struct node *known = node_find(node);
    struct list list = {.nodes = nodes, .room = *count};

    if (!known) {
        return CUDA_ERROR_INVALID_VALUE;
    }
    for (const struct node *other = known->graph->first; other; other = other->next) {
        if (node_follows(other, known)) {
            put_node(&list, other, NULL);
        }
    }
    return give_list(&list, edges, count);
}

/* Edges --------------------------------------------------------------------------------------- */

/*
 * Nothing is changed where one of them is wrong. `there`: the edges have to exist, or must not. A
 * pair that is in the list twice passes, as the graph is looked at before the first is added.
 */
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

/* A ring is found when the graph is made executable. Only a lack of memory stops this half way. */
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

/* User objects -------------------------------------------------------------------------------- */

/* The one flag says that the end of an object is not ordered with anything, and has to be given. */
CUresult guest_cuUserObjectCreate(CUuserObject *object, void *value, CUhostFn destroy,
                                  unsigned int count, unsigned int flags)
{
    if (!destroy || !count_valid(count) || flags != CU_USER_OBJECT_NO_DESTRUCTOR_SYNC) {
        return CUDA_ERROR_INVALID_VALUE;
    }
    return user_object_new(value, destroy, count, object);
}

CUresult guest_cuGraphRetainUserObject(CUgraph graph, CUuserObject object, unsigned int count,
                                       unsigned int flags)
{
    struct graph *known = graph_find(graph);

    if (!known || !count_valid(count) || (flags & ~(unsigned)CU_GRAPH_USER_OBJECT_MOVE) != 0) {
        return CUDA_ERROR_INVALID_VALUE;
    }
    return held_add(&known->held, object, count, flags != 0);
}

CUresult guest_cuGraphReleaseUserObject(CUgraph graph, CUuserObject object, unsigned int count)
{
    struct graph *known = graph_find(graph);

    if (!known || !count_valid(count)) {
        return CUDA_ERROR_INVALID_VALUE;
    }
    held_take(&known->held, object, count);
    return CUDA_SUCCESS;
}
