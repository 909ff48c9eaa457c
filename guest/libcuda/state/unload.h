/* SPDX-License-Identifier: MIT */
/*
 * Whether the library's destructor runs at exit(), when threads may be in a call, or because the
 * library is unloaded, when none can be, since its code goes.
 */
#ifndef VGPU_GUEST_LIBCUDA_STATE_UNLOAD_H
#define VGPU_GUEST_LIBCUDA_STATE_UNLOAD_H

#include <stdbool.h>

/* From now on unload_under_way() can tell; before that it says no. */
void unload_watch(void);

/* Asked by the destructor. Not knowing it, no. */
bool unload_under_way(void);

#endif
