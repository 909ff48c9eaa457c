/* SPDX-License-Identifier: MIT */
/* Capturing streams into graphs, see capture.h. */
#include "guest/libcuda/capture.h"

#include <pthread.h>
#include <stdlib.h>
#include <string.h>

#include "guest/libcuda/entry.h"
#include "guest/libcuda/stream.h"

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
};

/* An event that was last recorded in a captured stream. */
struct point {
    struct point *next;
    uint64_t event, capture;
    struct ends ends;
};

uint32_t capture_streams, capture_marks;

static pthread_mutex_t mutex = PTHREAD_MUTEX_INITIALIZER; /* of all that follows */
static struct capture *captures;
static struct branch *branches;
static struct point *points;
static uint64_t last_id;

static __thread CUstreamCaptureMode thread_mode;

/* Nodes --------------------------------------------------------------------------------------- */

static bool ends_add(struct ends *ends, struct node *node)
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

static bool ends_join(struct ends *ends, const struct ends *others)
{
    bool good = true;

    for (size_t i = 0; good && i < others->count; i++) {
        good = ends_add(ends, others->node[i]);
    }
    return good;
}

/* Streams, with the mutex --------------------------------------------------------------------- */

static struct branch *find_branch(uint64_t stream)
{
    struct branch *branch = branches;

    while (branch && branch->stream != stream) {
        branch = branch->next;
    }
    return branch;
}

static struct branch *add_branch(struct capture *capture, uint64_t stream, bool waits_for_default)
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

static void drop_branches(const struct capture *capture)
{
    struct branch **place = &branches;

    while (*place) {
        struct branch *branch = *place;

        if (branch->capture != capture) {
            place = &branch->next;
            continue;
        }
        *place = branch->next;
        __atomic_fetch_sub(&capture_streams, 1, __ATOMIC_RELAXED);
        free(branch->ends.node);
        free(branch);
    }
}

/* Ends a capture. The graph is the caller's, NULL for one that is spoilt. */
static struct graph *end_capture(struct capture *capture)
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

/* Marks, with the mutex ----------------------------------------------------------------------- */

static struct point **find_point(uint64_t event)
{
    struct point **place = &points;

    while (*place && (*place)->event != event) {
        place = &(*place)->next;
    }
    return place;
}

static void drop_point(struct point **place)
{
    struct point *point = *place;

    *place = point->next;
    __atomic_fetch_sub(&capture_marks, 1, __ATOMIC_RELAXED);
    free(point->ends.node);
    free(point);
}

static struct point *set_point(uint64_t event)
{
    struct point *point = *find_point(event);

    if (point) {
        point->ends.count = 0;
        return point;
    }
    point = calloc(1, sizeof(*point));
    if (point) {
        point->event = event;
        point->next = points;
        points = point;
        __atomic_fetch_add(&capture_marks, 1, __ATOMIC_RELAXED);
    }
    return point;
}

/* What streams allow -------------------------------------------------------------------------- */

/* The branch that a program's stream is, NULL when it is not captured. */
static struct branch *branch_of(CUstream stream)
{
    uint64_t handle;

    return stream_known(stream, &handle, NULL) == CUDA_SUCCESS && handle != 0 ? find_branch(handle)
                                                                              : NULL;
}

bool capture_has(CUstream stream)
{
    bool has;

    pthread_mutex_lock(&mutex);
    has = branch_of(stream) != NULL;
    pthread_mutex_unlock(&mutex);
    return has;
}

/* The default stream is asked about: spoils captures of streams that wait for it. */
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
    branch = stream != 0 ? find_branch(stream) : NULL;
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
    if (branch) {
        branch->capture->spoilt = true;
        if (branch->capture->origin == stream) {
            end_capture(branch->capture);
        }
    }
    pthread_mutex_unlock(&mutex);
}

/* Work ---------------------------------------------------------------------------------------- */

/* With the mutex. */
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

void capture_spoil(CUstream stream)
{
    struct branch *branch;

    pthread_mutex_lock(&mutex);
    branch = branch_of(stream);
    if (branch) {
        branch->capture->spoilt = true;
    }
    pthread_mutex_unlock(&mutex);
}

CUresult capture_add(CUstream stream, CUresult r, struct work *work)
{
    if (r == CUDA_ERROR_NOT_SUPPORTED) {
        /* A graph without it would be another one. */
        capture_spoil(stream);
    }
    if (r != CUDA_SUCCESS) {
        return r;
    }
    pthread_mutex_lock(&mutex);
    r = add_to(branch_of(stream), work);
    pthread_mutex_unlock(&mutex);
    if (r != CUDA_SUCCESS) {
        work_free(work);
    }
    return r;
}

CUresult capture_kernel(CUstream stream, const struct launch *launch)
{
    struct work work = {.type = CU_GRAPH_NODE_TYPE_KERNEL};

    return capture_add(stream, kernel_make(launch, &work.kernel), &work);
}

