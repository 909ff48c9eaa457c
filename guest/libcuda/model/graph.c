/* SPDX-License-Identifier: MIT */
/*
 * Graphs and what follows what in them, see graph.h.
 *
 * Nodes are a list in the order of adding, which is the order in which CUDA lists them. An edge is
 * kept at its end alone: `follows` of a node has those before it, and those only count their
 * `followers`. Which nodes follow one is worked out where it is asked for.
 *
 * No lock: CUDA does not synchronise graph objects, programs have to. Only handles and ids are
 * shared among graphs of several threads; these are taken under a mutex, or atomically.
 */
#include "guest/libcuda/model/graph.h"

#include <stdlib.h>
#include <string.h>

#include "guest/libcuda/model/graph-memory.h"
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

/* Copies, fills and functions have nothing of their own: what they point to is the program's. */
void work_free(struct work *work)
{
    if (work->type == CU_GRAPH_NODE_TYPE_KERNEL) {
        kernel_free(&work->kernel);
    } else if (work->type == CU_GRAPH_NODE_TYPE_GRAPH) {
        graph_free(work->child);
    } else if (work->type == CU_GRAPH_NODE_TYPE_MEM_ALLOC) {
        graph_memory_unref(work->memory);
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
    held_end(graph->held);
    free(graph);
}

/*
 * Rings are not looked for here: that would be a walk through the graph for each edge. CUDA too
 * finds them when the graph is made executable, see graph_order().
 */
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

/*
 * Keeps the order of the others, in which CUDA lists them. Does nothing where there is no such
 * edge, on which graph_remove() relies.
 */
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

/*
 * What a list of dependencies may not have: a node that is gone, one of another graph, or one
 * twice.
 */
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

/* Whether a node of the graph frees this already. */
static bool is_freed(const struct graph *graph, CUdeviceptr address)
{
    for (const struct node *node = graph->first; node; node = node->next) {
        if (node->work.type == CU_GRAPH_NODE_TYPE_MEM_FREE && node->work.freed == address) {
            return true;
        }
    }
    return false;
}

CUresult graph_add(struct graph *graph, const struct work *work, struct node *const *follows,
                   size_t count, struct node **node)
{
    /*
     * Beside handles, since a copy of a node is another node with a handle of its own, and has to
     * be found as the copy (cuGraphNodeFindInClone(), own_node()). 0 is none.
     */
    static uint64_t last_id;
    struct node *made;
    CUresult r;

    if (work->type == CU_GRAPH_NODE_TYPE_MEM_FREE && is_freed(graph, work->freed)) {
        return CUDA_ERROR_INVALID_VALUE;
    }
    made = calloc(1, sizeof(*made));
    if (!made) {
        return CUDA_ERROR_OUT_OF_MEMORY;
    }
    made->graph = graph;
    made->handle = local_add(LOCAL_NODE, made);
    r = made->handle != 0 ? follow_all(made, follows, count) : CUDA_ERROR_OUT_OF_MEMORY;
    if (r != CUDA_SUCCESS) {
        local_drop(made->handle);
        /* Those it follows have counted it already. */
        while (made->follow_count > 0) {
            stop_following(made, made->follows[0]);
        }
        free(made->follows);
        free(made);
        return r;
    }
    made->id = __atomic_add_fetch(&last_id, 1, __ATOMIC_RELAXED);
    made->work = *work;
    graph->allocates = graph->allocates || allocates_or_frees(work->type) ||
                       (work->type == CU_GRAPH_NODE_TYPE_GRAPH && work->child->allocates);
    *graph->last = made;
    graph->last = &made->next;
    graph->count++;
    *node = made;
    return CUDA_SUCCESS;
}

/*
 * What a kernel's launch has of attributes stays: CUDA sets them by calls of their own and they are
 * not among a node's parameters. They change places, so that work_free() frees those of the new
 * work.
 */
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

/*
 * Deep: the program may free or change the graph that it has, and the copy stays as it was. On an
 * error nothing is left that would have to be freed.
 */
static CUresult copy_work(const struct work *from, struct work *work)
{
    *work = *from;
    if (from->type == CU_GRAPH_NODE_TYPE_KERNEL) {
        return kernel_copy(&from->kernel, &work->kernel);
    }
    if (from->type == CU_GRAPH_NODE_TYPE_MEM_ALLOC) {
        graph_memory_ref(work->memory);
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

/*
 * Copies the nodes without their edges, and notes in each one's `place` where its copy is. Edges
 * come when all are copied: a node may follow one that was added later, by
 * cuGraphAddDependencies().
 */
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

/*
 * One more place than there are nodes: calloc() of nothing may return NULL for an empty graph,
 * which would look like a lack of memory.
 */
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
    if (r == CUDA_SUCCESS && !held_copy(&copy->held, graph->held)) {
        r = CUDA_ERROR_OUT_OF_MEMORY;
    }
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
    /* Otherwise the next node that is added would be hung on freed memory. */
    if (graph->last == &node->next) {
        graph->last = place;
    }
    graph->count--;
    /*
     * CUDA removes the edges of a node with it. Those that followed it do not follow its
     * predecessors instead.
     */
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

/*
 * All edges turned round, in one array, by counting: time and memory grow with nodes and edges, not
 * with their product.
 *
 * Counts are kept two places further, sums then one. Example: A has two followers and B one. The
 * counts {0, 0, 2, 1} become the sums {0, 0, 2, 3}. As nodes are put in, starts[place + 1] moves
 * from the begin of a node's list to its end, which is the begin of the next: {0, 2, 3, 3}. So A
 * has nodes 0 and 1, and B has 2.
 */
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

/*
 * Kahn's way: `left` counts those before a node that are not in the order yet; a node comes in when
 * none is left. Nodes of a ring never come in, so fewer than all means that there is one. Roots
 * come first, and otherwise the order of adding decides, so that the same graph always gets the
 * same numbers. The driver's update on the host then finds like nodes in the same places.
 */
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
