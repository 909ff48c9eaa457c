/* SPDX-License-Identifier: MIT */
/* What a command, which is work, will be on the GPU: its engine, its stream, how long it takes. */
#ifndef VGPU_WORKER_ESTIMATE_H
#define VGPU_WORKER_ESTIMATE_H

#include "worker/execution.h"
#include "worker/flight.h"

/* Bytes of large copies and fills that are submitted at a time, where others want the GPU too. */
#define ESTIMATE_COPY_PIECE (UINT64_C(4) << 20)
#define ESTIMATE_FILL_PIECE (UINT64_C(64) << 20)

/* How much of `left` is submitted at once: all, or where others want the GPU a piece. */
uint64_t estimate_piece(const struct vgpu_turn_page *page, uint64_t left, uint64_t piece);

/* Fills in the command, or the next piece of it, as work. */
static inline void estimate(const struct execution *x, struct flight_piece *piece)
{
    const struct command_rule *rule = x->facts->rule;

    *piece = (struct flight_piece){
        .engine = (enum vgpu_engine)x->facts->engine,
        .stream = x->objects[rule->stream],
        .gate = (x->facts->flags & COMMAND_GATE) != 0,
    };
    if (rule->estimate) {
        rule->estimate(x, piece);
    }
}

#endif
