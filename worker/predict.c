/* SPDX-License-Identifier: MIT */
/* How long a piece of work will take, see predict.h. */
#include "worker/predict.h"

#define NS_MAX (UINT64_C(1) << 40) /* of a prediction, so that products stay in range */

uint64_t predict_kind(uint64_t kind, uint64_t value)
{
    /* The finalizer of splitmix64, which spreads every bit over all. */
    kind = (kind ^ value) + UINT64_C(0x9e3779b97f4a7c15);
    kind = (kind ^ kind >> 30) * UINT64_C(0xbf58476d1ce4e5b9);
    kind = (kind ^ kind >> 27) * UINT64_C(0x94d049bb133111eb);
    kind ^= kind >> 31;
    return kind != 0 ? kind : 1;
}

struct prediction *predict_find(struct predictor *predictor, uint64_t kind, uint64_t guess_ns)
{
    struct prediction *place = &predictor->places[kind % PREDICT_PLACES];

    if (place->kind != kind) {
        *place = (struct prediction){.kind = kind, .ns = guess_ns};
    }
    return place;
}

void predict_learn(struct prediction *prediction, uint64_t ns)
{
    const uint64_t now = ns < NS_MAX ? ns : NS_MAX;

    if (!prediction->measured) {
        prediction->ns = now;
    } else if (now > prediction->ns) {
        prediction->ns += (now - prediction->ns + 1) / 2;
    } else {
        prediction->ns -= (prediction->ns - now) / 8;
    }
    prediction->measured = true;
}
