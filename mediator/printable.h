/* SPDX-License-Identifier: MIT */
/*
 * Text from outside, for logs and tables. A name with a newline in it could forge a line of the
 * log, and one with an escape sequence could change the terminal of the administrator who lists
 * VMs.
 */
#ifndef VGPU_MEDIATOR_PRINTABLE_H
#define VGPU_MEDIATOR_PRINTABLE_H

#include <stddef.h>

/*
 * Copies UTF-8; a byte that is none, or of a character that cannot be seen as it is, becomes '?'.
 * `to` has `size` bytes, and what does not fit is cut behind a whole character; it gets a NUL.
 */
void printable_copy(char *to, size_t size, const char *from);

#endif
