/* SPDX-License-Identifier: MIT */
/*
 * What the mediator gives up when it has started: from then on it talks to guests' QEMUs, and the
 * launcher alone needs rights.
 */
#ifndef VGPU_MEDIATOR_CONFINE_H
#define VGPU_MEDIATOR_CONFINE_H

#include <stddef.h>

/*
 * Gives up capabilities but one, new privileges, most system calls, and most of the file system: it
 * reads what is below these directories and the system's own, and makes and removes sockets below
 * `sockets`. NULLs are passed over. To be called when all is open that is only opened at the start;
 * it holds for threads that run already too. Returns 0, or -errno when it cannot be confined,
 * logged.
 */
int confine(const char *const reads[], size_t read_count, const char *const sockets[],
            size_t socket_count);

#endif
