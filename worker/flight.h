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
 * The clock is passed in.
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
    uint32_t part;                 /* of the engine that it fills, of PREDICT_WHOLE */
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

/* Whether a piece may be submitted now, by all that is in flight. */
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

/* It has been submitted. */
void flight_add(struct flight *flight, const struct flight_piece *piece, uint64_t now_ns);

/* Looks what is done. Returns whether anything was. */
bool flight_poll(struct flight *flight, uint64_t now_ns);

/* What is on the GPU now shares it with others: nothing is learned from it. */
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

/* How long the engine will be busy with it, at most. */
uint64_t flight_remaining(const struct flight *flight, enum vgpu_engine engine, uint64_t now_ns);

/* In how long something is expected to end, less the window; 0: at any moment. */
uint64_t flight_next(const struct flight *flight, uint64_t now_ns);

/* Whether a piece has been on the GPU for longer than the VM's terms allow. */
bool flight_overlong(const struct flight *flight, uint64_t now_ns);

/* The stream's work is done, and it goes. */
void flight_forget(struct flight *flight, struct gpu_stream *stream, uint64_t now_ns);

/* Gives back what it holds of the GPU. */
void flight_release(struct flight *flight);

#endif
