/* SPDX-License-Identifier: MIT */
/*
 * Interrupts of a VM, at the rate that it is allowed. One that comes too early is owed, and sent
 * when its time has come: several may become one, none is lost.
 */
#ifndef VGPU_WORKER_INTERRUPT_H
#define VGPU_WORKER_INTERRUPT_H

#include <stdbool.h>
#include <stdint.h>

#include "protocol/vgpu-worker.h"
#include "worker/pace.h"

struct interrupt {
    int fd;                      /* eventfd */
    struct vgpu_turn_page *page; /* has the rate, and counts; NULL: no limit */
    struct pace pace;
    bool owed;
};

/* Sends one, now or later. */
void interrupt_raise(struct interrupt *interrupt);

/* Sends what is owed, whatever its time: there is no later. */
void interrupt_flush(struct interrupt *interrupt);

/* Sends what is owed, if its time has come. Returns in how many ns it will; 0: nothing is owed. */
uint64_t interrupt_serve(struct interrupt *interrupt);

#endif
