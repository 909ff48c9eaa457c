/* SPDX-License-Identifier: MIT */
/*
 * A session's work on the GPU: what is submitted and not done, how long it will take, and so
 * whether more may be submitted.
 *
 * Theory of operation
 * -------------------
 * Work is counted in segments: some pieces in a row in one stream. A segment is open while more
 * may be added; its end is the stream's, and costs nothing to watch. It is closed, by a fence,
 * when it holds enough: then its end is seen by itself. So launches that are waited for one by one
 * cost no event, and long ones are each known for what they are.
 *
 * What is predicted for each piece adds up to how long a stream will be busy. With a window,
 * more may be submitted to a stream when less than that is left there: long kernels follow each
 * other one by one, the next submitted just before the last ends, and short ones in a row. Several
 * streams may be busy as far as they fill the GPU together, or are about to end.
 *
 * When a segment ends its time is counted and its pieces' predictions learn from it, unless
 * something else was on the GPU as well. The first of a turn takes longer: a GPU needs some
 * 200 us to turn from one process to another. That is learned by itself.
 *
 * A stream may wait for something that is not the GPU's: a word that the guest writes, say. Such a
 * gate ends its segment. Nothing is learned while one stands, and no limit of kernels holds
 * for it; it does for what waits for it in another stream, since nobody could tell that from a
 * kernel that takes too long.
 *
 * An example: two pieces of work in flight
 * ----------------------------------------
 * The window is 100 us. The turn is granted now, at 0, and others of the band wait for it: its word
 * is SHARED, until 1000 us. The session has one stream and kernels K1, K2, ... that are predicted
 * to take 400 us each. No switch time has been learned.
 *
 *      0 us   K1 finds 0 us of work before it, and is submitted. K2 would find 400, more than the
 *             window, and waits. flight_next() says 250: K1 may end an eighth (50 us) sooner than
 *             predicted, and K2 may come a window before that.
 *    300 us   K1 has 100 us left, so K2 is let in. Two pieces are in flight; flight_remaining() is
 *             500. K3 would find those 500.
 *    400 us   K1 ends as predicted. K2 starts without a gap, and its time begins.
 *    700 us   K2 has 100 us left, so K3 is let in. It will end at 1200: when it is down to a
 *             window, at 1100, the slice is over, and K4 will not be let in. So turns.c yields now,
 *             from 1150 us on: half a window before the end. The mediator grants the turn to the
 *             next worker, whose first kernel is there when K3 ends.
 *    800 us   K2 ends, and K3's time begins.
 *   1200 us   K3 ends: DONE. From 1150 on each of the two sessions has had one piece in flight.
 *
 * Had K1 taken 2000 us instead: at 300 us K2 is let in as before. From 400 us on nothing is left of
 * K1 by its prediction, but K2 has its 400 us, so K3 waits. At 2000 us the kind learns half of the
 * error, and 1200 us are predicted from then on. So a prediction that is too short costs others one
 * kernel more, and not a queue of them.
 *
 * With two streams, and a part of 128 of PREDICT_WHOLE (256) for each kernel: one kernel of each
 * stream is let in at 0, since together they fill the GPU. A third, of part 64 in another stream,
 * is let in at 300 us: then 100 us are left of both, of half the GPU each, which is a window.
 *
 * There is no clock here: times are passed in.
 */
#ifndef VGPU_WORKER_FLIGHT_H
#define VGPU_WORKER_FLIGHT_H

#include <stdbool.h>
#include <stdint.h>

#include "common/shared.h"
#include "protocol/vgpu-worker.h"
#include "worker/gpu.h"
#include "worker/predict.h"

#define FLIGHT_SEGMENTS 96u
/* Pieces of work that may be submitted and not done: the driver has room for some 1,000. */
#define FLIGHT_PIECES 512u
/* Pieces in a segment; and in one whose predictions learn. */
#define FLIGHT_SEGMENT_PIECES 64u
#define FLIGHT_LEARNERS 32u

/* A piece of work that is about to be submitted. */
struct flight_piece {
    enum vgpu_engine engine;
    struct gpu_stream *stream;     /* NULL: the default one */
    uint64_t ns;                   /* predicted */
    uint32_t part;                 /* how much of the engine it fills, of PREDICT_WHOLE */
    struct prediction *prediction; /* NULL: nothing to learn */
    bool first;                    /* of a turn: the GPU may have to turn to this process first */
    bool gate;                     /* its stream may wait for something that is not the GPU's */
};

/* A kind of which a segment has pieces. */
struct flight_learner {
    struct prediction *prediction;
    uint64_t kind;
    uint64_t ns; /* predicted for its pieces */
    uint32_t pieces;
};

