/* SPDX-License-Identifier: MIT */
/*
 * GPUs that get no worker any more: for maintenance, or because they misbehave. It is an operator's
 * to say, and lasts until it is taken back, also over the ends of mediators.
 */
#ifndef VGPU_MEDIATOR_DRAIN_H
#define VGPU_MEDIATOR_DRAIN_H

#include "mediator/mediator.h"

/*
 * No worker is placed on the GPU with this number any more, or workers are again. Register mode's
 * workers that are there move, sessions go on where they are. Returns how many sessions are there,
 * or -ENOENT: no pool has this GPU.
 */
int drain_gpu(struct mediator *mediator, uint32_t number, bool drained);

/* The pool's GPUs are as another mediator had them. */
void drain_adopt(const struct mediator *mediator, struct pool *pool);

#endif
