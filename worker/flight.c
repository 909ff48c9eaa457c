/* SPDX-License-Identifier: MIT */
/* A session's work on the GPU, see flight.h. */
#include "worker/flight.h"

#include <stddef.h>
#include <string.h>

#include "common/shared.h"

/* The most that a GPU is thought to take to turn to another process. */
#define SWITCH_MAX_NS UINT64_C(1000000)
/* A prediction is trusted but for this part of it. */
#define SURE_PART 8u
#define SWITCHES 4 /* of which an average is made */

void flight_init(struct flight *f, struct gpu *gpu, struct vgpu_turn_page *page)
{
    memset(f, 0, sizeof(*f));
    f->gpu = gpu;
    f->page = page;
    for (unsigned i = 0; i < FLIGHT_SEGMENTS; i++) {
        f->segments[i].next = f->free;
        f->free = &f->segments[i];
    }
}

/* What is left of it, as predicted. */
static uint64_t segment_remaining(const struct flight_segment *s, uint64_t now_ns)
{
    const uint64_t elapsed = s->before || now_ns < s->begun_ns ? 0 : now_ns - s->begun_ns;

    return s->predicted_ns > elapsed ? s->predicted_ns - elapsed : 0;
}

static uint32_t pieces_max(const struct flight *f)
{
    const uint32_t commands = shared_load(&f->page->terms.commands);

    return commands != 0 && commands < FLIGHT_PIECES ? commands : FLIGHT_PIECES;
}

/* Whether it takes longer than predicted, by more than a window. */
static bool segment_overruns(const struct flight_segment *s, uint64_t window, uint64_t now_ns)
{
    return !s->before && now_ns > s->begun_ns && now_ns - s->begun_ns > s->predicted_ns + window;
}

/* Whether a stream of a session that is alone on its GPU may have more. */
static bool may_alone(const struct flight *f, const struct flight_piece *piece, uint64_t now_ns)
{
    uint64_t before = 0;

    for (const struct flight_segment *s = f->first; s; s = s->next) {
        before += s->stream == piece->stream ? segment_remaining(s, now_ns) : 0;
    }
    return before <= FLIGHT_ALONE_NS;
}

bool flight_weigh(const struct flight *f, const struct flight_piece *piece, uint64_t now_ns)
{
    const uint64_t window = shared_load64(&f->page->terms.window_ns);
    uint64_t before = 0, beside = 0; /* in its stream; in others, as parts of the GPU */
    uint32_t filled = 0;
    bool overrun = false;

    if (f->pieces >= pieces_max(f) || !f->free) {
        return false;
    }
    if (window == 0) {
        return may_alone(f, piece, now_ns);
    }
    /* Mostly there is nothing but the stream that is added to: then nothing is beside it. */
    if (f->first && f->first == f->last && f->first->stream == piece->stream) {
        return segment_remaining(f->first, now_ns) <= window &&
               !segment_overruns(f->first, window, now_ns);
    }
    for (const struct flight_segment *s = f->first; s; s = s->next) {
        const uint64_t left = segment_remaining(s, now_ns);

        if (s->stream == piece->stream) {
            if (segment_overruns(s, window, now_ns)) {
                return false; /* and so may what is behind it */
            }
            before += left;
        } else if (s->engines & 1u << piece->engine) {
            overrun = overrun || segment_overruns(s, window, now_ns);
            beside += left * s->part / PREDICT_WHOLE;
            filled += s->before ? 0 : s->part;
        }
    }
    if (before > window) {
        return false;
    }
    return filled + piece->part <= PREDICT_WHOLE || (!overrun && before + beside <= window);
}

/* The stream's last segment, or NULL. */
static struct flight_segment *last_of(struct flight *f, const struct gpu_stream *stream)
{
    struct flight_segment *last = NULL;

    /* Mostly it is the newest of all: then there is no other to look at. */
    if (f->last && f->last->stream == stream) {
        return f->last;
    }
    for (struct flight_segment *s = f->first; s; s = s->next) {
        last = s->stream == stream ? s : last;
    }
    return last;
}

static struct flight_segment *open_segment(struct flight *f, struct gpu_stream *stream,
                                           struct flight_segment *before, uint64_t now_ns)
{
    struct flight_segment *s = f->free;

    f->free = s->next;
    /* All but the learners, of which `learners` says how many are valid: they are large. */
    memset(s, 0, offsetof(struct flight_segment, learner));
    s->stream = stream;
    s->before = before;
    s->begun_ns = now_ns;
    if (f->last) {
        f->last->next = s;
    } else {
        f->first = s;
    }
    f->last = s;
    return s;
}