CUresult capture_copy(CUstream stream, const CUDA_MEMCPY3D *copy)
{
    struct work work;

    return capture_add(stream, work_copy(copy, &work), &work);
}

CUresult capture_fill(CUstream stream, const CUDA_MEMSET_NODE_PARAMS *fill)
{
    struct work work;

    return capture_add(stream, work_fill(fill, &work), &work);
}

CUresult capture_host(CUstream stream, CUhostFn function, void *argument)
{
    const CUDA_HOST_NODE_PARAMS host = {.fn = function, .userData = argument};
    struct work work;

    return capture_add(stream, work_host(&host, &work), &work);
}

/* Events -------------------------------------------------------------------------------------- */

CUresult capture_record(CUstream stream, uint64_t event)
{
    CUresult r = CUDA_ERROR_OUT_OF_MEMORY;
    struct branch *branch;
    struct point *point;

    pthread_mutex_lock(&mutex);
    branch = branch_of(stream);
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

static struct capture *find_capture(uint64_t id)
{
    struct capture *capture = captures;

    while (capture && capture->id != id) {
        capture = capture->next;
    }
    return capture;
}

/* A captured stream waits for an event. With the mutex. */
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

/* Another stream comes in. With the mutex. */
static CUresult join_capture(CUstream stream, const struct point *point)
{
    struct capture *capture = find_capture(point->capture);
    struct branch *branch;
    bool waits_for_default;
    uint64_t handle;
    CUresult r = stream_known(stream, &handle, &waits_for_default);

    if (r != CUDA_SUCCESS) {
        return r;
    }
    if (!capture) {
        return CUDA_ERROR_INVALID_VALUE;
    }
    if (handle == 0) {
        capture->spoilt = true;
        return CUDA_ERROR_STREAM_CAPTURE_IMPLICIT;
    }
    if (capture->spoilt) {
        return CUDA_ERROR_STREAM_CAPTURE_INVALIDATED;
    }
    branch = add_branch(capture, handle, waits_for_default);
    if (!branch || !ends_join(&branch->ends, &point->ends)) {
        capture->spoilt = true;
        return CUDA_ERROR_OUT_OF_MEMORY;
    }
    return CUDA_SUCCESS;
}

bool capture_waits(CUstream stream, uint64_t event, CUresult *result)
{
    const struct point *point;
    struct branch *branch;

    if (shared_load(&capture_streams) == 0 && shared_load(&capture_marks) == 0) {
        return false;
    }
    pthread_mutex_lock(&mutex);
    branch = branch_of(stream);
    point = *find_point(event);
    if (branch) {
        *result = branch_waits(branch, point);
    } else if (point) {
        *result = join_capture(stream, point);
    }
    pthread_mutex_unlock(&mutex);
    return branch || point;
}

bool capture_marked(uint64_t event)
{
    bool noted = false;

    if (shared_load(&capture_marks) != 0) {
        pthread_mutex_lock(&mutex);
        noted = *find_point(event) != NULL;
        pthread_mutex_unlock(&mutex);
    }
    return noted;
}

void capture_unmark(uint64_t event)
{
    struct point **place;

    if (shared_load(&capture_marks) != 0) {
        pthread_mutex_lock(&mutex);
        place = find_point(event);
        if (*place) {
            drop_point(place);
        }
        pthread_mutex_unlock(&mutex);
    }
}

/* What programs call -------------------------------------------------------------------------- */

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

CUresult guest_cuStreamBeginCapture_v2(CUstream stream, CUstreamCaptureMode mode)
{
    bool waits_for_default;
    uint64_t handle;
    CUresult r = stream_known(stream, &handle, &waits_for_default);

    if (r != CUDA_SUCCESS) {
        return r;
    }
    if (mode > CU_STREAM_CAPTURE_MODE_RELAXED) {
        return CUDA_ERROR_INVALID_VALUE;
    }
    if (handle == 0) {
        return CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED;
    }
    pthread_mutex_lock(&mutex);
    r = begin_capture(handle, waits_for_default, mode);
    pthread_mutex_unlock(&mutex);
    return r;
}

CUresult guest_cuStreamBeginCapture(CUstream stream)
{
    return guest_cuStreamBeginCapture_v2(stream, CU_STREAM_CAPTURE_MODE_GLOBAL);
}

/* Whether all that was captured comes before what the first stream would do next. */
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

/* With the mutex. */
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

CUresult guest_cuStreamEndCapture(CUstream stream, CUgraph *graph)
{
    struct graph *made = NULL;
    CUresult r;

    if (!graph) {
        return CUDA_ERROR_INVALID_VALUE;
    }
    pthread_mutex_lock(&mutex);
    r = end_in(branch_of(stream), &made);
    pthread_mutex_unlock(&mutex);
    *graph = (CUgraph)made;
    return r;
}

/* What is said of a stream that is not captured, and of the default one beside some that are. */
static CUresult status_of(CUstream stream, CUstreamCaptureStatus *status, struct branch **branch)
{
    uint64_t handle;
    CUresult r = stream_known(stream, &handle, NULL);

    *branch = r == CUDA_SUCCESS && handle != 0 ? find_branch(handle) : NULL;
    if (r == CUDA_SUCCESS && handle == 0) {
        for (const struct branch *other = branches; other; other = other->next) {
            r = other->waits_for_default ? CUDA_ERROR_STREAM_CAPTURE_IMPLICIT : r;
        }
    }
    *status = !*branch                     ? CU_STREAM_CAPTURE_STATUS_NONE
              : (*branch)->capture->spoilt ? CU_STREAM_CAPTURE_STATUS_INVALIDATED
                                           : CU_STREAM_CAPTURE_STATUS_ACTIVE;
    return r;
}

CUresult guest_cuStreamIsCapturing(CUstream stream, CUstreamCaptureStatus *status)
{
    struct branch *branch;
    uint64_t handle;
    CUresult r;

    if (!status) {
        return CUDA_ERROR_INVALID_VALUE;
    }
    if (shared_load(&capture_streams) == 0) {
        *status = CU_STREAM_CAPTURE_STATUS_NONE;
        return stream_known(stream, &handle, NULL);
    }
    pthread_mutex_lock(&mutex);
    r = status_of(stream, status, &branch);
    pthread_mutex_unlock(&mutex);
    return r;
}

CUresult guest_cuStreamGetCaptureInfo_v3(CUstream stream, CUstreamCaptureStatus *status,
                                         cuuint64_t *id, CUgraph *graph, const CUgraphNode **nodes,
                                         const CUgraphEdgeData **edges, size_t *count)
{
    struct branch *branch;
    CUresult r;

    if (!status) {
        return CUDA_ERROR_INVALID_VALUE;
    }
    pthread_mutex_lock(&mutex);
    r = status_of(stream, status, &branch);
    if (r == CUDA_SUCCESS && *status == CU_STREAM_CAPTURE_STATUS_ACTIVE) {
        if (id) {
            *id = branch->capture->id;
        }
        if (graph) {
            *graph = (CUgraph)branch->capture->graph;
        }
        if (nodes) {
            *nodes = (const CUgraphNode *)branch->ends.node;
        }
        if (edges) {
            *edges = NULL; /* none has data */
        }
        if (count) {
            *count = branch->ends.count;
        }
    }
    pthread_mutex_unlock(&mutex);
    return r;
}

CUresult guest_cuStreamGetCaptureInfo_v2(CUstream stream, CUstreamCaptureStatus *status,
                                         cuuint64_t *id, CUgraph *graph, const CUgraphNode **nodes,
                                         size_t *count)
{
    return guest_cuStreamGetCaptureInfo_v3(stream, status, id, graph, nodes, NULL, count);
}

CUresult guest_cuStreamGetCaptureInfo(CUstream stream, CUstreamCaptureStatus *status,
                                      cuuint64_t *id)
{
    return guest_cuStreamGetCaptureInfo_v3(stream, status, id, NULL, NULL, NULL, NULL);
}

/* With the mutex. */
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

CUresult guest_cuStreamUpdateCaptureDependencies(CUstream stream, CUgraphNode *nodes, size_t count,
                                                 unsigned int flags)
{
    CUresult r;

    if ((count > 0 && !nodes) || flags > CU_STREAM_SET_CAPTURE_DEPENDENCIES) {
        return CUDA_ERROR_INVALID_VALUE;
    }
    pthread_mutex_lock(&mutex);
    r = update_dependencies(branch_of(stream), nodes, count,
                            flags == CU_STREAM_SET_CAPTURE_DEPENDENCIES);
    pthread_mutex_unlock(&mutex);
    return r;
}

CUresult guest_cuStreamUpdateCaptureDependencies_v2(CUstream stream, CUgraphNode *nodes,
                                                    const CUgraphEdgeData *edges, size_t count,
                                                    unsigned int flags)
{
    const CUresult r = check_edges(edges, count);

    return r == CUDA_SUCCESS ? guest_cuStreamUpdateCaptureDependencies(stream, nodes, count, flags)
                             : r;
}

CUresult guest_cuThreadExchangeStreamCaptureMode(CUstreamCaptureMode *mode)
{
    const CUstreamCaptureMode before = thread_mode;

    if (!mode || *mode > CU_STREAM_CAPTURE_MODE_RELAXED) {
        return CUDA_ERROR_INVALID_VALUE;
    }
    thread_mode = *mode;
    *mode = before;
    return CUDA_SUCCESS;
}
