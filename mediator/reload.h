/* SPDX-License-Identifier: MIT */
/* The configuration, at the start and again. */
#ifndef VGPU_MEDIATOR_RELOAD_H
#define VGPU_MEDIATOR_RELOAD_H

#include "common/version.h"
#include "mediator/mediator.h"

#define RELOAD_DEFAULT_FILE VGPU_SYSCONFDIR "/mediator.conf"

/* Reads the configuration into mediator->config. Returns the number of mistakes, each logged. */
int reload_first(struct mediator *mediator);

/* The number of mistakes in it as it is now, each logged; nothing changes. */
int reload_check(const struct mediator *mediator);

/*
 * Reads it again, and takes over what may change. Returns how many changes take a restart, each
 * logged. Nothing changes when there are mistakes in it: -EINVAL, logged.
 */
int reload_again(struct mediator *mediator);

#endif
