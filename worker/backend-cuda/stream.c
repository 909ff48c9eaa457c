/* SPDX-License-Identifier: MIT */
/*
 * Streams, events and fences on the cuda backend.
 *
 * A stream counts what was submitted to it, so each call that puts something into a stream is
 * preceded by cuda_submit(). A fence is a mark at the end of a stream: as long as nothing follows
 * in the stream, to ask whether the mark is passed is to ask the stream. Just before something
 * follows, an event is recorded, which the mark has from then on. So work that is submitted and
 * watched costs no event.
 *
 * To ask costs 1.5 us on an H200 from a launch on until the driver knows that all is done, and 0.2
 * else: it looks at the GPU whether a kernel has failed. So for a mark that a guest waits for, the
 * GPU writes a word of memory when it comes there (cuStreamBatchMemOp), and to look at that costs
 * nothing. A context that is lost writes no more, so now and then the driver is asked all the same.
 *
 * A mark is in one of these states:
 *
 *   at the end    `stream` is set, and that stream's `end` is this mark
 *   settled       `event` or `word` is set; `stream` is NULL, since the stream may be gone
 *   lost          neither: no event could be had, and a poll says OUT_OF_MEMORY
 *
 * A fence of an event is a reference to what the event was recorded as; to record it anew makes a
 * new one while there are such references.
 */

#include <stdlib.h>
#include <string.h>

#include "common/shared.h"
#include "worker/backend-cuda/cuda-driver.h"
#include "worker/backend-cuda/raw.h"
#include "worker/gpu.h"

#define WORDS 128u    /* for marks that are waited for */
#define POLLS_MAX 64u /* looks at a word before the driver is asked */

/* Written by the GPU, each in a cache line of its own. */
struct word {
    uint32_t value;
    uint8_t unused[60];
};

/* A point in a stream that somebody waits for. */
struct mark {
    unsigned references;
    struct gpu_stream *stream; /* whose end it is; NULL when something followed */
    CUevent event;             /* then; NULL when there could be none, or there is a word */
    struct word *word;         /* that the GPU writes, or NULL */
    unsigned polls;            /* looks at it since the driver was asked */
    bool told;                 /* the guest has the GPU's answer: for it the mark is passed */
};

struct gpu_stream {
    CUstream handle;
    uint64_t submitted, done; /* pieces of work */
    struct mark *end;         /* the mark at its end, without an event yet; or NULL */
    struct gpu_stream *next_active, **active_place; /* with work that is not known to be done */
    struct gpu_stream *next_unconfirmed, **unconfirmed_place;
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

