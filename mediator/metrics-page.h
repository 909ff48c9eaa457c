/* SPDX-License-Identifier: MIT */
/* The metrics in the text format of Prometheus, version 0.0.4. */
#ifndef VGPU_MEDIATOR_METRICS_PAGE_H
#define VGPU_MEDIATOR_METRICS_PAGE_H

#include <stddef.h>

#include "mediator/mediator.h"

/* The page of now, which is the caller's to free; NULL when memory is short. */
char *metrics_page(struct mediator *mediator, size_t *length);

#endif
