/* SPDX-License-Identifier: MIT */
/*
 * Streams, events and fences on the cuda backend.
 *
 * A stream counts what was submitted to it, so each call that puts something into a stream is
 * preceded by cuda_submit(). A fence is a mark at the end of a stream: as long as nothing follows
 * in the stream, to ask whether the mark is passed is to ask the stream. Just before something
 * follows, an event is recorded, which the mark has from then on. So the customary "submit, wait"
 * costs no event. A mark is in one of these states:
 *
 *   at the end    `stream` is set, and that stream's `end` is this mark
 *   settled       `event` is set; `stream` is NULL, since the stream may be gone
 *   lost          neither: no event could be had, and a poll says OUT_OF_MEMORY
 *
 * A fence of an event is a reference to what the event was recorded as; to record it anew makes a
 * new one while there are such references.
 */

#include <stdlib.h>

#include "worker/backend-cuda/cuda-driver.h"
#include "worker/backend-cuda/raw.h"
#include "worker/gpu.h"

/* A point in a stream that somebody waits for. */
struct mark {
    unsigned references;
    struct gpu_stream *stream; /* whose end it is; NULL when something followed */
    CUevent event;             /* then; NULL when there could be none */
};

struct gpu_stream {
    CUstream handle;
    uint64_t submitted, done; /* pieces of work */
    struct mark *end;         /* the mark at its end, without an event yet; or NULL */
    struct gpu_stream *next_active, **active_place; /* with work that is not known to be done */
};

/* What an event was recorded as; goes on with those who wait for it when it is recorded anew. */
struct record {
    unsigned references;
    CUevent handle;
};

struct gpu_event {
    struct record *record;
    unsigned flags; /* of CUDA's */
};

struct cuda_gpu {
    struct gpu head;
    struct gpu_stream main; /* the default stream */
    struct gpu_stream *active;
    CUevent *spare; /* events for marks */
    size_t spare_count, spare_room;
    struct printing printing;
};

static struct cuda_gpu *cuda_of(struct gpu *gpu)
{
    return (struct cuda_gpu *)gpu;
}

static struct gpu_stream *raw_stream(struct gpu *gpu, struct gpu_stream *stream)
{
    return stream ? stream : &cuda_of(gpu)->main;
}

/* Records of events --------------------------------------------------------------------------- */

/* The one reference that it begins with is the event's own. */
static struct record *make_record(unsigned flags, CUresult *error)
{
    struct record *record = calloc(1, sizeof(*record));

    *error = CUDA_ERROR_OUT_OF_MEMORY;
    if (!record) {
        return NULL;
    }
    *error = cu.EventCreate(&record->handle, flags);
    if (*error != CUDA_SUCCESS) {
        free(record);
        return NULL;
    }
    record->references = 1;
    return record;
}

/* NULL is allowed. */
static void drop_record(struct record *record)
{
    if (record && --record->references == 0) {
        cu.EventDestroy(record->handle);
        free(record);
    }
}

/* Marks --------------------------------------------------------------------------------------- */

/*
 * Events of marks are used again and again, since each costs two calls of the driver's. They have
 * no timing, which makes them cheaper.
 */
static CUevent take_spare_event(struct cuda_gpu *cuda)
{
    CUevent event = NULL;

    if (cuda->spare_count > 0) {
        return cuda->spare[--cuda->spare_count];
    }
    return cu.EventCreate(&event, CU_EVENT_DISABLE_TIMING) == CUDA_SUCCESS ? event : NULL;
}

/* Without memory for the list the event is destroyed instead. */
static void give_spare(struct cuda_gpu *cuda, CUevent event)
{
    if (cuda->spare_count == cuda->spare_room) {
        const size_t room = cuda->spare_room + VGPU_SLOTS;
        CUevent *more = realloc(cuda->spare, room * sizeof(CUevent));

        if (!more) {
            cu.EventDestroy(event);
            return;
        }
        cuda->spare = more;
        cuda->spare_room = room;
    }
    cuda->spare[cuda->spare_count++] = event;
}

/*
 * Gives the mark at the stream's end an event, since something is about to follow. Later it would
 * be too late: the event would stand behind that.
 */
static void cuda_settle(struct cuda_gpu *cuda, struct gpu_stream *stream)
{
    struct mark *mark = stream->end;

    stream->end = NULL;
    if (mark) {
        mark->stream = NULL;
        mark->event = take_spare_event(cuda);
        if (mark->event) {
            /* A failure loses the context, which polling finds out. */
            cu.EventRecord(mark->event, stream->handle);
        }
    }
}

