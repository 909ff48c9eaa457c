/* SPDX-License-Identifier: MIT */
/*
 * In which order commands may be carried out, when work that may not be submitted yet waits before
 * them.
 *
 * An example. A program launches two kernels in stream A, the second of which has to wait for a
 * turn, and then allocates memory, asks whether stream B is done, and waits for stream A. The
 * allocation does not depend on anything before it: it is done at once. Nothing that waits is in
 * stream B: it is asked at once. The wait for A is parked until the second launch has been
 * submitted, and then waits for its end. A third launch would come last, behind the second.
 */
#ifndef VGPU_WORKER_ORDER_H
#define VGPU_WORKER_ORDER_H

#include <stdint.h>

#include "worker/backlog.h"

/* When a command may be carried out that comes behind others which wait. */
enum order_place {
    ORDER_NOW,       /* it does not depend on them */
    ORDER_AFTER,     /* as soon as some of them are: it waits for their work */
    ORDER_LAST,      /* after all of them */
    ORDER_NOT_READY, /* never: it asks whether they are done, and they are not */
};

/*
 * The place of a command behind `head`, which waits, and the backlog behind that. `alone`: nobody
 * else wants the GPU. *before: for ORDER_AFTER, how many of them have to be carried out first, the
 * head included.
 */
enum order_place order_place(const struct command_facts *head, const struct backlog *backlog,
                             const struct command_facts *facts, bool alone, uint64_t *before);

#endif
