/* SPDX-License-Identifier: MIT */
/*
 * How long a piece of work will take: a table in which each kind has one place, by its hash. Two
 * kinds of the same place take it from each other, and the one that comes back starts from a guess
 * again. So before anything is learned about a kind its place is looked at once more.
 *
 * A first measurement is believed as it is. After that a longer one counts by half, a shorter one
 * by an eighth. With 300 us predicted and 500 measured the next prediction is 400; with 300 then
 * measured, 387.5. A prediction that is too short makes others wait; one that is too long only
 * wastes some of the GPU's time.
 */
#include "worker/predict.h"

#define NS_MAX (UINT64_C(1) << 40) /* of a prediction, so that products stay in range */

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
