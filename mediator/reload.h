/* SPDX-License-Identifier: MIT */
/* The configuration, at the start and again. */
#ifndef VGPU_MEDIATOR_RELOAD_H
#define VGPU_MEDIATOR_RELOAD_H

#include "common/version.h"
#include "mediator/mediator.h"

#define RELOAD_DEFAULT_FILE VGPU_SYSCONFDIR "/mediator.conf"

/* Reads the configuration into mediator->config. Returns the number of mistakes, each logged. */
int reload_first(struct mediator *mediator);

/* Called with each line that is logged, for whoever asked; the text is the caller's. */
typedef void reload_line(void *context, const char *text);

/*
 * The number of mistakes in it as it is now, each logged, with what else would keep a mediator from
 * starting; nothing changes. `line` may be NULL, here and below.
 */
int reload_check(const struct mediator *mediator, reload_line *line, void *context);

/*
 * Reads it again, and takes over what may change; a line is told for each change that takes a
 * restart. Nothing changes when there are mistakes in it: -EINVAL, and a line for each.
 */
int reload_again(struct mediator *mediator, reload_line *line, void *context);

#endif
