/* SPDX-License-Identifier: MIT */
/*
 * A session's work on the GPU: flight.h has the theory, this file how the book is kept.
 *
 * One list has the segments of all streams in the order of their begin. A segment is
 *
 *   open or closed    an open one takes more pieces, and its end is seen when its stream has
 *                     nothing to do; so only a stream's last segment may be open. A closed
 *                     one takes none, and its end is seen by its fence.
 *   first or behind   time passes for the first of a stream alone. One behind another
 *                     (`before`) has all of its time left, and is not looked at.
 *
 * An example, with a window of 1 ms, one stream, and no limit on kernels. Kernels of 300 us:
 *
 *      0 us   K1 to K4 are submitted: they find 0, 300, 600 and 900 us of work before them, no
 *             more than a window. K5 would find 1200. The four are one segment, which is closed
 *             since it is as long as a window.
 *    200 us   1000 us are left: K5 is submitted and opens a segment. K6 follows at 500 us, K7 at
 *             800, K8 at 1100; with K8 the second segment is closed.
 *   1200 us   The first fence is passed. The segment took 1200 us, each of its kernels a quarter
 *             of that: the prediction stays. The second one's time begins; K9 follows at 1400.
 *
 * So the GPU has 1 to 1.3 ms of work at any time, and four kernels cost one fence. Had the guest
 * launched K1 and K2 alone and waited, they would have cost none. Kernels of 5 ms:
 *
 *      0 us   K1 is submitted, a segment of its own. K2 would find 5000 us. flight_next() says
 *             3375: K1 may end an eighth sooner, and K2 may come a window before that.
 *   4000 us   1000 us are left: K2 is submitted, and is there when K1 ends.
 *   5000 us   K1's fence is passed and K2's time begins. K3 follows at 9000.
 *
 * A VM of a higher band finds a window and one kernel there at most. Kernels that were predicted to
 * take 300 us and now take 5 ms: all goes as above until K8. Then the first segment does not end,
 * and nothing follows. It ends at 20 ms; half of the difference is learned, 2650 us are predicted,
 * later 3825 and 4412, and from now on each kernel is a segment of its own. The VM pays for those
 * that were too many, since the mediator charges by its own clock.
 */
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

/*
 * What is left of it, as predicted: all, while it is behind another, and 0 when it takes longer
 * than predicted.
 */
static uint64_t segment_remaining(const struct flight_segment *s, uint64_t now_ns)
{
    const uint64_t elapsed = s->before || now_ns < s->begun_ns ? 0 : now_ns - s->begun_ns;

    return s->predicted_ns > elapsed ? s->predicted_ns - elapsed : 0;
}

/* The VM's limit as the mediator shares it out, which may change at any moment; 0 is none. */
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

/*
 * Whether a stream of a session that is alone on its GPU may have more. Nobody waits for it, so
 * neither other streams nor how late it is matter.
 */
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
        /*
         * Its own stream counts whatever the engine, since all in it is done in order. Of other
         * streams those count that use the engine: the first of each with the part of the GPU that
         * it fills now, all of them with the time that they will fill of it.
         */
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
    /* It fits beside the others; or they are about to end, so it is as good as alone. */
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

/* There is a free one: flight_may() has looked, and is asked before each piece. */
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

/*
 * Whether the segment is large enough to be watched by itself. Half of the VM's limit on pieces is,
 * so that some are free again before all are done. With a limit on kernels each piece that takes
 * time is, since nothing else tells since when it runs.
 */
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

/*
 * One lesson for each kind, however many of its pieces there are: with one for each, the same
 * mistake would be corrected as many times. A segment with more kinds than there is room for
 * teaches nothing: its time could not be divided up among them.
 */
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
 * Makes a segment the newest. It holds nothing that takes time so far, waits for events and records
 * say, so its time begins with the piece that is added now, and it may have to wait for work that
 * was submitted since, in the stream whose event it waits for.
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

/*
 * To be called before anything else is submitted to the stream: the fence that may be made here is
 * to be the piece's end.
 */
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

/*
 * Counts the time of the segment's engines. Segments of several streams overlap, so an engine's
 * time is counted from counted_ns on alone. If the segment has work of several engines, each gets a
 * part as it was predicted. These counters are for display: nobody is charged by them.
 */
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
 * it was submitted: of 100 and 300 us that took 800 together, the one is learned as 200, the other
 * as 600. A segment whose begin and end were seen at once was not measured. The first one of a turn
 * may take longer since the GPU had to turn to this process: the rest, within reason, is learned as
 * that, but only where its kinds are all known well enough to tell the two apart.
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

        /* By now the place in the table may be another kind's. */
        if (l->prediction->kind == l->kind) {
            predict_learn(l->prediction, (uint64_t)((double)ns * part / l->pieces));
        }
    }
}

/*
 * The segment at *place has ended: the next one of its stream begins, and *place is the one that
 * follows in the list.
 */
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
        /* Any error but this is an end too: the context is lost, and nothing in it will be done. */
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
        /* It may well end before that: a prediction rises at once and falls slowly. */
        const uint64_t margin = s->predicted_ns / SURE_PART;
        const uint64_t left = segment_remaining(s, now_ns);
        const uint64_t sure = left > margin ? left - margin : 0;

        if (!s->before && sure < next) {
            next = sure;
        }
    }
    return next == UINT64_MAX || next <= window ? 0 : next - window;
}

void flight_shift(struct flight *f, uint64_t ns)
{
    for (struct flight_segment *s = f->first; s; s = s->next) {
        s->begun_ns += ns;
        s->disturbed = true;
    }
    f->first_ns += ns;
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

/* Nothing may point to a stream that is destroyed, and another can get its address. */
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
