/* SPDX-License-Identifier: MIT */
/* The worker's side of the turn page, see protocol/vgpu-worker.h. */
#ifndef VGPU_WORKER_TURN_H
#define VGPU_WORKER_TURN_H

#include <stdbool.h>
#include <stdint.h>

#include "vgpu-worker.h"

struct turn {
    struct vgpu_turn_page *page; /* shared with the mediator */
    int link;                    /* socket to the mediator */
    bool asked;                  /* ASK was sent, its DONE not yet */
};

/* Takes the turn where a standing grant allows it. */
bool turn_try(struct turn *turn);

/* Asks for a turn; VGPU_LINK_TURN announces it. Returns 0 or -errno of the link. */
int turn_ask(struct turn *turn);

/* Ends a turn. Returns 0 or -errno of the link. */
int turn_finish(struct turn *turn);

#endif
