/* SPDX-License-Identifier: MIT */
/*
 * What captures consist of: captures, the branches of each, and events that were recorded in one.
 * All of this is under the one mutex of capture.c, which alone uses it.
 *
 * Example: a capture begins in stream 1, which is its first branch. Kernel A is captured there: the
 * branch's ends are {A}. An event is recorded there: it is a point with the ends {A}. Stream 2
 * waits for the event and so becomes a branch with the ends {A}; kernel B in it follows A, and its
 * ends are {B}. When stream 1 has waited for an event behind B, its ends are {A, B}, and the
 * capture can end: what it would do next follows all.
 */
#ifndef VGPU_GUEST_LIBCUDA_MODEL_BRANCH_H
#define VGPU_GUEST_LIBCUDA_MODEL_BRANCH_H

#include <pthread.h>
#include <stdbool.h>
#include <stdint.h>

#include "guest/libcuda/model/graph.h"

struct capture {
    struct capture *next;
    struct graph *graph;
    uint64_t id;
    uint64_t origin; /* the stream that it began in */
    pthread_t thread;
    CUstreamCaptureMode mode;
    bool spoilt;
};

/* Nodes that the next one will follow. */
struct ends {
    struct node **node;
    size_t count, room;
};

/* A stream that is captured. */
struct branch {
    struct branch *next;
    struct capture *capture;
    uint64_t stream;
    bool waits_for_default;
    struct ends ends;
    CUgraphNode *told; /* the ends as a program was told them last */
};

/* An event that was last recorded in a captured stream. */
struct point {
    struct point *next;
    uint64_t event, capture;
    struct ends ends;
};

extern struct capture *captures;
extern struct branch *branches;

/* Adds nodes that are not there yet. False when memory is short. */
bool ends_add(struct ends *ends, struct node *node);
bool ends_join(struct ends *ends, const struct ends *others);

/* The branch that a stream is, the capture with an identity; NULL when there is none. */
struct branch *find_branch(uint64_t stream);
struct capture *find_capture(uint64_t id);

/* A stream becomes a branch of a capture, which it is not yet. NULL when memory is short. */
struct branch *add_branch(struct capture *capture, uint64_t stream, bool waits_for_default);

/* The stream is none any more; its nodes stay. */
void drop_branch(const struct branch *branch);

/* Ends a capture with its branches. The graph is the caller's; NULL for one that is spoilt. */
struct graph *end_capture(struct capture *capture);

/* Where the point of an event is, or would be; makes one without ends, or frees one. */
struct point **find_point(uint64_t event);
struct point *set_point(uint64_t event);
void drop_point(struct point **place);

#endif
