/* SPDX-License-Identifier: MIT */
/*
 * Where Prometheus asks: GET /metrics over HTTP, at a loopback port or a socket's path.
 * docs/metrics.md lists what is answered.
 *
 * Served from the mediator's own event loop, behind everything else that is due. What a client may
 * cost is bounded: few connections, of limited silence, so many events in a second, and a page
 * that is made anew only when the last one is old.
 */
#ifndef VGPU_MEDIATOR_METRICS_H
#define VGPU_MEDIATOR_METRICS_H

#include "mediator/mediator.h"

struct metrics;

/*
 * Listens where the configuration says. Returns 0 or -errno, logged; *started is NULL where they
 * are off, or where that address is not to be had, which is logged too.
 */
int metrics_start(struct mediator *mediator, struct metrics **started);

/* To be called before the event loop is freed. */
void metrics_stop(struct metrics *metrics);

#endif
