/* SPDX-License-Identifier: MIT */
/*
 * Taking over what the mediator before has left: its VMs with their connections, memory, workers,
 * pools that were paused, and what it knew of the GPUs. It makes no difference how that one ended:
 * by a crash, a signal, or to make room for another release.
 *
 * Workers compute on all the time. Turns are not granted until each of them has said how it stands,
 * or ADOPT_WAIT_NS is over: a session that is alone keeps its turn and notices nothing, others wait
 * for as long as it takes to start a mediator.
 */
#ifndef VGPU_MEDIATOR_ADOPT_H
#define VGPU_MEDIATOR_ADOPT_H

#include "mediator/mediator.h"
#include "mediator/record.h"

/* The host's record: the one that was left, or a new one. Returns 0 or -errno, logged. */
int adopt_host(struct mediator *mediator);

/*
 * Adopts all VMs that were left; the pools and the launcher are there, and nobody has been let in.
 * What cannot be adopted is ended, and logged.
 */
void adopt_vms(struct mediator *mediator);

#endif