/* Whether the segment is large enough to be watched by itself. */
static bool is_full(const struct flight *f, const struct flight_segment *s)
{
    const struct vgpu_terms *terms = &f->page->terms;
    const uint32_t commands = shared_load(&terms->commands);
    uint64_t window;

    static_assert(FLIGHT_SEGMENT_PIECES * 2 <= FLIGHT_PIECES, "with no limit, half of all is more");
    if (s->gate || s->pieces >= FLIGHT_SEGMENT_PIECES ||
        (commands != 0 && s->pieces * 2 >= commands)) {
        return true;
    }
    if (shared_load64(&terms->kernel_ns) != 0) {
        return s->learners > 0; /* each by itself: flight_overlong() */
    }
    window = shared_load64(&terms->window_ns);
    return window != 0 && s->predicted_ns >= window;
}

static void close_segment(struct flight *f, struct flight_segment *s)
{
    /* Where that fails the context is lost, as polling finds out. */
    s->closed = f->gpu->ops->fence(f->gpu, s->stream, &s->fence) == VGPU_GPU_SUCCESS;
}

/* One lesson for each kind, however many of its pieces there are. */
static void add_learner(struct flight_segment *s, const struct flight_piece *piece)
{
    struct prediction *prediction = piece->prediction;
    unsigned i = 0;

    while (i < s->learners &&
           (s->learner[i].prediction != prediction || s->learner[i].kind != prediction->kind)) {
        i++;
    }
    if (i == FLIGHT_LEARNERS) {
        s->disturbed = true;
        return;
    }
    if (i == s->learners) {
        s->learner[s->learners++] = (struct flight_learner){prediction, prediction->kind, 0, 0};
    }
    s->learner[i].ns += piece->ns;
    s->learner[i].pieces++;
}

/*
 * Makes a segment the newest. What it holds so far takes no time; it may have to wait for others
 * that were submitted since, as a stream does that waits for another's event.
 */
static void renew_estimate(struct flight *f, struct flight_segment *s, uint64_t now_ns)
{
    struct flight_segment **place = &f->first;

    if (s == f->last) {
        return;
    }
    while (*place != s) {
        place = &(*place)->next;
    }
    *place = s->next;
    s->next = NULL;
    s->begun_ns = now_ns;
    f->last->next = s;
    f->last = s;
}

void flight_add(struct flight *f, const struct flight_piece *piece, uint64_t now_ns)
{
    struct flight_segment *s = last_of(f, piece->stream);

    if (!s || s->closed) {
        s = open_segment(f, piece->stream, s, now_ns);
        if (piece->first) {
            s->first = true;
            s->switch_ns = f->switch_ns;
            s->predicted_ns = f->switch_ns;
            f->predicted_ns += f->switch_ns;
        }
    } else if (s->works == 0 && piece->prediction) {
        renew_estimate(f, s, now_ns);
    }
    if (piece->gate) {
        f->gates++;
        s->gate = true;
    }
    if (f->gates > 0) {
        /* It may wait for the gate, which nobody here knows. */
        s->disturbed = true;
    }
    if (piece->prediction) {
        s->works++;
        add_learner(s, piece);
    }
    s->pieces++;
    s->part = piece->part > s->part ? piece->part : s->part;
    s->predicted_ns += piece->ns;
    f->predicted_ns += piece->ns;
    s->engine_ns[piece->engine] += piece->ns;
    s->engines |= 1u << piece->engine;
    f->page->counters.in_flight = ++f->pieces;
    if (is_full(f, s)) {
        close_segment(f, s);
    }
}

/* Whether the segment only waits. One of work and a gate is taken for work. */
static bool is_gate(const struct flight_segment *s)
{
    return s->gate && s->works == 0;
}

static void count_time(struct flight *f, const struct flight_segment *s, uint64_t now_ns)
{
    for (unsigned i = 0; i < VGPU_ENGINES; i++) {
        const uint64_t from = f->counted_ns[i] > s->begun_ns ? f->counted_ns[i] : s->begun_ns;
        uint64_t ns = now_ns > from ? now_ns - from : 0;

        if (!(s->engines & 1u << i)) {
            continue;
        }
        if (s->engines != 1u << i && s->predicted_ns > 0) {
            ns = (uint64_t)((double)ns * (double)s->engine_ns[i] / (double)s->predicted_ns);
        }
        f->page->counters.gpu_ns[i] += ns;
        f->counted_ns[i] = now_ns;
        f->idle_ns[i] = now_ns;
    }
}

/* Whether what is predicted for the segment's pieces has been measured before. */
static bool all_measured(const struct flight_segment *s)
{
    for (unsigned i = 0; i < s->learners; i++) {
        if (!s->learner[i].prediction->measured) {
            return false;
        }
    }
    return true;
}

/*
 * Each kind is taken to have been as wrong as all of the segment, against what was predicted when
 * it was submitted. One whose begin and end were seen at once was not measured. What the first of
 * a turn takes longer, within reason, is the GPU's turning to this process.
 */