struct flight_segment {
    struct flight_segment *next;   /* in the order of their begin, or of the free ones */
    struct flight_segment *before; /* in its stream; NULL: none any more */
    struct gpu_stream *stream;
    bool closed;
    bool first;             /* of a turn */
    uint64_t switch_ns;     /* in predicted_ns, for the GPU to turn to this process */
    bool disturbed;         /* something else was on the GPU as well, or it waited for the guest */
    bool gate;              /* ends with one */
    struct gpu_fence fence; /* when closed */
    uint32_t pieces, works, learners, part; /* works: pieces that take time */
    uint64_t begun_ns;                      /* when nothing was before it any more */
    uint64_t predicted_ns, engine_ns[VGPU_ENGINES];
    uint32_t engines; /* bit N: holds work of engine N */
    struct flight_learner learner[FLIGHT_LEARNERS];
};

struct flight {
    /* Set by flight_init(). */
    struct gpu *gpu;
    struct vgpu_turn_page *page;

    struct flight_segment segments[FLIGHT_SEGMENTS];
    struct flight_segment *first, *last, *free;
    uint32_t pieces;                   /* submitted and not done */
    uint64_t predicted_ns;             /* for all of them, whatever has passed of it */
    uint32_t gates;                    /* segments that end with one */
    uint64_t counted_ns[VGPU_ENGINES]; /* up to when time is counted */
    uint64_t switch_ns;                /* what the GPU takes, of late, to turn to this process */
    uint64_t first_ns;                 /* since when the first segment is the first */
    uint64_t idle_ns[VGPU_ENGINES];    /* since when the engine has nothing of this session */
};

void flight_init(struct flight *flight, struct gpu *gpu, struct vgpu_turn_page *page);

/*
 * Work at a time, in a stream, of a session that is alone on the GPU. Others that come later share
 * the GPU with that, by its own time slicing; it has to be far less than turn-limit.
 */
#define FLIGHT_ALONE_NS UINT64_C(5000000000)

/*
 * Whether a piece may be submitted now: the whole weighing, of which flight_may() is the short way.
 */
bool flight_weigh(const struct flight *flight, const struct flight_piece *piece, uint64_t now_ns);

/* Whether a piece may be submitted now. */
static inline bool flight_may(const struct flight *flight, const struct flight_piece *piece,
                              uint64_t now_ns)
{
    const struct vgpu_terms *terms = &flight->page->terms;

    /* Mostly a session is alone, has no limit, and has far less in flight than it might. */
    if (shared_load64(&terms->window_ns) == 0 && shared_load(&terms->commands) == 0 &&
        flight->pieces < FLIGHT_PIECES && flight->free && flight->predicted_ns <= FLIGHT_ALONE_NS) {
        return true;
    }
    return flight_weigh(flight, piece, now_ns);
}

/* Notes a piece for which flight_may() was true just now. flight.c says when to call it. */
void flight_add(struct flight *flight, const struct flight_piece *piece, uint64_t now_ns);

/* Ends the segments that the GPU is done with. Returns whether there were any. */
bool flight_poll(struct flight *flight, uint64_t now_ns);

/* Work that is on the GPU now shares it with others, so nothing is learned from its time. */
void flight_disturb(struct flight *flight);

/* Whether the session has work on the engine, or on any. */
static inline bool flight_busy(const struct flight *flight, enum vgpu_engine engine)
{
    for (const struct flight_segment *s = flight->first; s; s = s->next) {
        if (s->engines & 1u << engine) {
            return true;
        }
    }
    return false;
}

static inline bool flight_idle(const struct flight *flight)
{
    return !flight->first;
}

/* How long the engine will be busy with the session's work, at most, as predicted; in ns. */
uint64_t flight_remaining(const struct flight *flight, enum vgpu_engine engine, uint64_t now_ns);

/* In how many ns the window may let more in, at the earliest; 0: at any moment. */
uint64_t flight_next(const struct flight *flight, uint64_t now_ns);

/* All work was off the GPU for so long: that was none of its time. Nothing is learned from it. */
void flight_shift(struct flight *flight, uint64_t ns);

/* Whether a piece has been on the GPU for longer than the VM's terms allow. */
bool flight_overlong(const struct flight *flight, uint64_t now_ns);

/* The stream is about to be destroyed; its work is done. */
void flight_forget(struct flight *flight, struct gpu_stream *stream, uint64_t now_ns);

/* Gives all fences back, when the session ends. */
void flight_release(struct flight *flight);

#endif