    struct word *words;             /* page-locked; NULL: there are none */
    uint32_t expected[WORDS];       /* what the GPU has been told last to write there */
    bool taken[WORDS];              /* by a mark */
    unsigned next_word;             /* where to look for one that is free */
    struct gpu_stream *unconfirmed; /* a list, of those that by a word alone are done */
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
 * Takes a word that no mark has, and that the GPU has written as it was told last: one of a mark
 * that was given up may still be written. NULL when there is none.
 */
static struct word *take_word(struct cuda_gpu *cuda)
{
    for (unsigned i = 0; cuda->words && i < WORDS; i++) {
        const unsigned n = cuda->next_word++ % WORDS;

        if (!cuda->taken[n] && shared_load(&cuda->words[n].value) == cuda->expected[n]) {
            cuda->taken[n] = true;
            return &cuda->words[n];
        }
    }
    return NULL;
}

static uint32_t *expected_in(struct cuda_gpu *cuda, const struct word *word)
{
    return &cuda->expected[word - cuda->words];
}

/*
 * Has the GPU write a word when it comes to the mark, which is at its stream's end; before that
 * `value` to `*other`, unless it is NULL. Returns whether it will.
 */
static bool arm_mark(struct cuda_gpu *cuda, struct mark *mark, uint32_t *other, uint32_t value)
{
    struct word *word = take_word(cuda);
    struct mem_op_params writes[] = {
        {.operation = MEM_OP_WRITE_VALUE_32,
         .address = (CUdeviceptr)(uintptr_t)other,
         .value = value},
        {.operation = MEM_OP_WRITE_VALUE_32, .address = (CUdeviceptr)(uintptr_t)word},
    };
    const unsigned first = other ? 0 : 1;

    if (!word) {
        return false;
    }
    writes[1].value = ++*expected_in(cuda, word);
    if (cu.StreamBatchMemOp(mark->stream->handle, 2 - first, &writes[first], 0) != CUDA_SUCCESS) {
        /* Nothing will be written: the stream is asked, which tells why. */
        --*expected_in(cuda, word);
        cuda->taken[word - cuda->words] = false;
        return false;
    }
    mark->word = word;
    return true;
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
        mark->event = mark->word ? NULL : take_spare_event(cuda);
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

/*
 * Words lie where kernels of the session could write too, if they found the place. So what is done
 * by a word is confirmed by the driver before others get the GPU, and here is what is not yet.
 */
static void set_unconfirmed(struct cuda_gpu *cuda, struct gpu_stream *stream)
{
    if (!stream->unconfirmed_place) {
        stream->next_unconfirmed = cuda->unconfirmed;
        stream->unconfirmed_place = &cuda->unconfirmed;
        if (stream->next_unconfirmed) {
            stream->next_unconfirmed->unconfirmed_place = &stream->next_unconfirmed;
        }
        cuda->unconfirmed = stream;
    }
    cuda->head.unconfirmed = true;
}

static void set_confirmed(struct cuda_gpu *cuda, struct gpu_stream *stream)
{
    if (stream->unconfirmed_place) {
        *stream->unconfirmed_place = stream->next_unconfirmed;
        if (stream->next_unconfirmed) {
            stream->next_unconfirmed->unconfirmed_place = stream->unconfirmed_place;
        }
        stream->unconfirmed_place = NULL;
    }
    cuda->head.unconfirmed = cuda->unconfirmed != NULL;
}

/* All that was submitted is done: nothing else submits meanwhile. */
static void note_done(struct gpu_stream *stream)
{
    stream->done = stream->submitted;
    set_inactive(stream);
}

static enum vgpu_gpu_error cuda_query(struct gpu *gpu, struct gpu_stream *stream)
{
    const CUresult error = cu.StreamQuery(stream->handle);

    if (error == CUDA_SUCCESS) {
        note_done(stream);
    }
    if (error != CUDA_ERROR_NOT_READY) {
        set_confirmed(cuda_of(gpu), stream);
    }
    return check_lost(gpu, error);
}

/*
 * Before the driver is asked about an event: as long as it does not know that a stream is done,
 * each such call costs what this one does. One that has got something since is not done anyway.
 */
static void tell_driver(struct gpu *gpu)
{
    struct gpu_stream *stream = cuda_of(gpu)->unconfirmed, *next;

    for (; stream; stream = next) {
        next = stream->next_unconfirmed;
        if (stream->done == stream->submitted) {
            cuda_query(gpu, stream);
        }
    }
}

bool cuda_confirm(struct gpu *gpu)
{
    struct cuda_gpu *cuda = cuda_of(gpu);
    struct gpu_stream *stream = cuda->unconfirmed, *next;

    for (; stream; stream = next) {
        next = stream->next_unconfirmed;
        cuda_query(gpu, stream);
    }
    return !cuda->head.unconfirmed;
}

/* Looks at the word of a mark, and whether the context is lost. */
static enum vgpu_gpu_error poll_word(struct gpu *gpu, struct mark *mark)
{
    struct cuda_gpu *cuda = cuda_of(gpu);

    if (shared_load_acquire(&mark->word->value) == *expected_in(cuda, mark->word)) {
        /* The default stream may be active without work of its own. */
        if (mark->stream && mark->stream->active_place) {
            note_done(mark->stream);
            set_unconfirmed(cuda, mark->stream);
        }
        return VGPU_GPU_SUCCESS;
    }
    if (++mark->polls >= POLLS_MAX) {
        mark->polls = 0;
        if (mark->stream) {
            return cuda_query(gpu, mark->stream);
        }
        check_lost(gpu, cu.StreamQuery(cuda->main.handle));
    }
    return gpu->lost != VGPU_GPU_SUCCESS ? gpu->lost : VGPU_GPU_NOT_READY;
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
    if (stream == &cuda->main && cuda->active && (cuda->active != stream || stream->next_active)) {
        /* A mark of before may be passed sooner than what other streams have got since. */
        cuda_settle(cuda, stream);
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
    struct mark *mark = fence->mark;
    const struct record *record = fence->record;

    if (record) {
        tell_driver(gpu);
        return check_lost(gpu, cu.EventQuery(record->handle));
    }
    if (!mark) {
        return VGPU_GPU_SUCCESS;
    }
    if (fence->asked && mark->told) {
        return gpu->lost;
    }
    if (fence->awaited && mark->stream && !mark->word) {
        arm_mark(cuda_of(gpu), mark, NULL, 0);
    }
    if (mark->word) {
        return poll_word(gpu, mark);
    }
    if (mark->stream) {
        return cuda_query(gpu, mark->stream);
    }
    return mark->event ? check_lost(gpu, cu.EventQuery(mark->event)) : VGPU_GPU_OUT_OF_MEMORY;
}

bool cuda_fence_answer(struct gpu *gpu, struct gpu_fence *fence, uint32_t *word, uint32_t value)
{
    struct mark *mark = fence->mark;

    return mark && mark->stream && !mark->word && arm_mark(cuda_of(gpu), mark, word, value);
}

void cuda_fence_told(struct gpu *gpu, const struct gpu_fence *fence)
{
    struct mark *mark = fence->mark;

    (void)gpu;
    if (mark) {
        mark->told = true;
    }
}

bool cuda_reach(struct gpu *gpu, void *memory, uint64_t bytes)
{
    return cuda_of(gpu)->words &&
           cu.MemHostRegister(memory, bytes, CU_MEMHOSTREGISTER_DEVICEMAP) == CUDA_SUCCESS;
}

void cuda_unreach(struct gpu *gpu, void *memory)
{
    (void)gpu;
    cu.MemHostUnregister(memory);
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
    if (mark->word) {
        cuda_of(gpu)->taken[mark->word - cuda_of(gpu)->words] = false;
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
    set_confirmed(cuda_of(gpu), stream);
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
    tell_driver(gpu);
    return check_lost(gpu, cu.EventQuery(event->record->handle));
}

enum vgpu_gpu_error cuda_event_elapsed(struct gpu *gpu, struct gpu_event *start,
                                       struct gpu_event *end, float *milliseconds)
{
    tell_driver(gpu);
    return cu.EventElapsedTime(milliseconds, start->record->handle, end->record->handle);
}

/* Waiting ------------------------------------------------------------------------------------- */

/* A stream that is known to be done is not asked again, which would be a call of the driver's. */
enum vgpu_gpu_error cuda_stream_poll(struct gpu *gpu, struct gpu_stream *stream)
{
    stream = raw_stream(gpu, stream);
    if (stream->done == stream->submitted) {
        return gpu->lost;
    }
    return stream->end && stream->end->word ? poll_word(gpu, stream->end) : cuda_query(gpu, stream);
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

void cuda_make_words(struct gpu *gpu)
{
    void *words = NULL;

    if (cu.StreamBatchMemOp && cu.MemHostAlloc(&words, WORDS * sizeof(struct word),
                                               CU_MEMHOSTALLOC_DEVICEMAP) == CUDA_SUCCESS) {
        cuda_of(gpu)->words = memset(words, 0, WORDS * sizeof(struct word));
    }
}

void cuda_gpu_free(struct gpu *gpu)
{
    free(cuda_of(gpu));
}
