/* SPDX-License-Identifier: MIT */
/*
 * What VMs and operators are told of the GPUs: the cards that guests read without a session
 * (protocol/vgpu-card.h), and the gauge, the process that the facts and sensors come from.
 */
#ifndef VGPU_MEDIATOR_CARDS_H
#define VGPU_MEDIATOR_CARDS_H

#include <signal.h>
#include <stdbool.h>
#include <stdint.h>

#include "protocol/vgpu-worker.h"

struct mediator;
struct vm;

/* Of a VM: what its card said last, and what it is counted from. */
struct card_meter;

/* Starts the gauge, and the timer by which cards are stored. Returns 0 or -errno. */
int cards_open(struct mediator *mediator);
void cards_close(struct mediator *mediator);

/* A worker has ended: true when it was the gauge. The arguments are launcher_next_end()'s. */
bool cards_ended(struct mediator *mediator, const siginfo_t *info, uint64_t start);

/* Stores the VM's card, unless it says what it said last. Nothing without memory. */
void cards_tell(struct vm *vm);

/* Frees what is the VM's; NULL is allowed. */
void cards_forget(struct card_meter *meter);

/*
 * What is known of a GPU, by the driver's number; where the CPU computes, of that. NULL when
 * nothing is. Valid until the event's end.
 */
const struct vgpu_gauge *cards_gauge(const struct mediator *mediator, uint32_t number);

#endif
