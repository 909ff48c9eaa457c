/* SPDX-License-Identifier: MIT */
/* Capturing streams into graphs, see capture.h. */
#include "guest/libcuda/model/capture.h"

#include <pthread.h>
#include <stdlib.h>

#include "guest/libcuda/model/branch.h"

static pthread_mutex_t mutex = PTHREAD_MUTEX_INITIALIZER; /* of all that branch.h has */

static uint64_t last_id; /* of a capture */

static __thread CUstreamCaptureMode thread_mode;

/* What streams allow -------------------------------------------------------------------------- */

bool capture_has(uint64_t stream)
{
    bool has;

    pthread_mutex_lock(&mutex);
    has = find_branch(stream) != NULL;
    pthread_mutex_unlock(&mutex);
    return has;
}

/* It would depend on captured work: spoils captures of streams that wait for it. With the mutex. */
static CUresult refuse_default(void)
{
    CUresult r = CUDA_SUCCESS;

    for (struct branch *branch = branches; branch; branch = branch->next) {
        if (branch->waits_for_default) {
            branch->capture->spoilt = true;
            r = CUDA_ERROR_STREAM_CAPTURE_IMPLICIT;
        }
    }
    return r;
}

CUresult capture_refuses(uint64_t stream)
{
    CUresult r = CUDA_SUCCESS;
    struct branch *branch;

    pthread_mutex_lock(&mutex);
    branch = find_branch(stream);
    if (branch) {
        r = branch->capture->spoilt ? CUDA_ERROR_STREAM_CAPTURE_INVALIDATED
                                    : CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED;
        branch->capture->spoilt = true;
    } else if (stream == 0) {
        r = refuse_default();
    }
    pthread_mutex_unlock(&mutex);
    return r;
}

/* Whether a capture keeps this thread from calls that are not safe beside it. */
static bool mode_forbids(const struct capture *capture)
{
    const bool own = pthread_equal(capture->thread, pthread_self());

    if (capture->mode == CU_STREAM_CAPTURE_MODE_RELAXED ||
        thread_mode == CU_STREAM_CAPTURE_MODE_RELAXED) {
        return false;
    }
    return own || (capture->mode == CU_STREAM_CAPTURE_MODE_GLOBAL &&
                   thread_mode == CU_STREAM_CAPTURE_MODE_GLOBAL);
}

CUresult capture_refuses_all(void)
{
    CUresult r = CUDA_SUCCESS;

    pthread_mutex_lock(&mutex);
    for (struct capture *capture = captures; capture; capture = capture->next) {
        if (mode_forbids(capture)) {
            capture->spoilt = true;
            r = CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED;
        }
    }
    pthread_mutex_unlock(&mutex);
    return r;
}

void capture_drop(uint64_t stream)
{
    struct branch *branch;

    pthread_mutex_lock(&mutex);
    branch = find_branch(stream);
    if (branch && branch->capture->origin == stream) {
        branch->capture->spoilt = true;
        end_capture(branch->capture);
    } else if (branch) {
        drop_branch(branch); /* what nobody has joined is missed when the capture ends */
    }
    pthread_mutex_unlock(&mutex);
}

/* Work ---------------------------------------------------------------------------------------- */

/* The node follows all ends of the branch, and is its only end then. With the mutex. */
static CUresult add_to(struct branch *branch, const struct work *work)
{
    struct node *node = NULL;
    CUresult r;

    if (!branch) {
        return CUDA_ERROR_INVALID_HANDLE; /* its capture has just ended */
    }
    if (branch->capture->spoilt) {
        return CUDA_ERROR_STREAM_CAPTURE_INVALIDATED;
    }
    r = graph_add(branch->capture->graph, work, branch->ends.node, branch->ends.count, &node);
    if (r == CUDA_SUCCESS) {
        branch->ends.count = 0;
        if (!ends_add(&branch->ends, node)) {
            /* The graph has it; but what would follow it is not known. */
            branch->capture->spoilt = true;
        }
    }
    return r;
}

void capture_spoil(uint64_t stream)
{
    struct branch *branch;

    pthread_mutex_lock(&mutex);
    branch = find_branch(stream);
    if (branch) {
        branch->capture->spoilt = true;
    }
    pthread_mutex_unlock(&mutex);
}

CUresult capture_add(uint64_t stream, CUresult r, struct work *work)
{
    if (r == CUDA_ERROR_NOT_SUPPORTED) {
        /* A graph without it would be another one. */
        capture_spoil(stream);
    }
    if (r != CUDA_SUCCESS) {
        return r;
    }
    pthread_mutex_lock(&mutex);
    r = add_to(find_branch(stream), work);
    pthread_mutex_unlock(&mutex);
    if (r != CUDA_SUCCESS) {
        work_free(work);
    }
    return r;
}

/* Events -------------------------------------------------------------------------------------- */

