/* SPDX-License-Identifier: MIT */
/* How long a piece of work will take, see predict.h. */
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