/*
 * The list of streams with work that is not known to be done; cuda_fence() and cuda_copy() ask
 * whether it is empty. A stream leaves it when a query finds it done.
 */
static void set_active(struct cuda_gpu *cuda, struct gpu_stream *stream)
{
    if (!stream->active_place) {
        stream->next_active = cuda->active;
        stream->active_place = &cuda->active;
        if (stream->next_active) {
            stream->next_active->active_place = &stream->next_active;
        }
        cuda->active = stream;
    }
}

static void set_inactive(struct gpu_stream *stream)
{
    if (stream->active_place) {
        *stream->active_place = stream->next_active;
        if (stream->next_active) {
            stream->next_active->active_place = stream->active_place;
        }
        stream->active_place = NULL;
    }
}

/* To be called before each piece of work. */
CUstream cuda_submit(struct gpu *gpu, struct gpu_stream *stream)
{
    struct cuda_gpu *cuda = cuda_of(gpu);

    stream = raw_stream(gpu, stream);
    cuda_settle(cuda, stream);
    stream->submitted++;
    set_active(cuda, stream);
    return stream->handle;
}

/* What a query for work that was submitted says: its errors lose the context. */
static enum vgpu_gpu_error check_lost(struct gpu *gpu, CUresult error)
{
    if (error != CUDA_SUCCESS && error != CUDA_ERROR_NOT_READY) {
        gpu->lost = error;
    }
    return error;
}

static enum vgpu_gpu_error cuda_query(struct gpu *gpu, struct gpu_stream *stream)
{
    const CUresult error = cu.StreamQuery(stream->handle);

    /* All that was submitted, since nothing else submits meanwhile. */
    if (error == CUDA_SUCCESS) {
        stream->done = stream->submitted;
        set_inactive(stream);
    }
    return check_lost(gpu, error);
}

/*
 * A fence that is all zero is passed already: where the stream has nothing to do, no mark is made.
 * Several fences of one end share a mark.
 */
enum vgpu_gpu_error cuda_fence(struct gpu *gpu, struct gpu_stream *stream, struct gpu_fence *fence)
{
    struct cuda_gpu *cuda = cuda_of(gpu);
    /* The default stream ends after all that others have to do. */
    const bool passed = stream ? stream->done == stream->submitted : !cuda->active;
    struct mark *mark;

    stream = raw_stream(gpu, stream);
    *fence = (struct gpu_fence){0};
    if (passed || cuda->head.lost != VGPU_GPU_SUCCESS) {
        return cuda->head.lost;
    }
    mark = stream->end;
    if (!mark) {
        mark = calloc(1, sizeof(*mark));
        if (!mark) {
            return VGPU_GPU_OUT_OF_MEMORY;
        }
        mark->stream = stream;
        stream->end = mark;
        set_active(cuda, stream);
        if (stream == &cuda->main && (cuda->active != stream || stream->next_active)) {
            /* Work of other streams could come before its end until that is an event. */
            cuda_settle(cuda, stream);
        }
    }
    mark->references++;
    fence->mark = mark;
    return VGPU_GPU_SUCCESS;
}

enum vgpu_gpu_error cuda_fence_poll(struct gpu *gpu, const struct gpu_fence *fence)
{
    const struct mark *mark = fence->mark;

    const struct record *record = fence->record;

    if (record) {
        return check_lost(gpu, cu.EventQuery(record->handle));
    }
    if (!mark) {
        return VGPU_GPU_SUCCESS;
    }
    if (mark->stream) {
        return cuda_query(gpu, mark->stream);
    }
    return mark->event ? check_lost(gpu, cu.EventQuery(mark->event)) : VGPU_GPU_OUT_OF_MEMORY;
}

/*
 * A mark at a stream's end that nobody waits for any more must not be found there; its event, if it
 * got one, is spare.
 */
void cuda_fence_release(struct gpu *gpu, struct gpu_fence *fence)
{
    struct mark *mark = fence->mark;

    drop_record(fence->record);
    fence->record = NULL;
    fence->mark = NULL;
    if (!mark || --mark->references > 0) {
        return;
    }
    if (mark->stream) {
        mark->stream->end = NULL;
    } else if (mark->event) {
        give_spare(cuda_of(gpu), mark->event);
    }
    free(mark);
}

/* Streams and events -------------------------------------------------------------------------- */

enum vgpu_gpu_error cuda_stream_create(struct gpu *gpu, uint32_t flags, int32_t priority,
                                       struct gpu_stream **stream)
{
    struct gpu_stream *made = calloc(1, sizeof(*made));
    CUresult error;

