/* SPDX-License-Identifier: MIT */
/* The worker's side of a turn word, see protocol/vgpu-worker.h. */
#ifndef VGPU_WORKER_TURN_H
#define VGPU_WORKER_TURN_H

#include <stdbool.h>
#include <stdint.h>

#include "common/shared.h"
#include "protocol/vgpu-worker.h"

struct turn {
    struct vgpu_turn_page *page; /* shared with the mediator */
    int link;                    /* socket to the mediator */
    enum vgpu_engine engine;
    bool asked;   /* ASK was sent, and not yet what ends that */
    bool yielded; /* YIELD was sent, its DONE not yet */
};

/* What the word says now. */
static inline enum vgpu_turn turn_state(const struct turn *turn)
{
    return (enum vgpu_turn)shared_load_acquire(&turn->page->turn[turn->engine].state);
}

/* Takes the turn where a standing grant allows it. */
bool turn_try(struct turn *turn);

/* Asks for a turn; VGPU_LINK_TURN announces it. Returns 0 or -errno of the link. */
int turn_ask(struct turn *turn);

/* Whether the turn that was asked for has been granted. */
bool turn_granted(const struct turn *turn);

/*
 * Gives a turn up to which nothing is added: from `from_ns` on the next may submit. turn_finish()
 * follows when its work is done. Nothing happens where nobody waits for it any more: then *done is
 * false. Returns 0 or -errno of the link.
 */
int turn_yield(struct turn *turn, uint64_t from_ns, bool *done);

/* How it stands, for VGPU_LINK_STATE. */
uint32_t turn_tell(const struct turn *turn);

/* Ends a turn that has no work left. Returns 0 or -errno of the link. */
int turn_finish(struct turn *turn);

#endif
