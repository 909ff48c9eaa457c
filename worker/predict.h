/* SPDX-License-Identifier: MIT */
/*
 * How long a piece of work will take on the GPU: as long as the last ones of its kind. A table of
 * fixed size; what is not in it is unknown. A kind is a function with its grid, or a copy of some
 * size. Pure.
 */
#ifndef VGPU_WORKER_PREDICT_H
#define VGPU_WORKER_PREDICT_H

#include <stdbool.h>
#include <stdint.h>

#define PREDICT_PLACES 512u

/* All of a GPU. */
#define PREDICT_WHOLE 256u

struct prediction {
    uint64_t kind; /* 0: an unused place */
    uint64_t ns;   /* how long the next piece is expected to take */
    uint32_t part; /* of the GPU that it fills, of PREDICT_WHOLE, at least 1; 0: not known yet */
    bool measured; /* false: `ns` is a guess, and the first measurement replaces it */
};

struct predictor {
    struct prediction places[PREDICT_PLACES];
    /* The last launch, since many are of the function and shape of the one before. */
    struct {
        const void *function;
        uint64_t shape[3];
        uint64_t kind;
        uint32_t shared_bytes;
    } last;
};

/* Mixes another value into a kind; start with any but 0. The result is one that is never 0. */
static inline uint64_t predict_kind(uint64_t kind, uint64_t value)
{
    /* The finalizer of splitmix64, which spreads every bit over all. */
    kind = (kind ^ value) + UINT64_C(0x9e3779b97f4a7c15);
    kind = (kind ^ kind >> 30) * UINT64_C(0xbf58476d1ce4e5b9);
    kind = (kind ^ kind >> 27) * UINT64_C(0x94d049bb133111eb);
    kind ^= kind >> 31;
    return kind != 0 ? kind : 1;
}

/*
 * The place of a kind. For a new kind, the one that had the place is forgotten and `guess_ns` is
 * predicted. The pointer stays valid, but the place may become another kind's: flight.c compares.
 */
static inline struct prediction *predict_find(struct predictor *predictor, uint64_t kind,
                                              uint64_t guess_ns)
{
    struct prediction *place = &predictor->places[kind % PREDICT_PLACES];

    if (place->kind != kind) {
        *place = (struct prediction){.kind = kind, .ns = guess_ns};
    }
    return place;
}

/*
 * A piece of the kind took `ns`. The prediction rises fast and falls slowly: one that is too short
 * makes others wait.
 */
void predict_learn(struct prediction *prediction, uint64_t ns);

#endif
