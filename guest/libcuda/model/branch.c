/* SPDX-License-Identifier: MIT */
/*
 * Captures, their branches and their points; see branch.h. Lists are short, a handful of streams
 * and events, so they are searched from the front.
 *
 * Ends point to nodes, and nothing tells them when a node goes. CUDA forbids a program to destroy
 * the graph of a capture or nodes of it before the capture ends. Branches go with their capture.
 * Points stay behind, since the program still has the events; they name their capture by an
 * identity that is not used again, and the nodes of one whose capture is gone are not looked at.
 */
#include "guest/libcuda/model/branch.h"

#include <stdlib.h>

#include "guest/libcuda/model/capture.h"

/* Atomic, since capture.h reads them without the mutex. All other state is under it. */
uint32_t capture_streams, capture_points;
struct capture *captures;
struct branch *branches;
static struct point *points;

/*
 * A node is there once at most: graph_add() refuses one that would follow another twice. Two
 * branches often have an end in common, the node at which they parted.
 */
bool ends_add(struct ends *ends, struct node *node)
{
    for (size_t i = 0; i < ends->count; i++) {
        if (ends->node[i] == node) {
            return true;
        }
    }
    if (ends->count == ends->room) {
        const size_t room = 2 * ends->room + 4;
        struct node **more = realloc(ends->node, room * sizeof(struct node *));

        if (!more) {
            return false;
        }
        ends->node = more;
        ends->room = room;
    }
    ends->node[ends->count++] = node;
    return true;
}

bool ends_join(struct ends *ends, const struct ends *others)
{
    bool good = true;

    for (size_t i = 0; good && i < others->count; i++) {
        good = ends_add(ends, others->node[i]);
    }
    return good;
}

struct branch *find_branch(uint64_t stream)
{
    struct branch *branch = branches;

    while (branch && branch->stream != stream) {
        branch = branch->next;
    }
    return branch;
}

/*
 * The counter goes up last. A thread that reads it too early goes on as without a capture, which is
 * one of the orders in which two threads' calls may happen.
 */
struct branch *add_branch(struct capture *capture, uint64_t stream, bool waits_for_default)
{
    struct branch *branch = calloc(1, sizeof(*branch));

    if (branch) {
        *branch = (struct branch){.next = branches,
                                  .capture = capture,
                                  .stream = stream,
                                  .waits_for_default = waits_for_default};
        branches = branch;
        __atomic_fetch_add(&capture_streams, 1, __ATOMIC_RELAXED);
    }
    return branch;
}

/* Frees the branch that is at a place of the list. */
static void free_branch(struct branch **place)
{
    struct branch *branch = *place;

    *place = branch->next;
    __atomic_fetch_sub(&capture_streams, 1, __ATOMIC_RELAXED);
    free(branch->ends.node);
    free(branch->told);
    free(branch);
}

static void drop_branches(const struct capture *capture)
{
    struct branch **place = &branches;

    while (*place) {
        if ((*place)->capture == capture) {
            free_branch(place);
        } else {
            place = &(*place)->next;
        }
    }
}

void drop_branch(const struct branch *branch)
{
    struct branch **place = &branches;

    while (*place != branch) {
        place = &(*place)->next;
    }
    free_branch(place);
}

/*
 * A spoilt capture has no graph for the program: CUDA gives NULL. The graph is freed here and not
 * when the capture was spoilt, because the ends of its branches point to nodes until then.
 */
struct graph *end_capture(struct capture *capture)
{
    struct graph *graph = capture->graph;
    struct capture **place = &captures;

    while (*place != capture) {
        place = &(*place)->next;
    }
    *place = capture->next;
    drop_branches(capture);
    if (capture->spoilt) {
        graph_free(graph);
        graph = NULL;
    }
    free(capture);
    return graph;
}

struct point **find_point(uint64_t event)
{
    struct point **place = &points;

    while (*place && (*place)->event != event) {
        place = &(*place)->next;
    }
    return place;
}

void drop_point(struct point **place)
{
    struct point *point = *place;

    *place = point->next;
    __atomic_fetch_sub(&capture_points, 1, __ATOMIC_RELAXED);
    free(point->ends.node);
    free(point);
}

struct point *set_point(uint64_t event)
{
    struct point *point = *find_point(event);

    if (point) {
        /* Recorded again: what it stood for before is forgotten. */
        point->ends.count = 0;
        return point;
    }
    point = calloc(1, sizeof(*point));
    if (point) {
        point->event = event;
        point->next = points;
        points = point;
        __atomic_fetch_add(&capture_points, 1, __ATOMIC_RELAXED);
    }
    return point;
}

struct capture *find_capture(uint64_t id)
{
    struct capture *capture = captures;

    while (capture && capture->id != id) {
        capture = capture->next;
    }
    return capture;
}