    (void)gpu;
    if (!made) {
        return VGPU_GPU_OUT_OF_MEMORY;
    }
    error = cu.StreamCreateWithPriority(
        &made->handle,
        flags & VGPU_STREAM_NON_BLOCKING ? CU_STREAM_NON_BLOCKING : CU_STREAM_DEFAULT, priority);
    if (error != CUDA_SUCCESS) {
        free(made);
        return error;
    }
    *stream = made;
    return VGPU_GPU_SUCCESS;
}

/*
 * Fences of the stream stay good, by their marks' events. The stream has nothing left to do
 * (gpu.h), so destroying it does not wait.
 */
void cuda_stream_destroy(struct gpu *gpu, struct gpu_stream *stream)
{
    cuda_settle(cuda_of(gpu), stream);
    set_inactive(stream);
    cu.StreamDestroy(stream->handle);
    free(stream);
}

/* A wait is something in the stream, and counts as work: a fence behind it has to wait for it. */
enum vgpu_gpu_error cuda_stream_wait(struct gpu *gpu, struct gpu_stream *stream,
                                     struct gpu_event *event)
{
    return cu.StreamWaitEvent(cuda_submit(gpu, stream), event->record->handle, 0);
}

enum vgpu_gpu_error cuda_event_create(struct gpu *gpu, uint32_t flags, struct gpu_event **event)
{
    struct gpu_event *made = calloc(1, sizeof(*made));
    CUresult error;

    (void)gpu;
    if (!made) {
        return VGPU_GPU_OUT_OF_MEMORY;
    }
    made->flags = flags & VGPU_EVENT_NO_TIMING ? CU_EVENT_DISABLE_TIMING : CU_EVENT_DEFAULT;
    made->record = make_record(made->flags, &error);
    if (!made->record) {
        free(made);
        return error;
    }
    *event = made;
    return VGPU_GPU_SUCCESS;
}

void cuda_event_destroy(struct gpu *gpu, struct gpu_event *event)
{
    (void)gpu;
    drop_record(event->record);
    free(event);
}

enum vgpu_gpu_error cuda_event_record(struct gpu *gpu, struct gpu_event *event,
                                      struct gpu_stream *stream)
{
    CUresult error;
    struct record *record = event->record;

    if (record->references > 1) {
        /*
         * Fences wait for what was recorded then, and go on to: the event gets a new record, and
         * the old one is theirs.
         */
        record = make_record(event->flags, &error);
        if (!record) {
            return error;
        }
        drop_record(event->record);
        event->record = record;
    }
    return cu.EventRecord(record->handle, cuda_submit(gpu, stream));
}

enum vgpu_gpu_error cuda_event_fence(struct gpu *gpu, struct gpu_event *event,
                                     struct gpu_fence *fence)
{
    if (gpu->lost == VGPU_GPU_SUCCESS) {
        event->record->references++;
        *fence = (struct gpu_fence){.record = event->record};
    }
    return gpu->lost;
}

enum vgpu_gpu_error cuda_event_query(struct gpu *gpu, struct gpu_event *event)
{
    return check_lost(gpu, cu.EventQuery(event->record->handle));
}

enum vgpu_gpu_error cuda_event_elapsed(struct gpu *gpu, struct gpu_event *start,
                                       struct gpu_event *end, float *milliseconds)
{
    (void)gpu;
    return cu.EventElapsedTime(milliseconds, start->record->handle, end->record->handle);
}

/* Waiting ------------------------------------------------------------------------------------- */

/* A stream that is known to be done is not asked again, which would be a call of the driver's. */
enum vgpu_gpu_error cuda_stream_poll(struct gpu *gpu, struct gpu_stream *stream)
{
    stream = raw_stream(gpu, stream);
    return stream->done == stream->submitted ? gpu->lost : cuda_query(gpu, stream);
}

/* For the others in this folder --------------------------------------------------------------- */

CUstream cuda_raw_stream(struct gpu *gpu, struct gpu_stream *stream)
{
    return raw_stream(gpu, stream)->handle;
}

bool cuda_is_idle(struct gpu *gpu)
{
    return !cuda_of(gpu)->active;
}

struct printing *cuda_printing(struct gpu *gpu)
{
    return &cuda_of(gpu)->printing;
}

struct gpu *cuda_gpu_new(void)
{
    struct cuda_gpu *cuda = calloc(1, sizeof(*cuda));

    return cuda ? &cuda->head : NULL;
}

void cuda_gpu_free(struct gpu *gpu)
{
    free(cuda_of(gpu));
}