CUresult capture_record(uint64_t stream, uint64_t event)
{
    CUresult r = CUDA_ERROR_OUT_OF_MEMORY;
    struct branch *branch;
    struct point *point;

    pthread_mutex_lock(&mutex);
    branch = find_branch(stream);
    point = branch && !branch->capture->spoilt ? set_point(event) : NULL;
    if (!branch || branch->capture->spoilt) {
        r = CUDA_ERROR_STREAM_CAPTURE_INVALIDATED;
    } else if (point) {
        point->capture = branch->capture->id;
        r = ends_join(&point->ends, &branch->ends) ? CUDA_SUCCESS : CUDA_ERROR_OUT_OF_MEMORY;
        branch->capture->spoilt = r != CUDA_SUCCESS;
    }
    pthread_mutex_unlock(&mutex);
    return r;
}

/* No edge leads to what is in no capture (ISOLATION), or in another (MERGE). With the mutex. */
static CUresult branch_waits(struct branch *branch, const struct point *point)
{
    CUresult r = CUDA_SUCCESS;

    if (branch->capture->spoilt) {
        return CUDA_ERROR_STREAM_CAPTURE_INVALIDATED;
    }
    if (!point || !find_capture(point->capture)) {
        r = CUDA_ERROR_STREAM_CAPTURE_ISOLATION;
    } else if (point->capture != branch->capture->id) {
        r = CUDA_ERROR_STREAM_CAPTURE_MERGE;
    } else if (!ends_join(&branch->ends, &point->ends)) {
        r = CUDA_ERROR_OUT_OF_MEMORY;
    }
    branch->capture->spoilt = r != CUDA_SUCCESS;
    return r;
}

/* Another stream comes in; the default one stands for all work, and cannot. With the mutex. */
static CUresult join_capture(uint64_t stream, bool waits_for_default, const struct point *point)
{
    struct capture *capture = find_capture(point->capture);
    struct branch *branch;

    if (!capture) {
        return CUDA_ERROR_INVALID_VALUE;
    }
    if (stream == 0) {
        capture->spoilt = true;
        return CUDA_ERROR_STREAM_CAPTURE_IMPLICIT;
    }
    if (capture->spoilt) {
        return CUDA_ERROR_STREAM_CAPTURE_INVALIDATED;
    }
    branch = add_branch(capture, stream, waits_for_default);
    if (!branch || !ends_join(&branch->ends, &point->ends)) {
        capture->spoilt = true;
        return CUDA_ERROR_OUT_OF_MEMORY;
    }
    return CUDA_SUCCESS;
}

bool capture_waits(uint64_t stream, bool waits_for_default, uint64_t event, CUresult *result)
{
    const struct point *point;
    struct branch *branch;

    if (shared_load(&capture_streams) == 0 && shared_load(&capture_points) == 0) {
        return false;
    }
    pthread_mutex_lock(&mutex);
    branch = find_branch(stream);
    point = *find_point(event);
    if (branch) {
        *result = branch_waits(branch, point);
    } else if (point) {
        *result = join_capture(stream, waits_for_default, point);
    }
    pthread_mutex_unlock(&mutex);
    return branch || point;
}

bool capture_has_point(uint64_t event)
{
    bool noted = false;

    if (shared_load(&capture_points) != 0) {
        pthread_mutex_lock(&mutex);
        noted = *find_point(event) != NULL;
        pthread_mutex_unlock(&mutex);
    }
    return noted;
}

void capture_drop_point(uint64_t event)
{
    struct point **place;

    if (shared_load(&capture_points) != 0) {
        pthread_mutex_lock(&mutex);
        place = find_point(event);
        if (*place) {
            drop_point(place);
        }
        pthread_mutex_unlock(&mutex);
    }
}

/* Beginning and end --------------------------------------------------------------------------- */

/* With the mutex. */
static CUresult begin_capture(uint64_t stream, bool waits_for_default, CUstreamCaptureMode mode)
{
    struct capture *capture;

    if (find_branch(stream)) {
        return CUDA_ERROR_ILLEGAL_STATE;
    }
    capture = calloc(1, sizeof(*capture));
    if (!capture) {
        return CUDA_ERROR_OUT_OF_MEMORY;
    }
    *capture = (struct capture){.next = captures,
                                .graph = graph_new(),
                                .id = ++last_id,
                                .origin = stream,
                                .thread = pthread_self(),
                                .mode = mode};
    if (!capture->graph || !add_branch(capture, stream, waits_for_default)) {
        if (capture->graph) {
            graph_free(capture->graph);
        }
        free(capture);
        return CUDA_ERROR_OUT_OF_MEMORY;
    }
    captures = capture;
    return CUDA_SUCCESS;
}

CUresult capture_begin(uint64_t stream, bool waits_for_default, CUstreamCaptureMode mode)
{
    CUresult r;

    pthread_mutex_lock(&mutex);
    r = begin_capture(stream, waits_for_default, mode);
    pthread_mutex_unlock(&mutex);
    return r;
}