static void learn_duration(struct flight *f, const struct flight_segment *s, uint64_t ns)
{
    const uint64_t predicted = s->predicted_ns - s->switch_ns;
    const uint64_t extra = ns > predicted ? ns - predicted : 0;

    if (s->disturbed || ns == 0) {
        return;
    }
    if (s->first && extra > 0 && extra < SWITCH_MAX_NS && all_measured(s)) {
        f->switch_ns = f->switch_ns - f->switch_ns / SWITCHES + extra / SWITCHES;
        return;
    }
    ns -= s->switch_ns < ns ? s->switch_ns : 0;
    for (unsigned i = 0; i < s->learners; i++) {
        const struct flight_learner *l = &s->learner[i];
        const double part = predicted > 0 ? (double)l->ns / (double)predicted
                                          : (double)l->pieces / s->pieces;

        if (l->prediction->kind == l->kind) {
            predict_learn(l->prediction, (uint64_t)((double)ns * part / l->pieces));
        }
    }
}

/* The segment at *place has ended. */
static void end_segment(struct flight *f, struct flight_segment **place, uint64_t now_ns)
{
    struct flight_segment *s = *place;
    struct flight_segment *previous = NULL;

    count_time(f, s, now_ns);
    learn_duration(f, s, now_ns - s->begun_ns);
    if (s->closed) {
        f->gpu->ops->fence_release(f->gpu, &s->fence);
    }
    /* The end of a gate gives nobody more time: flight_overlong(). */
    if (place == &f->first && !is_gate(s)) {
        f->first_ns = now_ns;
    }
    f->gates -= s->gate;
    *place = s->next;
    for (struct flight_segment *other = f->first; other; other = other->next) {
        if (other->before == s) {
            other->before = NULL;
            other->begun_ns = now_ns;
        }
        previous = other;
    }
    f->last = previous;
    f->pieces -= s->pieces;
    f->predicted_ns -= s->predicted_ns;
    f->page->counters.in_flight = f->pieces;
    s->next = f->free;
    f->free = s;
}

bool flight_poll(struct flight *f, uint64_t now_ns)
{
    struct flight_segment **place = &f->first;
    bool any = false;

    while (*place) {
        struct flight_segment *s = *place;
        enum vgpu_gpu_error error = VGPU_GPU_NOT_READY;

        if (!s->before) {
            error = s->closed ? f->gpu->ops->fence_poll(f->gpu, &s->fence)
                              : f->gpu->ops->stream_poll(f->gpu, s->stream);
        }
        if (error == VGPU_GPU_NOT_READY) {
            place = &s->next;
            continue;
        }
        end_segment(f, place, now_ns);
        any = true;
    }
    return any;
}

void flight_disturb(struct flight *f)
{
    for (struct flight_segment *s = f->first; s; s = s->next) {
        s->disturbed = true;
    }
}

uint64_t flight_remaining(const struct flight *f, enum vgpu_engine engine, uint64_t now_ns)
{
    uint64_t sum = 0;

    for (const struct flight_segment *s = f->first; s; s = s->next) {
        if (s->engines & 1u << engine) {
            sum += segment_remaining(s, now_ns);
        }
    }
    return sum;
}

uint64_t flight_next(const struct flight *f, uint64_t now_ns)
{
    const uint64_t window = shared_load64(&f->page->terms.window_ns);
    uint64_t next = UINT64_MAX;

    for (const struct flight_segment *s = f->first; s; s = s->next) {
        /* It may well end before that. */
        const uint64_t margin = s->predicted_ns / SURE_PART;
        const uint64_t left = segment_remaining(s, now_ns);
        const uint64_t sure = left > margin ? left - margin : 0;

        if (!s->before && sure < next) {
            next = sure;
        }
    }
    return next == UINT64_MAX || next <= window ? 0 : next - window;
}

/*
 * With a limit each segment has one piece at most, and they are in the order of submission: the
 * oldest waits for no other, and whatever is behind it will be the oldest in its turn. What stands
 * at a gate is passed over.
 */
bool flight_overlong(const struct flight *f, uint64_t now_ns)
{
    const uint64_t limit = shared_load64(&f->page->terms.kernel_ns);
    const struct flight_segment *s = f->first;
    uint64_t from;

    while (s && (is_gate(s) || s->before)) {
        s = s->next;
    }
    if (limit == 0 || !s) {
        return false;
    }
    from = s->begun_ns > f->first_ns ? s->begun_ns : f->first_ns;
    return now_ns > from && now_ns - from > limit * (s->works > 1 ? s->works : 1);
}

void flight_forget(struct flight *f, struct gpu_stream *stream, uint64_t now_ns)
{
    struct flight_segment **place = &f->first;

    while (*place) {
        if ((*place)->stream == stream) {
            end_segment(f, place, now_ns);
        } else {
            place = &(*place)->next;
        }
    }
}

void flight_release(struct flight *f)
{
    for (struct flight_segment *s = f->first; s; s = s->next) {
        if (s->closed) {
            f->gpu->ops->fence_release(f->gpu, &s->fence);
        }
    }
    f->first = f->last = NULL;
}