/* Whether all nodes that nothing follows are among the ends of the first stream's branch. */
static bool is_joined(const struct branch *branch)
{
    const struct graph *graph = branch->capture->graph;
    size_t ends = 0;

    for (const struct node *node = graph->first; node; node = node->next) {
        ends += node->followers == 0;
    }
    for (size_t i = 0; i < branch->ends.count; i++) {
        ends -= branch->ends.node[i]->followers == 0;
    }
    return ends == 0;
}

/* In the wrong stream it is spoilt and goes on; in the wrong thread it ends. With the mutex. */
static CUresult end_in(struct branch *branch, struct graph **graph)
{
    struct capture *capture = branch ? branch->capture : NULL;
    CUresult r = CUDA_SUCCESS;

    if (!capture) {
        return CUDA_ERROR_ILLEGAL_STATE;
    }
    if (capture->origin != branch->stream) {
        capture->spoilt = true;
        return CUDA_ERROR_STREAM_CAPTURE_UNMATCHED;
    }
    if (capture->mode != CU_STREAM_CAPTURE_MODE_RELAXED &&
        !pthread_equal(capture->thread, pthread_self())) {
        capture->spoilt = true;
        end_capture(capture);
        return CUDA_ERROR_STREAM_CAPTURE_WRONG_THREAD;
    }
    if (capture->spoilt) {
        r = CUDA_ERROR_STREAM_CAPTURE_INVALIDATED;
    } else if (!is_joined(branch)) {
        capture->spoilt = true;
        r = CUDA_ERROR_STREAM_CAPTURE_UNJOINED;
    }
    *graph = end_capture(capture);
    return r;
}

CUresult capture_end(uint64_t stream, struct graph **graph)
{
    CUresult r;

    pthread_mutex_lock(&mutex);
    r = end_in(find_branch(stream), graph);
    pthread_mutex_unlock(&mutex);
    return r;
}

/* In an array that the branch keeps: the program only looks at it. With the mutex. */
static CUresult tell_ends(struct branch *branch, struct capture_info *info)
{
    CUgraphNode *told = realloc(branch->told, (branch->ends.count + 1) * sizeof(CUgraphNode));

    if (!told) {
        return CUDA_ERROR_OUT_OF_MEMORY;
    }
    for (size_t i = 0; i < branch->ends.count; i++) {
        told[i] = node_handle(branch->ends.node[i]);
    }
    branch->told = told;
    info->nodes = told;
    info->count = branch->ends.count;
    return CUDA_SUCCESS;
}

CUresult capture_ask(uint64_t stream, struct capture_info *info)
{
    CUresult r = CUDA_SUCCESS;
    struct branch *branch;

    *info = (struct capture_info){.status = CU_STREAM_CAPTURE_STATUS_NONE};
    if (shared_load(&capture_streams) == 0) {
        return r;
    }
    pthread_mutex_lock(&mutex);
    branch = find_branch(stream);
    if (branch && branch->capture->spoilt) {
        info->status = CU_STREAM_CAPTURE_STATUS_INVALIDATED;
    } else if (branch) {
        info->status = CU_STREAM_CAPTURE_STATUS_ACTIVE;
        info->id = branch->capture->id;
        info->graph = graph_handle(branch->capture->graph);
        r = tell_ends(branch, info);
    }
    /* The default one beside some that wait for it. */
    for (const struct branch *other = stream == 0 ? branches : NULL; other; other = other->next) {
        r = other->waits_for_default ? CUDA_ERROR_STREAM_CAPTURE_IMPLICIT : r;
    }
    pthread_mutex_unlock(&mutex);
    return r;
}

/* All are checked before one is taken: a wrong one changes nothing. With the mutex. */
static CUresult update_dependencies(struct branch *branch, const CUgraphNode *nodes, size_t count,
                                    bool set)
{
    if (!branch) {
        return CUDA_ERROR_ILLEGAL_STATE;
    }
    if (branch->capture->spoilt) {
        return CUDA_ERROR_STREAM_CAPTURE_INVALIDATED;
    }
    for (size_t i = 0; i < count; i++) {
        const struct node *node = node_find(nodes[i]);

        if (!node || node->graph != branch->capture->graph) {
            return CUDA_ERROR_INVALID_VALUE;
        }
    }
    branch->ends.count = set ? 0 : branch->ends.count;
    for (size_t i = 0; i < count; i++) {
        if (!ends_add(&branch->ends, node_find(nodes[i]))) {
            return CUDA_ERROR_OUT_OF_MEMORY;
        }
    }
    return CUDA_SUCCESS;
}

CUresult capture_follow(uint64_t stream, const CUgraphNode *nodes, size_t count, bool set)
{
    CUresult r;

    pthread_mutex_lock(&mutex);
    r = update_dependencies(find_branch(stream), nodes, count, set);
    pthread_mutex_unlock(&mutex);
    return r;
}

CUstreamCaptureMode capture_exchange_mode(CUstreamCaptureMode mode)
{
    const CUstreamCaptureMode before = thread_mode;

    thread_mode = mode;
    return before;
}
